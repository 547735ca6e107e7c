"""How much of who is on a frame an embedding carries: the nearest frame of another clip, and whether it is of the same subject."""

from __future__ import annotations

import numpy as np

_BLOCK = 1 << 24  # similarities at a time: 64 MiB


def nearest(embeddings: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """The most similar row of another clip, for every row.

    Args:
        embeddings: ``(n, d)``; they are compared by cosine.
        clips: ``(n,)``, of any type; frames of one clip look alike whoever is on them, and are not compared.

    Returns:
        ``(n,)`` int64 row numbers; of equally similar ones the first; -1 where there is no other clip.

    >>> nearest(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), np.array(["a", "a", "b"])).tolist()
    [2, 2, 1]
    """
    n = len(embeddings)
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    _, clip = np.unique(clips, return_inverse=True)
    found = np.full(n, -1, np.int64)
    rows = max(1, _BLOCK // max(n, 1))
    for start in range(0, n, rows):
        similar = unit[start : start + rows] @ unit.T
        similar[clip[start : start + rows, None] == clip] = -np.inf
        best = similar.argmax(axis=1)
        known = np.isfinite(similar[np.arange(len(best)), best])
        found[start : start + rows] = np.where(known, best, -1)
    return found
