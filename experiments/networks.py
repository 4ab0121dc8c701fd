"""Networks by their names on the command line: a recipe, a trained run, a model file."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # imported when used: the command line loads this file before it knows what is asked
    from posegrid.datasets.store import Store
    from posegrid.models.interface import Lifter
    from posegrid.orchestration.settings import Settings
    from posegrid.orchestration.tracking import Tracking


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that was asked for by name."""

    model: "Lifter"
    settings: "Settings"
    skeleton: str
    """Name of the skeleton that it lifts."""
    run: str
    """Run that holds it; empty for recipes and files."""
    name: str
    """What people call it."""


def network_named(name: str, overrides: list[str], skeleton: str, tracking: "Callable[[], Tracking]") -> Network:
    """The network of a recipe with fresh weights, or that of a run or file. Raises ValueError if there is none.

    Overrides and skeleton are those of recipes.
    """
    from posegrid.datasets.skeletons import skeleton_named
    from posegrid.experiments import catalogue
    from posegrid.orchestration import checkpoint
    from posegrid.orchestration.batches import shape_of

    if not name.endswith(".toml") and name not in catalogue.names(catalogue.RECIPES):
        return trained_network(name, tracking)
    settings = catalogue.recipe(name, overrides)
    if settings.conditioner is not None:
        settings = replace(settings, upstream=catalogue.recipe(settings.conditioner.recipe).plain())
    model = checkpoint.build(settings, shape_of(skeleton_named(skeleton), settings.data))
    return Network(model=model, settings=settings, skeleton=skeleton, run="", name=settings.name)


def trained_network(name: str, tracking: "Callable[[], Tracking]") -> Network:
    """The trained network of a run (its id) or of a model file (its path). Raises ValueError if there is none."""
    from posegrid.datasets.options import unknown
    from posegrid.experiments import catalogue
    from posegrid.orchestration import checkpoint
    from posegrid.orchestration.stage import MODEL_ARTIFACT

    if name.endswith(".pt"):
        model, settings, data = checkpoint.load_model(Path(name))
        return Network(model=model, settings=settings, skeleton=data["skeleton"], run="", name=Path(name).stem)
    if not re.fullmatch("[0-9a-f]{32}", name):
        raise unknown("recipe or run id", name, "command line", catalogue.names(catalogue.RECIPES))
    opened = tracking()
    trial = opened.trial(name)
    with opened.fetched(trial.run_id, MODEL_ARTIFACT) as file:
        model, settings, data = checkpoint.load_model(file)
    called = trial.tags.get("mlflow.runName", settings.name)
    return Network(model=model, settings=settings, skeleton=data["skeleton"], run=trial.run_id, name=called)


def network_and_store(name: str, data: str, tracking: "Callable[[], Tracking]") -> "tuple[Network, Store]":
    """A trained network and the store it is looked at with. Raises ValueError if their skeletons differ."""
    from posegrid.datasets.addresses import shown
    from posegrid.datasets.store import open_store

    found, store = trained_network(name, tracking), open_store(data)
    if found.skeleton != store.skeleton.name:
        raise ValueError(
            f"{name} was trained on skeleton {found.skeleton}, the store {shown(data)} has {store.skeleton.name}. "
            "Use a store with the same skeleton."
        )
    return found, store
