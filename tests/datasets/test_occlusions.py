"""Every occlusion pattern: exact rules, determinism, statistics of the released DiffHPE code.

A new file in datasets/occlusions is picked up by the tests that are parametrised by `occlusion_names()`.
"""

from dataclasses import FrozenInstanceError, fields, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from posegrid.datasets.occlusions.draws import WindowDraws, sequence_key
from posegrid.datasets.occlusions.hiding import zero_hidden
from posegrid.datasets.occlusions.registry import masks, occlusion_config, occlusion_names
from posegrid.datasets.skeletons import H36M_17, Skeleton

PARITY = Path(__file__).parents[2].parent / "shared" / "parity"
NAMES = occlusion_names()
LIMBS = [1, 2, 3, 11, 12, 13]
LEG = [1, 2, 3]
RELEASED = {
    "none": "no_miss",
    "random_joints": "random",
    "arm_leg": "random_left_arm_right_leg",
    "leg_run": "structured_joint",
    "frame_run": "structured_frame",
}
TOGETHER = {"none": 1, "random_joints": 1, "arm_leg": 6, "leg_run": 3, "frame_run": 17}
"""Joints that are hidden together."""
FIVE = 5.0
"""Standard deviations allowed; each pattern compares about 150 figures."""

TWO_BONES = Skeleton(name="two_bones", joints=("Knee", "Hip", "Foot"), parents=(1, -1, 0), left=(), right=())


def windows(count: int, seed: int = 0) -> WindowDraws:
    """Windows of a few long sequences, 27 frames apart."""
    keys = np.array([sequence_key(f"S9/{index % 7}") for index in range(count)], np.uint64)
    return WindowDraws(seed, keys, np.arange(count) // 7 * 27)


def drawn(name: str, frames: int = 27, count: int = 500, seed: int = 0, skeleton: Skeleton = H36M_17, **values):
    return masks(name, occlusion_config(name, values), windows(count, seed), frames, skeleton)


def run_lengths(hidden: np.ndarray) -> np.ndarray:
    """Lengths of the runs of True along axis 1 of (N, L, J), over all windows and joints."""
    edge = np.zeros((len(hidden), 1, hidden.shape[2]), np.int8)
    steps = np.diff(np.concatenate([edge, hidden.astype(np.int8), edge], axis=1), axis=1).transpose(0, 2, 1)
    return np.nonzero(steps.ravel() < 0)[0] - np.nonzero(steps.ravel() > 0)[0]


def test_all_published_patterns_are_there():
    assert set(RELEASED) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_pattern_file_keeps_the_contract(name):
    config = import_module(f"posegrid.datasets.occlusions.{name}").Config
    assert config.__dataclass_params__.frozen
    assert all(field.kw_only for field in fields(config))
    assert occlusion_config(name, {}) == config()
    with pytest.raises((FrozenInstanceError, AttributeError)):
        config().rate = 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frames", [9, 27, 81])
def test_masks_are_boolean_of_the_right_shape(name, frames):
    visible = drawn(name, frames=frames, count=50)
    assert visible.dtype == np.bool_
    assert visible.shape == (50, frames, 17)
    assert drawn(name, count=0).shape == (0, 27, 17)


@pytest.mark.parametrize("name", NAMES)
def test_masks_are_repeatable_and_follow_the_seed(name):
    assert np.array_equal(drawn(name), drawn(name))
    if name != "none":
        assert not np.array_equal(drawn(name), drawn(name, seed=1))


@pytest.mark.parametrize("name", NAMES)
def test_masks_do_not_depend_on_order_or_batch(name):
    generator = np.random.default_rng(3)
    keys = generator.integers(0, 2**64, 400, dtype=np.uint64)
    starts = generator.integers(0, 5000, 400)
    config = occlusion_config(name, {})

    def of(rows: np.ndarray) -> np.ndarray:
        return masks(name, config, WindowDraws(11, keys[rows], starts[rows]), 27, H36M_17)

    everything = of(np.arange(400))
    order = generator.permutation(400)
    assert np.array_equal(of(order), everything[order])
    assert np.array_equal(np.concatenate([of(rows) for rows in np.array_split(np.arange(400), 7)]), everything)


@pytest.mark.parametrize("name", NAMES)
def test_joints_are_found_by_name_in_any_order(name):
    order = np.random.default_rng(1).permutation(17)
    shuffled = replace(H36M_17, name="shuffled", joints=tuple(H36M_17.joints[joint] for joint in order))
    rate = drawn(name, count=4000).mean(axis=(0, 1))
    assert np.abs(drawn(name, count=4000, skeleton=shuffled).mean(axis=(0, 1)) - rate[order]).max() < 0.02


@pytest.mark.parametrize("name", NAMES)
def test_small_skeletons_work_or_say_what_is_missing(name):
    config = occlusion_config(name, {})
    if hasattr(config, "joints"):
        with pytest.raises(ValueError, match=f'occlusion "{name}": skeleton two_bones has no joint'):
            drawn(name, skeleton=TWO_BONES)
        visible = drawn(name, skeleton=TWO_BONES, joints=["Foot"])
        assert visible[:, :, :2].all()
        assert not visible[:, :, 2].all()
    else:
        assert drawn(name, skeleton=TWO_BONES).shape == (500, 27, 3)


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(occlusion_config(name, {}), "rate")])
def test_rate_zero_hides_nothing(name):
    assert drawn(name, rate=0).all()


