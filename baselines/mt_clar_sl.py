"""MT-CLAR + SL: a supervised multi-layer perceptron on the frozen embeddings of MT-CLAR (papers 1.2, 1.4, 1.5)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines import losses
from baselines.mt_clar import affect_labels
from baselines.pairs import AFFECT
from harness.baseline import Data, Previous, Stage, Step
from harness.errors import RequestError
from harness.weighting import LIKELIHOOD, REGRESSION


class LinearNet(nn.Sequential):
    """Linear layers without bias, each with batch normalisation, ReLU and dropout, and a plain last one.

    Args:
        width: Of the input.
        hidden: Widths of the hidden layers.
        out: Width of the output.
        dropout: After each hidden layer.
        tanh: Squash the output to (-1, 1): right for valence and arousal, wrong for logits (the release does both).
    """

    def __init__(self, width: int, hidden: Sequence[int], out: int, *, dropout: float, tanh: bool) -> None:
        layers: list[nn.Module] = []
        for wide, narrow in zip((width, *hidden), hidden, strict=False):
            layers += [nn.Linear(wide, narrow, bias=False), nn.BatchNorm1d(narrow), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*layers, nn.Linear(hidden[-1], out), *([nn.Tanh()] if tanh else []))


class Heads(nn.ModuleDict):
    """A :class:`LinearNet` for ``affect``, one for ``expression``, or both."""

    def outputs(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Predictions by target, see :class:`baselines.supervised.Supervised`."""
        found: dict[str, Tensor] = {}
        if "affect" in self:
            found |= dict(zip(AFFECT, self["affect"](embeddings).unbind(1), strict=True))
        if "expression" in self:
            found["expression"] = self["expression"](embeddings).softmax(1)
        return found


class HeadStage(Stage):
    """Training on embeddings: ``affect`` for valence and arousal together, ``expression``, or both, as the task asks.

    Args:
        hidden, dropout: See :class:`LinearNet`.
        tanh: Squash valence and arousal.
        balanced: Meet every expression equally often in training (with replacement), as the release does for AffectNet's
            expressions and not for AFEW-VA. Nothing changes where the task has no expressions.
    """

    on_embeddings = True

    def __init__(
        self, *, hidden: Sequence[int] = (1024, 512, 256, 128), dropout: float = 0.0, tanh: bool = True, balanced: bool = False
    ) -> None:
        self.hidden, self.dropout, self.tanh, self.balanced = tuple(hidden), dropout, tanh, balanced

    def setup(self, train: Data, validation: Data, targets: tuple[str, ...], classes: tuple[str, ...], previous: Previous | None) -> None:
        if previous is None:
            raise RequestError("a head on embeddings needs a stage before it", where="stages", remedy="train it after MT-CLAR's pairs")
        parts = {"train": train, "validation": validation}
        self.out: Mapping[str, int] = {
            **({"affect": 2} if set(targets) & set(AFFECT) else {}),
            **({"expression": len(classes)} if "expression" in targets else {}),
        }
        self.features = {"train": torch.from_numpy(previous.train), "validation": torch.from_numpy(previous.validation)}
        self.affect = {part: affect_labels(data) for part, data in parts.items()}
        self.shares = {part: torch.tensor(data.distributions(classes)) for part, data in parts.items()} if classes else {}

    def module(self) -> Heads:
        width = self.features["train"].shape[1]
        return Heads(
            {
                name: LinearNet(width, self.hidden, out, dropout=self.dropout, tanh=self.tanh and name == "affect")
                for name, out in self.out.items()
            }
        )

    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        rows = np.arange(len(self.features[part]))
        if self.balanced and part == "train" and "expression" in self.out:
            shares = self.shares[part].numpy()
            rows = np.flatnonzero(np.isfinite(shares).all(axis=1))
            _, kind, count = np.unique(shares[rows].argmax(axis=1), return_inverse=True, return_counts=True)
            rows = rng.choice(rows, len(rows), p=1 / (count[kind] * len(count)))
        if len(rows):
            yield from np.array_split(rng.permutation(rows)[:, None], math.ceil(len(rows) / size))

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        part = "train" if step.training else "validation"
        features = step.rows(self.features[part])
        found: dict[str, Tensor] = {}
        if "affect" in self.out:
            predicted, labels = module["affect"](features), step.rows(self.affect[part])
            share = losses.share_of_mse(step.progress, training=step.training)
            columns = list(zip(predicted.unbind(1), labels.unbind(1), strict=True))
            error = torch.stack([losses.squared_error(x, y) for x, y in columns]).sum()
            found["affect"] = share * error + (1 - share) * torch.stack([losses.disagreement(x, y) for x, y in columns]).mean()
        if "expression" in self.out:
            found["expression"] = losses.cross_entropy(module["expression"](features), step.rows(self.shares[part]))
        return found

    def objectives(self) -> dict[str, str]:
        return {name: REGRESSION if name == "affect" else LIKELIHOOD for name in self.out}
