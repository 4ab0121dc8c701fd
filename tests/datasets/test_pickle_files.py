"""Pickle files: those of Python 2, scipy and chumpy come back as arrays; nothing harmful runs, nothing bursts."""

import os
import pickle
import struct
import subprocess
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from body_files import Old, old_pickle, sparse, wrapped
from scipy.sparse import csc_matrix, csr_matrix

from posegrid.datasets.unpickling.restricted_pickle import read_npy, read_npz, read_pickle


def saved(folder: Path, content: bytes) -> Path:
    file = folder / "data.pkl"
    file.write_bytes(content)
    return file


def plain() -> dict:
    generator = np.random.default_rng(0)
    return {
        "poses": [generator.normal(size=(40, 72)), generator.normal(size=(3, 3, 18)).astype(np.float32)],
        "campose_valid": [np.array([1, 0, 1], dtype=np.uint8), np.arange(400) % 3 == 0],
        "genders": ["m", "f"],
        "sequence": "caf\xe9_00",
        "long": "x" * 300,
        "deep": {"a": (1, 2.5, None, True), "none": []},
    }


def assert_equal(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        expected, found = list(expected.values()), list(found.values())
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def test_files_of_python_2_come_back(tmp_path):
    content = old_pickle(plain())
    # what the test writes is what Python's own unpickler takes for the same values
    assert_equal(pickle.loads(content, encoding="latin1"), plain())
    assert_equal(read_pickle(saved(tmp_path, content), list(plain())), plain())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_files_of_python_3_come_back(tmp_path, protocol):
    expected = plain()
    expected["poses"].append(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    expected["shared"] = expected["poses"][0]
    file = saved(tmp_path, pickle.dumps(expected, protocol=protocol))
    assert_equal(read_pickle(file, list(expected)), expected)


def test_only_named_entries_are_returned(tmp_path):
    file = saved(tmp_path, old_pickle(plain()))
    assert set(read_pickle(file, ["genders"], ["sequence", "absent"])) == {"genders", "sequence"}
    with pytest.raises(ValueError, match=r"data\.pkl lacks the entries betas, trans \(it has campose_valid, .*Fetch"):
        read_pickle(file, ["betas", "genders", "trans"])
    with pytest.raises(ValueError, match=r"type list in place of a dictionary"):
        read_pickle(saved(tmp_path, old_pickle([1])), ["a"])


class Ch:
    """What chumpy's class is to pickle."""


def test_sparse_and_wrapped_arrays_become_arrays(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(5, 7)) * (generator.random((5, 7)) < 0.3)
    array = generator.normal(size=(40, 3))
    state = {"a": wrapped(array), "idxs": np.arange(6), "preferred_shape": (2, 3)}
    selected = Old("chumpy.reordering", "Select", state)
    old = read_pickle(
        saved(tmp_path, old_pickle({"m": sparse(matrix), "w": wrapped(array), "s": selected})), ["m", "w", "s"]
    )
    for name, expected in (("m", matrix), ("w", array), ("s", array[:2])):
        np.testing.assert_array_equal(old[name], expected)
    # files of other writers: scipy's own of today, and chumpy's class with protocols 0 and 1
    for name in ("chumpy", "chumpy.ch"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["chumpy.ch"], "Ch", Ch, raising=False)
    monkeypatch.setattr(Ch, "__module__", "chumpy.ch")
    instance = Ch()
    instance.x, instance._dirty_vars = array, {"x"}
    for protocol in range(5):
        content = pickle.dumps({"m": csc_matrix(matrix), "w": instance}, protocol=protocol)
        found = read_pickle(saved(tmp_path, content), ["m", "w"])
        np.testing.assert_array_equal(found["m"], matrix)
        np.testing.assert_array_equal(found["w"], array)
    # the same in the object arrays of npz files, which converted models have
    np.savez(tmp_path / "m.npz", J_regressor=np.array(csc_matrix(matrix), dtype=object))
    np.testing.assert_array_equal(read_npz(tmp_path / "m.npz", ["J_regressor"])["J_regressor"], matrix)


class Harmful:
    """Calls a function of its choice when unpickled in the usual way."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_harmful_files_do_not_run(tmp_path):
    mark = tmp_path / "ran"
    write = f"open({str(mark)!r}, 'w').close()"
    calls = [
        Harmful(os.system, f"touch {mark}"),
        Harmful(subprocess.Popen, ["touch", str(mark)]),
        Harmful(eval, write),
        Harmful(exec, write),
        Harmful(os.mkdir, str(mark)),
        Harmful(np.load, str(mark), None, True),
        Harmful(np.fromfile, str(mark)),
        Harmful(getattr, "text", "upper"),
        OrderedDict(a=1),
        csr_matrix(np.eye(2)),
    ]
    for protocol in (0, 4):
        for call in calls:
            in_state = np.empty(1, dtype=object)
            in_state[0] = {"a": (call,)}
            for content in (call, {"poses": 1, "other": call}, {"poses": [in_state]}, {"poses": {(1, "a"): [call]}}):
                file = saved(tmp_path, pickle.dumps(content, protocol=protocol))
                with pytest.raises(ValueError, match=r"data\.pkl holds the name \S+; only arrays.*Nothing was run"):
                    read_pickle(file, ["poses"])
                assert not mark.exists()
    # the guard must be what stops them: in the usual way it runs
    pickle.loads(pickle.dumps({"poses": calls[2]}))
    assert mark.exists()


POSES = b"\x80\x02}U\x05poses"
"""A dictionary and its key; what follows is the value, then b"s."."""
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"


@pytest.mark.parametrize(
    "value",
    [
        b"cnumpy\nndarray\n",  # a name itself as the value
        b"cnumpy\ndtype\n(U\x02f8tR",  # a bare type
        b"cnumpy.core.multiarray\nscalar\n)\x81",  # a class made without what it needs
        b"cnumpy.core.multiarray\nscalar\nN}U\x04realI1\ns\x86b",  # attributes of a stand-in's class
        b"cnumpy.core.multiarray\n_reconstruct\n}U\x0c__defaults__)sb",  # attributes of a function
        b"cnumpy\nndarray\n)R",  # an array without content
        b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR",  # an object of another kind
        b"c__builtin__\nset\n(]tR",  # a set
        b"I1\n)R",  # a call of a number
        b"]q\x00h\x00a",  # a list that holds itself
        b"h\x07",  # nothing has that number
        b"(lp0\n}g0\nI1\ns",  # a list as a key
        b"}G?\xf0\x00\x00\x00\x00\x00\x00I1\ns",  # a number with a fraction as a key
        b"P0\n",  # a persistent id
        b"\x82\x01",  # an extension
        b"(i__main__\nX\n",  # an instance of old
        b"0" * 50,  # more taken than there is
        b"t",  # no mark
    ],
)
def test_crafted_files_are_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"data\.pkl (holds|is damaged)"):
        read_pickle(saved(tmp_path, POSES + value + b"s."), ["poses"])
    # and leave nothing behind
    assert_equal(read_pickle(saved(tmp_path, old_pickle(plain())), list(plain())), plain())


def nest(opening: bytes, closing: bytes, levels: int = 60_000) -> bytes:
    return opening * levels + closing * levels


def doubled(step: bytes, times: int, begin: bytes = b"(I1\nI1\nl") -> bytes:
    return begin + b"".join(step for _ in range(times))


def dense(rows: int, columns: int) -> bytes:
    state = {
        "_shape": (rows, columns),
        "data": np.ones(1),
        "indices": np.zeros(1, np.int32),
        "indptr": np.zeros(columns + 1 if columns < 10 else 1, np.int32),
    }
    return old_pickle(Old("scipy.sparse.csc", "csc_matrix", state))[2:-1]


BOMBS = {
    "memo index": b"]r\xff\xff\xff\x7f",
    "memo index in text": b"]p99999999999\n",
    "bytes": b"B\xff\xff\xff\xff",
    "bytes, 64 bits": b"\x8e" + struct.pack("<Q", 2**62),
    "text": b"X\xff\xff\xff\x7f",
    "old text": b"T\xff\xff\xff\x7f",
    "negative length": b"T\xff\xff\xff\xff",
    "frame": b"\x95" + struct.pack("<Q", 2**62) + b"B\xff\xff\xff\xff",
    "long number": b"\x8b\xff\xff\xff\x7f",
    "digits": b"L" + b"9" * 1_000_000 + b"L\n",
    "lists in lists": nest(b"(", b"l"),
    "tuples in tuples": b")" + b"\x85" * 60_000,
    "tuples as a key": b"})" + b"\x85" * 60_000 + b"I1\ns",
    "dictionaries in dictionaries": nest(b"}U\x01a", b"s"),
    "arrays in arrays": nest(ARRAY + b"(", b"tb", 5_000),
    "list of the same lists": doubled(b"2\x86", 60),
    "list of the same texts": b"(" + b"X\x00\x00\x01\x00" + b"a" * 65536 + b"q\x00" + b"h\x00" * 10_000 + b"l",
    "encoded again and again": (
        b"(X\x00\x00\x01\x00" + b"a" * 65536 + b"q\x000" + b"c_codecs\nencode\nh\x00U\x06latin1\x86R" * 10_000 + b"l"
    ),
    "arrays of the same objects": (
        b"(" + b"N" * 50_000 + b"lq\x000cnumpy\ndtype\n(U\x02O8tRq\x010("
        + (ARRAY + b"(I1\n(I50000\nth\x01I00\nh\x00tb") * 3000 + b"l"
    ),
    "sparse, rows": dense(2**31 - 1, 1),
    "sparse, columns": dense(1, 2**31 - 1),
    "shape beyond the content": ARRAY + b"(I1\n(I500000000\ntcnumpy\ndtype\n(U\x02f8tRI00\nU\x0812345678tb",
}  # fmt: skip


HELD = ("memo index", "memo index in text")
"""These are harmless here and read."""


def test_small_files_cannot_fill_the_memory(tmp_path):
    """In a process that may have half a GiB more than it begins with: a burst or an overflow of the stack ends it."""
    for number, value in enumerate(BOMBS.values()):
        (tmp_path / f"{number}.pkl").write_bytes(POSES + value + b"s.")
    code = (
        "import resource, sys, time; from pathlib import Path\n"
        "from posegrid.datasets.unpickling.restricted_pickle import read_pickle\n"
        "most = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize() + 2**29\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "for number in range(int(sys.argv[2])):\n"
        "    began, said = time.process_time(), 'read'\n"
        "    try: read_pickle(Path(sys.argv[1]) / f'{number}.pkl', ['poses'])\n"
        "    except ValueError as error: said = str(error).replace('\\n', ' ')\n"
        "    print(round(time.process_time() - began), said, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(len(BOMBS))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert len(lines) == len(BOMBS), f"{list(BOMBS)[len(lines)]} ended the process: {done.stderr}"
    for name, line in zip(BOMBS, lines, strict=True):
        seconds, said = line.split(" ", 1)
        assert int(seconds) < 10, name
        assert (said == "read") == (name in HELD), f"{name}: {said}"
        assert name in HELD or (".pkl holds" in said or ".pkl is damaged" in said), f"{name}: {said}"
        assert "MemoryError" not in said, name


def test_cut_and_damaged_files_are_refused_or_read(tmp_path):
    content = old_pickle({"poses": plain()["poses"], "w": wrapped(np.eye(3)), "m": sparse(np.eye(3))})
    generator = np.random.default_rng(0)
    for position in [0, 1, 2, *generator.integers(3, len(content), 100)]:
        with pytest.raises(ValueError, match=r"data\.pkl (is damaged or cut|holds)"):
            read_pickle(saved(tmp_path, content[:position]), ["poses", "w", "m"])
    messages = []
    for position in generator.integers(0, 900, 200):
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(generator.integers(8))
        try:
            read_pickle(saved(tmp_path, bytes(flipped)), ["poses"], ["w", "m"])
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all("data.pkl" in message for message in messages)
    with pytest.raises(ValueError, match=r"none\.pkl is damaged.*No such file"):
        read_pickle(tmp_path / "none.pkl", ["poses"])


def test_npy_files(tmp_path):
    file = tmp_path / "data.npy"
    np.save(file, np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    np.testing.assert_array_equal(read_npy(file), np.arange(6.0).reshape(2, 3))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"data\.npy is damaged"):
        read_npy(file)
    for wrong in (np.array(["a"]), np.array([Harmful(os.getcwd)], dtype=object)):
        np.save(file, wrong)
        with pytest.raises(ValueError, match=r"data\.npy holds"):
            read_npy(file)


def test_text_entries_of_npz_files(tmp_path):
    np.savez(tmp_path / "a.npz", gender=np.array("female"), old=np.array(b"male"))
    found = read_npz(tmp_path / "a.npz", ["gender", "old"])
    assert (str(found["gender"]), bytes(found["old"])) == ("female", b"male")
