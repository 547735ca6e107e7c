"""Scores kept beside times: a result that changes although no version did is seen like a slow-down."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.perf.history import Kept

ROUNDING = 1e-5
"""Difference of scores that other versions of libraries or another processor may make."""


def of_store(output: Path) -> tuple[list[dict[str, Any]], set[str | None]]:
    """The rows of all tables in a store, with intervals, and the commits they were made at.

    Args:
        output: The folder of a store.
    """
    import polars as pl

    from harness.publish import inventory

    shelf = inventory.read(output)
    rows, commits = [], set()
    for standing in shelf.standings:
        for row in standing.rows:
            facts = row.facts
            commits |= {shelf.store.provenance(name).get("environment", {}).get("commit") for name in row.records["provenance"].unique()}
            setting = {name: facts[name] for name in standing.settings if facts.get(name) is not None}
            folds = row.records.filter(pl.col("score").is_finite())
            rows.append(
                {
                    "task": standing.same["task"],
                    "task_version": standing.same["task_version"],
                    "protocol": standing.same["protocol"],
                    "data": str(standing.same["data"])[:16],
                    "arm": facts["arm"],
                    "baseline_version": facts["baseline_version"],
                    "setting": json.dumps(setting, sort_keys=True, default=str),
                    "metric": standing.primary,
                    "score": facts["score"],
                    "lo": facts["lo"],
                    "hi": facts["hi"],
                    "records": folds.height,
                    "samples": int(folds["n_samples"].sum() or 0),
                }
            )
    return rows, commits


def changed(kept: Sequence[Kept], old: str, new: str, rounding: float = ROUNDING) -> list[str]:
    """What differs between the scores of two commits of one machine, a line each; nothing where those of one are not kept."""
    lines = []
    for machine in sorted({one.machine for one in kept}):
        found = {one.commit: one for one in kept if one.machine == machine and one.scores}
        if old != new and old in found and new in found:
            lines += differences(found[old].scores, found[new].scores, rounding)
    return lines


def differences(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], rounding: float = ROUNDING) -> list[str]:
    """Rows of the same task, data, arm, setting and versions, of as many records, whose scores differ by more than rounding."""
    before = {_key(row): row for row in old}
    lines = []
    for row in new:
        was = before.get(_key(row))
        if (
            was is None
            or was["score"] is None
            or row["score"] is None
            or math.isclose(was["score"], row["score"], rel_tol=0, abs_tol=rounding)
        ):
            continue
        inside = was["lo"] is not None and was["lo"] <= row["score"] <= was["hi"]
        lines.append(
            f"{row['task']} v{row['task_version']}, {row['arm']} v{row['baseline_version']}, {row['setting']}: {row['metric']} "
            f"{was['score']:.5f} → {row['score']:.5f} ({'inside' if inside else 'outside'} the old interval), and no version did"
        )
    return lines


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("task", "task_version", "protocol", "data", "arm", "baseline_version", "setting", "metric", "records")
    return tuple(str(row.get(name)) for name in names)
