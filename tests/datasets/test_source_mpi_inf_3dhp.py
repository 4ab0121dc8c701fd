"""MPI-INF-3DHP on made-up files of exactly the published layouts: npz of P-STMO and D3DP, raw ones, damaged ones."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from mpi_inf_3dhp_files import (
    AT_50_HZ,
    CALIBRATION,
    CAMERAS,
    PLACES_OF_17_IN_28,
    SEQUENCES,
    TESTS,
    UNIVERSAL,
    made_up_test,
    made_up_training,
    npz_content,
    write_annot,
    write_annot_data,
    write_npz,
)
from scipy.io import savemat

from posegrid.datasets.prepare import prepare
from posegrid.datasets.skeletons import H36M_17, MPI_INF_3DHP_17
from posegrid.datasets.sources import mpi_inf_3dhp as source


@pytest.fixture(scope="module")
def npz(tmp_path_factory) -> Path:
    """Both annotations."""
    return write_npz(write_npz(tmp_path_factory.mktemp("npz")), "_ori", 1.0)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """The authors' layout; test sequences lie in a folder of their own; S1 Seq1 alone has a calibration."""
    raw = tmp_path_factory.mktemp("raw")
    for name in SEQUENCES:
        folder = raw / name.replace(" ", "/")
        folder.mkdir(parents=True)
        write_annot(folder / "annot.mat", name)
    (raw / "S1" / "Seq1" / "camera.calibration").write_text(CALIBRATION)
    for name in TESTS:
        folder = raw / "mpi_inf_3dhp_test_set" / name
        folder.mkdir(parents=True)
        write_annot_data(folder / "annot_data.mat", name)
    return raw


def all_sequences(folder: Path, **options) -> list:
    config = source.Config(**options)
    recordings = source.list_recordings(config, folder)
    return [
        sequence
        for recording in recordings
        for sequence in source.read_recording(config, pickle.loads(pickle.dumps(recording)))
    ]


def test_recordings_and_splits(npz):
    config = source.Config()
    recordings = source.list_recordings(config, npz)
    assert [recording.action for recording in recordings] == SEQUENCES + TESTS
    protocol = source.protocol(config, recordings)
    split = {recording.action: protocol.split_of(recording.subject, recording.name) for recording in recordings}
    assert {name for name in split if split[name] == "held_out"} == {"S8 Seq1", "S8 Seq2"}
    assert {name for name in split if split[name] == "test"} == set(TESTS)
    everything = source.protocol(source.Config(hold_out=False), recordings)
    assert everything.held_out == ()
    assert everything.split_of("S8", "Seq1") == "train"


@pytest.mark.parametrize("annotation", ["universal", "metric"])
@pytest.mark.parametrize("files", ["npz", "raw"])
def test_sequences_are_what_was_put_in(npz, raw, files, annotation):
    sequences = all_sequences(npz if files == "npz" else raw, files=files, annotation=annotation)
    assert len(sequences) == 16 * 8 + 6
    factor = UNIVERSAL if annotation == "universal" else 1.0
    expected = [(name, camera, *made_up_training(name, camera), None) for name in SEQUENCES for camera in CAMERAS]
    expected += [(name, "test", *made_up_test(name)) for name in TESTS]
    for sequence, (name, camera, pixels, body, valid) in zip(sequences, expected, strict=True):
        width, height = (1920, 1080) if name in ("TS5", "TS6") else (2048, 2048)
        assert (sequence.action, sequence.camera) == (name, camera)
        assert (sequence.width, sequence.height) == (width, height)
        assert sequence.frame_rate == (50 if name in AT_50_HZ else 25)
        np.testing.assert_allclose(sequence.poses, body * factor / 1000, atol=1e-6)
        np.testing.assert_allclose(sequence.keypoints, (pixels - [width / 2, height / 2]) / (width / 2), atol=3e-7)
        if valid is None:
            assert sequence.valid is None
        else:
            assert sequence.valid.dtype == np.bool_
            assert sequence.valid.tolist() == (valid == 1).tolist()


def test_metric_test_poses_project_onto_the_keypoints(npz):
    """With the camera that the store gives; only metric sequences give one."""
    sequences = all_sequences(npz, annotation="metric")[-6:]
    for sequence in sequences:
        plain = sequence.camera_parameters
        pixels = sequence.poses[..., :2] / sequence.poses[..., 2:] * plain["focal_px"] + plain["centre_px"]
        back = (sequence.keypoints + np.array([1, sequence.height / sequence.width])) * sequence.width / 2
        np.testing.assert_allclose(pixels, back, atol=2e-3)
        assert not any((*plain["radial"], *plain["tangential"]))
    assert round(sequences[0].camera_parameters["focal_px"][0], 2) == 1500.17
    assert round(sequences[5].camera_parameters["centre_px"][0], 2) == 939.86
    assert not any(sequence.camera_parameters for sequence in all_sequences(npz))


