"""Streams of lifted frames against the evaluator's windows, and against everything at once."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from torch import Tensor
from untrained import Untrained

from posegrid.datasets.keypoints.clips import Clip, Reading, clips_of_store
from posegrid.datasets.schema import Protocol
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store
from posegrid.datasets.store_writer import write_store
from posegrid.datasets.windows import frames_of
from posegrid.models.interface import Batch, Lifter
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import Masks, pose_shape
from posegrid.orchestration.frame_stream import Between, Piece, lifted_pieces
from posegrid.orchestration.lifting import lifted_windows
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.workers import Workers

CPU = torch.device("cpu")
DIFFUSION = {"name": "diffhpe", "conditioning": "keypoints", "channels": 8, "blocks": 2, "steps": 4}


class Doubles(Untrained):
    """Returns twice the keypoints as poses, of all frames or of one."""

    def __init__(self, output_frame: int | None = None) -> None:
        super().__init__()
        self.output_frame = output_frame

    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        poses = torch.cat([2 * batch.keypoints, torch.zeros_like(batch.keypoints[..., :1])], -1)[:, None]
        return poses if self.output_frame is None else poses[:, :, self.output_frame, None]


@pytest.fixture(scope="module")
def one_clip(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of one test sequence: its windows are batched as those of a clip."""
    return write_store(
        tmp_path_factory.mktemp("one") / "store",
        [toy.sequence("C", "walk", "walk 1", 83, 6)],
        source="toy",
        source_config={},
        skeleton=H36M_17,
        protocol=Protocol(train=(), test=("C",)),
    )


def network(settings: Settings, store: Store) -> Lifter:
    torch.manual_seed(5)
    model = checkpoint.build(settings, pose_shape(store, settings.data))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)  # some start at zero
    return model.eval()


def scored_frames(model: Lifter, store: Store, settings: Settings) -> np.ndarray:
    """(F, H, J, 3) what the evaluator lifts of the only sequence."""
    found = np.full((int(store.lengths[0]), 1, 17, 3), np.nan, dtype=np.float32)
    for lifted in lifted_windows(model, store, settings, Masks(store, {"pattern": "none"}), "test", Workers()):
        weight, frame = lifted.windows.weight, frames_of(store, lifted.windows)[0]
        if found.shape[1] != lifted.hypotheses.shape[1]:
            found = np.repeat(found, lifted.hypotheses.shape[1], axis=1)
        found[frame[weight]] = lifted.hypotheses.swapaxes(1, 2)[weight]
    assert np.isfinite(found).all()
    return found


def streamed(model: Lifter, store: Store, settings: Settings, batch: int = 0) -> np.ndarray:
    """(F, H, J, 3) of the stream."""
    (clip,) = clips_of_store(store, Reading())
    pieces = list(lifted_pieces(model, settings, clip.as_store(), CPU, batch))
    return np.concatenate([piece.hypotheses for piece in pieces])


def changed(settings: Settings, *, data: dict | None = None, model: dict | None = None, **scoring: object) -> Settings:
    plain = settings.plain()
    plain["evaluation"] |= scoring
    plain["data"] |= {"tail": "keep"} | (data or {})
    plain["model"] = model or plain["model"]
    return Settings.from_plain(plain, "test")


@pytest.mark.parametrize("model", [None, DIFFUSION])
def test_whole_windows_are_those_of_the_evaluator_bit_by_bit(
    one_clip: Store, lifter_settings: Settings, model: dict | None
) -> None:
    settings = changed(lifter_settings, model=model, batch=4, hypotheses=3, zero_root=True)
    lifter = network(settings, one_clip)
    found = streamed(lifter, one_clip, settings, 4)
    assert found.shape == (83, 3 if model else 1, 17, 3)
    np.testing.assert_array_equal(found, scored_frames(lifter, one_clip, settings))
    assert np.ptp(found[:, 0, 5], axis=0).max() > 1e-3


@pytest.mark.parametrize(
    ("scoring", "data"),
    [
        ({"score": "overlap", "shift": 4}, {}),
        ({"score": "overlap"}, {"stride": 3}),
        ({"score": "window", "flip": True}, {"stride": 2}),
        ({"score": "centre"}, {}),
        ({"score": "centre", "lift_every": 3}, {"stride": 2, "edges": "replicate_grid"}),
    ],
)
def test_other_protocols_are_those_of_the_evaluator(
    one_clip: Store, lifter_settings: Settings, scoring: dict, data: dict
) -> None:
    settings = changed(lifter_settings, data=data, batch=4, **scoring)
    lifter = network(settings, one_clip)
    found, wanted = streamed(lifter, one_clip, settings, 4), scored_frames(lifter, one_clip, settings)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_overlapping_hypotheses_are_those_of_the_evaluator(one_clip: Store, lifter_settings: Settings) -> None:
    settings = changed(lifter_settings, model=DIFFUSION, batch=5, hypotheses=2, score="overlap", shift=3)
    lifter = network(settings, one_clip)
    found, wanted = streamed(lifter, one_clip, settings, 5), scored_frames(lifter, one_clip, settings)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 4, 9, 10, 100])
