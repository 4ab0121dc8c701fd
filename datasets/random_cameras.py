"""Motion before random cameras: each training window is filmed anew by a camera of Human3.6M that is drawn for it.

How Uplift and Upsample (Einfalt et al., WACV 2023) pre-trains with motion that was never filmed: any camera of any
subject, 2D that is the exact projection with lens distortion, people who leave the image included, mirror images made
in the world (x negated) before they are filmed. The body stands where the store's world coordinates put it; nothing is
turned or moved. Legend: N windows, L frames, J joints, P = L * J points, V cameras.
"""

import json

import numpy as np

from posegrid.datasets.cameras import Camera, h36m_cameras, quaternion_inverse, quaternion_rotate
from posegrid.datasets.occlusions.draws import WindowDraws
from posegrid.datasets.store import Store
from posegrid.datasets.windows import Windows, gather_column, sequence_keys

_BLOCK = 2**14
"""Points that are filmed at once: their coordinates and what is computed of them stay in the cache."""
_SEEN_AT_LEAST = 0.5
"""Share of keypoints that must lie inside the images; in the paper it is about 98 %."""


class RandomCameras:
    """The cameras of Human3.6M, and where the cameras of a store stood: from the poses in the frame of one to those in
    the frame of another."""

    def __init__(self, store: Store, splits: tuple[str, ...]) -> None:
        """Raises ValueError if the store has no poses, or if the world coordinates of those of the splits are not
        known: no camera parameters, or a camera without a place (at the origin, looking along z)."""
        self._store = store
        self._poses = store.poses
        self._keys = sequence_keys(store)
        self._mirror = np.array(store.skeleton.mirror)
        drawn_from = [camera for cameras in h36m_cameras().values() for camera in cameras]
        self.cameras: tuple[Camera, ...] = tuple(drawn_from)
        """The V cameras that are drawn from: four of each subject, those who test included."""
        self._to_camera = np.stack([_turn(quaternion_inverse(np.array(one.orientation))) for one in drawn_from])
        self._centres = np.array([one.translation for one in drawn_from])
        self._intrinsics = np.stack([one.intrinsics for one in drawn_from]).astype(np.float32)
        self._to_world = np.zeros((len(store.sequences), 3, 3))
        self._stood = np.zeros((len(store.sequences), 3))
        known: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # many sequences share few cameras
        for index in store.of_split(*splits):
            text = store.sequences[index].camera_parameters
            if text not in known:
                known[text] = _placed(store, index)
            self._to_world[index], self._stood[index] = known[text]

    def drawn(self, windows: Windows, seed: int, second: np.ndarray | None = None) -> np.ndarray:
        """(N,) int64 in {0, ..., V - 1}: a function of (seed, sequence name, window start) alone, and of second (N,),
        True for windows that take the second of two draws."""
        draws = WindowDraws(seed, self._keys[windows.sequence], windows.start).uniform(2)
        uniform = draws[:, 0] if second is None else np.where(second, draws[:, 1], draws[:, 0])
        return (uniform * len(self.cameras)).astype(np.int64)

    def film(
        self, windows: Windows, cameras: np.ndarray, mirrored: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (N, L, J, 2) screen and root-relative poses (N, L, J, 3) metres in the frame of `cameras` (N,).

        mirrored: (N,) bool, motion that becomes its mirror image first. Within float32 rounding the same as
        `cameras.project` of `cameras.world_to_camera` of `cameras.camera_to_world`.
        """
        poses = gather_column(self._store, windows, self._poses)
        keypoints = np.empty((*poses.shape[:3], 2), dtype=np.float32)
        turn, shift = self._motion(windows.sequence, cameras, mirrored)
        root = self._store.skeleton.root
        block = max(_BLOCK // (poses.shape[1] * poses.shape[2]), 1)
        for first in range(0, len(poses), block):
            part = slice(first, first + block)
            here = poses[part]
            # one coordinate after the other, which is what arithmetic on all points of a window wants
            points_N3P = turn[part] @ here.reshape(len(here), -1, 3).transpose(0, 2, 1)
            points_N3P += shift[part, :, None]
            screen = _project(points_N3P, self._intrinsics[cameras[part]])
            keypoints[part] = np.stack(screen, axis=-1).reshape(*here.shape[:3], 2)
            points = points_N3P.reshape(len(here), 3, *here.shape[1:3])
            points -= points[..., root, None].copy()
            here[:] = points.transpose(0, 2, 3, 1)
        if mirrored is not None and mirrored.any():
            for array in (keypoints, poses):
                array[mirrored] = array[mirrored][:, :, self._mirror]
        return keypoints, poses

    def check(self, windows: Windows) -> None:
        """Raises ValueError if less than half of the keypoints of some of the windows lie inside the images: a world
        whose people do not stand where Human3.6M's did."""
        some = windows[:: max(len(windows) // 256, 1)]
        cameras = self.drawn(some, 0)
        keypoints, _ = self.film(some, cameras)
        sizes = np.array([(camera.width, camera.height) for camera in self.cameras])[cameras]
        inside = np.abs(keypoints) <= np.stack([np.ones(len(some)), sizes[:, 1] / sizes[:, 0]], axis=-1)[:, None, None]
        share = inside.all(axis=-1).mean()
        if share < _SEEN_AT_LEAST:
            raise ValueError(
                f'data.cameras = "random", but before the cameras of Human3.6M {share:.0%} of the keypoints of store '
                f"{self._store.path} lie inside the images; expected are {_SEEN_AT_LEAST:.0%} or more. Its people "
                "stand elsewhere, or its world's z axis does not point up. Use a source that places motion before "
                'those cameras (amass, cmu, synthetic, h36m), or set data.cameras = "stored".'
            )

    def _motion(
        self, sequence: np.ndarray, cameras: np.ndarray, mirrored: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Turn (N, 3, 3) and shift (N, 3), float32, from the frame of the stored camera to that of the drawn one."""
        side = np.ones((len(sequence), 3))
        if mirrored is not None:
            side[mirrored, 0] = -1
        turn = self._to_camera[cameras]
        shift = turn @ (side * self._stood[sequence] - self._centres[cameras])[..., None]
        turn = turn @ (side[..., None] * self._to_world[sequence])
        return turn.astype(np.float32), shift[..., 0].astype(np.float32)


def _project(points_N3P: np.ndarray, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Screen x and y (N, P) of points in their camera's frame: `cameras.project` for a camera (9,) each."""
    fx, fy, cx, cy, k1, k2, k3, p1, p2 = intrinsics.T[..., None]
    x, y = (np.clip(points_N3P[:, axis] / points_N3P[:, 2], -1, 1) for axis in (0, 1))
    squared = x * x + y * y
    stretch = squared * k3
    for factor in (k2, k1):
        stretch += factor
        stretch *= squared
    stretch += p1 * x + p2 * y + 1
    return (x * stretch + p1 * squared) * fx + cx, (y * stretch + p2 * squared) * fy + cy


def _turn(quaternion: np.ndarray) -> np.ndarray:
    """(3, 3) matrix of a rotation."""
    return quaternion_rotate(quaternion, np.eye(3)).T


def _placed(store: Store, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Turn (3, 3) from a sequence's camera to the world, and where it stood (3,)."""
    sequence = store.sequences[index]
    plain = json.loads(sequence.camera_parameters)
    camera = Camera.from_plain(plain) if plain else None
    if camera is None or (not any(camera.translation) and camera.orientation == (1.0, 0.0, 0.0, 0.0)):
        what = "no camera parameters" if camera is None else "a camera without a place in the world"
        raise ValueError(
            f'data.cameras = "random" needs motion in world coordinates, but sequence {sequence.name} of store '
            f"{store.path} (source {store.source}) has {what}. Use a source that says where its cameras stand (amass, "
            'cmu, synthetic, h36m), or set data.cameras = "stored".'
        )
    return _turn(np.array(camera.orientation)), np.array(camera.translation)
