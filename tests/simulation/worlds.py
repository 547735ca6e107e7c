"""Synthetic experiments whose truth is known: frames in clips in subjects in folds, as benchmarks of faces have them.

Labels and errors have a part that is the subject's, one that is the clip's, and one that drifts from frame to frame (AR(1)). Clips are of
15 to 120 frames, subjects have one to four of them, and some subjects are harder than others for every method.

Three methods predict the same frames:

* ``a`` and ``b`` err by one law, with half of the variance of their errors in common: whichever metric, their true difference is 0, and
  the two may be swapped within a subject (the *sharp* null).
* ``c`` errs by another law (little of its error is the subject's, and all subjects are as hard), by as much as gives it the same expected
  score as ``a``: the true difference is 0, too, yet nothing may be swapped (the *weak* null). As much differs by metric, so there is one
  ``c`` a metric (:func:`calibrate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.signal import lfilter

CLASSES = ("neutral", "happy", "sad", "surprise")
AUS = ("au1", "au4", "au12", "au15")
TARGETS = ("valence", "arousal", "expression", *AUS)
METRICS = ("ccc", "rmse", "sagr", "f1_expression", "f1_au", "p_mtl")
_CHANNELS = 2 + len(CLASSES) + len(AUS)
_RARE = np.array([0.6, 0.3, 0.0, -0.2])  # how much likelier a class is than the third
_THRESHOLDS = np.array([0.4, 0.6, 0.2, 0.8])
_LABEL = (0.5, 0.4, 0.77)  # weights of subject, clip and frame: variance 1
_ERROR = {"a": (0.6, 0.4, 0.7), "b": (0.6, 0.4, 0.7), "c": (0.2, 0.3, 0.93)}
_STEP = {"label": 0.95, "error": 0.9}  # AR(1)

Array = np.ndarray


@dataclass(frozen=True)
class Design:
    """``folds`` test folds with ``subjects`` subjects each."""

    folds: int
    subjects: int

    @property
    def name(self) -> str:
        return f"{self.subjects} subjects" if self.folds == 1 else f"{self.folds} folds of {self.subjects} subjects"


@dataclass(frozen=True)
class World:
    """One experiment: whose each frame is, ``(frames,)``; its latent label, and the errors of the methods, ``(frames, channels)``."""

    fold: Array
    subject: Array
    clip: Array
    label: Array
    errors: Mapping[str, Array]

    def predictions(self, method: str, scale: float = 1.0) -> pl.DataFrame:
        """Labels and what a method says of them: the columns that ``harness.metrics.units`` reads."""
        columns: dict[str, Array | list[str]] = {"fold": self.fold, "subject": self.subject, "clip": self.clip}
        found, error = self.label, scale * self.errors[method]
        affect, kinds, units = slice(0, 2), slice(2, 2 + len(CLASSES)), slice(2 + len(CLASSES), None)
        truth = np.clip(0.4 * found[:, affect], -1, 1)
        guess = np.clip(0.8 * truth + 0.25 * error[:, affect], -1, 1)
        names = np.array(CLASSES)
        columns |= {"valence": truth[:, 0], "valence_pred": guess[:, 0], "arousal": truth[:, 1], "arousal_pred": guess[:, 1]}
        columns |= {"expression": names[(found[:, kinds] + _RARE).argmax(1)]}
        columns |= {"expression_pred": names[(found[:, kinds] + _RARE + 0.8 * error[:, kinds]).argmax(1)]}
        for place, au in enumerate(AUS):
            above = found[:, units][:, place] - _THRESHOLDS[place]
            columns |= {au: (above > 0).astype(float), f"{au}_pred": 1 / (1 + np.exp(-3 * (above + 0.7 * error[:, units][:, place])))}
        return pl.DataFrame(columns)


def world(design: Design, seed: int | Sequence[int]) -> World:
    """Draw one experiment."""
    rng = np.random.default_rng(seed)
    subjects = design.folds * design.subjects
    owner = np.repeat(np.arange(subjects), rng.integers(1, 5, subjects))  # of each clip
    length = np.clip(np.exp(rng.normal(3.8, 0.6, len(owner))), 15, 120).astype(int)
    there = np.arange(length.max()) < length[:, None]
    clip = np.nonzero(there)[0]
    subject = owner[clip]
    hard = np.exp(rng.normal(0, 0.35, subjects))[subject][:, None]

    def parts(step: float) -> tuple[Array, Array, Array]:
        """Standard normal parts of subject, clip and frame, ``(frames, channels)`` each."""
        shocks = rng.standard_normal((len(owner), length.max(), _CHANNELS))
        shocks[:, 1:] *= np.sqrt(1 - step**2)
        drift = lfilter([1.0], [1.0, -step], shocks, axis=1)[there]
        return rng.standard_normal((subjects, _CHANNELS))[subject], rng.standard_normal((len(owner), _CHANNELS))[clip], drift

    def weighed(weights: Sequence[float], what: Sequence[Array]) -> Array:
        total: Array = sum(weight * part for weight, part in zip(weights, what, strict=True))  # type: ignore[assignment]
        return total

    label = weighed(_LABEL, parts(_STEP["label"]))
    common, own = parts(_STEP["error"]), {method: parts(_STEP["error"]) for method in _ERROR}
    mixed = {method: [np.sqrt(0.5) * (x + y) for x, y in zip(common, own[method], strict=True)] for method in _ERROR}
    errors = {method: weighed(_ERROR[method], mixed[method]) * (hard if method != "c" else 1) for method in _ERROR}
    return World(subject // design.subjects, subject.astype(str), clip.astype(str), label, errors)


def scores(predictions: pl.DataFrame) -> dict[str, float]:
    """The metrics by their definitions, frame by frame and without ``harness``: the mean over folds."""
    folds = [_scores(part) for part in predictions.partition_by("fold")]
    return {metric: float(np.mean([fold[metric] for fold in folds])) for metric in METRICS}


def _scores(part: pl.DataFrame) -> dict[str, float]:
    found: dict[str, list[float]] = {"ccc": [], "rmse": [], "sagr": []}
    for target in ("valence", "arousal"):
        y, p = part[target].to_numpy(), part[f"{target}_pred"].to_numpy()
        covariance = np.mean((y - y.mean()) * (p - p.mean()))
        found["ccc"].append(2 * covariance / (y.var() + p.var() + (y.mean() - p.mean()) ** 2))
        found["rmse"].append(np.sqrt(np.mean((y - p) ** 2)))
        found["sagr"].append(np.mean(np.sign(y) == np.sign(p)))
    true, said = part["expression"].to_numpy(), part["expression_pred"].to_numpy()
    found["f1_expression"] = [_f1(true == name, said == name) for name in CLASSES if (true == name).any()]
    found["f1_au"] = [_f1(part[au].to_numpy() > 0, part[f"{au}_pred"].to_numpy() >= 0.5) for au in AUS]
    means = {metric: float(np.nanmean(each)) for metric, each in found.items()}
    return means | {"p_mtl": means["ccc"] + means["f1_expression"] + means["f1_au"]}


def _f1(true: Array, said: Array) -> float:
    either = true.sum() + said.sum()
    return float(2 * (true & said).sum() / either) if either else float("nan")


def calibrate(design: Design, experiments: int = 400) -> dict[str, float]:
    """Metric → how large the errors of ``c`` have to be for the expected score of ``a``, by bisection over the same experiments."""
    worlds = [world(design, [7, seed]) for seed in range(experiments)]
    wanted = _means([scores(each.predictions("a")) for each in worlds])
    grid = np.linspace(0.7, 1.5, 9)
    curve = [_means([scores(each.predictions("c", scale)) for each in worlds]) for scale in grid]
    found = {}
    for metric in METRICS:
        values = np.array([point[metric] for point in curve])
        rising = np.argsort(values)
        found[metric] = float(np.interp(wanted[metric], values[rising], grid[rising]))
    return found


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {metric: float(np.mean([one[metric] for one in found])) for metric in METRICS}
