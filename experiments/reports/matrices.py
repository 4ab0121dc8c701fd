"""Read a study's runs into matrices: member -> metric -> (training pattern x test pattern)."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posegrid.orchestration.settings import occlusion_label
from posegrid.orchestration.tracking import Tracking, Trial

METRICS = {
    "mpjpe_mm": "MPJPE (mm)",
    "symmetry_gap_mm": "symmetry gap (mm)",
    "segment_std_mm": "segment length std (mm)",
}
"""The three of DiffHPE's Figures 3 to 5, with their axis labels."""


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

    def csv(self) -> str:
        """As text: one row a training pattern."""
        lines = ["trained on," + ",".join(self.columns)]
        for name, values in zip(self.rows, self.mean, strict=True):
            lines.append(",".join([name, *(f"{value:.4f}" for value in values)]))
        return "\n".join(lines) + "\n"

    def text(self, decimals: int = 1) -> list[str]:
        """As lines for a terminal."""
        width = max(len(name) for name in (*self.rows, *self.columns, "trained on")) + 2
        lines = ["trained on".ljust(width) + "".join(name.rjust(width) for name in self.columns)]
        for name, values in zip(self.rows, self.mean, strict=True):
            lines.append(name.ljust(width) + "".join(f"{value:{width}.{decimals}f}" for value in values))
        return lines

    def minus(self, other: "Matrix") -> "Matrix":
        """Cell-wise difference over the rows and columns that both have."""
        rows = tuple(row for row in self.rows if row in other.rows)
        mine = [self.rows.index(row) for row in rows]
        theirs = [other.rows.index(row) for row in rows]
        mean = self.mean[mine] - other.mean[theirs]
        return Matrix(rows=rows, columns=self.columns, mean=mean, std=np.full_like(mean, np.nan))


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
    recipes: dict[str, dict[str, Any]]
    """Member label -> resolved settings of its first cell."""
    matrices: dict[str, dict[str, Matrix]] = field(repr=False)
    """Member label -> metric -> matrix."""
    trials: dict[str, dict[str, Trial]] = field(repr=False)
    """Member label -> training pattern -> trial of the first seed."""

    @property
    def baseline(self) -> str:
        """The first member, which the others are compared with."""
        return next(iter(self.matrices))


def read_study(tracking: Tracking, name: str) -> StudyResults:
    """Read everything the report needs. Raises ValueError if the study is unknown or has no finished cell."""
    parent = tracking.study(name)
    with tracking.fetched(parent, "study.json") as file:
        described = json.loads(file.read_text())
    trials = tracking.trials()
    columns = tuple(dict.fromkeys(occlusion_label(pattern) for pattern in described["tests"]))
    matrices: dict[str, dict[str, Matrix]] = {}
    first: dict[str, dict[str, Trial]] = {}
    for label, cells in described["members"].items():
        rows = tuple(dict.fromkeys(pattern for pattern, _, _ in cells))
        seeds = sorted({seed for _, seed, _ in cells})
        matrices[label] = {}
        for metric in METRICS:
            values = np.full((len(seeds), len(rows), len(columns)), np.nan)
            for pattern, seed, key in cells:
                found = trials[key].metrics if key in trials else {}
                line = [found.get(f"test {column}/{metric}", np.nan) for column in columns]
                values[seeds.index(seed), rows.index(pattern)] = line
            std = values.std(axis=0, ddof=1) if len(seeds) > 1 else np.full(values.shape[1:], np.nan)
            matrices[label][metric] = Matrix(rows=rows, columns=columns, mean=values.mean(axis=0), std=std)
        first[label] = {pattern: trials[key] for pattern, seed, key in cells if seed == seeds[0] and key in trials}
    if not any(np.isfinite(matrix.mean).any() for member in matrices.values() for matrix in member.values()):
        raise ValueError(f"study {name!r} has no scored cell yet. Repeat its command to finish it.")
    return StudyResults(
        name=name,
        parent=parent,
        title=described["title"],
        source=described["source"],
        control_mm=tracking.trial(parent).metrics["control mean pose/mpjpe_mm"],
        recipes=described["recipes"],
        matrices=matrices,
        trials=first,
    )
