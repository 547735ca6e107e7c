"""Whoever is killed, at whatever step of the life of an evaluation: who runs the same again ends with the same store."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.conftest import Disturbed


@pytest.fixture(scope="module")
def lives(disturbed: Disturbed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    told = disturbed("kill", tmp_path_factory.mktemp("lives"))
    assert set(told) == {"fitted", "packed", "forgotten"}
    return told


@pytest.mark.parametrize(
    ("life", "steps"),
    [
        (
            "fitted",
            {
                "write module.safetensors",
                "rename coming epoch-000001",
                "rmdir epoch-000001",
                "weights.safetensors",
                "history.json",
                "fit.json",
                "rmdir checkpoint",
                ".npy",
                ".parquet",
                ".json",
                ".units.parquet",
                ".records.parquet",
            },
        ),
        ("packed", {".parquet", ".json", ".units.parquet", ".records.parquet", "remove 000001", "remove "}),
        ("forgotten", {".records.parquet", "remove ", ".parquet"}),
    ],
)
def test_a_kill_at_any_step_changes_nothing_of_what_a_second_run_leaves(lives: dict[str, Any], life: str, steps: set[str]) -> None:
    told = lives[life]
    missed = {wanted for wanted in steps if not any(wanted in step for step in told["steps"])}
    assert not missed, "the steps that this is about are not among those where it was killed"
    assert {told["steps"][int(place)]: why for place, why in told["different"].items()} == {}, told["said"]
