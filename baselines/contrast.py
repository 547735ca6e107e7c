"""Contrastive losses on unit vectors, of images and of texts. What belongs together is said by weights and places, not here.

All look at the whole batch, so under several workers they are given what :meth:`harness.baseline.Step.gather` returns. They compute in
float32 whatever the precision of training is: at a temperature of 0.01, a cosine in bf16 would be off by whole logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def image_image(first: Tensor, second: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Contrast of two views of each image (Khosla et al., NeurIPS 2020, L_out, with weights; papers 2.2).

    Of each of the 2b views z_i the loss is -1 / sum_p w_p * sum_p w_p log(exp(z_i.z_p / t) / sum_{k != i} exp(z_i.z_k / t)), where p goes
    over its own other view, with a weight of 1, and over both views of every image j, with ``weights[i, j]``. Their mean is returned.

    Args:
        first: ``(b, d)``, of length 1 each.
        second: The other views.
        weights: ``(b, b)`` in 0..1. The diagonal does not count. All 0 is SimCLR.
        temperature: t, above 0.
    """
    if not len(first):
        return first.float().sum() + second.float().sum()
    views = torch.cat([first, second])
    logits = _cosines(views, views) / temperature
    alone = torch.eye(len(first), dtype=torch.bool, device=logits.device)
    others = weights.to(logits).masked_fill(alone, 0)
    own = others.masked_fill(alone, 1)
    positive = torch.cat([torch.cat([others, own], 1), torch.cat([own, others], 1)])
    itself = torch.eye(len(views), dtype=torch.bool, device=logits.device)
    total = logits.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    return ((positive * (total - logits)).sum(1) / positive.sum(1)).mean()


def image_text(images: Tensor, texts: Tensor, place: Tensor, temperature: float) -> Tensor:
    """Contrast of images and the texts they belong to, both ways (papers 2.2, L_IA): the mean of two cross entropies.

    From an image, its text among the texts that any image of the batch has. From a text, its images among all of them: they share the
    probability, so the loss is the mean of theirs, and every text counts alike however many it has.

    Args:
        images: ``(b, d)``, of length 1 each.
        texts: ``(t, d)``, of length 1 each.
        place: ``(b,)`` int64, which text an image has; -1: none, it is left out.
        temperature: Above 0.

    Returns:
        A scalar; 0 where no image has a text.
    """
    place = place.to(images.device)
    known = place >= 0
    images, place = images[known], place[known]
    met: Tensor = torch.unique(place)
    if not len(met):
        return (images.float().sum() + texts.float().sum()) * 0
    logits = _cosines(images, texts[met]) / temperature
    own = (place[:, None] == met).to(logits)
    from_images = -(logits.log_softmax(1) * own).sum(1).mean()
    from_texts = -(logits.log_softmax(0) * own / own.sum(0)).sum(0).mean()
    return (from_images + from_texts) / 2


def text_text(names: Tensor, descriptions: Tensor, temperature: float) -> Tensor:
    """Contrast of the names and the descriptions of classes, both ways (papers 2.2, L_DN): the mean of two cross entropies.

    Args:
        names: ``(c, d)``, of length 1 each.
        descriptions: Of the same classes.
        temperature: Above 0.

    Returns:
        A scalar; 0 for one class.
    """
    if not len(names):
        return names.float().sum() + descriptions.float().sum()
    logits = _cosines(names, descriptions) / temperature
    place = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, place) + F.cross_entropy(logits.T, place)) / 2


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """``(n, m)`` float32 products of ``(n, d)`` and ``(m, d)``."""
    with torch.autocast(a.device.type, enabled=False):
        products: Tensor = a.float() @ b.float().T
    return products
