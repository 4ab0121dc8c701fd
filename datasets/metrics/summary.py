"""Sums of all metrics over windows, per action, that workers can add up.

Legend: W windows, L frames, J joints. Poses in metres, sums and results in millimetres (velocity: mm per frame).

| metric | one entry per | occluded if |
|---|---|---|
| mpjpe_mm, p_mpjpe_mm, n_mpjpe_mm | frame and joint | that joint is hidden in that frame |
| mpjve_mm | pair of neighbouring frames and joint | the joint is hidden in either frame |
| symmetry_gap_mm | frame and pair of mirrored bones | any end joint of the two bones is hidden in that frame |
| segment_std_mm | window and bone | an end joint of the bone is hidden in any counting frame of the window |

Which entries count, given frame weights of 0 (padding, or overlap that another window counts) and 1:
- an entry of a frame counts if the frame counts;
- an entry of a pair of frames counts if the second frame counts; the first only has to be in the window, so that no
  real pair is lost where windows overlap;
- an entry of a window counts if at least two of its frames count; the deviation is taken over those.
"""

from collections.abc import Callable

import numpy as np

from posegrid.datasets.metrics.coherence import (
    CoherenceConfig,
    measured_bones,
    mirrored_bones,
    segment_std,
    symmetry_gap,
    velocity_error,
)
from posegrid.datasets.metrics.position import checked_poses, mpjpe, n_mpjpe, p_mpjpe
from posegrid.datasets.skeletons import H36M_17, Skeleton

METRICS = ("mpjpe_mm", "p_mpjpe_mm", "n_mpjpe_mm", "mpjve_mm", "symmetry_gap_mm", "segment_std_mm")
SPLITS = ("", "/occluded", "/visible")
"""Endings of the keys of a result: everything, hidden entries, the rest."""

_MM_PER_M = 1000.0
_CHUNK = 256
"""Windows treated at once: bounds memory and keeps the arrays near the processor."""


