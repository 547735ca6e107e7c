"""A sweep as a table, one row an evaluation, before anything runs.

What the store does not hold of it is pending. Fits are found by identity, so two baselines that share a stage, or two
settings that differ only under ``evaluate``, share the fit.
"""

from __future__ import annotations

import copy
import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from harness import config as configs
from harness import failures, identity, rounds, splits, tuning
from harness import trainer as trainers
from harness.config import Config
from harness.errors import RequestError, did_you_mean
from harness.rounds import TRIES, Rounds
from harness.rungs import Halving
from harness.snapshot import Snapshot
from harness.store import Store, write_atomically
from harness.task import Setting, Split, Task, TaskInfo

SWEEP_KEYS = ("question", "base", "arms", "axes", "tune", "scale", "scales", "report")
SCALE_KEYS = ("overrides", "axes", "tune")
BASELINE_FACTS = ("name", "version", "control", "reads", "min_support", "seeded", "targets", "reconstruction", "stages")
"""Keys of a baseline's YAML that the engine reads; the others are its constructor's arguments."""

TASK_FACTS = ("root", "frames", "overrides", "controls")
"""The same of a task's node; ``overrides`` is what a sweep set on top of the task's YAML, so that rescoring can set it again."""

HOW = ("resources",)
"""Keys of ``trainer`` that say how a fit is run and not what is fitted; no part of an identity."""


@dataclass(frozen=True)
class Sweep:
    """A named experiment.

    Attributes:
        arms: Display name → overrides that make it.
        axes: Dotted key → values; a key that is a config group takes names.
        overrides: Shared by all arms.
        report: What is made of the table, by ``_target_``; None for the table alone.
        tune: How the arms are tuned; None where they are taken as they are.
    """

    name: str
    question: str
    arms: dict[str, list[str]]
    axes: dict[str, list[Any]]
    overrides: list[str]
    report: dict[str, Any] | None = None
    tune: tuning.Tune | None = None


def load_sweep(name: str, overrides: Sequence[str] = (), extra: Sequence[Path] = ()) -> Sweep:
    """``configs/sweep/NAME.yaml`` with what the command line changes.

    That is ``scale=``, ``arms=a,b``, an axis ``key=v1,v2``, ``tune.draws=`` (seed, search, stop), or any override.

    Raises:
        RequestError: No such sweep, scale or arm, or a key a sweep does not have.
    """
    file = next((path for folder in configs.config_dirs(extra) if (path := folder / "sweep" / f"{name}.yaml").is_file()), None)
    if file is None:
        remedy = did_you_mean(name, configs.available("sweep", extra))
        raise RequestError(f"no sweep is called {name!r}", where="harness sweep", remedy=remedy)
    try:
        text = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{file.name} is no YAML: {' '.join(str(error).split())}", where=f"sweep={name}") from None
    if not isinstance(text, dict):
        raise RequestError(f"{file.name} holds no mapping", where=f"sweep={name}", remedy=f"its keys are {', '.join(SWEEP_KEYS)}")
    for key in text:
        if key not in SWEEP_KEYS:
            raise RequestError(f"no such key: {key}", where=f"{file.name}", remedy=did_you_mean(str(key), SWEEP_KEYS))
    given = dict(_split_override(item) for item in overrides)
    scales = _mapping(text.get("scales"), f"{file.name}: scales")
    scale = str(given.pop("scale", text.get("scale") or ""))
    if scale and scale not in scales:
        remedy = did_you_mean(scale, scales) if scales else "this sweep has none"
        raise RequestError(f"no scale is called {scale!r}", where=f"scale={scale}", remedy=remedy)
    chosen = _mapping(scales.get(scale), f"{file.name}: scales.{scale}")
    for key in chosen:
        if key not in SCALE_KEYS:
            raise RequestError(f"no such key: {key}", where=f"{file.name}: scales.{scale}", remedy=did_you_mean(str(key), SCALE_KEYS))
    named = _mapping(text.get("arms"), f"{file.name}: arms") or {name: []}
    arms = {str(arm): _overrides(items, f"{file.name}: arms.{arm}") for arm, items in named.items()}
    if "arms" in given:
        wanted = given.pop("arms").strip("[]").split(",")
        for arm in wanted:
            if arm not in arms:
                raise RequestError(f"no arm is called {arm!r}", where=f"arms={','.join(wanted)}", remedy=did_you_mean(arm, arms))
        arms = {arm: arms[arm] for arm in wanted}
    axes = _mapping(text.get("axes"), f"{file.name}: axes") | _mapping(chosen.get("axes"), f"{file.name}: scales.{scale}.axes")
    if "baseline" in given.keys() - axes.keys() and all(
        any(_split_override(item)[0] == "baseline" for item in own) for own in arms.values()
    ):
        remedy = f"choose arms instead: arms={','.join(list(arms)[:2])}"
        raise RequestError("every arm has a baseline of its own", where=f"baseline={given['baseline']}", remedy=remedy)
    for key in axes.keys() & given.keys():
        axes[key] = _values(key, given.pop(key))
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise RequestError(f"an axis needs a list of values, got {values!r}", where=f"{file.name}: axes.{key}")
    budget = {key.removeprefix("tune."): given.pop(key) for key in list(given) if key.startswith("tune.")}
    tune = tuning.read(text.get("tune"), chosen.get("tune"), budget, arms=named, axes=axes, where=file.name)
    rest = [item for item in overrides if _split_override(item)[0] in given]
    base = _overrides(text.get("base"), f"{file.name}: base")
    shared = [*base, *_overrides(chosen.get("overrides"), f"{file.name}: scales.{scale}.overrides"), *rest]
    return Sweep(name, str(text.get("question") or ""), arms, axes, shared, text.get("report"), tune)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict | None):
        raise RequestError(f"{value!r} is no mapping", where=where)
    return {str(key): item for key, item in (value or {}).items()}


