"""MT-CLAR (Parameshwara et al., ACM MM 2023): from a pair of faces, whether the expression is the same and how valence and
arousal differ. A clip is then labelled from its few labelled frames and the differences to them.

Architecture, losses and pairs follow the authors' released code. The backbone is another (EmoNet's licence allows no
derivatives), and so is what is called ours here and in the configs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import backbones, losses
from baselines import pairs as pair_rules
from baselines import support as supports
from baselines.pairs import AFFECT
from baselines.support import NOWHERE
from harness.baseline import Baseline, Data, Previous, Query, Stage, Step
from harness.errors import RequestError, did_you_mean
from harness.weighting import LIKELIHOOD, OTHER, REGRESSION

FUSIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "concat": lambda a, b: torch.cat([a, b], dim=1),
    "absolute": lambda a, b: (a - b).abs(),
    "multiply": lambda a, b: a * b,
}
ANCHORS = ("last", "nearest", "mean", "median", "weighted", "embedding")

_CHUNK = 16384  # pairs that go through the heads at once


class PairNet(nn.Module):
    """An encoder, and three heads on what two embeddings make together (papers 1.2).

    Args:
        encoder: ``(b, channels, height, width)`` to ``(b, dim)``.
        dim: Of an embedding.
        fusion: ``concat``, ``absolute`` or ``multiply``.
        hidden: Widths of each head's hidden layers.
        dropout: Before each hidden layer.
        symmetric: Make the differences of (a, b) and (b, a) each other's negative; ours.
    """

    def __init__(self, encoder: nn.Module, *, dim: int, fusion: str, hidden: Sequence[int], dropout: float, symmetric: bool) -> None:
        super().__init__()
        self.encoder, self.fusion, self.symmetric = encoder, fusion, symmetric
        width = 2 * dim if fusion == "concat" else dim
        self.similarity = _head(width, hidden, 2, dropout)
        self.valence = _head(width, hidden, 1, dropout)
        self.arousal = _head(width, hidden, 1, dropout)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Of two ``(b, dim)`` embeddings: ``(b, 2)`` logits (unlike, alike), and ``(b, 2)`` valence and arousal of a minus b's."""
        fuse = FUSIONS[self.fusion]
        fused = fuse(a, b)
        raw = torch.cat([self.valence(fused), self.arousal(fused)], dim=1)
        if self.symmetric:
            other = fuse(b, a)
            raw = (raw - torch.cat([self.valence(other), self.arousal(other)], dim=1)) / 2
        return self.similarity(fused), 2 * torch.tanh(raw.float())


