"""Lifts keypoints of one's own: any file that the data room reads, any length, no truth.

    from posegrid.orchestration.own_keypoints import lift
    lift("model.pt", "walk.json", "poses.parquet", width=1920, height=1080, frame_rate=30.0)

`datasets.keypoints.pose_files` says what is written and reads it back. Memory: a keypoint file is read at once (a store
in place), what is lifted is written piece by piece. Legend: n frames of a piece, H hypotheses, J joints.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posegrid.datasets.cameras import screen_to_pixels
from posegrid.datasets.keypoints.clips import Clip, Reading
from posegrid.datasets.keypoints.pose_files import PoseRows, pose_writer
from posegrid.datasets.skeletons import skeleton_named
from posegrid.models.aggregation import aggregate
from posegrid.orchestration.clip_sources import ClipSource, clip_sources
from posegrid.orchestration.found_models import FoundModel, find_model
from posegrid.orchestration.frame_stream import Between, Clock, Piece, lifted_pieces
from posegrid.orchestration.lifting_choices import Choices, lifting_settings, rate_for
from posegrid.orchestration.protocol import scoring_protocol
from posegrid.orchestration.settings import Settings, fingerprint
from posegrid.orchestration.tracking import Tracking, sqlite_uri

Progress = Callable[[str, int, int], None]
"""Called with the name of a clip, its frames that are lifted, and all of them."""


@dataclass(frozen=True, kw_only=True)
class LiftedClip:
    """What became of one person in one video."""

    source: str
    """Name of the file or store."""
    video: str
    person: str
    first: int
    """Number of the first frame."""
    frames: int
    frame_rate: float
    """Frames per second of the video."""
    lifted_at: float
    """Frames per second at which it was lifted."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    hidden: float
    """Share of joints that the model did not see."""
    unseen: int
    """Frames in which it saw none: their poses are guesses from other frames."""
    deviation_mm: float | None
    """Mean spread of the hypotheses, with several of them."""
    mpjpe_mm: float | None
    """Mean error over the joints of which the file has 3D."""


