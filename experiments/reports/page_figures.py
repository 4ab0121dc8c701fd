"""Sections of the page that are drawn: where the error lies, learning curves, accuracy against time, examples."""

from collections.abc import Sequence

import numpy as np

from posegrid.datasets.metrics.breakdown import GAPS
from posegrid.experiments.reports.charts import Axis, Series, plot
from posegrid.experiments.reports.evidence import CURVES, MOST_CURVES, MOST_EXAMPLES, Evidence, key, name_of
from posegrid.experiments.reports.model_table import Row
from posegrid.experiments.reports.page_parts import Chart, Fold, Section, folded, key_of
from posegrid.experiments.reports.skeleton_drawings import draw_examples, turning_view
from posegrid.experiments.reports.skeleton_drawings import key as key_of_skeletons

_POINTS = 160
"""Points of a curve that are drawn."""
_PARTS = (
    ("joint", "all", "joint", "by joint"),
    ("gap", "occluded", "frames in a row in which the joint is hidden", "of hidden joints, by length of the gap"),
    ("speed", "all", "speed of the true pose (m/s)", "by speed of motion"),
)
"""By what, split, title of the axis, end of the caption."""
_OLDER = "Runs of older versions hold no table of parts; `posegrid evaluate RUN --data STORE --log` adds it."


def where_the_error_lies(found: Evidence) -> Section:
    """By joint, by length of the gap, by speed of motion."""
    blocks = []
    gaps = False
    for tested_on, protocol, rows in found.blocks():
        shown = [row for row in found.drawn(rows) if found.parts.get(key(row))]
        charts = [chart for part in _PARTS if (chart := _part_chart(found, shown, tested_on, *part)) is not None]
        gaps |= any("gap" in chart.caption for chart in charts)
        if charts:
            blocks.append((f"Tested on {tested_on}; {protocol}", charts))
    texts = []
    if blocks:
        texts.append("Means over all scored frames, all actions alike (frame-wise, unlike the table of models).")
        if gaps:
            texts.append(
                "Gaps are counted within the window that the model saw: one that begins before it, or goes on after "
                f"it, counts as shorter. The longest class is open, from {GAPS[-1]} frames."
            )
        if any(row.protocol.startswith("centre frame") for row in found.rows):
            texts.append(
                "No gaps for models scored around every frame: there each frame is seen with a mask of its own."
            )
    elif any(row.scores for row in found.rows):
        texts.append(_OLDER)
    return Section(title="Where the error lies", anchor="parts", texts=texts, parts=folded(blocks))


def _part_chart(
    found: Evidence, rows: Sequence[Row], tested_on: str, by: str, split: str, axis: str, words: str
) -> Chart | None:
    names = list(
        dict.fromkeys(of for row in rows for kind, of, which in found.parts[key(row)] if (kind, which) == (by, split))
    )
    if not names:
        return None
    order = {name: place for place, name in enumerate(sorted(names, key=_lower_end) if by != "joint" else names)}
    series = []
    for row in rows:
        parts = found.parts[key(row)]
        values = [parts.get((by, name, split), float("nan")) for name in order]
        if np.isfinite(values).any():
            sign = found.signs[row.member]
            series.append(Series(label=name_of(row), sign=sign, x=list(order.values()), y=values))
    caption = f"MPJPE {words}, tested on {tested_on}"
    drawing = plot(series, Axis(title=axis, names=list(order)), Axis(title="MPJPE (mm)"), caption, height=340)
    return Chart(caption=caption, drawing=drawing, key=key_of([row.member for row in rows], found.signs))


def _lower_end(name: str) -> float:
    return float(name.rstrip("+").split("-")[0])


def curves(found: Evidence) -> Section:
    """Losses and validation errors over the epochs."""
    blocks = []
    patterns = list(dict.fromkeys(cell.trained_on for cells in found.results.cells.values() for cell in cells))
    for pattern in patterns:
        charts = [chart for metric in CURVES if (chart := _curve(found, pattern, metric)) is not None]
        if charts:
            blocks.append((f"Trained on {pattern}", charts))
    texts = []
    if blocks:
        texts.append("Losses of unlike models are unlike sums: compare their shapes, not their heights.")
        if sum(len(cells) for cells in found.results.cells.values()) > MOST_CURVES:
            texts.append(f"Of more than {MOST_CURVES} runs, the first seeds are drawn, at most {MOST_CURVES}.")
    return Section(title="Learning curves", anchor="curves", texts=texts, parts=folded(blocks))


