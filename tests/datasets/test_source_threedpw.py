"""The 3DPW source on made-up files of exactly the published layout, with a body model of 72 vertices."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from body_files import made_up_model, made_up_regressor, old_pickle, skinned, write_model
from scipy.spatial.transform import Rotation

from posegrid.datasets.checks.integrity import check_store
from posegrid.datasets.prepare import prepare
from posegrid.datasets.sources import threedpw

GENERATOR = np.random.default_rng(5)
FRAMES = 12
MODELS = {gender: made_up_model(seed=seed) for seed, gender in enumerate(("female", "male"))}
REGRESSOR = made_up_regressor(MODELS["male"])
# Human3.6M's order from SPIN's rows: the right leg first
ORDER = [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]
K = np.array([[1961.9, 0, 540.0], [0, 1969.2, 960.0], [0, 0, 1]])


def made_up(people: int = 2, frames: int = FRAMES) -> dict:
    """One file's content: people three to five metres before a camera that moves, upright in the image."""
    motions = np.tile(np.eye(4), (frames, 1, 1))
    # y of the model is up, that of the camera down
    vectors = GENERATOR.normal([np.pi, 0, 0], 0.02, (frames, 3))
    motions[:, :3, :3] = Rotation.from_rotvec(vectors).as_matrix()
    motions[:, :3, 3] = GENERATOR.normal([0, 0.3, 4], 0.05, (frames, 3))
    valid = np.ones((people, frames), dtype=np.uint8)
    valid[0, [0, 5, 6]] = 0
    detections = np.concatenate(
        [GENERATOR.uniform(300, 900, (people, frames, 2, 18)), GENERATOR.uniform(0.3, 1, (people, frames, 1, 18))], 2
    )
    detections[:, 3] = 0
    detections[:, 4:8, :, 10] = 0
    return {
        "sequence": "downtown_arguing_00",
        "poses": [GENERATOR.normal(0, 0.15, (frames, 72)) for _ in range(people)],
        "poses_60Hz": [GENERATOR.normal(0, 0.15, (2 * frames, 72)) for _ in range(people)],
        "trans": [GENERATOR.normal(0, 0.3, (frames, 3)) for _ in range(people)],
        "betas": [GENERATOR.normal(0, 1, 10) for _ in range(people)],
        "genders": ["m", "f"][:people],
        "jointPositions": [_upright(frames) for _ in range(people)],
        "poses2d": list(detections),
        "cam_poses": motions,
        "cam_intrinsics": K,
        "campose_valid": list(valid),
        "img_frame_ids": np.arange(0, 2 * frames, 2),
        "texture_maps": [],
        "v_template_clothed": [GENERATOR.normal(size=(72, 3)) for _ in range(people)],
    }


def _upright(frames: int) -> np.ndarray:
    model = MODELS["male"]
    joints = model["J_regressor"] @ model["v_template"]
    return (joints + GENERATOR.normal(0, 0.01, (frames, 24, 3))).reshape(frames, 72)


def write(folder: Path, content: dict[str, dict]) -> Path:
    """content: "train/NAME" -> a file's content."""
    for gender, model in MODELS.items():
        suffix = {"female": "SMPL_FEMALE.pkl", "male": "basicModel_m_lbs_10_207_0_v1.0.0.npz"}[gender]
        write_model(folder / "body_models" / suffix, model)
    np.save(folder / "J_regressor_h36m.npy", REGRESSOR)
    for name, values in content.items():
        file = folder / "sequenceFiles" / f"{name}.pkl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(old_pickle({**values, "sequence": file.stem}))
    return folder


CONTENT = {name: made_up() for name in ("train/downtown_arguing_00", "validation/courtyard_box_00")}
CONTENT |= {"test/flat_guitar_01": made_up(), "train/office_phoneCall_00": made_up(1)}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write(tmp_path_factory.mktemp("3dpw"), CONTENT)


def sequences_of(raw: Path, subject: str, **options):
    config = threedpw.Config(**options)
    (recording,) = (found for found in threedpw.list_recordings(config, raw) if found.subject == subject)
    return threedpw.read_recording(config, pickle.loads(pickle.dumps(recording)))


def expected_poses(content: dict, person: int, frame: int) -> np.ndarray:
    model = MODELS[{"m": "male", "f": "female"}[content["genders"][person]]]
    mesh = skinned(model, *(content[name][person][frame] for name in ("poses",)), content["betas"][person], 0)
    world = (REGRESSOR @ (mesh + content["trans"][person][frame]))[ORDER]
    motion = content["cam_poses"][frame]
    return world @ motion[:3, :3].T + motion[:3, 3]


