"""Released checkpoints: read whole without running anything, fitted key for key, refused with what does not fit."""

import io
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from official_layout import mixste_weights, training_file, uplift_layers, write_keras
from torch import Tensor

from posegrid.datasets.skeletons import H36M_17
from posegrid.models.interface import Batch, Lifter
from posegrid.models.official_names import from_official, official_weights
from posegrid.orchestration import checkpoint
from posegrid.orchestration.released import Conditioner, conditioner_from, read_as, window_shape
from posegrid.orchestration.released_files import read_released
from posegrid.orchestration.settings import Settings

H36M = "h36m_17"


def fresh(settings: Settings, conditioner: Lifter | None = None, seed: int = 3) -> Lifter:
    """A model of made-up weights, none of which is zero or one."""
    torch.manual_seed(seed)
    model = checkpoint.build(settings, window_shape(H36M_17, settings.data.frames), conditioner)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def lifted(model: Lifter, frames: int = 9) -> Tensor:
    keypoints = torch.rand(3, frames, 17, 2, generator=torch.Generator().manual_seed(1)) - 0.5
    batch = Batch(keypoints=keypoints, visible=torch.ones(3, frames, 17, dtype=torch.bool))
    return model.lift(batch, torch.Generator().manual_seed(2), 2)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(content: Any, **options: Any) -> Path:
        torch.save(content, tmp_path / "best_epoch.bin", **options)
        return tmp_path / "best_epoch.bin"

    return write


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_file_with_the_state_of_its_training(
    zipped: bool, save: Callable[..., Path], lifter_settings: Settings
) -> None:
    model = fresh(lifter_settings)
    file = save(training_file(mixste_weights(model, 2, "module.")), _use_new_zipfile_serialization=zipped)
    released = read_as(file, lifter_settings, H36M)
    assert not released.model.training
    assert lifted(released.model).equal(lifted(model))
    assert read_as(file, lifter_settings, H36M).key == released.key


def test_key_follows_settings_skeleton_and_content(save: Callable[..., Path], lifter_settings: Settings) -> None:
    weights = mixste_weights(fresh(lifter_settings), 2)
    first = read_as(save(weights), lifter_settings, H36M)
    flipped = replace(lifter_settings, evaluation=replace(lifter_settings.evaluation, flip=True))
    others = [read_as(first.file, flipped, H36M), read_as(first.file, lifter_settings, "uplift_17")]
    others.append(read_as(save({**weights, "head.1.bias": torch.ones(3)}), lifter_settings, H36M))
    assert len({one.key for one in (first, *others)}) == 4


class OldState:
    """Pickles as a RandomState did before NumPy 1.17."""

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return getattr(np.random, "__RandomState_ctor"), (), np.random.RandomState(0).get_state()


def test_numbers_and_random_states_of_old_and_new_numpy(tmp_path: Path) -> None:
    stream = io.BytesIO()
    content = {"old": OldState(), "new": np.random.default_rng(0), "lr": np.float64(1), "state": np.arange(3.0)}
    torch.save({**content, "kept": torch.ones(2), "epoch": 4}, stream, _use_new_zipfile_serialization=False)
    assert b"numpy._core.multiarray" in stream.getvalue()
    for version in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        file = tmp_path / "best_epoch.bin"
        file.write_bytes(stream.getvalue().replace(b"numpy._core.multiarray", version))
        found = read_released(file)
        assert found["kept"].equal(torch.ones(2))
        assert found["epoch"] == 4
        assert not any(isinstance(found[name], np.ndarray | np.generic | np.random.RandomState) for name in content)


@pytest.mark.parametrize("module", ["builtins", "os", "numpy"])
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_of_a_hostile_file_runs(module: str, zipped: bool, save: Callable[..., Path], tmp_path: Path) -> None:
    target = tmp_path / "executed"
    calls = {"builtins": (open, (str(target), "w")), "os": (os.mkdir, (str(target),))}
    calls["numpy"] = (np.save, (str(target), np.zeros(1)))

    class Evil:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return calls[module]

    content = training_file({"head.weight": torch.zeros(1)}) | {"optimizer": Evil()}
    file = save(content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"names (io\.open|posix\.mkdir|numpy\.\S*save).*Nothing of it was run"):
        read_released(file)
    assert not list(tmp_path.glob("executed*"))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.999])
def test_cut_file(kept: float, zipped: bool, save: Callable[..., Path]) -> None:
    file = save(training_file({"a": torch.rand(2000)}), _use_new_zipfile_serialization=zipped)
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with pytest.raises(ValueError, match="is damaged, cut, or no checkpoint"):
        read_released(file)