@pytest.mark.parametrize(
    ("scoring", "data"),
    [
        ({"score": "window"}, {"stride": 2}),
        ({"score": "overlap", "shift": 2}, {"stride": 3}),
        ({"score": "centre", "lift_every": 4}, {}),
    ],
)
def test_pieces_are_everything_at_once_bit_by_bit(
    lifter_settings: Settings, frames: int, scoring: dict, data: dict
) -> None:
    """Of a model without sums, so that the size of a batch changes no rounding inside it."""
    settings, clip = changed(lifter_settings, data=data, **scoring), made_up(frames)
    whole = list(lifted_pieces(Doubles(), settings, clip.as_store(), CPU, 10_000))
    parts = list(lifted_pieces(Doubles(), settings, clip.as_store(), CPU, 3))
    assert len(whole) == 1
    assert len(parts) > 1 or frames <= 10
    everything = np.concatenate([part.hypotheses for part in parts])
    np.testing.assert_array_equal(everything, whole[0].hypotheses)
    if scoring.get("lift_every", 1) == 1:
        np.testing.assert_allclose(everything[:, 0, :, :2], 2 * clip.keypoints, rtol=1e-6)


def made_up(frames: int, seed: int = 0) -> Clip:
    generator = np.random.default_rng(seed)
    return Clip(
        source="x",
        video="x",
        person="1",
        first=0,
        frame_rate=50.0,
        width=1000,
        height=1000,
        skeleton=H36M_17,
        keypoints=generator.normal(size=(frames, 17, 2)).astype(np.float32),
        visible=np.ones((frames, 17), dtype=bool),
    )


def test_hidden_joints_enter_as_zero_and_are_marked(lifter_settings: Settings) -> None:
    clip, given = made_up(20), []

    class Sees(Doubles):
        def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
            given.append(batch)
            return super().lift(batch, generator, hypotheses)

    clip.visible[3:6, 2] = False
    list(lifted_pieces(Sees(), changed(lifter_settings), clip.as_store(), CPU))
    (batch,) = given
    hidden = torch.nonzero(~batch.visible)
    assert hidden[:, 1:].tolist() == [[3, 2], [4, 2], [5, 2]]
    assert not batch.keypoints[~batch.visible].any()
    assert batch.poses is None


def test_spread_is_that_of_single_windows(one_clip: Store, lifter_settings: Settings) -> None:
    """Against numbers of a lifter whose hypotheses are known: 1, 2 and 3 times the window's first frame number."""

    class Spread(Untrained):
        def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
            scale = torch.arange(1.0, hypotheses + 1)[:, None, None, None]
            return scale * torch.ones(len(batch.keypoints), hypotheses, 9, 17, 3)

    settings = changed(lifter_settings, score="overlap", hypotheses=3)
    (clip,) = clips_of_store(one_clip, Reading())
    pieces = list(lifted_pieces(Spread(), settings, clip.as_store(), CPU, 4))
    deviations = np.concatenate([piece.deviation for piece in pieces])  # type: ignore[misc]
    np.testing.assert_allclose(deviations, np.sqrt(3 * np.var([1, 2, 3], ddof=1)), rtol=1e-6)
    settings = changed(lifter_settings, hypotheses=3, model=DIFFUSION)
    pieces = list(lifted_pieces(network(settings, one_clip), settings, clip.as_store(), CPU, 4))
    for piece in pieces:
        wanted = np.sqrt(np.square(piece.hypotheses - piece.hypotheses.mean(1, keepdims=True)).sum((1, 3)) / 2)
        np.testing.assert_allclose(piece.deviation, wanted, rtol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize(("step", "given", "wanted"), [(0.4, 21, 51), (2.5, 60, 24), (1 / 3, 7, 20), (0.5, 1, 2)])
def test_rows_between_others_are_interpolated_whatever_the_pieces(step: float, given: int, wanted: int) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(given, 2))
    place = np.minimum(np.arange(wanted) * step, given - 1)
    expected = np.stack([np.interp(place, np.arange(given), values[:, axis]) for axis in (0, 1)], -1)
    for size in (1, 2, 7, given):
        between, found = Between(step, given, wanted), []
        for first in range(0, given, size):
            found += between.feed([values[first : first + size]])
        np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-12)


def peak(lift: Callable[[], object]) -> int:
    tracemalloc.start()
    lift()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("score", ["window", "overlap", "centre"])
def test_memory_does_not_grow_with_the_clip(lifter_settings: Settings, score: str) -> None:
    settings = changed(lifter_settings, score=score)
    short, long = made_up(300).as_store(), made_up(4_000).as_store()

    def lift(store: Store) -> int:
        return sum(len(piece) for piece in lifted_pieces(Doubles(), settings, store, CPU, 16))

    lift(short)
    output = 4_000 * 17 * 3 * 4
    assert peak(lambda: lift(long)) - peak(lambda: lift(short)) < output / 4


def test_a_model_of_one_frame_needs_windows_around_frames(lifter_settings: Settings) -> None:
    with pytest.raises(ValueError, match=r'evaluation\.score = "centre"'):
        list(lifted_pieces(Doubles(4), changed(lifter_settings), made_up(20).as_store(), CPU))
    centred: list[Piece] = list(
        lifted_pieces(Doubles(4), changed(lifter_settings, score="centre"), made_up(20).as_store(), CPU)
    )
    np.testing.assert_array_equal(
        np.concatenate([piece.hypotheses for piece in centred])[:, 0, :, :2], 2 * made_up(20).keypoints
    )
    assert replace(centred[0]).deviation is None
