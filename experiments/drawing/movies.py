"""Frames of a figure -> GIF or MP4, one at a time: memory grows with neither length nor size of the clip."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.animation import FFMpegWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from posegrid.experiments.drawing.panels import Panels

SMOOTH = 30
"""Frames per second that a film has at most: of faster clips every n-th frame is drawn, at the clip's own speed."""
_COLOURS = 64


def drawn_frames(count: int, frame_rate: float) -> tuple[np.ndarray, float]:
    """Which of `count` frames are drawn, and how many of them a second shows."""
    step = max(int(np.ceil(frame_rate / SMOOTH - 1e-9)), 1)
    return np.arange(0, count, step), frame_rate / step


def ffmpeg() -> str:
    """Path of ffmpeg: the system's, or that of the package imageio-ffmpeg. Raises ValueError if there is neither."""
    found = shutil.which("ffmpeg")
    if found is None:
        try:
            from imageio_ffmpeg import get_ffmpeg_exe

            found = get_ffmpeg_exe()
        except (ImportError, RuntimeError):
            raise ValueError(
                "an .mp4 was asked for, but neither ffmpeg nor the Python package imageio-ffmpeg is installed. Allowed "
                "without them are .gif, .html and .png: name one of these, or `pip install imageio-ffmpeg`."
            ) from None
    return found


def write_mp4(panels: Panels, frames: np.ndarray, per_second: float, file: Path) -> None:
    """H.264, which browsers and slides play."""
    with rc_context({"animation.ffmpeg_path": ffmpeg()}):
        writer = FFMpegWriter(
            fps=per_second,  # type: ignore[arg-type]  # 29.97 is one, too
            codec="libx264",
            extra_args=["-pix_fmt", "yuv420p", "-crf", "20"],
        )
        FigureCanvasAgg(panels.figure)
        with writer.saving(panels.figure, str(file), panels.figure.dpi):
            for index in frames:
                panels.show(int(index))
                writer.grab_frame()


def write_gif(panels: Panels, frames: np.ndarray, per_second: float, file: Path) -> None:
    """Loops for ever. One palette, that of the first frame, so that colours do not flicker."""
    images = _images(panels, frames)
    first = next(images).quantize(_COLOURS, method=Image.Quantize.MEDIANCUT)
    rest = (image.quantize(palette=first, dither=Image.Dither.NONE) for image in images)
    # GIF counts hundredths of a second
    duration = 10 * max(round(100 / per_second), 2)
    first.save(file, format="GIF", save_all=True, append_images=rest, duration=duration, loop=0, disposal=1)


def _images(panels: Panels, frames: np.ndarray) -> Iterator[Image.Image]:
    canvas = FigureCanvasAgg(panels.figure)
    for index in frames:
        panels.show(int(index))
        canvas.draw()
        yield Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
