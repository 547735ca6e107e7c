from __future__ import annotations

import re

import polars as pl
import pytest

from harness.errors import RequestError
from harness.publish.curve import label_efficiency


def board(names: tuple[str, ...] = ("mt_clar", "last_label"), selections: tuple[str | None, ...] = ("uniform",)) -> pl.DataFrame:
    rows = [
        {"arm": name, "support.selection": selection, "control": name == "last_label", "score": 0.1 * n**0.5, "lo": 0.08 * n**0.5}
        | {"hi": 0.12 * n**0.5, "labels_per_clip": float(n), "labelled": n / 50}
        for name in names
        for selection in selections
        for n in (0, 1, 2, 8)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def texts(svg: bytes) -> list[str]:
    """What is written in a figure; its letters are outlines, its words stand in comments beside them."""
    return re.findall(r"<!-- (.*?) -->", svg.decode())


def test_a_curve_has_its_methods_budgets_and_title_in_both_formats() -> None:
    drawn = label_efficiency(board(selections=("uniform", "random")), title="Labels", score="CCC", reference=0.2, note="synthetic")
    words = " ".join(texts(drawn["svg"]))
    for word in ("Labels", "CCC", "mt_clar", "last_label", "selection: uniform", "selection: random", "16 %", "synthetic"):
        assert word in words
    assert drawn["png"].startswith(b"\x89PNG")


def test_the_same_table_gives_the_same_bytes() -> None:
    first, second = (label_efficiency(board(), title="T") for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first["svg"]


def test_a_name_is_shown_as_it_is() -> None:
    drawn = label_efficiency(board(names=("$x_1$ --><script>1</script>",)), title="a $ b")
    assert b"<script>" not in drawn["svg"]


def test_a_table_without_labels_has_no_curve() -> None:
    with pytest.raises(RequestError, match="no row of the table has labels"):
        label_efficiency(board().filter(pl.col("labels_per_clip") == 0), title="T")


def test_missing_intervals_and_a_selection_that_is_none_are_drawn_all_the_same() -> None:
    table = board(selections=(None,)).with_columns(pl.lit(None, pl.Float64).alias("lo"), pl.lit(None, pl.Float64).alias("hi"))
    assert b"<svg" in label_efficiency(table, title="T")["svg"]
    assert b"<svg" in label_efficiency(table.filter(pl.col("labels_per_clip") == 2), title="T")["svg"]
