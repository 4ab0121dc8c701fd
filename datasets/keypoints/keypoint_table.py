"""The table format for keypoints of one's own: CSV or Parquet, one row a joint and frame.

| column | type | meaning |
|---|---|---|
| `sequence` | text | name of the video |
| `frame` | whole number, not negative | frames of a video are numbered one by one |
| `joint` | text | name of the joint (`readers.joint_names` says which spellings are understood) |
| `x`, `y` | number | pixels, from the upper left corner; may be empty at confidence 0 |
| `confidence` | number in [0, 1] | 0: not seen, will be interpolated in time |
| `person` | text or number, optional | who it is; without it each frame holds one person |
| `X`, `Y`, `Z` | number, optional, all three | metres in the camera frame: x right, y down, z forward |

Rows may come in any order and joints that were not seen may be left out. Beside `NAME.csv` lies `NAME.toml` (or
`NAME.json`) with the keys of `readers.keypoint_columns.Sidecar`; `datasets/examples/walk.csv` is an example. A row
number counts from 1 without the header: in a CSV file the line is one further down.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from posegrid.datasets.keypoints.tracks import Detections
from posegrid.datasets.readers.joint_names import nearest_joint
from posegrid.datasets.readers.keypoint_columns import Table


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong, or odd, in a file."""

    row: int | None
    """Row of the table, from 1 and without the header; None where there are no rows."""
    text: str
    """What is the matter."""
    fatal: bool
    """Whether the file is refused for it."""


def problems_of(table: Table, limit: int = 20) -> list[Problem]:
    """What is wrong with the rows, the worst first: at most `limit` entries of a kind, and how many more there are."""
    checks: list[Callable[[Table, Callable[..., None]], None]] = [_joints, _values, _repeats, _gaps, _outside]
    problems: list[Problem] = []
    for look in checks:
        found: list[Problem] = []

        def report(rows: np.ndarray, text: Callable[[int], str], fatal: bool, found: list[Problem] = found) -> None:
            found += [Problem(row=int(row) + 1, text=text(int(row)), fatal=fatal) for row in rows[:limit]]
            if len(rows) > limit:
                found.append(Problem(row=None, text=f"... and {len(rows) - limit} more rows like these", fatal=fatal))

        look(table, report)
        problems += found
    return sorted(problems, key=lambda problem: not problem.fatal)


def detections_of(table: Table) -> list[Detections]:
    """The videos of a table, by name. Raises ValueError with the first problems if there are any that matter."""
    fatal = [problem for problem in problems_of(table, 3) if problem.fatal]
    if fatal:
        shown = "; ".join(f"row {found.row}: {found.text}" if found.row else found.text for found in fatal[:3])
        raise ValueError(
            f"{table.file} has rows that cannot be used: {shown}. Correct them; `posegrid check keypoints "
            f"{table.file}` lists them all."
        )
    found = []
    for number, video in enumerate(table.videos.tolist()):
        rows = np.flatnonzero(table.video == number)
        keys = np.stack([table.person[rows], table.frame[rows]], axis=-1)
        unique, place = np.unique(keys, axis=0, return_inverse=True)
        place = place.reshape(-1)
        shape = (len(unique), len(table.skeleton))
        points, confidence = np.zeros((*shape, 2)), np.zeros(shape)
        points[place, table.joint[rows]] = table.points[rows]
        confidence[place, table.joint[rows]] = table.confidence[rows]
        poses = None
        if table.poses is not None:
            poses = np.full((*shape, 3), np.nan)
            poses[place, table.joint[rows]] = table.poses[rows]
        known = table.sidecar.of(video)
        found.append(
            Detections(
                video=video,
                file=str(table.file),
                skeleton=table.skeleton,
                frames=unique[:, 1],
                people=np.full(len(unique), "1") if table.people is None else table.people[unique[:, 0]],
                points=points,
                confidence=confidence,
                poses=poses,
                width=known.width,
                height=known.height,
                frame_rate=known.frame_rate,
            )
        )
    return found


