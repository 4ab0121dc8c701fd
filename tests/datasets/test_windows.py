"""Windows: the published rules, no frame of another sequence, nothing that depends on order."""

import numpy as np
import pytest

from posegrid.datasets.store import Store
from posegrid.datasets.windows import consecutive_windows, gather, shuffled, training_windows


def test_training_windows_follow_the_published_rule(toy_store: Store) -> None:
    windows = training_windows(toy_store, ("train",), 27, seed=0, epoch=0)
    lengths = toy_store.lengths[toy_store.of_split("train")]
    assert len(windows) == sum(length // 27 for length in lengths)
    assert (windows.start >= 0).all()
    assert (windows.start < toy_store.lengths[windows.sequence] - 27).all()


def test_starts_are_uniform_and_never_the_last_one(toy_store: Store) -> None:
    starts = [training_windows(toy_store, ("held_out",), 27, seed=0, epoch=epoch).start for epoch in range(2000)]
    length = int(toy_store.lengths[toy_store.of_split("held_out")][0])
    counts = np.bincount(np.concatenate(starts), minlength=length - 27)
    assert len(counts) == length - 27
    expected = counts.sum() / len(counts)
    # each count is binomial: five standard deviations
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_epochs_differ_and_repeat(toy_store: Store) -> None:
    first, again, other = (training_windows(toy_store, ("train",), 9, seed=3, epoch=epoch) for epoch in (1, 1, 2))
    np.testing.assert_array_equal(first.start, again.start)
    assert (first.start != other.start).mean() > 0.8
    assert sorted(shuffled(50, seed=3, epoch=1)) == list(range(50))
    assert (shuffled(50, seed=3, epoch=1) != shuffled(50, seed=3, epoch=2)).any()


def test_dropped_tail_matches_the_published_count(toy_store: Store) -> None:
    windows = consecutive_windows(toy_store, "test", 27)
    lengths = toy_store.lengths[toy_store.of_split("test")]
    assert len(windows) == sum(length // 27 for length in lengths)
    assert (windows.start % 27 == 0).all()
    assert windows.weight.all()


@pytest.mark.parametrize("frames", [9, 27, 80, 200])
def test_kept_tail_counts_every_frame_once(toy_store: Store, frames: int) -> None:
    windows = consecutive_windows(toy_store, "test", frames, tail="keep")
    for index in toy_store.of_split("test"):
        length = int(toy_store.lengths[index])
        mine = windows[windows.sequence == index]
        seen = (mine.start[:, None] + np.arange(frames))[mine.weight]
        assert sorted(seen) == list(range(length))


def test_gather_equals_a_naive_loop(toy_store: Store) -> None:
    windows = consecutive_windows(toy_store, "test", 200, tail="keep")
    keypoints, poses = gather(toy_store, windows)
    for row in range(len(windows)):
        sequence = toy_store.sequences[windows.sequence[row]]
        for frame in range(200):
            source = sequence.offset + min(windows.start[row] + frame, sequence.frames - 1)
            np.testing.assert_array_equal(keypoints[row, frame], toy_store.keypoints[source])
            expected = toy_store.poses[source] - toy_store.poses[source, 0]
            np.testing.assert_array_equal(poses[row, frame], expected)


def test_gathered_arrays_may_be_changed(toy_store: Store) -> None:
    keypoints, poses = gather(toy_store, consecutive_windows(toy_store, "test", 27))
    keypoints[:] = 0
    poses[:] = 0
    assert np.abs(toy_store.keypoints).max() > 0


def test_too_long_windows_say_what_to_do(toy_store: Store) -> None:
    with pytest.raises(ValueError, match=r"the longest has \d+.*Lower data.frames"):
        training_windows(toy_store, ("train",), 500, seed=0, epoch=0)
    with pytest.raises(ValueError, match=r"Lower data.frames"):
        consecutive_windows(toy_store, "test", 500)


def test_unknown_split_is_refused(toy_store: Store) -> None:
    with pytest.raises(ValueError, match=r"split validation \(present: held_out, test, train\)"):
        toy_store.of_split("validation")
