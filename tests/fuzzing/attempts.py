"""One damaged input, read and judged; many of them in a worker process with bounded time and memory.

Outcomes: "same" (read, every bit as in the whole file), "as damaged" (read, and what the damaged file says according to
an independent parse; only formats without checksums), "refused" (a ValueError that names the file), and anything else:
a text that says what happened. An input is made of (seed, format, kind of damage, number) and nothing else.
"""

import pickle
import resource
import sys
import traceback
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from fuzzing import arrays, bodies, keypoints, mocap, pickles, stores
from fuzzing.damage import DAMAGES
from fuzzing.formats import Format, Values, same

TABLE: tuple[Format, ...] = (
    *mocap.FORMATS,
    *arrays.FORMATS,
    *pickles.FORMATS,
    *bodies.FORMATS,
    *keypoints.FORMATS,
    *stores.FORMATS,
)
"""Everything that is fuzzed."""

ROUND = ("cut", "flip", "mistyped", "flip", "scramble")
"""Kinds of damage that a format takes in turn."""
SOUND = ("same", "as damaged", "refused")
_ROOM = 3 * 2**30
"""Bytes of address space that a worker may take beyond what it begins with."""
_EVENTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pickle.find_class")
_NO_MEMORY = ("MemoryError", "Unable to allocate", "bad_alloc", "malloc of size", "out of memory", "realloc")


@dataclass(frozen=True, kw_only=True)
class Input:
    """One damaged input, as it is asked for."""

    format: str
    kind: str
    number: int
    seed: int

    @property
    def again(self) -> str:
        """What makes it again."""
        return f"{self.format}/{self.kind}/{self.number}"


def plan(inputs: int, seed: int, formats: tuple[Format, ...] = TABLE) -> list[Input]:
    """So many inputs, the formats in turn by their weights. Harmful files, of which there are few, come first: all of
    them in a run of 2000 inputs or more, else one of each format."""
    found = [
        Input(format=each.name, kind="hostile", number=number, seed=seed)
        for each in formats
        for number in range(len(each.hostile))
        if inputs >= 2000 or number == seed % len(each.hostile)
    ]
    due, taken = {each.name: 1.0 for each in formats}, {each.name: 0 for each in formats}
    while len(found) < inputs:
        for each in formats:
            due[each.name] += each.weight
            while due[each.name] >= 1:
                due[each.name] -= 1
                number = taken[each.name]
                taken[each.name] += 1
                kind = ROUND[number % len(ROUND)]
                kind = "scramble" if kind == "mistyped" and each.mistype is None else kind
                found.append(Input(format=each.name, kind=kind, number=number, seed=seed))
    return found[:inputs]


def attempt(wanted: Input, folder: Path, mark: Path) -> str:
    """The outcome of one input; `folder` is empty, `mark` is what harmful files would make."""
    form = next(each for each in TABLE if each.name == wanted.format)
    generator = np.random.default_rng(
        [wanted.seed, wanted.number, zlib.crc32(wanted.format.encode()), zlib.crc32(wanted.kind.encode())]
    )
    for name, content in _files(form.name).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if wanted.kind == "hostile":
        list(form.hostile.values())[wanted.number](folder, mark)
    elif wanted.kind == "mistyped":
        assert form.mistype is not None
        form.mistype(generator, folder, form.content())
    else:
        file = folder / form.damaged[wanted.number % len(form.damaged)]
        file.write_bytes(DAMAGES[wanted.kind](generator, file.read_bytes()))
    outcome = _outcome(form, wanted, folder)
    if mark.exists():
        mark.unlink()
        return "code of the file was run"
    return outcome


def _outcome(form: Format, wanted: Input, folder: Path) -> str:
    whole = _whole(form.name)
    with Watch() as watch:
        try:
            values, refusal = form.read(folder), None
        except Exception as error:
            values, refusal = {}, error
    if watch.events and not form.runs_processes:
        return f"read with {', '.join(sorted(set(watch.events)))}"
    if refusal is not None:
        return _refused(refusal, folder)
    if same(values, whole) or (wanted.kind == "mistyped" and form.legal(values, whole)):
        return "same"
    if form.judge is None or wanted.kind == "hostile":
        wrong = sorted(name for name in {*values, *whole} if name not in values or name not in whole)
        return f"other values in silence {', '.join(wrong[:3])}"
    return form.judge(folder, values) or "as damaged"


