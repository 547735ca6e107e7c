"""Sweeps with real Ray, which take too long to be compared: the demo, an empty trial, and a grid as one writes it with Ray Tune alone."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from tests.conftest import PLUGIN, command, toy
from tests.perf import apart
from tests.perf.measuring import Instead, Measure

SMALL = ["tracker=none", "task.folds=2", "fold=0", "seed=0", "task.dataset.synth.subjects=8", "task.dataset.synth.clips=12"]
SIZES = "evaluate.support.size=1,2,4,8"

_GRID = """
import dataclasses, sys, tempfile
from pathlib import Path
from ray import tune
from harness import evaluation, plan, sweep
from harness.store import Store

output, arguments = sys.argv[1], sys.argv[2:]
prepared = sweep.prepare(plan.load_sweep("support_size", [*arguments, f"output_dir={output}"]), command="")
single = [
    dataclasses.replace(job, entries=[(baseline, arm, [one])])
    for job in prepared.plan.jobs.values() for baseline, arm, evaluations in job.entries for one in evaluations
]

def trial(config):
    with tempfile.TemporaryDirectory() as folder:
        made = evaluation.run(single[config["place"]], Store(Path(folder)))
    tune.report({"made": made.made})

results = tune.Tuner(trial, param_space={"place": tune.grid_search(list(range(len(single))))}).fit()
assert [result.metrics["made"] for result in results] == [1] * len(single), results.errors
"""


@pytest.fixture(autouse=True)
def _full(measure: Measure) -> None:
    if measure.size != "full":
        pytest.skip("measured in full size alone; tests/cluster tests the same")


def test_the_demo(measure: Measure, tmp_path: Path) -> None:
    """What ``make demo`` does after installation."""
    assert "mt_clar" in measure(lambda: measure.command(*command("sweep", "support_size", "output_dir=demo"), cwd=tmp_path), rounds=1)


def test_an_empty_trial(measure: Measure, tmp_path: Path) -> None:
    """A sweep of four fits that take no time: Ray's start, and four trials."""
    folders = (tmp_path / str(number) for number in itertools.count())
    measure(lambda: measure.command(*command(*toy(next(folders), "tracker=none")), cwd=PLUGIN), rounds=3)


def test_support_sizes_against_a_plain_grid_of_ray_tune(measure: Measure, tmp_path: Path) -> None:
    """Four support sizes of one fit; the grid trains for each of them, on the same synthetic clips."""
    folders = (tmp_path / str(number) for number in itertools.count())
    arguments = [*SMALL, "arms=mt_clar", SIZES]
    (tmp_path / "grid.py").write_text(_GRID)

    def grid() -> None:
        apart.run([sys.executable, str(tmp_path / "grid.py"), str(next(folders)), *arguments], tmp_path)

    def swept() -> str:
        return measure.command(*command("sweep", "support_size", *arguments, f"output_dir={next(folders)}"), cwd=tmp_path)

    assert "mt_clar" in measure(swept, rounds=1, instead={"a plain grid of Ray Tune": Instead(grid)})
