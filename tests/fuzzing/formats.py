"""What is fuzzed: each format with a whole file, its reader, and how a damaged file that was read is judged."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing.damage import Mistype

from posegrid.datasets.schema import CameraSequence

Values = dict[str, Any]
"""Arrays, texts and numbers by name: all that a reader makes of a folder."""


def same(one: Values, other: Values) -> bool:
    """Equal in names, types, shapes and every bit."""
    return one.keys() == other.keys() and all(_plain(one[name]) == _plain(other[name]) for name in one)


def unchanged_part(part: Values, whole: Values) -> bool:
    """Everything in `part` is in `whole`, bit for bit: a file with fewer recordings is another legal file."""
    return part.keys() <= whole.keys() and same(part, {name: whole[name] for name in part})


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return (value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes())
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return repr(value)


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format and its reader."""

    name: str
    content: Callable[[], Any]
    """What whole files hold."""
    write: Callable[[Path, Any], None]
    """Writes the files into a folder that exists."""
    damaged: tuple[str, ...]
    """Names of the files that are damaged."""
    read: Callable[[Path], Values]
    """Reads the folder through posegrid."""
    judge: Callable[[Path, Values], str] | None = None
    """For formats without checksums: what is wrong with values that differ from the whole file's, "" if they are what
    an independent parse finds in the damaged file. None: any difference is wrong."""
    mistype: Mistype | None = None
    """Makes whole files in which something is not what it must be."""
    legal: Callable[[Values, Values], bool] = same
    """Whether values of a mistyped file (the first) are right, given those of the whole file: by default the same."""
    hostile: dict[str, Callable[[Path, Path], None]] = field(default_factory=dict)
    """Name -> writes files made to do harm into a folder; they would write the second path if they were run."""
    runs_processes: bool = False
    """Whether the reader itself starts a process."""
    seconds: float = 20.0
    """Longest time for one input."""
    weight: float = 1.0
    """How often it is taken, compared with others."""

    @property
    def sealed(self) -> bool:
        """Whether the format has checksums, so that every other value is a silent error."""
        return self.judge is None


def of_sequences(sequences: Iterable[CameraSequence]) -> Values:
    """All that the sequences hold."""
    return {
        f"{sequence.name} {name}": value
        for sequence in sequences
        for name, value in vars(sequence).items()
        if name not in ("subject", "recording", "camera")
    }


def as_rewritten(
    parse: Callable[[Path], Any], write: Callable[[Path, Any], None], read: Callable[[Path], Values]
) -> Callable[[Path, Values], str]:
    """A judge: `parse`, an independent and minimal parser, takes the content out of the damaged file, `write` makes a
    sound file of it, and that must read the same."""

    def judge(folder: Path, values: Values) -> str:
        fresh = folder / "rewritten"
        fresh.mkdir()
        try:
            write(fresh, parse(folder))
            expected = read(fresh)
        except Exception as error:
            return f"read, but an independent parse says {type(error).__name__}: {error}"
        differing = [name for name in {*values, *expected} if not same_entry(name, values, expected)]
        return f"other values than an independent parse finds: {', '.join(sorted(differing)[:4])}" if differing else ""

    return judge


def same_entry(name: str, one: Values, other: Values) -> bool:
    """Both have it, and it is the same."""
    return name in one and name in other and same({name: one[name]}, {name: other[name]})
