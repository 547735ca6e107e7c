"""Any csv: one's own data, and datasets whose layout nobody here has seen, by a map from our columns to theirs::

    ROOT/labels.csv      image,subject,clip,frame,valence,arousal,expression,AU01,AU12,…
                         clips/001/00000.png,ada,001,0,0.12,-0.3,happy,0,1,…
    ROOT/clips/001/00000.png

A row is an image or a frame of a video. Without a map, columns are found by their names. In a dataset's YAML::

    read:
      _target_: tasks.datasets.table.read
      files: {lists/train.csv: train, lists/val.csv: validation}
      columns: {image: path, expression: label, au12: AU12_present, x: left, y: top, width: w, height: h}
      expression_codes: {0: neutral, 1: happy, 9: null}
      missing: {au: [9]}

GFT is read in this way (``configs/dataset/gft.yaml``). So will AffectNet+ be, once somebody who has it says what its columns are called.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.images import VIDEOS, part_of
from harness.samples import EXPRESSIONS, Problems, Reading, check, conform
from tasks.datasets import files as disk
from tasks.datasets.vocabulary import CODES, EXPRESSION_NAMES, au_name

SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What a part is called, in lower case → the official part it is."""

_NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image", "image_path", "image_name", "path", "file", "filename", "file_name", "subdirectory_filepath"),
    "clip": ("clip", "video"),
    "frame": ("frame", "frame_number"),
    "subject": ("subject", "subject_id", "person", "identity", "actor", "participant"),
    "split": ("split", "set", "partition", "usage"),
    "activity": ("activity", "task"),
    "valence": ("valence",),
    "arousal": ("arousal",),
    "expression": ("expression", "emotion"),
    "x0": ("x0", "xmin", "x_min", "left"),
    "y0": ("y0", "ymin", "y_min", "top"),
    "x1": ("x1", "xmax", "x_max", "right"),
    "y1": ("y1", "ymax", "y_max", "bottom"),
    "x": ("x", "face_x"),
    "y": ("y", "face_y"),
    "width": ("width", "w", "face_width"),
    "height": ("height", "h", "face_height"),
}
"""Our column → names by which it is found, in lower case with an underscore for anything but letters and numbers."""

_FOUND = {name: ours for ours, names in _NAMES.items() for name in names}
_CORNERS, _SIDES = ("x0", "y0", "x1", "y1"), ("x", "y", "width", "height")
_PATTERNS = ("clip", "frame", "subject", "split")
_FIELDS = ("image", "clip", "frame", "subject")
_FAMILIES = {"au": r"au\d+", "au_intensity": r"au\d+_intensity", "votes": r"votes_\w+"}
_NOTHING = ("", "null", "na", "n/a", "nan", "none")  # cells that say nothing, in any case of letters
_UNDECIDED = {"affectnet": (8, 9, 10)}  # codes of no expression
_FAR = 1e5  # no box lies so many pixels away
_LONGEST = 100  # lines of one quoted cell


