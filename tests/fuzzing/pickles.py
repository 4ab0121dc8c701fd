"""Pickles that are fuzzed: sound ones, those that would run code, those that would fill the memory.

A second opinion on a damaged pickle is Python's own unpickler with a short list of names; posegrid does not use it.
"""

import io
import os
import pickle
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from body_files import made_up_model, made_up_regressor, write_model
from fuzzing.damage import retyped
from fuzzing.formats import Format, Values, as_rewritten, same

from posegrid.datasets.readers.body_model import BodyModel, read_body_model
from posegrid.datasets.readers.joint_regressor import fold, read_regressor
from posegrid.datasets.unpickling.restricted_pickle import read_pickle

Hostile = dict[str, Callable[[Path, Path], None]]


# ---------------------------------------------------------------------------------------------------------------------
# Files made to do harm
# ---------------------------------------------------------------------------------------------------------------------


class Call:
    """Calls a function when it is unpickled in the usual way."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def _calls(mark: Path) -> dict[str, Any]:
    write = f"open({str(mark)!r}, 'w').close()"
    return {
        "os.system": Call(os.system, f"touch {mark}"),
        "subprocess": Call(subprocess.Popen, ["touch", str(mark)]),
        "eval": Call(eval, write),
        "exec": Call(exec, write),
        "mkdir": Call(os.mkdir, str(mark)),
        "open": Call(open, str(mark), "w"),
    }


def harmful(call: str, protocol: int, key: str, mark: Path) -> bytes:
    """A pickle of a dictionary with sound values and one call."""
    value = _calls(mark)[call]
    return pickle.dumps({key: {"S1": [np.zeros((2, 3)), value]}, "more": 1}, protocol=protocol)


def _instructions(mark: Path) -> dict[str, bytes]:
    """Instructions that Python no longer writes, and still carries out."""
    command = f"'touch {mark}'\n".encode()
    return {
        "inst": b"(S" + command + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\nS" + command + b"o.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93(S" + command + b"tR.",
        "reduce": b"cposix\nsystem\n(S" + command + b"tR.",
    }


def hostile_pickles(name: str, write: Callable[[Path, bytes], None], key: str, protocols: tuple[int, ...]) -> Hostile:
    """Files `name` that hold harmful pickles; `write` puts a pickle into such a file."""

    def called(call: str, protocol: int, folder: Path, mark: Path) -> None:
        write(folder / name, harmful(call, protocol, key, mark))

    def instructed(kind: str, folder: Path, mark: Path) -> None:
        write(folder / name, _instructions(mark)[kind])

    found: Hostile = {
        f"{call}, protocol {protocol}": partial(called, call, protocol)
        for call in _calls(Path())
        for protocol in protocols
    }
    return found | {kind: partial(instructed, kind) for kind in _instructions(Path())}


def in_npz(entry: str, others: dict[str, Any] | None = None) -> Callable[[Path, bytes], None]:
    """Writes an npz file of which one entry is an object array of the given pickle."""

    def write(file: Path, content: bytes) -> None:
        np.savez(file, **(others or {}))
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(f"{entry}.npy", npy_header("|O", "()") + content)

    return write


def npy_header(descr: str, shape: str) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(10 + len(text) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def zip_bomb(entry: str, begin: bytes, file: Path) -> None:
    """4 MB that unpack to 3.9 GiB of zeros behind `begin`; the checksum is wrong, but who sees that has unpacked."""

    def packed(content: bytes) -> bytes:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)

    data = packed(begin) + packed(bytes(2**24)) * 249 + b"\x03\x00"
    name, size = f"{entry}.npy".encode(), len(begin) + 249 * 2**24
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 0, len(data), size, len(name), 0)
    local = b"PK\x03\x04" + fields + name + data
    central = b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    file.write_bytes(local + central + end)


def npz_bombs(name: str, entry: str) -> Hostile:
    """An entry that unpacks to 3.9 GiB, as an array, as bytes in a pickle, and one that only says so."""

    def array(folder: Path, mark: Path) -> None:
        zip_bomb(entry, npy_header("<f4", f"({249 * 2**19}, 8)"), folder / name)

    def in_pickle(folder: Path, mark: Path) -> None:
        zip_bomb(entry, npy_header("|O", "()") + b"\x8e" + struct.pack("<Q", 249 * 2**24 - 100), folder / name)

    def said(folder: Path, mark: Path) -> None:
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr(f"{entry}.npy", npy_header("<f4", f"({2**40}, 8)") + bytes(100))

    return {"unpacks to 3.9 GiB": array, "unpacks to a pickle of 3.9 GiB": in_pickle, "says 32 TiB": said}


_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
_BOMBS = {
    "memo": b"]r\xff\xff\xff\x7f",
    "bytes": b"B\xff\xff\xff\xff",
    "bytes, 64 bits": b"\x8e" + struct.pack("<Q", 2**62),
    "long number": b"\x8b\xff\xff\xff\x7f",
    "lists in lists": b"(" * 60_000 + b"l" * 60_000,
    "tuples as a key": b"})" + b"\x85" * 60_000 + b"I1\ns",
    "doubled": b"(I1\nI1\nl" + b"2\x86" * 60,
    "texts again and again": b"(X\x00\x00\x01\x00" + b"a" * 65536 + b"q\x00" + b"h\x00" * 100_000 + b"l",
    "shape": _ARRAY + b"(I1\n(I500000000\ntcnumpy\ndtype\n(U\x02f8tRI00\nU\x0812345678tb",
}


def _bomb(kind: str, folder: Path, mark: Path) -> None:
    (folder / "data.pkl").write_bytes(b"\x80\x02}U\x05poses" + _BOMBS[kind] + b"s.")


# ---------------------------------------------------------------------------------------------------------------------
# Second opinion
# ---------------------------------------------------------------------------------------------------------------------


class _Wrapped:
    """An array in chumpy's wrapping."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.array = state["x"]


