"""The report of a study: matrices, differences, the table of its models, published numbers, example pictures.

Everything is logged in the parent run; pictures of examples in the run they come from.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from posegrid.experiments.reports import heatmaps
from posegrid.experiments.reports.costs import costs_of_members
from posegrid.experiments.reports.matrices import METRICS, StudyResults, read_study
from posegrid.experiments.reports.model_table import model_csv, model_rows, model_table
from posegrid.experiments.reports.pictures import examples_figure
from posegrid.experiments.reports.published import beside_ours, by_itself, published_table
from posegrid.orchestration.tracking import Tracking, Trial

Say = Callable[[str], None]


def build_report(tracking: Tracking, study: str, say: Say, out: Path | None = None) -> StudyResults:
    """Build, print and log the report of a study. `out` receives copies. Raises ValueError if nothing is scored."""
    results = read_study(tracking, study)
    control = f"predicting the mean training pose: {results.control_mm:.1f} mm MPJPE"
    say(f"\n{results.title}\ndata: {results.source}; {control}")
    texts, figures = _matrices(results, say)
    texts |= _model_tables(tracking, results, say) | _published(results)
    for name, text in texts.items():
        if name.endswith(".md"):
            say("\n" + text)
    for name, text in texts.items():
        tracking.log_text(results.parent, text, name)
    for name, figure in figures.items():
        tracking.log_figure(results.parent, figure, name)
    _log_diagonals(tracking, results)
    for label, trials in results.trials.items():
        for pattern, trial in trials.items():
            _log_examples(tracking, results, label, pattern, trial)
    if out is not None:
        _copy(out, texts, figures)
    say(f"{len(figures)} figures and {len(texts)} tables are in the parent run {results.parent} under report/")
    return results


def _matrices(results: StudyResults, say: Say) -> tuple[dict[str, str], dict[str, Figure]]:
    """Each member's matrices, and the differences from the baseline of those that are scored alike."""
    texts: dict[str, str] = {}
    figures: dict[str, Figure] = {}
    for label, matrices in results.matrices.items():
        for metric, unit in METRICS.items():
            say("\n".join([f"\n{label}: {unit}, action-wise; {results.protocol(label)}", *matrices[metric].text()]))
            texts[f"report/{_slug(label)}_{metric}.csv"] = matrices[metric].csv()
    baseline, comparable = results.baseline, _comparable(results)
    for metric, unit in METRICS.items():
        first = results.matrices[baseline][metric]
        for label in comparable:
            second = results.matrices[label][metric]
            difference = second.minus(first)
            name = f"{_slug(label)}_minus_{_slug(baseline)}_{metric}"
            texts[f"report/{name}.csv"] = difference.csv()
            if np.isfinite(difference.mean).any():
                figures[f"report/{name}.png"] = heatmaps.comparison(
                    baseline, label, first, second, unit, results.source
                )
                say(f"{label} minus {baseline}, {unit}: {_signs(difference.mean)}")
        for label in [label for label in results.matrices if label not in comparable]:
            matrix = results.matrices[label][metric]
            if (label != baseline or not comparable) and np.isfinite(matrix.mean).any():
                name = metric if len(results.matrices) == 1 else f"{_slug(label)}_{metric}"
                figures[f"report/{name}.png"] = heatmaps.single(label, matrix, unit, results.source)
    for label in results.matrices:
        if label not in (baseline, *comparable):
            say(
                f"{label} has no difference from {baseline}: it is scored otherwise "
                f"({results.protocol(label)}; {results.protocol(baseline)})"
            )
    return texts, figures


def _comparable(results: StudyResults) -> list[str]:
    """Members that are scored as the baseline is, whose numbers may be subtracted from its numbers."""
    protocol = results.protocol(results.baseline)
    return [label for label in results.matrices if label != results.baseline and results.protocol(label) == protocol]


def _model_tables(tracking: Tracking, results: StudyResults, say: Say) -> dict[str, str]:
    if len(results.matrices) == 1:
        return {}
    rows = model_rows(results, costs_of_members(tracking, results, say))
    return {"report/models.md": model_table(results, rows), "report/models.csv": model_csv(rows)}


def _published(results: StudyResults) -> dict[str, str]:
    """The published table that the grid names: beside our diagonals if its rows are such, else by itself."""
    name = results.published
    if not name:
        return {}
    if published_table(name, f"study {results.name}").get("rows_are") != "patterns":
        return {"report/published.md": by_itself(name)}
    ours = {label: partial(_diagonal, results, label, metric="mpjpe_mm") for label in results.matrices}
    protocols = [f"{label}: {results.protocol(label)}" for label in ours]
    patterns = list(dict.fromkeys(row for label in ours for row in results.diagonal(label)))
    return {"report/occlusion_table.md": beside_ours(name, patterns, ours, results.source, protocols)}


def _diagonal(results: StudyResults, label: str, pattern: str, metric: str) -> float:
    return results.matrices[label][metric].at(pattern, pattern)[0]


def _log_diagonals(tracking: Tracking, results: StudyResults) -> None:
    """Headline numbers of the study as metrics of the parent run, so that studies can be compared in the UI."""
    values = {}
    for label, matrices in results.matrices.items():
        for metric, matrix in matrices.items():
            diagonal = [_diagonal(results, label, row, metric) for row in results.diagonal(label)]
            for name, cells in (("diagonal", np.array(diagonal)), ("all cells", matrix.mean)):
                finite = cells[np.isfinite(cells)]
                if finite.size:
                    values[f"{_slug(label)}/mean of {name} {metric}"] = float(finite.mean())
    tracking.log_metrics(results.parent, values)


def _log_examples(tracking: Tracking, results: StudyResults, label: str, pattern: str, trial: Trial) -> None:
    if pattern not in trial.evaluated:
        return
    name = f"test/{pattern}/examples"
    if f"{name}.png" in tracking.artifacts(trial.run_id, f"test/{pattern}"):
        return
    with tracking.fetched(trial.run_id, f"{name}.npz") as file:
        title = f"{label} trained and tested on {pattern}, {results.source}"
        figure = examples_figure(file, results.skeleton, title)
    tracking.log_figure(trial.run_id, figure, f"{name}.png")


def _copy(out: Path, texts: dict[str, str], figures: dict[str, Figure]) -> None:
    for name, text in texts.items():
        file = out / Path(name).name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for name, figure in figures.items():
        figure.savefig(out / Path(name).name, dpi=120)


def _signs(difference: np.ndarray) -> str:
    finite = difference[np.isfinite(difference)]
    return f"lower in {(finite < 0).sum()} of {finite.size} cells, mean {finite.mean():+.2f}"


def _slug(label: str) -> str:
    return "".join(sign if sign.isalnum() else "_" for sign in label.lower())
