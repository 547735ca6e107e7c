"""Records of one task as a ranked table: who is best, how sure that is, and what it gains over doing something trivial."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import polars as pl

from harness.errors import RequestError
from harness.statistics import Panel, holm

SAME = ("task", "task_version", "protocol", "dataset", "data", "synthetic")
"""What must be the same in all records of one table; ``records.partition_by(SAME)`` gives the tables."""

ORACLE = "test (oracle)"
"""The selection rule that has seen the test labels: shown, never ranked."""

SUBMITTED = "submitted"
"""The selection rule of predictions that somebody sent in: scored here, selected nobody here knows how."""

ALPHA = 0.05
_ROW = ("baseline", "baseline_version", "control", "selection")  # besides the arm and its setting, never averaged over


def leaderboard(
    records: pl.DataFrame,
    units: pl.DataFrame | None = None,
    *,
    primary: str,
    settings: Sequence[str] = (),
    over: Sequence[str] = ("fold", "seed", "support.draw"),
    within: Sequence[str] = (),
    higher_is_better: bool = True,
    draws: int = 2000,
) -> pl.DataFrame:
    """Rank the records of one task.

    Args:
        records: Columns as in ``store.RECORD``, one row an evaluation, and the ``settings`` as columns of their own.
        units: Sums of those evaluations (``store.units``); without them there are no intervals and no tests.
        primary: The metric in ``score``.
        settings: What tells apart the rows of one arm: ``support.size``, ``anchor`` …
        over: Replicates that a row is the mean of; those that the records lack are ignored.
        within: Settings that each have a ranking of their own (support sizes, say).
        higher_is_better: Direction of ``primary``.
        draws: Of bootstrap and permutation.

    Returns:
        The best first (inside each of ``within``), what is not ranked last. Columns:

        * ``rank``, null where the row is not ranked, for the reason in ``note``; ``tie``: cannot be told from the leader (paired test by
          swapping the two inside subjects, Holm's correction over the ranking, 5 %), null for the leader and where nothing is tested;
        * ``arm``, the settings, baseline, version, ``control``, ``selection`` rule;
        * ``score``: mean over folds of the mean over a fold's records (the plain mean where every fold has as many), with ``lo``,
          ``hi``, its 95 % interval over subjects (:class:`harness.statistics.Panel`), and ``se_fold``, ``se_seed``, ``se_draw`` …, the
          standard error over the levels of each replicate (ddof 1; null with one level); ``pooled``: the metric of all folds' frames put
          together, which is not the mean of the folds' (null with one fold);
        * ``n_records``, ``n_fold``, ``n_seed`` …, ``n_subjects``, ``n_clips``; ``labels_per_clip`` and ``labelled``, the share of the test
          frames whose labels were given;
        * ``best_control`` at the same setting (a setting that a control does not know does not count), ``gain`` over it, positive
          when better, with ``gain_lo``, ``gain_hi`` and ``gain_p`` (Holm over the table). It is the best by the very scores shown, so the
          gain is, if anything, too small.

    Raises:
        RequestError: Records that may not share a table, two records in one cell, or columns that are not there.
    """
    over = [name for name in over if name in records.columns]
    _check(records, settings, within, over)
    key = ["arm", *settings, *_ROW]
    records = records.sort("evaluation")  # so that sums, and with them the last digits, do not depend on the order of the store
    by_fold = records.group_by(*key, "fold", maintain_order=True).agg(
        pl.when(pl.col("score").is_null().any()).then(None).otherwise(pl.col("score").mean()).alias("score"),
        pl.col("evaluation"),
        pl.col("labels_used", "n_samples").sum(),
        clips_labelled=pl.col("n_clips").sum(),
        n_clips=pl.col("n_clips").max(),
        n_subjects=pl.col("n_subjects").max(),
    )
    rows = by_fold.group_by(key).agg(
        score=pl.when(pl.col("score").is_null().any()).then(None).otherwise(pl.col("score").sort_by("fold").mean()),
        evaluations=pl.col("evaluation").sort_by("fold").list.explode(keep_nulls=False, empty_as_null=False),
        n_records=pl.col("evaluation").list.len().sum(),
        n_subjects=pl.col("n_subjects").sum(),
        n_clips=pl.col("n_clips").sum(),
        labels_per_clip=pl.col("labels_used").sum() / pl.col("clips_labelled").sum(),
        labelled=pl.col("labels_used").sum() / pl.col("n_samples").sum(),
    )
    for name in over:
        rows = rows.join(_spread(records, key, name), on=key, how="left", nulls_equal=True)
    rows = _rank(rows, settings, within, higher_is_better)
    rows = _best_controls(rows, settings, higher_is_better)
    measures = _measures(rows, records, units, primary, higher_is_better, draws)
    return rows.with_columns(measures).select(
        *("rank", "tie", "arm", *settings, *_ROW, "score", "lo", "hi", "pooled"),
        pl.col("^se_.*$"),
        *("n_records", pl.col("^n_.*$").exclude("n_records"), "labels_per_clip", "labelled"),
        *("best_control", "gain", "gain_lo", "gain_hi", "gain_p", "note"),
    )


def parts(records: pl.DataFrame, table: pl.DataFrame, metrics: Sequence[str], *, settings: Sequence[str] = ()) -> pl.DataFrame:
    """Other metrics of the rows of a leaderboard, a column each: the mean over folds of the mean over a fold's records.

    Args:
        records: As of :func:`leaderboard`.
        table: What it returned; its rows, in its order.
        metrics: Names; those that no record has are left out.
        settings: As of :func:`leaderboard`.

    Returns:
        ``arm``, the settings, and the metrics; null where it is undefined in a record.
    """
    key = ["arm", *settings, *_ROW]
    known = pl.DataFrame([json.loads(text) for text in records["metrics"]], infer_schema_length=None)
    shown = [name for name in metrics if name in known.columns]
    values = records.select(*key, "fold").hstack(known.select(pl.col(name).cast(pl.Float64) for name in shown))

    def mean(name: str) -> pl.Expr:
        return pl.when(pl.col(name).is_not_null().all()).then(pl.col(name).mean()).alias(name)

    by_fold = values.group_by(*key, "fold", maintain_order=True).agg(map(mean, shown))
    means = by_fold.sort("fold").group_by(key, maintain_order=True).agg(map(mean, shown))
    return table.select(key).join(means, on=key, how="left", nulls_equal=True, maintain_order="left").select("arm", *settings, *shown)


def against(
    records: pl.DataFrame,
    units: pl.DataFrame,
    reference: str,
    metrics: Sequence[str],
    *,
    higher_is_better: Sequence[bool],
    draws: int = 2000,
) -> pl.DataFrame:
    """How far every arm is above one of them, metric by metric, on the same subjects.

    Args:
        records: As of :func:`leaderboard`, of one setting an arm.
        units: As of :func:`leaderboard`.
        reference: The arm that the others are compared with.
        metrics: Names; additive ones, as ``statistics.Panel`` knows.
        higher_is_better: Direction of each metric.
        draws: Of bootstrap and permutation.

    Returns:
        A row an ``arm`` (in alphabetical order, without the reference) and ``metric``: ``gain``, positive when better; ``lo`` and ``hi``,
        its paired 95 % interval over subjects, and ``p`` of swaps inside subjects, with Holm's correction over the arms of a metric.

    Raises:
        RequestError: No record of the reference, or records that may not share a table.
    """
    _check(records, [], [], [name for name in ("fold", "seed", "support.draw") if name in records.columns])
    evaluations = {arm: sorted(rows["evaluation"]) for (arm,), rows in records.filter(pl.col("score").is_not_null()).group_by("arm")}
    if reference not in evaluations:
        raise RequestError(f"no record of {reference!r} to compare with", where="reference", remedy="run its evaluations first")
    panel = Panel(units.join(records.select("evaluation", "fold"), on="evaluation"), draws=draws)
    rows = []
    for metric, higher in zip(metrics, higher_is_better, strict=True):
        sign = 1 if higher else -1
        for arm in sorted(evaluations.keys() - {reference}):
            found = panel.difference(evaluations[arm], evaluations[reference], metric)
            rows.append((arm, metric, sign * found.value, *sorted((sign * found.lo, sign * found.hi)), found.p))
    names = ("gain", "lo", "hi", "p")
    table = pl.DataFrame(rows, schema={"arm": pl.String, "metric": pl.String, **dict.fromkeys(names, pl.Float64)}, orient="row")
    corrected = [pl.Series(holm(of["p"].to_numpy())) for of in table.partition_by("metric", maintain_order=True)]
    return table.with_columns(p=pl.concat(corrected) if corrected else pl.Series([], dtype=pl.Float64)).with_columns(
        pl.col(name).fill_nan(None) for name in names
    )


def _check(records: pl.DataFrame, settings: Sequence[str], within: Sequence[str], over: Sequence[str]) -> None:
    missing = {*SAME, *_ROW, "arm", "fold", "evaluation", "score", *settings} - set(records.columns)
    if missing or not set(within) <= set(settings):
        wrong = missing or set(within) - set(settings)
        raise RequestError(f"a leaderboard needs the columns {', '.join(sorted(wrong))}", where="records and settings")
    for name in SAME:
        values = records[name].unique().sort().to_list()
        if len(values) > 1:
            raise RequestError(f"records of {name} {values[0]} and {values[1]} cannot share a table", remedy="rank them apart")
    cells = records.filter(pl.struct("arm", *settings, *_ROW, *over).is_duplicated())
    if cells.height:
        first, second = cells.sort("arm", *settings, *_ROW, *over, "evaluation")["evaluation"].head(2)
        raise RequestError(
            f"{cells['arm'][0]}: two records, {first} and {second}, stand in one cell of the table",
            remedy="name what tells them apart as a setting, or call the arms differently",
        )


def _spread(records: pl.DataFrame, key: Sequence[str], name: str) -> pl.DataFrame:
    """Standard error over the levels of one replicate, and how many there are."""
    short = name.rsplit(".", 1)[-1]
    levels = records.group_by(*key, name).agg(pl.col("score").mean()).sort(name)
    return levels.group_by(key).agg(
        (pl.col("score").std(ddof=1) / pl.col("score").count().sqrt()).alias(f"se_{short}"),
        pl.len().alias(f"n_{short}"),
    )


def _rank(rows: pl.DataFrame, settings: Sequence[str], within: Sequence[str], higher_is_better: bool) -> pl.DataFrame:
    """Adds ``rank``, ``note``, ``_group`` (of the ranking) and ``_row``, in the order of the table: groups by how many labels they take."""
    group = pl.struct(within) if within else pl.lit(0)
    folds = pl.col("n_fold").max().over(group)
    oracle, undefined = pl.col("selection") == ORACLE, pl.col("score").is_null() | pl.col("score").is_nan()
    partial = pl.col("n_fold") < folds
    why_not = [
        pl.when(oracle).then(pl.lit("selected on the test set")),
        pl.when(undefined).then(pl.lit("undefined")),
        pl.when(partial).then(pl.format("{} of {} folds", "n_fold", folds)),
        pl.when(pl.col("selection") == SUBMITTED).then(pl.lit(SUBMITTED)),
    ]
    note = pl.concat_list(why_not).list.drop_nulls().list.join("; ")
    ranked = pl.when(~(oracle | undefined | partial)).then("score")
    return (
        rows.with_columns(note=note, rank=ranked.rank("min", descending=higher_is_better).over(group))
        .sort(
            pl.col("labels_per_clip").mean().over(group),
            *within,
            "rank",
            "arm",
            *settings,
            "baseline_version",
            "selection",
            nulls_last=True,
        )
        .with_columns(_group=pl.struct(within).rle_id() if within else pl.lit(0, pl.UInt32))
        .with_row_index("_row")
    )


def _best_controls(rows: pl.DataFrame, settings: Sequence[str], higher_is_better: bool) -> pl.DataFrame:
    """Adds ``best_control``, ``_best`` (its row) and ``gain`` to every row that is no control.

    A control matches where the settings that it has are the same; one that it lacks makes no difference to it.
    """
    found = [pl.DataFrame(schema={"_row": pl.UInt32, "_best": pl.UInt32, "best_control": pl.String, "_of": pl.Float64})]
    controls = rows.filter(pl.col("control") & pl.col("rank").is_not_null()).sort("score", descending=higher_is_better, maintain_order=True)
    patterns = controls.with_columns(pattern=pl.concat_list([pl.lit(True), *(pl.col(name).is_not_null() for name in settings)]))
    for known in patterns.partition_by("pattern", maintain_order=True):
        on = [name for name, has in zip(settings, known["pattern"][0][1:], strict=True) if has]
        best = known.select(*on, _best="_row", best_control="arm", _of="score").with_columns(all=True).unique(["all", *on], keep="first")
        others = rows.filter(~pl.col("control")).select("_row", *on).with_columns(all=True)
        found.append(others.join(best, on=["all", *on]).select(found[0].columns))
    best = pl.concat(found).sort("_of", "_best", descending=[higher_is_better, False]).unique("_row", keep="first")
    gain = (pl.col("score") - pl.col("_of")) * (1 if higher_is_better else -1)
    return rows.join(best, on="_row", how="left", maintain_order="left").with_columns(gain=gain).drop("_of")


def _measures(
    rows: pl.DataFrame,
    records: pl.DataFrame,
    units: pl.DataFrame | None,
    primary: str,
    higher_is_better: bool,
    draws: int,
) -> list[pl.Series]:
    """Intervals, gains and tests, one value a row, in the order of the rows."""
    height, names = rows.height, ("lo", "hi", "pooled", "gain", "gain_lo", "gain_hi", "gain_p", "leader_p")
    table = {name: np.full(height, np.nan) for name in names}
    table["gain"] = rows["gain"].cast(pl.Float64).fill_null(np.nan).to_numpy().copy()
    groups = rows["_group"]
    if units is not None:
        panel = Panel(units.join(records.select("evaluation", "fold"), on="evaluation"), draws=draws)
        sign = 1 if higher_is_better else -1
        evaluations = rows["evaluations"].to_list()
        leader: dict[int, int] = {}
        facts = rows.select("score", "rank", "_best", "_group", "n_fold").iter_rows()
        for row, (score, rank, best, group, folds) in enumerate(facts):
            if score is None:
                continue
            interval = panel.interval(evaluations[row], primary)
            table["lo"][row], table["hi"][row] = interval.lo, interval.hi
            if folds > 1:
                table["pooled"][row] = panel.pooled(evaluations[row], primary)
            if best is not None:
                gain = panel.difference(evaluations[row], evaluations[best], primary)
                ends = sorted((sign * gain.lo, sign * gain.hi))
                table["gain"][row], table["gain_lo"][row], table["gain_hi"][row], table["gain_p"][row] = sign * gain.value, *ends, gain.p
            if rank is not None and leader.setdefault(group, row) != row:
                table["leader_p"][row] = panel.difference(evaluations[row], evaluations[leader[group]], primary).p
    leader_p = table.pop("leader_p")
    for group in groups.unique():
        mine = (groups == group).to_numpy()
        leader_p[mine] = holm(leader_p[mine])
    table["gain_p"] = holm(table["gain_p"])
    tie = pl.Series("tie", leader_p >= ALPHA).set(pl.Series(np.isnan(leader_p)), None)
    return [*(pl.Series(name, values).fill_nan(None) for name, values in table.items()), tie]


def efficiency(
    table: pl.DataFrame, *, by: Sequence[str] = ("arm", "support.selection"), reference: float | None = None, higher_is_better: bool = True
) -> pl.DataFrame:
    """How good a method is over all label budgets at once, and which budget is enough.

    Args:
        table: What :func:`leaderboard` returned, several support sizes of each arm in it. Rows without labels or a score are left out.
        by: What makes one curve.
        reference: The score of the fully labelled control: a linear probe (``ridge`` without support) trained on every label of
            the training clips.
        higher_is_better: Direction of the score.

    Returns:
        The best area first: ``by``, ``points``, ``labels_from`` and ``labels_to`` (labelled frames a clip), ``area`` under the score
        over log2 of the labelled frames a clip (trapezoids, divided by the width of the curve: a mean score; null for one point),
        and ``meets``: the share of a clip's frames to label at which the curve first meets ``reference``, linear in log2 between
        the points; null where it never does, and the smallest budget's own share where that does already.
    """
    curves = []
    points = table.filter((pl.col("labels_per_clip") > 0) & pl.col("score").is_not_null() & (pl.col("selection") != ORACLE))
    for curve in points.sort(*by, "labels_per_clip").partition_by(by, maintain_order=True):
        labels, score, share = (curve[name].to_numpy() for name in ("labels_per_clip", "score", "labelled"))
        x = np.log2(labels)
        width = x[-1] - x[0]
        curves.append(
            {name: curve[name][0] for name in by}
            | {
                "points": len(x),
                "labels_from": float(labels[0]),
                "labels_to": float(labels[-1]),
                "area": float(np.trapezoid(score, x) / width) if width > 0 else None,
                "meets": None if reference is None else _crossing(np.log2(share), score, reference, 1 if higher_is_better else -1),
            }
        )
    types = {name: table.schema[name] for name in by} | dict.fromkeys(("labels_from", "labels_to", "area", "meets"), pl.Float64)
    out = pl.DataFrame(curves, schema=types | {"points": pl.Int64})
    return out.select(*by, "points", "labels_from", "labels_to", "area", "meets").sort("area", descending=higher_is_better, nulls_last=True)


def _crossing(x: np.ndarray, score: np.ndarray, reference: float, sign: int) -> float | None:
    """Where a curve over log2 x first reaches a value, as 2 to the x; null where it does not."""
    above = np.flatnonzero(sign * (score - reference) >= 0)
    if not len(above):
        return None
    after = above[0]
    if after == 0:
        return float(2 ** x[0])
    before = after - 1
    part = (reference - score[before]) / (score[after] - score[before])
    return float(2 ** (x[before] + part * (x[after] - x[before])))