def _overrides(value: Any, where: str) -> list[str]:
    if not isinstance(value, list | None) or not all(isinstance(item, str) for item in value or ()):
        raise RequestError(f"{value!r} is no list of overrides", where=where, remedy="write it as [key=value, …]")
    return value or []


def _values(key: str, text: str) -> list[Any]:
    """The values of an axis as the command line gives them, ``0,1`` or ``[0, 1]``."""
    try:
        values: list[Any] = yaml.safe_load(f"[{text.removeprefix('[').removesuffix(']')}]")
    except yaml.YAMLError:
        raise RequestError(f"{text!r} is no list of values", where=f"{key}={text}", remedy=f"write it as {key}=1,2") from None
    return values


def single(overrides: Sequence[str], extra: Sequence[Path] = ()) -> Sweep:
    """A sweep of one: the config the overrides make by its task's whole protocol, and beside it the controls that its task names.

    All folds of the task, unless ``fold=1`` or ``fold=0,2`` says which; ``seed=0,1,2`` takes several too, as does all under ``evaluate``.

    Raises:
        RequestError: As ``config.compose``.
    """
    given = dict(_split_override(item) for item in overrides)
    several = [key for key, text in given.items() if key in ("fold", "seed") or (key.startswith("evaluate.") and "," in text)]
    axes: dict[str, list[Any]] = {key: _values(key, given[key]) for key in several}
    overrides = [item for item in overrides if _split_override(item)[0] not in axes]
    composed = configs.compose(overrides, extra)
    if "fold" not in axes:
        axes["fold"] = list(range(make_task(composed["task"]).folds))
    chosen, task = composed["baseline"]["name"], composed["task"]["name"]
    own = [item for item in overrides if _split_override(item)[0].lstrip("+~").rpartition("@")[2].split(".")[0] == "baseline"]
    controls = {name: [f"baseline={name}"] for name in composed["task"].get("controls") or [] if name != chosen}
    shared = [item for item in overrides if item not in own]
    named = own if any(item.startswith("baseline=") for item in own) else [f"baseline={chosen}", *own]
    return Sweep(f"{chosen}-on-{task}", "", {chosen: named, **controls}, axes, shared)


