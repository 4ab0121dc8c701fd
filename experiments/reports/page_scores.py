"""Sections of the page about scores: the table of models, paired differences, matrices, actions, what was hidden."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from posegrid.experiments.reports.charts import Axis, Bar, bars
from posegrid.experiments.reports.evidence import Evidence, key, name_of
from posegrid.experiments.reports.intervals import FEW, FEWEST, paired_difference
from posegrid.experiments.reports.matrices import METRICS, MODEL_METRICS, Matrix
from posegrid.experiments.reports.model_table import Row
from posegrid.experiments.reports.page_parts import Chart, Entry, Fold, Section, Table, folded, heat, key_of, number

_BOLD = "Bold: the interval keeps clear of 0."
MOST_MATRICES = 8
"""Members whose matrices are shown; a larger study shows the first ones and says so."""


def headline(found: Evidence) -> Section:
    """The table of models, one for each test pattern and protocol."""
    blocks = found.blocks()
    texts = [
        "Action-wise means: the mean over the actions of the mean over the frames of each. Under a mean stands its "
        "standard deviation over seeds, where there are several, and in brackets the 95 % interval over the recordings "
        "of the test split. The lowest value of a column is bold.",
        "Where no column says otherwise, a model was trained on the pattern that it is tested on.",
        *_unlike(found),
    ]
    tables = [(f"Tested on {tested}; {protocol}", [_model_table(found, rows)]) for tested, protocol, rows in blocks]
    if len(blocks) == 1:
        tables[0][1][0] = _model_table(found, blocks[0][2], f"{tables[0][0]}; {_seeds(blocks[0][2])}")
    return Section(title="Models", anchor="models", texts=texts, parts=folded(tables, most=6))


def _model_table(found: Evidence, rows: Sequence[Row], caption: str = "") -> Table:
    trained = any(row.trained_on != row.tested_on for row in rows)
    titles = ["model", *(["trained on"] if trained else []), "window", "seeds", *MODEL_METRICS.values()]
    titles += ["parameters", "MFLOPs per pose", "poses/s"]
    lowest = {metric: min((row.scores[metric][0] for row in rows), default=np.nan) for metric in MODEL_METRICS}
    lines, without = [], []
    for row in rows:
        ends = found.intervals(row)
        if not ends:
            without.append(row)
        line = [Entry(text=row.member, head=True, sign=found.signs[row.member])]
        line += [Entry(text=row.trained_on)] if trained else []
        line += [Entry(text=row.window), Entry(text=str(row.seeds))]
        for metric in MODEL_METRICS:
            mean, std = row.scores[metric]
            notes = [f"± {std:.1f}"] if np.isfinite(std) else []
            notes += ["[{:.1f}, {:.1f}]".format(*ends[metric])] if metric in ends else []
            best = len(rows) > 1 and mean == lowest[metric]
            line.append(Entry(text=number(mean), note=" ".join(notes), strong=best))
        digits = row.parameters
        line.append(Entry(text=f"{int(digits):,}" if digits.isdigit() else "-"))
        cost = row.cost
        line.append(Entry(text="-" if cost is None else number(cost.flops_per_pose / 1e6, 1)))
        line.append(Entry(text="-" if cost is None else number(cost.poses_per_s, 0)))
        lines.append(line)
    return Table(caption=caption, columns=titles, rows=lines, note=_about_intervals(found, rows, without))


def _about_intervals(found: Evidence, rows: Sequence[Row], without: list[Row]) -> str:
    said = []
    counts = sorted({len(found.recordings[key(row)][0].names) for row in rows if found.recordings.get(key(row))})
    if without:
        who = "no model here" if len(without) == len(rows) else f"{', '.join(name_of(row) for row in without[:4])}"
        more = f" and {len(without) - 4} more" if len(without) < len(rows) and len(without) > 4 else ""
        why = (
            f"the test split has fewer than {FEWEST} recordings"
            if counts and counts[-1] < FEWEST
            else "the runs hold no table of recordings. Runs of this version log one; for others repeat `posegrid "
            "evaluate RUN --data STORE --occlusion PATTERN --log`"
        )
        verb = "has" if len(without) == len(rows) else "have no interval:" if more or len(without) > 1 else "has none:"
        said.append(f"Intervals: {who}{more} {verb}{' one:' if verb == 'has' else ''} {why}.")
    if len(without) < len(rows):
        few = f"; of fewer than {FEW}, intervals come out too narrow" if counts and counts[0] < FEW else ""
        said.append(f"Intervals are drawn over {' or '.join(map(str, counts))} recordings{few}.")
    windows = {row.window for row in rows}
    if len(windows) > 1:
        said.append(
            "MPJVE and segment std are taken within windows of a model's own length: compare them only between equal "
            "windows."
        )
    devices = sorted({row.cost.device for row in rows if row.cost is not None})
    if devices:
        said.append(
            f"FLOPs count 2 for each multiply-add of matrix products and convolutions, without flip averaging; poses/s "
            f"likewise, on {'; '.join(devices)}."
        )
    return " ".join(said)


def _unlike(found: Evidence) -> list[str]:
    """Why rows of different tables are not compared."""
    protocols = list(dict.fromkeys(row.protocol for row in found.rows))
    if len(protocols) < 2:
        return []
    who = {
        protocol: list(dict.fromkeys(row.member for row in found.rows if row.protocol == protocol))
        for protocol in protocols
    }
    texts = ["Rows of different tables cannot be compared: these members are scored under unlike protocols."]
    for first, second in list(combinations(protocols, 2))[:6]:
        texts.append(
            f"{_list(who[first])} ({_own_words(first, second)}) and {_list(who[second])} ({_own_words(second, first)})."
        )
    return texts


def _own_words(protocol: str, other: str) -> str:
    """What one protocol says that the other does not."""
    return ", ".join(part for part in protocol.split(", ") if part not in other.split(", ")) or "nothing more"


def differences(found: Evidence) -> Section:
    """Every model against the baseline, over the same recordings."""
    blocks: list[tuple[str, list[Table | Chart]]] = []
    reasons: list[str] = []
    baseline = found.results.baseline
    for tested_on, protocol, rows in found.blocks():
        of = {row.trained_on: row for row in rows if row.member == baseline}
        drawn, lines = [], []
        for row in found.drawn([row for row in rows if row.member != baseline]):
            base = of.get(row.trained_on)
            if base is None:
                continue
            paired = paired_difference(found.complete(base), found.complete(row))
            plain = row.scores["mpjpe_mm"][0] - base.scores["mpjpe_mm"][0]
            value, low, high = paired.get("mpjpe_mm", (plain, np.nan, np.nan))
            bar = Bar(label=name_of(row), sign=found.signs[row.member], value=value, low=low, high=high)
            drawn.append(bar)
            lines.append(_difference_line(found, row, base, paired))
        if not drawn:
            continue
        title = f"Tested on {tested_on}; {protocol}"
        caption = f"MPJPE minus that of {baseline}, tested on {tested_on} (mm; left of 0 is better)"
        chart = Chart(
            caption=caption,
            drawing=bars(drawn, Axis(title=f"difference of MPJPE from {baseline} (mm)"), caption, zero=True),
            note="Lines are 95 % intervals over recordings; one that keeps clear of 0 is a difference that other "
            "recordings of these people would show too."
            if any(np.isfinite(bar.low) for bar in drawn)
            else "Without intervals: the runs hold no tables of recordings.",
            wide=True,
        )
        columns = ["model", *MODEL_METRICS.values()]
        table = Table(caption=f"Differences from {baseline}", columns=columns, rows=lines, note=_BOLD)
        blocks.append((title, [chart, table]))
    texts = []
    others = len(found.results.matrices) - 1
    if blocks:
        texts.append(
            f"Each model minus {baseline}, the first of the study, trained with the same pattern. Both are scored on "
            "the same recordings, and each draw of recordings takes the difference of both, so that what makes a "
            "recording hard for every model cancels. The interval says nothing of other seeds: see the standard "
            "deviations above."
        )
    alone = [label for label in found.results.matrices if label != baseline]
    alone = [one for one in alone if found.results.protocol(one) != found.results.protocol(baseline)]
    if others and alone:
        reasons.append(f"No difference for {_list(alone)}: scored otherwise than {baseline}.")
    return Section(title="Differences", anchor="differences", texts=[*texts, *reasons], parts=folded(blocks, most=2))


def _difference_line(
    found: Evidence, row: Row, base: Row, paired: dict[str, tuple[float, float, float]]
) -> list[Entry]:
    line = [Entry(text=name_of(row), head=True, sign=found.signs[row.member])]
    for metric in MODEL_METRICS:
        unlike = row.window != base.window and metric in ("mpjve_mm", "segment_std_mm")
        value = float("nan") if unlike else row.scores[metric][0] - base.scores[metric][0]
        ends = paired.get(metric)
        clear = ends is not None and (ends[1] > 0) == (ends[2] > 0)
        note = "" if ends is None or unlike else f"[{ends[1]:+.1f}, {ends[2]:+.1f}]"
        line.append(Entry(text="unlike windows" if unlike else number(value, signed=True), note=note, strong=clear))
    return line


def matrices(found: Evidence) -> Section:
    """Trained on, tested on: of every member, and the differences from the baseline."""
    results = found.results
    baseline = results.baseline
    labels = list(results.matrices)[:MOST_MATRICES]
    if all(results.matrices[label]["mpjpe_mm"].mean.size < 2 for label in labels):
        return Section(title="Matrices", anchor="matrices")
    blocks = []
    for metric, unit in METRICS.items():
        own = {label: results.matrices[label][metric] for label in labels}
        alike = {label: one for label, one in own.items() if results.protocol(label) == results.protocol(baseline)}
        values = np.concatenate([one.mean.ravel() for one in alike.values()])
        finite = values[np.isfinite(values)]
        ends = (float(finite.min()), float(finite.max())) if finite.size else None
        parts = [
            _heat(f"{label}: {unit}", one, ends if label in alike else None)
            for label, one in own.items()
            if np.isfinite(one.mean).any()
        ]
        for label, one in alike.items():
            change = one.minus(own[baseline])
            if label != baseline and np.isfinite(change.mean).any():
                lower = (change.mean < 0).sum()
                note = f"Lower in {lower} of {np.isfinite(change.mean).sum()} cells."
                parts.append(_heat(f"{label} minus {baseline}: {unit}", change, None, note))
        blocks.append((unit, parts))
    texts = [
        "Rows: trained on; columns: tested on. Dark is worse; members that are scored alike share a scale. In "
        "differences purple is lower than the baseline, orange higher."
    ]
    if len(results.matrices) > len(labels):
        texts.append(f"The first {len(labels)} of {len(results.matrices)} members are shown; matrices.csv holds all.")
    return Section(title="Matrices", anchor="matrices", texts=texts, parts=folded(blocks))


def _heat(caption: str, matrix: Matrix, ends: tuple[float, float] | None, note: str = "") -> Table:
    return heat(
        caption, "trained on", matrix.rows, matrix.columns, matrix.mean, ends=ends, difference=bool(note), note=note
    )


def per_action(found: Evidence) -> Section:
    """MPJPE of every action."""
    blocks = []
    for tested_on, protocol, rows in found.blocks():
        shown = [row for row in found.drawn(rows) if found.actions.get(key(row))]
        actions = list(dict.fromkeys(action for row in shown for action in found.actions[key(row)]))
        if not actions:
            continue
        tables = [found.actions[key(row)] for row in shown]
        values = np.array(
            [[table.get(action, {}).get("mpjpe_mm", np.nan) for table in tables] for action in actions]
        ).reshape(len(actions), len(shown))
        caption = f"MPJPE (mm) by action, tested on {tested_on}"
        part = heat(caption, "action", actions, [name_of(row) for row in shown], values)
        blocks.append((f"Tested on {tested_on}; {protocol}", [part]))
    return Section(title="Actions", anchor="actions", parts=folded(blocks))


def hidden(found: Evidence) -> Section:
    """Joints that the model did not see against those that it saw."""
    blocks: list[tuple[str, list[Table | Chart]]] = []
    for tested_on, protocol, rows in found.blocks():
        lines, drawn = [], []
        for row in found.drawn(rows):
            seen, unseen = (found.score(row, f"mpjpe_mm {split}") for split in ("visible", "occluded"))
            if not np.isfinite(unseen):
                continue
            sign = found.signs[row.member]
            drawn += [
                Bar(label=name_of(row), sign=sign, value=seen, hollow=True),
                Bar(label=name_of(row), sign=sign, value=unseen),
            ]
            values = (row.scores["mpjpe_mm"][0], seen, unseen, unseen - seen)
            cells = [Entry(text=number(value, signed=place == 3)) for place, value in enumerate(values)]
            lines.append([Entry(text=name_of(row), head=True, sign=sign), *cells])
        if not lines:
            continue
        caption = f"MPJPE of visible (hollow) and hidden (filled) joints, tested on {tested_on}"
        chart = Chart(
            caption=caption,
            drawing=bars(drawn, Axis(title="MPJPE (mm)"), caption),
            key=key_of([row.member for row in found.drawn(rows)], found.signs),
            wide=True,
        )
        columns = ["model", "all joints", "visible", "hidden", "hidden - visible"]
        blocks.append((f"Tested on {tested_on}; {protocol}", [chart, Table(caption="", columns=columns, rows=lines)]))
    texts = ["Action-wise means over the joints that the model saw in a frame, and over those hidden from it."]
    return Section(title="Hidden joints", anchor="hidden", texts=texts if blocks else [], parts=folded(blocks))


def runs(found: Evidence) -> Section:
    """Every run of the study, and what is missing."""
    lines = []
    for label, cells in found.results.cells.items():
        for cell in cells:
            trial = cell.trial
            scored = sum(cell.scored(column) for column in cell.scores)
            words = "not run" if trial is None else "diverged" if trial.diverged else trial.status.lower()
            minutes = "-"
            if trial is not None and trial.started_ms and trial.ended_ms:
                minutes = number((trial.ended_ms - trial.started_ms) / 60000, 1)
            lines.append(
                [
                    Entry(text=label, head=True, sign=found.signs[label]),
                    Entry(text=cell.trained_on),
                    Entry(text=str(cell.seed)),
                    Entry(text=words),
                    Entry(text=f"{scored} of {len(cell.scores)}"),
                    Entry(text=minutes),
                    Entry(text="-" if trial is None else trial.run_id),
                ]
            )
    columns = ["model", "trained on", "seed", "state", "patterns scored", "minutes", "run"]
    table = Table(caption="", columns=columns, rows=lines)
    parts = [Fold(title=f"{len(lines)} runs", parts=[table])] if lines else []
    patterns = [
        [Entry(text=label, head=True), Entry(text=", ".join(f"{name} = {value}" for name, value in pattern.items()))]
        for label, pattern in found.results.tests.items()
    ]
    if patterns:
        rows = Table(caption="", columns=["label", "pattern and its settings"], rows=patterns)
        parts.append(Fold(title="Occlusion patterns", parts=[rows]))
    return Section(title="Runs and settings", anchor="runs", parts=parts)


def _seeds(rows: Sequence[Row]) -> str:
    counts = sorted({row.seeds for row in rows})
    return "one seed" if counts == [1] else f"{' or '.join(map(str, counts))} seeds"


def _list(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
