"""How a diffusion model samples and how its hypotheses become one pose is chosen when it is scored."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import PROTOCOL, sequences
from untrained import Untrained

from posegrid.datasets.cameras import h36m_cameras, project
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store, open_store
from posegrid.datasets.store_writer import write_store
from posegrid.models.aggregation import AGGREGATIONS
from posegrid.models.diffhpe import DiffHPE
from posegrid.models.diffusion.chain import Chain
from posegrid.models.interface import Batch
from posegrid.models.mixste import MixSTE
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import Masks, pose_shape
from posegrid.orchestration.evaluation import evaluate
from posegrid.orchestration.hypotheses import check_aggregation
from posegrid.orchestration.lifting import chosen_chain, lifted_windows
from posegrid.orchestration.settings import Settings, occlusion_values
from posegrid.orchestration.stage import log_scores
from posegrid.orchestration.tracking import Tracking
from posegrid.orchestration.workers import Workers

NONE = {"pattern": "none"}


@pytest.fixture(scope="module")
def filmed_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The toy store, filmed by two of Human3.6M's cameras in turn."""
    filmed = []
    for number, one in enumerate(sequences(30)):
        camera = h36m_cameras()["S9"][number % 2]
        keypoints = project(one.poses, camera).astype(np.float32)
        filmed.append(replace(one, keypoints=keypoints, camera_parameters=camera.to_plain()))
    target: Path = tmp_path_factory.mktemp("filmed") / "store"
    write_store(target, filmed, source="toy", source_config={}, skeleton=H36M_17, protocol=PROTOCOL)
    return open_store(target)


@pytest.fixture
def diffusion_settings(lifter_settings: Settings) -> Settings:
    model = {"name": "diffhpe", "channels": 8, "blocks": 2, "steps": 8, "step_embedding": 16, "dropout": 0.0}
    return Settings.from_plain({**lifter_settings.plain(), "model": model}, "test")


def scored(settings: Settings, **changes: object) -> Settings:
    return replace(settings, evaluation=replace(settings.evaluation, **changes))


class Guesses(Untrained):
    """Hypotheses around the truth, which it is given; the first is nearest in the image."""

    def __init__(self, spread: float = 0.05) -> None:
        super().__init__()
        self.spread = spread

    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        noise = batch.draw(lambda count: torch.randn(count, hypotheses, 9, 17, 3, generator=generator))
        assert batch.poses is not None
        poses = batch.poses[:, None] + self.spread * noise
        return poses - poses[..., :1, :]


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_every_aggregation_is_evaluated_with_the_stores_cameras(
    name: str, filmed_store: Store, lifter_settings: Settings
) -> None:
    def errors(aggregation: str, world: int = 1) -> tuple[float, dict[str, float]]:
        settings = scored(lifter_settings, aggregation=aggregation, hypotheses=6)
        check_aggregation(settings, filmed_store)
        found = evaluate(Guesses(), filmed_store, settings, NONE, Workers())
        assert found.sets is not None
        return found.sums.frame_wise()["mpjpe_mm"], found.sets.frame_wise()

    single, (error, sets) = errors("mean")[1]["mpjpe_each_mm"], errors(name)
    assert error < 0.95 * single
    for aggregation, key in (
        ("mean", "mpjpe_mean_mm"),
        ("best_joint_oracle", "mpjpe_best_joint_oracle_mm"),
        ("best_pose_oracle", "mpjpe_best_pose_oracle_mm"),
        ("best_window_oracle", "mpjpe_best_window_oracle_mm"),
    ):
        if name == aggregation:
            assert error == pytest.approx(sets[key], rel=1e-5)
    if name == "jpma_true_root":
        assert sets["mpjpe_best_joint_oracle_mm"] < error < sets["mpjpe_best_pose_oracle_mm"]


def test_fitted_root_chooses_almost_as_the_true_one(filmed_store: Store, lifter_settings: Settings) -> None:
    found = {}
    for root in ("true", "fitted"):
        settings = scored(lifter_settings, aggregation=f"jpma_{root}_root", hypotheses=6)
        model = Guesses(0.02)
        found[root] = evaluate(model, filmed_store, settings, NONE, Workers()).sums.frame_wise()["mpjpe_mm"]
    assert found["fitted"] == pytest.approx(found["true"], rel=0.1)


def test_reprojection_without_cameras_is_refused(toy_store: Store, lifter_settings: Settings) -> None:
    settings = scored(lifter_settings, aggregation="jpma_true_root")
    with pytest.raises(ValueError, match=r"aggregation = jpma_true_root projects poses, but the store has no usable"):
        check_aggregation(settings, toy_store)
    check_aggregation(scored(settings, hypotheses=1), toy_store)
    check_aggregation(scored(settings, aggregation="median"), toy_store)
    with pytest.raises(ValueError, match=r'value "jpma" .key aggregation. is unknown'):
        scored(settings, aggregation="jpma")


