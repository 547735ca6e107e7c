"""Action units coded frame by frame, a csv a sequence: what BP4D and BP4D+ share.

A sequence is a person at a task, ``F001_T1``. Both datasets have two folders of labels, ``AUCoding/AU_OCC`` and ``AUCoding/AU_INT``, and
a folder or an archive of images for each person with a folder for each task in it. Both label only a part of each sequence.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import RequestError
from harness.images import part_of
from harness.samples import Problems, Reading, check, conform
from tasks.datasets import files
from tasks.datasets.vocabulary import BP4D_AUS, BP4D_INTENSITY_AUS, au_name

_OCCURRENCES = re.compile(r"([FM][0-9]{1,4}_T[0-9]{1,3})\.csv", re.IGNORECASE)
_INTENSITIES = re.compile(r"([FM][0-9]{1,4}_T[0-9]{1,3})(?:_(AU[0-9]{1,2}))?\.csv", re.IGNORECASE)
_PERSON = re.compile(r"[FM][0-9]{1,4}", re.IGNORECASE)
_TASK = re.compile(r"T[0-9]{1,3}", re.IGNORECASE)
_USUAL = re.compile(r"sequences.*|2d ?\+ ?3d", re.IGNORECASE)  # where images lie; what else is sorted by person and task comes after
_IMAGE = rf"(?i)(?:^|[/\\])([0-9]{{1,9}})(?:{'|'.join(map(re.escape, files.IMAGES))})$"
_FRAME = re.compile(r"0+|frame.*", re.IGNORECASE)  # the header's name for the column of the frame
_LARGEST = 2**31 - 1  # number of a frame
_DEPTH = 3  # folders below the root that are searched
_SLICE = 20_000  # lines at a time, of up to a hundred cells each
_LONGEST = 200  # characters of a detail, which may tell of a hundred cells
_ABSENT = "lines without an image"

# What is wrong with a line, of the file with some place in a list
_FAULTS = {"place": pl.UInt32, "kind": pl.String, "line": pl.UInt32, "frame": pl.Int64, "detail": pl.String}


@dataclass(frozen=True)
class Layout:
    """In what the two datasets differ.

    Attributes:
        title: Of the dataset.
        folder: Where the images of a sequence lie, with ``{subject}`` and ``{task}`` in it: for the names of those that are not there.
        offset: From the number of a frame, as the labels count, to the number of its image.
        coded: Tasks of which every sequence should be labelled; None: all.
        beyond: The kind of problem where labels go on after the last image of a sequence.
    """

    title: str
    folder: str
    offset: int
    coded: tuple[str, ...] | None
    beyond: str


@dataclass
class _Found:
    """Files by what they are of."""

    occurrences: dict[str, Path] = field(default_factory=dict)  # by clip
    intensities: dict[tuple[str, int], Path] = field(default_factory=dict)  # by clip and AU
    people: list[Path] = field(default_factory=list)  # folders with tasks in them
    archives: list[Path] = field(default_factory=list)  # the same, packed


def read(root: str | Path, layout: Layout, *, activities: Mapping[str, str] | None, aus: Sequence[int] | None) -> Reading:
    """All frames that a csv of occurrences has a line for.

    Args:
        root: The dataset's folder, or one above it.
        layout: Which of the two.
        activities: Task → what is done there, as text; a task that is not in it is its own name.
        aus: The action units to keep; None: the benchmark's twelve and every other one that is coded anywhere.

    Raises:
        RequestError: There is no such folder or no occurrences in it, or an option is none.
    """
    root = files.folder(root, layout.title)
    texts, chosen = _texts(activities), _chosen(aus)
    problems = Problems()
    found = _find(root, problems)
    if not found.occurrences:
        remedy = f"{layout.title} has AUCoding/AU_OCC/F001_T1.csv and so on"
        raise RequestError(f"no {layout.title} in {str(root)!r}", where="task.root", remedy=remedy)
    occurrences, faults = _occurrences(found.occurrences, chosen, problems)
    intensities, more = _intensities(found.intensities, chosen, problems)
    images = _images(root, found, layout, problems)
    samples = _placed(_joined(occurrences, intensities, chosen, problems), images, layout)
    _report(pl.concat([faults, more]), samples, problems)
    _report_images(root, samples, images, found, layout, problems)
    samples = samples.with_columns(image=files.as_paths(root, samples["path"]), activity=pl.col("task").replace(texts))
    return Reading(check(conform(samples.drop("place", "task", "number", "path", "last"))), problems.frame())


# ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _texts(activities: Any) -> dict[str, str]:
    if activities is None:
        return {}
    where, remedy = "task.dataset.read.activities", "give a text for each task, {T1: talking, T2: …}"
    if not isinstance(activities, Mapping):
        raise RequestError(f"activities {activities!r} are no mapping", where=where, remedy=remedy)
    for task, text in activities.items():
        if not (isinstance(task, str) and _TASK.fullmatch(task) and isinstance(text, str) and text.strip()):
            raise RequestError(f"{task!r}: {text!r} is no task with its text", where=where, remedy=remedy)
    return {task.upper(): files.text(text.strip()) for task, text in activities.items()}


def _chosen(aus: Any) -> tuple[int, ...] | None:
    if aus is None:
        return None
    if not (isinstance(aus, Sequence) and aus and all(type(au) is int and 0 < au < 100 for au in aus)):
        raise RequestError(f"aus={aus!r}", where="task.dataset.read.aus", remedy="give numbers of action units, [1, 2, 4] say")
    return tuple(sorted(set(aus)))


# ── what is there ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _find(root: Path, problems: Problems) -> _Found:
    found = _Found()
    for here, folders, names in files.walk(root, problems):
        kind, above = here.name.lower(), here.parent.name.lower()
        if kind == "au_occ":
            _claim_occurrences(here, names, found, problems)
            folders.clear()
        elif kind == "au_int" or above == "au_int":
            _claim_intensities(here, names, found, problems)
            folders[:] = [name for name in folders if au_name(name)] if kind == "au_int" else []
        else:
            found.people += [here / name for name in folders if _PERSON.fullmatch(name)]
            found.archives += [here / name for name in names if name[-4:].lower() == ".zip" and _PERSON.fullmatch(name[:-4])]
            deeper = len(here.relative_to(root).parts) < _DEPTH
            folders[:] = [name for name in folders if deeper and not _PERSON.fullmatch(name)]
    found.occurrences = dict(sorted(found.occurrences.items(), key=lambda item: _order(item[0])))
    return found


def _order(clip: str) -> tuple[str, int]:
    subject, _, task = clip.partition("_T")
    return subject, int(task)


def _claim_occurrences(here: Path, names: list[str], found: _Found, problems: Problems) -> None:
    for name in names:
        match = _OCCURRENCES.fullmatch(name)
        if match is not None:
            _claim(found.occurrences, match[1].upper(), here / name, problems)
        elif name.lower().endswith(".csv") and not name.startswith("."):
            problems.add("unreadable name", here / name, "it is no F001_T1.csv; it is not used")


def _claim_intensities(here: Path, names: list[str], found: _Found, problems: Problems) -> None:
    for name in names:
        match = _INTENSITIES.fullmatch(name)
        au = au_name((match and match[2]) or here.name)
        if match and au:
            _claim(found.intensities, (match[1].upper(), int(au[2:])), here / name, problems)
        elif name.lower().endswith(".csv") and not name.startswith("."):
            problems.add("unreadable name", here / name, "it is no AU06/F001_T1_AU06.csv; it is not used")


def _claim(places: dict[Any, Path], key: Any, path: Path, problems: Problems) -> None:
    if key in places:
        problems.add("stands twice", path, f"{places[key]} is used")
    else:
        places[key] = path


# ── lines of labels ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lines(paths: Sequence[Path], problems: Problems) -> pl.DataFrame:
    """All lines that are not blank: columns ``place`` (of the file among ``paths``), ``line`` and ``text``."""
    tables = [pl.DataFrame(schema={"place": pl.UInt32, "line": pl.UInt32, "text": pl.String})]
    for place, path in enumerate(paths):
        tables.append(files.lines(path, problems).select(pl.lit(place, pl.UInt32).alias("place"), "line", "text"))
    return pl.concat(tables, rechunk=True).filter(pl.col("text").str.strip_chars() != "")


def _cut(lines: pl.DataFrame, count: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Lines cut at their commas (column ``cut``), and as faults those with another number of cells."""
    cut = lines.select("place", "line", cut=pl.col("text").str.split(","))
    whole = pl.col("cut").list.len() == count
    detail = pl.format(f"{{}}, where {count} belong", pl.col("cut").list.len())
    return cut.filter(whole), cut.filter(~whole).select("place", "line", kind=pl.lit("wrong number of cells"), detail=detail)


