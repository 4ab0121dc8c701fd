"""Conversions between skeletons against permutations and midpoints written out by index."""

import numpy as np
import pytest

from posegrid.datasets.conversions import conversion_matrix, convert, is_exact, targets_of
from posegrid.datasets.skeletons import SKELETONS, skeleton_named

UPLIFT_OF_H36M = [3, 2, 1, 4, 5, 6, 0, 8, 7, 9, 10, 16, 15, 14, 11, 12, 13]
"""As published with Uplift and Upsample."""
MPI_OF_H36M = [10, 8, 14, 15, 16, 11, 12, 13, 1, 2, 3, 4, 5, 6, 0, 7, 9]


def random_points(name, *shape, dtype=np.float32, coordinates=2):
    generator = np.random.default_rng(len(name) + len(shape))
    return generator.normal(size=(*shape, len(skeleton_named(name)), coordinates)).astype(dtype)


@pytest.mark.parametrize(("name", "order"), [("uplift_17", UPLIFT_OF_H36M), ("mpi_inf_3dhp_17", MPI_OF_H36M)])
@pytest.mark.parametrize("coordinates", [2, 3])
def test_permutations_are_exact_both_ways(name, order, coordinates):
    points = random_points("h36m_17", 2, 5, coordinates=coordinates)
    confidence = points[..., 0].copy()
    there, there_confidence = convert(points, "h36m_17", name, confidence)
    assert (there == points[..., order, :]).all()
    assert (there_confidence == confidence[..., order]).all()
    back, back_confidence = convert(there, name, "h36m_17", there_confidence)
    assert (back == points).all()
    assert (back_confidence == confidence).all()
    assert back.dtype == np.float32
    assert is_exact(name, "h36m_17")
    assert is_exact("h36m_17", name)


def expected_h36m(name, p):
    """Human3.6M's 17 joints from points p[joint number], by the numbers of each format."""

    def middle(*joints):
        return sum(p[joint] for joint in joints) / len(joints)

    if name == "h36m_16":
        return [*p[:9], middle(8, 9), *p[9:]]
    if name == "coco_17":
        hip, thorax, eyes = middle(11, 12), middle(5, 6), middle(1, 2)
        legs, arms = [12, 14, 16, 11, 13, 15], [5, 7, 9, 6, 8, 10]
        spine, neck, head = (hip + thorax) / 2, p[0], eyes + (eyes - thorax) / 2
    elif name == "halpe_26":
        hip, thorax = p[19], p[18]
        legs, arms = [12, 14, 16, 11, 13, 15], [5, 7, 9, 6, 8, 10]
        spine, neck, head = (hip + thorax) / 2, p[0], p[17]
    elif name == "body_25":
        hip, thorax, eyes = p[8], p[1], middle(15, 16)
        legs, arms = [9, 10, 11, 12, 13, 14], [5, 6, 7, 2, 3, 4]
        spine, neck, head = (hip + thorax) / 2, p[0], eyes + (eyes - thorax) / 2
    elif name == "openpose_18":
        hip, thorax, eyes = middle(8, 11), p[1], middle(14, 15)
        legs, arms = [8, 9, 10, 11, 12, 13], [5, 6, 7, 2, 3, 4]
        spine, neck, head = (hip + thorax) / 2, p[0], eyes + (eyes - thorax) / 2
    else:
        hip, thorax, spine, neck, head = p[0], p[12], p[6], p[15], 2 * p[15] - p[12]
        legs, arms = [2, 5, 8, 1, 4, 7], [16, 18, 20, 17, 19, 21]
    return [hip, *(p[joint] for joint in legs), spine, thorax, neck, head, *(p[joint] for joint in arms)]


@pytest.mark.parametrize("name", ["h36m_16", "coco_17", "halpe_26", "body_25", "openpose_18", "smpl_24"])
def test_derived_joints(name):
    points = random_points(name, 4, dtype=np.float64, coordinates=3)
    wanted = np.stack([np.stack(expected_h36m(name, list(frame))) for frame in points])
    converted, none = convert(points, name, "h36m_17")
    np.testing.assert_allclose(converted, wanted, rtol=0, atol=1e-14)
    assert none is None
    assert not is_exact(name, "h36m_17")


def test_derived_confidence_is_the_least_of_its_parents():
    confidence = np.ones((1, 17), dtype=np.float32)
    confidence[0, [11, 1]] = 0.25, 0.5
    _, found = convert(random_points("coco_17", 1), "coco_17", "h36m_17", confidence)
    lower = {0: 0.25, 4: 0.25, 7: 0.25, 10: 0.5}
    assert {joint: float(found[0, joint]) for joint in range(17) if found[0, joint] < 1} == lower
    assert found.dtype == np.float32


@pytest.mark.parametrize("source", SKELETONS)
@pytest.mark.parametrize("target", SKELETONS)
def test_conversion_commutes_with_mirroring_and_moving(source, target):
    if target not in targets_of(source):
        with pytest.raises(ValueError, match=f"{source} cannot be converted to {target}.*Possible from"):
            convert(random_points(source, 3), source, target)
        return

    def mirrored(points, name):
        return (points * [-1, 1])[..., list(skeleton_named(name).mirror), :]

    points = random_points(source, 3, dtype=np.float64)
    converted = convert(points, source, target)[0]
    np.testing.assert_allclose(
        convert(mirrored(points, source), source, target)[0], mirrored(converted, target), atol=1e-14
    )
    moved = convert(points * 3 + [5, -7], source, target)[0]
    np.testing.assert_allclose(moved, converted * 3 + [5, -7], atol=1e-13)
    np.testing.assert_allclose(conversion_matrix(source, target).sum(axis=1), 1, atol=1e-15)


def test_which_pairs_exist():
    assert all("h36m_17" in targets_of(name) for name in SKELETONS)
    assert set(targets_of("h36m_17")) == {"h36m_17", "h36m_16", "uplift_17", "mpi_inf_3dhp_17"}
    assert {"coco_17", "openpose_18"} <= set(targets_of("halpe_26")) & set(targets_of("body_25"))
    assert is_exact("h36m_17", "h36m_16")
    assert not is_exact("smpl_24", "h36m_17")


def test_damage_in_one_joint_stays_there():
    points = random_points("coco_17", 2)
    points[0, 9] = np.nan
    converted = convert(points, "coco_17", "h36m_17")[0]
    assert np.isnan(converted).any(axis=-1).sum() == 1
    assert np.isnan(converted[0, 13]).all()


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"17 joints.*\(\.\.\., 17, coordinates\)"):
        convert(np.zeros((3, 16, 2)), "coco_17", "h36m_17")
    with pytest.raises(ValueError, match=r"confidence \(3, 16\)"):
        convert(np.zeros((3, 17, 2)), "coco_17", "h36m_17", np.zeros((3, 16)))
    with pytest.raises(ValueError, match=r"'coco' is unknown"):
        convert(np.zeros((3, 17, 2)), "coco", "h36m_17")
