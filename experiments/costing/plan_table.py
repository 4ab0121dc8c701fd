"""A plan as people read it, and as plain data."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from posegrid.experiments.costing.study_cost import STATES, Part, StudyCost, WallClock
from posegrid.orchestration.work_estimate import ESTIMATED

_SHORT = 40
"""Stages that are listed one by one unless all are asked for."""


def plan_lines(cost: StudyCost, clocks: list[WallClock], *, every_stage: bool) -> list[str]:
    """The plan as text: kinds of stages, stages, totals, what it was reckoned with."""
    lines = [*_heading(cost), "", *_kinds(cost)]
    if every_stage or len(cost.parts) <= _SHORT:
        lines += ["", *_stages(cost.parts)]
    return [*lines, "", *_totals(cost, clocks), "", *_assumptions(cost)]


def plain_plan(cost: StudyCost, clocks: list[WallClock]) -> dict[str, Any]:
    """The plan as plain data: the same numbers, not rounded."""
    return {
        "study": cost.study,
        "data": cost.source,
        "runs_looked_up": cost.recognised,
        "machine": asdict(cost.machine),
        "resources": cost.resources.plain(),
        "stages": [{**asdict(part), "training_s": part.training_s, "scoring_s": part.scoring_s} for part in cost.parts],
        "cells": sum(part.cells for part in cost.parts),
        "device_hours": cost.device_hours,
        "usd": cost.usd,
        "usd_spot": cost.usd_spot,
        "critical_path_s": cost.critical_path_s,
        "wall_clock": [asdict(clock) for clock in clocks],
        "assumptions": _assumptions(cost),
    }


def _heading(cost: StudyCost) -> list[str]:
    states = Counter(part.state for part in cost.parts)
    told = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    lines = [
        f"study {cost.study} on {cost.source}: {len(cost.parts)} stages ({told}), "
        f"{sum(part.cells for part in cost.parts)} scored cells"
    ]
    if not cost.recognised:
        lines.append(
            f"Planned with the published size of {cost.source}, without data: what is done already is not known."
        )
    return lines


def _kinds(cost: StudyCost) -> list[str]:
    rows = [["kind", "stages", *STATES[:4], "waits for", "windows/epoch", "epochs", "training", "scoring", "h left"]]
    kinds: dict[str, list[Part]] = {}
    for part in cost.parts:
        kinds.setdefault(part.kind, []).append(part)
    kind_of = {part.key: part.kind for part in cost.parts}
    for kind, parts in kinds.items():
        states, first = Counter(part.state for part in parts), parts[0]
        needs = Counter(kind_of[key] for key in first.needs if key in kind_of)
        rows.append(
            [
                kind,
                str(len(parts)),
                *(str(states[state] or "-") for state in STATES[:4]),
                ", ".join(f"{number} {name}" for name, number in needs.items()) or "-",
                _range(part.windows for part in parts),
                _range(part.time.epochs for part in parts),
                _hours_each([part.time.epochs * part.time.epoch_s for part in parts], first.time.training),
                _hours_each([part.cells * part.time.pattern_s for part in parts], first.time.scoring),
                _hours(sum(part.seconds for part in parts)),
            ]
        )
    return _aligned(rows)


def _stages(parts: list[Part]) -> list[str]:
    rows = [["kind", "pattern", "seed", "state", "needs", "epochs left", "patterns left", "h left"]]
    for part in parts:
        rows.append(
            [
                part.kind,
                part.pattern,
                str(part.seed),
                part.state,
                str(len(part.needs) or "-"),
                str(part.epochs_left or "-"),
                str(part.patterns_left or "-"),
                _hours(part.seconds),
            ]
        )
    return _aligned(rows)


def _totals(cost: StudyCost, clocks: list[WallClock]) -> list[str]:
    what = "GPU" if cost.machine.gpus else "core"
    training, scoring = (
        sum(seconds) / 3600 for seconds in zip(*((part.training_s, part.scoring_s) for part in cost.parts), strict=True)
    )
    lines = [
        f"left: {_number(training)} h of training, {_number(scoring)} h of scoring = {_number(cost.device_hours)} "
        f"{what}-hours on {cost.machine.name}, USD {cost.usd:,.0f} on demand or {cost.usd_spot:,.0f} spot if nothing "
        f"stands idle; the longest chain takes {_hours(cost.critical_path_s)} h"
    ]
    rows = [[f"{what}s", "side by side", "wall-clock h", "busy", "USD", "USD spot"]]
    for clock in clocks:
        busy = cost.device_hours * 3600 / (clock.devices * clock.seconds) if clock.seconds else 1.0
        rows.append(
            [
                str(clock.devices),
                str(clock.side_by_side),
                _hours(clock.seconds),
                f"{busy:.0%}",
                f"{clock.usd:,.0f}",
                f"{clock.usd_spot:,.0f}",
            ]
        )
    return [*lines, "", *_aligned(rows)]


def _assumptions(cost: StudyCost) -> list[str]:
    rates, estimated = cost.machine.rates, sum(part.time.training == ESTIMATED for part in cost.parts)
    measured = len(cost.parts) - estimated
    lines = [
        f"m: measured in runs on {cost.machine.device} with {cost.resources.workers} worker(s) ({measured} of "
        f"{len(cost.parts)} stages); e: estimate ({estimated})."
    ]
    if estimated:
        lines.append(
            f"Estimates: operations of a step counted by torch over {rates.tflops_float32:g} TFLOP/s (float32) or "
            f"{rates.tflops_bf16:g} (bf16), plus its other traffic over {rates.memory_gb_per_s:g} GB/s, or "
            f"{rates.launch_us:g} us a kernel where that is longer. Beside it {rates.loaded_frames_per_s:,.0f} "
            f"frames/s are loaded and {rates.scored_frames_per_s:,.0f} scored; a stage starts in {rates.start_s:g} s."
        )
    lines.append(
        "Wall-clock: stages take free slots in their order once all they need is done (list scheduling), without "
        "failures. USD there: all machines from start to end; without head, storage, traffic, tax. Prices and rates "
        "are inputs: check them before use."
    )
    return lines


def _hours_each(seconds: list[float], basis: str) -> str:
    """Hours of one, or a range, with where they come from."""
    low, high = min(seconds), max(seconds)
    text = _hours(low) if high < 1.01 * low or not high else f"{_hours(low)}-{_hours(high)}"
    return f"{text} {basis[0]}"


def _hours(seconds: float) -> str:
    return _number(seconds / 3600)


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _range(numbers: Iterable[int]) -> str:
    found = sorted(set(numbers))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,}-{found[-1]:,}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
