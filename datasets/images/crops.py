"""Person crops: which part of an image shows the person, and where its points come to lie.

Pixel coordinates are continuous: an image w pixels wide spans [0, w], its pixel i covers [i, i + 1]. That is the
convention of `cameras.normalise_screen` and of Pillow (OpenCV's, where pixel i *is* i, differs by half a pixel). A crop
is an upright box of the image, scaled; it may reach over the border, what lies outside is black.

Legend: N images, J joints. Boxes are (N, 4) float64: left, top, right, bottom in pixels of the whole image.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Config:
    """Size of a crop and how it is laid around the person. The defaults are ViTPose's (Xu et al., 2022)."""

    height: int = 256
    """Height of a crop in pixels."""
    width: int = 192
    """Width of a crop in pixels."""
    padding: float = 1.25
    """The box is this much larger than the keypoints' bounding box, on its tighter side, and has the crop's shape."""
    confidence: float = 0.0
    """Keypoints whose confidence is not above this do not count for the box; 0 leaves out the missing ones."""
    smallest_px: float = 32.0
    """The box is at least this high, in pixels of the image, so that a person of one keypoint gives a crop."""

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("height", 16, 2048),
            ("width", 16, 2048),
            ("padding", 1.0, 10.0),
            ("confidence", 0.0, 0.999),
            ("smallest_px", 1.0, 1e4),
        ):
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise ValueError(f"images.crop.{name} = {value}: expected {lowest} to {highest}. Correct it.")


def person_boxes(config: Config, pixels: np.ndarray, confidence: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(N, 4) boxes of shape height : width around keypoints (N, J, 2) in pixels of images of `size` (N, 2) = w, h.

    Keypoints more than half an image outside are pulled in to there: a detector's gross error must not make the person
    vanish. Rows in which no keypoint counts come back as NaN.
    """
    size = np.asarray(size, dtype=np.float64)[:, None]
    inside = np.clip(np.asarray(pixels, dtype=np.float64), -0.5 * size, 1.5 * size)
    seen = (confidence > config.confidence)[..., None]
    low = np.where(seen, inside, np.inf).min(axis=1)
    high = np.where(seen, inside, -np.inf).max(axis=1)
    none = ~seen.any(axis=(1, 2))
    low[none], high[none] = np.nan, np.nan
    extent = (high - low) * config.padding
    height = np.maximum(extent[:, 1], extent[:, 0] * config.height / config.width)
    height = np.maximum(height, config.smallest_px)
    half = np.stack([height * config.width / config.height, height], axis=1) / 2
    middle = (low + high) / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def crop_affine(config: Config, boxes: np.ndarray) -> np.ndarray:
    """(N, 2, 3) float64 matrices that map (x, y, 1) of the image to the crop's pixels."""
    scale = crop_scale(config, boxes)
    affine = np.zeros((len(boxes), 2, 3))
    affine[:, 0, 0], affine[:, 1, 1] = scale[:, 0], scale[:, 1]
    affine[:, :, 2] = -boxes[:, :2] * scale
    return affine


def crop_scale(config: Config, boxes: np.ndarray) -> np.ndarray:
    """(N, 2) pixels of the crop per pixel of the image, along x and y."""
    return np.array([config.width, config.height]) / (boxes[:, 2:] - boxes[:, :2])


def to_crop(config: Config, boxes: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Points (N, Q, 2) in pixels of the image to pixels of the crop, float64."""
    return (pixels - boxes[:, None, :2]) * crop_scale(config, boxes)[:, None]


def from_crop(config: Config, boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (N, Q, 2) in pixels of the crop to pixels of the image; the inverse of `to_crop`."""
    return points / crop_scale(config, boxes)[:, None] + boxes[:, None, :2]
