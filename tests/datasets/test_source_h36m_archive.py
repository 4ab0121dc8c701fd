"""Human3.6M's h5 archive on made-up files of exactly the published layout: extracted, zipped, damaged."""

import pickle
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from h36m_files import ACTIONS, GT_DATA, POSE_DATA, SUBJECTS, write

from posegrid.datasets import cameras
from posegrid.datasets.prepare import prepare
from posegrid.datasets.skeletons import H36M_16, H36M_17
from posegrid.datasets.sources import h36m, h36m_archive

MPII_OF_17 = [3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13]
"""MPII's joints as indices into Human3.6M's 17: ankle, knee, hip of the right leg, the left one upwards, and so on."""
KEPT_16 = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16]
CAMERA = "58860488"


def hourglass(subject: str, name: str) -> list[np.ndarray]:
    """(F, 17, 2) detections of each camera in pixels: the projections and an error of 5 px."""
    noise = np.random.default_rng(len(name) * 100 + SUBJECTS.index(subject))
    return [view + noise.normal(0, 5, view.shape) for view in GT_DATA[subject][name]]


def write_positions(file: Path, world: np.ndarray) -> None:
    """World positions (F, 32, 3) in metres as the archive holds them: (96, F), millimetres."""
    with h5py.File(file, "w") as stream:
        stream["3D_positions"] = world.astype(np.float64).reshape(len(world), 96).T * 1000


@pytest.fixture(scope="module")
def extracted(tmp_path_factory) -> Path:
    """The raw folder; the archive is the folder h36m in it."""
    raw = tmp_path_factory.mktemp("extracted")
    for subject in SUBJECTS:
        positions = raw / "h36m" / subject / "MyPoses" / "3D_positions"
        detections = raw / "h36m" / subject / "StackedHourglass"
        positions.mkdir(parents=True)
        detections.mkdir()
        for name, world in POSE_DATA[subject].items():
            write_positions(positions / f"{name}.h5", world)
            for camera, view in zip(cameras.H36M_CAMERA_IDS, hourglass(subject, name), strict=True):
                if (subject, name, camera) == ("S11", "Directions", "54138969"):
                    continue  # the real archive has 119 files of S11
                with h5py.File(detections / f"{name.replace(' ', '_')}.{camera}.h5", "w") as stream:
                    stream["poses"] = view[:, MPII_OF_17]
    return raw


@pytest.fixture(scope="module")
def zipped(extracted, tmp_path_factory) -> Path:
    raw = tmp_path_factory.mktemp("zipped")
    shutil.make_archive(str(raw / "h36m"), "zip", extracted, "h36m")
    return raw


@pytest.fixture
def one(extracted, tmp_path):
    """A copy of one recording's files to damage; call it to read them. S6, second take of Photo."""
    found = [r for r in h36m_archive.list_recordings(h36m_archive.Config(), extracted) if r.subject == "S6"]
    recording = next(r for r in found if r.name == "Photo 3")
    files = []
    for file in recording.files:
        files.append(tmp_path / Path(file).name)
        shutil.copy(file, files[-1])
    moved = type(recording)(**{**vars(recording), "files": tuple(map(str, files))})

    def read(**options):
        return h36m_archive.read_recording(h36m_archive.Config(**options), moved)

    read.files = files
    return read


def test_recordings_and_splits(extracted):
    config = h36m_archive.Config()
    recordings = h36m_archive.list_recordings(config, extracted)
    assert len(recordings) == 210
    assert {recording.action for recording in recordings} == set(ACTIONS)
    assert len(recordings[0].files) == 5
    protocol = h36m_archive.protocol(config, recordings)
    assert len(protocol.held_out) == 15
    assert protocol.split_of("S11", "Directions") == "unused"
    assert protocol.split_of("S11", "Directions 1") == "test"
    assert protocol.keypoints == "stacked hourglass"
    everything = h36m_archive.protocol(h36m_archive.Config(hold_out=False, keypoints="gt"), recordings)
    assert (everything.held_out, everything.keypoints) == ((), "projected")


