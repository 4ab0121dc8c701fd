"""Where the error lies: sums by joint, gap and speed against a count one by one."""

import numpy as np
import pytest

from posegrid.datasets.metrics.breakdown import GAPS, BreakdownSums, gap_lengths
from posegrid.datasets.metrics.speed import SpeedBins

JOINTS = ("hip", "knee", "foot")
BINS = SpeedBins(width=0.5, count=2)


def test_a_gap_is_as_long_as_the_run_of_hidden_frames() -> None:
    visible = np.array([1, 0, 0, 1, 0, 1, 1, 0, 0, 0], dtype=bool)[None, :, None]
    assert gap_lengths(visible)[0, :, 0].tolist() == [0, 2, 2, 0, 1, 0, 0, 3, 3, 3]
    assert gap_lengths(np.zeros((1, 4, 1), dtype=bool))[0, :, 0].tolist() == [4, 4, 4, 4]


def made_up() -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(3)
    error, visible = random.uniform(0, 0.2, (5, 12, 3)), random.random((5, 12, 3)) < 0.5
    weight = (random.random((5, 12)) < 0.8).astype(int)
    speed = random.uniform(0, 1.6, (5, 12))
    speed[:, 0] = np.nan
    return error, visible, weight, speed


def one_by_one(error: np.ndarray, visible: np.ndarray, weight: np.ndarray, speed: np.ndarray) -> dict:
    """Lists of errors in mm, collected entry by entry."""
    found: dict[tuple[str, str, str], list[float]] = {}
    names = ["1", "2", "3-4", "5-8", "9-16", "17-32", "33-64", "65+"]
    for window in range(len(error)):
        for frame in range(error.shape[1]):
            if not weight[window, frame]:
                continue
            now = speed[window, frame]
            if now == now:
                name = "0-0.5" if now < 0.5 else "0.5-1" if now < 1 else "1+"
                found.setdefault(("speed", name, "all"), []).append(1000 * error[window, frame].mean())
            for joint, label in enumerate(JOINTS):
                mm, seen = 1000 * error[window, frame, joint], visible[window, frame, joint]
                found.setdefault(("joint", label, "all"), []).append(mm)
                found.setdefault(("joint", label, "visible" if seen else "occluded"), []).append(mm)
                if seen:
                    continue
                first = last = frame
                while first > 0 and not visible[window, first - 1, joint]:
                    first -= 1
                while last < error.shape[1] - 1 and not visible[window, last + 1, joint]:
                    last += 1
                name = names[max(place for place, low in enumerate(GAPS) if low <= last - first + 1)]
                found.setdefault(("gap", name, "occluded"), []).append(mm)
    return found


def test_sums_equal_a_count_one_by_one_and_add_up() -> None:
    arrays = made_up()
    halves = np.zeros(BreakdownSums(JOINTS, BINS).to_array().size)
    for part in (slice(0, 2), slice(2, 5)):
        sums = BreakdownSums(JOINTS, BINS)
        sums.add(*(array[part] for array in arrays))
        halves += sums.to_array()
    total = BreakdownSums(JOINTS, BINS)
    total.set_array(halves)
    expected = one_by_one(*arrays)
    rows = {(by, of, split): (entries, mean) for by, of, split, entries, mean in total.rows()}
    assert rows.keys() == expected.keys()
    for key, values in expected.items():
        assert rows[key][0] == len(values), key
        assert rows[key][1] == pytest.approx(np.mean(values)), key


def test_no_gaps_where_neighbours_were_not_seen_together() -> None:
    sums = BreakdownSums(JOINTS, BINS)
    sums.add(*made_up(), gaps=False)
    assert not [row for row in sums.rows() if row[0] == "gap"]
    assert [row for row in sums.rows() if row[0] == "joint"]


def test_shapes_are_checked() -> None:
    error, visible, weight, speed = made_up()
    sums = BreakdownSums(JOINTS, BINS)
    with pytest.raises(ValueError, match=r"error is \(5, 12, 3\) and visible \(4, 12, 3\), expected \(W, L, 3\)"):
        sums.add(error, visible[:4], weight, speed)
    with pytest.raises(ValueError, match=r"speed \(5, 11\), expected \(5, 12\): one value a frame"):
        sums.add(error, visible, weight, speed[:, 1:])
