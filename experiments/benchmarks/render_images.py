"""How fast person crops are drawn, and how fast they are cut out of JPEG frames of 1000 x 1000 pixels.

    python -m posegrid.experiments.benchmarks.render_images --folder FOLDER

makes a small store in FOLDER, unless it is there, and frames. Figures are crops per second of processor time of one
core (so that other work on the machine counts less), the best of several rounds. Nothing is asserted.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from posegrid.datasets.images import rendering
from posegrid.datasets.images.files import read_crop
from posegrid.datasets.images.reader import Config, open_images
from posegrid.datasets.images.textures import make_textures
from posegrid.datasets.prepare import prepare
from posegrid.datasets.store import open_store

_CROPS, _FRAMES = 64, 8


def main() -> None:
    """Print crops per second without and with obstacles, and from files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    settings = parser.parse_args()
    target = settings.folder / "people"
    store = open_store(target) if target.exists() else prepare("synthetic", None, target, options={"seconds": 2.0})
    generator = np.random.default_rng(0)
    sequence = generator.integers(0, len(store.sequences), _CROPS)
    frame = generator.integers(0, 100, _CROPS)
    for obstacles in (0, 2):
        reader = open_images(store, None, replace(Config(), renderer=rendering.Config(obstacles=obstacles)))
        reader.crops(sequence[:4], frame[:4])  # textures are made once
        found = speed(partial(reader.crops, sequence, frame), settings.rounds)
        print(f"drawn, {obstacles} obstacles: {found:.0f} crops of 256 x 192 px per second")
    textures = make_textures(0, _FRAMES, 1024)[:, :1000, :1000]
    files = [settings.folder / f"frame_{number}.jpg" for number in range(_FRAMES)]
    for file, texture in zip(files, textures, strict=True):
        Image.fromarray(texture).save(file, quality=90)
    for height in (400.0, 700.0):
        box = np.array([300.0, 100.0, 300.0 + 0.75 * height, 100.0 + height])

        def read(box: np.ndarray = box) -> None:
            for number in range(_CROPS):
                read_crop(files[number % _FRAMES], box, (192, 256), (1000, 1000), "frame")

        print(f"from JPEG, box {height:.0f} px high: {speed(read, settings.rounds):.0f} crops per second")


def speed(work: Callable[[], object], rounds: int) -> float:
    """Crops per second of processor time in the best of several rounds of `_CROPS`."""
    best = np.inf
    for _ in range(rounds):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return _CROPS / best


if __name__ == "__main__":
    main()
