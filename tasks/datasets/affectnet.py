"""AffectNet: photographs labelled with an expression, valence and arousal (Mollahosseini et al. 2017), in both distributions.

2015::

    ROOT/Manually_Annotated/Manually_Annotated_Images/689/737d….jpg
    ROOT/Manually_Annotated/training.csv, validation.csv      or in ROOT/Manually_Annotated_file_lists

2021, faces already cropped::

    ROOT/train_set/images/5.jpg     ROOT/train_set/annotations/5_exp.npy, 5_val.npy, 5_aro.npy, 5_lnd.npy
    ROOT/val_set/…

Labels made by a machine (``Automatically_Annotated…``) are not read. The test set was never released.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.samples import BOX, Problems, Reading, as_landmarks, check, conform
from tasks.datasets import files
from tasks.datasets.vocabulary import CODES

DISTRIBUTIONS = ("auto", "2015", "2021")

_LISTS = {"validation.csv": "validation", "training.csv": "train"}  # the row of an image in both is the one of the validation part
_SETS = {"val_set": "validation", "train_set": "train"}
_HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal".lower().split(",")
_FACE = ("face_x", "face_y", "face_width", "face_height")
_LABELS = {"expression": "_exp.npy", "valence": "_val.npy", "arousal": "_aro.npy"}
_FAR = 1e5  # no box or landmark lies so many pixels away
_COLUMNS = ("sample", "image", "split", "file", "line", "box", "landmarks", *_LABELS)
_SLICE = 20_000  # rows at a time: 136 landmarks each, as text, are what takes memory


def read(root: str | Path, *, distribution: str = "auto") -> Reading:
    """All images of the training and the validation part.

    The expression is null for the codes 8 (none), 9 (uncertain) and 10 (no face). Valence and arousal are null for 9 and 10 and
    where either is -2; for 8 they are kept. Neither is a problem. There is no subject; each image is its own clip.

    Args:
        root: The dataset's folder, or one or two above it.
        distribution: ``2015`` (csv lists), ``2021`` (npy files), or ``auto``: the one that is there.

    Raises:
        RequestError: There is no such folder or distribution in it, both are, or a list lacks a column.
    """
    root = files.folder(root, "AffectNet")
    distribution = str(distribution)
    if distribution not in DISTRIBUTIONS:
        remedy = did_you_mean(distribution, DISTRIBUTIONS)
        raise RequestError(f"no distribution {distribution!r} of AffectNet", where="dataset.read.distribution", remedy=remedy)
    problems = Problems()
    lists, sets, images = _find(root, problems)
    if distribution == "auto" and lists and sets:
        remedy = "set dataset.read.distribution to 2015 or 2021"
        raise RequestError(f"both distributions of AffectNet are in {str(root)!r}", where="task.root", remedy=remedy)
    if lists and distribution != "2021":
        parts = [_read_list(root, images or path.parent, path, split, problems) for split, path in lists.items()]
    elif sets and distribution != "2015":
        parts = [_read_set(root, path, split, problems) for split, path in sets.items()]
    else:
        remedy = "AffectNet has training.csv and validation.csv (2015), or train_set/annotations and val_set/annotations (2021)"
        raise RequestError(f"no AffectNet in {str(root)!r}", where="task.root", remedy=remedy)
    rows = pl.concat(parts)
    first = rows["sample"].is_first_distinct()
    problems.extend(rows.filter(~first), "row stands twice", "the first one is used, the validation part's before the other's")
    rows = rows.filter(first)
    files.missing_images(problems, rows, f"{root}/{'Manually_Annotated_Images' if lists else 'images'}")
    samples = rows.drop("file", "line").with_columns(clip="sample", frame=0)
    return Reading(check(conform(samples)), problems.frame())


def _find(root: Path, problems: Problems) -> tuple[dict[str, Path], dict[str, Path], Path | None]:
    """Lists and sets by split, validation first, and the folder of the images of the lists."""
    lists: dict[str, list[Path]] = {}
    sets: dict[str, list[Path]] = {}
    images: list[Path] = []
    for here, folders, names in files.walk(root, problems):
        for file in names:
            if file.lower() in _LISTS:
                lists.setdefault(_LISTS[file.lower()], []).append(here / file)
        for folder in folders:
            if folder.lower() in _SETS and os.path.isdir(here / folder / "annotations"):  # noqa: PTH112
                sets.setdefault(_SETS[folder.lower()], []).append(here / folder)
            if folder.lower() == "manually_annotated_images":
                images.append(here / folder)
        searched = [f for f in folders if not re.search("^automatic|images$|^annotations$", f, re.IGNORECASE)]
        folders[:] = searched if len(here.relative_to(root).parts) < 2 else []
    for found in (*lists.values(), *sets.values(), images):
        for other in found[1:]:
            problems.add("stands twice", other, f"{found[0]} is used")

    def first(found: dict[str, list[Path]]) -> dict[str, Path]:
        return {split: found[split][0] for split in ("validation", "train") if split in found}

    return first(lists), first(sets), images[0] if images else None


# ── 2015 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_list(root: Path, images: Path, path: Path, split: str, problems: Problems) -> pl.DataFrame:
    lines = files.lines(path, problems)
    header = [cell.lower() for cell in files.header(lines)]
    missing = [name for name in _HEADER if name not in header]
    if missing:
        remedy = f"its first line must be {','.join(_HEADER)}"
        raise RequestError(f"the list has no column {', '.join(missing)}", where=str(path), remedy=remedy)
    prefix = (images / "x").relative_to(root).as_posix().removesuffix("x")
    before = f"^(?:[^,]*,){{{header.index(_HEADER[0])}}}"
    named = pl.col("text").str.extract(before + "([^,]*)").str.strip_chars(' "\r').str.replace_all("\\", "/", literal=True)
    lines = (
        lines.slice(1)
        .filter(pl.col("text").str.strip_chars() != "")
        .select("line", "text", file=pl.lit(str(path)), cells=pl.col("text").str.count_matches(",", literal=True) + 1, named=prefix + named)
    )
    wrong = lines.filter(pl.col("cells") != len(header))
    problems.extend(wrong, "wrong number of cells", pl.format(f"{{}}, and the header has {len(header)}", "cells"))
    whole = lines.filter(pl.col("cells") == len(header)).rename({"named": "sample"})
    nameless = pl.col("sample").is_null() | (pl.col("sample") == prefix)
    problems.extend(whole.filter(nameless).drop("sample"), "missing image name", "the row is not used")
    usable = whole.filter(~nameless)
    there = usable["sample"].is_in(_files(images, prefix).implode())
    slices = [usable.slice(start, _SLICE) for start in range(0, max(1, usable.height), _SLICE)]
    rows = pl.concat([_rows(part, header, problems) for part in slices])
    image = pl.when(there).then(pl.lit(f"{root}/") + pl.col("sample"))
    return rows.with_columns(image=image, split=pl.lit(split)).select(_COLUMNS)


def _files(folder: Path, prefix: str) -> pl.Series:
    """All files under a folder, by path. Listing the folders takes a second where asking for each of 414,799 files takes many."""
    found: list[str] = []
    for where, _, names in os.walk(folder):
        inside = os.path.relpath(where, folder)
        start = prefix if inside == "." else f"{prefix}{inside}/"
        found += [start + file for file in names]
    return pl.Series([path for path in found if path == files.text(path)], dtype=pl.String)


def _rows(lines: pl.DataFrame, header: list[str], problems: Problems) -> pl.DataFrame:
    """Some whole lines of a list, all of images that are there."""
    text = {name: pl.col("cells").list.get(header.index(name)).str.strip_chars(' "\r') for name in _HEADER}
    rows = lines.with_columns(cells=pl.col("text").str.split(",")).select(
        "line",
        "file",
        "sample",
        points=text["facial_landmarks"].str.split(";").cast(pl.List(pl.Float32), strict=False),
        face=pl.concat_list(text[name].cast(pl.Float64, strict=False) for name in _FACE),
        face_text=pl.concat_list(text[name] for name in _FACE).list.join(","),
        **{name: text[name].cast(pl.Float64, strict=False) for name in _LABELS},
        **{f"{name}_text": text[name] for name in _LABELS},
    )
    for name in _LABELS:
        problems.extend(rows.filter(pl.col(name).is_null()), "unreadable label", pl.format(name + " '{}' is no number", f"{name}_text"))
    x, y, width, height = (pl.col("face").list.get(place) for place in range(4))
    known = pl.all_horizontal((side.abs() < _FAR).fill_null(False) for side in (x, y, width, height))
    usable = known & (width > 0) & (height > 0) & (x + width > 0) & (y + height > 0)
    problems.extend(rows.filter(~usable), "unusable box", pl.format("x, y, width, height are '{}'", "face_text"))
    corners = pl.concat_list(x, y, x + width, y + height).cast(pl.List(pl.Float32)).list.to_array(4)
    complete = (rows["points"].list.len() == 136).fill_null(False).to_numpy()
    values = rows["points"].filter(complete).explode().to_numpy().reshape(-1, 136)
    near = (np.abs(values) < _FAR).all(axis=1)
    complete[complete] = near
    unread = pl.format("{} cells for 68 points, or one that is no number", pl.col("points").list.len())
    problems.extend(rows.filter(~complete), "unreadable landmarks", unread)
    rows = rows.with_columns(box=pl.when(usable).then(corners), landmarks=as_landmarks(values[near], complete))
    return _labelled(rows, dict.fromkeys(_LABELS, ""), problems)


# ── 2021 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_set(root: Path, folder: Path, split: str, problems: Problems) -> pl.DataFrame:
    notes = folder / "annotations"
    annotated = {name[: -len(kind)] for name in files.listing(notes) for kind in (*_LABELS.values(), "_lnd.npy") if name.endswith(kind)}
    images = {Path(name).stem: name for name in files.listing(folder / "images")}
    for name in sorted(images.keys() - annotated):
        problems.add("image without a label", folder / "images" / images[name], "it is not used")
    names = sorted(annotated, key=lambda name: (len(name), name))  # the order of the numbers, which have no zeros before
    samples = [(folder / "images" / images.get(name, f"{name}.jpg")).relative_to(root).as_posix() for name in names]
    columns: dict[str, list[float | None]] = {label: [] for label in _LABELS}
    landmarks = np.zeros((len(names), 136), np.float32)
    complete = np.zeros(len(names), bool)
    for row, (name, sample) in enumerate(zip(names, samples, strict=True)):
        for label, kind in _LABELS.items():
            try:
                columns[label].append(float(_npy(notes / f"{name}{kind}", 1)[0]))
            except (OSError, ValueError) as error:
                columns[label].append(None)
                problems.add("unreadable label", notes / f"{name}{kind}", _why(error), sample=sample)
        try:
            points = _npy(notes / f"{name}_lnd.npy", 136)
            if not (np.abs(points) < _FAR).all():
                raise ValueError("a number is not finite, or far outside")
            landmarks[row], complete[row] = points, True
        except (OSError, ValueError) as error:
            problems.add("unreadable landmarks", notes / f"{name}_lnd.npy", _why(error), sample=sample)
    rows = pl.DataFrame(columns, schema=dict.fromkeys(_LABELS, pl.Float64)).with_columns(
        sample=pl.Series(samples, dtype=pl.String),
        image=files.as_paths(root, [sample if name in images else None for name, sample in zip(names, samples, strict=True)]),
        split=pl.lit(split),
        file=pl.Series([str(notes / name) for name in names], dtype=pl.String),
        line=pl.lit(None, dtype=pl.UInt32),
        box=pl.lit(None, dtype=BOX),
        landmarks=as_landmarks(landmarks[complete], complete),
    )
    return _labelled(rows, _LABELS, problems).select(_COLUMNS)


def _npy(path: Path, size: int) -> np.ndarray:
    """The numbers in a file of NumPy's format, whatever its shape and whether they are written as numbers or as text.

    ``numpy.load`` does the same in five times as long, most of it for the header, which is the same in a million files.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds something else, or another number of numbers. Objects, which would be unpickled, are refused.
    """
    content = path.read_bytes()
    length = 10 + int.from_bytes(content[8:10], "little")
    dtype, count = _npy_header(content[:length])
    if count != size:
        raise ValueError(f"{count} numbers for {size}")
    return np.frombuffer(content, dtype, count, length).astype(np.float64)


@lru_cache(maxsize=256)
def _npy_header(header: bytes) -> tuple[np.dtype, int]:
    file = io.BytesIO(header)
    try:
        version = np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # of NumPy, and of Python's tokenizer, to which it hands a header that is no literal
        raise ValueError(f"no header of NumPy's format: {error}") from None
    if version != (1, 0):
        raise ValueError(f"version {version} of NumPy's format")
    if dtype.kind not in "fiuUS":
        raise ValueError(f"values of type {dtype}")
    return dtype, int(np.prod(shape))


def _why(error: Exception) -> str:
    return "no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0][:200]


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _labelled(rows: pl.DataFrame, suffixes: Mapping[str, str], problems: Problems) -> pl.DataFrame:
    """Codes as names, and null for what is not labelled or out of range; ``suffixes`` complete the name of each label's file."""
    code, valence, arousal = pl.col("expression"), pl.col("valence"), pl.col("arousal")
    known = code.is_between(0, 10) & (code == code.floor())

    def report(bad: pl.Expr, name: str, detail: str) -> None:
        in_file = rows.filter(bad).with_columns(pl.col("file") + suffixes[name])
        problems.extend(in_file, "label out of range", pl.format(name + detail, name))

    report(~known, "expression", " {} is no code 0-10")
    sentinel = ((valence == -2) | (arousal == -2)).fill_null(False)
    for name in ("valence", "arousal"):
        report(~pl.col(name).is_between(-1, 1) & ~sentinel, name, " {} is outside -1..1")
    rated = ~sentinel & ~code.is_in([9.0, 10.0]).fill_null(False)
    return rows.with_columns(
        pl.when(known).then(code).cast(pl.Int64, strict=False).replace_strict(CODES["affectnet"], default=None, return_dtype=pl.String),
        *(pl.when(rated & pl.col(name).is_between(-1, 1)).then(name).alias(name) for name in ("valence", "arousal")),
    )
