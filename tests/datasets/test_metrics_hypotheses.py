"""Metrics of sets of hypotheses: hand cases, plain loops, and distributions whose answer is known."""

from pathlib import Path

import numpy as np
import pytest

from posegrid.datasets.metrics.hypotheses import (
    HypothesisSums,
    coverage,
    diversity,
    energy_score,
    errors,
    judged_levels,
)

FILE = Path(__file__).parents[3] / "shared" / "parity" / "metrics_d3dp.npz"


def case(windows: int = 3, count: int = 4, frames: int = 5, joints: int = 6, seed: int = 0):  # type: ignore[no-untyped-def]
    generator = np.random.default_rng(seed)
    target = generator.normal(0, 0.3, (windows, frames, joints, 3))
    return target[:, None] + generator.normal(0, 0.1, (windows, count, frames, joints, 3)), target


def test_by_hand() -> None:
    # one joint, truth at the origin, hypotheses at 3, 4 and -5 along x
    hypotheses = np.zeros((1, 3, 1, 1, 3))
    hypotheses[0, :, 0, 0, 0] = 3, 4, -5
    target = np.zeros((1, 1, 1, 3))
    assert errors(hypotheses, target)[0, :, 0, 0].tolist() == [3, 4, 5]
    assert diversity(hypotheses).item() == pytest.approx((1 + 8 + 9) / 3)
    assert energy_score(hypotheses, target).item() == pytest.approx(4 - 3)
    # 50 % of three: between the outermost ones; y and z are constant and hold the truth
    assert coverage(hypotheses, target, 50).item() == 1
    target[..., 0] = 4.5
    assert coverage(hypotheses, target, 50).item() == pytest.approx(2 / 3)


def test_pairs_by_plain_loops() -> None:
    hypotheses, target = case()
    pairs = [(a, b) for a in range(4) for b in range(a)]
    by_loop = np.mean([np.linalg.norm(hypotheses[:, a] - hypotheses[:, b], axis=-1) for a, b in pairs], axis=0)
    np.testing.assert_allclose(diversity(hypotheses), by_loop)
    every = np.mean([np.linalg.norm(hypotheses[:, a] - target, axis=-1) for a in range(4)], axis=0)
    np.testing.assert_allclose(energy_score(hypotheses, target), every - by_loop / 2)


def test_levels_that_a_number_of_hypotheses_can_show() -> None:
    assert [judged_levels(count) for count in (2, 3, 8, 9, 18, 19)] == [
        (),
        (50,),
        (50,),
        (50, 80),
        (50, 80),
        (50, 80, 90),
    ]


@pytest.mark.parametrize("count", [3, 5, 9, 20, 21])
def test_coverage_of_the_true_distribution_is_nominal_whatever_it_is(count: int) -> None:
    generator = np.random.default_rng(1)
    windows = 12_000
    drawn = generator.exponential(1.0, (windows, count + 1, 1, 1, 3))
    for level in judged_levels(count):
        found = coverage(drawn[:, 1:], drawn[:, 0], level).mean()
        # 36,000 independent coordinates: five standard errors of a share
        assert found == pytest.approx(level / 100, abs=5 * 0.5 / np.sqrt(3 * windows))
        narrow = coverage(1 + (drawn[:, 1:] - 1) / 3, drawn[:, 0], level).mean()
        assert narrow < level / 100 - 0.1


def test_energy_score_is_least_for_the_true_spread_and_fair_in_the_number_of_hypotheses() -> None:
    generator = np.random.default_rng(2)
    windows = 6_000
    target = generator.normal(size=(windows, 1, 1, 3))
    drawn = generator.normal(size=(windows, 8, 1, 1, 3))
    score = {spread: energy_score(spread * drawn, target).mean() for spread in (0.3, 1.0, 2.0)}
    assert score[1.0] < score[0.3]
    assert score[1.0] < score[2.0]
    # E|X - y| = E|X - X'| for equal distributions, so the score is half of it: 4 / sqrt(pi) / 2 in three dimensions
    for count in (2, 8):
        assert energy_score(drawn[:, :count], target).mean() == pytest.approx(2 / np.sqrt(np.pi), abs=0.03)


