"""Charts as SVG text that stands in a page: curves, points, intervals. No script, no font, no file from elsewhere.

Everything written into a chart is escaped here; what comes back is safe to put into HTML as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from posegrid.experiments.reports.signs import Sign

INK, FAINT = "#333333", "#D5D5D5"
_ARM = ((0.4, 1.05), (0.4, 0.4), (1.05, 0.4))
_TURNS = ((1, 1, 1), (1, -1, -1), (-1, -1, 1), (-1, 1, -1))
_CROSS = tuple((a * x, b * y) for a, b, way in _TURNS for x, y in _ARM[::way])
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 14.0, 14.0, 42.0


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line or cloud of points."""

    label: str
    sign: Sign
    x: Sequence[float]
    y: Sequence[float]
    points: bool = True
    """Draw marks."""
    line: bool = True
    """Join them."""
    faint: bool = False
    """Behind the others: further seeds."""
    names: Sequence[str] = field(default=())
    """Text beside each point."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis says."""

    title: str
    log: bool = False
    names: Sequence[str] = ()
    """Categories at 0, 1, 2, ... in place of numbers."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A value with its interval on a line of its own."""

    label: str
    sign: Sign
    value: float
    low: float = float("nan")
    high: float = float("nan")
    hollow: bool = False
    """A second value of the line, such as that of visible joints."""


def plot(series: Sequence[Series], x: Axis, y: Axis, title: str, width: float = 640, height: float = 330) -> Markup:
    """Curves or points on two axes. `title` is read aloud; it is not drawn."""
    xs, ys = (np.array([value for one in series for value in getattr(one, name)], dtype=float) for name in "xy")
    bottom = _BOTTOM + (58 if x.names else 0)
    across = _scale(xs, x, _LEFT, width - _RIGHT)
    up = _scale(ys, y, height - bottom, _TOP)
    parts = [_grid(across, up, x, y, width, height, bottom)]
    for one in sorted(series, key=lambda one: not one.faint):
        parts.append(_series(one, across, up, width))
    return _svg(parts, width, height, title)


def bars(rows: Sequence[Bar], x: Axis, title: str, *, zero: bool = False, width: float = 640) -> Markup:
    """Values with intervals, one line for each label; a rule at 0 if asked for."""
    labels = list(dict.fromkeys(row.label for row in rows))
    left = min(24 + 6.6 * max(map(len, labels)), 0.42 * width)
    height = 26.0 * len(labels) + 62
    values = [value for row in rows for value in (row.value, row.low, row.high)] + ([0.0] if zero else [])
    across = _scale(np.array(values, dtype=float), x, left, width - _RIGHT)
    parts = []
    for tick in across.ticks:
        parts.append(_line(across(tick), 8, across(tick), height - 46, FAINT))
        parts.append(_text(across(tick), height - 30, across.say(tick), "middle"))
    if zero:
        parts.append(_line(across(0), 8, across(0), height - 46, INK, 1.2))
    parts.append(_text((left + width - _RIGHT) / 2, height - 8, x.title, "middle"))
    for place, label in enumerate(labels):
        at = 8 + 26 * (place + 0.5)
        parts.append(_text(left - 12, at + 4, _short(label, int((left - 14) / 6.2)), "end", title=label))
        own = [row for row in rows if row.label == label]
        if len(own) > 1:
            ends = [across(row.value) for row in own]
            parts.append(_line(min(ends), at, max(ends), at, "#9A9A9A", 1.5))
        for row in own:
            if np.isfinite(row.low):
                parts.append(_line(across(row.low), at, across(row.high), at, row.sign.colour, 2.4))
                for end in (row.low, row.high):
                    parts.append(_line(across(end), at - 4, across(end), at + 4, row.sign.colour, 1.6))
            said = f"{label}: {row.value:.2f}" + (f" [{row.low:.2f}, {row.high:.2f}]" if np.isfinite(row.low) else "")
            parts.append(_mark(row.sign, across(row.value), at, 5, said, hollow=row.hollow))
    return _svg(parts, width, height, title)


def swatch(sign: Sign) -> Markup:
    """A member's line and mark, for keys and tables."""
    dash = f' stroke-dasharray="{sign.dash}"' if sign.dash else ""
    line = f'<line x1="0" y1="6" x2="22" y2="6" stroke="{sign.colour}" stroke-width="2"{dash}/>'
    box = Markup('<svg class="swatch" width="22" height="12" viewBox="0 0 22 12" aria-hidden="true">{}{}</svg>')
    return box.format(Markup(line), _mark(sign, 11, 6, 4.2))


