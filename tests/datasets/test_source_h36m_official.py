"""Human3.6M's official files on made-up ones of the same layout: .cdf.mat of both kinds, .cdf, damaged ones."""

import pickle
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from h36m_files import GT_DATA, POSE_DATA, SUBJECTS, write
from scipy.io import savemat

from posegrid.datasets.prepare import prepare
from posegrid.datasets.sources import h36m, h36m_official

OFFICIAL_NAMES = {"Photo": "TakingPhoto", "WalkDog": "WalkingDog"}


def official(name: str) -> str:
    """A recording under the name that its owners gave it; of some they used the later name."""
    action, *take = name.split(" ")
    return " ".join([OFFICIAL_NAMES.get(action, action), *take])


def flat(world: np.ndarray) -> np.ndarray:
    """(F, 96) millimetres."""
    return world.reshape(len(world), 96).astype(np.float64) * 1000


def write_mat(file: Path, value: np.ndarray, compress: bool = True) -> None:
    """A variable `data`, a cell with one array, as MATLAB 5 to 7."""
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = value
    savemat(file, {"data": cell}, do_compression=compress)


def write_mat73(file: Path, value: np.ndarray) -> None:
    """The same as MATLAB 7.3: HDF5 behind 512 bytes of header, a reference per cell, axes reversed."""
    with h5py.File(file, "w", userblock_size=512) as stream:
        target = stream.create_group("#refs#").create_dataset("b", data=value.T)
        stream.create_dataset("data", data=np.array([[target.ref]], dtype=h5py.ref_dtype))
    with file.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def write_cdf(file: Path, value: np.ndarray) -> None:
    """A variable `Pose` of one record, as cdflib writes it."""
    cdfwrite = pytest.importorskip("cdflib.cdfwrite", reason="cdflib (the extra cdf) is not installed")
    with cdfwrite.CDF(str(file.with_suffix("")), delete=True) as stream:
        spec = {"Variable": "Pose", "Data_Type": 44, "Num_Elements": 1, "Rec_Vary": True, "Dim_Sizes": value.shape}
        stream.write_var(spec, var_data=value[None].astype(np.float32))


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """All recordings: .cdf.mat of version 5, of 7.3 for S5; a .cdf beside one; a collection that is no recording."""
    raw = tmp_path_factory.mktemp("official")
    for subject in SUBJECTS:
        folder = raw / subject / "MyPoseFeatures" / "D3_Positions"
        folder.mkdir(parents=True)
        for name, world in POSE_DATA[subject].items():
            file = folder / f"{official(name) if subject != 'S1' else name}.cdf.mat"
            (write_mat73 if subject == "S5" else write_mat)(file, flat(world))
        (folder / "_ALL.cdf.mat").write_bytes(b"not looked at")
    (raw / "S1" / "MyPoseFeatures" / "D3_Positions" / "Walking.cdf").write_bytes(b"the .cdf.mat is read")
    return raw


@pytest.fixture
def one(raw, tmp_path):
    """A copy of one recording's file to damage; call it to read it. S9, second take of WalkDog."""
    recordings = h36m_official.list_recordings(h36m_official.Config(), raw)
    recording = next(r for r in recordings if (r.subject, r.name) == ("S9", "WalkDog 1"))
    file = tmp_path / Path(recording.files[0]).name
    shutil.copy(recording.files[0], file)

    def read(ending: str = ".cdf.mat"):
        renamed = str(file).replace(".cdf.mat", ending)
        moved = type(recording)(**{**vars(recording), "files": (renamed,)})
        return h36m_official.read_recording(h36m_official.Config(), pickle.loads(pickle.dumps(moved)))

    read.file = file
    return read


def test_everything_equals_the_npz_files(raw, tmp_path):
    """Another format, another reader, projections made when the npz file was written: the same motion."""
    write(tmp_path)
    npz, own = h36m.Config(keypoints="gt"), h36m_official.Config()
    expected, found = h36m.list_recordings(npz, tmp_path), h36m_official.list_recordings(own, raw)
    assert [(r.subject, r.name, r.action) for r in found] == [(r.subject, r.name, r.action) for r in expected]
    protocol = h36m_official.protocol(own, found)
    assert protocol.held_out == h36m.protocol(npz, expected).held_out
    assert protocol.keypoints == "projected"
    assert h36m_official.protocol(h36m_official.Config(hold_out=False), found).held_out == ()
    for ours, theirs in list(zip(found, expected, strict=True))[::11]:
        sequences = h36m_official.read_recording(own, ours)
        for a, b in zip(sequences, h36m.read_recording(npz, theirs), strict=True):
            assert a.poses.tobytes() == b.poses.tobytes()
            # pixels in the npz file are single precision: 3e-5 px
            np.testing.assert_allclose(a.keypoints, b.keypoints, atol=3e-7)
            assert (a.name, a.action, a.camera_parameters) == (b.name, b.action, b.camera_parameters)


def test_store(raw, tmp_path):
    store = prepare("h36m_official", raw, tmp_path / "store", options={"images": "{subject}/{frame}.jpg"})
    assert len(store.sequences) == (210 - 1) * 4
    assert {sequence.split for sequence in store.sequences} == {"train", "held_out", "test"}
    assert '"template": "S1/{frame}.jpg"' in store.sequences[0].images