def test_folder_and_zip_give_the_same_store(extracted, zipped, tmp_path):
    one = prepare("h36m_archive", extracted, tmp_path / "one")
    two = prepare("h36m_archive", zipped, tmp_path / "two")
    assert one.content_hash == two.content_hash
    config = h36m_archive.Config()
    named = h36m_archive.list_recordings(config, zipped / "h36m.zip")
    assert named == h36m_archive.list_recordings(config, zipped)
    assert one.skeleton is H36M_16
    assert len(one.sequences) == (210 - 1) * 4
    assert len(one.keypoints) == sum(
        4 * len(world)
        for s, takes in POSE_DATA.items()
        for n, world in takes.items()
        if (s, n) != ("S11", "Directions")
    )


def test_detections_get_the_order_of_the_poses(extracted):
    config = h36m_archive.Config()
    for recording in h36m_archive.list_recordings(config, extracted)[5::40]:
        sequences = h36m_archive.read_recording(config, pickle.loads(pickle.dumps(recording)))
        views = hourglass(recording.subject, recording.name)
        for sequence, camera, view in zip(sequences, cameras.H36M_CAMERA_IDS, views, strict=True):
            assert sequence.camera == camera
            width, height = (1000, 1002) if camera in ("54138969", "60457274") else (1000, 1000)
            expected = (view[:, KEPT_16] - [width / 2, height / 2]) / (width / 2)
            np.testing.assert_allclose(sequence.keypoints, expected, atol=1e-6)
            assert sequence.poses.shape == (len(view), 16, 3)
            assert sequence.frame_rate == 50


def test_projected_17_joints_equal_the_npz_files(extracted, tmp_path):
    """Another file format, another reader, projections computed when the file was made: the same motion."""
    write(tmp_path)
    npz, archive = h36m.Config(keypoints="gt"), h36m_archive.Config(keypoints="gt", joints=17)
    expected = h36m.list_recordings(npz, tmp_path)
    found = h36m_archive.list_recordings(archive, extracted)
    assert [(r.subject, r.name, r.action) for r in found] == [(r.subject, r.name, r.action) for r in expected]
    assert h36m_archive.protocol(archive, found).held_out == h36m.protocol(npz, expected).held_out
    assert h36m_archive.skeleton(archive) is H36M_17
    for ours, theirs in list(zip(found, expected, strict=True))[::13]:
        for a, b in zip(h36m_archive.read_recording(archive, ours), h36m.read_recording(npz, theirs), strict=True):
            assert a.poses.tobytes() == b.poses.tobytes()
            # pixels in the npz file are single precision: 3e-5 px
            np.testing.assert_allclose(a.keypoints, b.keypoints, atol=3e-7)
            assert (a.camera_parameters, a.width, a.height) == (b.camera_parameters, b.width, b.height)


def test_projected_16_joints_are_the_17_without_the_face(one):
    less, more = one(keypoints="gt"), one(keypoints="gt", joints=17)
    for sequence, whole in zip(less, more, strict=True):
        assert (sequence.poses == whole.poses[:, KEPT_16]).all()
        assert (sequence.keypoints == whole.keypoints[:, KEPT_16]).all()