def test_recordings_and_splits(raw):
    recordings = threedpw.list_recordings(threedpw.Config(), raw)
    assert [(found.subject, found.action) for found in recordings] == [
        ("downtown_arguing_00", "arguing"),
        ("office_phoneCall_00", "phoneCall"),
        ("courtyard_box_00", "box"),
        ("flat_guitar_01", "guitar"),
    ]
    split = threedpw.protocol(threedpw.Config(), recordings)
    found = {recording.subject: split.split_of(recording.subject, "person 0 part 2") for recording in recordings}
    assert list(found.values()) == ["train", "train", "held_out", "test"]
    assert not set(split.train) & set(split.test)
    assert split.keypoints == "projected"


def test_test_sequences_equal_an_independent_computation(raw):
    content = CONTENT["test/flat_guitar_01"]
    sequences = sequences_of(raw, "flat_guitar_01")
    assert [sequence.recording for sequence in sequences] == ["person 0", "person 1"]
    for person, sequence in enumerate(sequences):
        assert (sequence.width, sequence.height, sequence.frame_rate) == (1080, 1920, 30.0)
        np.testing.assert_array_equal(sequence.valid, content["campose_valid"][person].astype(bool))
        for frame in (0, 1, 6, 11):
            poses = expected_poses(content, person, frame)
            np.testing.assert_allclose(sequence.poses[frame], poses, atol=1e-5)
            if sequence.valid[frame]:
                pixels = (poses @ K.T)[:, :2] / poses[:, 2:]
                screen = (pixels - [540, 960]) / 540
                np.testing.assert_allclose(sequence.keypoints[frame], screen, atol=1e-5)
        np.testing.assert_array_equal(sequence.confidence, np.repeat(sequence.valid[:, None], 17, axis=1))


def test_training_sequences_are_cut_into_runs_of_valid_frames(raw):
    content = CONTENT["train/downtown_arguing_00"]
    sequences = sequences_of(raw, "downtown_arguing_00")
    assert [(sequence.recording, len(sequence.poses)) for sequence in sequences] == [
        ("person 0 part 1", 4),
        ("person 0 part 2", 5),
        ("person 1", 12),
    ]
    assert all(sequence.valid is None and (sequence.confidence == 1).all() for sequence in sequences)
    for start, sequence in zip((1, 7, 0), sequences, strict=True):
        poses = expected_poses(content, int(sequence.recording[7]), start + 1)
        np.testing.assert_allclose(sequence.poses[1], poses, atol=1e-5)
    # test sequences, too, if asked for
    cut = sequences_of(raw, "flat_guitar_01", cut_test=True)
    assert [sequence.recording for sequence in cut] == ["person 0 part 1", "person 0 part 2", "person 1"]
    assert all(sequence.valid is None for sequence in cut)


def test_joints_of_the_files_need_no_model(raw, tmp_path):
    (tmp_path / "sequenceFiles").symlink_to(raw / "sequenceFiles")
    config = threedpw.Config(joints="smpl")
    assert threedpw.skeleton(config).name == "smpl_24"
    assert threedpw.skeleton(threedpw.Config()).name == "h36m_17"
    content = CONTENT["test/flat_guitar_01"]
    for person, sequence in enumerate(sequences_of(tmp_path, "flat_guitar_01", joints="smpl")):
        world = content["jointPositions"][person].reshape(FRAMES, 24, 3)
        for frame, motion in enumerate(content["cam_poses"]):
            expected = (np.c_[world[frame], np.ones(24)] @ motion.T)[:, :3]
            np.testing.assert_allclose(sequence.poses[frame], expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"option body_models.*does not exist"):
        threedpw.list_recordings(threedpw.Config(), tmp_path)


