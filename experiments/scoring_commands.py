"""The verbs of the command line that score a trained model and look for mistakes; `cli` registers them."""

from pathlib import Path
from typing import Annotated

import typer

from posegrid.experiments.answers import answering
from posegrid.experiments.command_options import (
    Address,
    CpusEach,
    Data,
    GpusEach,
    Home,
    Json,
    Split,
    Storage,
    TrackingUri,
    WorkerCount,
    tracking_opener,
)


def evaluate(
    run: Annotated[str, typer.Argument(help="Run id of a trained run, or path of a model file (model.pt).")],
    data: Data,
    occlusion: Annotated[list[str] | None, typer.Option("--occlusion", help="Test patterns (repeatable).")] = None,
    split: Split = "test",
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
    json_: Json = False,
) -> None:
    """Score a trained model on a data set and print the per-action table."""
    from posegrid.experiments.scoring import score

    opened = tracking_opener(home, tracking)
    if patch and set_:
        raise ValueError("--set was given with --patch, which has one protocol of its own. Leave out one of them.")
    with answering(json_) as answer:
        if patch:
            from posegrid.experiments.patch_scoring import score_patched

            answer.give(score_patched(run, data, patch, split, patch_every, textures, opened, answer.show))
            return
        patterns = occlusion or ["none"]
        answer.give(score(run, data, patterns, split, hypotheses, opened, answer.show, changes=set_, log=log))


def check(
    what: Annotated[str, typer.Argument(help='"recipe", "grid", "search", "data", "keypoints" or "setup".')],
    name: Annotated[
        str | None, typer.Argument(help="Recipe, grid, search, folder of a store, or keypoint files.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help='With "setup": a data store that all nodes need.')] = None,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    storage: Storage = None,
    address: Address = None,
    workers: WorkerCount = "1",
    gpus: GpusEach = 0,
    cpus: CpusEach = 1,
    json_: Json = False,
) -> None:
    """Check a recipe, a grid, a store, keypoints, or what every node needs - before anything runs."""
    from posegrid.experiments import checks
    from posegrid.experiments.studies import where_to_run
    from posegrid.orchestration.launch.resources import Resources

    with answering(json_) as answer:
        if what == "setup":
            resources = Resources.asked(workers, gpus=gpus, cpus=cpus)
            where = where_to_run(home, tracking, storage, "ray", address, resources)
            answer.give(checks.check_setup(where, answer.show, data))
        else:
            answer.give(checks.check(what, name, answer.show))
