"""The verbs of the command line for keypoints of one's own: lift them, animate what came out; `cli` registers them."""

import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posegrid.experiments.answers import Answer, answering, say
from posegrid.experiments.command_options import Home, Json, TrackingUri, tracking_address

if TYPE_CHECKING:
    # commands import what they need when they run: `posegrid --help` answers at once
    from posegrid.orchestration.lifting_jobs import LiftJob, LiftOutcome
    from posegrid.orchestration.own_keypoints import Lifted

Seconds = Annotated[float, typer.Option("--seconds", help="With an animation: how much of it; 0 draws all.")]
Start = Annotated[float, typer.Option("--start", help="With an animation: seconds of the clip before it begins.")]
Video = Annotated[str | None, typer.Option("--video", help="Video to draw; default: the first.")]
Person = Annotated[str | None, typer.Option("--person", help="Person to draw; default: the first of the video.")]
ANIMATION = "Drawing to write: .mp4, .gif, .html (interactive) or .png (a strip)."


def lift(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="FILE_OR_FOLDER...", help="Keypoint files, folders of them, or prepared stores."),
    ],
    model: Annotated[
        str,
        typer.Option("--model", help="Model file (model.pt), run id, run name, recipe, or models:/NAME@ALIAS."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="poses.parquet for all inputs, or a folder: one file for each of them.")
    ],
    animate: Annotated[Path | None, typer.Option("--animate", help=ANIMATION)] = None,
    hypotheses: Annotated[
        int | None, typer.Option("--hypotheses", help="Poses sampled for each window; default: the recipe's number.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep-hypotheses", help="Write all hypotheses, not only their mean and spread.")
    ] = False,
    width: Annotated[int | None, typer.Option("--width", help="Image width in pixels, if files do not say it.")] = None,
    height: Annotated[
        int | None, typer.Option("--height", help="Image height in pixels, if files do not say it.")
    ] = None,
    frame_rate: Annotated[
        float | None, typer.Option("--frame-rate", help="Frames per second, if files do not say it.")
    ] = None,
    joints: Annotated[str, typer.Option("--joints", help="Skeleton of the files by name.")] = "auto",
    format_: Annotated[
        str, typer.Option("--format", help="coco, alphapose, mmpose, openpose, videopose3d, table; auto finds out.")
    ] = "auto",
    option: Annotated[
        list[str] | None, typer.Option("--option", help="As for `posegrid prepare keypoints`: joints=coco_17.")
    ] = None,
    least_confidence: Annotated[
        float, typer.Option("--least-confidence", help="Keypoints of a lower confidence are hidden.")
    ] = 0.0,
    longest_gap: Annotated[
        int,
        typer.Option("--longest-gap", help="Frames of a joint's gap that is interpolated; longer ones stay hidden."),
    ] = 0,
    resample: Annotated[
        bool, typer.Option("--resample", help="Bring keypoints to the model's frame rate, and poses back.")
    ] = False,
    model_rate: Annotated[
        float | None, typer.Option("--model-rate", help="Frames per second of the training, if the model says none.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Another protocol (repeatable): evaluation.score=overlap")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", help="Windows lifted at once; default: what memory allows.")] = 0,
    device: Annotated[
        str, typer.Option("--device", help="Where the network runs: cpu, or a GPU such as cuda:0.")
    ] = "cpu",
    workers: Annotated[
        int, typer.Option("--workers", help="With a folder as --out: files lifted at once, as Ray tasks; 0: no Ray.")
    ] = 0,
    address: Annotated[
        str | None, typer.Option("--address", help="With --workers: Ray cluster to join; default: this machine.")
    ] = None,
    video: Video = None,
    person: Person = None,
    start: Start = 0.0,
    seconds: Seconds = 10.0,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    json_: Json = False,
) -> None:
    """Lift 2D keypoints of your own to 3D poses, in mm along the camera's axes, relative to the root joint.

    Read are COCO, AlphaPose, MMPose and OpenPose JSON, VideoPose3D npz and tables, with gaps, missing joints and
    several people. LIFTING.md has examples; `posegrid check keypoints FILE` says what a file holds.
    """
    from posegrid.orchestration.clip_sources import clip_sources
    from posegrid.orchestration.lifting_jobs import jobs_for
    from posegrid.orchestration.own_keypoints import reading_and_choices
    from posegrid.orchestration.recipe_files import parse_overrides

    one_file = out.suffix == ".parquet"
    if animate is not None:
        _check_animation(animate, one_file)
    if workers and one_file:
        raise ValueError(
            f"--workers {workers} was given with --out {out}, one file, which one process writes. Allowed is a folder "
            "as --out, with a file for each input: name one, or leave --workers out."
        )
    if workers < 0 or (address and not workers):
        raise ValueError(f"--workers {workers} with --address {address}: allowed are 1 or more workers. Set --workers.")
    options: dict[str, Any] = {"width": width, "height": height, "frame_rate": frame_rate, "joints": joints}
    options |= {"format": format_, "least_confidence": least_confidence, "longest_gap": longest_gap}
    options |= {"hypotheses": hypotheses, "resample": resample, "model_rate": model_rate, "device": device}
    # an animation shows the hypotheses as a cloud
    options |= {"keep_hypotheses": keep or animate is not None, "changes": tuple(set_ or []), "batch": batch}
    reading, choices = reading_and_choices(options | parse_overrides(option or []))
    address_of_runs = tracking_address(home, tracking)
    sources = clip_sources(inputs, reading.format)
    with answering(json_) as answer:
        if not one_file:
            jobs = jobs_for(model, address_of_runs, sources, out, reading, choices)
            answer.give(_lift_folder(jobs, workers, address, answer))
            return
        from posegrid.orchestration.found_models import find_model
        from posegrid.orchestration.own_keypoints import lift_sources
        from posegrid.orchestration.tracking import Tracking

        found = find_model(model, lambda: Tracking.existing(address_of_runs))
        lifted = lift_sources(found, sources, out, reading, choices, progress=_LiftingLines())
        _tell(lifted, answer)
        drawn = {} if animate is None else {"drawing": draw(out, animate, video, person, start, seconds, answer)}
        answer.give(_plain(lifted) | drawn)


