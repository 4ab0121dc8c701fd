"""The verbs of the command line that bring released checkpoints in and programs out; `cli` registers them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posegrid.experiments.answers import answering
from posegrid.experiments.command_options import Home, Json, TrackingUri, tracking_address, tracking_opener

if TYPE_CHECKING:
    # commands import what they need when they run: `posegrid --help` answers at once
    from posegrid.orchestration.released import Conditioner
    from posegrid.orchestration.settings import Settings
    from posegrid.orchestration.tracking import Tracking


def import_checkpoint(
    what: Annotated[
        str, typer.Argument(metavar="MODEL_OR_RECIPE", help="Recipe that describes the file; or a model and --recipe.")
    ],
    file: Annotated[Path, typer.Argument(help="Released checkpoint: a file of torch.save, or of Keras (.h5).")],
    recipe: Annotated[str | None, typer.Option("--recipe", help="Recipe name or path of a TOML file.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value of the recipe (repeatable): model.width=512")
    ] = None,
    skeleton: Annotated[
        str | None, typer.Option("--skeleton", help="Skeleton of the weights; default: that of the release.")
    ] = None,
    conditioner: Annotated[
        str | None,
        typer.Option("--conditioner", help="Run id or model file of a wrapper's lifter, if the file does not hold it."),
    ] = None,
    entry: Annotated[
        str | None, typer.Option("--entry", help="Name under which the file has the weights, if it is an unusual one.")
    ] = None,
    study: Annotated[str, typer.Option("--study", help="Study that the run belongs to.")] = "imported",
    data: Annotated[str | None, typer.Option("--data", help="Store to score the model on at once.")] = None,
    occlusion: Annotated[list[str] | None, typer.Option("--occlusion", help="Test patterns (repeatable).")] = None,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    json_: Json = False,
) -> None:
    """Make a tracked run of a checkpoint as its authors released it; with --data, score it like any other."""
    from posegrid.experiments.scoring import score
    from posegrid.models.official_names import skeleton_of_release
    from posegrid.models.registry import config_class
    from posegrid.orchestration.released import log_released, read_as
    from posegrid.orchestration.tracking import Tracking

    if occlusion and data is None:
        raise ValueError("--occlusion was given without --data, so nothing is scored. Add --data, or leave it out.")
    if not study or not all(sign.isalnum() or sign in "-_." for sign in study):
        raise ValueError(f"--study {study!r}: allowed are letters, digits, '-', '_' and '.'. Choose another name.")
    address, opened = tracking_address(home, tracking), tracking_opener(home, tracking)
    settings = _recipe(what, recipe, set_ or [])
    if skeleton is None:
        values = {key: value for key, value in settings.model.items() if key != "name"}
        skeleton = skeleton_of_release(settings.model["name"], config_class(settings.model["name"])(**values))
    with answering(json_) as answer:
        inside = _conditioner(settings, conditioner, skeleton, set_ or [], opened)
        released = read_as(file, settings, skeleton, entry=entry, conditioner=inside)
        run = log_released(released, study, Tracking.open(address))
        weights = sum(weight.numel() for weight in released.model.parameters())
        answer.show(
            f"{file.name} is run {run} ({settings.name}, {weights:,} parameters, sha256 {released.digest[:12]})"
        )
        scores = None
        if data is None:
            answer.show(f"Score it: posegrid evaluate {run} --data STORE --log")
        else:
            scores = score(run, data, occlusion or ["none"], "test", None, opened, answer.show, log=True)
        facts = {"run": run, "study": study, "tracking": address, "recipe": settings.name, "skeleton": skeleton}
        answer.give(facts | {"parameters": weights, "sha256": released.digest, "evaluation": scores})


def export_model(
    run: Annotated[str, typer.Argument(help="Run id of a trained or imported run, or a model file (model.pt).")],
    out: Annotated[Path, typer.Option("--out", help="File to write, ending with .pt2.")],
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    json_: Json = False,
) -> None:
    """Write a lifter as a program of torch.export, which runs without posegrid."""
    from posegrid.datasets.skeletons import skeleton_named
    from posegrid.orchestration import checkpoint
    from posegrid.orchestration.program_file import DESCRIPTION, write_program
    from posegrid.orchestration.released import window_shape
    from posegrid.orchestration.tracking import MODEL_ARTIFACT

    if run.endswith(".pt"):
        model, settings, trained_on = checkpoint.load_model(Path(run))
    else:
        opened = tracking_opener(home, tracking)()
        opened.trial(run)
        with opened.fetched(run, MODEL_ARTIFACT) as file:
            model, settings, trained_on = checkpoint.load_model(file)
    skeleton = skeleton_named(trained_on["skeleton"])
    about = {"recipe": settings.name, "model": settings.model["name"], "skeleton": skeleton.name}
    about |= {"joints": list(skeleton.joints)}
    with answering(json_) as answer:
        described = write_program(out, model, window_shape(skeleton, settings.data.frames), about)
        for name, content in described["inputs"].items():
            answer.show(f"{name}: {content}")
        answer.show(f"result: {described['output']}")
        size = out.stat().st_size
        answer.show(f"{out}: {size / 2**20:.1f} MiB, checked; {DESCRIPTION} inside says what it is")
        given = ", ".join(f"{name}={name}" for name in described["inputs"])
        answer.show(f'Use it: torch.export.load("{out}").module()({given})')
        answer.give({"file": out, "bytes": size, **described})


def _recipe(what: str, recipe: str | None, overrides: list[str]) -> "Settings":
    """Settings of the recipe that is meant. Raises ValueError if none is, or if it is one of another model."""
    from posegrid.datasets.options import unknown
    from posegrid.experiments import catalogue
    from posegrid.models.registry import model_names
    from posegrid.orchestration.recipe_files import read_toml

    known = catalogue.names(catalogue.RECIPES)
    if recipe is None and not what.endswith(".toml") and what not in known:
        if what not in model_names():
            raise unknown("recipe", what, "MODEL_OR_RECIPE", known)
        tables = {name: read_toml(catalogue.RECIPES / f"{name}.toml") for name in known}
        fitting = [name for name, values in tables.items() if values["model"]["name"] == what]
        raise ValueError(
            f"MODEL_OR_RECIPE {what} names a model, not how large its network is. Add --recipe; recipes of this model: "
            f"{', '.join(fitting) or 'none'}, or a TOML file of your own. --set changes single values."
        )
    name = recipe or what
    settings = catalogue.recipe(name, catalogue.overrides_for(name, overrides, member=True))
    if recipe is not None and what != settings.model["name"]:
        raise ValueError(
            f"MODEL_OR_RECIPE {what} was given, but --recipe {recipe} describes a {settings.model['name']}. Give the "
            "recipe alone, or that model."
        )
    return settings


def _conditioner(
    settings: "Settings",
    given: str | None,
    skeleton: str,
    overrides: list[str],
    tracking: Callable[[], "Tracking"],
) -> "Conditioner | None":
    """The lifter inside a wrapper; None for models without one."""
    from posegrid.experiments import catalogue
    from posegrid.orchestration.finished_runs import finished_run
    from posegrid.orchestration.released import Conditioner, conditioner_from

    if settings.conditioner is None:
        if given is not None:
            raise ValueError(
                f"--conditioner {given} was given, but recipe {settings.name} has no conditioner. Leave it out, or use "
                "the recipe of a wrapper."
            )
        return None
    if given is None and settings.conditioner.run:
        given = finished_run(tracking(), settings.conditioner.run).trial.run_id
    if given is not None:
        return conditioner_from(given, skeleton, tracking)
    name = settings.conditioner.recipe
    lifter = catalogue.recipe(name, catalogue.overrides_for(name, overrides, member=False))
    return Conditioner(settings=replace(lifter, initial=None))
