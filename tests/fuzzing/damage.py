"""Ways to damage a file: cut, one flipped bit, scrambled bytes, values of another type, words that do not belong.

Every function draws from the generator that it is given, so that an input can be made again from its seed.
"""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Mistype = Callable[[np.random.Generator, Path, Any], None]
"""Puts something else in place of whole files of a folder; the last argument is what they hold."""


def cut(generator: np.random.Generator, content: bytes) -> bytes:
    """Only a beginning is left; in one case of three only the last bytes are gone."""
    least = max(0, len(content) - 100) if generator.integers(3) == 0 else 0
    return content[: int(generator.integers(least, len(content)))]


def flip(generator: np.random.Generator, content: bytes) -> bytes:
    """One bit; in one case of two among the first or last 1000 bytes, where headers and tables are."""
    ends = np.r_[0 : min(1000, len(content)), max(0, len(content) - 1000) : len(content)]
    at = int(generator.choice(ends) if generator.integers(2) else generator.integers(len(content)))
    return content[:at] + bytes([content[at] ^ (1 << int(generator.integers(8)))]) + content[at + 1 :]


def scramble(generator: np.random.Generator, content: bytes) -> bytes:
    """Several flipped bits, or a run of bytes replaced, zeroed, removed, doubled or put in."""
    at = int(generator.integers(len(content)))
    run = int(generator.integers(1, min(64, len(content)) + 1))
    noise, inside = generator.bytes(run), content[at : at + run]
    match int(generator.integers(6)):
        case 0:
            for _ in range(int(generator.integers(2, 20))):
                content = flip(generator, content)
            return content
        case 1:
            return content[:at] + noise[: len(inside)] + content[at + run :]
        case 2:
            return content[:at] + bytes(len(inside)) + content[at + run :]
        case 3:
            return content[:at] + content[at + run :]
        case 4:
            return content[:at] + inside + content[at:]
        case _:
            return content[:at] + noise + content[at:]


DAMAGES = {"cut": cut, "flip": flip, "scramble": scramble}


# ---------------------------------------------------------------------------------------------------------------------
# Mistyped: whole files in which something is not what it must be
# ---------------------------------------------------------------------------------------------------------------------

_WORDS = (
    "nan", "inf", "-inf", "1e999", "-1", "0", "abc", '""', "99999999999999999999", "1_0", "0x10", "true", "null", "1,5",
    "\u0663", "\x00", "1e-400", "+7", "begin", "}", ":", "-", "1e300",
)  # fmt: skip


def words(*files: str) -> Mistype:
    """For text: a word becomes another, or a line is removed, doubled, emptied or swapped with another."""

    def mistype(generator: np.random.Generator, folder: Path, content: Any) -> None:
        file = folder / files[int(generator.integers(len(files)))]
        lines = file.read_text().splitlines(keepends=True)
        one, other = (int(number) for number in generator.integers(len(lines), size=2))
        match int(generator.integers(8)):
            case 0:
                del lines[one]
            case 1:
                lines.insert(other, lines[one])
            case 2:
                lines[one] = "\n"
            case 3:
                lines[one], lines[other] = lines[other], lines[one]
            case _:
                separator = "," if file.suffix == ".csv" else " "
                parts = lines[one].rstrip("\n").split(separator)
                parts[int(generator.integers(len(parts)))] = _WORDS[int(generator.integers(len(_WORDS)))]
                lines[one] = separator.join(parts) + "\n"
        file.write_bytes("".join(lines).encode())

    return mistype


_NODES: tuple[Any, ...] = (
    None, True, False, -1, 0, 2.5, 1e308, 10**30, float("nan"), float("inf"), "", "text", "7", "\ud800", [], {}, [[]],
    [None], {"a": 1}, [1, 2, 3], "a" * 1000,
)  # fmt: skip


def json_node(*files: str) -> Mistype:
    """For JSON: one value anywhere in it becomes another, is removed or comes twice."""

    def mistype(generator: np.random.Generator, folder: Path, content: Any) -> None:
        file = folder / files[int(generator.integers(len(files)))]
        value = json.loads(file.read_bytes())
        places = list(_places(value))
        owner, key = places[int(generator.integers(len(places)))]
        match int(generator.integers(6)):
            case 0:
                del owner[key]
            case 1 if isinstance(owner, list):
                owner.insert(key, copy.deepcopy(owner[key]))
            case _:
                owner[key] = _NODES[int(generator.integers(len(_NODES)))]
        file.write_text(json.dumps(value))

    return mistype


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys or indices, to the leaves."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def retyped(write: Callable[[Path, Any], None]) -> Mistype:
    """For containers of arrays: one array or number becomes something else, then `write` makes the files again."""

    def mistype(generator: np.random.Generator, folder: Path, content: Any) -> None:
        for _ in range(100):
            changed = copy.deepcopy(content)
            owner, key = _any_leaf(generator, changed)
            if generator.integers(12) == 0:
                del owner[key]
            else:
                owner[key] = _other(generator, owner[key])
            try:
                write(folder, changed)
                return
            except Exception:  # what the format cannot hold; take another one
                continue
        raise AssertionError("nothing that could be written was found")

    return mistype


def _any_leaf(generator: np.random.Generator, value: Any) -> tuple[Any, Any]:
    """Any path downwards, so that a part with few leaves is met as often as one with many."""
    while True:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = keys[int(generator.integers(len(keys)))]
        if not (isinstance(value[key], dict | list) and value[key]):
            return value, key
        value = value[key]


def _other(generator: np.random.Generator, value: Any) -> Any:
    """Something of another type, shape or order; never other numbers that could be right."""
    if not isinstance(value, np.ndarray) or not value.size or value.ndim == 0 or value.dtype == object:
        others: list[Any] = [None, "text", -1, True, np.nan, 1e308, [], {}, [1.0, "a"], b"\xff", 10**30, np.zeros(0)]
        return others[int(generator.integers(len(others)))]
    spoilt = value.astype(np.float64) if value.dtype.kind == "f" else value.astype(object)
    spoilt[tuple(int(generator.integers(size)) for size in value.shape)] = generator.choice([np.nan, np.inf, -np.inf])
    as_objects = np.empty(value.shape, dtype=object)
    as_objects[...] = value
    of_texts = as_objects.copy()
    of_texts[(0,) * value.ndim] = "text"
    arrays: list[Any] = [
        spoilt, spoilt, spoilt.astype(value.dtype if value.dtype.kind == "f" else object), as_objects, of_texts,
        value.astype(str), value.astype(np.complex128), value[None], value[..., None], value.reshape(-1), value[:0],
        value[..., :-1] if value.ndim > 1 else None, np.repeat(value, 2, axis=-1), value.tolist(), None, "text", {},
        [], 1.5, value.astype(value.dtype.newbyteorder(">")), np.asfortranarray(value), np.array(value.tobytes()),
        np.array(["2020-01-01"] * len(value), dtype="datetime64[D]"), np.zeros(value.shape, dtype=[("a", "f4")]),
    ]  # fmt: skip
    return arrays[int(generator.integers(len(arrays)))]
