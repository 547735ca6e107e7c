"""The Task contract: what is measured. A task reads labels and predictions; it never sees a model."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.samples import Problems

Setting = dict[str, Any]
"""One choice of everything under the config key ``evaluate``: applied after fitting, no part of a fit's identity."""


def kind_of(target: str) -> str:
    """What a target is: ``affect``, ``expression``, ``occurrence`` (of an action unit) or ``intensity`` (of one).

    Raises:
        RequestError: It is none of them.

    >>> [kind_of(target) for target in ("valence", "expression", "au12", "au12_intensity")]
    ['affect', 'expression', 'occurrence', 'intensity']
    """
    if target in ("valence", "arousal"):
        return "affect"
    if target == "expression":
        return target
    found = re.fullmatch(r"au\d+(_intensity)?", target)
    if found is None:
        remedy = did_you_mean(target, ("valence", "arousal", "expression", "au12", "au12_intensity"))
        raise RequestError(f"unknown target {target!r}", where="task.targets", remedy=remedy)
    return "intensity" if found[1] else "occurrence"


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """What is fixed about a task and printed with its results.

    Attributes:
        name: As in ``configs/task/NAME.yaml``.
        version: Raised whenever the same predictions would score differently.
        dataset: Name of the dataset.
        protocol: Id of the label protocol; results of different protocols never share a table.
        targets: What is predicted: ``valence``, ``arousal``, ``expression``, ``au12``, ``au12_intensity`` …
        group: The column whose values must not stand on both sides of a split.
        primary: The metric a leaderboard ranks by, also called ``score``.
        higher_is_better: Its direction.
        licence, citation: Of the data.
        note: What every table says about this protocol, where it departs from good practice on purpose.
        parts: Metrics that are shown beside the score, in a table of their own.
        taught: The targets whose labels training and validation have, where these are others than what is predicted (zero-shot).
        retrieval: Whether it is measured how well subjects are told from each other by what a method makes of their frames.
    """

    name: str
    version: int
    dataset: str
    protocol: str
    targets: tuple[str, ...]
    group: str
    primary: str
    higher_is_better: bool = True
    licence: str = ""
    citation: str = ""
    note: str = ""
    parts: tuple[str, ...] = ()
    taught: tuple[str, ...] = ()
    retrieval: bool = False

    @property
    def learned(self) -> tuple[str, ...]:
        """The targets whose labels training has."""
        return self.taught or self.targets


@dataclass(frozen=True)
class Split:
    """Row numbers into the samples frame; no two parts share a row (checked, with much else, by ``splits.guard``)."""

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Score:
    """What scoring one predictions file gives.

    Attributes:
        metrics: Every metric of the task by name, the primary one under its own name; undefined ones are nan.
        units: One row a subject and clip with its additive sums (``metrics.units``), from which every pooled metric,
            every interval and every paired test is computed again without the predictions.
    """

    metrics: dict[str, float]
    units: pl.DataFrame


class Task(ABC):
    """Dataset + label protocol + splits + metrics. Made from ``configs/task/NAME.yaml`` by its ``_target_``."""

    info: TaskInfo
    classes: tuple[str, ...] = ()
    """The expressions told apart, in the order of the probabilities a baseline returns."""

    folds: int = 1

    scores_support = False
    """Whether the protocol scores the frames whose labels were given; such a protocol says so in its note."""

    needs_probabilities = False
    """Whether the score asks for the probability of every expression, and not only for the answer."""

    def select(self, samples: pl.DataFrame) -> pl.DataFrame:
        """The rows of the dataset this protocol uses, with labels as the protocol defines them."""
        return samples.filter(pl.any_horizontal(pl.col(*self.info.targets).is_not_null()))

    @abstractmethod
    def split(self, samples: pl.DataFrame, fold: int) -> Split:
        """The parts of one fold.

        Args:
            samples: What :meth:`select` returned.
            fold: ``0 … folds - 1``.
        """

    def setting(self, evaluate: Mapping[str, Any]) -> Setting:
        """The canonical form of an evaluation setting: what makes no difference is left out, so equal settings are equal.

        Raises:
            RequestError: A key or value that this task does not know.
        """
        return {}

    def support(self, test: pl.DataFrame, setting: Setting, thumbnails: np.ndarray) -> np.ndarray:
        """Which frames of the test clips a baseline is given with their labels.

        Args:
            test: Columns ``sample``, ``clip``, ``subject``, ``frame``, sorted by clip and frame; no labels.
            setting: Canonical.
            thumbnails: ``(n, d)`` float32, one fixed embedding of each frame, the same for every method.

        Returns:
            ``(n,)`` bool. The default is none.
        """
        return np.zeros(test.height, dtype=bool)

    @abstractmethod
    def score(self, predictions: pl.DataFrame) -> Score:
        """Metrics of one predictions file; reads nothing else."""

    def submission(self, predictions: pl.DataFrame, problems: Problems, order: Path | None = None) -> dict[str, str]:
        """The predictions in the format of the challenge that this task is of.

        Args:
            predictions: Of one evaluation.
            problems: Takes what a person should know of them: rows that had to be filled, say.
            order: A file of the challenge that says which rows are wanted, in which order.

        Returns:
            File name → text.

        Raises:
            RequestError: The task is of no challenge, or a row that is wanted cannot be filled.
        """
        raise RequestError(
            f"{self.info.name} is of no challenge", remedy="its predictions are Parquet files: see `harness list evaluations`"
        )

    def read_submission(self, path: Path, problems: Problems) -> pl.DataFrame:
        """What somebody predicted, from a file (or folder) in the format of the challenge that this task is of.

        Args:
            path: Of it.
            problems: Takes what cannot be read, with its line.

        Returns:
            Columns ``line``, ``image`` (as written), ``clip``, ``frame`` and the predictions by name; null where a cell is none.

        Raises:
            RequestError: The task is of no challenge, or this is no file of it.
        """
        raise RequestError(f"{path.name} has no column 'sample'", remedy="give Parquet or csv: see `harness submit --template`")