def test_sampler_is_chosen_when_scoring_and_put_back(toy_store: Store, diffusion_settings: Settings) -> None:
    model = checkpoint.build(diffusion_settings, pose_shape(toy_store, diffusion_settings.data)).eval()
    assert isinstance(model, DiffHPE)
    torch.nn.init.normal_(model.predictor.output.weight, std=0.1)  # which starts at zero
    calls: list[int] = []
    predict = model.predict_noise

    def counted(noisy: Tensor, step: Tensor, *rest: object) -> Tensor:
        calls.append(int(step[0]))
        return predict(noisy, step, *rest)

    model.predict_noise = counted
    masks, found = Masks(toy_store, NONE), {}
    for label, changes, steps in (
        ("own", {}, 8),
        ("all", {"steps": 0}, 8),
        ("few", {"sampler": "ddim", "steps": 3, "eta": 0.0}, 3),
        ("second order", {"sampler": "dpm_solver", "steps": 3}, 3),
    ):
        settings = scored(diffusion_settings, hypotheses=2, batch=1000, **changes)
        calls.clear()
        found[label] = [one.predicted for one in lifted_windows(model, toy_store, settings, masks, "test", Workers())]
        assert len(calls) == steps
        assert model.chain == DiffHPE.chain == Chain(sampler="ddpm")
    assert np.array_equal(found["own"], found["all"])
    assert not np.allclose(found["few"], found["own"], atol=1e-3)
    assert not np.allclose(found["few"], found["second order"], atol=1e-5)


def test_what_cannot_be_sampled_is_refused(lifter_settings: Settings, diffusion_settings: Settings) -> None:
    assert chosen_chain(MixSTE, lifter_settings) is None
    with pytest.raises(ValueError, match=r"evaluation.steps = 3 .recipe tiny., but .*MixSTE.* does not sample"):
        chosen_chain(MixSTE, scored(lifter_settings, steps=3))
    with pytest.raises(ValueError, match=r'eta = 0.5 .*sampler is "ddpm", which does not read eta'):
        chosen_chain(DiffHPE, scored(diffusion_settings, eta=0.5))
    with pytest.raises(ValueError, match=r"trained with model.steps = 8. Allowed are 1 to 8"):
        chosen_chain(DiffHPE, scored(diffusion_settings, steps=9))
    with pytest.raises(ValueError, match=r'sampler "ddjm".*did you mean "dd'):
        scored(diffusion_settings, sampler="ddjm")
    chain = chosen_chain(DiffHPE, scored(diffusion_settings, sampler="ddim", eta=0.5, steps=4))
    assert chain == Chain(sampler="ddim", steps=4, eta=0.5)


def test_choices_of_scoring_change_the_scores_fingerprint_only(diffusion_settings: Settings) -> None:
    changed = [
        scored(diffusion_settings, **one)
        for one in ({"steps": 4}, {"sampler": "ddim"}, {"aggregation": "median"}, {"sampler": "ddim", "eta": 1.0})
    ]
    every = [diffusion_settings, *changed]
    assert len({one.training_fingerprint("hash") for one in every}) == 1
    assert len({one.evaluation_fingerprint(NONE, "hash") for one in every}) == len(every)
    for one in every:
        assert Settings.from_plain(one.plain()) == one
        assert asdict(Settings.from_plain(one.plain()).evaluation) == asdict(one.evaluation)


def test_scores_of_sets_are_logged_with_marked_names(
    filmed_store: Store, lifter_settings: Settings, tracking: Tracking
) -> None:
    run, pattern = tracking.open_study("s", {}, ""), occlusion_values("arm_leg", "test")
    for aggregation, said in (
        ("best_joint_oracle", "best_joint_oracle, an oracle: reads the true poses"),
        ("jpma_true_root", "jpma_true_root, an oracle: reads the true root trajectory"),
        ("median", "median"),
    ):
        settings = scored(lifter_settings, aggregation=aggregation, hypotheses=4)
        scores = evaluate(Guesses(), filmed_store, settings, pattern, Workers())
        log_scores(tracking, run, settings, pattern, "hash", scores)
        assert tracking.trial(run).tags["aggregation"] == said
    metrics = tracking.trial(run).metrics
    for name in ("mpjpe_best_pose_oracle_mm", "diversity_mm", "energy_score_mm", "coverage_50"):
        assert f"test arm_leg/{name}" in metrics
        assert f"test arm_leg/{name} occluded" in metrics
    assert 0.5 < metrics["test arm_leg/coverage_50"] < 1  # guesses lie around the truth
    with tracking.fetched(run, "test/arm_leg/hypotheses_per_joint.csv") as file:
        lines = file.read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == list(H36M_17.joints)


def test_regressors_have_no_set(toy_store: Store, lifter_settings: Settings) -> None:
    class One(Guesses):
        def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
            return super().lift(batch, generator, 1)

    settings = scored(lifter_settings, hypotheses=5, aggregation="jpma_true_root")
    assert evaluate(One(), toy_store, settings, NONE, Workers()).sets is None
