"""Textures that the project makes itself: noise, marble, stripes, checks, dots, bricks, cells, in random colours.

They repeat seamlessly. The occlusion protocol of 3DPW-AdvOcc uses photographs of the Describable Textures Dataset,
which may not be passed on; whoever has them (or others) names their folder.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from posegrid.datasets.images.files import read_square

_SALT = 0x7E87


def make_textures(seed: int, count: int, size: int = 256) -> np.ndarray:
    """(count, size, size, 3) uint8; texture i depends on (seed, i, size) alone. Kinds take turns.

    Raises ValueError for a negative seed, no textures, or sides outside 16 to 4096 pixels.
    """
    if seed < 0 or count < 1 or not 16 <= size <= 4096:
        raise ValueError(
            f"textures: seed = {seed}, count = {count}, size = {size}; expected a seed of at least 0, at least one "
            "texture, and 16 to 4096 pixels a side. Correct them."
        )
    return np.stack([_texture(np.random.default_rng([seed, _SALT, index]), index, size) for index in range(count)])


def read_textures(folder: Path, size: int = 256, limit: int = 512) -> np.ndarray:
    """(T, size, size, 3) uint8: central squares of the images in a folder and below, by path, at most `limit`.

    Raises ValueError if the folder does not exist or holds no JPEG or PNG files, or one that cannot be read.
    """
    files = sorted(
        (file for file in Path(folder).rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png")),
        key=lambda file: file.as_posix(),
    )
    if not files:
        raise ValueError(
            f"textures: the folder {folder} holds no .jpg or .png files (or does not exist). Name a folder of texture "
            "images, or leave it out to use made ones."
        )
    return np.stack([read_square(file, size) for file in files[:limit]])


def fractal_noise(generator: np.random.Generator, size: int, coarsest: int = 4, roughness: float = 0.55) -> np.ndarray:
    """(size, size) float64 in [0, 1]: periodic value noise, octaves from `coarsest` cells a side up to size / 4."""
    total = np.zeros((size, size))
    cells, weight = coarsest, 1.0
    while cells <= size // 4:
        total += weight * _stretched(generator.random((cells, cells)), size)
        cells, weight = cells * 2, weight * roughness
    total -= total.min()
    return total / max(float(total.max()), 1e-12)


def _stretched(lattice: np.ndarray, size: int) -> np.ndarray:
    """Periodic smooth interpolation of a lattice (n, n) to (size, size)."""
    n = len(lattice)
    place = np.arange(size) * n / size
    low = place.astype(np.int64)
    share = place - low
    share = share * share * (3 - 2 * share)
    rows = lattice[low] * (1 - share)[:, None] + lattice[(low + 1) % n] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, (low + 1) % n] * share


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns as shares of a period in [0, 1)."""
    place = np.arange(size) / size
    return place[:, None], place[None, :]


def _marble(generator: np.random.Generator, size: int) -> np.ndarray:
    y, x = _grid(size)
    turns = generator.integers(1, 4, 2)
    warp = fractal_noise(generator, size) * generator.uniform(1.0, 2.5)
    return 0.5 + 0.5 * np.sin(2 * np.pi * (turns[0] * x + turns[1] * y + warp))


def _stripes(generator: np.random.Generator, size: int) -> np.ndarray:
    y, x = _grid(size)
    along, across = generator.integers(-6, 7), generator.integers(4, 13)
    if generator.random() < 0.5:
        y, x = x, y
    return np.mod(across * y + along * x, 1.0) < generator.uniform(0.3, 0.7)


def _checks(generator: np.random.Generator, size: int) -> np.ndarray:
    y, x = _grid(size)
    n, m = 2 * generator.integers(2, 8, 2)
    return (np.floor(n * y) + np.floor(m * x)) % 2


def _dots(generator: np.random.Generator, size: int) -> np.ndarray:
    y, x = _grid(size)
    n = int(generator.integers(4, 12))
    shift = 0.5 * (np.floor(n * y) % 2) * (n % 2 == 0)
    distance = np.hypot(np.mod(n * y, 1.0) - 0.5, np.mod(n * x + shift, 1.0) - 0.5)
    return distance < generator.uniform(0.2, 0.42)


def _bricks(generator: np.random.Generator, size: int) -> np.ndarray:
    y, x = _grid(size)
    rows = 2 * int(generator.integers(3, 8))
    columns = max(rows // 2, 1)
    row = np.floor(rows * y)
    across = columns * x + 0.5 * (row % 2)
    joint = 0.08
    mortar = (np.mod(rows * y, 1.0) < joint * 1.5) | (np.mod(across, 1.0) < joint)
    shade = generator.random((rows, columns))
    tone = shade[row.astype(np.int64), np.floor(across).astype(np.int64) % columns]
    return np.where(mortar, 0.0, 0.55 + 0.45 * tone)


def _cells(generator: np.random.Generator, size: int) -> np.ndarray:
    """Distance to the nearest of random points: a pattern of cells."""
    y, x = _grid(size)
    points = generator.random((int(generator.integers(12, 40)), 2))
    away_y = np.abs(y - points[:, 0, None, None])
    away_x = np.abs(x - points[:, 1, None, None])
    squared = (np.minimum(away_y, 1 - away_y) ** 2 + np.minimum(away_x, 1 - away_x) ** 2).min(axis=0)
    return np.sqrt(squared / squared.max())


_KINDS: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (
    fractal_noise, _stripes, _marble, _checks, _cells, _dots, _bricks,
)  # fmt: skip


def _texture(generator: np.random.Generator, index: int, size: int) -> np.ndarray:
    """A pattern in two random colours, roughened by noise. The mixture is done in linear 8-bit values."""
    pattern = np.asarray(_KINDS[index % len(_KINDS)](generator, size), dtype=np.float64)
    dark, light = generator.uniform(0, 140, 3), generator.uniform(90, 255, 3)
    colours = dark + (light - dark) * pattern[..., None]
    grain = fractal_noise(generator, size, coarsest=16, roughness=0.9) - 0.5
    return np.clip(colours + 50 * grain[..., None], 0, 255).astype(np.uint8)
