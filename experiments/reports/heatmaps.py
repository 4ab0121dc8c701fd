"""Matrices as figures: baseline, the other member, and their difference side by side (DiffHPE, Figures 3 to 5)."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posegrid.experiments.reports.matrices import Matrix


def comparison(baseline: str, other: str, first: Matrix, second: Matrix, unit: str, source: str) -> Figure:
    """Three panels with one colour scale for both members and a diverging one, centred at zero, for the difference."""
    difference = second.minus(first)
    size = max(len(first.columns), len(first.rows))
    figure = Figure(figsize=(4.2 + 2.6 * size, 1.6 + 0.72 * size), layout="constrained")
    axes = figure.subplots(1, 3)
    values = np.concatenate([first.mean.ravel(), second.mean.ravel()])
    low, high = np.nanmin(values), np.nanmax(values)
    _panel(figure, axes[0], first, baseline, "viridis_r", low, high, "{:.1f}")
    _panel(figure, axes[1], second, other, "viridis_r", low, high, "{:.1f}")
    reach = max(float(np.nanmax(np.abs(difference.mean))), 1e-6)
    _panel(figure, axes[2], difference, f"{other} minus {baseline}", "PuOr_r", -reach, reach, "{:+.1f}")
    figure.suptitle(f"{unit} on {source}: row = trained on, column = tested on", fontsize=11)
    return figure


def single(label: str, matrix: Matrix, unit: str, source: str) -> Figure:
    """One matrix alone."""
    size = max(len(matrix.columns), len(matrix.rows))
    figure = Figure(figsize=(2.4 + 0.95 * size, 2.2 + 0.8 * size), layout="constrained")
    low, high = float(np.nanmin(matrix.mean)), float(np.nanmax(matrix.mean))
    _panel(figure, figure.subplots(), matrix, f"{label}: {unit} on {source}", "viridis_r", low, high, "{:.1f}")
    return figure


def _panel(
    figure: Figure, axis: Axes, matrix: Matrix, title: str, colours: str, low: float, high: float, form: str
) -> None:
    image = axis.imshow(matrix.mean, cmap=colours, vmin=low, vmax=high)
    axis.set_title(title, fontsize=10)
    axis.set_xticks(range(len(matrix.columns)), matrix.columns, rotation=35, ha="right", fontsize=8)
    axis.set_yticks(range(len(matrix.rows)), matrix.rows, fontsize=8)
    axis.set_xlabel("tested on", fontsize=8)
    axis.set_ylabel("trained on", fontsize=8)
    for row, values in enumerate(matrix.mean):
        for column, value in enumerate(values):
            if np.isfinite(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                ink = "white" if dark else "black"
                axis.text(column, row, form.format(value), ha="center", va="center", fontsize=8, color=ink)
    figure.colorbar(image, ax=axis, shrink=0.8)