@dataclass(frozen=True)
class StageSpec:
    """One fit before it runs: all a worker needs to train it."""

    fit: str
    name: str
    config: Config
    trainer: Config
    weighting: Config | None
    seed: int


@dataclass
class Job:
    """What one trial does: train one fit (none for a control) and make its evaluations.

    Attributes:
        name: The fit's identity, or that of the inputs where nothing is trained.
        stages: The chain of fits, the one to train last; empty for controls.
        task: Of the training, and of the evaluations that ``tasks`` does not name.
        entries: Baseline config, arm and evaluations (identity, setting) that rest on the last fit.
        tasks: Evaluation → its task, where another one is measured on the same fit.
        draws: Evaluation → of how many draws its hyper-parameters are the best, where they were tuned.
        stop: By what rule its last stage may be stopped early; None where it may not.
        bracket: Among which fits, then.
    """

    name: str
    task: Config
    snapshot: str
    fold: int
    seed: int
    stages: tuple[StageSpec, ...]
    resources: Config
    tracker: Config
    entries: list[tuple[Config, str, list[tuple[str, Setting]]]] = field(default_factory=list)
    tasks: dict[str, Config] = field(default_factory=dict)
    draws: dict[str, int] = field(default_factory=dict)
    stop: Halving | None = None
    bracket: str = ""

    @property
    def tuning(self) -> bool:
        """Whether all its evaluations are of the validation part, to choose hyper-parameters by."""
        settings = [setting for _, _, evaluations in self.entries for _, setting in evaluations]
        return bool(settings) and all(setting.get("part") == "validation" for setting in settings)

    @property
    def needs(self) -> str | None:
        """The fit that must be there before."""
        return self.stages[-2].fit if len(self.stages) > 1 else None


PLAN: dict[str, Any] = {
    "evaluation": pl.String,
    "fit": pl.String,
    "arm": pl.String,
    "baseline": pl.String,
    "fold": pl.Int64,
    "seed": pl.Int64,
    "setting": pl.String,
    "task": pl.String,
    "why_not": pl.String,  # null, or why it cannot run
    "stand": pl.String,  # null, or impossible (a method cannot be evaluated so), waiting (for draws), failed (none can be chosen)
    "phase": pl.String,  # null, or of an arm that is tuned: tuning (scored on the validation part), refit
    "draw": pl.Int64,  # of a tuning fit; of a refit the one that was chosen
}


@dataclass(frozen=True)
class Plan:
    """Every evaluation of a sweep, and the jobs that would make them.

    Attributes:
        rows: Columns of :data:`PLAN`; an evaluation stands once. One whose draw is not chosen yet has neither a name nor a fit.
        jobs: By name.
        snapshots: Task config (canonical) → data.
        tasks: The same → the task.
        tries: Columns of :data:`TRIES`, one row a fit that is tuned.
    """

    sweep: Sweep
    rows: pl.DataFrame
    jobs: dict[str, Job]
    snapshots: dict[str, Snapshot]
    tasks: dict[str, Task]
    tries: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TRIES))

    def missing(self, store: Store) -> pl.DataFrame:
        """The rows that can be made and have no record; a draw that was stopped early cannot."""
        done = pl.DataFrame({"evaluation": sorted(store.done())}, schema={"evaluation": pl.String})
        stopped = self.tries.filter(pl.col("stopped").is_not_null()).select(fit=pl.col("fits").list.last()).unique()
        possible = self.rows.filter(pl.col("why_not").is_null()).join(done, on="evaluation", how="anti", maintain_order="left")
        return possible.join(stopped, on="fit", how="anti", maintain_order="left")

    def pending(self, store: Store) -> pl.DataFrame:
        """The missing rows that are worth a try: what has failed often enough is left out (:mod:`harness.failures`)."""
        rows = self.missing(store)
        if rows.is_empty():
            return rows
        hopeless = [name for name, failure in store.failures().items() if failures.given_up(failure)]
        return rows.filter(~(pl.col("fit").is_in(hopeless) | pl.col("evaluation").is_in(hopeless)))


