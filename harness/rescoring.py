"""Scores from stored predictions: a new metric or a corrected protocol never re-runs a model. Imports no torch."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness import config, identity, plan, provenance, splits, tuning
from harness.errors import RequestError
from harness.provenance import now
from harness.samples import vote_columns
from harness.store import Store
from harness.task import Score, Task


def scored(metrics: Mapping[str, float], primary: str) -> dict[str, Any]:
    """The ``score`` and ``metrics`` fields of a record; what is undefined is null."""
    finite = {name: (float(value) if math.isfinite(value) else None) for name, value in metrics.items()}
    return {"score": finite[primary], "metrics": identity.canonical(finite)}


@dataclass(frozen=True)
class Rescored:
    """What became of a task's records: evaluations scored, scores that changed, and what went wrong, a line each."""

    done: int
    changed: int
    problems: list[str]


def rescore_task(name: str, store: Store, extra: Sequence[Path] = ()) -> Rescored:
    """Score every stored evaluation of a task again, with its YAML and code as they are now.

    What a sweep had set on top of the YAML (``task.folds=2``) is set again, so that a record keeps its protocol.

    Args:
        name: Of the task.
        store: Where predictions are and records go.
        extra: The user's config folders.

    Raises:
        RequestError: No such task.
    """
    now_set = config.compose([f"task={name}"], extra)
    tasks: dict[str, tuple[Task, dict[str, str]]] = {}
    changed = done = 0
    problems = []
    latest = store.records().filter(task=name).sort("written", "evaluation").unique("predictions", keep="last", maintain_order=True)
    for record in latest.iter_rows(named=True):
        known = store.provenance(record["provenance"])
        try:
            if not known:
                raise RequestError(f"the provenance of {record['evaluation']} is gone", remedy="run the sweep again")
            overrides = known["task"].get("overrides", {})
            key = identity.canonical(overrides)
            if key not in tasks:
                tasks[key] = _as_it_is_now(now_set, overrides)
            task, sources = tasks[key]
            score = guarded_score(task, store.read_predictions(record["predictions"], record["sha256"]))
        except RequestError as error:
            problems.append(str(error))
            continue
        info = task.info
        arguments = {key: value for key, value in known["baseline"].items() if key not in plan.BASELINE_FACTS}
        entry = plan.entry_identity(record["fit"], [record["baseline"], record["baseline_version"], arguments], info)
        fields = scored(score.metrics, info.primary)
        changed += fields["metrics"] != record["metrics"]
        done += 1
        scored_by = {"sources": known["sources"] | sources, "versions": known["versions"] | {"task": info.version}}
        store.write_record(
            {
                **record,
                **fields,
                "evaluation": plan.evaluation_identity(entry, record["setting"]),
                "task_version": info.version,
                "protocol": tuning.protocol_of(info, json.loads(record["setting"])),
                "primary": info.primary,
                "provenance": store.put(known | scored_by),
                "written": now(),
            },
            score.units,
        )
    return Rescored(done, changed, problems)


def guarded_score(task: Task, predictions: pl.DataFrame) -> Score:
    """A task's score, in which no support frame can count: unless the protocol says otherwise, their labels are taken away first.

    Args:
        task: What is measured.
        predictions: Of one evaluation.

    Raises:
        RequestError: A support frame was scored all the same.
    """
    if task.scores_support:
        return task.score(predictions)
    free = pl.when(~pl.col("support"))
    labels = [*task.info.targets, *vote_columns(predictions)]
    score = task.score(predictions.with_columns(free.then(pl.col(label)).alias(label) for label in labels))
    splits.guard_support(predictions, score.units)
    return score


def _as_it_is_now(composed: config.Config, overrides: Mapping[str, Any]) -> tuple[Task, dict[str, str]]:
    """The task, and the hash of the file that defines it."""
    one = copy.deepcopy(composed)
    for key, value in overrides.items():
        config.place(one, key, value)
    return plan.make_task(one["task"]), provenance.sources(one["task"]["_target_"])
