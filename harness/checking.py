"""What `harness data check` says of a dataset: counts beside published ones, and every problem by kind."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from harness.frames import Transform, fill
from harness.samples import EXPRESSIONS, Problems, Reading, label_columns


def with_images(reading: Reading, progress: Callable[[int, int], None]) -> Reading:
    """The same reading with the problems of opening every image, through a cache that is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        filled = fill(reading.samples, Transform(size=8, crop="image"), Path(scratch), progress=progress)
        digests = pl.Series("digest", filled.frames.digests)
    twins = reading.samples.select("sample", "split", "subject").with_columns(digests).filter(pl.col("digest") != "")
    across = twins.filter((pl.col("split").n_unique().over("digest") > 1) | (pl.col("subject").n_unique().over("digest") > 1))
    where = "on both sides of a split or of two subjects"
    rows = [
        ("identical images", first, None, first, f"the same bytes as {', '.join(others)}, {where}")
        for first, *others in across.group_by("digest", maintain_order=True).agg("sample")["sample"].to_list()
    ]
    found = pl.DataFrame(rows, schema=reading.problems.schema, orient="row")
    return dataclasses.replace(reading, problems=pl.concat([reading.problems, filled.problems, found]))


def report(reading: Reading, published: Mapping[str, int | Sequence[int]], *, examples: int = 3) -> dict[str, Any]:
    """Counts, labels, and problems by kind with examples, as plain values.

    Args:
        reading: Of a dataset reader.
        published: Name of a count → published value, shown beside what was found; name of an official part → those of its
            expressions, in the order of the vocabulary.
        examples: How many problems of each kind are told in full.

    Returns:
        ``counts``: ``what``, ``found``, ``published`` and their ``difference``; ``labels``: for each label and official part how many
        samples have it, its mean, and how many have each value; ``problems``: ``kind``, ``count``, ``examples``.
    """
    samples = reading.samples
    found = {
        "samples": samples.height,
        "images": samples["image"].count(),
        "clips": samples["clip"].n_unique(),
        "subjects": samples["subject"].drop_nulls().n_unique(),
        **_by_split(samples, pl.lit("samples")),
        **({} if samples["clip"].n_unique() == samples.height else _by_split(samples.unique(["split", "clip"]), pl.lit("clips"))),
    }
    known = {what: n for what, n in published.items() if isinstance(n, int)}
    for split, numbers in published.items():
        if not isinstance(numbers, int):
            known |= {f"{split} {expression}": n for expression, n in zip(EXPRESSIONS, numbers, strict=False)}
    expressions = _by_split(samples.filter(pl.col("expression").is_not_null()), pl.col("expression").cast(pl.String))
    counts: list[dict[str, Any]] = []
    for what in dict.fromkeys([*found, *known]):  # what is published and not there is told, too
        there, said = (found | expressions).get(what, 0), known.get(what)
        counts.append({"what": what, "found": there, "published": said, "difference": None if said is None else there - said})
    across = _across(samples)
    told = pl.concat([reading.problems, across]) if across.height else reading.problems
    problems = [
        {
            "kind": kind,
            "count": group.height,
            "examples": [{key: value for key, value in row.items() if key != "kind"} for row in group.head(examples).iter_rows(named=True)],
        }
        for (kind,), group in told.group_by("kind", maintain_order=True)
    ]
    return {
        "counts": counts,
        "labels": [row for name in _measured(samples) for row in _label(samples, name)],
        "problems": sorted(problems, key=lambda problem: (-int(problem["count"]), str(problem["kind"]))),
    }


def _measured(samples: pl.DataFrame) -> list[str]:
    """The labels that any sample has."""
    return [name for name in label_columns(samples) if name != "activity" and samples[name].is_not_null().any()]


def _by_split(samples: pl.DataFrame, what: pl.Expr) -> dict[str, int]:
    """``train samples`` → how many; samples of no official part are not counted."""
    found = samples.drop_nulls("split").group_by("split", what=what).len().sort("split", "what")
    return {f"{split} {name}": n for split, name, n in found.iter_rows()}


def _label(samples: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    """One label: of each official part, how many samples have it, its mean (none of an expression), and the samples by value."""
    rows = samples.filter(pl.col(name).is_not_null()).select(split=pl.col("split").fill_null("all"), label=name)
    told = []
    for (split,), part in sorted(rows.group_by("split"), key=lambda group: str(group[0])):
        label = part["label"]
        numeric = label.dtype.is_numeric()
        counted = label.dtype == pl.Float32 or not numeric  # valence and arousal have too many values
        by_value = label.value_counts().sort("label").iter_rows() if counted else ()
        told.append(
            {
                "label": name,
                "split": split,
                "samples": label.len(),
                "mean": label.mean() if numeric else None,
                "values": {f"{value:g}" if numeric else str(value): n for value, n in by_value},
            }
        )
    return told


def _across(samples: pl.DataFrame) -> pl.DataFrame:
    """Clips and subjects that stand in two official parts, a problem each."""
    found = Problems()
    for column in ("clip", "subject"):
        parts = samples.drop_nulls([column, "split"]).group_by(column, maintain_order=True)
        both = parts.agg(pl.col("split").unique().sort(), sample=pl.col("sample").first()).filter(pl.col("split").list.len() > 1)
        told = both.with_columns(file="sample")
        found.extend(told, f"{column} in two parts", pl.format(column + " {} is in {}", column, pl.col("split").list.join(" and ")))
    return found.frame()


def tables(report: Mapping[str, Any]) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The counts, the labels with one row a label and part, and the problems with one row an example."""
    whole = {"what": pl.String, "found": pl.Int64, "published": pl.Int64, "difference": pl.Int64}
    counts = pl.DataFrame(report["counts"], schema=whole)
    labels = [
        (row["label"], row["split"], row["samples"], row["mean"], ", ".join(f"{value}: {n}" for value, n in row["values"].items()))
        for row in report["labels"]
    ]
    columns = {"label": pl.String, "split": pl.String, "samples": pl.Int64, "mean": pl.Float64, "values": pl.String}
    rows = [
        (problem["kind"], problem["count"], f"{row['file']}:{row['line']}" if row["line"] is not None else row["file"], row["detail"])
        for problem in report["problems"]
        for row in problem["examples"]
    ]
    told = {"kind": pl.String, "count": pl.Int64, "where": pl.String, "detail": pl.String}
    return counts, pl.DataFrame(labels, schema=columns, orient="row"), pl.DataFrame(rows, schema=told, orient="row")
