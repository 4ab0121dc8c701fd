"""What can be lifted: keypoint files, folders of them, and stores; each gives its clips one after another."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from posegrid.datasets.addresses import is_address, shown
from posegrid.datasets.keypoints.clips import Clip, Reading, clips_of_file, clips_of_store
from posegrid.datasets.keypoints.pose_files import is_pose_file
from posegrid.datasets.readers.keypoint_files import KeypointFile, keypoint_files
from posegrid.datasets.store import DESCRIPTION, open_store


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """A keypoint file, the files of an OpenPose video, or a store. Can be pickled."""

    name: str
    """Relative to the folder that was given, without ending: what its poses are called."""
    place: str
    """Path or address, for messages."""
    file: KeypointFile | None
    """None for a store."""

    def clips(self, skeleton: str, reading: Reading) -> Iterator[Clip]:
        """The people in it, with the joints of the named skeleton.

        Raises ValueError if it cannot be read, or if a store has another skeleton.
        """
        if self.file is not None:
            yield from clips_of_file(self.file, skeleton, reading)
            return
        store = open_store(self.place, verify=False)
        if store.skeleton.name != skeleton:
            raise ValueError(
                f"store {shown(self.place)} has skeleton {store.skeleton.name}, the model lifts {skeleton}. Prepare "
                f"the keypoints with --option skeleton={skeleton}, or use another model."
            )
        yield from clips_of_store(store, reading)

    def stamp(self) -> list[tuple[str, int, int]]:
        """Name, size and time of change of its files, by which a changed input is noticed."""
        files = [Path(self.place) / DESCRIPTION] if self.file is None else list(self.file.files)
        beside = [files[0].with_suffix(end) for end in (".toml", ".json")] if self.file is not None else []
        there = [file for file in dict.fromkeys([*files, *beside]) if file.is_file()]
        return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in there]


def clip_sources(inputs: Sequence[Path | str], format_name: str = "auto") -> list[ClipSource]:
    """All that the inputs hold: files, folders of files (and the folders in them), stores, addresses of stores.

    Names are unique. Raises ValueError if an input does not exist or holds nothing.
    """
    found = [source for given in inputs for source in _of_input(given, format_name)]
    counts = Counter(source.name for source in found)
    unique = [source if counts[source.name] == 1 or source.file is None else _with_ending(source) for source in found]
    again = [name for name, count in Counter(source.name for source in unique).items() if count > 1]
    if again:
        places = ", ".join(source.place for source in unique if source.name == again[0])
        raise ValueError(
            f"{places} would both be written as {again[0]}. Names must differ: lift them by commands of their own."
        )
    return unique


def _of_input(given: Path | str, format_name: str) -> Iterator[ClipSource]:
    path = Path(given)
    if is_address(given) or (path / DESCRIPTION).is_file():
        yield ClipSource(name=path.name, place=str(given), file=None)
        return
    if not path.exists():
        raise ValueError(
            f"{path} does not exist, so nothing is lifted. Expected is a keypoint file, a folder of them, or a store: "
            "correct the path."
        )
    folder = path if path.is_dir() else path.parent
    for file in keypoint_files(path, format_name):
        first = file.files[0]
        if file.kind == "table" and is_pose_file(first):
            if path.is_file():
                raise ValueError(
                    f"{path} holds poses that were lifted already, and no keypoint table. Expected are keypoints: give "
                    "the file that they came from."
                )
            continue
        stem = first.with_suffix("") if not file.video else first.parent / file.video
        yield ClipSource(
            name=stem.relative_to(folder).as_posix(),
            place=str(first if not file.video else first.parent),
            file=replace(file, files=tuple(one.absolute() for one in file.files)),
        )


def _with_ending(source: ClipSource) -> ClipSource:
    assert source.file is not None
    return replace(source, name=source.name + source.file.files[0].suffix) if not source.file.video else source