def _curve(found: Evidence, pattern: str, metric: str) -> Chart | None:
    series, lengths = [], set()
    for label, cells in found.results.cells.items():
        first = True
        for cell in cells:
            history = found.histories.get((cell.trial.run_id, metric)) if cell.trial is not None else None
            if cell.trained_on != pattern or not history:
                continue
            # the last value of an epoch that was logged again, and no more points than can be seen
            steps = dict(history)
            lengths.add(len(steps))
            chosen = np.unique(np.linspace(0, len(steps) - 1, _POINTS).round().astype(int))
            x, y = np.array(list(steps), dtype=float)[chosen], np.array(list(steps.values()))[chosen]
            name, sign = f"{label}, seed {cell.seed}", found.signs[label]
            series.append(Series(label=name, sign=sign, x=x, y=y, points=len(x) < 3, faint=not first))
            first = False
    if not series:
        return None
    what = {"train/loss": "training loss", "validation/loss": "validation loss"}.get(metric, "validation MPJPE (mm)")
    positive = all((np.asarray(one.y) > 0).all() for one in series)
    caption = f"{what[0].upper()}{what[1:]}, trained on {pattern}"
    drawing = plot(series, Axis(title="epoch"), Axis(title=what, log=positive), caption, height=300)
    labels = [one.label.rpartition(", seed ")[0] for one in series]
    several = "Further seeds are pale." if any(one.faint for one in series) else ""
    return Chart(caption=caption, drawing=drawing, key=key_of(labels, found.signs), note=several)


def accuracy_and_time(found: Evidence) -> Section:
    """MPJPE over poses per second."""
    blocks = []
    for tested_on, protocol, rows in found.blocks():
        shown = [row for row in found.drawn(rows) if row.cost is not None]
        if len(shown) < 2:
            continue
        series = [
            Series(
                label=name_of(row),
                sign=found.signs[row.member],
                x=[row.cost.poses_per_s],
                y=[row.scores["mpjpe_mm"][0]],
                line=False,
                names=[name_of(row)],
            )
            for row in shown
            if row.cost is not None
        ]
        caption = f"MPJPE against speed, tested on {tested_on}: lower and further right is better"
        drawing = plot(series, Axis(title="poses per second", log=True), Axis(title="MPJPE (mm)"), caption, height=360)
        device = "; ".join(sorted({row.cost.device for row in shown if row.cost is not None}))
        chart = Chart(caption=caption, drawing=drawing, note=f"Speed of the network alone, on {device}.", wide=True)
        blocks.append((f"Tested on {tested_on}; {protocol}", [chart]))
    return Section(title="Accuracy and time", anchor="time", parts=folded(blocks))


def examples(found: Evidence) -> Section:
    """The best, the median and the worst window of the first scored batch."""
    order = {key(row): place for place, row in enumerate(found.rows)}
    parts: list[Fold] = []
    for place, one in enumerate(sorted(found.examples, key=lambda one: order[one])):
        label, trained_on, tested_on = one
        drawings = draw_examples(found.examples[one], found.results.skeleton)
        charts = [Chart(caption=words, drawing=drawing) for words, drawing in drawings]
        turning = turning_view(found.examples[one], found.results.skeleton, label)
        if turning is not None:
            charts.append(Chart(caption="The worst window, to be played and turned", drawing=turning, wide=True))
        trained = "" if trained_on == tested_on else f"trained on {trained_on}, "
        parts.append(Fold(title=f"{label}: {trained}tested on {tested_on}", parts=charts, open=place < 2, thirds=True))
    texts = []
    if parts:
        texts.append(
            "The best, the median and the worst window of the first batch that was scored (not of the whole test "
            "split), each at the frame with most hidden joints; poses relative to the root joint."
        )
        if len(found.rows) > len(parts):
            texts.append(f"{len(parts)} of {len(found.rows)} models are drawn (at most {MOST_EXAMPLES}).")
    shown: list[Chart | Fold] = [Chart(caption="", drawing=key_of_skeletons(), wide=True), *parts] if parts else []
    return Section(title="Examples", anchor="examples", texts=texts, parts=shown)
