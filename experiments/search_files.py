"""Search files: which values of a recipe to try, how, and what is best.

A search is a TOML file of `experiments/searches`, or a user's by path:

    title = "Learning rate and dropout of the small wrapper"    # what is asked, in a sentence
    recipe = "small_wrapper"        # name or path; its values are those of the first trial
    trials = 12
    method = "tpe"                  # "random", "tpe" or "halving"
    minimise = "mpjpe"              # or "loss"; of the held-out recordings of the training subjects
    train = ["none"]                # training patterns: a trial is trained on each, and its mean counts
    seeds = [0]                     # seeds of each trial: the same
    test = ["none", "leg_run"]      # what the winner is scored on; the training patterns if left out
    replicates = [0, 1, 2]          # seeds with which the winner is trained again
    set = ["training.epochs=6"]     # values of the recipe that are others here; "RECIPE:key=value" of a conditioner

    [space."training.lr"]           # any key of the recipe, in quotes
    kind = "log"                    # "uniform" and "int" likewise
    low = 1e-4
    high = 1e-2

    [space."model.dropout"]
    values = [0.0, 0.1, 0.25]

How each method chooses is told in `orchestration/search.py`; its keys there (`seed`, `startup`, `at_once`, `rounds`,
`keep`) are keys of the file.

Trials select their epoch by what is minimised, on recordings that neither they nor their conditioner were trained on:
the search sets training.select = "held_out" and training.select_by in the recipe and in those of its conditioners.
`select_on = "test"` selects epochs and the winner on the test subjects, as papers do; the runs are tagged optimistic.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from posegrid.datasets.options import from_values, unknown
from posegrid.experiments import catalogue
from posegrid.orchestration.recipe_files import read_toml
from posegrid.orchestration.search import Proposal, Strategy
from posegrid.orchestration.search_space import Space, override, space_of
from posegrid.orchestration.settings import Settings

SEARCHES = Path(__file__).parent / "searches"
_DECIDED = {
    "training.select": "select_on",
    "training.select_by": "minimise",
    "training.seed": "seeds",
    "occlusion.": "train",
}
"""Keys of a recipe -> key of the search that decides them."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search as its file says; see the top of this file."""

    title: str
    """What the search asks, in a sentence."""
    recipe: str
    """Recipe name or path."""
    space: dict[str, Any]
    """Key of the recipe -> table of a `Parameter`."""
    trials: int
    """Trials; those of the first round of "halving"."""
    method: str = "tpe"
    """"random", "tpe" or "halving"."""
    minimise: str = "mpjpe"
    """"mpjpe" (mm, of one hypothesis) or "loss" (of validation, whose meaning the space should not change)."""
    select_on: str = "held_out"
    """Whose recordings select: "held_out" of the training subjects, or the "test" subjects."""
    train: tuple[str | dict, ...] = ("none",)
    """Training patterns."""
    test: tuple[str | dict, ...] = ()
    """Test patterns of the winner; empty: its training patterns."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of every trial."""
    replicates: tuple[int, ...] = (0, 1, 2)
    """Seeds of the winner, which is trained with each and scored."""
    recipe_first: bool = True
    """Whether the first trial has the recipe's own values, which then must lie in the space."""
    set: tuple[str, ...] = ()
    """Values of recipes that are others here, as with --set, which comes after them."""
    seed: int = 0
    """Seed of what is drawn."""
    startup: int = 8
    """tpe: random trials of the first round."""
    at_once: int = 4
    """tpe: trials of each later round."""
    rounds: int = 3
    """halving: number of rounds."""
    keep: int = 3
    """halving: one of so many trials survives a round."""

    def __post_init__(self) -> None:
        for name, known in (("minimise", ("mpjpe", "loss")), ("select_on", ("held_out", "test"))):
            if getattr(self, name) not in known:
                raise unknown("value", getattr(self, name), f"key {name}", list(known))
        for name in ("train", "seeds", "replicates"):
            given = getattr(self, name)
            if not given or len({str(one) for one in given}) < len(given):
                raise ValueError(f"{name} = {list(given)}: allowed are one or more, each once. Correct the list.")
        self.strategy({})

    @property
    def parameters(self) -> Space:
        """The space, checked."""
        return space_of(self.space, "space")

    def strategy(self, first: dict[str, Any]) -> Strategy:
        """How its trials are chosen; `first`: values of the first one, or none."""
        return Strategy(
            space=self.parameters,
            method=self.method,
            trials=self.trials,
            seed=self.seed,
            startup=self.startup,
            at_once=self.at_once,
            rounds=self.rounds,
            keep=self.keep,
            first=first,
        )

    @property
    def metric(self) -> str:
        """Metric of a run of which the lowest value is its objective."""
        return {"mpjpe": "validation/mpjpe_mm", "loss": "validation/loss"}[self.minimise]

    @property
    def unit(self) -> str:
        """The objective in words."""
        of = {"held_out": "held-out recordings", "test": "test subjects"}[self.select_on]
        return f"{ {'mpjpe': 'MPJPE (mm)', 'loss': 'loss'}[self.minimise] } on {of}"


