"""DISFA+: nine of DISFA's people who pose and feel expressions, every frame coded with 12 action units (Mavadati et al. 2016).

::

    ROOT/Labels/SN001/A1_AU1_TrailNo_1/AU1.txt …        "000.jpg     0": an image and its intensity 0..5
    ROOT/Images/SN001/A1_AU1_TrailNo_1/000.jpg …

``TrailNo`` is the real spelling. Some copies have the subject's folder twice (``Labels/SN001/SN001/…``). A trial is a clip. The faces
that the makers cut out (``FaceLandmarks``, MATLAB files with 49 points) are not read.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from harness.errors import RequestError
from harness.samples import Problems, Reading, check, conform
from tasks.datasets import files, intensities
from tasks.datasets.vocabulary import DISFA_AUS

_LABELS = re.compile(r"AU0*(\d{1,2})\.txt", re.IGNORECASE)
_SUBJECT = re.compile(r"SN\d{3}", re.IGNORECASE)
_NUMBER = r"^(?:.*[^0-9])?([0-9]{1,9})(?:\.[A-Za-z]+)?$"  # in the name of an image
_IMAGE = rf"(?i)({'|'.join(map(re.escape, files.IMAGES))})$"
_TRIAL = r"_Tr(?:ai|ia)lNo_\d+$"


def read(root: str | Path) -> Reading:
    """All frames that are labelled, with ``au1_intensity`` … 0..5; an action unit whose file or line is absent is null there.

    Blank lines, lines that begin with ``#`` and the header of a file are passed over: lines before its first image that have no number
    in second place. The activity is the trial's name without its number. The people are DISFA's, by the same names: who
    trains on one and tests on the other must leave them out.

    Args:
        root: The dataset's folder, or one above it.

    Raises:
        RequestError: There is no such folder, or no labels in it.
    """
    root = files.folder(root, "DISFA+")
    problems = Problems()
    places, images = _find(root, problems)
    if not places:
        remedy = "DISFA+ has Labels/SN001/A1_AU1_TrailNo_1/AU1.txt …"
        raise RequestError(f"no labels of DISFA+ in {str(root)!r}", where="task.root", remedy=remedy)
    found = intensities.first_of_each(places, DISFA_AUS, problems)
    once, rows = intensities.frames(_rows(found, problems), found, problems)
    once = once.with_columns(pl.col("file").cast(pl.String))
    shots = _shots(root, images, problems)
    key = ["clip", "frame"]
    extra = shots.join(once, on=key, how="anti", maintain_order="left")
    whole = extra.filter(~pl.col("clip").is_in(once["clip"].unique().implode()))
    told = whole.group_by("folder", maintain_order=True).agg(pl.len()).rename({"folder": "file"})
    problems.extend(told, "image without a label", pl.format("{} images of a trial that has no labels; they are not used", "len"))
    problems.extend(extra.join(whole, on=key, how="anti", maintain_order="left"), "image without a label", "it is not used")

    samples = once.join(shots.select(*key, "image", "path"), on=key, how="left", maintain_order="left")
    folder = shots.group_by("clip").agg(pl.col("path").first().str.extract(r"^(.*/)").alias("folder"))
    samples = samples.join(folder, on="clip", how="left", maintain_order="left")
    would_be = pl.coalesce("folder", pl.format("Images/{}/", "clip")) + pl.col("name")
    samples = samples.with_columns(sample=pl.coalesce("path", would_be))
    files.missing_images(problems, samples, f"{root}/Images")
    samples = intensities.labelled(samples.select(*key, "sample", "image"), rows, DISFA_AUS, problems)
    subject, trial = pl.col("clip").str.extract("^([^/]*)/"), pl.col("clip").str.extract("/(.*)$")
    return Reading(check(conform(samples.with_columns(subject=subject, activity=trial.str.replace(_TRIAL, "")))), problems.frame())


def _find(root: Path, problems: Problems) -> tuple[list[tuple[str, int, Path]], dict[str, list[tuple[Path, list[str]]]]]:
    """The files of labels, and by clip the folders of images with the images in them."""
    places: list[tuple[str, int, Path]] = []
    images: dict[str, list[tuple[Path, list[str]]]] = {}
    for here, _, names in files.walk(root, problems, skip="FaceLandmarks"):
        above = here.relative_to(root).parts[:-1]
        subjects = [part for part in above if _SUBJECT.fullmatch(part)]
        if not subjects:
            continue
        clip = f"{subjects[-1].upper()}/{here.name}"
        shots = [name for name in names if files.is_image(name)]
        if shots:
            images.setdefault(clip, []).append((here, shots))
        places += [(clip, int(label[1]), here / name) for name in names if (label := _LABELS.fullmatch(name))]
    return places, images


def _rows(found: intensities.Found, problems: Problems) -> pl.DataFrame:
    table = intensities.lines(found, problems).filter(~pl.col("text").str.starts_with("#"))
    cell = pl.col("text").str.extract_all(r"\S+")
    table = table.with_columns(cells=cell, name=cell.list.first().str.replace_all("\\", "/", literal=True).str.extract("([^/]*)$"))
    second = pl.col("cells").list.get(1, null_on_oob=True)
    frame = pl.col("name").str.extract(_NUMBER)
    table = table.with_columns(intensity=second, frame=frame.cast(pl.Int64, strict=False))
    no_number = second.is_null() | second.cast(pl.Float64, strict=False).is_null()
    image = pl.col("name").str.contains(_IMAGE) & pl.col("frame").is_not_null()
    head = no_number & (image.cum_sum().over("file") == 0)
    table = table.filter(~head)
    count = pl.col("cells").list.len()
    wrong = table.filter(count != 2).with_columns(pl.col("file").cast(pl.String))
    problems.extend(wrong, "wrong number of cells", pl.format("{}, where 2 belong", count))
    table = table.filter(count == 2)
    nameless = table.filter(pl.col("frame").is_null()).with_columns(pl.col("file").cast(pl.String))
    problems.extend(nameless, "unreadable frame number", pl.format("'{}' names no image with a number", "name"))
    return table.filter(pl.col("frame").is_not_null()).select("clip", "au", "file", "line", "frame", "name", "intensity")


def _shots(root: Path, images: dict[str, list[tuple[Path, list[str]]]], problems: Problems) -> pl.DataFrame:
    """The images that are there: ``clip``, ``frame``, ``folder``, ``file`` and ``image`` (whole paths), ``path`` (relative to the root)."""
    tables: list[pl.DataFrame] = []
    for clip, folders in images.items():
        (folder, names), *others = folders
        for other, _ in others:
            problems.add("stands twice", other, f"{folder} is used")
        tables.append(pl.DataFrame({"name": names}).with_columns(clip=pl.lit(clip), folder=pl.lit(folder.relative_to(root).as_posix())))
    shots = pl.concat(tables) if tables else pl.DataFrame(schema=dict.fromkeys(("name", "clip", "folder"), pl.String))
    path = pl.format("{}/{}", "folder", "name")
    whole = pl.lit(f"{root}/") + path
    shots = shots.with_columns(path=path, file=whole, image=whole, folder=pl.lit(f"{root}/") + pl.col("folder"))
    shots = shots.with_columns(frame=pl.col("name").str.extract(_NUMBER).cast(pl.Int32))
    numberless = shots.filter(pl.col("frame").is_null())
    problems.extend(numberless, "image without a label", "no number in its name")
    shots = shots.filter(pl.col("frame").is_not_null())
    first = pl.struct("clip", "frame").is_first_distinct()
    problems.extend(shots.filter(~first), "stands twice", "another image with this number is used")
    return shots.filter(first)
