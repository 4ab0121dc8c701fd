"""Is a store what it claims to be? Every check says what was measured, what is allowed and where the worst place is.

"FAILED" is what cannot be right (units, depth, order, leakage of the split); "warning" is what a person should look at
once, such as a jump in the motion; "skipped" says why something could not be checked.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from posegrid.datasets.checks.findings import FAILED, OK, WARNING, Finding, at, most
from posegrid.datasets.checks.measures import Measures, measure
from posegrid.datasets.checks.pose_checks import check_poses
from posegrid.datasets.skeletons import Skeleton
from posegrid.datasets.store import Sequence, Store

SPLITS = ("train", "held_out", "test", "unused")

_COUNTS = Path(__file__).parent / "published_counts.json"
_RATES = (10.0, 240.0)
_FROZEN_S = 0.5


def check_store(store: Store, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Finding]:
    """All checks of an open store, in the order of the table; `progress(done, total)` counts sequences.

    Reads the store piece by piece. If the table of sequences itself is wrong nothing else is checked.
    """
    found = [_order(store), _images_and_rates(store)]
    if FAILED in {finding.status for finding in found}:
        return found
    measures: list[Measures] = []
    distances: dict[str, np.ndarray] = {}
    for number, sequence in enumerate(store.sequences, start=1):
        measures.append(measure(store, sequence))
        # histograms are added up by camera at once: one for each of many thousand sequences would fill the memory
        if len(measures[-1].distances):
            distances[sequence.camera] = distances.get(sequence.camera, 0) + measures[-1].distances
            measures[-1].distances = np.zeros(0, np.int64)
        progress(number, len(store.sequences))
    found += [_finite(measures), _confidence(measures, store.skeleton), _inside(measures, store.skeleton)]
    found += check_poses(store, measures, distances)
    found += _frozen(store, measures)
    found += [_leakage(store), _twins(store), *_counts(store)]
    return found


def splits_table(store: Store) -> list[str]:
    """Subjects, sequences, frames and minutes of each split as lines of text."""
    lines = [f"{'split':<10}{'subjects':>10}{'sequences':>11}{'frames':>12}{'minutes':>10}"]
    for split in SPLITS:
        rows = [sequence for sequence in store.sequences if sequence.split == split]
        if rows:
            frames = sum(row.frames for row in rows)
            minutes = sum(row.frames / row.frame_rate for row in rows if row.frame_rate > 0) / 60
            lines.append(
                f"{split:<10}{len({row.subject for row in rows}):>10}{len(rows):>11}{frames:>12,}{minutes:>10,.1f}"
            )
    return lines


def _order(store: Store) -> Finding:
    """Sequences lie one behind the other, without gaps, and have names of their own."""
    name, frames = "order and offsets", len(store.keypoints)
    allowed = "contiguous, distinct names, known splits"
    expected = np.concatenate([[0], np.cumsum(store.lengths)])
    for index, sequence in enumerate(store.sequences):
        if sequence.offset != expected[index] or sequence.frames < 1:
            measured = f"{sequence.frames} frames from row {sequence.offset}, expected row {expected[index]}"
            return Finding(check=name, status=FAILED, measured=measured, allowed=allowed, place=sequence.name)
    if expected[-1] != frames:
        measured = f"sequences have {expected[-1]:,} frames, the frame table {frames:,}"
        return Finding(check=name, status=FAILED, measured=measured, allowed=allowed)
    names, times = Counter(sequence.name for sequence in store.sequences).most_common(1)[0]
    if times > 1:
        return Finding(check=name, status=FAILED, measured=f"a name {times} times", allowed=allowed, place=names)
    odd = [sequence for sequence in store.sequences if sequence.split not in SPLITS]
    if odd:
        measured = f'split "{odd[0].split}"'
        return Finding(check=name, status=FAILED, measured=measured, allowed=allowed, place=odd[0].name)
    measured = f"{len(store.sequences):,} sequences, {frames:,} frames"
    return Finding(check=name, status=OK, measured=measured, allowed=allowed)


def _images_and_rates(store: Store) -> Finding:
    rates = [sequence.frame_rate for sequence in store.sequences]
    low, high = _RATES
    shown = " / ".join(f"{rate:g}" for rate in sorted(set(rates))[:5])
    row = {"check": "frame rate", "measured": f"{shown} Hz", "allowed": f"{low:g}-{high:g} Hz"}
    for sequence in store.sequences:
        if not (np.isfinite(sequence.frame_rate) and sequence.frame_rate > 0):
            return Finding(**row, status=FAILED, place=sequence.name)
        if min(sequence.width, sequence.height) < 1:
            size = f"image of {sequence.width} x {sequence.height} px"
            return Finding(check="image size", status=FAILED, measured=size, allowed="positive", place=sequence.name)
    odd = [sequence.name for sequence in store.sequences if not low <= sequence.frame_rate <= high]
    return Finding(**row, status=WARNING if odd else OK, place=odd[0] if odd else "")


def _finite(measures: list[Measures]) -> Finding:
    bad = [found for found in measures if found.not_finite]
    return Finding(
        check="finite values",
        status=FAILED if bad else OK,
        measured=f"{sum(found.not_finite for found in bad):,} NaN or infinite",
        allowed="none",
        place=bad[0].first_not_finite if bad else "",
    )


def _confidence(measures: list[Measures], skeleton: Skeleton) -> Finding:
    lowest, low_at = most(measures, lambda found: found.confidence[0])
    highest, high_at = most(measures, lambda found: found.confidence[1])
    wrong = -lowest.value < -1e-6 or highest.value > 1 + 1e-6
    worst = (highest, high_at) if highest.value > 1 + 1e-6 else (lowest, low_at)
    return Finding(
        check="confidence",
        status=FAILED if wrong else OK,
        measured=f"{-lowest.value:.3g} to {highest.value:.3g}",
        allowed="0 to 1",
        place=at(*worst, skeleton) if wrong else "",
    )


def _inside(measures: list[Measures], skeleton: Skeleton) -> Finding:
    """2D in the image: what lies mostly outside is in pixels, or of an image of another size."""
    shares = [found.inside / found.points if found.points else 1.0 for found in measures]
    share = sum(found.inside for found in measures) / max(sum(found.points for found in measures), 1)
    farthest, owner = most(measures, lambda found: found.outside)
    worst = int(np.argmin(shares))
    width = owner.sequence.width
    status = FAILED if share < 0.5 else WARNING if shares[worst] < 0.8 or farthest.value > width else OK
    place = f"{measures[worst].sequence.name}: {shares[worst]:.1%}"
    if shares[worst] >= 0.8:
        place = at(farthest, owner, skeleton) if farthest.value > 0 else ""
    if not any(found.points for found in measures):
        return Finding(check="2D in the image", status=FAILED, measured="no keypoint with a confidence above 0")
    return Finding(
        check="2D in the image",
        status=status,
        measured=f"{share:.1%} inside, farthest {max(farthest.value, 0):.0f} px outside",
        allowed=f"at least 80% of a sequence, at most {width} px",
        place=place,
    )


def _frozen(store: Store, measures: list[Measures]) -> list[Finding]:
    """Stretches in which nothing moves by a single bit: a cut recording, or repeated frames."""
    rows = []
    for column in ("poses", "keypoints") if store.poses_if_any is not None else ("keypoints",):
        spans = [found.frozen.get(column, (0, 0))[0] / found.sequence.frame_rate for found in measures]
        worst = int(np.argmax(spans))
        length, end = measures[worst].frozen.get(column, (0, 0))
        start = end - length
        rows.append(
            Finding(
                check=f"frozen {column}",
                status=WARNING if spans[worst] > _FROZEN_S else OK,
                measured=f"longest {spans[worst]:.2f} s, {sum(span > _FROZEN_S for span in spans)} sequences affected",
                allowed=f"{_FROZEN_S:g} s",
                place=f"{measures[worst].sequence.name}, frames {start}-{end}" if length else "",
            )
        )
    return rows


def _leakage(store: Store) -> Finding:
    train = {sequence.subject for sequence in store.sequences if sequence.split in ("train", "held_out")}
    both = sorted(train & {sequence.subject for sequence in store.sequences if sequence.split == "test"})
    return Finding(
        check="subjects of the split",
        status=FAILED if both else OK,
        measured=f"{len(both)} subjects both train and test",
        allowed="none",
        place=", ".join(both[:5]),
    )


def _twins(store: Store) -> Finding:
    by_hash: dict[str, list[Sequence]] = {}
    for sequence in store.sequences:
        by_hash.setdefault(sequence.sha256, []).append(sequence)
    twins = [group for group in by_hash.values() if len(group) > 1]
    across = [group for group in twins if len({sequence.split == "test" for sequence in group}) > 1]
    worst = (across or twins or [[]])[0]
    return Finding(
        check="identical sequences",
        status=FAILED if across else WARNING if twins else OK,
        measured=f"{sum(map(len, twins))} sequences have a twin" + (", in train and test" if across else ""),
        allowed="none",
        place=" = ".join(sequence.name for sequence in worst[:2]),
    )


def _counts(store: Store) -> list[Finding]:
    """Frames of the splits beside those that publications state for this data set, in all and by recording."""
    rows = []
    for known in json.loads(_COUNTS.read_text(encoding="utf-8")):
        if not store.source.startswith(known["source"]):
            continue
        only_valid = known.get("only_valid", False)
        counted = store.valid if only_valid else np.ones_like(store.valid)
        found = [
            (sequence, int(counted[sequence.offset : sequence.offset + sequence.frames].sum()))
            for sequence in store.sequences
            if sequence.split in known["splits"]
        ]
        frames = sum(count for _, count in found)
        by_recording = known.get("recordings", {})
        other = [
            f"{sequence.name} has {count:,}, not {by_recording[key]:,}"
            for sequence, count in found
            if count != by_recording.get(key := f"{sequence.subject}/{sequence.recording}", count)
        ]
        differs = frames != known["frames"] or bool(other)
        rows.append(
            Finding(
                check=f"published {'valid ' * only_valid}frames, {' + '.join(known['splits'])}",
                status=WARNING if differs else OK,
                measured=f"{frames:,}" + (": a part or a variant, not comparable with publications" * differs),
                allowed=f"{known['frames']:,}",
                place=other[0] if other else known["from"],
            )
        )
    return rows
