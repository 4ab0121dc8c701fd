"""The report of a study: matrices, differences, the occlusion table beside published numbers, example pictures.

Everything is logged in the parent run; pictures of examples in the run they come from.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from posegrid.experiments.reports import heatmaps
from posegrid.experiments.reports.matrices import METRICS, StudyResults, read_study
from posegrid.experiments.reports.pictures import examples_figure
from posegrid.orchestration.recipe_files import read_toml
from posegrid.orchestration.tracking import Tracking, Trial

_PUBLISHED = Path(__file__).parents[1] / "published.toml"
Say = Callable[[str], None]


def build_report(tracking: Tracking, study: str, say: Say, out: Path | None = None) -> StudyResults:
    """Build, print and log the report of a study. `out` receives copies. Raises ValueError if nothing is scored."""
    results = read_study(tracking, study)
    control = f"predicting the mean training pose: {results.control_mm:.1f} mm MPJPE"
    say(f"\n{results.title}\ndata: {results.source}; {control}")
    texts: dict[str, str] = {}
    figures: dict[str, Any] = {}
    for label, matrices in results.matrices.items():
        for metric, unit in METRICS.items():
            say("\n".join([f"\n{label}: {unit}, action-wise", *matrices[metric].text()]))
            texts[f"report/{_slug(label)}_{metric}.csv"] = matrices[metric].csv()
    for metric, unit in METRICS.items():
        first = results.matrices[results.baseline][metric]
        others = {label: found[metric] for label, found in results.matrices.items() if label != results.baseline}
        if not others:
            figures[f"report/{metric}.png"] = heatmaps.single(results.baseline, first, unit, results.source)
        for label, second in others.items():
            name = f"{_slug(label)}_minus_{_slug(results.baseline)}_{metric}"
            difference = second.minus(first)
            texts[f"report/{name}.csv"] = difference.csv()
            if np.isfinite(difference.mean).any():
                figures[f"report/{name}.png"] = heatmaps.comparison(
                    results.baseline, label, first, second, unit, results.source
                )
                say(f"{label} minus {results.baseline}, {unit}: {_signs(difference.mean)}")
    texts["report/occlusion_table.md"] = occlusion_table(results)
    say("\n" + texts["report/occlusion_table.md"])
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


def occlusion_table(results: StudyResults) -> str:
    """DiffHPE's occlusion table (its Table 4): trained and tested with the same pattern, ours beside the published.

    The published numbers belong to Human3.6M; they are marked and may not be compared with other data.
    """
    published = read_toml(_PUBLISHED)["diffhpe_table4"]
    patterns = list(dict.fromkeys(row for found in results.matrices.values() for row in found["mpjpe_mm"].rows))
    ours = list(results.matrices)
    columns = [*(f"{label} (ours)" for label in ours), *(f"{name} (published)" for name in published["columns"])]
    lines = [
        f"Trained and tested with the same pattern, MPJPE in mm. Ours: {results.source}, action-wise, study "
        f"{results.name}. Published: {published['source']}; {published['protocol']}. "
        "Unlike data and protocol: the two groups are not comparable in numbers.",
        "",
        "| pattern | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for pattern in patterns:
        cells = [_diagonal(results, label, pattern, "mpjpe_mm") for label in ours]
        printed = published["rows"].get(pattern, [None] * len(published["columns"]))
        values = [*(_number(value) for value in cells), *("-" if value is None else f"{value}" for value in printed)]
        lines.append(f"| {pattern} | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def _diagonal(results: StudyResults, label: str, pattern: str, metric: str) -> float:
    matrix = results.matrices[label][metric]
    if pattern not in matrix.rows or pattern not in matrix.columns:
        return float("nan")
    return float(matrix.mean[matrix.rows.index(pattern), matrix.columns.index(pattern)])


def _log_diagonals(tracking: Tracking, results: StudyResults) -> None:
    """Headline numbers of the study as metrics of the parent run, so that studies can be compared in the UI."""
    values = {}
    for label, matrices in results.matrices.items():
        for metric, matrix in matrices.items():
            diagonal = [_diagonal(results, label, row, metric) for row in matrix.rows]
            values[f"{_slug(label)}/mean of diagonal {metric}"] = float(np.nanmean(diagonal))
            values[f"{_slug(label)}/mean of all cells {metric}"] = float(np.nanmean(matrix.mean))
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


def _copy(out: Path, texts: dict[str, str], figures: dict[str, Any]) -> None:
    for name, text in texts.items():
        file = out / Path(name).name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for name, figure in figures.items():
        figure.savefig(out / Path(name).name, dpi=120)


def _signs(difference: np.ndarray) -> str:
    finite = difference[np.isfinite(difference)]
    return f"lower in {(finite < 0).sum()} of {finite.size} cells, mean {finite.mean():+.2f}"


def _number(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "-"


def _slug(label: str) -> str:
    return "".join(sign if sign.isalnum() else "_" for sign in label.lower())
