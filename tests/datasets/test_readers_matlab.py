"""MATLAB and HDF5 files: against SciPy's and h5py's own, links and holes refused, damaged ones never crash."""

import random
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from posegrid.datasets.readers import matlab
from posegrid.datasets.readers.hdf5 import read_hdf5
from posegrid.datasets.readers.matlab import read_mat

DAMAGED = 300
"""Damaged files of each kind."""


def same(one: np.ndarray, two: np.ndarray) -> bool:
    if one.dtype == np.dtype(object) or two.dtype == np.dtype(object):
        return one.shape == two.shape and all(map(same, one.ravel(), two.ravel()))
    return one.shape == two.shape and one.dtype == two.dtype and bool((one == two).all())


def cells(*values: np.ndarray) -> np.ndarray:
    made = np.empty((len(values), 1), dtype=object)
    for index, value in enumerate(values):
        made[index, 0] = value
    return made


@pytest.mark.parametrize("compress", [False, True])
def test_numbers_and_cells_equal_scipys(tmp_path, compress):
    """Every type of number, whole numbers (stored smaller than they are), empty ones, more axes, cells in cells."""
    generator = np.random.default_rng(0)
    types = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
    content = {f"of_{kind}": (generator.normal(size=(5, 7)) * 50).astype(kind) for kind in types}
    content |= {
        "whole": np.arange(600.0).reshape(20, 30),
        "axes": generator.normal(size=(3, 1, 4, 2)),
        "empty": np.zeros((0, 3)),
        "one": np.array([[2.5]]),
        "a_name_as_long_as_matlab_allows_it_to_be_which_is_63_characters": np.eye(3),
        "nested": cells(np.eye(2), cells(np.arange(3.0)[None], np.zeros((0, 0)))),
    }
    file = tmp_path / "file.mat"
    savemat(file, {**content, "text": "not asked for", "record": {"a": 1}}, do_compression=compress)
    expected, found = loadmat(file), read_mat(file, list(content))
    assert len(found) == len(content)
    for name in content:
        assert same(found[name], expected[name]), name


def test_files_of_other_byte_order_are_read(tmp_path):
    """Written by hand after the format's description: a big-endian file with one 2 x 2 array of doubles."""
    elements = [
        np.array([6, 8, 6, 0], ">u4").tobytes(),  # flags: class double
        np.array([5, 8, 2, 2], ">u4").tobytes(),  # shape
        np.array([1], ">u2").tobytes() + np.array([1], ">u2").tobytes() + b"x\0\0\0",  # name, a short element
        np.array([9, 32], ">u4").tobytes() + np.array([1, 2, 3, 4], ">f8").tobytes(),
    ]
    body = b"".join(elements)
    file = tmp_path / "file.mat"
    header = b"by hand".ljust(116) + bytes(8) + b"\x01\x00MI"
    file.write_bytes(header + np.array([14, len(body)], ">u4").tobytes() + body)
    assert read_mat(file, ["x"])["x"].tolist() == [[1, 3], [2, 4]]


def test_what_is_no_numbers_is_refused(tmp_path):
    file = tmp_path / "file.mat"
    for value in ("text", {"a": 1.0}, np.array([[1 + 2j]]), cells(np.eye(2), np.array(["text"]))):
        savemat(file, {"x": value})
        with pytest.raises(ValueError, match=r"file\.mat is damaged or cut .*only real numbers and cells are read"):
            read_mat(file, ["x"])
    with pytest.raises(ValueError, match=r"lacks the variables y, z \(it has x\)"):
        read_mat(file, ["y", "z"])
    with pytest.raises(ValueError, match=r"absent\.mat"):
        read_mat(tmp_path / "absent.mat", ["x"])
    file.write_bytes(b"no matlab file" * 20)
    with pytest.raises(ValueError, match="has no header"):
        read_mat(file, ["x"])


def test_compressed_variables_cannot_fill_the_memory(tmp_path, monkeypatch):
    file = tmp_path / "file.mat"
    savemat(file, {"x": np.zeros((500, 500))}, do_compression=True)
    assert file.stat().st_size < 10_000
    monkeypatch.setattr(matlab, "_MOST_BYTES", 100_000)
    with pytest.raises(ValueError, match="too long"):
        read_mat(file, ["x"])


