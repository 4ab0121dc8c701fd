"""Windows: the published rules, no frame of another sequence, nothing that depends on order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy

from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store
from posegrid.datasets.store_writer import write_store
from posegrid.datasets.windows import (
    Windows,
    consecutive_windows,
    gather,
    gather_column,
    random_windows,
    shuffled,
    training_count,
    training_windows,
)


def naive(store: Store, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints and root-relative poses, frame by frame. Past an end: the nearest frame that the window may show, which
    with `own_grid` is one of its own."""
    keypoints, poses = [], []
    for row in range(len(windows)):
        sequence = store.sequences[windows.sequence[row]]
        stride = 1 if windows.stride is None else int(windows.stride[row])
        shown = [int(windows.start[row]) + frame * stride for frame in range(windows.weight.shape[1])]
        allowed = [frame for frame in shown if 0 <= frame < sequence.frames]
        if not windows.own_grid:
            allowed = [0, *allowed, sequence.frames - 1]
        for frame in shown:
            inside = min(allowed, key=lambda other: abs(other - frame))
            pose = store.poses[sequence.offset + inside]
            keypoints.append(store.keypoints[sequence.offset + inside])
            poses.append(pose - pose[0])
    shape = windows.weight.shape
    return np.stack(keypoints).reshape(*shape, 17, 2), np.stack(poses).reshape(*shape, 17, 3)


