"""The AMASS source on made-up files of exactly the published layouts, with a body model of 104 vertices."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from body_files import made_up_model, made_up_regressor, skinned, write_model
from scipy.spatial.transform import Rotation

from posegrid.datasets import cameras
from posegrid.datasets.checks.integrity import check_store
from posegrid.datasets.prepare import prepare
from posegrid.datasets.sources import amass

GENERATOR = np.random.default_rng(11)
MODELS = {gender: made_up_model(52, 16, 2, seed=seed) for seed, gender in enumerate(("female", "male"))}
SOFT = GENERATOR.normal(0, 0.005, (104, 3, 8))
REGRESSOR = made_up_regressor(MODELS["male"])
# Human3.6M's order from SPIN's rows: the right leg first
ORDER = [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]


def made_up(frames: int = 13, rate: float = 120.0, gender="male") -> dict[str, np.ndarray]:
    """One file: a body that stands upright, z up."""
    poses = GENERATOR.normal(0, 0.1, (frames, 156))
    upright = Rotation.from_rotvec([np.pi / 2, 0, 0])
    poses[:, :3] = (Rotation.from_rotvec(GENERATOR.normal(0, 0.1, (frames, 3))) * upright).as_rotvec()
    return {
        "poses": poses,
        "trans": GENERATOR.normal([0, 0, 1.0], 0.02, (frames, 3)),
        "betas": GENERATOR.normal(0, 1, 16),
        "dmpls": GENERATOR.normal(0, 1, (frames, 8)),
        "gender": np.array(gender),
        "mocap_framerate": np.array(rate),
    }


TAKES = {
    "CMU/CMU/01/01_01_poses": made_up(),
    "CMU/CMU/01/01_02_poses": made_up(9, 60.0, b"female"),
    "ACCAD/Female1General_c3d/A1 - Stand_poses": made_up(7, 30.0, "b'female'"),
    "MPI_HDM05/bd/HDM_bd_01-01_01_120_poses": made_up(12, 100.0),
    "BioMotionLab_NTroje/rub001/0000_treadmill_norm_poses": made_up(),
    "DFaust_67/50002/50002_chicken_wings_poses": made_up(),
}


def write(folder: Path, takes: dict[str, dict[str, np.ndarray]]) -> Path:
    for gender, model in MODELS.items():
        write_model(folder / "body_models" / "smplh" / gender / "model.npz", model)
        (folder / "body_models" / "dmpls" / gender).mkdir(parents=True, exist_ok=True)
        np.savez(folder / "body_models" / "dmpls" / gender / "model.npz", eigvec=SOFT)
    np.save(folder / "J_regressor_h36m.npy", REGRESSOR)
    for name, content in takes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{name}.npz", **content)
        np.savez(folder / Path(name).parent / "shape.npz", betas=np.zeros(16), gender=np.array("male"))
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write(tmp_path_factory.mktemp("amass"), TAKES)


def recording_of(raw: Path, name: str, **options):
    config = amass.Config(**options)
    (recording,) = (each for each in amass.list_recordings(config, raw) if f"{each.subject}/{each.name}" == name)
    return config, pickle.loads(pickle.dumps(recording))


def expected_joints(content: dict, gender: str, soft: bool = True) -> np.ndarray:
    """(F, 17, 3) from the full mesh at the motion's own frame rate."""
    model = dict(MODELS[gender])
    model["shapedirs"] = np.concatenate([model["shapedirs"], SOFT], axis=2)
    joints = []
    for pose, shift, tissue in zip(content["poses"], content["trans"], content["dmpls"], strict=True):
        shape = np.concatenate([content["betas"], tissue if soft else np.zeros(8)])
        joints.append((REGRESSOR @ skinned(model, pose, shape, shift))[ORDER])
    return np.array(joints)


def interpolated(joints: np.ndarray, rate: float, frames: int) -> np.ndarray:
    times, wanted = np.arange(len(joints)) / rate, np.arange(frames) / 50
    columns = [np.interp(wanted, times, column) for column in joints.reshape(len(joints), -1).T]
    return np.stack(columns, axis=1).reshape(frames, 17, 3)


