"""`posegrid search`: try values of a recipe, train the best again with other seeds, write its recipe."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posegrid.experiments.answers import answering, say
from posegrid.experiments.command_options import (
    Address,
    CpusEach,
    Data,
    GpusEach,
    Home,
    Json,
    Launch,
    Storage,
    TrackingUri,
    WorkerCount,
)

if TYPE_CHECKING:
    # imported when used: `posegrid --help` answers at once
    from posegrid.experiments.search_files import ResolvedSearch


def search(
    name: Annotated[str, typer.Argument(help="Search name or path of a TOML file.")],
    data: Data,
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
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    storage: Storage = None,
    launch: Launch = "ray",
    address: Address = None,
    workers: WorkerCount = "1",
    gpus: GpusEach = 0,
    cpus: CpusEach = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a value of the recipe (repeatable), as with `posegrid grid`."),
    ] = None,
    json_: Json = False,
) -> None:
    """Search values of a recipe, score the best with several seeds, write its recipe. Repeat it to continue."""
    from functools import partial

    from posegrid.datasets.store import open_store
    from posegrid.experiments import studies
    from posegrid.experiments.reports.plain_report import plain_report
    from posegrid.experiments.reports.search_report import plain_search, report_search
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
    with answering(json_) as answer:
        found = run(planned, where, say)
        report = report_search(resolved, found, answer.show, out, say)
        if json_:
            answer.give(plain_search(resolved, found) | plain_report(report, found.study.tracking))


def resolved_search(name: str, changes: dict[str, int | str], overrides: list[str]) -> "ResolvedSearch":
    """A search by name or path with changed keys and values of its recipe. Raises ValueError for anything wrong."""
    from posegrid.experiments.search_files import load_search, resolve

    return resolve(replace(load_search(name), **changes), overrides, f"searches/{Path(name).stem}.toml")  # type: ignore[arg-type]