def _refused(error: Exception, folder: Path) -> str:
    text = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
    if any(said in text for said in _NO_MEMORY):
        return f"asked for more than {_ROOM / 2**30:g} GiB ({text})"
    # subclasses are errors of a library that went through unchanged
    clear = type(error) is ValueError and (folder.name in str(error) or "sequence " in str(error))
    return "refused" if clear else f"no clear error: {text}"


class Watch:
    """Notices processes that are started, and names that Python's unpickler looks up."""

    _active: "Watch | None" = None
    _hooked = False

    def __init__(self) -> None:
        self.events: list[str] = []

    def __enter__(self) -> "Watch":
        if not Watch._hooked:
            sys.addaudithook(_note)
            Watch._hooked = True
        Watch._active = self
        return self

    def __exit__(self, *_: object) -> None:
        Watch._active = None


def _note(event: str, arguments: tuple) -> None:
    if Watch._active is not None and event in _EVENTS:
        Watch._active.events.append(event)


def control(mark: Path) -> bool:
    """Whether the harmful pickles run when they are read in the usual way: or they would prove nothing."""
    with Watch() as watch:
        pickle.loads(pickles.harmful("eval", 2, "poses", mark))
    ran = mark.exists() and "pickle.find_class" in watch.events
    mark.unlink(missing_ok=True)
    return ran


@cache
def _files(name: str) -> dict[str, bytes]:
    form = next(each for each in TABLE if each.name == name)
    with TemporaryDirectory() as folder:
        form.write(Path(folder), form.content())
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@cache
def _whole(name: str) -> Values:
    """What is read of the whole files."""
    form = next(each for each in TABLE if each.name == name)
    with TemporaryDirectory() as folder:
        for file, content in _files(name).items():
            (Path(folder) / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / file).write_bytes(content)
        return form.read(Path(folder))


# ---------------------------------------------------------------------------------------------------------------------
# Workers
# ---------------------------------------------------------------------------------------------------------------------


def work(connection: Any, root: str) -> None:
    """Takes inputs and gives outcomes, until there are no more."""
    mark = Path(root) / "ran"
    connection.send("ready" if control(mark) else "harmful pickles do no harm here")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _ROOM, size + _ROOM))
    while (wanted := connection.recv()) is not None:
        with TemporaryDirectory(prefix="input-", dir=root, ignore_cleanup_errors=True) as folder:
            try:
                connection.send((attempt(wanted, Path(folder), mark), ""))
            except Exception:  # not the reader's
                connection.send(("", traceback.format_exc()))


def outcomes(inputs: list[Input], seconds: float | None = None) -> Iterator[tuple[Input, str]]:
    """Each input with its outcome. A worker that dies or takes too long is replaced, and that is the outcome.

    seconds: longest time for an input, None: that of its format.
    """
    longest = {each.name: each.seconds for each in TABLE}
    with TemporaryDirectory(prefix="fuzzing-") as root:
        worker, connection = _started(root)
        try:
            for wanted in inputs:
                connection.send(wanted)
                limit = longest[wanted.format] if seconds is None else seconds
                outcome, fault, alive = f"no end within {limit:g} s", "", False
                try:
                    if connection.poll(limit):
                        (outcome, fault), alive = connection.recv(), True
                except (EOFError, ConnectionError):
                    worker.join(10)
                    outcome = f"the process ended with status {worker.exitcode}"
                if fault:
                    raise RuntimeError(f"the fuzzing itself failed at {wanted.again}: {fault}")
                if not alive:
                    _stop(worker)
                    worker, connection = _started(root)
                yield wanted, outcome
        finally:
            _stop(worker)


def _started(root: str) -> tuple[Any, Any]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=work, args=(theirs, root), daemon=True)
    worker.start()
    theirs.close()
    said = ours.recv()
    if said != "ready":
        raise RuntimeError(f"fuzzing cannot begin: {said}")
    return worker, ours


def _stop(worker: Any) -> None:
    if worker.is_alive():
        worker.kill()
    worker.join(10)
