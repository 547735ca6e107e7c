"""Composing a config, and planning a sweep of 100,000 evaluations, data at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness import plan, snapshot
from harness.config import compose
from harness.plan import Plan, Sweep
from harness.store import RECORD, Store
from tests.conftest import PLUGIN
from tests.perf.measuring import Measure

ARMS = {f"width {width}": ["baseline=toy", f"baseline.stages.brightness.width={width}"] for width in (2, 3, 4, 5, 6)}


@pytest.fixture
def planned(measure: Measure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Plan]:
    """Plans 2 folds × 10 seeds × 5 sizes × so many draws for five arms that differ in their training: 100 fits."""
    monkeypatch.syspath_prepend(PLUGIN)
    axes: dict[str, list[Any]] = {
        "fold": [0, 1],
        "seed": list(range(10)),
        "evaluate.support.size": [1, 2, 3, 4, 5],
        "evaluate.support.selection": ["random"],
        "evaluate.support.draw": list(range(measure.sized(200, 40, 2))),
    }
    sweep = Sweep("large", "", ARMS, axes, ["task=toy"])

    def build() -> Plan:
        return plan.build(sweep, extra=[PLUGIN / "configs"], snapshot_of=lambda node, _: snapshot.take(node, tmp_path))

    return build


def test_composing_ten_configs(measure: Measure) -> None:
    epochs = range(1, 11)
    composed = measure(
        lambda: [compose(["task=bp4d", "baseline=clef", "weighting=mgda", f"trainer.epochs={n}"]) for n in epochs], rounds=10
    )
    assert [config["trainer"]["epochs"] for config in composed] == [*epochs]


def test_plan_of_100_000_evaluations(measure: Measure, planned: Callable[[], Plan]) -> None:
    evaluations = measure.sized(100_000, 20_000, 1_000)
    made = measure(planned, rates={"evaluations": evaluations})
    assert (made.rows.height, len(made.jobs)) == (evaluations, 100)


def test_what_is_pending_of_100_000_evaluations_where_half_is_done(measure: Measure, planned: Callable[[], Plan], tmp_path: Path) -> None:
    made, store = planned(), Store(tmp_path / "store")
    half = made.rows["evaluation"].head(made.rows.height // 2).to_list()
    packs = store.root / "records"
    packs.mkdir(parents=True)
    _packed(half).write_parquet(packs / "000001-half.records.parquet")
    pl.DataFrame({"evaluation": half}).write_parquet(packs / "000001-half.units.parquet")  # a pack without its sums is no pack
    pending = measure(lambda: made.pending(store))
    assert pending.height == made.rows.height // 2


def _packed(evaluations: list[str]) -> pl.DataFrame:
    """Records of which only the name is known."""
    names = pl.DataFrame({"evaluation": evaluations})
    return names.select(pl.col(name) if name in names.columns else pl.lit(None, dtype).alias(name) for name, dtype in RECORD.items())
