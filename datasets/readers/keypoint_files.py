"""Finds keypoint files, tells their formats apart and reads them; `sources.keypoints` and `keypoint_check` use this."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from posegrid.datasets.keypoints.keypoint_table import detections_of
from posegrid.datasets.keypoints.tracks import Detections
from posegrid.datasets.options import unknown
from posegrid.datasets.readers import keypoint_json
from posegrid.datasets.readers.custom_npz import read_custom_npz
from posegrid.datasets.readers.keypoint_columns import SUFFIXES, read_table
from posegrid.datasets.readers.openpose import frame_files, read_openpose, video_of

FORMATS = ("auto", *keypoint_json.FORMATS, "openpose", "videopose3d", "table")


@dataclass(frozen=True, kw_only=True)
class KeypointFile:
    """One file, or the files of one OpenPose video."""

    kind: str
    """ "table", "openpose", "videopose3d", "json" (the content says which)."""
    files: tuple[Path, ...]
    video: str = ""
    """Name of the video, of OpenPose only."""

    @classmethod
    def of(cls, files: tuple[Path, ...], format_name: str) -> "KeypointFile":
        """What `keypoint_files` found under these paths."""
        suffix = files[0].suffix.lower()
        if suffix in SUFFIXES:
            return cls(kind="table", files=files)
        if suffix == ".npz":
            return cls(kind="videopose3d", files=files)
        video = video_of(files[0]) if format_name in ("auto", "openpose") else None
        return cls(kind="json", files=files) if video is None else cls(kind="openpose", files=files, video=video)

    def read(self, format_name: str, joints: str) -> list[Detections]:
        """The videos in it. Raises ValueError as its reader does."""
        file = self.files[0]
        if self.kind == "table":
            return detections_of(read_table(file, joints))
        if self.kind == "openpose":
            return [read_openpose(self.video, list(self.files), joints)]
        if self.kind == "videopose3d":
            return read_custom_npz(file, joints)
        return keypoint_json.read_keypoint_json(file, format_name, joints)


def keypoint_files(raw: Path | None, format_name: str = "auto") -> list[KeypointFile]:
    """The keypoint files that `raw` is, or that lie in this folder and the folders in it, sorted.

    Raises ValueError if there are none of this format.
    """
    if format_name not in FORMATS:
        raise unknown("format", format_name, "options of data source keypoints, key format", list(FORMATS))
    found = list(_found(raw, format_name)) if raw is not None and raw.exists() else []
    if not found:
        raise ValueError(
            f"no keypoint files{'' if format_name == 'auto' else f' of the format {format_name}'} in {raw}; read are "
            "tables (.csv, .parquet), JSON of COCO tools, AlphaPose and MMPose, folders of OpenPose and npz files of "
            "VideoPose3D's script. Give the file or its folder with --raw."
        )
    return found


def _found(raw: Path, format_name: str) -> Iterator[KeypointFile]:
    def wanted(*formats: str) -> bool:
        return format_name in ("auto", *formats)

    files = [raw] if raw.is_file() else sorted(file for file in raw.rglob("*") if file.is_file())
    tables = {file.with_suffix("") for file in files if file.suffix.lower() in SUFFIXES}
    given, frames = set(files), set[Path]()
    for folder in sorted({file.parent for file in files}) if wanted("openpose") else ():
        for video, of_video in frame_files(folder).items():
            of_input = tuple(file for file in of_video if file in given)
            if of_input:
                frames.update(of_input)
                yield KeypointFile(kind="openpose", files=of_input, video=video)
    for file in files:
        suffix = file.suffix.lower()
        if (suffix in SUFFIXES and wanted("table")) or (suffix == ".npz" and wanted("videopose3d")):
            yield KeypointFile.of((file,), format_name)
        # the description beside a table is no keypoint file
        described = suffix == ".json" and file.with_suffix("") in tables
        if suffix == ".json" and not described and file not in frames and wanted(*keypoint_json.FORMATS):
            yield KeypointFile(kind="json", files=(file,))
