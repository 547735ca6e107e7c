"""Which samples of a batch belong together: the strategies that contrastive pre-training is compared by.

A strategy says how much each sample of a batch is a positive of each other, and which samples should meet in a batch so that there are
any. Both are array operations over all samples at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import polars as pl

from harness.baseline import Data
from harness.errors import RequestError
from harness.samples import au_columns


@dataclass(frozen=True)
class Table:
    """What a strategy may look at, one entry a sample.

    Attributes:
        subject: ``(n,)`` int64, which person; -1 where not known.
        activity: ``(n,)`` int64, place in ``activities``; -1 where there is none.
        clip: ``(n,)`` int64, which clip.
        frame: ``(n,)`` int64, order in the clip; -1 where not known.
        expression: ``(n,)`` int64, place in the task's classes; -1 where not labelled.
        aus: ``(n, k)`` float32, whether an action unit is there, 0 or 1; nan where not labelled. k may be 0.
        activities: Texts of the activities, sorted.
        similarity: ``(activities, activities)`` float32, cosine of their descriptions in -1..1; None where nothing asks for it.
    """

    subject: np.ndarray
    activity: np.ndarray
    clip: np.ndarray
    frame: np.ndarray
    expression: np.ndarray
    aus: np.ndarray
    activities: tuple[str, ...]
    similarity: np.ndarray | None = None
    _dealt: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        side = len(self.activities)
        if self.similarity is not None and self.similarity.shape != (side, side):
            raise ValueError(f"similarities of shape {self.similarity.shape} for {side} activities")

    def __len__(self) -> int:
        return len(self.subject)

    @classmethod
    def of(cls, data: Data, *, classes: tuple[str, ...], similarity: np.ndarray | None = None) -> Table:
        """What is known of some samples; a label whose column is not there is known of none.

        Args:
            data: The samples. An activity without a letter in its text counts as none.
            classes: The expressions to tell apart.
            similarity: Of the activities of these very samples, in sorted order.
        """
        samples, n = data.samples, data.samples.height
        there = {
            name: samples[name] if name in samples.columns else pl.Series([None] * n, dtype=pl.String) for name in ("activity", "subject")
        }
        activity = there["activity"].set(there["activity"].str.strip_chars() == "", None)
        units = [data.labels(name) for name in au_columns(samples)]
        return cls(
            subject=_codes(there["subject"]),
            activity=_codes(activity),
            clip=_codes(samples["clip"]),
            frame=samples["frame"].cast(pl.Int64).fill_null(-1).to_numpy(writable=True),
            expression=data.codes(classes) if "expression" in samples.columns else np.full(n, -1),
            aus=np.ascontiguousarray(np.array(units, np.float32).reshape(len(units), n).T),
            activities=tuple(activity.drop_nulls().unique().sort()),
            similarity=similarity,
        )

    def dealt(self, seed: int) -> np.ndarray:
        """``(n,)`` int64: the activities of the samples dealt anew among those that have one. Kept, as every batch asks for it."""
        if seed not in self._dealt:
            dealt = self.activity.copy()
            dealt[dealt >= 0] = np.random.default_rng(seed).permutation(dealt[dealt >= 0])
            self._dealt[seed] = dealt
        return self._dealt[seed]


class Strategy(Protocol):
    """Which samples belong together. A user's own inherits from this."""

    across_subjects: ClassVar[bool] = False
    """Whether samples of one key that meet in a batch should be of as many subjects as can be."""

    def key(self, table: Table) -> np.ndarray:
        """``(n,)`` int64: a batch holds several samples of one key; -1 for a sample that nothing needs to meet.

        Raises:
            RequestError: The samples lack what the strategy looks at.
        """
        ...

    def weights(self, table: Table, rows: np.ndarray) -> np.ndarray:
        """``(b, b)`` float32 in 0..1: how much the jth of the ``(b,)`` rows is a positive of the ith; symmetric, the diagonal 0."""
        ...


@dataclass(frozen=True)
class Activity(Strategy):
    """Samples of one activity, whoever it is: CLEF's (Zhang et al., ICCV 2023; papers 2.1)."""

    def key(self, table: Table) -> np.ndarray:
        return _known(table.activity, "an activity")

    def weights(self, table: Table, rows: np.ndarray) -> np.ndarray:
        return _off_diagonal(_same(table.activity[rows]))


@dataclass(frozen=True)
class ActivityCrossSubject(Strategy):
    """Samples of one activity and of two subjects. Whose subject is not known may be anybody, and so has no positive."""

    across_subjects: ClassVar[bool] = True

    def key(self, table: Table) -> np.ndarray:
        return np.where(_known(table.subject, "a subject") >= 0, _known(table.activity, "an activity"), -1)

    def weights(self, table: Table, rows: np.ndarray) -> np.ndarray:
        subject = table.subject[rows]
        others = (subject[:, None] != subject) & (subject >= 0) & (subject[:, None] >= 0)
        return _off_diagonal(_same(table.activity[rows]) & others)