def test_sums_by_plain_loops_over_actions_joints_and_splits() -> None:
    hypotheses, target = case(windows=7, count=9)
    generator = np.random.default_rng(3)
    visible = generator.random(target.shape[:3]) > 0.3
    weight = generator.random(target.shape[:2]) > 0.2
    action = np.array([0, 1, 1, 0, 1, 0, 0])
    sums = HypothesisSums(("sit", "walk", "never"), 6, 9)
    for rows in (slice(0, 3), slice(3, None)):
        sums.add(action[rows], hypotheses[rows], target[rows], visible[rows], weight[rows])
    each = errors(hypotheses, target)
    values = {
        "mpjpe_mean_mm": 1000 * np.linalg.norm(hypotheses.mean(1) - target, axis=-1),
        "mpjpe_each_mm": 1000 * each.mean(1),
        "mpjpe_best_joint_oracle_mm": 1000 * each.min(1),
        "diversity_mm": 1000 * diversity(hypotheses),
        "energy_score_mm": 1000 * energy_score(hypotheses, target),
        "coverage_50": coverage(hypotheses, target, 50),
        "coverage_80": coverage(hypotheses, target, 80),
    }
    best_pose, best_window = np.empty_like(values["mpjpe_mean_mm"]), np.empty_like(values["mpjpe_mean_mm"])
    for window in range(7):
        of_window = [each[window, h][weight[window]].mean() for h in range(9)]
        best_window[window] = 1000 * each[window, int(np.argmin(of_window))]
        for frame in range(5):
            best_pose[window, frame] = 1000 * each[window, each[window, :, frame].mean(-1).argmin(), frame]
    values |= {"mpjpe_best_pose_oracle_mm": best_pose, "mpjpe_best_window_oracle_mm": best_window}
    assert set(values) == set(sums.metrics)
    splits = {"": visible | True, "/occluded": ~visible, "/visible": visible}
    for name, value in values.items():
        for split, which in splits.items():
            counted = which & weight[:, :, None]
            assert sums.frame_wise()[name + split] == pytest.approx(value[counted].mean())
            by_action = [value[action == a][counted[action == a]].mean() for a in (0, 1)]
            assert sums.action_wise()[name + split] == pytest.approx(np.mean(by_action))
            for joint in (0, 5):
                expected = value[:, :, joint][counted[:, :, joint]].mean()
                assert sums.per_joint()[joint][name + split] == pytest.approx(expected)


def test_order_of_the_metrics() -> None:
    sums = HypothesisSums(("a",), 6, 4)
    hypotheses, target = case()
    sums.add(np.zeros(3, int), hypotheses, target, np.ones(target.shape[:3], bool), np.ones(target.shape[:2], bool))
    found = sums.frame_wise()
    assert found["mpjpe_mean_mm"] < found["mpjpe_each_mm"]
    assert found["mpjpe_best_joint_oracle_mm"] < found["mpjpe_best_pose_oracle_mm"]
    assert found["mpjpe_best_pose_oracle_mm"] < found["mpjpe_best_window_oracle_mm"] < found["mpjpe_each_mm"]
    assert found["energy_score_mm"] == pytest.approx(found["mpjpe_each_mm"] - found["diversity_mm"] / 2)
    assert not any("occluded" in key for key in found)


def test_sums_travel_as_arrays() -> None:
    hypotheses, target = case()
    seen, weight = np.ones(target.shape[:3], bool), np.ones(target.shape[:2], bool)
    whole, parts = HypothesisSums(("a",), 6, 4), [HypothesisSums(("a",), 6, 4) for _ in range(2)]
    whole.add(np.zeros(3, int), hypotheses, target, seen, weight)
    for rank, part in enumerate(parts):
        rows = slice(rank, None, 2)
        part.add(np.zeros(3, int)[rows], hypotheses[rows], target[rows], seen[rows], weight[rows])
    parts[0].set_array(parts[0].to_array() + parts[1].to_array())
    assert parts[0].action_wise() == pytest.approx(whole.action_wise())


def test_wrong_shapes_are_named() -> None:
    hypotheses, target = case()
    seen, weight = np.ones(target.shape[:3], bool), np.ones(target.shape[:2], bool)
    with pytest.raises(ValueError, match=r"expected \(3, 5, 5, 6, 3\)"):
        HypothesisSums(("a",), 6, 5).add(np.zeros(3, int), hypotheses, target, seen, weight)
    with pytest.raises(ValueError, match=r"visible is \(2, 5, 6\)"):
        HypothesisSums(("a",), 6, 4).add(np.zeros(3, int), hypotheses, target, seen[:2], weight)
    hypotheses[0, 0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="the model has diverged"):
        HypothesisSums(("a",), 6, 4).add(np.zeros(3, int), hypotheses, target, seen, weight)


def test_numbers_of_the_released_code() -> None:
    if not FILE.is_file():
        pytest.skip(f"parity fixture {FILE.name} is not beside the repository")
    file = np.load(FILE)
    for step in range(2):
        hypotheses, target = file["input_hypotheses"][:, step], file["input_target"]
        sums = HypothesisSums(("a",), 17, 5)
        seen, weight = np.ones(target.shape[:3], bool), np.ones(target.shape[:2], bool)
        sums.add(np.zeros(3, int), hypotheses, target, seen, weight)
        found = sums.frame_wise()
        assert found["mpjpe_mean_mm"] == pytest.approx(1000 * file["output_p_agg"][step], rel=1e-5)
        assert found["mpjpe_best_joint_oracle_mm"] == pytest.approx(1000 * file["output_j_best"][step], rel=1e-5)
        per_window = file["output_p_best_per_window"][:, step].mean()
        assert found["mpjpe_best_window_oracle_mm"] == pytest.approx(1000 * per_window, rel=1e-5)
        valid = file["input_valid"][..., 0]
        sums = HypothesisSums(("a",), 17, 5)
        sums.add(np.zeros(3, int), hypotheses, target, seen, valid)
        agreed = 1000 * file["output_p_agg_valid_frames"][step]
        assert sums.frame_wise()["mpjpe_mean_mm"] == pytest.approx(agreed, rel=1e-5)
