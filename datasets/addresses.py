"""Addresses of folders on shared or object storage, such as s3://bucket/path, opened with `pyarrow.fs`.

Keys and passwords belong into the environment or the machine's role, but an address may carry them; nothing here puts
them into a message.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

SCHEMES = ("file", "s3", "gs", "abfs", "hdfs")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_OPEN_PARTS = ("endpoint_override", "region", "scheme")
"""Parts of a query that hold no secret."""


@dataclass(frozen=True, kw_only=True)
class RemoteFolder:
    """A folder behind an address."""

    address: str = field(repr=False)
    filesystem: fs.FileSystem = field(repr=False)
    path: str

    def file(self, name: str) -> str:
        """Path of a file in it, as `filesystem` takes it."""
        return f"{self.path}/{name}"


def is_address(where: str | Path) -> bool:
    """True for an address ("file:///shared/h36m", "s3://bucket/h36m"), False for the path of a folder."""
    return isinstance(where, str) and _ADDRESS.match(where) is not None


def shown(where: str | Path) -> str:
    """A path or address for messages and logs: without user, password and what else a query may hide."""
    if not is_address(where):
        return str(where)
    scheme, user, place, query = _parts(str(where))
    open_query = "&".join(f"{name}={value if _is_open(name, value) else '***'}" for name, value in query)
    return f"{scheme}://{'***@' if user else ''}{place}{'?' if query else ''}{open_query}"


def remote_folder(address: str) -> RemoteFolder:
    """Open the file system of an address. Raises ValueError if it is malformed or of an unknown kind."""
    try:
        filesystem, path = fs.FileSystem.from_uri(address)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"address {shown(address)} cannot be used ({without_secrets(str(error), address)}). Allowed: a folder, or "
            f"an address that begins with {', '.join(f'{scheme}://' for scheme in SCHEMES)}; parts of a query are "
            "joined with '&', as in s3://bucket/path?region=eu-west-1. Correct it."
        ) from None
    return RemoteFolder(address=address, filesystem=filesystem, path=path.rstrip("/"))


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Turn failures of a file system within the block into a ValueError that says where and what to do."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{shown(address)} cannot be read or written ({without_secrets(str(error), address)}). Check the address, "
            "the network, and the credentials in the environment of this machine, then repeat the command."
        ) from None


def without_secrets(text: str, address: str) -> str:
    """A message about an address without what `shown` hides."""
    _, user, _, query = _parts(address)
    found = [user, *user.split(":", 1), *(value for name, value in query if not _is_open(name, value))]
    found += [unquote(secret) for secret in found]
    for secret in sorted({secret for secret in found if len(secret) > 2}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _parts(address: str) -> tuple[str, str, str, list[tuple[str, str]]]:
    """Scheme, user and password, host and path, query. Everything before the last "@" counts as user and password: keys
    hold slashes, which a strict reading would take for the beginning of the path."""
    head, _, query = address.partition("?")
    scheme, _, rest = head.partition("://")
    user, _, place = rest.rpartition("@")
    pairs = [part.partition("=") for part in query.split("&") if part]
    return scheme, user, place, [(name, value) for name, _, value in pairs]


def _is_open(name: str, value: str) -> bool:
    return name in _OPEN_PARTS and "@" not in value
