"""Equal inputs have equal names everywhere, and whatever makes a difference makes another name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from harness import identity
from harness.errors import RequestError
from harness.samples import SCHEMA

FRAME = pl.DataFrame(
    {
        "name": ["a", "b", None],
        "value": [0.5, None, -1.0],
        "known": [True, None, False],
        "count": [1, 2, None],
        "kind": pl.Series(["happy", None, "sad"], dtype=SCHEMA["expression"]),
        "box": pl.Series([[0, 1, 2, 3], None, [4, 5, 6, 7]], dtype=SCHEMA["box"]),
        "points": pl.Series([np.arange(136).reshape(68, 2).tolist(), None, np.zeros((68, 2)).tolist()], dtype=SCHEMA["landmarks"]),
    }
)


def test_an_address_does_not_depend_on_the_order_of_keys_but_on_that_of_lists() -> None:
    assert identity.address({"a": 1, "b": {"c": 2, "d": None}}) == identity.address({"b": {"d": None, "c": 2}, "a": 1})
    assert identity.address([1, 2]) != identity.address([2, 1])
    assert identity.address({"a": None}) != identity.address({})
    assert identity.address_of_names(["b", "a"]) == identity.address_of_names(["a", "b"])


def test_an_address_is_the_same_in_another_process() -> None:
    wanted = "identity.address({'b': 'é', 'a': [0.1, None]}), identity.address_of_frame(FRAME)"
    script = f"from tests.harness.test_identity import *; print({wanted})"
    found = {
        subprocess.run([sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{identity.address({'a': [0.1, None], 'b': 'é'})} {identity.address_of_frame(FRAME)}\n"}


@pytest.mark.parametrize("value", [{1, 2}, b"x", Path("x")])
def test_what_json_cannot_hold_has_no_address(value: object) -> None:
    with pytest.raises(TypeError):
        identity.address({"value": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_a_mistake_of_the_config(value: float) -> None:
    with pytest.raises(RequestError, match="nan or inf stands in a config"):
        identity.address({"value": [value]})


def _with(**columns: list[object]) -> pl.DataFrame:
    return FRAME.with_columns(pl.Series(name, values, dtype=FRAME.schema[name]) for name, values in columns.items())


def _points(*, null_at: int | None = None, zero_at: int | None = None) -> list[object]:
    points: list[list[float | None]] = np.arange(136.0).reshape(68, 2).tolist()
    for place, value in ((null_at, None), (zero_at, 0.0)):
        if place is not None:
            points[place][1] = value
    return [points, None, np.zeros((68, 2)).tolist()]


@pytest.mark.parametrize(
    "other",
    [
        _with(value=[0.5, None, -1.5]),
        _with(value=[0.5, 0.0, -1.0]),
        _with(name=["a", "b", ""]),
        _with(name=["ab", "", None]),
        _with(name=["a\0b", "", None]),
        _with(known=[True, False, False]),
        _with(count=[1, 2, 0]),
        _with(kind=["happy", "neutral", "sad"]),
        _with(box=[[0, 1, 2, 3], [4, 5, 6, 7], None]),
        _with(box=[[0, 1, 2, 3], [0, 0, 0, 0], [4, 5, 6, 7]]),
        _with(points=[_points()[0], None, None]),
        _with(points=_points(null_at=3)),
        _with(points=_points(zero_at=3)),
        FRAME[[2, 1, 0]],
        FRAME.head(2),
        FRAME.rename({"value": "valence"}),
        FRAME.with_columns(pl.col("value").cast(pl.Float32)),
        FRAME.with_columns(pl.col("kind").cast(pl.String)),
        FRAME.drop("count"),
        FRAME.select(reversed(FRAME.columns)),
    ],
)
def test_value_type_null_row_order_and_column_name_of_a_frame_matter(other: pl.DataFrame) -> None:
    assert identity.address_of_frame(other) != identity.address_of_frame(FRAME)


def test_a_missing_number_inside_an_array_is_not_zero() -> None:
    first, second = _with(points=_points(null_at=3)), _with(points=_points(zero_at=3))
    assert identity.address_of_frame(first) != identity.address_of_frame(second)


def test_text_cannot_move_from_one_cell_to_the_next() -> None:
    first, second = pl.DataFrame({"a": ["x\0", "y"]}), pl.DataFrame({"a": ["x", "\0y"]})
    assert identity.address_of_frame(first) != identity.address_of_frame(second)


def test_how_a_frame_lies_in_memory_does_not_matter() -> None:
    pieces = pl.concat([FRAME.head(1), FRAME.tail(2)], rechunk=False)
    assert identity.address_of_frame(pieces) == identity.address_of_frame(FRAME)
    assert identity.address_of_frame(pl.concat([FRAME, FRAME]).slice(3)) == identity.address_of_frame(FRAME)


def test_an_empty_frame_has_an_address_that_tells_its_columns() -> None:
    assert identity.address_of_frame(FRAME.clear()) != identity.address_of_frame(FRAME.clear().drop("box"))


def test_the_source_of_a_target_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "deadly_package"
    package.mkdir()
    for name in ("__init__", "method"):
        (package / f"{name}.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "deadly_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    file, digest = identity.source_of("deadly_package.method.Method") or ("", "")
    assert file == str(package / "method.py")
    assert digest == identity.address_of_file(package / "method.py")
    assert (identity.source_of("deadly_module.Outer.Inner") or ("",))[0] == str(tmp_path / "deadly_module.py")
    assert not {name for name in sys.modules if name.startswith("deadly")}


def test_what_is_nowhere_has_no_source() -> None:
    for target in ("no_such_module.Thing", "harness.no_such.Thing", "Thing", "sys.exit"):
        found = identity.source_of(target)
        assert found is None or found[0].endswith("harness/__init__.py"), target
