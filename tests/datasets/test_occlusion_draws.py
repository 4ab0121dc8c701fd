"""The numbers behind the masks: uniform, independent of their neighbours, the same in any batch and on any machine.

Tolerances are multiples of the standard deviation of the tested figure; seeds are fixed.
"""

import numpy as np
import pytest

from posegrid.datasets.occlusions.draws import WindowDraws, sequence_key

KEY = sequence_key("S9/Walking/54138969")
FIVE = 5.0
"""Standard deviations allowed. A test compares at most a few hundred figures, so chance exceeds this once in 10,000."""


def draws(seed: int = 0, windows: int = 20_000, first: int = 0, key: int = KEY) -> WindowDraws:
    return WindowDraws(seed, np.full(windows, key, np.uint64), np.arange(first, first + windows))


def chi_square_deviation(counts: np.ndarray) -> float:
    """How many standard deviations the chi-square statistic of equally likely bins lies from its mean."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    return float((np.square(counts - expected).sum() / expected - freedom) / np.sqrt(2 * freedom))


def assert_independent(first: np.ndarray, second: np.ndarray) -> None:
    """No linear relation, and all 16 x 16 cells of the joint distribution are equally likely."""
    assert abs(np.corrcoef(first, second)[0, 1]) * np.sqrt(first.size) < FIVE
    cells = np.bincount((first * 16).astype(int) * 16 + (second * 16).astype(int), minlength=256)
    assert abs(chi_square_deviation(cells)) < FIVE


def test_numbers_are_pinned():
    """A change of these numbers would change the masks of every stored run."""
    assert KEY == 17296736538680176627
    numbers = WindowDraws(7, np.array([KEY, KEY], np.uint64), np.array([0, 27])).uniform(2)
    assert numbers.tolist() == [[0.11925117389055084, 0.6506686189324238], [0.9911297245737832, 0.7229804530214895]]


def test_numbers_equal_splitmix_in_plain_integers():
    mask, gamma = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(bits: int) -> int:
        bits = ((bits ^ bits >> 30) * 0xBF58476D1CE4E5B9) & mask
        bits = ((bits ^ bits >> 27) * 0x94D049BB133111EB) & mask
        return bits ^ bits >> 31

    for seed, key, start in ((0, 0, 0), (3, KEY, 27), (-1, 2**64 - 1, -13), (2**70 + 5, 1, 2**40)):
        state = 0
        for part in (seed, key, start):
            state = mix(((state ^ part) + gamma) & mask)
        expected = [(mix((state + (i + 1) * gamma) & mask) >> 11) / 2**53 for i in range(6)]
        numbers = WindowDraws(seed, np.array([key], np.uint64), np.array([start])).uniform(2, 3)
        assert numbers.ravel().tolist() == expected


def test_shapes_and_range():
    source = draws(windows=50)
    assert source.uniform().shape == (50,)
    assert source.uniform(27, 17).shape == (50, 27, 17)
    assert source.uniform(0).shape == (50, 0)
    assert draws(windows=0).uniform(3).shape == (0, 3)
    numbers = source.uniform(1000)
    assert numbers.dtype == np.float64
    assert numbers.min() >= 0
    assert numbers.max() < 1


def test_calls_continue_the_stream():
    whole = draws(windows=20).uniform(17)
    source = draws(windows=20)
    parts = [source.uniform(3, 4).reshape(20, 12), source.uniform()[:, None], source.uniform(4)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


def test_numbers_do_not_depend_on_order_or_batch():
    generator = np.random.default_rng(0)
    keys = generator.integers(0, 2**64, 300, dtype=np.uint64)
    starts = generator.integers(-27, 5000, 300)
    whole = WindowDraws(5, keys, starts).uniform(4)
    order = generator.permutation(300)
    assert np.array_equal(WindowDraws(5, keys[order], starts[order]).uniform(4), whole[order])
    assert np.array_equal(WindowDraws(5, keys[100:117], starts[100:117]).uniform(4), whole[100:117])


@pytest.mark.parametrize("bins", [2, 17, 256, 4096])
def test_numbers_are_uniform(bins):
    numbers = draws(windows=2000).uniform(200).ravel()
    assert abs(numbers.mean() - 0.5) < FIVE * np.sqrt(1 / 12 / numbers.size)
    assert abs(numbers.var() - 1 / 12) < FIVE * np.sqrt(1 / 180 / numbers.size)
    assert abs(chi_square_deviation(np.bincount((numbers * bins).astype(int), minlength=bins))) < FIVE


def test_every_bit_is_balanced():
    bits = (draws(windows=1000).uniform(100).ravel() * 2**53).astype(np.uint64)
    for position in range(53):
        share = ((bits >> np.uint64(position)) & np.uint64(1)).mean()
        assert abs(share - 0.5) < FIVE * 0.5 / np.sqrt(bits.size)


@pytest.mark.parametrize("distance", [1, 2, 27, 243, 4096])
def test_neighbouring_windows_are_independent(distance):
    assert_independent(draws().uniform(), draws(first=distance).uniform())


def test_neighbouring_seeds_sequences_and_draws_are_independent():
    base = draws().uniform(30)
    assert_independent(base[:, 0], draws(seed=1).uniform())
    assert_independent(base[:, 0], draws(key=KEY + 1).uniform())
    assert_independent(base[:, 0], draws(key=sequence_key("S9/Walking/55011271")).uniform())
    for lag in (1, 2, 17, 27):
        assert_independent(base[:, 0], base[:, lag])
        # the number of one window against a later number of the next window
        assert_independent(base[:-1, 0], base[1:, lag])


def test_seeds_alone_give_uniform_numbers():
    """One window under 5,000 seeds."""
    one_window = np.array([draws(seed=seed, windows=1).uniform()[0] for seed in range(5_000)])
    assert abs(chi_square_deviation(np.bincount((one_window * 64).astype(int), minlength=64))) < FIVE
    assert_independent(one_window[:-1], one_window[1:])


def test_no_two_windows_share_a_stream():
    keys = np.array([sequence_key(f"S{i}") for i in range(300)], np.uint64)
    numbers = WindowDraws(0, np.repeat(keys, 300), np.tile(np.arange(300), 300)).uniform()
    # 90,000 numbers of 53 bits collide with a probability below one in a million
    assert np.unique(numbers).size == numbers.size


def test_integers_are_uniform():
    values = draws().integers(17)
    assert values.dtype == np.int64
    assert abs(chi_square_deviation(np.bincount(values, minlength=17))) < FIVE
    assert not draws().integers(1).any()


def test_sequence_keys_differ():
    names = [
        f"S{subject}/Walking {take}/cam{camera}" for subject in range(20) for take in range(20) for camera in range(4)
    ]
    keys = {sequence_key(name) for name in names}
    assert len(keys) == len(names)
    assert all(0 <= key < 2**64 for key in keys)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="sequence_keys is int64"):
        WindowDraws(0, np.zeros(3, np.int64), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="starts is float64"):
        WindowDraws(0, np.zeros(3, np.uint64), np.zeros(3))
    with pytest.raises(ValueError, match=r"starts is int64 \(2,\)"):
        WindowDraws(0, np.zeros(3, np.uint64), np.zeros(2, np.int64))


def test_strides_are_there_to_read_and_change_no_number():
    keys, starts = np.array([KEY, KEY], np.uint64), np.array([0, 27])
    plain, strided = WindowDraws(7, keys, starts), WindowDraws(7, keys, starts, np.array([2, 5]))
    assert plain.strides.tolist() == [1, 1]
    assert strided.strides.tolist() == [2, 5]
    assert strided.starts.tolist() == [0, 27]
    assert np.array_equal(plain.uniform(5), strided.uniform(5))
    for wrong in (np.array([2]), np.array([0, 1]), np.array([1.0, 2.0])):
        with pytest.raises(ValueError, match=r"strides is .*: one per window"):
            WindowDraws(7, keys, starts, wrong)
