"""Batches in pieces: the curve of the whole batch, halving when memory runs out, what is said when it cannot."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from posegrid.datasets.store import Store
from posegrid.models.interface import Batch
from posegrid.models.mixste import MixSTE
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import check_stage, pose_shape
from posegrid.orchestration.loop import train
from posegrid.orchestration.memory_fit import fitting
from posegrid.orchestration.pieces import BatchTooLargeError
from posegrid.orchestration.recipe_tables import ComputeSettings
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers


@pytest.fixture
def settings(trained_settings: Settings) -> Settings:
    """Dropped paths, an average, occlusion; the gradient scales with the loss of the whole batch."""
    model = {**trained_settings.model, "square_gradient": True, "loss": "weighted"}
    training = replace(trained_settings.training, epochs=2, select_by="mpjpe")
    return replace(trained_settings, model=model, training=training)


def in_pieces(settings: Settings, size: int | str) -> Settings:
    return replace(settings, compute=ComputeSettings(micro_batch=size))


def curve(store: Store, settings: Settings, resume: dict[str, Any] | None = None) -> tuple[list[dict[str, float]], Any]:
    """Metrics of every epoch, and the last state."""
    torch.manual_seed(0)
    model = checkpoint.build(settings, pose_shape(store, settings.data))
    found: list[dict[str, float]] = []
    states: list[Any] = []

    def report(metrics: dict[str, float], state: Any) -> None:
        found.append({name: value for name, value in metrics.items() if not name.startswith("time/")})
        states.append(state())

    train(model, model, store, settings, Workers(), report, resume)
    return found, states[-1]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let training steps (and validation, if asked) of more windows than these run out of memory."""
    loss, seen = MixSTE.loss, []

    def set_limit(windows: int, *, validation: bool = False) -> list[int]:
        def limited(self: MixSTE, batch: Batch, generator: Any) -> Tensor:
            if self.training or validation:
                seen.append(len(batch.keypoints))
                if len(batch.keypoints) > windows:
                    raise torch.OutOfMemoryError("tried to allocate\n 2 GiB")
            return loss(self, batch, generator)

        monkeypatch.setattr(MixSTE, "loss", limited)
        return seen

    return set_limit


def test_pieces_give_the_curve_of_the_whole_batch(toy_store: Store, settings: Settings, fits: Any) -> None:
    whole, _ = curve(toy_store, settings)
    seen = fits(3)
    pieces, _ = curve(toy_store, in_pieces(settings, 3))  # 8 windows: 3, 2, 3
    assert set(seen) == {2, 3}
    for one, other in zip(whole, pieces, strict=True):
        assert other.pop("train/windows_at_once") == 3
        assert other == pytest.approx(one, rel=1e-5)  # sums in another order


def test_auto_halves_and_repeats_the_step(toy_store: Store, settings: Settings, fits: Any) -> None:
    whole, _ = curve(toy_store, settings)
    seen = fits(2, validation=True)
    halved, state = curve(toy_store, in_pieces(settings, "auto"))
    assert seen[:6] == [8, 4, 2, 2, 2, 2]
    for one, other in zip(whole, halved, strict=True):
        assert other.pop("train/windows_at_once") == 2
        assert other == pytest.approx(one, rel=1e-5)
    assert state["at_once"] == 2
    seen.clear()
    more = replace(settings, training=replace(settings.training, epochs=3))
    curve(toy_store, in_pieces(more, "auto"), state)
    assert seen[0] == 2  # a resumed run knows


def test_auto_changes_nothing_where_memory_suffices(toy_store: Store, settings: Settings) -> None:
    assert curve(toy_store, in_pieces(settings, "auto"))[0] == curve(toy_store, settings)[0]


