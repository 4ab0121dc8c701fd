"""Figures of a search: every trial as a line over its values, and the objective over two of them."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from posegrid.experiments.search_files import Search
from posegrid.experiments.search_study import Found
from posegrid.orchestration.search import Outcome
from posegrid.orchestration.search_space import Parameter

_COLOURS = "viridis"
"""Dark is better: the lines and points that matter stand out on white."""
_DROPPED = ("dropout", "drop_path", "weight_decay")
"""Ends of keys that share a surface with the learning rate, by preference."""


def parallel_coordinates(search: Search, found: Found) -> Figure:
    """One line a trial, over an axis for each key and one for the objective: the best thick, diverged ones dashed."""
    space = search.parameters
    outcomes = _comparable(search, found)
    values = _finite(outcomes)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    figure = Figure(figsize=(2.2 + 1.9 * (len(space) + 1), 4.2), layout="constrained")
    axis = figure.subplots()
    colours = _scale(low, high)
    for outcome in outcomes:
        places = [_place(parameter, outcome.proposal.values[key]) for key, parameter in space.items()]
        if outcome.objective is None:
            axis.plot(range(len(places)), places, "--", color="0.6", linewidth=1)
            continue
        places.append((outcome.objective - low) / (high - low) if high > low else 0.5)
        best = outcome.proposal.trial == found.best.proposal.trial
        colour = colours.to_rgba(outcome.objective)
        axis.plot(range(len(places)), places, color=colour, linewidth=3 if best else 1.2, zorder=3 if best else 2)
    ticks = [_ticks(parameter) for parameter in space.values()]
    ticks.append([(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")] if high > low else [(0.5, f"{low:.4g}")])
    for x, marks in enumerate(ticks):
        axis.axvline(x, color="0.3", linewidth=0.8)
        for place, text in marks:
            axis.annotate(text, (x, place), xytext=(3, 2), textcoords="offset points", fontsize=8)
    axis.set_xticks(range(len(ticks)), [*space, search.unit], fontsize=8)
    axis.set_yticks([])
    axis.set_xlim(-0.15, len(ticks) - 0.6)
    axis.set_title(search.title, fontsize=10)
    figure.colorbar(colours, ax=axis, shrink=0.8)
    return figure


def response_surface(search: Search, found: Found) -> Figure | None:
    """The objective over the learning rate and a rate of dropout, or the first two numbers of the space; None if there
    are fewer. Points are trials, crosses diverged ones, the star is the best; colours between them are interpolated."""
    pair = _pair(search)
    outcomes = _comparable(search, found)
    if pair is None or not _finite(outcomes):
        return None
    parameters = [search.parameters[key] for key in pair]
    points = np.array([[one.proposal.values[key] for key in pair] for one in outcomes], dtype=np.float64)
    finite = np.array([one.objective is not None for one in outcomes])
    values = np.array(_finite(outcomes))
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axis = figure.subplots()
    colours = _scale(float(values.min()), float(values.max()))
    triangles = _triangles(points[finite], parameters)
    if triangles is not None and values.max() > values.min():
        axis.tricontourf(triangles, values, levels=14, cmap=_COLOURS, norm=colours.norm, alpha=0.6)
    axis.scatter(
        points[finite, 0], points[finite, 1], c=values, cmap=_COLOURS, norm=colours.norm, edgecolors="black", zorder=3
    )
    axis.scatter(points[~finite, 0], points[~finite, 1], marker="x", color="black", zorder=3)
    x, y = (found.best.proposal.values[key] for key in pair)
    axis.scatter(x, y, marker="*", s=260, facecolors="none", edgecolors="black", linewidths=1.4, zorder=4)
    for side, key, parameter in zip("xy", pair, parameters, strict=True):
        getattr(axis, f"set_{side}label")(key)
        if parameter.kind == "log":
            getattr(axis, f"set_{side}scale")("log")
    axis.use_sticky_edges = False
    axis.margins(0.06)
    axis.set_title(f"{search.title}:\n{search.unit}", fontsize=10)
    figure.colorbar(colours, ax=axis, shrink=0.8)
    return figure


def _comparable(search: Search, found: Found) -> list[Outcome]:
    """Trials that were trained for equally long."""
    if search.method != "halving":
        return found.outcomes
    return [one for one in found.outcomes if one.proposal.round == 0]


def _finite(outcomes: Sequence[Outcome]) -> list[float]:
    return [one.objective for one in outcomes if one.objective is not None]


def _scale(low: float, high: float) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(low, high if high > low else low + 1e-9), _COLOURS)


def _place(parameter: Parameter, value: Any) -> float:
    """Where a value stands between the ends of its axis, 0 to 1."""
    if parameter.kind == "values":
        known = [json.dumps(one) for one in parameter.values]
        return known.index(json.dumps(value)) / max(len(known) - 1, 1)
    low, high = parameter.extremes
    if parameter.kind == "log":
        return float(np.log(value / low) / np.log(high / low))
    return float((value - low) / (high - low))


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    texts = [f"{one:.4g}" if isinstance(one, float) else json.dumps(one) for one in parameter.extremes]
    return [(_place(parameter, one), text) for one, text in zip(parameter.extremes, texts, strict=True)]


def _pair(search: Search) -> tuple[str, str] | None:
    """The two keys of the surface: numbers, the learning rate and a rate of dropout where there are such."""
    numbers = [key for key, one in search.parameters.items() if all(_is_number(value) for value in one.extremes)]
    rates = [key for end in _DROPPED for key in numbers if key.endswith(end)]
    first = ["training.lr"] if "training.lr" in numbers else []
    chosen = list(dict.fromkeys([*first, *rates, *numbers]))
    return (chosen[0], chosen[1]) if len(chosen) > 1 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _triangles(points: np.ndarray, parameters: list[Parameter]) -> Triangulation | None:
    """Triangles between (N, 2) points, made on axes as they are drawn; None where the points span no area."""
    drawn = np.column_stack(
        [np.log(column) if one.kind == "log" else column for column, one in zip(points.T, parameters, strict=True)]
    )
    drawn = (drawn - drawn.mean(0)) / np.maximum(drawn.std(0), 1e-12)
    different = np.unique(drawn.round(6), axis=0)
    if len(different) < 4 or np.linalg.matrix_rank(different - different[0], tol=1e-3) < 2:
        return None
    return Triangulation(points[:, 0], points[:, 1], triangles=Triangulation(drawn[:, 0], drawn[:, 1]).triangles)
