"""Everything that the page of a study shows, read once: scores, tables of recordings and parts, histories, examples."""

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from posegrid.experiments.reports.intervals import Recordings, interval, recordings_of
from posegrid.experiments.reports.matrices import Cell, StudyResults
from posegrid.experiments.reports.model_table import Row
from posegrid.experiments.reports.run_files import read_artifacts, read_histories
from posegrid.experiments.reports.signs import Sign, signs_of
from posegrid.orchestration.score_tables import BREAKDOWN, RECORDINGS
from posegrid.orchestration.tracking import Tracking, Trial

CURVES = ("train/loss", "validation/loss", "validation/mpjpe_mm")
"""Histories that are drawn."""
MOST_CURVES = 60
"""Runs whose histories are drawn; of a larger study the first seeds."""
MOST_DRAWN = 12
"""Members in one chart; of a larger study the baseline and the best ones."""
MOST_EXAMPLES = 8
"""Runs whose examples are drawn."""

Key = tuple[str, str, str]
"""Member, training pattern, test pattern."""
Part = tuple[str, str, str]
"""By what, of which, and which split: ("joint", "Head", "occluded")."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A study with what its runs hold."""

    results: StudyResults
    rows: Sequence[Row]
    """Models and test patterns, as the table of models has them."""
    signs: dict[str, Sign]
    """Member label -> how it is drawn."""
    recordings: dict[Key, list[Recordings]] = field(default_factory=dict, repr=False)
    """One entry for each seed that has the table."""
    actions: dict[Key, dict[str, dict[str, float]]] = field(default_factory=dict, repr=False)
    """Action -> metric -> mean over the seeds."""
    parts: dict[Key, dict[Part, float]] = field(default_factory=dict, repr=False)
    """MPJPE in mm of parts, mean over the seeds."""
    histories: dict[tuple[str, str], list[tuple[int, float]]] = field(default_factory=dict, repr=False)
    """(run id, metric) -> (step, value)."""
    examples: dict[Key, bytes] = field(default_factory=dict, repr=False)
    """An examples.npz of the first seed."""

    def blocks(self) -> list[tuple[str, str, list[Row]]]:
        """(test pattern, protocol, its rows): what may be compared."""
        found: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self.rows:
            found[row.tested_on, row.protocol].append(row)
        return [(tested_on, protocol, rows) for (tested_on, protocol), rows in found.items()]

    def seeds(self, label: str, trained_on: str, tested_on: str) -> list[Cell]:
        """The trainings behind a row."""
        cells = self.results.cells.get(label, ())
        return [cell for cell in cells if cell.trained_on == trained_on and cell.scored(tested_on)]

    def score(self, row: Row, metric: str) -> float:
        """Mean over the seeds of any metric that the runs log, such as "mpjpe_mm occluded"; NaN if one lacks it."""
        name = f"test {row.tested_on}/{metric}"
        trials = [cell.trial for cell in self.seeds(*key(row)) if cell.trial is not None]
        values = [trial.metrics.get(name, float("nan")) for trial in trials]
        return float(np.mean(values)) if values else float("nan")

    def drawn(self, rows: Sequence[Row]) -> list[Row]:
        """Rows that fit in one chart: the baseline and the best of them, in their order."""
        if len(rows) <= MOST_DRAWN:
            return list(rows)
        first = [row for row in rows if row.member == self.results.baseline][:1]
        best = sorted((row for row in rows if row not in first), key=lambda row: row.scores["mpjpe_mm"][0])
        chosen = [*first, *best[: MOST_DRAWN - len(first)]]
        return [row for row in rows if row in chosen]

    def complete(self, row: Row) -> list[Recordings]:
        """The tables of recordings of a row, one for each seed; empty if a seed lacks it: means stay those shown."""
        runs = self.recordings.get(key(row), [])
        return runs if len(runs) == len(self.seeds(*key(row))) else []

    def intervals(self, row: Row) -> dict[str, tuple[float, float]]:
        """Metric -> its interval over recordings; empty where there is none."""
        return interval(self.complete(row))


