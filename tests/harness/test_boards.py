"""What is said below a table of a task, whatever sweep its rows are of."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from harness.boards import reconstructions_of
from harness.store import Store


def test_a_table_says_which_of_its_methods_are_reconstructions(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rebuilt, plain = (store.put({"baseline": baseline}) for baseline in ({"reconstruction": "after its abstract."}, {"name": "ridge"}))
    rows = [("e1", "b", rebuilt), ("e2", "a", rebuilt), ("e3", "ridge", plain), ("e4", "sent in", None), ("e5", "a", rebuilt)]
    records = pl.DataFrame(rows, schema=["evaluation", "arm", "provenance"], orient="row")
    assert reconstructions_of(records, store) == ["a, b: after its abstract."]
