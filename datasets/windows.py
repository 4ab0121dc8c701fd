"""Sequences -> windows: where they start, which frames count, and one vectorised gather.

Legend: N windows, L frames of a window, S sequences of the store, J joints, C coordinates. Frame k of a window is frame
start + k * stride of its sequence; a window never shows another sequence.

Frame rate: `frame_rate` (frames per second, 0 = as stored) gives every sequence a stride of its own, so that windows of
recordings at 50 and at 25 frames per second cover the same time; `stride` then counts frames of that rate. Only whole
strides: nothing is interpolated here.

Edges: "drop" wants all frames of a window inside the sequence. "replicate" repeats the first and the last frame, so
that a window can be centred on every frame (its frame L // 2), which is how models of one frame are trained
(VideoPose3D); starts may then be negative. "replicate_grid" repeats the first and the last of those frames of the
sequence that the window shows: with a stride s they may lie up to s - 1 frames from its ends (Uplift and Upsample).
"""

from dataclasses import dataclass, replace

import numpy as np

from posegrid.datasets.occlusions.draws import WindowDraws, sequence_key
from posegrid.datasets.store import Store

TAILS = ("drop", "keep", "overlap")
EDGES = ("drop", "replicate", "replicate_grid")
_BLOCK = 2**18
"""Multiplications of a block in `_subtract_root`: beyond it BLAS starts threads, and the block leaves the cache."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Where N windows lie. Slicing keeps the arrays aligned."""

    sequence: np.ndarray
    """(N,) int64 index into `store.sequences`."""
    start: np.ndarray
    """(N,) int64 first frame within the sequence; negative if the window begins with repeated frames."""
    weight: np.ndarray
    """(N, L) bool, False for frames that another window counts, that repeat the first or last one, or are not valid."""
    stride: np.ndarray | None = None
    """(N,) int64 stored frames from one frame of the window to the next; None: 1."""
    own_grid: bool = False
    """Frames beyond the ends of the sequence repeat the window's first or last frame inside, not the sequence's."""

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, rows: slice | np.ndarray) -> "Windows":
        return Windows(
            sequence=self.sequence[rows],
            start=self.start[rows],
            weight=self.weight[rows],
            stride=None if self.stride is None else self.stride[rows],
            own_grid=self.own_grid,
        )


def training_windows(
    store: Store,
    splits: tuple[str, ...],
    frames: int,
    *,
    stride: int = 1,
    frame_rate: float = 0.0,
    edges: str = "drop",
    seed: int,
    epoch: int,
) -> Windows:
    """The windows of one epoch as DiffHPE cuts them: floor(F/L) per sequence, each at a fresh random start.

    A window spans P = (L-1) * stride + 1 stored frames. The start is uniform in {0, ..., F-P-1} (the last possible
    window is never drawn, as published; F = P gives 0); sequences of fewer than P frames have no window. With edges
    "replicate" or "replicate_grid" every sequence has at least one window and its centre is uniform over all F frames.
    Order: item by item of every sequence; `shuffled` gives the order of the epoch.
    Raises ValueError if no window fits, or if a stored frame rate is no multiple of `frame_rate`.
    """
    indices, strides, spans = strides_and_spans(store, splits, frames, stride, frame_rate)
    counts = _training_counts(store.lengths[indices], spans, frames, edges)
    if not counts.sum():
        raise _too_short(store, splits, spans, 'data.edges = "replicate", which repeats the first and last frame')
    sequence, length, span, step = (
        np.repeat(column, counts) for column in (indices, store.lengths[indices], spans, strides)
    )
    item = np.arange(len(sequence), dtype=np.int64)
    uniform = WindowDraws(epoch_seed(seed, epoch), sequence_keys(store)[sequence], item).uniform()
    possible = length if centred(edges) else np.maximum(length - span, 1)
    start = np.floor(uniform * possible).astype(np.int64) - _before_centre(frames, step, edges)
    return counted_windows(store, sequence, start, step, frames, edges)


