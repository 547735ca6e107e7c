"""A plain supervised network: a backbone and a linear head a target. The default for recognising single images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import backbones, losses
from baselines import support as supports
from baselines.pairs import AFFECT
from harness.baseline import Baseline, Data, Previous, Query, Stage, Step
from harness.errors import RequestError, did_you_mean

CALIBRATIONS = ("offset", "none")
CLASS_WEIGHTS = ("none", "balanced")


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
        """Values of valence and arousal ``(b,)``, logits of action units ``(b,)`` and of expressions ``(b, classes)``, by target."""
        hidden = self.dropout(F.relu(embeddings))
        raw = {target: head(hidden) for target, head in self.heads.items()}
        return {target: values if target == "expression" else values[:, 0] for target, values in raw.items()}

    def outputs(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Predictions by target, see :class:`Supervised`."""
        found: dict[str, Tensor] = self(embeddings)
        for target, raw in found.items():
            if target not in AFFECT:
                found[target] = raw.softmax(1) if target == "expression" else raw.sigmoid()
        return found


class SupervisedStage(Stage):
    """Training on single frames, with one loss a target, named after it; labels that are missing are left out.

    Valence and arousal: a share of the mean squared error and the rest of 1 - CCC. Expression: cross-entropy. Action
    units: binary cross-entropy.

    Args:
        backbone: See :func:`baselines.backbones.build`.
        dim: Of an embedding.
        dropout: Before the heads.
        smoothing: Of the expression labels.
        class_weights: ``balanced`` weighs expressions by how rare they are, ``none`` does not.
        mse: Share of the mean squared error.
    """

    def __init__(
        self,
        *,
        backbone: Mapping[str, Any],
        dim: int = 256,
        dropout: float = 0.3,
        smoothing: float = 0.1,
        class_weights: str = "none",
        mse: float = 0.5,
    ) -> None:
        if class_weights not in CLASS_WEIGHTS:
            remedy = did_you_mean(class_weights, CLASS_WEIGHTS)
            raise RequestError(f"unknown class weights {class_weights!r}", where="stages.supervised.class_weights", remedy=remedy)
        self.backbone, self.dim, self.dropout = backbone, dim, dropout
        self.smoothing, self.class_weights, self.mse = smoothing, class_weights, mse

    def setup(self, train: Data, validation: Data, targets: tuple[str, ...], classes: tuple[str, ...], previous: Previous | None) -> None:
        self.channels = train.frames.shape[3]
        self.widths = {target: len(classes) if target == "expression" else 1 for target in targets}
        self.labels = {
            part: {target: torch.tensor(data.codes(classes) if target == "expression" else data.labels(target)) for target in targets}
            for part, data in (("train", train), ("validation", validation))
        }
        self.weight = None
        if self.class_weights == "balanced" and "expression" in targets:
            codes = self.labels["train"]["expression"]
            count = torch.bincount(codes[codes >= 0], minlength=len(classes))
            self.weight = torch.where(count > 0, count.sum() / ((count > 0).sum() * count.clamp_min(1)), 0.0)

    def module(self) -> MultiHead:
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

    def encode(self, module: Any, frames: Tensor) -> Tensor:
        embeddings: Tensor = module.encoder(frames)
        return embeddings

    def _loss(self, target: str, raw: Tensor, labels: Tensor) -> Tensor:
        if target == "expression":
            weight = None if self.weight is None else self.weight.to(raw.device)
            return losses.cross_entropy(raw, labels, weight=weight, smoothing=self.smoothing)
        if target in AFFECT:
            return losses.regression(raw, labels, self.mse)
        return losses.binary_cross_entropy(raw, labels)


class Supervised(Baseline):
    """Predicts from embeddings by the heads that the last stage has learned.

    The last stage's module has a method ``outputs``: ``(n, d)`` embeddings to predictions by target, ``(n,)`` of valence and
    arousal, ``(n,)`` probabilities of action units, ``(n, classes)`` of expressions.

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
        for target in AFFECT:
            if target in predicted:
                given = supports.calibrated(query, target, predicted[target]) if self.calibrate == "offset" else predicted[target]
                predicted[target] = np.clip(given, -1, 1)
        return predicted
