"""The report of a study as one HTML page: no network, no other file. `page.html` is its template."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from posegrid.experiments.reports import page_figures, page_scores
from posegrid.experiments.reports.evidence import Evidence, name_of
from posegrid.experiments.reports.intervals import paired_difference
from posegrid.experiments.reports.matrices import NOT_RECORDED
from posegrid.experiments.reports.page_parts import Chart, Entry, Section, Table, number
from posegrid.experiments.reports.published import published_table, why_unlike
from posegrid.orchestration.tracking import VERSIONS, Trial

TEMPLATE = Path(__file__).parent / "page.html"
_MOST_FINDINGS = 6


def page(found: Evidence, pictures: Sequence[Chart] = (), built: datetime | None = None) -> str:
    """The page as text. pictures: further figures that the study logged; built: when, now by default."""
    sections = [
        page_scores.headline(found),
        page_scores.differences(found),
        page_scores.matrices(found),
        page_scores.hidden(found),
        page_scores.per_action(found),
        page_figures.where_the_error_lies(found),
        page_figures.accuracy_and_time(found),
        page_figures.curves(found),
        page_figures.examples(found),
        published(found),
        Section(title="Search", anchor="search", parts=list(pictures)),
        page_scores.runs(found),
    ]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    results = found.results
    moment = (built or datetime.now(UTC)).strftime("%d %B %Y, %H:%M UTC")
    return template.render(
        title=results.title or results.name,
        study=results.name,
        facts=facts(found),
        findings=findings(found),
        warnings=warnings(found),
        sections=[section for section in sections if not section.empty],
        footer=f"Built by posegrid on {moment} from parent run {results.parent}. All numbers are those of the runs "
        "named above; published ones are marked as such.",
    )


def facts(found: Evidence) -> list[tuple[str, str]]:
    """What was asked, of which data, how it was scored, when it ran."""
    results = found.results
    protocols = list(dict.fromkeys(map(results.protocol, results.matrices)))
    cells = [cell for cells in results.cells.values() for cell in cells]
    trials = [cell.trial for cell in cells if cell.trial is not None]
    hashes = results.run.tags.get("data_hash", "") if results.run is not None else ""
    rows = [
        ("Data", results.source + (f", version {hashes[:12]}" if hashes else "")),
        ("Control", f"predicting the mean training pose: {results.control_mm:.1f} mm MPJPE"),
        ("Models", ", ".join(results.matrices)),
        ("Trained on", ", ".join(dict.fromkeys(cell.trained_on for cell in cells)) or "-"),
        ("Tested on", ", ".join(results.columns)),
        ("Scored", "; ".join(protocols)),
        ("Seeds", ", ".join(map(str, sorted({cell.seed for cell in cells}))) or "-"),
        ("Ran", _ran(trials)),
        ("Versions", "; ".join(dict.fromkeys(trial.tags.get(VERSIONS, "not recorded") for trial in trials)) or "-"),
    ]
    return rows


def _ran(trials: Sequence[Trial]) -> str:
    starts = [trial.started_ms for trial in trials if trial.started_ms]
    ends = [trial.ended_ms for trial in trials if trial.ended_ms]
    if not starts:
        return "-"
    first, last = (datetime.fromtimestamp(one / 1000, UTC) for one in (min(starts), max([*ends, min(starts)])))
    days = f"{first:%d %B %Y}" if first.date() == last.date() else f"{first:%d %B %Y} to {last:%d %B %Y}"
    return f"{days}, {len(trials)} run{'' if len(trials) == 1 else 's'}"


def findings(found: Evidence) -> list[str]:
    """A sentence for each test pattern: the lowest error, and how far it is from the baseline and the control."""
    said = []
    baseline, control = found.results.baseline, found.results.control_mm
    for tested_on, protocol, rows in found.blocks():
        best = min(rows, key=lambda row: row.scores["mpjpe_mm"][0])
        value = best.scores["mpjpe_mm"][0]
        ends = found.intervals(best).get("mpjpe_mm")
        words = f"{number(value)} mm" + (f" [{ends[0]:.1f}, {ends[1]:.1f}]" if ends else "")
        below = _below(value, control)
        lead = f"Tested on {tested_on}" + (f" ({protocol})" if len({row.protocol for row in found.rows}) > 1 else "")
        if len(rows) == 1:
            said.append(f"{lead}: {name_of(best)} has an MPJPE of {words}{below}.")
            continue
        said.append(f"{lead}: {name_of(best)} has the lowest MPJPE, {words}{below}{_margin(found, rows, best)}.")
        if best.member == baseline and len(said) >= _MOST_FINDINGS:
            break
    more = len(found.blocks()) - _MOST_FINDINGS
    return said[:_MOST_FINDINGS] + ([f"{more} more test patterns and protocols: see the tables."] if more > 0 else [])


def _below(value: float, control: float) -> str:
    """How an error compares with that of predicting the mean training pose, which takes no model."""
    if not np.isfinite(control) or not np.isfinite(value):
        return ""
    share = 100 * (value / control - 1)
    if share >= 0:
        return f", {share:.0f} % above the mean pose: it predicts nothing yet"
    return f", {-share:.0f} % below the mean pose"


def _margin(found: Evidence, rows: Sequence[Any], best: Any) -> str:
    """How far the second best is, and whether other recordings could turn it."""
    second = min((row for row in rows if row is not best), key=lambda row: row.scores["mpjpe_mm"][0])
    gap = second.scores["mpjpe_mm"][0] - best.scores["mpjpe_mm"][0]
    paired = paired_difference(found.complete(best), found.complete(second))
    words = f"; next is {name_of(second)}, {gap:.1f} mm higher"
    if "mpjpe_mm" not in paired:
        return words
    _, low, high = paired["mpjpe_mm"]
    clear = "" if low > 0 else ": too close to tell by these recordings"
    return f"{words} [{low:+.1f}, {high:+.1f}]{clear}"


def warnings(found: Evidence) -> list[str]:
    """What keeps numbers of this study from meaning more than they do."""
    results, said = found.results, []
    cells = [cell for cells in results.cells.values() for cell in cells]
    open_cells = [cell for cell in cells if not all(cell.scored(column) for column in cell.scores)]
    diverged = [cell for cell in open_cells if cell.trial is not None and cell.trial.diverged]
    if open_cells:
        rest = f", {len(diverged)} of them diverged" if diverged else ""
        said.append(
            f"{len(open_cells)} of {len(cells)} trainings are not scored yet{rest}; rows that lack a seed are empty."
        )
    seeds = {row.seeds for row in found.rows}
    if seeds == {1}:
        said.append("One seed: how much chance in training changes these numbers is not known.")
    part = sorted({one for row in found.rows for one in row.protocol.split(", ") if one.startswith("1 window of")})
    if part:
        said.append(f"A part of the test split is scored: {', '.join(part)}.")
    if any(row.protocol == NOT_RECORDED for row in found.rows):
        said.append("An older version ran this study and did not record how it is scored. Repeat its command.")
    trials = [cell.trial for cell in cells if cell.trial is not None]
    if any(trial.tags.get("selection") == "test" for trial in trials):
        said.append("Epochs are selected on the test subjects, as in the papers: test scores are optimistic.")
    if any("oracle" in trial.tags.get("aggregation", "") for trial in trials):
        said.append("Hypotheses are combined by reading the truth: these scores are bounds, not results.")
    return said


def published(found: Evidence) -> Section:
    """Numbers of a paper, apart from ours, with what keeps the two from being compared."""
    results = found.results
    if not results.published:
        return Section(title="Published numbers", anchor="published")
    table = published_table(results.published, f"study {results.name}")
    protocols = list(dict.fromkeys(map(results.protocol, results.matrices)))
    windows = [str(results.scoring.get(label, {}).get("window", "")) for label in results.matrices]
    reasons = why_unlike(table, results.source, protocols, [window for window in windows if window])
    texts = [
        f"Published, not ours: {table['source']}. {table['protocol']}.",
        f"Not to be compared number by number: {'; '.join(reasons)}.",
    ]
    ours: list[str] = []
    names = list(table["rows"])
    if table.get("rows_are") == "patterns":
        ours = [label for label in results.matrices if results.diagonal(label)]
        names = list(dict.fromkeys([*(row for label in ours for row in results.diagonal(label)), *names]))
    lines = []
    for name in names:
        own = [results.matrices[label]["mpjpe_mm"].at(name, name)[0] for label in ours]
        printed = table["rows"].get(name, [np.nan] * len(table["columns"]))
        lines.append([Entry(text=name, head=True), *(Entry(text=number(value)) for value in (*own, *printed))])
    columns = ["", *(f"{label} (ours)" for label in ours), *(f"{one} (published)" for one in table["columns"])]
    caption = "MPJPE (mm), trained and tested with the same pattern" if ours else ""
    part = Table(caption=caption, columns=columns, rows=lines)
    return Section(title="Published numbers", anchor="published", texts=texts, parts=[part])
