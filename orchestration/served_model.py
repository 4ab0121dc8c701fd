"""A trained model that answers requests: keypoints of one person in, poses out, as `posegrid lift` makes them.

What a model server runs; it knows nothing of the server (`model_registry.py` wraps it for MLflow).
Legend: F frames, J joints of the model, K joints of the request.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from posegrid.datasets.cameras import screen_to_pixels
from posegrid.datasets.conversions import targets_of
from posegrid.datasets.keypoints.clips import Clip, Reading, clips_of_detections
from posegrid.datasets.keypoints.tracks import Detections
from posegrid.datasets.options import unknown
from posegrid.datasets.schema import Recording
from posegrid.datasets.skeletons import SKELETONS, skeleton_named
from posegrid.datasets.sources import synthetic
from posegrid.orchestration.found_models import FoundModel, find_model
from posegrid.orchestration.lifting_choices import lifting_settings, rate_for
from posegrid.orchestration.own_keypoints import lifted_rows, reading_and_choices
from posegrid.orchestration.protocol import scoring_protocol

KEYPOINTS = "keypoints"
"""Name of the tensor in a request."""
NUMBERS: dict[str, tuple[Any, str]] = {
    "width": (0, "image width in pixels; must be given"),
    "height": (0, "image height in pixels; must be given"),
    "frame_rate": (0.0, "frames per second; must be given"),
    "least_confidence": (0.0, "keypoints of a lower confidence are hidden"),
    "longest_gap": (0, "frames of a joint's gap that is interpolated"),
    "hypotheses": (0, "poses sampled for each window; 0: the recipe's number"),
    "model_rate": (0.0, "frames per second of the training, for models that do not say it; 0: the model's"),
    "batch": (0, "windows lifted at once; 0: what memory allows"),
    "resample": (False, "bring keypoints to the model's frame rate, and poses back"),
    "joints": ("", "skeleton of the keypoints by name; empty: the model's"),
    "score": ("", "how windows are lifted: window, centre or overlap; empty: as the recipe says"),
}
"""Parameters of a request: default, meaning. They are options of `posegrid lift`."""
_NEEDED = ("width", "height", "frame_rate")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The poses of one request."""

    poses_mm: np.ndarray
    """(F, J, 3) float32 millimetres along the camera's axes, relative to the root joint."""
    spread_mm: np.ndarray | None
    """(F, J) float32, spread of several hypotheses; None for one."""
    visible: np.ndarray
    """(F, J) bool, joints that the model saw."""


