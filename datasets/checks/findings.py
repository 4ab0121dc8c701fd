"""Rows of the table that `posegrid check data` prints."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from textwrap import wrap

from posegrid.datasets.checks.measures import Measures, Peak
from posegrid.datasets.skeletons import Skeleton

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "FAILED", "skipped"

_WIDTHS = (30, 8, 44, 32, 38)
"""Widest cell of each column."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of the table."""

    check: str
    status: str
    """ "ok", "warning", "FAILED" or "skipped"."""
    measured: str
    allowed: str = ""
    place: str = ""
    """The worst place: sequence, frame, joint or bone."""


def table(findings: list[Finding]) -> list[str]:
    """The findings as lines of text; long cells go on below."""
    head = ("check", "result", "measured", "allowed", "worst place")
    rows = [head, *((row.check, row.status, row.measured, row.allowed, row.place) for row in findings)]
    cells = [
        [wrap(cell, width, break_on_hyphens=False) for cell, width in zip(row, _WIDTHS, strict=True)] for row in rows
    ]
    widths = [max(len(line) for row in cells for line in row[column]) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for row in cells
        for line in zip_longest(*row, fillvalue="")
    ]


def most(measures: list[Measures], peak: Callable[[Measures], Peak]) -> tuple[Peak, Measures]:
    """The largest peak and the sequence that it is in."""
    owner = max(measures, key=lambda found: peak(found).value)
    return peak(owner), owner


def at(peak: Peak, owner: Measures, skeleton: Skeleton) -> str:
    """Sequence, frame and joint of a peak; empty if there is none."""
    if peak.frame < 0:
        return ""
    return f"{owner.sequence.name}, frame {peak.frame}, {skeleton.joints[peak.joint]}"
