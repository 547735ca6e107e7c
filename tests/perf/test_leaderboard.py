"""The budget of DESIGN 9: a leaderboard from 100,000 records."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from harness.leaderboard import leaderboard
from tests.perf.measuring import Measure


def records(n: int) -> pl.DataFrame:
    """Arms × five sizes × two selections × five folds × ten seeds."""
    row = np.arange(n)
    arm = row // 500
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "evaluation": row.astype(str),
            "arm": [f"arm {i}" for i in arm],
            "baseline": [f"arm {i}" for i in arm],
            "control": arm % 4 == 0,
            "support.size": (2 ** (row % 5)).astype(str),
            "support.selection": np.where(row // 5 % 2 == 0, "uniform", "random"),
            "fold": row // 10 % 5,
            "seed": row // 50 % 10,
            "score": rng.uniform(0, 1, n),
            "labels_used": 120 * 2 ** (row % 5),
            "n_samples": 6000,
            "n_clips": 120,
            "n_subjects": 48,
        }
    ).with_columns(
        **{name: pl.lit(name) for name in ("task", "protocol", "dataset", "data", "selection")},
        task_version=pl.lit(1),
        baseline_version=pl.lit(1),
        synthetic=pl.lit(True),
    )


def with_pandas(frame: Any) -> Any:
    """What one writes without: the mean score of every row and its standard error over seeds, sorted. No ranks, ties, gains or checks."""
    key = ["arm", "support.size", "support.selection"]
    seeds = frame.groupby([*key, "seed"])["score"].mean().reset_index()
    return seeds.groupby(key)["score"].agg(["mean", "sem", "count"]).sort_values("mean", ascending=False)


def test_ranking_a_hundred_thousand_records(measure: Measure) -> None:
    count = measure.sized(100_000, 20_000, 2_000)
    frame = records(count)
    settings = ("support.size", "support.selection")
    table = measure(
        lambda: leaderboard(frame, primary="ccc", settings=settings, within=settings),
        rounds=3,
        instead={"means by pandas": lambda: with_pandas(frame.to_pandas())},
        rates={"records": count},
    )
    assert table.height == count // 50
    assert table["n_records"].unique().to_list() == [50]
