"""One interface to the images of a store: person crops by (sequence, frame), from files or drawn.

    reader = open_images(store, Path("frames"))
    crops = reader.crops(sequence, frame)            # (N, 256, 192, 3) uint8
    joints = reader.crop_keypoints(sequence, frame)  # (N, J, 2) pixels of the crop

Legend: N images, J joints. A row depends on its sequence and frame alone, not on the rest of the batch.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from posegrid.datasets.images import crops, lenses, rendering
from posegrid.datasets.images.files import check_size, open_image, read_crop
from posegrid.datasets.images.places import ImageFiles, place_of
from posegrid.datasets.images.scenes import Scene, screen_to_pixels
from posegrid.datasets.occlusions.draws import sequence_key
from posegrid.datasets.store import Store

_ORIGINS = ("auto", "files", "rendered")
_BOXES = ("keypoints", "poses")
_FIT_FRAMES = 500
"""Frames from which an unknown camera is fitted."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where images come from and how people are cut out."""

    origin: str = "auto"
    """ "files": read; a sequence without files is an error. "rendered": draw all, also where files are named. "auto":
    read where the store names files, draw where it does not."""
    box: str = "keypoints"
    """Around what a crop is laid: "keypoints" of the store, or "poses", their projection (a detector's errors and
    missing joints then do not move the crop; needs 3D)."""
    threads: int = 1
    """Threads that decode files; drawing uses one."""
    crop: crops.Config = field(default_factory=crops.Config)
    """Size and margins of crops."""
    renderer: rendering.Config = field(default_factory=rendering.Config)
    """What drawn images look like."""

    def __post_init__(self) -> None:
        for name, known in (("origin", _ORIGINS), ("box", _BOXES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f'images.{name} = "{getattr(self, name)}" is unknown. Known: {", ".join(known)}. Choose one.'
                )
        if not 1 <= self.threads <= 256:
            raise ValueError(f"images.threads = {self.threads}: expected 1 to 256. Correct it.")


def open_images(store: Store, root: Path | None = None, config: Config | None = None) -> "ImageReader":
    """The images of a store. `root` is the folder that the store's image templates are relative to.

    Raises ValueError if files are needed and no folder is given, if the first or last image of a sequence is missing
    or has another size than the store says, or if a sequence can be neither read nor drawn (no poses).
    """
    reader = ImageReader(store, root, config or Config())
    reader.check()
    return reader


class ImageReader:
    """See `open_images`, which checks the files too. `places[i]` says where sequence i's files are; None: drawn."""

    def __init__(self, store: Store, root: Path | None, config: Config) -> None:
        self.store, self.config = store, config
        self.root = None if root is None else Path(root)
        places = [place_of(sequence.images, sequence.name) for sequence in store.sequences]
        if config.origin == "rendered":
            places = [None] * len(places)
        self.places: tuple[ImageFiles | None, ...] = tuple(places)
        without = [store.sequences[index].name for index, place in enumerate(places) if place is None]
        if config.origin == "files" and without:
            raise ValueError(
                f'images.origin = "files", but {len(without)} of {len(places)} sequences of store {store.path} name no '
                f'image files, such as {without[0]}. Prepare the data set with its option images, or choose "auto".'
            )
        if len(without) < len(places) and (self.root is None or not self.root.is_dir()):
            raise ValueError(
                f"store {store.path} has images in files, and the folder that holds them is {self.root}, which is no "
                'folder. Name it, or set images.origin = "rendered" to draw them instead.'
            )
        if without and store.poses_if_any is None:
            raise ValueError(
                f"sequence {without[0]} of store {store.path} names no image files and has no 3D poses to draw. "
                "Prepare the data set with images, or use one with poses."
            )
        self._subject_keys = np.array([sequence_key(row.subject) for row in store.sequences], dtype=np.uint64)
        self._sequence_keys = np.array([sequence_key(row.name) for row in store.sequences], dtype=np.uint64)
        self._size = np.array([[row.width, row.height] for row in store.sequences], dtype=np.int64)
        self._from_files = np.array([place is not None for place in places], dtype=np.bool_)

    def check(self) -> None:
        """Open the first and last image of every sequence that has files. Raises ValueError naming what is wrong."""
        for index in np.flatnonzero(self._from_files):
            for frame in sorted({0, self.store.sequences[index].frames - 1}):
                file, what = self.file(int(index), frame), self._what(int(index), frame)
                with open_image(file, what) as image:
                    check_size(file, image.size, tuple(self._size[index].tolist()), what)

    def file(self, sequence: int, frame: int) -> Path:
        """The file of one frame. Raises ValueError if the sequence is drawn."""
        place = self.places[sequence]
        if place is None or self.root is None:
            raise ValueError(f"sequence {self.store.sequences[sequence].name} is drawn and has no image files.")
        return self.root / place.path(frame)

    def crops(self, sequence: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """(N, height, width, 3) uint8 crops of the frames `frame` (N,) of the sequences `sequence` (N,).

        Raises ValueError for indices that do not exist, missing or damaged files, and frames without any keypoint,
        naming sequence and frame.
        """
        sequence, frame = self._checked(sequence, frame)
        boxes = self._boxes(sequence, frame)
        images = np.empty((len(sequence), self.config.crop.height, self.config.crop.width, 3), dtype=np.uint8)
        read, draw = (np.flatnonzero(self._from_files[sequence] == wanted) for wanted in (True, False))
        if len(draw):
            images[draw] = self._renderer.render(self._scene(sequence[draw], frame[draw], boxes[draw])).images
        if len(read):
            self._read(images, read, sequence, frame, boxes)
        return images

    def boxes(self, sequence: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """(N, 4) float64 boxes of the crops in pixels of the whole images: left, top, right, bottom."""
        return self._boxes(*self._checked(sequence, frame))

    def affine(self, sequence: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """(N, 2, 3) float64 matrices from pixels (x, y, 1) of the whole images to pixels of the crops."""
        return crops.crop_affine(self.config.crop, self.boxes(sequence, frame))

    def crop_keypoints(self, sequence: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """(N, J, 2) float32: the store's keypoints in pixels of the crops. Missing ones (confidence 0) mean nothing."""
        sequence, frame = self._checked(sequence, frame)
        pixels = screen_to_pixels(self.store.keypoints[self._rows(sequence, frame)], self._size[sequence])
        return crops.to_crop(self.config.crop, self._boxes(sequence, frame), pixels).astype(np.float32)

    def crop_poses(self, sequence: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """(N, J, 2) float32: the store's poses projected into the crops. Raises ValueError in a store without poses."""
        sequence, frame = self._checked(sequence, frame)
        boxes = self._boxes(sequence, frame)
        return crops.to_crop(self.config.crop, boxes, self._projected(sequence, frame)).astype(np.float32)

    def drawn(self, sequence: np.ndarray, frame: np.ndarray) -> rendering.Rendering:
        """Draw these frames, whether they have files or not, with masks and depths."""
        sequence, frame = self._checked(sequence, frame)
        return self._renderer.render(self._scene(sequence, frame, self._boxes(sequence, frame)))

    def visible(self, sequence: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """(N, J) bool: False for joints that the person's own body hides, or an obstacle of a drawn image.

        For images from files this is what a body of capsules around the 3D pose would hide; nothing is known about
        objects in them. See `rendering.Renderer.visible` for the rule. Raises ValueError in a store without poses.
        """
        sequence, frame = self._checked(sequence, frame)
        boxes = self._boxes(sequence, frame)
        seen = np.empty((len(sequence), len(self.store.skeleton)), dtype=np.bool_)
        for renderer, wanted in ((self._bare, True), (self._renderer, False)):
            rows = np.flatnonzero(self._from_files[sequence] == wanted)
            if len(rows):
                seen[rows] = renderer.visible(self._scene(sequence[rows], frame[rows], boxes[rows]))
        return seen

    def texture_keys(self, sequence: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keys (N,) uint64 and frames (N,) int64 from which `patches.choose_textures` draws."""
        sequence, frame = self._checked(sequence, frame)
        return self._sequence_keys[sequence], frame

    @cached_property
    def _renderer(self) -> rendering.Renderer:
        return rendering.Renderer(self.store.skeleton, self.config.renderer, self.config.crop)

    @cached_property
    def _bare(self) -> rendering.Renderer:
        bare = rendering.Config(seed=self.config.renderer.seed, obstacles=0)
        return rendering.Renderer(self.store.skeleton, bare, self.config.crop)

    @cached_property
    def _intrinsics(self) -> np.ndarray:
        """(S, 9) cameras; where the store has none, fitted to keypoints and poses."""
        table = lenses.intrinsics_of(self.store)
        for index in np.flatnonzero(np.isnan(table[:, 0])):
            row = self.store.sequences[index]
            some = slice(row.offset, row.offset + row.frames, max(1, row.frames // _FIT_FRAMES))
            try:
                table[index] = lenses.fitted_intrinsics(self.store.poses[some], self.store.keypoints[some])
            except ValueError as error:
                raise ValueError(f"sequence {row.name} cannot be drawn: {error} Use images from files.") from None
        return table

    def _scene(self, sequence: np.ndarray, frame: np.ndarray, boxes: np.ndarray) -> Scene:
        return Scene(
            poses=self.store.poses[self._rows(sequence, frame)].astype(np.float64),
            intrinsics=self._intrinsics[sequence],
            size=self._size[sequence],
            boxes=boxes,
            subject_keys=self._subject_keys[sequence],
            sequence_keys=self._sequence_keys[sequence],
            frames=frame,
        )

    def _projected(self, sequence: np.ndarray, frame: np.ndarray) -> np.ndarray:
        screen = lenses.project(self.store.poses[self._rows(sequence, frame)], self._intrinsics[sequence])
        return screen_to_pixels(screen, self._size[sequence])

    def _boxes(self, sequence: np.ndarray, frame: np.ndarray) -> np.ndarray:
        rows, size = self._rows(sequence, frame), self._size[sequence]
        if self.config.box == "poses":
            pixels = self._projected(sequence, frame)
            boxes = crops.person_boxes(self.config.crop, pixels, np.ones(pixels.shape[:2]), size)
        else:
            pixels = screen_to_pixels(self.store.keypoints[rows], size)
            boxes = crops.person_boxes(self.config.crop, pixels, self.store.confidence[rows], size)
        lost = np.flatnonzero(np.isnan(boxes[:, 0]))
        if len(lost):
            raise ValueError(
                f"{self._what(int(sequence[lost[0]]), int(frame[lost[0]]))} has no keypoint with a confidence above "
                f"{self.config.crop.confidence} (images.crop.confidence), so there is nothing to cut out "
                f'({len(lost)} of {len(boxes)} images). Leave such frames out, or set images.box = "poses".'
            )
        return boxes

    def _read(
        self, images: np.ndarray, rows: np.ndarray, sequence: np.ndarray, frame: np.ndarray, boxes: np.ndarray
    ) -> None:
        """Fill these rows of `images` from files."""
        size = (self.config.crop.width, self.config.crop.height)

        def one(row: int) -> None:
            index, number = int(sequence[row]), int(frame[row])
            whole = (int(self._size[index, 0]), int(self._size[index, 1]))
            what = self._what(index, number)
            images[row] = read_crop(self.file(index, number), boxes[row], size, whole, what)

        if self.config.threads == 1 or len(rows) == 1:
            for row in rows:
                one(row)
            return
        with ThreadPoolExecutor(self.config.threads) as pool:
            list(pool.map(one, rows))

    def _rows(self, sequence: np.ndarray, frame: np.ndarray) -> np.ndarray:
        return self.store.offsets[sequence] + frame

    def _what(self, sequence: int, frame: int) -> str:
        return f"sequence {self.store.sequences[sequence].name}, frame {frame}"

    def _checked(self, sequence: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both as int64 (N,). Raises ValueError if they are anything else or point outside the store."""
        sequence, frame = np.asarray(sequence), np.asarray(frame)
        if sequence.ndim != 1 or sequence.shape != frame.shape or {sequence.dtype.kind, frame.dtype.kind} - set("iu"):
            raise ValueError(
                f"images are asked for by sequence {sequence.dtype} {sequence.shape} and frame {frame.dtype} "
                f"{frame.shape}; both must be whole numbers of one shape (N,). Pass two equally long integer arrays."
            )
        sequence, frame = sequence.astype(np.int64), frame.astype(np.int64)
        count = len(self.store.sequences)
        wrong = np.flatnonzero((sequence < 0) | (sequence >= count))
        if len(wrong):
            raise ValueError(
                f"image {wrong[0]} is asked of sequence {sequence[wrong[0]]}, but store {self.store.path} has "
                f"sequences 0 to {count - 1}. Pass indices into store.sequences."
            )
        wrong = np.flatnonzero((frame < 0) | (frame >= self.store.lengths[sequence]))
        if len(wrong):
            row = self.store.sequences[sequence[wrong[0]]]
            raise ValueError(
                f"image {wrong[0]} is asked of frame {frame[wrong[0]]} of sequence {row.name}, which has frames 0 to "
                f"{row.frames - 1}. Pass frame numbers within the sequence."
            )
        return sequence, frame