def read(
    root: str | Path,
    *,
    files: str | Sequence[str] | Mapping[str, str | None] = "*.csv",
    columns: Mapping[str, Any] | None = None,
    images: str = ".",
    image_name: str | None = None,
    patterns: Mapping[str, str] | None = None,
    separator: str = ",",
    expression_codes: str | Mapping[Any, str | None] | None = None,
    valence_scale: float = 1.0,
    missing: Sequence[Any] | Mapping[str, Sequence[Any]] = (),
    splits: Mapping[Any, str | None] | None = None,
    frame_base: int = 0,
) -> Reading:
    """All rows of some csv files with a line of names at the top. Cells may be quoted, and a quoted cell may go over several lines.

    A blank cell, or NULL, NA, N/A, NaN, None, says nothing and is no problem. Without a clip, frames of a video belong to it, frames
    without an image to their file, and any other image is its own clip; without frame numbers, those of a clip are counted from 0.

    Args:
        root: The folder.
        files: Which files: a pattern relative to it, several, or a map from patterns to the official part of all rows of their files.
        columns: Our column → the name of theirs, in any case of letters. Ours are image, clip, frame, subject, split, activity,
            valence, arousal, expression, au1 … (0 or 1), au1_intensity … (0..5), votes_happy …, and of the face's box x0, y0, x1, y1 or
            x, y, width, height. Where nothing is given, columns are found by their names (and an ``AU12_r`` is an intensity).
        images: The folder that images are relative to; relative to the root, or a path of its own.
        image_name: The image's path where no column holds it as it is: text with {image}, {clip}, {subject} and {frame:05} in it.
            The path of a video stands for the frame of that number.
        patterns: clip, frame, subject or split → a regular expression whose first group it is, looked for in the column of
            the same name, or where there is none in the image's, else the clip's, else the path of the csv.
        separator: One character between the cells.
        expression_codes: What numbers mean: ``affectnet``, ``aff_wild2``, ``raf_db``, ``fer2013``, or cell → expression (null: none).
            Names are understood without.
        valence_scale: What valence and arousal are divided by to be in -1..1.
        missing: Cells of labels that say nothing: of all labels, or column → cells, where ``au``, ``au_intensity`` and ``votes`` are
            those of all of their kind.
        splits: Cell → ``train``, ``validation``, ``test`` or null, beside the usual names of these.
        frame_base: What the labels call the frame that a video or ``image_name`` calls 0.

    Raises:
        RequestError: There is no such folder or file, a column that was asked for is not in one, or an argument is none.
    """
    root = disk.folder(root, "the csv files")
    wanted = _wanted(columns or {})
    codes = _codes(expression_codes)
    known_splits = SPLITS | {str(cell).lower(): _split_name(split, "splits") for cell, split in (splits or {}).items()}
    if not isinstance(separator, str) or len(separator) != 1 or separator in '"\n\r':
        raise RequestError(f"cells separated by {separator!r}", where="task.dataset.read.separator", remedy="give one character")
    if isinstance(valence_scale, bool) or not isinstance(valence_scale, int | float) or not 0 < valence_scale < np.inf:
        raise RequestError(f"a scale of {valence_scale}", where="task.dataset.read.valence_scale", remedy="give a number above 0")
    if isinstance(frame_base, bool) or not isinstance(frame_base, int):
        raise RequestError(f"a first frame {frame_base!r}", where="task.dataset.read.frame_base", remedy="give a whole number")

    problems = Problems()
    parts: list[pl.DataFrame] = []
    told: set[tuple[str, ...]] = set()
    for path, split in _files(root, files, problems):
        table = _table(path, wanted, separator, told, problems)
        if table is not None:
            given = {"split": pl.lit(split, dtype=pl.String)} if split and "split" not in table.columns else {}
            parts.append(table.with_columns(file=pl.lit(str(path)), within=pl.lit(path.relative_to(root).as_posix()), **given))
    if not parts:
        why = problems.frame()["detail"].to_list()[:1]
        remedy = "; ".join([*why, "set task.dataset.read.columns, separator or files"])
        raise RequestError(f"no csv in {disk.text(str(root))!r} has a column that is known", where="task.root", remedy=remedy)
    rows = pl.concat(parts, how="diagonal")
    rows = rows.with_columns(_said(name) for name in rows.columns if name not in ("file", "within", "line"))

    rows = _matched(rows, patterns or {}, problems)
    rows = _numbered(rows, problems)
    rows = _named(rows, root, root / images, image_name, frame_base, problems)
    rows = _in_clips(rows, problems)
    disk.missing_images(problems, rows, str(root / images))
    rows = _labelled(rows, codes, float(valence_scale), _sentinels(missing, rows), problems)
    rows = _official(rows, known_splits, problems)
    rows = _boxed(rows, problems)
    return Reading(check(conform(rows.drop("file", "within", "line", *_CORNERS, *_SIDES, strict=False))), problems.frame())


# ── what was asked for ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _wanted(columns: Mapping[str, Any]) -> dict[str, str]:
    """The column map, checked as far as it can be without a file."""
    where = "task.dataset.read.columns"
    if not isinstance(columns, Mapping):
        raise RequestError(f"columns {columns!r}", where=where, remedy="give a map from our columns to the file's")
    votes = [f"votes_{name}" for name in EXPRESSIONS]
    for ours in columns:
        if not (ours in _NAMES or ours in votes or re.fullmatch(r"au[1-9]\d?(_intensity)?", str(ours))):
            raise RequestError(
                f"no column of ours is called {ours!r}", where=where, remedy=did_you_mean(str(ours), [*_NAMES, *votes, "au12"])
            )
    given = [name for name in (*_CORNERS, *_SIDES) if name in columns]
    if given and given not in (list(_CORNERS), list(_SIDES)):
        raise RequestError(f"a box of {', '.join(given)}", where=where, remedy="give x0, y0, x1, y1 or x, y, width, height")
    return {str(ours): str(theirs) for ours, theirs in columns.items()}


