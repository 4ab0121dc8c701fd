"""Checks of 3D: units, bones, depth, motion, and whether poses and keypoints belong together. Part of `integrity`."""

from typing import Any

import numpy as np

from posegrid.datasets.checks.anatomy import body_scale, bone_ranges
from posegrid.datasets.checks.findings import FAILED, OK, SKIPPED, WARNING, Finding, at, most
from posegrid.datasets.checks.measures import JUMP, Measures, percentile
from posegrid.datasets.store import Store

_DEPTHS = (0.5, 50.0)
_SCALE = 3.0
"""Mean bones this much longer or shorter than typical ones are not in metres, or the joints are in another order."""
_SIDES_APART, _BONES_VARY = 0.1, 0.1
"""Difference of left and right, and deviation over time, as shares of a bone's length."""
_MEASURED_TOO = ("gt", "projected", "ground truth", "ground_truth")
"""Keypoints that are projected poses, as protocols and options of sources call them."""
_EXACT_PX, _DETECTED_PX, _FAR_PX, _GROSS_PX = 1.0, 15.0, 100.0, 50.0
"""Median for projected keypoints; median, 95th percentile and gross median for detected ones. They hold for images up
to 1000 pixels wide and grow with the width beyond."""
_CAMERAS_SHOWN = 8


def check_poses(store: Store, measures: list[Measures], distances: dict[str, np.ndarray]) -> list[Finding]:
    """One row or more for each check of 3D; rows that say why if there is nothing to check.

    distances: camera -> histogram of its sequences' distances between keypoints and projected poses.
    """
    scored = [found for found in measures if found.scored]
    names = ("unit", "bone lengths", "left and right", "bones over time", "depth", "jumps", "reprojection")
    if not scored:
        why = "the store has keypoints only" if store.poses_if_any is None else "no frame is valid and finite"
        return [Finding(check=name, status=SKIPPED, measured=why) for name in names]
    means = np.array([found.bone_means for found in scored])
    rows = [_unit(store, scored, means), *_ranges(store, scored, means), _sides(store, scored, means)]
    return [
        *rows,
        _rigid(store, scored),
        _depth(store, scored),
        _jumps(store, scored),
        *_reprojection(store, scored, distances),
    ]


def _unit(store: Store, scored: list[Measures], means: np.ndarray) -> Finding:
    scales = np.array([body_scale(row, store.skeleton) for row in means])
    if not np.isfinite(scales).any():
        why = f"no bone of the skeleton {store.skeleton.name} is known"
        return Finding(check="unit", status=SKIPPED, measured=why)
    worst = int(np.nanargmax(np.abs(np.log(np.maximum(scales, 1e-9)))))
    return Finding(
        check="unit",
        status=OK if 1 / _SCALE <= scales[worst] <= _SCALE else FAILED,
        measured=f"bodies {np.nanmin(scales):.3g} to {np.nanmax(scales):.3g} times a typical one",
        allowed=f"{1 / _SCALE:.2f} to {_SCALE:g} (metres, joints in order)",
        place=f"{scored[worst].sequence.name}: {scales[worst]:.3g}",
    )


def _ranges(store: Store, scored: list[Measures], means: np.ndarray) -> list[Finding]:
    """Each bone whose mean leaves its range in some sequence has a row; otherwise one row for all."""
    ranges, weights = bone_ranges(store.skeleton), np.array([found.scored for found in scored])
    rows = []
    for bone, (low, high) in enumerate(ranges):
        beyond = np.maximum(low - means[:, bone], means[:, bone] - high)
        worst = int(beyond.argmax())
        if beyond[worst] > 0:
            overall = float(np.average(means[:, bone], weights=weights))
            rows.append(
                Finding(
                    check=f"bone {_bone(store, bone)}",
                    status=WARNING,
                    measured=f"mean {overall:.3f} m, outside in {int((beyond > 0).sum())} sequences",
                    allowed=f"{low:.2f}-{high:.2f} m",
                    place=f"{scored[worst].sequence.name}: {means[worst, bone]:.3f} m",
                )
            )
    known = int(np.isfinite(ranges[:, 0]).sum())
    if not rows:
        lengths = ", ".join(
            f"{_bone(store, bone)} {np.average(means[:, bone], weights=weights):.3f}" for bone in _shown(store)
        )
        rows.append(
            Finding(
                check="bone lengths",
                status=OK if known else SKIPPED,
                measured=f"{known} of {len(ranges)} bones in range" + (f"; {lengths} m" if lengths else ""),
                allowed="anatomical range of each bone",
            )
        )
    return rows


def _shown(store: Store) -> list[int]:
    """A thigh and an upper arm, as examples of lengths."""
    wanted = ("RKnee", "RElbow")
    return [bone for bone, (child, _) in enumerate(store.skeleton.bones) if store.skeleton.joints[child] in wanted]


def _sides(store: Store, scored: list[Measures], means: np.ndarray) -> Finding:
    of_child = {child: bone for bone, (child, _) in enumerate(store.skeleton.bones)}
    pairs = list(zip(store.skeleton.left, store.skeleton.right, strict=True))
    pairs = [(of_child[left], of_child[right]) for left, right in pairs if left in of_child and right in of_child]
    if not pairs:
        return Finding(check="left and right", status=SKIPPED, measured="the skeleton has no mirrored bones")
    left, right = means[:, [pair[0] for pair in pairs]], means[:, [pair[1] for pair in pairs]]
    apart = np.abs(left - right) / np.maximum((left + right) / 2, 1e-9)
    sequence, pair = np.unravel_index(int(apart.argmax()), apart.shape)
    return Finding(
        check="left and right",
        status=WARNING if apart.max() > _SIDES_APART else OK,
        measured=f"bones differ by {np.average(apart):.1%}, at most {apart.max():.1%}",
        allowed=f"at most {_SIDES_APART:.0%}",
        place=f"{scored[sequence].sequence.name}, {_bone(store, pairs[pair][0])}",
    )


