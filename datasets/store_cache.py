"""Stores behind an address: every node fetches one once into a folder of its own, verified, and all its processes share
that copy's pages.

A cache folder holds one folder for each store, named by its content hash, and `.HASH.lock` beside it. What is fetched
lies in `.HASH.partial-PID` until every byte is verified; what a killed process left there goes with the next fetch.
Entries are never removed otherwise: delete the folder of a store that is not needed any more.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from posegrid.datasets.addresses import RemoteFolder, is_address, reaching, remote_folder, shown
from posegrid.datasets.store import DESCRIPTION, FRAMES, SEQUENCES, open_store, read_description, verify_store

_FILES = (FRAMES, SEQUENCES, DESCRIPTION)
"""The description comes last: with it, a folder is a store."""
_SEAL = "fetched.json"
"""Size and time of the files when their hash was last seen to match."""
_CHUNK = 8 * 2**20


def default_cache() -> Path:
    """The folder named by POSEGRID_CACHE, else ~/.cache/posegrid/stores. Must be a disk of this machine to be fast."""
    return Path(os.environ.get("POSEGRID_CACHE") or Path.home() / ".cache" / "posegrid" / "stores")


def local_store(
    address: str | Path, cache: Path | None = None, *, content_hash: str | None = None, verify: bool = False
) -> Path:
    """The folder of a store: a folder as it is, for an address the copy in `cache` (`default_cache`), fetched once.

    Processes that ask at the same time fetch once: the others wait for it. A copy whose files changed since they were
    verified is verified again, and fetched again if it is damaged. content_hash: what the store must be; a copy is then
    found without asking the address. verify: recompute the hash of a copy that was there already.
    Raises ValueError if there is no store, it is another one, its bytes do not match their hash, it changes meanwhile,
    the address cannot be reached or the cache not be written.
    """
    if not is_address(address):
        return Path(address)
    cache, address = (cache or default_cache()).absolute(), str(address)
    with _writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
    if content_hash and _usable(cache / content_hash, verify):
        return cache / content_hash
    remote = remote_folder(address)
    description, found = _description(remote)
    if content_hash not in (None, found):
        raise ValueError(
            f"the store at {shown(address)} has hash {found[:12]}, wanted is {str(content_hash)[:12]}: it was "
            "replaced. Publish the wanted one again, or repeat the command to plan with the new one."
        )
    entry = cache / found
    if _usable(entry, verify):
        return entry
    with _writing(cache):
        lock = FileLock(cache / f".{found}.lock")
        lock.acquire()
    try:
        if not _usable(entry, verify):
            _fetch(remote, description, entry)
    finally:
        lock.release()
    return entry


def publish(store: Path, address: str) -> str:
    """Upload a store; its description comes last, so that half of one never looks finished. Returns its hash.

    The store is verified first. Where the same store is already, nothing happens.
    Raises ValueError if the store is damaged, another one is at the address, or the address cannot be written.
    """
    opened = open_store(store)
    remote = remote_folder(address)
    with reaching(address):
        there = remote.filesystem.get_file_info(remote.file(DESCRIPTION)).is_file
    if there:
        found = _description(remote)[1]
        if found == opened.content_hash:
            return found
        raise ValueError(
            f"{shown(address)} holds another store (hash {found[:12]}, this one has {opened.content_hash[:12]}), which "
            "somebody may be reading. Choose another address, or remove that one first."
        )
    with reaching(address):
        if remote.filesystem.type_name == "local":
            remote.filesystem.create_dir(remote.path, recursive=True)
        for name in _FILES:
            with (
                (opened.path / name).open("rb") as source,
                remote.filesystem.open_output_stream(remote.file(name), compression=None) as sink,
            ):
                while chunk := source.read(_CHUNK):
                    sink.write(chunk)
    return opened.content_hash


def _description(remote: RemoteFolder) -> tuple[bytes, str]:
    """The description's bytes and the content hash that it tells. Raises ValueError if there is no usable one."""
    with reaching(remote.address):
        if not remote.filesystem.get_file_info(remote.file(DESCRIPTION)).is_file:
            raise ValueError(
                f"no data store at {shown(remote.address)} ({DESCRIPTION} is missing, or its upload is not finished). "
                "Put one there with `posegrid publish STORE ADDRESS`."
            )
        with remote.filesystem.open_input_stream(remote.file(DESCRIPTION), compression=None) as stream:
            content = stream.read()
    try:
        found = json.loads(content)["content_hash"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    # it becomes the name of a folder
    if not isinstance(found, str) or not re.fullmatch("[0-9a-f]{64}", found):
        raise ValueError(
            f"{DESCRIPTION} at {shown(remote.address)} is damaged (it tells no content hash). Remove that store and "
            "publish it again."
        )
    return content, found


def _usable(entry: Path, verify: bool) -> bool:
    """Whether the cache holds an undamaged copy. Sizes and times tell of changes; only then, or if asked, bytes do."""
    try:
        sealed = json.loads((entry / _SEAL).read_text())
        stamps = _stamps(entry)
    except (OSError, ValueError):
        return False
    if sealed == stamps and not verify:
        return True
    try:
        good = open_store(entry).content_hash == entry.name
    except ValueError:
        return False
    if good and sealed != stamps:
        _seal(entry, stamps)
    return good


def _fetch(remote: RemoteFolder, description: bytes, entry: Path) -> None:
    """Copy, verify, rename. The caller holds the entry's lock."""
    cache, where = entry.parent, shown(remote.address)
    with _writing(cache):
        for left in cache.glob(f".{entry.name}.partial-*"):
            shutil.rmtree(left)
        aside = cache / f".{entry.name}.partial-{os.getpid()}"
        aside.mkdir()
    try:
        with reaching(remote.address):
            sizes = [info.size or 0 for info in remote.filesystem.get_file_info([remote.file(n) for n in _FILES])]
        free = shutil.disk_usage(cache).free
        if sum(sizes) > free:
            raise ValueError(
                f"the store at {where} has {sum(sizes) / 2**30:.2f} GiB, but the disk of the cache {cache} has "
                f"{free / 2**30:.2f} GiB left. Make room, or set POSEGRID_CACHE to a folder on another disk."
            )
        for name in _FILES[:-1]:
            _copy(remote, name, aside / name)
        if _description(remote)[0] != description:
            raise ValueError(f"the store at {where} was replaced while it was copied. Repeat the command.")
        with _writing(cache):
            (aside / DESCRIPTION).write_bytes(description)
        _check_copy(aside, entry.name, where)
        with _writing(cache):
            _seal(aside, _stamps(aside))
            damaged = cache / f".{entry.name}.partial-damaged-{os.getpid()}"
            if entry.exists():
                entry.rename(damaged)  # processes that have it open keep their pages
            aside.rename(entry)
            shutil.rmtree(damaged, ignore_errors=True)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _copy(remote: RemoteFolder, name: str, target: Path) -> None:
    """One file in chunks, flushed to the disk: what is verified next must survive a loss of power."""
    with reaching(remote.address):
        stream = remote.filesystem.open_input_stream(remote.file(name), compression=None)
    with stream, _writing(target.parent.parent), target.open("xb") as sink:
        while True:
            with reaching(remote.address):
                chunk = stream.read_buffer(_CHUNK)
            if not chunk.size:
                break
            sink.write(chunk)
        sink.flush()
        os.fsync(sink.fileno())


def _check_copy(aside: Path, content_hash: str, where: str) -> None:
    try:
        read_description(aside)  # alone first: a store of another version is not a damaged one
    except ValueError as error:
        raise ValueError(f"the store at {where} cannot be used: {error}") from None
    try:
        store = open_store(aside, verify=False)
        verify_store(store)
    except ValueError as error:
        raise ValueError(
            f"what was copied from {where} does not match its hash {content_hash[:12]} ({error}) The store there is "
            "damaged, or was changed while it was copied. Repeat the command; if this stays, remove that store and "
            "publish it again."
        ) from None


def _stamps(entry: Path) -> dict[str, list[int]]:
    """File -> size and time of the last change."""
    found = {name: (entry / name).stat() for name in _FILES}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()}


def _seal(entry: Path, stamps: dict[str, list[int]]) -> None:
    """Record stamps; renamed into place, since several processes may do it."""
    aside = entry / f"{_SEAL}.{os.getpid()}"
    aside.write_text(json.dumps(stamps))
    aside.replace(entry / _SEAL)


@contextmanager
def _writing(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"the cache for stores {cache} cannot be written ({error}). Make room there, or set POSEGRID_CACHE to a "
            "folder that this user may write."
        ) from None
