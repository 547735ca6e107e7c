"""AffectNet: photographs labelled with an expression, valence and arousal (Mollahosseini et al. 2017), in both distributions.

2015::

    ROOT/Manually_Annotated/Manually_Annotated_Images/689/737d….jpg
    ROOT/Manually_Annotated/training.csv, validation.csv      or in ROOT/Manually_Annotated_file_lists

2021, faces already cropped::

    ROOT/train_set/images/5.jpg     ROOT/train_set/annotations/5_exp.npy, 5_val.npy, 5_aro.npy, 5_lnd.npy
    ROOT/val_set/…

Labels made by a machine (``Automatically_Annotated…/automatically_annotated.csv``) are read only where one asks for them. The test set
was never released.
"""

from __future__ import annotations

import io
import math
import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.samples import BOX, Problems, Reading, as_landmarks, check, conform
from tasks.datasets import files
from tasks.datasets.vocabulary import CODES

DISTRIBUTIONS = ("auto", "2015", "2021")

# In this order: of an image that stands in several lists the first row is used.
_LISTS = {"validation.csv": "validation", "training.csv": "train", "automatically_annotated.csv": "train"}
_SETS = {"val_set": "validation", "train_set": "train"}
_HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal".lower().split(",")
_FACE = ("face_x", "face_y", "face_width", "face_height")
_LABELS = {"expression": "_exp.npy", "valence": "_val.npy", "arousal": "_aro.npy"}
_FAR = 1e5  # no box or landmark lies so many pixels away
_COLUMNS = ("sample", "file", "line", "box", "landmarks", *_LABELS)
_SLICE = 20_000  # rows at a time: 136 landmarks each, as text, are what takes memory


def read(root: str | Path, *, distribution: str = "auto", automatic: bool = False) -> Reading:
    """All images of the training and the validation part.

    The expression is null for the codes 8 (none), 9 (uncertain) and 10 (no face). Valence and arousal are null for 9 and 10 and
    where either is -2; for 8 they are kept. Neither is a problem. There is no subject; each image is its own clip.

    Args:
        root: The dataset's folder, or one or two above it.
        distribution: ``2015`` (csv lists), ``2021`` (npy files), or ``auto``: the one that is there.
        automatic: Of 2015, whether the images labelled by a machine are in the training part too.

    Raises:
        RequestError: There is no such folder or distribution in it, both are, or a list lacks a column.
    """
    root = files.folder(root, "AffectNet")
    distribution = str(distribution)
    if distribution not in DISTRIBUTIONS:
        remedy = did_you_mean(distribution, DISTRIBUTIONS)
        raise RequestError(f"no distribution {distribution!r} of AffectNet", where="distribution", remedy=remedy)
    problems = Problems()
    lists, sets = _find(root, automatic, problems)
    if distribution == "auto" and lists and sets:
        remedy = "set distribution (in a run: task.dataset.read.distribution) to 2015 or 2021"
        raise RequestError(f"both distributions of AffectNet are in {str(root)!r}", where="task.root", remedy=remedy)
    if lists and distribution != "2021":
        folders = list(dict.fromkeys(lists.values()))
        there = {folder: _files(root, folder, problems) for folder in folders}
        rows = pl.concat([_read_list(root, path, folder, there[folder], problems) for path, folder in lists.items()])
    elif sets and distribution != "2015":
        folders = [folder / "images" for folder in sets]
        rows = pl.concat([_read_set(root, folder, problems) for folder in sets])
    else:
        remedy = "AffectNet has training.csv and validation.csv (2015), or train_set/annotations and val_set/annotations (2021)"
        what = "AffectNet" if distribution == "auto" else f"AffectNet of {distribution}"
        raise RequestError(f"no {what} in {str(root)!r}", where="task.root", remedy=remedy)
    first = rows["sample"].is_first_distinct()
    problems.extend(rows.filter(~first), "row stands twice", "the first one is used, the validation part's before the other's")
    rows = rows.filter(first)
    files.missing_images(problems, rows, " and ".join(map(str, folders)))
    samples = rows.drop("file", "line").with_columns(clip="sample", frame=0)
    return Reading(check(conform(samples)), problems.frame())


