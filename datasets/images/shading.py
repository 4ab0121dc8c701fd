"""Colours of rendered pixels: walls and floors, lit clothes, boards. See `rendering`.

Legend: N images, H x W pixels of a crop, G pixels that show a surface.
"""

from functools import lru_cache

import numpy as np

from posegrid.datasets.images.staging import SIDE, TEXTURES, Stage
from posegrid.datasets.images.textures import fractal_noise, make_textures

_WEAVE, _BANDS = 64, 6
PACKED = np.dtype("<u4")
"""Red, green, blue and nothing in the four bytes of a number."""


class Shading:
    """Textures of one seed."""

    def __init__(self, seed: int) -> None:
        self._tones, self._weave = _textures(seed)

    def backgrounds(self, stage: Stage) -> np.ndarray:
        """(N, H, W) packed colours of wall and floor."""
        return self._tones.take((stage.rows * SIDE)[:, :, None] + stage.columns[:, None, :])

    def parts(self, stage: Stage, part: np.ndarray, point: np.ndarray, place: np.ndarray) -> np.ndarray:
        """(G,) packed colours of points on bodies and poles: clothes, a weave, light from one side.

        part: (G,) counted over all N x M capsules; point: (3, G) float32 metres; place: (G,) along the axis in [0, 1].
        """
        known = np.ascontiguousarray(stage.looks.reshape(-1, 19).T).take(part, axis=1)
        normal = point - (known[:3] + known[3:6] * place)
        normal /= np.sqrt(_dot(normal, normal))
        facing, limit = _dot(normal, known[12:15]), known[18]
        bands = np.isinf(limit) & (np.floor(place * _BANDS) % 2 == 1)
        thread = ((facing + 1) * np.float32(0.5 * (_WEAVE - 1))).astype(np.int64)
        thread += (place * np.float32(_WEAVE - 1)).astype(np.int64) * _WEAVE
        shade = np.float32(0.45) + np.float32(0.6) * np.maximum(_dot(normal, known[15:18]), 0)
        shade *= self._weave.take(thread, mode="clip")
        return pack(np.minimum(np.where(bands | (facing > limit), known[9:12], known[6:9]) * shade, 255))

    def boards(self, stage: Stage, board: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(G,) packed colours of pixels (x, y) of the crop on boards; `board` (G,) counts over all images."""
        corner = stage.corner.reshape(-1, 2)[board]
        columns, rows = (np.floor(place).astype(np.int64) % SIDE for place in (x - corner[:, 0], y - corner[:, 1]))
        return self._tones.take((stage.texture.ravel()[board] * SIDE + rows) * SIDE + columns)


@lru_cache(maxsize=4)
def _textures(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Packed pixels of all textures, one texture below the other, and the brightness of cloth; both flat."""
    textures = np.zeros((TEXTURES, SIDE, SIDE, 4), dtype=np.uint8)
    textures[..., :3] = make_textures(seed, TEXTURES, SIDE)
    noise = fractal_noise(np.random.default_rng(seed), _WEAVE, coarsest=8, roughness=0.9)
    tones, weave = textures.view(PACKED).ravel(), (1 + 0.35 * (noise - 0.5)).astype(np.float32).ravel()
    tones.setflags(write=False)
    weave.setflags(write=False)
    return tones, weave


def pack(colours: np.ndarray) -> np.ndarray:
    """Colours (3, G) in [0, 255] to one integer each: a pixel moves as one number, which is much faster than three."""
    red, green, blue = colours.astype(PACKED)
    return red | green << np.uint32(8) | blue << np.uint32(16)


def unpack(packed: np.ndarray) -> np.ndarray:
    """Packed colours (...) to (..., 3) uint8, a view."""
    return packed.view(np.uint8).reshape(*packed.shape, 4)[..., :3]


def _dot(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    return one[0] * two[0] + one[1] * two[1] + one[2] * two[2]
