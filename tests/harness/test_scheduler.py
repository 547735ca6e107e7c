"""What a scheduler refuses before anything starts; what it does is in tests/cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import cluster, plan, scheduler, snapshot
from harness.errors import RequestError
from harness.plan import Plan, Sweep
from harness.store import Store
from tests.conftest import PLUGIN


def planned(folder: Path, *overrides: str) -> Plan:
    sweep = Sweep("s", "", {"toy": ["baseline=toy"]}, {}, ["task=toy", *overrides])
    return plan.build(sweep, extra=[PLUGIN / "configs"], snapshot_of=lambda node, _: snapshot.take(node, folder / "cache"))


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*given: Any, **more: Any) -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr(cluster, "running", started)


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["weighting=famo", "trainer.accumulate=2"], "trainer.accumulate"),
        (["weighting=mgda", "weighting.method=trimmed_mean"], "no weighting of gradients is called 'trimmed_mean'"),
        (["weighting=mgda", "weighting._target_=baselines.weighting.Krum"], "cannot import baselines.weighting.Krum"),
        (["weighting=uncertainty", "weighting.form=hal"], "did you mean 'half'"),
    ],
)
def test_a_weighting_that_cannot_be_is_refused_before_a_cluster_starts(tmp_path: Path, overrides: list[str], says: str) -> None:
    made = planned(tmp_path, *overrides)
    started = scheduler.started({}, jobs=made.jobs.values(), python_path=[], store=Store(tmp_path))
    with pytest.raises(RequestError, match=says), started:
        raise AssertionError("a cluster was started")


def test_a_weighting_chosen_for_the_run_is_of_every_stage(tmp_path: Path) -> None:
    usual, chosen = planned(tmp_path), planned(tmp_path, "weighting=uncertainty", "weighting.start=0.5")
    (spec,) = (spec for job in chosen.jobs.values() for spec in job.stages)
    assert spec.weighting == {"_target_": "baselines.weighting.Uncertainty", "form": "kendall", "start": 0.5, "lr": None}
    assert set(usual.jobs).isdisjoint(chosen.jobs), "other weights are another fit"


def test_a_worker_reads_its_own_job_however_many_there_are(tmp_path: Path) -> None:
    """All jobs used to be unpickled for every trial."""
    sizes = []
    for seeds in (2, 20):
        axes = {"seed": list(range(seeds)), "evaluate.support.draw": list(range(5)), "evaluate.support.selection": ["random"]}
        sweep = Sweep("s", "", {"toy": ["baseline=toy"]}, axes, ["task=toy"])
        jobs = plan.build(sweep, extra=[PLUGIN / "configs"], snapshot_of=lambda node, _: snapshot.take(node, tmp_path / "cache")).jobs
        parcels, places = scheduler.packed(jobs)
        assert {name: scheduler.unpacked(parcels, place) for name, place in places.items()} == jobs
        sizes.append(max(end - first for first, end in places.values()))
    assert len(jobs) == 20
    assert sizes[1] < 1.1 * sizes[0]
