"""Finds the nearest hashtags by angle, and the plane in which hashtags vary most."""

import numpy as np


def directions(vectors_TD: np.ndarray) -> np.ndarray:
    """Returns the vectors scaled to length 1, float64; a zero vector stays zero.

    >>> directions(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    vectors_TD = np.asarray(vectors_TD, np.float64)
    length_T = np.linalg.norm(vectors_TD, axis=1)
    return vectors_TD / np.where(length_T > 0, length_T, 1.0)[:, np.newaxis]


def nearest(directions_TD: np.ndarray, t: int, count: int) -> list[tuple[int, float]]:
    """Returns the hashtags with the smallest angles to hashtag t, and the cosines; ties by id.

    >>> vectors = directions(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.1], [-1.0, 0.0]]))
    >>> [(other, round(cosine, 2)) for other, cosine in nearest(vectors, 0, 2)]
    [(2, 1.0), (1, 0.0)]
    """
    cosine_T = directions_TD @ directions_TD[t]
    order = [other for other in np.argsort(-cosine_T, kind="stable").tolist() if other != t]
    return [(other, float(cosine_T[other])) for other in order[:count]]


def principal_plane(directions_TD: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns points_T2 in the plane of largest variance, and its fraction of the variance.

    The sign of each axis is such that its farthest hashtag is on the positive side.

    >>> points, share = principal_plane(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    >>> points.shape, round(share, 3)
    ((3, 2), 1.0)
    """
    centred_TD = directions_TD - directions_TD.mean(axis=0)
    left, widths, _ = np.linalg.svd(centred_TD, full_matrices=False)
    points_T2 = np.zeros((len(centred_TD), 2))
    points_T2[:, : len(widths)] = (left * widths)[:, :2]
    far = np.argmax(np.abs(points_T2), axis=0)
    points_T2 *= np.where(points_T2[far, [0, 1]] < 0, -1.0, 1.0)
    total = float(np.sum(widths**2))
    return points_T2, float(np.sum(widths[:2] ** 2)) / total if total else 1.0