@dataclass(frozen=True, kw_only=True)
class ResolvedSearch:
    """A search whose recipe has been read: its space holds keys and values that the recipe takes."""

    search: Search
    set: tuple[str, ...]
    """Values of recipes that hold in all trials: the file's, the command line's, how conditioners are selected."""
    base: Settings
    """The recipe with these values."""
    strategy: Strategy

    def member(self, proposal: Proposal) -> catalogue.Member:
        """A proposal as a member of a grid."""
        search, epochs = self.search, self.epochs(proposal)
        decided = {"training.select": search.select_on, "training.select_by": search.minimise}
        shorter = {} if proposal.share == 1 else {"training.epochs": epochs}
        name = f"{Path(search.recipe).stem} trial {proposal.trial}"
        return catalogue.Member(
            recipe=search.recipe,
            label=f"{name}, {epochs} epochs" if shorter else name,
            set=tuple(override(key, value) for key, value in {**decided, **proposal.values, **shorter}.items()),
        )

    def epochs(self, proposal: Proposal) -> int:
        """Epochs that a proposal is trained for."""
        if "training.epochs" in proposal.values:
            return proposal.values["training.epochs"]
        return max(1, ceil(self.base.training.epochs * proposal.share - 1e-9))

    def settings(self, proposal: Proposal) -> Settings:
        """Recipe of a proposal, with the training pattern if there is one, and the seed of the first replicate."""
        search = self.search
        settings = catalogue.member_recipe(self.grid([proposal]), self.member(proposal), [])
        if len(search.train) == 1:
            settings = settings.with_occlusion(catalogue.resolve(search.train, "train")[0])
        return replace(settings, training=replace(settings.training, seed=search.replicates[0]))

    def grid(self, proposals: Iterable[Proposal], seeds: tuple[int, ...] = ()) -> catalogue.Grid:
        """Proposals as a grid. seeds: instead of those of trials."""
        search = self.search
        return catalogue.Grid(
            title=search.title,
            train=search.train,
            test=search.test or search.train,
            members=tuple(self.member(proposal) for proposal in proposals),
            seeds=seeds or search.seeds,
            set=self.set,
        )


def load_search(name: str) -> Search:
    """A search by name or path. Raises ValueError for unknown keys and for values out of range."""
    file = catalogue.find(name, SEARCHES, "search")
    return from_values(Search, read_toml(file), f"searches/{file.name}")


def resolve(search: Search, overrides: list[str], where: str) -> ResolvedSearch:
    """Read the recipe of a search with `overrides` and try the ends of every range.

    where: file of the search, for messages. Raises ValueError that names the key.
    """
    given = [*search.set, *overrides]
    own = catalogue.overrides_for(search.recipe, given, member=True)
    _check_keys(search, own, where)
    base = catalogue.recipe(search.recipe, own)
    bases = [base]
    for key, parameter in search.parameters.items():
        for value in parameter.extremes:
            try:
                tried = catalogue.recipe(search.recipe, [*own, override(key, value)])
            except ValueError as error:
                raise ValueError(f'{where}, space."{key}", value {value!r}: {error}') from None
            if key.startswith("conditioner."):
                bases.append(tried)
    first = {key: _value_of(base, key) for key in search.parameters} if search.recipe_first else {}
    for key, value in first.items():
        if not search.parameters[key].contains(value):
            raise ValueError(
                f'{where}, space."{key}" does not hold the recipe\'s own value {value!r}, which the first trial would '
                "have. Allowed is a space that holds it: widen it, or set recipe_first = false."
            )
    changes = tuple(dict.fromkeys([*given, *(change for one in bases for change in _unseen(search, one, given))]))
    return ResolvedSearch(search=search, set=changes, base=base, strategy=search.strategy(first))


def _check_keys(search: Search, own: list[str], where: str) -> None:
    """Refuse keys in the space, and values of the recipe, that the search decides itself."""
    decided = dict(_DECIDED)
    if search.method == "halving":
        decided["training.epochs"] = "rounds"
    changed = [text.partition("=")[0].strip() for text in own]
    for key in (*search.parameters, *changed):
        by = [one for start, one in decided.items() if key == start or (start.endswith(".") and key.startswith(start))]
        if by and not (key == "training.epochs" and key in changed):
            raise ValueError(
                f'{where} or --set gives "{key}", which this search decides by its key {by[0]}. Allowed are other keys '
                f"of the recipe: leave it out, and set {by[0]} instead."
            )
    for key in search.parameters:
        if key.startswith("evaluation."):
            raise ValueError(
                f'{where}, space."{key}": how a model is scored changes nothing that is minimised. Allowed are keys of '
                "[model], [training], [data] and [conditioner]: leave it out."
            )
        if key in changed:
            raise ValueError(
                f'{where} searches "{key}", and set or --set gives it a value. Allowed is one of both: leave out the '
                "value, or give the key a range of its own in a copy of the file."
            )


def _unseen(search: Search, settings: Settings, given: list[str]) -> Iterable[str]:
    """Values that keep the recordings which select from the conditioners' training, as they are from the trials'."""
    while search.select_on == "held_out" and settings.conditioner is not None and not settings.conditioner.run:
        name = settings.conditioner.recipe
        settings = catalogue.recipe(name, catalogue.overrides_for(name, given, member=False))
        if settings.training.select != "held_out":
            yield f"{Path(name).stem}:" + override("training.select", "held_out")


def _value_of(settings: Settings, key: str) -> Any:
    value: Any = settings.plain()
    for part in key.split("."):
        value = value[part]
    return value