def make_task(node: Mapping[str, Any]) -> Task:
    """The task of a resolved config node."""
    task: Task = configs.instantiate({key: value for key, value in node.items() if key not in TASK_FACTS})
    return task


def measured(one: Config, set_by_hand: Sequence[str]) -> Config:
    """The task of a composed config with, as ``overrides``, what was set on top of its YAML."""
    given = {dotted: value for dotted in set_by_hand if _of_task(dotted) and (value := configs.at(one, dotted)) is not None}
    node: Config = one["task"] | {"overrides": given}
    return node


_splits: dict[tuple[str, str, int], tuple[pl.DataFrame, Split, dict[str, Any]]] = {}


def selected(task: Task, node: Mapping[str, Any], snapshot: Snapshot, fold: int) -> tuple[pl.DataFrame, Split, dict[str, Any]]:
    """The samples a task uses (with their place in the snapshot as ``row``), one fold's split of them, and the guard's proof.

    The driver plans with it and the worker trains with it, so both see the same split.

    Raises:
        RequestError: No such fold, or the guard found a leak.
    """
    key = (identity.address(node), str(snapshot.folder), fold)
    if key not in _splits:
        if not 0 <= fold < task.folds:
            remedy = f"{task.info.name} has folds 0 to {task.folds - 1}"
            raise RequestError(f"fold {fold} is not there", where=f"fold={fold}", remedy=remedy)
        rows = task.select(snapshot.samples.with_row_index("row"))
        if rows.is_empty():
            what = f"no sample of {snapshot.root} is labelled for {task.info.name}"
            raise RequestError(what, where="task.root", remedy=f"it needs {', '.join(task.info.targets)}")
        labels = identity.address_of_frame(rows.drop("row", "image", "box", "landmarks"))  # as the protocol defines them
        sources = [found and found[1] for found in map(identity.source_of, (node["_target_"], "harness.splits.guard"))]
        protocol = {name: value for name, value in node.items() if name not in TASK_FACTS}
        kept = snapshot.folder / "splits" / f"{identity.address([labels, protocol, fold, sources])}.parquet"
        found = _read_split(kept)
        if found is None:
            digests = snapshot.frames.digests[rows["row"].to_numpy()]
            split = task.split(rows.drop("row"), fold)
            split, proof = splits.guard(rows, digests, split, group=task.info.group, duplicates=node.get("duplicates", "refuse"))
            found = split, proof | {"not_used": snapshot.samples.height - rows.height, "labels": labels}
            _write_split(kept, *found)
        _splits[key] = rows, *found
    return _splits[key]


def _write_split(path: Path, split: Split, proof: Mapping[str, Any]) -> None:
    """Beside the snapshot: folds come from scikit-learn, whose import takes longer than reading a finished sweep may."""
    parts = [pl.DataFrame({"part": part, "row": getattr(split, part)}, {"part": pl.String, "row": pl.Int64}) for part in splits.PARTS]
    buffer = io.BytesIO()
    rows, facts = pl.concat(parts), {"name": split.name, "proof": identity.canonical(proof)}
    rows.write_parquet(buffer, metadata=facts | {"address": identity.address([facts, identity.address_of_frame(rows)])})
    write_atomically(path, buffer.getvalue())


def _read_split(path: Path) -> tuple[Split, dict[str, Any]] | None:
    try:
        facts = pl.read_parquet_metadata(path)
        parts = pl.read_parquet(path)
        told = {name: facts[name] for name in ("name", "proof")}
        if facts.get("address") not in (None, identity.address([told, identity.address_of_frame(parts)])):
            raise ValueError("it is not what was written")
        return Split(facts["name"], *(parts.filter(part=part)["row"].to_numpy() for part in splits.PARTS)), json.loads(facts["proof"])
    except (OSError, KeyError, ValueError, pl.exceptions.PolarsError):
        return None