def test_detections(raw):
    content = CONTENT["test/flat_guitar_01"]
    for person, sequence in enumerate(sequences_of(raw, "flat_guitar_01", keypoints="openpose")):
        detected = content["poses2d"][person]
        pixels = sequence.keypoints * 540 + [540, 960]
        # OpenPose: 5 LShoulder, 8 RHip, 11 LHip, 10 RAnkle
        np.testing.assert_allclose(pixels[0, 11], detected[0, :2, 5], atol=1e-3)
        np.testing.assert_allclose(sequence.confidence[0, 11], detected[0, 2, 5], atol=1e-6)
        np.testing.assert_allclose(pixels[0, 0], (detected[0, :2, 8] + detected[0, :2, 11]) / 2, atol=1e-3)
        assert sequence.confidence[0, 0] == np.float32(min(detected[0, 2, 8], detected[0, 2, 11]))
        # frame 3 is missing, the right ankle in frames 3 to 7: linear in time
        assert (sequence.confidence[3] == 0).all()
        np.testing.assert_allclose(pixels[3, 11], (detected[2, :2, 5] + detected[4, :2, 5]) / 2, atol=1e-3)
        assert (sequence.confidence[3:8, 3] == 0).all()
        expected = detected[2, :2, 10] + (detected[8, :2, 10] - detected[2, :2, 10]) * 3 / 6
        np.testing.assert_allclose(pixels[5, 3], expected, atol=1e-3)
        # whether a frame counts does not depend on detections
        np.testing.assert_array_equal(sequence.valid, content["campose_valid"][person].astype(bool))


def test_images_are_named_where_they_are(raw, tmp_path):
    for name in ("sequenceFiles", "body_models", "J_regressor_h36m.npy"):
        (tmp_path / name).symlink_to(raw / name)
    assert sequences_of(tmp_path, "downtown_arguing_00")[0].images == {}
    (tmp_path / "imageFiles" / "downtown_arguing_00").mkdir(parents=True)
    images = [sequence.images for sequence in sequences_of(tmp_path, "downtown_arguing_00")]
    template = "imageFiles/downtown_arguing_00/image_{frame:05d}.jpg"
    assert images == [{"kind": "files", "template": template, "first": first, "step": 1} for first in (1, 7, 0)]


def test_a_store_of_it_passes_the_checks(raw, tmp_path):
    for joints in ("h36m", "smpl"):
        store = prepare("threedpw", raw, tmp_path / joints, options={"joints": joints})
        splits = {sequence.name.split("/")[0]: sequence.split for sequence in store.sequences}
        assert sorted(splits.values()) == ["held_out", "test", "train", "train"]
        findings = {finding.check: finding for finding in check_store(store)}
        assert findings["reprojection, camera phone"].status == "ok", findings["reprojection, camera phone"]
        assert not [finding for finding in findings.values() if finding.status == "FAILED"]


def broken(**values) -> dict:
    return {"train/office_phoneCall_00": {**CONTENT["train/office_phoneCall_00"], **values}}


def turned(matrix, value):
    matrix = matrix.copy()
    matrix[2, :3, :3] *= value
    return matrix


ONE = CONTENT["train/office_phoneCall_00"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"poses": [np.zeros((FRAMES, 156))]}, r"poses of person 0 is float64 \(12, 156\), expected floats .*72\)"),
        ({"poses": [np.full((FRAMES, 72), np.nan)]}, r"poses of person 0 holds 864 NaN"),
        ({"poses": [np.zeros((FRAMES - 1, 72))]}, r"poses of person 0 has 11 frames, cam_poses 12"),
        ({"poses": []}, r"poses is list, expected a list with an entry per person"),
        ({"poses": [np.zeros((FRAMES, 72))] * 2}, r"poses has 2 entries, campose_valid 1"),
        ({"poses": np.zeros((1, FRAMES, 72))}, r"poses is float64 \(1, 12, 72\), expected a list"),
        ({"trans": ["here"]}, r"trans of person 0 is str"),
        ({"betas": [np.zeros((1, 10))]}, r"betas of person 0 is float64 \(1, 10\)"),
        ({"genders": ["x"]}, r"gender of person 0 is 'x', expected m or f"),
        ({"campose_valid": [np.ones(3)]}, r"campose_valid of person 0 is float64 \(3,\)"),
        ({"campose_valid": [np.full(FRAMES, 7)]}, r"campose_valid of person 0 is int64"),
        ({"cam_poses": np.zeros((FRAMES, 3, 4))}, r"cam_poses is float64 \(12, 3, 4\)"),
        ({"cam_poses": turned(ONE["cam_poses"], 1.1)}, r"cam_poses is no rotation and shift in frame 2"),
        ({"cam_poses": turned(ONE["cam_poses"], -1.0)}, r"cam_poses is no rotation and shift in frame 2"),
        ({"cam_poses": ONE["cam_poses"].transpose(0, 2, 1)}, r"cam_poses is no rotation and shift"),
        ({"cam_intrinsics": np.eye(3)}, r"the principal point \(0, 0\) is far from the middle"),
        ({"cam_intrinsics": -K}, r"cam_intrinsics is float64 \(3, 3\), expected \[\[fx, 0, cx\]"),
        ({"cam_intrinsics": [1, 2]}, r"cam_intrinsics is list"),
    ],
)
def test_damaged_files_are_refused(tmp_path, values, message):
    raw = write(tmp_path, broken(**values))
    with pytest.raises(ValueError, match=rf"office_phoneCall_00\.pkl: {message}"):
        sequences_of(raw, "office_phoneCall_00")


