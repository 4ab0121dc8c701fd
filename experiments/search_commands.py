"""`posegrid search`: try values of a recipe, train the best again with other seeds, write its recipe."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posegrid.experiments.data_commands import say

if TYPE_CHECKING:
    # imported when used: `posegrid --help` answers at once
    from posegrid.experiments.search_files import ResolvedSearch


def search(
    name: Annotated[str, typer.Argument(help="Search name or path of a TOML file.")],
    data: Annotated[str, typer.Option("--data", help="Prepared data store: a folder or an address.")],
    trials: Annotated[int | None, typer.Option("--trials", help="Number of trials; default: the file's.")] = None,
    at_once: Annotated[
        int | None, typer.Option("--at-once", help="tpe: trials of each round after the first; default: the file's.")
    ] = None,
    select_on: Annotated[
        str | None,
        typer.Option("--select-on", help="held_out recordings of the training subjects, or test (tagged optimistic)."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File for the winner's recipe, such as best.toml.")] = None,
    study: Annotated[str | None, typer.Option("--study", help="Name of the study; default: search and data.")] = None,
    home: Annotated[Path, typer.Option("--home", help="Folder for results.")] = Path("runs"),
    tracking: Annotated[
        str | None,
        typer.Option("--tracking", envvar="MLFLOW_TRACKING_URI", help="MLflow server; default: SQLite under --home."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option("--storage", help="Folder or address for the state of unfinished runs.")
    ] = None,
    launch: Annotated[str, typer.Option("--launch", help='"ray" (default) or "local": one process, no Ray.')] = "ray",
    address: Annotated[
        str | None,
        typer.Option("--address", envvar="RAY_ADDRESS", help="Ray cluster to join; default: start Ray here."),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            "--workers", help="Workers of each training; 2-8: as there is room; 0: none but the trial itself."
        ),
    ] = "1",
    gpus: Annotated[float, typer.Option("--gpus-per-worker", help="GPUs for each worker; 0 trains on CPUs.")] = 0,
    cpus: Annotated[int, typer.Option("--cpus-per-worker", help="CPU cores for each worker.")] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a value of the recipe (repeatable), as with `posegrid grid`."),
    ] = None,
) -> None:
    """Search values of a recipe, score the best with several seeds, write its recipe. Repeat it to continue."""
    from functools import partial

    from posegrid.datasets.store import open_store
    from posegrid.experiments import studies
    from posegrid.experiments.reports.search_report import report_search
    from posegrid.experiments.search_study import SearchPlan, run
    from posegrid.orchestration.launch.resources import Resources
    from posegrid.orchestration.tracking import Tracking

    if out is not None and out.suffix != ".toml":
        raise ValueError(f"--out {out} is no name of a recipe. Allowed are files that end with .toml: rename it.")
    given = {"trials": trials, "at_once": at_once, "select_on": select_on}
    resolved = resolved_search(name, {key: value for key, value in given.items() if value is not None}, set_ or [])
    resources = Resources.asked(workers, gpus=gpus, cpus=cpus)
    where = studies.where_to_run(home, tracking, storage, launch, address, resources)
    store = open_store(data)
    default = f"search-{Path(name).stem}-{store.source}" + ("-on-test" if resolved.search.select_on == "test" else "")
    planned = SearchPlan(
        name=studies.study_name(default, set_, study),
        resolved=resolved,
        store=store,
        runs=partial(Tracking.existing, where.tracking),
        gpu=where.gpu,
    )
    report_search(resolved, run(planned, where, say), say, out)


def resolved_search(name: str, changes: dict[str, int | str], overrides: list[str]) -> "ResolvedSearch":
    """A search by name or path with changed keys and values of its recipe. Raises ValueError for anything wrong."""
    from posegrid.experiments.search_files import load_search, resolve

    return resolve(replace(load_search(name), **changes), overrides, f"searches/{Path(name).stem}.toml")  # type: ignore[arg-type]
