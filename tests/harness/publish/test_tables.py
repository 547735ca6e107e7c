from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from typing import Any

import polars as pl
import pytest

from harness.errors import RequestError
from harness.publish.tables import legend, number, p_value, readable, render, render_rows, with_interval

ROWS: list[dict[str, Any]] = [
    {"name": "a very long name that nobody may cut off, " * 5, "score": 0.61249, "n": 3, "ok": True, "none": None},
    {"name": "b|<b>*x*</b>\n\x1b[31m", "score": float("nan"), "n": 12, "ok": False, "none": None},
]


def board(**change: Any) -> pl.DataFrame:
    """Two rows as `leaderboard` returns them."""
    shared = {"support.size": "4", "anchor": None, "baseline": "x", "baseline_version": 1, "selection": "last", "se_fold": 0.0123}
    shared |= {"se_seed": None, "n_records": 6, "n_fold": 2, "n_subjects": 18, "n_clips": 36, "labels_per_clip": 4.0, "labelled": 0.1}
    method = {"rank": 1, "tie": None, "arm": "mt_clar"} | shared
    method |= {"control": False, "score": 0.6123, "lo": 0.5512, "hi": 0.661, "pooled": 0.625, "best_control": "last_label", "note": ""}
    method |= {"gain": 0.042, "gain_lo": -0.011, "gain_hi": 0.094, "gain_p": 0.0004} | change
    control = {"rank": 2, "tie": True, "arm": "last_label"} | shared
    control |= {"control": True, "score": 0.57, "lo": 0.5, "hi": 0.6, "pooled": None, "best_control": None, "note": ""}
    control |= {"gain": None, "gain_lo": None, "gain_hi": None, "gain_p": None}
    names = ["rank", "tie", "arm", "support.size", "anchor", "baseline"]
    return pl.DataFrame([method, control], infer_schema_length=None).select(*names, pl.exclude(names))


def test_a_plain_table_is_aligned_and_cuts_nothing_off() -> None:
    text = render_rows(ROWS, "table", title="Title", notes=["A note."])
    lines = text.splitlines()
    assert lines[0] == "Title"
    assert lines[-1] == "A note."
    assert lines[3].startswith(ROWS[0]["name"].rstrip())
    assert [line.index("0.612" if "0.612" in line else "–") for line in lines[3:5]] == [len(ROWS[0]["name"]) + 2, len(ROWS[0]["name"]) + 6]
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [40, 100, 400])
def test_a_terminal_of_any_width_shows_every_word_and_obeys_no_control_character(width: int) -> None:
    text = render_rows(ROWS, "table", title="T", notes=["[red]note[/red]"], width=width)
    assert "\x1b[31m" not in text
    assert "[red]note[/red]" in text
    assert "…" not in text
    assert text.count("nobody") == 5
    assert "0.612" in text


def test_markdown_shows_what_a_cell_holds_and_obeys_none_of_it() -> None:
    text = render_rows(ROWS, "markdown", title="T")
    row = text.splitlines()[-1]
    assert row.startswith(r"| b\|&lt;b&gt;\*x\*&lt;/b&gt; ")
    assert text.splitlines()[3] == "|---|---:|---:|---|---|"


def test_csv_and_json_keep_every_digit_and_read_back() -> None:
    back = list(csv.DictReader(io.StringIO(render_rows(ROWS, "csv"))))
    assert (back[0]["score"], back[0]["n"], back[1]["name"]) == ("0.61249", "3", ROWS[1]["name"])
    parsed = json.loads(render_rows(ROWS, "json"))
    assert parsed[0] == ROWS[0]
    assert parsed[1]["score"] is None  # JSON has no nan


def test_a_frame_is_written_as_parquet_and_latex() -> None:
    frame = board()
    data = render(frame, "parquet")
    assert isinstance(data, bytes)
    assert pl.read_parquet(io.BytesIO(data)).equals(frame)
    latex = render(pl.DataFrame({"a_b": ["50 % & \\x{$"], "v": [0.5]}), "latex", title="A_b", notes=["# note"])
    assert isinstance(latex, str)
    assert r"a\_b & v" in latex
    assert r"50 \% \& \textbackslash{}x\{\$ & 0.500" in latex
    assert r"\toprule" in latex


@pytest.mark.parametrize("format", ["table", "markdown", "csv", "json"])
def test_no_rows_are_no_error(format: str) -> None:
    assert isinstance(render_rows([], format), str)


def test_an_unknown_format_is_answered_with_the_right_one() -> None:
    with pytest.raises(RequestError, match="did you mean 'markdown'"):
        render_rows(ROWS, "markdwon")


def test_numbers_are_short_and_honest() -> None:
    assert [number(v) for v in (0.61249, 12345.6, 0.0, 4.0, 2e-5, float("nan"), float("inf"))] == [
        "0.612",
        "12346",
        "0",
        "4",
        "2e-05",
        "–",
        "inf",
    ]
    assert with_interval(0.6123, 0.5512, 0.661) == "0.612 [0.55, 0.66]"
    assert with_interval(0.042, -0.011, 0.094, sign=True) == "+0.042 [-0.01, +0.09]"
    assert (with_interval(0.5, None, None), with_interval(None, None, None)) == ("0.500", "–")
    assert (p_value(0.0004), p_value(0.031), p_value(None)) == ("<0.001", "0.031", "")


def test_a_leaderboard_is_read_with_its_intervals_and_without_columns_that_say_nothing() -> None:
    told = readable(board())
    assert told.columns == ["#", "method", "score", "pooled", "± fold", "gain", "over", "p", "note"]
    assert told.row(0, named=True) | {
        "#": "1",
        "score": "0.612 [0.55, 0.66]",
        "pooled": "0.625",
        "gain": "+0.042 [-0.01, +0.09]",
    } == told.row(0, named=True)
    assert told.row(1, named=True) | {"#": "2 =", "note": "control", "gain": "", "p": ""} == told.row(1, named=True)
    assert any(line.startswith("pooled:") for line in legend(board(), primary="ccc"))
    assert "pooled" not in readable(board(pooled=None)).columns
    assert any("size 4" in line and "selected last" in line for line in legend(board(), primary="ccc"))


def test_what_is_not_ranked_says_why() -> None:
    told = readable(board(rank=None, note="selected on the test set", selection="test (oracle)")).row(0, named=True)
    assert (told["#"], told["note"], told["selected"]) == ("", "selected on the test set", "test (oracle)")


def test_light_verbs_import_neither_polars_nor_rich() -> None:
    code = (
        "import sys; from harness.publish.tables import render_rows; render_rows([{'a': 1}], 'table'); "
        "print([m for m in ('polars', 'rich', 'numpy', 'torch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