def _codes(given: str | Mapping[Any, str | None] | None) -> dict[str, str | None]:
    """Cell → expression, None for none."""
    where = "task.dataset.read.expression_codes"
    if given is None:
        return {}
    if isinstance(given, str):
        if given not in CODES:
            raise RequestError(f"no dataset with codes {given!r}", where=where, remedy=did_you_mean(given, CODES))
        return {str(code): None for code in _UNDECIDED.get(given, ())} | {str(code): name for code, name in CODES[given].items()}
    if not isinstance(given, Mapping):
        raise RequestError(f"codes {given!r}", where=where, remedy=f"give a map, or one of {', '.join(CODES)}")
    for name in given.values():
        if name is not None and str(name).lower() not in EXPRESSION_NAMES:
            raise RequestError(f"no expression {name!r}", where=where, remedy=did_you_mean(str(name), EXPRESSIONS))
    return {str(cell): name if name is None else EXPRESSION_NAMES[str(name).lower()] for cell, name in given.items()}


def _split_name(split: str | None, argument: str) -> str | None:
    if split is not None and split not in SPLITS.values():
        remedy = did_you_mean(str(split), SPLITS.values())
        raise RequestError(f"no official part {split!r}", where=f"task.dataset.read.{argument}", remedy=remedy)
    return split


def _sentinels(missing: Sequence[Any] | Mapping[str, Sequence[Any]], rows: pl.DataFrame) -> dict[str, list[str]]:
    """Column → cells that say nothing."""
    where = "task.dataset.read.missing"
    labels = [name for name in rows.columns if name in ("valence", "arousal", "expression") or _family(name)]
    if isinstance(missing, str) or not isinstance(missing, Mapping | Sequence):
        raise RequestError(f"missing {missing!r}", where=where, remedy="give a list of cells, or a map from columns to lists")
    if not isinstance(missing, Mapping):
        return {name: [str(cell) for cell in missing] for name in labels}
    found: dict[str, list[str]] = {name: [] for name in labels}
    for name, cells in missing.items():
        its = [label for label in labels if name in (label, _family(label))]
        if not its:
            remedy = did_you_mean(str(name), [*labels, *filter(None, map(_family, labels))])
            raise RequestError(f"no labels {name!r}", where=where, remedy=remedy)
        for label in its:
            found[label] += [str(cell) for cell in ([cells] if isinstance(cells, str | int | float) else cells)]
    return found


def _family(name: str) -> str | None:
    return next((family for family, pattern in _FAMILIES.items() if re.fullmatch(pattern, name)), None)


def _files(root: Path, wanted: str | Sequence[str] | Mapping[str, str | None], problems: Problems) -> list[tuple[Path, str | None]]:
    """Every file that is asked for, once, and the part it belongs to."""
    where = "task.dataset.read.files"
    if isinstance(wanted, str):
        wanted = [wanted]
    parts = wanted if isinstance(wanted, Mapping) else dict.fromkeys(map(str, wanted))
    found: dict[Path, str | None] = {}
    for pattern, split in parts.items():
        try:
            matched = [path for path in sorted(root.glob(str(pattern))) if os.path.isfile(path)]  # noqa: PTH113  may not raise
        except (NotImplementedError, ValueError, IndexError):  # an absolute path, or none at all
            matched = []
        for path in matched:
            if not path.is_relative_to(root) or ".." in path.parts:
                continue
            if str(path) != disk.text(str(path)):
                problems.add("unreadable name", disk.text(str(path)), "it is not used")
            else:
                found.setdefault(path, _split_name(split, "files"))
        if not matched:
            remedy = f"there are {', '.join(path.name for path in sorted(root.glob('*'))[:5]) or 'none at all'}"
            raise RequestError(f"no file {disk.text(str(pattern))!r} in {disk.text(str(root))!r}", where=where, remedy=disk.text(remedy))
    return list(found.items())


