"""Scores and their intervals: 10,000 clustered draws, 600 clips, 30,000 frames, 8 metrics; against what one would write without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness import metrics, statistics
from tests.perf.measuring import Instead, Measure

TARGETS = ("valence", "arousal")
METRICS = [f"{kind}_{target}" for kind in ("ccc", "pcc", "rmse", "sagr") for target in TARGETS]
FRAMES = 50
"""Of a clip; two and a half clips a subject."""
BY = ("evaluation", "fold", "subject", "clip")


@pytest.fixture
def predictions(measure: Measure) -> pl.DataFrame:
    clips = measure.sized(600, 600, 60)
    rng = np.random.default_rng(0)
    subjects, n = clips * 2 // 5, clips * FRAMES
    subject = np.repeat(np.sort(rng.integers(0, subjects, clips)), FRAMES)
    columns: dict[str, Any] = {"evaluation": ["a"] * n, "fold": 0, "clip": np.repeat(np.arange(clips), FRAMES), "subject": subject}
    for target in TARGETS:
        label = np.clip(0.3 * rng.standard_normal(subjects)[subject] + 0.3 * rng.standard_normal(n), -1, 1)
        columns |= {target: label, f"{target}_pred": 0.7 * label + 0.2 * rng.standard_normal(n)}
    return pl.DataFrame(columns)


def resample_rows(predictions: pl.DataFrame, draws: int) -> Callable[[], None]:
    """What one writes without units: draw subjects, gather their frames, compute each metric, again and again."""
    rows = [group["row"].to_numpy() for group in predictions.with_row_index("row").partition_by("subject")]
    columns = [predictions[name].to_numpy() for target in TARGETS for name in (target, f"{target}_pred")]

    def resample() -> None:
        rng = np.random.default_rng(0)
        for _ in range(draws):
            taken = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows) - 1)])
            for y, p in ((columns[0][taken], columns[1][taken]), (columns[2][taken], columns[3][taken])):
                covariance = np.mean((y - y.mean()) * (p - p.mean()))
                _ = 2 * covariance / (y.var() + p.var() + (y.mean() - p.mean()) ** 2), covariance / (y.std() * p.std())
                _ = np.sqrt(np.mean((y - p) ** 2)), np.mean(np.sign(y) == np.sign(p))

    return resample


def torchmetrics_bootstrap(predictions: pl.DataFrame, draws: int) -> Callable[[], None]:
    """``torchmetrics.BootStrapper`` for three of the four metrics; it draws frames, not subjects, and keeps a copy of the metric a draw."""

    def resample() -> None:
        import torch  # not at the top: it takes longer to import than what is measured here
        from torchmetrics import MeanSquaredError
        from torchmetrics.regression import ConcordanceCorrCoef, PearsonCorrCoef
        from torchmetrics.wrappers import BootStrapper

        pairs = [tuple(torch.from_numpy(predictions[name].to_numpy()) for name in (f"{target}_pred", target)) for target in TARGETS]
        for predicted, label in pairs:
            for metric in (ConcordanceCorrCoef(), PearsonCorrCoef(), MeanSquaredError(squared=False)):
                sampler = BootStrapper(metric, num_bootstraps=draws, quantile=torch.tensor([0.025, 0.975]))
                sampler.update(predicted, label)
                sampler.compute()

    return resample


def test_intervals_of_eight_metrics_from_predictions(measure: Measure, predictions: pl.DataFrame) -> None:
    """Everything: units, draws, matrix products."""
    draws, few = measure.sized(10_000, 10_000, 100), measure.sized(20, 2, 2)

    def intervals() -> dict[str, statistics.Interval]:
        statistics.bootstrap.cache_clear()
        panel = statistics.Panel(metrics.units(predictions, targets=TARGETS, by=BY), draws=draws)
        return panel.intervals(["a"], METRICS)

    instead = {
        "row resampling": Instead(resample_rows(predictions, few), few / draws),
        "torchmetrics.BootStrapper, 6 of 8 metrics": Instead(torchmetrics_bootstrap(predictions, few), few / draws),
    }
    assert len(measure(intervals, instead=instead, rates={"draws": draws})) == 8


def test_intervals_of_a_further_row_of_the_table(measure: Measure, predictions: pl.DataFrame) -> None:
    """The units are in the store and the draws are shared by all rows."""
    draws, few = measure.sized(10_000, 10_000, 100), measure.sized(20, 2, 2)
    units = metrics.units(predictions, targets=TARGETS, by=BY)
    instead = {"row resampling": Instead(resample_rows(predictions, few), few / draws)}
    assert len(measure(lambda: statistics.Panel(units, draws=draws).intervals(["a"], METRICS), instead=instead)) == 8


def test_scores_of_predictions(measure: Measure, predictions: pl.DataFrame) -> None:
    """Sums by subject and clip, and eight metrics of them; pandas by clip and the mean of clips takes as many passes as metrics."""

    def with_pandas() -> None:
        as_pandas = predictions.to_pandas()
        groups = as_pandas.groupby(["subject", "clip"])
        for target in TARGETS:
            for metric in (_ccc, _pcc, _rmse, _sagr):
                groups[[target, f"{target}_pred"]].apply(lambda rows, metric=metric: metric(rows.to_numpy())).mean()

    scores = measure(
        lambda: metrics.metrics(metrics.units(predictions, targets=TARGETS)),
        rounds=10,
        instead={"pandas by clip": with_pandas},
        rates={"frames": predictions.height},
    )
    assert {*METRICS} <= {*scores}


def _ccc(rows: np.ndarray) -> float:
    (y, p), covariance = rows.T, np.cov(rows.T, ddof=0)
    return float(2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + (y.mean() - p.mean()) ** 2))


def _pcc(rows: np.ndarray) -> float:
    return float(np.corrcoef(rows.T)[0, 1])


def _rmse(rows: np.ndarray) -> float:
    return float(np.sqrt(np.mean((rows[:, 0] - rows[:, 1]) ** 2)))


def _sagr(rows: np.ndarray) -> float:
    return float(np.mean(np.sign(rows[:, 0]) == np.sign(rows[:, 1])))