@dataclass(frozen=True)
class Augmentation(Strategy):
    """Nothing but a sample's own other view: SimCLR (Chen et al., ICML 2020), the control."""

    def key(self, table: Table) -> np.ndarray:
        return np.full(len(table), -1)

    def weights(self, table: Table, rows: np.ndarray) -> np.ndarray:
        return np.zeros((len(rows), len(rows)), np.float32)


@dataclass(frozen=True)
class Subject(Strategy):
    """Samples of one subject."""

    def key(self, table: Table) -> np.ndarray:
        return _known(table.subject, "a subject")

    def weights(self, table: Table, rows: np.ndarray) -> np.ndarray:
        return _off_diagonal(_same(table.subject[rows]))


@dataclass(frozen=True)
class Random(Strategy):
    """Samples of one activity after the activities have been dealt anew: as many classes of the same sizes, which mean nothing.

    Args:
        seed: Of the dealing, which stays the same in every epoch.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or self.seed < 0:
            raise RequestError(f"a seed of {self.seed}", where="positives.seed", remedy="give a whole number from 0")

    def key(self, table: Table) -> np.ndarray:
        return _known(table.dealt(self.seed), "an activity")

    def weights(self, table: Table, rows: np.ndarray) -> np.ndarray:
        return _off_diagonal(_same(table.dealt(self.seed)[rows]))


@dataclass(frozen=True)
class Expression(Strategy):
    """Samples of one expression, as far as they are labelled (supervised contrast: Khosla et al., NeurIPS 2020)."""

    def key(self, table: Table) -> np.ndarray:
        return _known(table.expression, "one of the task's expressions")

    def weights(self, table: Table, rows: np.ndarray) -> np.ndarray:
        return _off_diagonal(_same(table.expression[rows]))


@dataclass(frozen=True)
class AuOverlap(Strategy):
    """Two samples as far as the same action units are there: the oracle, since it looks at the labels that are to be learned.

    The weight is the Jaccard index of the sets of action units that are there, over those labelled in both: 1 where neither shows
    any, 0 where none is labelled in both. Samples that show the very same action units meet in a batch.
    """

    def key(self, table: Table) -> np.ndarray:
        known = np.isfinite(table.aus)
        bits = np.left_shift(np.uint64(1), (np.arange(table.aus.shape[1]) % 64).astype(np.uint64))
        _, pattern = np.unique((table.aus == 1) @ bits, return_inverse=True)
        return _known(np.where(known.any(axis=1), pattern, -1), "a labelled action unit")

    def weights(self, table: Table, rows: np.ndarray) -> np.ndarray:
        units = table.aus[rows]
        known, there = np.isfinite(units).astype(np.float32), (units == 1).astype(np.float32)
        both, first = there @ there.T, there @ known.T
        either = first + first.T - both
        alone = known @ known.T > 0
        return _off_diagonal(np.divide(both, either, out=alone.astype(np.float32), where=either > 0))


@dataclass(frozen=True)
class TextSimilarity(Strategy):
    """Samples of one activity, and those of two as far as the descriptions of these are alike.

    Args:
        floor: Cosine up to which two activities have nothing in common; from there the weight grows linearly to 1 at a cosine of 1.
    """

    floor: float = 0.3

    def __post_init__(self) -> None:
        if not -1 <= self.floor < 1:
            raise RequestError(f"a floor of {self.floor}", where="positives.floor", remedy="give a cosine, from -1 to below 1")

    def key(self, table: Table) -> np.ndarray:
        self._similarity(table)
        return _known(table.activity, "an activity")

    def weights(self, table: Table, rows: np.ndarray) -> np.ndarray:
        activity = table.activity[rows]
        weights = np.zeros((len(rows), len(rows)), np.float32)
        there = np.flatnonzero(activity >= 0)
        cosine = self._similarity(table)[np.ix_(activity[there], activity[there])]
        weights[np.ix_(there, there)] = np.clip((cosine - self.floor) / (1 - self.floor), 0, 1)
        weights[_same(activity)] = 1
        return _off_diagonal(weights)

    @staticmethod
    def _similarity(table: Table) -> np.ndarray:
        if table.similarity is None:
            what = "nothing says how alike the descriptions of the activities are"
            raise RequestError(what, where="positives", remedy="text_similarity needs a method with a text encoder")
        return table.similarity


@dataclass(frozen=True)
class Temporal(Strategy):
    """Frames of one clip that are near each other in time.

    Args:
        window: How far apart two frames may be, in numbers of frames.
    """

    window: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.window, int) or self.window < 1:
            raise RequestError(f"a window of {self.window}", where="positives.window", remedy="give a whole number of frames from 1")

    def key(self, table: Table) -> np.ndarray:
        known = np.flatnonzero(table.frame >= 0)
        order = known[np.lexsort((table.frame[known], table.clip[known]))]
        apart = np.diff(table.frame[order])[np.diff(table.clip[order]) == 0]
        if len(table) and not len(apart):
            raise RequestError("no clip has two frames", where="positives", remedy="temporal needs videos; use another strategy")
        if len(table) and apart.min() > self.window:
            remedy = f"the nearest two are {apart.min()} apart: give at least that"
            raise RequestError(f"no two frames of a clip are within {self.window}", where="positives.window", remedy=remedy)
        stretch = table.clip * 2**32 + table.frame // (self.window + 1)  # any two frames of a stretch are in the window
        return np.where(table.frame >= 0, stretch, -1)

    def weights(self, table: Table, rows: np.ndarray) -> np.ndarray:
        frame = table.frame[rows]
        near = (np.abs(frame[:, None] - frame) <= self.window) & (frame >= 0) & (frame[:, None] >= 0)
        return _off_diagonal(_same(table.clip[rows]) & near)


def batches(table: Table, strategy: Strategy, size: int, rng: np.random.Generator, *, each: int = 4) -> Iterator[np.ndarray]:
    """One epoch: every sample once, in random batches that hold samples of one key in groups.

    There are ceil(n / size) batches of at most ``size``. Their sizes differ by at most ``each``, so that groups of ``each`` stay whole (all
    of them where ``size`` is a multiple of it). A key that is no multiple of it has smaller groups, too, as equal as can be, since one
    left over alone would have no positive; where a batch ends, one of these may be cut in two.

    Args:
        table: The samples.
        strategy: Says which of them have one key.
        size: Samples in a batch, at most.
        rng: Everything drawn follows from it.
        each: Samples of one key that meet in a batch.

    Returns:
        ``(b, 1)`` int64 row numbers each.

    Raises:
        RequestError: The samples lack what the strategy looks at, or ``each`` is below 1.
    """
    if each < 1:
        raise RequestError(f"{each} samples of a key in a batch", where="each", remedy="give a whole number from 1")
    key = strategy.key(table)
    if not len(table):
        return iter(())
    each = min(each, size)
    sizes = _sizes(len(table), size, each)
    order, length = _groups(key, _places(key, table.subject, rng) if strategy.across_subjects else rng.random(len(key)), each)
    start = np.cumsum(length) - length
    shuffled = rng.permutation(len(length))
    whole, smaller = shuffled[length[shuffled] == each], shuffled[length[shuffled] < each]

    slots = sizes // each  # for whole groups; one slot of every batch is taken before the second of any, so that all batches are alike
    slot = np.repeat(np.arange(len(sizes)), slots)[np.argsort(_counted(slots), kind="stable")][: len(whole)]
    left = sizes - each * np.bincount(slot, minlength=len(sizes))
    groups = np.concatenate([whole, smaller])
    rows = order[np.repeat(start[groups], length[groups]) + _counted(length[groups])]
    batch = np.concatenate([np.repeat(slot, each), np.repeat(np.arange(len(sizes)), left)])
    return iter(np.split(rows[np.argsort(batch, kind="stable")][:, None], np.cumsum(sizes)[:-1]))


def _sizes(n: int, size: int, each: int) -> np.ndarray:
    """Of ceil(n / size) batches: a multiple of ``each``, and for as many as it takes ``each`` more, as far as ``size`` allows it."""
    number = math.ceil(n / size)
    least = each * (n // number // each)
    more = min(each, size - least)
    return least + np.clip(n - number * least - more * np.arange(number), 0, more)


def _groups(key: np.ndarray, place: np.ndarray, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows by key and then by place, and how long the groups are that they are cut into: of one key, nearly equal, at most ``each``."""
    order = np.lexsort((place, key))
    _, count = np.unique(key[order], return_counts=True)
    number = -(-count // each)
    group = _counted(count) * np.repeat(number, count) // np.repeat(count, count) + np.repeat(np.cumsum(number) - number, count)
    return order, np.bincount(group)


def _places(key: np.ndarray, subject: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``(n,)`` places in 0..1 that take turns between the subjects of a key, evenly from beginning to end however many samples each has."""
    order = np.lexsort((rng.random(len(key)), subject, key))
    new = np.any([np.diff(values[order], prepend=-2) != 0 for values in (key, subject)], axis=0)
    count = np.diff(np.append(np.flatnonzero(new), len(key)))
    places = np.empty(len(key))
    places[order] = (_counted(count) + np.repeat(rng.random(len(count)), count)) / np.repeat(count, count)
    return places


def _counted(count: np.ndarray) -> np.ndarray:
    """0, 1, 2 … as often as each count says.

    >>> _counted(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    counted: np.ndarray = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return counted


def _codes(column: pl.Series) -> np.ndarray:
    """``(n,)`` int64 place among the sorted distinct values; -1 where null."""
    return (column.rank("dense").cast(pl.Int64) - 1).fill_null(-1).to_numpy(writable=True)


def _known(codes: np.ndarray, what: str) -> np.ndarray:
    """The codes, or an error where there are samples and none has one."""
    if len(codes) and not (codes >= 0).any():
        raise RequestError(f"no sample has {what}", where="positives", remedy="use another strategy; augmentation needs no label")
    return codes


def _same(codes: np.ndarray) -> np.ndarray:
    """``(b, b)`` bool: which codes are known and one."""
    same: np.ndarray = (codes[:, None] == codes) & (codes >= 0)
    return same


def _off_diagonal(weights: np.ndarray) -> np.ndarray:
    """As float32, with a diagonal of 0."""
    weights = weights.astype(np.float32)
    np.fill_diagonal(weights, 0)
    return weights