@pytest.mark.parametrize("frames", [3, 9, 25, 27, 50, 81, 243])
@pytest.mark.parametrize("rate", [0.37, 0.4, 0.99])
def test_arm_leg_hides_an_exact_number_of_frames(frames, rate):
    hidden = ~drawn("arm_leg", frames=frames, rate=rate)
    assert (hidden[:, :, LIMBS].sum(axis=1) == int(rate * frames)).all()
    assert (hidden[:, :, LIMBS] == hidden[:, :, LIMBS[:1]]).all()
    assert not np.delete(hidden, LIMBS, axis=2).any()


def test_arm_leg_chooses_all_subsets_alike():
    hidden = ~drawn("arm_leg", frames=6, rate=0.5, count=40_000)[:, :, 1]
    counts = np.bincount(hidden @ (1 << np.arange(6)), minlength=64)
    counts = counts[counts > 0]
    assert counts.size == 20  # 6 choose 3
    assert np.abs(counts - 2000).max() < FIVE * np.sqrt(40_000 * 0.05 * 0.95)


@pytest.mark.parametrize(("name", "joints"), [("leg_run", LEG), ("frame_run", list(range(17)))])
@pytest.mark.parametrize("frames", [3, 9, 25, 27, 50, 81, 243])
@pytest.mark.parametrize("rate", [0.34, 0.4, 0.99])
def test_runs_have_an_exact_length_and_spare_the_last_frame(name, joints, frames, rate):
    hidden = ~drawn(name, frames=frames, rate=rate)
    count = int(rate * frames)
    assert (run_lengths(hidden) == count).all()
    assert run_lengths(hidden).size == 500 * len(joints)
    assert not hidden[:, -1].any()
    assert (hidden[:, :, joints] == hidden[:, :, joints[:1]]).all()
    assert not np.delete(hidden, joints, axis=2).any()


@pytest.mark.parametrize(("name", "starts"), [("leg_run", 17), ("frame_run", 22)])
def test_runs_start_uniformly(name, starts):
    first = np.argmin(drawn(name, count=20_000)[:, :, 1], axis=1)
    counts = np.bincount(first, minlength=27)
    assert not counts[starts:].any()
    chance = 1 / starts
    deviation = np.sqrt(20_000 * chance * (1 - chance))
    assert np.abs(counts[:starts] - 20_000 * chance).max() < FIVE * deviation


def test_random_joints_are_independent_over_frames_and_joints():
    hidden = ~drawn("random_joints", count=20_000)
    for first, second in (
        (hidden[:, 1:], hidden[:, :-1]),
        (hidden[:, :, 1:], hidden[:, :, :-1]),
        (hidden[1:], hidden[:-1]),
    ):
        both = (first & second).mean()
        # variance of one pair, and twice its covariance with the next pair, which shares an entry
        assert abs(both - 0.04) < FIVE * np.sqrt((0.04 * 0.96 + 2 * (0.2**3 - 0.2**4)) / first.size)