def training_count(
    store: Store,
    splits: tuple[str, ...],
    frames: int,
    *,
    stride: int = 1,
    frame_rate: float = 0.0,
    edges: str = "drop",
) -> int:
    """How many windows `training_windows` gives."""
    indices, _, spans = strides_and_spans(store, splits, frames, stride, frame_rate)
    return int(_training_counts(store.lengths[indices], spans, frames, edges).sum())


def random_windows(
    store: Store,
    splits: tuple[str, ...],
    frames: int,
    count: int,
    *,
    stride: int = 1,
    frame_rate: float = 0.0,
    edges: str = "drop",
    seed: int,
    epoch: int,
) -> Windows:
    """`count` windows, each drawn uniformly from all valid starts of all sequences together, with repetition.

    A sequence of F frames has F - (L-1) * stride valid starts with edges "drop", and F (one centred on each frame) with
    the others. Raises ValueError if no window fits, or if a stored frame rate is no multiple of `frame_rate`.
    """
    indices, strides, spans = strides_and_spans(store, splits, frames, stride, frame_rate)
    lengths = store.lengths[indices]
    ends = np.cumsum(lengths if centred(edges) else np.maximum(lengths - spans + 1, 0))
    if not ends[-1]:
        raise _too_short(store, splits, spans, 'data.edges = "replicate", which repeats the first and last frame')
    drawn = np.random.default_rng([epoch_seed(seed, epoch), 1]).integers(0, ends[-1], count)
    row = np.searchsorted(ends, drawn, side="right")
    start = drawn - np.append(0, ends)[row] - _before_centre(frames, strides[row], edges)
    return counted_windows(store, indices[row], start, strides[row], frames, edges)


def consecutive_windows(
    store: Store,
    split: str,
    frames: int,
    tail: str = "drop",
    *,
    stride: int = 1,
    frame_rate: float = 0.0,
    edges: str = "drop",
) -> Windows:
    """Non-overlapping windows for tests and selection.

    tail "drop" (DiffHPE): starts 0, L, 2L, ...; the last F mod L frames are never seen. tail "keep": one more window
    covers the last L frames, of which only the new ones count; shorter sequences are padded by repeating the last
    frame, and the padding does not count. tail "overlap" (MixSTE, D3DP): the windows of "keep"
    with all their frames, so that overlapping and padded ones count.

    With a stride s a sequence is s interleaved ones (frames p, p+s, p+2s, ... for p = 0, ..., s-1), each cut by these
    rules: "keep" still counts every stored frame once, "drop" leaves out fewer than L frames of each. With edges
    "replicate_grid" padding repeats the last frame of the interleaved sequence, otherwise that of the whole one.
    Order: sequence, p, start. Raises ValueError if no window fits, or if a stored frame rate is no multiple of
    `frame_rate`.
    """
    if tail not in TAILS:
        raise ValueError(f"data.tail = {tail!r} is unknown. Allowed: {', '.join(TAILS)}.")
    sequence, step, phase, length, spans = interleaved(store, split, frames, stride, frame_rate)
    rest = length % frames
    counts: np.ndarray = length // frames + ((rest > 0) if tail != "drop" else 0)
    sequence, step, phase, length, rest = (
        np.repeat(column, counts) for column in (sequence, step, phase, length, rest)
    )
    first = counted_up(counts) * frames
    late = first + frames > length
    # the last window of "keep" moves back to end with the sequence: its last `rest` frames are new. In a sequence
    # shorter than a window they come first, and padding follows
    new_from = np.where(late & (length >= frames), frames - rest, 0)
    new_until = np.where(late & (length < frames), rest, frames)
    first = np.where(late, np.maximum(length - frames, 0), first)
    frame = np.arange(frames)
    weight = (frame >= new_from[:, None]) & (frame < new_until[:, None])
    if not len(sequence):
        raise _too_short(store, (split,), spans, 'data.tail = "keep", which pads short sequences')
    found = counted_windows(store, sequence, phase + first * step, step, frames, edges)
    if tail == "overlap":
        weight = gather_column(store, found, store.valid)
    else:
        weight &= found.weight
    return replace(found, weight=weight)


