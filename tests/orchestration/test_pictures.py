"""Models that read pictures: crops in batches, training on drawn people, patches that slide."""

from dataclasses import replace
from pathlib import Path

import image_stores
import numpy as np
import pytest
import torch

from posegrid.datasets.images import patches
from posegrid.datasets.images.textures import make_textures
from posegrid.datasets.store import Store
from posegrid.datasets.windows import gather
from posegrid.models.image_regressor import ImageRegressor
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import (
    Masks,
    check_stage,
    make_batch,
    pose_shape,
    scoring_batches,
    scoring_windows,
    training_batches,
)
from posegrid.orchestration.evaluation import evaluate
from posegrid.orchestration.loop import train
from posegrid.orchestration.pictures import pictures_of, score_patches
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers

MODEL = {"name": "image_regressor", "height": 32, "width_px": 24, "patch": 8, "width": 16, "depth": 1, "heads": 2}


@pytest.fixture
def settings() -> Settings:
    return Settings.from_plain(
        {
            "name": "pictures",
            "model": MODEL,
            "data": {"frames": 1},
            "training": {"epochs": 1, "batch": 16, "lr": 1e-3, "grid": 20, "flip": True},
            "evaluation": {"batch": 16, "every": 25},
        },
        "test",
    )


@pytest.mark.parametrize("kept", [0, 3, 1000])
def test_pictures_that_are_kept_are_the_same(
    kept: int, settings: Settings, toy_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posegrid.orchestration.pictures.KEPT_BYTES", kept * 32 * 24 * 3)
    monkeypatch.setattr("posegrid.orchestration.pictures._OPEN", {})
    pictures = pictures_of(toy_store, settings)
    assert pictures is not None
    drawn: list[int] = []
    crops = pictures.reader.crops
    monkeypatch.setattr(pictures.reader, "crops", lambda of, at: drawn.append(len(of)) or crops(of, at))
    windows = scoring_windows(toy_store, settings, "test")[:4]
    wanted = crops(*pictures.frames(windows)).reshape(4, 1, 32, 24, 3)
    for order in ([0, 1, 2, 3], [3, 0, 0, 2], [1, 3, 2, 1]):
        mirrored = np.array([False, True, False, True])
        found = pictures.of(windows[np.array(order)], mirrored).numpy()
        for row, which in enumerate(order):
            np.testing.assert_array_equal(found[row], wanted[which][..., ::-1, :] if mirrored[row] else wanted[which])
    assert sum(drawn) == {0: 12, 3: 4 + 1 + 1, 1000: 4}[kept]
    assert pictures_of(toy_store, settings) is pictures  # by the next epoch
    assert pictures_of(toy_store.leaving_out(("A",)), settings) is not pictures


def test_batches_bring_the_crops_of_their_frames(settings: Settings, toy_store: Store) -> None:
    workers, masks = Workers(), Masks(toy_store, settings.occlusion)
    pictures = pictures_of(toy_store, settings)
    assert pictures is not None
    wide = replace(settings, data=replace(settings.data, frames=3))
    windows, batch = next(scoring_batches(toy_store, wide, masks, "test", workers, mask_seed=0, batch=4))
    assert batch.images is not None
    assert batch.images.shape == (4, 3, 32, 24, 3)
    assert batch.images.dtype == torch.uint8
    for row in range(4):
        frames = windows.start[row] + np.arange(3)
        expected = pictures.reader.crops(np.full(3, windows.sequence[row]), frames)
        np.testing.assert_array_equal(batch.images[row].numpy(), expected)
    plain = make_batch(toy_store, windows, masks.visible(windows, 0), workers, 4)
    assert plain.images is None


def test_mirror_images_have_mirrored_crops(settings: Settings, toy_store: Store) -> None:
    workers, masks = Workers(), Masks(toy_store, settings.occlusion)
    batch = next(training_batches(toy_store, settings, masks, 0, workers))
    assert batch.images is not None
    assert batch.poses is not None
    single = replace(settings, training=replace(settings.training, flip=False, batch=1))
    found = 0
    crops = {
        crop.tobytes()
        for b in training_batches(toy_store, single, masks, 0, workers)
        for crop in b.images[:, 0].numpy()
    }
    for crop in batch.images[:, 0].numpy():
        as_is, mirrored = crop.tobytes() in crops, crop[:, ::-1].tobytes() in crops
        assert as_is or mirrored
        found += mirrored and not as_is
    assert 0 < found < 16


def test_pictures_come_from_files_where_a_folder_is_named(settings: Settings, tmp_path: Path) -> None:
    store = image_stores.with_files(tmp_path)
    with pytest.raises(ValueError, match="has images in files"):
        pictures_of(store, settings)
    named = replace(settings, data=replace(settings.data, images=str(tmp_path / "frames")))
    pictures = pictures_of(store, named)
    assert pictures is not None
    assert pictures.reader.file(0, 0).is_file()
    assert named.training_fingerprint("h") == settings.training_fingerprint("h")
    assert named.evaluation_fingerprint({}, "h") == settings.evaluation_fingerprint({}, "h")
    check_stage(store, replace(named, training=replace(named.training, select="last", grid=1)), [])
    (tmp_path / "frames" / "A" / "0003.png").unlink()
    with pytest.raises(ValueError, match="is missing"):
        check_stage(store, replace(named, training=replace(named.training, select="last", grid=1)), [])


def test_cameras_that_never_filmed_are_refused(settings: Settings, toy_store: Store) -> None:
    with pytest.raises(ValueError, match=r'data\.cameras = "random".*reads pictures'):
        pictures_of(toy_store, replace(settings, data=replace(settings.data, cameras="random")))


def test_a_regressor_trains_on_drawn_people_and_is_scored(settings: Settings, toy_store: Store) -> None:
    model = checkpoint.build(settings, pose_shape(toy_store, settings.data))
    before = evaluate(model, toy_store, settings, {"pattern": "none"}, Workers()).sums.frame_wise()["mpjpe_mm"]
    weights = train(model, model, toy_store, settings, Workers(), lambda metrics, state: None)
    model.load_state_dict(weights)
    after = evaluate(model, toy_store, settings, {"pattern": "none"}, Workers()).sums.frame_wise()["mpjpe_mm"]
    assert after < before


class Bright(ImageRegressor):
    """Says a pose as wrong, in metres along x, as its crop is dark: patches are bright or dark, so one can tell."""

    def poses(self, batch):  # type: ignore[no-untyped-def]
        light = batch.images.float().mean((2, 3, 4)) / 255
        return torch.zeros(*batch.keypoints.shape[:-1], 3) + 100 * light[..., None, None]


def test_the_worst_placement_of_each_picture_counts(settings: Settings, toy_store: Store) -> None:
    settings = replace(settings, evaluation=replace(settings.evaluation, hypotheses=1))
    windows = scoring_windows(toy_store, settings, "test")[::40]
    model = Bright(
        checkpoint.build(settings, pose_shape(toy_store, settings.data)).config, pose_shape(toy_store, settings.data)
    )
    protocol = patches.Config(size=12, stride=10, rule="all", seed=3)
    scores = score_patches(model, toy_store, settings, protocol, windows, torch.device("cpu"))
    assert scores.pictures == len(windows)

    # the same by trying every placement on every picture
    pictures = pictures_of(toy_store, settings)
    assert pictures is not None
    made = make_textures(3, 64, 16)
    sequence, frame = pictures.frames(windows)
    chosen = patches.choose_textures(3, *pictures.reader.texture_keys(sequence, frame), 64)
    crops, target = pictures.of(windows)[:, 0].numpy(), gather(toy_store, windows)[1][:, 0]
    worst = []
    for number, crop in enumerate(crops):
        errors = []
        for top in (0, 10, 20):
            for left in (0, 10):
                patched = crop.copy()
                patched[top : top + 12, left : left + 12] = made[chosen[number], :12, :12]
                predicted = 100 * patched.astype(np.float64).mean() / 255
                errors.append(np.linalg.norm(predicted - target[number], axis=-1).mean())
        worst.append(max(errors))
    assert scores.worst_mm == pytest.approx(1000 * np.mean(worst), rel=1e-5)
    assert scores.free_mm > 0
    several = scoring_windows(toy_store, replace(settings, data=replace(settings.data, frames=9)), "test")
    with pytest.raises(ValueError, match=r"trained with data\.frames = 1"):
        score_patches(model, toy_store, settings, protocol, several, torch.device("cpu"))