def test_recordings_and_splits(raw):
    config = amass.Config()
    recordings = amass.list_recordings(config, raw)
    assert [f"{found.subject}/{found.name}" for found in recordings] == [
        "ACCAD_Female1General_c3d/A1 - Stand",
        "BioMotionLab_NTroje_rub001/0000_treadmill_norm",
        "CMU_01/01_01",
        "CMU_01/01_02",
        "MPI_HDM05_bd/HDM_bd_01-01_01_120",
    ]
    assert [found.action for found in recordings[:3]] == ["ACCAD", "BioMotionLab_NTroje", "CMU"]
    split = amass.protocol(config, recordings)
    assert (split.held_out, split.test) == (("MPI_HDM05_bd",), ())
    assert {split.split_of(found.subject, found.name) for found in recordings} == {"train", "held_out"}
    other = amass.Config(
        train=("ACCAD",), held_out=(), test=("DFaust",), excluded=("ACCAD_Female1General_c3d/A1 - Stand",)
    )
    recordings = amass.list_recordings(other, raw)
    split = amass.protocol(other, recordings)
    assert [split.split_of(found.subject, found.name) for found in recordings] == ["unused", "test"]


@pytest.mark.parametrize(
    ("name", "file", "gender", "rate", "frames"),
    [
        ("CMU_01/01_01", "CMU/CMU/01/01_01_poses", "male", 120.0, 5),  # 13 frames: 5.4 at 50 Hz
        ("CMU_01/01_02", "CMU/CMU/01/01_02_poses", "female", 60.0, 7),  # 9 frames: 7.5
        ("MPI_HDM05_bd/HDM_bd_01-01_01_120", "MPI_HDM05/bd/HDM_bd_01-01_01_120_poses", "male", 100.0, 6),
    ],
)
def test_joints_equal_an_independent_computation(raw, name, file, gender, rate, frames):
    joints = expected_joints(TAKES[file], gender)
    found, found_rate = amass.read_body(*recording_of(raw, name))
    assert (found.shape, found_rate) == ((frames, 17, 3), 50.0)
    np.testing.assert_allclose(found, interpolated(joints, rate, frames), atol=1e-9)


def test_slow_motion_is_not_interpolated_and_soft_tissue_can_be_left_out(raw):
    name, content = "ACCAD_Female1General_c3d/A1 - Stand", TAKES["ACCAD/Female1General_c3d/A1 - Stand_poses"]
    for soft in (True, False):
        found, rate = amass.read_body(*recording_of(raw, name, dmpls=soft))
        assert rate == 30.0
        np.testing.assert_allclose(found, expected_joints(content, "female", soft), atol=1e-9)


def test_filming_keeps_the_body(raw):
    """Placing turns about the vertical and shifts along the ground only; 2D follows the poses."""
    config, recording = recording_of(raw, "CMU_01/01_01")
    body, _ = amass.read_body(config, recording)
    sequences = amass.read_recording(config, recording)
    assert tuple(sequence.camera for sequence in sequences) == cameras.H36M_CAMERA_IDS
    worlds = []
    for sequence in sequences:
        plain = sequence.camera_parameters
        turn = Rotation.from_quat(plain["orientation"], scalar_first=True)
        worlds.append(turn.apply(sequence.poses.reshape(-1, 3)).reshape(-1, 17, 3) + plain["translation"])
        pixels = sequence.poses[..., :2] / sequence.poses[..., 2:] * plain["focal_px"] + plain["centre_px"]
        screen = pixels * 2 / plain["width"] - [1, plain["height"] / plain["width"]]
        assert np.median(np.linalg.norm(sequence.keypoints - screen, axis=-1)) < 0.04, "noise and lens"
    for world in worlds:
        np.testing.assert_allclose(world, worlds[0], atol=1e-5)
        np.testing.assert_allclose(world[..., 2], body[..., 2], atol=1e-5)
        for points in (world, body):
            assert points.shape == (5, 17, 3)
        np.testing.assert_allclose(
            np.linalg.norm(world[:, :, None] - world[:, None], axis=-1),
            np.linalg.norm(body[:, :, None] - body[:, None], axis=-1),
            atol=1e-5,
        )
    one = amass.read_recording(*recording_of(raw, "CMU_01/01_01", views=1))
    assert [len(one), one[0].camera in cameras.H36M_CAMERA_IDS] == [1, True]
    again = amass.read_recording(config, recording)
    np.testing.assert_array_equal(again[0].keypoints, sequences[0].keypoints)


