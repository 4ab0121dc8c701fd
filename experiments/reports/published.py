"""Numbers that papers print, for the grids that name them: always marked, never averaged or mixed with ours."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from posegrid.datasets.options import unknown
from posegrid.orchestration.recipe_files import read_toml

FILE = Path(__file__).parents[1] / "published.toml"


def published_table(name: str, where: str) -> dict[str, Any]:
    """A table of published.toml. Raises ValueError that names the nearest one."""
    tables = read_toml(FILE)
    if name not in tables:
        raise unknown("published table", name, where, list(tables))
    return tables[name]


def why_unlike(table: dict[str, Any], source: str, protocols: list[str], windows: list[str]) -> list[str]:
    """Why numbers of ours may not be compared with a published table's; what cannot be told from here is said too.

    source: of our data; protocols and windows: those of our members, in words.
    """
    printed = str(table["protocol"])
    reasons = []
    if not _same_data(source, printed):
        reasons.append(f"other data: ours are {source}, the published {printed.split(',')[0]}")
    frames = re.search(r"(\d+) frames", printed)
    others = sorted({window for window in windows if frames and window != frames.group(1)})
    if frames and others:
        reasons.append(f"other windows: ours of {', '.join(others)} frames, the published of {frames.group(1)}")
    if part := [one for one in protocols if "1 window of" in one]:
        reasons.append(f"ours score a part of the test split ({part[0]})")
    reasons.append("2D detections, selection of the epoch and length of training may differ too")
    return reasons


def _same_data(source: str, printed: str) -> bool:
    names = {"h36m": "Human3.6M", "mpi_inf_3dhp": "MPI-INF-3DHP", "threedpw": "3DPW"}
    return any(source.startswith(ours) and theirs in printed for ours, theirs in names.items())


def by_itself(name: str) -> str:
    """A published table as markdown."""
    table = published_table(name, "study")
    lines = [
        f"Published, not ours: {table['source']}. {table['protocol']}.",
        "",
        "| published | " + " | ".join(table["columns"]) + " |",
        "|---" * (len(table["columns"]) + 1) + "|",
    ]
    for row, values in table["rows"].items():
        lines.append(f"| {row} | " + " | ".join(_printed(value) for value in values) + " |")
    return "\n".join(lines) + "\n"


def beside_ours(
    name: str, patterns: list[str], ours: Mapping[str, Callable[[str], float]], source: str, protocols: list[str]
) -> str:
    """Ours beside a published table whose rows are patterns that models are trained and tested with.

    `ours`: member label -> MPJPE in mm for a pattern. The two groups are of unlike data, which the table says.
    """
    table = published_table(name, "study")
    columns = [*(f"{label} (ours)" for label in ours), *(f"{column} (published)" for column in table["columns"])]
    lines = [
        f"Trained and tested with the same pattern, MPJPE in mm. Ours: {source}, action-wise; {'; '.join(protocols)}. "
        f"Published: {table['source']}; {table['protocol']}. Unlike data and protocol: the two groups are not "
        "comparable in numbers.",
        "",
        "| pattern | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for pattern in patterns:
        printed = table["rows"].get(pattern, [float("nan")] * len(table["columns"]))
        values = [*(one(pattern) for one in ours.values()), *printed]
        lines.append(f"| {pattern} | " + " | ".join(_printed(value) for value in values) + " |")
    return "\n".join(lines) + "\n"


def _printed(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "-"
