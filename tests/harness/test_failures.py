"""What failed is counted, given up and forgotten; what is under way can be seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import evaluation, failures, plan, snapshot, sweep
from harness.errors import RequestError
from harness.plan import Plan, Sweep
from harness.progress import Progress, under_way
from harness.store import Store
from tests.conftest import PLUGIN, Run, toy

NAN = "baseline.stages.brightness.nan_in_epoch=2"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    def build(*overrides: str) -> Plan:
        one = Sweep("s", "", {"toy": ["baseline=toy"]}, {"evaluate.support.size": [1]}, ["task=toy", "tracker=none", *overrides])
        return plan.build(one, extra=[PLUGIN / "configs"], snapshot_of=lambda node, _: snapshot.take(node, tmp_path / "cache"))

    return build


def once(made: Plan, store: Store) -> None:
    for job in made.jobs.values():
        evaluation.run(job, store)


def test_a_fit_that_says_itself_that_it_cannot_go_on_is_given_up_at_once(planned: Callable[..., Plan], store: Store) -> None:
    made = planned(NAN)
    once(made, store)
    (failure,) = store.failures().values()
    assert failures.given_up(failure)
    assert failures.attempts(failure) == 1
    assert made.pending(store).is_empty()
    assert made.missing(store).height == 1, "and the sweep is not complete"


def test_another_failure_is_given_up_after_as_many_runs_as_are_allowed(
    planned: Callable[..., Plan], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import toy as plugin

    made = planned("trainer.resources.attempts=2")
    with monkeypatch.context() as patch:
        patch.setattr(plugin.Toy, "predict", lambda *_: {})
        once(made, store)
        (failure,) = store.failures().values()
        assert not failures.given_up(failure)
        assert made.pending(store).height == 1
        once(made, store)
        (failure,) = store.failures().values()
        assert failures.attempts(failure) == 2
        assert failures.given_up(failure)
        assert made.pending(store).is_empty()
    name = next(iter(store.failures()))
    store.fail(name, failure | {"sources": failure["sources"] | {"toy.Toy": "0" * 64}})
    assert made.pending(store).height == 1, "its source has changed"
    store.forget_failure(name)
    once(made, store)
    assert store.failures() == {}
    assert made.missing(store).is_empty()


def test_a_full_disk_is_nobodys_fault(planned: Callable[..., Plan], store: Store) -> None:
    (job,) = planned().jobs.values()
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RequestError("cannot write: the disk is full") from error
    except RequestError as error:
        known = failures.again(failures.of(job, error), failures.of(job, error) | {"attempts": 9})
    assert known["attempts"] == 10
    assert not failures.given_up(known)


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("x\nray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.", "the machine ran out of memory"),
        ("The actor died unexpectedly before finishing this task.\n ActorDiedError", "the worker died"),
        ("Traceback\nValueError: a shape", "ValueError: a shape (3 tries)"),
        ("", "the worker died (3 tries)"),
    ],
)
def test_a_death_is_told_in_words(planned: Callable[..., Plan], log: str, why: str) -> None:
    (job,) = planned().jobs.values()
    assert failures.of_death(job, log, 3)["error"].startswith(why)


def test_the_last_words_of_a_worker_are_found_by_its_process(tmp_path: Path) -> None:
    (tmp_path / "worker-aa-01000000-4711.err").write_text(":job_id:01000000\n:actor_name:x\nterminate called: out of frames\n")
    assert failures.last_words("The actor died\n\tpid: 4711\n\tip: 10.0.0.1", tmp_path) == "terminate called: out of frames"
    assert failures.last_words("pid=1", tmp_path) == ""
    assert failures.last_words("no process", tmp_path) == ""


def test_what_is_under_way_is_seen_while_somebody_works_on_it(planned: Callable[..., Plan], store: Store) -> None:
    (job,) = planned().jobs.values()
    with store.lock(job.name):
        progress = Progress(job, store)
        progress.epoch("brightness", 4, {"epoch": 2.0, "train/valence": 0.5, "train/arousal": 0.25})
        (told,) = under_way(store)
        assert (told["arms"], told["stage"], told["epoch"], told["epochs"], told["loss"]) == (["toy"], "brightness", 2, 4, 0.375)
    assert under_way(store) == [], "its worker is gone"
    progress.end()
    assert store.progress() == []


def test_a_finished_job_leaves_no_progress(planned: Callable[..., Plan], store: Store) -> None:
    once(planned(), store)
    assert store.progress() == []


@pytest.mark.cluster
def test_what_fails_always_is_tried_once_shown_with_its_log_and_retried_when_asked_for(harness: Run, tmp_path: Path) -> None:
    sweep_ = toy(tmp_path, "arms=toy,broken", name="toy_nan")
    stopped = harness(*sweep_, "--on-error", "stop")
    assert stopped.returncode == 1, stopped.stderr
    assert "error: stopped at the first failure, broken: " in stopped.stderr
    done = harness(*sweep_)
    assert done.returncode == 1
    assert "given up: harness retry" in done.stderr
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*") if path.is_file()}
    again = harness(*sweep_)
    assert (again.returncode, again.stdout) == (1, done.stdout)
    assert "to run" not in again.stderr
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*") if path.is_file()} == made
    (failure,) = Store(tmp_path / "store").failures().values()
    assert failure["attempts"] == 1
    shown = harness("status", "toy_nan", "--failures", "--config-dir", "configs", f"output_dir={tmp_path}", "arms=toy,broken")
    assert shown.returncode == 1
    assert "| harness.errors.FitError" in shown.stdout
    rows = json.loads(harness("status", "--failures", "--format", "json", "--output-dir", str(tmp_path)).stdout)
    assert [(row["arm"], row["runs"]) for row in rows] == [("broken", 1)]
    watched = harness("status", "toy_nan", "--watch", "--config-dir", "configs", f"output_dir={tmp_path}", "arms=toy,broken")
    assert watched.returncode == 1
    assert "2 failed" in watched.stdout
    retried = harness("retry", "toy_nan", "--config-dir", "configs", f"output_dir={tmp_path}", "arms=toy,broken")
    assert retried.returncode == 1
    assert "1 failures are forgotten" in retried.stderr
    assert "1 fits and 2 evaluations to run" in retried.stderr
    assert harness("retry", "--output-dir", str(tmp_path)).returncode == 0
    assert Store(tmp_path / "store").failures() == {}


def test_no_other_way_to_go_on_is_known(harness: Run, tmp_path: Path) -> None:
    done = harness(*toy(tmp_path), "--on-error", "ignore")
    assert done.returncode == 2
    assert "choose from: continue, stop" in done.stderr or "did you mean" in done.stderr


def test_failures_of_a_sweep_are_forgotten_and_no_others(planned: Callable[..., Plan], store: Store) -> None:
    made = planned()
    fit, other = made.rows["fit"][0], "f" * 20
    for name in (fit, other):
        store.fail(name, {"error": "x"})
    prepared = sweep.Prepared(made.sweep, made, store, {}, store.output, "")
    assert sweep.forget_failures(prepared) == 1
    assert set(store.failures()) == {other}
