"""Windows centred on frames, against loops over frames and the published rules."""

import math

import numpy as np
import pytest

from posegrid.datasets.centred_windows import Interpolation, grid_windows, windows_around
from posegrid.datasets.store import Store
from posegrid.datasets.windows import consecutive_windows, frames_of, gather


@pytest.mark.parametrize(("frames", "step", "stride"), [(9, 1, 1), (9, 9, 1), (9, 4, 3), (27, 27, 1), (5, 7, 2)])
def test_grid_follows_the_chunk_generator(toy_store: Store, frames: int, step: int, stride: int) -> None:
    windows = grid_windows(toy_store, ("train", "test"), frames, step, stride=stride)
    expected = []
    for index in toy_store.of_split("train", "test"):
        length = toy_store.sequences[index].frames
        chunks = math.ceil(length / step)
        off = (chunks * step - length) // 2
        for chunk in range(chunks):
            middle = chunk * step - off + (step - 1) // 2
            expected.append((index, middle - (frames - 1) // 2 * stride))
    assert list(zip(windows.sequence.tolist(), windows.start.tolist(), strict=True)) == expected
    assert windows.weight.all()


def test_step_one_centres_a_window_on_every_frame_and_step_l_tiles_the_video(toy_store: Store) -> None:
    every = grid_windows(toy_store, ("test",), 9, 1)
    frame, _ = frames_of(toy_store, every)
    lengths = toy_store.lengths[toy_store.of_split("test")]
    assert frame[:, 4].tolist() == [f for length in lengths for f in range(length)]
    tiles = grid_windows(toy_store, ("test",), 9, 9)
    frame, length = frames_of(toy_store, tiles)
    inside = frame[(frame >= 0) & (frame < length)]
    assert sorted(inside.tolist()) == sorted(f for length in lengths for f in range(length))


def test_padding_repeats_the_edges(toy_store: Store) -> None:
    windows = grid_windows(toy_store, ("test",), 9, 1)
    keypoints, _ = gather(toy_store, windows[:1])
    first = toy_store.keypoints[toy_store.sequences[windows.sequence[0]].offset :][:5]
    np.testing.assert_array_equal(keypoints[0], np.concatenate([np.repeat(first[:1], 4, 0), first]))


@pytest.mark.parametrize(("stride", "edges"), [(1, "replicate_grid"), (5, "replicate"), (5, "replicate_grid")])
def test_padding_repeats_what_the_rule_says(toy_store: Store, stride: int, edges: str) -> None:
    """Both kinds of centred windows, against the published rule one token at a time."""
    grid = grid_windows(toy_store, ("test",), 21, 1, stride=stride, edges=edges)
    frame = frames_of(toy_store, grid)[0][:, 10]
    around = windows_around(toy_store, grid.sequence, frame, 21, 10, stride=stride, edges=edges)
    keypoints, _ = gather(toy_store, grid)
    np.testing.assert_array_equal(keypoints, gather(toy_store, around)[0])
    expected = np.empty_like(keypoints)
    for row, (index, centre) in enumerate(zip(grid.sequence, frame, strict=True)):
        offset, length = toy_store.sequences[index].offset, toy_store.sequences[index].frames
        tokens = [centre + stride * (token - 10) for token in range(21)]
        inside = [token for token in tokens if 0 <= token < length] if edges == "replicate_grid" else [0, length - 1]
        for column, token in enumerate(tokens):
            held = token if 0 <= token < length else inside[0] if token < 0 else inside[-1]
            expected[row, column] = toy_store.keypoints[offset + held]
    np.testing.assert_array_equal(keypoints, expected)


def test_windows_around_put_the_frame_where_asked(toy_store: Store) -> None:
    index = toy_store.of_split("test")[0]
    sequence, frame = np.full(3, index), np.array([0, 20, 74])
    for at in (0, 4, 8):
        found, _ = frames_of(toy_store, windows_around(toy_store, sequence, frame, 9, at, stride=2))
        np.testing.assert_array_equal(found[:, at], frame)
        np.testing.assert_array_equal(np.diff(found, axis=1), 2)


@pytest.mark.parametrize("every", [1, 2, 5])
def test_interpolation_is_exact_on_kept_frames_and_for_linear_motion(toy_store: Store, every: int) -> None:
    windows = consecutive_windows(toy_store, "test", 9, "keep")
    frames = Interpolation(toy_store, windows, every)
    assert (frames.frame % every == 0).all()
    lengths = toy_store.lengths[toy_store.of_split("test")]
    assert len(frames.frame) == sum(math.ceil(length / every) for length in lengths)
    share = slice(1, None, 2)
    present = frames.needed_by(share)
    values = (3.0 * frames.frame - 7.0)[present, None]  # linear in time
    filled = frames.filled(values, share, present)[..., 0]
    frame, length = frames_of(toy_store, windows[share])
    kept = np.minimum(frame, (length - 1) // every * every)  # after the last kept frame it is repeated
    np.testing.assert_allclose(filled, 3.0 * kept - 7.0)


def test_overlap_counts_all_frames_of_the_last_window(toy_store: Store) -> None:
    keep, overlap = (consecutive_windows(toy_store, "test", 27, tail) for tail in ("keep", "overlap"))
    np.testing.assert_array_equal(keep.start, overlap.start)
    assert overlap.weight.all()
    assert not keep.weight.all()
