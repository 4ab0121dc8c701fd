"""Numbers that papers print, for the grids that name them: always marked, never averaged or mixed with ours."""

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
