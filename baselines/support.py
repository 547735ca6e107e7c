"""What the labelled frames of a clip say about its other frames, for all clips at once. No torch here: controls use it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.baseline import Query
from harness.errors import RequestError

NOWHERE = -1


@dataclass(frozen=True)
class Support:
    """The support frames of the test clips, numbered 0 … s-1 in the order of the clips and of time.

    Attributes:
        rows: ``(s,)`` int, their row numbers in the test samples, ascending.
        labels: Target → ``(s,)`` float64, finite.
        clip: ``(n,)`` int, every test row's clip, numbered from 0 in the order of the rows.
        time: ``(n,)`` float64, every test row's frame number.
    """

    rows: np.ndarray
    labels: dict[str, np.ndarray]
    clip: np.ndarray
    time: np.ndarray

    @cached_property
    def count(self) -> np.ndarray:
        """``(clips,)``: how many support frames a clip has."""
        return np.bincount(self.clip[self.rows], minlength=self.clip.max(initial=-1) + 1)

    @cached_property
    def table(self) -> np.ndarray:
        """``(clips, most)``: the support frames of each clip, :data:`NOWHERE` behind its last."""
        column = np.arange(self.count.max(initial=0))
        return np.where(column < self.count[:, None], self._first[:, None] + column, NOWHERE)

    def around(self) -> tuple[np.ndarray, np.ndarray]:
        """Two ``(n,)``: the latest support frame not after each test row and the earliest after it, of its clip; else :data:`NOWHERE`."""
        before = np.searchsorted(self.rows, np.arange(len(self.clip)), side="right") - 1
        after = before + 1
        first, count = self._first[self.clip], self.count[self.clip]
        return np.where(before >= first, before, NOWHERE), np.where(after < first + count, after, NOWHERE)

    def last(self) -> np.ndarray:
        """``(n,)``: the latest support frame not after each test row, else the earliest of its clip, else :data:`NOWHERE`."""
        before, after = self.around()
        return np.where(before == NOWHERE, after, before)

    def nearest(self) -> np.ndarray:
        """``(n,)``: the support frame nearest in time, of two the earlier; :data:`NOWHERE` where the clip has none."""
        before, after = self.around()
        return np.where(self._distance(before) <= self._distance(after), before, after)

    def interpolated(self, values: np.ndarray) -> np.ndarray:
        """``(n,)``: ``(s,)`` values linear in time between the support frames of a clip, constant beyond; nan without any."""
        before, after = self.around()
        to_before, to_after = self._distance(before), self._distance(after)
        inside = np.isfinite(to_before) & np.isfinite(to_after)
        share = np.divide(to_before, to_before + to_after, out=np.zeros_like(to_before), where=inside)
        start = at(values, np.where(before == NOWHERE, after, before))
        end = np.where(inside, at(values, after), start)
        between: np.ndarray = start + share * (end - start)
        return between

    def mean(self, values: np.ndarray, default: float) -> np.ndarray:
        """``(n,)``: the mean of ``(s,)`` values over the support frames of each row's clip; ``default`` where it has none."""
        sums = np.bincount(self.clip[self.rows], values, minlength=len(self.count))
        means = np.divide(sums, self.count, out=np.full(len(self.count), default), where=self.count > 0)
        spread: np.ndarray = means[self.clip]
        return spread

    @cached_property
    def _first(self) -> np.ndarray:
        first: np.ndarray = np.cumsum(self.count) - self.count
        return first

    def _distance(self, which: np.ndarray) -> np.ndarray:
        distance: np.ndarray = np.abs(self.time - at(self.time[self.rows], which, np.inf))
        return distance


def of(query: Query, *targets: str) -> Support:
    """The support frames of a query that are labelled in all of these targets."""
    samples = query.test.samples
    rows = np.flatnonzero(query.support)
    labels = {target: np.asarray(query.labels[target], dtype=np.float64) for target in targets}
    labelled = np.logical_and.reduce([np.isfinite(values) for values in labels.values()], initial=True) & np.ones(len(rows), bool)
    clip = samples["clip"].rle_id().to_numpy().astype(np.int64)
    time = samples["frame"].fill_null(0).to_numpy().astype(np.float64)
    return Support(rows[labelled], {target: values[labelled] for target, values in labels.items()}, clip, time)


def require(query: Query, support: Support) -> None:
    """Refuse a query with a clip that has no support frame.

    Raises:
        RequestError: Names the first such clip.
    """
    bare = np.flatnonzero(support.count[support.clip] == 0)
    if len(bare):
        clip = query.test.samples["clip"][int(bare[0])]
        raise RequestError(f"clip {clip!r} has no labelled support frame", where="evaluate.support.size", remedy="give it one")


def at(values: np.ndarray, which: np.ndarray, nowhere: float = np.nan) -> np.ndarray:
    """``(s,)`` values at places of any shape; ``nowhere`` at :data:`NOWHERE`."""
    taken: np.ndarray = np.append(values, nowhere)[which]
    return taken


def calibrated(query: Query, target: str, predictions: np.ndarray) -> np.ndarray:
    """``(n,)`` predicted valence or arousal, moved in each clip by the mean error on its support frames; in [-1, 1]."""
    support = of(query, target)
    error = support.labels[target] - predictions[support.rows]
    moved: np.ndarray = np.clip(predictions + support.mean(error, default=0.0), -1, 1)
    return moved