def key(row: Row) -> Key:
    """Which model under which pattern a row is."""
    return row.member, row.trained_on, row.tested_on


def name_of(row: Row) -> str:
    """What a chart calls a row."""
    return row.member if row.trained_on == row.tested_on else f"{row.member}, trained on {row.trained_on}"


def gather(tracking: Tracking, results: StudyResults, rows: Sequence[Row]) -> Evidence:
    """Read what the page needs, many runs at a time. Runs of older versions lack some of it."""
    networks = {
        label: next((trial.tags["model"] for trial in trials.values() if "model" in trial.tags), "")
        for label, trials in results.trials.items()
    }
    found = Evidence(results=results, rows=rows, signs=signs_of(results.matrices, networks))
    trials = {key(row): [cell.trial for cell in found.seeds(*key(row)) if cell.trial is not None] for row in rows}
    drawn = dict.fromkeys(key(row) for row in _examples(found))
    wanted = [
        (trial.run_id, f"test/{one[2]}/{name}")
        for one, own in trials.items()
        for place, trial in enumerate(own)
        for name in ("per_action.csv", RECORDINGS, BREAKDOWN, *(["examples.npz"] if one in drawn and not place else []))
    ]
    files = read_artifacts(tracking, wanted)
    for one, own in trials.items():
        texts = {
            name: [
                files[place].decode() for trial in own if (place := (trial.run_id, f"test/{one[2]}/{name}")) in files
            ]
            for name in ("per_action.csv", RECORDINGS, BREAKDOWN)
        }
        found.recordings[one] = [recordings_of(text) for text in texts[RECORDINGS]]
        found.actions[one] = _mean_of_tables([_actions(text) for text in texts["per_action.csv"]])
        found.parts[one] = _mean_of_rows([_parts(text) for text in texts[BREAKDOWN]])
    for one in drawn:
        place = (trials[one][0].run_id, f"test/{one[2]}/examples.npz") if trials[one] else ("", "")
        if place in files:
            found.examples[one] = files[place]
    found.histories.update(read_histories(tracking, _with_curves(results), CURVES))
    return found


def _examples(found: Evidence) -> list[Row]:
    """Rows whose examples are drawn: of every test pattern first one model, then the next."""
    turns = [[row for row in found.drawn(rows)] for _, _, rows in reversed(found.blocks())]
    chosen: list[Row] = []
    for place in range(max(map(len, turns), default=0)):
        chosen += [rows[place] for rows in turns if place < len(rows)]
    return chosen[:MOST_EXAMPLES]


def _with_curves(results: StudyResults) -> list[Trial]:
    every = [cell for cells in results.cells.values() for cell in cells if cell.trial is not None]
    if len(every) > MOST_CURVES:
        first = {(label, cell.trained_on): cell for label, cells in results.cells.items() for cell in reversed(cells)}
        every = list(first.values())[:MOST_CURVES]
    return list({cell.trial.run_id: cell.trial for cell in every if cell.trial is not None}.values())


def _actions(text: str) -> dict[str, dict[str, float]]:
    found = {}
    for row in csv.DictReader(io.StringIO(text)):
        action = row.pop("action")
        if action not in ("action-wise", "frame-wise"):
            found[action] = {metric: float(value) for metric, value in row.items() if value}
    return found


def _parts(text: str) -> dict[Part, float]:
    rows = csv.DictReader(io.StringIO(text))
    return {(row["by"], row["of"], row["split"]): float(row["mpjpe_mm"]) for row in rows}


def _mean_of_rows(every: list[dict]) -> dict:
    """Means of what all of them have."""
    if not every:
        return {}
    shared = [name for name in every[0] if all(name in one for one in every)]
    return {name: float(np.mean([one[name] for one in every])) for name in shared}


def _mean_of_tables(every: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    if not every:
        return {}
    shared = [name for name in every[0] if all(name in one for one in every)]
    return {name: _mean_of_rows([one[name] for one in every]) for name in shared}
