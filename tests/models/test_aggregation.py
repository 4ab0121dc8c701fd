"""Aggregations against hand cases, brute force, the numbers of the released code, and their inequalities."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from posegrid.models.aggregation import (
    AGGREGATIONS,
    aggregate,
    best_joint,
    best_pose,
    by_reprojection,
    geometric_median,
)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _pinhole(points: torch.Tensor) -> torch.Tensor:
    return 2.2 * points[..., :2] / points[..., 2:]


@pytest.fixture
def everything() -> dict:
    """What any aggregation may ask for: 3 windows, 6 hypotheses, 4 frames, 5 joints."""
    target = 0.3 * _random(3, 4, 5, 3)
    root = torch.tensor([0.1, -0.2, 4.0], dtype=torch.float64).expand(3, 4, 3)
    return {
        "hypotheses_BHLJC": target[:, None] + 0.1 * _random(3, 6, 4, 5, 3, seed=1),
        "target_BLJC": target,
        "keypoints_BLJC": _pinhole(target + root[:, :, None]) + 0.01 * _random(3, 4, 5, 2, seed=2),
        "visible_BLJ": torch.ones(3, 4, 5, dtype=torch.bool),
        "root_BLC": root,
        "project": _pinhole,
    }


def _error(name: str, given: dict) -> torch.Tensor:
    return (aggregate(name, **given) - given["target_BLJC"]).norm(dim=-1)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_one_hypothesis_and_equal_hypotheses_are_returned(name, everything):
    one = everything["hypotheses_BHLJC"][:, :1]
    for several in (one, one.expand(-1, 4, -1, -1, -1)):
        found = aggregate(name, **{**everything, "hypotheses_BHLJC": several})
        torch.testing.assert_close(found, one[:, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_the_order_of_hypotheses_does_not_matter(name, everything):
    turned = {**everything, "hypotheses_BHLJC": everything["hypotheses_BHLJC"].flip(1)}
    torch.testing.assert_close(aggregate(name, **turned), aggregate(name, **everything), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_names_say_who_reads_the_truth(name, everything):
    changed = {**everything, "target_BLJC": -everything["target_BLJC"]}
    reads = not aggregate(name, **changed).equal(aggregate(name, **everything))
    assert reads == name.endswith("_oracle")
    assert bool(AGGREGATIONS[name]) == (name.endswith("_oracle") or "true" in name)


def test_oracles_bound_what_can_be_chosen(everything):
    joint, pose = _error("best_joint_oracle", everything), _error("best_pose_oracle", everything)
    window = _error("best_window_oracle", everything)
    batch = (
        best_pose(everything["hypotheses_BHLJC"], everything["target_BLJC"], "batch") - everything["target_BLJC"]
    ).norm(dim=-1)
    for other in (pose, window, batch, *(_error(f"{kind}_true_root", everything) for kind in ("jpma", "ppma"))):
        assert (joint <= other + 1e-12).all()
    assert (pose.mean(-1) <= window.mean(-1) + 1e-12).all()
    assert (window.mean((1, 2)) <= batch.mean((1, 2)) + 1e-12).all()
    assert joint.mean() < pose.mean() < window.mean() < batch.mean()


def test_choices_by_brute_force(everything):
    hypotheses, target = everything["hypotheses_BHLJC"], everything["target_BLJC"]
    absolute = hypotheses + everything["root_BLC"][:, None, :, None]
    off = (_pinhole(absolute) - everything["keypoints_BLJC"][:, None]).norm(dim=-1)
    away = (hypotheses - target[:, None]).norm(dim=-1)
    found = {name: aggregate(name, **everything) for name in AGGREGATIONS}
    for b in range(3):
        window = min(range(6), key=lambda h: away[b, h].mean().item())
        assert found["best_window_oracle"][b].equal(hypotheses[b, window])
        for frame in range(4):
            by_pose = min(range(6), key=lambda h: away[b, h, frame].mean().item())
            assert found["best_pose_oracle"][b, frame].equal(hypotheses[b, by_pose, frame])
            by_projection = min(range(6), key=lambda h: off[b, h, frame].mean().item())
            assert found["ppma_true_root"][b, frame].equal(hypotheses[b, by_projection, frame])
            for joint in range(5):
                near = min(range(6), key=lambda h: away[b, h, frame, joint].item())
                seen = min(range(6), key=lambda h: off[b, h, frame, joint].item())
                assert found["best_joint_oracle"][b, frame, joint].equal(hypotheses[b, near, frame, joint])
                assert found["jpma_true_root"][b, frame, joint].equal(hypotheses[b, seen, frame, joint])


def test_hidden_joints_are_averaged_and_not_compared(everything):
    hypotheses, visible = everything["hypotheses_BHLJC"], everything["visible_BLJ"].clone()
    visible[:, :, 2] = False
    visible[0, 1] = False
    keypoints = torch.where(visible[..., None], everything["keypoints_BLJC"], 9.0)
    given = {**everything, "visible_BLJ": visible, "keypoints_BLJC": keypoints}
    average = hypotheses.mean(1)
    joints, poses = aggregate("jpma_true_root", **given), aggregate("ppma_true_root", **given)
    assert joints[~visible].equal(average[~visible])
    assert joints[visible].equal(aggregate("jpma_true_root", **everything)[visible])
    assert poses[0, 1].equal(average[0, 1])
    seen = [0, 1, 3, 4]
    few = {key: value[:, :, seen] for key, value in everything.items() if key in ("keypoints_BLJC", "visible_BLJ")}
    chosen = by_reprojection(
        hypotheses[..., seen, :], root_BLC=everything["root_BLC"], project=_pinhole, level="pose", **few
    )
    assert poses[1:, :, seen].equal(chosen[1:])


def test_geometric_median_by_hand_and_by_another_minimiser():
    # on a line the median is the middle point; of two points every point between is one
    line = torch.tensor([[0.0], [1.0], [10.0]], dtype=torch.float64) * torch.tensor(
        [1.0, 2.0, 2.0], dtype=torch.float64
    )
    torch.testing.assert_close(geometric_median(line.view(1, 3, 1, 1, 3), 500)[0, 0, 0], line[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(geometric_median(line[:2].view(1, 2, 1, 1, 3))[0, 0, 0], line[:2].mean(0))
    points = _random(1, 9, 2, 3, 3, seed=3)
    found = geometric_median(points)
    for frame in range(2):
        for joint in range(3):
            cloud = points[0, :, frame, joint].numpy()

            def cost(centre: np.ndarray, cloud: np.ndarray = cloud) -> float:
                return float(np.linalg.norm(cloud - centre, axis=1).sum())

            best = minimize(cost, cloud.mean(0), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
            assert cost(found[0, frame, joint].numpy()) <= best.fun * (1 + 1e-6)
    # an outlier moves the mean, hardly the median
    far = points.clone()
    far[:, 0] += 1000
    assert (geometric_median(far) - found).norm(dim=-1).max() < 2 < (far.mean(1) - points.mean(1)).norm(dim=-1).min()


def test_unknown_name():
    with pytest.raises(
        ValueError, match=r'aggregation "jpma" \(evaluation.aggregation\) is unknown. Known: mean, median'
    ):
        aggregate("jpma", _random(1, 2, 1, 1, 3))


def test_numbers_of_the_released_code(parity_file):
    file = parity_file("metrics_d3dp")
    sets, target = file["input_hypotheses"].double(), file["input_target"].double()
    camera = file["input_camera"].double()
    focal, centre, radial, tangential = camera.split([2, 2, 3, 2])

    def project(points: torch.Tensor) -> torch.Tensor:
        ray = (points[..., :2] / points[..., 2:]).clamp(-1, 1)
        squared = ray.square().sum(-1, keepdim=True)
        bend = 1 + sum(radial[power] * squared ** (power + 1) for power in range(3))
        return focal * (ray * (bend + (tangential * ray).sum(-1, keepdim=True)) + tangential * squared) + centre

    given = {
        "keypoints_BLJC": file["input_keypoints"].double(),
        "visible_BLJ": torch.ones(target.shape[:3], dtype=torch.bool),
        "root_BLC": file["input_trajectory"].double()[:, :, 0],
        "project": project,
    }
    found: dict[str, list[torch.Tensor]] = {}
    for step in range(sets.shape[1]):
        hypotheses = sets[:, step]
        chosen = {
            "j_best": best_joint(hypotheses, target),
            "p_best": best_pose(hypotheses, target, "batch"),
            "p_best_per_window": best_pose(hypotheses, target, "window"),
            "p_agg": aggregate("mean", hypotheses),
            "j_agg": by_reprojection(hypotheses, **given),
        }
        index = file["output_selected_hypothesis"][:, step]
        picked = hypotheses.gather(1, index[:, None, ..., None].expand(-1, -1, -1, -1, 3))[:, 0]
        # the root is a true tie: all hypotheses have it at zero
        torch.testing.assert_close(chosen["j_agg"][:, :, 1:], picked[:, :, 1:])
        for name, poses in chosen.items():
            errors = (poses - target).norm(dim=-1)
            found.setdefault(name, []).append(errors.mean((1, 2)) if name.endswith("window") else errors.mean())
    for name, errors in found.items():
        expected = file[f"output_{name}"].double()
        torch.testing.assert_close(torch.stack(errors, dim=-1), expected, rtol=1e-5, atol=1e-6)
