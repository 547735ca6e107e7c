"""A plain supervised network: a backbone and a linear head a target, whatever the targets. The default for recognising single images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import backbones, losses
from baselines import support as supports
from harness.baseline import Baseline, Data, Previous, Query, Stage, Step
from harness.errors import RequestError, did_you_mean
from harness.task import kind_of
from harness.weighting import LIKELIHOOD, REGRESSION

CALIBRATIONS = ("offset", "none")
WEIGHTS = ("none", "balanced")


class MultiHead(nn.Module):
    """An encoder and a linear head a target.

    Args:
        encoder: ``(b, channels, height, width)`` to ``(b, dim)``.
        heads: Target → width.
        dim: Of an embedding.
        dropout: Before the heads.
    """

    def __init__(self, encoder: nn.Module, heads: Mapping[str, int], *, dim: int, dropout: float) -> None:
        super().__init__()
        self.encoder, self.dropout = encoder, nn.Dropout(dropout)
        self.heads = nn.ModuleDict({target: nn.Linear(dim, width) for target, width in heads.items()})

    def forward(self, embeddings: Tensor) -> dict[str, Tensor]:
        """By target, values ``(b,)`` of affect and intensities, logits of action units ``(b,)`` and of expressions ``(b, classes)``."""
        hidden = self.dropout(F.relu(embeddings))
        raw = {target: head(hidden) for target, head in self.heads.items()}
        return {target: values if target == "expression" else values[:, 0] for target, values in raw.items()}

    def outputs(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Predictions by target, see :class:`Supervised`."""
        found: dict[str, Tensor] = self(embeddings)
        return {target: OUTPUT[kind_of(target)](raw) for target, raw in found.items()}


OUTPUT: dict[str, Callable[[Tensor], Tensor]] = {
    "affect": lambda raw: raw,
    "expression": lambda raw: raw.softmax(1),
    "occurrence": torch.sigmoid,
    "intensity": lambda raw: raw.clamp(0, 5),
}
"""What a head gives → what is predicted."""

OBJECTIVE = {"affect": REGRESSION, "expression": LIKELIHOOD, "occurrence": LIKELIHOOD, "intensity": REGRESSION}
"""What is predicted → the kind of its loss."""


