"""Joints that a detector did not see: filled linearly in time. Legend: F frames, J joints, C coordinates."""

import numpy as np


def fill_gaps(points: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """(F, J, C) points in which the joints with confidence (F, J) of 0 are interpolated; same dtype.

    Each joint by itself: linearly in time between the frames before and after in which it is seen, held before the
    first and after the last of them. A joint that is never seen takes the mean of the frame's other joints. What stood
    in `points` at confidence 0 does not matter, not even NaN; the caller keeps confidence 0 there, so that what was
    filled stays known. Raises ValueError if nothing is seen at all, a seen point is not finite, or shapes do not fit.
    """
    if points.ndim != 3 or confidence.shape != points.shape[:2]:
        raise ValueError(
            f"filling gaps got points {points.shape} and confidence {confidence.shape}; expected (frames, joints, "
            "coordinates) and (frames, joints). Pass the arrays of one sequence."
        )
    seen = confidence > 0
    bad = seen & ~np.isfinite(points).all(axis=-1)
    if bad.any():
        frame, joint = np.argwhere(bad)[0]
        raise ValueError(
            f"filling gaps: frame {frame}, joint {joint} is not finite though its confidence is "
            f"{confidence[frame, joint]}. Give it confidence 0 to have it interpolated."
        )
    if not seen.any():
        raise ValueError(
            f"filling gaps: none of {confidence.shape[1]} joints is seen in any of {len(points)} frames (all "
            "confidences are 0 or missing). Leave this sequence out."
        )
    if seen.all():
        return points.copy()
    frames, joints = np.arange(len(points))[:, None], np.arange(points.shape[1])[None]
    before = np.maximum.accumulate(np.where(seen, frames, -1), axis=0)
    after = np.minimum.accumulate(np.where(seen, frames, len(points))[::-1], axis=0)[::-1]
    # at the edges there is one side only; never seen: both are out of range, replaced below
    before, after = np.where(before < 0, after, before), np.where(after == len(points), before, after)
    never = ~seen.any(axis=0)
    before[:, never], after[:, never] = 0, 0
    share = (frames - before) / np.maximum(after - before, 1)
    low, high = points[before, joints], points[after, joints]
    filled = np.where(seen[..., None], points, low + (high - low) * share[..., None]).astype(points.dtype)
    if never.any():
        filled[:, never] = filled[:, ~never].mean(axis=1, keepdims=True)
    return filled
