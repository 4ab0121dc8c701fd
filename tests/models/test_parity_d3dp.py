"""D3DP returns the numbers of the released denoiser, forward process and sampler for the same weights and noise."""

import json

import pytest
import torch

from posegrid.models.d3dp import D3DP, Config
from posegrid.models.diffusion.chain import Chain
from posegrid.models.diffusion.gaussian import predicting_clean
from posegrid.models.diffusion.schedules import cosine, sampling_times
from posegrid.models.flip import flip
from posegrid.models.official_names import from_official, official_weights


def _config(options: dict, **changes) -> Config:
    values = {"width": options["cs"], "depth": options["dep"], "steps": options["timestep"], "scale": options["scale"]}
    return Config(**values, flip=options["test_time_augmentation"], **changes)


@pytest.fixture(params=["d3dp_small", "d3dp_scaled"])
def loaded(request, parity_file, shape_of):
    file = parity_file(request.param)
    model = D3DP(_config(file.constructor), shape_of(file.constructor["number_of_frames"])).eval()
    model.load_state_dict(from_official(model, file.weights()))
    return file, model


def test_schedule_and_sampling_times(loaded):
    file, model = loaded
    weights, schedule = file.weights(), model.diffusion.schedule
    for name, ours in (
        ("betas", schedule.beta),
        ("alphas_cumprod", schedule.alpha_bar),
        ("posterior_variance", schedule.sigma.square()),
    ):
        torch.testing.assert_close(ours, weights[name], rtol=0, atol=1e-12)
    for steps in (1, 2, 3, 5, 10, 20, 50):
        assert sampling_times(1000, steps) == file[f"output_sampling_times_{steps}"].tolist()[:-1]


def test_published_values_of_the_schedule():
    kept = cosine(1000).alpha_bar
    assert kept[0].item() == pytest.approx(0.99996, abs=5e-6)
    assert kept[499].item() == pytest.approx(0.49384, abs=5e-6)
    assert kept[999].item() == pytest.approx(2.43e-9, rel=2e-3)


@torch.no_grad()
def test_denoiser_and_its_first_layers(loaded):
    file, model = loaded
    seen: dict[str, torch.Tensor] = {}

    def remember(name, value):
        seen.setdefault(name, value)  # returns None: what a hook returns would replace the output

    for name in ("step_embedding", "denoiser.spatial.0", "denoiser.temporal.0"):
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: remember(name, out))
    model.denoiser.spatial[0].register_forward_pre_hook(lambda _m, given: remember("embedding", given[0]))
    keypoints, step = file["input_keypoints"], file["input_step"]
    file.check_output("denoised", model.predict_clean(file["input_noisy"], step, keypoints))
    file.check_middle("step_embedding", seen["step_embedding"])
    file.check_middle("embedding", seen["embedding"].flatten(0, 1))
    file.check_middle("spatial_block_0", seen["denoiser.spatial.0"].flatten(0, 1))
    file.check_middle("temporal_block_0", seen["denoiser.temporal.0"].transpose(1, 2).flatten(0, 1))

    several = file["input_noisy_hypotheses"]
    count = several.shape[1]
    found = model.predict_clean(
        several.flatten(0, 1), step.repeat_interleave(count), keypoints.repeat_interleave(count, dim=0)
    )
    file.check_output("denoised_hypotheses", found.unflatten(0, (-1, count)))


def test_forward_process(loaded):
    file, model = loaded
    found = model.diffusion.noised(file["input_poses"], file["input_forward_noise"], file["input_forward_step"])
    torch.testing.assert_close(found.double(), file["output_forward_diffused"], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_one_step_with_inputs_beyond_the_bound(loaded):
    file, model = loaded
    noisy, step = 2 * file["input_noisy_hypotheses"], file["input_step"]
    assert noisy.abs().max() > 1.1
    count = noisy.shape[1]
    for window in range(len(noisy)):
        keypoints = file["input_keypoints"][window : window + 1].repeat_interleave(count, dim=0)
        keypoints = torch.cat([keypoints, flip(keypoints, model.pose)])
        network = predicting_clean(lambda x, t, k=keypoints: model.denoised(x, t, k), model.diffusion.schedule)
        said = network(noisy[window], int(step[window]))
        for name, ours in (("step_pred_start", said.clean), ("step_pred_noise", said.noise)):
            expected, tolerance = file[f"output_{name}"][window], file.tolerance
            torch.testing.assert_close(ours, expected, rtol=tolerance["rtol"], atol=tolerance["atol"][name])


@pytest.mark.parametrize(
    ("output", "mirrors", "noise"),
    [
        ("samples_flip", True, "chain_noise"),
        ("samples_plain", False, "chain_noise"),
        ("samples_flip_one_step", True, "chain_noise_one_step"),
    ],
)
def test_complete_chains(loaded, output, mirrors, noise, monkeypatch):
    file, model = loaded
    if not mirrors:
        plain = D3DP(_config({**file.constructor, "test_time_augmentation": False}), model.pose).eval()
        plain.load_state_dict(model.state_dict())
        model = plain
    draws = file[f"input_{noise}"]
    model.chain = Chain(sampler="ddim", steps=len(draws), eta=1.0)
    estimates, states = [], []
    denoised = model.denoised

    def remember(state, step, keypoints):
        states.append(state)
        estimates.append(denoised(state, step, keypoints))
        return estimates[-1]

    monkeypatch.setattr(model, "denoised", remember)
    result = model.sample(file["input_keypoints"], lambda draw: draws[draw])
    hypotheses = result.shape[:2]
    file.check_output(output, torch.stack([x.unflatten(0, hypotheses) for x in estimates], dim=1))
    assert result.flatten(0, 1).equal(estimates[-1])
    if output == "samples_flip":
        torch.testing.assert_close(
            torch.stack([x.unflatten(0, hypotheses) for x in states]),
            file["mid_chain_states_flip"],
            rtol=1e-4,
            atol=file.tolerance["atol"][output],
        )


def test_flipped_input_gives_the_flipped_chain(loaded):
    """Averaging inside every step makes sampling equivariant when the noise is mirrored too."""
    file, model = loaded
    draws, keypoints = file["input_chain_noise"], file["input_keypoints"]
    model.chain = Chain(sampler="ddim", steps=len(draws), eta=1.0)
    plain = model.sample(keypoints, lambda k: draws[k])
    mirrored = model.sample(flip(keypoints, model.pose), lambda k: flip(draws[k], model.pose))
    torch.testing.assert_close(flip(mirrored, model.pose), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("frames", "parameters"), [(27, 34_724_867), (81, 34_752_515), (243, 34_835_459)])
def test_parameter_counts(frames, parameters, shape_of):
    with torch.device("meta"):
        model = D3DP(Config(), shape_of(frames))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for p in model.step_embedding.parameters()) == 1_050_112


def test_names_of_every_released_configuration(parity_folder, shape_of):
    entries = json.loads((parity_folder / "official_keys.json").read_text(encoding="utf-8"))["configurations"]
    entries = [entry for entry in entries if entry["model"] == "D3DP"]
    assert len(entries) == 3
    for entry in entries:
        with torch.device("meta"):
            model = D3DP(_config(entry["constructor"]), shape_of(entry["constructor"]["number_of_frames"]))
            released = {entry["prefix"] + key: torch.empty(shape) for key, shape in entry["keys"].items()}
        from_official(model, official_weights({"model_pos": released, "epoch": 3}))
        assert sum(p.numel() for p in model.parameters()) == entry["parameters"]
