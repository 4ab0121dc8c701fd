"""Reads pickles of plain data without running code: object arrays in npz files, and pickle files.

Community files of Human3.6M keep nested dictionaries of arrays in pickled object arrays, 3DPW and SMPL come as pickle
files of Python 2, and unpickling can call any function the file names. Here nothing the file names is ever imported:
the few names that plain data needs lead to stand-ins (`stand_ins`); any other name is refused. What comes back are
dictionaries, lists, tuples, text, numbers and arrays of plain numbers (views of the file's bytes, read-only).
"""

import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from posegrid.datasets.unpickling.plain_pickle import RefusedError, load
from posegrid.datasets.unpickling.stand_ins import ADMITTED, PLAIN_KINDS, Maker

_TEXT_KINDS = "SU"
"""Kinds of text that an entry of an npz file may be."""
_SMALL, _DENSEST = 2**28, 200
"""An entry beyond so many bytes may unpack to so many times its packed size: 4 MB can be made to fill 4 GB."""


def _read_member(stream: IO[bytes], size: int) -> Any:
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise RefusedError(f"npy format {version}")
    shape, fortran, dtype = read_header[version](stream)
    if dtype == np.dtype(object):
        value = Maker(size).real(load(stream, ADMITTED, size))
        return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if dtype.kind not in PLAIN_KINDS + _TEXT_KINDS:
        raise RefusedError(f"arrays of type {dtype}")
    return np.frombuffer(stream.read(), dtype=dtype).reshape(shape, order="F" if fortran else "C")


def _read_entry(archive: zipfile.ZipFile, entry: str, size: int) -> Any:
    """Unpack and read at once: an entry of hundreds of megabytes is in memory only as the arrays it holds.

    size: bytes of the whole file.
    """
    found = archive.getinfo(entry)
    if found.file_size > max(_SMALL, _DENSEST * min(found.compress_size, size)):
        raise zipfile.BadZipFile(f"{entry} would unpack from {found.compress_size} to {found.file_size} bytes")
    try:
        with archive.open(found) as stream:
            value = _read_member(stream, found.file_size)
            _read_to_end(stream)
        return value
    except Exception:
        # a damaged pickle can name anything: the checksum tells damage from what somebody wrote
        with archive.open(found) as stream:
            _read_to_end(stream)
        raise


def _read_to_end(stream: IO[bytes]) -> None:
    """zipfile compares the checksum when it comes to the end."""
    while stream.read(2**20):
        pass


def read_npz(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """The named entries of an npz file: arrays, or what their pickled object arrays hold (0-d ones unwrapped).

    Raises ValueError if the file is no whole npz file, lacks an entry, or holds anything but plain data; in that case
    nothing of it has been run.
    """

    def read() -> tuple[set[str], dict[str, Any]]:
        with zipfile.ZipFile(path) as archive:
            present = {Path(member).stem for member in archive.namelist()}
            wanted = names if present.issuperset(names) else ()
            size = path.stat().st_size
            return present, {name: _read_entry(archive, f"{name}.npy", size) for name in wanted}

    present, values = _guarded(path, "npz file", read)
    _check_present(path, "entries", names, present)
    return values


def read_pickle(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The named entries of the dictionary that a pickle file is, of Python 2 (texts are Latin-1) or 3.

    Arrays, sparse matrices (as dense arrays) and wrapped arrays (chumpy) of numbers, texts, numbers, and containers of
    these. Entries of `optional` are left away if they are not there. Raises ValueError if the file is damaged, is no
    dictionary or lacks an entry, if one holds anything but plain data, or if any part of the file names what is not
    admitted; in that case nothing of it has been run.
    """

    def read() -> tuple[set[Any], dict[str, Any]]:
        with path.open("rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            content = load(stream, ADMITTED, size)
        if not isinstance(content, dict):
            raise RefusedError(f"a value of type {type(content).__name__} in place of a dictionary")
        maker = Maker(size)
        wanted = (*names, *optional) if set(names) <= set(content) else ()
        return set(content), {name: maker.real(content[name]) for name in wanted if name in content}

    present, values = _guarded(path, "pickle file", read)
    _check_present(path, "entries", names, present)
    return values


def read_npy(path: Path) -> np.ndarray:
    """The array of an npy file. Raises ValueError if it is damaged or holds anything but numbers."""

    def read() -> Any:
        with path.open("rb") as stream:
            array = _read_member(stream, os.fstat(stream.fileno()).st_size)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in PLAIN_KINDS:
            raise RefusedError("no array of numbers")
        return array

    return _guarded(path, "npy file", read)


def _guarded(path: Path, what: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RefusedError as found:
        raise ValueError(
            f"{path} holds {found}; only arrays of numbers in dictionaries, lists and tuples are read, because a "
            "pickle can run any code. Nothing was run. Do not trust this file: make it again from the original data."
        ) from None
    except Exception as error:
        # damaged zip files, headers and pickles raise more kinds of errors than their documentation lists
        raise ValueError(
            f"{path} is damaged or cut ({type(error).__name__}: {error}); expected a whole {what}. "
            "Fetch or make it again."
        ) from None


def _check_present(path: Path, what: str, names: Sequence[str], present: set[Any]) -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise ValueError(
            f"{path} lacks the {what} {', '.join(missing)} (it has {', '.join(sorted(map(str, present)))}): it is "
            "another file than expected. Fetch or make it again."
        )
