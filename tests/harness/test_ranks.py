from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from harness.errors import RequestError
from harness.publish.difference import critical_difference as draw
from harness.ranks import across, critical_difference, from_ranks
from harness.store import Store


def store(folder: Path, scores: dict[str, dict[str, float]], primary: str = "ccc", protocol: str = "p") -> Store:
    """Tasks → methods → score, as records."""
    kept = Store(folder / "store")
    for task, methods in scores.items():
        for arm, score in methods.items():
            facts = {
                "evaluation": f"{task}-{arm}-{protocol}",
                "task": task,
                "arm": arm,
                "baseline": arm,
                "baseline_version": 1,
                "score": score,
            }
            facts |= {
                "protocol": protocol,
                "dataset": "d",
                "data": "f",
                "synthetic": True,
                "task_version": 1,
                "primary": primary,
                "fold": 0,
            }
            facts |= {"seed": 0, "setting": "{}", "control": False, "selection": "last", "metrics": "{}", "written": "2026"}
            facts |= {"labels_used": 0, "n_samples": 1, "n_clips": 1, "n_subjects": 1}
            kept.write_record(facts, pl.DataFrame({"subject": ["s"], "clip": ["c"]}))
    return kept


def test_methods_are_ranked_in_each_task_and_equal_scores_share_ranks(tmp_path: Path) -> None:
    scores = {"t1": {"a": 0.9, "b": 0.5, "c": 0.5}, "t2": {"a": 0.2, "b": 0.3, "c": 0.1}, "t3": {"a": 3.0, "b": 2.0, "c": 1.0, "d": 9.0}}
    found = across(store(tmp_path, scores))
    assert found.table.to_dicts() == [
        {"method": "a", "average": pytest.approx(4 / 3), "t1": 1, "t2": 2, "t3": 1},
        {"method": "b", "average": pytest.approx(5.5 / 3), "t1": 2.5, "t2": 1, "t3": 2},
        {"method": "c", "average": pytest.approx(8.5 / 3), "t1": 2.5, "t2": 3, "t3": 3},
    ]
    reference = stats.friedmanchisquare([0.9, 0.2, 3.0], [0.5, 0.3, 2.0], [0.5, 0.1, 1.0])
    assert (found.statistic, found.p) == pytest.approx((reference.statistic, reference.pvalue))


def test_a_lower_error_has_the_better_rank(tmp_path: Path) -> None:
    found = across(store(tmp_path, {"t1": {"a": 0.9, "b": 0.5}, "t2": {"a": 0.9, "b": 0.5}}, primary="rmse"))
    assert found.table["method"].to_list() == ["b", "a"]


def test_the_critical_difference_is_demsars() -> None:
    assert critical_difference(4, 14) == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert critical_difference(2, 10) == pytest.approx(1.96 * math.sqrt(1 / 10), abs=1e-3)


def test_cliques_join_only_what_cannot_be_told_apart() -> None:
    ranks = np.array([[1.0, 2, 3, 4]] * 14).T
    found = from_ranks(pl.DataFrame({"method": list("abcd"), **{f"t{i}": ranks[:, i] for i in range(14)}}))
    assert found.cliques == (("a", "b"), ("b", "c"), ("c", "d"))
    assert found.p < 0.001


def test_few_tasks_are_said_to_tell_nothing(tmp_path: Path) -> None:
    found = across(store(tmp_path, {"t1": {"a": 0.9, "b": 0.5}, "t2": {"a": 0.9, "b": 0.5}}))
    assert found.notes[-1] == "With 2 tasks this can tell nothing: 2 methods can be at most 1 ranks apart, and 4 tasks are the least."
    assert math.isnan(found.p)
    assert found.cliques == (("a", "b"),)


def test_one_task_or_no_common_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="1 methods have a row in each of 2 tasks"):
        across(store(tmp_path, {"t1": {"a": 0.9, "b": 0.5}, "t2": {"a": 0.9, "c": 0.5}}))
    with pytest.raises(RequestError, match="in each of 1 tasks"):
        across(Store(tmp_path / "store"), ["t1"])


def test_records_of_the_validation_part_are_never_ranked(tmp_path: Path) -> None:
    scores = {"t1": {"a": 0.9, "b": 0.5}, "t2": {"a": 0.9, "b": 0.5}}
    store(tmp_path, {task: {"a": 0.1, "b": 0.5} for task in scores}, protocol="p/validation-part")
    assert across(store(tmp_path, scores)).table["method"].to_list() == ["a", "b"]


def test_the_picture_names_every_method_and_is_the_same_bytes_again() -> None:
    found = from_ranks(pl.DataFrame({"method": ["a$b$", "<b>", "c"], "t1": [1.0, 2, 3], "t2": [2.0, 1, 3]}))
    one, two = (draw(found.table, distance=found.distance, cliques=found.cliques, title="t", note="n") for _ in range(2))
    assert one == two
    assert one["png"].startswith(b"\x89PNG")
    assert b"<svg" in one["svg"]
