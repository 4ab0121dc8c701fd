"""Reads crops from image files on disk (JPEG and PNG, through Pillow).

A file is refused before its pixels are unpacked if it is not as large as the data set says, so that no file can fill
the memory. JPEG has no check sums: a flipped bit inside the picture shows, but cannot be noticed.
"""

import struct
import zlib
from math import ceil, floor
from pathlib import Path

import numpy as np
from PIL import Image

_LEAST = 0.1
"""How much smaller than the data set says a copy of an image may be."""
_FORMATS = ("JPEG", "PNG")
_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK")
"""Kinds of pixels that convert to 8-bit colour without loss of meaning."""
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What decoders raise on files that are not what they seem."""


def open_image(file: Path, what: str) -> Image.Image:
    """Open an image and read its header. `what` says in the message whose image it is.

    Raises ValueError if it is missing, neither JPEG nor PNG, or of a kind that is no 8-bit picture.
    """
    try:
        image = Image.open(file, formats=_FORMATS)
        if image.format == "PNG":
            # Pillow does not compare the checksums of the picture itself unless it is asked
            with image:
                image.verify()
            image = Image.open(file, formats=_FORMATS)
    except FileNotFoundError:
        raise ValueError(
            f"{what}: the image {file} is missing. Name the folder that holds the frames, or prepare the data set with "
            "the template (option images) that fits them."
        ) from None
    except _DAMAGE as error:
        raise ValueError(
            f"{what}: the image {file} cannot be read ({_text(error)}); expected JPEG or PNG. Extract it again."
        ) from None
    if image.mode not in _MODES:
        mode = image.mode
        image.close()
        raise ValueError(
            f"{what}: the image {file} has pixels of mode {mode}; allowed: {', '.join(_MODES)}. Convert it to RGB."
        )
    return image


def read_crop(file: Path, box: np.ndarray, size: tuple[int, int], image_size: tuple[int, int], what: str) -> np.ndarray:
    """(height, width, 3) uint8: the part `box` of an image, scaled to `size` = (width, height).

    box: left, top, right, bottom in pixels of an image of `image_size` = (width, height), which is what the store says.
    The file may be a smaller copy of that image with the same shape; the box is scaled along. Bilinear with a footprint
    that grows when the crop shrinks the image (no aliasing); what lies outside the image is black. EXIF rotation is
    ignored: keypoints belong to the stored pixels.
    Raises ValueError naming `what` if the file is missing, damaged, or has another shape than the store says.
    """
    with open_image(file, what) as image:
        check_size(file, image.size, image_size, what)
        try:
            shrink = image.size[0] / image_size[0]
            wanted = (size[0] / (box[2] - box[0]) / shrink, size[1] / (box[3] - box[1]) / shrink)
            if image.format == "JPEG" and max(wanted) <= 0.5:
                whole = image.size[0]
                # lets the decoder leave out detail that the crop cannot show
                image.draft("RGB", (ceil(whole * wanted[0]), ceil(image.size[1] * wanted[1])))
                shrink /= round(whole / image.size[0])
            return _cut(image.convert("RGB"), np.asarray(box, dtype=np.float64) * shrink, size)
        except _DAMAGE as error:
            raise ValueError(
                f"{what}: the image {file} is damaged ({_text(error)}). Extract it again from the video or archive."
            ) from None


def check_size(file: Path, found: tuple[int, int], expected: tuple[int, int], what: str) -> None:
    """Raises ValueError if an image is neither of the expected (width, height) nor a smaller copy of that shape."""
    shrunk = found[0] / expected[0]
    if not _LEAST <= shrunk <= 1 or found[1] > expected[1] or abs(found[1] - expected[1] * shrunk) > 1:
        raise ValueError(
            f"{what}: the image {file} has {found[0]} x {found[1]} px, the data set says {expected[0]} x {expected[1]} "
            "(a copy of the same shape may be smaller, down to a tenth). Extract the frames again, whole and upright."
        )


def read_square(file: Path, size: int, largest_pixels: int = 64_000_000) -> np.ndarray:
    """(size, size, 3) uint8: the central square of an image. Raises ValueError if it cannot be read or is too large."""
    what = "texture"
    with open_image(file, what) as image:
        if image.size[0] * image.size[1] > largest_pixels:
            raise ValueError(
                f"{what}: {file} has {image.size[0]} x {image.size[1]} px, at most {largest_pixels} allowed. Shrink it."
            )
        side = min(image.size)
        left, top = (image.size[0] - side) // 2, (image.size[1] - side) // 2
        try:
            square = image.convert("RGB").crop((left, top, left + side, top + side))
            square = square.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(square)
        except _DAMAGE as error:
            raise ValueError(f"{what}: {file} is damaged ({_text(error)}). Replace or remove it.") from None


def _cut(image: Image.Image, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    # Pillow resizes boxes inside an image only: cut whole pixels first, black where there are none, with a margin as
    # wide as the filter
    margin = ceil(max((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1], 1.0)) + 1
    left, top = floor(box[0]) - margin, floor(box[1]) - margin
    cut = image.crop((left, top, ceil(box[2]) + margin, ceil(box[3]) + margin))
    inner = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return np.asarray(cut.resize(size, Image.Resampling.BILINEAR, box=inner))


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]
