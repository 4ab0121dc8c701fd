"""What every node of a cluster must share before a study starts, asked on the nodes themselves.

Plain functions: `launch/nodes.py` runs them on every node. Nothing here raises for what it finds: a finding is a
sentence with what is wrong, where it was set, what is allowed and what to do, and all of them are shown together.
"""

import hashlib
import importlib
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from posegrid.datasets.addresses import RemoteFolder, is_address, remote_folder, shown, without_secrets
from posegrid.datasets.store import open_store
from posegrid.datasets.store_cache import local_store
from posegrid.orchestration.tracking import Tracking

PACKAGES = ("ray", "torch", "mlflow", "numpy", "pyarrow")
"""Packages whose versions must be equal: processes of different nodes exchange what they pickle and save."""
_ROOMS = ("datasets", "models", "orchestration", "experiments")
_SOURCES = (".py", ".toml", ".json", ".sh")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a study needs of a node."""

    tracking: str
    """Address of the tracking store."""
    storage: str
    """Folder or address for the state of unfinished runs."""
    data: str = ""
    """Folder or address of the data store; empty asks nothing."""
    data_hash: str = ""
    """Content hash that it must have."""
    every_byte: bool = False
    """Recompute the hash from the data; else it is read from the store's description."""
    probe: str
    """Name of the folder of this check under `storage`, which no other check has."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a node says of itself."""

    node: str
    """Name that the driver gave it."""
    versions: dict[str, str]
    """Package -> version, and "posegrid" -> digest of its source files."""
    findings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """What was asked -> seconds it took."""


def answer(question: Question, node: str) -> Answer:
    """Run on a node: its versions, a file written to the storage, an artifact through the tracking store, its data."""
    asked: dict[str, Callable[[], str]] = {
        "storage": lambda: _write(question, node),
        "tracking": lambda: _track(question),
        "data": lambda: _data(question),
    }
    findings, seconds = [], {}
    for what, ask in asked.items():
        began = time.monotonic()
        found = ask()
        seconds[what] = time.monotonic() - began
        findings += [found] if found else []
    return Answer(node=node, versions=installed(), findings=findings, seconds=seconds)


def unseen(question: Question, nodes: Iterable[str]) -> list[str]:
    """Run on a node: which of the nodes' files in the storage cannot be read here."""
    folder = _storage(question)
    missing = []
    for node in nodes:
        try:
            with folder.filesystem.open_input_stream(folder.file(_file(node))) as stream:
                same = stream.read().decode() == node
        except (pa.ArrowException, OSError):
            same = False
        if not same:
            missing.append(node)
    return missing


def clean_up(question: Question) -> None:
    """Run on one node that can: remove the folder of this check from the storage."""
    folder = _storage(question)
    try:
        folder.filesystem.delete_dir(folder.path)
    except (pa.ArrowException, OSError):
        return  # a few bytes stay, in a folder whose name says what it was


def installed() -> dict[str, str]:
    """Versions that must be equal on all nodes. A build for another accelerator ("+cu130") is the same version."""
    found = {"python": ".".join(platform.python_version_tuple()[:2]), "posegrid": source_digest()}
    for package in PACKAGES:
        try:
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def source_digest() -> str:
    """Digest of the source files of posegrid as they are imported here; the version number rarely changes with them."""
    digest = hashlib.sha256()
    for room in _ROOMS:
        folder = Path(next(iter(importlib.import_module(f"posegrid.{room}").__path__)))
        for file in sorted(file for file in folder.rglob("*") if file.suffix in _SOURCES):
            digest.update(f"{room}/{file.relative_to(folder).as_posix()}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def compare(driver: Mapping[str, str], answers: Iterable[Answer]) -> list[str]:
    """All findings: those of the nodes, and versions that differ from the driver's."""
    where: dict[str, list[str]] = {}
    for one in answers:
        differing = [
            f"{package} {one.versions.get(package, 'missing')} (the driver has {wanted})"
            for package, wanted in driver.items()
            if one.versions.get(package) != wanted
        ]
        own = list(one.findings)
        if differing:
            own.append(
                f"{', '.join(differing)}; set by what is installed there (posegrid's number is a digest of its files). "
                "Allowed: what the driver has. Run `ray up` with the same wheel, or submit with `posegrid submit`, "
                "which brings its own."
            )
        for finding in own:
            where.setdefault(finding, []).append(one.node)
    return [f"{', '.join(nodes)}: {finding}" for finding, nodes in where.items()]


def unshared(question: Question, missing: Mapping[str, list[str]]) -> list[str]:
    """What to say when nodes (keys) do not see the files that others wrote."""
    if not any(missing.values()):
        return []
    pairs = "; ".join(f"{node} does not see that of {', '.join(others)}" for node, others in missing.items() if others)
    return [
        f"the storage {shown(question.storage)} is not the same on all nodes: every node wrote a file there, and "
        f"{pairs}. It was set with --storage, or by default lies under --home. Allowed: a shared file system, or an "
        "address such as s3://bucket/state. Without it, a run whose node is lost could not continue on another."
    ]


def refusal(findings: list[str], nodes: int) -> ValueError:
    """The error that shows all findings."""
    lines = "\n".join(f"  {finding}" for finding in findings)
    return ValueError(f"the cluster of {nodes} node(s) cannot run this study. Nothing was started. Found:\n{lines}")


def _storage(question: Question) -> RemoteFolder:
    """The folder of this check. The options of an address stay last: s3://bucket/state?region=eu-west-1."""
    place, mark, options = question.storage.partition("?")
    path = f"{place.rstrip('/')}/{question.probe}{mark}{options}"
    if is_address(path):
        return remote_folder(path)
    return RemoteFolder(address=path, filesystem=fs.LocalFileSystem(), path=path)


def _file(node: str) -> str:
    """Name of a node's file."""
    return re.sub(r"[^\w.-]+", "_", node)


def _write(question: Question, node: str) -> str:
    try:
        folder = _storage(question)
        if folder.filesystem.type_name == "local":
            folder.filesystem.create_dir(folder.path, recursive=True)
        with folder.filesystem.open_output_stream(folder.file(_file(node))) as stream:
            stream.write(node.encode())
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = without_secrets(str(error), question.storage) if is_address(question.storage) else str(error)
        return (
            f"the storage {shown(question.storage)} cannot be written there ({reason}); it was set with --storage, or "
            "by default lies under --home. Allowed: a folder or address that every node may write. Correct it, or the "
            "rights of the nodes."
        )
    return ""


def _track(question: Question) -> str:
    try:
        Tracking.open(question.tracking).probe()
    except Exception as error:  # MLflow passes on whatever its stores and the network raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return (
            f"no run with an artifact could be written and read back in the tracking store ({reason}); it was set with "
            "--tracking or MLFLOW_TRACKING_URI. Allowed: a server that every node reaches, with artifacts served "
            "through it. Correct the address, or open the way to it."
        )
    return ""


def _data(question: Question) -> str:
    if not question.data:
        return ""
    try:
        folder = local_store(question.data, content_hash=question.data_hash, verify=question.every_byte)
        found = open_store(folder, verify=question.every_byte).content_hash
    except ValueError as error:
        return (
            f"{error} The store was set with --data. Allowed: one that every node has at the same path, or an address "
            "from which each fetches it once (`posegrid publish`)."
        )
    if found != question.data_hash:
        return (
            f"the store at {shown(question.data)} has hash {found[:12]} there, the driver's has "
            f"{question.data_hash[:12]}; it was set with --data. Allowed: the same store on every node. Copy it again, "
            "or give an address from which each node fetches it once (`posegrid publish`)."
        )
    return ""