def _cell(place: int) -> pl.Expr:
    return pl.col("cut").list.get(place, null_on_oob=True).str.strip_chars(" \t\"'")


def _numbered(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows with ``frame`` as a number, and as faults those whose frame is none."""
    number = files.numbers("frame")
    good = number.is_between(0, _LARGEST) & (number % 1 == 0)
    rows = rows.with_columns(pl.when(good).then(number).cast(pl.Int64).alias("number"))
    detail = pl.format("'{}' is no number of a frame; the line is not used", "frame")
    unread = rows.filter(pl.col("number").is_null()).select("place", "line", kind=pl.lit("unreadable frame number"), detail=detail)
    return rows.filter(pl.col("number").is_not_null()).with_columns(frame="number").drop("number"), unread


def _once(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The first row of each frame in its file, and as faults the others."""
    first = (rows["place"].cast(pl.Int64) * 2**32 + rows["frame"]).is_first_distinct()
    detail = pl.format("frame {} again; the first row is used", "frame")
    return rows.filter(first), rows.filter(~first).select("place", "line", "frame", kind=pl.lit("row stands twice"), detail=detail)


def _faults(found: Sequence[pl.DataFrame], of: Sequence[tuple[str, Path]]) -> pl.DataFrame:
    """Faults of lines, with the clip and the file (``of``, by place) that they are of."""
    faults = pl.concat([pl.DataFrame(schema=_FAULTS), *found], how="diagonal", rechunk=True)
    clips = pl.Series([clip for clip, _ in of], dtype=pl.String)
    paths = pl.Series([str(path) for _, path in of], dtype=pl.String)
    return faults.with_columns(clip=clips.gather(faults["place"]), file=paths.gather(faults["place"])).drop("place")


# ── occurrences ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Columns:
    """Places in the header of a file of occurrences.

    Attributes:
        count: How many there are.
        frame: That of the frame's number; None where there is none, or no one.
        aus: Those of action units, by number.
        doubled: Action units that have another column, too.
    """

    count: int
    frame: int | None
    aus: dict[int, int]
    doubled: tuple[int, ...]

    @classmethod
    def of(cls, header: list[str]) -> _Columns:
        frames = [place for place, name in enumerate(header) if _FRAME.fullmatch(name)]
        if not frames and header and not re.search("[0-9]", header[0]):
            frames = [0]
        units: dict[int, list[int]] = {}
        for place, name in enumerate(header):
            au = au_name(name)
            if au:
                units.setdefault(int(au[2:]), []).append(place)
        aus = {au: places[0] for au, places in sorted(units.items())}
        doubled = tuple(au for au, places in sorted(units.items()) if len(places) > 1)
        return cls(len(header), frames[0] if len(frames) == 1 else None, aus, doubled)


def _occurrences(paths: Mapping[str, Path], chosen: tuple[int, ...] | None, problems: Problems) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A row a frame: ``place`` (of the clip among ``paths``), ``clip``, ``frame``, ``au1`` …; and what is wrong with lines.

    Lines of all files with the same header are cut together, in a quarter of the time that each file by itself would take.
    """
    of = list(paths.items())
    table = _lines(list(paths.values()), problems)
    leads = pl.col("place").is_first_distinct()
    heads, body = table.filter(leads), table.filter(~leads)
    tables = [pl.DataFrame(schema={"place": pl.UInt32, "line": pl.UInt32, "frame": pl.Int64})]
    faults: list[pl.DataFrame] = []
    for _, group in heads.group_by("text", maintain_order=True):
        columns = _Columns.of(files.header(group))
        _report_header(columns, chosen, [of[place][1] for place in group["place"]], problems)
        if columns.frame is None or not columns.aus:
            continue
        lines = body.filter(pl.col("place").is_in(group["place"].implode()))
        for part in lines.iter_slices(_SLICE):
            rows, wrong = _coded(part, columns, [au for au in columns.aus if chosen is None or au in chosen])
            tables.append(rows)
            faults += wrong
    told = set(problems.frame()["file"])
    for place in sorted(set(range(len(of))) - set(body["place"])):
        if str(of[place][1]) not in told:
            problems.add("unreadable file", of[place][1], "it has no line below a header")
    rows, again = _once(pl.concat(tables, how="diagonal", rechunk=True))
    rows = rows.sort("place", "frame")
    coded = {int(name[2:]) for name in rows.columns if name.startswith("au") and rows[name].is_not_null().any()}
    wanted = sorted({*BP4D_AUS, *coded}) if chosen is None else chosen
    clips = pl.Series(list(paths), dtype=pl.String)
    kept = [pl.col(f"au{au}") if au in coded else pl.lit(None, pl.Int8).alias(f"au{au}") for au in wanted]
    return rows.select("place", clips.gather(rows["place"]).alias("clip"), "frame", *kept), _faults([*faults, again], of)


def _report_header(columns: _Columns, chosen: tuple[int, ...] | None, paths: Sequence[Path], problems: Problems) -> None:
    absent = [au for au in (BP4D_AUS if chosen is None else chosen) if au not in columns.aus]
    for path in paths:
        if columns.frame is None or not columns.aus:
            detail = "its first line names no one column of frames (0), or no action unit; the file is not used"
            problems.add("unreadable file", path, detail, line=1)
            continue
        for au in columns.doubled:
            problems.add("key stands twice", path, f"AU {au} has several columns; the first one is used", line=1)
        if absent:
            problems.add("missing column", path, f"none of AU {', '.join(map(str, absent))}; not labelled there", line=1)


def _coded(lines: pl.DataFrame, columns: _Columns, aus: Sequence[int]) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Some lines with one header as numbers, in columns of ``aus``, and what is wrong with them."""
    assert columns.frame is not None
    cut, miscut = _cut(lines, columns.count)
    texts = [_cell(columns.aus[au]).alias(f"text{au}") for au in aus]
    rows, unnumbered = _numbered(cut.select("place", "line", _cell(columns.frame).alias("frame"), *texts))
    rows = rows.with_columns(files.numbers(f"text{au}").alias(f"au{au}") for au in aus)
    codes = [0.0, 1.0, 9.0]
    doubtful = rows.filter(pl.any_horizontal(pl.lit(False), *(~pl.col(f"au{au}").is_in(codes).fill_null(False) for au in aus)))
    faults = [miscut, unnumbered]
    unread = {au: pl.col(f"au{au}").is_null() for au in aus}
    out = {au: ~pl.col(f"au{au}").is_in(codes) for au in aus}
    for kind, bad, told in (
        ("unreadable label", unread, "AU {} is '{}', which is no number"),
        ("label out of range", out, "AU {} is '{}', where 0, 1 or 9 belong"),
    ):
        said = [pl.when(is_bad).then(pl.format(told, pl.lit(au), f"text{au}")) for au, is_bad in bad.items()]
        detail = pl.concat_str(pl.lit(None, pl.String), *said, separator="; ", ignore_nulls=True).str.slice(0, _LONGEST)
        faults.append(doubtful.select("place", "line", "frame", kind=pl.lit(kind), detail=detail).filter(pl.col("detail") != ""))
    known = [pl.when(pl.col(f"au{au}").is_in([0.0, 1.0])).then(f"au{au}").cast(pl.Int8).alias(f"au{au}") for au in aus]
    return rows.select("place", "line", "frame", *known), faults


# ── intensities ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _intensities(
    paths: Mapping[tuple[str, int], Path], chosen: tuple[int, ...] | None, problems: Problems
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A row a line that is labelled: ``file``, ``clip``, ``au``, ``frame``, ``level``; and what is wrong with lines."""
    paths = {key: path for key, path in paths.items() if chosen is None or key[1] in chosen}
    cut, miscut = _cut(_lines(list(paths.values()), problems), 2)
    rows, unnumbered = _numbered(cut.select("place", "line", frame=_cell(0), text=_cell(1)))
    rows = rows.with_columns(level=files.numbers("text"))
    level, where = pl.col("level"), ("place", "line", "frame")
    known = level.is_between(0, 5) & (level % 1 == 0)
    no_number, none = pl.format("'{}' is no number", "text"), pl.format("'{}' is none of 0 to 5, and not 9", "text")
    unread = rows.filter(level.is_null()).select(*where, kind=pl.lit("unreadable label"), detail=no_number)
    out = rows.filter(~known & (level != 9)).select(*where, kind=pl.lit("label out of range"), detail=none)
    rows, again = _once(rows)
    faults = _faults([miscut, unnumbered, unread, out, again], [(clip, path) for (clip, _), path in paths.items()])
    keys = pl.DataFrame(
        [(place, clip, au, str(path)) for place, ((clip, au), path) in enumerate(paths.items())],
        schema={"place": pl.UInt32, "clip": pl.String, "au": pl.Int32, "file": pl.String},
        orient="row",
    )
    labelled = rows.filter(known).select("place", "frame", level.cast(pl.Float32))
    return labelled.join(keys, on="place", how="left", maintain_order="left"), faults


def _joined(rows: pl.DataFrame, levels: pl.DataFrame, chosen: tuple[int, ...] | None, problems: Problems) -> pl.DataFrame:
    """Occurrences with a column of intensities for each action unit that has them, or should."""
    key = ["clip", "frame"]
    astray = levels.join(rows, on=key, how="anti", maintain_order="left")
    counted = astray.group_by("file", maintain_order=True).agg(pl.len(), pl.col("frame").first())
    detail = pl.format("of {} frames, {} the first; they are not used", "len", "frame")
    problems.extend(counted, "intensities without occurrences", detail)
    usual = BP4D_INTENSITY_AUS if chosen is None else [au for au in BP4D_INTENSITY_AUS if au in chosen]
    for au in sorted({*usual, *levels["au"]}):
        part = levels.filter(pl.col("au") == au).select(*key, pl.col("level").alias(f"au{au}_intensity"))
        rows = rows.join(part, on=key, how="left", maintain_order="left")
    return rows


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _images(root: Path, found: _Found, layout: Layout, problems: Problems) -> pl.DataFrame:
    """The images of every sequence that is or should be labelled: ``clip``, ``number``, ``path`` (relative), its ``folder`` and ``stem``.

    Of a sequence that lies in several places the usual place is used before another, and a folder before an archive.
    """
    tables = [pl.DataFrame(schema={"clip": pl.String, "path": pl.String, "source": pl.UInt32})]
    places = [*((path, False) for path in found.people), *((path, True) for path in found.archives)]
    places.sort(key=lambda place: not _USUAL.fullmatch(place[0].parent.name))
    for source, (person, packed) in enumerate(places):
        listed = _members(root, person, problems) if packed else _sequences(root, person)
        tables += [one.with_columns(source=pl.lit(source, pl.UInt32)) for one in listed]
    coded = pl.lit(True) if layout.coded is None else pl.col("clip").str.extract("_(T[0-9]+)$").is_in(layout.coded)
    there = (
        pl.concat(tables, rechunk=True)
        .filter(coded | pl.col("clip").is_in(list(found.occurrences)))
        .with_columns(stem=pl.col("path").str.extract(_IMAGE))
        .with_columns(number=pl.col("stem").cast(pl.Int64), folder=pl.col("path").str.extract(r"^(.*[/\\])"))
        .drop_nulls("number")
    )
    used = pl.col("source") == pl.col("source").min().over("clip")
    others = there.filter(~used).group_by("clip", "source", maintain_order=True).agg(file=f"{root}/" + pl.col("folder").first())
    problems.extend(others, "stands twice", pl.format("the images of {} are elsewhere too, and those are used", "clip"))
    there = there.filter(used)
    first = (pl.col("clip").rank("dense").cast(pl.Int64) * 2**32 + pl.col("number")).is_first_distinct()
    again = there.filter(~first).select(file=f"{root}/" + pl.col("path"))
    problems.extend(again, "stands twice", "another image of the sequence has the same number, and that is used")
    return there.filter(first).drop("source")


def _sequences(root: Path, person: Path) -> Iterator[pl.DataFrame]:
    """The files in the folders of a person's tasks."""
    for task in files.listing(person):
        if _TASK.fullmatch(task):
            names = pl.Series("path", files.listing(person / task), dtype=pl.String)
            prefix = (person / task).relative_to(root).as_posix()
            yield pl.DataFrame({"clip": f"{person.name}_{task}".upper(), "path": f"{prefix}/" + names})


def _members(root: Path, person: Path, problems: Problems) -> Iterator[pl.DataFrame]:
    """The files in the folders of a person's tasks in an archive."""
    try:
        with zipfile.ZipFile(person) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        problems.add("unreadable file", person, f"no zip archive: {error}")
        return
    task = pl.col("name").str.extract(r"(?i)(?:^|[/\\])(T[0-9]{1,3})[/\\][^/\\]*$").str.to_uppercase()
    members = pl.DataFrame({"name": names}, schema={"name": pl.String}).with_columns(task=task).drop_nulls()
    prefix = part_of(person.relative_to(root).as_posix(), "")
    yield members.select(clip=f"{person.stem.upper()}_" + pl.col("task"), path=prefix + pl.col("name"))


def _placed(rows: pl.DataFrame, images: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    """The labelled frames with ``path`` of their image, null where there is none, and ``sample``, which is that path in any case."""
    padded = pl.col("stem").filter(pl.col("stem").str.starts_with("0") & (pl.col("stem").str.len_chars() > 1))
    style = images.group_by("clip").agg(pl.col("folder").first(), width=padded.str.len_chars().min(), last=pl.col("number").max())
    rows = rows.with_columns(
        subject=pl.col("clip").str.extract("^(.*)_"), task=pl.col("clip").str.extract("_(.*)$"), number=pl.col("frame") + layout.offset
    )
    rows = rows.join(images.select("clip", "number", "path"), on=["clip", "number"], how="left", maintain_order="left")
    rows = rows.join(style, on="clip", how="left", maintain_order="left").rechunk()
    usual = pl.format(re.sub(r"\{\w+\}", "{}", layout.folder), *re.findall(r"\{(\w+)\}", layout.folder))
    name = pl.col("number").cast(pl.String).str.zfill(pl.col("width").fill_null(1))
    return rows.with_columns(sample=pl.coalesce("path", pl.format("{}{}.jpg", pl.coalesce("folder", usual), name))).drop("folder", "width")


def _report_images(root: Path, samples: pl.DataFrame, images: pl.DataFrame, found: _Found, layout: Layout, problems: Problems) -> None:
    """Sequences without labels, and labels without images, in a line a sequence."""
    labels = samples.select("clip").unique()
    unlabelled = images.join(labels, on="clip", how="anti", maintain_order="left").group_by("clip", maintain_order=True)
    whole = unlabelled.agg(pl.len(), file=f"{root}/" + pl.col("folder").first())
    problems.extend(whole, "image without a label", pl.format("none of the {} images of {} is labelled; they are not used", "len", "clip"))
    paths = {clip: str(path) for clip, path in found.occurrences.items()}
    rows = samples.select(
        "sample", "clip", "number", "last", image="path", file=pl.col("clip").replace_strict(paths, return_dtype=pl.String)
    )
    if rows["image"].null_count() == rows.height:
        files.missing_images(problems, rows, f"{root}/{layout.folder.partition('{')[0]}")
        return
    absent = rows.filter(pl.col("image").is_null())
    kind = pl.when((pl.col("number") > pl.col("last")).fill_null(False)).then(pl.lit(layout.beyond)).otherwise(pl.lit(_ABSENT))
    counted = absent.group_by("file", kind.alias("kind"), maintain_order=True).agg(pl.len(), pl.col("sample").first())
    for (kind_,), group in counted.group_by("kind", maintain_order=True):
        problems.extend(group, str(kind_), pl.format("of {} labelled frames, {} the first", "len", "sample"))


def _report(faults: pl.DataFrame, samples: pl.DataFrame, problems: Problems) -> None:
    """What is wrong with lines, now that it is known which samples they label."""
    named = faults.join(samples.select("clip", "frame", "sample"), on=["clip", "frame"], how="left", maintain_order="left")
    for (kind,), group in named.group_by("kind", maintain_order=True):
        problems.extend(group, str(kind), pl.col("detail"))