class _Sparse:
    """A csc_matrix."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    @property
    def array(self) -> np.ndarray:
        state, starts = self.state, self.state["indptr"]
        if min(state["indices"]) < 0:
            raise ValueError("a negative index")
        dense = np.zeros(state["_shape"], state["data"].dtype)
        for column in range(len(starts) - 1):
            for place in range(starts[column], starts[column + 1]):
                dense[state["indices"][place], column] += state["data"][place]
        return dense


class _Second(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        kinds = {"ndarray": np.ndarray, "dtype": np.dtype, "Ch": _Wrapped, "csc_matrix": _Sparse, "set": set}
        functions = {"_reconstruct": np._core.multiarray._reconstruct, "_frombuffer": np._core.numeric._frombuffer}
        functions["scalar"] = np._core.multiarray.scalar
        known = kinds | functions
        if module.split(".")[0] not in ("numpy", "chumpy", "scipy", "__builtin__", "builtins") or name not in known:
            raise pickle.UnpicklingError(f"the name {module}.{name}")
        return known[name]


def second_opinion(file: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """What Python's unpickler makes of a file (texts of Python 2 as Latin-1), of these entries if they are named."""
    content = _Second(io.BytesIO(file.read_bytes()), encoding="latin1").load()
    kept = {name: value for name, value in content.items() if names is None or name in names}
    return {name: getattr(value, "array", value) for name, value in kept.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Formats
# ---------------------------------------------------------------------------------------------------------------------

_NAMES = ("poses", "trans", "names", "rate", "nested")


def _plain() -> dict[str, Any]:
    generator = np.random.default_rng(5)
    nested = {"a": [generator.normal(size=(2, 2)), (1, "b", None)], "c": {"d": True}}
    poses, trans = generator.normal(size=(5, 72)), np.asfortranarray(generator.normal(size=(5, 3)).astype(np.float32))
    return {"poses": poses, "trans": trans, "names": ["walk", "run"], "rate": 60.0, "nested": nested}


def _write_plain(folder: Path, content: dict[str, Any]) -> None:
    (folder / "data.pkl").write_bytes(pickle.dumps(content, protocol=4))


def _read_plain(folder: Path) -> Values:
    return read_pickle(folder / "data.pkl", _NAMES)


def _judge_plain(folder: Path, values: Values) -> str:
    try:
        found = second_opinion(folder / "data.pkl")
    except Exception as error:
        return f"read, but Python's unpickler says {type(error).__name__}: {error}"
    wrong = [name for name in _NAMES if _comparable(found.get(name)) != _comparable(values.get(name))]
    return f"Python's unpickler finds other values: {', '.join(wrong)}" if wrong else ""


def _comparable(value: Any) -> Any:
    """Byte order and kind of memory do not matter."""
    if isinstance(value, np.ndarray):
        native = value.astype(value.dtype.newbyteorder("="))
        return (native.dtype.str, value.shape, [_comparable(item) for item in value.flat] if value.dtype == object else
                np.ascontiguousarray(native).tobytes())  # fmt: skip
    if isinstance(value, dict):
        return {name: _comparable(item) for name, item in value.items()}
    return [_comparable(item) for item in value] if isinstance(value, list | tuple) else repr(value)


def _model() -> dict[str, np.ndarray]:
    return made_up_model(per_joint=2, shapes=3)


def _model_but(name: str) -> dict[str, np.ndarray]:
    return {other: array for other, array in _model().items() if other != name}


def _write_model(name: str, folder: Path, content: dict[str, Any]) -> None:
    write_model(folder / name, content)


def _read_model(name: str, folder: Path) -> Values:
    return {key: value for key, value in vars(read_body_model(folder / name)).items() if key != "file"}


def _but_for_shapes(values: Values, whole: Values) -> bool:
    """A model may have any number of shapes."""
    return same(*({name: each[name] for name in whole if name != "shapes"} for each in (values, whole)))


def _write_npz(name: str, folder: Path, content: dict[str, Any]) -> None:
    np.savez_compressed(folder / name, **content)


def _judge_model(folder: Path, values: Values) -> str:
    """Python's unpickler's arrays in an npz file must give the same model."""
    write, read = partial(_write_npz, "smpl.npz"), partial(_read_model, "smpl.npz")
    return as_rewritten(lambda place: second_opinion(place / "smpl.pkl", list(_model())), write, read)(folder, values)


@lru_cache(maxsize=1)
def _model_values() -> Values:
    with TemporaryDirectory() as folder:
        write_model(Path(folder) / "smpl.npz", _model())
        return _read_model("smpl.npz", Path(folder))


def _regressor() -> dict[str, Any]:
    return {"J_regressor": made_up_regressor(_model())}


def _write_npy(folder: Path, content: dict[str, Any]) -> None:
    np.save(folder / "regressor.npy", np.asarray(content["J_regressor"]))


def _parse_npy(folder: Path) -> dict[str, Any]:
    """The numbers behind the header, if that is as it was."""
    content = (folder / "regressor.npy").read_bytes()
    start = 10 + int.from_bytes(content[8:10], "little")
    array = np.frombuffer(content[start:], dtype="<f8")
    return {"J_regressor": array.reshape(17, -1)}


def _read_regressor(name: str, folder: Path) -> Values:
    """With a body model: only then it is known how many vertices there are."""
    model = BodyModel(file=Path("smpl.npz"), **_model_values())
    weights = read_regressor(folder / name, "spin")
    fold(model, weights, folder / name)
    return {"weights": weights}


FORMATS = (
    Format(
        name="pickle, protocol 4",
        content=_plain,
        write=_write_plain,
        damaged=("data.pkl",),
        read=_read_plain,
        judge=_judge_plain,
        hostile=hostile_pickles("data.pkl", Path.write_bytes, "poses", (0, 2, 4))
        | {f"memory: {kind}": partial(_bomb, kind) for kind in _BOMBS},
    ),
    Format(
        name="body model pkl (Python 2)",
        content=_model,
        write=partial(_write_model, "smpl.pkl"),
        damaged=("smpl.pkl",),
        read=partial(_read_model, "smpl.pkl"),
        judge=_judge_model,
        mistype=retyped(partial(_write_model, "smpl.pkl")),
        hostile=hostile_pickles("smpl.pkl", Path.write_bytes, "v_template", (2,)),
    ),
    Format(
        name="body model npz",
        content=_model,
        write=partial(_write_model, "smpl.npz"),
        damaged=("smpl.npz",),
        read=partial(_read_model, "smpl.npz"),
        mistype=retyped(partial(_write_npz, "smpl.npz")),
        legal=_but_for_shapes,
        hostile=hostile_pickles("smpl.npz", in_npz("v_template", _model_but("v_template")), "v_template", (4,)),
    ),
    Format(
        name="joint regressor npz",
        content=_regressor,
        write=partial(_write_npz, "regressor.npz"),
        damaged=("regressor.npz",),
        read=partial(_read_regressor, "regressor.npz"),
        mistype=retyped(partial(_write_npz, "regressor.npz")),
        hostile=npz_bombs("regressor.npz", "J_regressor"),
    ),
    Format(
        name="joint regressor npy",
        content=_regressor,
        write=_write_npy,
        damaged=("regressor.npy",),
        read=partial(_read_regressor, "regressor.npy"),
        judge=as_rewritten(_parse_npy, _write_npy, partial(_read_regressor, "regressor.npy")),
        mistype=retyped(_write_npy),
    ),
)
