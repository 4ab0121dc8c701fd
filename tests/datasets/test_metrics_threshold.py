"""PCK and AUC: cases computed by hand, an independent formula, which joints count."""

import numpy as np
import pytest

from posegrid.datasets.metrics.threshold import AUC_THRESHOLDS_MM, SCORED_JOINTS, auc, pck, scored_errors
from posegrid.datasets.skeletons import COCO_17, H36M_17, MPI_INF_3DHP_17


def test_an_error_of_exactly_the_threshold_is_not_correct():
    assert pck(np.array([149.999, 150.0, 150.001, 0.0])) == 50.0
    assert pck(np.array([100.0, 20.0]), 100.0) == 50.0


def test_auc_by_hand():
    """An error of 0 is below 30 of 31 thresholds; 5 below 29; 72 below 75 to 150: 16; 150 and more below none."""
    for error, points in ((0.0, 30), (5.0, 29), (4.999, 30), (72.0, 16), (149.0, 1), (150.0, 0), (900.0, 0)):
        assert auc(np.array([[error]])) == pytest.approx(100 * points / 31, abs=1e-12)
    assert auc(np.array([0.0, 72.0, 150.0, 5.0])) == pytest.approx(100 * (30 + 16 + 29) / 4 / 31, abs=1e-12)


def test_auc_is_the_mean_of_pck_over_31_thresholds():
    errors = np.random.default_rng(0).gamma(2, 40, (7, 9, 14)).round()
    shares = [sum(error < threshold for error in errors.ravel()) / errors.size for threshold in range(0, 151, 5)]
    assert len(AUC_THRESHOLDS_MM) == len(shares) == 31
    assert auc(errors) == pytest.approx(100 * sum(shares) / 31, abs=1e-10)
    assert pck(errors) == pytest.approx(100 * shares[-1], abs=1e-10)


def test_fourteen_joints_count_relative_to_the_root():
    """One joint at a time is off; a shift of everything is not seen; pelvis, spine and face are not counted."""
    target = np.random.default_rng(1).normal(0, 0.3, (2, 3, 17, 3))
    shift = np.array([3.0, -2.0, 5.0])
    for index in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16):
        predicted = target + shift
        predicted[1, 2, index, 1] += 0.2
        errors = scored_errors(predicted, target, MPI_INF_3DHP_17)
        assert errors.shape == (2, 3, 14)
        expected = np.zeros((2, 3, 14))
        if index < 14:
            place = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10].index(index)
            expected[1, 2, place] = 200
        np.testing.assert_allclose(errors, expected, atol=1e-9)
        assert pck(errors) == pytest.approx(100 * (84 - (index < 14)) / 84)
    moved_root = target.copy()
    moved_root[..., 14, 2] += 0.2
    np.testing.assert_allclose(scored_errors(moved_root, target, MPI_INF_3DHP_17), 200)


def test_the_same_joints_count_in_other_orders():
    generator = np.random.default_rng(2)
    predicted, target = generator.normal(0, 0.3, (2, 4, 17, 3))
    order = [MPI_INF_3DHP_17.joints.index(joint) for joint in H36M_17.joints]
    np.testing.assert_allclose(
        scored_errors(predicted[:, order], target[:, order], H36M_17),
        scored_errors(predicted, target, MPI_INF_3DHP_17),
        atol=1e-12,
    )
    assert len(set(SCORED_JOINTS)) == 14


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"errors are \(0,\)"):
        pck(np.zeros(0))
    with pytest.raises(ValueError, match="1 that are NaN"):
        auc(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match=r"expected \(W, L, 17, 3\)"):
        scored_errors(np.zeros((2, 16, 3)), np.zeros((2, 16, 3)), H36M_17)
    with pytest.raises(ValueError, match="has no joint 'Head'"):
        scored_errors(np.zeros((2, 17, 3)), np.zeros((2, 17, 3)), COCO_17)
    with pytest.raises(ValueError, match="one shape"):
        scored_errors(np.zeros((2, 17, 3)), np.zeros((3, 17, 3)), H36M_17)