def test_what_does_not_fit_is_listed(save: Callable[..., Path], lifter_settings: Settings) -> None:
    weights = mixste_weights(fresh(lifter_settings), 2, "module.")
    weights["module.extra"] = weights.pop("module.head.1.bias")
    weights["module.Temporal_pos_embed"] = torch.zeros(1, 27, 16)
    with pytest.raises(ValueError, match=r"best_epoch.bin with recipe tiny on h36m_17") as failure:
        read_as(save(training_file(weights)), lifter_settings, H36M)
    said = str(failure.value)
    assert "missing: head.1.bias. unexpected: extra." in said
    assert "of another shape: Temporal_pos_embed (1, 27, 16), here (9, 16)." in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "weights": {"a": torch.ones(1)}}, r"dictionary of epoch \(int\), weights \(dict\).*Say under"),
        ([], "it is a list"),
        (torch.ones(2), "it is a Tensor"),
        ({}, "it is empty"),
        ({"head.1.bias": torch.tensor([0.0, torch.nan, 1.0])}, r"head.1.bias \(1 of 1 weights\) are no plain numbers"),
        ({"head.1.bias": torch.eye(3).to_sparse()}, "no plain numbers: sparse"),
        ({"post_refine.0.weight": torch.ones(2, 2), "post_refine.0.bias": torch.ones(2)}, "holds a refine head"),
    ],
)
def test_files_without_usable_weights(
    content: Any, message: str, save: Callable[..., Path], lifter_settings: Settings
) -> None:
    with pytest.raises(ValueError, match=message):
        read_as(save(content), lifter_settings, H36M)


def test_missing_file(tmp_path: Path, lifter_settings: Settings) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_as(tmp_path / "none.bin", lifter_settings, H36M)


def test_containers_and_prefixes() -> None:
    weights = {"a": torch.ones(1), "b.c": torch.zeros(2)}
    prefixed = {f"module.model.{name}": value for name, value in weights.items()}
    for held in (weights, prefixed, {"state_dict": prefixed, "epoch": 1}, {"model": weights}, [prefixed, {}, 3]):
        assert official_weights(held).keys() == weights.keys()
    other = {"model_pos": weights, "ema": {"module.x": torch.ones(1)}}
    assert list(official_weights(other, "ema")) == ["x"]
    with pytest.raises(ValueError, match="no weights under 'model_traj'"):
        official_weights(other, "model_traj")


@pytest.fixture
def wrapper(lifter_settings: Settings, wrapper_settings: Settings) -> tuple[Settings, Lifter, Lifter]:
    """Settings, lifter, and the wrapper around it."""
    lifter = fresh(lifter_settings)
    return wrapper_settings, lifter, fresh(wrapper_settings, lifter)


def without_conditioner(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value for name, value in weights.items() if not name.startswith("conditioning.") or ".data_enc." in name
    }


def test_wrapper_that_holds_its_conditioner(
    wrapper: tuple[Settings, Lifter, Lifter], lifter_settings: Settings, save: Callable[..., Path]
) -> None:
    settings, lifter, model = wrapper
    file = save(mixste_weights(model, 2, "module."))
    for conditioner in (Conditioner(settings=lifter_settings), Conditioner(settings=lifter_settings, model=lifter)):
        released = read_as(file, settings, H36M, conditioner=conditioner)
        assert lifted(released.model).equal(lifted(model))
        assert released.settings.upstream == lifter_settings.plain()


def test_wrapper_without_its_conditioner(
    wrapper: tuple[Settings, Lifter, Lifter], lifter_settings: Settings, save: Callable[..., Path]
) -> None:
    settings, lifter, model = wrapper
    file = save(without_conditioner(mixste_weights(model, 2)))
    with pytest.raises(ValueError, match=r"missing: conditioning\.Spatial_pos_embed.*needs --conditioner RUN"):
        read_as(file, settings, H36M, conditioner=Conditioner(settings=lifter_settings))
    given = Conditioner(settings=lifter_settings, model=deepcopy(lifter), key="abc")
    assert lifted(read_as(file, settings, H36M, conditioner=given).model).equal(lifted(model))


def test_wrapper_with_another_conditioner(
    wrapper: tuple[Settings, Lifter, Lifter], lifter_settings: Settings, save: Callable[..., Path]
) -> None:
    settings, _, model = wrapper
    file = save(mixste_weights(model, 2))
    other = Conditioner(settings=lifter_settings, model=fresh(lifter_settings, seed=4))
    with pytest.raises(ValueError, match=r"conditioner of its own.*\d+ weights differ, first conditioner\."):
        read_as(file, settings, H36M, conditioner=other)
    longer = replace(lifter_settings, data=replace(lifter_settings.data, frames=27))
    with pytest.raises(ValueError, match=r"data\.frames = 9, its conditioner tiny with 27"):
        read_as(file, settings, H36M, conditioner=Conditioner(settings=longer))


def test_conditioner_from_a_model_file(lifter_settings: Settings, tmp_path: Path) -> None:
    lifter = fresh(lifter_settings)
    pose = window_shape(H36M_17, 9)
    file = tmp_path / "model.pt"
    checkpoint.write(file, checkpoint.model_file(lifter_settings, pose, lifter.state_dict(), {"skeleton": H36M}))

    def no_tracking() -> Any:
        raise AssertionError("a file needs no tracking store")

    found = conditioner_from(str(file), H36M, no_tracking)
    assert found.model is not None
    assert lifted(found.model).equal(lifted(lifter))
    with pytest.raises(ValueError, match=r"lifts skeleton h36m_17, the model to import uplift_17"):
        conditioner_from(str(file), "uplift_17", no_tracking)


