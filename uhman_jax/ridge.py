"""Ridge regression of 0/1 targets on dense and sparse inputs, in closed form.

With one row per clip, inputs X = [dense, sparse] and targets Y, the coefficients W and the bias b
minimise |Y - X W - b|^2 + penalty |W|^2; the bias has no penalty. With the means of the columns
subtracted from X, W is either of two expressions, of which the one with the smaller matrix is used:

    W = (X^T X + penalty I)^-1 X^T Y = X^T (X X^T + penalty I)^-1 Y

An input that is multiplied by s has its penalty divided by s^2, so callers set the penalties of
parts of the input by scaling them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

Sparse = Any  # a scipy.sparse.csr_array, which type checkers do not know
_BLOCK = 2048  # rows that are dense at once, if there are more rows than columns


class Ridge(NamedTuple):
    """Coefficients; the score of a target is `dense @ dense_CT + sparse @ sparse_AT + bias_T`.

    Attributes:
        dense_CT: float32.
        sparse_AT: float32.
        bias_T: float32.
    """

    dense_CT: np.ndarray
    sparse_AT: np.ndarray
    bias_T: np.ndarray


def path(
    dense_VC: np.ndarray,
    sparse_VA: Sparse,
    targets_VT: Sparse,
    penalties: Sequence[float],
) -> Iterator[Ridge]:
    """Yields the solution for each penalty; the matrix of the inputs is computed once.

    Takes V n^2 operations, and n^3 / 3 + 2 n^2 T per penalty, where n = min(V, C + A); memory for
    n x n float64 values and three arrays of n x T.

    One input, x = 1 and 3, and y = 0 and 1: without the means they are -1, 1 and -1/2, 1/2, so
    W = 1 / (2 + penalty), and b is such that the mean of x is mapped to the mean of y.

    >>> import scipy.sparse
    >>> none, target = scipy.sparse.csr_array((2, 0)), scipy.sparse.csr_array([[0.0], [1.0]])
    >>> (found,) = path(np.array([[1.0], [3.0]]), none, target, [2.0])
    >>> found.dense_CT.tolist(), found.bias_T.tolist()
    ([[0.25]], [0.0])

    Args:
        dense_VC: float32; V is at least 1.
        sparse_VA: float32.
        targets_VT: float32, 1 for a positive, otherwise 0.
        penalties: above 0.
    """
    num_rows, num_dense = dense_VC.shape
    num_inputs = num_dense + sparse_VA.shape[1]
    targets_VT = targets_VT.astype(np.float64)
    mean_X = np.concatenate([dense_VC.mean(axis=0, dtype=np.float64), sparse_VA.mean(axis=0)])
    mean_T = np.asarray(targets_VT.mean(axis=0))

    def centred(start: int, stop: int) -> np.ndarray:
        rows_BX = np.empty((stop - start, num_inputs), np.float32)
        rows_BX[:, :num_dense] = dense_VC[start:stop]
        rows_BX[:, num_dense:] = sparse_VA[start:stop].toarray()
        return rows_BX - mean_X.astype(np.float32)

    if num_rows <= num_inputs:
        inputs_VX = centred(0, num_rows)
        matrix = (inputs_VX @ inputs_VX.T).astype(np.float64)
        right = targets_VT.toarray() - mean_T
    else:
        inputs_VX = None
        matrix, right = np.zeros((num_inputs, num_inputs)), np.zeros((num_inputs, len(mean_T)))
        for start in range(0, num_rows, _BLOCK):
            stop = min(start + _BLOCK, num_rows)
            rows_BX = centred(start, stop)
            matrix += rows_BX.T @ rows_BX
            right += (targets_VT[start:stop].T @ rows_BX).T
    diagonal = np.diagonal(matrix).copy()
    for penalty in penalties:
        np.fill_diagonal(matrix, diagonal + penalty)
        # With two threads on busy cores, which wait for each other, a matrix of 576 x 576 takes
        # 0.6 s; with one thread it takes 0.01 s.
        with threadpool_limits(1, user_api="blas"):
            factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
            solution: Any = scipy.linalg.cho_solve(factor, right, check_finite=False)
        solved = solution.astype(np.float32)
        weights_XT = solved if inputs_VX is None else inputs_VX.T @ solved
        bias_T = (mean_T - mean_X @ weights_XT).astype(np.float32)
        yield Ridge(weights_XT[:num_dense], weights_XT[num_dense:], bias_T)
