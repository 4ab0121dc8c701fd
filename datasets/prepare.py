"""Raw files -> store: asks a source for its recordings, reads them in parallel, writes the store in a fixed order."""

import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

from posegrid.datasets.options import from_values, unknown
from posegrid.datasets.schema import CameraSequence, Recording
from posegrid.datasets.store import Store
from posegrid.datasets.store_writer import write_store


def source_names() -> list[str]:
    """All sources: the file name in `datasets/sources` is the registration."""
    return sorted(file.stem for file in (Path(__file__).parent / "sources").glob("*.py") if file.stem != "__init__")


def source_module(name: str) -> ModuleType:
    """The module of a source. Raises ValueError naming the nearest one."""
    if name not in source_names():
        raise unknown("data source", name, "posegrid prepare", source_names())
    return importlib.import_module(f"posegrid.datasets.sources.{name}")


def prepare(
    source: str,
    raw: Path | None,
    target: Path,
    *,
    options: dict[str, Any] | None = None,
    processes: int = 1,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Store:
    """Prepare a data set into the store at `target`.

    `options` are values of the source's Config; `progress(done, total, recording)` is called after each recording.
    The result does not depend on `processes`. Raises ValueError for missing or broken raw files.
    """
    module = source_module(source)
    config = from_values(module.Config, options or {}, f"options of data source {source}")
    recordings = module.list_recordings(config, raw)
    protocol = module.protocol(config, recordings)
    kept = [recording for recording in recordings if f"{recording.subject}/{recording.name}" not in protocol.excluded]
    return write_store(
        target,
        _read_all(partial(module.read_recording, config), kept, processes, progress),
        source=source,
        source_config=asdict(config),
        skeleton=module.SKELETON,
        protocol=protocol,
    )


def _read_all(
    read: Callable[[Recording], list[CameraSequence]],
    recordings: list[Recording],
    processes: int,
    progress: Callable[[int, int, str], None],
) -> Iterator[CameraSequence]:
    def announced(results: Iterator[list[CameraSequence]]) -> Iterator[CameraSequence]:
        for done, (recording, sequences) in enumerate(zip(recordings, results, strict=True), start=1):
            yield from sequences
            progress(done, len(recordings), f"{recording.subject}/{recording.name}")

    if processes <= 1 or len(recordings) == 1:
        yield from announced(map(read, recordings))
        return
    # spawn: the parent may hold threads (Ray, torch) that must not be forked
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from announced(pool.map(read, recordings))