@pytest.fixture
def uplift() -> tuple[Settings, dict[str, Tensor]]:
    """A small Uplift and Upsample under attribute paths of the released network, Keras's layouts."""
    settings = Settings.from_plain(
        {
            "name": "tiny uplift",
            "model": {
                "name": "uplift_upsample",
                "width": 12,
                "spatial_width": 4,
                "spatial_depth": 1,
                "temporal_depth": 2,
                "heads": 2,
                "strides": [3, 3],
                "paddings": [0, 0],
            },
            "data": {"frames": 9},
            "training": {"epochs": 1, "batch": 2, "lr": 1e-3},
        },
        "test",
    )
    shapes: dict[str, tuple[int, ...]] = {
        "keypoint_embedding.kernel": (2, 4),
        "keypoint_embedding.bias": (4,),
        "spatial_pos_encoding.positional_encoding_weights": (17, 4),
        "temporal_pos_encoding.positional_encoding_weights": (9, 12),
        "strided_temporal_pos_encodings.0.positional_encoding_weights": (9, 12),
        "strided_temporal_pos_encodings.1.positional_encoding_weights": (3, 12),
        "learnable_strided_input_token_layer.learnable_masked_token": (12,),
        "spatial_norm.gamma": (4,),
        "spatial_norm.beta": (4,),
        "spatial_to_temporal_mapping.kernel": (68, 12),
        "spatial_to_temporal_mapping.bias": (12,),
        "head1.0.kernel": (12, 51),
        "head1.0.bias": (51,),
        "head2.0.kernel": (12, 51),
        "head2.0.bias": (51,),
    }
    for block, width in (("spatial_blocks.0", 4), *((f"temporal_blocks.{i}", 12) for i in range(2))):
        shapes |= _block(block, width) | {f"{block}.mlp.fc1.kernel": (width, 2 * width)}
        shapes |= {f"{block}.mlp.fc2.kernel": (2 * width, width), f"{block}.mlp.fc2.bias": (width,)}
    for block in ("strided_temporal_blocks.0", "strided_temporal_blocks.1"):
        shapes |= _block(block, 12) | {f"{block}.mlp.fc1.kernel": (1, 12, 24)}
        shapes |= {f"{block}.mlp.strided_conv.kernel": (3, 24, 12), f"{block}.mlp.strided_conv.bias": (12,)}
    generator = torch.Generator().manual_seed(0)
    return settings, {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _block(block: str, width: int) -> dict[str, tuple[int, ...]]:
    attention = ("wq", "wk", "wv", "projection")
    return {
        **{f"{block}.norm{i}.{kind}": (width,) for i in (1, 2) for kind in ("gamma", "beta")},
        **{f"{block}.attn.{layer}.kernel": (width, width) for layer in attention},
        **{f"{block}.attn.{layer}.bias": (width,) for layer in attention},
        f"{block}.mlp.fc1.bias": (2 * width,),
    }


def test_keras_file(uplift: tuple[Settings, dict[str, Tensor]], tmp_path: Path) -> None:
    settings, weights = uplift
    file = tmp_path / "h36m_81.h5"
    write_keras(file, uplift_layers(weights))
    released = read_as(file, settings, H36M)
    assert _equal(released.model.state_dict(), from_official(released.model, weights))


def test_keras_files_that_do_not_fit(
    uplift: tuple[Settings, dict[str, Tensor]], tmp_path: Path, lifter_settings: Settings
) -> None:
    settings, weights = uplift
    file, layers = tmp_path / "h36m_81.h5", uplift_layers(weights)
    write_keras(file, layers)
    with pytest.raises(ValueError, match="MixSTE was released as a file of PyTorch"):
        read_as(file, lifter_settings, H36M)
    write_keras(file, {**layers, "temporal_fc": layers["temporal_fc"][::-1], "other": [("w:0", torch.ones(2))]})
    with pytest.raises(ValueError, match="weight 1 of layer temporal_fc is temporal_fc/bias:0"):
        read_as(file, settings, H36M)
    lacking = {name: value for name, value in layers.items() if name != "temporal_block_2"}
    write_keras(file, {**lacking, "other": [("w:0", torch.ones(2))]})
    with pytest.raises(ValueError, match=r"missing: temporal_blocks\.1\.norm1\.gamma.*unexpected: other/w:0\."):
        read_as(file, settings, H36M)
    with h5py.File(file, "a") as root:
        del root["temporal_fc"]
    with pytest.raises(ValueError, match="no file of weights from Keras"):
        read_as(file, settings, H36M)
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ValueError, match="is damaged, cut"):
        read_as(file, settings, H36M)


def _equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)