# ── cells ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _table(path: Path, wanted: dict[str, str], separator: str, told: set[tuple[str, ...]], problems: Problems) -> pl.DataFrame | None:
    """A file's rows as text in our columns, and ``line``; None where none of its columns is known."""
    lines = disk.lines(path, problems)
    if lines.is_empty():
        problems.add("unreadable file", path, "it is empty")
        return None
    cell = _cell(separator)
    header = [_unquote(text[1:].strip()) for text in re.findall(cell, separator + lines["text"][0])]
    places = _mapped(header, wanted, path, separator) if wanted else _found(header)
    if not places:
        problems.add("unreadable file", path, f"no column is known by its name: {', '.join(header)[:200]}", line=1)
        return None
    unused = [name for place, name in enumerate(header) if place not in places.values()]
    if unused and not wanted and tuple(header) not in told:
        told.add(tuple(header))
        problems.add("column not used", path, ", ".join(unused)[:500], line=1)

    records = _records(lines.slice(1), len(header), separator).filter(pl.col("text").str.strip_chars() != "")
    quoted = pl.col("text").str.contains('"', literal=True)
    plain = records.filter(~quoted).select("line", cut=pl.col("text").str.split(separator))
    others = records.filter(quoted).select(
        "line", cut=(separator + pl.col("text")).str.extract_all(cell).list.eval(pl.element().str.slice(1))
    )
    cut = pl.concat([plain, others]).sort("line") if others.height else plain
    right = pl.col("cut").list.len() == len(header)
    wrong = cut.filter(~right).select("line", file=pl.lit(str(path)), n=pl.col("cut").list.len())
    problems.extend(wrong, "wrong number of cells", pl.format(f"{{}}, where {len(header)} belong", "n"))
    whole = cut.filter(right)
    bare = {ours: pl.col("cut").list.get(place).str.strip_chars() for ours, place in places.items()}
    rows = whole.select("line", **bare)
    if not others.height:
        return rows
    quotes = r'(?s)^"(.*)"$'
    return rows.with_columns(
        pl.when(pl.col(name).str.contains(quotes))
        .then(pl.col(name).str.extract(quotes).str.replace_all('""', '"', literal=True).str.strip_chars())
        .otherwise(name)
        .alias(name)
        for name in places
    )


def _cell(separator: str) -> str:
    """A regular expression for a separator and the cell behind it."""
    own = re.escape(separator)
    return rf'{own}(?:\s*"(?:[^"]|"")*"[^{own}]*|[^{own}]*)'


def _unquote(cell: str) -> str:
    return cell[1:-1].replace('""', '"').strip() if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _records(lines: pl.DataFrame, count: int, separator: str) -> pl.DataFrame:
    """The lines, those over which a quoted cell goes on put together: a quote opens, another line closes it, and the cells fit."""
    own = re.escape(separator)
    open_ = np.flatnonzero(lines["text"].str.contains(rf'(?:^|{own})\s*"(?:[^"]|"")*$').to_numpy())
    odd = np.flatnonzero((lines["text"].str.count_matches('"', literal=True) % 2 == 1).to_numpy())
    joined: dict[int, str] = {}
    dropped: list[int] = []
    for first in open_:
        later = odd[np.searchsorted(odd, first, "right") :][:1]
        if not len(later) or later[0] - first > _LONGEST or (dropped and first <= dropped[-1]):
            continue
        text = "\n".join(lines["text"][int(first) : int(later[0]) + 1])
        if len(re.findall(_cell(separator), separator + text)) == count:
            joined[int(first)] = text
            dropped += range(int(first) + 1, int(later[0]) + 1)
    if not joined:
        return lines
    place = pl.int_range(pl.len())
    texts = place.replace_strict(joined, default=None, return_dtype=pl.String)
    return lines.with_columns(text=texts.fill_null(pl.col("text"))).filter(~place.is_in(dropped))


def _mapped(header: list[str], wanted: dict[str, str], path: Path, separator: str) -> dict[str, int]:
    lower = [name.lower() for name in header]
    places: dict[str, int] = {}
    for ours, theirs in wanted.items():
        if theirs in header:
            places[ours] = header.index(theirs)
        elif theirs.lower() in lower:
            places[ours] = lower.index(theirs.lower())
        else:
            others = [mark for mark in ";\t,|" if len(header) == 1 and mark in header[0] and mark != separator]
            remedy = f"set task.dataset.read.separator to {others[0]!r}" if others else did_you_mean(theirs, header)
            raise RequestError(f"the file has no column {theirs!r} for {ours}", where=str(path), remedy=remedy)
    return places


