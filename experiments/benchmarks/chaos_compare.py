"""Two tracking stores, content against content: what must be equal whatever was killed while they were written.

Reads the SQLite files and the artifacts' folders themselves, not through the code that wrote them.
"""

import csv
import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

VARIES = ("time/", "cost/", "complexity ")
"""Beginnings of the names of metrics that measure time; of these only the steps are compared."""
_TIMED_TAGS = ("posegrid.complexity",)
_TIMED_FILES = (".html", ".png", ".pdf", ".svg")
"""Endings of files that show times; of these only the presence is compared."""


_SPEED = {"models.csv": "poses per s", "models.md": "poses/s"}
"""Tables, and their column that tells how fast a model is; it is left out."""


@dataclass(kw_only=True)
class Content:
    """What a store holds of a run."""

    status: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    histories: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Metric -> (step, value) in the order of their times."""
    inputs: int = 0
    artifacts: dict[str, Any] = field(default_factory=dict)
    """Path -> digest, or tensors by name."""


def read(home: Path) -> dict[str, Content]:
    """Live runs by what they are (not by their ids, which differ). Runs that are there twice get another name."""
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        rows = list(database.execute("SELECT run_uuid, name, status, lifecycle_stage, artifact_uri FROM runs"))
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        for run, key, value in database.execute("SELECT run_uuid, key, value FROM tags"):
            tags[run][key] = value
        names: dict[str, str] = {}
        found: dict[str, Content] = {}
        places: dict[str, str] = {}
        for run, name, status, stage, place in rows:
            if stage == "deleted" and name == "probe":
                continue
            what = f"{name} ({tags[run].get('posegrid.key') or tags[run].get('posegrid.study') or 'neither'})"
            what += " deleted" if stage == "deleted" else ""
            while what in found:
                what += " again"
            names[run], places[what] = what, place
            found[what] = Content(status=status)
        for run, what in names.items():
            found[what].tags = {
                key: names.get(value, value) for key, value in tags[run].items() if not key.startswith(_TIMED_TAGS)
            }
        for run, key, value in database.execute("SELECT run_uuid, key, value FROM params"):
            if run in names:
                found[names[run]].params[key] = value
        order = "SELECT run_uuid, key, step, value, is_nan FROM metrics ORDER BY timestamp, step"
        for run, key, step, value, is_nan in database.execute(order):
            if run in names:
                found[names[run]].histories.setdefault(key, []).append((step, float("nan") if is_nan else value))
        for run, count in database.execute("SELECT destination_id, COUNT(*) FROM inputs GROUP BY destination_id"):
            if run in names:
                found[names[run]].inputs = count
    for what, place in places.items():
        within = place.partition("mlflow-artifacts:/")[2] or place.partition("/artifacts/")[2]
        folder = home / "artifacts" / within.lstrip("/")
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        found[what].artifacts = {file.relative_to(folder).as_posix(): _content(file, names) for file in files}
    return found


def differences(one: dict[str, Content], other: dict[str, Content]) -> Iterator[str]:
    """Sentences, one for each thing that differs."""
    for what in sorted(one.keys() ^ other.keys()):
        yield f"run {what} is only in the {'first' if what in one else 'second'}"
    for what in sorted(one.keys() & other.keys()):
        a, b = one[what], other[what]
        for name in ("status", "inputs"):
            if getattr(a, name) != getattr(b, name):
                yield f"{what}: {name} {getattr(a, name)} against {getattr(b, name)}"
        for name in ("params", "tags", "artifacts"):
            yield from (f"{what}: {name[:-1]} {line}" for line in _unequal(getattr(a, name), getattr(b, name)))
        yield from (f"{what}: metric {line}" for line in _unequal(_comparable(a), _comparable(b)))
        for run in (a, b):
            yield from (f"{what}: steps of {line}" for line in _disorder(run))


def counts(store: dict[str, Content]) -> str:
    """What was compared, in words."""
    points = sum(len(history) for run in store.values() for history in run.histories.values())
    exact = sum(
        len(history) for run in store.values() for name, history in run.histories.items() if not name.startswith(VARIES)
    )
    return (
        f"{len(store)} runs, {sum(len(run.params) for run in store.values())} parameters, "
        f"{sum(len(run.tags) for run in store.values())} tags, {points} metric points ({exact} of them by value), "
        f"{sum(len(run.artifacts) for run in store.values())} artifacts"
    )


def _comparable(run: Content) -> dict[str, Any]:
    return {
        name: [step for step, _ in history] if name.startswith(VARIES) else history
        for name, history in run.histories.items()
    }


def _disorder(run: Content) -> Iterator[str]:
    for name, history in run.histories.items():
        steps = [step for step, _ in history]
        if steps != sorted(set(steps)):
            yield f"{name} do not rise: {steps}"


def _unequal(a: dict[str, Any], b: dict[str, Any]) -> Iterator[str]:
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b:
            yield f"{name} is only in the {'first' if name in a else 'second'}"
        elif not _same(a[name], b[name]):
            yield f"{name}: {str(a[name])[:200]} against {str(b[name])[:200]}"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) or (a != a and b != b)


def _content(file: Path, names: dict[str, str]) -> Any:
    if file.suffix == ".pt":
        return torch.load(file, weights_only=True)
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            return {name: arrays[name] for name in arrays.files}
    if file.suffix in _TIMED_FILES:
        return "there"
    content = file.read_bytes()
    if file.name in _SPEED:
        content = _without(content.decode(), _SPEED[file.name], "," if file.suffix == ".csv" else "|").encode()
    for run, what in names.items():
        content = content.replace(run.encode(), what.encode())
    return hashlib.sha256(content).hexdigest()


def _without(table: str, column: str, sign: str) -> str:
    """A table without a column; lines that are no rows stay."""
    lines, where = [], None
    for row in csv.reader(table.splitlines(), delimiter=sign):
        cells = [cell.strip() for cell in row]
        where = cells.index(column) if column in cells else where
        if where is not None and len(cells) > where:
            del cells[where]
        lines.append(sign.join(cells))
    return "\n".join(lines)