class MetricSums:
    """(total, count) of each metric and split for each action. Sums over parts add up to the sum over everything.

    actions: names, one for each `action_index`.
    """

    def __init__(self, actions: tuple[str, ...], coherence: CoherenceConfig, skeleton: Skeleton = H36M_17) -> None:
        if not actions or len(set(actions)) != len(actions):
            raise ValueError(f"actions are {actions}; at least one is needed and none may repeat.")
        self.actions = tuple(actions)
        self.coherence = coherence
        self.skeleton = skeleton
        self._bones = measured_bones(skeleton, coherence.shoulder_parent)
        self._left, self._right = mirrored_bones(skeleton, coherence.shoulder_parent)
        self._sums = np.zeros((len(actions), len(METRICS), len(SPLITS), 2))

    def add(
        self,
        action_index: np.ndarray,
        predicted: np.ndarray,
        target: np.ndarray,
        visible: np.ndarray,
        frame_weight: np.ndarray,
    ) -> None:
        """Count windows: action_index (W,), predicted and target (W, L, J, 3) metres, visible (W, L, J) bool,
        frame_weight (W, L) of 0 and 1. Predictions are taken as they are: nothing is aligned or zeroed here."""
        action_index, visible, frame_weight = map(np.asarray, (action_index, visible, frame_weight))
        self._check(action_index, np.shape(predicted), np.shape(target), visible, frame_weight)
        # All of it before the first chunk is counted: an error leaves the sums as they were.
        predicted, target = checked_poses(predicted, target)
        for start in range(0, len(action_index), _CHUNK):
            part = slice(start, start + _CHUNK)
            self._add_chunk(
                action_index[part],
                predicted[part],
                target[part],
                ~visible[part],
                frame_weight[part].astype(np.float64),
            )

    def _add_chunk(
        self,
        action: np.ndarray,
        predicted: np.ndarray,
        target: np.ndarray,
        hidden: np.ndarray,
        weight: np.ndarray,
    ) -> None:
        frame = weight[:, :, None]
        position: tuple[tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray]], ...] = (
            ("mpjpe_mm", mpjpe),
            ("p_mpjpe_mm", p_mpjpe),
            ("n_mpjpe_mm", n_mpjpe),
        )
        for name, error in position:
            self._count(name, action, error(predicted, target), frame, hidden)

        either = hidden[:, 1:] | hidden[:, :-1]
        self._count("mpjve_mm", action, velocity_error(predicted, target), frame[:, 1:], either)

        parent, ddof = self.coherence.shoulder_parent, self.coherence.ddof
        bone = hidden[:, :, self._bones[:, 0]] | hidden[:, :, self._bones[:, 1]]
        gap = symmetry_gap(predicted, self.skeleton, parent)
        self._count("symmetry_gap_mm", action, gap, frame, bone[:, :, self._left] | bone[:, :, self._right])

        deviation = segment_std(predicted, self.skeleton, parent, ddof, weight)
        enough = (weight.sum(axis=1) >= 2)[:, None]
        self._count("segment_std_mm", action, deviation, enough, (bone & (frame > 0)).any(axis=1))

    def _count(
        self, name: str, action: np.ndarray, value: np.ndarray, weight: np.ndarray, occluded: np.ndarray
    ) -> None:
        """Add the entries `value` (W, ...) of one metric; weight and occluded broadcast to its shape."""
        everything = np.broadcast_to(weight, value.shape).astype(np.float64)
        hidden = everything * occluded
        rest = tuple(range(1, value.ndim))
        sums = self._sums[:, METRICS.index(name)]
        for split, counted in enumerate((everything, hidden, everything - hidden)):
            total = (value * counted).sum(axis=rest) * _MM_PER_M
            for column, per_window in enumerate((total, counted.sum(axis=rest))):
                sums[:, split, column] += np.bincount(action, per_window, minlength=len(self.actions))

    def __add__(self, other: "MetricSums") -> "MetricSums":
        if (self.actions, self.coherence, self.skeleton) != (other.actions, other.coherence, other.skeleton):
            raise ValueError(
                "metric sums of different actions, coherence settings or skeletons cannot be added: "
                f"{self.actions}, {self.coherence}, {self.skeleton.name} and "
                f"{other.actions}, {other.coherence}, {other.skeleton.name}."
            )
        return self.from_array(self.actions, self.coherence, self.to_array() + other.to_array(), self.skeleton)

    def to_array(self) -> np.ndarray:
        """Flat float64 copy, laid out as (action, metric, split, [total mm, count]): add these over all workers."""
        return self._sums.ravel().copy()

    @classmethod
    def from_array(
        cls,
        actions: tuple[str, ...],
        coherence: CoherenceConfig,
        array: np.ndarray,
        skeleton: Skeleton = H36M_17,
    ) -> "MetricSums":
        """The sums whose `to_array` is `array`."""
        sums = cls(actions, coherence, skeleton)
        if np.shape(array) != (sums._sums.size,):
            raise ValueError(
                f"metric sums of {len(actions)} actions are ({sums._sums.size},), got {np.shape(array)}: "
                "all workers must use the same list of actions and the same version."
            )
        sums._sums[:] = np.asarray(array, np.float64).reshape(sums._sums.shape)
        return sums

    def frame_wise(self) -> dict[str, float]:
        """Every window pooled: "mpjpe_mm", "mpjpe_mm/occluded", "mpjpe_mm/visible", ... Empty splits are absent."""
        return _means(self._sums.sum(axis=0))

    def per_action(self) -> dict[str, dict[str, float]]:
        """The same keys for each action that occurs."""
        means = {action: _means(sums) for action, sums in zip(self.actions, self._sums, strict=True)}
        return {action: values for action, values in means.items() if values}

    def action_wise(self) -> dict[str, float]:
        """Mean of the means of the actions, with equal weights: the published number. Each key over those actions in
        which it occurs."""
        per_action = self.per_action().values()
        collected = {key: [values[key] for values in per_action if key in values] for key in self.frame_wise()}
        return {key: float(np.mean(values)) for key, values in collected.items()}

    def _check(
        self,
        action_index: np.ndarray,
        predicted: tuple[int, ...],
        target: tuple[int, ...],
        visible: np.ndarray,
        frame_weight: np.ndarray,
    ) -> None:
        if len(predicted) != 4 or predicted[2:] != (len(self.skeleton), 3):
            raise ValueError(
                f"predicted is {predicted}, expected (W, L, {len(self.skeleton)}, 3): skeleton {self.skeleton.name}."
            )
        windows, frames, joints, _ = predicted
        for what, shape, expected in (
            ("target", target, predicted),
            ("action_index", action_index.shape, (windows,)),
            ("visible", visible.shape, (windows, frames, joints)),
            ("frame_weight", frame_weight.shape, (windows, frames)),
        ):
            if shape != expected:
                raise ValueError(f"{what} is {shape}, expected {expected}, to go with predicted {predicted}.")
        if visible.dtype != np.bool_:
            raise ValueError(f"visible is {visible.dtype}, expected bool, True where the joint is seen.")
        if action_index.dtype.kind not in "iu" or ((action_index < 0) | (action_index >= len(self.actions))).any():
            raise ValueError(
                f"action_index must hold integers from 0 to {len(self.actions) - 1}: one of {self.actions}."
            )
        if not np.isin(frame_weight, (0, 1)).all():
            raise ValueError("frame_weight must be 0 (padding, or counted by another window) or 1.")


def _means(sums: np.ndarray) -> dict[str, float]:
    """(metric, split, [total, count]) -> key -> mean, in the order of METRICS, without empty splits."""
    return {
        metric + split: float(total / count)
        for metric, splits in zip(METRICS, sums, strict=True)
        for split, (total, count) in zip(SPLITS, splits, strict=True)
        if count > 0
    }