def _find(root: Path, automatic: bool, problems: Problems) -> tuple[dict[Path, Path], list[Path]]:
    """The lists, each with the folder of its images, and the sets."""
    found: dict[str, list[Path]] = {}
    closed = re.compile("images$|^annotations$|^[0-9]+$" + ("" if automatic else "|^automatic"), re.IGNORECASE)
    for here, folders, names in files.walk(root, problems):
        for name in (*names, *folders):
            found.setdefault(name.lower(), []).append(here / name)
        folders[:] = [name for name in folders if len(here.relative_to(root).parts) < 2 and not closed.search(name)]
    lists = [found.get(name, []) for name in _LISTS if automatic or not name.startswith("automatic")]
    sets = [[path for path in found.get(name, []) if os.path.isdir(path / "annotations")] for name in _SETS]  # noqa: PTH112
    for several in (*lists, *sets):
        for other in several[1:]:
            problems.add("stands twice", other, f"{several[0]} is used")

    def images(path: Path) -> Path:
        """Where the images of a list are; if there are none, where they would be."""
        kind = "Automatically_Annotated" if path.name.lower().startswith("automatic") else "Manually_Annotated"
        named = found.get(f"{kind}_Images".lower())
        if named:
            return named[0]
        apart = path.parent != root and "list" in path.parent.name.lower()
        home = path.parent.with_name(kind) if apart else path.parent
        numbered = any(name.isdigit() for name in files.listing(home))
        return home if numbered else home / f"{kind}_Images"

    return {paths[0]: images(paths[0]) for paths in lists if paths}, [paths[0] for paths in sets if paths]


# ── 2015 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _files(root: Path, folder: Path, problems: Problems) -> pl.Series:
    """All files under a folder. Listing the folders takes a second where asking for each of 414,799 files takes many."""
    found: list[str] = []
    for here, _, names in files.walk(folder, problems) if os.path.isdir(folder) else ():  # noqa: PTH112
        before = files.before(root, here)
        found += [before + name for name in names]
    return pl.Series(found, dtype=pl.String)


def _read_list(root: Path, path: Path, images: Path, there: pl.Series, problems: Problems) -> pl.DataFrame:
    lines = files.lines(path, problems)
    header = [cell.lower() for cell in files.header(lines)]
    missing = [name for name in _HEADER if name not in header]
    if missing:
        remedy = f"its first line must be {','.join(_HEADER)}"
        raise RequestError(f"the list has no column {', '.join(missing)}", where=str(path), remedy=remedy)
    starts = range(1, max(2, lines.height), _SLICE)
    rows = pl.concat([_rows(lines.slice(start, _SLICE), header, path, files.before(root, images), problems) for start in starts])
    image = pl.when(pl.col("sample").is_in(there.implode())).then(pl.lit(f"{root}/") + pl.col("sample"))
    return rows.with_columns(image=image, split=pl.lit(_LISTS[path.name.lower()]))


