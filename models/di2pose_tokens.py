"""Di2Pose's pose quantisation: a pose becomes a few discrete tokens, and tokens become a pose again.

Wang et al., "Di2Pose: Discrete Diffusion Model for Occluded 3D Human Pose Estimation", NeurIPS 2024, stage 1. No code
is known to be released. Where the paper is silent (how joints become tokens, widths of the perceptrons) this follows
PCT (Geng et al., CVPR 2023), whose tokeniser is here too: `mixing = "tokens"`, `quantiser = "codebook"`.

It lifts nothing: `lift` gives back the poses of the batch as they come through the tokens, so that the usual scores are
its reconstruction error, and it is the conditioner of `di2pose`. Keypoints and occlusion are not read.
Legend: B windows, L frames, P = B L poses, J joints, N tokens, K categories, D width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posegrid.models.blocks.joint_mixing import LocalMLP, MixerMLP
from posegrid.models.blocks.quantise import Codebook, FiniteScalar
from posegrid.models.interface import Batch, Lifter, PoseShape
from posegrid.models.shapes import require_target, require_windows


@dataclass(frozen=True, kw_only=True)
class Config:
    """The published tokeniser."""

    tokens: int = 100
    """Number N of tokens of a pose."""
    levels: tuple[int, ...] = (7, 5, 5, 5, 5)
    """Values of each channel of a token; the product is the number K of categories. Even numbers are allowed."""
    groups: int = 3
    """Groups of channels that are shifted against each other along the joints; 1 shifts nothing."""
    encoder_width: int = 2048
    """Width D of a joint in the encoder."""
    encoder_blocks: int = 4
    """Blocks of the encoder."""
    decoder_width: int = 512
    """Width D of a joint in the decoder."""
    decoder_blocks: int = 1
    """Blocks of the decoder."""
    mixing: Literal["shift", "tokens"] = "shift"
    """"shift": Local-MLP blocks. "tokens": the MLP-Mixer blocks of PCT."""
    token_hidden: int = 64
    """With mixing = "tokens": hidden width of the perceptron over joints."""
    quantiser: Literal["levels", "codebook"] = "levels"
    """"levels": finite scalar quantisation. "codebook": the nearest of K learned codes, as in PCT."""
    codes: int = 2048
    """With a codebook: number K of codes."""
    code_width: int = 512
    """With a codebook: width of a code."""
    commitment: float = 0.25
    """With a codebook: weight of the mean square distance of features from their codes. Ours; PCT's rule for poses in
    metres is not known."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("mixing", self.mixing, ("shift", "tokens")),
            ("quantiser", self.quantiser, ("levels", "codebook")),
        ):
            if value not in known:
                raise ValueError(f"di2pose_tokens: {name} {value!r} is unknown. Known: {', '.join(known)}. Choose one.")
        FiniteScalar(tuple(self.levels))  # refuses what it cannot number
        narrow = min(self.encoder_width, self.decoder_width)
        if self.groups < 1 or self.groups % 2 == 0 or -(-narrow // self.groups) * (self.groups - 1) >= narrow:
            raise ValueError(
                f"di2pose_tokens: groups is {self.groups} with widths of {self.encoder_width} and "
                f"{self.decoder_width}; allowed are odd numbers of groups of which none is empty. Change it, for "
                "instance to 3."
            )
        for name in ("tokens", "encoder_blocks", "decoder_blocks", "token_hidden", "codes", "code_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"di2pose_tokens: {name} is {getattr(self, name)}; it must be at least 1. Raise it.")
        if self.commitment < 0:
            raise ValueError(f"di2pose_tokens: commitment is {self.commitment}; it must be at least 0. Raise it.")


class Encoder(nn.Module):
    """Poses to the features that are quantised: a layer per joint, blocks, joints to tokens, channels to features."""

    def __init__(self, config: Config, joints: int, coordinates: int, features: int):
        super().__init__()
        width = config.encoder_width
        self.embed = nn.Linear(coordinates, width)
        self.blocks = nn.Sequential(*(_block(config, joints, width) for _ in range(config.encoder_blocks)))
        self.norm = nn.LayerNorm(width)
        self.to_tokens = nn.Linear(joints, config.tokens)
        self.to_features = nn.Linear(width, features)

    def forward(self, poses_PJC: Tensor) -> Tensor:
        """(P, J, C) -> (P, N, features)."""
        return self.of_embedded(self.embed(poses_PJC))

    def of_embedded(self, joints_PJD: Tensor) -> Tensor:
        """The same from embedded joints (P, J, D)."""
        joints = self.norm(self.blocks(joints_PJD))
        return self.to_features(self.to_tokens(joints.transpose(-1, -2)).transpose(-1, -2))


class Decoder(nn.Module):
    """Codes of tokens to poses: tokens to joints, codes to channels, blocks, a layer per joint."""

    def __init__(self, config: Config, joints: int, coordinates: int, features: int):
        super().__init__()
        width = config.decoder_width
        self.to_joints = nn.Linear(config.tokens, joints)
        self.embed = nn.Linear(features, width)
        self.blocks = nn.Sequential(*(_block(config, joints, width) for _ in range(config.decoder_blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, coordinates)

    def forward(self, codes_PND: Tensor) -> Tensor:
        """(P, N, features) -> (P, J, C)."""
        joints = self.to_joints(codes_PND.transpose(-1, -2)).transpose(-1, -2)
        return self.head(self.norm(self.blocks(self.embed(joints))))


class PoseTokeniser(Lifter):
    """Autoencoder of single poses with tokens in the middle."""

    splits = False  # a codebook follows the features of all windows together

    def __init__(self, config: Config, pose: PoseShape):
        super().__init__()
        self.config = config
        self.pose = pose
        self.quantiser: FiniteScalar | Codebook = (
            FiniteScalar(tuple(config.levels))
            if config.quantiser == "levels"
            else Codebook(config.codes, config.code_width)
        )
        self.encoder = Encoder(config, pose.joints, 3, self.quantiser.width)
        self.decoder = Decoder(config, pose.joints, 3, self.quantiser.width)

    @property
    def categories(self) -> int:
        """Number K of values of a token."""
        return self.quantiser.categories

    @property
    def tokens(self) -> int:
        """Number N of tokens of a pose."""
        return self.config.tokens

    def encode(self, poses_PJC: Tensor) -> Tensor:
        """Root-relative poses (P, J, 3) in metres to tokens (P, N) of 0 .. K - 1."""
        return self.quantiser(self.encoder(poses_PJC))[1]

    def decode(self, tokens_PN: Tensor) -> Tensor:
        """Tokens (P, N) to poses (P, J, 3), metres."""
        return self.decoder(self.quantiser.codes(tokens_PN))

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean absolute difference of coordinates, metres, and for a codebook the weighted commitment."""
        target = _poses(batch, self.pose)
        codes, _, penalty = self.quantiser(self.encoder(target.flatten(0, 1)))
        return F.l1_loss(self.decoder(codes), target.flatten(0, 1)) + self.config.commitment * penalty

    @torch.no_grad()
    def lift(self, batch: Batch, generator: torch.Generator, hypotheses: int = 1) -> Tensor:
        """(B, 1, L, J, 3) metres: the poses of the batch, encoded and decoded. Raises ValueError without poses."""
        target = _poses(batch, self.pose)
        return self.decode(self.encode(target.flatten(0, 1))).view(target.shape)[:, None]


def _block(config: Config, joints: int, width: int) -> nn.Module:
    if config.mixing == "tokens":
        return MixerMLP(joints, width, config.token_hidden, width)
    return LocalMLP(width, config.groups)


def _poses(batch: Batch, pose: PoseShape) -> Tensor:
    require_windows(batch.keypoints, pose, "di2pose_tokens")
    if batch.poses is None:
        raise ValueError(
            "di2pose_tokens was given a batch with no poses; it reconstructs poses and lifts no keypoints. Score it on "
            "data with 3D and with evaluation.flip = false, or lift with di2pose."
        )
    return require_target(batch, "di2pose_tokens")


def build(config: Config, pose: PoseShape, conditioner: Lifter | None = None) -> PoseTokeniser:
    """The tokeniser for this skeleton."""
    return PoseTokeniser(config, pose)
