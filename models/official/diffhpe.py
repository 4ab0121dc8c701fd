"""Released names of DiffHPE and of the MixSTE that conditions it."""

from torch import Tensor, nn

from posegrid.models.official import mixste
from posegrid.models.official.patterns import Rules, first_match, with_part, without_last_singletons

_RULES: Rules = (
    (r"embed_pose\.(.*)", r"conditioning.data_enc.\1"),
    (r"predictor\.input\.(.*)", r"diffmodel.input_projection.\1"),
    (r"predictor\.step_embedding\.first\.(.*)", r"diffmodel.diffusion_embedding.projection1.\1"),
    (r"predictor\.step_embedding\.second\.(.*)", r"diffmodel.diffusion_embedding.projection2.\1"),
    (r"predictor\.hidden\.(.*)", r"diffmodel.output_projection1.\1"),
    (r"predictor\.output\.(.*)", r"diffmodel.output_projection2.\1"),
    (r"predictor\.blocks\.(\d+)\.step\.(.*)", r"diffmodel.residual_layers.\1.diffusion_projection.\2"),
    (r"predictor\.blocks\.(\d+)\.gate\.(.*)", r"diffmodel.residual_layers.\1.mid_projection.\2"),
    (r"predictor\.blocks\.(\d+)\.output\.(.*)", r"diffmodel.residual_layers.\1.output_projection.\2"),
    (
        r"predictor\.blocks\.(\d+)\.(time|feature)\.convolution\.weight",
        r"diffmodel.residual_layers.\1.\2_layer.gconv.W",
    ),
    (
        r"predictor\.blocks\.(\d+)\.(time|feature)\.convolution\.bias",
        r"diffmodel.residual_layers.\1.\2_layer.gconv.bias",
    ),
    (r"predictor\.blocks\.(\d+)\.(time|feature)\.norm\.(.*)", r"diffmodel.residual_layers.\1.\2_layer.bn.\3"),
    (r"predictor\.blocks\.(\d+)\.non_local\.(.*)", r"diffmodel.residual_layers.\1.non_local.non_local.\2"),
)
_NON_LOCAL_PARTS = {
    "theta": "theta",
    "phi": "phi.0",
    "value": "g.0",
    "score": "concat_project.0",
    "output": "W.0",
    "norm": "W.1",
}
_CONDITIONER = "conditioner."


def official_name(model: nn.Module, key: str) -> str | None:
    """Released name of our key; None for the conditioner's last linear layer, which is never used."""
    if key.startswith(_CONDITIONER):
        name = mixste.official_name(model, key.removeprefix(_CONDITIONER))
        if name.startswith("head.1."):
            return None
        return "conditioning." + name.replace("head.0.", "head.")
    return with_part(first_match(_RULES, key), r"(.*\.non_local\.non_local\.)", _NON_LOCAL_PARTS)


def in_our_layout(model: nn.Module, key: str, value: Tensor) -> Tensor:
    """1 x 1 convolutions as linear layers; the conditioner as MixSTE."""
    return without_last_singletons(mixste.in_our_layout(model, key, value))
