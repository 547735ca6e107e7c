"""Submission files of the ABAW challenges: written from predictions in the challenge's own format and order, and read back.

``single``, since the fifth edition, one file for all test videos, whose rows and order a sample file fixes::

    image_location,valence,arousal                                    also: image_location,AU1,AU2,AU4, …
    10-60-1280x720_right/00001.jpg,0.12,-0.3

    image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other
    10-60-1280x720_right/00001.jpg,4                                  nine names over two cells

The multi-task challenge has rows of 16 cells under ``image,valence,arousal,expression,aus``. ``per_video``, up to the third edition, is a
file a video, as the labels are: a line a frame under the header of the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.samples import Problems
from tasks.datasets import files
from tasks.datasets.aff_wild2 import IMAGE, MTL_FIELDS, MTL_HEADER, label_columns, mtl_fields
from tasks.datasets.vocabulary import AFF_WILD2, AFF_WILD2_AUS

CHALLENGES = ("va", "expr", "au", "mtl")
LAYOUTS = ("single", "per_video")

_LABELS = {"va": ("valence", "arousal"), "expr": ("expression",), "au": MTL_FIELDS[4:], "mtl": MTL_FIELDS[1:]}
_HEADERS = {
    "va": "valence,arousal",
    "expr": "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
    "au": ",".join(f"AU{au}" for au in AFF_WILD2_AUS),
}
_SINGLE = {challenge: f"image_location,{header}" for challenge, header in _HEADERS.items()} | {"mtl": ",".join(MTL_HEADER)}
_FIRST = ("image_location", "image")
_TYPES = {"image": pl.String, "clip": pl.String, "frame": pl.Int32}


def write_submission(
    predictions: pl.DataFrame, challenge: str, *, order: Path | None = None, layout: str = "single", problems: Problems | None = None
) -> dict[str, str]:
    """The files to hand in.

    Valence and arousal are cut to -1..1; an action unit is there from a probability of 0.5. A row that is asked for and has no prediction
    takes the one of the nearest frame of its video.

    Args:
        predictions: Columns ``sample``, ``clip``, ``frame`` and, as the challenge asks, ``valence_pred``, ``arousal_pred``,
            ``expression_pred`` (a canonical name) and ``au1_pred`` … (a probability). A row with one of these null or not finite
            is no prediction.
        challenge: ``va``, ``expr``, ``au`` or ``mtl``.
        order: The challenge's sample file or list: the rows to write, in its order. For ``per_video`` it may name videos, and only the last
            frame of each counts. Without it all that is predicted is written, by video and frame.
        layout: ``single``, or ``per_video``, which has a line for each frame from the first to the last.
        problems: Takes, by video, how many rows took another frame's prediction, and how many predictions nobody asked for.

    Returns:
        Name of the file → its text.

    Raises:
        RequestError: There is no such challenge or layout, a column is missing, an expression is none of the challenge's, a frame is
            predicted twice, a video to be written has no prediction, or the order cannot be read.
    """
    labels = _labels(challenge)
    if layout not in LAYOUTS or (layout == "per_video" and challenge == "mtl"):
        remedy = did_you_mean(layout, LAYOUTS) if layout not in LAYOUTS else "the multi-task challenge takes a single file"
        raise RequestError(f"no layout {layout!r} of a submission to the {challenge} challenge", where="layout", remedy=remedy)
    problems = Problems() if problems is None else problems
    name = f"{challenge.upper()}_predictions.txt"
    predicted = _predicted(predictions, labels)
    asked = _asked(order, problems, predicted, layout) if order else predicted.select("image", "clip", "frame")
    if layout == "per_video":
        asked = _every_frame(asked)
    rows = _nearest(asked, predicted)
    moved = pl.col("frame") != pl.col("from")
    filled = rows.group_by("clip", maintain_order=True).agg(n=moved.sum(), of=pl.len()).filter(pl.col("n") > 0)
    told = filled.with_columns(file=pl.lit(name) if layout == "single" else pl.col("clip") + ".txt")
    problems.extend(told, "filled from the nearest frame", pl.format("{} of {} rows of {}", "n", "of", "clip"))
    if unasked := predicted.join(asked, on=["clip", "frame"], how="anti").height:
        problems.add("not asked for", order or name, f"{unasked} of {predicted.height} predictions are of frames that are not in the order")

    cells = [_cell(label) for label in labels]
    if layout == "single":
        lines = rows.select(pl.concat_str("image", *cells, separator=",")).to_series()
        return {name: "\n".join([_SINGLE[challenge], *lines]) + "\n"}
    of_video = rows.select("clip", line=pl.concat_str(*cells, separator=",")).group_by("clip", maintain_order=True).agg("line")
    return {f"{clip}.txt": "\n".join([_HEADERS[challenge], *texts]) + "\n" for clip, texts in of_video.iter_rows()}


def read_submission(source: str | Path, challenge: str, problems: Problems) -> pl.DataFrame:
    """What was predicted in a submission.

    Args:
        source: The text of a single file; or a path, of such a file, of a file of one video, or of a folder of these.
        challenge: ``va``, ``expr``, ``au`` or ``mtl``.
        problems: Takes what cannot be read, with its line.

    Returns:
        Columns ``image`` (where the image is, as written), ``clip``, ``frame``, and the predictions as :func:`write_submission` takes
        them, action units as 0 or 1; null where a cell is no prediction.

    Raises:
        RequestError: There is no such challenge or file, or it is no submission to this challenge.
    """
    rows = read_rows(source, challenge, problems)
    first = rows.select(pl.struct("clip", "frame").is_first_distinct()).to_series()
    problems.extend(rows.filter(~first), "row stands twice", pl.format("{}: the first is used", "image"))
    return rows.filter(first).drop("file", "line")


def read_rows(source: str | Path, challenge: str, problems: Problems) -> pl.DataFrame:
    """The same row by row: with ``file`` and ``line``, and rows that stand twice are there twice."""
    labels = _labels(challenge)
    if isinstance(source, str):
        text = files.text(source).removeprefix("\ufeff").replace("\0", "\ufffd").removesuffix("\n")
        table = pl.DataFrame({"text": pl.Series(text.split("\n"), dtype=pl.String).str.strip_suffix("\r")}).with_row_index("line", 1)
        found = [_read(table, Path("submission"), challenge, None, problems)]
    elif source.is_dir():
        paths = [source / name for name in files.listing(source) if name.lower().endswith(".txt") and not name.startswith(".")]
        found = [_read(files.lines(path, problems), path, challenge, path.stem, problems) for path in paths]
    elif source.exists():
        found = [_read(files.lines(source, problems), source, challenge, source.stem, problems)]
    else:
        raise RequestError(f"there is no file {files.text(str(source))!r}", remedy="give a submission, or a folder with a file a video")
    known = [rows for rows in found if rows is not None]
    if not known:
        remedy = f"its first line must be {_SINGLE[challenge]}, or without the first name in a file of one video"
        where = "the text" if isinstance(source, str) else files.text(str(source))
        raise RequestError(f"no submission to the {challenge} challenge", where=where, remedy=remedy)
    rows = pl.concat(known)
    types = _TYPES | {f"{label}_pred": pl.String if label == "expression" else pl.Float64 for label in labels}
    return rows.select("file", "line", *(pl.col(column).cast(dtype) for column, dtype in types.items()))


def _labels(challenge: str) -> tuple[str, ...]:
    if challenge not in CHALLENGES:
        raise RequestError(f"ABAW has no challenge {challenge!r}", where="challenge", remedy=did_you_mean(str(challenge), CHALLENGES))
    return _LABELS[challenge]


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _predicted(predictions: pl.DataFrame, labels: Sequence[str]) -> pl.DataFrame:
    """The rows that have a prediction, by video and frame: columns ``image``, ``clip``, ``frame``, ``from`` and labels."""
    columns = {"sample": pl.String, "clip": pl.String, "frame": pl.Int32}
    columns |= {f"{label}_pred": pl.String if label == "expression" else pl.Float64 for label in labels}
    if missing := [name for name in columns if name not in predictions.columns]:
        raise RequestError(f"the predictions have no column {', '.join(missing)}", remedy="predict all that the challenge asks for")
    rows = predictions.select(pl.col(name).cast(dtype) for name, dtype in columns.items())
    if (nameless := rows.select("sample", "clip", "frame").null_count().sum_horizontal().item()) > 0:
        raise RequestError(f"{nameless} predictions lack their sample, clip or frame")
    name = pl.col("sample").str.extract(r"([^/]+)$")
    rows = rows.select(
        "clip",
        "frame",
        image=pl.col("clip") + "/" + name,
        **{"from": "frame"},
        **{label: pl.col(f"{label}_pred") for label in labels},
    ).sort("clip", "frame")
    odd = rows.filter(~pl.col("image").str.contains(IMAGE) | ~pl.col("clip").str.contains(r"^[^/\\,\s]+$"))
    if odd.height:
        raise RequestError(f"{odd['image'][0]!r} is no frame of a video of Aff-Wild2", remedy="give predictions of one of its tasks")
    if (twice := rows.select(pl.struct("clip", "frame").is_duplicated().sum()).item()) > 0:
        raise RequestError(f"{twice} predictions are of the same frames", remedy="give those of one evaluation")
    if "expression" in labels:
        strange = rows["expression"].drop_nulls().unique().sort().to_list()
        if strange := [name for name in strange if name not in AFF_WILD2]:
            raise RequestError(f"no expression of the challenge: {', '.join(strange)}", remedy=f"it has {', '.join(AFF_WILD2)}")
    known = [pl.col(label).is_not_null() if label == "expression" else pl.col(label).is_finite().fill_null(False) for label in labels]
    return rows.filter(pl.all_horizontal(known))


def _asked(order: Path, problems: Problems, predicted: pl.DataFrame, layout: str) -> pl.DataFrame:
    """The rows of an order: columns ``image``, ``clip`` and ``frame``."""
    image = pl.col("text").str.split(",").list.first().str.strip_chars(" \t\"'")
    rows = files.lines(order, problems).select("line", image=image).filter(pl.col("image") != "")
    rows = rows.filter((pl.col("line") > 1) | ~pl.col("image").str.to_lowercase().is_in(_FIRST))
    asked = rows.with_columns(clip=pl.col("image").str.extract(IMAGE, 1), frame=pl.col("image").str.extract(IMAGE, 3).cast(pl.Int32))
    if layout == "per_video":  # the name of a video stands for its frames as far as they are predicted
        whole = pl.when(pl.col("clip").is_null() & ~pl.col("image").str.contains("/", literal=True)).then("image")
        last = predicted.group_by("clip").agg(last=pl.col("frame").max())
        asked = asked.with_columns(clip=pl.coalesce("clip", whole)).join(last, on="clip", how="left", maintain_order="left")
        asked = asked.with_columns(frame=pl.coalesce("frame", "last", pl.lit(1, pl.Int32)))
    if asked.is_empty():
        raise RequestError("the order has no rows", where=str(order), remedy="give the challenge's sample file")
    for line, name in asked.filter(pl.col("clip").is_null()).select("line", "image").iter_rows():
        raise RequestError(f"line {line} of the order names no image: {name!r}", where=str(order), remedy="rows begin with VIDEO/00001.jpg")
    return asked.select("image", "clip", "frame")


def _every_frame(asked: pl.DataFrame) -> pl.DataFrame:
    """A row for each frame from the first to the last one asked for, video by video in their order."""
    last = asked.group_by("clip", maintain_order=True).agg(frame=pl.int_ranges(1, pl.col("frame").max() + 1, dtype=pl.Int32))
    return last.explode("frame").with_columns(image=pl.format("{}/{}.jpg", "clip", pl.col("frame").cast(pl.String).str.zfill(5)))


def _nearest(asked: pl.DataFrame, predicted: pl.DataFrame) -> pl.DataFrame:
    """What is asked for, in its order, with the prediction of the same or the nearest frame, whose number is ``from``."""
    empty = asked.join(predicted, on="clip", how="anti")["clip"].unique(maintain_order=True)
    if len(empty):
        more = f" and of {len(empty) - 1} more" if len(empty) > 1 else ""
        raise RequestError(f"no frame of {empty[0]!r}{more} is predicted", remedy="predict every video of the order")
    rows = asked.with_row_index("row").sort("frame")
    near = predicted.drop("image").sort("frame")
    return rows.join_asof(near, on="frame", by="clip", strategy="nearest", check_sortedness=False).sort("row")


def _cell(label: str) -> pl.Expr:
    if label == "expression":
        return pl.col(label).replace_strict({name: str(code) for code, name in enumerate(AFF_WILD2)}, return_dtype=pl.String)
    if label.startswith("au"):
        return (pl.col(label) >= 0.5).cast(pl.Int8).cast(pl.String)
    return pl.col(label).clip(-1, 1).cast(pl.String)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read(table: pl.DataFrame, path: Path, challenge: str, video: str | None, problems: Problems) -> pl.DataFrame | None:
    """The rows of a file with ``file`` and ``line``; None, and a problem, where it is no submission.

    Args:
        table: Its lines.
        path: Of the file.
        challenge: Which one.
        video: Whose it is, where it is of one video.
        problems: Takes what cannot be read.
    """
    header = [cell.lower() for cell in files.header(table)]
    single = bool(header) and header[0] in _FIRST
    columns = _columns(challenge, header, single)
    if columns is None or not (single or video):
        told = files.text(",".join(header))[:60]
        problems.add("unknown header", path, f"'{told}' is none of a submission to the {challenge} challenge", line=1)
        return None
    fields, expressions = columns
    rows = files.cells(table.slice(1), len(fields), path, problems).with_columns(file=pl.lit(str(path)))
    rows = rows.rename({f"c{place}": field for place, field in enumerate(fields)}).filter(pl.col(fields[0]).is_not_null())
    if single:
        part = pl.col("image").str.replace_all("\\", "/", literal=True).str.extract
        rows = rows.with_columns(clip=part(IMAGE, 1), frame=part(IMAGE, 3).cast(pl.Int32))
        nameless = rows.filter(pl.col("clip").is_null())
        problems.extend(nameless, "unreadable name", pl.format("'{}' names no frame of a video; the row is not used", "image"))
        rows = rows.filter(pl.col("clip").is_not_null())
    else:
        number = (pl.col("line").cast(pl.Int32) - 1).alias("frame")
        rows = rows.with_columns(number, clip=pl.lit(video))
        rows = rows.with_columns(image=pl.format("{}/{}.jpg", "clip", pl.col("frame").cast(pl.String).str.zfill(5)))
    values = []
    for label in (field for field in fields if field != "image"):
        value = files.numbers(label)
        fits, wanted = _rule(label, expressions)
        unread = rows.filter(value.is_null()).rename({"image": "sample"})
        problems.extend(unread, "unreadable prediction", pl.format(f"{label} '{{}}' is no number", label))
        wrong = rows.filter(~fits).rename({"image": "sample"})
        problems.extend(wrong, "prediction out of range", pl.format(f"{label} {{}} is {wanted}", label))
        kept = pl.when(fits).then(value)
        named = kept.cast(pl.Int64, strict=False).replace_strict(dict(enumerate(expressions)), default=None, return_dtype=pl.String)
        values.append((named if label == "expression" else kept).alias(f"{label}_pred"))
    absent = [pl.lit(None).alias(f"{label}_pred") for label in _LABELS[challenge] if label not in fields]
    return rows.select("file", pl.col("line").cast(pl.Int64), "image", "clip", "frame", *values, *absent)


def _columns(challenge: str, header: Sequence[str], single: bool) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """What stands in each cell under a header, and the expressions of the codes; None where it is no header of the challenge."""
    if challenge == "mtl":
        fields = mtl_fields(["image", *header[1:]]) if single else None
        return (fields, AFF_WILD2) if fields and set(fields) <= set(MTL_FIELDS) else None
    found = label_columns(challenge, header[1:] if single else header)
    if found is None or not set(found[0]) <= set(_LABELS[challenge]):
        return None
    return ("image", *found[0]) if single else found[0], found[1]


def _rule(label: str, expressions: Sequence[str]) -> tuple[pl.Expr, str]:
    """Which numbers are predictions, and what any other is."""
    value = files.numbers(label)
    if label == "expression":
        return value.is_between(0, len(expressions) - 1) & (value == value.floor()), f"no code 0-{len(expressions) - 1}"
    if label.startswith("au"):
        return value.is_in([0.0, 1.0]), "neither 0 nor 1"
    return value.is_between(-1, 1), "outside -1..1"