def test_cdf_files_say_the_same(one, tmp_path):
    expected = one()
    world = POSE_DATA["S9"]["WalkDog 1"]
    write_cdf(tmp_path / "WalkingDog 1.cdf", flat(world))
    for a, b in zip(one(".cdf"), expected, strict=True):
        np.testing.assert_allclose(a.poses, b.poses, atol=1e-6)
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-6)


def test_both_versions_of_matlab_files_say_the_same(one):
    expected = [sequence.poses.tobytes() for sequence in one()]
    for change in (write_mat73, lambda file, value: write_mat(file, value, compress=False)):
        change(one.file, flat(POSE_DATA["S9"]["WalkDog 1"]))
        assert [sequence.poses.tobytes() for sequence in one()] == expected


def test_a_missing_library_is_named(raw, one, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cdflib", None)
    h36m_official.list_recordings(h36m_official.Config(), raw)
    shutil.copytree(raw, tmp_path / "raw")
    folder = tmp_path / "raw" / "S6" / "MyPoseFeatures" / "D3_Positions"
    (folder / "Eating.cdf.mat").rename(folder / "Eating.cdf")
    with pytest.raises(ValueError, match=r"Eating\.cdf .* cdflib, which is not installed.*posegrid\[cdf\]"):
        h36m_official.list_recordings(h36m_official.Config(), tmp_path / "raw")
    with pytest.raises(ValueError, match=r"posegrid\[cdf\]"):
        one(".cdf")


def test_missing_parts_are_named(raw, tmp_path):
    def listed():
        return h36m_official.list_recordings(h36m_official.Config(), tmp_path)

    with pytest.raises(ValueError, match=r"no S1/MyPoseFeatures/D3_Positions/\*\.cdf or .*vision\.imar\.ro"):
        listed()
    with pytest.raises(ValueError, match="raw folder None"):
        h36m_official.list_recordings(h36m_official.Config(), None)
    shutil.copytree(raw, tmp_path, dirs_exist_ok=True)
    assert len(listed()) == 210
    (tmp_path / "S8" / "MyPoseFeatures" / "D3_Positions" / "TakingPhoto.cdf.mat").unlink()
    with pytest.raises(ValueError, match=r"S8 has 29 recordings, other than two of Photo \(1\); expected 30"):
        listed()
    shutil.rmtree(tmp_path / "S11")
    shutil.copytree(raw / "S8", tmp_path / "S8", dirs_exist_ok=True)
    with pytest.raises(ValueError, match="no S11/MyPoseFeatures"):
        listed()


def test_wrong_content_is_named(one):
    value = flat(POSE_DATA["S9"]["WalkDog 1"])
    hole = value.copy()
    hole[1, 8] = np.nan
    cases = [
        (value.T, r"expected floats of shape \(frames, 96\)"),
        (value[:, :51], r"holds float64 \(\d, 51\), expected floats of shape \(frames, 96\)"),
        (value.astype(np.int32), r"holds int32 \(\d, 96\), expected floats"),
        (value[:0], "expected floats of shape"),
        (hole, "holds 1 NaN or infinite values, the first at frame 1, joint 2"),
        (value / 1000, "bones 0.00.* times as long as a person's"),
    ]
    for change in (write_mat, write_mat73):
        for wrong, message in cases:
            change(one.file, wrong)
            with pytest.raises(ValueError, match=message):
                one()
    savemat(one.file, {"Pose": value})
    with pytest.raises(ValueError, match=r"lacks the variables data \(it has Pose\)"):
        one()
    savemat(one.file, {"data": "text"})
    with pytest.raises(ValueError, match="only real numbers and cells are read"):
        one()


@pytest.mark.parametrize("ending", [".cdf.mat", ".cdf.mat of 7.3", ".cdf"])
def test_cut_files_are_refused_at_every_length(one, tmp_path, ending):
    file = one.file
    if ending == ".cdf.mat of 7.3":
        write_mat73(file, flat(POSE_DATA["S9"]["WalkDog 1"]))
    elif ending == ".cdf":
        file = tmp_path / "WalkingDog 1.cdf"
        write_cdf(file, flat(POSE_DATA["S9"]["WalkDog 1"]))
    whole = file.read_bytes()
    # behind the numbers of a CDF file are 48 bytes that nobody needs
    lengths = (0, 100, len(whole) - 50) if ending == ".cdf" else (0, 1, 100, 127, 130, 600, len(whole) // 2)
    for length in lengths:
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"{file.name} (is damaged|lacks)"):
            one(file.name.removeprefix("WalkingDog 1"))


def test_made_up_projections_are_those_of_the_files(raw):
    """The keypoints are in the image's own pixels: those that `h36m_files` projected with the lens model."""
    recording = h36m_official.list_recordings(h36m_official.Config(), raw)[40]
    for sequence, pixels in zip(
        h36m_official.read_recording(h36m_official.Config(), recording),
        GT_DATA[recording.subject][recording.name],
        strict=True,
    ):
        back = (sequence.keypoints + np.array([1, sequence.height / sequence.width])) * sequence.width / 2
        np.testing.assert_allclose(back, pixels, atol=2e-4)
