"""Pickled archives: plain data comes back, anything else is refused before it can run."""

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from posegrid.datasets.unpickling.restricted_pickle import read_npz


class Harmful:
    """Calls a function of its choice when unpickled in the usual way."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def saved(folder: Path, **entries) -> Path:
    file = folder / "data.npz"
    np.savez_compressed(file, **entries)
    return file


def with_pickle(folder: Path, content: bytes) -> Path:
    """An npz file whose object array is the given pickle."""
    file = folder / "data.npz"
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content)
    return file


def nested() -> dict:
    generator = np.random.default_rng(0)
    return {
        "S1": {
            "Walking 1": generator.normal(size=(5, 32, 3)).astype(np.float32),
            "Sitting": [generator.normal(size=(4, 17, 2)), np.asfortranarray(generator.normal(size=(3, 2)))],
        },
        "numbers": (1, 2.5, True, None, "text", b"bytes", np.float64(0.25), np.int32(7)),
        "objects": np.array([np.arange(3), "x", None], dtype=object),
        "big": np.arange(4, dtype=">i2"),
        "empty": np.zeros((0, 3)),
    }


def assert_equal(found, expected):
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, list | tuple) or (isinstance(expected, np.ndarray) and expected.dtype == object):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_data_comes_back(tmp_path, protocol):
    expected = nested()
    file = with_pickle(tmp_path, pickle.dumps(np.array(expected, dtype=object), protocol=protocol))
    assert_equal(read_npz(file, ["data"])["data"], expected)


def test_numpys_own_files_come_back(tmp_path):
    expected, plain = nested(), np.arange(12.0).reshape(3, 4).T
    content = read_npz(saved(tmp_path, data=expected, plain=plain, other=1), ["data", "plain"])
    assert_equal(content["data"], expected)
    np.testing.assert_array_equal(content["plain"], plain)
    assert set(content) == {"data", "plain"}


def test_old_module_names_are_known(tmp_path):
    """Files written by NumPy 1 name numpy.core, those by NumPy 2 numpy._core."""
    content = pickle.dumps(np.array({"a": np.arange(3.0), "b": np.float64(2.0)}, dtype=object), protocol=2)
    for module in (b"numpy.core", b"numpy._core"):
        renamed = content.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", module)
        found = read_npz(with_pickle(tmp_path, renamed), ["data"])["data"]
        assert_equal(found, {"a": np.arange(3.0), "b": 2.0})


def test_harmful_pickles_do_not_run(tmp_path):
    mark = tmp_path / "ran"
    calls = [
        Harmful(os.system, f"touch {mark}"),
        Harmful(eval, f"open({str(mark)!r}, 'w').close()"),
        Harmful(os.mkdir, str(mark)),
        Harmful(getattr, "text", "upper"),
        Harmful(np.fromfile, str(tmp_path / "x")),
        OrderedDict(a=1),
    ]
    for call in calls:
        for content in (call, {"S1": {"Walking": [np.zeros(3), call]}}, np.array([call], dtype=object)):
            file = saved(tmp_path, data=np.array(content, dtype=object))
            with pytest.raises(ValueError, match=r"data\.npz holds the name \S+; only arrays.*Nothing was run"):
                read_npz(file, ["data"])
            assert not mark.exists()
    # the guard must be what stops them: in the usual way the second one runs
    np.load(saved(tmp_path, data=np.array(calls[1], dtype=object)), allow_pickle=True)["data"]
    assert mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\nndarray\n.",  # a name itself as the value
        b"cnumpy\ndtype\n(S'O8'\ntR.",  # a bare type
        b"cnumpy\nndarray\n)R.",  # an array without content
        b"cnumpy\ndtype\n(S'V8'\ntRp0\n0cnumpy.core.multiarray\nscalar\n(g0\nS'12345678'\ntR.",  # raw memory
        b"cnumpy\ndtype\n(S'O8'\ntRp0\n0cnumpy.core.multiarray\nscalar\n(g0\nS'12345678'\ntR.",  # a raw pointer
        b"(lp0\ng0\na.",  # a list that holds itself
        b"I1\n",  # no end
        b"\xff\xfe",  # no pickle
        b"P0\n.",  # a persistent id
    ],
)
def test_crafted_pickles_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"data\.npz (holds|is damaged)"):
        read_npz(with_pickle(tmp_path, content), ["data"])


@pytest.mark.parametrize(("code", "shape"), [("f8", 1000), ("S8", 1), ("f8,O", 1), ("O8", 2)])
def test_lying_arrays_are_refused(tmp_path, code, shape):
    """A shape larger than the bytes would read past their end, a type with objects would make pointers of them."""
    head = "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    state = f"(I1\n(I{shape}\ntcnumpy\ndtype\n(S'{code}'\ntRI00\nS'12345678'\ntb."
    with pytest.raises(ValueError, match=r"data\.npz (holds|is damaged)"):
        read_npz(with_pickle(tmp_path, (head + state).encode()), ["data"])


def test_cut_and_damaged_files_are_refused(tmp_path):
    file = saved(tmp_path, data=nested())
    content = file.read_bytes()
    generator = np.random.default_rng(0)
    for position in [0, 1, *generator.integers(2, len(content) - 1, 60)]:
        file.write_bytes(content[:position])
        with pytest.raises(ValueError, match=r"data\.npz is damaged or cut.*Fetch or make it again"):
            read_npz(file, ["data"])
    # a flipped byte within the compressed data is noticed by the checksum at the latest
    for position in generator.integers(60, len(content) - 200, 40):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        file.write_bytes(bytes(flipped))
        with pytest.raises(ValueError, match=r"data\.npz"):
            read_npz(file, ["data"])


def test_missing_entries_and_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"lacks the entries positions_3d \(it has data\)"):
        read_npz(saved(tmp_path, data=1), ["positions_3d"])
    with pytest.raises(ValueError, match=r"none\.npz is damaged"):
        read_npz(tmp_path / "none.npz", ["data"])
