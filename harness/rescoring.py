"""Scores from stored predictions: a new metric or a corrected protocol never re-runs a model. Imports no torch."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from typing import Any

from harness import identity, plan
from harness.config import Config
from harness.errors import RequestError
from harness.store import Store


def scored(metrics: Mapping[str, float], primary: str) -> dict[str, Any]:
    """The ``score`` and ``metrics`` fields of a record; what is undefined is null."""
    finite = {name: (float(value) if math.isfinite(value) else None) for name, value in metrics.items()}
    return {"score": finite[primary], "metrics": identity.canonical(finite)}


def now() -> str:
    """ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def rescore_task(node: Config, store: Store) -> tuple[int, int, list[str]]:
    """Score every stored evaluation of a task again.

    Args:
        node: The task's config as it is now.
        store: Where predictions are and records go.

    Returns:
        Evaluations scored, scores that changed, and what went wrong, a line each.
    """
    task = plan.make_task(node)
    done = changed = 0
    problems = []
    latest = store.records().filter(task=task.info.name).sort("written").unique("predictions", keep="last", maintain_order=True)
    for record in latest.iter_rows(named=True):
        try:
            score = task.score(store.read_predictions(record["predictions"], record["sha256"]))
        except RequestError as error:
            problems.append(str(error))
            continue
        provenance = store.provenance(record["provenance"])
        arguments = {key: value for key, value in provenance["baseline"].items() if key not in plan.BASELINE_FACTS}
        evaluation = plan.evaluation_identity(
            record["fit"], [record["baseline"], record["baseline_version"], arguments], task.info, json.loads(record["setting"])
        )
        fields = scored(score.metrics, task.info.primary)
        changed += fields["metrics"] != record["metrics"]
        info = {"task_version": task.info.version, "protocol": task.info.protocol, "primary": task.info.primary}
        store.write_record({**record, **info, **fields, "evaluation": evaluation, "written": now()}, score.units)
        done += 1
    return done, changed, problems
