"""Everything in a store as the tables that a site and a repository show: one a task, version, protocol, dataset and data."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from harness import boards, identity, leaderboard, plan, sweep
from harness import output as outputs
from harness.errors import RequestError
from harness.metrics import higher_is_better
from harness.store import RECORD, Store, write_atomically

EXACT = 10_000
"""Records of one table up to which it has intervals and tests, some milliseconds a record; beyond, scores alone."""

KEPT = 2_000
"""Provenances and fits held in memory, some twenty kilobytes each."""

_KEY = ("baseline", "baseline_version", "control", "selection")


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: Hash of what it is; of its page's file, too.
        facts: Of the leaderboard, by column.
        records: Its evaluations, columns as in ``store.RECORD``.
        marks: The groups it is in: ``methods`` or ``controls``, and ``submitted``, ``stale``, ``partial``, ``failed``, ``oracle``.
        level: Score of the best control at the same setting; None for controls, and where there is none.
    """

    name: str
    facts: Mapping[str, Any]
    records: pl.DataFrame
    marks: tuple[str, ...]
    level: float | None


@dataclass(frozen=True)
class Standing:
    """One table.

    Attributes:
        name: A short name, safe in a file name and an address, unlike any other's.
        same: What all its records share (``leaderboard.SAME``).
        table: What ``leaderboard.leaderboard`` returned.
        rows: The same rows, in its order.
        primary: The metric that ranks.
        settings: Columns that tell apart the rows of an arm.
        notes: Protocol, dataset, what is to be known.
        task: Its node in the provenance of a record.
        failures: What went wrong for its task, as in the store.
    """

    name: str
    same: Mapping[str, Any]
    table: pl.DataFrame
    rows: tuple[Row, ...]
    primary: str
    settings: tuple[str, ...]
    notes: tuple[str, ...]
    task: Mapping[str, Any]
    failures: tuple[Mapping[str, Any], ...] = ()

    @property
    def title(self) -> str:
        """Task and version."""
        return f"{self.same['task']} v{self.same['task_version']}"

    @property
    def rankings(self) -> list[tuple[dict[str, str], list[Row]]]:
        """What is ranked together: the settings that the rows share, and the rows."""
        within = [name for name in self.settings if name.startswith("support.")]
        found: dict[tuple[Any, ...], list[Row]] = {}
        for row in self.rows:
            found.setdefault(tuple(row.facts[name] for name in within), []).append(row)
        short = [name.rsplit(".", 1)[-1] for name in within]
        return [({name: value for name, value in zip(short, key, strict=True) if value is not None}, rows) for key, rows in found.items()]

    @property
    def higher_is_better(self) -> bool:
        """The direction of the score."""
        return higher_is_better(self.primary)


