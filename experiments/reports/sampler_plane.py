"""A sampler study as a table and as a figure: error against time, one curve for each way to aggregate."""

from dataclasses import astuple, fields

from matplotlib.figure import Figure

from posegrid.orchestration.sampler_study import Point

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31", "#000000", "#999999")
"""Okabe and Ito's palette and two more."""
_LINES = {"ddpm": "-", "ddim": "--", "dpm_solver": ":"}


def study_csv(points: list[Point]) -> str:
    """One row for each point."""
    rows = [",".join(field.name for field in fields(Point))]
    for point in points:
        rows.append(",".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in astuple(point)))
    return "\n".join(rows) + "\n"


def study_figure(points: list[Point], title: str) -> Figure:
    """MPJPE over milliseconds per window. A panel for each number of hypotheses; colours: aggregation, lines: sampler;
    the numbers along the curves are steps."""
    counts = sorted({point.hypotheses for point in points})
    names = list(dict.fromkeys(point.aggregation for point in points))
    figure = Figure(figsize=(1.2 + 4.6 * len(counts), 4.6), layout="constrained")
    panels = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for panel, count in zip(panels, counts, strict=True):
        for colour, name in zip(_COLOURS, names, strict=False):
            for sampler in dict.fromkeys(point.sampler for point in points):
                curve = [
                    point
                    for point in points
                    if (point.hypotheses, point.aggregation, point.sampler) == (count, name, sampler)
                ]
                curve.sort(key=lambda point: point.steps)
                x, y = [point.ms_per_window for point in curve], [point.mpjpe_mm for point in curve]
                line = _LINES.get(sampler, "-.")
                panel.plot(x, y, line, color=colour, marker=".", linewidth=1.2, label=f"{name}, {sampler}")
                for point in curve if name == names[0] else ():
                    where = (point.ms_per_window, point.mpjpe_mm)
                    panel.annotate(str(point.steps), where, fontsize=7, textcoords="offset points", xytext=(2, 3))
        panel.set_xscale("log")
        panel.set_xlabel("time per window (ms)")
        panel.set_title(f"{count} hypothes{'es' if count > 1 else 'is'}", fontsize=10)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("MPJPE (mm)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside right upper")
    figure.suptitle(title, fontsize=11)
    return figure
