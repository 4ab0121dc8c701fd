"""The command line: one function a verb. Errors that a user can cause exit with status 2."""

import json
import logging
import os
import shlex
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from posegrid.experiments import (
    analysis_commands,
    cluster_commands,
    data_commands,
    import_commands,
    lift_commands,
    model_commands,
    plan_commands,
    reproduce_commands,
    sampler_commands,
    search_commands,
    studies,
)
from posegrid.experiments.data_commands import say
from posegrid.experiments.examples import with_examples
from posegrid.experiments.planning import Plan, plan
from posegrid.orchestration.launch.resources import Resources
from posegrid.orchestration.settings import fingerprint
from posegrid.orchestration.tracking import Tracking, sqlite_uri

app = typer.Typer(
    name="posegrid",
    help="Experiments on lifting 2D human keypoints to 3D: prepare data, train, run grids, compare in MLflow.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="Prepared data store: a folder made by `posegrid prepare`, or an address such as s3://bucket/name.",
    ),
]
Home = Annotated[Path, typer.Option("--home", help="Folder for results: tracking database, artifacts, state of runs.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking",
        envvar="MLFLOW_TRACKING_URI",
        help="MLflow server address, for instance http://head:5000; default: SQLite under --home.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option("--storage", help="Folder or address for the state of unfinished runs, reached by all nodes."),
]
Launch = Annotated[str, typer.Option("--launch", help='"ray" (default) or "local": one process without Ray.')]
Address = Annotated[
    str | None,
    typer.Option("--address", envvar="RAY_ADDRESS", help="Ray cluster to join; default: start Ray on this machine."),
]
WorkerCount = Annotated[
    str,
    typer.Option("--workers", help="Workers of each training; 2-8: as there is room; 0: none but the trial itself."),
]
GpusEach = Annotated[float, typer.Option("--gpus-per-worker", help="GPUs for each worker; 0 trains on CPUs.")]
CpusEach = Annotated[int, typer.Option("--cpus-per-worker", help="CPU cores for each worker.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change a value (repeatable): training.lr=2e-4, or for one recipe RECIPE:training.lr=2e-4"
    ),
]

Axis = Annotated[
    list[str] | None,
    typer.Option("--axis", help="Cross the grid with values of a recipe key (repeatable): training.lr=1e-3,2e-4"),
]


app.command()(data_commands.prepare)
app.command()(data_commands.fetch)
app.command()(data_commands.export)
app.command()(data_commands.publish)
app.command()(import_commands.import_checkpoint)
app.command()(import_commands.export_model)
app.command()(lift_commands.lift)
app.command()(lift_commands.animate)
app.command("export-keypoints")(lift_commands.export_keypoints)
app.command()(model_commands.package)
app.command()(model_commands.register)
app.command()(analysis_commands.complexity)
app.add_typer(analysis_commands.analyse, name="analyse")
app.command()(cluster_commands.submit)
app.command("study-samplers")(sampler_commands.study_samplers_command)
app.command()(search_commands.search)
app.command("plan")(plan_commands.plan_command)
app.command()(reproduce_commands.reproduce)


@app.command()
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
) -> None:
    """Train one recipe under one pattern (its conditioner first, if it has one) and score it."""
    from posegrid.experiments.catalogue import Grid, Member, overrides_for
    from posegrid.experiments.catalogue import recipe as load

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
    where = _where(home, tracking, storage, launch, address, Resources.asked(workers, gpus=gpus, cpus=cpus))
    default = f"train-{member.label}-{occlusion or own.occlusion['pattern']}"
    runs = partial(Tracking.existing, where.tracking)
    _run(plan(_name(default, set_, study), grid, data, set_, decides=False, tracking=runs, gpu=where.gpu), where)


@app.command()
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
) -> None:
    """Run a grid (train on pattern i, test on pattern j), then build its report. Repeat it to continue."""
    from posegrid.datasets.store import read_description
    from posegrid.datasets.store_cache import local_store
    from posegrid.experiments.axes import given_axes
    from posegrid.experiments.catalogue import load_grid

    loaded = load_grid(name, given_axes(axis or []))
    where = _where(home, tracking, storage, launch, address, Resources.asked(workers, gpus=gpus, cpus=cpus))
    default = f"{Path(name).stem}-{read_description(local_store(data))['source']}"
    runs = partial(Tracking.existing, where.tracking)
    changes = [*(set_ or []), *(axis or [])]
    _run(plan(_name(default, changes, study), loaded, data, set_, tracking=runs, gpu=where.gpu), where)


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="Run id of a trained run, or path of a model file (model.pt).")],
    data: Data,
    occlusion: Annotated[list[str] | None, typer.Option("--occlusion", help="Test patterns (repeatable).")] = None,
    split: Annotated[str, typer.Option("--split", help="train, held_out or test.")] = "test",
    hypotheses: Annotated[int | None, typer.Option("--hypotheses", help="Poses sampled for each window.")] = None,
    log: Annotated[bool, typer.Option("--log", help="Log the scores in the run too, as its own stage does.")] = False,
    patch: Annotated[
        list[int] | None,
        typer.Option("--patch", help="Instead: the worst of sliding patches of this many pixels (repeatable): 40, 80."),
    ] = None,
    patch_every: Annotated[int, typer.Option("--patch-every", help="With --patch: frames between pictures.")] = 1,
    textures: Annotated[
        Path | None, typer.Option("--textures", help="With --patch: folder of texture images; default: made ones.")
    ] = None,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Score by another protocol (repeatable): evaluation.score=overlap")
    ] = None,
) -> None:
    """Score a trained model on a data set and print the per-action table."""
    from posegrid.experiments.scoring import score

    results = _tracking(home, tracking)
    if patch and set_:
        raise ValueError("--set was given with --patch, which has one protocol of its own. Leave out one of them.")
    if patch:
        from posegrid.experiments.patch_scoring import score_patched

        score_patched(run, data, patch, split, patch_every, textures, lambda: Tracking.existing(results), say)
        return
    patterns = occlusion or ["none"]
    score(run, data, patterns, split, hypotheses, lambda: Tracking.existing(results), say, changes=set_, log=log)