def test_calibrations_are_read_where_they_lie_beside(raw):
    known = {
        sequence.name: sequence.camera_parameters
        for sequence in all_sequences(raw, files="raw", annotation="metric")
        if sequence.camera_parameters and sequence.camera != "test"
    }
    assert sorted(known) == ["S1/Seq1/0", "S1/Seq1/1"]
    assert known["S1/Seq1/1"]["focal_px"] == [1495.217, 1495.52]
    assert known["S1/Seq1/0"]["centre_px"] == [1024.704, 1051.394]
    assert known["S1/Seq1/0"]["orientation"] == [1, 0, 0, 0]


def test_both_kinds_of_files_give_one_store_each_time(npz, raw, tmp_path):
    stores = [
        prepare("mpi_inf_3dhp", npz, tmp_path / "npz"),
        prepare("mpi_inf_3dhp", raw, tmp_path / "raw", options={"files": "raw"}),
    ]
    # npz files may be in single precision: equal to rounding, so the hashes differ
    for column in ("keypoints", "poses"):
        np.testing.assert_allclose(getattr(stores[0], column), getattr(stores[1], column), atol=1e-6)
    assert stores[0].skeleton is MPI_INF_3DHP_17
    assert stores[0].description["source_config"]["annotation"] == "universal"
    scored = sum(int(made_up_test(name)[2].sum()) for name in TESTS)
    test = stores[0].of_split("test")
    spans = [slice(s.offset, s.offset + s.frames) for s in (stores[0].sequences[index] for index in test)]
    assert sum(int(stores[0].valid[span].sum()) for span in spans) == scored < sum(s.stop - s.start for s in spans)