def converted(folder: Path, positions: dict) -> Path:
    np.savez_compressed(folder / "CMU.npz", positions_3d=np.array(positions, dtype=object))
    return folder


def test_converted_files(raw, tmp_path):
    """They hold SPIN's order; what comes out is what the files as distributed give."""
    joints = expected_joints(TAKES["CMU/CMU/01/01_01_poses"], "male")
    in_spin_order = np.empty_like(joints)
    in_spin_order[:, ORDER] = joints
    take = {"positions_3d": interpolated(in_spin_order, 120.0, 5).astype(np.float32), "frame_rate": 50.0}
    slower = {"positions_3d": in_spin_order, "frame_rate": np.float64(120.0)}
    converted(tmp_path, {"01": {"01_01_poses": take, "01_03_poses": slower}})
    recordings = amass.list_recordings(amass.Config(), tmp_path)
    assert [f"{found.subject}/{found.name}" for found in recordings] == ["CMU_01/01_01", "CMU_01/01_03"]
    expected, _ = amass.read_body(*recording_of(raw, "CMU_01/01_01"))
    for recording in recordings:
        found, rate = amass.read_body(amass.Config(), recording)
        assert rate == 50.0
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([1], r"positions_3d is object \(1,\), expected a dictionary"),
        ({"01": [1]}, r"positions_3d is dict, expected a dictionary of subjects"),
        ({"01": {"a": np.zeros((4, 17, 3))}}, r"01/a is float64 \(4, 17, 3\), expected a dictionary with positions_3d"),
        ({"01": {"a": {"positions_3d": np.zeros((4, 16, 3)), "frame_rate": 50.0}}}, r"01/a is float64 \(4, 16, 3\)"),
        ({"01": {"a": {"positions_3d": np.full((4, 17, 3), np.nan), "frame_rate": 50.0}}}, r"01/a holds 204 NaN"),
        ({"01": {"a": {"positions_3d": np.zeros((4, 17, 3)), "frame_rate": 0.0}}}, r"01/a, frame_rate is 0\.0"),
    ],
)
def test_damaged_converted_files_are_refused(tmp_path, positions, message):
    converted(tmp_path, positions)
    with pytest.raises(ValueError, match=rf"CMU\.npz: {message}"):
        amass.read_recording(amass.Config(), amass.list_recordings(amass.Config(), tmp_path)[0])


def test_a_store_of_it_passes_the_checks(tmp_path):
    raw = write(tmp_path / "raw", {name: TAKES[name] for name in list(TAKES)[2:4]})
    store = prepare("amass", raw, tmp_path / "store", options={"views": 2})
    assert [sequence.split for sequence in store.sequences] == ["train"] * 2 + ["held_out"] * 2
    assert [sequence.frame_rate for sequence in store.sequences] == [30.0] * 2 + [50.0] * 2
    assert not [finding for finding in check_store(store) if finding.status == "FAILED"]