def interleaved(
    store: Store, split: str, frames: int, stride: int, frame_rate: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sequences of a split as windows with a stride s see them: s of them, frames p, p+s, p+2s, ... for p < s.

    One row for each that has a frame, ordered by sequence and p: index of the stored sequence, s, p, frames; and, one
    for each stored sequence, the stored frames that a window spans. Each int64. Raises ValueError as
    `strides_and_spans` does.
    """
    indices, strides, spans = strides_and_spans(store, (split,), frames, stride, frame_rate)
    lengths = store.lengths[indices]
    shares = np.minimum(strides, lengths)
    sequence, step, phase = np.repeat(indices, shares), np.repeat(strides, shares), counted_up(shares)
    length = (np.repeat(lengths, shares) - phase + step - 1) // step
    return sequence, step, phase, length, spans


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
    """Keypoints (N, L, J, 2) normalised screen and root-relative poses (N, L, J, 3) metres, fresh arrays.

    Frames before the start or past the end of a sequence repeat its first or last frame (see `Windows.own_grid`).
    """
    rows = _rows(store, windows)
    poses = np.empty((*rows.shape, *store.poses.shape[1:]), dtype=np.float32)
    flat, flat_rows, source = poses.reshape(rows.size, -1), rows.reshape(-1), _flat(store.poses)
    joints = len(store.skeleton)
    block = max(_BLOCK // (9 * joints), 1)
    expand = np.tile(np.eye(3, dtype=np.float32), (1, joints))
    roots = np.empty((block, flat.shape[1]), dtype=np.float32)
    coordinates = slice(3 * store.skeleton.root, 3 * store.skeleton.root + 3)
    # block by block, so that the subtraction finds in the cache what was just copied
    for first in range(0, len(flat), block):
        part = flat[first : first + block]
        np.take(source, flat_rows[first : first + block], axis=0, out=part, mode="clip")
        _subtract_root(part, coordinates, expand, roots[: len(part)])
    return _taken(store.keypoints, rows), poses


def gather_column(store: Store, windows: Windows, column: np.ndarray) -> np.ndarray:
    """(N, L, ...) of one of the store's arrays, such as `store.confidence`, as `gather` does it."""
    return _taken(column, _rows(store, windows))


def _subtract_root(part: np.ndarray, root: slice, expand: np.ndarray, roots: np.ndarray) -> None:
    """Subtract the root's coordinates from every joint of (F, J*3), in place.

    The product with `expand` (3, J*3), ones and zeros, repeats them exactly. NumPy's own broadcasting over the short
    axis of coordinates takes twice as long.
    """
    np.matmul(part[:, root], expand, out=roots)
    np.subtract(part, roots, out=part)


def _taken(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """array[rows]. Every row is in range: "clip" only tells NumPy to write into `out` without another copy."""
    out = np.empty((*rows.shape, *array.shape[1:]), dtype=array.dtype)
    np.take(_flat(array), rows, axis=0, out=out.reshape(*rows.shape, -1), mode="clip")
    return out


def _flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(len(array), -1)


def _rows(store: Store, windows: Windows) -> np.ndarray:
    """(N, L) rows of the frame table."""
    frame, length = frames_of(store, windows)
    if (frame[:, :1] < 0).any() or (frame[:, -1:] >= length).any():
        if windows.own_grid and windows.stride is not None:
            start, stride = windows.start[:, None], windows.stride[:, None]
            # the first frame inside is number ceil(-start / stride), the last one floor((length - 1 - start) / stride)
            step = np.clip(np.arange(frame.shape[1]), -(start // stride), (length - 1 - start) // stride)
            frame = start + step * stride
        np.clip(frame, 0, length - 1, out=frame)
    frame += store.offsets[windows.sequence][:, None]
    return frame


def frames_of(store: Store, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """(N, L) frames within the sequences, also beyond their ends, and (N, 1) lengths."""
    return _frames(store, windows.sequence, windows.start, windows.stride, windows.weight.shape[1])


def _frames(
    store: Store, sequence: np.ndarray, start: np.ndarray, stride: np.ndarray | None, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """(N, L) frames within the sequences, also beyond their ends, and (N, 1) lengths."""
    steps = np.arange(frames) if stride is None else np.arange(frames) * stride[:, None]
    return start[:, None] + steps, store.lengths[sequence][:, None]


def counted_windows(
    store: Store, sequence: np.ndarray, start: np.ndarray, stride: np.ndarray, frames: int, edges: str
) -> Windows:
    """Windows that count every frame that is inside its sequence and valid."""
    frame, length = _frames(store, sequence, start, stride, frames)
    weight = (frame >= 0) & (frame < length)
    found = Windows(sequence=sequence, start=start, weight=weight, stride=stride, own_grid=on_own_grid(edges))
    if not store.valid.all():
        found.weight[:] &= gather_column(store, found, store.valid)
    return found


def strides_and_spans(
    store: Store, splits: tuple[str, ...], frames: int, stride: int, frame_rate: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the sequences of some splits: index, stride, stored frames that a window spans; each (S',) int64.

    Raises ValueError if a split is empty, or if a stored frame rate is no multiple of `frame_rate`.
    """
    if stride < 1 or frames < 1:
        raise ValueError(f"data.stride = {stride} and data.frames = {frames} must be at least 1.")
    indices = np.array(store.of_split(*splits), dtype=np.int64)
    strides = np.full(len(indices), stride, dtype=np.int64)
    if frame_rate:
        stored = np.array([store.sequences[index].frame_rate for index in indices])
        ratio = np.maximum(np.round(stored / frame_rate), 1)
        wrong = np.flatnonzero(np.abs(ratio * frame_rate - stored) > 1e-6 * stored)
        if len(wrong):
            first = store.sequences[indices[wrong[0]]]
            raise ValueError(
                f"data.frame_rate = {frame_rate:g}, but {len(wrong)} sequences of split {' or '.join(splits)} in "
                f"{store.path} have other rates that are no whole multiple of it: {first.name} has "
                f"{first.frame_rate:g} frames per second. Allowed: a rate that divides every stored one, or 0 (as "
                "stored). Choose one, or resample when the data set is prepared."
            )
        strides *= ratio.astype(np.int64)
    return indices, strides, (frames - 1) * strides + 1


def _training_counts(lengths: np.ndarray, spans: np.ndarray, frames: int, edges: str) -> np.ndarray:
    whole = lengths // frames
    return np.maximum(whole, 1) if centred(edges) else np.where(lengths >= spans, whole, 0)


def _before_centre(frames: int, stride: np.ndarray, edges: str) -> np.ndarray | int:
    """Stored frames between the start and what was drawn: the start itself, or the centre."""
    return frames // 2 * stride if centred(edges) else 0


def counted_up(counts: np.ndarray) -> np.ndarray:
    """0, ..., counts[0]-1, 0, ..., counts[1]-1, ..."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def centred(edges: str) -> bool:
    """Whether random windows are centred on any frame. Raises ValueError for an unknown rule."""
    if edges not in EDGES:
        raise ValueError(f"data.edges = {edges!r} is unknown. Allowed: {', '.join(EDGES)}.")
    return edges != "drop"


def on_own_grid(edges: str) -> bool:
    """`Windows.own_grid` by that rule. Raises ValueError for an unknown one."""
    return centred(edges) and edges == "replicate_grid"


def _too_short(store: Store, splits: tuple[str, ...], spans: np.ndarray, instead: str) -> ValueError:
    longest = store.lengths[store.of_split(*splits)].max()
    return ValueError(
        f"no sequence of split {' or '.join(splits)} in {store.path} has {spans.min()} frames (the longest has "
        f"{longest}). Lower data.frames or data.stride, or set {instead}."
    )
