"""The detector model: statistics, determinism, limits."""

import numpy as np
import pytest

from posegrid.datasets.detector import Config, detect, noise_generator
from posegrid.datasets.skeletons import H36M_17

STILL = np.zeros((40_000, 17, 2))
SILENT = {"jitter_px": 0.0, "drift_px": 0.0, "outlier_rate": 0.0, "confidence_spread": 0.0}


def run(config: Config, screen: np.ndarray = STILL, seed: int = 0, name: str = "S/a/1", **changed):
    view = {"skeleton": H36M_17, "width": 1000, "height": 1000, "frame_rate": 50.0} | changed
    return detect(config, noise_generator(seed, name), screen, **view)


def test_same_seed_and_name_give_the_same_noise():
    screen = STILL[:50]
    first, again = run(Config(), screen), run(Config(), screen)
    assert first[0].dtype == first[1].dtype == np.float32
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    for other in (run(Config(), screen, seed=1), run(Config(), screen, name="S/a/2")):
        assert (other[0] != first[0]).any()


def test_noise_depends_on_the_name_in_a_fixed_way():
    """Figures written down once: another machine or Python version must draw the same."""
    drawn = noise_generator(7, "S1/walk 1/54138969").standard_normal(3)
    np.testing.assert_allclose(drawn, noise_generator(7, "S1/walk 1/54138969").standard_normal(3))
    assert noise_generator(0, "a").integers(2**40) != noise_generator(0, "b").integers(2**40)


def test_jitter_is_white_and_of_stated_size():
    keypoints, _ = run(Config(**SILENT | {"jitter_px": 2.0}, end_factor=1.5))
    error_px = keypoints.astype(np.float64) * 500
    ends = [3, 6, 10, 13, 16]
    inner = np.setdiff1d(np.arange(17), ends)
    # 40,000 x 12 x 2 draws: the standard deviation is known to about 0.1 %
    assert error_px[:, inner].std() == pytest.approx(2.0, rel=0.01)
    assert error_px[:, ends].std() == pytest.approx(3.0, rel=0.01)
    assert abs(np.mean(error_px[1:, inner] * error_px[:-1, inner])) < 0.03


def test_drift_is_autoregressive():
    """The doubling sum equals the recurrence, and correlation falls to 1/e within the stated time."""
    keypoints, _ = run(Config(**SILENT | {"drift_px": 3.0}, drift_seconds=0.2, end_factor=1.0))
    error_px = keypoints.astype(np.float64) * 500
    assert error_px.std() == pytest.approx(3.0, rel=0.02)
    later = np.mean(error_px[10:] * error_px[:-10]) / np.mean(error_px**2)
    assert later == pytest.approx(np.exp(-1), abs=0.02)

    from posegrid.datasets.detector import _drift

    generator = np.random.default_rng(5)
    fast = _drift(generator, (300, 2), 8.0)
    keep = np.exp(-1 / 8.0)
    noise = np.random.default_rng(5).standard_normal((300, 2))
    slow = noise[:1]
    for fresh in noise[1:]:
        slow = np.concatenate([slow, keep * slow[-1:] + np.sqrt(1 - keep**2) * fresh])
    np.testing.assert_allclose(fast, slow, atol=1e-9)


def test_outliers_have_the_stated_share_and_last():
    keypoints, confidence = run(Config(**SILENT | {"outlier_rate": 0.05}, outlier_px=30.0, outlier_seconds=0.1))
    wrong = np.abs(keypoints).max(axis=-1) > 0
    # 34,000 bursts of 5 frames: the share is known to 0.5 %
    assert wrong.mean() == pytest.approx(0.05, rel=0.03)
    starts = wrong[1:] & ~wrong[:-1]
    assert wrong.sum() / starts.sum() == pytest.approx(5.0, rel=0.06)
    held = wrong[1:] & wrong[:-1]
    still = (keypoints[1:] == keypoints[:-1]).all(axis=-1)
    assert still[held].mean() > 0.9, "a gross error stays where it is"
    assert confidence[wrong].mean() < 0.5 < confidence[~wrong].min()


def test_swaps_exchange_left_and_right():
    screen = np.broadcast_to(np.linspace(-0.5, 0.5, 17)[:, None], (20_000, 17, 2))
    keypoints, confidence = run(Config(**SILENT, swap_rate=0.1), screen)
    swapped = np.abs(keypoints - screen).max(axis=-1) > 1e-6
    left, right = list(H36M_17.left), list(H36M_17.right)
    assert not swapped[:, [0, 7, 8, 9, 10]].any()
    np.testing.assert_array_equal(swapped[:, left], swapped[:, right])
    assert swapped[:, left].mean() == pytest.approx(0.1, abs=0.01)
    frame = np.flatnonzero(swapped[:, left[0]])[0]
    np.testing.assert_allclose(keypoints[frame, left[0]], screen[frame, right[0]], atol=1e-6)
    assert (confidence[swapped] < 0.2).all()


def test_silent_detector_returns_the_projection():
    screen = np.random.default_rng(0).uniform(-0.9, 0.9, (30, 17, 2))
    keypoints, confidence = run(Config(**SILENT), screen)
    np.testing.assert_array_equal(keypoints, screen.astype(np.float32))
    np.testing.assert_allclose(confidence, 1.0, atol=1e-6)


def test_confidence_falls_with_the_error_and_stays_in_range():
    keypoints, confidence = run(Config(), STILL[:5000])
    error_px = np.linalg.norm(keypoints, axis=-1) * 500
    assert confidence.min() >= 0
    assert confidence.max() <= 1
    order = np.argsort(error_px, axis=None)
    ranked = confidence.ravel()[order]
    tenths = [part.mean() for part in np.array_split(ranked, 10)]
    assert tenths == sorted(tenths, reverse=True)
    assert 2 < error_px.mean() < 8, "a few pixels"


def test_keypoints_do_not_leave_the_image():
    screen = np.full((200, 17, 2), 1.3)
    keypoints, confidence = run(Config(), screen, height=1002)
    assert (np.abs(keypoints) <= np.array([1.0, 1.002], dtype=np.float32)).all()
    assert confidence.max() < 0.05


@pytest.mark.parametrize("wrong", [{"jitter_px": -1.0}, {"outlier_rate": 1.0}, {"confidence_px": 0.0},
                                   {"drift_px": float("nan")}, {"confidence_spread": 1.5}])  # fmt: skip
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed = -1"):
        noise_generator(-1, "a")