class SupervisedStage(Stage):
    """Training on single frames, with one loss a target, named after it; labels that are missing are left out.

    Valence, arousal and intensities of action units: a share of the mean squared error and the rest of 1 - CCC. Expression:
    cross-entropy, with the raters' votes where the samples have any. Action units: binary cross-entropy. A frame that is labelled for
    some targets only teaches these.

    Args:
        backbone: See :func:`baselines.backbones.build`.
        dim: Of an embedding.
        dropout: Before the heads.
        smoothing: Of the expression labels.
        class_weights: ``balanced`` weighs expressions by how rare they are, ``none`` does not.
        presence_weights: ``balanced`` weighs frames that show an action unit by how rare it is (a tenth to tenfold), so that a probability
            of a half is a sensible threshold; ``none`` does not.
        mse: Share of the mean squared error.
    """

    where = "stages.supervised"

    def __init__(
        self,
        *,
        backbone: Mapping[str, Any],
        dim: int = 256,
        dropout: float = 0.3,
        smoothing: float = 0.1,
        class_weights: str = "none",
        presence_weights: str = "balanced",
        mse: float = 0.5,
    ) -> None:
        self.weighs = {"expression": class_weights, "occurrence": presence_weights}
        for name, chosen in {"class_weights": class_weights, "presence_weights": presence_weights}.items():
            if chosen not in WEIGHTS:
                what = f"unknown {name.replace('_', ' ')} {chosen!r}"
                raise RequestError(what, where=f"{self.where}.{name}", remedy=did_you_mean(str(chosen), WEIGHTS))
        self.backbone, self.dim, self.dropout = backbone, dim, dropout
        self.smoothing, self.mse = smoothing, mse

    def setup(self, train: Data, validation: Data, targets: tuple[str, ...], classes: tuple[str, ...], previous: Previous | None) -> None:
        self.channels = train.frames.shape[3]
        self.widths = {target: len(classes) if target == "expression" else 1 for target in targets}
        self.labels = {
            part: {
                target: torch.tensor(data.distributions(classes) if target == "expression" else data.labels(target)) for target in targets
            }
            for part, data in (("train", train), ("validation", validation))
        }
        self.weights = {
            target: _BALANCED[kind_of(target)](labels) if self.weighs.get(kind_of(target)) == "balanced" else None
            for target, labels in self.labels["train"].items()
        }

    def module(self) -> nn.Module:
        encoder = backbones.build(self.backbone, channels=self.channels, dim=self.dim)
        return MultiHead(encoder, self.widths, dim=self.dim, dropout=self.dropout)

    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        n = len(next(iter(self.labels[part].values())))
        if n:
            yield from np.array_split(rng.permutation(n)[:, None], math.ceil(n / size))

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        raw = module(step.gather(module.encoder(step.frames())))
        part = "train" if step.training else "validation"
        return {target: self._loss(target, raw[target], step.rows(labels)) for target, labels in self.labels[part].items()}

    def objectives(self) -> dict[str, str]:
        return {target: OBJECTIVE[kind_of(target)] for target in self.widths}

    def encode(self, module: Any, frames: Tensor) -> Tensor:
        embeddings: Tensor = module.encoder(frames)
        return embeddings

    def _loss(self, target: str, raw: Tensor, labels: Tensor, spread: Tensor | None = None) -> Tensor:
        """Of one target; ``spread`` is ``(b,)``, see :func:`baselines.losses.attenuated`."""
        kind, weight = kind_of(target), self.weights[target]
        weight = None if weight is None else weight.to(raw.device)
        if kind == "expression":
            return losses.cross_entropy(raw, labels, weight=weight, smoothing=self.smoothing, spread=spread)
        if kind == "occurrence":
            return losses.binary_cross_entropy(raw, labels, positive=weight, spread=spread)
        return losses.regression(raw, labels, self.mse, spread=spread)


_MOST = 10.0  # the weight of the rarest presence: beyond it a handful of frames would steer the net


def _by_rarity(shares: Tensor) -> Tensor:
    """``(classes,)`` weights of expressions from their ``(n, classes)`` shares."""
    count = shares.nan_to_num(0).sum(0)
    return torch.where(count > 0, count.sum() / ((count > 0).sum() * count.clamp_min(1)), 0.0)


def _of_presence(labels: Tensor) -> Tensor:
    """The weight of a frame that shows an action unit, beside 1 of one that does not."""
    present, absent = (labels == 1).sum(), (labels == 0).sum()
    return (absent / present.clamp_min(1)).clamp(1 / _MOST, _MOST).float()


_BALANCED: dict[str, Callable[[Tensor], Tensor]] = {"expression": _by_rarity, "occurrence": _of_presence}


class Supervised(Baseline):
    """Predicts from embeddings by the heads that the last stage has learned.

    The last stage's module has a method ``outputs``: ``(n, d)`` embeddings to predictions by target, ``(n,)`` of valence, arousal and
    intensities, ``(n,)`` probabilities of action units, ``(n, classes)`` of expressions.

    Args:
        calibrate: Where a clip has support frames, valence and arousal are moved by the mean error on them (``offset``,
            ours) or left as they are (``none``).
    """

    def __init__(self, *, calibrate: str = "offset") -> None:
        if calibrate not in CALIBRATIONS:
            remedy = did_you_mean(calibrate, CALIBRATIONS)
            raise RequestError(f"unknown calibration {calibrate!r}", where="baseline.calibrate", remedy=remedy)
        self.calibrate = calibrate

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        outputs = query.modules[-1].outputs(torch.from_numpy(query.embeddings).to(query.device))
        predicted = {target: outputs[target].double().cpu().numpy() for target in query.targets}
        for target in query.targets:
            if kind_of(target) == "affect":
                given = supports.calibrated(query, target, predicted[target]) if self.calibrate == "offset" else predicted[target]
                predicted[target] = np.clip(given, -1, 1)
        return predicted
