"""What stands in keypoint files, and what is wrong with them, as lines a person can read."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from posegrid.datasets.keypoints.keypoint_table import problems_of
from posegrid.datasets.keypoints.tracks import Detections, Track, tracks_of
from posegrid.datasets.readers.keypoint_columns import read_table
from posegrid.datasets.readers.keypoint_files import keypoint_files

_SHOWN = 20
"""Problems of a kind, or of a track, that are listed."""


def look_at(path: Path, joints: str = "auto") -> Iterator[tuple[str, bool]]:
    """Lines about a keypoint file or a folder of them, and whether each tells of something that is refused.

    Per person and video: frames, joints, how many of them are missing, image size, frame rate. Then what is odd: frames
    without the person, joints outside the image; for tables every problem with its row. Raises ValueError if there is
    no keypoint file; damaged ones are told of in a line.
    """
    for file in keypoint_files(path):
        yield f"{file.files[0] if len(file.files) == 1 else file.files[0].parent / (file.video + '_*')}", False
        try:
            problems = problems_of(read_table(file.files[0], joints), _SHOWN) if file.kind == "table" else []
            for problem in problems:
                row = f"row {problem.row}: " if problem.row else ""
                yield f"  {'error' if problem.fatal else 'note'}: {row}{problem.text}", problem.fatal
            if any(problem.fatal for problem in problems):
                continue
            videos = [(found, tracks_of(found)) for found in file.read("auto", joints)]
        except ValueError as error:
            yield f"  error: {error}", True
            continue
        yield f"  {'video':<24}{'person':>8}{'frames':>8}{'first':>8}{'joints':>8}{'missing':>9}  size, frames/s", False
        for found, tracks in videos:
            for track in tracks:
                yield _row(found, track), False
        if file.kind != "table":
            for found, tracks in videos:
                for track in tracks:
                    yield from ((f"  note: {text}", False) for text in _oddities(found, track))


def _row(found: Detections, track: Track) -> str:
    missing = f"{(track.confidence == 0).mean():.1%}"
    size = f"{found.width} x {found.height}" if found.width and found.height else "size unknown"
    rate = f"{found.frame_rate:g}" if found.frame_rate else "rate unknown"
    numbers = f"{len(track.points):>8}{track.first:>8}{len(found.skeleton):>8}{missing:>9}"
    return f"  {found.video:<24}{track.person:>8}{numbers}  {size}, {rate}, {found.skeleton.name}"


def _oddities(found: Detections, track: Track) -> Iterator[str]:
    who = f"{found.video}, person {track.person}"
    absent = ~(track.confidence > 0).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], absent, [False]]))).reshape(-1, 2)
    for start, stop in edges[:_SHOWN] + track.first:
        yield f"{who}: not seen in the frames {start} to {stop - 1}, they will be interpolated"
    if len(edges) > _SHOWN:
        yield f"{who}: ... and {len(edges) - _SHOWN} more gaps"
    never = np.flatnonzero((track.confidence == 0).all(axis=0))
    if len(never):
        yield f"{who}: never seen: {', '.join(found.skeleton.joints[joint] for joint in never)}"
    size = np.array([found.width or np.inf, found.height or np.inf])
    outside = (track.confidence > 0) & ((track.points < 0) | (track.points > size)).any(axis=-1)
    if outside.any():
        frame, joint = np.argwhere(outside)[0]
        x, y = track.points[frame, joint]
        yield (
            f"{who}: {int(outside.sum())} joints outside the image, the first is {found.skeleton.joints[joint]} in "
            f"frame {track.first + frame} at ({x:g}, {y:g})"
        )
