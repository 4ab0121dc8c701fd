"""The verbs of the command line that make MLflow models of trained ones; `cli` registers them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posegrid.experiments.answers import answering
from posegrid.experiments.command_options import Home, Json, TrackingUri, tracking_opener

if TYPE_CHECKING:
    # commands import what they need when they run: `posegrid --help` answers at once
    from posegrid.orchestration.model_registry import Packaged
    from posegrid.orchestration.tracking import Tracking

Run = Annotated[str, typer.Argument(help="Trained model: run id, run name, recipe, or models:/NAME@ALIAS.")]


def package(run: Run, home: Home = Path("runs"), tracking: TrackingUri = None, json_: Json = False) -> None:
    """Log a trained model as a model of MLflow in its run: mlflow.pyfunc.load_model and `mlflow models serve` take it.

    Repeated for the same model and sources, it finds what is there.
    """
    with answering(json_) as answer:
        packaged, opened = _packaged(run, home, tracking)
        for line in _lines(packaged, packaged.address, opened):
            answer.show(line)
        answer.give(_plain(packaged, opened))


def register(
    run: Run,
    name: Annotated[str, typer.Option("--name", help="Name of the registered model.")],
    alias: Annotated[
        list[str] | None, typer.Option("--alias", help="Alias that then points to it (repeatable): champion.")
    ] = None,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    json_: Json = False,
) -> None:
    """Register a trained model in MLflow under a name, with an alias if one is given; `package` comes first by itself.

    `posegrid lift --model models:/NAME@ALIAS` then takes it.
    """
    from posegrid.orchestration.model_registry import register

    with answering(json_) as answer:
        packaged, opened = _packaged(run, home, tracking)
        version = register(opened, packaged, name, alias)
        address = f"models:/{name}@{alias[0]}" if alias else f"models:/{name}/{version}"
        answer.show(f"{name}, version {version}{''.join(f', {one}' for one in alias or [])}: {address}")
        for line in _lines(packaged, address, opened):
            answer.show(line)
        answer.give(_plain(packaged, opened) | {"registered": address, "version": version})


def _packaged(run: str, home: Path, tracking: str | None) -> "tuple[Packaged, Tracking]":
    from posegrid.orchestration.found_models import trained_run
    from posegrid.orchestration.model_registry import package

    opened = tracking_opener(home, tracking)()
    return package(opened, trained_run(run, opened, "RUN")), opened


def _plain(packaged: "Packaged", tracking: "Tracking") -> dict[str, object]:
    return {"run": packaged.run_id, "model": packaged.address, "tracking": tracking.uri, "logged": packaged.made}


def _lines(packaged: "Packaged", address: str, tracking: "Tracking") -> list[str]:
    return [
        f"{packaged.address} {'logged in' if packaged.made else 'is in'} run {packaged.run_id}",
        f"serve it: MLFLOW_TRACKING_URI={tracking.uri} mlflow models serve -m {address} -p 5001 --env-manager local",
    ]
