"""What is to be drawn, and where it comes to lie in the crop.

Legend: N images, J joints, Q points, H x W pixels of a crop.
"""

from dataclasses import dataclass

import numpy as np

from posegrid.datasets.images import crops, lenses

_GRID = 7
"""Points a side at which the lens is undone exactly."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """N people to be drawn. Slicing keeps the arrays aligned."""

    poses: np.ndarray
    """(N, J, 3) metres, camera frame, absolute."""
    intrinsics: np.ndarray
    """(N, 9) as `Camera.intrinsics`."""
    size: np.ndarray
    """(N, 2) width and height of the whole images, pixels."""
    boxes: np.ndarray
    """(N, 4) crops, see `crops`."""
    subject_keys: np.ndarray
    """(N,) uint64 `sequence_key` of the subjects' names."""
    sequence_keys: np.ndarray
    """(N,) uint64 `sequence_key` of the sequences' names."""
    frames: np.ndarray
    """(N,) int64"""

    def __len__(self) -> int:
        return len(self.poses)

    def __getitem__(self, rows: slice) -> "Scene":
        return Scene(**{name: value[rows] for name, value in vars(self).items()})


def screen_to_pixels(screen: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Screen (N, Q, 2) to pixels of images of `size` (N, 2); `cameras.screen_to_pixels` for many sizes at once."""
    size = np.asarray(size, dtype=np.float64)[:, None]
    return (screen + size / size[..., :1]) * size[..., :1] / 2


def pixels_to_screen(pixels: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Pixels (N, Q, 2) of images of `size` (N, 2) to screen; the inverse of `screen_to_pixels`."""
    size = np.asarray(size, dtype=np.float64)[:, None]
    return pixels * 2 / size[..., :1] - size / size[..., :1]


def in_crop(crop: crops.Config, scene: Scene, points: np.ndarray) -> np.ndarray:
    """Camera points (N, Q, 3) to pixels of the crop (N, Q, 2)."""
    screen = lenses.project(points, scene.intrinsics)
    return crops.to_crop(crop, scene.boxes, screen_to_pixels(screen, scene.size))


def ray_polynomials(crop: crops.Config, scene: Scene) -> np.ndarray:
    """(N, 10, 2) float32: cubic polynomials in the place on the crop that give X/Z and Y/Z of the ray through it.

    Terms 1, u, v, uu, uv, vv, uuu, uuv, uvv, vvv with u and v in [-1, 1] from edge to edge. Fitted to the exact rays
    through a grid of 7 x 7 points, for lenses are smooth.
    """
    v, u = (grid.ravel() for grid in np.meshgrid(*[np.linspace(-1, 1, _GRID)] * 2, indexing="ij"))
    points = np.stack([(u + 1) * crop.width / 2, (v + 1) * crop.height / 2], axis=-1)
    pixels = crops.from_crop(crop, scene.boxes, np.broadcast_to(points, (len(scene), *points.shape)))
    rays = lenses.rays_through(pixels_to_screen(pixels, scene.size), scene.intrinsics)
    terms = np.stack([u**0, u, v, u**2, u * v, v**2, u**3, u**2 * v, u * v**2, v**3], axis=-1)
    # einsum, not matmul: a row must not depend on how many others there are
    return np.einsum("tq,nqc->ntc", np.linalg.pinv(terms), rays).astype(np.float32)


def pixel_rays(crop: crops.Config, polynomials: np.ndarray) -> np.ndarray:
    """(2, N, H, W) float32: X/Z and Y/Z of the rays through the middles of all pixels."""
    f = polynomials.transpose(1, 2, 0)[..., None, None]
    u = ((np.arange(crop.width, dtype=np.float32) + 0.5) * 2 / crop.width - 1).astype(np.float32)[None, :]
    v = ((np.arange(crop.height, dtype=np.float32) + 0.5) * 2 / crop.height - 1).astype(np.float32)[:, None]
    # Horner's scheme in u: what depends on the row alone is not computed for every pixel
    out = (f[3] + v * f[7]) + u * f[6]
    out *= u
    out += f[1] + v * (f[4] + v * f[8])
    out *= u
    out += f[0] + v * (f[2] + v * (f[5] + v * f[9]))
    return out
