"""Read a study's runs into matrices: member -> metric -> (training pattern x test pattern)."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posegrid.datasets.skeletons import Skeleton, skeleton_named
from posegrid.orchestration.tracking import Tracking, Trial

METRICS = {
    "mpjpe_mm": "MPJPE (mm)",
    "symmetry_gap_mm": "symmetry gap (mm)",
    "segment_std_mm": "segment length std (mm)",
}
"""The three of DiffHPE's Figures 3 to 5, with their axis labels."""
MODEL_METRICS = {
    "mpjpe_mm": "MPJPE (mm)",
    "p_mpjpe_mm": "P-MPJPE (mm)",
    "mpjve_mm": "MPJVE (mm per frame)",
    "symmetry_gap_mm": "symmetry gap (mm)",
    "segment_std_mm": "segment std (mm)",
}
"""Those of the model table, with the titles of its columns."""

NOT_RECORDED = "protocol not recorded"
"""Of a study that an older version ran; repeating its command records it."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One metric of one member: mean over seeds, and their standard deviation where there are several."""

    rows: tuple[str, ...]
    """Training patterns."""
    columns: tuple[str, ...]
    """Test patterns."""
    mean: np.ndarray
    """(rows, columns); NaN where a cell is not scored."""
    std: np.ndarray
    """(rows, columns); NaN with fewer than two seeds."""
    seeds: tuple[int, ...]
    """How many seeds each row is the mean of."""

    def csv(self) -> str:
        """As text: one row a training pattern."""
        several = bool(np.isfinite(self.std).any())
        columns = [*self.columns, *(f"{column} std over seeds" for column in self.columns if several)]
        lines = ["trained on," + ",".join(columns)]
        for name, mean, std in zip(self.rows, self.mean, self.std, strict=True):
            values = [*mean, *(std if several else [])]
            lines.append(",".join([name, *(f"{value:.4f}" for value in values)]))
        return "\n".join(lines) + "\n"

    def text(self, decimals: int = 1) -> list[str]:
        """As lines for a terminal."""
        width = max(len(name) for name in (*self.rows, *self.columns, "trained on")) + 2
        lines = ["trained on".ljust(width) + "".join(name.rjust(width) for name in self.columns)]
        for name, values in zip(self.rows, self.mean, strict=True):
            lines.append(name.ljust(width) + "".join(f"{value:{width}.{decimals}f}" for value in values))
        return lines

    def at(self, row: str, column: str) -> tuple[float, float]:
        """(mean, standard deviation over seeds) of a cell; NaN where there is none."""
        if row not in self.rows or column not in self.columns:
            return float("nan"), float("nan")
        cell = self.rows.index(row), self.columns.index(column)
        return float(self.mean[cell]), float(self.std[cell])

    def minus(self, other: "Matrix") -> "Matrix":
        """Cell-wise difference over the rows and columns that both have."""
        rows = tuple(row for row in self.rows if row in other.rows)
        mine = [self.rows.index(row) for row in rows]
        theirs = [other.rows.index(row) for row in rows]
        mean = self.mean[mine] - other.mean[theirs]
        std, seeds = np.full_like(mean, np.nan), tuple(self.seeds[row] for row in mine)
        return Matrix(rows=rows, columns=self.columns, mean=mean, std=std, seeds=seeds)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A training of a member: one pattern, one seed."""

    trained_on: str
    seed: int
    trial: Trial | None
    """None if it was not started, or was deleted."""
    scores: dict[str, str]
    """Test pattern -> fingerprint of how this study scores it."""

    def scored(self, column: str) -> bool:
        """Whether the run holds the scores that this study asks for: another study may have scored it anew."""
        return self.trial is not None and self.trial.evaluated.get(column) == self.scores.get(column, "")


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """A study as the report sees it."""

    name: str
    parent: str
    """Run id of the parent run."""
    title: str
    source: str
    """Data source."""
    control_mm: float
    """MPJPE of predicting the mean training pose."""
    skeleton: Skeleton
    matrices: dict[str, dict[str, Matrix]] = field(repr=False)
    """Member label -> metric -> matrix."""
    trials: dict[str, dict[str, Trial]] = field(repr=False)
    """Member label -> training pattern -> trial of the first seed."""
    scoring: dict[str, dict[str, Any]] = field(repr=False)
    """Member label -> "protocol" and "window" in words, "evaluation" as plain data; empty in older studies."""
    tests: dict[str, dict[str, Any]] = field(repr=False)
    """Label of a test pattern -> the resolved pattern; empty in older studies."""
    published: str = ""
    """Table of published.toml that the grid names."""
    cells: dict[str, tuple[Cell, ...]] = field(default_factory=dict, repr=False)
    """Member label -> all its trainings."""
    run: Trial | None = field(default=None, repr=False)
    """The parent run."""

    @property
    def baseline(self) -> str:
        """The first member, which the others are compared with."""
        return next(iter(self.matrices))

    @property
    def columns(self) -> tuple[str, ...]:
        """Labels of the test patterns."""
        return self.matrices[self.baseline]["mpjpe_mm"].columns

    def protocol(self, label: str) -> str:
        """How a member is scored, in words."""
        return self.scoring.get(label, {}).get("protocol", NOT_RECORDED)

    def diagonal(self, label: str) -> list[str]:
        """Patterns with which a member is both trained and tested."""
        matrix = self.matrices[label]["mpjpe_mm"]
        return [row for row in matrix.rows if row in matrix.columns]


def read_study(tracking: Tracking, name: str) -> StudyResults:
    """Read everything the report needs. Raises ValueError if the study is unknown or has no finished cell."""
    parent = tracking.study(name)
    with tracking.fetched(parent, "study.json") as file:
        described = json.loads(file.read_text())
    trials = tracking.trials()
    every_cell = [cell for cells in described["members"].values() for cell in cells]
    columns = tuple(dict.fromkeys(label for cell in every_cell for label in cell["scores"]))
    matrices: dict[str, dict[str, Matrix]] = {}
    first: dict[str, dict[str, Trial]] = {}
    every: dict[str, tuple[Cell, ...]] = {}
    for label, cells in described["members"].items():
        by_row: dict[str, list[dict[str, Any]]] = {}
        for cell in sorted(cells, key=lambda cell: cell["seed"]):
            by_row.setdefault(cell["trained_on"], []).append(cell)
        rows = tuple(dict.fromkeys(cell["trained_on"] for cell in cells))
        every[label] = tuple(
            Cell(trained_on=row, seed=cell["seed"], trial=trials.get(cell["key"]), scores=cell["scores"])
            for row in rows
            for cell in by_row[row]
        )
        matrices[label] = {
            metric: _matrix([by_row[row] for row in rows], rows, columns, trials, metric)
            for metric in METRICS | MODEL_METRICS
        }
        first[label] = {row: trials[by_row[row][0]["key"]] for row in rows if by_row[row][0]["key"] in trials}
    if not any(np.isfinite(matrix.mean).any() for member in matrices.values() for matrix in member.values()):
        raise ValueError(f"study {name!r} has no scored cell yet. Repeat its command to finish it.")
    run = tracking.trial(parent)
    return StudyResults(
        name=name,
        parent=parent,
        title=described["title"],
        source=described["source"],
        control_mm=run.metrics["control mean pose/mpjpe_mm"],
        skeleton=skeleton_named(described["skeleton"]),
        matrices=matrices,
        trials=first,
        scoring=described.get("scoring", {}),
        tests=described.get("tests", {}),
        published=described.get("published", ""),
        cells=every,
        run=run,
    )


def _matrix(
    cells: list[list[dict[str, Any]]],
    rows: tuple[str, ...],
    columns: tuple[str, ...],
    trials: dict[str, Trial],
    metric: str,
) -> Matrix:
    """One metric over the seeds of each row: cells[row] has one entry a seed. A seed that is missing leaves NaN."""
    mean, std = np.full((2, len(rows), len(columns)), np.nan)
    for place, seeds in enumerate(cells):
        values = np.array(
            [[_value(trials.get(one["key"]), one["scores"], column, metric) for column in columns] for one in seeds]
        )
        mean[place] = values.mean(axis=0)
        if len(seeds) > 1:
            std[place] = values.std(axis=0, ddof=1)
    return Matrix(rows=rows, columns=columns, mean=mean, std=std, seeds=tuple(map(len, cells)))


def _value(trial: Trial | None, scores: dict[str, str], column: str, metric: str) -> float:
    """A cell's number, NaN unless it was scored the way this study asks: another study may have scored the run anew."""
    if trial is None or trial.evaluated.get(column) != scores[column]:
        return float("nan")
    return trial.metrics.get(f"test {column}/{metric}", float("nan"))
