"""The CMU source: tiny made-up files through the whole path, and the real files where they are at hand."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

from posegrid.datasets.cameras import Camera, camera_to_world, h36m_cameras, inside_image, project, world_to_camera
from posegrid.datasets.filming import place
from posegrid.datasets.readers.cmu_bodies import ACCLAIM_POINTS, BVH_POINTS, lengths_of, with_lengths
from posegrid.datasets.resample import resample
from posegrid.datasets.schema import Recording
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.sources import cmu

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "cmu"
needs_files = pytest.mark.skipif(not REAL.is_dir(), reason="shared/data/cmu is not there")
J = {name: index for index, name in enumerate(H36M_17.joints)}

# (node, parent, offset in centimetres) of a figure with the joint names of the conversion
FIGURE = [
    ("hip", "", (0, 0, 0)), ("abdomen", "hip", (0, 20, -1)), ("chest", "abdomen", (0, 12, 0)),
    ("neck", "chest", (0, 22, -2)), ("head", "neck", (0, 7, 1)),
    *((f"{s}Collar", "chest", (3 * x, 19, -5)) for s, x in (("r", -1), ("l", 1))),
    *((f"{s}Shldr", f"{s}Collar", (9 * x, -2, 1)) for s, x in (("r", -1), ("l", 1))),
    *((f"{s}ForeArm", f"{s}Shldr", (28 * x, -2, 0)) for s, x in (("r", -1), ("l", 1))),
    *((f"{s}Hand", f"{s}ForeArm", (23 * x, 1, 7)) for s, x in (("r", -1), ("l", 1))),
    *((f"{s}Thigh", "hip", (9 * x, 3, -1)) for s, x in (("r", -1), ("l", 1))),
    *((f"{s}Shin", f"{s}Thigh", (0, -37, 1)) for s, x in (("r", -1), ("l", 1))),
    *((f"{s}Foot", f"{s}Shin", (1 * x, -45, -5)) for s, x in (("r", -1), ("l", 1))),
]  # fmt: skip


def figure(frames: int, moving: float = 0.3) -> str:
    """A BVH file of the figure, turning its limbs by small random amounts."""
    children = {name: [child for child, parent, _ in FIGURE if parent == name] for name, _, _ in FIGURE}
    offsets = {name: offset for name, _, offset in FIGURE}
    order = []

    def block(name: str) -> list[str]:
        order.append(name)
        channels = "6 Xposition Yposition Zposition" if name == "hip" else "3"
        inner = [line for child in children[name] for line in block(child)]
        if not inner:
            inner = ["End Site", "{", "OFFSET 0 1 0", "}"]
        head = "ROOT" if name == "hip" else "JOINT"
        x, y, z = offsets[name]
        lines = [f"OFFSET {x} {y} {z}", f"CHANNELS {channels} Zrotation Xrotation Yrotation", *inner]
        return [f"{head} {name}", "{", *lines, "}"]

    lines = ["HIERARCHY", *block("hip"), "MOTION", f"Frames: {frames}", "Frame Time: 0.00833333"]
    generator = np.random.default_rng(frames)
    swing = generator.normal(0, 8, 3 * len(order)) * np.sin(np.linspace(0, 6, frames))[:, None]
    travel = np.linspace([0, 85, 0], [100 * moving, 85, 0], frames)
    lines += [" ".join(f"{value:.4f}" for value in row) for row in np.column_stack([travel, swing])]
    return "\n".join([*lines, ""])


@pytest.fixture
def folder(tmp_path):
    for take in ("02_01", "60_03", "60_04", "61_03", "7_10", "7_9"):
        subject = take.split("_")[0]
        (tmp_path / subject).mkdir(exist_ok=True)
        (tmp_path / subject / f"{take}.bvh").write_text(figure(100))
    return tmp_path


def test_recordings_are_listed_in_order_with_actions(folder):
    recordings = cmu.list_recordings(cmu.Config(), folder)
    assert [recording.name for recording in recordings] == ["02_01", "7_9", "7_10", "60_03", "60_04", "61_03"]
    assert [recording.action for recording in recordings] == ["walk", "motion", "motion", "salsa", "salsa", "salsa"]
    protocol = cmu.protocol(cmu.Config(), recordings)
    assert protocol.train == ("7", "60", "61")
    assert protocol.test == ("02",)
    assert protocol.held_out == ("60/60_03", "61/61_03"), "both bodies of one dance, and nothing that is not there"


def test_sequences_of_a_made_up_take(folder):
    config = cmu.Config()
    recording = cmu.list_recordings(config, folder)[3]
    sequences = cmu.read_recording(config, recording)
    # 90 frames remain at 120 Hz: 0 to 89/120 s hold 38 frames at 50 Hz
    assert [len(sequence.poses) for sequence in sequences] == [38] * 4
    worlds = [camera_to_world(s.poses, Camera.from_plain(s.camera_parameters)) for s in sequences]
    for world in worlds[1:]:
        np.testing.assert_allclose(world, worlds[0], atol=1e-5)
    bones = {
        child: np.linalg.norm(worlds[0][:, child] - worlds[0][:, parent], axis=-1) for child, parent in H36M_17.bones
    }
    for left, right in zip(H36M_17.left, H36M_17.right, strict=True):
        np.testing.assert_allclose(bones[left], bones[right], atol=1e-5)
        assert np.ptp(bones[left]) < 1e-5
    head, hip = worlds[0][:, J["Head"]], worlds[0][:, J["Hip"]]
    assert (head[:, 2] - hip[:, 2] > 0.5).all(), "z is up"
    again = cmu.read_recording(config, pickle.loads(pickle.dumps(recording)))
    np.testing.assert_array_equal(again[2].keypoints, sequences[2].keypoints)
    other = cmu.read_recording(cmu.Config(seed=5), recording)
    assert (other[2].keypoints != sequences[2].keypoints).any()


def test_body_stands_on_the_floor_and_faces_right(folder):
    """The nose is ahead of the neck when left is left: a mirrored reading would put it behind."""
    recording = cmu.list_recordings(cmu.Config(), folder)[0]
    body = cmu.read_body(cmu.Config(), recording)
    lowest = body[:, [J["LFoot"], J["RFoot"]], 2].min(axis=1)
    assert np.percentile(lowest, 5) == pytest.approx(0.08, abs=1e-9)
    across = (body[:, J["LHip"]] - body[:, J["RHip"]])[:, :2]
    ahead = np.stack([across[:, 1], -across[:, 0]], axis=-1)
    nose = (body[:, J["Neck"]] - body[:, J["Thorax"]])[:, :2]
    assert (np.sum(ahead * nose, axis=-1) > 0).all()


def test_lengths_are_shared_out_as_documented():
    points = np.random.default_rng(0).normal(size=(9, 17, 3))
    lengths = lengths_of(points)
    shaped = with_lengths(points, lengths)
    for child, parent in H36M_17.bones:
        before, after = points[:, child] - points[:, parent], shaped[:, child] - shaped[:, parent]
        np.testing.assert_allclose(np.linalg.norm(after, axis=-1), lengths[H36M_17.joints[child]], atol=1e-12)
        cosine = np.sum(before * after, axis=-1) / np.linalg.norm(before, axis=-1) / np.linalg.norm(after, axis=-1)
        np.testing.assert_allclose(cosine, 1.0, atol=1e-12)
    np.testing.assert_array_equal(shaped[:, 0], points[:, 0])
    measured = {
        name: np.median(np.linalg.norm(points[:, J[name]] - points[:, H36M_17.parents[J[name]]], axis=-1))
        for name in H36M_17.joints[1:]
    }
    leg = (measured["LKnee"] + measured["LFoot"] + measured["RKnee"] + measured["RFoot"]) / 2
    assert lengths["LKnee"] + lengths["LFoot"] == pytest.approx(leg)
    assert lengths["Spine"] + lengths["Thorax"] == pytest.approx(measured["Spine"] + measured["Thorax"])


def test_tables_name_every_joint_once_with_weights_of_one():
    for table in (ACCLAIM_POINTS, BVH_POINTS):
        assert set(table) == set(H36M_17.joints)
        for name, point in table.items():
            assert sum(point.weights.values()) == pytest.approx(1.0), name
            letters = {node[0] for node in point.weights}
            if name[0] in "LR" and name[1].isupper():
                assert letters == {name[0].lower()}, "left stays left"


def test_resampling():
    time = np.arange(121) / 120
    line = np.stack([2 * time, 1 - time], axis=-1)
    fifty = resample(line, 120.0, 50.0)
    np.testing.assert_allclose(fifty[:, 0], 2 * np.arange(51) / 50, atol=1e-12)
    np.testing.assert_allclose(fifty[:, 1], 1 - np.arange(51) / 50, atol=1e-12)
    assert resample(line, 50.0, 50.0) is line
    assert len(resample(line[:1], 120.0, 50.0)) == 1
    assert len(resample(line, 50.0, 120.0)) == 289
    wave = np.sin(2 * np.pi * 3 * time)
    np.testing.assert_allclose(resample(wave, 120.0, 50.0), np.sin(2 * np.pi * 3 * np.arange(51) / 50), atol=0.004)


def test_placing_keeps_shape_and_height_and_brings_far_walks_into_view():
    generator = np.random.default_rng(1)
    cameras = h36m_cameras()["S1"]
    pose = generator.uniform([-0.3, -0.3, 0], [0.3, 0.3, 1.7], (17, 3))
    near, far = (pose + np.linspace([0, 0, 0], [metres, 0, 0], 80)[:, None] for metres in (2.0, 12.0))
    for world, slides in ((near, False), (far, True)):
        placed = place(world + np.array([7.0, -3.0, 0.0]), cameras, 0, np.random.default_rng(0))
        seen = [project_all(placed, camera) for camera in cameras]
        assert np.mean(seen) > 0.99
        np.testing.assert_array_equal(placed[..., 2], world[..., 2])
        limbs, before = placed - placed[:, :1], world - world[:, :1]
        np.testing.assert_allclose(np.linalg.norm(limbs, axis=-1), np.linalg.norm(before, axis=-1), atol=1e-9)
        travelled = np.linalg.norm(placed[-1, 0] - placed[0, 0])
        assert (travelled < np.linalg.norm(world[-1, 0] - world[0, 0]) - 1e-6) == slides


def project_all(world, camera):
    return inside_image(project(world_to_camera(world, camera), camera), camera.width, camera.height)


def test_cameras_follow_the_subject():
    config = cmu.Config(test_subjects=("02", "05"))
    table = h36m_cameras()
    wanted = {"02": "S9", "05": "S11", "01": "S1", "60": "S5", "61": "S6", "135": "S7", "09": "S8"}
    for subject, of in wanted.items():
        assert cmu._cameras_of(config, subject) == table[of]


def test_missing_and_wrong_folders_are_named(tmp_path, folder):
    config = cmu.Config()
    with pytest.raises(ValueError, match=r"does not exist.*mocap\.cs\.cmu\.edu"):
        cmu.list_recordings(config, None)
    with pytest.raises(ValueError, match=r"does not exist.*mocap\.cs\.cmu\.edu"):
        cmu.list_recordings(config, tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"no \.amc or \.bvh files below .*mocap\.cs\.cmu\.edu"):
        cmu.list_recordings(config, empty)
    with pytest.raises(ValueError, match=r"test subjects 86 below .*found: 02, 7, 60, 61"):
        cmu.list_recordings(cmu.Config(test_subjects=("86",)), folder)
    (folder / "more").mkdir()
    (folder / "more" / "60_03.bvh").write_text(figure(20))
    with pytest.raises(ValueError, match="60_03 is there twice"):
        cmu.list_recordings(config, folder)


def test_motion_without_skeleton_is_named(tmp_path):
    (tmp_path / "02_01.amc").write_text(":DEGREES\n1\n")
    with pytest.raises(ValueError, match=r"needs the skeleton 02\.asf beside it \(found: none\)"):
        cmu.list_recordings(cmu.Config(), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": ("60/60_99",)}, r"held_out = \['60/60_99'\].*Known: 02/02_01"),
        ({"held_out": ("02/02_01",)}, "held_out of training subjects"),
        ({"excluded": ("60/60_99",)}, r"excluded = \['60/60_99'\]"),
        ({"test_subjects": ("02", "7", "60", "61")}, "leaves no subject for training"),
    ],
)
def test_wrong_splits_are_refused(folder, options, message):
    config = cmu.Config(**options)
    recordings = cmu.list_recordings(config, folder)
    with pytest.raises(ValueError, match=message):
        cmu.protocol(config, recordings)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="test_subjects is empty"):
        cmu.Config(test_subjects=())
    with pytest.raises(ValueError, match=r"frame_rate = 0\.5"):
        cmu.Config(frame_rate=0.5)


def test_foreign_skeletons_and_short_takes_are_named(folder):
    file = folder / "60" / "60_03.bvh"
    recording = cmu.list_recordings(cmu.Config(), folder)[3]
    file.write_text(figure(11))
    with pytest.raises(ValueError, match="fewer than two frames"):
        cmu.read_recording(cmu.Config(), recording)
    file.write_text(figure(40).replace("lShldr", "LeftArm"))
    with pytest.raises(ValueError, match=r"60_03\.bvh: its skeleton lacks the joints lShldr"):
        cmu.read_recording(cmu.Config(), recording)


@needs_files
def test_real_recordings_follow_the_protocol():
    config = cmu.Config()
    recordings = cmu.list_recordings(config, REAL)
    protocol = cmu.protocol(config, recordings)
    assert protocol == cmu.PROTOCOL
    assert len(recordings) == 28
    names = {f"{recording.subject}/{recording.name}" for recording in recordings}
    assert set(protocol.held_out) <= names
    assert {recording.action for recording in recordings if recording.subject == "02"} == {
        "walk", "run", "jump", "punch", "bend", "swordplay", "wash"
    }  # fmt: skip


@needs_files
def test_real_files_are_plausible_bodies():
    """Every file reads without a warning, and what comes out is a human standing on the floor within the images."""
    config = cmu.Config()
    human = {"Hip": 0.13, "Knee": 0.44, "Foot": 0.44, "Shoulder": 0.15, "Elbow": 0.28, "Wrist": 0.25}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for recording in cmu.list_recordings(config, REAL):
            body = cmu.read_body(config, recording)
            length = {
                H36M_17.joints[child]: np.linalg.norm(body[:, child] - body[:, parent], axis=-1)
                for child, parent in H36M_17.bones
            }
            for part, expected in human.items():
                for side in "LR":
                    assert length[f"{side}{part}"].mean() == pytest.approx(expected, rel=0.12), (recording.name, part)
                    assert np.ptp(length[f"{side}{part}"]) < 1e-9
            assert 0.45 < (length["Spine"] + length["Thorax"]).mean() < 0.55
            assert body[..., 2].min() > 0.0
            assert 1.3 < np.percentile(body[:, J["Head"], 2], 95) < 2.3
            across = (body[:, J["LHip"]] - body[:, J["RHip"]])[:, :2]
            forward = np.stack([across[:, 1], -across[:, 0]], axis=-1)
            middle = (body[:, [J["LHip"], J["RHip"]]] + body[:, [J["LFoot"], J["RFoot"]]])[..., :2] / 2
            bent = np.sum((body[:, [J["LKnee"], J["RKnee"]], :2] - middle) * forward[:, None], axis=-1)
            assert np.median(bent) > 0, f"{recording.name}: knees bend forwards"


@needs_files
@pytest.mark.parametrize("name", ["02_01", "135_07"])
def test_real_recordings_are_seen(name):
    config = cmu.Config()
    (recording,) = [found for found in cmu.list_recordings(config, REAL) if found.name == name]
    for sequence in cmu.read_recording(config, recording):
        camera = Camera.from_plain(sequence.camera_parameters)
        screen = project(sequence.poses, camera)
        assert inside_image(screen, camera.width, camera.height).mean() > 0.99
        error_px = np.linalg.norm(sequence.keypoints - screen, axis=-1) * camera.width / 2
        assert 3 < error_px.mean() < 8


@needs_files
def test_real_file_cut_anywhere_is_refused(tmp_path):
    """A short take of each format, cut at random places: refused, or for AMC read as whole frames."""
    config = cmu.Config()
    for kind, name in (("asfamc/02", "02_03.amc"), ("bvh/135", "135_04.bvh")):
        content = (REAL / kind / name).read_bytes()
        target = tmp_path / name
        for path in (REAL / kind).glob("*.asf"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        files = (*(str(path) for path in tmp_path.glob("*.asf")), str(target))
        recording = Recording(subject=name[:2], action="run", name=target.stem, files=files[-2:])
        for position in np.random.default_rng(3).integers(0, len(content) - 2, 6):
            target.write_bytes(content[:position])
            with pytest.raises(ValueError, match=rf"{name}, line \d+: "):
                cmu.read_body(config, recording)
