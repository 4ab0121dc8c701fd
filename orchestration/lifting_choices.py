"""What is chosen when keypoints are lifted without a truth, and what follows from it for a model."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from posegrid.datasets.keypoints.clips import Clip
from posegrid.datasets.options import from_values
from posegrid.models.aggregation import AGGREGATIONS
from posegrid.models.registry import config_class, crop_size
from posegrid.orchestration.found_models import FoundModel
from posegrid.orchestration.lifting import chosen_chain
from posegrid.orchestration.recipe_files import parse_overrides
from posegrid.orchestration.settings import Settings

_ALIKE = 0.02
"""Share by which frame rates may differ without a note: 29.97 is 30."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How clips are lifted."""

    hypotheses: int | None = None
    """Poses sampled for each window; None: as the recipe says."""
    keep_hypotheses: bool = False
    """Write all of them, not only their mean and spread."""
    batch: int = 0
    """Windows lifted at once; 0: the recipe's number, or fewer where memory would not do."""
    resample: bool = False
    """Bring keypoints to the frame rate that the model was trained at, and poses back to the frames of the video."""
    model_rate: float | None = None
    """Frames per second that the model was trained at, for model files that do not say it."""
    changes: tuple[str, ...] = ()
    """Another protocol than the recipe's, such as "evaluation.score=overlap"."""
    device: str = "cpu"
    """Where the network runs, as torch names it."""

    def __post_init__(self) -> None:
        if self.batch < 0 or (self.hypotheses is not None and self.hypotheses < 1):
            raise ValueError(
                f"batch = {self.batch} and hypotheses = {self.hypotheses} of lifting: allowed are 0 or more windows "
                "and at least 1 hypothesis. Correct them."
            )
        if self.model_rate is not None and not 0 < self.model_rate < float("inf"):
            raise ValueError(
                f"model_rate = {self.model_rate} of lifting: allowed are positive frames per second. Correct it."
            )
        try:
            torch.empty(0, device=torch.device(self.device))
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f'device = "{self.device}" of lifting cannot be used ({reason}). Allowed is "cpu", or a device of this '
                "machine: name another one."
            ) from None


def lifting_settings(found: FoundModel, choices: Choices) -> tuple[Settings, list[str]]:
    """A model's settings for lifting without a truth, and what a user should know about them.

    Raises ValueError if the model reads pictures, for changes of what training settled, or as `chosen_chain` does.
    """
    settings, notes = found.settings, []
    values = {key: value for key, value in settings.model.items() if key != "name"}
    config: Any = from_values(config_class(settings.model["name"]), values, f"recipe {settings.name}, table [model]")
    if crop_size(settings.model["name"], config) is not None:
        raise ValueError(
            f"{settings.name} ({settings.model['name']}) was given to lift keypoints, but it reads pictures. Allowed "
            "are models of keypoints: choose another one."
        )
    plain = settings.plain()
    for table, changed in parse_overrides(list(choices.changes)).items():
        if table != "evaluation" or not isinstance(changed, dict):
            raise ValueError(
                f"--set {table} was given for a trained model, but training settled it. Allowed are the keys of "
                "[evaluation], which say how windows are lifted: leave it out."
            )
        plain[table] |= changed
    settings = Settings.from_plain(plain, "--set")
    chosen = settings.evaluation
    if choices.hypotheses is not None:
        chosen = replace(chosen, hypotheses=choices.hypotheses)
        if found.model.chain is None and choices.hypotheses > 1:
            notes.append(
                f"{settings.name} returns one pose for each frame: {choices.hypotheses} hypotheses are the same"
            )
    if AGGREGATIONS[chosen.aggregation] or "root" in chosen.aggregation:
        if chosen.hypotheses > 1:
            read = AGGREGATIONS[chosen.aggregation] or "the camera"
            notes.append(f"poses are means of the hypotheses: {chosen.aggregation} of the recipe needs {read}")
        chosen = replace(chosen, aggregation="mean")
    # every frame is lifted, whatever is scored
    settings = replace(settings, evaluation=replace(chosen, every=1), data=replace(settings.data, tail="keep"))
    chosen_chain(found.model, settings)
    return settings, notes


def rate_for(found: FoundModel, settings: Settings, clip: Clip, choices: Choices) -> tuple[float, list[str]]:
    """Frames per second at which a clip is lifted, and a note if the model was trained at another rate.

    Raises ValueError if windows of the settings cannot be cut at the clip's rate, or if it should be brought to a rate
    that nothing says.
    """
    trained = choices.model_rate or found.frame_rate
    if choices.resample:
        if trained is None:
            raise ValueError(
                "--resample was given, but the model file does not say at how many frames per second it was trained. "
                "Say it with --model-rate, or leave --resample out."
            )
        return trained, []
    wanted = settings.data.frame_rate
    if wanted:
        ratio = max(round(clip.frame_rate / wanted), 1)
        if abs(ratio * wanted - clip.frame_rate) > 1e-6 * clip.frame_rate:
            raise ValueError(
                f"{clip.name} has {clip.frame_rate:g} frames per second, the model's windows {wanted:g} "
                f"(data.frame_rate of recipe {settings.name}). Allowed is a whole multiple: add --resample to bring it "
                f"to {wanted:g}."
            )
        return clip.frame_rate, []
    if trained is not None and abs(clip.frame_rate / trained - 1) > _ALIKE:
        speed = trained / clip.frame_rate
        return clip.frame_rate, [
            f"lifted at {clip.frame_rate:g} frames per second, trained at {trained:g}: motion looks {speed:.2g} times "
            "as fast to the model. --resample brings it to the model's rate"
        ]
    return clip.frame_rate, []
