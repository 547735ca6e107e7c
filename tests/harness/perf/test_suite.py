"""Budgets, scores, and the jobs that measure by themselves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import VERBS
from harness.perf import accuracy, budgets, suite, tables
from harness.perf.history import Kept
from harness.publish import inventory, site
from harness.publish.folder import replace
from tests.stores import full

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def entry(**more: Any) -> dict[str, Any]:
    return {"median_s": 1.0, "least_s": 0.9, "iqr_s": 0.1, "rounds": 5, "size": "full", **more}


@pytest.mark.parametrize(
    ("name", "measured", "within"),
    [
        ("test_start_up.py::test_start_up[--help]", {"median_s": 0.1, "heavy_modules": 0}, [True, True]),
        ("test_start_up.py::test_start_up[list tasks]", {"median_s": 0.2, "heavy_modules": 1}, [False, False]),
        ("test_start_up.py::test_start_up[lsit]", {"median_s": 9.0}, []),
        ("test_training.py::test_training_steps_of_a_baseline[clef]", {"over_bare": 0.2, "seconds_over_bare": 0.1}, [True]),
        ("test_training.py::test_training_steps_of_a_baseline[clef]", {"over_bare": 0.2, "seconds_over_bare": 0.4}, [False]),
        ("test_frames.py::test_frames_come_from_the_cache_in_random_order[1]", {"ratios": {"Pillow": 9.0}}, [False]),
        ("test_leaderboard.py::test_ranking_a_hundred_thousand_records", {"median_s": 1.9, "peak_mib": 1025.0}, [True, False]),
        ("test_plan.py::test_plan_of_100_000_evaluations", {"median_s": 99.0, "size": "modest"}, []),
    ],
)
def test_budgets_are_judged_in_full_size(name: str, measured: dict[str, Any], within: list[bool]) -> None:
    assert [held for _, _, held in budgets.judge(name, entry(**measured))] == within


def test_every_budget_is_of_a_benchmark_that_there_is() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "tests" / "perf").glob("test_*.py"))
    for budget in budgets.BUDGETS:
        assert budget.benchmark.split("\\[")[0].removeprefix("test_") in text, budget


def test_what_is_kept_of_a_report_is_small() -> None:
    stats = {"median": 0.123456789, "min": 0.1, "iqr": 0.01, "rounds": 5, "data": [0.1] * 1000}
    report = {"benchmarks": [{"fullname": "a", "stats": stats, "extra_info": {"ratios": {"x": 12.3456789}, "secret": "s", "size": "full"}}]}
    assert suite.compact(report) == {
        "a": {"median_s": 0.12346, "least_s": 0.1, "iqr_s": 0.01, "rounds": 5, "size": "full", "ratios": {"x": 12.346}}
    }


def test_a_table_of_a_run_says_budgets_and_whether_they_hold() -> None:
    name = "tests/perf/test_plan.py::test_plan_of_100_000_evaluations"
    kept = Kept("abcd", "0" * 40, False, "", benchmarks={name: entry(median_s=4.0, ratios={"<b>": 3.0})})
    (row,) = tables.of_run(kept, [name]).to_dicts()
    assert (row["benchmark"], row["median"], row["budget"], row["within"]) == (
        "plan/plan_of_100_000_evaluations",
        "4.00 s",
        "≤ 3 s: 4 s",
        "NO",
    )


def row(**more: Any) -> dict[str, Any]:
    same = {
        "task": "t",
        "task_version": 1,
        "protocol": "p",
        "data": "d",
        "arm": "a",
        "baseline_version": 1,
        "setting": "{}",
        "metric": "ccc",
    }
    return {**same, "records": 3, "score": 0.5, "lo": 0.4, "hi": 0.6, **more}


def test_a_score_that_changes_without_a_version_is_said_like_a_slow_down() -> None:
    (line,) = accuracy.differences([row()], [row(score=0.51)])
    assert line == "t v1, a v1, {}: ccc 0.50000 → 0.51000 (inside the old interval), and no version did"
    assert "outside" in accuracy.differences([row()], [row(score=0.7)])[0]
    for other in (row(), row(score=0.5 + 1e-7), row(score=0.7, baseline_version=2), row(score=0.7, data="e"), row(score=0.7, arm="b")):
        assert accuracy.differences([row()], [other]) == []


def test_scores_are_compared_between_revisions_of_one_machine() -> None:
    def kept(machine: str, commit: str, score: float) -> Kept:
        return Kept(machine, commit * 40, False, "", scores=[row(score=score)])

    both = [kept("aaaa", "0", 0.5), kept("aaaa", "1", 0.6), kept("bbbb", "0", 0.5)]
    assert len(accuracy.changed(both, "0" * 40, "1" * 40)) == 1
    assert accuracy.changed(both[1:], "0" * 40, "1" * 40) == []
    assert accuracy.changed(both, "0" * 40, "0" * 40) == []


def test_the_scores_of_a_store_are_kept_with_their_intervals_and_commits(tmp_path: Path) -> None:
    full(tmp_path)
    scores, commits = accuracy.of_store(tmp_path)
    assert commits == {"0" * 40}
    assert {"method", "mean"} <= {found["arm"] for found in scores}
    ranked = [found for found in scores if found["lo"] is not None]
    assert ranked
    assert all(found["lo"] <= found["score"] <= found["hi"] for found in ranked)
    assert accuracy.differences(scores, scores) == []
    keys = [accuracy._key(found) for found in scores]
    assert len(keys) == len(set(keys))


def test_a_site_links_the_page_of_speed(tmp_path: Path) -> None:
    full(tmp_path)
    files = site.pages(inventory.read(tmp_path), tmp_path, most=0, more={"speed.html": b"<p>x</p>"})
    assert b'<a href="speed.html">Speed</a>' in files["index.html"]
    assert files["speed.html"] == b"<p>x</p>"
    replace(tmp_path / "site", files)
    assert b"speed.html" not in site.pages(inventory.read(tmp_path), tmp_path, most=0)["index.html"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_only_read_pin_what_they_use_and_run_what_there_is(path: Path) -> None:
    flow = yaml.safe_load(path.read_text())
    assert flow["permissions"] == {"contents": "read"}
    assert "secrets." not in path.read_text()
    assert "pull_request_target" not in path.read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for job in flow["jobs"].values():
        assert job["timeout-minutes"]
        for step in job["steps"]:
            if "uses" in step:
                assert re.search(r"@[0-9a-f]{40}$", step["uses"]), step["uses"]
            else:
                tool, name = step["run"].split()[:2]
                assert name in (targets if tool == "make" else VERBS), step["run"]
                assert "${{" not in step["run"]  # what others write is no part of a command


def test_there_are_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["speed", "tests"]
