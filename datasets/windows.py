"""Sequences -> windows: where they start, which frames count, and one vectorised gather.

Legend: N windows, L frames of a window, J joints. A window never crosses the border of a sequence.
"""

from dataclasses import dataclass

import numpy as np

from posegrid.datasets.occlusions.draws import WindowDraws, sequence_key
from posegrid.datasets.store import Store

TAILS = ("drop", "keep")


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Where N windows lie. Slicing keeps the arrays aligned."""

    sequence: np.ndarray
    """(N,) int64 index into `store.sequences`."""
    start: np.ndarray
    """(N,) int64 first frame within the sequence."""
    weight: np.ndarray
    """(N, L) bool, False for frames that another window counts, that only pad a short sequence, or are not valid."""

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, rows: slice | np.ndarray) -> "Windows":
        return Windows(sequence=self.sequence[rows], start=self.start[rows], weight=self.weight[rows])


def _too_short(store: Store, splits: tuple[str, ...], frames: int) -> ValueError:
    longest = store.lengths[store.of_split(*splits)].max()
    return ValueError(
        f"no sequence of split {' or '.join(splits)} in {store.path} has {frames} frames (the longest has {longest}). "
        'Lower data.frames, or set data.tail = "keep", which pads short sequences.'
    )


def training_windows(store: Store, splits: tuple[str, ...], frames: int, *, seed: int, epoch: int) -> Windows:
    """The windows of one epoch as DiffHPE cuts them: floor(F/L) per sequence, each at a fresh random start.

    The start is uniform in {0, ..., F-L-1} (the last possible window is never drawn, as published; F = L gives 0).
    Order: item by item of every sequence; `shuffled` gives the order of the epoch.
    """
    indices = store.of_split(*splits)
    lengths = store.lengths[indices]
    sequence = np.repeat(np.array(indices, dtype=np.int64), lengths // frames)
    if not len(sequence):
        raise _too_short(store, splits, frames)
    length = np.repeat(lengths, lengths // frames)
    item = np.arange(len(sequence), dtype=np.int64)
    keys = sequence_keys(store)[sequence]
    uniform = WindowDraws(epoch_seed(seed, epoch), keys, item).uniform()
    start = np.floor(uniform * np.maximum(length - frames, 1)).astype(np.int64)
    return Windows(sequence=sequence, start=start, weight=np.ones((len(sequence), frames), dtype=bool))


def consecutive_windows(store: Store, split: str, frames: int, tail: str = "drop") -> Windows:
    """Non-overlapping windows for tests and selection.

    tail "drop" (DiffHPE): starts 0, L, 2L, ...; the last F mod L frames are never seen. tail "keep": one more window
    covers the last L frames, of which only the new ones count; shorter sequences are padded by repeating the last
    frame, and the padding does not count.
    """
    if tail not in TAILS:
        raise ValueError(f"data.tail = {tail!r} is unknown. Allowed: {', '.join(TAILS)}.")
    parts = []
    for index in store.of_split(split):
        length = store.sequences[index].frames
        starts = np.arange(length // frames, dtype=np.int64) * frames
        weight = np.ones((len(starts), frames), dtype=bool)
        rest = length % frames
        if tail == "keep" and rest:
            last = max(length - frames, 0)
            # the last `rest` frames are new; in a sequence shorter than a window they come first and padding follows
            new = np.arange(frames) >= frames - rest if length >= frames else np.arange(frames) < rest
            starts, weight = np.append(starts, last), np.concatenate([weight, new[None]])
        parts.append((np.full(len(starts), index, dtype=np.int64), starts, weight))
    sequence, start, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    weight &= store.valid[_rows(store, sequence, start, frames)]
    if not len(start):
        raise _too_short(store, (split,), frames)
    return Windows(sequence=sequence, start=start, weight=weight)


def shuffled(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """Order (count,) of an epoch: a function of seed and epoch alone, so a resumed run needs no sampler state."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def sequence_keys(store: Store) -> np.ndarray:
    """(S,) uint64 stable key of each sequence's name, the same in every store that holds it."""
    return np.array([sequence_key(sequence.name) for sequence in store.sequences], dtype=np.uint64)


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for one epoch, unrelated to those of its neighbours."""
    return sequence_key(f"seed {seed} epoch {epoch}") >> 1


def gather(store: Store, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (N, L, J, 2) normalised screen and root-relative poses (N, L, J, 3) metres, in one fancy index each.

    Frames past the end of a sequence repeat its last frame.
    """
    rows = _rows(store, windows.sequence, windows.start, windows.weight.shape[1])
    poses = store.poses[rows]
    root = store.skeleton.root
    return store.keypoints[rows], poses - poses[:, :, root : root + 1]


def _rows(store: Store, sequence: np.ndarray, start: np.ndarray, frames: int) -> np.ndarray:
    """(N, L) rows of the frame table."""
    offset, length = store.offsets[sequence], store.lengths[sequence]
    return offset[:, None] + np.minimum(start[:, None] + np.arange(frames), length[:, None] - 1)
