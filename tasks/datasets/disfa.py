"""DISFA: 27 people who watch a video, every frame coded with the intensity of 12 action units (Mavadati et al. 2013).

::

    ROOT/ActionUnit_Labels/SN001/SN001_au1.txt …                 "frame,intensity", frames from 1, intensities 0..5; no header
    ROOT/Videos_LeftCamera/LeftVideoSN001_comp.avi
    ROOT/Video_RightCamera/RightVideoSN001_Comp.avi

Instead of the videos most copies have frames that somebody extracted, in folders of any name with the subject's in it::

    ROOT/SN001/0.png                    numbered from 0
    ROOT/LeftVideoSN001/00001.jpg       numbered from 1

A person is one clip. The 66 landmarks (``Landmark_Points``, MATLAB files) are not read: they are no 68 in iBUG order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from harness import images as parts
from harness.errors import RequestError, did_you_mean
from harness.samples import Problems, Reading, check, conform
from tasks.datasets import files, intensities
from tasks.datasets.vocabulary import DISFA_AUS

CAMERAS = ("left", "right")
BASES = ("auto", "0", "1")
SOURCES = ("auto", "frames", "video")

_LABELS = re.compile(r"(SN\d{3})_au0*(\d{1,2})\.txt", re.IGNORECASE)
_SUBJECT = re.compile(r"SN\d{3}(?!\d)", re.IGNORECASE)
_SKIPPED = r"Landmark_Points|.+_TrailNo_\d+"  # the latter are those of DISFA+, which may lie beside it
_SIDE = re.compile(r"(?<![A-Za-z])(?i:left|right)|Left|Right")  # not the one in "bright"
_NUMBER = re.compile(r"(?:.*\D)?(\d{1,9})")  # the stem of an extracted frame
_VIDEOS = {"left": "Videos_LeftCamera/LeftVideo{}_comp.avi", "right": "Video_RightCamera/RightVideo{}_Comp.avi"}


@dataclass
class _Source:
    """Where the pictures of one subject may be.

    Attributes:
        path: A folder of frames, or a video.
        names: Those of the frames; empty of a video.
        named: Whether the path says which camera it is.
    """

    path: Path
    names: list[str]
    named: bool


_Sources = dict[str, list[_Source]]


def read(root: str | Path, *, frame_base: str | int = "auto", camera: str = "left", images: str = "auto") -> Reading:
    """All frames that are labelled, with ``au1_intensity`` … 0..5; an action unit whose file or line is absent is null there.

    Args:
        root: The dataset's folder, or one above it.
        frame_base: The number of the first extracted frame: 0 or 1, or ``auto``, 0 for a folder that has a frame 0 and 1 for another.
        camera: ``left`` or ``right``. A path that names neither is taken for the one that is asked for.
        images: ``frames`` (extracted), ``video``, or ``auto``: for each subject frames where there are any, the video otherwise.

    Raises:
        RequestError: There is no such folder or no labels in it, or an option is none.
    """
    root = files.folder(root, "DISFA")
    for name, value, options in (("frame_base", frame_base, BASES), ("camera", camera, CAMERAS), ("images", images, SOURCES)):
        if str(value) not in options:
            raise RequestError(f"no {name} {value!r} of DISFA", where=f"task.dataset.read.{name}", remedy=did_you_mean(str(value), options))
    problems = Problems()
    places, frames, videos = _find(root, camera, problems)
    if not places:
        remedy = "DISFA has ActionUnit_Labels/SN001/SN001_au1.txt …"
        raise RequestError(f"no labels of DISFA in {str(root)!r}", where="task.root", remedy=remedy)
    found = intensities.first_of_each(places, DISFA_AUS, problems)
    once, rows = intensities.frames(_rows(found, problems), found, problems)
    _gaps(once, found, problems)

    pictured, absent = [], []
    for subject in once["clip"].unique(maintain_order=True).to_list():
        own = once.filter(pl.col("clip") == subject).select("clip", "frame", "line", pl.col("file").cast(pl.String))
        shots = _one(frames.get(subject, []), problems) if images != "video" else None
        video = _one(videos.get(subject, []), problems) if images != "frames" and shots is None else None
        if shots:
            own = _from_frames(root, own, shots, str(frame_base), problems)
        elif video:
            own = _from_video(root, own, video, problems)
        else:
            own = _unpictured(own, _VIDEOS[camera].format(subject))
            absent.append(own)
        pictured.append(own)
    if absent and len(absent) == len(pictured):
        files.missing_images(problems, pl.concat(absent), f"{root}, {camera} camera")
    else:
        for own in absent:
            files.missing_images(problems, own, f"{root}/{parts.container_of(own['sample'][0])}")
    samples = pl.concat(pictured) if pictured else _unpictured(once, "")
    samples = intensities.labelled(samples.select("clip", "frame", "sample", "image"), rows, DISFA_AUS, problems)
    return Reading(check(conform(samples.with_columns(subject="clip"))), problems.frame())


# ── labels ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _rows(found: intensities.Found, problems: Problems) -> pl.DataFrame:
    table = intensities.lines(found, problems).with_columns(cells=pl.col("text").str.split(","))
    count = pl.col("cells").list.len()
    wrong = table.filter(count != 2).with_columns(pl.col("file").cast(pl.String))
    problems.extend(wrong, "wrong number of cells", pl.format("{}, where 2 belong", count))
    cell = [pl.col("cells").list.get(place, null_on_oob=True).str.strip_chars(" \t\"'") for place in range(2)]
    table = table.filter(count == 2).with_columns(number=cell[0], intensity=cell[1])
    frame = pl.col("number").cast(pl.Float64, strict=False)
    known = (frame.is_between(1, 2**31 - 1) & (frame % 1 == 0)).fill_null(False)
    nameless = table.filter(~known).with_columns(pl.col("file").cast(pl.String))
    problems.extend(nameless, "unreadable frame number", pl.format("'{}' is no whole number from 1", "number"))
    return table.filter(known).select("clip", "au", "file", "line", "intensity", frame=frame)


def _gaps(once: pl.DataFrame, found: intensities.Found, problems: Problems) -> None:
    """Numbers that no file of a subject labels. They count from 1."""
    counted = once.with_columns(n=(pl.int_range(pl.len()) + 1).over("clip"))
    gaps = (
        counted.filter(pl.col("frame") != pl.col("n"))
        .group_by("clip", maintain_order=True)
        .agg(pl.col("frame").last() - pl.col("n").last(), pl.col("n").first())
    )
    folders = {clip: path.parent for (clip, _), path in found.items()}
    for clip, missing, n in gaps.iter_rows():
        problems.add("missing frame number", folders[clip], f"{missing} frames of {clip} are in no file, the first of them {n}")


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _find(root: Path, camera: str, problems: Problems) -> tuple[list[tuple[str, int, Path]], _Sources, _Sources]:
    """The files of labels, and by subject folders of frames and videos of one camera; those that name it come first."""
    places: list[tuple[str, int, Path]] = []
    frames: _Sources = {}
    videos: _Sources = {}
    for here, _, names in files.walk(root, problems, skip=_SKIPPED):
        inside = here.relative_to(root).as_posix()
        shots = [name for name in names if files.is_image(name)]
        subjects, side = _SUBJECT.findall(inside), _side(inside)
        if shots and subjects and side in (camera, None):
            frames.setdefault(subjects[-1].upper(), []).append(_Source(here, shots, side is not None))
        for name in names:
            if label := _LABELS.fullmatch(name):
                places.append((label[1].upper(), int(label[2]), here / name))
            elif name.lower().endswith(parts.VIDEOS) and (subject := _SUBJECT.search(name)):
                side = _side(f"{inside}/{name}")
                if side in (camera, None):
                    videos.setdefault(subject[0].upper(), []).append(_Source(here / name, [], side is not None))
    for sources in (*frames.values(), *videos.values()):
        sources.sort(key=lambda source: not source.named)
    return places, frames, videos


def _side(path: str) -> str | None:
    """The camera that a path names; its last word counts."""
    return next((found.lower() for found in reversed(_SIDE.findall(path))), None)


def _one(sources: list[_Source], problems: Problems) -> _Source | None:
    for source in sources[1:]:
        problems.add("stands twice", source.path, f"{sources[0].path} is used")
    return sources[0] if sources else None


def _from_frames(root: Path, own: pl.DataFrame, source: _Source, frame_base: str, problems: Problems) -> pl.DataFrame:
    """The labelled frames of one subject with their extracted images."""
    matches = [(name, found[1]) for name in source.names if (found := _NUMBER.fullmatch(Path(name).stem))]
    shots = pl.DataFrame(matches, schema={"name": pl.String, "digits": pl.String}, orient="row")
    shots = shots.with_columns(number=pl.col("digits").cast(pl.Int64), file=f"{source.path}/" + pl.col("name"))
    numberless = sorted({*source.names}.difference(shots["name"]))
    if numberless:
        problems.add("image without a label", source.path / numberless[0], f"no number in its name; so are {len(numberless) - 1} more")
    first = pl.col("number").is_first_distinct()
    problems.extend(shots.filter(~first), "stands twice", "another image with this number is used")
    shots = shots.filter(first)
    from_0 = bool((shots["number"] == 0).any())
    base = 1 - from_0 if frame_base == "auto" else int(frame_base)
    if from_0 and base == 1:
        problems.add("frame 0", source.path, "there is one, and frame_base is 1")
    shots = shots.with_columns(frame=(pl.col("number") + 1 - base).cast(pl.Int32))
    extra = shots.join(own, on="frame", how="anti", maintain_order="left").sort("number")
    problems.extend(extra, "image without a label", "it is not used")
    like = shots.sort("number").row(0, named=True) if shots.height else {"name": "0.png", "digits": "0"}
    start, end = like["name"].rsplit(like["digits"], 1)
    width = len(like["digits"]) if len(like["digits"]) > 1 else 0
    folder = (source.path / "x").relative_to(root).as_posix().removesuffix("x")
    own = own.join(shots.select("frame", "name"), on="frame", how="left", maintain_order="left")
    would_be = pl.lit(start) + (pl.col("frame") - 1 + base).cast(pl.String).str.zfill(width) + pl.lit(end)
    own = _placed(root, own.with_columns(sample=pl.lit(folder) + pl.coalesce("name", would_be)), pl.col("name").is_not_null())
    files.missing_images(problems, own, source.path.as_posix())
    return own


def _from_video(root: Path, own: pl.DataFrame, source: _Source, problems: Problems) -> pl.DataFrame:
    """The labelled frames of one subject as parts of the video."""
    length = 0
    try:
        length = parts.frames_in(source.path)
    except OSError as error:
        problems.add("unreadable file", source.path, error.strerror or str(error))
    else:
        last = own["frame"].to_list()[-1]
        if length != last:
            problems.add(
                "length mismatch", source.path, f"the video has {length} frames, and the labels go to {last}; what both have is used"
            )
    sample = pl.lit(parts.part_of(source.path.relative_to(root).as_posix(), "")) + (pl.col("frame") - 1).cast(pl.String)
    return _placed(root, own.with_columns(sample=sample), pl.col("frame") <= length)


def _unpictured(own: pl.DataFrame, video: str) -> pl.DataFrame:
    """Called what they would be in the copy that the makers of DISFA hand out."""
    sample = pl.lit(parts.part_of(video, "")) + (pl.col("frame") - 1).cast(pl.String)
    return _placed(Path(), own.with_columns(sample=sample), pl.lit(False))


def _placed(root: Path, own: pl.DataFrame, there: pl.Expr) -> pl.DataFrame:
    image = pl.when(there).then(pl.lit(f"{root}/") + pl.col("sample"))
    return own.select("clip", "frame", "line", "file", "sample", image=image)