def _found(header: list[str]) -> dict[str, int]:
    """Columns known by their names; the first one where there are two."""
    places: dict[str, int] = {}
    for place, name in enumerate(header):
        plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        vote = re.fullmatch(r"votes?_([a-z]+)", plain)
        ours = _FOUND.get(plain)
        if ours is None and vote and vote[1] in EXPRESSION_NAMES:
            ours = f"votes_{EXPRESSION_NAMES[vote[1]]}"
        elif ours is None and plain.startswith("au"):  # a bare number is an action unit only where one says so
            unit = au_name(plain.removesuffix("_intensity"))
            ours = f"{unit}_intensity" if unit and plain.endswith(("_r", "_intensity")) else unit
        if ours is not None:
            places.setdefault(ours, place)
    for box in (_CORNERS, _SIDES):
        if not all(name in places for name in box) or (box == _SIDES and "x0" in places):
            for name in box:
                places.pop(name, None)
    return places


def _said(name: str) -> pl.Expr:
    """A cell, or null where it says nothing."""
    return pl.when(~pl.col(name).str.to_lowercase().is_in(_NOTHING)).then(name)


# ── which image, whose, when ─────────────────────────────────────────────────────────────────────────────────────────────────


def _matched(rows: pl.DataFrame, patterns: Mapping[str, str], problems: Problems) -> pl.DataFrame:
    where = "task.dataset.read.patterns"
    found: list[pl.Series] = []
    for ours, pattern in patterns.items():
        if ours not in _PATTERNS:
            raise RequestError(f"no pattern gives {ours!r}", where=where, remedy=did_you_mean(str(ours), _PATTERNS))
        source = next(name for name in (ours, "image", "clip", "within") if name in rows.columns)
        try:
            part = rows[source].str.extract(str(pattern)).alias(ours)
            if re.compile(str(pattern)).groups < 1:
                raise ValueError
        except (pl.exceptions.PolarsError, ValueError, re.error):
            remedy = "give one with a group in brackets"
            raise RequestError(f"{pattern!r} is no regular expression for {ours}", where=where, remedy=remedy) from None
        problems.extend(
            rows.filter(part.is_null() & rows[source].is_not_null()), "pattern does not fit", pl.format(f"no {ours} in '{{}}'", source)
        )
        found.append(part)
    return rows.with_columns(found)