class ServedModel:
    """A model in memory; requests are answered one after another."""

    def __init__(self, found: FoundModel) -> None:
        self.found = found
        self._one_at_a_time = Lock()  # a model's sampling is changed while it lifts

    @classmethod
    def of_file(cls, file: Path | str) -> "ServedModel":
        """Of a model file. Raises ValueError if it cannot be read."""
        return cls(find_model(str(file), _no_store))

    def answer(self, keypoints: Any, parameters: Mapping[str, Any] | None = None) -> Answer:
        """Lift one person.

        keypoints: (F, K, 2) x and y in pixels, or (F, K, 3) with the confidence; NaN for joints that were not seen.
        parameters: of `NUMBERS`. Raises ValueError for another shape, an unknown parameter, one that is missing, and as
        `posegrid lift` does.
        """
        given = {name: value for name, (value, _) in NUMBERS.items()} | dict(parameters or {})
        for name in given.keys() - NUMBERS.keys():
            raise unknown("parameter", name, "the request", list(NUMBERS))
        if missing := [name for name in _NEEDED if not given[name]]:
            raise ValueError(
                f"the request does not give {', '.join(missing)}, which lifting needs. Expected are whole pixels and "
                f"frames per second: add them to the request's params."
            )
        joints = given.pop("joints") or self.found.skeleton
        changes = [f'evaluation.score="{given["score"]}"'] if given["score"] else []
        del given["score"]
        # what is empty or zero is as if it were left out
        reading, choices = reading_and_choices(
            {name: value for name, value in given.items() if value} | {"joints": joints, "changes": tuple(changes)}
        )
        with self._one_at_a_time:
            settings, _ = lifting_settings(self.found, choices)
            (clip,) = self._clips(np.asarray(keypoints, dtype=np.float64), joints, reading)
            rate, _ = rate_for(self.found, settings, clip, choices)
            rows = list(lifted_rows(self.found, settings, clip, rate, choices))
        spread = [one.deviation_mm for one in rows if one.deviation_mm is not None]
        return Answer(
            poses_mm=np.concatenate([one.poses_mm for one in rows]),
            spread_mm=np.concatenate(spread).astype(np.float32) if spread else None,
            visible=np.concatenate([one.visible for one in rows]),
        )

    def _clips(self, keypoints: np.ndarray, joints: str, reading: Reading) -> list[Clip]:
        skeleton = skeleton_named(joints)
        if keypoints.ndim != 3 or keypoints.shape[1] != len(skeleton) or keypoints.shape[2] not in (2, 3):
            raise ValueError(
                f"{KEYPOINTS} of the request has shape {keypoints.shape}, joints = {joints}. Expected are (frames, "
                f"{len(skeleton)}, 2) x and y, or (frames, {len(skeleton)}, 3) with the confidence: correct the "
                f"array, or name the skeleton of the keypoints ({', '.join(SKELETONS)}) in the request's params."
            )
        finite = np.isfinite(keypoints).all(axis=-1)
        confidence = np.where(finite, keypoints[..., 2] if keypoints.shape[2] == 3 else 1.0, 0.0)
        frames = np.arange(len(keypoints))
        if not (confidence > 0).any():
            raise ValueError(
                f"{KEYPOINTS} of the request shows no joint in {len(keypoints)} frames. Expected is at least one: give "
                "x, y and a confidence above 0, or no confidence."
            )
        found = Detections(
            video="request",
            file="the request",
            skeleton=skeleton,
            frames=frames,
            people=None,
            points=np.where(finite[..., None], keypoints[..., :2], 0.0),
            confidence=confidence,
            span=(0, len(keypoints) - 1),
        )
        clips = list(clips_of_detections(found, self.found.skeleton, reading))
        if not clips:
            raise ValueError(
                f"{KEYPOINTS} of the request has no confidence of {reading.least_confidence:g} or more. Lower "
                "least_confidence in the request's params."
            )
        return clips

    def about(self) -> dict[str, Any]:
        """What a user of the server should know, as plain data."""
        found, skeleton = self.found, skeleton_named(self.found.skeleton)
        return {
            "recipe": found.settings.name,
            "model": found.settings.model["name"],
            "trained_on": found.data.get("source", ""),
            "trained_at_hz": found.frame_rate,
            "protocol": scoring_protocol(found.settings),
            "skeleton": skeleton.name,
            "joints": list(skeleton.joints),
            "unit": "mm",
            "frame": f"camera axes (x right, y down, z away), relative to {skeleton.joints[skeleton.root]}",
            "params": {name: meaning for name, (_, meaning) in NUMBERS.items()},
            "sha256": found.digest,
        }

    def example(self, frames: int = 30) -> tuple[np.ndarray, dict[str, Any]]:
        """A request that the model can answer: (frames, K, 3) made-up keypoints, and parameters.

        The keypoints are a generated walk, with the joints of Human3.6M where the model's can be derived from them.
        """
        config = synthetic.Config(seconds=frames / 50)
        walk = Recording(subject="P1", action="walk", name="walk 1")
        seen = synthetic.read_recording(config, walk)[0]
        own = self.found.skeleton
        alike = own == synthetic.SKELETON.name or own in targets_of(synthetic.SKELETON.name)
        joints = synthetic.SKELETON.name if alike else own
        take = np.arange(len(skeleton_named(joints))) % len(synthetic.SKELETON)  # numbers of the right shape, if unlike
        points = screen_to_pixels(seen.keypoints, seen.width, seen.height)
        pixels = np.concatenate([points, seen.confidence[..., None]], axis=-1)[:, take]
        parameters: dict[str, Any] = {"width": seen.width, "height": seen.height, "frame_rate": seen.frame_rate}
        wanted = self.found.settings.data.frame_rate
        return np.round(pixels.astype(np.float64), 2), parameters | {
            "joints": joints,
            "resample": bool(wanted and seen.frame_rate % wanted),
        }


def _no_store() -> Any:
    raise AssertionError("a model file needs no store of runs")
