"""Pair rules: which two images meet, and when they count as the same expression.

A rule has two methods: ``draw`` says which rows of the training data meet, ``same`` which of given pairs are alike. Both
are array operations over all pairs at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from harness.baseline import Data
from harness.config import instantiate
from harness.errors import RequestError, did_you_mean

AFFECT = ("valence", "arousal")

NEUTRAL_RADIUS = 0.2
"""Below this distance from the origin of the valence-arousal plane a face counts as neutral (EmoNet's cleaning of AffectNet, too)."""

_ROUNDING = 1e-6  # labels come as float32: 0.3 - 0.1 must not fall below a radius of 0.2


@dataclass(frozen=True)
class Labels:
    """What a rule may look at, ``(n,)`` each.

    Attributes:
        valence, arousal: -1..1; nan where not labelled. A rule draws from rows that have both.
        kind: int, which expression; -1 where not labelled.
        clip: int, which clip.
    """

    valence: np.ndarray
    arousal: np.ndarray
    kind: np.ndarray
    clip: np.ndarray

    @classmethod
    def of(cls, data: Data, classes: tuple[str, ...]) -> Labels:
        """Labels of some data. Where the task tells no expressions apart, :func:`affect_kind` stands in for them."""
        valence, arousal = (data.labels(target).astype(np.float64) for target in AFFECT)
        kind = data.codes(classes) if classes else affect_kind(valence, arousal)
        return cls(valence, arousal, kind, data.samples["clip"].rank("dense").to_numpy().astype(np.int64))

    def take(self, rows: np.ndarray) -> Labels:
        """The labels of some rows."""
        return Labels(self.valence[rows], self.arousal[rows], self.kind[rows], self.clip[rows])


def affect_kind(valence: np.ndarray, arousal: np.ndarray) -> np.ndarray:
    """A stand-in for expressions where there are none (ours; the paper had labels): 0 near the origin, else 1 to 4, the quadrant.

    >>> affect_kind(np.array([0.1, 0.5, -0.5, -0.5, 0.5]), np.array([0.1, 0.5, 0.5, -0.5, -0.5])).tolist()
    [0, 1, 2, 3, 4]
    """
    quadrant = np.where(arousal >= 0, np.where(valence >= 0, 1, 2), np.where(valence >= 0, 4, 3))
    return np.where(np.hypot(valence, arousal) < NEUTRAL_RADIUS, 0, quadrant)


class Rule(Protocol):
    """Which images meet."""

    def draw(self, labels: Labels, n: int, rng: np.random.Generator) -> np.ndarray:
        """``(n, 2)`` int64 pairs of two different rows.

        Raises:
            RequestError: The labels allow no such pairs.
        """
        ...

    def same(self, labels: Labels, pairs: np.ndarray) -> np.ndarray:
        """``(n,)`` bool for ``(n, 2)`` pairs."""
        ...


@dataclass(frozen=True)
class Expression:
    """MT-CLAR's rule (papers 1.3): every even pair has one class and every odd one two, drawn uniformly over the classes.

    Images are uniform inside their class.
    """

    def draw(self, labels: Labels, n: int, rng: np.random.Generator) -> np.ndarray:
        order = np.argsort(labels.kind, kind="stable")[np.count_nonzero(labels.kind < 0) :]
        _, first, count = np.unique(labels.kind[order], return_index=True, return_counts=True)
        plural = np.flatnonzero(count > 1)
        if len(count) < 2 or not len(plural):
            what = f"{len(order)} images of {len(count)} classes give no pairs alike and unlike"
            raise RequestError(what, where="pairs", remedy="use another pair rule")
        positive = np.arange(n) % 2 == 0
        kind = np.where(positive, plural[rng.integers(len(plural), size=n)], rng.integers(len(count), size=n))
        other = (kind + rng.integers(1, len(count), size=n)) % len(count)
        place = rng.integers(count[kind])
        partner = (place + rng.integers(1, np.maximum(count[kind], 2))) % count[kind]
        second = np.where(positive, first[kind] + partner, first[other] + rng.integers(count[other]))
        return np.stack([order[first[kind] + place], order[second]], axis=1)

    def same(self, labels: Labels, pairs: np.ndarray) -> np.ndarray:
        kinds = labels.kind[pairs]
        alike: np.ndarray = (kinds[:, 0] == kinds[:, 1]) & (kinds[:, 0] >= 0)
        return alike


@dataclass(frozen=True)
class Radius:
    """Alike when they differ by less than ``radius`` in one dimension of affect; every even pair is, every odd one is not.

    The release of MT-CLAR keeps the constant (0.2) but not the rule; that it was one is inferred (papers 1.3).
    """

    target: str = "valence"
    radius: float = 0.2

    def __post_init__(self) -> None:
        if self.target not in AFFECT:
            raise RequestError(f"{self.target!r} is no dimension of affect", where="pairs.target", remedy=did_you_mean(self.target, AFFECT))
        if not 0 < self.radius <= 2:
            raise RequestError(f"a radius of {self.radius}", where="pairs.radius", remedy="give a number above 0, at most 2")

    def draw(self, labels: Labels, n: int, rng: np.random.Generator) -> np.ndarray:
        values = getattr(labels, self.target)
        order = np.argsort(values, kind="stable")
        ranked = values[order]
        low = np.searchsorted(ranked, ranked - self.radius + _ROUNDING, side="right")
        high = np.searchsorted(ranked, ranked + self.radius - _ROUNDING, side="left")
        inside, outside = high - low - 1, len(ranked) - (high - low)
        if not (inside > 0).any() or not (outside > 0).any():
            what = f"all {self.target} labels, or none, are within {self.radius} of each other"
            raise RequestError(what, where="pairs.radius", remedy="choose another radius")
        pairs = np.empty((n, 2), np.int64)
        near, far = pairs[0::2], pairs[1::2]
        place = _one_of(inside > 0, len(near), rng)
        step = low[place] + rng.integers(inside[place])
        near[:] = order[np.stack([place, step + (step >= place)], axis=1)]
        place = _one_of(outside > 0, len(far), rng)
        step = rng.integers(outside[place])
        far[:] = order[np.stack([place, np.where(step < low[place], step, step + high[place] - low[place])], axis=1)]
        return pairs

    def same(self, labels: Labels, pairs: np.ndarray) -> np.ndarray:
        values = getattr(labels, self.target)[pairs]
        alike: np.ndarray = np.abs(values[:, 0] - values[:, 1]) < self.radius - _ROUNDING
        return alike


@dataclass(frozen=True)
class Random:
    """Any two different images; alike as another rule says."""

    like: Rule = field(default_factory=Expression)

    def draw(self, labels: Labels, n: int, rng: np.random.Generator) -> np.ndarray:
        size = len(labels.kind)
        if size < 2:
            raise RequestError(f"{size} images make no pair", where="pairs")
        first = rng.integers(size, size=n)
        return np.stack([first, (first + rng.integers(1, size, size=n)) % size], axis=1)

    def same(self, labels: Labels, pairs: np.ndarray) -> np.ndarray:
        return self.like.same(labels, pairs)


@dataclass(frozen=True)
class WithinClip:
    """A share of the pairs from inside one clip each, the others by another rule, which also says what is alike.

    Ours: the paper pairs any two faces, but what labelling a clip from its own frames needs is the difference of two
    frames of one face.
    """

    share: float = 0.5
    other: Rule = field(default_factory=Expression)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise RequestError(f"a share of {self.share}", where="pairs.share", remedy="give a number from 0 to 1")

    def draw(self, labels: Labels, n: int, rng: np.random.Generator) -> np.ndarray:
        inside = round(self.share * n)
        order = np.argsort(labels.clip, kind="stable")
        _, first, clip, count = np.unique(labels.clip[order], return_index=True, return_inverse=True, return_counts=True)
        if inside and not (count > 1).any():
            raise RequestError("no clip has two labelled frames", where="pairs.share", remedy="set it to 0 or use another pair rule")
        place = _one_of(count[clip] > 1, inside, rng) if inside else np.zeros(0, np.int64)
        start, size = first[clip[place]], count[clip[place]]
        partner = start + (place - start + rng.integers(1, np.maximum(size, 2))) % size
        pairs = [np.stack([order[place], order[partner]], axis=1)]
        if inside < n:
            pairs.append(self.other.draw(labels, n - inside, rng))
        return rng.permutation(np.concatenate(pairs))

    def same(self, labels: Labels, pairs: np.ndarray) -> np.ndarray:
        return self.other.same(labels, pairs)


def make(node: Any) -> Rule:
    """The rule of a config node ``{_target_: …, …}``; a rule inside a rule is one as well."""
    more = {key: make(value) for key, value in node.items() if isinstance(value, dict)}
    rule: Rule = instantiate({**node, **more})
    return rule


def _one_of(allowed: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """``(n,)`` places drawn uniformly from those that are allowed."""
    places = np.flatnonzero(allowed)
    drawn: np.ndarray = places[rng.integers(len(places), size=n)]
    return drawn
