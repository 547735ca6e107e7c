"""What one trial does: train a fit if it is not there, then make each of its evaluations and write it down.

It runs in a Tune actor, and the same without Ray. Nothing here knows a dataset or a method: tasks and baselines come
by the ``_target_`` of their config.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from harness import failures, identity, node_cache, plan, provenance, retrieval, rungs, snapshot, thresholds, tracking, training, tuning
from harness import frames as frame_cache
from harness.baseline import Baseline, Data, Previous, Query, Stage
from harness.config import Config, instantiate
from harness.errors import FitError, RequestError
from harness.plan import Job, StageSpec
from harness.preemption import Preempted
from harness.progress import Progress
from harness.provenance import now
from harness.rescoring import guarded_score, scored
from harness.rungs import Stopped
from harness.samples import label_columns, vote_columns
from harness.store import Store
from harness.task import Setting, Task, kind_of
from harness.weighting import Weighting

Report = Callable[[dict[str, float]], None]
Train = Callable[[Job, StageSpec, Store, Report], None]
Leaving = Callable[[], bool]
REPORT_EVERY = 1.0
"""Seconds between two reports of evaluations: a report waits for the driver, which takes as long as a small evaluation."""


@dataclass
class Outcome:
    """What became of one job: how many evaluations were made and how many failed."""

    made: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Asked:
    """A part that is predicted.

    Attributes:
        data: Sorted by clip and frame, its label columns taken away.
        targets: The labels (votes among them), for support frames and scoring; a baseline never sees this.
    """

    data: Data
    targets: pl.DataFrame


@dataclass
class Bench:
    """One split of one task laid out for a worker: who may see what.

    Attributes:
        config: Of the task.
        train, validation: With labels.
        asked: What is predicted of it: ``test``, and ``validation`` where a threshold or a draw is chosen.
        proof: Of the guard.
    """

    config: Config
    task: Task
    snapshot: snapshot.Snapshot
    train: Data
    validation: Data
    asked: dict[str, Asked]
    proof: dict[str, Any]


_benches: dict[str, Bench] = {}


def lay_out(config: Config, folder: str, fold: int) -> Bench:
    """One fold of a task on a snapshot; kept for the next job of this process that uses the same."""
    key = identity.address([config, folder, fold])
    if key not in _benches:
        taken = snapshot.load(node_cache.local(Path(folder)))
        task = plan.make_task(config)
        rows, split, proof = plan.selected(task, config, taken, fold)

        def part(numbers: np.ndarray) -> tuple[pl.DataFrame, Any]:
            chosen = rows[numbers]
            return chosen.drop("row"), taken.frames.take(chosen["row"].to_numpy())

        def asked(numbers: np.ndarray, taught: Sequence[str] = ()) -> Asked:
            order = rows[numbers].with_columns(place=pl.Series(numbers)).sort("clip", "frame", "sample")["place"].to_numpy()
            samples, frames = part(order)
            samples = _taught(samples, taught)
            targets = samples.select("sample", *task.info.targets, *vote_columns(samples))
            return Asked(Data(samples.drop({*label_columns(samples), *task.info.targets}, strict=False), frames), targets)

        while len(_benches) >= 4:  # a reused actor sees many folds; what is mapped is cheap, labels and tensors are not
            _benches.pop(next(iter(_benches)))
        train, validation = (Data(_taught(rows, task.info.taught), frames) for rows, frames in map(part, (split.train, split.validation)))
        parts = {"test": asked(split.test), "validation": asked(split.validation, task.info.taught)}
        _benches[key] = Bench(config, task, taken, train, validation, parts, proof)
    return _benches[key]


def _taught(samples: pl.DataFrame, taught: Sequence[str]) -> pl.DataFrame:
    """The samples with no other labels than those, where a task says so; what people were doing stays."""
    others = set(label_columns(samples)) - {*taught, "activity"} if taught else ()
    return samples.with_columns(pl.lit(None, dtype=samples.schema[name]).alias(name) for name in others)


def run(
    job: Job, store: Store, *, report: Report = lambda _: None, train: Train | None = None, leaving: Leaving = lambda: False
) -> Outcome:
    """Do one job; what the store already holds is not done again.

    Args:
        job: The fit and its evaluations.
        store: Where everything is written.
        report: Called with progress: after every epoch, and of evaluations now and then.
        train: Trains one fit and writes it to the store; ``train_here`` unless several workers do it.
        leaving: Whether this process has been told to leave; asked after every step and between two evaluations.

    Returns:
        What became of it. A fit that cannot go on is remembered in the store as a failure, and is no error here; nothing is made of a
        draw that was stopped early.

    Raises:
        Preempted: It was told to leave. What is done is in the store, a fit under way in its checkpoint, and run again, it goes on.
    """
    outcome, told = Outcome(), time.monotonic()
    wanted = sum(len(evaluations) for _, _, evaluations in job.entries)
    with store.lock(job.name):
        progress = Progress(job, store)
        progress.tell(evaluations=0, of=wanted)
        try:
            for spec in job.stages:
                with store.lock(spec.fit) if spec.fit != job.name else contextlib.nullcontext():
                    if not store.whole(spec.fit):
                        if leaving():
                            raise Preempted(f"left before fit {spec.fit}")
                        if spec.fit != job.name and (known := store.failure(spec.fit)) and failures.given_up(known):
                            raise FitError(f"the stage {spec.name} that it needs has failed: {known.get('error')}")
                        (train or partial(train_here, leaving=leaving))(job, spec, store, report)
                    elif (store.fit_folder(spec.fit) / "checkpoint").is_dir():  # of one that was killed when all was written
                        _checkpoints(store, store.fit_folder(spec.fit) / "checkpoint", {})[1]()
        except (FitError, RequestError) as error:
            _fail(store, job.name, failures.of(job, error))
            progress.end()
            return Outcome(failed=max(wanted, 1))
        except Stopped:  # it is left out of the choice, and nothing has failed
            store.forget_failure(job.name)
            progress.end()
            return outcome
        except Preempted:
            progress.end()
            raise
        store.forget_failure(job.name)
        mirror = tracking.resume(job, store)
        done = store.done({evaluation for _, _, evaluations in job.entries for evaluation, _ in evaluations})
        for baseline, arm, evaluations in job.entries:
            pending = [(evaluation, setting) for evaluation, setting in evaluations if evaluation not in done]
            if not pending:
                continue
            ready: Ready | None = None
            data = snapshot.at_hand(job.snapshot, store)
            for evaluation, setting in pending:
                if leaving():
                    mirror.finish()
                    progress.end()
                    raise Preempted(f"left before evaluation {evaluation}")
                try:
                    if ready is None:
                        ready = Ready(job, lay_out(job.tasks.get(evaluation, job.task), data, job.fold), baseline, store)
                    record = ready.evaluate(evaluation, arm, setting)
                except Exception as error:  # a baseline is anybody's code: one bad evaluation stops no other
                    own = {"task": job.tasks.get(evaluation, job.task)["name"], "arm": arm, "setting": setting}
                    _fail(store, evaluation, failures.of(job, error) | own)
                    outcome.failed += 1
                else:
                    store.forget_failure(evaluation)
                    mirror.evaluation(record)
                    outcome.made += 1
                progress.tell(evaluations=outcome.made + outcome.failed)
                if time.monotonic() - told >= REPORT_EVERY:
                    told = time.monotonic()
                    report({"evaluations": float(outcome.made + outcome.failed)})
        mirror.finish()
        progress.end()
    return outcome


def train_here(
    job: Job,
    spec: StageSpec,
    store: Store,
    report: Report = lambda _: None,
    *,
    rank: int = 0,
    world: int = 1,
    leaving: Leaving = lambda: False,
    hardware: dict[str, Any] | None = None,
) -> None:
    """Train one stage in this process, one of ``world``, and write the fit to the store.

    Args:
        job: Whose stage it is.
        spec: The stage.
        store: Where the fit and its checkpoints go; shared by all ranks.
        report: Called on every rank after each epoch, with ``epoch`` and the losses by name; where the fit may be stopped early, at a
            ``rung`` with the mean validation ``loss``, too, and when it returns, what is to become of the fit is in the store.
        rank, world: Of this process in its group.
        leaving: Whether this process has been told to leave; where one of a group has, all do.
        hardware: Of the whole group: on how many ``nodes`` it lies and on which ``gpus``; None where it is this process alone.

    Raises:
        FitError: The fit cannot go on.
        Preempted: It was told to leave; a checkpoint is kept.
        Stopped: Others do better.
    """
    bench = lay_out(job.task, snapshot.at_hand(job.snapshot, store), job.fold)
    folder = store.fit_folder(spec.fit)
    mirror = tracking.start(job, spec, store) if rank == 0 else tracking.Mirror(None)

    progress = Progress(job, store)
    stop = job.stop if spec is job.stages[-1] else None
    steps = stop.rungs(int(spec.trainer["epochs"])) if stop else ()

    def tell(metrics: dict[str, float]) -> None:
        mirror.epoch(metrics)
        if rank == 0:
            progress.epoch(spec.name, int(spec.trainer["epochs"]), metrics)
        if stop is None or (rung := int(metrics["epoch"])) not in steps:
            report(metrics)
            return
        loss = rungs.loss_of(metrics)
        if loss is None:
            raise FitError(f"the stage {spec.name} has no loss on the validation part, so nothing says when to stop it (tune.stop)")
        report({**metrics, "rung": float(rung), "loss": loss})
        if rungs.read(store, spec.fit, stop).stopped:
            raise Stopped(f"stopped after epoch {rung}")

    told = {"rank": rank, "world": world, "on_report": tell, "leaving": leaving}
    context, clear = _checkpoints(store, folder / "checkpoint", told)
    try:
        fitted = training.fit(
            _stage(spec),
            bench.train,
            bench.validation,
            targets=bench.task.info.learned,
            classes=bench.task.classes,
            trainer=spec.trainer,
            weighting=instantiate(spec.weighting) if spec.weighting else _Sum(),
            seed=spec.seed,
            context=context,
            previous=_previous(job, spec, bench, store),
        )
    except Preempted:
        mirror.finish()
        raise
    except Stopped:
        mirror.finish()
        clear()
        raise
    if rank != 0:
        return
    if world > 1:  # a group's processes end here; alone, the evaluations go to the same run
        mirror.finish()
    training.save_weights(fitted.state, folder / "weights.safetensors")
    store.push(folder / "weights.safetensors")
    history = json.dumps(fitted.history, indent=1).encode()
    store.write(folder / "history.json", history)
    store.finish_fit(
        spec.fit,
        {
            "fit": spec.fit,
            "stage": spec.name,
            "config": spec.config,
            "weighting": spec.weighting,
            "trainer": spec.trainer,
            "previous": job.stages[job.stages.index(spec) - 1].fit if job.stages.index(spec) else None,
            "task": bench.task.info.name,
            "data": bench.snapshot.fingerprint,
            "fold": job.fold,
            "seed": spec.seed,
            "guard": bench.proof,
            "selection": spec.trainer["selection"],
            "selected_epoch": fitted.selected_epoch,
            "epochs": fitted.epochs,
            "steps": fitted.steps,
            "seconds": fitted.seconds,
            "peak_memory": fitted.peak_memory,
            "working_memory": fitted.working_memory,
            "world_size": world,
            "hardware": hardware or provenance.used(bool(spec.trainer["resources"]["gpus"])),
            "weights": identity.address_of_file(folder / "weights.safetensors"),
            "history": hashlib.sha256(history).hexdigest(),
            "sources": provenance.sources(spec.config["_target_"]),
            "environment": provenance.environment(),
            "written": now(),
        },
    )
    clear()  # only what is half done needs them


def _checkpoints(store: Store, folder: Path, told: dict[str, Any]) -> tuple[training.Local, Callable[[], None]]:
    """What keeps the checkpoints of a fit, and what removes them."""
    if not store.elsewhere:
        return training.Local(folder, **told), lambda: shutil.rmtree(folder, ignore_errors=True)
    from harness import checkpoint_elsewhere

    kept = checkpoint_elsewhere.Kept(folder, store.elsewhere, **told)  # type: ignore[arg-type]  # the one that there is

    def clear() -> None:
        kept.clear()
        shutil.rmtree(folder, ignore_errors=True)

    return kept, clear


class Ready:
    """A fitted baseline on one split, ready to answer any number of settings from embeddings made once."""

    def __init__(self, job: Job, bench: Bench, baseline: Config, store: Store) -> None:
        self.job, self.bench, self.store, self.config = job, bench, store, baseline
        self.device = torch.device("cuda" if torch.cuda.is_available() and job.resources.get("gpus", 0) else "cpu")
        torch.set_num_threads(max(1, int(job.resources.get("cpus", 1))))
        torch.manual_seed(job.seed)
        arguments = {key: value for key, value in baseline.items() if key not in plan.BASELINE_FACTS}
        self.baseline: Baseline = instantiate(arguments)
        self.stages: list[tuple[Stage, torch.nn.Module]] = []
        for spec in job.stages:
            self.stages.append(_fitted(spec, bench, _previous(job, spec, bench, store), store, self.device))
        self.fits = [known for spec in job.stages if (known := store.fit(spec.fit)) is not None]
        self._embeddings: dict[str, np.ndarray] = {}
        self._thumbnails: dict[str, np.ndarray] = {}

    def encode(self, data: Data, part: str) -> np.ndarray:
        """``(n, d)`` float32, made once a fit and part: kept in memory, and on disk for later runs."""
        if part not in self._embeddings:
            fits = (spec.fit for spec in self.job.stages)
            learned = [(fit, *fitted) for fit, fitted in zip(fits, self.stages, strict=True) if not fitted[0].on_embeddings]
            if learned:
                fit, stage, module = learned[-1]
                self._embeddings[part] = embeddings(self.store, fit, stage, module, data, part, self.device)
            else:
                self._embeddings[part] = training.embed(self.baseline.encode, data.frames, device=self.device)
        return self._embeddings[part]

    def thumbnails(self, part: str) -> np.ndarray:
        if part not in self._thumbnails:
            self._thumbnails[part] = frame_cache.thumbnails(self.bench.asked[part].data.frames)
        return self._thumbnails[part]

    def predict(self, setting: Setting) -> pl.DataFrame:
        """The predictions frame of one setting, targets beside what was predicted: of the test part, unless ``part`` says validation."""
        bench = self.bench
        part, setting = tuning.split_setting(setting)
        asked = bench.asked[part]
        test = asked.data.samples.select("sample", "clip", "subject", "frame")
        by_looks = setting.get("support", {}).get("selection") == "kmeans"
        thumbnails = self.thumbnails(part) if by_looks else np.zeros((test.height, 0), np.float32)
        support = bench.task.support(test, setting, thumbnails)
        predicted = self._ask(part, support, setting)
        if setting.get("threshold") == "validation":
            predicted |= self._at_thresholds(predicted, setting)
        columns = [*asked.targets.drop("sample").iter_columns(), *_columns(predicted, bench.task, test.height)]
        frame = test.with_columns(support=pl.Series(support)).hstack(columns)
        return frame.with_columns(nearest_subject=self._nearest_subject(part)) if bench.task.info.retrieval else frame

    def _nearest_subject(self, part: str) -> pl.Series:
        """The subject of the frame most like each frame among those of other clips; null where the baseline has no embeddings."""
        data = self.bench.asked[part].data
        samples = data.samples
        if not self.stages and type(self.baseline).encode is Baseline.encode:
            return pl.Series([None] * samples.height, dtype=pl.String)
        found = retrieval.nearest(self.encode(data, part), samples["clip"].to_numpy())
        return samples["subject"].gather(pl.Series(found).replace(-1, None))

    def query(self, part: str, support: np.ndarray, setting: Setting) -> Query:
        """A part without labels, and those of the support, as the baseline sees them."""
        task, asked = self.bench.task, self.bench.asked[part]
        numeric = [target for target in task.info.targets if target != "expression"]
        return Query(
            test=asked.data,
            support=support,
            labels={target: asked.targets[target].cast(pl.Float32).fill_null(math.nan).to_numpy()[support] for target in numeric},
            setting=setting,
            targets=task.info.targets,
            classes=task.classes,
            train=self.bench.train,
            modules=tuple(module for _, module in self.stages),
            device=self.device,
            encoder=self.encode,
            part=part,
        )

    def pictures(self, setting: Setting) -> dict[str, bytes]:
        """What the baseline draws of the part that is scored, without its labels, by the name of the file."""
        part, setting = tuning.split_setting(setting)
        nothing = np.zeros(self.bench.asked[part].targets.height, dtype=bool)
        with torch.inference_mode():
            return self.baseline.pictures(self.query(part, nothing, setting))

    def _ask(self, part: str, support: np.ndarray, setting: Setting) -> dict[str, np.ndarray]:
        """What the baseline predicts of a part without labels, given those of the support."""
        with torch.inference_mode():
            return self.baseline.predict(self.query(part, support, setting))

    def _at_thresholds(self, predicted: Mapping[str, np.ndarray], setting: Setting) -> dict[str, np.ndarray]:
        """The probabilities of action units, moved so that 0.5 is the threshold that is best on the validation part.

        Raises:
            RequestError: There is no validation part.
        """
        asked = self.bench.asked["validation"]
        if not asked.targets.height:
            remedy = "set task.validation to a share above 0"
            raise RequestError("no validation part to choose thresholds on", where="evaluate.threshold", remedy=remedy)
        found = self._ask("validation", np.zeros(asked.targets.height, dtype=bool), setting)
        labelled = Data(asked.targets, asked.data.frames)
        aus = [target for target in self.bench.task.info.targets if kind_of(target) == "occurrence"]
        return {au: thresholds.moved(predicted[au], thresholds.best(labelled.labels(au), found[au])) for au in aus}

    @cached_property
    def came_from(self) -> str:
        """The address of what its evaluations have in common of where they came from, which is in the store by then."""
        targets = [self.bench.config["_target_"], self.config["_target_"], *(spec.config["_target_"] for spec in self.job.stages)]
        return self.store.put(
            {
                "environment": provenance.environment(),
                "sources": provenance.sources(*targets),
                "guard": self.bench.proof,
                "problems": self.bench.snapshot.problem_counts(),
                "fits": [known["fit"] for known in self.fits],
                "world_size": [known["world_size"] for known in self.fits],
                "hardware": [known.get("hardware") for known in self.fits],
                "versions": {"task": self.bench.task.info.version, "baseline": self.config["version"]},
                "baseline": self.config,
                "task": {key: value for key, value in self.bench.config.items() if key != "root"},
            }
        )

    def evaluate(self, evaluation: str, arm: str, setting: Setting) -> dict[str, Any]:
        """Predict, score and write one evaluation: predictions first, then the record that names them."""
        started = time.perf_counter()
        predictions = self.predict(setting)
        score = guarded_score(self.bench.task, predictions)
        path, sha256 = self.store.write_predictions(evaluation, predictions)
        fit_seconds = sum(known["seconds"] for known in self.fits)
        seconds = time.perf_counter() - started
        gpus = float(self.job.resources.get("gpus", 0)) * int(self.job.resources.get("workers", 1))
        info = self.bench.task.info
        record = {
            "evaluation": evaluation,
            "fit": self.job.name,
            "task": info.name,
            "task_version": info.version,
            "protocol": tuning.protocol_of(info, setting),
            "dataset": info.dataset,
            "synthetic": self.bench.snapshot.synthetic,
            "data": self.bench.snapshot.fingerprint,
            "primary": info.primary,
            "baseline": self.config["name"],
            "baseline_version": self.config["version"],
            "arm": arm,
            "control": bool(self.config.get("control")),
            "fold": self.job.fold,
            "seed": self.job.seed,
            "setting": identity.canonical(setting),
            **scored(score.metrics, info.primary),
            "labels_used": int(predictions["support"].sum()),
            "n_samples": predictions.height,
            "n_clips": predictions["clip"].n_unique(),
            "n_subjects": predictions["subject"].drop_nulls().n_unique(),
            "selection": tuning.selected(self.fits[-1]["selection"] if self.fits else "none", self.job.draws.get(evaluation)),
            "seconds": seconds,
            "fit_seconds": fit_seconds,
            "gpu_seconds": gpus * (seconds + fit_seconds),
            "peak_memory": max([known["peak_memory"] for known in self.fits], default=0),
            "predictions": path,
            "sha256": sha256,
            "provenance": self.came_from,
            "written": now(),
        }
        self.store.write_record(record, score.units)
        return record


def embeddings(store: Store, fit: str, stage: Stage, module: torch.nn.Module, data: Data, part: str, device: torch.device) -> np.ndarray:
    """Embeddings of one part by one fit, from disk where they are already there."""
    rows = identity.address([part, data.samples.height, identity.address_of_frame(data.samples.select("sample"))])
    kept = store.embeddings(fit, rows)
    if kept is not None:
        with contextlib.suppress(ValueError, EOFError):
            found: np.ndarray = np.load(io.BytesIO(kept), allow_pickle=False)
            if len(found) == data.samples.height:
                return found
    made = training.embed(lambda frames: stage.encode(module, frames), data.frames, device=device)
    buffer = io.BytesIO()
    np.save(buffer, made, allow_pickle=False)
    store.keep_embeddings(fit, rows, buffer.getvalue())
    return made


class _Sum(Weighting):
    """The weighting of a stage whose config names none."""

    def forward(self, losses: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        return torch.stack(list(losses.values())).sum()


def _stage(spec: StageSpec) -> Stage:
    stage: Stage = instantiate({key: value for key, value in spec.config.items() if key not in ("name", "version")})
    return stage


def _fitted(spec: StageSpec, bench: Bench, previous: Previous | None, store: Store, device: torch.device) -> tuple[Stage, torch.nn.Module]:
    stage = _stage(spec)
    stage.setup(bench.train, bench.validation, bench.task.info.learned, bench.task.classes, previous)
    state = training.load_weights(store.file(spec.fit, "weights.safetensors"))
    return stage, training.load(stage, state).to(device)


def _previous(job: Job, spec: StageSpec, bench: Bench, store: Store) -> Previous | None:
    place = job.stages.index(spec)
    if place == 0:
        return None
    before = job.stages[place - 1]
    device = torch.device("cuda" if torch.cuda.is_available() and job.resources.get("gpus", 0) else "cpu")
    stage, module = _fitted(before, bench, _previous(job, before, bench, store), store, device)
    return Previous(
        stage,
        module,
        embeddings(store, before.fit, stage, module, bench.train, "train", device),
        embeddings(store, before.fit, stage, module, bench.validation, "validation", device),
    )


def _columns(predicted: Mapping[str, np.ndarray], task: Task, n: int) -> list[pl.Series]:
    """What a baseline returned as columns of the predictions frame.

    Raises:
        RequestError: A target is missing, or has not one value a sample.
        FitError: A value is not finite.
    """
    columns = []
    for target in task.info.targets:
        if target not in predicted:
            raise RequestError(f"no prediction of {target}", where="predict", remedy=f"return {', '.join(task.info.targets)}")
        values = np.asarray(predicted[target], dtype=np.float64)
        shape = (n, len(task.classes)) if target == "expression" else (n,)
        if values.shape != shape:
            raise RequestError(f"predictions of {target} have shape {values.shape}", where="predict", remedy=f"return {shape}")
        if not np.isfinite(values).all():
            raise FitError(f"{int((~np.isfinite(values)).sum())} predictions of {target} are not finite (predict)")
        if target == "expression":
            columns.append(pl.Series("expression_pred", [task.classes[place] for place in values.argmax(1)], dtype=pl.String))
            columns += [pl.Series(f"expression_p_{name}", values[:, place]) for place, name in enumerate(task.classes)]
        else:
            columns.append(pl.Series(f"{target}_pred", values))
    return columns


def _fail(store: Store, name: str, failure: dict[str, Any]) -> None:
    store.fail(name, failures.again(failure, store.failure(name)))
