"""Where the images of a sequence are: what `CameraSequence.images` and the store's column `images` say.

Two kinds. Files: `{"kind": "files", "template": "S1/Walking.54138969/{frame:06d}.jpg", "first": 1, "step": 1}`, paths
relative to a folder that the user names when images are read (a store may travel, the images stay). Rendered:
`{"kind": "rendered"}`, or nothing at all: the images are made from poses and camera (`rendering`).
"""

import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

_NUMBER = re.compile(r"\{frame(?::0([0-9]{1,2})d)?\}")
_FIELD = re.compile(r"\{([^{}]*)\}")
_FIELDS = ("subject", "recording", "take", "camera")
RENDERED = {"kind": "rendered"}
"""What says that a sequence's images are made, not read."""


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """A folder of frames. Raises ValueError if the template could lead out of the user's folder or names no frame."""

    template: str
    """Path of an image relative to the user's folder, "/" between folders; `{frame}` or `{frame:06d}` is its number."""
    first: int = 0
    """Number of the image that shows frame 0 of the sequence."""
    step: int = 1
    """By how much the number grows from one frame of the sequence to the next."""

    def __post_init__(self) -> None:
        where = f'image template "{self.template}"'
        if not isinstance(self.template, str) or not _NUMBER.search(self.template):
            raise ValueError(
                f"{where} does not say where the number of the frame goes. Write {{frame}}, or {{frame:06d}} for six "
                "digits, such as S1/Walking.54138969/{frame:06d}.jpg."
            )
        if re.search(r"[{}\0\\]", _NUMBER.sub("", self.template)):
            raise ValueError(
                f"{where} holds a brace, backslash or zero byte that is not part of {{frame}} or {{frame:06d}}. Only "
                "the frame's number may be filled in. Correct the template."
            )
        path = PurePosixPath(self.template)
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", self.template):
            raise ValueError(
                f"{where} is absolute or leads upwards; it must be relative to the folder that is given when images "
                "are read, without '..'. Shorten it."
            )
        for name, lowest in (("first", 0), ("step", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise ValueError(f"{where}: {name} = {value!r}, expected a whole number of at least {lowest}.")

    def path(self, frame: int) -> str:
        """Relative path of the image of a frame of the sequence (counted from 0)."""
        number = str(self.first + self.step * int(frame))
        return _NUMBER.sub(lambda found: number.zfill(int(found.group(1) or 0)), self.template)

    def part(self, start: int) -> "ImageFiles":
        """The files of a piece of the sequence that begins at its frame `start`."""
        return ImageFiles(template=self.template, first=self.first + self.step * start, step=self.step)

    def to_plain(self) -> dict[str, Any]:
        """What goes into `CameraSequence.images`."""
        return {"kind": "files", "template": self.template, "first": self.first, "step": self.step}


def fill_template(template: str, *, subject: str, recording: str, camera: str, first: int = 0) -> ImageFiles:
    """Fill the names of a sequence into a user's template, for sources whose sheet gives no layout.

    Known: {subject}, {recording}, {take} (the recording with underscores for spaces), {camera}, and {frame} or
    {frame:06d}, which stays. `first` is the number of the first image. Raises ValueError for any other field.
    """
    names = {"subject": subject, "recording": recording, "take": recording.replace(" ", "_"), "camera": camera}
    for field in _FIELD.findall(template):
        if field not in names and not _NUMBER.fullmatch("{" + field + "}"):
            raise ValueError(
                f'image template "{template}" (option images of the data source) holds {{{field}}}. Known: '
                f"{', '.join('{' + name + '}' for name in _FIELDS)}, {{frame}}, {{frame:06d}}. Correct it."
            )
    filled = _FIELD.sub(lambda found: names.get(found.group(1), found.group(0)), template)
    return ImageFiles(template=filled, first=first)


def place_of(text: str, sequence: str) -> ImageFiles | None:
    """Parse the store's column `images`; None: rendered, as is a sequence that says nothing.

    Raises ValueError naming the sequence if the text is not one of the two kinds.
    """
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError):
        plain = text
    if plain in ({}, RENDERED):
        return None
    if isinstance(plain, dict) and plain.get("kind") == "files" and set(plain) == {"kind", "template", "first", "step"}:
        try:
            return ImageFiles(template=plain["template"], first=plain["first"], step=plain["step"])
        except ValueError as error:
            raise ValueError(f"sequence {sequence}: {error} Prepare the data set again.") from None
    raise ValueError(
        f"sequence {sequence}: its images are {str(text)[:200]!r} (column images of the store), which says neither "
        'kind "files" with template, first and step, nor kind "rendered". Prepare the data set again.'
    )
