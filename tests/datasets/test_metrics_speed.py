"""Speeds, errors by speed and strides that follow it, against numbers worked out by hand."""

import numpy as np
import pytest

from posegrid.datasets.metrics.speed import (
    SpeedBins,
    SpeedSums,
    adaptive_strides,
    detected_frames,
    speeds,
    speeds_of_recordings,
)


def swinging(steps_mm: list[float]) -> np.ndarray:
    """(F, 4, 3): the last joint moves by these steps, everything drifts along with the root."""
    frames = len(steps_mm) + 1
    poses = np.zeros((frames, 4, 3))
    poses[1:, 3, 1] = np.cumsum(steps_mm) / 1000
    return poses + np.arange(frames)[:, None, None] * [0.3, 0.0, -0.1]


def test_speed_is_the_mean_over_the_joints_relative_to_the_root():
    found = speeds(swinging([40, 0, -8]), 50.0)
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], [0.5, 0.0, 0.1], atol=1e-12)  # 40 mm / 4 joints * 50 Hz = 0.5 m/s


def test_another_root_and_leading_axes():
    poses = np.stack([swinging([40, 0]), swinging([4, 4])])
    np.testing.assert_allclose(speeds(poses, 25.0)[:, 1:], [[0.25, 0], [0.025, 0.025]], atol=1e-12)
    # seen from the moving joint, the three others move
    np.testing.assert_allclose(speeds(poses[0], 25.0, root=3)[1:], [0.75, 0], atol=1e-12)


def test_recordings_do_not_touch_each_other(monkeypatch):
    one, two = swinging([40, 0, -8]), swinging([4, 4])
    poses = np.concatenate([one, two + 7])
    expected = [np.nan, 0.5, 0, 0.1, np.nan, 0.025, 0.025]
    for block in (1, 2, 3, 100):
        monkeypatch.setattr("posegrid.datasets.metrics.speed._BLOCK", block)
        found = speeds_of_recordings(poses, np.array([0, 4]), np.array([50.0, 25.0]))
        np.testing.assert_allclose(found, expected, atol=1e-12)
    valid = np.array([True, True, False, True, True, True, True])
    found = speeds_of_recordings(poses, np.array([0, 4]), np.array([50.0, 25.0]), valid=valid)
    np.testing.assert_allclose(found, [np.nan, 0.5, np.nan, np.nan, np.nan, 0.025, 0.025], atol=1e-12)


def test_bins_by_hand():
    sums = SpeedSums(SpeedBins(width=0.25, count=2))
    assert sums.bins.edges.tolist() == [0, 0.25, 0.5]
    speed = np.array([[0.0, 0.2, 0.25], [0.4, 0.5, 9.0], [np.nan, 0.1, 0.1]])
    error = np.array([[0.010, 0.020, 0.030], [0.050, 0.070, 0.090], [0.5, 0.5, 0.030]])
    weight = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1]])
    sums.add(speed, error, weight)
    assert sums.frames().tolist() == [3, 2, 2]
    np.testing.assert_allclose(sums.mpjpe_mm(), [20, 40, 80])
    np.testing.assert_allclose(sums.cdf(), [3 / 7, 5 / 7, 1])


def test_defaults_reach_to_one_and_a_half_metres_per_second():
    bins = SpeedBins()
    assert len(bins.edges) == 16
    assert bins.edges[-1] == pytest.approx(1.5)
    sums = SpeedSums(bins)
    assert np.isnan(sums.mpjpe_mm()).all()
    assert np.isnan(sums.cdf()).all()
    sums.add(np.array([1.49, 1.51]), np.array([0.01, 0.02]))
    assert np.flatnonzero(sums.frames()).tolist() == [14, 15]
    np.testing.assert_allclose(sums.mpjpe_mm()[14:], [10, 20])


def test_sums_of_parts_are_the_sum():
    generator = np.random.default_rng(0)
    speed, error = generator.gamma(2, 0.3, 500), generator.random(500)
    whole, parts = SpeedSums(SpeedBins()), [SpeedSums(SpeedBins()) for _ in range(3)]
    whole.add(speed, error)
    for index, part in enumerate(parts):
        part.add(speed[index::3], error[index::3])
    np.testing.assert_allclose((parts[0] + parts[1] + parts[2]).to_array(), whole.to_array())
    array = sum(part.to_array() for part in parts)
    joined = SpeedSums.from_array(SpeedBins(), array)
    np.testing.assert_allclose(joined.mpjpe_mm(), whole.mpjpe_mm())
    total = (joined.mpjpe_mm() * joined.frames())[joined.frames() > 0].sum() / 500
    assert total == pytest.approx(1000 * error.mean())


def test_hysteresis_by_hand():
    nan = np.nan
    speed = [nan, 0.1, 0.6, 0.1, 0.1, 0.5, 0.1, 0.7, 0.9, 0.1, 0.1, 0.1, 0.1]
    #        slow       fast until three frames stayed below          again
    found = adaptive_strides(np.array(speed), slow=4, fast=2, hold=3)
    assert found.tolist() == [4, 4, 2, 2, 2, 4, 4, 2, 2, 2, 2, 4, 4]
    # frame 4 is even, but not of the slow grid: it is detected because the stride is fast there
    assert np.flatnonzero(detected_frames(found)).tolist() == [0, 2, 4, 8, 10, 12]


def test_strides_do_not_look_ahead():
    speed = np.random.default_rng(1).gamma(1, 0.3, 300)
    whole = adaptive_strides(speed)
    for until in (1, 57, 299):
        assert np.array_equal(adaptive_strides(speed[:until]), whole[:until])


@pytest.mark.parametrize("frames", [0, 1, 19, 20, 21, 400])
def test_detections_of_constant_strides(frames):
    still, running = (adaptive_strides(np.full(frames, value)) for value in (0.0, 1.0))
    assert detected_frames(still).sum() == -(-frames // 20)
    assert detected_frames(running).sum() == -(-frames // 5)
    assert (detected_frames(running) >= detected_frames(still)).all()


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"poses are \(5, 2\)"):
        speeds(np.zeros((5, 2)), 50.0)
    with pytest.raises(ValueError, match="root is 4"):
        speeds(np.zeros((5, 4, 3)), 50.0, root=4)
    with pytest.raises(ValueError, match="frame_rate is 0"):
        speeds(np.zeros((5, 4, 3)), 0)
    with pytest.raises(ValueError, match="offsets must ascend from 0"):
        speeds_of_recordings(np.zeros((5, 4, 3)), np.array([1]), np.array([50.0]))
    with pytest.raises(ValueError, match=r"width is 0 m/s"):
        SpeedBins(width=0)
    sums = SpeedSums(SpeedBins())
    with pytest.raises(ValueError, match=r"speed is \(3,\), error \(2,\)"):
        sums.add(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="errors hold NaN"):
        sums.add(np.zeros(1), np.array([np.nan]))
    with pytest.raises(ValueError, match="unlike bins"):
        sums + SpeedSums(SpeedBins(width=0.2))
    with pytest.raises(ValueError, match=r"are \(32,\), got \(4,\)"):
        SpeedSums.from_array(SpeedBins(), np.zeros(4))
    with pytest.raises(ValueError, match="fast must divide slow"):
        adaptive_strides(np.zeros(3), slow=20, fast=6)
