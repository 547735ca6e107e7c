"""Scores in parts of the data: subject by subject, of short and long clips, class by class, or by any column of the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.metrics import metrics as every_metric
from harness.metrics import statistic
from harness.statistics import Panel
from harness.store import Store

FROM_SUMS = ("subject", "clip", "length", "expression", "au")
"""Slices that need nothing but the sums in the store; others need the predictions and the samples."""

_THIRDS = ("short", "middle", "long")


@dataclass(frozen=True)
class Slice:
    """A part of the data.

    Attributes:
        name: ``F001``, ``short`` …
        metric: What is scored in it: the metric asked for, or that of one class.
        units: The sums of its frames, with ``evaluation`` and ``fold``; an evaluation none of whose frames are in it has no row.
    """

    name: str
    metric: str
    units: pl.DataFrame

    def evaluations(self, among: Sequence[str]) -> list[str]:
        """Those that have frames here."""
        there = set(self.units["evaluation"].unique())
        return [name for name in among if name in there]

    def size(self, among: Sequence[str]) -> dict[str, int]:
        """``frames`` (a fold's mean over its evaluations, summed over folds), ``n_clips`` and ``n_subjects``."""
        mine = self.units.filter(pl.col("evaluation").is_in(list(among)))
        frames = (
            mine.group_by("fold", "evaluation").agg(pl.col("frames").sum()).group_by("fold").agg(pl.col("frames").mean())["frames"].sum()
        )
        return {"frames": round(frames), "n_clips": mine["clip"].n_unique(), "n_subjects": mine["subject"].drop_nulls().n_unique()}


def cut(store: Store, evaluations: Sequence[str], by: str, metric: str, *, cache: Path) -> list[Slice]:
    """The slices of some evaluations of one task and dataset.

    Args:
        store: Where.
        evaluations: Whose.
        by: ``subject``; ``clip``; ``length``: thirds of the clips by their number of frames; ``expression`` and ``au``, where they are
            targets: the F1 (of intensities the ICC, or what ``metric`` is of) of each class or unit; or a column of the samples, say
            ``activity``, whose values the frames are told apart by.
        metric: An additive one.
        cache: Where the snapshots of datasets are; used for columns of the samples alone.

    Returns:
        In the order of the values; frames without a value are in no slice.

    Raises:
        RequestError: No such column, its samples are not in the cache, or a metric that the evaluations do not have.
    """
    records = store.records().filter(pl.col("evaluation").is_in(sorted(set(evaluations))))
    folds = records.select("evaluation", "fold")
    sums = store.units(records["evaluation"]).join(folds, on="evaluation").sort("evaluation", "subject", "clip")
    statistic(sums, metric)
    classes = _of_classes(sums, by, metric)
    if by == "au" and not classes:
        raise RequestError("no action unit is a target of this task", where="--by au", remedy="cut by subject, clip or length")
    if classes:
        return [Slice(name, one, sums) for name, one in classes.items()]
    if by in ("subject", "clip"):
        return [Slice(str(value), metric, part) for (value,), part in sums.drop_nulls(by).sort(by).group_by(by, maintain_order=True)]
    if by == "length":
        return [Slice(name, metric, part) for name, part in _by_length(sums).items()]
    return _by_column(store, records, by, metric, cache)


def scores(cut: Sequence[Slice], rows: Mapping[Any, Sequence[str]], *, draws: int = 2000) -> pl.DataFrame:
    """The score of every row in every slice.

    Args:
        cut: What :func:`cut` returned.
        rows: Key → the evaluations of a row of a leaderboard.
        draws: Of the bootstrap.

    Returns:
        ``row`` (the place of the key in ``rows``), ``slice``, ``metric``, ``score``, ``lo``, ``hi``, ``frames``, ``n_clips``,
        ``n_subjects``. The score is the mean over the folds with a frame in the slice of the mean over a fold's evaluations; null where
        the metric is undefined in one of them. A row without a frame in a slice is left out.
    """
    found = []
    for part in cut:
        panel = Panel(part.units, draws=draws)
        for place, evaluations in enumerate(rows.values()):
            mine = part.evaluations(evaluations)
            if mine:
                interval = panel.interval(mine, part.metric)
                found.append((place, part.name, part.metric, interval.value, interval.lo, interval.hi, *part.size(mine).values()))
    text, numbers = dict.fromkeys(("slice", "metric"), pl.String), dict.fromkeys(("score", "lo", "hi"), pl.Float64)
    counts = dict.fromkeys(("frames", "n_clips", "n_subjects"), pl.Int64)
    table = pl.DataFrame(found, schema={"row": pl.Int64, **text, **numbers, **counts}, orient="row")
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


def differences(cut: Sequence[Slice], a: Sequence[str], b: Sequence[str], *, draws: int = 2000) -> pl.DataFrame:
    """How far ``a`` is above ``b`` in every slice that both have.

    Returns:
        ``slice``, ``metric``, ``a``, ``b``, ``difference``, ``lo``, ``hi``, ``frames``; null where the metric is undefined. Many slices are
        many comparisons, and no p is given for them.
    """
    found = []
    for part in cut:
        left, right = part.evaluations(a), part.evaluations(b)
        if left and right:
            panel = Panel(part.units, draws=draws)
            gap = panel.difference(left, right, part.metric)
            values = (*(panel.score(side, part.metric) for side in (left, right)), gap.value, gap.lo, gap.hi)
            found.append((part.name, part.metric, *values, part.size(left)["frames"]))
    numbers = dict.fromkeys(("a", "b", "difference", "lo", "hi"), pl.Float64)
    schema = {"slice": pl.String, "metric": pl.String, **numbers, "frames": pl.Int64}
    return pl.DataFrame(found, schema=schema, orient="row").with_columns(pl.col(pl.Float64).fill_nan(None))


def worst(table: pl.DataFrame, *, least: int = 30, higher_is_better: bool = True) -> pl.DataFrame:
    """The worst slice of each row: the worst subject, say.

    Args:
        table: What :func:`scores` returned.
        least: Frames that a slice must have to count.
        higher_is_better: Direction of the metric.

    Returns:
        ``row``, ``mean`` over the slices that count, ``worst``, ``of`` (its name, the first by name of equals), ``frames`` of it,
        ``counted`` and ``left_out`` (slices with too few frames or an undefined score). A row of which no slice counts has nulls.
    """
    counts = pl.col("score").is_not_null() & (pl.col("frames") >= least)
    ordered = table.with_columns(counts=counts).sort("row", "score", "slice", descending=[False, not higher_is_better, False])
    kept = pl.col("counts")
    return ordered.group_by("row", maintain_order=True).agg(
        mean=pl.col("score").filter(kept).mean(),
        worst=pl.col("score").filter(kept).first(),
        of=pl.col("slice").filter(kept).first(),
        frames=pl.col("frames").filter(kept).first(),
        counted=kept.sum(),
        left_out=(~kept).sum(),
    )


def _of_classes(sums: pl.DataFrame, by: str, metric: str) -> dict[str, str]:
    """Class or action unit → its own metric."""
    known = every_metric(sums)
    if by == "expression":
        cells = [column.split(".") for column in sums.columns if column.startswith("expression.")]
        return {cell[1]: f"f1_{cell[1]}" for cell in cells if len(cell) == 3}
    if by == "au":
        for kind in dict.fromkeys((metric.split("_")[0], "f1", "icc")):
            found = {name.removeprefix(f"{kind}_"): name for name in known if name.startswith(f"{kind}_au") and name != f"{kind}_au"}
            if found:
                return found
    return {}


def _by_length(sums: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Thirds of the clips; clips of one length are never parted."""
    clips = sums.group_by("subject", "clip").agg(pl.col("frames").max())
    ends = [clips["frames"].quantile(share, "lower") for share in (1 / 3, 2 / 3)]
    third = pl.when(pl.col("frames") <= ends[0]).then(0).when(pl.col("frames") <= ends[1]).then(1).otherwise(2)
    placed = sums.join(clips.select("subject", "clip", third=third), on=["subject", "clip"], nulls_equal=True, maintain_order="left")
    parts = {name: placed.filter(third=place).drop("third") for place, name in enumerate(_THIRDS)}
    return {f"{name} ({_range(part['frames'])} frames)": part for name, part in parts.items() if part.height}


def _range(frames: pl.Series) -> str:
    low, high = (str(value) for value in (frames.min(), frames.max()))
    return low if low == high else f"{low}-{high}"


def _by_column(store: Store, records: pl.DataFrame, by: str, metric: str, cache: Path) -> list[Slice]:
    """Slices by the values of a column of the samples: predictions are scored again, value by value."""
    from harness import plan
    from harness.rescoring import guarded_score

    values = _values(records, by, cache)
    parts: dict[str, list[pl.DataFrame]] = {}
    for record in records.iter_rows(named=True):
        known = store.provenance(record["provenance"])
        if not known:
            raise RequestError(f"the provenance of {record['evaluation']} is gone", where=f"--by {by}", remedy="run its sweep again")
        task = plan.make_task(known["task"])
        predictions = store.read_predictions(record["predictions"], record["sha256"])
        joined = predictions.join(values, on="sample", how="left", maintain_order="left")
        for (value,), rows in joined.filter(pl.col("slice").is_not_null()).group_by("slice", maintain_order=True):
            sums = guarded_score(task, rows.drop("slice")).units
            named = sums.with_columns(evaluation=pl.lit(record["evaluation"]), fold=pl.lit(record["fold"], pl.Int64))
            parts.setdefault(str(value), []).append(named)
    if not parts:
        raise RequestError(f"no frame that is scored has a value in {by!r}", where=f"--by {by}", remedy=f"cut by {', '.join(FROM_SUMS)}")
    order = sorted(parts)
    found = {name: pl.concat(parts[name], how="diagonal_relaxed").sort("evaluation", "subject", "clip") for name in order}
    return [Slice(name, metric, sums) for name, sums in found.items()]


def _values(records: pl.DataFrame, by: str, cache: Path) -> pl.DataFrame:
    """``sample`` and its ``slice``, from the snapshot of the dataset."""
    path = cache / "snapshots" / str(records["data"][0]) / "samples.parquet"
    if not path.is_file():
        remedy = f"cut by {', '.join(FROM_SUMS)}, or run one of its evaluations again, which reads the dataset"
        raise RequestError(f"the samples are not in {cache}, so that there is no column {by!r}", where=f"--by {by}", remedy=remedy)
    schema = pl.read_parquet_schema(path)
    options = [name for name, kind in schema.items() if name not in ("sample", "image", "box", "landmarks") and not kind.is_nested()]
    if by not in options:
        raise RequestError(f"no column {by!r}", where=f"--by {by}", remedy=did_you_mean(by, [*FROM_SUMS, *options]))
    if schema[by].is_float():
        raise RequestError(f"{by} is no column of a few values", where=f"--by {by}", remedy="cut by activity, expression, length …")
    return pl.read_parquet(path, columns=["sample", by]).select("sample", slice=pl.col(by).cast(pl.String))
