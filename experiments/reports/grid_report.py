"""The report of a study: one HTML page, and its parts: matrices, differences, the table of models, published numbers.

Everything is logged in the parent run; pictures of examples in the run they come from.
"""

import base64
import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from posegrid.experiments.reports import heatmaps
from posegrid.experiments.reports.costs import costs_of_members
from posegrid.experiments.reports.evidence import gather
from posegrid.experiments.reports.html_report import page
from posegrid.experiments.reports.matrices import METRICS, StudyResults, read_study
from posegrid.experiments.reports.model_table import Row, model_csv, model_rows, model_table
from posegrid.experiments.reports.page_parts import Chart
from posegrid.experiments.reports.pictures import examples_figure
from posegrid.experiments.reports.published import beside_ours, by_itself, published_table
from posegrid.orchestration.tracking import Tracking, Trial

Say = Callable[[str], None]
PAGE = "report/report.html"
MOST_MEMBERS = 12
"""Members whose matrices are printed, logged and drawn one by one; of a larger study all are in matrices.csv."""
MOST_PICTURES = 12
"""Pictures of examples that one call draws; the page shows examples of its own."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report was built from."""

    results: StudyResults
    rows: list[Row]
    """Of the table of models."""


def build_report(
    tracking: Tracking, study: str, say: Say, out: Path | None = None, remark: Say | None = None
) -> Report:
    """Build, print and log the report of a study. `out` receives copies. Raises ValueError if nothing is scored.

    say: prints tables. remark: prints what is no result, such as what was measured; by default `say`.
    """
    results, remark = read_study(tracking, study), remark or say
    control = f"predicting the mean training pose: {results.control_mm:.1f} mm MPJPE"
    say(f"\n{results.title}\ndata: {results.source}; {control}")
    texts, figures = _matrices(results, say)
    rows = model_rows(results, costs_of_members(tracking, results, remark) if len(results.matrices) > 1 else {})
    texts |= _model_tables(results, rows) | _published(results)
    for name, text in texts.items():
        if name.endswith(".md"):
            say("\n" + text)
    for name, text in texts.items():
        tracking.log_text(results.parent, text, name)
    pictures = {name: tracking.log_figure(results.parent, figure, name) for name, figure in figures.items()}
    html = page(gather(tracking, results, rows), _figures_of_searches(tracking, results))
    tracking.log_text(results.parent, html, PAGE)
    _log_diagonals(tracking, results)
    _log_pictures(tracking, results, remark)
    if out is not None:
        _copy(out, texts | {PAGE: html}, pictures)
    remark(
        f"{PAGE}, {len(figures)} figures and {len(texts)} tables are in the parent run {results.parent} under report/"
        + (f"; copies in {out}" if out is not None else "")
    )
    return Report(results=results, rows=rows)


def _matrices(results: StudyResults, say: Say) -> tuple[dict[str, str], dict[str, Figure]]:
    """Each member's matrices, and the differences from the baseline of those that are scored alike."""
    texts: dict[str, str] = {}
    figures: dict[str, Figure] = {}
    labels = list(results.matrices)[:MOST_MEMBERS]
    if len(results.matrices) > len(labels):
        texts["report/matrices.csv"] = _long_csv(results)
        say(f"\n{len(results.matrices)} members, of which the first {len(labels)} follow; all are in matrices.csv")
    for label in labels:
        matrices = results.matrices[label]
        for metric, unit in METRICS.items():
            say("\n".join([f"\n{label}: {unit}, action-wise; {results.protocol(label)}", *matrices[metric].text()]))
            texts[f"report/{_slug(label)}_{metric}.csv"] = matrices[metric].csv()
    baseline = results.baseline
    comparable = [label for label in _comparable(results) if label in labels]
    for metric, unit in METRICS.items():
        first = results.matrices[baseline][metric]
        for label in comparable:
            second = results.matrices[label][metric]
            difference = second.minus(first)
            name = f"{_slug(label)}_minus_{_slug(baseline)}_{metric}"
            texts[f"report/{name}.csv"] = difference.csv()
            if np.isfinite(difference.mean).any():
                if difference.mean.size > 1:  # one cell is no picture
                    figures[f"report/{name}.png"] = heatmaps.comparison(
                        baseline, label, first, second, unit, results.source
                    )
                say(f"{label} minus {baseline}, {unit}: {_signs(difference.mean)}")
        for label in [label for label in labels if label not in comparable]:
            matrix = results.matrices[label][metric]
            several = matrix.mean.size > 1 and np.isfinite(matrix.mean).any()
            if (label != baseline or not comparable) and several:
                name = metric if len(results.matrices) == 1 else f"{_slug(label)}_{metric}"
                figures[f"report/{name}.png"] = heatmaps.single(label, matrix, unit, results.source)
    for label in labels:
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


