"""Raw files -> store: asks a source for its recordings, reads them in parallel, puts the store together in list order.

What was read of a recording is a part file in a work folder beside the target. A preparation that is killed or fails
leaves its parts: the next one with the same source, settings and raw files continues there. What comes out depends
neither on the number of processes, nor on the order in which they finish, nor on interruptions.
"""

import hashlib
import importlib
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from posegrid.datasets.checks.anatomy import check_sequence
from posegrid.datasets.executors import Execute, in_processes
from posegrid.datasets.options import from_values, unknown
from posegrid.datasets.parts import Piece, encoded, piece_of, read_part, write_part
from posegrid.datasets.protocols import changed, read_protocol
from posegrid.datasets.schema import SCHEMA_VERSION, Origin, Recording
from posegrid.datasets.store import Store
from posegrid.datasets.store_writer import locked, remove_leftovers, write_pieces


def source_names() -> list[str]:
    """All sources: the file name in `datasets/sources` is the registration."""
    return sorted(file.stem for file in (Path(__file__).parent / "sources").glob("*.py") if file.stem != "__init__")


def source_module(name: str) -> ModuleType:
    """The module of a source. Raises ValueError naming the nearest one."""
    if name not in source_names():
        raise unknown("data source", name, "posegrid prepare", source_names())
    return importlib.import_module(f"posegrid.datasets.sources.{name}")


@dataclass(kw_only=True)
class Progress:
    """How far a preparation is; handed to its `progress` after each step."""

    total: int
    """Recordings in all."""
    done: int = 0
    """Recordings read, those of an earlier attempt included."""
    kept: int = 0
    """Recordings of an earlier attempt."""
    frames: int = 0
    """Frames of the recordings read, counted over cameras."""
    recording: str = ""
    """The one that was read last."""
    stage: str = "reading"
    """ "reading", "writing" (the store is put together) or "finished"."""
    began: float = field(default_factory=time.monotonic)
    """When the first recording was given out, seconds."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Where time went: "list", "check" (parts of an earlier attempt), "all parts" and "store" as they passed; "read",
    "hash" and "write" (parts) summed over processes."""

    @property
    def left_s(self) -> float:
        """Estimated seconds until all recordings are read; infinite before the first one is."""
        read = self.done - self.kept
        return (time.monotonic() - self.began) / read * (self.total - self.done) if read else float("inf")


def prepare(
    source: str,
    raw: Path | None,
    target: Path,
    *,
    options: dict[str, Any] | None = None,
    processes: int = 1,
    elsewhere: Execute | None = None,
    protocol: Path | None = None,
    progress: Callable[[Progress], None] = lambda state: None,
) -> Store:
    """Prepare a data set into the store at `target`, continuing an attempt that was interrupted.

    options: values of the source's Config. processes: how many read recordings on this machine. elsewhere: runs tasks
    on other machines instead, which must reach the raw files under the same path; results come back to this one.
    protocol: a TOML file that changes the source's split (see `protocols`).
    Raises ValueError for missing or broken raw files, a wrong protocol, a target that is no store or is being prepared
    by another process; parts of finished recordings are kept then.
    """
    module = source_module(source)
    config = from_values(module.Config, options or {}, f"options of data source {source}")
    changes = read_protocol(protocol) if protocol else None
    raw = raw.absolute() if raw else None
    with ExitStack() as stack:
        stack.enter_context(locked(target))
        workers = stack.enter_context(ExitStack())
        run = elsewhere or workers.enter_context(in_processes(processes))
        # listing is a task too: some sources keep what they read for it, and this process has no use for that
        [(_, (recordings, stamps, seconds))] = run(partial(_listed, source, config, elsewhere is not None), [raw])
        split = module.protocol(config, recordings)
        if changes:
            split = changed(split, changes, recordings, f"protocol file {protocol}")
        wanted = [found for found in recordings if not split.excludes(found.subject, found.name)]
        work = target.with_name(f".{target.name}.work-{_fingerprint(module, config, recordings, stamps)}")
        # numbered by the whole list, so that a part means the same under every protocol
        files = {key: work / "parts" / f"{number:06d}.part" for number, key in enumerate(map(_key, recordings))}
        if len(files) < len(recordings):
            raise ValueError(f"source {source} lists a recording twice; subject and name must be unique. Rename one.")
        state = Progress(total=len(wanted), seconds={"list": seconds})
        try:
            _make_parts(partial(_part, source, config), wanted, files, run, elsewhere is not None, state, progress)
            if any(again != stamps for _, again in run(_stamps, [recordings])):
                raise ValueError(
                    f"raw files of source {source} changed while they were read. Repeat the command when they are "
                    "complete: all recordings will be read again."
                )
        except ValueError as error:
            hint = f" ({state.done} of {state.total} recordings are read and kept for the next attempt.)"
            raise ValueError(f"{error}{hint if state.done else ''}") from None
        workers.close()  # and with them what they keep in memory
        began = time.monotonic()
        state.stage = "writing"
        progress(state)
        store = write_pieces(
            target,
            _pieces(wanted, files),
            aside=work / "store",
            **vars(_origin(module, source, config, recordings)),
            protocol=split,
        )
        remove_leftovers(target)
        state.stage, state.seconds["store"] = "finished", time.monotonic() - began
        progress(state)
        return store