@app.command()
def report(
    study: Annotated[str, typer.Argument(help="Name of a study.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for copies of tables and figures.")] = None,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
) -> None:
    """Build the tables and figures of a study, print them, and log them in its parent run."""
    from posegrid.experiments.reports.grid_report import build_report

    build_report(Tracking.existing(_tracking(home, tracking)), _name(study), say, out)


@app.command()
def check(
    what: Annotated[str, typer.Argument(help='"recipe", "grid", "data", "keypoints" or "setup".')],
    name: Annotated[str | None, typer.Argument(help="Recipe, grid, folder of a store, or keypoint files.")] = None,
    data: Annotated[str | None, typer.Option("--data", help='With "setup": a data store that all nodes need.')] = None,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    storage: Storage = None,
    address: Address = None,
    workers: WorkerCount = "1",
    gpus: GpusEach = 0,
    cpus: CpusEach = 1,
) -> None:
    """Check a recipe, a grid, a store, keypoints, or what every node needs - before anything runs."""
    from posegrid.experiments import checks

    if what == "setup":
        where = _where(home, tracking, storage, "ray", address, Resources.asked(workers, gpus=gpus, cpus=cpus))
        checks.check_setup(where, say, data)
    else:
        checks.check(what, name, say)


@app.command()
def ui(
    home: Home = Path("runs"),
    port: Annotated[int, typer.Option("--port", help="Port on localhost.")] = 5000,
    cluster: cluster_commands.Cluster = None,
    dashboard: Annotated[
        int, typer.Option("--dashboard-port", help="With --cluster: port on localhost for Ray's dashboard.")
    ] = 8265,
) -> None:
    """Show the MLflow UI on localhost: of the results under --home, or with --cluster of a cluster."""
    from posegrid.orchestration.tracking_pages import serve_ui

    if cluster is not None:
        cluster_commands.open_ui(cluster, port, dashboard, say)
        return
    serve_ui(home, port, say)


with_examples(app)


def _run(planned: Plan, where: studies.Where) -> None:
    from posegrid.experiments.reports.grid_report import build_report

    studies.run(planned, where, say)
    build_report(Tracking(where.tracking), planned.name, say)
    say(_look(where.tracking, planned.name))


def _look(tracking: str, study: str) -> str:
    if not tracking.startswith("sqlite:///"):
        return f"Look at study {study} in the MLflow UI at {tracking}."
    home = Path(tracking.removeprefix("sqlite:///")).parent
    return f"Compare the runs of study {study}: posegrid ui --home {os.path.relpath(home)}   then http://127.0.0.1:5000"


def _where(
    home: Path, tracking: str | None, storage: str | None, launch: str, address: str | None, resources: Resources
) -> studies.Where:
    if launch not in ("ray", "local"):
        raise ValueError(f'--launch {launch} is unknown. Allowed: "ray", "local".')
    if launch == "local" and resources != Resources():
        warnings.warn("--launch local runs one worker on the CPU: --workers and the like have no effect", stacklevel=2)
    return studies.Where(
        tracking=_tracking(home, tracking),
        storage=storage or str((home / "state").resolve()),
        launch=launch,
        address=address,
        resources=resources,
    )


def _tracking(home: Path, tracking: str | None) -> str:
    return tracking or sqlite_uri(home / "mlflow.db")


def _name(default: str, overrides: list[str] | None = None, given: str | None = None) -> str:
    """The study's name; changed recipes make another study, so that the unchanged one's report stays as it is."""
    changed = f"-{fingerprint(sorted(overrides))[:6]}" if overrides else ""
    study = given or default + changed
    if not all(sign.isalnum() or sign in "-_." for sign in study):
        raise ValueError(f"study name {study!r}: allowed are letters, digits, '-', '_' and '.'. Choose another name.")
    return study


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is what led to an error."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _how_to_continue(words: list[str]) -> str:
    again = f"posegrid {shlex.join(words)}"
    if words and words[0] in ("train", "grid", "search", "reproduce", "prepare", "fetch", "publish", "lift"):
        return f"interrupted. What is done is kept; this continues where it stopped:\n  {again}"
    return f"interrupted. Nothing half-written is left; to do it again:\n  {again}"


def main(arguments: list[str] | None = None) -> Any:
    """Entry point. Exit status: 0 done, 1 something failed while running, 2 a mistake in the input, 130 Ctrl-C."""
    for chatty in ("alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    trace = "POSEGRID_TRACE" in os.environ
    try:
        return app(arguments, standalone_mode=True)
    except SystemExit as ended:
        if not _interrupted(ended):
            raise
        words = sys.argv[1:] if arguments is None else arguments
        typer.echo(_how_to_continue(words), err=True)
        sys.exit(130)
    except ValueError as error:
        if trace:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except Exception as error:  # a person at a terminal is not helped by a traceback
        if trace:
            raise
        typer.echo(f"failed: {type(error).__name__}: {error}\n(set POSEGRID_TRACE=1 to see where)", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
