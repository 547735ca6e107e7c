"""What it costs to ask again: a finished sweep, and a further support setting on a fitted baseline."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from harness import evaluation, plan, sweep, training
from harness.config import instantiate
from tests.conftest import command
from tests.perf.measuring import Instead, Measure

SMALL = ["tracker=none", "task.folds=2", "fold=0", "task.dataset.synth.subjects=8", "task.dataset.synth.clips=12"]
ARMS = ["arms=mt_clar,ridge,interpolation,last_label,mean_label", "evaluate.support.size=1,2,4"]


@pytest.fixture
def finished(measure: Measure) -> sweep.Prepared:
    """A small support-size sweep, done in this process."""

    def run(output: Path) -> None:
        prepared = _prepared(output)
        for job in prepared.plan.jobs.values():
            evaluation.run(job, prepared.store)

    prepared = _prepared(measure.folder("finished", run))
    assert prepared.plan.pending(prepared.store).is_empty()
    return prepared


def _prepared(output: Path) -> sweep.Prepared:
    chosen = plan.load_sweep("support_size", [*SMALL, *ARMS, f"output_dir={output}"])
    return sweep.prepare(chosen, command="harness sweep support_size")


def test_a_finished_sweep_run_again(measure: Measure, finished: sweep.Prepared, tmp_path: Path) -> None:
    arguments = command("sweep", "support_size", *SMALL, *ARMS, f"output_dir={finished.output}")
    assert "mt_clar" in measure(lambda: measure.command(*arguments, cwd=tmp_path), rounds=measure.sized(5, 3, 1))


def test_a_further_support_setting_against_its_fit(measure: Measure, finished: sweep.Prepared, tmp_path: Path) -> None:
    """A plain grid over support sizes trains for each of them."""
    job = next(job for job in finished.plan.jobs.values() if job.stages)
    baseline, arm, _ = next(entry for entry in job.entries if entry[0]["name"] == "mt_clar")
    ready = evaluation.Ready(job, evaluation.lay_out(job.task, job.snapshot, job.fold), baseline, finished.store)
    draws = itertools.count(100)

    def one() -> None:
        setting = ready.bench.task.setting({"support": {"size": 4, "selection": "random", "draw": next(draws)}, "anchor": "mean"})
        ready.evaluate(f"perf-{setting['support']['draw']}-{id(draws)}", arm, setting)

    def refit() -> None:
        spec = job.stages[0]
        bench = ready.bench
        training.fit(
            instantiate({key: value for key, value in spec.config.items() if key not in ("name", "version")}),
            bench.train,
            bench.validation,
            targets=bench.task.info.learned,
            classes=bench.task.classes,
            trainer=spec.trainer,
            weighting=instantiate(spec.weighting or {}),
            seed=0,
            context=training.Local(tmp_path / f"refit-{next(draws)}"),  # a folder of its own: in the last one it would go on from its end
        )

    measure(one, rounds=10, instead={"fit again for it": Instead(refit)})
    fit = finished.store.fit(job.name)
    assert fit is not None
    if "median_s" in (told := measure.times):
        measure.note(share_of_fit=told["median_s"] / fit["seconds"])