def build(
    sweep: Sweep,
    *,
    extra: Sequence[Path] = (),
    snapshot_of: Callable[[Config, Config], Snapshot],
    store: Store | None = None,
) -> Plan:
    """Every evaluation of a sweep.

    Where a sweep is tuned, each arm that trains stands twice: with its draws, each fitted once and scored on the validation part by the
    mean over the settings of the sweep; and with the best of them, fitted anew with every seed and scored on the test part. Until all
    draws of an arm (on one fold, under one value of every other axis) are scored or have failed, its second half waits.

    Args:
        sweep: What varies.
        extra: The user's config folders.
        snapshot_of: Task node and whole config → the data, read and decoded.
        store: Where the scores of draws are read, and beside which the draws are kept; only a sweep that is tuned needs it.

    Raises:
        RequestError: A key, name or value that is not there, a fold that is not, a leak between the parts of a split.
    """
    known_groups = set(configs.groups(extra))
    group_axes = {key: values for key, values in sweep.axes.items() if key in known_groups}
    fit_axes = {key: values for key, values in sweep.axes.items() if key not in group_axes and not key.startswith("evaluate.")}
    evaluate_axes = {key: values for key, values in sweep.axes.items() if key.startswith("evaluate.")}
    if sweep.tune and store is None:
        raise TypeError("a sweep that is tuned is planned with its store")
    builder = Builder(snapshot_of)
    tuner = Rounds(builder, sweep.tune, store) if sweep.tune and store else None
    optional = [key for key in (*fit_axes, *(sweep.tune.space if sweep.tune else ())) if key.startswith(rounds.OPTIONAL)]
    unknown: dict[str, Config] = {key: {} for key in optional}
    for arm, overrides in sweep.arms.items():
        for names in itertools.product(*group_axes.values()):
            chosen = [f"{group}={name}" for group, name in zip(group_axes, names, strict=True)]
            composed = configs.compose([*sweep.overrides, *overrides, *chosen], extra)
            _check_whole(composed)
            label = " ".join([arm, *map(str, names)])
            builder.ask(_settings(composed, evaluate_axes))
            own = {key: values for key, values in fit_axes.items() if not key.startswith(rounds.OPTIONAL) or configs.has(composed, key)}
            trains = bool(composed["baseline"].get("stages"))
            unknown = {key: composed if trains or not seen else seen for key, seen in unknown.items() if not configs.has(composed, key)}
            set_by_hand = [*(_split_override(item)[0].lstrip("+") for item in [*sweep.overrides, *overrides]), *own]
            tuned = tuner and tuner.space(arm, composed)
            if tuned:
                own = {key: values for key, values in own.items() if key != "seed"}
            for values in itertools.product(*own.values()):
                one = copy.deepcopy(composed)
                for key, value in zip(own, values, strict=True):
                    configs.place(one, key, value)
                varied = {k: v for k, v in zip(own, values, strict=True) if k not in ("fold", "seed") and len(own[k]) > 1}
                name = " ".join([label, *map(str, varied.values())])
                if tuner and tuned:
                    axes = dict(zip(group_axes, names, strict=True)) | varied
                    tuner.add(one, name, set_by_hand, tuned, fit_axes.get("seed", [composed["seed"]]), axes)
                else:
                    builder.add(one, name, set_by_hand)
    for key, seen in unknown.items():
        configs.place(copy.deepcopy(seen), key, None)  # refuses what no arm has
    rows = pl.DataFrame(list(zip(*builder.rows, strict=True)), schema=PLAN, orient="col")
    tries = pl.DataFrame(tuner.tries if tuner else [], schema=TRIES, orient="row")
    return Plan(sweep, rows, builder.jobs, builder.snapshots, builder.tasks, tries)


@dataclass(frozen=True)
class Added:
    """What was asked of one config: its task, its fits, and its evaluations with why they cannot be."""

    task: Task
    stages: tuple[StageSpec, ...]
    fit: str
    evaluations: list[tuple[str, str | None]]


