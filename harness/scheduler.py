"""Pending fits → Ray Tune → records. Tune places, retries and reuses processes; what is done is asked of the store alone."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import logging
import pickle
import shutil
import signal
import tempfile
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness import cluster, failures, group, identity, output, placement, preemption, snapshot, trainer
from harness.config import Config, instantiate
from harness.errors import FitError, RequestError
from harness.nodes import Nodes
from harness.placement import Room
from harness.plan import Job
from harness.preemption import Notice, Preempted
from harness.rungs import Referee
from harness.store import Store

Progress = Callable[[int, int, str], None]
"""Called with fits done, evaluations done, and what is training now."""


_LOOK_AGAIN = 1.0  # seconds after which a queue in which nothing could start is looked through again: nodes come and go


@dataclass
class _Queue:
    """Jobs in an order that respects what each needs, handed out as there is room for them."""

    waiting: dict[str, Job]
    room: Room
    handed: dict[str, str] = field(default_factory=dict)
    """Trial → job."""
    leaving: bool = False
    _look_at: float = 0.0

    def hand(self, trial: str) -> Job | None:
        """A job that can start now; None where all wait for others, or for room."""
        if time.monotonic() < self._look_at:
            return None
        unfinished, refused = {*self.waiting, *self.handed.values()}, set()
        for name, job in self.waiting.items():
            size = placement.size(job)
            if job.needs in unfinished or size in refused:
                continue
            if self.room.take(name, job):
                self.handed[trial] = name
                return self.waiting.pop(name)
            refused.add(size)
        self._look_at = time.monotonic() + _LOOK_AGAIN
        return None

    def take_back(self, trial: str) -> str:
        """A trial has ended; gives its job."""
        self._look_at = 0.0
        name = self.handed.pop(trial)
        self.room.give_back(name)
        return name

    def stuck(self) -> bool:
        """Whether nothing runs, and nothing can."""
        return self.room.hopeless() if self.handed else bool(self.waiting) and time.monotonic() < self._look_at


@dataclass(frozen=True)
class Started:
    """A cluster that runs jobs.

    Attributes:
        nodes: Who is there.
        config: The config group ``cluster``.
        notice: The name of the file that tells every fit of this run to leave.
    """

    nodes: Nodes
    config: Config
    notice: str


@contextlib.contextmanager
def started(clusters: Config, *, jobs: Iterable[Job], python_path: list[str], store: Store) -> Iterator[Started]:
    """Ray, for as long as the block lasts, in which :func:`run` may be called several times.

    Args:
        clusters: The config group ``cluster``.
        jobs: Of the whole plan.
        python_path: Where a user's own code is imported from.
        store: Shared by all workers.

    Raises:
        RequestError: A job that cannot be, before anything starts.
    """
    jobs = list(jobs)
    _check_trainings(jobs)
    notice = f"{uuid.uuid4().hex[:12]}.leave"
    ray = cluster.running(
        clusters,
        nested=any(map(placement.grouped, jobs)),
        gpus=max((float(job.resources["gpus"]) for job in jobs), default=0),
        python_path=python_path,
        shared=None if store.elsewhere else store.output,
        snapshots=[] if store.elsewhere else [job.snapshot for job in jobs],
    )
    try:
        with ray as nodes, _quiet():
            placement.check(jobs, nodes)
            if not nodes.alone:
                for folder in sorted({job.snapshot for job in jobs}):
                    snapshot.keep(folder, store)
            yield Started(nodes, clusters, notice)
    finally:
        with contextlib.suppress(RequestError):
            store.remove(preemption.path_in(store, notice))


def run(
    jobs: Mapping[str, Job], store: Store, where: Started, *, progress: Progress, among: Iterable[Job] = (), stop: bool = False
) -> None:
    """Run jobs until each is done or has failed. Ctrl-C stops what runs and keeps what is finished.

    SIGTERM and SIGUSR1 are notices: fits keep a checkpoint and leave, for which they have ``cluster.grace`` seconds.

    Args:
        jobs: What to do; evaluations the store holds are skipped by the workers.
        store: Shared by all workers.
        where: What :func:`started` gave.
        progress: Told what ends.
        among: All jobs of the plan, where draws may be stopped: these are what each is compared with.
        stop: At the first failure: what runs keeps a checkpoint and leaves.

    Raises:
        FitError: It was stopped by a failure.
        RequestError: For ``cluster.wait`` seconds there was no node that has room for anything.
        Preempted: A notice came; run again, it goes on.
        KeyboardInterrupt: Ctrl-C.
    """
    referee = Referee(among, store) if any(job.stop for job in jobs.values()) else None
    _tune(dict(jobs), store, where, progress, stop, referee)


def _check_trainings(jobs: Iterable[Job]) -> None:
    """Refuse a trainer that cannot be, and a weighting that it cannot train. It imports torch, as what follows does."""
    pairs = {identity.canonical([spec.weighting, spec.trainer]): spec for job in jobs for spec in job.stages}
    for spec in pairs.values():
        settings = trainer.read(spec.trainer)
        if spec.weighting:
            instantiate(spec.weighting).check(settings)


def _tune(jobs: dict[str, Job], store: Store, where: Started, progress: Progress, stop: bool, referee: Referee | None) -> None:
    from ray import tune
    from ray.tune.schedulers import FIFOScheduler
    from ray.tune.search import Searcher

    parcels, places = packed(jobs)
    lost: Counter[str] = Counter()  # how often a job's group has lost a worker and was given up
    room = Room(where.nodes.now, where.nodes.autoscaling)
    queue = _Queue(dict(sorted(jobs.items(), key=lambda item: -placement.weight(item[1]))), room)

    class Pending(Searcher):
        """Hands out jobs; one that needs an unfinished fit waits, and so does one for which there is no room."""

        def __init__(self) -> None:
            super().__init__(metric=None, mode=None)

        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            watch.look()  # where nothing runs, Tune asks for a trial again and again, and ends no step
            if queue.leaving or not (queue.waiting or queue.handed):
                return Searcher.FINISHED  # type: ignore[return-value]  # Ray's own marker is a text
            job = queue.hand(trial_id)
            if job is None:
                return None
            asked = {"bundles": placement.bundles(job, where.nodes), "selector": placement.selector(job.resources, where.nodes)}
            asked |= {"workers": room.workers[job.name], "lost": lost[job.name]}
            return {"job": job.name, "place": places[job.name], **asked}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            name = queue.take_back(trial_id)
            if (left := (result or {}).get("left")) is not None:  # it goes on elsewhere, and that is no failure
                where.nodes.leaves(left.split())
                lost[name] += "lost" in (result or {})
                queue.waiting = {name: jobs[name], **queue.waiting}

        def save(self, checkpoint_path: str) -> None:
            """Nothing: the store says what is done."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing: the store says what is done."""

    class Rungs(FIFOScheduler):
        """Lets the referee hear of a rung. The trial waits for that, reads what was written, and ends by itself: nobody kills it."""

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if referee and "rung" in result:
                referee.hears(jobs[trial.config["job"]], int(result["rung"]), float(result["loss"]))
            return self.CONTINUE

    class Watch(tune.Callback):
        """Counts what ends, remembers what Tune gave up on, and hears signals."""

        def __init__(self) -> None:
            self.fits = 0
            self.evaluations = 0  # of trials that have ended
            self.running: dict[str, int] = {}
            self.epochs: dict[str, int] = {}
            self.interrupted = False
            self.why = ""  # it was stopped
            self.moving_at = time.monotonic()
            self.looked_at = 0.0

        def setup(self, *given: Any, **info: Any) -> None:
            """Tune has set its handlers by now: one more comes before its own."""
            if threading.current_thread() is not threading.main_thread():
                return
            stop = signal.getsignal(signal.SIGINT)

            def interrupt(number: int, frame: Any) -> None:
                self.interrupted = True
                stop(number, frame)  # type: ignore[operator,misc]

            signal.signal(signal.SIGINT, interrupt)
            for name in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(name, lambda number, frame: self.leave())

        def leave(self) -> None:
            """Tell every fit to keep a checkpoint and to leave, and start no other; who takes too long is stopped."""
            if not queue.leaving:
                queue.leaving = True
                tell = [preemption.path_in(store, where.notice), b"leave"]
                threading.Thread(target=store.write, args=tell, daemon=True).start()  # a store far away may take its time
                timer = threading.Timer(float(where.config["grace"]), signal.raise_signal, [signal.SIGINT])
                timer.daemon = True
                timer.start()

        def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
            self.look()

        def look(self) -> None:
            """Whether all of the cluster was told to leave, or none of it has had room for anything for too long."""
            now = time.monotonic()
            if now - self.looked_at < 2:
                return
            self.looked_at = now
            if where.nodes.left and not where.nodes.now():
                queue.leaving = True
            if not queue.stuck():
                self.moving_at = now
            elif now - self.moving_at > float(where.config["wait"]):
                what = f"no node has had room for any of {len(queue.waiting) + len(queue.handed)} fits for {where.config['wait']:g} s"
                raise RequestError(what, where="cluster.wait", remedy="bring nodes and run again: what is done is kept")

        def tell(self) -> None:
            training = ", ".join(f"epoch {epoch}" for epoch in self.epochs.values() if epoch)
            progress(self.fits, self.evaluations + sum(self.running.values()), training)

        def ended(self, trial: Any) -> None:
            """Remember of a trial no more than is counted; Tune keeps tables of its numbers, which nothing asks for."""
            self.evaluations += self.running.pop(trial.trial_id, 0)
            self.epochs.pop(trial.trial_id, None)
            trial.metric_analysis.clear()
            trial.metric_n_steps.clear()
            self.tell()

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
            self.running[trial.trial_id] = max(int(result.get("evaluations", 0)), self.running.get(trial.trial_id, 0))
            self.epochs[trial.trial_id] = int(result.get("epoch", 0))
            self.tell()

        def failed(self, job: Job, why: str) -> None:
            """Where the first failure ends a sweep, everything that runs leaves as if it were pre-empted. Draws may fail."""
            if stop and not job.tuning and not queue.leaving:
                self.why = f"{', '.join(sorted({arm for _, arm, _ in job.entries})) or job.name}: {why}"
                self.leave()

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            if trial.last_result.get("failed"):
                job = jobs[trial.config["job"]]
                names = (job.name, *(name for _, _, evaluations in job.entries for name, _ in evaluations))
                known = next(filter(None, map(store.failure, names)), {})
                self.failed(job, known.get("error", "an evaluation failed"))
            self.fits += bool(jobs[trial.config["job"]].stages) and "left" not in trial.last_result
            self.ended(trial)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            job = jobs[trial.config["job"]]
            error = Path(trial.error_file) if trial.error_file else None
            log = error.read_text(errors="replace")[-failures.KEPT :] if error and error.is_file() else ""
            said = failures.last_words(log, cluster.logs())
            death = failures.of_death(job, f"{log}\n{said}".strip(), trial.num_failures)
            store.fail(job.name, failures.again(death, store.failure(job.name)))
            self.failed(job, death["error"])
            self.ended(trial)

    watch = Watch()
    handlers = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    scratch = Path(tempfile.mkdtemp(prefix="harness-tune-"))
    try:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trial, parcels=parcels, store=store.address, notice=where.notice),
                lambda config: tune.PlacementGroupFactory(**config["bundles"]),  # Tune pickles this for every trial: no job in it
            ),
            # As many trials as the queue hands out: the bound is how many may wait for Ray to place them.
            tune_config=tune.TuneConfig(
                search_alg=Pending(),
                scheduler=Rungs(),  # type: ignore[no-untyped-call]
                num_samples=-1,
                max_concurrent_trials=len(jobs),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(scratch),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=max(int(job.resources["retries"]) for job in jobs.values())),
                callbacks=[watch],
            ),
        )
        tuner.fit()
    except tune.TuneError as error:
        if isinstance(error.__cause__, RequestError):
            raise error.__cause__ from None
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if threading.current_thread() is threading.main_thread():
            for name, handler in handlers.items():
                signal.signal(name, handler)
    if watch.why:
        raise FitError(f"stopped at the first failure, {watch.why}; what is finished is kept")
    if queue.leaving:
        raise Preempted("told to leave")
    if watch.interrupted:
        raise KeyboardInterrupt


