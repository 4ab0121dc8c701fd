"""The states of a run: those of Ray Train, even when a kill or a full disk left only half of its list of them, and the
one that a training without Ray Train keeps beside them.

Ray writes the list in place: whoever is killed just then leaves an empty file, and Ray refuses to start such a run
again. The states themselves lie beside it, each in a folder named by its time.
"""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pyarrow import fs

from posegrid.datasets.addresses import RemoteFolder, is_address, remote_folder, shown

LIST = "checkpoint_manager_snapshot.json"
STATE = "state.pt"
_FOLDERS = "checkpoint_"


def mend_list(folder: str) -> bool:
    """Take away a list that is damaged or names states that are gone; True if it was. `newest` needs none.

    folder: folder or address of the run's states.
    """
    place = _open(folder)
    try:
        with place.filesystem.open_input_stream(place.file(LIST)) as stream:
            text = stream.read().decode(errors="replace")
    except (pa.ArrowException, OSError):
        return False  # nothing was saved yet
    try:
        states = [one["checkpoint_dir_name"] for one in json.loads(text)["checkpoint_results"]]
        whole = all(_is_there(place, f"{state}/{STATE}") for state in states)
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        place.filesystem.delete_file(place.file(LIST))
        logging.getLogger("posegrid").warning(f"{LIST} in {shown(folder)} was cut off; the states beside it are used")
    return not whole


def newest(folder: str, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The newest state that can be read whole; None if there is none. For runs that have no list."""
    place = _open(folder)
    try:
        entries = place.filesystem.get_file_info(fs.FileSelector(place.path, allow_not_found=True))
    except (pa.ArrowException, OSError):
        return None
    names = [entry.base_name for entry in entries if entry.type == fs.FileType.Directory]
    for name in sorted((name for name in names if name.startswith(_FOLDERS)), reverse=True):
        if not _is_there(place, f"{name}/{STATE}"):
            continue
        try:
            return _read(place, f"{name}/{STATE}", device)
        except ValueError:  # half a state: whoever wrote it was killed
            continue
    return None


def furthest(
    folder: str, device: torch.device | str = "cpu", registered: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """The state to continue from, of those of Ray Train and that of a training without it (`--workers 0`, `--launch
    local`): a study may be continued in another way than it was begun. None if there is none.

    registered: the state that Ray has handed in, which is then taken for its newest.
    """
    place = _open(folder)
    alone = _read(place, STATE, device) if _is_there(place, STATE) else None
    found = [state for state in (registered or newest(folder, device), alone) if state is not None]
    return max(found, key=lambda state: int(state["epoch"]), default=None)


def _open(folder: str) -> RemoteFolder:
    if is_address(folder):
        return remote_folder(folder)
    return RemoteFolder(address=folder, filesystem=fs.LocalFileSystem(), path=folder)


def _is_there(place: RemoteFolder, name: str) -> bool:
    return place.filesystem.get_file_info(place.file(name)).type == fs.FileType.File


def _read(place: RemoteFolder, name: str, device: torch.device | str) -> dict[str, Any]:
    from posegrid.orchestration import checkpoint  # the driver of a trial mends lists only, and needs no models

    if not is_address(place.address):
        return checkpoint.read(Path(place.file(name)), device)
    with tempfile.TemporaryDirectory(prefix="posegrid-") as scratch:
        file = Path(scratch) / STATE
        fs.copy_files(place.file(name), str(file), source_filesystem=place.filesystem)
        return checkpoint.read(file, device)
