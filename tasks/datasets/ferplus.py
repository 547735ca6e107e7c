"""FERPlus: the faces of FER2013 with the votes of ten raters each (Barsoum et al. 2016), and FER2013 alone (Goodfellow et al. 2013)::

    ROOT/fer2013.csv        emotion,pixels,Usage          35,887 rows; pixels "70 80 82 …", quoted or not. Or icml_face_data.csv
    ROOT/fer2013new.csv     Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF
                            Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0

The rows of the second belong to those of the first by their order; the number in an image's name is not that of its row. Where there
is no ``fer2013.csv``, the images are files of those names, as the scripts of FERPlus write them; and where there is no
``fer2013new.csv``, their lists are read::

    ROOT/data/FER2013Train/fer0000000.png, label.csv      fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0
    ROOT/data/FER2013Valid/…, FER2013Test/…               (the box is always the whole image)

Copies of FER2013 as folders of images with codes in alphabetical order are another layout and are not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.images import part_of
from harness.samples import Problems, Reading, check, conform
from tasks.datasets import files
from tasks.datasets.vocabulary import ANSWER_NAMES, CODES, EXPRESSION_NAMES

LABELS = ("auto", "ferplus", "fer2013")

_RATERS = 10
_VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "nf")
_SPLITS = {"training": "train", "publictest": "validation", "privatetest": "test"}
_LISTS = {"fer2013train": "train", "fer2013valid": "validation", "fer2013test": "test"}
_PIXELS = ("fer2013.csv", "icml_face_data.csv")
_KEPT = 80  # bytes of each end of a long line: all of it but pixels


def read(root: str | Path, *, labels: str = "auto") -> Reading:
    """All images that have a name.

    Of FERPlus, ``votes_neutral`` … ``votes_contempt``, ``votes_unknown`` and ``votes_no_face`` are the votes as they stand. The expression
    is the one that more raters chose than any other answer, and null where that is "unknown" or "not a face", or where two answers tie. A
    sample is called as its image. Of FER2013 alone, the expression is its label, and a sample's name says in which line it stands.

    Nobody says who is on an image, so each is its own clip and there is no subject. Where the two csvs do not fit together row by row,
    no image is taken from the pixels: which one belongs to which votes could only be guessed.

    Args:
        root: The dataset's folder, or up to two above it.
        labels: ``ferplus`` (the votes), ``fer2013`` (the first labels), or ``auto``: the votes where there are any.

    Raises:
        RequestError: There is no such folder or no such labels in it, or a file lacks a column.
    """
    root = files.folder(root, "FERPlus")
    if labels not in LABELS:
        raise RequestError(f"no labels {labels!r} of FER2013", where="task.dataset.read.labels", remedy=did_you_mean(str(labels), LABELS))
    problems = Problems()
    found = _find(root, problems)
    voted = found.votes is not None or bool(found.lists)
    if labels == "auto":
        labels = "ferplus" if voted or found.pixels is None else "fer2013"
    if labels == "fer2013":
        if found.pixels is None:
            raise RequestError(f"no FER2013 in {files.text(str(root))!r}", where="task.root", remedy="its labels are in fer2013.csv")
        rows, where = _first_labels(root, found.pixels, problems), str(found.pixels)
    elif not voted:
        remedy = "its labels are in fer2013new.csv, those of FER2013 alone in fer2013.csv"
        raise RequestError(f"no FERPlus in {files.text(str(root))!r}", where="task.root", remedy=remedy)
    else:
        rows, where = _votes(root, found, problems)
    first = rows["sample"].is_first_distinct()
    problems.extend(rows.filter(~first), "row stands twice", "the first one is used")
    rows = rows.filter(first)
    files.missing_images(problems, rows, where)
    samples = rows.drop("file", "line").with_columns(clip="sample", frame=0)
    return Reading(check(conform(samples)), problems.frame())


@dataclass
class _Found:
    pixels: Path | None = None
    votes: Path | None = None
    lists: dict[str, Path] = field(default_factory=dict)  # by split
    images: dict[Path, list[str]] = field(default_factory=dict)  # names by folder


def _find(root: Path, problems: Problems) -> _Found:
    found = _Found()
    csvs: dict[str, list[Path]] = {}
    for here, folders, names in files.walk(root, problems):
        for name in names:
            if name.lower() in (*_PIXELS, "fer2013new.csv"):
                csvs.setdefault("votes" if name.lower() == "fer2013new.csv" else "pixels", []).append(here / name)
            elif name.lower() == "label.csv" and here.name.lower() in _LISTS:
                csvs.setdefault(_LISTS[here.name.lower()], []).append(here / name)
        if images := [name for name in names if files.is_image(name)]:
            found.images[here] = images
        if len(here.relative_to(root).parts) > 2:
            folders.clear()
    for paths in csvs.values():
        for other in paths[1:]:
            problems.add("stands twice", other, f"{paths[0]} is used")
    first = {what: paths[0] for what, paths in csvs.items()}
    found.pixels, found.votes = first.get("pixels"), first.get("votes")
    found.lists = {split: first[split] for split in _LISTS.values() if split in first}
    return found


# ── the pixels ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _first_labels(root: Path, path: Path, problems: Problems) -> pl.DataFrame:
    rows = _pixels(path, ("emotion", "pixels", "usage"), problems).drop_nulls("usage")
    part = part_of(path.relative_to(root).as_posix(), "")
    rows = rows.with_columns(sample=part + pl.col("line").cast(pl.String), file=pl.lit(str(path)))
    rows = files.expressions(_split(rows, problems), "emotion", CODES["fer2013"], problems)
    return rows.select("sample", "line", "file", "split", "expression", image=pl.lit(f"{root}/") + pl.col("sample"))


def _pixels(path: Path, needed: tuple[str, ...], problems: Problems) -> pl.DataFrame:
    """The rows of fer2013.csv in their order: columns ``line`` and those needed, as text, null in a row that is none."""
    lines = _without_pixels(path, problems)
    header = [cell.lower() for cell in files.header(lines)]
    _require(header, needed, path)
    rows = files.cells(lines.slice(1), len(header), path, problems)
    return rows.select("line", *(pl.col(f"c{header.index(name)}").alias(name) for name in needed))


def _without_pixels(path: Path, problems: Problems) -> pl.DataFrame:
    """As :func:`files.lines`, but of a long line only both ends: what lies between are pixels."""
    ends: list[bytes] = []
    try:
        with path.open("rb") as file:
            ends = [line if len(line) <= 2 * _KEPT else line[:_KEPT] + b" " + line[-_KEPT:] for line in file]
    except OSError as error:
        problems.add("unreadable file", path, error.strerror or str(error))
    found = [line.decode("utf-8", "replace").replace("\0", "\ufffd").rstrip("\r\n") for line in ends]
    return pl.DataFrame({"text": pl.Series(found, dtype=pl.String).str.strip_prefix("\ufeff")}).with_row_index("line", 1)


# ── the votes ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _votes(root: Path, found: _Found, problems: Problems) -> tuple[pl.DataFrame, str]:
    """The rows with their images, and where these were looked for."""
    if found.votes is None:
        parts = [_list(path, split, problems) for split, path in found.lists.items()]
        rows = pl.concat(parts).with_columns(image=pl.lit(None, dtype=pl.String))
    else:
        rows = _new(found.votes, problems)
        image = _joined(rows, found.votes, found.pixels, problems) if found.pixels else pl.Series("image", [None] * rows.height, pl.String)
        rows = _named(rows.with_columns(image), found.votes, problems)
        rows = _split(rows, problems)
    where = str(found.pixels or root / "data")
    if rows["image"].null_count() == rows.height:  # nothing was joined
        rows = _pictures(rows, found.images, problems)
    return _decided(rows, problems), where


def _new(path: Path, problems: Problems) -> pl.DataFrame:
    """All rows of fer2013new.csv in their order, as text; ``sample`` is the image's name."""
    lines = files.lines(path, problems)
    header = [cell.lower() for cell in files.header(lines)]
    needed = {"usage": "usage", "image name": "sample", **{name: name for name in _VOTES}}
    _require(header, tuple(needed), path)
    rows = files.cells(lines.slice(1), len(header), path, problems)
    return rows.select("line", *(pl.col(f"c{header.index(name)}").alias(ours) for name, ours in needed.items()), file=pl.lit(str(path)))


