"""Reported numbers: whole, with their source, and never in the ranking."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import config, metrics, plan, reported
from harness.errors import RequestError

ENTRY = "dataset: d\nentries:\n  - {method: M, year: 2024, tasks: [t], reported_as: {f1_au: '65.9 %'}, protocol: p, source: s, tag: P}\n"


def test_every_number_has_a_source_a_protocol_and_a_tag_that_may_be_shown() -> None:
    found = reported.load()
    assert len(found) > 100
    for one in found:
        assert one.tag in ("P", "S")
        assert len(one.source) > 10, one
        assert len(one.protocol) > 3, one


def test_every_number_is_of_a_metric_that_its_tasks_have() -> None:
    for one in reported.load():
        for name in one.tasks:
            node = config.compose([f"task={name}"])["task"]
            task = plan.make_task(node)
            known = metrics.names_for(task.info.targets, task.classes)
            assert one.metric in known, (one.method, one.metric, name)
            assert node["dataset"]["name"] == one.dataset


def test_percent_are_shares_on_our_scale() -> None:
    (clef,) = [one for one in reported.load() if one.method == "CLEF PA+PI+I+N+D" and one.dataset == "raf_db"]
    assert (clef.reported_as, clef.value) == ("90.09 %", pytest.approx(0.9009))


def test_nothing_is_said_of_a_task_that_nobody_reports_on() -> None:
    assert reported.of_task("afew_va_support").is_empty()
    block = reported.of_task("disfa")
    assert block["method"].is_sorted() or block["metric"].is_sorted(), "in no order of merit"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("tag: P", "tag: M", "tag is 'M'"),
        ("source: s", "source: ''", "source is ''"),
        ("source: s, ", "", "source is None"),
        ("'65.9 %'", "'65.9'", "is a % missing"),
        ("'65.9 %'", "65.9", "no number as stated"),
        ("f1_au", "f_au", "no metric 'f_au'"),
        ("year: 2024", "year: 24", "year is 24"),
        ("method: M", "methud: M", "did you mean 'method'"),
        ("dataset: d", "data: d", "its keys are dataset and entries"),
        ("entries:", "entries: [", "no YAML"),
        ("- {", "- 3 #{", "3 is no entry"),
    ],
)
def test_a_wrong_entry_is_one_line_with_file_and_key(tmp_path: Path, old: str, new: str, line: str) -> None:
    file = tmp_path / "d.yaml"
    file.write_text(ENTRY)
    assert len(reported.load(tmp_path)) == 1
    file.write_text(ENTRY.replace(old, new, 1))
    with pytest.raises(RequestError) as error:
        reported.load(tmp_path)
    assert line in str(error.value)
    assert "d.yaml" in str(error.value)


def test_a_number_stands_once(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text(ENTRY + ENTRY.splitlines()[2] + "\n")
    with pytest.raises(RequestError, match="M stands twice"):
        reported.load(tmp_path)
