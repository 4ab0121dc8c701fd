"""Variables of MATLAB files: version 5 to 7 (read here, after MathWorks' "MAT-File Format"), and 7.3 (HDF5).

Only what the data sets need: real arrays of numbers and cell arrays of them. Nothing is trusted: every length is
compared with the bytes that are there, so that a damaged file is refused and can do no more (SciPy's reader, which is
compiled, ends the process on some of them).
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from posegrid.datasets.readers.hdf5 import read_hdf5

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Type of an element's data; small numbers are often stored in a smaller type than their array's."""
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CELL = 1
_PEEKED = 512
"""Bytes of a compressed variable that are unpacked to learn its name."""
_COMPLEX = 0x0800
_MOST_BYTES = 2**31
"""Largest variable that is read."""
_MOST_CELLS = 1000
_DEEPEST = 4
"""Cells within cells."""


class _DamagedError(Exception):
    """What is wrong with a file."""


def read_mat(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named variables with MATLAB's shapes; cell arrays become object arrays of arrays.

    Raises ValueError if the file is neither kind, is cut or damaged as far as that can be seen (uncompressed files
    have no checksum), lacks a variable, or has something else than real numbers in it.
    """
    try:
        if h5py.is_hdf5(path):
            return {name: _turned(value) for name, value in read_hdf5(path, names).items()}
        if path.stat().st_size < _HEADER:
            raise _DamagedError("it ends within its header")
        content = np.memmap(path, dtype=np.uint8, mode="r")
        order = _byte_order(bytes(content[:_HEADER]))
        found, present = _variables(content.data[_HEADER:], order, names)
    except (_DamagedError, OSError, zlib.error, MemoryError) as error:
        raise ValueError(
            f"{path} is damaged or cut ({error}); expected a whole MATLAB file of version 5 to 7.3. Fetch it again."
        ) from None
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(
            f"{path} lacks the variables {', '.join(missing)} (it has {', '.join(present[:20]) or 'none'}): it is cut, "
            "or another file than expected. Fetch it again."
        )
    return found


def _turned(value: np.ndarray) -> np.ndarray:
    """MATLAB's order of axes, which HDF5 has reversed."""
    if value.dtype != np.dtype(object):
        return value.T
    cells = np.empty_like(value.T)
    for index in np.ndindex(*cells.shape):
        cells[index] = value.T[index].T
    return cells


def _byte_order(header: bytes) -> str:
    mark = header[126:128]
    if mark not in (b"IM", b"MI"):
        raise _DamagedError("it has no header of a MATLAB file")
    return "<" if mark == b"IM" else ">"


def _variables(content: memoryview, order: str, names: Sequence[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The wanted variables, and the names of all."""
    found, present = {}, []
    for kind, data in _elements(content, order, packed=True):
        start = memoryview(zlib.decompressobj().decompress(data, _PEEKED)) if kind == _COMPRESSED else data
        parts = _elements(start[8:], order) if kind == _COMPRESSED else _elements(start, order)
        if kind not in (_MATRIX, _COMPRESSED):
            raise _DamagedError(f"an element of type {kind} where a variable must be")
        name = _header_of(parts, order)[2]
        present.append(name)
        if name in names:
            found[name] = _array(_unpacked(data, order) if kind == _COMPRESSED else data, order, name, 0)
    return found, present


def _elements(content: memoryview, order: str, packed: bool = False) -> Iterator[tuple[int, memoryview]]:
    """(type, data) of the elements one after the other. Those of a file are padded unless compressed (`packed`)."""
    at = 0
    while at < len(content):
        if len(content) - at < 8:
            raise _DamagedError("it ends within an element")
        kind, size = (int(number) for number in np.frombuffer(content[at : at + 8], dtype=f"{order}u4"))
        if kind >> 16:
            kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if size > 4:
                raise _DamagedError("a short element is too long")
        else:
            start = at + 8
            padding = 0 if packed and kind == _COMPRESSED else -size % 8
            end = start + size + padding
            if start + size > len(content):
                raise _DamagedError("it ends within an element")
        yield kind, content[start : start + size]
        at = end


def _unpacked(data: memoryview, order: str) -> memoryview:
    """The one variable in compressed data; its checksum is compared."""
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(data, _MOST_BYTES)
    if not unpacker.eof:
        raise _DamagedError("compressed data ends early or is too long")
    elements = list(_elements(memoryview(content), order))
    if len(elements) != 1 or elements[0][0] != _MATRIX:
        raise _DamagedError("compressed data holds no single variable")
    return elements[0][1]


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    try:
        return next(parts)
    except StopIteration:
        raise _DamagedError("a variable ends early") from None


def _header_of(parts: Iterator[tuple[int, memoryview]], order: str) -> tuple[int, tuple[int, ...], str]:
    """Class with flags, shape and name of an array: its first three elements."""
    flags = _values(*_next(parts), order)
    shape = _values(*_next(parts), order)
    name = _values(*_next(parts), order)
    if len(flags) != 2 or len(shape) < 2 or len(shape) > 8 or (shape < 0).any():
        raise _DamagedError("a variable has no sound description")
    return int(flags[0]), tuple(int(size) for size in shape), bytes(name.astype(np.uint8)).decode("latin1")


def _values(kind: int, data: memoryview, order: str) -> np.ndarray:
    if kind not in _STORED:
        raise _DamagedError(f"data of type {kind} where numbers must be")
    dtype = np.dtype(order + _STORED[kind])
    if len(data) % dtype.itemsize:
        raise _DamagedError("numbers are cut")
    return np.frombuffer(data, dtype=dtype)


def _array(data: memoryview, order: str, name: str, depth: int) -> np.ndarray:
    """A matrix element as an array of numbers, or of arrays if it is a cell array."""
    parts = _elements(data, order)
    flags, shape, _ = _header_of(parts, order)
    code, size = flags & 0xFF, math.prod(shape)
    if code == _CELL and depth < _DEEPEST:
        if size > _MOST_CELLS:
            raise _DamagedError(f"{name} has {size} cells, at most {_MOST_CELLS} are read")
        cells = np.empty(size, dtype=object)
        for index in range(size):
            kind, inner = _next(parts)
            if kind != _MATRIX:
                raise _DamagedError(f"a cell of {name} is no array")
            cells[index] = _array(inner, order, name, depth + 1) if len(inner) else np.zeros((0, 0))
        return cells.reshape(shape, order="F")
    if code not in _CLASSES or flags & _COMPLEX:
        raise _DamagedError(f"{name} is an array of class {code}, only real numbers and cells are read")
    values = _values(*_next(parts), order)
    if len(values) != size:
        raise _DamagedError(f"{name} has {len(values)} numbers, its shape {shape} needs {size}")
    return values.astype(_CLASSES[code], copy=False).reshape(shape, order="F")
