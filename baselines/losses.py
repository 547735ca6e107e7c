"""Losses that several methods share. Where a label is nan, it is left out; a batch without any label has a loss of 0."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def ccc(x: Tensor, y: Tensor) -> Tensor:
    """Lin's concordance correlation of ``(n,)`` tensors, in [-1, 1]; 0 where both are constant. Population moments, as the metric.

    >>> round(float(ccc(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0]))), 4)
    0.5714
    """
    mean_x, mean_y = x.mean(), y.mean()
    covariance = ((x - mean_x) * (y - mean_y)).mean()
    spread = (x - mean_x).square().mean() + (y - mean_y).square().mean() + (mean_x - mean_y).square()
    return 2 * covariance / spread.clamp_min(1e-12)


def share_of_mse(progress: float, *, training: bool) -> float:
    """MT-CLAR's schedule (papers 1.4): from CCC at the beginning of training to MSE at its end, both alike in every validation.

    Args:
        progress: Epoch / epochs.
        training: False for validation.
    """
    return progress**2 if training else 0.5


def regression(x: Tensor, y: Tensor, share: float) -> Tensor:
    """``share`` of the mean squared error and the rest of 1 - CCC, for ``(n,)`` predictions and labels."""
    return share * squared_error(x, y) + (1 - share) * disagreement(x, y)


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of ``(n,)`` predictions and labels."""
    x, y = _labelled(x, y)
    return F.mse_loss(x, y) if len(x) else x.sum()


def disagreement(x: Tensor, y: Tensor) -> Tensor:
    """1 - CCC of ``(n,)`` predictions and labels, in [0, 2]."""
    x, y = _labelled(x, y)
    return 1 - ccc(x, y) if len(x) else x.sum()


def cross_entropy(logits: Tensor, shares: Tensor, *, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Of ``(n, classes)`` logits and the ``(n, classes)`` shares of the classes, nan where there is no label.

    Args:
        logits: Of the classes.
        shares: All for one class, or spread as raters do.
        weight: ``(classes,)``, of a sample of each class.
        smoothing: Share of each label that is spread over all classes.
    """
    known = torch.isfinite(shares).all(1)
    if not bool(known.any()):
        return logits.float().sum() * 0
    logits, shares = logits[known].float(), shares[known].float()
    if weight is None:
        return F.cross_entropy(logits, shares, label_smoothing=smoothing)
    of_sample = shares @ weight
    return (of_sample * F.cross_entropy(logits, shares, label_smoothing=smoothing, reduction="none")).sum() / of_sample.sum().clamp_min(
        1e-12
    )


def binary_cross_entropy(logits: Tensor, labels: Tensor, *, positive: Tensor | None = None) -> Tensor:
    """Of ``(n,)`` logits and labels 0 or 1; ``positive`` is the weight of a sample whose label is 1."""
    logits, labels = _labelled(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=positive) if len(logits) else logits.sum()


def _labelled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    known = torch.isfinite(y)
    return x[known].float(), y[known].float()