class _scale:  # noqa: N801 - used as a function of a value
    """Values -> places on the page, with ticks."""

    def __init__(self, values: np.ndarray, axis: Axis, first: float, last: float) -> None:
        values = values[np.isfinite(values) & ((values > 0) | (not axis.log))]
        self.log = axis.log
        if axis.names:
            self.low, self.high = -0.5, len(axis.names) - 0.5
        elif not len(values):
            self.low, self.high = (1.0, 10.0) if axis.log else (0.0, 1.0)
        else:
            self.low, self.high = self._room(float(values.min()), float(values.max()))
        self.first, self.last = first, last
        self.ticks = list(range(len(axis.names))) if axis.names else _ticks(self.low, self.high, axis.log)
        step = min(np.diff(self.ticks), default=1.0)
        self._decimals = 0 if step >= 1 else min(int(np.ceil(-np.log10(step))), 6)

    def _room(self, low: float, high: float) -> tuple[float, float]:
        if self.log:
            room = (high / low) ** 0.06 if high > low else 1.3
            return low / room, high * room
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        return low - room, high + room

    def __call__(self, value: float) -> float:
        if self.log:
            share = np.log(value / self.low) / np.log(self.high / self.low) if value > 0 else np.nan
        else:
            share = (value - self.low) / (self.high - self.low)
        return float(self.first + share * (self.last - self.first))

    def say(self, tick: float) -> str:
        if self.log:
            return f"{tick:,.0f}" if tick >= 1 else f"{tick:g}"
        return f"{tick:,.{self._decimals}f}"


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        tens = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
            found = [10.0**ten * step for ten in tens for step in steps if low <= 10.0**ten * step <= high]
            if len(found) >= 3:
                return found
        return found
    rough = (high - low) / 5
    ten = 10.0 ** np.floor(np.log10(rough))
    step = next(ten * times for times in (1, 2, 5, 10) if ten * times >= rough)
    return [float(tick) + 0.0 for tick in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]


def _grid(across: _scale, up: _scale, x: Axis, y: Axis, width: float, height: float, bottom: float) -> Markup:
    parts = []
    foot, right = height - bottom, width - _RIGHT
    for tick in up.ticks:
        parts += [_line(_LEFT, up(tick), right, up(tick), FAINT), _text(_LEFT - 6, up(tick) + 4, up.say(tick), "end")]
    for tick in across.ticks:
        parts.append(_line(across(tick), _TOP, across(tick), foot, FAINT))
        if x.names:
            parts.append(_text(across(tick) + 3, foot + 14, _short(x.names[int(tick)], 16), "end", turn=-38))
        else:
            parts.append(_text(across(tick), foot + 16, across.say(tick), "middle"))
    parts.append(_line(_LEFT, foot, right, foot, INK))
    parts.append(_line(_LEFT, _TOP, _LEFT, foot, INK))
    parts.append(_text((_LEFT + right) / 2, height - 6, x.title + (" (log scale)" if x.log else ""), "middle"))
    middle = (_TOP + foot) / 2
    parts.append(_text(13, middle, y.title + (" (log scale)" if y.log else ""), "middle", turn=-90))
    return Markup("").join(parts)


def _series(one: Series, across: _scale, up: _scale, width: float) -> Markup:
    places = [(across(a), up(b), a, b) for a, b in zip(one.x, one.y, strict=True)]
    places = [place for place in places if np.isfinite(place[:2]).all()]
    parts = []
    if one.line and len(places) > 1:
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b, _, _ in places)
        dash = f' stroke-dasharray="{one.sign.dash}"' if one.sign.dash else ""
        faint = ' opacity="0.35"' if one.faint else ""
        parts.append(
            Markup(
                f'<polyline points="{path}" fill="none" stroke="{one.sign.colour}" stroke-width="1.8"{dash}{faint}>'
                "<title>{}</title></polyline>"
            ).format(one.label)
        )
    if one.points:
        for place, (a, b, x, y) in enumerate(places):
            parts.append(_mark(one.sign, a, b, 4.4, f"{one.label}: {x:,.6g}, {y:.2f}"))
            if one.names:
                right = a < 0.72 * width
                parts.append(_text(a + (9 if right else -9), b + 4, one.names[place], "start" if right else "end"))
    return Markup("").join(parts)


def _mark(sign: Sign, x: float, y: float, r: float, title: str = "", *, hollow: bool = False) -> Markup:
    paint = f'fill="{"#FFFFFF" if hollow else sign.colour}" stroke="{sign.colour}" stroke-width="1.6"'
    corners = {
        "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
        "diamond": ((0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)),
        "up": ((0, -1.15), (1.1, 0.85), (-1.1, 0.85)),
        "down": ((0, 1.15), (1.1, -0.85), (-1.1, -0.85)),
        "cross": _CROSS,
    }.get(sign.mark)
    inside = Markup("<title>{}</title>").format(title) if title else Markup("")
    if corners is None:
        return Markup(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:g}" {paint}>{{}}</circle>').format(inside)
    path = " ".join(f"{x + r * a:.1f},{y + r * b:.1f}" for a, b in corners)
    return Markup(f'<polygon points="{path}" {paint}>{{}}</polygon>').format(inside)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> Markup:
    return Markup(
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}"/>'
    )


def _text(x: float, y: float, words: str, anchor: str, *, turn: float = 0, title: str = "") -> Markup:
    turned = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    inside = Markup("<title>{}</title>").format(title) if title and title != words else Markup("")
    return Markup(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{{}}{{}}</text>').format(inside, words)


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else words[: max(most - 1, 1)] + "…"


def _svg(parts: Sequence[Markup], width: float, height: float, title: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>').format(
        width, height, title, Markup("").join(parts)
    )
