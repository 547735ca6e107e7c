"""The samples frame and its checks, and what a reader tells beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness import samples
from harness.errors import RequestError
from harness.samples import LANDMARKS, PROBLEMS, SCHEMA, Problems, as_landmarks, check, conform

SOME = conform(pl.DataFrame({"sample": ["a", "b", "c"], "clip": ["x", "x", "y"], "frame": [0, 1, 0], "subject": ["p", "p", None]}))


def with_values(column: str, values: Sequence[Any]) -> pl.DataFrame:
    return conform(SOME.with_columns(pl.Series(column, values, dtype=SCHEMA.get(column, pl.Float32))))


# ── conform ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_any_frame_becomes_one_of_the_schema_with_families_behind_in_the_order_of_numbers_and_expressions() -> None:
    rows = pl.DataFrame(
        {"votes_sad": [1], "au12_intensity": [5], "au12": [1], "au2": [0], "clip": ["x"], "votes_happy": [9], "sample": ["a"]}
    )
    frame = conform(rows)
    assert frame.columns == [*SCHEMA, "au2", "au12", "au12_intensity", "votes_happy", "votes_sad"]
    assert {name: dtype for name, dtype in frame.schema.items() if name in SCHEMA} == SCHEMA
    assert set(frame.select("au2", "au12", "au12_intensity", "votes_happy", "votes_sad").dtypes) == {pl.Float32}
    assert frame.select("sample", "clip", "au12", "votes_happy").row(0) == ("a", "x", 1, 9)
    assert frame.select("image", "expression", "landmarks").row(0) == (None, None, None)
    assert check(frame) is frame


def test_columns_that_are_none_are_refused_by_name() -> None:
    with pytest.raises(RequestError, match=r"unknown sample columns \['au', 'au12_left', 'votes_joy'\]; the columns are sample, image"):
        conform(pl.DataFrame({"sample": ["a"], "au": [1], "au12_left": [1], "votes_joy": [1]}))


@pytest.mark.parametrize(("column", "value"), [("expression", "joy"), ("frame", 2**40), ("valence", "high"), ("au1", "yes")])
def test_a_value_that_does_not_fit_its_column_is_refused_in_one_line(column: str, value: Any) -> None:
    with pytest.raises(RequestError, match="samples do not fit their schema") as refused:
        conform(pl.DataFrame({"sample": ["a"], "clip": ["a"], column: [value]}))
    assert len(str(refused.value).splitlines()) == 1


# ── check ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("valence", [-1.0, 1.0, None]),
        ("au1", [0, 1, None]),
        ("au1_intensity", [0, 5, 2.5]),
        ("votes_unknown", [0, 10, None]),
        ("frame", [7, 3, 7]),
        ("frame", [None, None, None]),
        ("box", [[-5, -5, 10, 10], None, None]),
        ("landmarks", [[[0, 0]] * 68, None, None]),
    ],
)
def test_what_is_right_passes(column: str, values: list[Any]) -> None:
    frame = with_values(column, values)
    assert check(frame) is frame


@pytest.mark.parametrize(
    ("column", "values", "fault", "first"),
    [
        ("sample", ["a", None, "c"], "a sample without a name", "None"),
        ("sample", ["a", "b", "b"], "a sample that stands twice", "'b' and 1 more"),
        ("clip", ["x", "x", None], "a sample without a clip", "'c'"),
        ("frame", [1, 1, 1], "two frames of one clip with the same number", "'a' and 1 more"),
        ("subject", ["p", "q", None], "a clip with two subjects", "'a' and 1 more"),
        ("subject", ["p", None, None], "a clip with two subjects", "'a' and 1 more"),
        ("landmarks", [[[0, 0]] * 67, None, None], "landmarks that are not 68", "'a'"),
        ("landmarks", [None, [], None], "landmarks that are not 68", "'b'"),
        ("valence", [0, 1.01, 2], "valence or arousal outside -1..1", "'b' and 1 more"),
        ("arousal", [0, 0, float("nan")], "valence or arousal outside -1..1", "'c'"),
        ("au12", [0, 2, 1], "an action unit that is not 0 or 1", "'b'"),
        ("au12", [0.5, 0, 1], "an action unit that is not 0 or 1", "'a'"),
        ("au12", [0, 1, float("nan")], "an action unit that is not 0 or 1", "'c'"),
        ("au12_intensity", [0, 5, 5.5], "an intensity outside 0..5", "'c'"),
        ("au12_intensity", [0, -1, 0], "an intensity outside 0..5", "'b'"),
        ("votes_happy", [-1, 0, 10], "votes below 0", "'a'"),
        ("votes_no_face", [0, 0, float("inf")], "votes below 0", "'c'"),
    ],
)
def test_each_fault_is_named_with_the_first_row_at_fault(column: str, values: list[Any], fault: str, first: str) -> None:
    with pytest.raises(RequestError) as refused:
        check(with_values(column, values))
    assert str(refused.value) == f"{fault}: {first}"


@pytest.mark.parametrize(
    ("frame", "wrong"),
    [
        (SOME.drop("image"), "image"),
        (SOME.with_columns(frame=pl.lit("0")), "frame"),
        (SOME.with_columns(mine=1), "mine"),
        (SOME.with_columns(au1=1), "au1"),
    ],
    ids=["missing", "of another type", "unknown", "a family of another type"],
)
def test_columns_that_are_wrong_are_named_and_the_way_out_is_told(frame: pl.DataFrame, wrong: str) -> None:
    with pytest.raises(RequestError, match=rf"wrong columns or types: {wrong}; build them with samples\.conform"):
        check(frame)


def test_nothing_at_all_passes() -> None:
    check(conform(pl.DataFrame(schema={"sample": pl.String})))


# ── families of labels ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_labels_are_all_that_a_method_must_not_see_of_a_test_sample() -> None:
    columns = ["sample", "au10", "au2", "au12_intensity", "au4_intensity", "votes_neutral", "votes_contempt", "votes_no_face"]
    frame = conform(pl.DataFrame(schema=dict.fromkeys(reversed(columns), pl.String)))
    assert samples.au_columns(frame) == ["au2", "au10"]
    assert samples.intensity_columns(frame) == ["au4_intensity", "au12_intensity"]
    assert samples.vote_columns(frame) == ["votes_neutral", "votes_contempt", "votes_no_face"]
    families = ["au2", "au10", "au4_intensity", "au12_intensity", "votes_neutral", "votes_contempt", "votes_no_face"]
    assert sorted(samples.label_columns(frame)) == sorted(["valence", "arousal", "expression", "activity", *families])
    told = ["sample", "image", "box", "landmarks", "clip", "frame", "subject", "split"]
    assert set(frame.columns) == {*told, *samples.label_columns(frame)}, "a new column is a label or is listed here"


@pytest.mark.parametrize("known", [[True, False, True], [False, False, False], [True, True, True], []])
def test_landmarks_stand_where_they_are_known(known: list[bool]) -> None:
    points = np.arange(sum(known) * 136, dtype=float).reshape(-1, 68, 2)
    column = as_landmarks(points, np.array(known, bool))
    assert column.name == "landmarks"
    assert column.dtype == LANDMARKS
    assert column.is_not_null().to_list() == known
    given = iter(points)
    for value in column.to_list():
        if value is not None:
            np.testing.assert_array_equal(value, next(given))


# ── problems ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_problems_keep_the_order_they_were_met_in_and_their_columns() -> None:
    problems = Problems()
    problems.add("first", Path("a.csv"), "one row", line=3, sample="x")
    rows = pl.DataFrame({"file": ["b.csv", "b.csv"], "line": [7, 8], "cell": ["p", None]}, schema_overrides={"line": pl.UInt32})
    problems.extend(rows, "second", pl.format("cell {}", "cell"))
    problems.add("third", "c.csv")
    problems.extend(pl.DataFrame({"file": ["d.csv"], "sample": ["y"]}), "fourth", "told")
    expected = [
        ("first", "a.csv", 3, "x", "one row"),
        ("second", "b.csv", 7, None, "cell p"),
        ("second", "b.csv", 8, None, ""),
        ("third", "c.csv", None, None, ""),
        ("fourth", "d.csv", None, "y", "told"),
    ]
    assert problems.frame().rows() == expected
    problems.add("fifth", "e.csv")
    assert problems.frame()["kind"].to_list() == [*(row[0] for row in expected), "fifth"], "asking changes nothing"
    assert dict(problems.frame().schema) == PROBLEMS


def test_no_problem_is_an_empty_frame_with_the_same_columns() -> None:
    problems = Problems()
    problems.extend(pl.DataFrame({"file": ["a"]}).clear(), "kind", pl.col("not there"))
    assert problems.frame().is_empty()
    assert dict(problems.frame().schema) == PROBLEMS


def test_names_that_are_no_text_are_told_all_the_same() -> None:
    name = os.fsdecode(b"\xff.csv")
    problems = Problems()
    problems.add("kind", Path(name), f"of {name}", sample=name)
    assert problems.frame().row(0) == ("kind", "?.csv", None, "?.csv", "of ?.csv")


def test_rows_of_several_files_are_told_although_those_of_one_are_all_well() -> None:
    """Polars 2.1 panicked where several frames put together were filtered and of one of them nothing was left."""
    well, bad = (pl.DataFrame({"file": ["a.csv"] * 2, "frame": frames}) for frames in ([1, 2], [3, 3]))
    problems = Problems()
    problems.extend(
        pl.concat([well, bad]).filter(pl.col("frame").is_duplicated()), "row stands twice", pl.format("frame {} again", "frame")
    )
    assert problems.frame()["detail"].to_list() == ["frame 3 again"] * 2