class PairStage(Stage):
    """Training on pairs, with the losses ``similarity``, ``valence``, ``arousal`` and ``cosine`` (papers 1.4).

    Args:
        backbone: See :func:`baselines.backbones.build`.
        pairs: A pair rule; see :func:`baselines.pairs.make`.
        dim: Of an embedding.
        fusion, hidden, dropout, symmetric: See :class:`PairNet`.
        margin: Of the cosine loss, which pairs that are not alike should stay below.
        pairs_per_frame: Pairs an epoch, as a multiple of the frames.
        extra: So many times the pairs of a step, at most, are compared beside them: frames of one clip that meet in it
            anyway. Ours: it costs a pass of the heads, not of the encoder.

    Raises:
        RequestError: An unknown fusion or pair rule.
    """

    def __init__(
        self,
        *,
        backbone: Mapping[str, Any],
        pairs: Mapping[str, Any],
        dim: int = 256,
        fusion: str = "concat",
        hidden: Sequence[int] = (2048, 1024, 512, 128),
        dropout: float = 0.5,
        margin: float = 0.25,
        symmetric: bool = False,
        pairs_per_frame: float = 1.0,
        extra: float = 0.0,
    ) -> None:
        if fusion not in FUSIONS:
            raise RequestError(f"no fusion is called {fusion!r}", where="stages.pairs.fusion", remedy=did_you_mean(fusion, FUSIONS))
        self.backbone, self.rule, self.dim = backbone, pair_rules.make(pairs), dim
        self.fusion, self.hidden, self.dropout, self.symmetric = fusion, tuple(hidden), dropout, symmetric
        self.margin, self.pairs_per_frame, self.extra = margin, pairs_per_frame, extra

    def setup(self, train: Data, validation: Data, targets: tuple[str, ...], classes: tuple[str, ...], previous: Previous | None) -> None:
        parts = {"train": train, "validation": validation}
        self.channels = train.frames.shape[3]
        self.labels = {part: pair_rules.Labels.of(data, classes) for part, data in parts.items()}
        self.affect = {part: affect_labels(data) for part, data in parts.items()}
        self.rows = {part: np.flatnonzero(affect.isfinite().all(1).numpy()) for part, affect in self.affect.items()}
        if len(self.rows["train"]) < 2:
            raise RequestError("no two training samples have valence and arousal", where="stages.pairs", remedy="choose another task")

    def module(self) -> PairNet:
        encoder = backbones.build(self.backbone, channels=self.channels, dim=self.dim)
        return PairNet(encoder, dim=self.dim, fusion=self.fusion, hidden=self.hidden, dropout=self.dropout, symmetric=self.symmetric)

    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        rows = self.rows[part]
        n = round(self.pairs_per_frame * len(rows))
        if len(rows) > 1 and n:
            pairs = rows[self.rule.draw(self.labels[part].take(rows), n, rng)]
            yield from np.array_split(pairs, math.ceil(n / size))  # of nearly equal size: none too small for its statistics

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        part = "train" if step.training else "validation"
        both = module.encoder(torch.cat([step.frames(0), step.frames(1)]))
        embeddings = torch.cat([step.gather(half) for half in both.chunk(2)])
        rows = step.index.T.reshape(-1)  # of the data, where pairs are of the embeddings
        pairs = np.arange(len(rows)).reshape(2, -1).T
        if step.training and self.extra:
            pairs = np.concatenate([pairs, _inside_clips(self.labels[part].clip[rows], round(self.extra * len(pairs)), step.generator)])
        a, b = (embeddings[torch.from_numpy(places).to(step.device)] for places in pairs.T)
        logits, differences = module(a, b)
        affect = self.affect[part][torch.from_numpy(rows[pairs])]
        labels = (affect[:, 0] - affect[:, 1]).to(step.device)
        alike = torch.from_numpy(self.rule.same(self.labels[part], rows[pairs])).to(step.device)
        share = losses.share_of_mse(step.progress, training=step.training)
        return {
            "similarity": F.cross_entropy(logits.float(), alike.long()),
            "valence": losses.regression(differences[:, 0], labels[:, 0], share),
            "arousal": losses.regression(differences[:, 1], labels[:, 1], share),
            "cosine": F.cosine_embedding_loss(a.float(), b.float(), 2 * alike.float() - 1, margin=self.margin),
        }

    def objectives(self) -> dict[str, str]:
        return {"similarity": LIKELIHOOD, "valence": REGRESSION, "arousal": REGRESSION, "cosine": OTHER}

    def encode(self, module: Any, frames: Tensor) -> Tensor:
        embeddings: Tensor = module.encoder(frames)
        return embeddings


