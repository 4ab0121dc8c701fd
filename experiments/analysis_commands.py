"""The verbs of the command line that look into trained models and networks; `cli` registers them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posegrid.experiments.answers import answering, say
from posegrid.experiments.command_options import (
    Data,
    Device,
    Home,
    Json,
    Out,
    Split,
    TrackingUri,
    tracking_address,
    tracking_opener,
)
from posegrid.experiments.networks import Network, network_and_store, network_named

if TYPE_CHECKING:
    # commands import what they need when they run: `posegrid --help` answers at once
    import torch
    from matplotlib.figure import Figure

    from posegrid.orchestration.complexity import Complexity
    from posegrid.orchestration.settings import Settings
    from posegrid.orchestration.tracking import Tracking
    from posegrid.orchestration.workers import Workers

PATTERN = (
    'Pattern (repeatable): a name, or a table such as {pattern="sparse_frames", strides=[5], shift="video"}; default: '
    "the training pattern."
)

analyse = typer.Typer(help="Look into trained models: error by speed of motion, adaptive input strides.")


def complexity(
    names: Annotated[list[str], typer.Argument(help="Recipes, run ids of trained runs, or model files (model.pt).")],
    occlusion: Annotated[list[str] | None, typer.Option("--occlusion", help=PATTERN)] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value of all recipes (repeatable): model.width=64")
    ] = None,
    skeleton: Annotated[str, typer.Option("--skeleton", help="Skeleton of recipes.")] = "h36m_17",
    batch: Annotated[int, typer.Option("--batch", help="Windows lifted at once.")] = 64,
    repetitions: Annotated[int, typer.Option("--repetitions", help="Timed lifts; their median counts.")] = 15,
    seconds: Annotated[float, typer.Option("--seconds", help="Stop timing a network after this time.")] = 60.0,
    device: Device = "cpu",
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    json_: Json = False,
) -> None:
    """FLOPs of an output pose, parameters, and poses per second on this machine.

    Operations are counted by torch: 2 for each multiply-add of matrix products and convolutions. Logged in the given
    run, or for a recipe in a run of the study "complexity".
    """
    from posegrid.datasets.skeletons import skeleton_named
    from posegrid.experiments.catalogue import pattern
    from posegrid.experiments.reports.costs import log_complexity
    from posegrid.orchestration.complexity import SpeedSettings, measure
    from posegrid.orchestration.settings import occlusion_label
    from posegrid.orchestration.tracking import Tracking

    how = SpeedSettings(batch=batch, warm_up=3, repetitions=repetitions, most_s=seconds)
    chosen = _device(device)
    asked = [pattern(text, "--occlusion") for text in occlusion or []]
    uri, opened = tracking_address(home, tracking), tracking_opener(home, tracking)
    lines, rows = [], []
    with answering(json_) as answer:
        networks = [network_named(name, set_ or [], skeleton, opened) for name in names]
        for name, network in zip(names, networks, strict=True):
            for resolved in asked or [network.settings.occlusion]:
                label, run = occlusion_label(resolved), None
                lifts = skeleton_named(network.skeleton)
                found = measure(network.model, network.settings, lifts, resolved, device=chosen, how=how)
                lines.append((network.settings.name, label, network.settings, found))
                if not name.endswith(".pt"):
                    run = network.run or _run_of_recipe(Tracking.open(uri), network.settings, resolved, found.device)
                    log_complexity(Tracking.open(uri), run, label, found, network.settings)
                rows.append({"given_as": name, "run": run, "occlusion": label, **_plain_cost(network.settings, found)})
        for line in complexity_table(lines):
            answer.show(line)
        answer.give({"tracking": uri, "networks": rows})


def complexity_table(lines: list[tuple[str, str, "Settings", "Complexity"]]) -> list[str]:
    """Lines of a table for a terminal and for markdown: (name, pattern, settings, cost) each."""
    from posegrid.orchestration.protocol import window_words

    titles = ["network", "occlusion", "window", "parameters", "MFLOPs per pose", "poses/s", "batch", "device"]
    cells = [titles, ["-" * len(title) for title in titles]]
    for name, label, settings, found in lines:
        numbers = [f"{found.parameters:,}", f"{found.flops_per_pose / 1e6:,.1f}", f"{found.poses_per_s:,.0f}"]
        cells.append([name, label, window_words(settings), *numbers, str(found.batch), found.device])
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]


def _plain_cost(settings: "Settings", found: "Complexity") -> dict[str, Any]:
    from posegrid.orchestration.protocol import scoring_protocol, window_words

    return {
        "network": settings.name,
        "window": window_words(settings),
        "protocol": scoring_protocol(settings),
        "parameters": found.parameters,
        "flops_per_pose": found.flops_per_pose,
        "poses_per_s": found.poses_per_s,
        "poses_per_window": found.poses,
        "batch": found.batch,
        "device": found.device,
    }


def _run_of_recipe(tracking: "Tracking", settings: "Settings", pattern: dict[str, Any], device: str) -> str:
    """The run, of the study "complexity", that receives what a recipe costs under a pattern on a device."""
    from posegrid.orchestration.settings import fingerprint, occlusion_label

    parent = tracking.open_study("complexity", {}, "What networks cost: FLOPs, parameters, poses per second")
    plain = settings.plain()
    key = fingerprint(["complexity", plain, pattern, device])
    params = {"recipe": settings.name, "device": device, "model": plain["model"], "data": plain["data"]}
    name = f"{settings.name} under {occlusion_label(pattern)}"
    run = tracking.open_trial(key, name, parent, params, {"posegrid.stage": settings.name})
    tracking.finish(run, "FINISHED")
    tracking.finish(parent, "FINISHED")
    return run


def _device(name: str) -> "torch.device":
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # a device torch does not know, or does not have
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f'--device "{name}" cannot be used ({reason}). Use "cpu", or what this machine has.') from None
    return device


@analyse.command()
def speed(
    runs: Annotated[list[str], typer.Argument(help="Run ids of trained runs, or model files (model.pt).")],
    data: Data,
    occlusion: Annotated[list[str] | None, typer.Option("--occlusion", help=PATTERN)] = None,
    split: Split = "test",
    width: Annotated[float, typer.Option("--width", help="Width of a bin of speed, m/s.")] = 0.1,
    bins: Annotated[int, typer.Option("--bins", help="Bins; one more holds everything faster.")] = 15,
    device: Device = "cpu",
    out: Out = None,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    json_: Json = False,
) -> None:
    """Error by speed of motion, and how often people move so fast: one figure for all runs and patterns.

    Logged in each run and in the study "analysis".
    """
    from posegrid.datasets.metrics.speed import SpeedBins, SpeedSums
    from posegrid.experiments.catalogue import pattern
    from posegrid.experiments.reports.motion_figures import plain_speed, speed_csv, speed_figure
    from posegrid.orchestration.frame_errors import of_every_frame
    from posegrid.orchestration.motion_speed import errors_by_speed
    from posegrid.orchestration.protocol import scoring_protocol
    from posegrid.orchestration.settings import occlusion_label

    asked = [pattern(text, "--occlusion") for text in occlusion or []]
    cut, where = SpeedBins(width=width, count=bins), _device(device)
    opened = tracking_opener(home, tracking)
    curves: dict[str, SpeedSums] = {}
    rows: list[dict[str, Any]] = []
    with answering(json_) as answer:
        networks = [network_and_store(run, data, opened) for run in runs]
        for network, store in networks:
            for resolved in asked or [network.settings.occlusion]:
                protocol = scoring_protocol(of_every_frame(network.settings))
                label = f"{network.name} tested on {occlusion_label(resolved)}; {protocol}"
                model, alone = network.model.to(where), _alone(where)
                found = errors_by_speed(model, store, network.settings, resolved, cut, split=split, workers=alone)
                curves[_unlike(label, curves)] = found
                say(f"{label}: {int(found.frames().sum())} frames")
                about = {"network": network.name, "run": network.run or None, "protocol": protocol}
                rows.append(about | {"occlusion": occlusion_label(resolved), "bins": plain_speed(found)})
        store = networks[0][1]
        files = {"speed.csv": speed_csv(curves)}
        figures = {"speed.png": speed_figure(curves, f"{store.source} ({split})")}
        answer.show(files["speed.csv"])
        study = _keep("speed", [network for network, _ in networks], files, figures, opened, out)
        about = {"data": store.source, "data_hash": store.content_hash, "split": split}
        answer.give(about | {"curves": rows, "analysis_run": study})


@analyse.command()
def strides(
    run: Annotated[str, typer.Argument(help="Run id of a run trained with sparse_frames, or its model file.")],
    data: Data,
    short: Annotated[int, typer.Option("--short", help="Frames between detections in fast motion.")] = 4,
    long: Annotated[int, typer.Option("--long", help="Frames between detections otherwise.")] = 20,
    threshold: Annotated[float, typer.Option("--threshold", help="Estimated speed (m/s) that is fast.")] = 0.5,
    hold: Annotated[int, typer.Option("--hold", help="Frames without fast motion that end it.")] = 50,
    split: Split = "test",
    device: Device = "cpu",
    out: Out = None,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    json_: Json = False,
) -> None:
    """Detect people often only while they move fast: error and number of 2D detections, always short, always long,
    adaptive. Decided by the speed of poses estimated so far. Logged in the run and in the study "analysis"."""
    from posegrid.experiments.reports.motion_figures import plain_strides, strides_csv, strides_figure, strides_table
    from posegrid.orchestration.adaptive import StridePolicy, compare_policies
    from posegrid.orchestration.frame_errors import of_every_frame
    from posegrid.orchestration.motion_speed import true_speeds
    from posegrid.orchestration.protocol import scoring_protocol

    policy = StridePolicy(short=short, long=long, threshold=threshold, hold=hold)
    where, opened = _device(device), tracking_opener(home, tracking)
    with answering(json_) as answer:
        network, store = network_and_store(run, data, opened)
        model = network.model.to(where)
        found = compare_policies(model, store, network.settings, policy, split=split, workers=_alone(where))
        protocol = scoring_protocol(of_every_frame(network.settings))
        what = f"{network.name} on {store.source} ({split}), all frames alike; {protocol}"
        table = strides_table(found, policy, what)
        answer.show(table)
        longest = store.sequences[max(store.of_split(split), key=lambda index: store.sequences[index].frames)]
        rows, true = slice(longest.offset, longest.offset + longest.frames), true_speeds(store)
        stem = f"strides_{short}_{long}_{threshold:g}_{hold}"
        texts = {f"{stem}.md": table, f"{stem}.csv": strides_csv(found, true, rows, longest.frame_rate)}
        figure = strides_figure(found, true, rows, longest.frame_rate, policy, f"{network.name}, {longest.name}")
        metrics = {}
        for one in found:
            metrics[f"{stem} {one.name}/mpjpe_mm"] = one.mpjpe_mm
            metrics[f"{stem} {one.name}/detections"] = one.detections
        study = _keep(stem, [network], texts, {f"{stem}.png": figure}, opened, out, metrics)
        about = {"network": network.name, "run": network.run or None, "data": store.source, "split": split}
        about |= {"data_hash": store.content_hash, "protocol": f"all frames alike; {protocol}"}
        answer.give(about | plain_strides(found, policy) | {"analysis_run": study})


def _keep(
    what: str,
    networks: list[Network],
    texts: dict[str, str],
    figures: "dict[str, Figure]",
    tracking: "Callable[[], Tracking]",
    out: Path | None,
    metrics: dict[str, float] | None = None,
) -> str | None:
    """Log an analysis in the runs and in the study "analysis", whose run is returned, and copy it to a folder."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text)
        for name, figure in figures.items():
            figure.savefig(out / name, dpi=120)
    runs = [network.run for network in networks if network.run]
    if not runs:
        say("nothing is logged: a model file belongs to no run" + ("" if out else "; --out FOLDER keeps the results"))
        return None
    opened = tracking()
    study = opened.open_study("analysis", {}, "Analyses of trained models")
    for run in [*dict.fromkeys(runs), study]:
        folder = f"analysis/{'-'.join(one[:8] for one in runs)}" if run == study else "analysis"
        for name, text in texts.items():
            opened.log_text(run, text, f"{folder}/{name}")
        for name, figure in figures.items():
            opened.log_figure(run, figure, f"{folder}/{name}")
        if metrics and run != study:
            opened.log_metrics(run, metrics)
    opened.finish(study, "FINISHED")
    say(f"logged under analysis/ in {', '.join(dict.fromkeys(runs))} and in the study analysis ({what})")
    return study


def _unlike(label: str, taken: dict[str, Any]) -> str:
    """A label that is not taken: runs may share a name."""
    number = sum(known == label or known.startswith(f"{label} #") for known in taken)
    return f"{label} #{number + 1}" if number else label


def _alone(device: "torch.device") -> "Workers":
    from posegrid.orchestration.workers import Workers

    return Workers(device=device)