@pytest.mark.parametrize("name", list(RELEASED))
def test_statistics_equal_those_of_the_released_code(name):
    """Two samples of 20,000 windows: a count differs by at most five deviations of the difference of two counts."""
    file = PARITY / "occlusion_statistics.npz"
    if not file.is_file():
        pytest.skip(f"parity fixture {file.name} is not here")
    with np.load(file) as fixture:
        released = {
            key.removeprefix(f"output_{RELEASED[name]}_20000_"): fixture[key]
            for key in fixture.files
            if key.startswith(f"output_{RELEASED[name]}_20000_")
        }
    count, frames, joints = 20_000, 27, 17
    visible = drawn(name, count=count)
    hidden = ~visible
    any_hidden = hidden.any(axis=2)
    first = np.where(any_hidden.any(axis=1), any_hidden.argmax(axis=1), frames)
    together = TOGETHER[name]

    def assert_counts(ours: np.ndarray, theirs: np.ndarray, copies: int = 1) -> None:
        """Histograms of events that come in groups of `copies` equal ones."""
        ours, theirs = ours / copies, theirs / copies
        assert ours.shape == theirs.shape
        assert (np.abs(ours - theirs) <= FIVE * np.sqrt(np.maximum(ours + theirs, 1))).all()

    assert abs(hidden.mean() - released["rate"]) < FIVE * np.sqrt(2 * 0.2 * 0.8 / hidden.size)
    for what, axes, independent in (("joint", (0, 1), count * frames), ("frame", (0, 2), count * joints / together)):
        ours, theirs = hidden.mean(axis=axes), released[f"rate_per_{what}"]
        chance = np.clip((ours + theirs) / 2, 1e-4, 1)
        assert (np.abs(ours - theirs) < FIVE * np.sqrt(2 * chance * (1 - chance) / independent) + 1e-9).all()
    assert_counts(np.bincount(any_hidden.sum(axis=1), minlength=28), released["hidden_frames_histogram"])
    assert_counts(np.bincount(first, minlength=28), released["first_hidden_frame_histogram"])
    assert_counts(np.bincount(run_lengths(hidden), minlength=28), released["run_length_histogram"], together)
    assert_counts(np.bincount(hidden.sum(axis=2).ravel(), minlength=18), released["hidden_joints_histogram"])
    if name not in ("none", "random_joints"):
        # the patterns with exact counts agree to the last digit
        for key in ("hidden_frames_histogram", "hidden_joints_histogram"):
            axis = any_hidden.sum(axis=1) if "frames" in key else hidden.sum(axis=2).ravel()
            assert np.array_equal(np.bincount(axis, minlength=released[key].size), released[key])
        assert hidden.mean() == pytest.approx(float(released["rate"]), abs=1e-12)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("leg-arm", 'occlusion "leg-arm" is unknown; did you mean "arm_leg"? Known: arm_leg, frame_run, leg_run, none'),
        ("random", 'occlusion "random" is unknown; did you mean "random_joints"? Known: '),
        ("draws", 'occlusion "draws" is unknown; '),
        ("../none", 'occlusion "../none" is unknown; '),
    ],
)
def test_unknown_patterns_name_the_nearest(given, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        occlusion_config(given, {})
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("arm_leg", {"rat": 0.4}, 'occlusion "arm_leg".*did you mean "rate"'),
        ("none", {"rate": 0.4}, "has no settings, got rate"),
        ("leg_run", {"rate": 20}, r"rate is 20.0, allowed are fractions"),
        ("leg_run", {"rate": 1.0}, "not including 1"),
        ("random_joints", {"rate": -0.1}, "rate is -0.1"),
        ("random_joints", {"rate": float("nan")}, "rate is nan"),
        ("frame_run", {"rate": "0.2"}, "key rate"),
        ("leg_run", {"joints": []}, "joints is empty"),
        ("leg_run", {"joints": [1, 2]}, "key joints"),
    ],
)
def test_wrong_settings_are_refused(name, values, message):
    with pytest.raises(ValueError, match=message):
        occlusion_config(name, values)


def test_lists_of_a_settings_file_become_tuples():
    assert occlusion_config("leg_run", {"joints": ["RFoot"], "rate": 0.3}).joints == ("RFoot",)


@pytest.mark.parametrize("name", ["arm_leg", "leg_run", "frame_run"])
@pytest.mark.parametrize("frames", [2, 3, 9, 49, 98])
def test_windows_too_short_for_the_rate_say_the_least_rate(name, frames):
    with pytest.raises(ValueError, match=f"Windows of {frames} frames are too short") as error:
        drawn(name, frames=frames, rate=0.5 / frames)
    least = float(str(error.value).split("least rate is ")[1].split(". ")[0])
    assert (~drawn(name, frames=frames, rate=least)).any(axis=2).sum(axis=1).tolist() == [1] * 500


def test_single_frames_cannot_hold_a_run():
    with pytest.raises(ValueError, match="Windows of 1 frames are too short for this rate; use longer windows"):
        drawn("frame_run", frames=1)
    with pytest.raises(ValueError, match="at least one frame"):
        drawn("none", frames=0)


def test_settings_of_another_pattern_are_refused():
    with pytest.raises(ValueError, match=r'occlusion "arm_leg" got the settings of .*leg_run'):
        masks("arm_leg", occlusion_config("leg_run", {}), windows(3), 27, H36M_17)


def test_hidden_keypoints_become_zero_and_others_stay():
    generator = np.random.default_rng(0)
    keypoints = generator.normal(size=(5, 9, 17, 2)).astype(np.float32)
    visible = generator.random((5, 9, 17)) < 0.6
    expected = np.where(np.repeat(visible[..., None], 2, axis=-1), keypoints, 0)
    zero_hidden(keypoints, visible)
    assert keypoints.tobytes() == expected.astype(np.float32).tobytes()
    assert (keypoints == 0).any()
    assert (keypoints != 0).any()
