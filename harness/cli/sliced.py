"""What ``harness leaderboard`` shows with ``--by`` and ``--across``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from harness import boards, ranks, slices
from harness.cli.options import check_format, say, show
from harness.leaderboard import SAME
from harness.metrics import higher_is_better
from harness.plan import flatten
from harness.publish.difference import critical_difference
from harness.publish.tables import number, with_interval
from harness.store import Store, write_atomically

_WIDE = 180  # characters of slices that still stand beside each other


def show_slices(store: Store, task: str, by: str, *, least: int, cache: Path, format: str, output: Path | None) -> None:
    """The rows of a leaderboard, slice by slice; ``worst``: each row's worst subject beside its mean."""
    person = check_format(format) in ("table", "markdown", "latex")
    records = flatten(store.records().filter((pl.col("task") == task) & ~pl.col("protocol").str.ends_with("/validation-part")))
    for part in records.partition_by(SAME, maintain_order=True):
        primary = part["primary"][0]
        higher = higher_is_better(primary)
        rows = boards.rows(part)
        labels = rows.drop("evaluations").rename({"score": "all"}).with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
        cut = slices.cut(store, part["evaluation"].to_list(), "subject" if by == "worst" else by, primary, cache=cache)
        found = slices.scores(cut, dict(enumerate(rows["evaluations"].to_list())))
        shown = slices.worst(found, least=least, higher_is_better=higher) if by == "worst" else found
        table = labels.join(shown, on="row", how="left", maintain_order="left_right").drop("row")
        score = f"score: {primary}" if by not in ("expression", "au") else "score: the metric of each class"
        notes = [
            f"{score}; the mean over the folds that have frames of the slice, with its 95 % interval over the subjects in it.",
            *boards.protocol(part),
        ]
        if by == "worst":
            notes[0] = f"worst: the subject with the worst {primary}, of those with at least {least} frames; mean: over these subjects."
        if person:
            table = (
                _worst(table)
                if by == "worst"
                else _beside(table)
                if sum(max(len(part.name), 18) for part in cut) <= _WIDE
                else _below(table)
            )
        show(table, format=format, output=output, title=f"{task} v{part['task_version'][0]} by {by}", notes=tuple(notes))


def show_ranks(store: Store, tasks: Sequence[str], *, figure: Path | None, format: str, output: Path | None) -> None:
    """Average ranks over tasks, and their picture."""
    check_format(format)
    found = ranks.across(store, tasks)
    title = f"Average ranks over {len(found.tasks)} tasks"
    show(found.table, format=format, output=output, title=title, notes=found.notes)
    if figure is not None:
        drawn = critical_difference(found.table, distance=found.distance, cliques=found.cliques, title=title, note=found.notes[-1])
        for kind, data in drawn.items():
            path = figure.with_suffix(f".{kind}")
            write_atomically(path, data)
            say(f"written: {path}")


def _beside(table: pl.DataFrame) -> pl.DataFrame:
    """A column a slice."""
    keys = table.columns[: table.columns.index("slice")]
    text = [
        "undefined" if score is None else with_interval(score, lo, hi) for score, lo, hi in table.select("score", "lo", "hi").iter_rows()
    ]
    wide = table.with_columns(text=pl.Series(text, dtype=pl.String)).pivot("slice", index=keys, values="text", maintain_order=True)
    wide = wide.with_columns(_text(wide["all"]))
    return _short(wide.with_columns(pl.col(wide.columns[len(keys) :]).fill_null("no frame")))


def _below(table: pl.DataFrame) -> pl.DataFrame:
    """A line a slice."""
    text = [
        "undefined" if score is None else with_interval(score, lo, hi) for score, lo, hi in table.select("score", "lo", "hi").iter_rows()
    ]
    keys = table.columns[: table.columns.index("slice") + 1]
    table = table.with_columns(_text(table["all"]))
    return _short(table.select(*keys, pl.Series("score", text, dtype=pl.String), "frames"))


def _worst(table: pl.DataFrame) -> pl.DataFrame:
    numbers = [_text(table[name]) for name in ("all", "mean", "worst")]
    return _short(table.with_columns(numbers).rename({"of": "worst subject"}))


def _text(scores: pl.Series) -> pl.Series:
    return pl.Series(scores.name, ["undefined" if value is None else number(value) for value in scores], dtype=pl.String)


def _short(table: pl.DataFrame) -> pl.DataFrame:
    """Without settings that are nowhere set, and with short names for the others."""
    empty = [name for name in table.columns if table[name].null_count() == table.height]
    kept = table.drop(empty)
    return kept.rename({name: name.rsplit(".", 1)[-1] for name in kept.columns if name.startswith("support.")})