def _list(path: Path, split: str, problems: Problems) -> pl.DataFrame:
    """The rows of a label.csv, as text."""
    lines = files.lines(path, problems).filter(pl.col("text").str.strip_chars() != "")
    cut = lines.select("line", cut=pl.col("text").str.extract_groups(r'^\s*"?([^,"]*)"?\s*,\s*"?\([^)]*\)"?\s*,(.*)$')).unnest("cut")
    whole = cut.with_columns(votes=pl.col("2").str.split(","), file=pl.lit(str(path)))
    right = (pl.col("votes").list.len() == len(_VOTES)).fill_null(False)
    problems.extend(whole.filter(~right), "wrong number of cells", f"a name, a box in brackets and {len(_VOTES)} votes belong there")
    votes = (pl.col("votes").list.get(place).str.strip_chars(" \t\"'").alias(name) for place, name in enumerate(_VOTES))
    rows = whole.filter(right).select("line", "file", *votes, sample=pl.col("1").str.strip_chars(), split=pl.lit(split))
    return _named(rows, path, problems)


def _named(rows: pl.DataFrame, path: Path, problems: Problems) -> pl.DataFrame:
    """Those that name an image; what is blank on purpose is said in one line."""
    blank = rows.filter(pl.col("sample") == "")
    if blank.height:
        detail = f"{blank.height} rows, the first in this line; they are not used (raters saw no face)"
        problems.add("row without an image name", path, detail, line=int(blank["line"][0]))
    return rows.filter(pl.col("sample") != "")


