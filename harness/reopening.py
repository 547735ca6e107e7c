"""A finished evaluation made ready again from what the store and the cache hold of it, to look at how its baseline works."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import RequestError
from harness.evaluation import Ready, lay_out
from harness.plan import Job, StageSpec
from harness.store import Store


def pictures(record: Mapping[str, Any], store: Store, cache: Path) -> dict[str, bytes]:
    """What the baseline of an evaluation draws; see ``harness.baseline.Baseline.pictures``.

    Args:
        record: Of the evaluation.
        store: Where its fits are.
        cache: Where the snapshot of its data is.

    Returns:
        File name → bytes.

    Raises:
        RequestError: The baseline draws nothing, or something is gone that it was made of.
    """
    return reopen(record, store, cache).pictures(json.loads(record["setting"]))


def reopen(record: Mapping[str, Any], store: Store, cache: Path) -> Ready:
    """The fitted baseline of an evaluation on its split. Nothing is trained.

    Raises:
        RequestError: Its provenance, its data or one of its fits is gone.
    """
    name, again = record["evaluation"], "run its sweep again"
    known = store.provenance(record["provenance"])
    if not known:
        raise RequestError(f"the provenance of {name} is gone", where=str(store), remedy=again)
    folder = cache / "snapshots" / record["data"]
    if not (folder / "snapshot.json").is_file():
        raise RequestError(f"the frames of {name} are gone: {folder}", where="output_dir", remedy=again)
    stages = []
    for fit in known["fits"]:
        made = store.fit(fit)
        if made is None or not store.file(fit, "weights.safetensors").is_file():
            raise RequestError(f"the fit of {name} is gone: {store.fit_folder(fit)}", where="output_dir", remedy=again)
        stages.append(StageSpec(fit, made["stage"], made["config"], made["trainer"], made["weighting"], made["seed"]))
    resources = stages[-1].trainer["resources"] if stages else {}
    job = Job(record["fit"], known["task"], str(folder), record["fold"], record["seed"], tuple(stages), resources, {})
    return Ready(job, lay_out(known["task"], str(folder), record["fold"]), known["baseline"], store)
