"""Person crops for models that read pictures: read or drawn for every frame of a window, and scored under patches.

Legend: N windows, L frames, J joints, P placements of a patch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from posegrid.datasets.images import crops, patches, reader, textures
from posegrid.datasets.options import from_values
from posegrid.datasets.store import Store
from posegrid.datasets.windows import Windows, epoch_seed, gather, gather_column
from posegrid.models.interface import Batch, Lifter
from posegrid.models.registry import config_class, crop_size
from posegrid.orchestration.settings import Settings

KEPT_BYTES = 1 << 30
"""Memory of a worker in which pictures stay for the next epoch: a small network learns faster than they are drawn."""
_OPEN: dict[tuple[int, str, tuple[int, int]], "Pictures"] = {}
"""The pictures of this process that were asked for last."""
_TEXTURES = 64
"""Textures that patches are made of where no folder names others."""


class Pictures:
    """The crops of windows, a function of sequence and frame alone."""

    def __init__(self, store: Store, folder: str, size: tuple[int, int]) -> None:
        chosen = reader.Config(crop=crops.Config(height=size[0], width=size[1]))
        self.reader = reader.ImageReader(store, Path(folder) if folder else None, chosen)
        self._store = store
        self._rows = np.arange(len(store.keypoints))
        self._kept = np.empty((min(len(self._rows), KEPT_BYTES // (3 * size[0] * size[1])), *size, 3), np.uint8)
        self._place = np.full(len(self._rows), -1)
        """Where in `_kept` the picture of a row of the store is; -1: not there."""
        self._filled = 0

    def frames(self, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
        """Sequence and frame of every picture, both (N * L,)."""
        rows = gather_column(self._store, windows, self._rows)
        frames = rows - self._store.offsets[windows.sequence][:, None]
        return np.repeat(windows.sequence, rows.shape[1]), frames.ravel()

    def of(self, windows: Windows, mirrored: np.ndarray | None = None) -> torch.Tensor:
        """(N, L, height, width, 3) uint8; windows marked in `mirrored` (N,) become their mirror image."""
        images = self._crops(*self.frames(windows))
        images = images.reshape(*windows.weight.shape, *images.shape[1:])
        if mirrored is not None:
            images[mirrored] = images[mirrored][..., ::-1, :]
        return torch.from_numpy(images)

    def _crops(self, sequence: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """(M, height, width, 3) uint8, of pictures that are kept or become so until the memory is full.

        Nothing is thrown out: epochs visit all pictures once, and what was seen longest ago is what comes next.
        """
        rows = self._store.offsets[sequence] + frame
        new = np.flatnonzero(self._place[rows] < 0)
        if not len(new):
            return self._kept[self._place[rows]]
        images = np.empty((len(rows), *self._kept.shape[1:]), np.uint8)
        images[new] = self.reader.crops(sequence[new], frame[new])
        old = np.flatnonzero(self._place[rows] >= 0)
        images[old] = self._kept[self._place[rows[old]]]
        _, first = np.unique(rows[new], return_index=True)
        first = new[first[: len(self._kept) - self._filled]]
        self._kept[self._filled : self._filled + len(first)] = images[first]
        self._place[rows[first]] = np.arange(self._filled, self._filled + len(first))
        self._filled += len(first)
        return images


def pictures_of(store: Store, settings: Settings) -> Pictures | None:
    """What the model of these settings sees of a store; None if it reads no pictures.

    Raises ValueError if the pictures can neither be read nor drawn, or if training takes cameras that never filmed.
    """
    values = {key: value for key, value in settings.model.items() if key != "name"}
    where = f"recipe {settings.name}, table [model]"
    size = crop_size(settings.model["name"], from_values(config_class(settings.model["name"]), values, where))
    if size is None:
        return None
    if settings.data.cameras == "random":
        raise ValueError(
            f'data.cameras = "random" (recipe {settings.name}), but model {settings.model["name"]} reads pictures, '
            'which exist for stored cameras only. Allowed is "stored": set it.'
        )
    return _kept_between_epochs(store, settings.data.images, size)


def _kept_between_epochs(store: Store, folder: str, size: tuple[int, int]) -> Pictures:
    """One for all epochs and validations of a training: batches are made anew for each."""
    which = (id(store), folder, size)  # a store that is kept keeps its id
    if which not in _OPEN:
        _OPEN.clear()
        _OPEN[which] = Pictures(store, folder, size)
    return _OPEN[which]


@dataclass(frozen=True, kw_only=True)
class PatchScores:
    """What sliding patches did, over M pictures."""

    worst_mm: float
    """MPJPE over the joints that count, at the placement of each picture that is worst for the model."""
    free_mm: float
    """MPJPE over the joints that the body does not hide, without a patch."""
    pictures: int
    """M."""


@torch.no_grad()
def score_patches(
    model: Lifter,
    store: Store,
    settings: Settings,
    protocol: patches.Config,
    windows: Windows,
    device: torch.device,
    *,
    folder: Path | None = None,
    batch: int = 256,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> PatchScores:
    """AdvOcc: every placement of a patch on every picture of single-frame windows; the worst one counts.

    Pictures weigh the same. Which joints count at a placement says `protocol.rule`. folder: of texture images, else
    textures are made. A model that samples draws the same numbers for every picture and placement.
    Raises ValueError if the model reads no pictures or the windows have several frames.
    """
    pictures = pictures_of(store, settings)
    if pictures is None or windows.weight.shape[1] != 1:
        raise ValueError(
            f"patches were asked for with model {settings.model['name']} and windows of {windows.weight.shape[1]} "
            "frames (data.frames); they are put on pictures, one frame at a time. Use a model that reads pictures, "
            "trained with data.frames = 1."
        )
    side = max(protocol.size, 16)
    made = textures.read_textures(folder, side) if folder else textures.make_textures(protocol.seed, _TEXTURES, side)
    generator = torch.Generator(device=device)
    hypotheses = settings.evaluation.hypotheses
    model.eval()
    worst = free = 0.0
    for first in range(0, len(windows), 8):
        part = windows[first : first + 8]
        sequence, frame = pictures.frames(part)
        images = pictures.of(part)[:, 0].numpy()
        joints, seen = pictures.reader.crop_poses(sequence, frame), pictures.reader.visible(sequence, frame)
        keypoints, target = gather(store, part)
        truth = target[:, 0].astype(np.float64)

        def errors_of(
            patched: np.ndarray, image: np.ndarray, keypoints: np.ndarray = keypoints, truth: np.ndarray = truth
        ) -> np.ndarray:
            lifted = _lift(model, patched, keypoints[image], generator, hypotheses, device)
            return np.linalg.norm(lifted - truth[image], axis=-1)

        counts = patches.counted(protocol, joints, seen, images.shape[1], images.shape[2])
        chosen = patches.choose_textures(protocol.seed, *pictures.reader.texture_keys(sequence, frame), len(made))
        worst += float(patches.search(protocol, images, counts, made, chosen, errors_of, batch=batch).error.sum())
        plain = errors_of(images, np.arange(len(images)))
        free += float((np.where(seen, plain, 0).sum(1) / np.maximum(seen.sum(1), 1)).sum())
        report(first + len(part), len(windows))
    return PatchScores(worst_mm=1000 * worst / len(windows), free_mm=1000 * free / len(windows), pictures=len(windows))


def _lift(
    model: Lifter,
    images: np.ndarray,
    keypoints: np.ndarray,
    generator: torch.Generator,
    hypotheses: int,
    device: torch.device,
) -> np.ndarray:
    """(M, J, 3) metres of crops (M, height, width, 3) with the keypoints (M, 1, J, 2) of their frames."""
    generator.manual_seed(epoch_seed(0, 0))
    given = torch.from_numpy(np.ascontiguousarray(keypoints)).to(device)
    batch = Batch(
        keypoints=given,
        visible=torch.ones(given.shape[:-1], dtype=torch.bool, device=device),
        images=torch.from_numpy(images)[:, None].to(device),
        total=1,  # the same draws for all
        rows=torch.zeros(len(given), dtype=torch.int64, device=device),
    )
    return model.lift(batch, generator, hypotheses).mean(1)[:, 0].double().cpu().numpy()
