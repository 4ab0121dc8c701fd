"""Operations against a count by hand and against published figures; speed against a clock that the model moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from untrained import Untrained

from posegrid.datasets.skeletons import H36M_17
from posegrid.experiments import catalogue
from posegrid.models.interface import Batch, Lifter
from posegrid.orchestration import checkpoint, complexity
from posegrid.orchestration.batches import shape_of
from posegrid.orchestration.complexity import Complexity, SpeedSettings, flops_of_windows, measure, seconds_of_a_batch
from posegrid.orchestration.protocol import scoring_protocol, window_words
from posegrid.orchestration.settings import Settings, occlusion_values

CPU = torch.device("cpu")


def built(settings: Settings) -> Lifter:
    return checkpoint.build(settings, shape_of(H36M_17, settings.data)).eval()


def flops(settings: Settings, **pattern: object) -> float:
    resolved = occlusion_values({"pattern": "none", **pattern}, "test")
    visible = complexity._drawn_masks(settings, H36M_17, resolved)
    return flops_of_windows(built(settings), settings, visible, CPU)


def test_small_perceptron_by_hand(lifter_settings: Settings) -> None:
    model = {"name": "mlp", "width": 32, "depth": 3, "feature_width": 8}
    settings = Settings.from_plain(lifter_settings.plain() | {"model": model}, "test")
    multiply_adds = 34 * 32 + 3 * 32 * 32 + 32 * 17 * 8 + 17 * 8 * 3  # of one frame
    found = measure(built(settings), settings, H36M_17, {"pattern": "none"}, how=SpeedSettings(repetitions=1))
    assert found.flops_per_pose == 2 * multiply_adds
    biases = 32 + 3 * 32 + 17 * 8 + 3
    assert found.parameters == 34 * 32 + 3 * 32 * 32 + 32 * 17 * 8 + 8 * 3 + biases
    assert found.poses == 9
    assert found.poses_per_s > 0
    assert found.device.startswith("CPU, ")


@pytest.mark.parametrize(
    ("recipe", "stride", "arithmetic", "published"),
    [
        ("uplift_upsample_351", 5, 1051, 1062),
        ("uplift_upsample_351", 10, 992, 999),
        ("uplift_upsample_351", 20, 962, 966),
        ("uplift_upsample_81", 4, 561, 564),
        ("uplift_upsample_81", 10, 541, 543),
        ("uplift_upsample_81", 20, 534, 535),
    ],
)
def test_uplift_upsample_costs_what_its_authors_print(
    recipe: str, stride: int, arithmetic: float, published: float
) -> None:
    """Millions of operations. Counted by hand from the layers, of windows whose centre has a pose: within 0.5 %;
    published, with norms and softmax, and the mean over all places of the poses: 2 %.

    Attention is 3 % of the larger network: fused attention that is not counted would show.
    """
    settings = catalogue.recipe(recipe)
    centred, video = (
        flops(settings, pattern="sparse_frames", strides=[stride], shift=shift) / 1e6 for shift in ("centre", "video")
    )
    assert centred == pytest.approx(arithmetic, rel=5e-3)
    assert video == pytest.approx(published, rel=2e-2)


def test_fused_and_explicit_attention_count_alike(lifter_settings: Settings) -> None:
    """64 frames take the fused kernel on a CPU: 2 for each multiply-add of its two products all the same."""
    for frames in (9, 64):
        settings = replace(lifter_settings, data=replace(lifter_settings.data, frames=frames))
        width, tokens = 16, frames * 17
        layers = 2 * tokens * (4 * width * width + 4 * width * width)  # of both blocks: projections, MLP
        attention = 2 * width * (frames * 17**2 + 17 * frames**2)  # among joints, among frames
        ends = tokens * (2 * width + 3 * width)
        assert flops(settings) == 2 * (layers + attention + ends)


class Clockwork(Untrained):
    """Takes 2 s for each window by a clock of its own."""

    def __init__(self, output_frame: int | None = None) -> None:
        super().__init__()
        self.output_frame = output_frame
        self.now = 0.0
        self.batches: list[int] = []

    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        self.now += 2.0 * len(batch.keypoints)
        self.batches.append(len(batch.keypoints))
        return torch.zeros(len(batch.keypoints), 1, 9, 17, 3)


@pytest.mark.parametrize(
    ("how", "batches"),
    [
        (SpeedSettings(batch=4, warm_up=1, repetitions=3, most_s=1000), [1, 1, 4, 4, 4, 4]),
        (SpeedSettings(batch=4, warm_up=1, repetitions=3, most_s=5), [1, 1, 2, 2, 2]),  # fewer windows and repetitions
        (SpeedSettings(batch=4, warm_up=0, repetitions=9, most_s=0.1), [1, 1, 1]),  # one is always timed
    ],
)
def test_speed_by_a_clock_that_the_model_moves(
    how: SpeedSettings, batches: list[int], lifter_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, visible = Clockwork(), np.ones((3, 9, 17), dtype=bool)
    monkeypatch.setattr(complexity.time, "perf_counter", lambda: model.now)
    size, seconds = seconds_of_a_batch(model, lifter_settings, visible, CPU, how)
    assert (size, seconds) == (batches[-1], 2.0 * batches[-1])
    assert model.batches == batches


def test_a_window_yields_its_frames_or_one_pose(lifter_settings: Settings) -> None:
    centre = replace(lifter_settings, evaluation=replace(lifter_settings.evaluation, score="centre"))
    assert complexity.poses_of_a_window(Clockwork(), lifter_settings) == 9
    assert complexity.poses_of_a_window(Clockwork(), centre) == 1
    assert complexity.poses_of_a_window(Clockwork(4), centre) == 1


def test_a_diffusion_model_costs_what_its_chain_and_its_hypotheses_ask(wrapper_settings: Settings) -> None:
    """Each step is one evaluation of the network; the conditioner is read once."""
    model = {**wrapper_settings.model, "conditioning": "keypoints"}
    plain = wrapper_settings.plain() | {"model": model, "conditioner": None}

    def cost(**evaluation: object) -> float:
        settings = Settings.from_plain(plain | {"evaluation": {"batch": 16, **evaluation}}, "test")
        quick = SpeedSettings(batch=1, warm_up=0, repetitions=1)
        return measure(built(settings), settings, H36M_17, {"pattern": "none"}, how=quick).flops_per_pose

    once = cost(hypotheses=1)
    assert cost(hypotheses=3) == pytest.approx(3 * once, rel=0.02)
    assert cost(hypotheses=1, sampler="ddim", steps=2) == pytest.approx(once / 2, rel=0.02)


def test_speed_is_taken_over_where_a_pattern_costs_the_same(lifter_settings: Settings) -> None:
    model = built(lifter_settings)
    known = Complexity(
        parameters=1,
        flops_per_pose=flops(lifter_settings) / 9,
        poses_per_s=1.0,
        poses=9,
        batch=1,
        device=complexity.device_name(CPU),
    )
    leg = occlusion_values("leg_run", "test")
    assert measure(model, lifter_settings, H36M_17, leg, known=known) is known
    other = replace(known, flops_per_pose=1.0)
    quick = SpeedSettings(batch=2, repetitions=1)
    assert measure(model, lifter_settings, H36M_17, leg, how=quick, known=other).poses_per_s > 1


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"repetitions": 0}, {"warm_up": -1}, {"most_s": 0.0}])
def test_wrong_speed_settings(wrong: dict) -> None:
    with pytest.raises(ValueError, match="Change the one outside"):
        SpeedSettings(**wrong)


def test_protocols_in_words(lifter_settings: Settings) -> None:
    def words(tail: str = "keep", **evaluation: object) -> str:
        data = replace(lifter_settings.data, tail=tail)
        return scoring_protocol(
            replace(lifter_settings, data=data, evaluation=replace(lifter_settings.evaluation, **evaluation))
        )

    assert words() == "whole windows"
    assert words("drop") == "whole windows, tails dropped"
    assert words("overlap") == "whole windows, last window overlaps"
    assert words(score="centre", flip=True) == "centre frame, flip-averaged"
    assert words(score="centre", lift_every=5) == "centre frame, 1 frame of 5 lifted"
    others: list[dict] = [
        {"aggregation": "jpma_true_root"},
        {"every": 4},
        {"zero_root": True},
        {"shoulder_parent": "Thorax"},
        {"ddof": 0},
        {"seed": 3},
    ]
    assert len({words(**other) for other in [{}, *others]}) == 7  # type: ignore[arg-type]
    assert words(hypotheses=3, batch=7, aggregation="jpma_fitted_root") == words()
    assert window_words(lifter_settings) == "9"
    assert window_words(catalogue.recipe("uplift_upsample_81")) == "41 x 2"