def _rows(lines: pl.DataFrame, header: list[str], path: Path, before: str, problems: Problems) -> pl.DataFrame:
    """Some lines of a list."""
    places = {name: pl.col(f"c{header.index(name)}") for name in _HEADER}
    cells = files.cells(lines, len(header), path, problems).select("line", file=pl.lit(str(path)), **places)
    cells = cells.filter(pl.col("expression").is_not_null())  # null is what a line of the wrong number of cells has
    image = pl.col(_HEADER[0]).str.replace_all("\\", "/", literal=True)
    problems.extend(cells.filter(image == ""), "missing image name", "the row is not used")
    rows = cells.filter(image != "").select(
        "line",
        "file",
        sample=before + image,
        points=pl.col("facial_landmarks").str.split(";").cast(pl.List(pl.Float32), strict=False),
        face=pl.concat_list(files.numbers(name) for name in _FACE),
        face_text=pl.concat_list(_FACE).list.join(","),
        **{name: files.numbers(name) for name in _LABELS},
        **{f"{name}_text": pl.col(name) for name in _LABELS},
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
    count = pl.col("points").list.len()
    spoiled = pl.lit("a cell that is no number, or lies far outside")
    told = pl.when(count == 136).then(spoiled).otherwise(pl.format("{} cells, where 136 numbers belong", count))
    problems.extend(rows.filter(~complete), "unreadable landmarks", told)
    rows = rows.with_columns(box=pl.when(usable).then(corners), landmarks=as_landmarks(values[near], complete))
    return _labelled(rows, dict.fromkeys(_LABELS, pl.col("file")), problems)


# ── 2021 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_set(root: Path, folder: Path, problems: Problems) -> pl.DataFrame:
    notes, before = folder / "annotations", files.before(root, folder / "images")
    listed = [name for name in files.listing(notes) if not name.startswith(".")]
    annotated = {name[: -len(kind)] for name in listed for kind in (*_LABELS.values(), "_lnd.npy") if name.endswith(kind)}
    images: dict[str, str] = {}
    for image in filter(files.is_image, files.listing(folder / "images")):
        name = image.rpartition(".")[0]
        if name in images:
            problems.add("stands twice", folder / "images" / image, f"{images[name]} is used")
        elif name not in annotated:
            problems.add("image without a label", folder / "images" / image, "it is not used")
        images.setdefault(name, image)
    names = sorted(annotated, key=lambda name: (len(name), name))  # the order of the numbers, which have no zeros before
    samples = [before + images.get(name, f"{name}.jpg") for name in names]
    columns: dict[str, list[float | None]] = {label: [] for label in _LABELS}
    landmarks = np.zeros((len(names), 136), np.float32)
    complete = np.zeros(len(names), bool)
    for row, (name, sample) in enumerate(zip(names, samples, strict=True)):
        for label, kind in _LABELS.items():
            path = f"{notes}/{name}{kind}"
            try:
                value = float(_npy(path, 1)[0])
                if not math.isfinite(value):
                    raise ValueError(f"{value} is no number")
                columns[label].append(value)
            except (OSError, ValueError) as error:
                columns[label].append(None)
                problems.add("unreadable label", path, _why(error), sample=sample)
        path = f"{notes}/{name}_lnd.npy"
        try:
            points = _npy(path, 136)
            if not (np.abs(points) < _FAR).all():
                raise ValueError("a number is not finite, or far outside")
            landmarks[row], complete[row] = points, True
        except (OSError, ValueError) as error:
            problems.add("unreadable landmarks", path, _why(error), sample=sample)
    rows = pl.DataFrame(columns, schema=dict.fromkeys(_LABELS, pl.Float64)).with_columns(
        sample=pl.Series(samples, dtype=pl.String),
        file=pl.Series([f"{notes}/{name}_exp.npy" for name in names], dtype=pl.String),
        line=pl.lit(None, dtype=pl.UInt32),
        box=pl.lit(None, dtype=BOX),
        landmarks=as_landmarks(landmarks[complete], complete),
    )
    file_of = {label: pl.col("file").str.replace("_exp.npy$", kind) for label, kind in _LABELS.items()}
    there = [sample if name in images else None for name, sample in zip(names, samples, strict=True)]
    labelled = _labelled(rows, file_of, problems)
    return labelled.with_columns(image=files.as_paths(root, there), split=pl.lit(_SETS[folder.name.lower()]))


def _npy(path: str, size: int) -> np.ndarray:
    """The numbers in a file of NumPy's format, whatever its shape and whether they are written as numbers or as text.

    ``numpy.load`` does the same in five times as long, most of it for the header, which is the same in a million files.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds something else, or another number of numbers. Objects, which would be unpickled, are refused.
    """
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  of a million files, a Path or a buffer takes longer than the reading
        content = file.read()
    length = 10 + int.from_bytes(content[8:10], "little")
    dtype, shape, order = _npy_header(content[:length])
    if math.prod(shape) != size:
        raise ValueError(f"an array of shape {list(shape)} for numbers: {size}")
    found = np.frombuffer(content, dtype, size, length)
    if dtype.kind == "U" and (found.view(f"{dtype.byteorder}u4") > sys.maxunicode).any():  # on which NumPy raises a SystemError
        raise ValueError("text with a character that is none")
    return found.astype(np.float64).reshape(shape, order=order).ravel()


@lru_cache(maxsize=256)
def _npy_header(header: bytes) -> tuple[np.dtype, tuple[int, ...], Literal["C", "F"]]:
    file = io.BytesIO(header)
    try:
        version = np.lib.format.read_magic(file)
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # of NumPy, and of Python's tokenizer, to which it hands a header that is no literal
        raise ValueError(f"no header of NumPy's format: {error}") from None
    if version != (1, 0):
        raise ValueError(f"version {version} of NumPy's format")
    if dtype.kind not in "fiuUS":
        raise ValueError(f"values of type {dtype}")
    return dtype, shape, "F" if by_column else "C"


def _why(error: Exception) -> str:
    return "no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0][:200]


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _labelled(rows: pl.DataFrame, file_of: Mapping[str, pl.Expr], problems: Problems) -> pl.DataFrame:
    """Codes as names, and null for what is not labelled or out of range; ``file_of`` is the file in which each label stands.

    Only what a sample needs is kept: the texts of the cells would be all of a list in memory once more.
    """
    code, valence, arousal = pl.col("expression"), pl.col("valence"), pl.col("arousal")
    known = code.is_between(0, 10) & (code == code.floor())

    def report(bad: pl.Expr, name: str, kind: str, detail: str) -> None:
        problems.extend(rows.filter(bad).with_columns(file=file_of[name]), kind, pl.format(name + detail, name))

    report(~known, "expression", "label out of range", " {} is no code 0-10")
    unrated = ((valence == -2) | (arousal == -2)).fill_null(False)
    faceless = code.is_in([9.0, 10.0]).fill_null(False)
    for name in ("valence", "arousal"):
        inside = pl.col(name).is_between(-1, 1)
        report(~inside & ~unrated, name, "label out of range", " {} is outside -1..1")
        report(inside & ~unrated & faceless, name, "label that contradicts another", " {} of an image coded 9 or 10; it is not used")
    return rows.with_columns(
        pl.when(known).then(code).cast(pl.Int64, strict=False).replace_strict(CODES["affectnet"], default=None, return_dtype=pl.String),
        *(pl.when(pl.col(name).is_between(-1, 1) & ~unrated & ~faceless).then(name).alias(name) for name in ("valence", "arousal")),
    ).select(_COLUMNS)
