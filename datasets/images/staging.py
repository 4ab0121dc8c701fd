"""Everything about a rendered image that is decided before the first pixel: bodies, obstacles, cameras, colours.

Small arrays, whole batches at once; `rendering` then draws them in pieces. Legend: N images, J joints, K parts of a
body, O obstacles, M = K + O capsules (a board is a capsule of no radius), H x W pixels of a crop.
"""

from dataclasses import dataclass

import numpy as np

from posegrid.datasets.images import crops
from posegrid.datasets.images.bodies import CLOTHES, Body, wardrobe
from posegrid.datasets.images.obstacles import place_obstacles
from posegrid.datasets.images.raster import capsule_table
from posegrid.datasets.images.scenes import Scene, in_crop, ray_polynomials
from posegrid.datasets.occlusions.draws import WindowDraws

NEAR = 0.1
"""What reaches nearer to the camera than this is not drawn, metres."""
TEXTURES, SIDE = 28, 256
"""How many textures there are, and their side in pixels."""
_FRONT = {"face": 0.25, "emblem": 0.9}
"""Cosine to the body's front from which on a part wears what it has in front; others never do."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """N images, ready to be drawn. Slicing keeps the arrays aligned."""

    rays: np.ndarray
    """(N, 10, 2) float32 polynomials of `scenes.ray_polynomials`"""
    capsules: np.ndarray
    """(N, M, 11) float32, `raster.capsule_table`"""
    start: np.ndarray
    """(N, M, 2) one end of each capsule, pixels of the crop"""
    end: np.ndarray
    """(N, M, 2) the other"""
    reach: np.ndarray
    """(N, M) how far from that line a capsule may cover pixels; -1: not drawn"""
    looks: np.ndarray
    """(N, M, 19) float32: start and axis in metres, colour at the back and at the front, direction of the front, of the
    light, cosine from which on the colour of the front is worn"""
    corner: np.ndarray
    """(N, O, 2) left and top of boards, pixels of the crop"""
    size: np.ndarray
    """(N, O, 2) width and height of boards, 0 for poles"""
    depth: np.ndarray
    """(N, O) of boards, metres"""
    texture: np.ndarray
    """(N, O) int64, of boards"""
    columns: np.ndarray
    """(N, W) int64 column of the background's texture that each column shows"""
    rows: np.ndarray
    """(N, H) int64 row of all textures, one below the other, that each row shows"""
    bodies: int
    """K: how many of the M capsules are the body's"""

    def __len__(self) -> int:
        return len(self.rays)

    def __getitem__(self, rows: slice) -> "Stage":
        return Stage(**{key: value if key == "bodies" else value[rows] for key, value in vars(self).items()})


def set_stage(body: Body, crop: crops.Config, seed: int, obstacles: int, scene: Scene) -> Stage:
    """Decide all about N images. Each row depends on the seed and its own row of the scene alone."""
    colours, girth = wardrobe(seed, scene.subject_keys)
    capsules = body.capsules(scene.poses, girth)
    near = np.minimum(capsules.start[..., 2], capsules.end[..., 2]) - capsules.radius
    nearest_m = np.where(near >= NEAR, near, np.inf).min(axis=1)
    things = place_obstacles(
        obstacles,
        WindowDraws(seed + 2, scene.sequence_keys, scene.frames),
        scene.poses,
        in_crop(crop, scene, scene.poses),
        np.where(np.isfinite(nearest_m), nearest_m, 1.0),
        (crop.height, crop.width),
    )
    start = np.concatenate([capsules.start, things.start], axis=1)
    end = np.concatenate([capsules.end, things.end], axis=1)
    radius = np.concatenate([capsules.radius, np.where(things.is_board, 0.0, things.radius)], axis=1)
    radius[np.minimum(start, end)[..., 2] - radius < NEAR] = 0.0
    start2, end2, reach = _on_crop(crop, scene, start, end, radius)
    back, front = (
        np.concatenate([colours[:, body.clothes[:, side]], things.colours[:, :, side]], axis=1) for side in (0, 1)
    )
    limits = [_FRONT.get(CLOTHES[index], 2.0) for index in body.clothes[:, 1]] + [np.inf] * obstacles
    facing, light = (
        np.repeat(vectors[:, None], len(limits), axis=1) for vectors in (capsules.front, _lights(seed, scene))
    )
    limit = np.broadcast_to(np.array(limits)[:, None], (*radius.shape, 1))
    columns, rows = _backgrounds(crop, seed, scene)
    return Stage(
        rays=ray_polynomials(crop, scene),
        capsules=capsule_table(start, end, radius),
        start=start2,
        end=end2,
        reach=reach,
        looks=np.concatenate([start, end - start, back, front, facing, light, limit], axis=-1).astype(np.float32),
        corner=things.corner,
        size=np.where(things.is_board[..., None], things.size, 0.0),
        depth=things.depth,
        texture=np.floor(things.texture * TEXTURES).astype(np.int64),
        columns=columns,
        rows=rows,
        bodies=len(body.clothes),
    )