def test_images_are_named_as_in_the_other_source(one):
    template = "{subject}/{take}.{camera}/{frame:06d}.jpg"
    images = one(images=template)[2].images
    assert images == {"kind": "files", "template": f"S6/Photo_3.{CAMERA}/{{frame:06d}}.jpg", "first": 1, "step": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keypoints": "cpn"}, "Known: stacked_hourglass, gt"),
        ({"joints": 17}, "17 with gt only"),
        ({"keypoints": "gt", "joints": 15}, "joints = 15"),
        ({"images": "{film}.jpg"}, "holds {film}"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        h36m_archive.Config(**options)


def test_missing_parts_are_named(extracted, tmp_path):
    def listed(**options):
        return h36m_archive.list_recordings(h36m_archive.Config(**options), tmp_path)

    with pytest.raises(ValueError, match=r"neither h36m\.zip nor a folder h36m .* is in the raw folder .*baseline"):
        listed()
    with pytest.raises(ValueError, match="raw folder None"):
        h36m_archive.list_recordings(h36m_archive.Config(), None)
    shutil.copytree(extracted / "h36m", tmp_path / "h36m")
    detections = tmp_path / "h36m" / "S7" / "StackedHourglass" / f"Walking_3.{CAMERA}.h5"
    detections.unlink()
    with pytest.raises(ValueError, match=rf"lacks S7/StackedHourglass/Walking_3\.{CAMERA}\.h5; expected one file per"):
        listed()
    assert len(listed(keypoints="gt")) == 210
    positions = tmp_path / "h36m" / "S8" / "MyPoses" / "3D_positions"
    (positions / "Photo.h5").rename(positions / "TakingPhoto.h5")
    with pytest.raises(ValueError, match=r"S8 has 30 recordings, unknown ones \(TakingPhoto\) and .* Photo \(1\)"):
        listed(keypoints="gt")
    shutil.rmtree(positions)
    with pytest.raises(ValueError, match="no positions of subject S8"):
        listed(keypoints="gt")


def replace_dataset(file: Path, name: str, value) -> None:
    with h5py.File(file, "w") as stream:
        stream[name] = value


def test_wrong_content_is_named(one):
    positions, detections = one.files[0], one.files[3]
    assert CAMERA in detections.name
    with h5py.File(positions) as stream:
        flat = stream["3D_positions"][()]
    with h5py.File(detections) as stream:
        poses = stream["poses"][()]
    good = {positions: ("3D_positions", flat), detections: ("poses", poses)}
    frames = flat.shape[1]
    hole, gap = flat.copy(), poses.copy()
    hole[7, 1], gap[2, 4, 0] = np.nan, np.inf
    cases = [
        (positions, "3D_positions", flat.T, rf"3D_positions is \({frames}, 96\), expected \(96, frames\)"),
        (positions, "3D_positions", flat[:51], r"3D_positions is \(51, \d\), expected \(96, frames\)"),
        (positions, "3D_positions", flat[:, :0], "expected floats of shape"),
        (positions, "3D_positions", flat.astype(int), r"int64 .*expected floats of shape \(frames, 16, 3\)"),
        (positions, "3D_positions", hole, "holds 1 NaN or infinite values, the first at frame 1, joint 2"),
        (positions, "3D_positions", flat / 1000, "bones 0.00.* times as long as a person's"),
        (positions, "positions", flat, "lacks 3D_positions"),
        (detections, "poses", poses[:, :15], r"poses is float64 \(\d, 15, 2\), expected floats of shape \(frames, 16"),
        (detections, "poses", gap, "the first at frame 2, joint 4"),
        (detections, "poses", poses[:-1], rf"has {frames - 1} frames, .* has {frames}; both must have the same"),
        (detections, "poses", np.concatenate([poses, poses[:1]]), rf"has {frames + 1} frames"),
        (detections, "keypoints", poses, "lacks poses"),
    ]
    for file, name, value, message in cases:
        replace_dataset(file, name, value)
        with pytest.raises(ValueError, match=message):
            one()
        replace_dataset(file, *good[file])
    assert len(one()) == 4


def test_detections_of_another_order_or_camera_are_refused(one):
    first, second = one.files[1], one.files[2]
    with h5py.File(first) as stream:
        poses = stream["poses"][()]
    replace_dataset(first, "poses", poses[:, ::-1])
    with pytest.raises(ValueError, match="joints are not in MPII's order"):
        one()
    shutil.copy(second, first)
    with pytest.raises(ValueError, match="of another recording or camera"):
        one()


def test_cut_files_are_refused_at_every_length(one):
    for file in (one.files[0], one.files[2]):
        whole = file.read_bytes()
        for length in (0, 1, 100, 800, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=rf"{file.name}.*(damaged or cut|lacks|incomplete)"):
                one()
        file.write_bytes(whole)
    assert len(one()) == 4


def test_damaged_zip_files_are_refused(zipped, tmp_path):
    config = h36m_archive.Config()
    recording = h36m_archive.list_recordings(config, zipped)[3]
    content = bytearray((zipped / "h36m.zip").read_bytes())
    copy = tmp_path / "h36m.zip"
    copy.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"h36m\.zip is damaged or cut"):
        h36m_archive.list_recordings(config, tmp_path)
    with zipfile.ZipFile(zipped / "h36m.zip") as archive:
        member = archive.getinfo(f"h36m/{recording.subject}/MyPoses/3D_positions/{recording.name}.h5")
    place = member.header_offset + 30 + len(member.filename) + member.compress_size // 2
    content[place] ^= 16
    copy.write_bytes(content)
    moved = type(recording)(**{**vars(recording), "files": (str(copy),)})
    with pytest.raises(ValueError, match=rf"3D_positions/{recording.name}\.h5 is damaged, cut or gone"):
        h36m_archive.read_recording(config, moved)
    copy.unlink()
    with pytest.raises(ValueError, match="damaged"):
        h36m_archive.read_recording(config, moved)