class MtClar(Baseline):
    """Labels a frame by the labels of its clip's support frames and the predicted differences to them (papers 1.6).

    ``evaluate.anchor`` says which support frames count: ``last`` (the latest not after the frame, else the earliest),
    ``nearest`` in time, ``embedding`` (the most similar), or all of them by ``mean``, ``median``, or ``weighted`` by how
    likely they show the same expression. ``evaluate.block`` averages differences over so many consecutive test frames, as
    the released evaluation does unawares.
    """

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        support = supports.of(query, *AFFECT)
        supports.require(query, support)
        net, device = query.modules[0], query.device
        embeddings = torch.from_numpy(query.embeddings).to(device)
        anchors = torch.from_numpy(support.rows).to(device)
        anchor = query.setting.get("anchor", "last")

        def compare(which: np.ndarray, how: Any, width: int) -> np.ndarray:
            """``(n, k, width)``: ``how`` of each test frame's and its support frames' embeddings, ``which`` ``(n, k)``; nan at NOWHERE."""
            found = np.full((*which.shape, width), np.nan)
            frame, column = np.nonzero(which != NOWHERE)
            other = which[frame, column]
            for start in range(0, len(frame), _CHUNK):
                part = slice(start, start + _CHUNK)
                a, b = (torch.from_numpy(rows[part]).to(device) for rows in (frame, other))
                found[frame[part], column[part]] = how(embeddings[a], embeddings[anchors[b]]).cpu().numpy()
            return found

        every = support.table[support.clip]
        if anchor == "embedding":
            similarity = compare(every, lambda a, b: F.cosine_similarity(a, b)[:, None], 1)[:, :, 0]
            which = np.take_along_axis(every, np.nanargmax(similarity, axis=1)[:, None], axis=1)
        else:
            which = {"last": support.last, "nearest": support.nearest}[anchor]()[:, None] if anchor in ("last", "nearest") else every
        judged = compare(which, lambda a, b: torch.cat([(pair := net(a, b))[1], pair[0].softmax(1)[:, 1:]], dim=1), 3)
        labels = np.stack([supports.at(support.labels[target], which) for target in AFFECT], axis=2)
        known = _combined(labels, judged[:, :, 2], anchor)
        differences = _combined(labels + judged[:, :, :2], judged[:, :, 2], anchor) - known
        predicted = np.clip(known + _block_means(differences, int(query.setting.get("block", 1))), -1, 1)
        return dict(zip(AFFECT, predicted.T, strict=True))


def affect_labels(data: Data) -> Tensor:
    """``(n, 2)`` float32 valence and arousal; nan where not labelled."""
    return torch.from_numpy(np.stack([data.labels(target) for target in AFFECT], axis=1))


def _inside_clips(clip: np.ndarray, most: int, generator: torch.Generator) -> np.ndarray:
    """``(m, 2)`` places of two embeddings of one clip, in either order, at most so many."""
    pairs = np.stack(np.nonzero((clip[:, None] == clip) & ~np.eye(len(clip), dtype=bool)), axis=1)
    chosen: np.ndarray = pairs[torch.randperm(len(pairs), generator=generator)[:most].numpy()]
    return chosen


def _head(width: int, hidden: Sequence[int], out: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for wide, narrow in zip((width, *hidden), hidden, strict=False):
        layers += [nn.Dropout(dropout), nn.Linear(wide, narrow), nn.BatchNorm1d(narrow), nn.ReLU()]
    layers.append(nn.Linear(hidden[-1], out))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def _combined(values: np.ndarray, likeness: np.ndarray, anchor: str) -> np.ndarray:
    """``(n, k, 2)`` values as ``(n, 2)``, over the support frames that are there."""
    if anchor == "median":
        medians: np.ndarray = np.nanmedian(values, axis=1)
        return medians
    weights = np.where(np.isnan(likeness), 0.0, likeness if anchor == "weighted" else 1.0)
    combined: np.ndarray = np.einsum("nkt,nk->nt", np.nan_to_num(values), weights) / weights.sum(axis=1, keepdims=True)
    return combined


def _block_means(values: np.ndarray, size: int) -> np.ndarray:
    """``(n, 2)`` values averaged over blocks of so many consecutive rows; clips do not matter, as in the release."""
    starts = np.arange(0, len(values), size)
    counts = np.diff(np.append(starts, len(values)))
    means = np.add.reduceat(values, starts) / counts[:, None]
    return np.repeat(means, counts, axis=0)
