"""Recipes and grids: the shipped ones by name, a user's by path; which recipes a grid trains and tests on what."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from posegrid.datasets.options import from_values, unknown
from posegrid.experiments.axes import followed, points
from posegrid.experiments.reports.published import published_table
from posegrid.orchestration.recipe_files import load_recipe, parse_overrides, read_toml
from posegrid.orchestration.settings import Settings, occlusion_values

_HERE = Path(__file__).parent
RECIPES, GRIDS = _HERE / "recipes", _HERE / "grids"


@dataclass(frozen=True, kw_only=True)
class Member:
    """A recipe that takes part in a grid."""

    recipe: str
    """Recipe name or path."""
    label: str
    """Name in tables and figures."""
    conditioner: str = ""
    """Another pattern for the conditioner than the recipe says: "same" or "none"."""
    train: tuple[str | dict, ...] = ()
    """Training patterns of this member; empty means those of the grid."""
    set: tuple[str, ...] = ()
    """Values of its recipe that are others here, such as "training.flip_pairs=true"; as with --set, which comes after
    them. They do not reach the recipe of a conditioner."""
    axes: tuple[str, ...] = ()
    """Values that the axes of the grid give it; they come after `set`. See `experiments/axes.py`."""


@dataclass(frozen=True, kw_only=True)
class MoreSeeds:
    """Further seeds of one training pattern."""

    train: str | dict
    """The pattern, as in the grid's `train`."""
    seeds: tuple[int, ...]
    """Seeds beside those of the grid."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Train on pattern i, test on pattern j, for every member and seed."""

    title: str
    """What the study asks, in a sentence."""
    train: tuple[str | dict, ...]
    """Training patterns: names, or tables with a pattern and its settings."""
    test: tuple[str | dict, ...]
    """Test patterns."""
    members: tuple[Member, ...]
    """Recipes. Figures compare each of the later ones with the first."""
    seeds: tuple[int, ...] = (0,)
    """Seeds; each trains everything once."""
    more_seeds: tuple[MoreSeeds, ...] = ()
    """Further seeds of single training patterns, where all seeds on all patterns would be too much."""
    set: tuple[str, ...] = ()
    """Values of recipes that are others throughout this grid, such as "small_lifter:training.epochs=8", also where that
    recipe is a conditioner, or without a name for all members. As with --set, which comes after them."""
    axes: dict[str, Any] = field(default_factory=dict)
    """Recipe keys with several values each; `load_grid` crosses them with the members."""
    published: str = ""
    """Table of published.toml that the report shows beside these results; none if empty."""

    def __post_init__(self) -> None:
        for name in ("train", "test", "members", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one entry.")
        for more in self.more_seeds:
            if more.train not in self.train or set(more.seeds) & set(self.seeds):
                raise ValueError(
                    f"more_seeds names the pattern {more.train} with seeds {list(more.seeds)}. Allowed are patterns of "
                    f"train, and other seeds than {list(self.seeds)}. Correct the entry."
                )
        labels = [member.label for member in self.members]
        for label in labels:
            if not label.strip():
                raise ValueError("a member's label is empty. Give it one: runs and tables are named by it.")
        if len(set(labels)) != len(labels):
            raise ValueError(f"member labels repeat: {', '.join(labels)}. Give each member a label of its own.")


def seeds_of(grid: Grid, patterns: list[dict[str, Any]]) -> dict[tuple[int, ...], list[dict[str, Any]]]:
    """Resolved training patterns by the seeds that they are trained with."""
    more = [(occlusion_values(entry.train, "more_seeds"), entry.seeds) for entry in grid.more_seeds]
    found: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for pattern in patterns:
        own = tuple(seed for other, seeds in more if other == pattern for seed in seeds)
        found.setdefault((*grid.seeds, *own), []).append(pattern)
    return found


def names(folder: Path) -> list[str]:
    """Names of the TOML files of a folder."""
    return sorted(file.stem for file in folder.glob("*.toml"))


def find(name: str, folder: Path, what: str) -> Path:
    """A shipped file by name, or a file of the user's by path. Raises ValueError with the nearest name."""
    if name.endswith(".toml"):
        return Path(name)
    if name not in names(folder):
        raise unknown(what, name, "command line or grid file", names(folder))
    return folder / f"{name}.toml"


def recipe(name: str, overrides: list[str] | None = None) -> Settings:
    """A recipe by name or path, with overrides."""
    return load_recipe(find(name, RECIPES, "recipe"), overrides)


def load_grid(name: str, axes: Mapping[str, Any] | None = None) -> Grid:
    """A grid by name or path, crossed with its axes and those given. Raises ValueError for unknown keys, recipes or
    patterns."""
    file = find(name, GRIDS, "grid")
    grid = from_values(Grid, read_toml(file), f"grids/{file.name}")
    if grid.published:
        published_table(grid.published, f"grids/{file.name}, key published")
    return crossed(crossed(grid, grid.axes, f"grids/{file.name}, table [axes]"), axes or {}, "--axis")


def crossed(grid: Grid, axes: Mapping[str, Any], where: str) -> Grid:
    """A grid with a member for each of its members and combinations of values. Raises ValueError as `points` does."""
    every = [
        replace(member, label=", ".join(filter(None, (member.label, point.label))), axes=(*member.axes, *point.values))
        for member in grid.members
        for point in points(axes, where)
    ]
    return replace(grid, members=tuple(every), axes={})


def resolve(patterns: tuple[str | dict, ...], where: str) -> list[dict[str, Any]]:
    """Patterns with all their values; errors name the entry."""
    return [occlusion_values(pattern, f"{where}[{index}]") for index, pattern in enumerate(patterns)]


def pattern(text: str, where: str) -> dict[str, Any]:
    """A pattern given on the command line, with all its values: its name, or a TOML table such as
    `{pattern="sparse_frames", strides=[5], shift="video"}`."""
    if not text.lstrip().startswith("{"):
        return occlusion_values(text, where)
    values = parse_overrides([f"pattern={text}"])["pattern"]
    if not isinstance(values, dict):
        raise ValueError(
            f"{where} {text} is no TOML table. Allowed is a name, or a table in one line such as "
            '{pattern="sparse_frames", strides=[5], shift="video"}. Correct it, and quote it for the shell.'
        )
    return occlusion_values(values, where)


def overrides_for(name: str, overrides: list[str], *, member: bool) -> list[str]:
    """Those overrides that hold for a recipe: plain ones for members, "RECIPE:key=value" for that recipe."""
    chosen = []
    for text in overrides:
        target, colon, _ = text.partition("=")[0].partition(":")
        if colon and target == Path(name).stem:
            chosen.append(text[len(target) + 1 :])
        elif not colon and member:
            chosen.append(text)
    return chosen


def member_recipe(grid: Grid, member: Member, overrides: list[str]) -> Settings:
    """Settings of a grid's member: its recipe with values of the grid, of the member, of the axes, of `overrides` and
    the pattern of its conditioner, in this order. Raises ValueError that names the member if its own values may be
    wrong."""
    before = overrides_for(member.recipe, list(grid.set), member=True)
    crossed_with = overrides_for(member.recipe, list(member.axes), member=True)
    try:
        return _with_conditioner(member, recipe(member.recipe, [*before, *member.set, *crossed_with, *overrides]))
    except ValueError as error:
        own = [*member.set, *crossed_with]
        if not own:
            raise
        raise ValueError(f'member "{member.label}" with set = {own}: {error}') from None


def conditioner_recipe(grid: Grid, member: Member, name: str, overrides: list[str]) -> Settings:
    """Settings of the conditioner's recipe of a grid's member. Values for all members hold for it too if it is one; of
    the axes those that name it, and those that say how windows are cut, which must be the member's."""
    is_member = name in {one.recipe for one in grid.members}
    before = overrides_for(name, list(grid.set), member=is_member)
    crossed_with = [*followed(member.axes), *overrides_for(name, list(member.axes), member=False)]
    return recipe(name, [*before, *crossed_with, *overrides_for(name, overrides, member=is_member)])


def _with_conditioner(member: Member, settings: Settings) -> Settings:
    """Settings of a member's recipe, with the conditioner's pattern that the grid asks for."""
    if not member.conditioner:
        return settings
    if settings.conditioner is None:
        raise ValueError(
            f"member {member.label!r} sets a conditioner pattern, but its recipe {settings.name} has no conditioner."
        )
    return replace(settings, conditioner=replace(settings.conditioner, occlusion=member.conditioner))