@pytest.fixture(scope="module")
def mixed_rates(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The toy store with 50, 100 and 150 frames per second in turn."""
    sequences = [
        replace(sequence, frame_rate=50.0 * (1 + index % 3)) for index, sequence in enumerate(toy.sequences(90))
    ]
    return write_store(
        tmp_path_factory.mktemp("rates") / "store",
        sequences,
        source="toy",
        source_config={},
        skeleton=H36M_17,
        protocol=toy.PROTOCOL,
    )


def test_training_windows_follow_the_published_rule(toy_store: Store) -> None:
    windows = training_windows(toy_store, ("train",), 27, seed=0, epoch=0)
    lengths = toy_store.lengths[toy_store.of_split("train")]
    assert len(windows) == sum(length // 27 for length in lengths)
    assert (windows.start >= 0).all()
    assert (windows.start < toy_store.lengths[windows.sequence] - 27).all()


@pytest.mark.parametrize(("stride", "edges"), [(1, "drop"), (3, "drop"), (1, "replicate"), (4, "replicate_grid")])
def test_starts_are_uniform_and_never_the_last_one(toy_store: Store, stride: int, edges: str) -> None:
    starts = np.concatenate(
        [
            training_windows(toy_store, ("held_out",), 27, stride=stride, edges=edges, seed=0, epoch=epoch).start
            for epoch in range(2000)
        ]
    )
    length = int(toy_store.lengths[toy_store.of_split("held_out")][0])
    # "replicate" draws the centre, frame 13 of the window, among all frames
    possible, first = (length - 26 * stride - 1, 0) if edges == "drop" else (length, -13 * stride)
    counts = np.bincount(starts - first, minlength=possible)
    assert len(counts) == possible
    expected = counts.sum() / len(counts)
    # each count is binomial: five standard deviations
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_epochs_differ_and_repeat(toy_store: Store) -> None:
    first, again, other = (training_windows(toy_store, ("train",), 9, seed=3, epoch=epoch) for epoch in (1, 1, 2))
    np.testing.assert_array_equal(first.start, again.start)
    assert (first.start != other.start).mean() > 0.8
    assert sorted(shuffled(50, seed=3, epoch=1)) == list(range(50))
    assert (shuffled(50, seed=3, epoch=1) != shuffled(50, seed=3, epoch=2)).any()


def test_strided_training_windows_need_room_for_their_span(toy_store: Store) -> None:
    splits = ("train", "held_out")
    windows = training_windows(toy_store, splits, 9, stride=12, seed=0, epoch=0)
    lengths = toy_store.lengths[toy_store.of_split(*splits)]
    assert len(windows) == sum(length // 9 for length in lengths if length >= 97)
    assert len(windows) == training_count(toy_store, splits, 9, stride=12)
    assert (windows.start + 96 < toy_store.lengths[windows.sequence]).all()
    assert windows.weight.all()


def test_dropped_tail_matches_the_published_count(toy_store: Store) -> None:
    windows = consecutive_windows(toy_store, "test", 27)
    lengths = toy_store.lengths[toy_store.of_split("test")]
    assert len(windows) == sum(length // 27 for length in lengths)
    assert (windows.start % 27 == 0).all()
    assert windows.weight.all()


@pytest.mark.parametrize("stride", [1, 2, 5, 200])
@pytest.mark.parametrize("frames", [9, 27, 80, 200])
def test_kept_tail_counts_every_frame_once(toy_store: Store, frames: int, stride: int) -> None:
    windows = consecutive_windows(toy_store, "test", frames, tail="keep", stride=stride)
    for index in toy_store.of_split("test"):
        length = int(toy_store.lengths[index])
        mine = windows[windows.sequence == index]
        seen = (mine.start[:, None] + stride * np.arange(frames))[mine.weight]
        assert sorted(seen) == list(range(length))


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
def test_a_stride_cuts_interleaved_sequences(toy_store: Store, stride: int) -> None:
    windows = consecutive_windows(toy_store, "test", 9, stride=stride)
    expected = []
    for index in toy_store.of_split("test"):
        for phase in range(stride):
            kept = list(range(phase, toy_store.sequences[index].frames, stride))
            expected += [(index, kept[first]) for first in range(0, len(kept) - 8, 9)]
    assert list(zip(windows.sequence.tolist(), windows.start.tolist(), strict=True)) == expected
    assert windows.weight.all()


@pytest.mark.parametrize(
    ("stride", "edges"),
    [(1, "drop"), (4, "drop"), (1, "replicate"), (30, "replicate"), (1, "replicate_grid"), (30, "replicate_grid")],
)
def test_gather_equals_a_naive_loop(toy_store: Store, stride: int, edges: str) -> None:
    windows = random_windows(toy_store, ("train", "test"), 20, 300, stride=stride, edges=edges, seed=1, epoch=0)
    assert ((windows.start < 0).any() and not windows.weight.all()) == (edges != "drop")
    assert windows[::2].own_grid == (edges == "replicate_grid")
    for found, expected in zip(gather(toy_store, windows), naive(toy_store, windows), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("stride", "edges"), [(1, "drop"), (7, "drop"), (7, "replicate_grid")])
def test_gather_equals_a_naive_loop_where_sequences_are_shorter_than_windows(
    toy_store: Store, stride: int, edges: str
) -> None:
    windows = consecutive_windows(toy_store, "test", 200, tail="keep", stride=stride, edges=edges)
    for found, expected in zip(gather(toy_store, windows), naive(toy_store, windows), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_gathered_columns_lie_beside_the_poses(toy_store: Store) -> None:
    windows = random_windows(toy_store, ("train",), 11, 40, stride=2, edges="replicate", seed=0, epoch=0)
    np.testing.assert_array_equal(gather_column(toy_store, windows, toy_store.keypoints), gather(toy_store, windows)[0])
    assert gather_column(toy_store, windows, toy_store.valid).shape == (40, 11)


def test_random_windows_draw_every_start_alike(toy_store: Store) -> None:
    windows = random_windows(toy_store, ("test",), 27, 60_000, stride=3, seed=5, epoch=0)
    possible = [
        (index, start)
        for index in toy_store.of_split("test")
        for start in range(toy_store.sequences[index].frames - 26 * 3)
    ]
    assert len(possible) > 50
    found, counts = np.unique(np.stack([windows.sequence, windows.start]), axis=1, return_counts=True)
    assert [tuple(column) for column in found.T.tolist()] == possible
    expected = 60_000 / len(possible)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_random_windows_depend_on_seed_and_epoch(toy_store: Store) -> None:
    def drawn(seed: int, epoch: int) -> list[int]:
        return random_windows(toy_store, ("train",), 9, 50, seed=seed, epoch=epoch).start.tolist()

    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn(1, 2) != drawn(2, 2)


def test_frame_rate_gives_every_sequence_its_stride(mixed_rates: Store) -> None:
    for windows in (
        training_windows(mixed_rates, ("train",), 9, frame_rate=50, seed=0, epoch=0),
        random_windows(mixed_rates, ("train",), 9, 100, frame_rate=50, seed=0, epoch=0),
        consecutive_windows(mixed_rates, "test", 9, frame_rate=50),
    ):
        rates = np.array([mixed_rates.sequences[index].frame_rate for index in windows.sequence])
        assert windows.stride is not None
        np.testing.assert_array_equal(windows.stride, rates // 50)
        assert len(set(rates)) > 1
        for found, expected in zip(gather(mixed_rates, windows), naive(mixed_rates, windows), strict=True):
            np.testing.assert_array_equal(found, expected)
    both = consecutive_windows(mixed_rates, "test", 9, frame_rate=50, stride=2)
    assert set(np.asarray(both.stride).tolist()) == {2 * int(mixed_rates.sequences[i].frame_rate) // 50 for i in (6, 7)}


@pytest.mark.parametrize("wanted", [30.0, 49.9, 200.0])
def test_frame_rates_that_do_not_divide_are_refused(mixed_rates: Store, wanted: float) -> None:
    with pytest.raises(ValueError, match=r"data.frame_rate = .* frames per second.*resample when"):
        consecutive_windows(mixed_rates, "test", 9, frame_rate=wanted)


def test_frames_that_are_not_valid_do_not_count(tmp_path: Path) -> None:
    sequences = toy.sequences(40)
    valid = np.arange(len(sequences[6].keypoints)) % 5 > 0
    sequences[6] = replace(sequences[6], valid=valid)
    store = write_store(
        tmp_path / "s", sequences, source="toy", source_config={}, skeleton=H36M_17, protocol=toy.PROTOCOL
    )
    windows = consecutive_windows(store, "test", 10, stride=2)
    for sequence, start, weight in zip(windows.sequence, windows.start, windows.weight, strict=True):
        expected = valid[start + 2 * np.arange(10)] if sequence == 6 else np.ones(10, bool)
        np.testing.assert_array_equal(weight, expected)


def test_gathered_arrays_may_be_changed(toy_store: Store) -> None:
    keypoints, poses = gather(toy_store, consecutive_windows(toy_store, "test", 27))
    keypoints[:] = 0
    poses[:] = 0
    assert np.abs(toy_store.keypoints).max() > 0


def test_too_long_windows_say_what_to_do(toy_store: Store) -> None:
    with pytest.raises(ValueError, match=r"the longest has \d+.*Lower data.frames.*data.edges"):
        training_windows(toy_store, ("train",), 500, seed=0, epoch=0)
    with pytest.raises(ValueError, match=r"has 501 frames.*the longest has \d+"):
        random_windows(toy_store, ("train",), 11, 5, stride=50, seed=0, epoch=0)
    with pytest.raises(ValueError, match=r"Lower data.frames.*data.tail"):
        consecutive_windows(toy_store, "test", 500)


def test_unknown_rules_are_refused(toy_store: Store) -> None:
    with pytest.raises(ValueError, match=r"data.edges = 'mirror'.*drop, replicate"):
        training_windows(toy_store, ("train",), 9, edges="mirror", seed=0, epoch=0)
    with pytest.raises(ValueError, match=r"data.tail = 'mirror'.*drop, keep"):
        consecutive_windows(toy_store, "test", 9, tail="mirror")
    with pytest.raises(ValueError, match=r"data.stride = 0 .* at least 1"):
        consecutive_windows(toy_store, "test", 9, stride=0)


def test_unknown_split_is_refused(toy_store: Store) -> None:
    with pytest.raises(ValueError, match=r"split validation \(present: held_out, test, train\)"):
        toy_store.of_split("validation")
