"""What embeddings know without further training: the nearest training samples vote."""

from __future__ import annotations

import numpy as np

from harness.baseline import Baseline, Query
from harness.errors import RequestError
from harness.task import kind_of

BLOCK = 16 * 2**20
"""Bytes of similarities held at once; choosing the largest takes three times as many beside them."""


class Nearest(Baseline):
    """The labels of the nearest training samples by cosine, on the embeddings of the last stage, weighted by their similarity.

    The expression is the weighted mean of their expressions (or votes), valence, arousal and intensities are the weighted means of theirs.
    An action unit is the weighted share of those that show it, samples with and without the unit weighing the same in training,
    so that a half is the threshold. Neighbours are found for each target among the samples labelled for it. A neighbour that points away
    (a cosine of 0 or less) has no say; where all do, they all have the same.

    Args:
        neighbours: How many; all, where fewer are labelled.
    """

    def __init__(self, *, neighbours: int = 20) -> None:
        if not isinstance(neighbours, int) or isinstance(neighbours, bool) or neighbours < 1:
            raise RequestError(f"neighbours is {neighbours!r}", where="baseline.neighbours", remedy="give a whole number from 1 on")
        self.neighbours = neighbours

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        train, test = _directions(query.train_embeddings), _directions(query.embeddings)
        known: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}  # most targets are labelled for the same samples
        predicted: dict[str, np.ndarray] = {}
        for target in query.targets:
            labels = query.train.distributions(query.classes) if kind_of(target) == "expression" else query.train.labels(target)
            rows = np.flatnonzero(np.isfinite(labels.reshape(len(labels), -1)).all(axis=1))
            if not len(rows):
                what = f"no training sample is labelled for {target}"
                raise RequestError(what, where="nearest", remedy="choose a task that its data are labelled for")
            if rows.tobytes() not in known:
                known[rows.tobytes()] = _nearest(test, train[rows], self.neighbours)
            near, weights = known[rows.tobytes()]
            predicted[target] = _mean(labels[rows], near, weights)
            if kind_of(target) == "occurrence":
                predicted[target] = _balanced(predicted[target], float(labels[rows].mean()))
        return predicted


def _directions(embeddings: np.ndarray) -> np.ndarray:
    """``(n, d)`` float32 of length 1; what has no direction is 0, neither like nor unlike anything."""
    vectors = np.where(np.isfinite(embeddings).all(axis=1, keepdims=True), embeddings, 0).astype(np.float64)
    vectors /= np.maximum(np.abs(vectors).max(axis=1, keepdims=True, initial=0), np.finfo(np.float64).tiny)  # no square overflows
    lengths = np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    directions: np.ndarray = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0).astype(np.float32)
    return directions


def _nearest(test: np.ndarray, train: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``(n, k)`` rows of ``train`` most like each of ``test``, and their weights, which sum to 1. Of equals the first ones."""
    k = min(k, len(train))
    near, weights = np.empty((len(test), k), np.int64), np.empty((len(test), k))
    step = max(1, BLOCK // (4 * len(train)))
    for start in range(0, len(test), step):
        part = slice(start, start + step)
        similarity = test[part] @ train.T
        near[part] = _largest(similarity, k)
        weights[part] = np.take_along_axis(similarity, near[part], axis=1).clip(0)
    total = weights.sum(axis=1, keepdims=True)
    return near, np.divide(weights, total, out=np.full_like(weights, 1 / k), where=total > 0)


def _mean(labels: np.ndarray, near: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``(n, …)``: the weighted mean of the labels of each row's ``(n, k)`` neighbours."""
    mean = np.zeros((len(near), *labels.shape[1:]))
    for place, weight in zip(near.T, weights.T, strict=True):
        mean += weight.reshape(-1, *[1] * (labels.ndim - 1)) * labels[place]
    return mean


def _balanced(share: np.ndarray, usual: float) -> np.ndarray:
    """Shares of what shows an action unit, were half of all to show it and not the usual share; unchanged where all or none do."""
    if not 0 < usual < 1:
        return share
    present, absent = share * (1 - usual), (1 - share) * usual
    odds: np.ndarray = present / (present + absent)
    return odds


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """``(n, k)`` places of the k largest of each row, of equals the first ones, in the order of the columns."""
    least = np.partition(values, -k, axis=1)[:, [-k]] if k < values.shape[1] else values.min(axis=1, keepdims=True)
    above = values > least
    room = k - above.sum(axis=1, keepdims=True)
    level = values == least
    taken = above | (level & (np.cumsum(level, axis=1, dtype=np.int32) <= room))
    places: np.ndarray = np.nonzero(taken)[1].reshape(len(values), k)
    return places
