"""Confidence intervals of action-wise metrics: recordings of the test split, drawn with replacement.

A recording is all cameras that filmed it: their errors go together. A draw takes as many recordings as there are, out
of all of them, and computes the metric as the study does: means of the actions that it holds, averaged. The interval
is that of the middle 95 % of the draws (percentile bootstrap, Efron and Tibshirani, "An Introduction to the Bootstrap",
1993, chapter 13). Seeds are averaged within each draw: the spread over seeds is another number.

Legend: R recordings, M metrics, B draws.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

METRICS = ("mpjpe_mm", "p_mpjpe_mm", "n_mpjpe_mm", "mpjve_mm", "symmetry_gap_mm", "segment_std_mm")
_ENTRIES = {"mpjve_mm": "pairs", "segment_std_mm": "windows"}
DRAWS, LEVEL = 2000, 0.95
FEWEST = 5
"""Recordings below which no interval is given."""
FEW = 20
"""Recordings below which the page warns: intervals of so few are too narrow."""


@dataclass(frozen=True, kw_only=True)
class Recordings:
    """What the table of recordings of one run says."""

    names: tuple[str, ...]
    """R recordings, sorted: subject/recording/action."""
    action: np.ndarray
    """(R,) index of its action."""
    totals: np.ndarray
    """(R, M) sums of the entries of METRICS."""
    counts: np.ndarray
    """(R, M) entries."""


def recordings_of(text: str) -> Recordings:
    """Read per_recording.csv and put the cameras of each recording together."""
    sums: dict[tuple[str, str], np.ndarray] = {}
    for row in csv.DictReader(io.StringIO(text)):
        counts = np.array([float(row[_ENTRIES.get(metric, "frames")]) for metric in METRICS])
        means = np.array([float(row[metric] or 0) for metric in METRICS])
        name = f"{row['subject']}/{row['recording']}", row["action"]
        sums[name] = sums.get(name, np.zeros((2, len(METRICS)))) + np.stack([means * counts, counts])
    names = sorted(sums)
    actions = sorted({action for _, action in names})
    both = np.array([sums[name] for name in names]).reshape(len(names), 2, len(METRICS))
    return Recordings(
        names=tuple("/".join(name) for name in names),
        action=np.array([actions.index(action) for _, action in names], dtype=np.int64),
        totals=both[:, 0],
        counts=both[:, 1],
    )


def comparable(runs: Sequence[Recordings]) -> bool:
    """Whether all of them scored the same recordings."""
    return all(one.names == runs[0].names for one in runs)


def draws(count: int, number: int = DRAWS, seed: int = 0) -> np.ndarray:
    """(B, R) how often each recording is in each draw; the same for the same arguments."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=number)


def action_wise(recordings: Recordings, times: np.ndarray) -> np.ndarray:
    """(B, M) metrics of draws (B, R); NaN where a draw holds no entry."""
    means = []
    for action in range(int(recordings.action.max()) + 1):
        rows = recordings.action == action
        total, count = times[:, rows] @ recordings.totals[rows], times[:, rows] @ recordings.counts[rows]
        means.append(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))
    known = np.isfinite(means)
    summed = np.where(known, means, 0).sum(axis=0)
    return np.divide(summed, known.sum(axis=0), out=np.full(summed.shape, np.nan), where=known.any(axis=0))


def interval(runs: Sequence[Recordings]) -> dict[str, tuple[float, float]]:
    """Metric -> (low, high) of the mean over runs, one for each seed; empty if they are few or unlike."""
    if not runs or len(runs[0].names) < FEWEST or not comparable(runs):
        return {}
    times = draws(len(runs[0].names))
    return _ends(np.mean([action_wise(one, times) for one in runs], axis=0))


def paired_difference(
    first: Sequence[Recordings], second: Sequence[Recordings]
) -> dict[str, tuple[float, float, float]]:
    """Metric -> (second minus first, low, high), both over the same draws of recordings; empty if they are few, or if
    the runs did not score the same ones. Metrics taken within windows are left out where the windows are unlike. The
    number of seeds may differ."""
    if not first or not second or len(first[0].names) < FEWEST or not comparable([*first, *second]):
        return {}
    count = len(first[0].names)
    times = np.concatenate([np.ones((1, count), dtype=np.int64), draws(count)])
    values = [np.mean([action_wise(one, times) for one in runs], axis=0) for runs in (first, second)]
    difference = values[1] - values[0]
    ends = _ends(difference[1:])
    within = [METRICS.index(metric) for metric in _ENTRIES]
    alike = np.array_equal(first[0].counts[:, within], second[0].counts[:, within])
    return {
        metric: (float(difference[0, METRICS.index(metric)]), *both)
        for metric, both in ends.items()
        if alike or metric not in _ENTRIES
    }


def _ends(values: np.ndarray) -> dict[str, tuple[float, float]]:
    known = [m for m in range(len(METRICS)) if np.isfinite(values[:, m]).any()]  # single frames have no velocity
    low, high = np.nanquantile(values[:, known], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return {METRICS[m]: (float(low[at]), float(high[at])) for at, m in enumerate(known)}
