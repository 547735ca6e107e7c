"""Numbers that papers report, from ``results/reported/DATASET.yaml``: shown in a block of their own, never ranked, never taken for ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from harness.errors import RequestError, did_you_mean
from harness.metrics import higher_is_better

HEADING = "Reported elsewhere, other protocols; not comparable row by row"

FOLDER = Path(__file__).parents[1] / "results" / "reported"
"""Beside the packages, in a checkout and where it is installed."""

TAGS = {"P": "the authors' own material", "S": "somebody else's table or summary"}
_KEYS: dict[str, Any] = {"method": str, "year": int, "tasks": list, "reported_as": dict, "protocol": str, "source": str, "tag": str}


@dataclass(frozen=True)
class Reported:
    """One number of somebody else's.

    Attributes:
        metric: By our name.
        value: On our scale: shares in 0..1.
        reported_as: As it is stated there, with its unit.
        tasks: Ours that are nearest to it.
        tag: One of :data:`TAGS`.
    """

    method: str
    year: int
    dataset: str
    tasks: tuple[str, ...]
    metric: str
    value: float
    reported_as: str
    protocol: str
    source: str
    tag: str
    notes: str


def load(folder: Path = FOLDER) -> list[Reported]:
    """Every reported number, in the order of the files.

    Raises:
        RequestError: A file or key that cannot be; both are named.
    """
    found: list[Reported] = []
    for file in sorted(folder.glob("*.yaml")):
        try:
            text = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RequestError(f"no YAML: {' '.join(str(error).split())}", where=str(file)) from None
        if not isinstance(text, dict) or set(text) != {"dataset", "entries"} or not isinstance(text["entries"], list):
            raise RequestError("it has other keys", where=str(file), remedy="its keys are dataset and entries")
        for number, entry in enumerate(text["entries"]):
            found += _entry(entry, str(text["dataset"]), f"{file}: entries[{number}]")
    seen: set[tuple[str, ...]] = set()
    for one in found:
        key = (one.method, one.dataset, one.metric, one.protocol)
        if key in seen:
            raise RequestError(f"{one.method} stands twice with {one.metric}", where=str(folder / f"{one.dataset}.yaml"))
        seen.add(key)
    return found


def of_task(task: str, folder: Path = FOLDER) -> pl.DataFrame:
    """The block of a task, by metric and method, so in no order of merit; all text, with protocol and source in each row."""
    rows = sorted((one for one in load(folder) if task in one.tasks), key=lambda one: (one.metric, one.method, one.protocol))
    columns = {
        "method": [one.method for one in rows],
        "year": [str(one.year) for one in rows],
        "metric": [one.metric for one in rows],
        "reported": [one.reported_as for one in rows],
        "protocol": [one.protocol for one in rows],
        "source": [one.source for one in rows],
        "read in": [TAGS[one.tag] for one in rows],
        "notes": [one.notes for one in rows],
    }
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def _entry(entry: Any, dataset: str, where: str) -> list[Reported]:
    if not isinstance(entry, Mapping):
        raise RequestError(f"{entry!r} is no entry", where=where, remedy=f"its keys are {', '.join(_KEYS)}")
    for key in entry:
        if key not in (*_KEYS, "notes"):
            raise RequestError(f"no such key: {key}", where=where, remedy=did_you_mean(str(key), (*_KEYS, "notes")))
    for key, kind in _KEYS.items():
        if type(entry.get(key)) is not kind or not entry[key]:
            raise RequestError(f"{key} is {entry.get(key)!r}", where=f"{where}.{key}", remedy=f"give a {kind.__name__} that is not empty")
    if entry["tag"] not in TAGS:
        raise RequestError(f"tag is {entry['tag']!r}", where=f"{where}.tag", remedy=f"only {' and '.join(TAGS)} may be shown")
    if not 1990 <= entry["year"] <= 2100:
        raise RequestError(f"year is {entry['year']}", where=f"{where}.year")
    return [
        Reported(
            method=entry["method"],
            year=entry["year"],
            dataset=dataset,
            tasks=tuple(map(str, entry["tasks"])),
            metric=str(metric),
            value=_value(str(metric), stated, f"{where}.reported_as.{metric}"),
            reported_as=stated,
            protocol=entry["protocol"],
            source=entry["source"],
            tag=entry["tag"],
            notes=str(entry.get("notes") or ""),
        )
        for metric, stated in entry["reported_as"].items()
    ]


def _value(metric: str, stated: Any, where: str) -> float:
    """``"62.77 %"`` or ``"0.29"`` on our scale, which the metric bounds."""
    if not re.fullmatch(r"(ccc|pcc|rmse|sagr|f1|accuracy|recall|icc|mse|mae|p)(_[a-z0-9]+)?", metric) or metric == "p":
        raise RequestError(f"no metric {metric!r}", where=where, remedy="give it by our name, as accuracy_expression or f1_au12")
    number = re.fullmatch(r"(-?\d+(?:\.\d+)?)( %)?", stated) if isinstance(stated, str) else None
    if number is None:
        raise RequestError(f"{stated!r} is no number as stated", where=where, remedy="write it as text: '62.77 %' or '0.29'")
    value = float(number[1]) / (100 if number[2] else 1)
    low = -1.0 if metric.startswith(("ccc", "pcc", "icc")) else 0.0
    high = 3.0 if metric == "p_mtl" else 1.0 if higher_is_better(metric) else 25.0
    if not low <= value <= high:
        raise RequestError(f"{metric} of {value:g}", where=where, remedy=f"it lies in {low:g}..{high:g}; is a % missing?")
    return value