def _rigid(store: Store, scored: list[Measures]) -> Finding:
    varies = np.array([found.bone_deviations / np.maximum(found.bone_means, 1e-9) for found in scored])
    sequence, bone = np.unravel_index(int(varies.argmax()), varies.shape)
    return Finding(
        check="bones over time",
        status=WARNING if varies.max() > _BONES_VARY else OK,
        measured=f"vary by {varies.mean():.1%}, at most {varies.max():.1%}",
        allowed=f"at most {_BONES_VARY:.0%} (standard deviation)",
        place=f"{scored[sequence].sequence.name}, {_bone(store, int(bone))}",
    )


def _depth(store: Store, scored: list[Measures]) -> Finding:
    nearest, near = most(scored, lambda found: found.depth[0])
    farthest, far = most(scored, lambda found: found.depth[1])
    root, behind = most(scored, lambda found: found.root_depth)
    low, high = _DEPTHS
    odd = -nearest.value < low or farthest.value > high
    place = (
        at(root, behind, store.skeleton)
        if root.value >= 0
        else at(nearest, near, store.skeleton)
        if -nearest.value < low
        else at(farthest, far, store.skeleton)
    )
    return Finding(
        check="depth",
        status=FAILED if root.value >= 0 else WARNING if odd else OK,
        measured=f"{-nearest.value:.2f} to {farthest.value:.2f} m" + ("; root behind" if root.value >= 0 else ""),
        allowed=f"{low:g}-{high:g} m, root before the camera",
        place=place,
    )


def _jumps(store: Store, scored: list[Measures]) -> Finding:
    fastest, owner = most(scored, lambda found: found.speed)
    jumps, several = sum(found.jumps for found in scored), sum(found.jumps > 0 for found in scored)
    return Finding(
        check="jumps",
        status=WARNING if jumps else OK,
        measured=f"fastest joint {max(fastest.value, 0):.1f} m/s"
        + (f"; {jumps} frames of {several} sequences" if jumps else ""),
        allowed=f"{JUMP:g} m/s",
        place=at(fastest, owner, store.skeleton),
    )


def _reprojection(store: Store, scored: list[Measures], distances: dict[str, np.ndarray]) -> list[Finding]:
    """Distance between keypoints and projected poses, by camera: what shows a wrong camera, order or frame offset."""
    name = "reprojection"
    broken = [found for found in scored if found.camera_error]
    if broken:
        measured = f"{len(broken)} sequences have unusable cameras: {broken[0].camera_error}"
        return [Finding(check=name, status=FAILED, measured=measured, place=broken[0].sequence.name)]
    known = [found for found in scored if found.camera is not None]
    if not known:
        return [Finding(check=name, status=SKIPPED, measured="no sequence has camera parameters")]
    exact = _keypoints_are_projected(store.description)
    by_camera: dict[str, list[Measures]] = {}
    for found in known:
        by_camera.setdefault(found.sequence.camera, []).append(found)
    rows = [_camera_row(name, by_camera[camera], distances[camera], exact) for camera in sorted(by_camera)]
    if len(rows) > _CAMERAS_SHOWN:
        badness = {FAILED: 0, WARNING: 1, SKIPPED: 2, OK: 3}
        rows.sort(key=lambda row: badness[row.status])
        good = sum(row.status == OK for row in rows[_CAMERAS_SHOWN:])
        rest = Finding(
            check=name,
            status=rows[_CAMERAS_SHOWN].status,
            measured=f"{len(rows) - _CAMERAS_SHOWN} other cameras, {good} of them ok",
        )
        rows = [*rows[:_CAMERAS_SHOWN], rest]
    if len(known) < len(scored):
        unknown = f"{len(scored) - len(known)} sequences without camera parameters"
        rows.append(Finding(check=name, status=SKIPPED, measured=unknown))
    return rows


def _keypoints_are_projected(description: dict[str, Any]) -> bool:
    said = [description["protocol"].get("keypoints", ""), description["source_config"].get("keypoints", "")]
    return any(isinstance(text, str) and text.lower().startswith(_MEASURED_TOO) for text in said)


def _camera_row(name: str, known: list[Measures], together: np.ndarray, exact: bool) -> Finding:
    grow = max(1.0, max(found.sequence.width for found in known) / 1000)
    medians = np.array([found.median_distance for found in known])
    check = f"{name}, camera {known[0].sequence.camera}"
    if np.isnan(medians).all():
        return Finding(check=check, status=SKIPPED, measured="no keypoint whose projection lies in the image")
    middle, most = percentile(together, 0.5), percentile(together, 0.95)
    worst = int(np.nanargmax(medians))
    if exact:
        limit, status = f"{_EXACT_PX * grow:.3g} px", OK if medians[worst] <= _EXACT_PX * grow else FAILED
    else:
        limit = f"{_DETECTED_PX * grow:.0f}, 95% {_FAR_PX * grow:.0f}, wrong from {_GROSS_PX * grow:.0f} px"
        far = medians[worst] > _DETECTED_PX * grow or most > _FAR_PX * grow
        status = FAILED if medians[worst] > _GROSS_PX * grow else WARNING if far else OK
    return Finding(
        check=check,
        status=status,
        measured=f"median {middle:.3g} px, 95% below {most:.3g} px",
        allowed=f"median {limit}",
        place=f"{known[worst].sequence.name}: median {medians[worst]:.3g} px",
    )


def _bone(store: Store, bone: int) -> str:
    child, parent = store.skeleton.bones[bone]
    return f"{store.skeleton.joints[parent]}-{store.skeleton.joints[child]}"
