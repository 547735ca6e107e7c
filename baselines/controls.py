"""What every method must beat: rules that look at the support's labels alone, and ridge regression on embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines import support as supports
from baselines.support import Support
from harness.baseline import Baseline, Data, Query
from harness.errors import RequestError
from harness.task import kind_of

if TYPE_CHECKING:
    from torch import Tensor, nn


class MeanLabel(Baseline):
    """The best constant.

    Valence and arousal: the mean label of the clip's support frames, or of the training samples where it has none. Intensities: the mean
    of the training samples. Expression: the frequencies in the training samples (the mean votes where there are any), so the most
    frequent one. Action units: always there, which is the constant with the best F1, unless the training samples never show one.
    """

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        n = query.test.samples.height
        predicted: dict[str, np.ndarray] = {}
        for target in query.targets:
            kind = kind_of(target)
            if kind == "expression":
                predicted[target] = np.tile(_frequencies(query.train.distributions(query.classes)), (n, 1))
            elif kind == "affect":
                support = supports.of(query, target)
                predicted[target] = support.mean(support.labels[target], default=_mean(query.train.labels(target)))
            elif kind == "intensity":
                predicted[target] = np.full(n, _mean(query.train.labels(target)))
            else:
                predicted[target] = np.full(n, float((query.train.labels(target) > 0).any()))
        return predicted


class LastLabel(Baseline):
    """The latest support label not after the frame; before the first one, that one."""

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        return _from_support(query, lambda support, labels: supports.at(labels, support.last()))


class Interpolation(Baseline):
    """Support labels interpolated linearly in time, constant beyond the first and the last. It looks into the future."""

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        return _from_support(query, Support.interpolated)


class Ridge(Baseline):
    """Ridge regression on standardised embeddings, fitted on the training samples.

    The penalty is the best of five in cross-validation by subject (by clip where a subject is not known). Expressions are
    regressed as indicators (or votes); what comes out is clipped and scaled to probabilities. Action units are regressed as 0 and 1,
    frames with and without the unit weighing the same, so that a half is the threshold. Where a clip has support frames, a second ridge,
    of its own and strongly penalised, is fitted to the errors on them and corrects valence and arousal of the clip.

    Args:
        backbone: Of the random features, used where the baseline has no stage; see :func:`baselines.backbones.build`.
        dim: Of the random features.
        seed: Of the random features.
        penalties: To choose from, per training sample.
        clip_penalty: Of the ridge on support errors; the larger, the more it only moves the clip as a whole.
    """

    def __init__(
        self,
        *,
        backbone: Mapping[str, Any] | None = None,
        dim: int = 256,
        seed: int = 0,
        penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0),
        clip_penalty: float = 64.0,
    ) -> None:
        self.backbone, self.dim, self.seed = backbone, dim, seed
        self.penalties, self.clip_penalty = tuple(penalties), clip_penalty
        self._network: nn.Module | None = None
        self._fitted: tuple[Data, tuple[Any, dict[str, Any]]] | None = None

    def encode(self, frames: Tensor) -> Tensor:
        if self.backbone is None:
            raise RequestError("ridge has neither a stage nor a backbone", where="baseline.backbone", remedy="give it one of the two")
        if self._network is None:
            import torch

            from baselines import backbones

            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                self._network = backbones.build(self.backbone, channels=frames.shape[1], dim=self.dim).eval().to(frames.device)
        embeddings: Tensor = self._network(frames)
        return embeddings

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        scaler, models = self._models(query)
        features = scaler.transform(query.embeddings.astype(np.float64))
        predicted: dict[str, np.ndarray] = {}
        for target in query.targets:
            raw, kind = models[target].predict(features), kind_of(target)
            if kind == "expression":
                positive = raw.clip(1e-6)
                predicted[target] = positive / positive.sum(axis=1, keepdims=True)
            elif kind == "affect":
                support = supports.of(query, target)
                error = support.labels[target] - raw[support.rows]
                predicted[target] = np.clip(raw + _clip_ridge(support, features, error, self.clip_penalty), -1, 1)
            else:
                predicted[target] = np.clip(raw, 0, 1 if kind == "occurrence" else 5)
        return predicted

    def _models(self, query: Query) -> tuple[Any, dict[str, Any]]:
        """The scaler and the models by target: the same for every setting of one split, so fitted once."""
        if self._fitted is None or self._fitted[0] is not query.train:
            from sklearn.preprocessing import StandardScaler

            scaler = StandardScaler()
            features = scaler.fit_transform(query.train_embeddings.astype(np.float64))
            samples = query.train.samples
            groups = samples["subject"].fill_null(samples["clip"]).rank("dense").to_numpy()
            models = {}
            for target in query.targets:
                kind = kind_of(target)
                given = query.train.distributions(query.classes) if kind == "expression" else query.train.labels(target)
                labels = given.astype(np.float64)
                known = np.isfinite(labels.reshape(len(labels), -1)).all(axis=1)
                weights = _balance(labels[known]) if kind == "occurrence" else None
                models[target] = _chosen(features[known], labels[known], groups[known], self.penalties, weights)
            self._fitted = query.train, (scaler, models)
        return self._fitted[1]


def _from_support(query: Query, rule: Any) -> dict[str, np.ndarray]:
    predicted = {}
    for target in query.targets:
        support = supports.of(query, target)
        supports.require(query, support)
        predicted[target] = rule(support, support.labels[target])
    return predicted


def _mean(labels: np.ndarray) -> float:
    """Of the labels there are; 0 without any."""
    known = labels[np.isfinite(labels)]
    return float(known.mean(dtype=np.float64)) if len(known) else 0.0


def _frequencies(shares: np.ndarray) -> np.ndarray:
    """``(classes,)``: the mean of the ``(n, classes)`` shares there are; all alike without any."""
    known = shares[np.isfinite(shares).all(axis=1)]
    return known.mean(axis=0, dtype=np.float64) if len(known) else np.full(shares.shape[1], 1 / shares.shape[1])


def _balance(labels: np.ndarray) -> np.ndarray:
    """``(n,)`` weights by which those labelled 0 and those labelled 1 weigh the same; alike where there is one kind only."""
    share = labels.mean() if len(labels) else 0.5
    return np.where(labels == 1, 0.5 / share, 0.5 / (1 - share)) if 0 < share < 1 else np.ones(len(labels))


def _chosen(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, penalties: tuple[float, ...], weights: np.ndarray | None) -> Any:
    """A fitted ridge regression, its penalty the best in cross-validation by group."""
    from sklearn.linear_model import Ridge as Regression
    from sklearn.model_selection import GroupKFold, cross_val_score

    if not len(labels):
        raise RequestError("no training sample is labelled", where="ridge", remedy="choose a task that its data are labelled for")
    models = [Regression(alpha=penalty * len(labels)) for penalty in penalties]
    splits = min(5, len(np.unique(groups)))
    if splits > 1:
        how = {"groups": groups, "cv": GroupKFold(splits), "scoring": "neg_mean_squared_error", "params": {"sample_weight": weights}}
        scores = [cross_val_score(model, features, labels, **how).mean() for model in models]
        models = [models[int(np.argmax(scores))]]
    return models[-1].fit(features, labels, sample_weight=weights)


def _clip_ridge(support: Support, features: np.ndarray, error: np.ndarray, penalty: float) -> np.ndarray:
    """``(n,)``: for every clip a ridge regression with intercept of its support frames' errors on their features; 0 without any.

    In its dual form, with one small system of equations a clip, solved for all clips at once.
    """
    n = len(features)
    if not len(error):
        return np.zeros(n)
    there = support.table != supports.NOWHERE
    rows = support.rows[support.table]
    count = np.maximum(there.sum(axis=1), 1)
    mean_error = np.where(there, error[support.table], 0).sum(axis=1) / count
    mean_features = np.where(there[:, :, None], features[rows], 0).sum(axis=1) / count[:, None]
    centred = np.where(there[:, :, None], features[rows] - mean_features[:, None], 0)
    left = np.where(there, error[support.table] - mean_error[:, None], 0)
    gram = centred @ centred.transpose(0, 2, 1) + penalty * np.eye(there.shape[1])
    slope = np.einsum("ckd,ck->cd", centred, np.linalg.solve(gram, left[:, :, None])[:, :, 0])
    moved: np.ndarray = mean_error[support.clip] + np.einsum("nd,nd->n", features - mean_features[support.clip], slope[support.clip])
    return moved
