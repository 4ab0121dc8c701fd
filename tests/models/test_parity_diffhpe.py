"""DiffHPE returns the numbers of the released network, losses, schedules and chains for the same weights and noise."""

import json

import pytest
import torch

from posegrid.models.blocks.embedding import step_table
from posegrid.models.blocks.graph import row_normalised_adjacency
from posegrid.models.diffhpe import Config, DiffHPE
from posegrid.models.diffusion.schedules import cosine
from posegrid.models.joint_order import H36M_17_PARENTS
from posegrid.models.mixste import Config as MixSTEConfig
from posegrid.models.mixste import MixSTE
from posegrid.models.official_names import from_official

FILES = [
    "diffhpe_2d_small",
    "diffhpe_2d_scaled",
    "diffhpe_2d_local",
    "diffhpe_wrapper_small",
    "diffhpe_wrapper_scaled",
]


def _channels_last(array: torch.Tensor) -> torch.Tensor:
    """(..., C, J, L) -> (..., L, J, C)."""
    return array.transpose(-1, -3).contiguous()


def _built(options: dict, pose) -> DiffHPE:
    """Our model for released constructor arguments."""
    conditioner = None
    if options["conditioning"] == "pt_mixste":
        lifter = MixSTEConfig(
            width=options["cond_channels"], depth=options["cond_layers"], heads=options["cond_nheads"]
        )
        conditioner = MixSTE(lifter, pose)
    config = Config(
        conditioning="lifter" if conditioner else "keypoints",
        channels=options["channels"],
        blocks=options["layers"],
        step_embedding=options["diffusion_embedding_dim"],
        steps=options["num_steps"],
        beta_cap=options["beta_end"],
        dropout=options["p_dropout"],
        non_local="published" if options["use_nonlocal"] else "none",
    )
    return DiffHPE(config, pose, conditioner)


@pytest.fixture(params=FILES)
def loaded(request, parity_file, shape_of):
    """The fixture and our model with its weights."""
    file = parity_file(request.param)
    model = _built(file.constructor["diffusion"], shape_of(file.constructor["seq_len"])).eval()
    model.load_state_dict(from_official(model, file.weights()))
    return file, model


def test_schedules_step_table_and_adjacency(loaded):
    file, model = loaded
    schedule = model.diffusion.schedule
    for name, ours in (
        ("beta", schedule.beta),
        ("alpha", schedule.alpha_bar),
        ("alpha_hat", schedule.alpha),
        ("sigma", schedule.sigma[1:]),
    ):
        torch.testing.assert_close(ours, file[f"output_schedule_{name}"], rtol=0, atol=1e-12)
    options = file.constructor["diffusion"]
    expected = file["output_step_table"]
    assert step_table(options["num_steps"], options["diffusion_embedding_dim"]).equal(expected)
    assert model.predictor.step_embedding.table.equal(expected)
    file.check_output("adjacency", row_normalised_adjacency(H36M_17_PARENTS))


def test_condition(loaded):
    file, model = loaded
    keypoints, noisy = _channels_last(file["input_keypoints"]), _channels_last(file["input_noisy"])
    read = keypoints if model.conditioner is None else model.conditioner.features(keypoints)
    joined = torch.cat([model.embed_pose(noisy), read], dim=-1)
    file.check_output("conditioned", joined.transpose(-1, -3))


def test_noise_prediction_and_the_first_block(loaded):
    file, model = loaded
    seen = {}

    def remember(name):
        def hook(_module, _inputs, output):
            seen.setdefault(name, output)  # returns None: what a hook returns would replace the output

        return hook

    parts = {"step": model.predictor.step_embedding, "block": model.predictor.blocks[0]}
    for name in ("time", "feature", "gate", "output"):
        parts[name] = getattr(model.predictor.blocks[0], name)
    if model.predictor.blocks[0].non_local is not None:
        parts["non_local"] = model.predictor.blocks[0].non_local
    for name, module in parts.items():
        module.register_forward_hook(remember(name))

    noisy = _channels_last(file["input_noisy"])
    with torch.no_grad():
        condition = model.condition(_channels_last(file["input_keypoints"]))
        predicted = model.predict_noise(noisy, file["input_step"], condition)
        middle = model.predict_noise(noisy, file["input_step_middle"], condition)
    file.check_output("noise_prediction", predicted.transpose(-1, -3))
    file.check_output("noise_prediction_middle", middle.transpose(-1, -3))

    def by_channel(grid):  # (J, L, B, D) -> (B, D, J, L)
        return grid.permute(2, 3, 0, 1)

    def by_frame(grid):  # (J, L, B, D) -> (B L, J, D)
        return grid.permute(2, 1, 0, 3).flatten(0, 1)

    file.check_middle("step_embedding", seen["step"])
    file.check_middle("time_layer_0", by_channel(seen["time"]).flatten(0, 1))
    file.check_middle("feature_layer_0", by_frame(seen["feature"]))
    if "non_local" in seen:
        file.check_middle("non_local_0", by_frame(seen["non_local"]))
    file.check_middle("gate_filter_0", by_channel(seen["gate"]).flatten(2))
    file.check_middle("residual_skip_0", by_channel(seen["output"]).flatten(2))
    file.check_middle("block_0", by_channel(seen["block"][0]))


