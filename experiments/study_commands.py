"""The verbs of the command line that run a study and tell what came out; `cli` registers them."""

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posegrid.experiments.answers import answering, say
from posegrid.experiments.command_options import (
    Address,
    Axis,
    CpusEach,
    Data,
    GpusEach,
    Home,
    Json,
    Launch,
    Set,
    Storage,
    TrackingUri,
    WorkerCount,
    tracking_address,
)

if TYPE_CHECKING:
    # commands import what they need when they run: `posegrid --help` answers at once
    from posegrid.experiments.planning import Plan
    from posegrid.experiments.studies import Where


def train(
    recipe: Annotated[str, typer.Argument(help="Recipe name or path of a TOML file.")],
    data: Data,
    occlusion: Annotated[
        str | None, typer.Option("--occlusion", help="Training pattern; default: the recipe's.")
    ] = None,
    test: Annotated[
        list[str] | None, typer.Option("--test", help="Test patterns (repeatable); default: the training pattern.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option("--seed", help="Seeds (repeatable); default: the recipe's.")] = None,
    study: Annotated[str | None, typer.Option("--study", help="Name of the study in MLflow.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Start from these weights: run id, or path of a model file (model.pt).")
    ] = None,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    storage: Storage = None,
    launch: Launch = "ray",
    address: Address = None,
    workers: WorkerCount = "1",
    gpus: GpusEach = 0,
    cpus: CpusEach = 1,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """Train one recipe under one pattern (its conditioner first, if it has one) and score it."""
    from posegrid.experiments.catalogue import Grid, Member, overrides_for
    from posegrid.experiments.catalogue import recipe as load
    from posegrid.experiments.planning import plan
    from posegrid.experiments.studies import study_name, where_to_run
    from posegrid.orchestration.launch.resources import Resources
    from posegrid.orchestration.tracking import Tracking

    if start is not None:
        set_ = [*(set_ or []), f"initial.source={json.dumps(start)}"]
    member = Member(recipe=recipe, label=Path(recipe).stem)
    own = load(recipe, overrides_for(recipe, set_ or [], member=True))
    trained_on = occlusion or own.occlusion
    grid = Grid(
        title=f"{member.label} trained on {occlusion or own.occlusion['pattern']}",
        train=(trained_on,),
        test=tuple(test or [trained_on]),
        members=(member,),
        seeds=tuple(seed or [own.training.seed]),
    )
    resources = Resources.asked(workers, gpus=gpus, cpus=cpus)
    where = where_to_run(home, tracking, storage, launch, address, resources)
    name = study_name(f"train-{member.label}-{occlusion or own.occlusion['pattern']}", set_, study)
    runs = partial(Tracking.existing, where.tracking)
    _run(plan(name, grid, data, set_, decides=False, tracking=runs, gpu=where.gpu), where, json_)


def grid(
    name: Annotated[str, typer.Argument(help="Grid name or path of a TOML file.")],
    data: Data,
    study: Annotated[str | None, typer.Option("--study", help="Name of the study; default: grid and data.")] = None,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    storage: Storage = None,
    launch: Launch = "ray",
    address: Address = None,
    workers: WorkerCount = "1",
    gpus: GpusEach = 0,
    cpus: CpusEach = 1,
    set_: Set = None,
    axis: Axis = None,
    json_: Json = False,
) -> None:
    """Run a grid (train on pattern i, test on pattern j), then build its report. Repeat it to continue."""
    from posegrid.datasets.store import read_description
    from posegrid.datasets.store_cache import local_store
    from posegrid.experiments.axes import given_axes
    from posegrid.experiments.catalogue import load_grid
    from posegrid.experiments.planning import plan
    from posegrid.experiments.studies import study_name, where_to_run
    from posegrid.orchestration.launch.resources import Resources
    from posegrid.orchestration.tracking import Tracking

    loaded = load_grid(name, given_axes(axis or []))
    resources = Resources.asked(workers, gpus=gpus, cpus=cpus)
    where = where_to_run(home, tracking, storage, launch, address, resources)
    default = f"{Path(name).stem}-{read_description(local_store(data))['source']}"
    runs = partial(Tracking.existing, where.tracking)
    chosen = study_name(default, [*(set_ or []), *(axis or [])], study)
    _run(plan(chosen, loaded, data, set_, tracking=runs, gpu=where.gpu), where, json_)


def report(
    study: Annotated[str, typer.Argument(help="Name of a study.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for copies of tables and figures.")] = None,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    json_: Json = False,
) -> None:
    """Build the tables and figures of a study, print them, and log them in its parent run."""
    from posegrid.experiments.reports.grid_report import build_report
    from posegrid.experiments.reports.plain_report import plain_report
    from posegrid.experiments.studies import study_name
    from posegrid.orchestration.tracking import Tracking

    with answering(json_) as answer:
        opened = Tracking.existing(tracking_address(home, tracking))
        built = build_report(opened, study_name(study), answer.show, out, say)
        if json_:
            answer.give(plain_report(built, opened))


def _run(planned: "Plan", where: "Where", json_: bool) -> None:
    from posegrid.experiments import studies
    from posegrid.experiments.reports.grid_report import build_report
    from posegrid.experiments.reports.plain_report import plain_report
    from posegrid.orchestration.tracking import Tracking

    with answering(json_) as answer:
        studies.run(planned, where, say)
        opened = Tracking(where.tracking)
        built = build_report(opened, planned.name, answer.show, None, say)
        say(_look(where.tracking, planned.name))
        if json_:
            answer.give(plain_report(built, opened))


def _look(tracking: str, study: str) -> str:
    if not tracking.startswith("sqlite:///"):
        return f"Look at study {study} in the MLflow UI at {tracking}."
    home = Path(tracking.removeprefix("sqlite:///")).parent
    return f"Compare the runs of study {study}: posegrid ui --home {os.path.relpath(home)}   then http://127.0.0.1:5000"
