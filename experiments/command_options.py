"""Options that several verbs of the command line share, and what they stand for."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    # commands import what they need when they run: `posegrid --help` answers at once
    from posegrid.orchestration.tracking import Tracking

Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON document, all else on standard error."),
]
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
Split = Annotated[str, typer.Option("--split", help="train, held_out or test.")]
Device = Annotated[str, typer.Option("--device", help="Where networks run: cpu, or a GPU such as cuda:0.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for copies of tables and figures.")]


def tracking_address(home: Path, tracking: str | None) -> str:
    """Address of the tracking store that --home and --tracking name."""
    from posegrid.orchestration.tracking import sqlite_uri

    return tracking or sqlite_uri(home / "mlflow.db")


def tracking_opener(home: Path, tracking: str | None) -> "Callable[[], Tracking]":
    """Opens the tracking store that is there, when it is asked for: model files need none."""
    from posegrid.orchestration.tracking import Tracking

    return lambda: Tracking.existing(tracking_address(home, tracking))
