"""The Baseline and Stage contracts: what is entered. The engine imports a baseline only by the ``_target_`` of its config.

A baseline is an ordered list of stages, each one training, and ``predict``. A stage says which samples meet in a step,
what module it trains and its losses by name; how those become one gradient is the weighting's business, and how a
step is run, on how many workers and in which precision, is the engine's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from harness.errors import RequestError
from harness.frames import Frames
from harness.task import Setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Data:
    """Some samples and their frames, row by row.

    Attributes:
        samples: Columns of ``samples.SCHEMA``. For a part whose labels a baseline may not see they are not there at all.
        frames: ``frames[rows]`` is uint8 ``(n, height, width, channels)``, the crops of those rows.
    """

    samples: pl.DataFrame
    frames: Frames

    def labels(self, target: str) -> np.ndarray:
        """``(n,)`` float32 of a numeric target; nan where it is not labelled."""
        return self.samples[target].cast(pl.Float32).fill_null(float("nan")).to_numpy(writable=True)

    def codes(self, classes: tuple[str, ...]) -> np.ndarray:
        """``(n,)`` int64 of the expression's place in ``classes``; -1 where it is not labelled or no such class."""
        places = {name: place for place, name in enumerate(classes)}
        return self.samples["expression"].cast(pl.String).replace_strict(places, default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy()

    def distributions(self, classes: tuple[str, ...]) -> np.ndarray:
        """``(n, classes)`` float32: how raters share out over ``classes``; nan where nobody chose one of them.

        The shares of the votes where the samples have any (a task says whether they do), else all for the one expression.
        """
        if all(f"votes_{name}" in self.samples.columns for name in classes):
            votes = self.samples.select(pl.col(f"votes_{name}").cast(pl.Float32).fill_null(0) for name in classes).to_numpy()
        else:
            votes = (self.codes(classes)[:, None] == np.arange(len(classes))).astype(np.float32)
        total = votes.sum(axis=1, keepdims=True)
        shares: np.ndarray = np.divide(votes, total, out=np.full_like(votes, np.nan), where=total > 0)
        return shares


class Step(Protocol):
    """One step of training as a stage sees it. Under several workers each holds a slice of the same global batch.

    What depends on one frame alone (an encoder) runs on the local slice; what looks at the whole batch (batch
    normalisation, CCC, contrast) runs on what :meth:`gather` returns, which is the global batch on every worker, with
    gradients that add up to those of one worker.
    """

    index: np.ndarray
    """``(b, k)`` int64, the global batch: row numbers into the training data, k samples that meet (1 single, 2 pair)."""
    progress: float
    """Epoch / epochs, the epoch counted from 1: in (0, 1]."""
    device: torch.device
    training: bool
    generator: torch.Generator
    """The same on every worker at every step."""

    def frames(self, column: int = 0, view: int = 0) -> Tensor:
        """The local slice's frames of one column: ``(b_local, channels, height, width)`` in [0, 1], augmented while training.

        Two views of the same column are augmented differently.
        """
        ...

    def gather(self, local: Tensor) -> Tensor:
        """``(b_local, …)`` of every worker as ``(b, …)``, in the order of ``index``, with gradient."""
        ...

    def rows(self, values: Tensor, column: int = 0) -> Tensor:
        """The rows of a per-sample tensor that belong to the global batch: ``values[index[:, column]]`` on the device."""
        ...


@dataclass(frozen=True)
class Previous:
    """What the stage before has learned, frozen."""

    stage: Stage
    module: nn.Module
    train: np.ndarray
    """``(n, d)`` float32 embeddings of the training samples (unaugmented)."""
    validation: np.ndarray


class Stage(ABC):
    """One training. Its constructor's arguments are the stage's config; it holds no tensors before :meth:`setup`."""

    on_embeddings = False
    """True for a stage that learns on the frozen embeddings of the stage before (:class:`Previous`) and not on frames."""

    def setup(  # noqa: B027  a stage may need none
        self, train: Data, validation: Data, targets: tuple[str, ...], classes: tuple[str, ...], previous: Previous | None
    ) -> None:
        """Take the labels needed into arrays and tensors. Called once in each worker before anything else.

        Raises:
            RequestError: The data lack what this stage learns from.
        """

    @abstractmethod
    def module(self) -> nn.Module:
        """A new module. Global RNG is seeded by the engine before the call.

        Its blocks may be called through :func:`harness.recomputing.recomputed`, for ``trainer.resources.activation_checkpointing``.
        """

    @abstractmethod
    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """The steps of one epoch as ``(b, k)`` arrays of row numbers into ``part``, ``train`` or ``validation``.

        For ``validation`` the same arrays must come of the same ``rng`` state.
        """

    @abstractmethod
    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        """Losses by name, one scalar an objective, of a training (``step.training``) or validation step.

        One of exactly 0 says that the batch has no label for it, and is left to no weighting.
        """

    def objectives(self) -> dict[str, str]:
        """The losses' names in their order, each with its kind (``harness.weighting``): ``regression``, ``likelihood`` or ``other``.

        Called after :meth:`setup`. Empty where the stage does not say; weightings that keep something for each loss refuse it then.
        """
        return {}

    def encode(self, module: nn.Module, frames: Tensor) -> Tensor:
        """``(b, channels, height, width)`` in [0, 1] to the ``(b, d)`` embeddings that predictions are made from."""
        raise TypeError(f"{type(self).__name__} has no embedding")


@dataclass(frozen=True)
class Query:
    """One evaluation as a baseline sees it: the test samples without their labels, and the support with.

    Attributes:
        test: Samples sorted by clip and frame. No label column is there.
        support: ``(n,)`` bool, the frames of ``test`` whose labels are given.
        labels: Target → ``(support.sum(),)`` float32, in the order of ``test``; nan where not labelled.
        setting: Canonical evaluation setting.
        targets: What to predict.
        classes: The expressions to tell apart.
        train: Training samples of the split, with labels.
        modules: The fitted modules, one a stage, in eval mode, on ``device``.
        part: What ``test`` is: ``test``, or ``validation`` where a threshold or a draw of hyper-parameters is chosen.
        embeddings: ``(n, d)`` float32 of ``test`` by the last stage's ``encode`` (or the baseline's own).
        train_embeddings: The same of ``train``.
    """

    test: Data
    support: np.ndarray
    labels: Mapping[str, np.ndarray]
    setting: Setting
    targets: tuple[str, ...]
    classes: tuple[str, ...]
    train: Data
    modules: tuple[Any, ...]
    device: Any
    encoder: Encoder
    part: str = "test"

    @property
    def embeddings(self) -> np.ndarray:
        return self.encoder(self.test, self.part)

    @property
    def train_embeddings(self) -> np.ndarray:
        return self.encoder(self.train, "train")


class Encoder(Protocol):
    """Embeds each frame once: in memory for this process, on disk beside the fit for the next one."""

    def __call__(self, data: Data, part: str) -> np.ndarray: ...


class Baseline(ABC):
    """A method, a control or a user's own model.

    Its YAML in ``configs/baseline`` carries what the plan must know without importing it: ``name``, ``version``,
    ``reads`` (the keys under ``evaluate`` that change its predictions), ``min_support``, ``seeded``.
    """

    @abstractmethod
    def predict(self, query: Query) -> dict[str, np.ndarray]:
        """Target → ``(n,)`` float for valence, arousal and action units (probabilities), ``(n, classes)`` for the expression."""

    def pictures(self, query: Query) -> dict[str, bytes]:
        """What can be drawn of how it sees the test samples, for ``harness export --what pictures``; file name → bytes.

        Raises:
            RequestError: It draws nothing; the default.
        """
        raise RequestError(f"{type(self).__name__} draws no pictures", where="harness export", remedy="export a submission")

    def encode(self, frames: Tensor) -> Tensor:
        """Embeddings of a baseline without stages, ``(b, channels, height, width)`` to ``(b, d)``."""
        raise TypeError(f"{type(self).__name__} has no embedding")
