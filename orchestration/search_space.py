"""What a search may vary: keys of a recipe, and the values that each may take."""

import json
from dataclasses import dataclass
from math import isfinite
from typing import Any

from posegrid.datasets.options import from_values, unknown

KINDS = ("log", "uniform", "int", "values")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """The values that one key may take. Raises ValueError for a range that is none."""

    kind: str = "values"
    """"log": numbers between low and high, evenly spread over their logarithm. "uniform": evenly spread. "int": whole
    numbers, both ends included. "values": one of a list."""
    low: float | None = None
    """Lowest value, in the unit of the key."""
    high: float | None = None
    """Highest value, in the unit of the key."""
    values: tuple[Any, ...] = ()
    """With kind "values": numbers, words, true or false, or lists."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind", self.kind, "key kind", list(KINDS))
        if self.kind == "values":
            if not self.values or self.low is not None or self.high is not None:
                raise ValueError(
                    "a list of values is needed, without low and high: values = [0.1, 0.2]. For a range give kind = "
                    '"log", "uniform" or "int" with low and high.'
                )
            if len({json.dumps(value) for value in self.values}) < len(self.values):
                raise ValueError(f"values = {list(self.values)} repeat. Allowed is each value once: leave one out.")
            return
        if self.values or self.low is None or self.high is None:
            raise ValueError(f'kind = "{self.kind}" needs low and high, and no values. Give both ends of the range.')
        if not (isfinite(self.low) and isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"low = {self.low:g} and high = {self.high:g} are no range; allowed are two finite numbers, low below "
                "high. Correct them."
            )
        if self.kind == "log" and self.low <= 0:
            raise ValueError(f'low = {self.low:g} with kind = "log": allowed are numbers above 0. Raise it.')
        if self.kind == "int" and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise ValueError(
                f'low = {self.low:g} and high = {self.high:g} with kind = "int": allowed are whole numbers. Round them.'
            )

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The values between which, or among which, all others lie."""
        if self.kind == "values":
            return self.values
        assert self.low is not None
        assert self.high is not None
        return (int(self.low), int(self.high)) if self.kind == "int" else (self.low, self.high)

    def contains(self, value: Any) -> bool:
        """Whether the key may take that value."""
        if self.kind == "values":
            return json.dumps(value) in [json.dumps(one) for one in self.values]
        low, high = self.extremes
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and low <= value <= high and (self.kind != "int" or value == int(value))

    def rounded(self, value: float) -> float:
        """A drawn number with four digits, which is more than a search can tell apart and reads better."""
        low, high = self.extremes
        return min(max(float(f"{value:.4g}"), low), high)


Space = dict[str, Parameter]
"""Dotted key of a recipe -> what it may be."""


def space_of(tables: dict[str, Any], where: str) -> Space:
    """The space of a search file's tables `[space."training.lr"]`. Raises ValueError that names the key."""
    if not tables:
        raise ValueError(
            f'{where} is empty, so there is nothing to search. Add a table such as [space."training.lr"] with kind = '
            '"log", low and high.'
        )
    space = {}
    for key, table in tables.items():
        if "." not in key:
            raise ValueError(
                f'{where}.{key} is no key of a recipe. Allowed are dotted keys in quotes: [space."training.lr"] '
                "(without quotes TOML makes tables of it). Write the key in quotes."
            )
        space[key] = from_values(Parameter, table, f'{where}."{key}"')
    return space


def override(key: str, value: Any) -> str:
    """A chosen value in the form of the command line's --set."""
    return f"{key}={json.dumps(value)}"
