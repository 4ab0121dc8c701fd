"""The table of a study's models: errors, coherence over time, size and speed. Unlike protocols never share a table."""

import csv
import io
from dataclasses import dataclass

import numpy as np

from posegrid.experiments.reports.matrices import MODEL_METRICS, StudyResults
from posegrid.orchestration.complexity import Complexity


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model under a test pattern."""

    tested_on: str
    protocol: str
    member: str
    trained_on: str
    window: str
    """Frames of a window, and their distance where it is not 1."""
    seeds: int
    """Seeds that the scores are means of."""
    scores: dict[str, tuple[float, float]]
    """Metric -> (mean, standard deviation over seeds)."""
    parameters: str
    cost: Complexity | None


def model_rows(results: StudyResults, costs: dict[tuple[str, str], Complexity]) -> list[Row]:
    """One row for each scored model and test pattern, ordered by test pattern, then protocol, then member.

    Where a test pattern is a training pattern too, only the models that were trained with it (the diagonal).
    """
    rows = []
    for column in results.columns:
        diagonal = any(column in matrices["mpjpe_mm"].rows for matrices in results.matrices.values())
        for label, matrices in results.matrices.items():
            for trained_on, seeds in zip(matrices["mpjpe_mm"].rows, matrices["mpjpe_mm"].seeds, strict=True):
                scores = {metric: matrices[metric].at(trained_on, column) for metric in MODEL_METRICS}
                if (diagonal and trained_on != column) or not np.isfinite(scores["mpjpe_mm"][0]):
                    continue
                trial = results.trials[label].get(trained_on)
                rows.append(
                    Row(
                        tested_on=column,
                        protocol=results.protocol(label),
                        member=label,
                        trained_on=trained_on,
                        window=results.scoring.get(label, {}).get("window", "-"),
                        seeds=seeds,
                        scores=scores,
                        parameters="-" if trial is None else trial.params.get("parameters", "-"),
                        cost=costs.get((label, column)),
                    )
                )
    order = {label: place for place, label in enumerate(results.matrices)}
    protocols = list(dict.fromkeys(row.protocol for row in rows))
    columns = results.columns
    return sorted(
        rows, key=lambda row: (columns.index(row.tested_on), protocols.index(row.protocol), order[row.member])
    )


def model_table(results: StudyResults, rows: list[Row]) -> str:
    """The rows as markdown: a table for each test pattern and protocol."""
    devices = sorted({f"{row.cost.device}" for row in rows if row.cost is not None})
    several = ", mean +- standard deviation over seeds" if any(row.seeds > 1 for row in rows) else ""
    lines = [
        f"Models of study {results.name} on {results.source}: action-wise{several}. FLOPs of an output pose count 2 "
        "for each multiply-add of matrix products and convolutions, without flip averaging; poses per second likewise"
        + (f", measured on {'; '.join(devices)}." if devices else " (not measured)."),
    ]
    for tested_on, protocol in dict.fromkeys((row.tested_on, row.protocol) for row in rows):
        part = [row for row in rows if (row.tested_on, row.protocol) == (tested_on, protocol)]
        trained = any(row.trained_on != tested_on for row in part)
        titles = ["model", *(["trained on"] if trained else []), "window", *MODEL_METRICS.values()]
        titles += ["parameters", "MFLOPs per pose", "poses/s"]
        lines += ["", f"Tested on {tested_on}; {protocol}; {_seeds(part)}:", ""]
        lines += ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
        for row in part:
            cells = [row.member, *([row.trained_on] if trained else []), row.window]
            cells += [_score(*row.scores[metric]) for metric in MODEL_METRICS]
            cells += [f"{int(row.parameters):,}" if row.parameters.isdigit() else row.parameters]
            cells += ["-", "-"] if row.cost is None else [_flops(row.cost), f"{row.cost.poses_per_s:,.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def model_csv(rows: list[Row]) -> str:
    """The rows as CSV, in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = [title for metric in MODEL_METRICS for title in (metric, f"{metric} std over seeds")]
    costs = ["parameters", "FLOPs per pose", "poses per s", "device", "batch"]
    writer.writerow(["tested on", "protocol", "model", "trained on", "window", *scores, *costs])
    for row in rows:
        values = [f"{value:.4f}" if np.isfinite(value) else "" for one in row.scores.values() for value in one]
        cost = row.cost
        measured = ["", "", "", ""]
        if cost is not None:
            measured = [f"{cost.flops_per_pose:.0f}", f"{cost.poses_per_s:.1f}", cost.device, str(cost.batch)]
        writer.writerow(
            [row.tested_on, row.protocol, row.member, row.trained_on, row.window, *values, row.parameters, *measured]
        )
    return text.getvalue()


def _seeds(rows: list[Row]) -> str:
    counts = sorted({row.seeds for row in rows})
    return "one seed" if counts == [1] else f"{' or '.join(map(str, counts))} seeds"


def _score(mean: float, std: float) -> str:
    if not np.isfinite(mean):
        return "-"
    return f"{mean:.1f} +- {std:.1f}" if np.isfinite(std) else f"{mean:.1f}"


def _flops(cost: Complexity) -> str:
    return f"{cost.flops_per_pose / 1e6:,.{1 if cost.flops_per_pose < 1e8 else 0}f}"
