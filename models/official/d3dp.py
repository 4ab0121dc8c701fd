"""Released names of D3DP."""

from torch import Tensor, nn

from posegrid.models.d3dp import D3DP
from posegrid.models.official import mixste

_STEP = "step_embedding."
_LAYERS = {"first": 1, "second": 3}
_SCHEDULE = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)


def official_name(model: nn.Module, key: str) -> str:
    """Released name of our key."""
    if key.startswith(_STEP):
        layer, weight = key.removeprefix(_STEP).split(".")
        return f"pose_estimator.time_mlp.{_LAYERS[layer]}.{weight}"
    return "pose_estimator." + mixste.official_name(model, key.removeprefix("denoiser."))


def in_our_layout(model: nn.Module, key: str, value: Tensor) -> Tensor:
    """The denoiser as MixSTE."""
    return mixste.in_our_layout(model, key, value)


def unread(model: D3DP) -> dict[str, tuple[int, ...]]:
    """The schedule, which the release stores and we compute."""
    return dict.fromkeys(_SCHEDULE, (model.config.steps,))
