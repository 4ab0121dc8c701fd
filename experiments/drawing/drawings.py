"""A lifted clip -> film, picture or interactive page, by the ending of the file."""

import os
from pathlib import Path

import numpy as np

from posegrid.datasets.keypoints.pose_files import PoseClip
from posegrid.experiments.drawing.movies import drawn_frames, ffmpeg, write_gif, write_mp4
from posegrid.experiments.drawing.panels import Panels, strip
from posegrid.experiments.drawing.viewer import page

ENDINGS = (".mp4", ".gif", ".html", ".png")


def check_drawing(file: Path) -> None:
    """Raises ValueError if a file of this name cannot be drawn here: before anything is lifted for it."""
    if file.suffix.lower() not in ENDINGS:
        raise ValueError(
            f"drawing {file} has the ending {file.suffix or '(none)'}. Allowed are {', '.join(ENDINGS)}: name it so."
        )
    if file.suffix.lower() == ".mp4":
        ffmpeg()


def write_drawing(clip: PoseClip, file: Path) -> int:
    """Draw a clip; `file` appears whole or not at all. Returns how many frames are drawn.

    Raises ValueError as `check_drawing` does, or if the file cannot be written.
    """
    check_drawing(file)
    ending = file.suffix.lower()
    frames, per_second = drawn_frames(len(clip.rows), clip.frame_rate)
    aside = file.with_name(f".{file.stem}.partial-{os.getpid()}{ending}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if ending == ".png":
            figure = strip(clip)
            figure.savefig(aside)
            frames = np.arange(len(figure.axes) // 3)
        elif ending == ".html":
            aside.write_text(page(clip, frames, per_second), encoding="utf-8")
        elif ending == ".gif":
            write_gif(Panels(clip), frames, per_second, aside)
        else:
            write_mp4(Panels(clip), frames, per_second, aside)
        os.replace(aside, file)
    except OSError as error:
        raise ValueError(
            f"{file} cannot be written ({error}). Allowed is a file in a folder with room: name another one."
        ) from None
    finally:
        if aside.is_file():
            aside.unlink()
    return len(frames)