def _numbered(rows: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    """Frames as numbers; the column stays away where there are none at all."""
    if "frame" not in rows.columns:
        return rows
    number = pl.col("frame").cast(pl.Float64, strict=False)
    whole = (number % 1 == 0) & (number.abs() < 2**31)
    bad = rows.filter(pl.col("frame").is_not_null() & ~whole.fill_null(False))
    problems.extend(bad, "unreadable frame", pl.format("'{}' is no number of a frame", "frame"))
    return rows.with_columns(frame=pl.when(whole).then(number).cast(pl.Int32, strict=False))


def _named(rows: pl.DataFrame, root: Path, folder: Path, template: str | None, base: int, problems: Problems) -> pl.DataFrame:
    """``sample``, and ``image`` where it is there."""
    if template is None and "image" not in rows.columns:
        sample = pl.format("{}::{}", "within", "line")
        return rows.with_columns(sample=sample, image=pl.lit(None, dtype=pl.String), video=pl.lit(False))
    name = pl.col("image") if template is None else _filled(template, rows.columns, base)
    rows = rows.with_columns(
        name=name.str.replace_all("\\", "/", literal=True).str.replace_all("/{2,}", "/").str.replace(r"^(?:\./)+", "").replace("", None)
    )
    nameless = rows["name"].is_null()
    problems.extend(rows.filter(nameless), "row without an image name", "it is not used")
    rows = rows.filter(~nameless)

    root, folder = Path(os.path.normpath(root)), Path(os.path.normpath(folder))
    prefix = f"{folder.relative_to(root).as_posix()}/".removeprefix("./") if folder.is_relative_to(root) else ""
    rows = rows.with_columns(name=pl.col("name").str.strip_prefix(f"{folder}/"))
    outside = rows["name"].str.contains(r"^/|^[A-Za-z]:/|(?:^|/)\.\.(?:/|$)")
    problems.extend(rows.filter(outside), "image outside the folder", pl.format("{}; set task.dataset.read.images", "name"))
    parents = rows.filter(~outside)["name"].str.extract("^(.*/)").fill_null("").unique()
    there = pl.Series([parent + file for parent in parents for file in disk.listing(folder / parent)], dtype=pl.String)

    suffix = pl.col("name").str.extract(r"(\.[^./]*)$").str.to_lowercase()
    frame = pl.col("frame") if "frame" in rows.columns else pl.lit(None, dtype=pl.Int32)
    video = (suffix.is_in(VIDEOS) & frame.is_not_null()).fill_null(False)
    inside = pl.when(video).then(part_of("", "") + (frame.cast(pl.Int64) - base).cast(pl.String)).otherwise(pl.lit(""))
    found = pl.col("name").is_in(there.implode()) & ~outside
    return rows.with_columns(
        sample=prefix + pl.col("name") + inside,
        image=pl.when(found).then(pl.lit(f"{folder}/") + pl.col("name") + inside),
        video=video,
    )


def _filled(template: str, columns: Iterable[str], base: int) -> pl.Expr:
    where = "task.dataset.read.image_name"
    parts: list[pl.Expr] = []
    try:
        pieces = list(Formatter().parse(template))
    except (ValueError, TypeError):
        raise RequestError(f"image_name {template!r}", where=where, remedy="give text with {clip} and {frame:05} in it") from None
    for literal, name, form, _ in pieces:
        parts.append(pl.lit(literal))
        if name is None:
            continue
        if name not in _FIELDS or name not in columns:
            remedy = did_you_mean(name, [field for field in _FIELDS if field in columns])
            raise RequestError(f"{{{name}}} in image_name, and no column gives it", where=where, remedy=remedy)
        digits = re.fullmatch(r"(?:0?(\d))?d?", form or "")
        if digits is None or (form and name != "frame"):
            raise RequestError(f"{{{name}:{form}}} in image_name", where=where, remedy="give {frame:05} for five digits")
        cell = pl.col(name) if name != "frame" else (pl.col(name).cast(pl.Int64) - base).cast(pl.String).str.zfill(int(digits[1] or 1))
        parts.append(cell)
    return pl.concat_str(parts)


def _in_clips(rows: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    """``clip``, ``frame`` and ``subject`` of every sample; of what stands twice the first."""
    first = rows["sample"].is_first_distinct()
    problems.extend(rows.filter(~first), "row stands twice", "the first one is used")
    rows = rows.filter(first)
    alone = pl.when("video").then(pl.col("name")).otherwise("sample") if "name" in rows.columns else pl.col("sample")
    if "name" not in rows.columns and "frame" in rows.columns:
        alone = pl.col("within").str.replace(r"\.[^./]*$", "")
    clip = pl.coalesce(pl.col("clip"), alone) if "clip" in rows.columns else alone
    rows = rows.with_columns(clip=clip)
    if "frame" not in rows.columns:
        rows = rows.with_columns(frame=pl.int_range(pl.len()).over("clip"))
    again = rows.select(twice=~pl.struct("clip", "frame").is_first_distinct() & pl.col("frame").is_not_null())["twice"]
    problems.extend(rows.filter(again), "frame stands twice", pl.format("frame {} of clip {}; the first one is used", "frame", "clip"))
    rows = rows.filter(~again).drop("video", "name", strict=False)
    if "subject" in rows.columns:
        one = pl.col("subject").drop_nulls().first().over("clip")
        other = rows.filter(pl.col("subject") != one)
        problems.extend(other, "clip with two subjects", pl.format("{} in clip {}; the first one is used", "subject", "clip"))
        rows = rows.with_columns(subject=one)
    return rows


# ── labels ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _labelled(
    rows: pl.DataFrame, codes: dict[str, str | None], scale: float, sentinels: dict[str, list[str]], problems: Problems
) -> pl.DataFrame:
    for name, cells in sentinels.items():
        if cells:
            numbers = [float(cell) for cell in cells if re.fullmatch(r"[-+]?\d+(?:\.\d*)?", cell)]
            same = pl.col(name).is_in(cells) | pl.col(name).cast(pl.Float64, strict=False).is_in(numbers).fill_null(False)
            rows = rows.with_columns(pl.when(~same).then(name).alias(name))
    for name in sentinels:
        if name == "expression":
            rows = _expressions(rows, codes, problems)
        else:
            low, high = {None: (-1, 1), "au": (0, 1), "au_intensity": (0, 5), "votes": (0, 1e6)}[_family(name)]
            rows = _number(rows, name, low, high, 1 if _family(name) else scale, problems)
    return rows


def _number(rows: pl.DataFrame, name: str, low: float, high: float, scale: float, problems: Problems) -> pl.DataFrame:
    value = pl.col(name).cast(pl.Float64, strict=False)
    bad = rows.filter(pl.col(name).is_not_null() & value.is_null())
    problems.extend(bad, "unreadable label", pl.format(name + " '{}' is no number", name))
    right = value.is_finite() & (value / scale).is_between(low, high)
    what = f"{low:g}..{high:g}"
    if _family(name) == "au":
        right, what = right & (value % 1 == 0), "0 or 1"
    problems.extend(rows.filter(value.is_not_null() & ~right), "label out of range", pl.format(name + f" {{}} is not {what}", name))
    return rows.with_columns(pl.when(right).then(value / scale).alias(name))


def _expressions(rows: pl.DataFrame, codes: dict[str, str | None], problems: Problems) -> pl.DataFrame:
    known: dict[str, str | None] = {}
    for cell in rows["expression"].drop_nulls().unique():
        with suppress(KeyError):
            known[cell] = _expression(cell, codes)
    wrong = rows.filter(pl.col("expression").is_not_null() & ~pl.col("expression").is_in(list(known)))
    number = pl.col("expression").cast(pl.Float64, strict=False).is_not_null()
    if codes:
        problems.extend(wrong.filter(number), "label out of range", pl.format("expression {} is no code", "expression"))
    else:
        told = "expression {} is a number; say in task.dataset.read.expression_codes what it means"
        problems.extend(wrong.filter(number), "unreadable label", pl.format(told, "expression"))
    problems.extend(wrong.filter(~number), "unreadable label", pl.format("expression '{}' is none", "expression"))
    return rows.with_columns(pl.col("expression").replace_strict(known, default=None, return_dtype=pl.String))


def _expression(cell: str, codes: dict[str, str | None]) -> str | None:
    """The canonical name, None for what is known to be none; a KeyError for what is not known."""
    if cell in codes:
        return codes[cell]
    whole = re.fullmatch(r"([-+]?\d{1,9})(?:\.0*)?", cell)
    return codes[str(int(whole[1]))] if whole else EXPRESSION_NAMES[cell.lower()]


def _official(rows: pl.DataFrame, splits: dict[str, str | None], problems: Problems) -> pl.DataFrame:
    if "split" not in rows.columns:
        return rows
    cell = pl.col("split").str.to_lowercase()
    problems.extend(rows.filter(cell.is_not_null() & ~cell.is_in(list(splits))), "unknown split", pl.format("'{}'", "split"))
    return rows.with_columns(split=cell.replace_strict(splits, default=None, return_dtype=pl.String))


def _boxed(rows: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    names = next((box for box in (_CORNERS, _SIDES) if set(box) <= set(rows.columns)), None)
    if names is None:
        return rows
    a, b, c, d = (pl.col(name).cast(pl.Float64, strict=False) for name in names)
    right, bottom = (c, d) if names == _CORNERS else (a + c, b + d)
    known = pl.all_horizontal((side.abs() < _FAR).fill_null(False) for side in (a, b, right, bottom))
    usable = known & (right > a) & (bottom > b) & (right > 0) & (bottom > 0)
    text = pl.concat_list(pl.col(name).fill_null("") for name in names).list.join(",")
    bad = rows.filter(~usable & pl.any_horizontal(pl.col(names).is_not_null()))
    problems.extend(bad, "unusable box", pl.format(f"{', '.join(names)} are {{}}", text))
    corners = pl.concat_list(a, b, right, bottom).cast(pl.List(pl.Float32)).list.to_array(4)
    return rows.with_columns(box=pl.when(usable).then(corners))
