"""The command line: the verbs, and how every one of them ends. Errors that a user can cause exit with status 2."""

import gc
import logging
import os
import shlex
import sys
from typing import Any

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
    scoring_commands,
    search_commands,
    study_commands,
)
from posegrid.experiments.examples import with_examples

app = typer.Typer(
    name="posegrid",
    help="Experiments on lifting 2D human keypoints to 3D: prepare data, train, run grids, compare in MLflow.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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
app.command()(study_commands.train)
app.command()(study_commands.grid)
app.command()(scoring_commands.evaluate)
app.command()(study_commands.report)
app.command()(scoring_commands.check)
app.command()(cluster_commands.ui)
with_examples(app)


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
    # The runs of a large study are some 100,000 live objects. A full collection walks all of them, and with Python's
    # thresholds (700 new objects, 10, 10) it comes so often that it takes a third of the time of loading 1,000 runs.
    gc.set_threshold(50_000, 20, 50)
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
