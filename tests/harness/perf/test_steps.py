"""Steps in made histories, and what a history may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.perf import history, steps
from harness.perf.history import Kept
from harness.publish import speed

EVIL = "tests/perf/test_x.py::test_<script>alert(1)</script>"
MACHINE = "abcd1234"


def commits(n: int) -> list[str]:
    return [f"{number + 1:08x}" + "0" * 32 for number in range(n)]


def noise(rng: np.random.Generator, n: int, kind: str) -> np.ndarray:
    return np.exp(rng.normal(0, 0.03, n) if kind == "normal" else 0.03 * rng.standard_t(3, n) / np.sqrt(3))


def kept(values: list[float], name: str = "tests/perf/test_plan.py::test_plan", **more: Any) -> list[Kept]:
    made = []
    for commit, value in zip(commits(len(values)), values, strict=True):
        entry = {"median_s": value, "least_s": value, "iqr_s": value / 50, "rounds": 5, "size": "full"}
        made.append(
            Kept(MACHINE, commit, False, "2026-01-01T00:00:00+00:00", {"processor": "p", "cores": 2}, benchmarks={name: entry}, **more)
        )
    return made


@pytest.mark.parametrize("kind", ["normal", "heavy"])
@pytest.mark.parametrize("n", [6, 12, 30])
def test_a_level_history_has_no_step_and_a_fifth_more_is_found(kind: str, n: int) -> None:
    rng = np.random.default_rng(n)
    false = found = 0
    for _ in range(40):
        values = 0.5 * noise(rng, n, kind)
        false += bool(steps.steps(values.tolist(), commits(n)))
        values[n // 2 :] *= 1.2
        found += any(abs(step.place - n // 2) <= 1 for step in steps.steps(values.tolist(), commits(n)))
    assert false <= 4
    assert found >= 35


def test_two_steps_are_told_with_their_revisions_and_sizes() -> None:
    values = [1.0] * 5 + [1.5] * 5 + [0.9] * 5
    first, second = steps.steps(values, commits(15))
    assert (first.place, first.commit) == (5, commits(15)[5])
    assert first.text == f"× 1.50 at {commits(15)[5][:8]}"
    assert (second.place, second.before, second.after) == (10, 1.5, 0.9)


def test_one_bad_hour_and_a_small_change_are_no_steps() -> None:
    assert steps.steps([1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0], commits(7)) == ()
    assert steps.steps([1.0] * 6 + [1.03] * 6, commits(12)) == ()
    assert steps.steps([1.0, 2.0], commits(2)) == ()


def test_machines_are_not_mixed_and_uncommitted_runs_are_of_no_revision() -> None:
    mine = kept([1.0] * 4)
    other = [
        Kept(**{**vars(one), "machine": "ffff0000", "benchmarks": {n: {**e, "median_s": 9.0} for n, e in one.benchmarks.items()}})
        for one in mine
    ]
    dirty = Kept(**{**vars(mine[-1]), "dirty": True})
    found = steps.series_of([*mine, *other, dirty])
    assert [(one.machine, one.values) for one in found] == [(MACHINE, (1.0,) * 4), ("ffff0000", (9.0,) * 4)]


def test_scores_step_exactly_where_they_change() -> None:
    row = {
        "task": "t",
        "task_version": 1,
        "arm": "a",
        "baseline_version": 1,
        "setting": "{}",
        "metric": "ccc",
        "records": 4,
        "lo": 0.1,
        "hi": 0.9,
    }
    mine = [
        Kept(**{**vars(one), "scores": [row | {"score": score}]})
        for one, score in zip(kept([1.0] * 3), (0.5, 0.5000001, 0.52), strict=True)
    ]
    (series,) = [one for one in steps.series_of(mine) if one.quantity == "score"]
    assert [step.place for step in series.steps] == [2]
    assert series.steps[0].text == f"0.5000 → 0.5200 at {commits(3)[2][:8]}"


def test_what_is_written_is_read_and_a_second_run_adds_to_it(tmp_path: Path) -> None:
    (first,) = kept([1.0], name="a")
    (second,) = kept([2.0], name="b")
    history.write(tmp_path, first)
    path = history.write(tmp_path, second)
    assert path == tmp_path / MACHINE / f"{commits(1)[0][:12]}.json"
    (found,), notes = history.read(tmp_path, tmp_path)
    assert {name: entry["median_s"] for name, entry in found.benchmarks.items()} == {"a": 1.0, "b": 2.0}
    assert notes == []


@pytest.mark.parametrize(
    "damage",
    [
        {"benchmarks": {"a": {"median_s": "__import__('os')", "least_s": 1, "iqr_s": 0, "rounds": 1}}},
        {"benchmarks": {"a": {"median_s": -1.0, "least_s": 1, "iqr_s": 0, "rounds": 1}}},
        {"benchmarks": {"a": {}}},
        {"benchmarks": []},
        {"commit": "../../etc/passwd"},
        {"machine": 3},
        {"load": "busy"},
        {"scores": [1]},
    ],
)
def test_a_file_that_is_no_measurement_is_left_out_and_said(tmp_path: Path, damage: dict[str, Any]) -> None:
    good, bad = kept([1.0, 2.0])
    history.write(tmp_path, good)
    path = history.write(tmp_path, bad)
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    (tmp_path / MACHINE / "nan.json").write_text(path.read_text().replace("1.0", "NaN"))
    (tmp_path / MACHINE / "half.json").write_text(path.read_text()[:50])
    found, notes = history.read(tmp_path, tmp_path)
    assert [one.commit for one in found] == [good.commit]
    assert len(notes) == 3


def test_the_page_draws_every_history_and_nothing_in_it_is_markup() -> None:
    made = kept([1.0] * 4 + [2.0] * 4, name=EVIL, versions={"<img src=x>": "<b>"})
    made = [Kept(**{**vars(one), "facts": {"processor": "<script>x</script>", "cores": 2}}) for one in made]
    text = speed.page(made, steps.series_of(made), ["<i>note</i>"])
    for hostile in ("<script>alert", "<script>x", "<img src=x>", "<i>note"):
        assert hostile not in text
    assert text.count("<polyline") == 1
    assert "× 2.00 at 00000005" in text
    assert text == speed.page(made, steps.series_of(made), ["<i>note</i>"])
