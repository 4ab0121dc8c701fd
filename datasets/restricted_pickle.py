"""Reads pickled object arrays from npz files without running code.

Community files of Human3.6M keep nested dictionaries of arrays in pickled object arrays, and unpickling can call any
function the file names. Here nothing the file names is ever imported: the few names that NumPy's own pickles use lead
to stand-ins defined below, which collect plain values; any other name is refused. What comes back are dictionaries,
lists, tuples, text, numbers and arrays of plain numbers (views of the file's bytes, read-only).
"""

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

_PLAIN_KINDS = "biufc"
"""Kinds of numbers an array may hold: bool, integers, floats, complex."""


class _RefusedError(Exception):
    """What was found in a file and is not read."""


class _Dtype:
    """Stand-in of numpy.dtype: its code and byte order, nothing else a file may say."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        self.code = code
        self.order: Any = "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def real(self) -> np.dtype:
        dtype = np.dtype(str(self.code))
        if dtype != np.dtype(object) and dtype.kind not in _PLAIN_KINDS:
            raise _RefusedError(f"arrays of type {self.code!r}")
        return dtype if self.order in "=|" else dtype.newbyteorder(self.order)


class _Array:
    """Stand-in of numpy.ndarray: the shape, type and content its pickle states."""

    state: tuple | None = None

    def __setstate__(self, state: tuple) -> None:
        self.state = state

    def real(self) -> np.ndarray:
        if self.state is None or len(self.state) != 5:
            raise _RefusedError("an array without content")
        _, shape, dtype, fortran, content = self.state
        real = dtype.real()
        if real == np.dtype(object):
            flat = np.empty(len(content), dtype=object)
            for index, value in enumerate(content):
                flat[index] = _resolved(value)
        else:
            flat = np.frombuffer(content, dtype=real)
        return flat.reshape(shape, order="F" if fortran else "C")


class _Scalar:
    """Stand-in of a NumPy number."""

    def __init__(self, dtype: _Dtype, content: bytes) -> None:
        self.dtype, self.content = dtype, content

    def real(self) -> Any:
        (number,) = np.frombuffer(self.content, dtype=self.dtype.real())
        return number


def _reconstruct(kind: type, shape: tuple, code: bytes) -> _Array:
    return _Array()


def _encode(text: str, codec: str) -> bytes:
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _RefusedError(f"the name {module}.{name}") from None


def _resolved(value: Any) -> Any:
    """The value with stand-ins replaced by what they stand for."""
    if isinstance(value, _Array | _Scalar):
        return value.real()
    if isinstance(value, dict):
        return {_resolved(key): _resolved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_resolved(item) for item in value)
    if value is None or isinstance(value, str | bytes | bool | int | float | complex):
        return value
    raise _RefusedError(f"a value of type {type(value).__name__}")


def _read_member(stream: IO[bytes]) -> Any:
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise _RefusedError(f"npy format {version}")
    shape, fortran, dtype = read_header[version](stream)
    if dtype == np.dtype(object):
        value = _resolved(_Unpickler(stream).load())
        return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if dtype.kind not in _PLAIN_KINDS:
        raise _RefusedError(f"arrays of type {dtype}")
    return np.frombuffer(stream.read(), dtype=dtype).reshape(shape, order="F" if fortran else "C")


def _read_entry(archive: zipfile.ZipFile, entry: str) -> Any:
    """Unpack and read at once: an entry of hundreds of megabytes is in memory only as the arrays it holds."""
    try:
        with archive.open(entry) as stream:
            value = _read_member(stream)
            _read_to_end(stream)
        return value
    except Exception:
        # a damaged pickle can name anything: the checksum tells damage from what somebody wrote
        with archive.open(entry) as stream:
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
    values = {}
    try:
        with zipfile.ZipFile(path) as archive:
            present = {Path(member).stem for member in archive.namelist()}
            missing = [name for name in names if name not in present]
            for name in names if not missing else ():
                values[name] = _read_entry(archive, f"{name}.npy")
    except _RefusedError as found:
        raise ValueError(
            f"{path} holds {found}; only arrays of numbers in dictionaries, lists and tuples are read, because a "
            "pickle can run any code. Nothing was run. Do not trust this file: make it again from the original data."
        ) from None
    except Exception as error:
        # damaged zip files, headers and pickles raise more kinds of errors than their documentation lists
        raise ValueError(
            f"{path} is damaged or cut ({type(error).__name__}: {error}); expected a whole npz file. "
            "Fetch or make it again."
        ) from None
    if missing:
        raise ValueError(
            f"{path} lacks the entries {', '.join(missing)} (it has {', '.join(sorted(present))}): it is another file "
            "than expected. Fetch or make it again."
        )
    return values
