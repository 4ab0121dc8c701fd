"""`posegrid study-samplers`: how many steps, hypotheses and which aggregation a trained diffusion model needs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posegrid.experiments.answers import answering, say
from posegrid.experiments.command_options import Data, Home, Json, Split, TrackingUri, tracking_opener

if TYPE_CHECKING:
    # commands import what they need when they run: `posegrid --help` answers at once
    from posegrid.orchestration.sampler_study import Point


def study_samplers_command(
    run: Annotated[str, typer.Argument(help="Run id of a trained diffusion model, or path of a model file.")],
    data: Data,
    sampler: Annotated[
        list[str] | None,
        typer.Option("--sampler", help="ddpm, ddim, dpm_solver (repeatable); default: the model's own and the others."),
    ] = None,
    steps: Annotated[
        list[int] | None, typer.Option("--steps", help="Steps of a chain (repeatable); default: 1 to all, or 50.")
    ] = None,
    hypotheses: Annotated[
        list[int] | None, typer.Option("--hypotheses", help="Poses sampled for each window (repeatable): 1 and 5.")
    ] = None,
    aggregation: Annotated[
        list[str] | None,
        typer.Option("--aggregation", help="Aggregations (repeatable); default: all that need no camera."),
    ] = None,
    occlusion: Annotated[str, typer.Option("--occlusion", help="Test pattern.")] = "none",
    split: Split = "test",
    every: Annotated[int, typer.Option("--every", help="Score every n-th window.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for copies of table and figure.")] = None,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    json_: Json = False,
) -> None:
    """Score a diffusion model over samplers, steps, hypotheses and aggregations: error against time.

    The table and the figure are logged in the run. What reads the truth is a bound and has oracle or true in its name.
    """
    from posegrid.experiments.reports.sampler_plane import study_csv, study_figure
    from posegrid.experiments.scoring import about, trained
    from posegrid.orchestration.protocol import scoring_protocol
    from posegrid.orchestration.sampler_study import fewest_steps, study_samplers, usual_choices
    from posegrid.orchestration.settings import occlusion_label, occlusion_values

    opened = tracking_opener(home, tracking)
    pattern = occlusion_values(occlusion, "--occlusion")
    with answering(json_) as answer:
        model, settings, store = trained(run, data, opened)
        settings = replace(settings, evaluation=replace(settings.evaluation, every=every))
        usual = usual_choices(model, settings)
        choices = replace(
            usual,
            samplers=tuple(sampler or usual.samplers),
            steps=tuple(steps or usual.steps),
            hypotheses=tuple(hypotheses or usual.hypotheses),
            aggregations=tuple(aggregation or usual.aggregations),
        )
        points = study_samplers(model, store, settings, pattern, choices, split, _reporter(say))
        enough = fewest_steps(points)
        for name, point in enough.items():
            cost = f"{point.steps} steps, {point.ms_per_window:.2f} ms per window"
            answer.show(f"within 0.5 mm of the full chain with {name}: {cost}")
        label = occlusion_label(pattern)
        table = study_csv(points)
        figure = study_figure(points, f"{settings.name} on {store.source} ({split}), {label}")
        if not run.endswith(".pt"):
            opened().log_text(run, table, f"sampler_study/{label}/table.csv")
            opened().log_figure(run, figure, f"sampler_study/{label}/plane.png")
            say(f"logged in run {run}: sampler_study/{label}")
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "table.csv").write_text(table)
            figure.savefig(out / "plane.png", dpi=120)
        scored = {"occlusion": label, "protocol": scoring_protocol(settings), "points": points}
        answer.give(about(run, settings, store, split) | scored | {"within_half_a_mm_of_the_full_chain": enough})


def _reporter(tell: Callable[[str], None]) -> Callable[["Point"], None]:
    tell(f"{'sampler':<11}{'steps':>6}{'hypotheses':>11}  {'aggregation':<20}{'MPJPE mm':>9}{'ms/window':>11}")

    def report(point: "Point") -> None:
        tell(
            f"{point.sampler:<11}{point.steps:>6}{point.hypotheses:>11}  {point.aggregation:<20}{point.mpjpe_mm:>9.2f}"
            f"{point.ms_per_window:>11.3f}"
        )

    return report
