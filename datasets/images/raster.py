"""Which pixels a capsule may touch, where rays meet capsules, and which surface is in front: all parts of all images in
one go, without a loop over images or parts.

A part covers some rows, a row some pixels; such ragged lists are kept flat. Legend: M parts of all images together,
H x W pixels of an image, G fragments (a pixel that a part may cover).
"""

import numpy as np

EMPTY = np.iinfo(np.int64).max
"""Key of a pixel that nothing covers."""


def ragged(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Owner and place within the owner of sum(counts) items: counts (2, 0, 3) give 0 0 2 2 2 and 0 1 0 1 2."""
    owner = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - before[owner]


def capsule_pixels(
    start: np.ndarray, end: np.ndarray, reach: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Part (G,) and pixel y * W + x (G,) of all pixels whose centre is within `reach` of a segment, and a few more.

    start, end: (M, 2) pixels; reach: (M,), negative for parts that are not drawn.
    """
    low, high = np.minimum(start[:, 1], end[:, 1]) - reach, np.maximum(start[:, 1], end[:, 1]) + reach
    top, bottom = (np.clip(np.ceil(edge - 0.5), 0, height).astype(np.int64) for edge in (low, high))
    part, row = ragged(np.where(reach >= 0, np.maximum(bottom - top, 0), 0))
    row += top[part]
    (x0, y0), (x1, y1), r = start[part].T, end[part].T, reach[part]
    # piece of the segment whose height is within reach of the row
    rise = np.where(np.abs(y1 - y0) < 1e-6, 1e-6, y1 - y0)
    one, two = (np.clip((row + 0.5 + sign * r - y0) / rise, 0, 1) for sign in (-1, 1))
    one, two = x0 + one * (x1 - x0), x0 + two * (x1 - x0)
    left, right = np.minimum(one, two) - r, np.maximum(one, two) + r
    left, right = (np.clip(np.ceil(edge - 0.5), 0, width).astype(np.int64) for edge in (left, right))
    span, column = ragged(np.maximum(right - left, 0))
    return part[span], (row * width + left)[span] + column


def rectangle_pixels(corner: np.ndarray, size: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rectangle (G,) and pixel y * W + x (G,) of all pixels whose centre lies in one; corner, size: (M, 2) pixels."""
    low, high = (np.ceil(edge - 0.5) for edge in (corner, corner + size))
    low, high = (np.clip(edge, 0, [width, height]).astype(np.int64) for edge in (low, high))
    wide, tall = np.maximum(high - low, 0).T
    owner, row = ragged(tall)
    span, column = ragged(wide[owner])
    owner, row = owner[span], row[span]
    return owner, (row + low[owner, 1]) * width + low[owner, 0] + column


def capsule_table(start: np.ndarray, end: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """(..., 11) float32: what the meeting of rays through the origin with capsules (..., 3) needs of them.

    Start, axis, |axis|^2, start . axis, and the constant terms of the quadratic equations of tube and both ends.
    """
    axis, squared = end - start, radius**2
    length, along, near = (np.sum(one * two, axis=-1) for one, two in ((axis, axis), (start, axis), (start, start)))
    tube = length * near - along**2 - squared * length
    caps = [near - squared, np.sum(end * end, axis=-1) - squared]
    rest = np.stack([length, along, tube, *caps], axis=-1)
    return np.concatenate([start, axis, rest], axis=-1).astype(np.float32)


def meet(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where rays (x, y, 1) Z first meet capsules: which rays do (D,), at which depth Z (D,), where on the axis (D,).

    table: (11, G), `capsule_table` of each ray's capsule, turned; x, y: (G,); the place on the axis is in [0, 1]. The
    depth is the nearer root of the quadratic equation of the tube, or of the sphere at the end beyond which it lies.
    """
    ax, ay, az, dx, dy, dz, length, along, tube, cap0, cap1 = table
    ray = x * x + y * y + 1
    p = x * ax + y * ay + az
    q = x * dx + y * dy + dz
    a = length * ray - q * q
    b = length * p - along * q
    inside = b * b - a * tube
    rays = np.flatnonzero(inside >= 0)  # rays that pass the endless tube by are done with
    p, q, ray, length, along = p[rays], q[rays], ray[rays], length[rays], along[rays]
    with np.errstate(invalid="ignore", divide="ignore"):
        depth = (b[rays] - np.sqrt(inside[rays])) / a[rays]
        place = (depth * q - along) / length
        ends = np.flatnonzero(~((place > 0) & (place < 1)))
        first = place[ends] <= 0
        ray = ray[ends]
        pc = np.where(first, p[ends], p[ends] + q[ends])
        sphere = np.where(first, cap0[rays[ends]], cap1[rays[ends]])
        depth[ends] = (pc - np.sqrt(pc * pc - ray * sphere)) / ray
    place[ends] = ~first
    hit = np.flatnonzero(depth > 0)
    return rays[hit], depth[hit], place[hit]


def nearest(pixels: int, pixel: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of fragments (G,) that compete for pixels, the one in front: which pixels are covered, and by which fragment.

    Depths are positive float32; of equal ones the first fragment wins.
    """
    # positive floats sort like their bits, so depth and number fit one integer
    keys = depth.astype(np.float32).view(np.int32).astype(np.int64) << 32
    keys |= np.arange(len(depth))
    best = np.full(pixels, EMPTY)
    np.minimum.at(best, pixel, keys)
    covered = np.flatnonzero(best != EMPTY)
    return covered, best[covered] & 0xFFFFFFFF
