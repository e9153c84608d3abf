"""The space that hashtags lie in: nearest ones by angle, and its two widest directions."""

import numpy as np


def directions(vectors_TD: np.ndarray) -> np.ndarray:
    """Vectors of length 1, float64; a zero vector stays one.

    >>> directions(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    vectors_TD = np.asarray(vectors_TD, np.float64)
    length_T = np.linalg.norm(vectors_TD, axis=1)
    return vectors_TD / np.where(length_T > 0, length_T, 1.0)[:, np.newaxis]


def nearest(vectors_TD: np.ndarray, t: int, count: int) -> list[tuple[int, float]]:
    """Hashtags with the smallest angle to one, and the cosines; of equals the lower id first.

    >>> vectors = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.1], [-1.0, 0.0]])
    >>> [(other, round(cosine, 2)) for other, cosine in nearest(vectors, 0, 2)]
    [(2, 1.0), (1, 0.0)]
    """
    directions_TD = directions(vectors_TD)
    cosine_T = directions_TD @ directions_TD[t]
    order = [other for other in np.argsort(-cosine_T, kind="stable").tolist() if other != t]
    return [(other, float(cosine_T[other])) for other in order[:count]]


def principal_plane(vectors_TD: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns places_T2 in the plane in which the directions vary most, and its share of variance.

    Signs are such that the farthest hashtag of each axis is on its positive side.

    >>> places, share = principal_plane(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    >>> places.shape, round(share, 3)
    ((3, 2), 1.0)
    """
    directions_TD = directions(vectors_TD)
    centred_TD = directions_TD - directions_TD.mean(axis=0)
    left, widths, _ = np.linalg.svd(centred_TD, full_matrices=False)
    places_T2 = np.zeros((len(centred_TD), 2))
    places_T2[:, : len(widths)] = (left * widths)[:, :2]
    far = np.argmax(np.abs(places_T2), axis=0)
    places_T2 *= np.where(places_T2[far, [0, 1]] < 0, -1.0, 1.0)
    total = float(np.sum(widths**2))
    return places_T2, float(np.sum(widths[:2] ** 2)) / total if total else 1.0
