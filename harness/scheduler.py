"""Pending fits → Ray Tune → records. Tune places, retries and reuses processes; what is done is asked of the store alone."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import cluster, group, identity, placement, trainer
from harness.config import Config, instantiate
from harness.plan import Job
from harness.store import Store

Progress = Callable[[int, int, str], None]
"""Called with fits done, evaluations done, and what is training now."""


@dataclass
class _Queue:
    """Jobs in an order that respects what each needs."""

    waiting: dict[str, Job]
    handed: dict[str, str] = field(default_factory=dict)
    """Trial → job."""

    def next(self) -> Job | None:
        """A job that can start now; None where all wait for others."""
        unfinished = {*self.waiting, *self.handed.values()}
        ready = next((name for name, job in self.waiting.items() if job.needs not in unfinished), None)
        return None if ready is None else self.waiting.pop(ready)


@contextlib.contextmanager
def started(clusters: Config, *, jobs: Iterable[Job], python_path: list[str]) -> Iterator[Mapping[str, float]]:
    """Ray, for as long as the block lasts, in which :func:`run` may be called several times.

    Args:
        clusters: The config group ``cluster``.
        jobs: Of the whole plan.
        python_path: Where a user's own code is imported from.

    Yields:
        The cluster's resources.

    Raises:
        RequestError: A job that cannot be, before anything starts.
    """
    jobs = list(jobs)
    _check_weightings(jobs)
    with cluster.running(clusters, nested=any(map(placement.grouped, jobs)), python_path=python_path) as available, _quiet():
        yield available


def run(jobs: Mapping[str, Job], store: Store, available: Mapping[str, float], *, progress: Progress) -> None:
    """Run jobs until each is done or has failed. Ctrl-C stops what runs and keeps what is finished.

    Args:
        jobs: What to do; evaluations the store holds are skipped by the workers.
        store: Shared by all workers.
        available: What :func:`started` gave.
        progress: Told what ends.

    Raises:
        RequestError: A fit needs more than there is.
    """
    placement.check(jobs, available)
    _tune(dict(jobs), store, available, progress)


def _check_weightings(jobs: Iterable[Job]) -> None:
    """Refuse a weighting that cannot be made or cannot be trained as asked. It imports torch, as what follows does."""
    pairs = {identity.canonical([spec.weighting, spec.trainer]): spec for job in jobs for spec in job.stages if spec.weighting}
    for spec in pairs.values():
        instantiate(spec.weighting or {}).check(trainer.read(spec.trainer))


def _tune(jobs: dict[str, Job], store: Store, available: Mapping[str, float], progress: Progress) -> None:
    from ray import tune
    from ray.tune.search import Searcher

    queue = _Queue(dict(sorted(jobs.items(), key=lambda item: -placement.weight(item[1]))))

    class Pending(Searcher):
        """Hands out jobs; one that needs an unfinished fit waits."""

        def __init__(self) -> None:
            super().__init__(metric=None, mode=None)

        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            if not queue.waiting:
                return Searcher.FINISHED  # type: ignore[return-value]  # Ray's own marker is a text
            job = queue.next()
            if job is None:
                return None
            queue.handed[trial_id] = job.name
            return {"job": job.name}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            queue.handed.pop(trial_id)

        def save(self, checkpoint_path: str) -> None:
            """Nothing: the store says what is done."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing: the store says what is done."""

    class Watch(tune.Callback):
        """Counts what ends, and remembers what Tune gave up on."""

        def __init__(self) -> None:
            self.fits = 0
            self.running: dict[str, int] = {}
            self.epochs: dict[str, int] = {}

        def tell(self) -> None:
            training = ", ".join(f"epoch {epoch}" for epoch in self.epochs.values() if epoch)
            progress(self.fits, sum(self.running.values()), training)

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
            self.running[trial.trial_id] = max(int(result.get("evaluations", 0)), self.running.get(trial.trial_id, 0))
            self.epochs[trial.trial_id] = int(result.get("epoch", 0))
            self.tell()

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.fits += bool(jobs[trial.config["job"]].stages)
            self.epochs.pop(trial.trial_id, None)
            self.tell()

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            job = jobs[trial.config["job"]]
            log = (
                Path(trial.error_file).read_text(errors="replace")[-4000:] if trial.error_file and Path(trial.error_file).is_file() else ""
            )
            last = next((line for line in reversed(log.splitlines()) if line.strip()), "the worker died")
            arms = sorted({arm for _, arm, _ in job.entries})
            store.fail(
                job.name,
                {
                    "job": job.name,
                    "task": job.task["name"],
                    "arms": arms,
                    "fold": job.fold,
                    "seed": job.seed,
                    "error": last.strip(),
                    "log": log,
                },
            )
            self.epochs.pop(trial.trial_id, None)
            self.tell()

    at_once = min(placement.at_once(job.resources, available) for job in jobs.values())
    scratch = Path(tempfile.mkdtemp(prefix="harness-tune-"))
    try:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trial, jobs=jobs, store=str(store.root)), lambda config: placement.share(jobs[config["job"]])
            ),
            tune_config=tune.TuneConfig(search_alg=Pending(), num_samples=len(jobs), max_concurrent_trials=at_once, reuse_actors=True),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(scratch),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=max(int(job.resources["retries"]) for job in jobs.values())),
                callbacks=[Watch()],
            ),
        )
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _trial(config: dict[str, str], *, jobs: Mapping[str, Job], store: str) -> None:
    """One Tune trial, in a process that has done others before it."""
    from ray import tune

    from harness import evaluation

    job = jobs[config["job"]]
    train = group.train if placement.grouped(job) else None
    outcome = evaluation.run(job, Store(Path(store)), report=lambda metrics: tune.report(metrics), train=train)
    tune.report({"evaluations": float(outcome.made + outcome.failed), "failed": float(outcome.failed)})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's own progress tables and warnings off the terminal; errors are told by the store."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    for name in ("ray.tune", "ray.train", "ray._private"):
        logging.getLogger(name).setLevel(logging.ERROR)
    yield
