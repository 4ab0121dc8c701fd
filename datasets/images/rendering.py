"""Draws people from poses and cameras: the images of stores that have none.

A person is a body of capsules (`bodies`) lit from one side before a textured wall and floor, drawn straight into the
crop: rays through its pixels, bent as the sequence's lens bends them, meet the capsules exactly, and the surface in
front wins. So every joint lies where the projection says. Walls, floor and light belong to the sequence, clothes to the
subject, obstacles to the frame; all are functions of (seed, name, frame) and of nothing else, neither of the other
images of a batch nor of their order. These are no photographs: they are there so that the image path of a model runs,
is tested and can be timed everywhere.

Legend: N images, J joints, K parts of a body, O obstacles, H x W pixels of a crop.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from posegrid.datasets.images import crops
from posegrid.datasets.images.bodies import Body
from posegrid.datasets.images.raster import capsule_pixels, meet, nearest, rectangle_pixels
from posegrid.datasets.images.scenes import Scene, in_crop, pixel_rays
from posegrid.datasets.images.shading import Shading, unpack
from posegrid.datasets.images.staging import NEAR, Stage, set_stage
from posegrid.datasets.skeletons import Skeleton

_CHUNK = 2
"""Images drawn at once: enough to hide the cost of calls, few enough for the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What rendered images look like."""

    seed: int = 0
    """Seed of walls, light, clothes and obstacles."""
    obstacles: int = 0
    """Boards and poles in front of each person; others in every frame."""

    def __post_init__(self) -> None:
        for name, highest in (("seed", 2**62), ("obstacles", 64)):
            if not 0 <= getattr(self, name) <= highest:
                raise ValueError(
                    f"images.renderer.{name} = {getattr(self, name)}: expected 0 to {highest}. Correct it."
                )


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """What was drawn."""

    images: np.ndarray
    """(N, H, W, 3) uint8"""
    body: np.ndarray
    """(N, H, W) bool: where the person is seen."""
    depth: np.ndarray
    """(N, H, W) float32 metres along the optical axis of person or obstacle, infinite where there is neither."""


class Renderer:
    """Draws bodies of one skeleton. Raises ValueError if the skeleton lacks limbs."""

    def __init__(self, skeleton: Skeleton, config: Config, crop: crops.Config) -> None:
        self.config, self.crop = config, crop
        self.body = Body(skeleton)

    def render(self, scene: Scene) -> Rendering:
        """Draw N people. Every image depends on its own row alone."""
        shape = (len(scene), self.crop.height, self.crop.width)
        drawn = Rendering(
            images=np.empty((*shape, 3), np.uint8),
            body=np.empty(shape, np.bool_),
            depth=np.empty(shape, np.float32),
        )
        stage = self._stage(scene)
        for first in range(0, len(scene), _CHUNK):
            rows = slice(first, first + _CHUNK)
            self._draw(stage[rows], drawn, rows)
        return drawn

    def visible(self, scene: Scene) -> np.ndarray:
        """(N, J) bool: False for joints hidden by the person's own body or an obstacle.

        A joint is hidden if the ray from the camera through it meets a surface that lies in front of it by more than
        its own limb and 5 cm (`Body.margin`), or if it is not in front of the camera. Joints outside the crop are
        judged alike. It is computed for the exact point, not looked up in the pixels.
        """
        stage, poses = self._stage(scene), np.asarray(scene.poses, dtype=np.float64)
        rays = (poses[..., :2] / np.maximum(poses[..., 2:], NEAR)).astype(np.float32)
        shape = (*poses.shape[:2], stage.reach.shape[1])
        table = np.broadcast_to(stage.capsules[:, None], (*shape, 11)).reshape(-1, 11).T
        hit, depths, _ = meet(table, *(np.repeat(rays[..., axis].ravel(), shape[2]) for axis in (0, 1)))
        depth = np.full(shape, np.inf)
        depth.ravel()[hit] = depths
        depth[np.broadcast_to((stage.reach < 0)[:, None], shape)] = np.inf
        joints, corner = in_crop(self.crop, scene, poses)[:, :, None], stage.corner[:, None]
        behind = np.all((joints >= corner) & (joints <= corner + stage.size[:, None]), axis=-1)
        boards = np.where(behind & (stage.size[:, None, :, 0] > 0), stage.depth[:, None], np.inf)
        front = np.concatenate([depth, boards], axis=-1).min(axis=-1)
        return (front >= poses[..., 2] - self.body.margin(poses)) & (poses[..., 2] > NEAR)

    @cached_property
    def _shading(self) -> Shading:
        return Shading(self.config.seed)

    def _stage(self, scene: Scene) -> Stage:
        return set_stage(self.body, self.crop, self.config.seed, self.config.obstacles, scene)

    def _draw(self, stage: Stage, drawn: Rendering, rows: slice) -> None:
        """Fill these rows of `drawn`."""
        count, height, width = len(stage), self.crop.height, self.crop.width
        area, parts, boards = height * width, stage.reach.shape[1], stage.depth.shape[1]
        x, y = pixel_rays(self.crop, stage.rays).reshape(2, -1)

        flat = (stage.start.reshape(-1, 2), stage.end.reshape(-1, 2), stage.reach.ravel())
        part, pixel = capsule_pixels(*flat, height, width)
        pixel += part // parts * area
        # parts come in order, so each column is repeated as often as its part has pixels
        pixels = np.bincount(part, minlength=count * parts)
        table = np.repeat(np.ascontiguousarray(stage.capsules.reshape(-1, 11).T), pixels, axis=1)
        hit, depth, place = meet(table, x.take(pixel), y.take(pixel))
        part, pixel = part.take(hit), pixel.take(hit)

        board, board_pixel = rectangle_pixels(stage.corner.reshape(-1, 2), stage.size.reshape(-1, 2), height, width)
        board_pixel += board // max(boards, 1) * area
        board_depth = stage.depth.ravel().astype(np.float32)[board]

        covered, winner = nearest(
            count * area, np.concatenate([pixel, board_pixel]), np.concatenate([depth, board_depth])
        )
        is_part = winner < len(hit)
        at, won = covered[is_part], winner[is_part]
        at_board, won_board = covered[~is_part], winner[~is_part] - len(hit)

        part, depth = part.take(won), depth.take(won)
        point = np.stack([x.take(at) * depth, y.take(at) * depth, depth])
        images = self._shading.backgrounds(stage).ravel()
        images[at] = self._shading.parts(stage, part, point, place.take(won))
        inside = at_board % area
        images[at_board] = self._shading.boards(stage, board[won_board], inside % width + 0.5, inside // width + 0.5)
        depths = np.full(len(images), np.inf, dtype=np.float32)
        depths[at], depths[at_board] = depth, board_depth[won_board]
        body = np.zeros(len(images), dtype=np.bool_)
        body[at] = part % parts < stage.bodies

        drawn.images[rows] = unpack(images).reshape(count, height, width, 3)
        drawn.depth[rows] = depths.reshape(count, height, width)
        drawn.body[rows] = body.reshape(count, height, width)