def test_hdf5_content_that_lies_elsewhere_or_is_missing_is_refused(tmp_path):
    file, other = tmp_path / "file.h5", tmp_path / "other.h5"
    with h5py.File(other, "w") as stream:
        stream["x"] = np.ones((4, 3))
    (tmp_path / "raw.bin").write_bytes(np.ones(12).tobytes())
    with h5py.File(file, "w") as stream:
        stream["outside"] = h5py.ExternalLink("other.h5", "/x")
        stream["soft"] = h5py.SoftLink("/whole")
        stream["whole"] = np.arange(6.0)
        stream.create_dataset("hole", (10, 3), "f8", chunks=(5, 3))[:5] = 1.0
        stream.create_dataset("never", (10, 3), "f8")
        stream.create_dataset("external", (4, 3), "f8", external=[(str(tmp_path / "raw.bin"), 0, 96)])
        layout = h5py.VirtualLayout((4, 3), "f8")
        layout[:] = h5py.VirtualSource(str(other), "x", (4, 3))
        stream.create_virtual_dataset("virtual", layout)
        stream.create_dataset("huge", (2**20, 2**12), "f8", chunks=(1024, 1024))
        stream["text"] = "text"
        stream.create_group("group")
        stream["nothing"] = h5py.Empty("f8")
    assert read_hdf5(file, ["whole"])["whole"].tolist() == list(range(6))
    assert read_hdf5(file.read_bytes(), ["whole"], "memory")["whole"].tolist() == list(range(6))
    for name, message in (
        ("outside", "outside is a link"), ("soft", "soft is a link"), ("hole", "incomplete"), ("never", "incomplete"),
        ("external", "no content of its own"), ("virtual", "no content of its own"), ("huge", "32.0 GiB"),
        ("text", "expected plain numbers"), ("group", "expected a dataset"), ("nothing", "no content of its own"),
        ("absent", "lacks absent"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"file\.h5.*{message}"):
            read_hdf5(file, [name])
    with pytest.raises(ValueError, match="the member"):
        read_hdf5(b"cut", ["x"], "the member")


def write_kind(kind: str, file: Path) -> np.ndarray:
    """A file with the variable x."""
    generator = np.random.default_rng(3)
    if kind.startswith("mat5"):
        value = cells(*(generator.normal(size=(3, 28)) for _ in range(5)))
        savemat(file, {"y": np.arange(14), "x": value}, do_compression=kind == "mat5 compressed")
        return value
    value = generator.normal(size=(9, 17, 2))
    with h5py.File(file, "w") as stream:
        if kind == "hdf5 compressed":
            stream.create_dataset("x", data=value, chunks=(3, 17, 2), compression="gzip", fletcher32=True)
        else:
            stream["x"] = value
    return value


@pytest.mark.parametrize("kind", ["mat5", "mat5 compressed", "hdf5", "hdf5 compressed"])
def test_damaged_files_are_read_or_refused(tmp_path, kind):
    """Cut, or with flipped bits: a ValueError naming the file, or an array. Formats with a checksum give the right one.

    SciPy's compiled reader ends the process on about one in a hundred of the uncompressed ones.
    """
    file = tmp_path / "damaged"
    value = write_kind(kind, file)
    whole = file.read_bytes()
    read = read_hdf5 if kind.startswith("hdf5") else read_mat
    messages = []
    for seed in range(DAMAGED):
        draw = random.Random(seed)
        content = bytearray(whole)
        if seed % 3 == 0:
            del content[draw.randrange(len(content)) :]
        for _ in range(draw.choice([1, 1, 3, 20]) if seed % 3 else 0):
            content[draw.randrange(min(len(content), 2048) if seed % 3 == 1 else len(content))] ^= 1 << draw.randrange(
                8
            )
        file.write_bytes(content)
        try:
            found = read(file, ["x"])["x"]
        except ValueError as error:
            messages.append(str(error))
        else:
            assert isinstance(found, np.ndarray)
            if kind == "mat5 compressed":
                assert same(found, value)
    assert len(messages) > DAMAGED / 4
    assert all(str(file) in message for message in messages)
