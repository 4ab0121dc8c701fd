"""Accuracy and time of a trained diffusion model over samplers, steps, hypotheses and aggregations."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from posegrid.datasets.metrics.position import mpjpe
from posegrid.datasets.store import Store
from posegrid.models.aggregation import AGGREGATIONS
from posegrid.models.interface import Lifter
from posegrid.orchestration.batches import Masks
from posegrid.orchestration.hypotheses import aggregated, check_aggregation
from posegrid.orchestration.lifting import chosen_chain, lifted_windows
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


@dataclass(frozen=True, kw_only=True)
class Point:
    """One way to sample and what it came to."""

    sampler: str
    eta: float
    steps: int
    """Evaluations of the network for each hypothesis."""
    hypotheses: int
    aggregation: str
    mpjpe_mm: float
    """Action-wise mean over the scored windows, mm."""
    ms_per_window: float
    """Wall time of reading and lifting divided by the windows, milliseconds; the same for all aggregations."""
    windows: int
    """Scored windows."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a study varies."""

    samplers: tuple[str, ...]
    steps: tuple[int, ...]
    hypotheses: tuple[int, ...]
    aggregations: tuple[str, ...]

    def settings(self, settings: Settings) -> list[Settings]:
        """The recipe with every combination of sampler, steps and hypotheses; the most work comes last."""
        eta = settings.evaluation.eta
        return [
            replace(
                settings,
                evaluation=replace(
                    settings.evaluation,
                    sampler=sampler,
                    steps=steps,
                    hypotheses=hypotheses,
                    eta=eta if sampler == "ddim" else None,
                    aggregation="mean",
                ),
            )
            for hypotheses in self.hypotheses
            for sampler in self.samplers
            for steps in self.steps
        ]


@torch.no_grad()
def study_samplers(
    model: Lifter,
    store: Store,
    settings: Settings,
    occlusion: dict[str, Any],
    choices: Choices,
    split: str = "test",
    report: Callable[[Point], None] = lambda point: None,
) -> list[Point]:
    """Score every combination, on this process alone. Hypotheses are sampled once for all aggregations.

    Raises ValueError, before anything is sampled, if the model does not sample that way, or if an aggregation needs a
    camera that the store lacks.
    """
    every = choices.settings(settings)
    for one in every:
        chosen_chain(model, one)
    for name in choices.aggregations:
        longest = replace(settings.evaluation, aggregation=name, hypotheses=max(choices.hypotheses))
        check_aggregation(replace(settings, evaluation=longest), store, split)
    model.eval()
    masks, points = Masks(store, occlusion), []
    for one in every:
        chain = chosen_chain(model, one)
        assert chain is not None  # a sampler was named
        found, seconds, windows = _errors(model, store, one, masks, choices.aggregations, split)
        for name, error in found.items():
            point = Point(
                sampler=chain.sampler,
                eta=chain.eta,
                steps=chain.steps or int(settings.model["steps"]),
                hypotheses=one.evaluation.hypotheses,
                aggregation=name,
                mpjpe_mm=error,
                ms_per_window=1000 * seconds / windows,
                windows=windows,
            )
            report(point)
            points.append(point)
    return points


def _errors(
    model: Lifter, store: Store, settings: Settings, masks: Masks, aggregations: Sequence[str], split: str
) -> tuple[dict[str, float], float, int]:
    """MPJPE of each aggregation in mm, seconds of lifting, windows."""
    action_of = np.array([store.actions.index(sequence.action) for sequence in store.sequences])
    sums = np.zeros((len(aggregations), len(store.actions), 2))
    seconds, windows, began = 0.0, 0, time.perf_counter()
    for lifted in lifted_windows(model, store, settings, masks, split, Workers()):
        seconds += time.perf_counter() - began
        windows += len(lifted.windows)
        actions, weight = action_of[lifted.windows.sequence], lifted.windows.weight[:, :, None].astype(np.float64)
        for row, name in enumerate(aggregations):
            pose = aggregated(
                name, lifted.hypotheses, store, lifted.windows, lifted.keypoints, lifted.visible, lifted.target
            )
            errors = mpjpe(pose, lifted.target)
            np.add.at(sums[row, :, 0], actions, 1000 * (errors * weight).sum(axis=(1, 2)))
            np.add.at(sums[row, :, 1], actions, weight.sum(axis=(1, 2)) * errors.shape[2])
        began = time.perf_counter()
    occurs = sums[0, :, 1] > 0
    means = (sums[:, occurs, 0] / sums[:, occurs, 1]).mean(axis=1)
    return dict(zip(aggregations, means.tolist(), strict=True)), seconds, windows


def fewest_steps(points: list[Point], within_mm: float = 0.5) -> dict[str, Point]:
    """For each sampler the point of fewest steps whose error exceeds that of the full chain by `within_mm` at most.

    Compared is the mean of the most hypotheses; the full chain is the longest one of "ddpm", or else the longest one.
    More steps than those may again be further away: a sampler appears with the fewest that serve.
    """
    most = max(point.hypotheses for point in points)
    usual = "mean" if any(point.aggregation == "mean" for point in points) else points[0].aggregation
    same = [point for point in points if point.hypotheses == most and point.aggregation == usual]
    own = [point for point in same if point.sampler == "ddpm"] or same
    full = max(own, key=lambda point: point.steps)
    near = [point for point in same if point.mpjpe_mm <= full.mpjpe_mm + within_mm]
    found: dict[str, Point] = {}
    for point in sorted(near, key=lambda point: point.steps):
        found.setdefault(point.sampler, point)
    return found


def usual_choices(model: Lifter, settings: Settings) -> Choices:
    """What is varied unless a command says otherwise. Raises ValueError for a model that does not sample."""
    chain = chosen_chain(model, settings)
    if chain is None:
        raise ValueError(
            f"{settings.name} holds a {type(model).__name__}, which does not sample. Allowed are diffusion models: "
            "give the run of one."
        )
    total = int(settings.model["steps"])
    # up to fifty steps, more of which no test here takes; all of them where the model was trained with so few
    steps = sorted({step for step in (1, 2, 5, 10, 20, 50) if step <= total} | ({total} if total <= 50 else set()))
    return Choices(
        samplers=tuple(dict.fromkeys((chain.sampler, "ddim", "dpm_solver"))),
        steps=tuple(steps),
        hypotheses=(1, 5),
        aggregations=tuple(name for name in AGGREGATIONS if "root" not in name),
    )
