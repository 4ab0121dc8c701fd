"""Training batches before random cameras: the same for any number of workers, pairs before one camera, tests as
stored."""

from typing import Any

import filmed
import numpy as np
import pytest
import torch

from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store
from posegrid.datasets.windows import shuffled
from posegrid.models.interface import Batch
from posegrid.orchestration.batches import (
    Masks,
    check_stage,
    scoring_batches,
    steps_per_epoch,
    training_batches,
)
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers

SIDE = torch.tensor([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A filmed store."""
    return filmed.write_filmed(tmp_path_factory.mktemp("filmed") / "s")


def settings(training: dict[str, Any] | None = None, **data: Any) -> Settings:
    """Windows of nine frames, three apart, around every frame."""
    return Settings.from_plain(
        {
            "name": "tiny",
            "model": {"name": "mlp", "width": 8},
            "data": {"frames": 9, "stride": 3, "cameras": "random", **data},
            "training": {"epochs": 2, "batch": 16, "lr": 1e-3, "grid": 1, **(training or {})},
        },
        "test",
    )


def batches(store: Store, chosen: Settings, epoch: int = 0, workers: Workers | None = None) -> list[Batch]:
    """All batches of an epoch."""
    return list(training_batches(store, chosen, Masks(store, chosen.occlusion), epoch, workers or Workers()))


def joined(found: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    """Keypoints and poses of some batches, one after the other."""
    assert all(batch.poses is not None for batch in found)
    return torch.cat([batch.keypoints for batch in found]), torch.cat([batch.poses for batch in found])  # type: ignore[misc]


def by_item(store: Store, chosen: Settings, epoch: int = 0) -> torch.Tensor:
    """Poses of an epoch in the order of its windows, then of their mirror images."""
    poses = joined(batches(store, chosen, epoch))[1]
    sorted_poses = torch.empty_like(poses)
    sorted_poses[shuffled(len(poses), seed=chosen.training.seed, epoch=epoch)] = poses
    return sorted_poses


@pytest.mark.parametrize("training", [{"flip": True}, {"flip_pairs": True}, {"grid": 0, "batch": 4}])
def test_two_workers_share_what_one_sees(store: Store, training: dict[str, Any]) -> None:
    chosen = settings(training).with_occlusion({"pattern": "random_joints"})
    one = batches(store, chosen)
    pair = [batches(store, chosen, workers=Workers(rank=rank, world=2)) for rank in (0, 1)]
    assert len(one) == len(pair[0]) == len(pair[1]) > 1
    for whole, *halves in zip(one, *pair, strict=True):
        for rank, half in enumerate(halves):
            # blocks of another size may round otherwise in the last digit
            torch.testing.assert_close(half.keypoints, whole.keypoints[rank::2], atol=1e-6, rtol=0)
            torch.testing.assert_close(half.poses, whole.poses[rank::2], atol=1e-6, rtol=0)  # type: ignore[index]
        assert (whole.keypoints[~whole.visible] == 0).all()
        assert not whole.visible.all()


def test_cameras_belong_to_epoch_and_seed(store: Store) -> None:
    first = by_item(store, settings({"batch": 1}))
    assert torch.equal(by_item(store, settings({"batch": 1})), first)
    for other in (by_item(store, settings({"batch": 1}), epoch=1), by_item(store, settings({"batch": 1, "seed": 1}))):
        same = (other - first).abs().amax((1, 2, 3)) < 1e-5
        assert same.double().mean() < 1 / 28 + 5 * np.sqrt(27 / 28**2 / len(same))


def test_windows_are_those_of_the_stored_cameras_seen_from_elsewhere(store: Store) -> None:
    stored, random = (batches(store, settings(cameras=cameras)) for cameras in ("stored", "random"))
    for one, other in zip(stored, random, strict=True):
        assert one.poses is not None
        assert other.poses is not None
        # turning keeps the distance of every pair of joints, over time too
        flat, turned = (batch.flatten(1, 2)[:, ::7] for batch in (one.poses, other.poses))
        torch.testing.assert_close(torch.cdist(turned, turned), torch.cdist(flat, flat), atol=1e-4, rtol=0)
        assert (turned - flat).abs().max() > 0.1


def test_a_pair_stands_before_one_camera_mirrored_in_the_world(store: Store) -> None:
    keypoints, poses = joined(batches(store, settings({"flip_pairs": True})))
    mirror = list(H36M_17.mirror)
    plain, mirrored = poses[::2].double(), poses[1::2].double()[:, :, mirror]
    # mirrored = A diag(-1, 1, 1) A^T plain with the camera's turn A: the reflection (I - 2 n n^T) at a plane that
    # contains the vertical, so n is the same in all frames and joints
    moved = (mirrored - plain).flatten(1, 2)
    normal = torch.linalg.svd(moved, full_matrices=False).Vh[:, 0]
    reflected = plain.flatten(1, 2)
    reflected = reflected - 2 * (reflected @ normal[:, :, None]) * normal[:, None]
    torch.testing.assert_close(mirrored.flatten(1, 2), reflected, atol=1e-5, rtol=0)
    # and not the mirror image of the camera's own frame
    assert (poses[1::2][:, :, mirror] * SIDE - poses[::2]).abs().amax((1, 2, 3)).median() > 0.05
    assert torch.isfinite(keypoints).all()


def test_a_second_copy_stands_before_a_camera_of_its_own(store: Store) -> None:
    plain, mirrored = by_item(store, settings({"flip": True, "batch": 1})).double().chunk(2)
    moved = mirrored[:, :, list(H36M_17.mirror)] - plain
    same = torch.linalg.svdvals(moved.flatten(1, 2))[:, 1] < 1e-4  # of rank one: a reflection, so the same camera
    assert len(same) > 100
    assert same.double().mean() < 1 / 28 + 5 * np.sqrt(27 / 28**2 / len(same))


def test_selection_and_tests_have_the_stored_cameras(store: Store) -> None:
    found = []
    for cameras in ("stored", "random"):
        chosen = settings(cameras=cameras, tail="keep")
        masks = Masks(store, chosen.occlusion)
        for split in ("held_out", "test"):
            scored = scoring_batches(store, chosen, masks, split, Workers(), mask_seed=0, batch=8)
            found.append(joined([batch for _, batch in scored]))
    for one, other in zip(found[:2], found[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_steps_cut_an_epoch_short(store: Store) -> None:
    whole = batches(store, settings())
    assert steps_per_epoch(store, settings()) == len(whole) > 3
    cut = settings({"steps": 3})
    assert steps_per_epoch(store, cut) == 3
    for one, other in zip(batches(store, cut), whole[:3], strict=True):
        assert torch.equal(one.keypoints, other.keypoints)
    check_stage(store, cut, [])
    with pytest.raises(ValueError, match=r"training.steps = 999 \(recipe tiny\).*fill \d+ batches of 16. Lower"):
        check_stage(store, settings({"steps": 999}), [])


def test_fingerprints_tell_cameras_and_steps_apart() -> None:
    plain = settings(cameras="stored")
    prints = {plain.training_fingerprint("h"), settings().training_fingerprint("h")}
    prints.add(settings({"steps": 3}).training_fingerprint("h"))
    assert len(prints) == 3


def test_what_cannot_be_filmed_is_refused_before_training(toy_store: Store) -> None:
    with pytest.raises(ValueError, match="has no camera parameters"):
        check_stage(toy_store, settings(), [])
    check_stage(toy_store, settings(cameras="stored"), [])
    with pytest.raises(ValueError, match=r'value "drawn" \(key cameras\) is unknown.*Known: random, stored'):
        settings(cameras="drawn")
    with pytest.raises(ValueError, match="steps = -1 must be at least 0"):
        settings({"steps": -1})