def test_losses_with_given_noise(loaded):
    file, model = loaded
    keypoints, poses = _channels_last(file["input_keypoints"]), _channels_last(file["input_poses"])
    values = [
        model.noise_loss(keypoints, poses, step.expand(len(poses)), _channels_last(noise))
        for step, noise in zip(file["input_loss_steps"], file["input_loss_noise"], strict=True)
    ]
    file.check_output("losses", torch.stack(values).detach())


def test_complete_reverse_chains(loaded):
    file, model = loaded
    noise = _channels_last(file["input_chain_noise"])  # (H, S, B, L, J, 3)
    states = []
    model.embed_pose.register_forward_pre_hook(lambda _module, inputs: states.append(inputs[0].clone()))
    samples = model.sample(_channels_last(file["input_keypoints"]), lambda draw: noise[:, draw].transpose(0, 1))

    file.check_output("samples", samples.transpose(-1, -3))
    file.check_output("mean_of_samples", samples.mean(1).transpose(-1, -3))
    # States are (J, L, B * H, 3), hypotheses side by side; the file holds those of the first chain, (S, B, 3, J, L).
    first_chain = torch.stack(states)[:, :, :, :: len(noise)].permute(0, 3, 4, 1, 2)
    expected = file["mid_chain_states"]
    # Rounding grows along the chain, so the tolerance of its end is the one that applies.
    torch.testing.assert_close(first_chain, expected, rtol=1e-4, atol=file.tolerance["atol"]["samples"])


def test_published_values_of_the_schedule():
    schedule = cosine(50, beta_cap=0.5)
    for step, value in {0: 0.998252, 1: 0.994570, 24: 0.493844, 40: 0.0766498, 45: 0.0154638, 48: 0.00217953}.items():
        assert schedule.alpha_bar[step].item() == pytest.approx(value, rel=4e-6)
    assert schedule.alpha_bar[49].item() == pytest.approx(0.00108976, rel=5e-6)
    assert (schedule.beta == 0.5).sum() == 3
    assert schedule.sigma[1].item() == pytest.approx(0.034456, abs=1e-6)
    assert schedule.sigma[49].item() == pytest.approx(0.706721, abs=1e-6)


def test_names_of_every_released_configuration(parity_folder, shape_of):
    entries = json.loads((parity_folder / "official_keys.json").read_text(encoding="utf-8"))["configurations"]
    entries = [entry for entry in entries if entry["model"] in ("DiffHPE-2D", "DiffHPE-Wrapper")]
    assert len(entries) == 2
    for entry in entries:
        with torch.device("meta"):
            model = _built(entry["constructor"]["diffusion"], shape_of(entry["constructor"]["seq_len"]))
            released = {key: torch.empty(shape) for key, shape in entry["keys"].items()}
        from_official(model, released)
        # The release has no last linear layer behind its conditioner's features.
        unused = 0 if model.conditioner is None else sum(p.numel() for p in model.conditioner.head.parameters())
        assert sum(p.numel() for p in model.parameters()) - unused == entry["parameters"]


def test_weights_that_do_not_fit_are_listed(parity_file, shape_of):
    file = parity_file("diffhpe_2d_small")
    model = _built(file.constructor["diffusion"], shape_of(file.constructor["seq_len"]))
    weights = file.weights()
    weights["diffmodel.extra"] = weights.pop("diffmodel.input_projection.bias")
    weights["diffmodel.output_projection2.bias"] = torch.zeros(4)
    with pytest.raises(ValueError, match=r"missing: .*input_projection\.bias") as error:
        from_official(model, weights)
    assert "unexpected: diffmodel.extra." in str(error.value)
    assert "of another shape: diffmodel.output_projection2.bias (4,), here (3,)." in str(error.value)
