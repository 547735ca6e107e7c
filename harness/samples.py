"""The samples frame: one row an image or video frame, the same columns for every dataset.

A reader of a dataset returns a :class:`Reading`: samples, and beside them every problem it met, with file and line.
What is not labelled is null; the sentinels of the datasets (-2, -5, -1, 9) end at the reader's door. A labelled sample whose image is
not on disk stays, so that labels can be counted without the images; its ``image`` is null, and nothing trains or is tested on it.

Behind the fixed columns of :data:`SCHEMA` stand the labels that come in families, a column each where a dataset has them:

* ``au12``: whether an action unit is there, 0 or 1;
* ``au12_intensity``: how strong it is, 0..5 (FACS: A is 1, E is 5);
* ``votes_happy``: how many raters chose an expression; ``votes_unknown`` and ``votes_no_face``: how many could not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.errors import RequestError

EXPRESSIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt", "other")
"""The canonical vocabulary: AffectNet's order, and Aff-Wild2's ``other`` at the end."""

LANDMARKS = pl.List(pl.Array(pl.Float32, 2))  # a list, not an array: of three million frames without any, an array takes 1.6 GB
BOX = pl.Array(pl.Float32, 4)

SCHEMA: dict[str, Any] = {
    "sample": pl.String,  # stable path relative to the dataset's root, unique
    "image": pl.String,  # path of the file to decode, or of a part of it (``harness.images``); null where it is not there
    "box": BOX,  # x0, y0, x1, y1 in pixels of the image
    "landmarks": LANDMARKS,  # 68 in iBUG order, x and y in pixels of the image
    "clip": pl.String,  # the video a frame belongs to; an image of its own is its own clip
    "frame": pl.Int32,  # order in the clip
    "subject": pl.String,  # the person; null where the dataset does not say
    "split": pl.String,  # the official one: train, validation or test; null where there is none
    "activity": pl.String,  # what the person was doing, as text
    "valence": pl.Float64,  # -1..1
    "arousal": pl.Float64,  # -1..1
    "expression": pl.Enum(EXPRESSIONS),
}
"""The columns every samples frame has, in this order; families of labels follow (Float32)."""

VOTED = (*EXPRESSIONS, "unknown", "no_face")
"""What a rater may have chosen."""

_FAMILIES = (r"au\d+", r"au\d+_intensity", rf"votes_({'|'.join(VOTED)})")
_LABELS = ("valence", "arousal", "expression", "activity")

PROBLEMS: dict[str, Any] = {
    "kind": pl.String,  # a short fixed phrase, to count by: "missing image", "unreadable label" …
    "file": pl.String,
    "line": pl.Int64,  # 1-based; null where the file has no lines
    "sample": pl.String,  # null where no sample came of it
    "detail": pl.String,
}


class Problems:
    """What was wrong with a dataset on disk, in the order it was met."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str | None, int | None, str | None, str | None]] = []
        self._frames: list[pl.DataFrame] = []

    def add(self, kind: str, file: str | Path, detail: str = "", *, line: int | None = None, sample: str | None = None) -> None:
        """One problem. What is no text (lone surrogates, of file names and JSON) is written with question marks."""
        where, whose, told = (part and part.encode("utf-8", "replace").decode() for part in (str(file), sample, detail))
        self._rows.append((kind, where, line, whose, told))

    def extend(self, rows: pl.DataFrame, kind: str, detail: str | pl.Expr = "") -> None:
        """One problem for each of some rows, as many as there may be.

        Args:
            rows: Columns ``file``, and where there are any ``line`` and ``sample``; what ``detail`` needs.
            kind: Of all of them.
            detail: A text, or an expression over the rows.
        """
        if rows.is_empty():
            return
        told = {
            "kind": pl.lit(kind),
            "file": pl.col("file"),
            "line": pl.col("line") if "line" in rows.columns else pl.lit(None),
            "sample": pl.col("sample") if "sample" in rows.columns else pl.lit(None),
            "detail": pl.lit(detail) if isinstance(detail, str) else detail.fill_null(""),
        }
        self._settle()
        rows = rows.rechunk()  # Polars 2.1 panics in pl.format where one of several chunks is empty, as after concat and filter
        self._frames.append(rows.select(value.cast(PROBLEMS[name]).alias(name) for name, value in told.items()))

    def frame(self) -> pl.DataFrame:
        """Columns as in :data:`PROBLEMS`."""
        self._settle()
        return pl.concat(self._frames) if self._frames else pl.DataFrame(schema=PROBLEMS)

    def _settle(self) -> None:
        if self._rows:
            self._frames.append(pl.DataFrame(self._rows, schema=PROBLEMS, orient="row"))
            self._rows = []


@dataclass(frozen=True)
class Reading:
    """What a dataset reader returns.

    Attributes:
        samples: Columns of :data:`SCHEMA`, then families of labels; see :func:`check`.
        problems: Columns of :data:`PROBLEMS`; nothing is dropped from ``samples`` without a row here.
    """

    samples: pl.DataFrame
    problems: pl.DataFrame


