"""What `harness data check` says of a dataset: counts beside published ones, and every problem by kind."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from harness.frames import Transform, fill
from harness.samples import EXPRESSIONS, Reading, au_columns


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
    """Counts, and problems by kind with examples, as plain values.

    Args:
        reading: Of a dataset reader.
        published: Name of a count → published value, shown beside what was found; name of an official part → those of its
            expressions, in the order of the vocabulary.
        examples: How many problems of each kind are told in full.
    """
    samples = reading.samples
    labels = [name for name in ("valence", "arousal", "expression", *au_columns(samples)) if samples[name].is_not_null().any()]
    counts: dict[str, int] = {
        "samples": samples.height,
        "clips": samples["clip"].n_unique(),
        "subjects": samples["subject"].drop_nulls().n_unique(),
        **{f"labelled {name}": samples.height - samples[name].null_count() for name in labels},
        **{f"{split} samples": n for split, n in samples.drop_nulls("split").group_by("split").len().sort("split").iter_rows()},
        **{
            f"{split or 'all'} {expression}": n
            for split, expression, n in samples.drop_nulls("expression")
            .group_by("split", "expression")
            .len()
            .sort("split", "expression")
            .iter_rows()
        },
    }
    known = {what: n for what, n in published.items() if isinstance(n, int)}
    for split, numbers in published.items():
        if not isinstance(numbers, int):
            known |= {f"{split} {expression}": n for expression, n in zip(EXPRESSIONS, numbers, strict=False)}
    problems = [
        {
            "kind": kind,
            "count": group.height,
            "examples": [{key: value for key, value in row.items() if key != "kind"} for row in group.head(examples).iter_rows(named=True)],
        }
        for (kind,), group in reading.problems.group_by("kind", maintain_order=True)
    ]
    return {
        "counts": [{"what": what, "found": found, "published": known.get(what)} for what, found in counts.items()],
        "problems": sorted(problems, key=lambda problem: (-int(problem["count"]), str(problem["kind"]))),
    }


def tables(report: Mapping[str, Any]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The counts, and the problems with one row an example."""
    counts = pl.DataFrame(report["counts"], schema={"what": pl.String, "found": pl.Int64, "published": pl.Int64})
    rows = [
        (problem["kind"], problem["count"], f"{row['file']}:{row['line']}" if row["line"] is not None else row["file"], row["detail"])
        for problem in report["problems"]
        for row in problem["examples"]
    ]
    return counts, pl.DataFrame(rows, schema={"kind": pl.String, "count": pl.Int64, "where": pl.String, "detail": pl.String}, orient="row")