@dataclass(frozen=True)
class _Reading(Store):
    """A store that is only read: provenances and fits, which many rows share, are read once."""

    kept: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False)

    def provenance(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._once("provenance", name, super().provenance)
        return found

    def fit(self, fit: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._once("fit", fit, super().fit)
        return found

    def _once(self, kind: str, name: str, read: Callable[[str], Any]) -> Any:
        if (kind, name) not in self.kept:
            while len(self.kept) >= KEPT:
                self.kept.pop(next(iter(self.kept)))
            self.kept[kind, name] = read(name)
        return self.kept[kind, name]


@dataclass(frozen=True)
class Shelf:
    """All tables of a store.

    Attributes:
        store: It.
        standings: Sorted by task, version, protocol, data.
        failures: Those of no task that is known.
        stale: Provenances whose source has changed since, and the version has not.
    """

    store: Store
    standings: tuple[Standing, ...]
    failures: tuple[Mapping[str, Any], ...] = ()
    stale: frozenset[str] = field(default_factory=frozenset)


def read(output: str | Path) -> Shelf:
    """Rank everything that a store holds, without the validation parts by which hyper-parameters were chosen.

    Args:
        output: The folder or the URL of its output.
    """
    opened = outputs.at(output)
    store = _Reading(opened.store.root, opened.copy)
    records = boards.tested(store.records())
    stale = frozenset(sweep.stale_provenance(store, records["provenance"].unique().sort().drop_nulls()))
    failures = [{"name": name} | failure for name, failure in sorted(store.failures().items())]
    parts = records.sort(*leaderboard.SAME, "evaluation").partition_by(leaderboard.SAME, maintain_order=True)
    standings = tuple(_standing(store, part, stale, failures) for part in parts)
    tasks = {standing.same["task"] for standing in standings}
    return Shelf(store, standings, tuple(f for f in failures if f.get("task") not in tasks), stale)


def slug(*names: object) -> str:
    """Names as a file name: what is harmless of the first one, and a hash of all.

    >>> slug("../<script>")
    'script-fcecac1a'
    """
    harmless = "-".join(re.findall(r"[a-z0-9_]+", str(names[0]).lower()))[:40].strip("-")
    return f"{harmless or 'unnamed'}-{identity.address([str(name) for name in names])[:8]}"


def _standing(store: Store, part: pl.DataFrame, stale: frozenset[str], failures: Sequence[Mapping[str, Any]]) -> Standing:
    same = {name: part[name][0] for name in leaderboard.SAME}
    notes = []
    flat = plan.flatten(part)
    flat, told = _told_apart(store, flat)
    notes += told
    primary = flat["primary"][0]
    settings = [name for name in boards.settings_of(flat) if name not in boards.REPLICATES]
    if flat.height > EXACT:
        notes.append(f"{flat.height} records in one table: it has no intervals and no tests; the tables of single sweeps have them.")
    table = _ranked(store, flat, primary)
    task = store.provenance(flat["provenance"][0] or "").get("task", {})
    own = tuple(failure for failure in failures if failure.get("task") == same["task"])
    rows = _rows(table, flat, settings, same, stale, {arm for failure in own for arm in failure.get("arms", ())}, higher_is_better(primary))
    protocol = boards.protocol(flat, str(task.get("note") or ""))
    name = slug(same["task"], *(same[key] for key in leaderboard.SAME))
    return Standing(
        name, same, table, rows, primary, tuple(settings), (*protocol, *boards.reconstructions_of(flat, store), *notes), task, own
    )


def _ranked(store: Store, records: pl.DataFrame, primary: str) -> pl.DataFrame:
    """The leaderboard, kept beside the store under the address of all that it depends on: the next time only what is new is computed."""
    exact = records.height <= EXACT
    sources = [identity.source_of(f"harness.{name}") for name in ("metrics.units", "statistics.Panel", "leaderboard.rank", "boards.rank")]
    rows = records.select("evaluation", "arm", "score", "written", "sha256", "selection").rows()
    key = identity.address([rows, primary, exact, [source and source[1] for source in sources]])
    path = store.output / "cache" / "leaderboards" / f"{key}.parquet"
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError):
        pass
    units = store.units(records["evaluation"]) if exact else None
    table = boards.rank(records, units, primary=primary, higher_is_better=higher_is_better(primary))
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    with contextlib.suppress(RequestError):  # a store that may only be read
        write_atomically(path, buffer.getvalue())
    return table


def _rows(
    table: pl.DataFrame,
    records: pl.DataFrame,
    settings: Sequence[str],
    same: Mapping[str, Any],
    stale: frozenset[str],
    failed: set[str],
    higher: bool,
) -> tuple[Row, ...]:
    key = ["arm", *settings, *_KEY]
    placed = records.join(table.select(key).with_row_index("_row"), on=key, how="left", nulls_equal=True, maintain_order="left")
    parts = {part["_row"][0]: part for part in placed.select("_row", *RECORD).partition_by("_row", maintain_order=True)}
    rows = []
    for place, facts in enumerate(table.to_dicts()):
        mine = parts[place].drop("_row").sort("fold", "seed", "setting", "evaluation")
        marks = ["controls" if facts["control"] else "methods"]
        marks += ["submitted"] if facts["selection"] == leaderboard.SUBMITTED else []
        marks += ["stale"] if not stale.isdisjoint(mine["provenance"]) else []
        marks += ["partial"] if "folds" in facts["note"] else []
        marks += ["failed"] if facts["arm"] in failed else []
        marks += ["oracle"] if facts["selection"] == leaderboard.ORACLE else []
        gain = facts["gain"]
        level = None if gain is None or facts["score"] is None else facts["score"] - (gain if higher else -gain)
        name = identity.address([same, [facts[column] for column in key]])
        rows.append(Row(name, facts, mine, tuple(marks), level))
    return tuple(rows)


def _told_apart(store: Store, records: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Arms of one name and several configs, which several sweeps may make, are given names of their own; of equal ones the latest stays."""
    cell = ["arm", *boards.settings_of(records), *_KEY, *(name for name in boards.REPLICATES if name in records.columns)]
    cell = list(dict.fromkeys(cell))
    double = set(records.filter(pl.struct(cell).is_duplicated())["arm"])
    if not double:
        return records, []
    made: dict[str, str] = {}
    of_arm: dict[str, set[str]] = {}
    for evaluation, arm, provenance in (
        records.filter(pl.col("arm").is_in(sorted(double))).select("evaluation", "arm", "provenance").iter_rows()
    ):
        kept = store.provenance(provenance)
        fits = [store.fit(fit) or {} for fit in kept.get("fits", [])]
        how = [[{k: v for k, v in (fit.get("trainer") or {}).items() if k not in plan.HOW}, fit.get("weighting")] for fit in fits]
        made[evaluation] = identity.address([kept.get("baseline"), how])[:6]
        of_arm.setdefault(arm, set()).add(made[evaluation])
    several = {arm for arm, configs in of_arm.items() if len(configs) > 1}
    names = [
        f"{arm} · {made[evaluation]}" if arm in several else arm for evaluation, arm in records.select("evaluation", "arm").iter_rows()
    ]
    apart = records.with_columns(arm=pl.Series(names, dtype=pl.String))
    kept_last = apart.sort("written", "evaluation").unique(cell, keep="last", maintain_order=True).sort("evaluation")
    notes = (
        [f"Names that stand for several configs have the beginning of the config's hash: {', '.join(sorted(several))}."] if several else []
    )
    gone = apart.height - kept_last.height
    return kept_last, [*notes, *([f"{gone} records were made anew since and are left out."] if gone else [])]