def _joined(rows: pl.DataFrame, votes: Path, path: Path, problems: Problems) -> pl.Series:
    """The image of each row out of the csv of pixels, by the order of the rows; of none where the order is broken."""
    pixels = _pixels(path, ("pixels", "usage"), problems)
    if pixels.height != rows.height:
        detail = f"{pixels.height} rows, and {votes.name} has {rows.height}; no image is used, for which belongs to which row is not known"
        problems.add("row order broken", path, detail)
        return pl.Series("image", [None] * rows.height, pl.String)
    both = pl.DataFrame({"line": pixels["line"], "theirs": pixels["usage"], "ours": rows["usage"], "sample": rows["sample"]})
    known = [pl.col(name).str.to_lowercase().replace_strict(_SPLITS, default=None) for name in ("theirs", "ours")]
    differs = both.filter(known[0] != known[1]).with_columns(pl.col("sample").replace("", None), file=pl.lit(str(path)))
    problems.extend(
        differs,
        "row order broken",
        pl.format(f"Usage is {{}}, and {{}} in the same row of {votes.name}; no image is used", "theirs", "ours"),
    )
    there = pl.lit(differs.is_empty()) & pl.col("usage").is_not_null()
    return pixels.select(image=pl.when(there).then(pl.lit(part_of(path, "")) + pl.col("line").cast(pl.String)))["image"]


def _pictures(rows: pl.DataFrame, images: dict[Path, list[str]], problems: Problems) -> pl.DataFrame:
    """The image of each row by its name."""
    there = pl.DataFrame(
        [(name, str(folder)) for folder, names in images.items() for name in names],
        schema={"sample": pl.String, "folder": pl.String},
        orient="row",
    )
    ours = there.filter(pl.col("sample").is_in(rows["sample"].implode()))
    beside = there.filter(pl.col("folder").is_in(ours["folder"].unique().implode())).join(ours, on="sample", how="anti")
    problems.extend(beside.select(file=pl.col("folder") + "/" + pl.col("sample")), "image without a label", "it is not used")
    first = ours.unique("sample", keep="first", maintain_order=True).select("sample", image=pl.col("folder") + "/" + pl.col("sample"))
    return rows.drop("image").join(first, on="sample", how="left", maintain_order="left")


def _decided(rows: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    """Votes as numbers, and the expression that most raters chose."""
    text = pl.concat_list(_VOTES).list.join(",", ignore_nulls=False)
    rows = rows.with_columns(text.alias("text"), *(pl.col(name).cast(pl.Float64, strict=False) for name in _VOTES))
    unread = pl.any_horizontal(pl.col(_VOTES).is_null())
    problems.extend(rows.filter(unread), "unreadable label", pl.format("the votes are {}", "text"))
    fits = pl.all_horizontal(pl.col(_VOTES).is_between(0, _RATERS) & (pl.col(_VOTES) % 1 == 0))
    problems.extend(rows.filter(~unread & ~fits), "label out of range", pl.format(f"the votes are {{}}, and each is 0-{_RATERS}", "text"))
    rows = rows.with_columns(pl.when(~unread & fits).then(pl.col(_VOTES)).cast(pl.Int64))
    total = pl.sum_horizontal(_VOTES, ignore_nulls=False)
    problems.extend(rows.filter(total != _RATERS), "votes that are not ten", pl.format("their sum is {}", total))
    most = pl.max_horizontal(_VOTES)
    alone = pl.sum_horizontal(pl.col(name) == most for name in _VOTES) == 1
    named = {name: EXPRESSION_NAMES[name] for name in _VOTES if name in EXPRESSION_NAMES}
    chosen = pl.coalesce(pl.when(alone & (pl.col(name) == most)).then(pl.lit(ours)) for name, ours in named.items())
    votes = (pl.col(name).alias(f"votes_{ANSWER_NAMES[name]}") for name in _VOTES)
    return rows.select("sample", "line", "file", "split", "image", *votes, expression=chosen)


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _split(rows: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    """``usage`` as ``split``."""
    split = pl.col("usage").str.to_lowercase().replace_strict(_SPLITS, default=None, return_dtype=pl.String)
    rows = rows.with_columns(split=split)
    problems.extend(rows.filter(pl.col("split").is_null()), "unknown split", pl.format("Usage is '{}'", pl.col("usage").fill_null("")))
    return rows.drop("usage")


def _require(header: list[str], needed: tuple[str, ...], path: Path) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        raise RequestError(f"no column {', '.join(missing)}", where=str(path), remedy=f"its first line must name {', '.join(needed)}")