class Builder:
    """Gathers a plan, one fit with its evaluations after the other."""

    def __init__(self, snapshot_of: Callable[[Config, Config], Snapshot]) -> None:
        self._snapshot_of = snapshot_of
        self._seen: set[str] = set()
        self._settings: Sequence[Config] = ()
        self._asked: dict[tuple[str, bool], list[tuple[str, Setting, str | None]]] = {}
        self.rows: list[tuple[Any, ...]] = []
        self.jobs: dict[str, Job] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.tasks: dict[str, Task] = {}

    def ask(self, settings: Sequence[Config]) -> None:
        """What the configs that follow are evaluated under."""
        self._settings, self._asked = settings, {}

    def add(
        self, one: Config, arm: str, set_by_hand: Sequence[str], *, phase: str | None = None, draw: int | None = None, draws: int = 0
    ) -> Added:
        """The evaluations of one config, a row each, unless an equal one is there.

        Args:
            one: Resolved.
            arm: Its display name.
            set_by_hand: The dotted keys that command line, sweep and arm set, whatever the YAMLs say.
            phase, draw: As in :data:`PLAN`. While it is tuned, what is scored is the validation part.
            draws: Among how many the draw of a refit was chosen.

        Returns:
            What it is made of, rows that were there among it.
        """
        given, node, task, snapshot = self._task(one, set_by_hand)
        baseline, fold = one["baseline"], _count(one, "fold")
        seed = _count(one, "seed") if baseline.get("seeded", True) else 0
        rows, split, proof = selected(task, node, snapshot, fold)
        on_validation = phase == "tuning"
        if on_validation:
            _check_validation(task, rows, split, fold)
        stages, last, entry = chain(one, list(given), task, data=snapshot.fingerprint, proof=proof, seed=seed)
        evaluations: list[tuple[str, Setting]] = []
        all_of_it: list[tuple[str, str | None]] = []
        for text, setting, why_not in self._canonical(task, node, baseline, on_validation):
            evaluation = evaluation_identity(entry, text)
            all_of_it.append((evaluation, why_not))
            if evaluation in self._seen or (on_validation and why_not):
                continue
            self._seen.add(evaluation)
            stand = why_not and "impossible"
            self.rows.append((evaluation, last, arm, baseline["name"], fold, seed, text, task.info.name, why_not, stand, phase, draw))
            if why_not is None:
                evaluations.append((evaluation, setting))
        for depth in range(1, len(stages)):
            self._job(stages[depth - 1].fit, stages[:depth], node, one, seed, snapshot)
        job = self._job(last, stages, node, one, seed, snapshot)
        if evaluations:
            job.entries.append((baseline, arm, evaluations))
        if job.task != node:
            job.tasks |= {evaluation: node for evaluation, _ in evaluations}
        if draws:
            job.draws |= {evaluation: draws for evaluation, _ in evaluations}
        return Added(task, tuple(stages), last, all_of_it)

    def hold(
        self, one: Config, arm: str, set_by_hand: Sequence[str], *, phase: str, stand: str, why_not: str, draw: int | None = None
    ) -> None:
        """The rows of a draw that is not asked yet, or of a refit whose draw is not known: they have no names yet.

        Args:
            one, arm, set_by_hand: As of :meth:`add`.
            phase, draw, stand, why_not: As in :data:`PLAN`.
        """
        _, node, task, _ = self._task(one, set_by_hand)
        baseline, fold = one["baseline"], _count(one, "fold")
        seed = _count(one, "seed") if baseline.get("seeded", True) else 0
        for text, _, never in self._canonical(task, node, baseline, phase == "tuning"):
            name = identity.canonical([arm, fold, seed, text, task.info.name, task.info.protocol, draw])
            if name not in self._seen and not (phase == "tuning" and never):
                self._seen.add(name)
                said = (never, "impossible") if never else (why_not, stand)
                self.rows.append((None, None, arm, baseline["name"], fold, seed, text, task.info.name, *said, phase, draw))

    def _task(self, one: Config, set_by_hand: Sequence[str]) -> tuple[dict[str, Any], Config, Task, Snapshot]:
        """What of a config was set by hand, its task's node, its task and its data."""
        given = {dotted: value for dotted in set_by_hand if (value := configs.at(one, dotted)) is not None}
        node = measured(one, set_by_hand)
        key = identity.canonical(node)
        if key not in self.snapshots:
            self.snapshots[key] = self._snapshot_of(node, one)
            self.tasks[key] = make_task(node)
        return given, node, self.tasks[key], self.snapshots[key]

    def _canonical(self, task: Task, node: Config, baseline: Config, on_validation: bool) -> list[tuple[str, Setting, str | None]]:
        """The settings that differ for a baseline: canonical text, setting, and why it cannot be. The same for every fold and seed."""
        key = identity.canonical([node, baseline]), on_validation
        if key not in self._asked:
            reads = ("support", "threshold", *(baseline.get("reads") or ()))
            distinct: dict[str, Setting] = {}
            for evaluate in self._settings:
                setting = {name: value for name, value in task.setting(evaluate).items() if name in reads}
                setting = tuning.on_validation(setting) if on_validation else setting
                distinct[identity.canonical(setting)] = setting
            self._asked[key] = [(text, setting, _why_not(baseline, task, setting)) for text, setting in distinct.items()]
        return self._asked[key]

    def _job(self, name: str, stages: Sequence[StageSpec], node: Config, one: Config, seed: int, snapshot: Snapshot) -> Job:
        if name not in self.jobs:
            trainer = stages[-1].trainer if stages else one["trainer"]
            folder, resources = str(snapshot.folder), dict(trainer["resources"])
            self.jobs[name] = Job(name, node, folder, one["fold"], seed, tuple(stages), resources, one["tracker"])
        return self.jobs[name]


