"""STCFormer returns the numbers of the released network for the same weights."""

import json

import pytest
import torch

from posegrid.models.blocks.refinement import PoseRefinement
from posegrid.models.flip import lift_flip_averaged
from posegrid.models.interface import Batch, PoseShape
from posegrid.models.official_names import from_official, official_weights
from posegrid.models.stcformer import Config, STCFormer


def _batch(keypoints: torch.Tensor) -> Batch:
    return Batch(keypoints=keypoints, visible=torch.ones(keypoints.shape[:-1], dtype=torch.bool))


def _config(options: dict) -> Config:
    older = "channel" in options
    return Config(
        width=options["d_hid"],
        depth=options["layers"],
        heads=4 if older else 8,
        release="mpi_inf_3dhp" if older else "human36m",
    )


@pytest.fixture
def mpi_inf_3dhp():
    """PoseShape of MPI-INF-3DHP's 17 joints for a number of frames."""

    def make(frames: int) -> PoseShape:
        return PoseShape(
            frames=frames,
            joints=17,
            parents=(16, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1),
            left=(5, 6, 7, 11, 12, 13),
            right=(2, 3, 4, 8, 9, 10),
        )

    return make


@pytest.mark.parametrize("name", ["stcformer_small", "stcformer_scaled", "stcformer_part", "stcformer_3dhp_scaled"])
def test_poses_and_blocks(name, parity_file, shape_of, mpi_inf_3dhp):
    file = parity_file(name)
    options = file.constructor
    pose = (mpi_inf_3dhp if "3dhp" in name else shape_of)(options["frames"])
    model = STCFormer(_config(options), pose).eval()
    model.load_state_dict(from_official(model, official_weights(file.weights())))
    seen = {}
    for layer in ("blocks.0.attention", *(f"blocks.{i}" for i in range(options["layers"]))):
        model.get_submodule(layer).register_forward_hook(lambda _m, _i, out, layer=layer: seen.update({layer: out}))
    model.blocks[0].register_forward_pre_hook(lambda _m, inputs: seen.update(embedding=inputs[0]))
    batch, generator = _batch(file["input_keypoints"]), torch.Generator()

    lifted = model.lift(batch, generator)[:, 0]
    file.check_output("poses", lifted)
    file.check_middle("embedding", seen["embedding"])
    file.check_middle("criss_cross_0", seen["blocks.0.attention"])
    for i in range(options["layers"]):
        file.check_middle(f"block_{i}", seen[f"blocks.{i}"])
    if "3dhp" not in name:
        averaged = lift_flip_averaged(model, batch, generator, pose)[:, 0]
        file.check_output("poses_flip_averaged", averaged)
        # The fixture zeroes the root of the averaged pose, as the released evaluation does.
        centre = averaged[:, (pose.frames - 1) // 2].index_fill(1, torch.tensor([0]), 0.0)
        file.check_output("centre_root_zeroed", centre)


def test_the_fused_kernel_gives_the_same(monkeypatch, parity_file, shape_of):
    file = parity_file("stcformer_scaled")
    model = STCFormer(_config(file.constructor), shape_of(file.constructor["frames"])).eval()
    model.load_state_dict(from_official(model, file.weights()))
    monkeypatch.setattr("posegrid.models.blocks.attention.LONG_SEQUENCE", 1)
    file.check_output("poses", model.lift(_batch(file["input_keypoints"]), torch.Generator())[:, 0])


def test_published_checkpoints_match_key_for_key(parity_folder, shape_of, mpi_inf_3dhp):
    entries = json.loads((parity_folder / "official_keys.json").read_text(encoding="utf-8"))["configurations"]
    entries = [entry for entry in entries if entry["model"] == "STCFormer"]
    assert len(entries) == 5
    for entry in entries:
        options = entry["constructor"]
        with torch.device("meta"):
            model = STCFormer(_config(options), (mpi_inf_3dhp if "channel" in options else shape_of)(options["frames"]))
            released = {entry["prefix"] + key: torch.empty(shape) for key, shape in entry["keys"].items()}
        from_official(model, official_weights(released))
        unused = 6 * 2 * 256 if "channel" in options else 0  # a norm in every block of the older network
        assert sum(p.numel() for p in model.parameters()) + unused == entry["parameters"]
        with pytest.raises(ValueError, match=r"missing: pose_emb\.weight"):
            from_official(model, {key: value for key, value in released.items() if key != "pose_emb.weight"})


def test_a_norm_that_is_never_read_still_has_its_shape(parity_file, mpi_inf_3dhp):
    file = parity_file("stcformer_3dhp_scaled")
    model = STCFormer(_config(file.constructor), mpi_inf_3dhp(9))
    weights = file.weights()
    weights["mlpmixer.mixerblocks.1.layer_norm2.bias"] = torch.zeros(31)
    with pytest.raises(ValueError, match=r"of another shape: mlpmixer\.mixerblocks\.1\.layer_norm2\.bias \(31,\)"):
        from_official(model, weights)


def test_refine_head(parity_file, parity_folder):
    file = parity_file("refine")
    head = PoseRefinement(17).eval()
    head.load_state_dict(from_official(head, file.weights()))
    file.check_output("refined", head(file["input_lifted"], file["input_back_projected"]))
    entries = json.loads((parity_folder / "official_keys.json").read_text(encoding="utf-8"))["configurations"]
    (entry,) = (entry for entry in entries if entry["model"] == "refine head")
    from_official(head, {key: torch.empty(shape) for key, shape in entry["keys"].items()})
    assert sum(p.numel() for p in head.parameters()) == entry["parameters"]