def _on_crop(
    crop: crops.Config, scene: Scene, start: np.ndarray, end: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends (N, M, 2) of capsules in pixels of the crop, and how far they may reach (N, M), -1: not drawn."""
    drawn = radius > 0
    start, end = (np.where(drawn[..., None], points, [0.0, 0.0, 1.0]) for points in (start, end))
    focal = scene.intrinsics[:, :2] * scene.size[:, :1] / 2 * crops.crop_scale(crop, scene.boxes)
    near = np.minimum(start[..., 2], end[..., 2]) - radius
    slopes = (np.maximum(*(np.abs(points[..., axis] / points[..., 2]) for points in (start, end))) for axis in (0, 1))
    oblique = sum(slope**2 for slope in slopes)
    # a sphere off the optical axis looks oval; lenses stretch a little more; a pixel for rounding
    reach = radius / np.maximum(near, NEAR) * np.abs(focal).max(axis=1)[:, None] * (1 + oblique)
    return in_crop(crop, scene, start), in_crop(crop, scene, end), np.where(drawn, 1.15 * reach + 1, -1.0)


def _backgrounds(crop: crops.Config, seed: int, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Columns (N, W) and rows (N, H) of textures: a wall above, a floor below, fixed in the whole image, so that crops
    move over them."""
    draws = WindowDraws(seed, scene.sequence_keys, np.zeros(len(scene), dtype=np.int64))
    wall, floor = draws.integers(TEXTURES), draws.integers(TEXTURES)
    horizon = (0.55 + 0.2 * draws.uniform(1)) * scene.size[:, 1:]
    # a texture measures the same share of an image's width at any resolution
    zoom, shift = (0.25 + 0.35 * draws.uniform(1)) * 1000 / scene.size[:, :1], draws.uniform(2) * SIDE
    scale = crops.crop_scale(crop, scene.boxes)
    x = scene.boxes[:, :1] + (np.arange(crop.width) + 0.5) / scale[:, :1]
    y = scene.boxes[:, 1:2] + (np.arange(crop.height) + 0.5) / scale[:, 1:]
    columns, rows = (
        np.floor(place * zoom + shift[:, axis, None]).astype(np.int64) % SIDE for axis, place in enumerate((x, y))
    )
    return columns, np.where(y < horizon, wall[:, None], floor[:, None]) * SIDE + rows


def _lights(seed: int, scene: Scene) -> np.ndarray:
    """(N, 3) unit vectors to the light: above, on the camera's side; of the sequence."""
    draws = WindowDraws(seed + 1, scene.sequence_keys, np.zeros(len(scene), dtype=np.int64))
    light = draws.uniform(3) * [1.6, -0.7, -0.8] + [-0.8, -0.3, -0.3]
    return light / np.sqrt(np.sum(light * light, axis=1, keepdims=True))
