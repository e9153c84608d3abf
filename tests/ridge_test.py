"""Ridge regression against the normal equations."""

import numpy as np
import pytest
import scipy.sparse

from uhman_jax import ridge

C, A, T = 5, 7, 3
PENALTIES = (0.25, 6.0)


def problem(num_rows, seed=0):
    """Inputs with large means, sparse inputs and rare positives."""
    rng = np.random.default_rng(seed)
    dense_VC = (rng.normal(size=(num_rows, C)) + np.arange(C) * 4).astype(np.float32)
    sparse_VA = (rng.random((num_rows, A)) < 0.3) * rng.random((num_rows, A))
    targets_VT = rng.random((num_rows, T)) < 0.3
    return dense_VC, sparse_VA.astype(np.float32), targets_VT.astype(np.float32)


def solve(dense_VC, sparse_VA, targets_VT, penalties=PENALTIES):
    sparse = map(scipy.sparse.csr_array, (sparse_VA, targets_VT))
    return list(ridge.path(dense_VC, *sparse, penalties))


def normal_equations(dense_VC, sparse_VA, targets_VT, penalty):
    """Solves for coefficients and bias at once: a column of ones, without a penalty."""
    inputs_VX = np.concatenate([dense_VC, sparse_VA, np.ones((len(dense_VC), 1))], axis=1)
    inputs_VX = inputs_VX.astype(np.float64)
    penalties_X = np.append(np.full(C + A, penalty), 0)
    return np.linalg.solve(inputs_VX.T @ inputs_VX + np.diag(penalties_X), inputs_VX.T @ targets_VT)


@pytest.mark.parametrize("num_rows", [4, C + A, C + A + 1, 41])
def test_it_solves_the_normal_equations_for_few_and_for_many_rows(num_rows, monkeypatch):
    monkeypatch.setattr(ridge, "_BLOCK", 16)  # the last block of 41 rows has 9
    arrays = problem(num_rows)
    for found, penalty in zip(solve(*arrays), PENALTIES, strict=True):
        expected_XT = normal_equations(*arrays, penalty)
        weights_XT = np.concatenate([found.dense_CT, found.sparse_AT, found.bias_T[None, :]])
        np.testing.assert_allclose(weights_XT, expected_XT, rtol=1e-3, atol=1e-5)
        assert {array.dtype for array in found} == {np.dtype(np.float32)}


def test_a_large_penalty_leaves_the_frequency_of_each_target():
    arrays = problem(30)
    (found,) = solve(*arrays, penalties=[1e9])
    assert abs(found.dense_CT).max() < 1e-6 and abs(found.sparse_AT).max() < 1e-6
    np.testing.assert_allclose(found.bias_T, arrays[2].mean(axis=0), atol=1e-5)


def test_a_scaled_input_has_a_scaled_penalty():
    """Inputs times s with a penalty times s^2 have coefficients divided by s."""
    dense_VC, sparse_VA, targets_VT = problem(30)
    (plain,) = solve(dense_VC, sparse_VA, targets_VT, [0.5])
    (scaled,) = solve(4 * dense_VC, 4 * sparse_VA, targets_VT, [8.0])
    np.testing.assert_allclose(scaled.dense_CT, plain.dense_CT / 4, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(scaled.bias_T, plain.bias_T, rtol=1e-3, atol=1e-6)