def _where(table: Table, row: int) -> str:
    person = f", person {table.people[table.person[row]]}" if table.people is not None else ""
    return f"{table.videos[table.video[row]]}{person}, frame {table.frame[row]}, {table.joint_name[row]}"


def _joints(table: Table, report: Callable[..., None]) -> None:
    _, first, index, counts = np.unique(table.joint_name, return_index=True, return_inverse=True, return_counts=True)
    first = np.sort(first[table.joint[first] < 0])

    def text(row: int) -> str:
        name = str(table.joint_name[row])
        return (
            f"skeleton {table.skeleton.name} has no joint {name!r} ({counts[index[row]]} rows); "
            f"{nearest_joint(table.skeleton, name)}Joints: {', '.join(table.skeleton.joints)}"
        )

    report(first, text, True)


def _values(table: Table, report: Callable[..., None]) -> None:
    confidence = table.confidence
    bad = ~((confidence >= 0) & (confidence <= 1))
    report(np.flatnonzero(bad), lambda row: f"{_where(table, row)}: confidence {confidence[row]} not in [0, 1]", True)
    strange = ~bad & (confidence > 0) & ~np.isfinite(table.points).all(axis=-1)
    report(
        np.flatnonzero(strange),
        lambda row: f"{_where(table, row)}: x, y = {table.points[row].tolist()} at confidence {confidence[row]}",
        True,
    )
    if table.poses is not None:
        partial_pose = ~np.isfinite(table.poses).all(axis=-1) & ~np.isnan(table.poses).all(axis=-1)
        report(
            np.flatnonzero(partial_pose),
            lambda row: (
                f"{_where(table, row)}: X, Y, Z = {table.poses[row].tolist()}, all three or none must be finite"
            ),
            True,
        )
    report(np.flatnonzero(table.frame < 0), lambda row: f"{_where(table, row)}: negative frame number", True)


def _repeats(table: Table, report: Callable[..., None]) -> None:
    # by what stands in the file, unless two spellings of a joint mean the same
    known = np.where(table.joint < 0, -2 - np.unique(table.joint_name, return_inverse=True)[1], table.joint)
    order = np.lexsort((known, table.frame, table.person, table.video))
    keys = np.stack([table.video, table.person, table.frame, known], axis=-1)[order]
    again = np.flatnonzero((keys[1:] == keys[:-1]).all(axis=-1)) + 1
    earlier = dict(zip(order[again].tolist(), order[again - 1].tolist(), strict=True))
    hint = "" if table.people is not None else "; several people need the column person"

    def text(row: int) -> str:
        return f"{_where(table, row)} stands in row {earlier[row] + 1} already{hint}"

    report(np.sort(order[again]), text, True)


def _gaps(table: Table, report: Callable[..., None]) -> None:
    order = np.lexsort((table.frame, table.person, table.video))
    video, person, frame = table.video[order], table.person[order], table.frame[order]
    jump = np.where((np.diff(video) == 0) & (np.diff(person) == 0), np.diff(frame), 0)
    after = np.flatnonzero(jump > 1) + 1
    missing = dict(zip(order[after].tolist(), (jump[after - 1] - 1).tolist(), strict=True))

    def text(row: int) -> str:
        return f"{_where(table, row)}: the {missing[row]} frames before it are missing, they will be interpolated"

    report(np.sort(order[after]), text, False)


def _outside(table: Table, report: Callable[..., None]) -> None:
    sizes = np.array(
        [[known.width or np.inf, known.height or np.inf] for known in map(table.sidecar.of, table.videos.tolist())]
    )[table.video]
    outside = (table.confidence > 0) & ((table.points < 0) | (table.points > sizes)).any(axis=-1)

    def text(row: int, sizes: np.ndarray) -> str:
        x, y = table.points[row]
        return f"{_where(table, row)}: ({x:g}, {y:g}) lies outside the image of {sizes[row, 0]:g} x {sizes[row, 1]:g}"

    report(np.flatnonzero(outside), partial(text, sizes=sizes), False)
