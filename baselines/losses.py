"""Losses that several methods share. Where a label is nan, it is left out; a batch without any label has a loss of 0."""

from __future__ import annotations

from collections.abc import Sequence

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


def regression(x: Tensor, y: Tensor, share: float, *, spread: Tensor | None = None) -> Tensor:
    """``share`` of the mean squared error and the rest of 1 - CCC, for ``(n,)`` predictions and labels.

    Args:
        x: Predictions.
        y: Labels.
        share: Of the squared error.
        spread: ``(n,)`` predicted logarithms of the variance; with them :func:`gaussian` stands for the squared error. 1 - CCC is of
            the whole batch, so that no single sample could be weighed in it.
    """
    error = squared_error(x, y) if spread is None else gaussian(x, y, spread)
    return share * error + (1 - share) * disagreement(x, y)


def gaussian(x: Tensor, y: Tensor, spread: Tensor) -> Tensor:
    """Mean of e^(-s) (y - x)² / 2 + s / 2: of normal labels, the negative logarithm of the likelihood but for a constant.

    Args:
        x: ``(n,)`` predictions.
        y: ``(n,)`` labels.
        spread: ``(n,)``, s, the logarithm of each sample's variance.
    """
    known = torch.isfinite(y)
    x, y, spread = x[known].float(), y[known].float(), spread[known].float()
    return attenuated((y - x).square() / 2, spread).mean() if len(x) else x.sum() + spread.sum()


def attenuated(each: Tensor, spread: Tensor) -> Tensor:
    """e^(-s) L + s / 2 for the losses L of samples and s = log σ², predicted for each of them (papers 3.3)."""
    return torch.exp(-spread) * each + spread / 2


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of ``(n,)`` predictions and labels."""
    x, y = _labelled(x, y)
    return F.mse_loss(x, y) if len(x) else x.sum()


def disagreement(x: Tensor, y: Tensor) -> Tensor:
    """1 - CCC of ``(n,)`` predictions and labels, in [0, 2]."""
    x, y = _labelled(x, y)
    return 1 - ccc(x, y) if len(x) else x.sum()


def cross_entropy(
    logits: Tensor, shares: Tensor, *, weight: Tensor | None = None, smoothing: float = 0.0, spread: Tensor | None = None
) -> Tensor:
    """Of ``(n, classes)`` logits and the ``(n, classes)`` shares of the classes, nan where there is no label.

    Args:
        logits: Of the classes.
        shares: All for one class, or spread as raters do.
        weight: ``(classes,)``, of a sample of each class.
        smoothing: Share of each label that is spread over all classes.
        spread: ``(n,)``, see :func:`attenuated`.
    """
    known = torch.isfinite(shares).all(1)
    if not bool(known.any()):
        return logits.float().sum() * 0 + (0 if spread is None else spread.float().sum() * 0)
    logits, shares = logits[known].float(), shares[known].float()
    if weight is None and spread is None:
        return F.cross_entropy(logits, shares, label_smoothing=smoothing)
    each = F.cross_entropy(logits, shares, label_smoothing=smoothing, reduction="none")
    if spread is not None:
        each = attenuated(each, spread[known].float())
    if weight is None:
        return each.mean()
    of_sample = shares @ weight
    return (of_sample * each).sum() / of_sample.sum().clamp_min(1e-12)


def binary_cross_entropy(logits: Tensor, labels: Tensor, *, positive: Tensor | None = None, spread: Tensor | None = None) -> Tensor:
    """Of ``(n,)`` logits and labels 0 or 1.

    Args:
        logits: Of presence.
        labels: nan where there is none.
        positive: The weight of a sample whose label is 1.
        spread: ``(n,)``, see :func:`attenuated`.
    """
    known = torch.isfinite(labels)
    logits, labels = _labelled(logits, labels)
    if not len(logits):
        return logits.sum() + (0 if spread is None else spread[known].sum())
    if spread is None:
        return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=positive)
    each = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=positive, reduction="none")
    return attenuated(each, spread[known].float()).mean()


def mean_of_labelled(losses: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """The mean of the losses whose ``(n, …)`` labels have any that is not nan; 0, with gradients of 0, where none has."""
    known = torch.stack([torch.isfinite(of_one).any() for of_one in labels]).float()
    return (torch.stack(list(losses)) * known).sum() / known.sum().clamp_min(1)


def _labelled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    known = torch.isfinite(y)
    return x[known].float(), y[known].float()
