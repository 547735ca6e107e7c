"""Planning a sweep of 100,000 evaluations, data at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness import plan, snapshot
from harness.plan import Plan, Sweep
from harness.store import RECORD, Store
from tests.conftest import PLUGIN

# 2 folds × 10 seeds × 5 sizes × 200 draws for five arms that differ in their training
AXES: dict[str, list[Any]] = {
    "fold": [0, 1],
    "seed": list(range(10)),
    "evaluate.support.size": [1, 2, 3, 4, 5],
    "evaluate.support.selection": ["random"],
    "evaluate.support.draw": list(range(200)),
}
ARMS = {f"width {width}": ["baseline=toy", f"baseline.stages.brightness.width={width}"] for width in (2, 3, 4, 5, 6)}
EVALUATIONS, FITS = 100_000, 100


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.syspath_prepend(PLUGIN)
    return Sweep("large", "", ARMS, AXES, ["task=toy"])


@pytest.fixture
def planned(sweep: Sweep, tmp_path: Path) -> Any:
    def build() -> Plan:
        return plan.build(sweep, extra=[PLUGIN / "configs"], snapshot_of=lambda node, _: snapshot.take(node, tmp_path))

    return build


def test_plan_of_100_000_evaluations(benchmark: Any, planned: Any) -> None:
    planned()  # writes the data, imports what is needed
    made = benchmark.pedantic(planned, rounds=5, iterations=1)
    assert (made.rows.height, len(made.jobs)) == (EVALUATIONS, FITS)


def test_what_is_pending_of_100_000_evaluations_where_half_is_done(benchmark: Any, planned: Any, tmp_path: Path) -> None:
    made, store = planned(), Store(tmp_path / "store")
    half = made.rows["evaluation"].head(EVALUATIONS // 2).to_list()
    packs = store.root / "records"
    packs.mkdir(parents=True)
    _packed(half).write_parquet(packs / "000001-half.records.parquet")
    pending = benchmark.pedantic(lambda: made.pending(store), rounds=5, iterations=1)
    assert pending.height == EVALUATIONS // 2


def _packed(evaluations: list[str]) -> pl.DataFrame:
    """Records of which only the name is known."""
    names = pl.DataFrame({"evaluation": evaluations})
    return names.select(pl.col(name) if name in names.columns else pl.lit(None, dtype).alias(name) for name, dtype in RECORD.items())
