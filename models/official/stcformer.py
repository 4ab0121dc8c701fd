"""Released names of STCFormer, of its Human3.6M networks and of the older one for MPI-INF-3DHP."""

from torch import Tensor

from posegrid.models.official.patterns import Rules, first_match
from posegrid.models.stcformer import Config, STCFormer

_HUMAN36M: Rules = (
    (r"embed\.(.*)", r"pose_emb.\1"),
    (r"head\.(.*)", r"regress_head.\1"),
    (r"blocks\.(\d+)\.attention\.(.*)", r"stcformer.stc_block.\1.stc_att.\2"),
    (r"blocks\.(\d+)\.norm\.(.*)", r"stcformer.stc_block.\1.layer_norm.\2"),
    (r"blocks\.(\d+)\.(.*)", r"stcformer.stc_block.\1.mlp.\2"),
)
_MPI_INF_3DHP: Rules = (
    (r"embed\.(.*)", r"pose_emb.\1"),
    (r"head\.(.*)", r"pose_lift.\1"),
    (r"blocks\.(\d+)\.attention\.(.*)", r"mlpmixer.mixerblocks.\1.cross_att.\2"),
    (r"blocks\.(\d+)\.norm\.(.*)", r"mlpmixer.mixerblocks.\1.layer_norm1.\2"),
    (r"blocks\.(\d+)\.(.*)", r"mlpmixer.mixerblocks.\1.mlp1.\2"),
)
_PARTS = {"norm": "layer_norm", "project": "proj", "part": "emb", "widen": "fc1", "narrow": "fc2"}
_LOCAL = {"human36m": ("sep2_s", "sep2_t"), "mpi_inf_3dhp": ("gate_s", "gate_t")}


def official_name(model: STCFormer, key: str) -> str:
    """Released name of our key."""
    release = model.config.release
    name = first_match(_HUMAN36M if release == "human36m" else _MPI_INF_3DHP, key)
    start, part, weight = name.rsplit(".", 2) if name.count(".") > 1 else ("", *name.split("."))
    local = dict(zip(("local_joints", "local_frames"), _LOCAL[release], strict=True))
    return ".".join(filter(None, (start, {**_PARTS, **local}.get(part, part), weight)))


def in_our_layout(model: STCFormer, key: str, value: Tensor) -> Tensor:
    """Rows of the projection reordered from (half, head, E, role) to (head, half, role, E)."""
    if ".qkv." not in key:
        return value
    return (
        value.unflatten(0, (2, model.config.heads, -1, 3)).permute(1, 0, 3, 2, *range(4, value.ndim + 3)).flatten(0, 3)
    )


def unread(model: STCFormer) -> dict[str, tuple[int, ...]]:
    """The older network has a norm in every block that it never applies."""
    if model.config.release == "human36m":
        return {}
    return {
        f"mlpmixer.mixerblocks.{block}.layer_norm2.{weight}": (model.config.width,)
        for block in range(model.config.depth)
        for weight in ("weight", "bias")
    }


def skeleton(config: Config) -> str:
    """Skeleton of each of the two releases."""
    return "h36m_17" if config.release == "human36m" else "mpi_inf_3dhp_17"
