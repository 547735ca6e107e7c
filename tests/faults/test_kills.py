"""Whoever is killed, at whatever step of the life of an evaluation: who runs the same again ends with the same store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ALONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"), "1")


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What ``lives.py`` tells of every life, by its name."""
    scratch = tmp_path_factory.mktemp("lives")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "plugin")])
    command = [sys.executable, str(Path(__file__).with_name("lives.py")), str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False, env=os.environ | ALONE | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [life["life"] for life in told] == ["fitted", "packed", "forgotten"], done.stderr
    return {life["life"]: life | {"said": done.stderr} for life in told}


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
def test_a_kill_at_any_step_changes_nothing_of_what_a_second_run_leaves(
    lives: dict[str, dict[str, Any]], life: str, steps: set[str]
) -> None:
    told = lives[life]
    missed = {wanted for wanted in steps if not any(wanted in step for step in told["steps"])}
    assert not missed, "the steps that this is about are not among those where it was killed"
    assert {told["steps"][int(place)]: why for place, why in told["different"].items()} == {}, told["said"]