def _make_parts(
    make: Callable[..., "_Made"],
    wanted: list[Recording],
    files: dict[str, Path],
    run: Execute,
    elsewhere: bool,
    state: Progress,
    progress: Callable[[Progress], None],
) -> None:
    """Read every recording that has no undamaged part yet."""
    began = time.monotonic()
    missing = []
    for recording in wanted:
        pieces = read_part(files[_key(recording)], _key(recording), verify=True)
        if pieces is None:
            missing.append(recording)
        else:
            state.done += 1
            state.frames += sum(piece.row["frames"] for piece in pieces)
    state.kept, state.began = state.done, time.monotonic()
    state.seconds["check"] = state.began - began
    progress(state)
    for folder in {files[_key(recording)].parent for recording in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    jobs = [(None if elsewhere else files[_key(recording)], recording) for recording in missing]
    for index, made in run(make, jobs):
        state.recording = _key(missing[index])
        if made.content is not None:
            write_part(files[state.recording], [made.content])
        state.done += 1
        state.frames += made.frames
        for what, seconds in made.seconds.items():
            state.seconds[what] = state.seconds.get(what, 0.0) + seconds
        progress(state)
    state.seconds["parts"] = time.monotonic() - state.began


def _pieces(wanted: list[Recording], files: dict[str, Path]) -> Iterator[Piece]:
    for recording in wanted:
        pieces = read_part(files[_key(recording)], _key(recording), verify=False)
        if pieces is None:
            raise ValueError(f"{files[_key(recording)]} was damaged or removed meanwhile. Repeat the command.")
        yield from pieces


def _fingerprint(
    module: ModuleType, config: Any, recordings: list[Recording], stamps: dict[str, tuple[int, int] | None]
) -> str:
    """What parts depend on: source, settings, recordings, raw files (size and time), and the code that reads them.

    All code of this room counts: a mended reader must not leave half of a store as it was read before.
    """
    room = Path(__file__).parent
    code = hashlib.sha256()
    for file in sorted({*room.rglob("*.py"), Path(str(module.__file__))}):
        code.update(file.read_bytes())
    content = [
        module.__name__,
        code.hexdigest(),
        SCHEMA_VERSION,
        asdict(config),
        [asdict(found) for found in recordings],
        stamps,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _origin(module: ModuleType, source: str, config: Any, recordings: list[Recording]) -> Origin:
    """What the store tells about where it comes from: the source's own word, else its name, settings and skeleton."""
    if hasattr(module, "origin"):
        return module.origin(config, recordings)
    skeleton = module.skeleton(config) if hasattr(module, "skeleton") else module.SKELETON
    return Origin(source=source, source_config=asdict(config), skeleton=skeleton)


def _key(recording: Recording) -> str:
    return f"{recording.subject}/{recording.name}"


# ---------------------------------------------------------------------------------------------------------------------
# What runs in workers
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What a task tells about the part that it made."""

    frames: int
    seconds: dict[str, float]
    content: np.ndarray | None
    """(bytes,) uint8, the part itself, if it was made on another machine."""


def _listed(
    source: str, config: Any, elsewhere: bool, raw: Path | None
) -> tuple[list[Recording], dict[str, tuple[int, int] | None], float]:
    """Recordings, size and time of their raw files, seconds it took."""
    began = time.monotonic()
    _refuse_unless_reached([raw] if raw and elsewhere else [])
    recordings = source_module(source).list_recordings(config, raw)
    return recordings, _stamps(recordings), time.monotonic() - began


def _stamps(recordings: list[Recording]) -> dict[str, tuple[int, int] | None]:
    """Raw file -> size and time of the last change; None for one that is not there."""
    stamps: dict[str, tuple[int, int] | None] = {}
    for name in sorted({file for recording in recordings for file in recording.files}):
        try:
            found = Path(name).stat()
            stamps[name] = (found.st_size, found.st_mtime_ns)
        except OSError:
            stamps[name] = None
    return stamps


def _part(source: str, config: Any, job: tuple[Path | None, Recording]) -> _Made:
    """Read one recording and write its part, or return it if there is no file to write. Raises as readers do."""
    file, recording = job
    times = [time.monotonic()]
    _refuse_unless_reached([] if file else recording.files)
    module = source_module(source)
    sequences = module.read_recording(config, recording)
    for sequence in sequences:
        check_sequence(sequence, _origin(module, source, config, [recording]).skeleton)
    times.append(time.monotonic())
    pieces = [piece_of(sequence) for sequence in sequences]
    times.append(time.monotonic())
    buffers, content = encoded(_key(recording), pieces), None
    if file:
        write_part(file, buffers)
    else:
        content = np.concatenate([np.frombuffer(buffer, dtype=np.uint8) for buffer in buffers])
    times.append(time.monotonic())
    seconds = dict(zip(("read", "hash", "write"), np.diff(times).tolist(), strict=True))
    return _Made(frames=sum(piece.row["frames"] for piece in pieces), seconds=seconds, content=content)


def _refuse_unless_reached(paths: Iterable[str | Path]) -> None:
    missing = [str(path) for path in paths if not Path(path).exists()]
    if missing:
        raise ValueError(
            f"the node {socket.gethostname()} of the cluster does not find {missing[0]}. With --address every node "
            "must reach the raw files under the same path: put them on a shared file system, or leave --address out "
            "to read them on this machine."
        )
