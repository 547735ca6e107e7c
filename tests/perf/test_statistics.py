"""The budget of DESIGN 9: 10,000 clustered draws, 600 clips, 30,000 frames, 8 metrics; against row resampling."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness import metrics, statistics

TARGETS = ("valence", "arousal")
METRICS = [f"{kind}_{target}" for kind in ("ccc", "pcc", "rmse", "sagr") for target in TARGETS]
DRAWS = 10_000


@pytest.fixture(scope="module")
def predictions() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    subject = np.repeat(np.sort(rng.integers(0, 240, 600)), 50)
    columns: dict[str, Any] = {"evaluation": ["a"] * 30_000, "fold": 0, "clip": np.repeat(np.arange(600), 50), "subject": subject}
    for target in TARGETS:
        label = np.clip(0.3 * rng.standard_normal(240)[subject] + 0.3 * rng.standard_normal(30_000), -1, 1)
        columns |= {target: label, f"{target}_pred": 0.7 * label + 0.2 * rng.standard_normal(30_000)}
    return pl.DataFrame(columns)


def resample_rows(predictions: pl.DataFrame, draws: int) -> None:
    """What one writes without units: draw subjects, gather their frames, compute each metric, again and again."""
    rng = np.random.default_rng(0)
    rows = [group["row"].to_numpy() for group in predictions.with_row_index("row").partition_by("subject")]
    columns = [predictions[name].to_numpy() for target in TARGETS for name in (target, f"{target}_pred")]
    for _ in range(draws):
        taken = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows) - 1)])
        for y, p in ((columns[0][taken], columns[1][taken]), (columns[2][taken], columns[3][taken])):
            covariance = np.mean((y - y.mean()) * (p - p.mean()))
            _ = 2 * covariance / (y.var() + p.var() + (y.mean() - p.mean()) ** 2), covariance / (y.std() * p.std())
            _ = np.sqrt(np.mean((y - p) ** 2)), np.mean(np.sign(y) == np.sign(p))


def row_seconds(predictions: pl.DataFrame, few: int = 20) -> float:
    """What all the draws would take row by row, from a few of them."""
    start = time.perf_counter()
    resample_rows(predictions, few)
    return (time.perf_counter() - start) * DRAWS / few


BY = ("evaluation", "fold", "subject", "clip")


def test_intervals_of_eight_metrics_from_predictions(benchmark: Any, predictions: pl.DataFrame) -> None:
    """Everything: units, draws, matrix products."""

    def intervals() -> dict[str, statistics.Interval]:
        statistics.bootstrap.cache_clear()
        panel = statistics.Panel(metrics.units(predictions, targets=TARGETS, by=BY), draws=DRAWS)
        return panel.intervals(["a"], METRICS)

    assert len(benchmark.pedantic(intervals, rounds=5, warmup_rounds=1)) == 8
    if benchmark.enabled:
        benchmark.extra_info["row_resampling_over_this"] = row_seconds(predictions) / benchmark.stats.stats.median


def test_intervals_of_a_further_row_of_the_table(benchmark: Any, predictions: pl.DataFrame) -> None:
    """The units are in the store and the draws are shared by all rows."""
    units = metrics.units(predictions, targets=TARGETS, by=BY)

    def intervals() -> dict[str, statistics.Interval]:
        return statistics.Panel(units, draws=DRAWS).intervals(["a"], METRICS)

    assert len(benchmark.pedantic(intervals, rounds=5, warmup_rounds=1)) == 8
    if benchmark.enabled:
        benchmark.extra_info["row_resampling_over_this"] = row_seconds(predictions) / benchmark.stats.stats.median
