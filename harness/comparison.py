"""Two of anything in a store against each other, on the same subjects: which is better, by how much, how sure that is, and where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.leaderboard import SAME
from harness.metrics import higher_is_better, statistic
from harness.plan import flatten
from harness.statistics import Panel, holm
from harness.store import RECORD, Store

REPLICATES = ("fold", "seed", "support.draw")
"""What a row is the mean of."""

HEADLINES = (
    *("ccc", "pcc", "rmse", "sagr", "f1_expression", "accuracy_expression", "recall_expression", "agreement_expression"),
    *("f1_au", "icc_au", "pcc_au", "mse_au", "mae_au", "p_mtl"),
)
"""The metrics that are compared unless others are asked for, where both have them; the fewer, the less Holm's correction costs."""

_KEYS = {"version": "baseline_version", "git": "commit"}
_ROW = ("arm", "baseline", "baseline_version", "selection")


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        name: As it is shown: the arm, and what tells it from other rows of the arm.
        records: Columns of ``store.RECORD`` and the settings', one row an evaluation.
    """

    name: str
    records: pl.DataFrame

    @property
    def evaluations(self) -> list[str]:
        return sorted(self.records["evaluation"])


@dataclass(frozen=True)
class Comparison:
    """What is known of the difference of two sides.

    Attributes:
        a, b: The two, on the folds that both have.
        primary: The metric that ``subjects`` and ``clips`` are of: the first of ``metrics``.
        metrics: ``metric``, ``a``, ``b``, ``difference`` (a - b, whatever the direction of the metric), its paired 95 % interval ``lo``,
            ``hi``, ``p`` (swaps inside subjects, Holm over the metrics of the table), and ``better``: the name of who is better where p is
            at most 5 %, empty where they cannot be told apart, null where a metric is undefined.
        subjects, clips: ``fold``, ``subject`` (and ``clip``), ``frames``, ``a``, ``b``, ``difference``: the metric of that subject's or
            clip's sums alone, the mean over the evaluations of a side; where they differ most first, undefined differences left out.
        notes: Protocol and data, and what was taken for granted.
    """

    a: Side
    b: Side
    primary: str
    metrics: pl.DataFrame
    subjects: pl.DataFrame
    clips: pl.DataFrame
    notes: tuple[str, ...]


def compare(store: Store, a: str, b: str, *, task: str, metrics: Sequence[str] = (), draws: int = 10_000) -> Comparison:
    """Compare two of what a store holds of a task.

    Args:
        store: Where.
        a: A baseline, an arm, an evaluation or a fit (or how its name begins), with ``@key=value[,key=value]`` to narrow it: a setting
            (``support.size=4``, or ``size=4``), ``version``, ``seed``, ``fold``, ``selection``, ``protocol``, ``git`` (how it begins).
        b: The same. What of ``a``'s setting ``b`` leaves open is taken over, where that makes it one row.
        task: Its name.
        metrics: Names, additive ones, the first of them for subjects and clips; without, the primary one and :data:`HEADLINES`.
        draws: Of bootstrap and permutation.

    Raises:
        RequestError: Nothing, or more than one row, is called so; the two may not share a table; a metric that they do not have.
    """
    left, right, notes = sides(store, a, b, task=task)
    shown = _metrics(left, right, metrics, left.records["primary"][0])
    where = shown[0]
    folds = sorted(set(left.records["fold"]) & set(right.records["fold"]))
    if not folds:
        raise RequestError(f"{left.name} and {right.name} have no fold in common", where="harness compare", remedy="run the missing folds")
    every = sorted(set(left.records["fold"]) | set(right.records["fold"]))
    if folds != every:
        notes = [*notes, f"Compared on the {len(folds)} of {len(every)} folds that both have: {', '.join(map(str, folds))}."]
    left, right = (Side(side.name, side.records.filter(pl.col("fold").is_in(folds))) for side in (left, right))
    records = pl.concat([left.records.select("evaluation", "fold"), right.records.select("evaluation", "fold")]).unique()
    units = store.units(records["evaluation"]).join(records, on="evaluation").sort("evaluation", "subject", "clip")
    return Comparison(
        left,
        right,
        where,
        _differences(Panel(units, draws=draws), left, right, shown),
        _places(units, left, right, where, ("fold", "subject")),
        _places(units, left, right, where, ("fold", "subject", "clip")),
        tuple(notes),
    )


def sides(store: Store, a: str, b: str, *, task: str) -> tuple[Side, Side, list[str]]:
    """The two sides of a comparison, which may share a table, and what has to be said of how they were found.

    Raises:
        RequestError: As :func:`compare`.
    """
    found = store.records()
    known = sorted(set(found["task"]))
    if not known:
        raise RequestError(f"no records in {store}", where="--output-dir", remedy="run a sweep first, or name another folder")
    if task not in known:
        raise RequestError(f"no records of {task!r}", where=f"--task {task}", remedy=did_you_mean(task, known))
    records = flatten(found.filter(task=task))
    left, right = _matching(records, a, store), _matching(records, b, store)
    _same(a, left, b, right)
    tables = left.select(SAME).join(right.select(SAME), on=SAME, how="semi").unique(maintain_order=True)
    if tables.height > 1:
        varies = [name for name in SAME if tables[name].n_unique() > 1]
        told = "; ".join(f"{name} {', '.join(map(str, tables[name].unique().sort()))}" for name in varies)
        raise RequestError(
            f"{a} and {b} meet in {tables.height} tables: {told}", remedy=f"narrow one: {a}@{varies[0]}={tables[varies[0]][0]}"
        )
    left, right = (side.join(tables, on=SAME, how="semi") for side in (left, right))
    notes = []
    if _rows(left) != 1 and _rows(right) == 1:
        right, left, taken = _at_the_setting_of(right, left)
        notes += [f"{a}: at the setting of {b}, {taken}."] if taken else []
    elif _rows(left) == 1:
        left, right, taken = _at_the_setting_of(left, right)
        notes += [f"{b}: at the setting of {a}, {taken}."] if taken else []
    for text, side in ((a, left), (b, right)):
        _one_row(text, side)
    if set(left["evaluation"]) == set(right["evaluation"]):
        raise RequestError(f"{a} and {b} are the same evaluations", where="harness compare", remedy="name two")
    names = _names(left, right, store)
    return Side(names[0], left), Side(names[1], right), [*_what_is_measured(left), *notes]


def _matching(records: pl.DataFrame, text: str, store: Store) -> pl.DataFrame:
    """The records that are called so."""
    name, options = _parse(text)
    visible = records if "protocol" in options else records.filter(~pl.col("protocol").str.ends_with("/validation-part"))
    found = visible.clear()
    for column in ("arm", "baseline"):
        found = visible.filter(pl.col(column) == name) if found.is_empty() else found
    for column in ("evaluation", "fit"):
        found = visible.filter(pl.col(column).str.starts_with(name)) if found.is_empty() and len(name) >= 4 else found
    if found.is_empty():
        called = {*visible["arm"].unique(), *visible["baseline"].unique()}
        remedy = did_you_mean(name, called) + " or an evaluation of `harness list evaluations`"
        raise RequestError(f"nothing of {records['task'][0]} is called {name!r}", where=text, remedy=remedy)
    for key, value in options.items():
        found = _narrowed(found, key, value, text, store)
    return found


def _parse(text: str) -> tuple[str, dict[str, str]]:
    """``name@key=value,key=value`` → the name and the rest. A name may itself hold an @."""
    name, at, rest = text.rpartition("@")
    if not at or "=" not in rest:
        return text, {}
    pairs = [item.partition("=") for item in rest.split(",")]
    if not all(key and equals for key, equals, _ in pairs):
        raise RequestError(f"{rest!r} is not key=value[,key=value]", where=text, remedy="write it as mt_clar@support.size=4,anchor=mean")
    return name, {key.strip(): value.strip() for key, _, value in pairs}


def _narrowed(found: pl.DataFrame, key: str, value: str, text: str, store: Store) -> pl.DataFrame:
    settings = _settings(found)
    short = {name.rsplit(".", 1)[-1]: name for name in settings}
    column = _KEYS.get(key, key if key in settings else short.get(key, key))
    if column == "commit":
        commits = {name: str(store.provenance(name).get("environment", {}).get("commit")) for name in found["provenance"].unique()}
        found = found.with_columns(commit=pl.col("provenance").replace_strict(commits, return_dtype=pl.String))
        kept = found.filter(pl.col("commit").str.starts_with(value))
    elif column in {*settings, *RECORD} - {"setting", "metrics"}:
        kept = found.filter(pl.col(column).cast(pl.String) == value)
    else:
        options = [*settings, *_KEYS, "fold", "seed", "selection", "protocol", "fit"]
        raise RequestError(f"no key {key!r}", where=text, remedy=did_you_mean(key, options))
    if kept.is_empty():
        there = sorted({str(value)[:12] if column == "commit" else str(value) for value in found[column].drop_nulls()})
        remedy = did_you_mean(value, there) if there else f"none of its records has a {key}"
        raise RequestError(f"no record with {key}={value}", where=text, remedy=remedy)
    return kept.drop("commit", strict=False)


def _same(a: str, left: pl.DataFrame, b: str, right: pl.DataFrame) -> None:
    """Raises: They have no table in common."""
    if left.join(right, on=SAME, how="semi").height:
        return
    apart = [name for name in SAME if not set(left[name]) & set(right[name])] or list(SAME)
    told = "; ".join(f"{name} {' or '.join(_texts(left[name]))} and {' or '.join(_texts(right[name]))}" for name in apart)
    raise RequestError(f"{a} and {b} cannot be compared: they differ in {told}", where="harness compare", remedy="run both by one protocol")


def _texts(values: pl.Series) -> list[str]:
    return [str(value)[:40] for value in values.unique().sort()]


def _settings(records: pl.DataFrame) -> list[str]:
    return [name for name in records.columns if name not in RECORD and name not in REPLICATES]


def _row_key(records: pl.DataFrame) -> list[str]:
    return [*_ROW, *_settings(records)]


def _rows(records: pl.DataFrame) -> int:
    return records.select(_row_key(records)).unique().height


def _at_the_setting_of(one: pl.DataFrame, other: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, str]:
    """What ``one`` has set and ``other`` leaves open is set in it, too, where that makes it one row."""
    if _rows(other) == 1:
        return one, other, ""
    kept, taken = other, []
    for name in _settings(one):
        value = one[name][0]
        if value is not None and kept[name].n_unique() > 1 and (kept[name] == value).any():
            kept = kept.filter(pl.col(name) == value)
            taken.append(f"{name}={value}")
    return (one, kept, ", ".join(taken)) if _rows(kept) == 1 else (one, other, "")


def _one_row(text: str, records: pl.DataFrame) -> None:
    """Raises: There are several rows, or two records in one cell of a row."""
    key = _row_key(records)
    rows = records.unique(key, maintain_order=True)
    if rows.height > 1:
        varies = {name: rows[name].unique().sort().to_list() for name in key if rows[name].n_unique() > 1}
        told = "; ".join(f"{name} {_few(values)}" for name, values in varies.items())
        first = rows.row(0, named=True)
        short = {"baseline_version": "version"}
        pairs = ",".join(f"{short.get(name, name)}={first[name]}" for name in varies if first[name] is not None)
        narrower = f"{text}{',' if _parse(text)[1] else '@'}{pairs}"
        raise RequestError(f"{text} fits {rows.height} rows: {told}", where="harness compare", remedy=f"narrow it: {narrower}")
    over = [name for name in REPLICATES if name in records.columns]
    doubled = records.filter(pl.struct(over).is_duplicated())
    if doubled.height:
        first, second = doubled.sort(*over, "evaluation")["fit"].head(2)
        what = f"{text}: {doubled.height} records stand in the same fold and seed"
        raise RequestError(what, where="harness compare", remedy=f"narrow it by git=… or fit=… ({first[:8]} or {second[:8]})")


def _few(values: Sequence[Any]) -> str:
    texts = ["none" if value is None else str(value) for value in values]
    return ", ".join(texts[:6]) + (f" and {len(texts) - 6} more" if len(texts) > 6 else "")


def _names(left: pl.DataFrame, right: pl.DataFrame, store: Store) -> tuple[str, str]:
    """Short names that differ: the arm, with the settings in which the two differ, or else their versions, commits, fits."""
    arms = [side["arm"][0] for side in (left, right)]
    told: list[list[str]] = [[], []]
    for name in dict.fromkeys((*_settings(left), "baseline_version", "selection")):
        values = [side[name][0] if name in side.columns else None for side in (left, right)]
        if values[0] != values[1] and (arms[0] == arms[1] or (None not in values and name in _settings(left))):
            for side, value in zip(told, values, strict=True):
                side += [] if value is None else [f"{name.rsplit('.', 1)[-1]}={value}"]
    names = [f"{arm} {' '.join(mine)}".strip() for arm, mine in zip(arms, told, strict=True)]
    if names[0] == names[1]:
        commits = [str(store.provenance(side["provenance"][0]).get("environment", {}).get("commit"))[:8] for side in (left, right)]
        tails = commits if commits[0] != commits[1] else [str(side["evaluation"].sort()[0])[:8] for side in (left, right)]
        names = [f"{name} {tail}" for name, tail in zip(names, tails, strict=True)]
    return names[0], names[1]


def _what_is_measured(records: pl.DataFrame) -> list[str]:
    row = records.row(0, named=True)
    kind = "SYNTHETIC faces in the layout of" if row["synthetic"] else "Dataset"
    return [f"{kind} {row['dataset']}; protocol {row['protocol']}, task version {row['task_version']}."]


def _metrics(left: Side, right: Side, asked: Sequence[str], primary: str) -> list[str]:
    known = [set.intersection(*(set(json.loads(text)) for text in side.records["metrics"])) for side in (left, right)]
    there = sorted(name for name in known[0] & known[1] if not name.startswith("auc_"))
    for name in asked:
        if name not in there:
            why = "is no sum over subjects and has no paired test" if name.startswith("auc_") else "is not in both"
            raise RequestError(f"the metric {name!r} {why}", where=f"--metric {name}", remedy=did_you_mean(name, there))
    return list(dict.fromkeys(asked or [name for name in (primary, *HEADLINES) if name in there]))


def _differences(panel: Panel, a: Side, b: Side, metrics: Sequence[str]) -> pl.DataFrame:
    rows = []
    for metric in metrics:
        found = panel.difference(a.evaluations, b.evaluations, metric)
        rows.append((metric, *(panel.score(side.evaluations, metric) for side in (a, b)), found.value, found.lo, found.hi, found.p))
    schema = {"metric": pl.String, **dict.fromkeys(("a", "b", "difference", "lo", "hi", "p"), pl.Float64)}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    table = table.with_columns(p=pl.Series(holm(table["p"].to_numpy()), dtype=pl.Float64))
    sign = pl.Series([1 if higher_is_better(metric) else -1 for metric in metrics], dtype=pl.Int8)
    ahead = pl.when(pl.col("difference") * sign > 0).then(pl.lit(a.name)).otherwise(pl.lit(b.name))
    told = pl.when(pl.col("p").is_nan()).then(None).when(pl.col("p") <= 0.05).then(ahead).otherwise(pl.lit(""))
    return table.with_columns(better=told).with_columns(pl.col(pl.Float64).fill_nan(None))


def _places(units: pl.DataFrame, a: Side, b: Side, metric: str, place: Sequence[str]) -> pl.DataFrame:
    """The metric in each subject or clip alone, of both sides. Units are sorted by evaluation, subject and clip."""
    made = statistic(units, metric)
    rows = units.select("evaluation", *place, "frames").with_row_index("start").with_columns(run=pl.struct("evaluation", *place).rle_id())
    runs = rows.group_by("run", maintain_order=True).agg(pl.first("evaluation", *place, "start"), pl.col("frames").sum())
    values = runs.with_columns(value=pl.Series(made.value(np.add.reduceat(made.sums, runs["start"].to_numpy(), axis=0))))

    def mean(side: Side, name: str) -> pl.DataFrame:
        mine = values.filter(pl.col("evaluation").is_in(side.evaluations))
        return mine.group_by(place).agg(pl.col("value").mean().alias(name), pl.col("frames").mean().round().cast(pl.Int64))

    both = mean(a, "a").join(mean(b, "b").drop("frames"), on=place, nulls_equal=True)
    found = both.with_columns(difference=pl.col("a") - pl.col("b")).filter(pl.col("difference").is_finite())
    return found.sort(pl.col("difference").abs(), *place, descending=[True, *[False] * len(place)]).select(
        *place, "frames", "a", "b", "difference"
    )
