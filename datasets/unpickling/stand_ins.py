"""What stands for the objects in pickles of plain data: each collects values and becomes an array or a number.

The names that NumPy's own pickles use, and those of sparse matrices (scipy) and wrapped arrays (chumpy) in body models,
lead here. What the stand-ins become is bounded in proportion to the size of the file: shared parts that would unfold to
more, and sparse matrices that would fill more, are refused.
"""

from typing import Any

import numpy as np

from posegrid.datasets.unpickling.plain_pickle import OldText, RefusedError, SkippedSet

PLAIN_KINDS = "biufc"
"""Kinds of numbers an array may hold: bool, integers, floats, complex."""
_UNFOLDED = 16
"""What is made of a file may take so many times its bytes."""
_DEEPEST = 50
"""Levels of containers in one another."""


class Maker:
    """Replaces stand-ins by what they stand for, within bounds that follow from the size of the file in bytes."""

    def __init__(self, size: int) -> None:
        self.room = _UNFOLDED * size + 2**16
        # what a container became and how many values it unfolds to; the container itself, so that its id stays taken
        self.done: dict[int, tuple[Any, int, Any]] = {}
        self.open: set[int] = set()
        self.weight = 0

    def spend(self, size: int) -> None:
        """Raises RefusedError if the file does not account for so many bytes more."""
        self.room -= size
        if self.room < 0:
            raise RefusedError("more than a file of its size can hold")

    def real(self, value: Any) -> Any:
        """The value with stand-ins replaced; shared parts stay shared. Raises RefusedError for other types, values
        that hold themselves, nesting that is too deep, and parts that unfold to more than the file accounts for."""
        if value is None or isinstance(value, str | bytes | bool | int | float | complex):
            # a long text counts for more: whoever makes an array of many references to it makes as many copies
            self.weight += 1 + len(value) // 16 if isinstance(value, str | bytes) else 1
            return value
        key = id(value)
        if key in self.done:
            self.weight += self.done[key][1]
        else:
            if key in self.open:
                raise RefusedError("a value that holds itself")
            if len(self.open) == _DEEPEST:
                raise RefusedError(f"values more than {_DEEPEST} levels deep")
            self.open.add(key)
            before, self.weight = self.weight, 1
            made = self._made(value)
            self.done[key] = made, self.weight, value
            self.weight += before
            self.open.discard(key)
        if self.weight > self.room:
            raise RefusedError("parts that unfold to more than a file of its size can hold")
        return self.done[key][0]

    def _made(self, value: Any) -> Any:
        if isinstance(value, _StandIn):
            return value.real(self)
        if isinstance(value, OldText):
            return value.content.decode("latin1")
        if isinstance(value, dict):
            return {key: self.real(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.real(item) for item in value]
        if isinstance(value, tuple):
            return tuple(self.real(item) for item in value)
        raise RefusedError(f"a value of type {type(value).__name__}")


class _StandIn:
    """What stands for an object in a file."""

    def real(self, maker: Maker) -> Any:
        raise RefusedError("an object that is no data")


class _Dtype(_StandIn):
    """Stand-in of numpy.dtype: its code and byte order, nothing else a file may say."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        self.code = code
        self.order: Any = "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype:
        dtype = np.dtype(str(self.code))
        if dtype != np.dtype(object) and dtype.kind not in PLAIN_KINDS:
            raise RefusedError(f"arrays of type {self.code!r}")
        return dtype if self.order in ("=", "|") else dtype.newbyteorder(self.order)


class _Array(_StandIn):
    """Stand-in of numpy.ndarray: the shape, type and content its pickle states."""

    state: tuple | None = None

    def __setstate__(self, state: tuple) -> None:
        self.state = state

    def real(self, maker: Maker) -> np.ndarray:
        if self.state is None or len(self.state) != 5:
            raise RefusedError("an array without content")
        if self.state[0] != 1:
            raise ValueError(f"an array in a version that NumPy does not write ({self.state[0]})")
        _, shape, dtype, fortran, content = self.state
        real = dtype.numpy()
        if real == np.dtype(object):
            maker.spend(8 * len(content))
            flat = np.empty(len(content), dtype=object)
            for index, value in enumerate(content):
                flat[index] = maker.real(value)
        else:
            flat = np.frombuffer(_content(content, maker), dtype=real)
        return flat.reshape(shape, order="F" if fortran else "C")


class _Scalar(_StandIn):
    """Stand-in of a NumPy number."""

    def __init__(self, dtype: _Dtype, content: Any) -> None:
        self.dtype, self.content = dtype, content

    def real(self, maker: Maker) -> Any:
        (number,) = np.frombuffer(_content(self.content, maker), dtype=self.dtype.numpy())
        if not isinstance(number, np.generic):
            raise RefusedError("a number that is none")
        return number


class _Encoded(_StandIn):
    """Bytes that Python 3 wrote as text, for readers of Python 2."""

    def __init__(self, text: str, codec: str) -> None:
        self.text = text

    def real(self, maker: Maker) -> bytes:
        return _content(self.text, maker)


class _Sparse(_StandIn):
    """Stand-in of scipy's csc_matrix; becomes a dense array."""

    state: dict[str, Any] | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def real(self, maker: Maker) -> np.ndarray:
        state = self.state or {}
        data, indices, starts = (maker.real(state[name]) for name in ("data", "indices", "indptr"))
        rows, columns = (int(size) for size in maker.real(state["_shape"] if "_shape" in state else state["shape"]))
        fit = indices.dtype.kind in "iu" and len(starts) == columns + 1 and len(data) == len(indices) == starts[-1]
        # negative places would be counted from the end
        if min(rows, columns) < 0 or not fit or (len(indices) and indices.min() < 0):
            raise ValueError("a sparse matrix whose parts do not fit")
        maker.spend(rows * columns * data.dtype.itemsize)
        dense = np.zeros((rows, columns), dtype=data.dtype)
        # entries that are there twice add up, as scipy has it
        np.add.at(dense, (indices, np.repeat(np.arange(columns), np.diff(starts))), data)
        return dense


class _Wrapped(_StandIn):
    """Stand-in of chumpy's Ch (an array `x`) and Select (entries `idxs` of the flattened array `a`)."""

    state: dict[str, Any] | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def real(self, maker: Maker) -> np.ndarray:
        state = self.state or {}
        if "x" in state:
            return np.asarray(maker.real(state["x"]))
        if not {"a", "idxs"} <= set(state):
            raise RefusedError("a chumpy expression that is no array")
        array, wanted = np.asarray(maker.real(state["a"])), np.asarray(maker.real(state["idxs"]))
        maker.spend(wanted.size * array.itemsize)
        chosen = array.reshape(-1)[wanted]
        return chosen.reshape(maker.real(state["preferred_shape"])) if "preferred_shape" in state else chosen


def _content(content: Any, maker: Maker) -> bytes:
    """The bytes of an array's content, in whichever way the versions of Python and NumPy wrote them."""
    if isinstance(content, bytes):
        return content
    if isinstance(content, OldText):
        return content.content
    if isinstance(content, _Encoded):
        return content.real(maker)
    if isinstance(content, str):
        maker.spend(len(content))
        return content.encode("latin1")
    raise RefusedError(f"an array whose content is of type {type(content).__name__}")


def _reconstruct(kind: type, shape: tuple, code: bytes) -> _Array:
    return _Array()


def _frombuffer(content: bytes, dtype: _Dtype, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.state = (1, shape, dtype, order == "F", content)
    return array


def _reconstructor(kind: type, base: Any, state: Any) -> _StandIn:
    if kind not in (_Sparse, _Wrapped):
        raise RefusedError("an object of a kind that is not read")
    return kind()


def _no_bytes() -> bytes:
    return b""


_CORES = ("numpy.core", "numpy._core")
_BUILTINS = ("__builtin__", "builtins")
ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encoded,
    ("__builtin__", "bytes"): _no_bytes,
    ("chumpy.ch", "Ch"): _Wrapped,
    ("chumpy.reordering", "Select"): _Wrapped,
    **{(f"{core}.multiarray", "_reconstruct"): _reconstruct for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): _Scalar for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _frombuffer for core in _CORES},
    **{(f"scipy.sparse.{file}", "csc_matrix"): _Sparse for file in ("csc", "_csc")},
    **{(module, "_reconstructor"): _reconstructor for module in ("copy_reg", "copyreg")},
    **{(module, "object"): _StandIn for module in _BUILTINS},
    **{(module, "set"): SkippedSet for module in _BUILTINS},
}
"""Module and name in a file -> what stands for it."""
