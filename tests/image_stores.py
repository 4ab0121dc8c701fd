"""Small stores whose images lie in files, for tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import toy
from PIL import Image

from posegrid.datasets.images.places import ImageFiles
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store
from posegrid.datasets.store_writer import write_store

TEMPLATE = "{subject}/{frame:04d}.{ending}"


def with_files(folder: Path, *, width: int = 100, height: int = 80, frames: int = 3, ending: str = "png") -> Store:
    """Three sequences; A and B have files numbered from 1 under `folder`/frames, C has none."""
    made = []
    for number, subject in enumerate("ABC"):
        sequence = toy.sequence(subject, "walk", "walk 1", frames, number)
        images = {}
        if subject != "C":
            template = TEMPLATE.replace("{subject}", subject).replace("{ending}", ending)
            place = ImageFiles(template=template, first=1)
            images = place.to_plain()
            for frame in range(frames):
                file = folder / "frames" / place.path(frame)
                file.parent.mkdir(parents=True, exist_ok=True)
                ramp(width, height, blue=10 * frame + 100 * number).save(file)
        made.append(replace(sequence, width=width, height=height, images=images))
    protocol = replace(toy.PROTOCOL, held_out=())
    return write_store(folder / "store", made, source="toy", source_config={}, skeleton=H36M_17, protocol=protocol)


def ramp(width: int, height: int, blue: int) -> Image.Image:
    """Red grows from left to right, green from top to bottom: two grey levels a pixel, at its middle 2x + 1."""
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = 2 * x, (2 * y)[:, None], blue
    return Image.fromarray(pixels)
