"""What is said below a table of a task, whatever sweep its rows are of."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from harness import boards, evaluation, plan, sweep
from harness.boards import reconstructions_of
from harness.store import Store
from tests.conftest import PLUGIN


def test_a_table_says_which_of_its_methods_are_reconstructions(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rebuilt, plain = (store.put({"baseline": baseline}) for baseline in ({"reconstruction": "after its abstract."}, {"name": "ridge"}))
    rows = [("e1", "b", rebuilt), ("e2", "a", rebuilt), ("e3", "ridge", plain), ("e4", "sent in", None), ("e5", "a", rebuilt)]
    records = pl.DataFrame(rows, schema=["evaluation", "arm", "provenance"], orient="row")
    assert reconstructions_of(records, store) == ["a, b: after its abstract."]


def test_a_kept_table_that_was_changed_is_not_shown_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = [PLUGIN / "configs"]
    asked = plan.load_sweep(
        "toy", ["arms=mean_label", "fold=0", "evaluate.support.size=1,2", "tracker=none", f"output_dir={tmp_path}"], extra
    )
    prepared = sweep.prepare(asked, command="harness sweep toy", extra=extra)
    for job in prepared.plan.jobs.values():
        evaluation.run(job, prepared.store)
    (first,) = boards.gather(prepared)
    path = tmp_path / "sweeps" / "toy" / "table.parquet"
    written = path.read_bytes()
    data = bytearray(written)
    data[data.index(b"mean_label")] ^= 1
    path.write_bytes(data)
    (again,) = boards.gather(prepared)
    assert again.board.table.equals(first.board.table)
    assert path.read_bytes() == written
    monkeypatch.setattr(boards, "rank", lambda *_, **__: pytest.fail("computed again"))
    (kept,) = boards.gather(prepared)
    assert kept.board.table.equals(first.board.table)
