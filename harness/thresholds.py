"""The threshold at which a probability counts as a detection: 0.5, or chosen on the validation part; never on the test part."""

from __future__ import annotations

import numpy as np

CHOICES = ("0.5", "validation")


def best(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold with the best F1; of several equally good ones the nearest to 0.5.

    Args:
        labels: ``(n,)``, 0 or 1; nan where not labelled.
        probabilities: ``(n,)``, 0..1.

    Returns:
        Half way between two neighbouring probabilities, in [0, 1] (at 0 everything is a detection); 0.5 where nothing is labelled present.

    >>> best(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.9]))
    0.25
    """
    known = np.isfinite(labels)
    present, p = labels[known] == 1, probabilities[known]
    if not present.any():
        return 0.5
    order = np.argsort(-p, kind="stable")
    p, hits = p[order], np.cumsum(present[order])
    last = np.append(p[1:] < p[:-1], True)  # of equal probabilities all are detected, or none
    f1 = 2 * hits[last] / (np.flatnonzero(last) + 1 + present.sum())
    below = np.append(p[1:], 0.0)[last]
    middle = np.maximum((p[last] + below) / 2, np.nextafter(below, p[last]))  # two that are next to each other have no middle
    good = middle[f1 >= f1.max() - 1e-12]
    return float(good[np.argmin(np.abs(good - 0.5))])


def moved(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The same order of probabilities, with the threshold at 0.5: linear below it and above.

    Args:
        probabilities: ``(n,)``, 0..1.
        threshold: In [0, 1].

    >>> moved(np.array([0.0, 0.1, 0.2, 0.6, 1.0]), 0.2).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    p = np.clip(probabilities, 0, 1)
    above = 0.5 + 0.5 * (p - threshold) / max(1 - threshold, 1e-12)
    below = 0.5 * p / max(threshold, 1e-300)
    moved: np.ndarray = np.where(p < threshold, below, np.minimum(above, 1))
    return moved
