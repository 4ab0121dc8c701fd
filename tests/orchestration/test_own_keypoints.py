"""Own keypoints from file to file: names, units, people, rates, hypotheses, what is refused."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from posegrid.datasets.keypoints.clips import Reading, clips_of_file
from posegrid.datasets.keypoints.pose_files import read_about, read_poses
from posegrid.datasets.readers.keypoint_files import keypoint_files
from posegrid.datasets.skeletons import COCO_17, H36M_17
from posegrid.datasets.store import Store
from posegrid.models.interface import Batch
from posegrid.orchestration import checkpoint, lifting_jobs
from posegrid.orchestration.batches import shape_of
from posegrid.orchestration.clip_sources import clip_sources
from posegrid.orchestration.found_models import find_model
from posegrid.orchestration.lifting_choices import Choices
from posegrid.orchestration.own_keypoints import lift
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.stage import log_model
from posegrid.orchestration.tracking import MODEL_ARTIFACT, Tracking

WALK = Path(__file__).parents[2] / "datasets" / "examples" / "walk.csv"
DIFFUSION = {"name": "diffhpe", "conditioning": "keypoints", "channels": 8, "blocks": 2, "steps": 4}
DIFFUSION |= {"step_embedding": 16, "beta_cap": 0.1}


def untrained(file: Path, settings: Settings, **data: object) -> Path:
    """A model file with random weights, none of which is zero."""
    torch.manual_seed(3)
    shape = shape_of(H36M_17, settings.data)
    model = checkpoint.build(settings, shape)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    about = {"hash": "", "source": "toy", "skeleton": "h36m_17"} | data
    checkpoint.write(file, checkpoint.model_file(settings, shape, model.state_dict(), about))
    return file


@pytest.fixture
def model(tmp_path: Path, lifter_settings: Settings) -> str:
    return str(untrained(tmp_path / "model.pt", lifter_settings, frame_rate=25.0))


@pytest.fixture
def sampler(tmp_path: Path, lifter_settings: Settings) -> str:
    settings = Settings.from_plain(lifter_settings.plain() | {"model": DIFFUSION}, "test")
    return str(untrained(tmp_path / "sampler.pt", settings, frame_rate=25.0))


def test_two_people_of_a_table_are_lifted_as_the_network_does(model: str, tmp_path: Path) -> None:
    lifted = lift(model, WALK, tmp_path / "poses.parquet")
    assert [(clip.person, clip.frames) for clip in lifted.clips] == [("ann", 12), ("ben", 12)]
    assert lifted.frames == 24
    network, settings, _ = checkpoint.load_model(Path(model))
    (file,) = keypoint_files(WALK)
    for clip in clips_of_file(file, "h36m_17", Reading()):
        # windows of 9 frames by hand: the first one, and one that ends with the clip
        keypoints = np.where(clip.visible[..., None], clip.keypoints, 0).astype(np.float32)
        rows = np.stack([np.arange(9), np.arange(9) + len(clip) - 9])
        batch = Batch(keypoints=torch.from_numpy(keypoints[rows]), visible=torch.from_numpy(clip.visible[rows]))
        first, second = network.lift(batch, torch.Generator())[:, 0].numpy()
        found = read_poses(tmp_path / "poses.parquet", person=clip.person)
        np.testing.assert_allclose(found.rows.poses_mm[:9], 1000 * first, rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(found.rows.poses_mm[9:], 1000 * second[9 - (len(clip) - 9) :], rtol=1e-4, atol=1e-2)
        np.testing.assert_array_equal(found.rows.visible, clip.visible)
        assert found.rows.frame[0] == clip.first
        assert found.rows.deviation_mm is None
    about = read_about(tmp_path / "poses.parquet")
    assert about["protocol"] == "whole windows"
    assert about["model"]["recipe"] == settings.name
    assert about["clips"][0]["lifted_at"] == 25.0
    assert any("trained without occlusion" in note for note in about["notes"])
    assert [note for note in lifted.notes if "frames per second" in note] == []


def test_hypotheses_have_a_mean_and_a_spread(sampler: str, tmp_path: Path) -> None:
    lifted = lift(sampler, [WALK], tmp_path / "poses.parquet", hypotheses=4, keep_hypotheses=True, longest_gap=2)
    rows = read_poses(tmp_path / "poses.parquet").rows
    assert rows.hypotheses_mm is not None
    assert rows.hypotheses_mm.shape == (12, 4, 17, 3)
    np.testing.assert_allclose(rows.poses_mm, rows.hypotheses_mm.mean(1), rtol=1e-3, atol=1e-2)
    spread = np.sqrt(rows.hypotheses_mm.astype(np.float64).var(axis=1, ddof=1).sum(-1))
    np.testing.assert_allclose(rows.deviation_mm, spread, rtol=1e-3)
    assert lifted.clips[0].deviation_mm == pytest.approx(spread.mean(), rel=1e-4)
    lift(sampler, WALK, tmp_path / "again.parquet", hypotheses=4)
    again = read_poses(tmp_path / "again.parquet").rows
    assert again.hypotheses_mm is None
    np.testing.assert_array_equal(again.deviation_mm, rows.deviation_mm)
    assert (again.visible.mean(), rows.visible.mean()) == pytest.approx((0.98, 1.0), abs=0.02)


def test_a_store_is_lifted_with_its_error_under_another_protocol(toy_store: Store, model: str, tmp_path: Path) -> None:
    changes = ("evaluation.score=overlap", "evaluation.shift=3")
    lifted = lift(model, toy_store.path, tmp_path / "poses.parquet", changes=changes)
    assert len(lifted.clips) == 8
    clip = read_poses(tmp_path / "poses.parquet", "sit 1/0", "C")
    sequence = next(one for one in toy_store.sequences if one.name == "C/sit 1/0")
    poses = toy_store.poses[sequence.offset : sequence.offset + sequence.frames]
    np.testing.assert_allclose(clip.rows.truth_mm, 1000 * (poses - poses[:, :1]), atol=1e-3)
    errors = np.linalg.norm(clip.rows.poses_mm - clip.rows.truth_mm, axis=-1)
    assert lifted.clips[-1].mpjpe_mm == pytest.approx(errors.mean(), rel=1e-5)
    assert read_about(tmp_path / "poses.parquet")["protocol"].startswith("overlapping windows, 3 of 9 frames apart")
    # the store has 50 frames per second, the model file says 25
    assert any("trained at 25: motion looks 0.5 times as fast" in note for note in lifted.notes)


def test_another_rate_is_resampled_and_brought_back(tmp_path: Path, lifter_settings: Settings) -> None:
    """A perceptron without weights but its skip would not do: compare with a clip that was made at the model's rate."""
    file = untrained(tmp_path / "model.pt", lifter_settings, frame_rate=50.0)
    lines = ["sequence,frame,joint,x,y,confidence"]
    for frame in range(21):
        # straight motion, so that resampling makes no error
        lines += [
            f"run,{frame},{joint},{100 + 10 * place + 4 * frame},{200 + 5 * place - 2 * frame},1"
            for place, joint in enumerate(H36M_17.joints)
        ]
    (tmp_path / "slow.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "fast.csv").write_text(
        "\n".join([lines[0]] + [
            f"run,{frame},{joint},{100 + 10 * place + 2 * frame},{200 + 5 * place - frame},1"
            for frame in range(41) for place, joint in enumerate(H36M_17.joints)
        ]) + "\n"
    )  # fmt: skip
    size = {"width": 1000, "height": 800, "joints": "h36m_17"}
    slow = lift(str(file), tmp_path / "slow.csv", tmp_path / "slow.parquet", frame_rate=25.0, resample=True, **size)
    assert (slow.clips[0].frames, slow.clips[0].lifted_at, slow.notes) == (21, 50.0, [])
    lift(str(file), tmp_path / "fast.csv", tmp_path / "fast.parquet", frame_rate=50.0, **size)
    found, wanted = (read_poses(tmp_path / f"{name}.parquet").rows for name in ("slow", "fast"))
    np.testing.assert_allclose(found.poses_mm, wanted.poses_mm[::2], rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(found.time_s, wanted.time_s[::2])


def test_models_are_found_by_run_name_recipe_and_alias(
    tracking: Tracking, tmp_path: Path, lifter_settings: Settings
) -> None:
    study = tracking.open_study("study", {}, "")
    shape = shape_of(H36M_17, lifter_settings.data)
    network = checkpoint.build(lifter_settings, shape)
    runs = {}
    for name in ("tiny on none", "tiny on leg_run"):
        tags = {"posegrid.stage": "tiny"}
        runs[name] = tracking.open_trial(name, name, study, {}, tags)
        log_model(tracking, runs[name], lifter_settings, shape, network, {"skeleton": "h36m_17", "source": "h36m"})
    open_ = lambda: tracking  # noqa: E731
    for name, run in runs.items():
        assert find_model(name, open_).run == find_model(run, open_).run == run
    assert find_model("tiny on none", open_).frame_rate == 50.0
    with pytest.raises(ValueError, match=r'"tiny" fits 2 trained runs: .*Give the id'):
        find_model("tiny", open_)
    with pytest.raises(ValueError, match=r'"absent" is no trained run.*tiny on leg_run'):
        find_model("absent", open_)
    unfinished = tracking.open_trial("other", "other", study, {}, {})
    with pytest.raises(ValueError, match=r"without a trained model.*model/model\.pt"):
        find_model(unfinished, open_)
    client = tracking._client
    client.create_registered_model("lifting-test")
    client.create_model_version(
        "lifting-test", source=f"runs:/{runs['tiny on none']}/model", run_id=runs["tiny on none"]
    )
    client.set_registered_model_alias("lifting-test", "best", "1")
    assert find_model("models:/lifting-test@best", open_).run == runs["tiny on none"]
    assert find_model("models:/lifting-test/1", open_).run == runs["tiny on none"]
    with pytest.raises(ValueError, match=r"no registered model.*registered are: .*lifting-test"):
        find_model("models:/lifting-test@worst", open_)
    assert MODEL_ARTIFACT == "model/model.pt"


def test_what_cannot_be_lifted_is_refused(model: str, sampler: str, tmp_path: Path, toy_store: Store) -> None:
    out = tmp_path / "poses.parquet"
    faint = WALK.read_text().splitlines()
    (tmp_path / "faint.csv").write_text("\n".join([faint[0], *(row[: row.rindex(",")] + ",0.2" for row in faint[1:])]))
    (tmp_path / "faint.toml").write_text(WALK.with_suffix(".toml").read_text())
    refused = [
        (dict(inputs=tmp_path / "absent.json"), "does not exist, so nothing is lifted"),
        (dict(speed=2), r"option speed = 2 of lifting is unknown\. Known: batch, changes"),
        (dict(hypotheses=0), "at least 1 hypothesis"),
        (dict(device="gpu"), 'device = "gpu" of lifting cannot be used'),
        (dict(model_rate=-1.0), "positive frames per second"),
        (dict(changes=("training.lr=1",)), r"--set training was given.*\[evaluation\]"),
        (dict(changes=("evaluation.steps=3",)), "it is no diffusion model"),
        (dict(inputs=tmp_path / "faint.csv", least_confidence=0.5), r"nobody is seen in .*faint\.csv"),
        (dict(inputs=[WALK, WALK]), "would both be written as walk"),
        (dict(inputs=Path(model)), "no keypoint files"),
    ]
    for options, says in refused:
        with pytest.raises(ValueError, match=says):
            lift(**{"model": model, "inputs": WALK, "out": out, **options})  # type: ignore[arg-type]
        assert not out.exists()
    settings = checkpoint.load_model(Path(model))[1]
    nameless = untrained(tmp_path / "nameless.pt", settings)
    with pytest.raises(ValueError, match="--model-rate"):
        lift(str(nameless), WALK, out, resample=True)
    windows = replace(settings, data=replace(settings.data, frame_rate=20.0))
    twenty = untrained(tmp_path / "twenty.pt", windows)
    with pytest.raises(ValueError, match=r"25 frames per second, the model's windows 20.*--resample"):
        lift(str(twenty), WALK, out)
    assert lift(str(twenty), WALK, out, resample=True).clips[0].lifted_at == 20.0
    with pytest.raises(ValueError, match=r"holds poses that were lifted already"):
        lift(model, out, tmp_path / "again.parquet")
    other = untrained(tmp_path / "other.pt", settings, skeleton="mpi_inf_3dhp_17")
    with pytest.raises(ValueError, match="has skeleton h36m_17, the model lifts mpi_inf_3dhp_17"):
        lift(str(other), toy_store.path, out)
    assert len(COCO_17) == 17


def test_regressors_and_recipes_that_read_the_truth_say_what_happens(
    model: str, tmp_path: Path, lifter_settings: Settings
) -> None:
    lifted = lift(model, WALK, tmp_path / "poses.parquet", hypotheses=3)
    assert any("returns one pose for each frame" in note for note in lifted.notes)
    assert read_about(tmp_path / "poses.parquet")["hypotheses"] == 1
    plain = lifter_settings.plain() | {"model": DIFFUSION}
    plain["evaluation"] |= {"aggregation": "jpma_true_root", "hypotheses": 2}
    file = untrained(tmp_path / "oracle.pt", Settings.from_plain(plain, "test"))
    lifted = lift(str(file), WALK, tmp_path / "poses.parquet")
    assert any("jpma_true_root of the recipe needs the true root trajectory" in note for note in lifted.notes)


def test_a_folder_is_lifted_file_by_file_and_continued(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "raw", tmp_path / "poses"
    (folder / "inner").mkdir(parents=True)
    for name in ("a", "inner/b"):
        for ending in (".csv", ".toml"):
            (folder / f"{name}{ending}").write_text(WALK.with_suffix(ending).read_text())
    (folder / "broken.json").write_text("{")
    sources = clip_sources([folder])
    assert [source.name for source in sources] == ["a", "broken", "inner/b"]

    def run() -> list[lifting_jobs.LiftOutcome]:
        jobs = lifting_jobs.jobs_for(model, "", clip_sources([folder]), out, Reading(), Choices())
        return [lifting_jobs.run_job(job) for job in jobs]

    first = run()
    assert [outcome.lifted is not None for outcome in first] == [True, False, True]
    assert "cannot be read as JSON" in first[1].error
    assert sorted(str(file.relative_to(out)) for file in out.rglob("*.*")) == ["a.parquet", "inner/b.parquet"]
    again = run()
    assert [outcome.lifted for outcome in again] == [None] * 3
    assert [bool(outcome.error) for outcome in again] == [False, True, False]
    (folder / "a.csv").write_text((folder / "a.csv").read_text().replace("200.0", "201.0"))
    assert [outcome.lifted is not None for outcome in run()] == [True, False, False]
    monkeypatch.setattr(lifting_jobs, "lift_sources", lambda *_, **__: SimpleNamespace(no=1 / 0))
    (folder / "a.csv").write_text((folder / "a.csv").read_text().replace("201.0", "202.0"))
    assert run()[0].error.startswith("ZeroDivisionError")
