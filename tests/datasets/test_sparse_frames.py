"""Which frames have a 2D pose: the published rules of Uplift and Upsample, computed here frame by frame."""

import numpy as np
import pytest

from posegrid.datasets.occlusions.draws import WindowDraws, sequence_key
from posegrid.datasets.occlusions.registry import masks, occlusion_config
from posegrid.datasets.occlusions.sparse_frames import Config
from posegrid.datasets.skeletons import H36M_17


def seen(starts, own: int, frames: int = 41, **values) -> np.ndarray:
    """(N, L) bool: frames with a pose. All joints of a frame are seen or none is."""
    starts = np.asarray(starts)
    keys = np.full(len(starts), sequence_key("S9/Walking"), np.uint64)
    draws = WindowDraws(values.pop("seed", 0), keys, starts, np.full(len(starts), own))
    visible = masks("sparse_frames", occlusion_config("sparse_frames", values), draws, frames, H36M_17)
    assert (visible == visible[:, :, :1]).all()
    return visible[:, :, 0]


@pytest.mark.parametrize(("own", "frames", "stride"), [(2, 41, 4), (2, 41, 10), (2, 41, 20), (5, 71, 20), (1, 9, 3)])
def test_video_frames_are_those_divisible_by_the_stride(own, frames, stride):
    centres = np.arange(0, 400, own)
    starts = centres - (frames - 1) // 2 * own
    found = seen(starts, own, frames, strides=[stride], shift="video")
    expected = [[(start + k * own) % stride == 0 for k in range(frames)] for start in starts.tolist()]
    assert np.array_equal(found, expected)
    assert found.any(axis=1).all()


@pytest.mark.parametrize(("own", "frames", "stride"), [(2, 41, 4), (2, 41, 10), (2, 41, 20), (5, 71, 10), (5, 71, 5)])
def test_random_shifts_show_each_place_alike(own, frames, stride):
    """Published: with offset o from the centre and shift s_out * r, (o + shift) mod s_in = 0."""
    places = stride // own
    low = -int(np.ceil((places - 1) / 2))
    high = int(np.ceil((places - 1) / 2)) + (0 if places % 2 == 0 else 1)
    offsets = own * (np.arange(frames) - (frames - 1) // 2)
    published = {tuple((offsets + own * r) % stride == 0) for r in range(low, high)}
    assert len(published) == places
    found = seen(np.arange(8000) * 7, own, frames, strides=[stride])
    patterns, counts = np.unique(found, axis=0, return_counts=True)
    assert {tuple(row) for row in patterns} == published
    assert np.abs(counts - 8000 / places).max() < 5 * np.sqrt(8000 / places)
    # over the shifts every token is real exactly once
    assert (patterns.sum(axis=0) == 1).all()


def test_several_strides_are_drawn_alike_and_window_by_window():
    found = seen(np.arange(9000), 2, strides=[4, 10, 20])
    gap = np.array([np.diff(np.flatnonzero(row)).min() * 2 for row in found])
    values, counts = np.unique(gap, return_counts=True)
    assert values.tolist() == [4, 10, 20]
    assert np.abs(counts - 3000).max() < 5 * np.sqrt(9000 * 2 / 9)
    assert abs(np.corrcoef(gap[1:], gap[:-1])[0, 1]) * np.sqrt(len(gap)) < 5


def test_the_centre_has_a_pose_where_it_must():
    found = seen([0, 3, -17], 2, strides=[20], shift="centre")
    assert np.flatnonzero(found[0]).tolist() == [0, 10, 20, 30, 40]
    assert (found == found[0]).all()
    assert np.flatnonzero(seen([0], 1, 5, strides=[2], shift="centre")[0]).tolist() == [0, 2, 4]


def test_stride_of_the_tokens_shows_everything():
    assert seen([0, 6], 2, strides=[2]).all()
    assert seen([0, 6], 2, strides=[2], shift="video").all()


def test_windows_of_different_strides_in_one_call():
    """A recording at twice the frame rate: its windows step twice as far, the pattern counts stored frames."""
    keys = np.full(2, sequence_key("a"), np.uint64)
    draws = WindowDraws(0, keys, np.array([-4, -4]), np.array([1, 2]))
    visible = masks("sparse_frames", Config(strides=(4,), shift="video"), draws, 9, H36M_17)[:, :, 5]
    assert np.flatnonzero(visible[0]).tolist() == [0, 4, 8]
    assert np.flatnonzero(visible[1]).tolist() == [0, 2, 4, 6, 8]


def test_seeds_give_other_shifts_to_the_same_windows():
    first, second = (seen(np.arange(500), 2, strides=[4, 10, 20], seed=seed) for seed in (0, 1))
    assert 0.5 < (first != second).any(axis=1).mean() < 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strides": []}, r"strides are \[\], allowed are different whole numbers"),
        ({"strides": [4, 4]}, r"strides are \[4, 4\]"),
        ({"strides": [0]}, r"strides are \[0\]"),
        ({"strides": [2.5]}, "key strides"),
        ({"shift": "test"}, "shift"),
    ],
)
def test_wrong_settings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        occlusion_config("sparse_frames", values)


def test_strides_that_do_not_fit_the_windows_are_refused():
    with pytest.raises(ValueError, match=r"strides has 5, but the frames of a window lie 2 apart .* multiples of 2"):
        seen([0], 2, strides=[4, 5])
    with pytest.raises(ValueError, match=r"strides has 20, but a window covers 9 x 2 = 18 frames"):
        seen([0], 2, 9, strides=[4, 20])
    with pytest.raises(ValueError, match=r"2 of 3 windows see none .* starts at frame 1 .* evaluation\.lift_every = 2"):
        seen([0, 1, 3], 2, strides=[4], shift="video")
