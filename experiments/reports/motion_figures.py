"""Figures and tables about speed of motion: error by speed, and input strides that follow it over a video."""

import csv
import io
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from posegrid.datasets.metrics.speed import SpeedSums
from posegrid.orchestration.adaptive import Outcome, StridePolicy

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, told apart by colour-blind readers."""
MARKS = "os^Dv*"


def speed_figure(curves: dict[str, SpeedSums], title: str) -> Figure:
    """Error of each curve by speed, and below how many frames are slower. All curves have the same bins."""
    # names of runs and patterns are long: below the axes, wrapped, each line with room of its own
    names = {label: "\n".join(wrap(label, 100)) for label in curves}
    lines = sum(name.count("\n") + 1 for name in names.values())
    figure = Figure(figsize=(7.5, 6.2 + 0.2 * lines), layout="constrained")
    errors, shares = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    bins = next(iter(curves.values())).bins
    middle = bins.edges + bins.width / 2
    for number, (label, sums) in enumerate(curves.items()):
        colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
        errors.plot(middle, sums.mpjpe_mm(), label=names[label], color=colour, marker=mark, markersize=4)
        reach = np.append(bins.edges, bins.edges[-1] + bins.width)
        shares.plot(reach, np.append(0, sums.cdf()), color=colour)
    errors.set_ylabel("MPJPE (mm)")
    figure.legend(loc="outside lower center", fontsize=8)
    errors.set_title(title, fontsize=10)
    shares.set_ylabel("share of slower frames")
    shares.set_ylim(0, 1.02)
    shares.set_xlabel(f"speed of the true pose (m/s); the last bin is everything above {bins.edges[-1]:g}")
    for axis in (errors, shares):
        axis.grid(alpha=0.3)
    return figure


def speed_csv(curves: dict[str, SpeedSums]) -> str:
    """One row for each curve and bin."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["curve", "from m/s", "to m/s", "frames", "cdf", "mpjpe_mm"])
    for label, sums in curves.items():
        until = [*(f"{edge:g}" for edge in np.round(sums.bins.edges[1:], 9)), ""]
        columns = zip(np.round(sums.bins.edges, 9), until, sums.frames(), sums.cdf(), sums.mpjpe_mm(), strict=True)
        for low, high, frames, share, error in columns:
            writer.writerow([label, f"{low:g}", high, frames, f"{share:.6f}", f"{error:.4f}" if frames else ""])
    return text.getvalue()


def plain_speed(sums: SpeedSums) -> list[dict[str, Any]]:
    """A curve as plain data, a row for each bin; the last one, of everything faster, has no upper end."""
    edges = np.round(sums.bins.edges, 9)
    columns = zip(edges, [*edges[1:], None], sums.frames(), sums.cdf(), sums.mpjpe_mm(), strict=True)
    keys = ("from_m_per_s", "to_m_per_s", "frames", "cdf", "mpjpe_mm")
    return [dict(zip(keys, row, strict=True)) for row in columns]


def plain_strides(outcomes: list[Outcome], policy: StridePolicy) -> dict[str, Any]:
    """What each policy costs, as plain data: the numbers of `strides_table`, shares from 0 to 1."""
    policies = {
        one.name: {
            "mpjpe_mm": one.mpjpe_mm,
            "detections": one.detections,
            "saved": 1 - one.detections / outcomes[0].detections,
            "short_stride": float((one.strides[one.strides > 0] == policy.short).mean()),
        }
        for one in outcomes
    }
    asked = {"short_frames": policy.short, "long_frames": policy.long, "threshold_m_per_s": policy.threshold}
    return {**asked, "hold_frames": policy.hold, "policies": policies}


def strides_table(outcomes: list[Outcome], policy: StridePolicy, what: str) -> str:
    """What each policy costs, as markdown. Saved are detections of the first one, the short stride."""
    lines = [
        f"{what}. Fast is above {policy.threshold:g} m/s, until {policy.hold} frames brought none; saved is the share "
        f"of the detections of a 2D pose every {policy.short} frames.",
        "",
        "| 2D pose every | MPJPE (mm) | 2D detections | saved | frames with the short stride |",
        "|---|---|---|---|---|",
    ]
    names = {"short": f"{policy.short}", "long": f"{policy.long}", "adaptive": f"{policy.short} or {policy.long}"}
    for one in outcomes:
        fast = float((one.strides[one.strides > 0] == policy.short).mean())
        saved = 1 - one.detections / outcomes[0].detections
        lines.append(f"| {names[one.name]} | {one.mpjpe_mm:.1f} | {one.detections:,} | {saved:.1%} | {fast:.1%} |")
    return "\n".join(lines) + "\n"


def strides_csv(outcomes: list[Outcome], true: np.ndarray, rows: slice, rate: float) -> str:
    """One video, a row for each frame; `rows` of the frame table, `true` (R,) speeds, `rate` frames per second."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["s", "true m/s", "estimated m/s", "stride", *(f"{one.name} mpjpe_mm" for one in outcomes)])
    last = outcomes[-1]
    columns = [true[rows], last.speeds[rows], *(1000 * one.errors[rows] for one in outcomes)]
    for frame, (stride, *values) in enumerate(zip(last.strides[rows], *columns, strict=True)):
        shown = [f"{value:.4f}" if np.isfinite(value) else "" for value in values]
        writer.writerow([f"{frame / rate:g}", *shown[:2], stride, *shown[2:]])
    return text.getvalue()


def strides_figure(
    outcomes: list[Outcome], true: np.ndarray, rows: slice, rate: float, policy: StridePolicy, title: str
) -> Figure:
    """One video over time: the error with each policy, and below the speeds that decided. Arguments as `strides_csv`.

    Shaded is where the last outcome, the adaptive one, has the short stride.
    """
    figure = Figure(figsize=(10.0, 6.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    last = outcomes[-1]
    short, estimated = last.strides[rows] == policy.short, last.speeds[rows]
    time = np.arange(len(short)) / rate
    for one, colour in zip(outcomes, COLOURS, strict=False):
        label = f"{one.name}: {one.detections:,} detections in all"
        above.plot(time, 1000 * one.errors[rows], label=label, color=colour, linewidth=1.1)
    below.plot(time, true[rows], color="#999999", linewidth=0.8, label="true")
    known = np.isfinite(estimated)
    below.plot(time[known], estimated[known], ".-", color=COLOURS[2], markersize=3, linewidth=0.8, label="estimated")
    below.axhline(policy.threshold, color="black", linestyle="--", linewidth=0.8, label="threshold")
    for axis in (above, below):
        axis.fill_between(
            time, 0, 1, where=short, transform=axis.get_xaxis_transform(), color=COLOURS[4], alpha=0.18, linewidth=0
        )
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper right")
    above.set_ylabel("MPJPE of the frame (mm)")
    above.set_title(f"{title}\nshaded: a 2D pose every {policy.short} frames, else every {policy.long}", fontsize=10)
    below.set_ylabel("speed (m/s)")
    below.set_xlabel("time (s)")
    return figure
