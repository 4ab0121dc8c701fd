"""Published tables and the commands that make their rows again, at the paper's size or at one for a laptop.

`published.toml` says which commands belong to a table, `small_scale.toml` what a small version changes in recipes.
"""

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from posegrid.datasets.options import unknown
from posegrid.experiments import catalogue
from posegrid.experiments.catalogue import Grid, Member
from posegrid.experiments.reports.published import FILE
from posegrid.orchestration.recipe_files import read_toml
from posegrid.orchestration.settings import Settings

SMALL = Path(__file__).parent / "small_scale.toml"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A published table."""

    name: str
    """As `posegrid reproduce` takes it."""
    source: str
    protocol: str
    data: str
    """Store of the published setting under data/; empty if the commands need none."""
    commands: tuple[tuple[str, ...], ...]
    """Words after `posegrid`, without data and resources."""
    note: str
    """What the commands do not cover, or do otherwise."""
    columns: tuple[str, ...]
    rows: dict[str, list[float]]
    """Published numbers, NaN where none is printed."""


@dataclass(frozen=True, kw_only=True)
class SmallGrid:
    """A scaled-down version of commands of a table."""

    name: str
    """Name of its file and study."""
    grid: Grid
    changed: dict[str, dict[str, tuple[Any, Any]]]
    """Recipe -> key -> (published value, value here)."""


def tables() -> dict[str, Table]:
    """Every table of published.toml by the name that commands take."""
    return {name.replace("_", "-"): _table(name, values) for name, values in read_toml(FILE).items()}


def table_named(name: str) -> Table:
    """One of them, written with - or _. Raises ValueError with the nearest name."""
    every = tables()
    if name.replace("_", "-") not in every:
        raise unknown("published table", name, "command line", list(every))
    return every[name.replace("_", "-")]


def paper_commands(table: Table, data: str, gpus: float) -> list[list[str]]:
    """The table's commands in full, words after `posegrid`. Raises ValueError if there is none."""
    _check_commands(table)
    where = ["--data", data, *(["--gpus-per-worker", f"{gpus:g}"] if gpus else [])]
    return [[*words, *(where if _trains(words) else [])] for words in table.commands]


def small_grids(table: Table) -> list[SmallGrid]:
    """The grids and recipes of a table's commands, scaled down; recipes that are trained alone are one grid together.

    Raises ValueError if the table has no commands.
    """
    _check_commands(table)
    grids = {words[1]: catalogue.load_grid(words[1]) for words in table.commands if words[0] == "grid"}
    alone = list(dict.fromkeys(words[1] for words in table.commands if words[0] == "train"))
    if alone:
        patterns = tuple({json.dumps(pattern): pattern for pattern in map(_pattern, alone)}.values())
        grids[table.name] = Grid(
            title=f"{table.source}: recipes of the table",
            train=patterns,
            test=patterns,
            members=tuple(Member(recipe=name, label=name) for name in alone),
        )
    return [_scaled(name, grid) for name, grid in grids.items()]


def unscaled(table: Table) -> list[list[str]]:
    """Commands of a table that train nothing: they run anywhere as they are."""
    return [list(words) for words in table.commands if not _trains(words)]


def grid_text(grid: Grid, header: list[str]) -> str:
    """A grid as the text of its file. header: lines of the comment at its top."""
    lines = [*(f"# {line}".rstrip() for line in header), "", f"title = {_toml(grid.title)}"]
    lines += [f"{key} = {_toml(list(getattr(grid, key)))}" for key in ("train", "test", "seeds")]
    lines += ["set = [", *(f"  {_toml(one)}," for one in grid.set), "]"] if grid.set else []
    lines += [f"published = {_toml(grid.published)}"] if grid.published else []
    for member in grid.members:
        lines += ["", "[[members]]", f"recipe = {_toml(member.recipe)}", f"label = {_toml(member.label)}"]
        lines += [f"conditioner = {_toml(member.conditioner)}"] if member.conditioner else []
        lines += [f"train = {_toml(list(member.train))}"] if member.train else []
        own = [*member.set, *member.axes]
        lines += [f"set = {_toml(own)}"] if own else []
    return "\n".join(lines) + "\n"


def _table(name: str, values: dict[str, Any]) -> Table:
    return Table(
        name=name.replace("_", "-"),
        source=values["source"],
        protocol=values["protocol"],
        data=values.get("data", ""),
        commands=tuple(tuple(shlex.split(text)) for text in values["commands"]),
        note=values.get("note", ""),
        columns=tuple(values["columns"]),
        rows=values["rows"],
    )


def _check_commands(table: Table) -> None:
    if not table.commands:
        raise ValueError(
            f'table "{table.name}" (published.toml) cannot be made by commands yet: {table.note}. Allowed are tables '
            "with commands: `posegrid reproduce` lists them."
        )


def _trains(words: tuple[str, ...]) -> bool:
    return words[0] in ("grid", "train")


def _pattern(recipe: str) -> dict[str, Any]:
    return catalogue.recipe(recipe).occlusion


def _scaled(name: str, grid: Grid) -> SmallGrid:
    scale = read_toml(SMALL)
    recipes: dict[str, Settings] = {}
    for member in grid.members:
        left = [member.recipe]
        while left:
            settings = recipes.setdefault(left[0], catalogue.recipe(left.pop(0)))
            left += [settings.conditioner.recipe] if settings.conditioner and settings.conditioner.recipe else []
    values: list[str] = []
    for recipe, settings in recipes.items():
        given = [scale["all"], scale["models"][settings.model["name"]], scale["recipes"].get(recipe, {"set": []})]
        values += [f"{recipe}:{text}" for one in given for text in one["set"]]
    # a grid's own values come first: those that a table varies are its members'
    small = replace(grid, set=(*grid.set, *values))
    changed = {
        recipe: _differences(settings, catalogue.recipe(recipe, catalogue.overrides_for(recipe, values, member=False)))
        for recipe, settings in recipes.items()
    }
    return SmallGrid(name=f"{name}-small", grid=small, changed=changed)


def _differences(paper: Settings, small: Settings) -> dict[str, tuple[Any, Any]]:
    before, after = paper.plain(), small.plain()
    return {
        f"{table}.{key}": (before[table].get(key), value)
        for table in ("model", "data", "training", "evaluation")
        for key, value in after[table].items()
        if before[table].get(key) != value
    }


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return json.dumps(value, ensure_ascii=False)
