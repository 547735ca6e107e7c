"""Neither the time of day nor others who do the same decide what is made, or how often."""

from __future__ import annotations

from pathlib import Path

from tests.faults.conftest import Disturbed


def test_eight_processes_on_one_store_make_each_evaluation_once_and_none_fails(disturbed: Disturbed, tmp_path: Path) -> None:
    told = disturbed("at once", tmp_path)["at once"]
    assert told["statuses"] == [0] * 8, told["said"]
    assert [sum(made) for made in zip(*told["made"], strict=True)] in ([1, 1], [2, 0]), told["made"]
    assert told["different"] == []


def test_a_clock_that_jumps_changes_nothing_and_no_time_spent_is_negative(disturbed: Disturbed, tmp_path: Path) -> None:
    told = disturbed("jump", tmp_path)["jumping"]
    assert told["looks"] > 4
    assert told["made"] == [1, None, 1, None, 0]
    assert told["least"] >= 0
    assert told["different"] == []
