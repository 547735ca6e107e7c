"""Intensities that come in a file an action unit, joined by the number of the frame: what DISFA and DISFA+ share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from harness.samples import Problems
from tasks.datasets import files

STRONGEST = 5

Found = Mapping[tuple[str, int], Path]
"""Clip and action unit → its file."""


def first_of_each(places: Iterable[tuple[str, int, Path]], aus: Sequence[int], problems: Problems) -> dict[tuple[str, int], Path]:
    """One file for each clip and action unit; those that stand twice, are of another unit or are absent are said.

    Args:
        places: Clip, action unit and file, in the order they were met.
        aus: Those that belong.
        problems: Takes what is wrong.
    """
    found: dict[tuple[str, int], Path] = {}
    for clip, au, path in places:
        if au not in aus:
            problems.add("unknown action unit", path, f"AU {au} is none of {', '.join(map(str, aus))}; it is not used")
        elif (clip, au) in found:
            problems.add("stands twice", path, f"{found[clip, au]} is used")
        else:
            found[clip, au] = path
    folders = {clip: path.parent for (clip, _), path in reversed(found.items())}
    for clip in sorted(folders):
        for au in aus:
            if (clip, au) not in found:
                problems.add("missing label file", folders[clip], f"there is none of AU {au} for {clip}; it is not labelled there")
    return dict(sorted(found.items(), key=lambda item: (item[0][0], aus.index(item[0][1]))))


def lines(found: Found, problems: Problems) -> pl.DataFrame:
    """The lines of all files that are not blank: columns ``clip``, ``au``, ``file``, ``line`` and ``text``, blanks around it taken off."""
    tables = [files.lines(path, problems).with_columns(place=pl.lit(place, pl.UInt32)) for place, path in enumerate(found.values())]
    keys = pl.DataFrame(
        [(place, clip, au, str(path)) for place, ((clip, au), path) in enumerate(found.items())],
        schema={"place": pl.UInt32, "clip": pl.String, "au": pl.Int32, "file": pl.Categorical},
        orient="row",
    )
    table = pl.concat(tables).with_columns(pl.col("text").str.strip_chars()).filter(pl.col("text") != "")
    return table.join(keys, on="place", how="left", maintain_order="left").drop("place")


def frames(rows: pl.DataFrame, found: Found, problems: Problems) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Each frame of each clip once, with the columns of its first row; and the rows that label one.

    Args:
        rows: Of :func:`lines`, with the frame's number (``frame``, never null). A second one of the same file and frame is a problem.
        found: All the files.
        problems: Takes what is wrong.
    """
    rows = rows.with_columns(pl.col("frame").cast(pl.Int32))
    file = pl.col("file").to_physical().cast(pl.Int64)  # one number of both: structs take several times as long
    first = (file * 2**32 + pl.col("frame")).is_first_distinct()
    twice = rows.filter(~first).with_columns(pl.col("file").cast(pl.String))
    problems.extend(twice, "row stands twice", pl.format("frame {} again; the first row is used", "frame"))
    rows = rows.filter(first)
    labelled = set(rows["file"].unique().cast(pl.String))
    for path in found.values():
        if str(path) not in labelled:
            problems.add("unreadable file", path, "it labels no frame")
    once = rows.unique(["clip", "frame"], keep="first", maintain_order=True)
    return once.sort("clip", "frame"), rows


def labelled(samples: pl.DataFrame, rows: pl.DataFrame, aus: Sequence[int], problems: Problems) -> pl.DataFrame:
    """The frames with a column of intensities for each action unit; what is no whole number 0..5 is null and a problem.

    Args:
        samples: The frames of :func:`frames`, with their ``sample``.
        rows: What labels them, with ``intensity`` (text).
        aus: The columns to make.
        problems: Takes what is wrong. Frames that one file lacks and others have are one problem a file.
    """
    value = pl.col("intensity").cast(pl.Float64, strict=False)
    rows = rows.with_columns(value=value)
    known = (pl.col("value").is_between(0, STRONGEST) & (pl.col("value") % 1 == 0)).fill_null(False)
    key = ["clip", "frame"]
    wrong = rows.filter(~known).join(samples.select(*key, "sample"), on=key, how="left", maintain_order="left")
    wrong = wrong.with_columns(pl.col("file").cast(pl.String))
    problems.extend(wrong.filter(pl.col("value").is_null()), "unreadable label", pl.format("'{}' is no number", "intensity"))
    out = f" is no whole number 0-{STRONGEST}"
    problems.extend(wrong.filter(pl.col("value").is_not_null()), "label out of range", pl.format("{}" + out, "intensity"))
    rows = rows.with_columns(pl.when(known).then("value").alias("value").cast(pl.Float32))
    for au in aus:
        of_one = rows.filter(pl.col("au") == au)
        there = of_one.select(*key, pl.col("value").alias(f"au{au}_intensity"), pl.lit(True).alias("there"))
        samples = samples.join(there, on=key, how="left", maintain_order="left")
        path = of_one.group_by("clip").agg(pl.col("file").first().cast(pl.String).alias("in_file"))
        absent = samples.filter(pl.col("there").is_null()).group_by("clip", maintain_order=True).agg(pl.len(), pl.col("frame").first())
        told = absent.join(path, on="clip", maintain_order="left").rename({"in_file": "file"})  # of a whole file that is absent it is known
        problems.extend(told, "missing frame number", pl.format("{} frames that other files label, the first of them {}", "len", "frame"))
        samples = samples.drop("there")
    return samples