def chain(
    one: Config, given: Sequence[str], task: Task, *, data: str, proof: Mapping[str, Any], seed: int
) -> tuple[list[StageSpec], str, str]:
    """What is fitted for a config on one split, by name.

    Args:
        one: Resolved.
        given: Dotted keys that were set by hand; of the trainer, they go to every stage.
        task: Of the config.
        data: Its fingerprint.
        proof: Of the guard.
        seed: Of the fits.

    Returns:
        The stages (none of a control), the last fit's identity or that of the inputs where nothing is trained, and the entry's
        (:func:`entry_identity`).
    """
    baseline = one["baseline"]
    inputs = {
        "data": data,
        "labels": proof["labels"],
        "split": [proof["parts"][part]["sha256"] for part in splits.PARTS],
        "targets": task.info.learned,
        "classes": task.classes,
        "seed": seed,
    }
    stages: list[StageSpec] = []
    for name, stage in (baseline.get("stages") or {}).items():
        trainer = trainer_of(one, stage, given)
        trainers.read(trainer, f"baseline.stages.{name}.trainer" if stage.get("trainer") else "trainer")
        what = {key: value for key, value in trainer.items() if key not in HOW}
        own = {key: value for key, value in stage.items() if key not in ("trainer", "weighting")}
        before = stages[-1].fit if stages else None
        weighting = one.get("weighting") or stage.get("weighting")
        fit = identity.address({**inputs, "stage": own, "weighting": weighting, "trainer": what, "previous": before})
        stages.append(StageSpec(fit, name, own, trainer, weighting, seed))
    arguments = {key: value for key, value in baseline.items() if key not in BASELINE_FACTS}
    last = stages[-1].fit if stages else identity.address(inputs)
    return stages, last, entry_identity(last, [baseline["name"], baseline["version"], arguments], task.info)


def trainer_of(one: Config, stage: Config, given: Sequence[str]) -> Config:
    """The trainer of a stage: of the config, with the stage's own keys; what somebody set by hand goes to every stage all the same."""
    trainer = copy.deepcopy({**one["trainer"], **(stage.get("trainer") or {})})
    for dotted in given:
        if dotted.startswith("trainer."):
            _carry(one["trainer"], trainer, dotted.split(".")[1:])
    return trainer


def entry_identity(fit: str, entered: Sequence[Any], info: TaskInfo) -> str:
    """The address of what several settings share: a fit (or a control's inputs), what predicts from it, what is measured."""
    return identity.address([fit, entered, [info.name, info.version, info.protocol]])