def test_missing_keys_cut_files_and_code_are_refused(tmp_path):
    content = {key: value for key, value in ONE.items() if key != "trans"}
    raw = write(tmp_path, {"train/office_phoneCall_00": content})
    with pytest.raises(ValueError, match=r"office_phoneCall_00\.pkl lacks the entries trans \(it has betas, cam"):
        sequences_of(raw, "office_phoneCall_00")
    file = raw / "sequenceFiles" / "train" / "office_phoneCall_00.pkl"
    file.write_bytes(old_pickle(ONE)[:-100])
    with pytest.raises(ValueError, match=r"office_phoneCall_00\.pkl is damaged or cut"):
        sequences_of(raw, "office_phoneCall_00")
    file.write_bytes(b"\x80\x02cposix\nsystem\nU\x04true\x85R.")
    with pytest.raises(ValueError, match=r"office_phoneCall_00\.pkl holds the name posix\.system"):
        sequences_of(raw, "office_phoneCall_00")
    undetected = broken(poses2d=[np.zeros((FRAMES, 3, 18))])
    with pytest.raises(ValueError, match=r"person 0 was not detected in any frame"):
        sequences_of(write(tmp_path / "b", undetected), "office_phoneCall_00", keypoints="openpose")


def test_frames_that_are_not_aligned_may_hold_anything(tmp_path):
    motions = ONE["cam_poses"].copy()
    motions[[0, 5]] = 0
    motions[6, :3, 3] = [0, 0, -50]
    sequence = sequences_of(write(tmp_path, broken(cam_poses=motions)), "office_phoneCall_00")
    assert [len(part.poses) for part in sequence] == [4, 5]
    # aligned but behind the camera does not count either
    motions = ONE["cam_poses"].copy()
    motions[2, :3, 3] = [0, 0, -50]
    (tmp_path / "b").mkdir()
    sequence = sequences_of(write(tmp_path / "b", broken(cam_poses=motions)), "office_phoneCall_00")
    assert [len(part.poses) for part in sequence] == [1, 2, 5]


def test_landscape_images_and_a_readmes_spelling(tmp_path):
    values = {key: value for key, value in ONE.items() if key != "genders"} | {"gender": ["m"]}
    values["cam_intrinsics"] = np.array([[1900.0, 0, 962], [0, 1900.0, 539], [0, 0, 1]])
    (sequence, *_) = sequences_of(write(tmp_path, {"test/a_b_00": values}), "a_b_00")
    assert (sequence.width, sequence.height) == (1920, 1080)
    assert sequence.camera_parameters["centre_px"] == [962.0, 539.0]


def test_missing_models_and_wrong_options_are_named(raw, tmp_path):
    (tmp_path / "sequenceFiles").mkdir()
    with pytest.raises(ValueError, match=r"no \.pkl files in the folders of"):
        threedpw.list_recordings(threedpw.Config(joints="smpl"), tmp_path)
    (tmp_path / "body_models").mkdir()
    with pytest.raises(ValueError, match=r"needs the smpl model for female, found are those for nobody"):
        threedpw.list_recordings(threedpw.Config(), tmp_path)
    with pytest.raises(ValueError, match=r"joint regressor .*other\.npy \(option regressor\) is missing"):
        threedpw.list_recordings(threedpw.Config(regressor="other.npy"), raw)
    with pytest.raises(ValueError, match=r'keypoints "opnepose" .* did you mean "openpose"'):
        threedpw.Config(keypoints="opnepose")
    with pytest.raises(ValueError, match=r"neither the spine"):
        threedpw.Config(joints="smpl", keypoints="openpose")
    twice = write(tmp_path / "t", {"train/a_b_00": ONE, "test/a_b_00": ONE})
    with pytest.raises(ValueError, match=r"test/a_b_00\.pkl and .*train/a_b_00\.pkl are the same sequence"):
        threedpw.list_recordings(threedpw.Config(), twice)
    other = replace(threedpw.Config(), regressor_order="h36m")
    recording = threedpw.list_recordings(other, raw)[0]
    with pytest.raises(ValueError, match=r"LHip of the joint regressor lies at RHip"):
        threedpw.read_recording(other, recording)
