"""Uniform random numbers that belong to a window, not to a program run.

A mask must not depend on batch size, worker count or order of reading, so every window needs its own stream of numbers.
NumPy's generators are not used for that: each window would need one of its own, made in a Python loop over windows, and
making one costs far more than drawing from it. Here number i of a window is a hash of (seed, sequence, start, i),
computed for all windows at once in NumPy integers.

The hash is the output function of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014, with the constants of Stafford's mix 13): good enough for statistics, of no use for secrets.
"""

from hashlib import blake2b
from math import prod

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""Odd number nearest to 2^64 divided by the golden ratio: the step of SplitMix64's counter."""


def sequence_key(name: str) -> int:
    """Stable key of a sequence in [0, 2^64): the same on every machine, unlike Python's `hash`."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


class WindowDraws:
    """Uniform numbers for N windows at once, each window with a stream of its own.

    seed: any integer; for fresh masks in each epoch hand in another seed in each epoch.
    sequence_keys: (N,) uint64, from `sequence_key`.
    starts: (N,) int64, frame at which the window starts; negative for windows that begin with padding.
    strides: (N,) int64, stored frames from one frame of the window to the next; 1 by default. It is there for patterns
    that must know which frames a window shows, and does not change the numbers.

    Successive calls continue the streams. Two objects with equal arguments give equal numbers call by call, and a
    subset or another order of the windows gives the same numbers for each window.
    """

    starts: np.ndarray
    strides: np.ndarray

    def __init__(
        self, seed: int, sequence_keys: np.ndarray, starts: np.ndarray, strides: np.ndarray | None = None
    ) -> None:
        keys = np.asarray(sequence_keys)
        starts = np.asarray(starts)
        if keys.dtype != np.uint64 or keys.ndim != 1:
            raise ValueError(f"sequence_keys is {keys.dtype} {keys.shape}, expected uint64 (N,): use `sequence_key`.")
        if starts.dtype.kind not in "iu" or starts.shape != keys.shape:
            raise ValueError(f"starts is {starts.dtype} {starts.shape}, expected int64 {keys.shape}: one per window.")
        own = np.ones(keys.shape, dtype=np.int64) if strides is None else np.asarray(strides)
        if own.dtype.kind not in "iu" or own.shape != keys.shape or (own < 1).any():
            raise ValueError(f"strides is {own.dtype} {own.shape}, expected int64 {keys.shape} from 1: one per window.")
        self.starts, self.strides = starts.astype(np.int64), own.astype(np.int64)
        state = _mix(np.full(len(keys), seed % 2**64, np.uint64) + _GAMMA)
        state = _mix((state ^ keys) + _GAMMA)
        self._streams = _mix((state ^ self.starts.view(np.uint64)) + _GAMMA)
        self._drawn = 0

    def __len__(self) -> int:
        return len(self._streams)

    def uniform(self, *shape: int) -> np.ndarray:
        """(N, *shape) float64 in [0, 1), multiples of 2^-53; advances every stream by prod(shape) numbers."""
        count = prod(shape)
        counters = np.arange(self._drawn + 1, self._drawn + count + 1, dtype=np.uint64) * _GAMMA
        self._drawn += count
        bits = _mix(self._streams[:, None] + counters[None, :])
        bits >>= np.uint64(11)
        return (bits * 2.0**-53).reshape(len(self), *shape)

    def integers(self, bound: int) -> np.ndarray:
        """(N,) int64, uniform in {0, ..., bound - 1}; bound is far below 2^53, so rounding cannot be noticed."""
        return (self.uniform() * bound).astype(np.int64)


def _mix(bits: np.ndarray) -> np.ndarray:
    """Bijection of 64-bit integers in which every input bit flips about half the output bits. Changes its argument."""
    bits ^= bits >> np.uint64(30)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits
