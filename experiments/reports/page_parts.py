"""What a page is made of: tables with shaded cells, charts, keys. The template `page.html` writes them down."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from markupsafe import Markup

from posegrid.experiments.reports.charts import swatch
from posegrid.experiments.reports.signs import Sign

VALUES, DIFFERENCES = "viridis_r", "PuOr_r"
"""Colour maps of the matrices everywhere: dark is worse; of differences: purple is lower than the baseline."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A cell of a table."""

    text: str
    note: str = ""
    """A second, smaller line."""
    style: str = ""
    """CSS of its shade."""
    strong: bool = False
    sign: Sign | None = None
    head: bool = False
    """Names its row."""

    @property
    def swatch(self) -> Markup:
        """The sign of the member, if it names one."""
        return Markup("") if self.sign is None else swatch(self.sign)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a caption."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing with a caption and a key."""

    caption: str
    drawing: Markup
    key: Sequence[tuple[str, Markup]] = ()
    """(label, sign) of what is drawn."""
    note: str = ""
    wide: bool = False
    """Has a line of the page to itself."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Parts that a reader opens."""

    title: str
    parts: Sequence["Table | Chart"]
    open: bool = False
    thirds: bool = False
    """Three parts side by side, where there is room."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands under it."""

    title: str
    anchor: str
    texts: Sequence[str] = ()
    parts: Sequence["Table | Chart | Fold"] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Nothing to show."""
        return not self.texts and not self.parts


def number(value: float, decimals: int = 1, *, signed: bool = False) -> str:
    """A number as it is printed, "-" where there is none."""
    if not np.isfinite(value):
        return "-"
    return f"{value:{'+' if signed else ''},.{decimals}f}"


def shade(value: float, low: float, high: float, colours: str = VALUES) -> str:
    """CSS of a cell whose value lies between low and high: its colour, and ink that stands out from it."""
    if not np.isfinite(value):
        return ""
    place = 0.5 if high <= low else (value - low) / (high - low)
    red, green, blue, _ = matplotlib.colormaps[colours](float(place))
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    light = float(np.dot([0.2126, 0.7152, 0.0722], linear))  # relative luminance of WCAG; both inks are 4.6 from 0.18
    ink = "#FFFFFF" if light < 0.179 else "#000000"
    return f"background:{matplotlib.colors.to_hex((red, green, blue))};color:{ink}"


def heat(
    caption: str,
    corner: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    *,
    ends: tuple[float, float] | None = None,
    difference: bool = False,
    note: str = "",
) -> Table:
    """A matrix as a table of shaded cells; of a difference, the scale is centred at 0."""
    finite = values[np.isfinite(values)]
    if ends is None and finite.size:
        reach = max(float(np.abs(finite).max()), 1e-9)
        ends = (-reach, reach) if difference else (float(finite.min()), float(finite.max()))
    low, high = ends or (0.0, 1.0)
    colours = DIFFERENCES if difference else VALUES
    return Table(
        caption=caption,
        columns=[corner, *columns],
        rows=[
            [
                Entry(text=name, head=True),
                *(Entry(text=number(one, signed=difference), style=shade(one, low, high, colours)) for one in line),
            ]
            for name, line in zip(rows, values, strict=True)
        ],
        note=note,
    )


def key_of(labels: Iterable[str], signs: dict[str, Sign]) -> list[tuple[str, Markup]]:
    """The key of a chart, for the members that it shows."""
    return [(label, swatch(signs[label])) for label in dict.fromkeys(labels)]


def folded(blocks: Sequence[tuple[str, Sequence[Table | Chart]]], most: int = 1) -> list[Table | Chart | Fold]:
    """Blocks of parts under each other; the first `most` are open, a single one is not folded at all."""
    if len(blocks) == 1:
        return list(blocks[0][1])
    return [Fold(title=title, parts=parts, open=place < most) for place, (title, parts) in enumerate(blocks) if parts]