def broken(folder: Path, **values) -> Path:
    content = {**TAKES["CMU/CMU/01/01_01_poses"], **values}
    return write(folder, {"CMU/01/01_01_poses": {key: value for key, value in content.items() if value is not None}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"poses": np.zeros((13, 72))}, r"poses is float64 \(13, 72\), expected floats of shape \(frames, 156\)"),
        ({"poses": np.zeros((0, 156))}, r"poses is float64 \(0, 156\)"),
        ({"poses": np.full((13, 156), np.inf)}, r"poses holds 2028 NaN or infinite"),
        ({"trans": np.zeros((12, 3))}, r"trans has 12 frames, poses 13"),
        ({"dmpls": np.zeros((13, 7))}, r"dmpls is float64 \(13, 7\)"),
        ({"betas": np.zeros((1, 16))}, r"betas is float64 \(1, 16\)"),
        ({"gender": np.array("unknown")}, r"gender is 'unknown', expected one of female, male, neutral"),
        ({"mocap_framerate": np.array(0.0)}, r"mocap_framerate is .*expected 1 to 1000 frames"),
        ({"mocap_framerate": np.array(np.nan)}, r"mocap_framerate is"),
        ({"gender": np.array("neutral")}, r"needs the smplh model for neutral, found are those for female, male"),
        ({"betas": np.zeros(20)}, r"got poses .* 20 shape coefficients"),
        ({"trans": None}, r"lacks the entries trans \(it has betas, dmpls"),
        ({"poses": np.zeros((2, 156)), "trans": np.zeros((2, 3)), "dmpls": np.zeros((2, 8))}, r"fewer than two frames"),
    ],
)
def test_damaged_files_are_refused(tmp_path, values, message):
    with pytest.raises(ValueError, match=message) as found:
        amass.read_recording(*recording_of(broken(tmp_path, **values), "CMU_01/01_01"))
    assert "shape coefficients" in message or "01_01_poses.npz" in str(found.value)


def test_files_that_hold_objects_or_are_cut_are_refused(tmp_path):
    mark = tmp_path / "ran"

    class Harmful:
        def __reduce__(self):
            return eval, (f"open({str(mark)!r}, 'w').close()",)

    raw = broken(tmp_path, betas=np.array([Harmful()], dtype=object))
    with pytest.raises(ValueError, match=r"01_01_poses\.npz holds the name .*eval"):
        amass.read_recording(*recording_of(raw, "CMU_01/01_01"))
    assert not mark.exists()
    file = broken(tmp_path) / "CMU/01/01_01_poses.npz"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"01_01_poses\.npz is damaged or cut"):
        amass.read_recording(*recording_of(raw, "CMU_01/01_01"))


def test_what_is_missing_and_wrong_options_are_named(raw, tmp_path):
    (tmp_path / "HumanEva").mkdir()
    with pytest.raises(ValueError, match=r"no \*_poses\.npz in folders of .* \(found: HumanEva\)"):
        amass.list_recordings(amass.Config(), tmp_path)
    with pytest.raises(ValueError, match=r"the raw folder .*absent does not exist"):
        amass.list_recordings(amass.Config(), tmp_path / "absent")
    (tmp_path / "CMU").symlink_to(raw / "CMU")
    with pytest.raises(ValueError, match=r"body_models \(option body_models\) does not exist.*mano\.is\.tue\.mpg\.de"):
        amass.list_recordings(amass.Config(), tmp_path)
    (tmp_path / "body_models").mkdir()
    with pytest.raises(ValueError, match=r"no SMPL\+H models in"):
        amass.list_recordings(amass.Config(), tmp_path)
    write_model(tmp_path / "body_models/smplh/male/model.npz", MODELS["male"])
    with pytest.raises(ValueError, match=r"joint regressor .*npy \(option regressor\) is missing"):
        amass.list_recordings(amass.Config(), tmp_path)
    np.save(tmp_path / "J_regressor_h36m.npy", REGRESSOR)
    with pytest.raises(ValueError, match=r"no soft tissue models for male .*dmpls=false"):
        amass.list_recordings(amass.Config(), tmp_path)
    assert len(amass.list_recordings(amass.Config(dmpls=False), tmp_path)) == 2
    converted(tmp_path, {})
    with pytest.raises(ValueError, match=r"CMU and .*CMU\.npz are the same data set.*Remove one"):
        amass.list_recordings(amass.Config(), tmp_path)
    for options, message in (
        ({"views": 5}, r"views = 5"),
        ({"frame_rate": 0.0}, r"frame_rate = 0\.0"),
        ({"regressor_order": "spni"}, r'did you mean "spin"'),
        ({"test": ("MPI_HDM05",)}, r"name mpihdm05 more than once"),
        ({"train": (), "held_out": ()}, r"name nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            amass.Config(**options)
    config = amass.Config(excluded=("CMU_01/none",))
    with pytest.raises(ValueError, match=r"excluded = \['CMU_01/none'\].*such as ACCAD"):
        amass.protocol(config, amass.list_recordings(config, raw))
