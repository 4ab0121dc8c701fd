"""Body models against a vertex-by-vertex computation, on made-up models of a few vertices."""

import pickle

import numpy as np
import pytest
from body_files import SPIN_AT, made_up_model, made_up_regressor, old_pickle, skinned, sparse, write_model
from scipy.spatial.transform import Rotation

from posegrid.datasets.readers.body_model import (
    body_model_of,
    find_body_models,
    find_soft_tissue,
    read_body_model,
    rotations,
)
from posegrid.datasets.readers.joint_regressor import SPIN_JOINTS, fold, read_regressor, regressed_joints, to_h36m
from posegrid.datasets.skeletons import H36M_17, SMPL_24, UPLIFT_17

FRAMES = 5
GENERATOR = np.random.default_rng(3)


def motion(joints: int, shapes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    poses = GENERATOR.normal(0, 0.5, (FRAMES, joints * 3))
    return poses, GENERATOR.normal(0, 1, shapes), GENERATOR.normal(0, 2, (FRAMES, 3))


def joints_of(folder, model, suffix="npz", order="spin"):
    regressor = made_up_regressor(model)
    np.save(folder / "regressor.npy", regressor if order == "spin" else regressor[to_h36m("spin")])
    return regressed_joints(write_model(folder / f"model.{suffix}", model), folder / "regressor.npy", order)


@pytest.mark.parametrize(("joints", "shapes", "suffix"), [(24, 10, "npz"), (24, 10, "pkl"), (52, 16, "npz")])
def test_folded_regressor_equals_the_full_mesh(tmp_path, joints, shapes, suffix):
    model = made_up_model(joints, shapes)
    poses, betas, translation = motion(joints, shapes)
    found = joints_of(tmp_path, model, suffix).positions(poses, betas, translation)
    regressor = made_up_regressor(model)
    for frame in range(FRAMES):
        mesh = skinned(model, poses[frame], betas, translation[frame])
        expected = {name: row @ mesh for name, row in zip(SPIN_JOINTS, regressor, strict=True)}
        for joint, name in enumerate(H36M_17.joints):
            np.testing.assert_allclose(found[frame, joint], expected[name], atol=1e-9)


def test_zero_pose_is_the_template(tmp_path):
    model = made_up_model()
    found = joints_of(tmp_path, model).positions(np.zeros((1, 72)), np.zeros(10), np.zeros((1, 3)))[0]
    expected = made_up_regressor(model) @ model["v_template"]
    np.testing.assert_allclose(found, expected[[SPIN_JOINTS.index(name) for name in H36M_17.joints]], atol=1e-12)


def test_turning_the_root_turns_the_body(tmp_path):
    model = made_up_model()
    poses, betas, _ = motion(24, 10)
    turn = Rotation.from_rotvec([0.3, -2.0, 0.7])
    turned = poses.copy()
    turned[:, :3] = (turn * Rotation.from_rotvec(poses[:, :3])).as_rotvec()
    joints, still = joints_of(tmp_path, model), np.zeros((FRAMES, 3))
    before, after = (joints.positions(each, betas, still) for each in (poses, turned))
    # about the model's own root joint
    shaped = model["v_template"] + model["shapedirs"] @ betas
    root = model["J_regressor"][0] @ shaped
    expected = turn.apply((before - root).reshape(-1, 3)).reshape(before.shape) + root
    np.testing.assert_allclose(after, expected, atol=1e-9)


def test_many_frames_equal_each_by_itself(tmp_path):
    """More than are computed at once."""
    joints = joints_of(tmp_path, made_up_model())
    poses, translation = GENERATOR.normal(0, 0.4, (1100, 72)), GENERATOR.normal(size=(1100, 3))
    betas = GENERATOR.normal(size=10)
    together = joints.positions(poses, betas, translation)
    for frame in (0, 511, 512, 1023, 1024, 1099):
        alone = joints.positions(poses[frame : frame + 1], betas, translation[frame : frame + 1])[0]
        np.testing.assert_allclose(together[frame], alone, atol=1e-12)


def test_soft_tissue_is_a_shape_of_each_frame(tmp_path):
    model = made_up_model(52, 16)
    poses, betas, translation = motion(52, 16)
    eigenvectors, soft = GENERATOR.normal(0, 0.01, (len(model["v_template"]), 3, 8)), GENERATOR.normal(size=(FRAMES, 8))
    file = tmp_path / "dmpls" / "male" / "model.npz"
    file.parent.mkdir(parents=True)
    np.savez(file, eigvec=eigenvectors)
    assert find_soft_tissue(tmp_path) == {"male": file}
    np.save(tmp_path / "regressor.npy", made_up_regressor(model))
    joints = regressed_joints(write_model(tmp_path / "m.npz", model), tmp_path / "regressor.npy", "spin", file)
    found = joints.positions(poses, betas, translation, soft)
    whole = dict(model, shapedirs=np.concatenate([model["shapedirs"], eigenvectors], axis=2))
    for frame in range(FRAMES):
        mesh = skinned(whole, poses[frame], np.concatenate([betas, soft[frame]]), translation[frame])
        expected = made_up_regressor(model) @ mesh
        np.testing.assert_allclose(found[frame, 0], expected[0], atol=1e-9)
        np.testing.assert_allclose(found[frame, H36M_17.index("RWrist")], expected[16], atol=1e-9)
    # fewer coefficients than the model has count as 0
    np.testing.assert_allclose(
        joints.positions(poses, betas[:10], translation),
        joints.positions(poses, np.concatenate([betas[:10], np.zeros(6)]), translation, np.zeros((FRAMES, 8))),
    )
    with pytest.raises(ValueError, match=r"soft tissue coefficients \(5, 9\), expected \(5, at most 8\)"):
        joints.positions(poses, betas, translation, np.zeros((FRAMES, 9)))


def test_rotations():
    vectors = np.concatenate([GENERATOR.normal(0, 2, (50, 3)), np.zeros((1, 3)), [[1e-9, 0, 0], [0, np.pi, 0]]])
    np.testing.assert_allclose(rotations(vectors), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)


def test_orders_are_those_of_the_published_index_lists():
    """SPIN's order and Human3.6M's by way of the order of Uplift and Upsample, of which both lists are published."""
    from_spin = [6, 5, 4, 1, 2, 3, 0, 8, 7, 9, 10, 16, 15, 14, 11, 12, 13]
    from_h36m = [3, 2, 1, 4, 5, 6, 0, 8, 7, 9, 10, 16, 15, 14, 11, 12, 13]
    assert tuple(H36M_17.joints[index] for index in from_h36m) == UPLIFT_17.joints
    assert tuple(SPIN_JOINTS[index] for index in from_spin) == UPLIFT_17.joints
    composed = np.empty(17, dtype=int)
    composed[from_h36m] = from_spin
    assert to_h36m("spin") == composed.tolist() == [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]
    assert to_h36m("h36m") == list(range(17))


def test_regressor_files(tmp_path):
    rows = made_up_regressor(made_up_model())
    files = {name: tmp_path / name for name in ("a.npy", "one.npz", "named.npz", "two.npz")}
    np.save(files["a.npy"], rows.astype(np.float32))
    np.savez(files["one.npz"], weights=rows)
    np.savez(files["named.npz"], J_regressor_h36m=rows, other=np.zeros(3))
    np.savez(files["two.npz"], a=rows, b=rows)
    for name in ("a.npy", "one.npz", "named.npz"):
        found = read_regressor(files[name], "spin")
        assert found.dtype == np.float64
        np.testing.assert_allclose(found[H36M_17.index("RHip")], rows[4], atol=1e-7)
        np.testing.assert_allclose(found[H36M_17.index("LHip")], rows[1], atol=1e-7)
    with pytest.raises(ValueError, match=r"two\.npz has the entries a, b; expected one array"):
        read_regressor(files["two.npz"], "spin")
    with pytest.raises(ValueError, match=r"none\.npy \(option regressor\) is missing"):
        read_regressor(tmp_path / "none.npy", "spin")
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad\.npz is damaged"):
        read_regressor(tmp_path / "bad.npz", "spin")
    for wrong, message in (
        (rows[:14], r"is float64 \(14, 72\), expected floats of shape \(17, vertices\)"),
        (np.round(rows * 1000).astype(int), r"is int64"),
        (rows * 2, r"row 0 of the joint regressor sums to 2"),
        (np.where(np.arange(17)[:, None] == 3, np.nan, rows), r"row 3 .* sums to nan"),
    ):
        np.save(tmp_path / "wrong.npy", wrong)
        with pytest.raises(ValueError, match=message):
            read_regressor(tmp_path / "wrong.npy", "spin")


def test_left_and_right_of_the_regressor_are_checked(tmp_path):
    model = made_up_model()
    assert [SMPL_24.joints[joint] for joint in SPIN_AT[1:7]] == list(SPIN_JOINTS[1:7])
    poses, betas, translation = motion(24, 10)
    spin = joints_of(tmp_path, model).positions(poses, betas, translation)
    (tmp_path / "other").mkdir()
    other = joints_of(tmp_path / "other", model, order="h36m").positions(poses, betas, translation)
    np.testing.assert_allclose(spin, other, atol=1e-12)
    with pytest.raises(ValueError, match=r"regressor\.npy: LHip .* lies at RHip .* regressor_order .* spin, h36m"):
        regressed_joints(tmp_path / "model.npz", tmp_path / "regressor.npy", "h36m")


def test_files_that_do_not_fit(tmp_path):
    model, rows = made_up_model(), made_up_regressor(made_up_model(per_joint=4))
    file = write_model(tmp_path / "m.npz", model)
    with pytest.raises(ValueError, match=r"r\.npy: the joint regressor is for 96 vertices, .*m\.npz has 72"):
        fold(read_body_model(file), rows, tmp_path / "r.npy")
    joints = fold(read_body_model(file), made_up_regressor(model)[to_h36m("spin")], tmp_path / "r.npy")
    poses, betas, translation = motion(24, 10)
    for wrong in (
        (np.zeros((5, 156)), betas, translation),
        (poses, np.zeros(16), translation),
        (poses, betas, translation[:3]),
    ):
        with pytest.raises(ValueError, match=r"m\.npz got poses .* it has 24 joints and 10 shapes.*Choose the model"):
            joints.positions(*wrong)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("v_template", np.zeros((72, 2)), r"v_template is float64 \(72, 2\), expected floats of shape \(any, 3\)"),
        ("shapedirs", np.zeros((70, 3, 10)), r"shapedirs .*\(72, 3, any\)"),
        ("posedirs", np.zeros((72, 3, 200)), r"posedirs .*\(72, 3, 207\)"),
        ("weights", np.ones((72, 24)), r"rows of weights sum to 24"),
        ("weights", np.zeros((0, 24)), r"weights is"),
        ("J_regressor", np.full((24, 72), np.nan), r"J_regressor holds NaN"),
        ("J_regressor", np.arange(24 * 72).reshape(24, 72), r"J_regressor is int64"),
        ("kintree_table", np.array([[-1, *[5] * 23], range(24)]), r"no tree of joints"),
        ("kintree_table", np.array([[-1, *[0] * 23], range(1, 25)]), r"no tree of joints"),
        ("kintree_table", np.zeros((3, 24)), r"kintree_table is float64"),
        ("kintree_table", None, r"lacks the entries kintree_table"),
    ],
)
def test_damaged_models_are_refused(tmp_path, name, value, message):
    model = made_up_model()
    model.pop(name)
    if value is not None:
        model[name] = value
    for file in (tmp_path / "m.npz", tmp_path / "m.pkl"):
        if file.suffix == ".npz":
            np.savez(file, **model)
        else:
            content = dict(model)
            if name != "J_regressor":
                content["J_regressor"] = sparse(model["J_regressor"])
            file.write_bytes(old_pickle(content))
        with pytest.raises(ValueError, match=message):
            read_body_model(file)


