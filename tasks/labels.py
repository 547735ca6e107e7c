"""Label protocols: how the labels of a dataset become those that a task scores. One rule a class, listed in the task's YAML.

A rule maps samples to samples and drops no row. Its ``id`` is part of the protocol's, so results under other rules never share a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.samples import EXPRESSIONS, au_columns, intensity_columns, vote_columns


class Rule(Protocol):
    """What a label protocol is made of."""

    @property
    def id(self) -> str:
        """Short, with whatever of its arguments changes labels; part of the protocol's id."""
        ...

    def __call__(self, samples: pl.DataFrame) -> pl.DataFrame:
        """The same rows with other labels."""
        ...


@dataclass(frozen=True)
class Present:
    """An action unit is there from an intensity on: 2 (FACS level B) in the literature on DISFA; 1, 2 and 3 are all in use for DISFA+.

    Args:
        at: 1..5.
    """

    at: int = 2

    def __post_init__(self) -> None:
        if self.at not in range(1, 6):
            what = f"an action unit is present at {self.at!r}"
            raise RequestError(what, where="task.labels.present.at", remedy="give a whole number, 1 to 5")

    @property
    def id(self) -> str:
        return f"intensity-{self.at}"

    def __call__(self, samples: pl.DataFrame) -> pl.DataFrame:
        coded = intensity_columns(samples)
        return samples.with_columns((pl.col(name) >= self.at).cast(pl.Float32).alias(name.removesuffix("_intensity")) for name in coded)


@dataclass(frozen=True)
class UnknownIsAbsent:
    """What coders could not see counts as not there, as several popular pipelines for BP4D have it, which flatters nobody and helps nobody.

    Only of frames in which some action unit is coded.
    """

    @property
    def id(self) -> str:
        return "unknown-is-absent"

    def __call__(self, samples: pl.DataFrame) -> pl.DataFrame:
        aus = au_columns(samples)
        coded = pl.any_horizontal(pl.lit(False), *(pl.col(au).is_not_null() for au in aus))
        return samples.with_columns(pl.when(coded).then(pl.col(au).fill_null(0)).otherwise(pl.col(au)).alias(au) for au in aus)


@dataclass(frozen=True)
class Cleaned:
    """Only images whose valence and arousal fit their expression keep their labels: EmoNet's cleaning of AffectNet (Toisoul et al. 2021).

    With intensity the distance from the origin of the valence-arousal plane: neutral below 0.2, every other expression above it (disgust
    above 0.3); happy with valence > 0, sad < 0, surprise with arousal > 0, fear with arousal >= 0 and valence <= 0, disgust with
    valence < 0, anger with arousal > 0, contempt with valence < 0. EmoNet also looked at the images again, by hand, which nobody can
    repeat. It makes scores much higher.

    Args:
        parts: The official parts that are cleaned; null for all of them.
    """

    parts: tuple[str, ...] | None = ("validation",)

    @property
    def id(self) -> str:
        return "cleaned" if self.parts is None else f"cleaned-{'-'.join(self.parts)}"

    def __call__(self, samples: pl.DataFrame) -> pl.DataFrame:
        v, a, expression = pl.col("valence"), pl.col("arousal"), pl.col("expression").cast(pl.String)
        intensity = (v**2 + a**2).sqrt()
        fits = {
            "neutral": intensity < 0.2,
            "happy": (v > 0) & (intensity > 0.2),
            "sad": (v < 0) & (intensity > 0.2),
            "surprise": (a > 0) & (intensity > 0.2),
            "fear": (a >= 0) & (v <= 0) & (intensity > 0.2),
            "disgust": (v < 0) & (intensity > 0.3),
            "anger": (a > 0) & (intensity > 0.2),
            "contempt": (v < 0) & (intensity > 0.2),
        }
        consistent = pl.any_horizontal((expression == name) & rule for name, rule in fits.items()).fill_null(False)
        spared = pl.lit(False) if self.parts is None else ~pl.col("split").is_in(list(self.parts)).fill_null(False)
        return samples.with_columns(pl.when(consistent | spared).then(name).alias(name) for name in ("valence", "arousal", "expression"))


TIES = ("drop", "first")


@dataclass(frozen=True)
class Majority:
    """The expression that most raters chose.

    Votes for "unknown" and "no face" take part: where they win, the image has no expression.

    Args:
        ties: What an image is whose winners have equally many votes: nothing (``drop``), or the first of them in the order neutral, happy,
            sad, surprise … (``first``).
        more_than: The winner needs more than this share of all votes: 0 for any plurality, 0.5 for an absolute majority.
    """

    ties: str = "drop"
    more_than: float = 0.0

    def __post_init__(self) -> None:
        if self.ties not in TIES:
            remedy = did_you_mean(str(self.ties), TIES)
            raise RequestError(f"no rule {self.ties!r} for ties", where="task.labels.majority.ties", remedy=remedy)
        if not 0 <= self.more_than < 1:
            remedy = "give a share from 0 to below 1"
            raise RequestError(f"more_than is {self.more_than}", where="task.labels.majority.more_than", remedy=remedy)

    @property
    def id(self) -> str:
        return f"majority-ties-{self.ties}" + (f"-above-{self.more_than:g}" if self.more_than else "")

    def __call__(self, samples: pl.DataFrame) -> pl.DataFrame:
        names = _voted(samples)
        votes = [pl.col(name).fill_null(0) for name in names]
        most, total = pl.max_horizontal(votes), pl.sum_horizontal(votes)
        winners = pl.sum_horizontal((vote == most).cast(pl.Int32) for vote in votes)
        first = pl.coalesce(
            pl.when(vote == most).then(pl.lit(name.removeprefix("votes_"))) for name, vote in zip(names, votes, strict=True)
        )
        decided = (most > 0) & (most > self.more_than * total) & ((winners == 1) | (self.ties == "first"))
        chosen = pl.when(decided & first.is_in(EXPRESSIONS)).then(first)
        return samples.with_columns(chosen.cast(pl.Enum(EXPRESSIONS)).alias("expression")).drop(names)


@dataclass(frozen=True)
class Votes:
    """The distribution of the raters' votes over the expressions is the label; votes for "unknown" and "no face" are left out.

    The expression is the one with most votes, where there is one: what accuracy is counted by.

    Args:
        least: An image with fewer votes for expressions than this has no label.
    """

    least: int = 1

    @property
    def id(self) -> str:
        return f"votes-from-{self.least}"

    def __call__(self, samples: pl.DataFrame) -> pl.DataFrame:
        names = _voted(samples)
        kept = [name for name in names if name.removeprefix("votes_") in EXPRESSIONS]
        enough = pl.sum_horizontal(pl.col(name).fill_null(0) for name in kept) >= self.least
        decided = Majority()(samples)["expression"]
        return samples.drop(set(names) - set(kept)).with_columns(
            pl.when(enough).then(decided).alias("expression"), *(pl.when(enough).then(name).alias(name) for name in kept)
        )


def _voted(samples: pl.DataFrame) -> list[str]:
    names = vote_columns(samples)
    if not names:
        remedy = "it needs the raters' votes: FERPlus has them in fer2013new.csv"
        raise RequestError("the samples have no votes", where="task.labels", remedy=remedy)
    return names
