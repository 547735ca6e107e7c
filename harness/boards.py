"""Records → ranked tables of a sweep or a task, kept so that a finished sweep is shown again at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness import identity, leaderboard, tracking
from harness.config import instantiate
from harness.metrics import higher_is_better
from harness.publish.report import Board, Extra
from harness.store import Store, write_atomically
from harness.sweep import Prepared, records
from harness.task import TaskInfo

PARTS = "the score in parts"
"""The table of what stands beside the score; its columns are metrics (``harness.metrics``)."""

REPLICATES = ("fold", "seed", "support.draw")


@dataclass(frozen=True)
class Gathered:
    """A table, what its report adds, and the files where both lie."""

    board: Board
    extra: Extra
    written: tuple[Path, ...]


def gather(prepared: Prepared) -> list[Gathered]:
    """The tables of a sweep, one a task, protocol and dataset; computed anew only when a record has changed."""
    found = records(prepared)
    plan = prepared.plan
    out = []
    for part in found.partition_by(leaderboard.SAME, maintain_order=True):
        task = next(task for task in plan.tasks.values() if task.info.name == part["task"][0] and task.info.protocol == part["protocol"][0])
        shown = set(part["arm"])
        baselines = {arm: config for job in plan.jobs.values() for config, arm, _ in job.entries if arm in shown}
        gaps = plan.pending(prepared.store).filter(task=task.info.name).group_by("arm", maintain_order=True).len()
        notes = (
            *_protocol(part, task.info.protocol, task.info.note),
            *_reconstructions(baselines),
            *(f"{arm}: {n} evaluations are missing." for arm, n in gaps.iter_rows()),
        )
        title = f"{prepared.sweep.name} on {task.info.name}"
        environment = prepared.store.provenance(part["provenance"][0]).get("environment", {})
        facts = {
            "question": prepared.sweep.question,
            "command": prepared.command,
            "synthetic": part["synthetic"][0],
            "provenance": {
                "data": part["data"][0],
                "licence": task.info.licence,
                "citation": task.info.citation,
                **{name: value for name, value in environment.items() if name != "packages"},
                **environment.get("packages", {}),
            },
        }
        folder = prepared.output / "sweeps" / prepared.sweep.name / (task.info.name if len(found.unique(leaderboard.SAME)) > 1 else "")
        out.append(_gathered(part, prepared, title, task.info, notes, facts, folder))
    return out


def _reconstructions(baselines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is said of methods that are rebuilt from their papers, once for all arms of which it is true."""
    arms: dict[str, list[str]] = {}
    for arm, config in baselines.items():
        if config.get("reconstruction"):
            arms.setdefault(str(config["reconstruction"]).rstrip("."), []).append(arm)
    return [f"{', '.join(named)}: {text}." for text, named in arms.items()]


def of_task(store: Store, name: str) -> list[Board]:
    """The tables of a task over everything in a store, one a protocol, version and dataset."""
    from harness.plan import flatten

    found = flatten(store.records().filter(task=name))
    boards = []
    for part in found.partition_by(leaderboard.SAME, maintain_order=True):
        primary = part["primary"][0]
        table = rank(part, store.units(part["evaluation"]), primary=primary, higher_is_better=higher_is_better(primary))
        boards.append(Board(f"{name} v{part['task_version'][0]}", table, primary, tuple(_protocol(part, part["protocol"][0], "")), {}))
    return boards


def rank(part: pl.DataFrame, units: pl.DataFrame | None, *, primary: str, higher_is_better: bool = True) -> pl.DataFrame:
    """The leaderboard of records that may share a table, ranked inside each support."""
    settings = _settings(part)
    within = [name for name in settings if name.startswith("support.")]
    return leaderboard.leaderboard(
        part, units, primary=primary, settings=settings, within=within, over=REPLICATES, higher_is_better=higher_is_better
    )


def rows(part: pl.DataFrame) -> pl.DataFrame:
    """The rows of the leaderboard of records that may share a table, in its order: ``arm``, the settings, ``score``, ``evaluations``."""
    table = rank(part, None, primary=part["primary"][0], higher_is_better=higher_is_better(part["primary"][0]))
    key = ["arm", *_settings(part), "baseline", "baseline_version", "control", "selection"]
    named = part.sort("fold", "evaluation").group_by(key, maintain_order=True).agg(evaluations="evaluation")
    found = table.join(named, on=key, how="left", nulls_equal=True, maintain_order="left")
    return found.select("arm", *_settings(part), "score", "evaluations")