def test_models_are_found_by_name(tmp_path):
    names = ["smpl/SMPL_MALE.npz", "smpl/basicModel_f_lbs_10_207_0_v1.0.0.pkl", "smpl/SMPL_NEUTRAL.pkl"]
    hands = ["smplh/female/model.npz", "dmpls/female/model.npz", "SMPLH_male.pkl", "smplx/SMPLX_MALE.npz"]
    for name in names + hands:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_body_models(tmp_path, "smpl")
    assert found == {gender: tmp_path / names[i] for gender, i in (("female", 1), ("male", 0), ("neutral", 2))}
    assert find_body_models(tmp_path, "smplh") == {"female": tmp_path / hands[0], "male": tmp_path / hands[2]}
    with pytest.raises(ValueError, match=r"walk\.npz needs the smplh model for neutral, found .* female, male"):
        body_model_of(find_body_models(tmp_path, "smplh"), "neutral", "smplh", "walk.npz")
    (tmp_path / "SMPL_male.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"several smpl models for male: .*Keep one"):
        find_body_models(tmp_path, "smpl")
    with pytest.raises(ValueError, match=r"absent \(option body_models\) does not exist.*smpl\.is\.tue\.mpg\.de"):
        find_body_models(tmp_path / "absent", "smpl")


def test_harmful_models_do_not_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",)

    (tmp_path / "m.pkl").write_bytes(pickle.dumps({**made_up_model(), "f": Harmful()}, protocol=2))
    with pytest.raises(ValueError, match=r"m\.pkl holds the name .*eval.*Nothing was run"):
        read_body_model(tmp_path / "m.pkl")
    assert not (tmp_path / "ran").exists()
