"""Skeletons: tree, mirror pairs, orders as published."""

import json

import numpy as np
import pytest

from posegrid.datasets import skeletons
from posegrid.datasets.skeletons import SKELETONS, skeleton_named

EVERY = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda skeleton: skeleton.name)


def test_all_are_registered_under_their_names():
    assert set(SKELETONS) == {
        "h36m_17", "h36m_16", "uplift_17", "mpi_inf_3dhp_17",
        "coco_17", "halpe_26", "body_25", "openpose_18", "smpl_24",
    }  # fmt: skip
    constants = [value for value in vars(skeletons).values() if isinstance(value, skeletons.Skeleton)]
    assert sorted(value.name for value in constants) == sorted(SKELETONS)


@EVERY
def test_is_one_tree(skeleton):
    assert skeleton.parents.count(-1) == 1
    for joint in range(len(skeleton)):
        path = [joint]
        while skeleton.parents[path[-1]] != -1:
            path.append(skeleton.parents[path[-1]])
            assert len(path) <= len(skeleton), f"{skeleton.joints[joint]} is its own ancestor"
        assert path[-1] == skeleton.root


@EVERY
def test_pairs_are_named_alike_and_complete(skeleton):
    sided = {name for name in skeleton.joints if name[0] in "LR" and name[1].isupper()}
    pairs = [
        (skeleton.joints[left], skeleton.joints[right])
        for left, right in zip(skeleton.left, skeleton.right, strict=True)
    ]
    assert all(left[0] == "L" and right == "R" + left[1:] for left, right in pairs)
    assert {name for pair in pairs for name in pair} == sided
    assert len(pairs) * 2 == len(sided)


@EVERY
def test_mirror_is_an_involution_that_keeps_the_tree(skeleton):
    mirror = np.array(skeleton.mirror)
    assert (mirror[mirror] == np.arange(len(skeleton))).all()
    for child, parent in skeleton.bones:
        assert skeleton.parents[mirror[child]] == mirror[parent]


@pytest.mark.parametrize(
    ("name", "root", "middle"),
    [
        ("h36m_17", 0, {"Hip": 0, "Spine": 7, "Thorax": 8, "Neck": 9, "Head": 10}),
        ("h36m_16", 0, {"Hip": 0, "Spine": 7, "Thorax": 8, "Head": 9, "LShoulder": 10, "RShoulder": 13}),
        ("uplift_17", 6, {"RFoot": 0, "Thorax": 7, "Spine": 8, "Neck": 9, "Head": 10, "RWrist": 11, "LWrist": 16}),
        ("mpi_inf_3dhp_17", 14, {"Head": 0, "Thorax": 1, "RShoulder": 2, "LFoot": 13, "Spine": 15, "Neck": 16}),
        ("coco_17", 0, {"Nose": 0, "LEye": 1, "LShoulder": 5, "LHip": 11, "RFoot": 16}),
        ("halpe_26", 19, {"Head": 17, "Thorax": 18, "Hip": 19, "LBigToe": 20, "RSmallToe": 23, "LHeel": 24}),
        ("body_25", 8, {"Nose": 0, "Thorax": 1, "RShoulder": 2, "RHip": 9, "LFoot": 14, "REye": 15, "RHeel": 24}),
        ("openpose_18", 1, {"Nose": 0, "Thorax": 1, "RHip": 8, "LFoot": 13, "REye": 14, "LEar": 17}),
        (
            "smpl_24",
            0,
            {"LHip": 1, "RHip": 2, "LFoot": 7, "NeckBase": 12, "HeadBase": 15, "LShoulder": 16, "RHand": 23},
        ),
    ],
)
def test_orders_are_the_published_ones(name, root, middle):
    skeleton = skeleton_named(name)
    assert skeleton.root == root
    assert {joint: skeleton.joints.index(joint) for joint in middle} == middle


def test_mirror_lists_of_publications():
    assert skeleton_named("uplift_17").mirror == (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 10, 16, 15, 14, 13, 12, 11)
    assert skeleton_named("mpi_inf_3dhp_17").left == (5, 6, 7, 11, 12, 13)
    assert skeleton_named("mpi_inf_3dhp_17").right == (2, 3, 4, 8, 9, 10)
    # VideoPose3D's lists of COCO
    assert skeleton_named("coco_17").left == (1, 3, 5, 7, 9, 11, 13, 15)
    assert skeleton_named("coco_17").right == (2, 4, 6, 8, 10, 12, 14, 16)


def test_occluded_limbs_exist_by_name_everywhere():
    limbs = [side + part for side in "LR" for part in ("Hip", "Knee", "Foot", "Shoulder", "Elbow", "Wrist")]
    for skeleton in SKELETONS.values():
        assert set(limbs) <= set(skeleton.joints)
        indices = {name: skeleton.index(name) for name in limbs}
        for side in "LR":
            assert skeleton.parents[indices[side + "Foot"]] == indices[side + "Knee"]
            assert skeleton.parents[indices[side + "Knee"]] == indices[side + "Hip"]
            assert skeleton.parents[indices[side + "Wrist"]] == indices[side + "Elbow"]
            assert skeleton.parents[indices[side + "Elbow"]] == indices[side + "Shoulder"]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"coco.*unknown.*coco_17"):
        skeleton_named("coco")
    with pytest.raises(ValueError, match=r"no joint 'LAnkel'.*Joints"):
        skeleton_named("h36m_17").index("LAnkel")
    assert json.loads(json.dumps(skeleton_named("coco_17").parents))[0] == -1
