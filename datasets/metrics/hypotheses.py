"""What a set of hypotheses is worth: its mean, its best member, its spread, and whether the spread is honest.

Legend: W windows, H hypotheses, L frames, J joints. Hypotheses are (W, H, L, J, 3), targets (W, L, J, 3), metres; every
function returns (W, L, J), before any averaging. Names with "oracle" choose by the truth: bounds, not results.
"""

import numpy as np

from posegrid.datasets.metrics.position import checked_poses
from posegrid.datasets.metrics.summary import SPLITS

LEVELS = (50, 80, 90)
"""Nominal coverage of the central intervals, per cent."""
_VALUES = 2**21
"""Coordinates treated at once."""


def errors(hypotheses: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(W, H, L, J) distance of every joint of every hypothesis from its target, metres."""
    return np.linalg.norm(hypotheses - target[:, None], axis=-1)


def diversity(hypotheses: np.ndarray) -> np.ndarray:
    """Mean distance between two different hypotheses of a joint, metres. Needs H >= 2."""
    count = hypotheses.shape[1]
    total = np.zeros((hypotheses.shape[0], *hypotheses.shape[2:4]))
    for other in range(1, count):
        total += np.linalg.norm(hypotheses[:, other:] - hypotheses[:, :-other], axis=-1).sum(axis=1)
    return total / (count * (count - 1) / 2)


def energy_score(hypotheses: np.ndarray, target: np.ndarray) -> np.ndarray:
    """E|X - y| - E|X - X'| / 2 of each joint, metres; smaller is better, and the true distribution is best.

    Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", 2007, equation 21. The second
    expectation is over pairs of different hypotheses, which makes the score fair: its expectation does not depend on H.
    """
    return errors(hypotheses, target).mean(axis=1) - diversity(hypotheses) / 2


def coverage(hypotheses: np.ndarray, target: np.ndarray, level: int) -> np.ndarray:
    """Share of a joint's three coordinates whose central `level` % interval of hypotheses holds the truth.

    The interval lies between order statistics k and H + 1 - k with k = (H + 1)(1 - level / 100) / 2; if k is no whole
    number, the two intervals next to it count in proportion. If truth and hypotheses come from one distribution, the
    expectation is `level` % exactly, whatever the distribution and H. Only levels up to (H - 1)/(H + 1) can be judged:
    see `judged_levels`.
    """
    count = hypotheses.shape[1]
    place = (count + 1) * (1 - level / 100) / 2
    whole = int(place + 1e-9)
    ordered = np.sort(hypotheses, axis=1)

    def inside(k: int) -> np.ndarray:
        if 2 * k > count:  # an empty interval
            return np.zeros(target.shape)
        return ((ordered[:, k - 1] <= target) & (target <= ordered[:, count - k])).astype(np.float64)

    share = max(place - whole, 0.0)
    return ((1 - share) * inside(whole) + share * inside(whole + 1)).mean(axis=-1)


def judged_levels(count: int) -> tuple[int, ...]:
    """Those of LEVELS that `count` hypotheses can show: 50 needs 3 of them, 80 needs 9, 90 needs 19."""
    return tuple(level for level in LEVELS if (count - 1) * 100 >= level * (count + 1))


class HypothesisSums:
    """(total, count) of each metric and split for each action and joint. Sums over parts add up.

    Metrics: "mpjpe_mean_mm" of the mean of the hypotheses; "mpjpe_each_mm", mean over single hypotheses;
    "mpjpe_best_joint_oracle_mm", "..._pose_oracle_mm" and "..._window_oracle_mm" of the hypothesis that is best for a
    joint, a frame or a window; "diversity_mm"; "energy_score_mm"; "coverage_50" and so on, shares from 0 to 1.
    Windows are whole: the best one is chosen over the frames that count. Splits are those of `summary.MetricSums`.
    """

    def __init__(self, actions: tuple[str, ...], joints: int, hypotheses: int) -> None:
        self.actions = tuple(actions)
        self.hypotheses = hypotheses
        self.levels = judged_levels(hypotheses)
        self.metrics = (
            "mpjpe_mean_mm",
            "mpjpe_each_mm",
            "mpjpe_best_joint_oracle_mm",
            "mpjpe_best_pose_oracle_mm",
            "mpjpe_best_window_oracle_mm",
            "diversity_mm",
            "energy_score_mm",
            *(f"coverage_{level}" for level in self.levels),
        )
        self._sums = np.zeros((len(actions), len(self.metrics), joints, len(SPLITS), 2))

    def add(
        self,
        action_index: np.ndarray,
        hypotheses: np.ndarray,
        target: np.ndarray,
        visible: np.ndarray,
        frame_weight: np.ndarray,
    ) -> None:
        """Count windows: action_index (W,), hypotheses (W, H, L, J, 3) and target (W, L, J, 3) metres, visible
        (W, L, J) bool, frame_weight (W, L) of 0 and 1. Raises ValueError for shapes that differ from these."""
        expected = (len(target), self.hypotheses, *target.shape[1:])
        if hypotheses.shape != expected or target.shape[2] != self._sums.shape[2]:
            raise ValueError(
                f"hypotheses are {hypotheses.shape} for targets {target.shape}, expected {expected} with "
                f"{self._sums.shape[2]} joints: (W, H, L, J, 3). Make the sums for this number of hypotheses."
            )
        if visible.shape != target.shape[:3] or frame_weight.shape != target.shape[:2]:
            raise ValueError(
                f"visible is {visible.shape} and frame_weight {frame_weight.shape}, expected {target.shape[:3]} and "
                f"{target.shape[:2]}, to go with targets {target.shape}. Give arrays of the same windows."
            )
        size = max(_VALUES // int(np.prod(hypotheses.shape[1:])), 1)
        for first in range(0, len(target), size):
            rows = slice(first, first + size)
            several = hypotheses[rows]
            several, repeated = checked_poses(several, np.broadcast_to(target[rows, None], several.shape))
            self._add(action_index[rows], several, repeated[:, 0], ~visible[rows], frame_weight[rows].astype(float))

    def _add(
        self, action: np.ndarray, hypotheses: np.ndarray, target: np.ndarray, hidden: np.ndarray, weight: np.ndarray
    ) -> None:
        each = errors(hypotheses, target)
        of_pose = each.mean(axis=-1)
        frames = np.maximum(weight.sum(axis=1), 1)
        of_window = (of_pose * weight[:, None]).sum(axis=2) / frames[:, None]
        best_pose = of_pose.argmin(axis=1)[:, None, :, None]
        best_window = of_window.argmin(axis=1)[:, None, None, None]
        spread = diversity(hypotheses)
        values = [
            np.linalg.norm(hypotheses.mean(axis=1) - target, axis=-1),
            each.mean(axis=1),
            each.min(axis=1),
            np.take_along_axis(each, best_pose, axis=1)[:, 0],
            np.take_along_axis(each, best_window, axis=1)[:, 0],
            spread,
            each.mean(axis=1) - spread / 2,
        ]
        scaled = [1000 * value for value in values] + [coverage(hypotheses, target, level) for level in self.levels]
        everything = np.broadcast_to(weight[:, :, None], hidden.shape)
        counts = everything, everything * hidden, everything * ~hidden
        for row, value in enumerate(scaled):
            for split, counted in enumerate(counts):
                np.add.at(self._sums[:, row, :, split, 0], action, (value * counted).sum(axis=1))
                np.add.at(self._sums[:, row, :, split, 1], action, counted.sum(axis=1))

    def to_array(self) -> np.ndarray:
        """Flat float64 copy: add these over all workers."""
        return self._sums.ravel().copy()

    def set_array(self, array: np.ndarray) -> None:
        """Take over sums that were added over all workers."""
        self._sums[:] = np.asarray(array, np.float64).reshape(self._sums.shape)

    def frame_wise(self) -> dict[str, float]:
        """All windows and joints pooled: "energy_score_mm", "energy_score_mm/occluded", ... Empty splits are absent."""
        return self._means(self._sums.sum(axis=(0, 2)))

    def action_wise(self) -> dict[str, float]:
        """Mean of the means of the actions in which a key occurs, with equal weights."""
        per_action = [self._means(sums) for sums in self._sums.sum(axis=2)]
        keys = self.frame_wise()
        return {key: float(np.mean([means[key] for means in per_action if key in means])) for key in keys}

    def per_joint(self) -> list[dict[str, float]]:
        """The keys of `frame_wise` for each joint."""
        return [self._means(sums) for sums in self._sums.sum(axis=0).swapaxes(0, 1)]

    def _means(self, sums: np.ndarray) -> dict[str, float]:
        """(metric, split, [total, count]) -> key -> mean."""
        return {
            metric + split: float(total / count)
            for metric, splits in zip(self.metrics, sums, strict=True)
            for split, (total, count) in zip(SPLITS, splits, strict=True)
            if count > 0
        }