def protocol(part: pl.DataFrame) -> Sequence[str]:
    """What is measured by records that may share a table, in a line."""
    return _protocol(part, part["protocol"][0], "")


def rankings(part: pl.DataFrame) -> list[dict[str, float]]:
    """Method → score, a mapping for each support in which records that may share a table are ranked; what is not ranked is left out.

    An arm with several rows at one support is several methods, told apart by their settings.
    """
    table = rank(part, None, primary=part["primary"][0], higher_is_better=higher_is_better(part["primary"][0])).filter(
        pl.col("rank").is_not_null()
    )
    settings = [name for name in _settings(part) if name in table.columns]
    within = [name for name in settings if name.startswith("support.")]
    others = [
        name for name in settings if name not in within and table.group_by("arm", *within).agg(pl.col(name).n_unique())[name].max() != 1
    ]
    named = [pl.format("{}={}", pl.lit(_short(name)), name).fill_null("") for name in others]
    method = pl.concat_str("arm", *named, separator=" ").str.strip_chars()
    groups = table.with_columns(method=method).partition_by(within, maintain_order=True) if within else [table.with_columns(method=method)]
    return [dict(group.select("method", "score").iter_rows()) for group in groups]


def _settings(part: pl.DataFrame) -> list[str]:
    """The columns that tell apart the rows of one arm."""
    from harness.store import RECORD

    return [name for name in part.columns if name not in RECORD and name not in REPLICATES]


def _short(column: str) -> str:
    return column.rsplit(".", 1)[-1]


def _protocol(part: pl.DataFrame, protocol: str, note: str) -> Sequence[str]:
    kind = "SYNTHETIC faces in the layout of" if part["synthetic"][0] else "Dataset"
    return (f"{kind} {part['dataset'][0]}; protocol {protocol}, task version {part['task_version'][0]}.", *([note] if note else []))


def _gathered(
    part: pl.DataFrame,
    prepared: Prepared,
    title: str,
    info: TaskInfo,
    notes: tuple[str, ...],
    facts: Mapping[str, Any],
    folder: Path,
) -> Gathered:
    report = prepared.sweep.report
    sources = [
        identity.source_of(f"harness.{name}")
        for name in (
            "metrics.units",
            "statistics.Panel",
            "leaderboard.rank",
            "publish.report.write",
            "publish.page.page",
            "publish.tables.render",
            "publish.curve.label_efficiency",
        )
    ]
    rows = part.select("evaluation", "arm", "written").rows()
    key = identity.address([rows, [s and s[1] for s in sources], title, notes, facts, report, info.parts])
    kept = folder / "kept.json"
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known["key"] == key and all((folder / name).is_file() for name in known["files"]):
            table = pl.read_parquet(folder / "table.parquet")
            extra = Extra({name: pl.read_parquet(folder / file) for name, file in known["tables"].items()}, {}, tuple(known["notes"]))
            return Gathered(Board(title, table, info.primary, notes, facts), extra, tuple(folder / name for name in known["files"]))
    except (OSError, ValueError, KeyError):
        pass
    from harness.publish import report as reports

    units = prepared.store.units(part["evaluation"])
    table = rank(part, units, primary=info.primary, higher_is_better=info.higher_is_better)
    board = Board(title, table, info.primary, notes, facts)
    extra = instantiate(report, board=board) if report else Extra({}, {})
    if info.parts:
        shown = leaderboard.parts(part, table, info.parts, settings=_settings(part))
        told = f"{PARTS}: means over folds and seeds, as the score; empty where one of these is undefined."
        extra = dataclasses.replace(extra, tables={**extra.tables, PARTS: shown.rename(_short)}, notes=(*extra.notes, told))
    files = reports.write(board, extra, folder)
    tables = {}
    for name, frame in extra.tables.items():
        tables[name] = f"{name.replace(' ', '_')}.parquet"
        frame.write_parquet(folder / tables[name])
    names = [path.name for path in files]
    write_atomically(kept, json.dumps({"key": key, "files": names, "tables": tables, "notes": extra.notes}).encode())
    mirror = tracking.open_run(
        prepared.config["tracker"],
        prepared.output,
        name=prepared.sweep.name,
        group=prepared.sweep.name,
        kind="leaderboard",
        config={"command": prepared.command},
    )
    mirror.table(f"{prepared.sweep.name}-leaderboard", table.to_dicts())
    mirror.finish()
    return Gathered(board, extra, tuple(files))
