"""The samples frame: one row an image or video frame, the same columns for every dataset.

A reader of a dataset returns a :class:`Reading`: samples, and beside them every problem it met, with file and line.
What is not labelled is null; the sentinels of the datasets (-2, -5, -1, 9) end at the reader's door.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import RequestError

EXPRESSIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt", "other")
"""The canonical vocabulary: AffectNet's order, and Aff-Wild2's ``other`` at the end."""

LANDMARKS = pl.Array(pl.Float32, (68, 2))
BOX = pl.Array(pl.Float32, 4)

SCHEMA: dict[str, Any] = {
    "sample": pl.String,  # stable path relative to the dataset's root, unique
    "image": pl.String,  # path of the file to decode
    "box": BOX,  # x0, y0, x1, y1 in pixels of the image
    "landmarks": LANDMARKS,  # iBUG-68 order, x and y in pixels of the image
    "clip": pl.String,  # the video a frame belongs to; an image of its own is its own clip
    "frame": pl.Int32,  # order in the clip
    "subject": pl.String,  # the person; null where the dataset does not say
    "split": pl.String,  # the official one: train, validation or test; null where there is none
    "activity": pl.String,  # what the person was doing, as text
    "valence": pl.Float64,  # -1..1
    "arousal": pl.Float64,  # -1..1
    "expression": pl.Enum(EXPRESSIONS),
}
"""The columns every samples frame has, in this order; action units follow as ``au1``, ``au2`` … (Float32)."""

PROBLEMS: dict[str, Any] = {
    "kind": pl.String,  # a short fixed phrase, to count by: "missing image", "unreadable label" …
    "file": pl.String,
    "line": pl.Int64,  # 1-based; null where the file has no lines
    "sample": pl.String,  # null where no sample came of it
    "detail": pl.String,
}


@dataclass
class Problems:
    """What was wrong with a dataset on disk, in the order it was met."""

    rows: list[tuple[str, str, int | None, str | None, str]] = field(default_factory=list)

    def add(self, kind: str, file: str | Path, detail: str = "", *, line: int | None = None, sample: str | None = None) -> None:
        self.rows.append((kind, str(file), line, sample, detail))

    def frame(self) -> pl.DataFrame:
        """Columns as in :data:`PROBLEMS`."""
        return pl.DataFrame(self.rows, schema=PROBLEMS, orient="row")


@dataclass(frozen=True)
class Reading:
    """What a dataset reader returns.

    Attributes:
        samples: Columns of :data:`SCHEMA`, then action units; see :func:`check`.
        problems: Columns of :data:`PROBLEMS`; nothing is dropped from ``samples`` without a row here.
    """

    samples: pl.DataFrame
    problems: pl.DataFrame


def au_columns(samples: pl.DataFrame) -> list[str]:
    """The action-unit columns of a frame, in numerical order."""
    return sorted((c for c in samples.columns if c.startswith("au") and c[2:].isdigit()), key=lambda c: int(c[2:]))


def conform(rows: pl.DataFrame) -> pl.DataFrame:
    """Any frame with some of the columns as a samples frame: missing columns null, types cast, columns in order.

    Raises:
        RequestError: A column is no sample column, or a value does not fit its type.
    """
    aus = au_columns(rows)
    unknown = set(rows.columns) - set(SCHEMA) - set(aus)
    if unknown:
        raise RequestError(f"unknown sample columns {sorted(unknown)}", remedy=f"the columns are {', '.join(SCHEMA)} and au1, au2 …")
    types = SCHEMA | dict.fromkeys(aus, pl.Float32)
    try:
        return rows.select(
            (pl.col(name).cast(dtype) if name in rows.columns else pl.lit(None, dtype=dtype).alias(name)) for name, dtype in types.items()
        )
    except pl.exceptions.PolarsError as error:
        raise RequestError(f"samples do not fit their schema: {str(error).splitlines()[0]}") from None


def check(samples: pl.DataFrame) -> pl.DataFrame:
    """The same frame, or an error that names the first row at fault.

    Raises:
        RequestError: Wrong columns or types, a sample that is null or doubled, a clip that is null, two frames of one
            clip with the same number, a subject that changes inside a clip, or valence or arousal that is not finite in -1..1.
    """
    expected = SCHEMA | dict.fromkeys(au_columns(samples), pl.Float32)
    if dict(samples.schema) != expected:
        wrong = [c for c in {*expected, *samples.columns} if samples.schema.get(c) != expected.get(c)]
        raise RequestError(f"samples have wrong columns or types: {', '.join(sorted(wrong))}", remedy="build them with samples.conform")
    label = pl.col("valence", "arousal")
    faults = {
        "a sample without a name": pl.col("sample").is_null(),
        "a sample that stands twice": pl.col("sample").is_duplicated(),
        "a sample without a clip": pl.col("clip").is_null(),
        "two frames of one clip with the same number": pl.struct("clip", "frame").is_duplicated() & pl.col("frame").is_not_null(),
        "a clip with two subjects": pl.col("subject").n_unique().over("clip") > 1,
        "valence or arousal outside -1..1": pl.any_horizontal(label.is_not_null() & (~label.is_finite() | (label.abs() > 1))),
    }
    for what, fault in faults.items():
        bad = samples.filter(fault)
        if bad.height:
            raise RequestError(
                f"{what}: {bad['sample'][0]!r} and {bad.height - 1} more" if bad.height > 1 else f"{what}: {bad['sample'][0]!r}"
            )
    return samples