@pytest.mark.parametrize(("size", "limit", "tried"), [(0, 3, 8), (4, 3, 4)])
def test_running_out_of_memory_says_what_would_fit(
    toy_store: Store, settings: Settings, fits: Any, size: int, limit: int, tried: int
) -> None:
    fits(limit)
    said = (
        rf"tiny ran out of memory with {tried} windows of 9 frames at once \(training.batch = 8, 1 worker\(s\).*"
        rf"tried to allocate 2 GiB\. .*half of what failed.* {tried // 2} windows at once should fit: "
        rf"--set compute.micro_batch={tried // 2} "
    )
    with pytest.raises(BatchTooLargeError, match=said):
        curve(toy_store, in_pieces(settings, size))


def test_nothing_fits(toy_store: Store, settings: Settings, fits: Any) -> None:
    fits(0)
    with pytest.raises(BatchTooLargeError, match="Not even one window fits: use a larger GPU"):
        curve(toy_store, in_pieces(settings, "auto"))


def test_validation_that_does_not_fit(toy_store: Store, settings: Settings, fits: Any) -> None:
    fits(8, validation=True)
    with pytest.raises(BatchTooLargeError, match=r"validation of tiny .* --set compute.micro_batch=auto"):
        curve(toy_store, settings)


def test_models_with_batch_norms_are_refused(
    toy_store: Store, wrapper_settings: Settings, lifter_settings: Settings
) -> None:
    upstream = lifter_settings.plain()
    asked = in_pieces(replace(wrapper_settings, upstream=upstream), 4)
    with pytest.raises(ValueError, match=r'compute.micro_batch = 4 \(recipe tiny wrapper\), but model "diffhpe"'):
        check_stage(toy_store, asked, [])
    with pytest.raises(ValueError, match=r"compute.micro_batch = 4"):
        curve(toy_store, asked)
    check_stage(toy_store, in_pieces(asked, "auto"), [])


def test_batch_norms_are_named_when_memory_runs_out(
    toy_store: Store, lifter_settings: Settings, fits: Any, monkeypatch: Any
) -> None:
    fits(3)
    monkeypatch.setattr(MixSTE, "splits", False)
    with pytest.raises(BatchTooLargeError, match=r'model "mixste" cannot be computed in pieces.*--workers'):
        curve(toy_store, in_pieces(lifter_settings, "auto"))


@pytest.mark.parametrize("wrong", [-1, "some", True])
def test_other_sizes_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r'micro_batch = .*: allowed are 0 .* and "auto"'):
        ComputeSettings(micro_batch=wrong)


def test_pieces_do_not_change_what_a_run_is(lifter_settings: Settings) -> None:
    same = {in_pieces(lifter_settings, size).training_fingerprint("data") for size in (0, 4, "auto")}
    assert same == {lifter_settings.training_fingerprint("data")}


class Meter:
    """A device of so much memory, of which steps take 100 bytes and 10 for each window."""

    def __init__(self, unused: int) -> None:
        self.unused, self.peak = unused, 0

    def step(self, windows: int) -> None:
        self.peak = 100 + 10 * windows

    def max_memory_allocated(self, device: Any) -> int:
        return self.peak

    def mem_get_info(self, device: Any) -> tuple[int, int]:
        return self.unused, 10_000

    def memory_reserved(self, device: Any) -> int:
        return 500

    def reset_peak_memory_stats(self, device: Any) -> None: ...
    def synchronize(self, device: Any) -> None: ...


@pytest.mark.parametrize(
    ("unused", "later", "fit"), [(500, 0, 80), (500, 300, 50), (0, 340, 1), (0, 350, 0), (9000, 0, 99)]
)
def test_what_fits_is_computed_from_two_steps(monkeypatch: Any, unused: int, later: int, fit: int) -> None:
    """0.9 of (unused + 500) bytes hold 100 and those of the optimizer, and 10 for each window."""
    meter = Meter(unused)
    monkeypatch.setattr(torch, "get_device_module", lambda device: meter)
    found = fitting(meter.step, 100, torch.device("cpu"), later)
    assert found.windows == fit
    assert "Measured in steps of 1 and 2 windows" in found.how
