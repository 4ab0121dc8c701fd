"""The report of a search: the table of its trials, figures, what mattered, the winner's recipe and its scores.

Everything is logged in the parent run under search/; the winner's scores as those of a grid, under report/.
"""

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posegrid.experiments.reports.grid_report import Report, build_report
from posegrid.experiments.reports.model_table import model_rows, model_table
from posegrid.experiments.reports.search_figures import parallel_coordinates, response_surface
from posegrid.experiments.search_files import ResolvedSearch
from posegrid.experiments.search_study import Found
from posegrid.orchestration.recipe_text import recipe_text
from posegrid.orchestration.search import Outcome, importances

Say = Callable[[str], None]


def report_search(
    resolved: ResolvedSearch, found: Found, say: Say, out: Path | None = None, remark: Say | None = None
) -> Report:
    """Print and log the report; `out` receives the winner's recipe. Returns the report of the winner's runs.

    say: prints results. remark: prints what is none; by default `say`.
    """
    search, tracking, parent = resolved.search, found.study.tracking, found.study.parent
    say("\n" + search.title + "\n" + "\n".join(trial_table(resolved, found)))
    mattered = importances(resolved.strategy, found.outcomes)
    for key, value in mattered.items():
        say(f"{key} explains {100 * value:.0f} % of the variance among trials")
    text = winner_text(resolved, found)
    for name, content in (("search.csv", trial_csv(resolved, found)), ("winner.toml", text)):
        tracking.log_text(parent, content, f"search/{name}")
    tracking.log_plain(parent, mattered, "search/importances.json")
    figures = {"parallel_coordinates": parallel_coordinates(search, found), "surface": response_surface(search, found)}
    for name, figure in figures.items():
        if figure is not None:
            tracking.log_figure(parent, figure, f"search/{name}.png")
    report = build_report(tracking, found.study.name, say, None, remark)
    say("\n" + model_table(report.results, model_rows(report.results, {})))
    if found.diverged:
        say(f"{found.diverged} of the winner's runs diverged; the scores above are those of the others")
    assert found.best.objective is not None
    tracking.log_metrics(parent, {"search/objective of the best": found.best.objective})
    say(f"the best: trial {found.best.proposal.trial}, {_values(found.best)}: {found.best.objective:.6g} {search.unit}")
    if search.select_on == "test":
        say("selected on the test subjects: its test scores are optimistic, and its runs are tagged so")
    if out is not None:
        write(out, text)
    at = f"search/winner.toml of run {parent}" if out is None else str(out)
    say(f"the winner's recipe is {at}: {_command(resolved, 'winner.toml' if out is None else str(out))}")
    return report


def trial_table(resolved: ResolvedSearch, found: Found) -> list[str]:
    """The trials as lines for a terminal, in the order in which they were proposed."""
    rows = [_header(resolved)]
    for outcome in found.outcomes:
        row = _row(resolved, found, outcome)
        rows.append([f"{value:.6g}" if isinstance(value, float) else str(value) for value in row])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def trial_csv(resolved: ResolvedSearch, found: Found) -> str:
    """The trials as CSV, in full precision, with the ids of their runs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_header(resolved), "runs"])
    for outcome in found.outcomes:
        writer.writerow([*_row(resolved, found, outcome), " ".join(outcome.runs)])
    return text.getvalue()


def plain_search(resolved: ResolvedSearch, found: Found) -> dict[str, Any]:
    """What the search printed, as plain data: the trials, what mattered, the winner and its recipe as TOML."""
    trials = [
        {
            "trial": one.proposal.trial,
            "round": one.proposal.round,
            "epochs": resolved.epochs(one.proposal),
            "values": one.proposal.values,
            "objective": one.objective,
            "diverged": one.objective is None,
            "runs": one.runs,
        }
        for one in found.outcomes
    ]
    return {
        "minimised": resolved.search.unit,
        "selected_on": resolved.search.select_on,
        "trials": trials,
        "share_of_variance": importances(resolved.strategy, found.outcomes),
        "best": trials[found.outcomes.index(found.best)],
        "best_recipe": winner_text(resolved, found),
        "diverged_runs_of_the_best": found.diverged,
    }


def winner_text(resolved: ResolvedSearch, found: Found) -> str:
    """The winner as a recipe that trains what its first replicate trained."""
    search, best = resolved.search, found.best
    settings = resolved.settings(best.proposal)
    header = [
        f"Trial {best.proposal.trial} of {len({one.proposal.trial for one in found.outcomes})}: {search.title}.",
        "",
        f"command    {_command(resolved, 'winner.toml')}",
        f"found by   study {found.study.name}, parent run {found.study.parent}, from recipe {settings.name}",
        f"objective  {best.objective:.6g}, {search.unit}",
    ]
    if search.select_on == "test":
        header.append("Selected on the test subjects: its test scores are optimistic.")
    if len(search.train) > 1:
        header.append("It was chosen for several training patterns: name one with --occlusion.")
    return recipe_text(settings, header)


def write(file: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.partial-{os.getpid()}")
    aside.write_text(text)
    os.replace(aside, file)


def _header(resolved: ResolvedSearch) -> list[str]:
    return ["trial", "round", "epochs", *resolved.search.parameters, resolved.search.unit, "state"]


def _row(resolved: ResolvedSearch, found: Found, outcome: Outcome) -> list[Any]:
    proposal = outcome.proposal
    state = "diverged" if outcome.objective is None else "best" if outcome == found.best else ""
    values = [proposal.values[key] for key in resolved.search.parameters]
    score = "" if outcome.objective is None else outcome.objective
    return [proposal.trial, proposal.round, resolved.epochs(proposal), *values, score, state]


def _values(outcome: Outcome) -> str:
    return ", ".join(f"{key} = {value}" for key, value in outcome.proposal.values.items())


def _command(resolved: ResolvedSearch, file: str) -> str:
    """How the winner is trained: values of its conditioners, which its own recipe cannot hold, are given again."""
    others = [text for text in resolved.set if ":" in text.partition("=")[0]]
    own = Path(resolved.search.recipe).stem
    given = [f" --set '{text}'" for text in others if text.partition(":")[0] != own]
    return f"posegrid train {file} --data DATA" + "".join(given)