def au_columns(samples: pl.DataFrame) -> list[str]:
    """The columns that say whether an action unit is there, in numerical order."""
    return _family(samples, _FAMILIES[0])


def intensity_columns(samples: pl.DataFrame) -> list[str]:
    """The columns of the intensities of action units, in numerical order."""
    return _family(samples, _FAMILIES[1])


def vote_columns(samples: pl.DataFrame) -> list[str]:
    """The columns of votes, in the order of :data:`VOTED`."""
    return sorted(_family(samples, _FAMILIES[2]), key=lambda name: VOTED.index(name.removeprefix("votes_")))


def label_columns(samples: pl.DataFrame) -> list[str]:
    """Every column that a method must not see of a test sample: labels, and the activity that calls them up."""
    return [name for name in _LABELS if name in samples.columns] + [name for family in _FAMILIES for name in _family(samples, family)]


def _family(samples: pl.DataFrame, pattern: str) -> list[str]:
    found = [name for name in samples.columns if re.fullmatch(pattern, name)]
    return sorted(found, key=lambda name: int(re.sub(r"\D", "", name) or 0))


def as_landmarks(points: np.ndarray, known: np.ndarray) -> pl.Series:
    """Landmarks as a column.

    Args:
        points: ``(m, 68, 2)``, of those that have any.
        known: ``(n,)`` bool with m True: which samples have them.
    """
    place = np.where(known, np.cumsum(known) - 1, -1)
    found = pl.Series("landmarks", np.ascontiguousarray(points, np.float32).reshape(-1, 68, 2), dtype=LANDMARKS)
    return found.gather(pl.Series(place).replace(-1, None))


def conform(rows: pl.DataFrame) -> pl.DataFrame:
    """Any frame with some of the columns as a samples frame: missing columns null, types cast, columns in order.

    Raises:
        RequestError: A column is no sample column, or a value does not fit its type.
    """
    types = SCHEMA | dict.fromkeys(_families(rows), pl.Float32)
    unknown = set(rows.columns) - set(types)
    if unknown:
        remedy = f"the columns are {', '.join(SCHEMA)}, au1 …, au1_intensity …, votes_neutral …"
        raise RequestError(f"unknown sample columns {sorted(unknown)}", remedy=remedy)
    try:
        return rows.select(
            (pl.col(name).cast(dtype) if name in rows.columns else pl.lit(None, dtype=dtype).alias(name)) for name, dtype in types.items()
        )
    except pl.exceptions.PolarsError as error:
        raise RequestError(f"samples do not fit their schema: {str(error).splitlines()[0]}") from None


def check(samples: pl.DataFrame) -> pl.DataFrame:
    """The same frame, or an error that names the first row at fault.

    Raises:
        RequestError: Wrong columns or types, a sample that is null or doubled, a clip that is null, two frames of one clip with the same
            number, a subject that changes inside a clip, landmarks that are not 68, valence or arousal that is not finite in -1..1, an
            action unit that is not 0 or 1, an intensity outside 0..5, or votes below 0.
    """
    expected = SCHEMA | dict.fromkeys(_families(samples), pl.Float32)
    if dict(samples.schema) != expected:
        wrong = [c for c in {*expected, *samples.columns} if samples.schema.get(c) != expected.get(c)]
        raise RequestError(f"samples have wrong columns or types: {', '.join(sorted(wrong))}", remedy="build them with samples.conform")

    def outside(columns: list[str], low: float, high: float) -> pl.Expr:
        label = pl.col(columns)
        return pl.any_horizontal(label.is_not_null() & ~(label.is_finite() & label.is_between(low, high))) if columns else pl.lit(False)

    clip = pl.col("clip").cast(pl.Categorical).to_physical()  # numbers: structs of text take ten times as long
    aus = au_columns(samples)
    faults = {
        "a sample without a name": pl.col("sample").is_null(),
        "a sample that stands twice": pl.col("sample").is_duplicated(),
        "a sample without a clip": pl.col("clip").is_null(),
        "two frames of one clip with the same number": pl.col("frame").is_not_null()
        & (clip.cast(pl.Int64) * 2**32 + pl.col("frame")).is_duplicated(),
        "a clip with two subjects": pl.col("subject").n_unique().over(clip) > 1,
        "landmarks that are not 68": pl.col("landmarks").list.len() != 68,
        "valence or arousal outside -1..1": outside(["valence", "arousal"], -1, 1),
        "an action unit that is not 0 or 1": outside(aus, 0, 1) | pl.any_horizontal(pl.lit(False), *((pl.col(au) % 1 != 0) for au in aus)),
        "an intensity outside 0..5": outside(intensity_columns(samples), 0, 5),
        "votes below 0": outside(vote_columns(samples), 0, 1e6),
    }
    for what, fault in faults.items():
        bad = samples.filter(fault)
        if bad.height:
            raise RequestError(
                f"{what}: {bad['sample'][0]!r} and {bad.height - 1} more" if bad.height > 1 else f"{what}: {bad['sample'][0]!r}"
            )
    return samples


def _families(rows: pl.DataFrame) -> list[str]:
    return [*au_columns(rows), *intensity_columns(rows), *vote_columns(rows)]
