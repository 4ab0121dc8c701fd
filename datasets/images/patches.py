"""Adversarial occlusion: the patch that hurts most, as 3DPW-AdvOcc does (Di2Pose, after 3D-Aware Neural Body Fitting).

A square textured patch slides over the crop, 40 or 80 pixels wide, in steps of 10; of all placements the one at which
the model under test errs most is kept for each image, and only visible joints count. Which joints are visible the
papers leave open; here it is a named rule (`RULES`). Nothing here knows a model: `search` takes a function that returns
errors.

Legend: N images, P placements, J joints, T textures. Placements are numbered row by row from the top left.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from posegrid.datasets.occlusions.draws import WindowDraws

RULES = {
    "visible": "joints that neither the patch nor the person's own body hides",
    "uncovered": "joints that the patch does not hide",
    "unoccluded": "joints that the person's own body does not hide, also those under the patch",
    "all": "all joints",
}
"""Which joints count in the error of a placement."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A protocol of sliding patches."""

    size: int = 40
    """Side of the patch in pixels of the crop; 40 and 80 are published."""
    stride: int = 10
    """Step between placements in pixels. The last rows and columns that no whole step reaches stay free."""
    rule: str = "visible"
    """Which joints count, see `RULES`."""
    seed: int = 0
    """Seed of the choice of textures: each image gets one, for all its placements."""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f'patches.rule = "{self.rule}" is unknown. Known: {", ".join(RULES)}. Choose one of them.')
        for name, lowest in (("size", 1), ("stride", 1), ("seed", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(f"patches.{name} = {getattr(self, name)}: expected at least {lowest}. Raise it.")


@dataclass(frozen=True, kw_only=True)
class Worst:
    """What a search found for N images."""

    placement: np.ndarray
    """(N,) int64 placement with the largest mean error over the joints that count; the first of equal ones."""
    error: np.ndarray
    """(N,) float64 that mean, in the unit of the errors."""
    joints: np.ndarray
    """(N,) int64 how many joints counted."""


def placements(height: int, width: int, size: int, stride: int) -> np.ndarray:
    """(P, 2) int64 top and left of every placement of a square of `size` pixels in an image.

    Raises ValueError if the patch is larger than the image or a size is not positive.
    """
    if min(height, width, size, stride) < 1 or size > min(height, width):
        raise ValueError(
            f"a patch of {size} px (patches.size) with stride {stride} does not fit an image of {height} x {width} px. "
            "Choose a patch no larger than the crop and positive sizes."
        )
    tops, lefts = np.arange(0, height - size + 1, stride), np.arange(0, width - size + 1, stride)
    return np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int64)


def choose_textures(seed: int, sequence_keys: np.ndarray, frames: np.ndarray, count: int) -> np.ndarray:
    """(N,) int64 one of `count` textures per image, from (seed, sequence, frame) alone; see `reader.texture_keys`."""
    return WindowDraws(seed, sequence_keys, frames).integers(count)


def apply(
    images: np.ndarray, placement: np.ndarray, config: Config, textures: np.ndarray, texture: np.ndarray
) -> np.ndarray:
    """Copies of images (N, H, W, 3) uint8 with the patch `placement` (N,) on each, of `texture` (N,).

    textures: (T, S, S, 3) uint8 with S of at least the patch's size; the patch shows the top left part.
    Raises ValueError for other shapes or types, and for numbers of placements or textures that do not exist.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images are {images.dtype} {images.shape}, expected uint8 (N, height, width, 3).")
    if textures.ndim != 4 or textures.dtype != np.uint8 or min(textures.shape[1:3]) < config.size:
        raise ValueError(
            f"textures are {textures.dtype} {textures.shape}, expected uint8 (T, side, side, 3) with sides of at least "
            f"patches.size = {config.size}. Make or read larger ones."
        )
    table = placements(images.shape[1], images.shape[2], config.size, config.stride)
    for what, index, count in (("placement", placement, len(table)), ("texture", texture, len(textures))):
        _check_index(what, np.asarray(index), len(images), count)
    inside = np.arange(config.size)
    rows, columns = (table[placement, axis, None] + inside for axis in (0, 1))
    patched = images.copy()
    patched[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]] = textures[
        texture, : config.size, : config.size
    ]
    return patched


def counted(config: Config, joints: np.ndarray, visible: np.ndarray, height: int, width: int) -> np.ndarray:
    """(N, P, J) bool: which joints count at each placement, by `config.rule`.

    joints: (N, J, 2) true positions in pixels of the crop; visible: (N, J) bool, False where the person's own body
    hides the joint (`reader.visible`). A patch hides the points in [left, left + size) x [top, top + size).
    """
    if joints.shape != (*visible.shape, 2) or visible.dtype != np.bool_:
        raise ValueError(
            f"joints are {joints.dtype} {joints.shape}, visible is {visible.dtype} {visible.shape}; expected (N, J, 2) "
            "and bool (N, J)."
        )
    table = placements(height, width, config.size, config.stride)
    away = joints[:, None] - table[:, None, ::-1]
    covered = np.all((away >= 0) & (away < config.size), axis=-1)
    if config.rule == "all":
        return np.ones_like(covered)
    if config.rule == "uncovered":
        return ~covered
    itself = np.broadcast_to(visible[:, None], covered.shape)
    return itself.copy() if config.rule == "unoccluded" else itself & ~covered


def worst(errors: np.ndarray, counts: np.ndarray) -> Worst:
    """The worst placement of each image from errors (N, P, J) of joints and which of them count (N, P, J) bool.

    Placements at which no joint counts are passed over. Raises ValueError if there is an image without any other, for
    other shapes, and for errors that count and are not finite or negative.
    """
    if errors.ndim != 3 or errors.shape != counts.shape or counts.dtype != np.bool_ or errors.shape[1] == 0:
        raise ValueError(
            f"errors are {errors.dtype} {errors.shape}, counts are {counts.dtype} {counts.shape}; expected numbers and "
            "bool of one shape (N, placements, joints)."
        )
    bad = np.argwhere(counts & ~(np.isfinite(errors) & (errors >= 0)))
    if len(bad):
        image, place, joint = bad[0]
        raise ValueError(
            f"the error of image {image}, placement {place}, joint {joint} is {errors[image, place, joint]} "
            f"({len(bad)} such values); errors that count must be finite and at least 0. Check the model's output."
        )
    number = counts.sum(axis=2)
    total = np.where(counts, errors, 0).sum(axis=2, dtype=np.float64)
    mean = np.where(number > 0, total / np.maximum(number, 1), -1.0)
    none = np.flatnonzero(mean.max(axis=1) < 0)
    if len(none):
        raise ValueError(
            f"image {none[0]} has no joint that counts at any placement ({len(none)} of {len(mean)} images). Leave "
            'such images out, or choose another patches.rule, such as "all".'
        )
    best, rows = mean.argmax(axis=1), np.arange(len(mean))
    return Worst(placement=best, error=mean[rows, best], joints=number[rows, best])


def search(
    config: Config,
    images: np.ndarray,
    counts: np.ndarray,
    textures: np.ndarray,
    texture: np.ndarray,
    errors_of: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    batch: int = 256,
) -> Worst:
    """Try every placement on every image and keep the worst.

    errors_of(patched (M, H, W, 3) uint8, image (M,) int64) returns errors (M, J) of the model on patched copies of
    those images; it is called with at most `batch` of them. counts: (N, P, J) from `counted`; texture: (N,).
    Raises ValueError as `apply` and `worst` do, and if `errors_of` returns another shape.
    """
    shape = (
        len(images),
        len(placements(images.shape[1], images.shape[2], config.size, config.stride)),
        counts.shape[-1],
    )
    errors = np.empty((shape[0] * shape[1], shape[2]))
    for first in range(0, len(errors), batch):
        rows = np.arange(first, min(first + batch, len(errors)))
        image, placement = np.divmod(rows, shape[1])
        found = np.asarray(errors_of(apply(images[image], placement, config, textures, texture[image]), image))
        if found.shape != (len(rows), shape[2]):
            raise ValueError(
                f"errors_of returned {found.dtype} {found.shape} for {len(rows)} images, expected ({len(rows)}, "
                f"{shape[2]}): one error per joint."
            )
        errors[rows] = found
    return worst(errors.reshape(shape), counts)


def _check_index(what: str, index: np.ndarray, length: int, count: int) -> None:
    if index.shape != (length,) or index.dtype.kind not in "iu":
        raise ValueError(f"{what} is {index.dtype} {index.shape}, expected whole numbers ({length},): one per image.")
    wrong = np.flatnonzero((index < 0) | (index >= count))
    if len(wrong):
        raise ValueError(f"{what} of image {wrong[0]} is {index[wrong[0]]}; there are 0 to {count - 1}. Correct it.")
