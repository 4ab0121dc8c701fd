"""The report of a study as plain data: what its tables show, not rounded, with the runs that the numbers come from."""

from typing import Any

from posegrid.experiments.reports.grid_report import PAGE, Report
from posegrid.experiments.reports.matrices import StudyResults
from posegrid.experiments.reports.model_table import Row
from posegrid.orchestration.tracking import Tracking


def plain_report(report: Report, tracking: Tracking) -> dict[str, Any]:
    """Names and addresses of the study, the matrices of each member, the rows of the table of models.

    In a matrix a row is a training pattern (`trained_on`) and a column a test pattern (`tested_on`); a cell without
    scores is NaN, as the deviation over fewer than two seeds is.
    """
    results = report.results
    return {
        "study": results.name,
        "parent_run": results.parent,
        "tracking": tracking.uri,
        "title": results.title,
        "data": results.source,
        "mean_pose_mpjpe_mm": results.control_mm,
        "baseline": results.baseline,
        "members": {label: _member(results, label) for label in results.matrices},
        "models": [_row(row) for row in report.rows],
        "page": PAGE,
    }


def _member(results: StudyResults, label: str) -> dict[str, Any]:
    matrices = results.matrices[label]
    first = matrices["mpjpe_mm"]
    return {
        "protocol": results.protocol(label),
        "trained_on": first.rows,
        "tested_on": first.columns,
        "seeds": first.seeds,
        "mean": {metric: matrix.mean for metric, matrix in matrices.items()},
        "std_over_seeds": {metric: matrix.std for metric, matrix in matrices.items()},
        "runs": [
            {"trained_on": cell.trained_on, "seed": cell.seed, "run": None if cell.trial is None else cell.trial.run_id}
            for cell in results.cells[label]
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    cost = row.cost
    return {
        "model": row.member,
        "trained_on": row.trained_on,
        "tested_on": row.tested_on,
        "protocol": row.protocol,
        "window": row.window,
        "seeds": row.seeds,
        "mean": {metric: mean for metric, (mean, _) in row.scores.items()},
        "std_over_seeds": {metric: std for metric, (_, std) in row.scores.items()},
        "parameters": int(row.parameters) if row.parameters.isdigit() else None,
        "flops_per_pose": None if cost is None else cost.flops_per_pose,
        "poses_per_s": None if cost is None else cost.poses_per_s,
        "batch": None if cost is None else cost.batch,
        "device": None if cost is None else cost.device,
    }