def packed(jobs: Mapping[str, Job]) -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """All jobs as one row of bytes, which the workers of a machine share, and where each stands in it.

    A trial reads its own and no other, so that what it costs to start one does not depend on how many there are.
    """
    parcels = {name: zlib.compress(pickle.dumps(job)) for name, job in jobs.items()}
    ends = list(itertools.accumulate(map(len, parcels.values())))
    places = {name: (end - len(parcel), end) for (name, parcel), end in zip(parcels.items(), ends, strict=True)}
    return np.frombuffer(b"".join(parcels.values()), dtype=np.uint8), places


def unpacked(parcels: np.ndarray, place: tuple[int, int]) -> Job:
    """One job of what :func:`packed` gave."""
    first, end = place
    job: Job = pickle.loads(zlib.decompress(parcels[first:end].tobytes()))
    return job


def _trial(config: dict[str, Any], *, parcels: np.ndarray, store: str, notice: str) -> None:
    """One Tune trial, in a process that has done others before it."""
    import ray
    from ray import tune

    from harness import evaluation

    job = unpacked(parcels, config["place"])
    shared = output.at(store).store
    own, run = Notice([preemption.of_node()]), preemption.of_run(shared, notice)
    asked = {name: config[name] for name in ("workers", "selector")}
    train = partial(group.train, **asked, notice=notice) if placement.grouped(job) else None
    try:
        outcome = evaluation.run(
            job,
            shared,
            report=lambda metrics: tune.report(metrics),
            train=train,
            leaving=lambda: own.given() or run.given(),
        )
    except group.Left as left:
        tune.report({"left": " ".join(left.nodes)})
    except group.Lost:
        if config["lost"] >= job.resources["retries"]:
            raise
        tune.report({"left": "", "lost": 1.0})
    except Preempted:
        tune.report({"left": ray.get_runtime_context().get_node_id() if own.given() else ""})
    except RequestError:
        if shared.elsewhere:
            raise
        # Not even that it failed could be written: of a full disk the driver learns by itself, and trying again would not help.
        tune.report({"evaluations": 0.0, "failed": float(sum(len(evaluations) for _, _, evaluations in job.entries))})
    else:
        tune.report({"evaluations": float(outcome.made + outcome.failed), "failed": float(outcome.failed)})
    _settle()


@functools.cache
def _settle() -> None:
    """After the first job of a process: what is there now stays (modules, mostly), and no later collection looks through it again."""
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's own progress tables and warnings off the terminal; errors are told by the store."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    for name in ("ray.tune", "ray.train", "ray._private"):
        logging.getLogger(name).setLevel(logging.ERROR)
    yield