def test_other_cameras_can_be_chosen(npz, raw):
    sequences = all_sequences(raw, files="raw", cameras=("13", "3"), test_frame_rate=30)
    assert [sequence.camera for sequence in sequences[:4]] == ["13", "3", "13", "3"]
    np.testing.assert_allclose(sequences[1].poses, made_up_training("S1 Seq1", "3")[1] * UNIVERSAL / 1000, atol=1e-6)
    assert sequences[-1].frame_rate == 30
    with pytest.raises(ValueError, match=r"S1 Seq1 lacks the cameras 3 \(it has 0, 1, 2, 4, 5, 6, 7, 8\)"):
        all_sequences(npz, cameras=("0", "3"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": "mat"}, "Known: npz, raw"),
        ({"annotation": "metrc"}, 'did you mean "metric"'),
        ({"cameras": ("14",)}, 'camera "14"'),
        ({"cameras": ()}, "at least one"),
        ({"cameras": ("1", "1")}, "each once"),
        ({"test_frame_rate": 0}, "must be positive"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        source.Config(**options)


def test_missing_files_are_named(npz, raw, tmp_path):
    def listed(folder, **options):
        return source.list_recordings(source.Config(**options), folder)

    with pytest.raises(ValueError, match=r"data_train_3dhp\.npz \(universal annotation\) is missing .* P-STMO"):
        listed(tmp_path)
    for files in ("npz", "raw"):
        with pytest.raises(ValueError, match="raw folder None"):
            listed(None, files=files)
    shutil.copy(npz / "data_train_3dhp.npz", tmp_path)
    with pytest.raises(ValueError, match=r"data_train_3dhp_ori\.npz .* universal annotation is there.*annotation=univ"):
        listed(tmp_path, annotation="metric")
    with pytest.raises(ValueError, match=r"S1/Seq1/annot\.mat is missing"):
        listed(tmp_path, files="raw")
    shutil.copytree(raw, tmp_path / "raw")
    (tmp_path / "raw" / "mpi_inf_3dhp_test_set" / "TS4").rename(tmp_path / "raw" / "TS4")
    assert len(listed(tmp_path / "raw", files="raw")) == 22
    shutil.copytree(tmp_path / "raw" / "TS4", tmp_path / "raw" / "other" / "TS4")
    with pytest.raises(ValueError, match=r"TS4/annot_data\.mat is 2 times"):
        listed(tmp_path / "raw", files="raw")
    (tmp_path / "raw" / "S7" / "Seq2" / "annot.mat").unlink()
    with pytest.raises(ValueError, match=r"S7/Seq2/annot\.mat is missing"):
        listed(tmp_path / "raw", files="raw")


def read_npz_with(folder: Path, wanted: str, train: dict | None = None, test: dict | None = None):
    """Write npz files with some sequences replaced and read one of them."""
    made = npz_content(UNIVERSAL)
    write_npz(folder, train={**made[0], **(train or {})}, test={**made[1], **(test or {})})
    config = source.Config()
    (recording,) = [found for found in source.list_recordings(config, folder) if found.action == wanted]
    return source.read_recording(config, recording)


def test_wrong_npz_content_is_named(tmp_path):
    pixels, body = made_up_training("S2 Seq1", "5")
    hole = body.copy()
    hole[1, 3, 2] = np.nan

    def view(pixels=pixels, body=body, rate=25, camera="5"):
        views = {
            name: dict(zip(("data_2d", "data_3d"), made_up_training("S2 Seq1", name), strict=True)) for name in CAMERAS
        }
        views[camera] = {"data_2d": pixels, "data_3d": body}
        return {"train": {"S2 Seq1": [views, rate]}}

    def scored(name="TS2", **changes):
        values = dict(zip(("data_2d", "data_3d", "valid"), made_up_test(name), strict=True))
        return {"test": {name: {**values, **changes}}}

    order = [MPI_INF_3DHP_17.joints.index(joint) for joint in H36M_17.joints]
    valid = made_up_test("TS2")[2]
    cases = [
        ("S2 Seq1", view(body=hole), r"S2 Seq1, camera 5, data_3d holds 1 NaN .* frame 1, joint 3"),
        ("S2 Seq1", view(pixels=pixels[:, :16]), r"data_2d is float64 \(\d, 16, 2\), expected floats of shape"),
        ("S2 Seq1", view(body=None), "data_3d is NoneType"),
        ("S2 Seq1", view(body=body[:-1]), r"has \d frames in data_2d and \d in data_3d; both must have the same"),
        ("S2 Seq1", view(body=body / 1000), "bones 0.00.* times as long as a person's"),
        ("S2 Seq1", view(body=body[:, order]), "no human body in the order of mpi_inf_3dhp_17.*another order"),
        ("S2 Seq1", view(pixels=pixels / 1024 - 1), "is not in pixels of an image of 2048 x 2048"),
        ("S2 Seq1", view(rate=50), "has 50 frames per second, but was filmed with 25"),
        ("S2 Seq1", view(rate="25"), "has the frame rate '25', expected a number"),
        ("S2 Seq1", {"train": {"S2 Seq1": view()["train"]["S2 Seq1"][0]}}, "is dict, expected a list of a dictionary"),
        ("TS2", scored(valid=None), "valid frames of TS2 are NoneType"),
        ("TS2", scored(valid=valid[1:]), r"valid frames of TS2 are float64 \(10,\), expected \(11,\)"),
        ("TS2", scored(valid=valid * 2), "must be 0 or 1"),
        ("TS2", scored(valid=valid * 0), "and 1 somewhere"),
        ("TS2", {"test": {"TS2": [1, 2]}}, "TS2 is list, expected a dictionary"),
    ]
    for number, (wanted, changes, message) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(ValueError, match=message):
            read_npz_with(folder, wanted, **changes)
    train, test = npz_content(UNIVERSAL)
    fewer = {name: value for name, value in test.items() if name != "TS6"}
    write_npz(tmp_path, train=train, test=fewer)
    with pytest.raises(ValueError, match=r"data_test_3dhp\.npz lacks the sequences TS6"):
        source.list_recordings(source.Config(), tmp_path)
    np.savez(tmp_path / "data_train_3dhp.npz", data=np.zeros(3))
    with pytest.raises(ValueError, match=r"data is float64 \(3,\), expected a dictionary"):
        source.list_recordings(source.Config(), tmp_path)


def test_cut_and_harmful_npz_files_are_refused(tmp_path):
    write_npz(tmp_path)
    file = tmp_path / "data_train_3dhp.npz"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"data_train_3dhp\.npz is damaged or cut"):
        source.list_recordings(source.Config(), tmp_path)

    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    np.savez(file, data={"S1 Seq1": Harmful()})
    with pytest.raises(ValueError, match="Nothing was run"):
        source.list_recordings(source.Config(), tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def one(raw, tmp_path):
    """Copies of the raw files of S1 Seq1 and TS5 to damage; call it to read one of them."""
    config = source.Config(files="raw", annotation="metric")
    found = {r.action: r for r in source.list_recordings(config, raw)}
    moved = {}
    for action in ("S1 Seq1", "TS5"):
        files = [tmp_path / Path(file).name for file in found[action].files]
        for old, new in zip(found[action].files, files, strict=True):
            shutil.copy(old, new)
        moved[action] = type(found[action])(**{**vars(found[action]), "files": tuple(map(str, files))})

    def read(action):
        return source.read_recording(config, moved[action])

    read.folder = tmp_path
    return read


def test_wrong_raw_content_is_named(one):
    file = one.folder / "annot.mat"
    cells = {}
    for what in ("good", "narrow", "short", "empty", "hole"):
        cells[what] = np.empty((14, 1), dtype=object)
        for camera in range(14):
            body = np.full((4, 28, 3), 1e4)
            body[:, PLACES_OF_17_IN_28] = made_up_training("S1 Seq1", str(camera))[1]
            cells[what][camera, 0] = body.reshape(4, 84)
    cells["narrow"][2, 0] = cells["narrow"][2, 0][:, :51]
    cells["short"] = cells["short"][:8]
    cells["empty"][4, 0] = np.zeros((0, 0))
    cells["hole"][0, 0][2, 3 * 7] = np.inf
    write_annot(file, "S1 Seq1", annot3=cells["good"])
    assert len(one("S1 Seq1")) == 8
    for changes, message in (
        ({"annot3": cells["narrow"]}, r"annot3 of camera 2 is \(4, 51\), expected \(frames, 84\) of 28 joints"),
        ({"annot3": cells["short"]}, r"annot3 has nothing for camera 8 \(8 cells\)"),
        ({"annot3": cells["empty"]}, "annot3 has nothing for camera 4"),
        ({"annot3": cells["hole"]}, "annot3 holds 1 NaN or infinite values, the first at frame 2, joint 0"),
        ({"annot3": np.zeros((4, 84))}, r"annot3 is float64 \(4, 84\), expected a cell per camera"),
        ({"annot3": "text"}, "only real numbers and cells are read"),
    ):
        write_annot(file, "S1 Seq1", **changes)
        with pytest.raises(ValueError, match=message):
            one("S1 Seq1")
    savemat(file, {"annot2": cells["good"]})
    with pytest.raises(ValueError, match=r"lacks the variables annot3 \(it has annot2\)"):
        one("S1 Seq1")


def test_wrong_raw_test_content_is_named(one):
    file = one.folder / "annot_data.mat"
    pixels, body, valid = made_up_test("TS5")
    for changes, message in (
        ({"annot3": None}, r"lacks annot3"),
        ({"annot3": body}, r"annot3 is float64 \(10, 17, 3\), expected \(frames, 1, 17"),
        ({"annot3": np.moveaxis(body[:, None], 0, -1)}, "annot3 is float64"),
        ({"annot3": body[:8, None]}, "has 10 frames in annot2 and 8 in annot3"),
        ({"annot2": pixels[:, None] * np.nan}, "annot2 holds 340 NaN"),
        ({"annot2": pixels[:, None] * 3}, "not in pixels of an image of 1920 x 1080"),
        ({"valid_frame": valid[:-1, None]}, "valid frames of valid_frame are"),
        ({"valid_frame": valid[:, None] + 1}, "must be 0 or 1"),
    ):
        write_annot_data(file, "TS5", **changes)
        with pytest.raises(ValueError, match=message):
            one("TS5")


def test_cut_raw_files_are_refused_at_every_length(one):
    for action, name in (("S1 Seq1", "annot.mat"), ("TS5", "annot_data.mat")):
        file = one.folder / name
        whole = file.read_bytes()
        for length in (0, 1, 127, 200, 600, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=rf"{name}.*(is damaged or cut|lacks|is incomplete)"):
                one(action)


def test_damaged_calibrations_are_refused(one):
    file = one.folder / "camera.calibration"
    assert one("S1 Seq1")[0].camera_parameters
    for text in (
        "",
        "name 0",
        CALIBRATION[:150],
        CALIBRATION.replace("1497.693", "wide"),
        CALIBRATION.replace("radial      0", "radial      0.1"),
        CALIBRATION.replace("2048 2048", "2048"),
        CALIBRATION.replace("1497.693 0", "1497.693"),
        CALIBRATION.replace("1497.693", "nan"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"camera\.calibration cannot be read .* remove it to go without"):
            one("S1 Seq1")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"camera\.calibration cannot be read"):
        one("S1 Seq1")
