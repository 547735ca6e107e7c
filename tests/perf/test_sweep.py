"""What it costs to ask again: a finished sweep, and a further support setting on a fitted baseline."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness import evaluation, plan, sweep
from tests.conftest import command

SMALL = ["tracker=none", "task.folds=2", "fold=0", "task.dataset.synth.subjects=8", "task.dataset.synth.clips=12"]
ARMS = ["arms=mt_clar,ridge,interpolation,last_label,mean_label", "evaluate.support.size=1,2,4"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> sweep.Prepared:
    """A small support-size sweep, done in this process."""
    output = tmp_path_factory.mktemp("finished")
    chosen = plan.load_sweep("support_size", [*SMALL, *ARMS, f"output_dir={output}"])
    prepared = sweep.prepare(chosen, command="harness sweep support_size")
    for job in prepared.plan.jobs.values():
        evaluation.run(job, prepared.store)
    assert prepared.plan.pending(prepared.store).is_empty()
    return prepared


def test_a_finished_sweep_run_again(benchmark: BenchmarkFixture, finished: sweep.Prepared, tmp_path: Path) -> None:
    arguments = command("sweep", "support_size", *SMALL, *ARMS, f"output_dir={finished.output}")

    def again() -> None:
        subprocess.run(arguments, cwd=tmp_path, check=True, capture_output=True, timeout=120)

    benchmark.pedantic(again, rounds=5, warmup_rounds=1)


def test_a_further_support_setting_against_its_fit(benchmark: BenchmarkFixture, finished: sweep.Prepared) -> None:
    job = next(job for job in finished.plan.jobs.values() if job.stages)
    baseline, arm, _ = next(entry for entry in job.entries if entry[0]["name"] == "mt_clar")
    ready = evaluation.Ready(job, evaluation.lay_out(job.task, job.snapshot, job.fold), baseline, finished.store)
    draws = itertools.count(100)

    def one() -> None:
        setting = ready.bench.task.setting({"support": {"size": 4, "selection": "random", "draw": next(draws)}, "anchor": "mean"})
        ready.evaluate(f"perf-{setting['support']['draw']}", arm, setting)

    benchmark.pedantic(one, rounds=10, warmup_rounds=1)
    if benchmark.stats is not None:
        fit = finished.store.fit(job.name)
        assert fit is not None
        benchmark.extra_info["share of the fit"] = benchmark.stats["median"] / fit["seconds"]