def _long_csv(results: StudyResults) -> str:
    """All matrices in one table, one row a cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["member", "trained on", "tested on", *METRICS])
    for label, matrices in results.matrices.items():
        for row in matrices["mpjpe_mm"].rows:
            for column in results.columns:
                values = [matrices[metric].at(row, column)[0] for metric in METRICS]
                writer.writerow([label, row, column, *(f"{value:.4f}" for value in values)])
    return text.getvalue()


def _model_tables(results: StudyResults, rows: list[Row]) -> dict[str, str]:
    if len(results.matrices) == 1:
        return {}
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


def _log_pictures(tracking: Tracking, results: StudyResults, say: Say) -> None:
    """Pictures of the examples of each model under its own pattern, in the run of the first seed."""
    left = []
    for label, trials in results.trials.items():
        for pattern, trial in trials.items():
            if pattern in trial.evaluated:
                present = tracking.artifacts(trial.run_id, f"test/{pattern}")
                if f"test/{pattern}/examples.npz" in present and f"test/{pattern}/examples.png" not in present:
                    left.append((label, pattern, trial))
    for label, pattern, trial in left[:MOST_PICTURES]:
        _log_examples(tracking, results, label, pattern, trial)
    if len(left) > MOST_PICTURES:
        say(
            f"pictures of examples are drawn for {MOST_PICTURES} runs; {len(left) - MOST_PICTURES} follow when repeated"
        )


def _log_examples(tracking: Tracking, results: StudyResults, label: str, pattern: str, trial: Trial) -> None:
    name = f"test/{pattern}/examples"
    with tracking.fetched(trial.run_id, f"{name}.npz") as file:
        title = f"{label} trained and tested on {pattern}, {results.source}"
        figure = examples_figure(file, results.skeleton, title)
    tracking.log_figure(trial.run_id, figure, f"{name}.png")


def _figures_of_searches(tracking: Tracking, results: StudyResults) -> list[Chart]:
    """What a search drew, if the study is one."""
    found = []
    for name in tracking.artifacts(results.parent, "search"):
        if name.endswith(".png"):
            with tracking.fetched(results.parent, name) as file:
                content = base64.b64encode(file.read_bytes()).decode("ascii")
            words = Path(name).stem.replace("_", " ").capitalize()
            picture = Markup('<img alt="{}" src="data:image/png;base64,{}">').format(words, content)
            found.append(Chart(caption=words, drawing=picture, wide=True))
    return found


def _copy(out: Path, texts: dict[str, str], pictures: dict[str, bytes]) -> None:
    for name, text in texts.items():
        file = out / Path(name).name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for name, picture in pictures.items():
        (out / Path(name).name).write_bytes(picture)


def _signs(difference: np.ndarray) -> str:
    finite = difference[np.isfinite(difference)]
    return f"lower in {(finite < 0).sum()} of {finite.size} cells, mean {finite.mean():+.2f}"


def _slug(label: str) -> str:
    return "".join(sign if sign.isalnum() else "_" for sign in label.lower())
