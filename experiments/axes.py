"""Free axes of a grid: recipe keys that take several values, crossed with one another and with all members.

In a grid file:

    [axes]
    "training.lr" = [1e-3, 2e-4]
    length = [{"data.frames" = 27, "training.batch" = 40}, {"data.frames" = 81, "training.batch" = 12}]

A value may be a table of keys that change together; its axis then has a name that nothing reads. Values hold for the
member's recipe, not for that of its conditioner, except for the keys that say how windows are cut (`FOLLOWED`):
a member and its conditioner must cut the same ones. "RECIPE:key" holds for that recipe alone, conditioner or member.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

FOLLOWED = ("data.frames", "data.stride", "data.frame_rate")
"""Keys whose values reach the conditioner too."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One combination of the values of all axes."""

    label: str
    """What is added to a member's label, such as "frames 27, lr 0.001"."""
    values: tuple[str, ...]
    """As --set takes them."""


def points(axes: Mapping[str, Any], where: str) -> list[Point]:
    """All combinations, the last axis fastest; one without values if there are no axes.

    `where` names the file for messages. Raises ValueError for an axis without values, a value twice, a key in two axes.
    """
    tables = {name: [_table(name, value) for value in _listed(name, values, where)] for name, values in _flat(axes)}
    owners: dict[str, str] = {}
    for name, values in tables.items():
        for key in dict.fromkeys(key for table in values for key in table):
            if key in owners:
                raise ValueError(
                    f'{where}: key "{key}" is in the axes "{owners[key]}" and "{name}". A key has one value in a '
                    "combination: leave it in one of them."
                )
            owners[key] = name
        texts = [json.dumps(table, sort_keys=True) for table in values]
        if len(set(texts)) < len(texts):
            raise ValueError(f'{where}: axis "{name}" has a value twice ({", ".join(texts)}). Give each once.')
    short = _short_names(list(owners))
    found = []
    for combination in product(*tables.values()):
        label = ", ".join(" ".join(f"{short[key]} {_word(value)}" for key, value in one.items()) for one in combination)
        changes = tuple(f"{key}={json.dumps(value)}" for one in combination for key, value in one.items())
        found.append(Point(label=label, values=changes))
    return found


def followed(values: tuple[str, ...]) -> list[str]:
    """Those values of a point that reach the conditioner whatever its recipe is."""
    return [text for text in values if text.partition("=")[0] in FOLLOWED]


def given_axes(texts: list[str]) -> dict[str, list[Any]]:
    """Axes from the command line, such as "training.lr=1e-3,2e-4". Raises ValueError for anything else."""
    axes: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key.strip() or not values.strip():
            raise ValueError(f'--axis "{text}" is not of the form key=value,value, for instance training.lr=1e-3,2e-4.')
        if key.strip() in axes:
            raise ValueError(f'--axis names "{key.strip()}" twice. Give all its values at once, separated by commas.')
        try:
            axes[key.strip()] = tomllib.loads(f"values = [{values}]")["values"]
        except tomllib.TOMLDecodeError:
            axes[key.strip()] = [word.strip() for word in values.split(",")]  # bare words are strings, as with --set
    return axes


def _flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`data.frames = 27` without quotes is a table in a table."""
    for name, value in tables.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _listed(name: str, values: Any, where: str) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise ValueError(
            f'{where}: axis "{name}" = {values!r} is no list of values. Allowed is a list of at least one, such as '
            f'"{name}" = [1, 2]: give one, or remove the axis.'
        )
    return values


def _table(name: str, value: Any) -> dict[str, Any]:
    return dict(_flat(value)) if isinstance(value, Mapping) else {name: value}


def _short_names(keys: list[str]) -> dict[str, str]:
    """Keys by their last part where that tells them apart."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: word if last.count(word) == 1 else key for key, word in zip(keys, last, strict=True)}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