def evaluation_identity(entry: str, setting: str) -> str:
    """The address of an evaluation: the entry, and the setting as canonical JSON."""
    return identity.address_of_text(entry + setting)


def _check_validation(task: Task, rows: pl.DataFrame, split: Split, fold: int) -> None:
    """Refuse to tune where nothing can be chosen by.

    Raises:
        RequestError: There is no validation part, or it has no label that is scored.
    """
    info, remedy = task.info, "set task.validation to a share above 0, or leave tune out of the sweep"
    if not len(split.validation):
        raise RequestError(f"{info.name} has no validation part on fold {fold}, so nothing can be tuned", where="tune", remedy=remedy)
    if info.taught or not rows[split.validation].select(pl.any_horizontal(pl.col(*info.targets).is_not_null())).to_series().any():
        what = f"{info.name} has no label of {', '.join(info.targets)} in its validation part, so nothing can be tuned"
        raise RequestError(what, where="tune", remedy="leave tune out of the sweep")


def _check_whole(composed: Config) -> None:
    for part, needed in {"task": ("_target_", "name", "root", "frames", "dataset"), "baseline": ("_target_", "name", "version")}.items():
        for key in needed:
            if not isinstance(composed.get(part), Mapping) or key not in composed[part]:
                raise RequestError(f"{part}.{key} is not set", where=f"the {part}'s YAML", remedy=f"a {part} has {', '.join(needed)}")


def _count(one: Config, key: str) -> int:
    value = one[key]
    if type(value) is not int or value < 0:  # a bool is an int, too
        raise RequestError(f"{key} is {value!r}", where=f"{key}={value}", remedy="give a whole number from 0 on")
    return value


def _of_task(dotted: str) -> bool:
    """Whether a key says something about a task that its predictions do not already hold."""
    return dotted.startswith("task.") and dotted.split(".")[1] not in TASK_FACTS


def _carry(source: Config, target: Config, path: Sequence[str]) -> None:
    """Copy what stands at a path of one tree to the same path of another."""
    for part in path[:-1]:
        source, target = source[part], target.setdefault(part, {})
    target[path[-1]] = source[path[-1]]


def _why_not(baseline: Config, task: Task, setting: Setting) -> str | None:
    predicts = baseline.get("targets")
    missing = [target for target in task.info.targets if predicts is not None and target not in predicts]
    if missing:
        return f"{baseline['name']} does not predict {', '.join(missing)}"
    size = setting.get("support", {}).get("size")
    given = size if isinstance(size, int) else int(bool(setting.get("support")))  # of a share, or of every k-th, at least one
    needed = baseline.get("min_support", 0)
    if given < needed and (given == 0 or isinstance(size, int)):
        return f"{baseline['name']} needs at least {needed} support frame{'s' if needed > 1 else ''}"
    return None


def _settings(composed: Config, axes: Mapping[str, Sequence[Any]]) -> list[Config]:
    """Every combination of the ``evaluate.…`` axes on one config."""
    settings = []
    for values in itertools.product(*axes.values()):
        holder = {"evaluate": copy.deepcopy(composed.get("evaluate") or {})}
        for key, value in zip(axes, values, strict=True):
            configs.place(holder, key, value)
        settings.append(holder["evaluate"])
    return settings


def flatten(frame: pl.DataFrame) -> pl.DataFrame:
    """The same frame with the ``setting`` JSON as columns of its own (``support.size``, ``anchor`` …), all text."""
    distinct = frame["setting"].unique(maintain_order=True).to_list()
    flat = [{name: str(value) for name, value in configs.leaves(json.loads(text))} for text in distinct]
    names = sorted({name for leaves in flat for name in leaves})
    table = pl.DataFrame(
        {"setting": distinct, **{name: [leaves.get(name) for leaves in flat] for name in names}},
        schema={"setting": pl.String, **dict.fromkeys(names, pl.String)},
    )
    return frame.join(table, on="setting", how="left", maintain_order="left")


def _split_override(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise RequestError(f"{item!r} is no override", where="command line", remedy="write it as key=value")
    return key.strip(), value.strip()