def animate(
    poses: Annotated[Path, typer.Argument(help="File that `posegrid lift` wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help=ANIMATION)],
    video: Video = None,
    person: Person = None,
    start: Start = 0.0,
    seconds: Seconds = 10.0,
    json_: Json = False,
) -> None:
    """Draw lifted poses: 2D input, pose from two sides, hidden joints, hypotheses and truth where there are any."""
    _check_animation(out, True)
    with answering(json_) as answer:
        answer.give(draw(poses, out, video, person, start, seconds, answer))


def draw(
    poses: Path, out: Path, video: str | None, person: str | None, start: float, seconds: float, answer: Answer
) -> dict[str, Any]:
    """Write a drawing of a pose file, show what is in it and return it as plain data. Raises ValueError as `read_poses`
    and `write_drawing` do."""
    from posegrid.datasets.keypoints.pose_files import read_about, read_poses
    from posegrid.experiments.drawing.drawings import write_drawing

    if start < 0 or seconds < 0:
        raise ValueError(f"--start {start:g} and --seconds {seconds:g}: allowed are 0 or more seconds. Correct them.")
    clips = [one for one in read_about(poses)["clips"] if video in (None, one["video"])]
    rate, begin = (clips[0]["frame_rate"], clips[0]["first"]) if clips else (1.0, 0)
    first = begin + round(start * rate)
    clip = read_poses(poses, video, person, first, max(round(seconds * rate), 1) if seconds else None)
    frames = write_drawing(clip, out)
    numbers = clip.rows.frame
    answer.show(f"{out}: {clip.video}, person {clip.person}, frames {numbers[0]} to {numbers[-1]}, {frames} drawn")
    whose = {"file": out, "video": clip.video, "person": clip.person}
    return whose | {"first_frame": numbers[0], "last_frame": numbers[-1], "frames_drawn": frames}


def _check_animation(file: Path, one_file: bool) -> None:
    from posegrid.experiments.drawing.drawings import check_drawing

    if not one_file:
        raise ValueError(
            f"--animate {file} was given with a folder as --out. Allowed is one pose file: end --out with .parquet, or "
            "draw files of the folder by `posegrid animate`."
        )
    check_drawing(file)


class _LiftingLines:
    """A line every ten seconds."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()
        self._clip = ""

    def __call__(self, clip: str, done: int, total: int) -> None:
        now = time.monotonic()
        if clip != self._clip:
            self._clip, self._began = clip, now
        if now - self._said < 10 or done == total:
            return
        self._said = now
        left = (now - self._began) * (total - done) / done
        say(f"  {clip}: {done:,}/{total:,} frames, about {left:.0f} s left")


def _plain(lifted: "Lifted") -> dict[str, Any]:
    return {field.name: getattr(lifted, field.name) for field in fields(lifted)}


def _lift_folder(jobs: "list[LiftJob]", workers: int, address: str | None, answer: Answer) -> dict[str, Any]:
    from posegrid.datasets.executors import in_turn
    from posegrid.orchestration.lifting_jobs import run_job

    if workers:
        from posegrid.orchestration.launch.ray_lift import run_on_ray

        outcomes = run_on_ray(jobs, workers, address)
    else:
        outcomes = in_turn(run_job, jobs)
    began, frames, failed = time.monotonic(), 0, []
    files: dict[int, dict[str, Any]] = {}
    for number, (index, outcome) in enumerate(outcomes, start=1):
        say(f"[{number}/{len(jobs)}] {jobs[index].source.place}: {_outcome(jobs[index], outcome)}")
        frames += 0 if outcome.lifted is None else outcome.lifted.frames
        failed += [jobs[index].source.place] if outcome.error else []
        made = {"file": jobs[index].out} if outcome.lifted is None else _plain(outcome.lifted)
        files[index] = {"source": jobs[index].source.place, "was_there": outcome.lifted is None, **made}
    took = time.monotonic() - began
    answer.show(f"{len(jobs) - len(failed)} of {len(jobs)} files lifted, {frames:,} poses in {took:.1f} s")
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(jobs)} files could not be lifted (see above): {', '.join(failed[:3])}"
            f"{', ...' if len(failed) > 3 else ''}. Correct them and repeat the command: what is done is kept."
        )
    return {"files": [files[index] for index in sorted(files)], "frames": frames, "seconds": took}


def _outcome(job: "LiftJob", outcome: "LiftOutcome") -> str:
    if outcome.error:
        return f"error: {outcome.error}"
    if outcome.lifted is None:
        return f"{job.out} is there for the same model and options"
    lines = [f"{job.out}, {len(outcome.lifted.clips)} clips, {outcome.lifted.frames:,} poses"]
    return "\n".join([*lines, *(f"  note: {note}" for note in outcome.lifted.notes)])


def _tell(lifted: "Lifted", answer: Answer) -> None:
    from posegrid.orchestration.own_keypoints import LiftedClip

    def row(clip: LiftedClip) -> str:
        spread = "-" if clip.deviation_mm is None else f"{clip.deviation_mm:.1f}"
        error = "" if clip.mpjpe_mm is None else f"{clip.mpjpe_mm:>11.1f}"
        numbers = f"{clip.first:>8}{clip.frames:>9,}{clip.frame_rate:>8g}{clip.hidden:>9.1%}{spread:>11}{error}"
        return f"{clip.video[:32]:<32} {clip.person[:12]:<12}{numbers}"

    truth = any(clip.mpjpe_mm is not None for clip in lifted.clips)
    head = (
        f"{'first':>8}{'frames':>9}{'Hz':>8}{'hidden':>9}{'spread mm':>11}{'MPJPE mm' if truth else '':>{11 * truth}}"
    )
    answer.show(f"{'video':<32} {'person':<12}{head}")
    for clip in lifted.clips[:40]:
        answer.show(row(clip))
    if len(lifted.clips) > 40:
        answer.show(f"... and {len(lifted.clips) - 40} more")
    for note in lifted.notes:
        answer.show(f"note: {note}")
    speed = lifted.frames / max(lifted.seconds, 1e-9)
    answer.show(
        f"{lifted.file}: {lifted.frames:,} poses in {lifted.seconds:.1f} s ({speed:,.0f} per second, "
        f"{lifted.network_s / max(lifted.seconds, 1e-9):.0%} of the time in the network)"
    )


def export_keypoints(
    store: Annotated[str, typer.Argument(help="Folder or address of a store.")],
    out: Annotated[Path, typer.Argument(help="Table to write: .csv or .parquet; its description lies beside it.")],
    sequence: Annotated[
        str | None, typer.Option("--sequence", help="subject/recording/camera; default: the first test sequence.")
    ] = None,
    start: Annotated[float, typer.Option("--start", help="Seconds of the sequence before the first frame.")] = 0.0,
    seconds: Annotated[float, typer.Option("--seconds", help="Length of the piece.")] = 4.0,
    every: Annotated[int, typer.Option("--every", help="Write every n-th frame.")] = 1,
    hide: Annotated[
        list[str] | None, typer.Option("--hide", help="Hide a joint (repeatable): RWrist:1.0:1.8, in seconds.")
    ] = None,
    json_: Json = False,
) -> None:
    """Write a piece of a store as a keypoint table, as a detector would: something to try `posegrid lift` on."""
    from posegrid.datasets.keypoints.export_table import Hidden, export_table
    from posegrid.datasets.store import open_store

    hidden = tuple(Hidden.of(text) for text in hide or [])
    with answering(json_) as answer:
        written, frames = export_table(
            open_store(store), out, sequence, start=start, seconds=seconds, every=every, hide=hidden
        )
        answer.show(f"{out}: {written.name}, {frames} frames")
        answer.give({"file": out, "sequence": written.name, "frames": frames})