@dataclass(kw_only=True)
class Lifted:
    """What a call of `lift` wrote."""

    file: Path
    clips: list[LiftedClip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a user should know about these poses."""
    seconds: float = 0.0
    """Wall time, reading and writing included."""
    network_s: float = 0.0
    """Of it in the network."""

    @property
    def frames(self) -> int:
        """Poses written."""
        return sum(clip.frames for clip in self.clips)


def lift(
    model: str,
    inputs: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    tracking: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Lifted:
    """Lift keypoint files, folders of them or stores into one pose file.

    model: path of a model file (model.pt), run id, run name, recipe with one trained run, or models:/NAME@ALIAS of the
    tracking store at address `tracking` (runs/mlflow.db by default). options: fields of `Reading` and `Choices`. `out`
    appears whole or not at all. Raises ValueError for an unknown option, and if anything cannot be found, read, lifted
    or written.
    """
    reading, choices = reading_and_choices(options)
    given = [inputs] if isinstance(inputs, Path | str) else list(inputs)
    sources = clip_sources(given, reading.format)
    found = find_model(model, lambda: Tracking.existing(tracking or sqlite_uri(Path("runs/mlflow.db"))))
    return lift_sources(found, sources, Path(out), reading, choices, progress=progress)


def reading_and_choices(options: dict[str, Any]) -> tuple[Reading, Choices]:
    """Options of lifting, sorted into the two. Raises ValueError for one that neither has."""
    reads, chooses = ({each.name for each in fields(kind)} for kind in (Reading, Choices))
    for name in options:
        if name not in reads | chooses:
            raise ValueError(
                f"option {name} = {options[name]!r} of lifting is unknown. Known: "
                f"{', '.join(sorted(reads | chooses))}. Correct its name, or leave it out."
            )
    return (
        Reading(**{name: value for name, value in options.items() if name in reads}),
        Choices(**{name: value for name, value in options.items() if name in chooses}),
    )


def request_key(found: FoundModel, sources: Sequence[ClipSource], reading: Reading, choices: Choices) -> str:
    """Identity of what would be written: model, inputs, options."""
    asked = asdict(choices) | {"device": ""}  # the same poses anywhere
    return fingerprint([found.digest, [source.stamp() for source in sources], asdict(reading), asked])


def lift_sources(
    found: FoundModel,
    sources: Sequence[ClipSource],
    out: Path,
    reading: Reading,
    choices: Choices,
    *,
    progress: Progress | None = None,
) -> Lifted:
    """Lift sources one after another into one pose file. Raises ValueError as `lift` does."""
    began, clock, result = time.perf_counter(), Clock(), Lifted(file=out)
    settings, notes = lifting_settings(found, choices)
    found.model.to(torch.device(choices.device))
    with pose_writer(out, skeleton_named(found.skeleton)) as writer:
        for source in sources:
            for clip in source.clips(found.skeleton, reading):
                rate, said = rate_for(found, settings, clip, choices)
                notes += said
                sums = _Sums()
                for rows in lifted_rows(found, settings, clip, rate, choices, clock):
                    writer.add(clip.video, clip.person, rows)
                    sums.add(rows)
                    if progress is not None:
                        progress(clip.name, sums.frames, len(clip))
                result.clips.append(sums.of(clip, rate))
        if not result.clips:
            raise ValueError(
                f"nobody is seen in {', '.join(source.place for source in sources[:3])}: no keypoint has a confidence "
                f"of {reading.least_confidence:g} or more. Lower --least-confidence, or look at the detections with "
                "`posegrid check keypoints`."
            )
        result.notes = [*dict.fromkeys(notes), *_about_hidden(found, result.clips)]
        writer.about = {
            "model": {"recipe": found.settings.name, "run": found.run, "sha256": found.digest}
            | {"name": settings.model["name"], "trained_at_hz": found.frame_rate},
            "protocol": scoring_protocol(settings),
            "hypotheses": settings.evaluation.hypotheses if found.model.chain is not None else 1,
            "aggregation": settings.evaluation.aggregation,
            "reading": asdict(reading),
            "clips": [asdict(clip) for clip in result.clips],
            "notes": result.notes,
            "request": request_key(found, sources, reading, choices),
        }
    result.seconds, result.network_s = time.perf_counter() - began, clock.network_s
    return result


def lifted_rows(
    found: FoundModel, settings: Settings, clip: Clip, rate: float, choices: Choices, clock: Clock | None = None
) -> Iterator[PoseRows]:
    """All frames of a clip in order, lifted at `rate` frames per second."""
    store = clip.at_rate(rate).as_store()
    pieces = lifted_pieces(found.model, settings, store, torch.device(choices.device), choices.batch, clock)
    if rate != clip.frame_rate:
        pieces = _at_own_frames(pieces, Between(rate / clip.frame_rate, int(store.lengths[0]), len(clip)))
    first = 0
    for piece in pieces:
        yield _rows(clip, first, piece, settings.evaluation.aggregation, choices.keep_hypotheses)
        first += len(piece)


def _at_own_frames(pieces: Iterator[Piece], between: Between) -> Iterator[Piece]:
    for piece in pieces:
        several = piece.deviation is not None
        found = between.feed([piece.hypotheses, piece.deviation] if several else [piece.hypotheses])  # type: ignore[list-item]
        if len(found[0]):
            deviation = found[1].astype(np.float32) if several else None
            yield Piece(hypotheses=found[0].astype(np.float32), deviation=deviation)


def _rows(clip: Clip, first: int, piece: Piece, aggregation: str, keep: bool) -> PoseRows:
    part = slice(first, first + len(piece))
    pixels = screen_to_pixels(clip.keypoints[part], clip.width, clip.height)
    several = piece.hypotheses.shape[1] > 1
    poses = piece.hypotheses[:, 0].astype(np.float64)
    if several:
        poses = aggregate(aggregation, torch.from_numpy(piece.hypotheses).double()[:, :, None])[:, 0].numpy()
    number, truth = np.arange(first, first + len(piece)), None
    if clip.poses is not None:
        truth = 1000 * (clip.poses[part] - clip.poses[part, clip.skeleton.root, None])
    return PoseRows(
        frame=clip.first + number,
        time_s=(clip.first + number) / clip.frame_rate,
        keypoints_px=np.where(clip.visible[part, :, None], pixels, np.nan).astype(np.float32),
        poses_mm=(1000 * poses).astype(np.float32),
        deviation_mm=None if piece.deviation is None else 1000 * piece.deviation,
        truth_mm=truth,
        hypotheses_mm=1000 * piece.hypotheses if keep and several else None,
    )


@dataclass(kw_only=True)
class _Sums:
    """Over the rows of a clip."""

    frames: int = 0
    hidden: int = 0
    unseen: int = 0
    deviation_mm: float | None = None
    error_mm: float = 0.0
    known: int = 0

    def add(self, rows: PoseRows) -> None:
        self.frames += len(rows)
        self.hidden += int((~rows.visible).sum())
        self.unseen += int((~rows.visible.any(axis=1)).sum())
        if rows.deviation_mm is not None:
            self.deviation_mm = (self.deviation_mm or 0.0) + float(rows.deviation_mm.sum(dtype=np.float64))
        if rows.truth_mm is not None:
            errors = np.linalg.norm(rows.poses_mm - rows.truth_mm, axis=-1)
            self.error_mm += float(np.nansum(errors, dtype=np.float64))
            self.known += int(np.isfinite(errors).sum())

    def of(self, clip: Clip, rate: float) -> LiftedClip:
        joints = self.frames * len(clip.skeleton)
        return LiftedClip(
            source=Path(clip.source).name,
            video=clip.video,
            person=clip.person,
            first=clip.first,
            frames=self.frames,
            frame_rate=clip.frame_rate,
            lifted_at=rate,
            width=clip.width,
            height=clip.height,
            hidden=self.hidden / joints,
            unseen=self.unseen,
            deviation_mm=None if self.deviation_mm is None else self.deviation_mm / joints,
            mpjpe_mm=self.error_mm / self.known if self.known else None,
        )


def _about_hidden(found: FoundModel, clips: list[LiftedClip]) -> list[str]:
    joints = sum(clip.frames for clip in clips)
    hidden = sum(clip.hidden * clip.frames for clip in clips) / joints
    unseen = sum(clip.unseen for clip in clips)
    notes = []
    if hidden and found.settings.occlusion["pattern"] == "none":
        notes.append(
            f"{hidden:.1%} of the joints are hidden, and the model was trained without occlusion: it takes hidden "
            "joints for joints at the image centre. Fill short gaps (--longest-gap), or use a model trained under "
            "occlusion"
        )
    if unseen:
        notes.append(f"{unseen} frames show no joint: their poses are guesses (visible_joints = 0)")
    return notes
