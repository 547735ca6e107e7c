"""Aff-Wild2: videos from the web, labelled frame by frame for the challenges of the ABAW workshops (Kollias et al.).

Labels of the three challenges with a file a video, under the folder of an edition, spelled with blanks or underscores::

    ROOT/6th_ABAW_Annotations/VA_Estimation_Challenge/Train_Set/10-60-1280x720_right.txt        or Validation_Set
    ROOT/6th_ABAW_Annotations/EXPR_Recognition_Challenge/…          up to the fifth edition: EXPR_Classification_Challenge
    ROOT/6th_ABAW_Annotations/AU_Detection_Challenge/…
    ROOT/annotations/VA_Set/Training_Set/…, EXPR_Set/…, AU_Set/…                                 the first edition

Lists of the multi-task challenge (s-Aff-Wild2), a row an image with all labels::

    ROOT/…/MTL_Challenge/train_set.txt, validation_set.txt          editions 4 and 7: training_set_annotations.txt …
    ROOT/…/MTL_Challenge_test_set_release.txt, or MTL.txt

What both share::

    ROOT/cropped_aligned/10-60-1280x720_right/00001.jpg             and other folders whose names begin so, also one deeper
    ROOT/names_of_videos_in_each_test_set/Valence_Arousal_Estimation_Challenge_test_set_release.txt …     a video a line

Line k of a video's labels, counted after the header, is of the image numbered k. Where no face was found there is no image. Other text
files (samples of submissions, notes) are not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.samples import EXPRESSIONS, Problems, Reading, check, conform
from tasks.datasets import files
from tasks.datasets.vocabulary import AFF_WILD2, AFF_WILD2_AUS, EXPRESSION_NAMES, au_name

CHALLENGES = ("va", "expr", "au")
"""Those with a file a video."""

MTL_HEADER = ("image", "valence", "arousal", "expression", "aus")
MTL_FIELDS = (*MTL_HEADER[:4], *(f"au{au}" for au in AFF_WILD2_AUS))
"""The cells of a row under :data:`MTL_HEADER`: the last name stands for twelve."""

IMAGE = r"^(?:.*/)?([^/]+)/((\d{1,9})\.(?i:jpe?g|png))$"
"""Of where an image is: its video, its name, its number."""

# of names in lower case, with "_" for blanks and hyphens
_FOLDERS = {"va": r"va(_estimation)?(_challenge|_set)?", "expr": r"expr(_\w+)?_(challenge|set)", "au": r"au(_detection)?(_challenge|_set)?"}
_SPLITS = {"validation": r"val(idation)?_set", "train": r"train(ing)?_set"}  # a video in both is the validation part's
_TEST_LISTS = {
    "va": r"va\w*_test_set(_release)?\.txt",
    "expr": r"expr\w*_test_set(_release)?\.txt",
    "au": r"(au|action_unit)\w*_test_set(_release)?\.txt",
    "mtl": r"(mtl|multi)\w*_test_set(_release)?\.txt|mtl\.txt",
}
_MTL_LISTS = {split: rf"{folder}(_annotations?)?\.txt" for split, folder in _SPLITS.items()}
_IMAGES = "cropped_aligned"
_PASSED_OVER = r"(cropped|batch_?\d).*"  # folders of images and raw videos hold no labels, and millions of files
_RECORDING = pl.col("clip").str.replace(r"_(left|right)$", "")
_DEPTH = 5


def read(root: str | Path, *, challenge: str = "auto", edition: str | None = None) -> Reading:
    """All labelled frames, and the images of test videos, which have no labels.

    Null is what is not annotated: valence and arousal where either is -5 (or anything below -1), an expression of -1, and each action unit
    of -1 by itself. A test list gives a sample for every image that is there of its videos.

    The dataset names no people. ``subject`` is the recording, the name of the video without ``_left`` or ``_right``, so that both faces of
    a recording stay on one side of a split; who appears in two recordings is two subjects.

    Args:
        root: The folder of labels and images, or one or two above it.
        challenge: ``va``, ``expr`` or ``au``: its labels and its split alone. ``mtl``: the lists of the multi-task challenge. ``auto``: the
            first three together where there are any, a frame with all its labels one sample, otherwise the lists; a video that is then in
            different parts of two challenges has no split.
        edition: Name of the folder of the edition, where labels of more than one are there.

    Raises:
        RequestError: There is no such folder, challenge or edition, or more than one edition.
    """
    root = files.folder(root, "Aff-Wild2")
    if challenge not in (known := ("auto", *CHALLENGES, "mtl")):
        raise RequestError(
            f"Aff-Wild2 has no challenge {challenge!r}", where="task.dataset.read.challenge", remedy=did_you_mean(str(challenge), known)
        )
    problems = Problems()
    found = _find(root, problems).of(root, edition)
    wanted = [name for name in CHALLENGES if name in found.labels] if challenge == "auto" else [challenge]
    if challenge != "mtl" and wanted and found.labels.keys() >= set(wanted):
        if challenge == "auto" and found.lists:
            detail = "the lists of the multi-task challenge are there too; task.dataset.read.challenge=mtl reads them instead"
            problems.add("not read", next(iter(found.lists.values()))[0].parent, detail)
        return _read_videos(root, found, wanted, problems)
    if challenge in ("auto", "mtl") and found.lists:
        return _read_lists(root, found, problems)
    if there := [*found.labels, *(["mtl"] if found.lists else [])]:
        what, remedy = f"no labels of the {challenge} challenge are in {str(root)!r}", f"there are those of: {', '.join(there)}"
        raise RequestError(what, where="task.dataset.read.challenge", remedy=remedy)
    remedy = "it has folders like VA_Estimation_Challenge/Train_Set with a txt a video, or the lists train_set.txt and validation_set.txt"
    raise RequestError(f"no labels of Aff-Wild2 are in {str(root)!r}", where="task.root", remedy=remedy)


# ── what is where ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Found:
    """Folders of challenges, and lists of the multi-task challenge and of test videos, by name; and folders of images."""

    labels: dict[str, list[Path]] = field(default_factory=dict)
    lists: dict[str, list[Path]] = field(default_factory=dict)
    tests: dict[str, list[Path]] = field(default_factory=dict)
    images: list[Path] = field(default_factory=list)

    def of(self, root: Path, edition: str | None) -> _Found:
        """The same of one edition. Lists of test videos often lie elsewhere: those of the edition where there are any.

        Raises:
            RequestError: There is no such edition.
        """
        if edition is None:
            return self
        above = len(Path(os.path.abspath(root)).parts) - 1  # noqa: PTH100  no link is followed

        def inside(path: Path) -> bool:
            return _plain(str(edition)) in map(_plain, Path(os.path.abspath(path)).parts[above:])  # noqa: PTH100

        def kept(named: dict[str, list[Path]]) -> dict[str, list[Path]]:
            some = {name: [path for path in paths if inside(path)] for name, paths in named.items()}
            return {name: paths for name, paths in some.items() if paths}

        labels, lists = kept(self.labels), kept(self.lists)
        if not labels and not lists:
            known = {_edition(path) for named in (self.labels, self.lists) for paths in named.values() for path in paths}
            raise RequestError(
                f"no edition {edition!r} in {str(root)!r}",
                where="task.dataset.read.edition",
                remedy=did_you_mean(str(edition), known) if known else None,
            )
        return _Found(labels, lists, self.tests | kept(self.tests), self.images)


def _find(root: Path, problems: Problems) -> _Found:
    found = _Found()
    for here, folders, names in files.walk(root, problems, skip=r"__macosx|\..*"):
        for folder in folders:
            if _plain(folder).startswith(_IMAGES):
                found.images.append(here / folder)
        if any(_split(folder) for folder in folders) and (challenge := _match(_FOLDERS, Path(os.path.abspath(here)).name)):  # noqa: PTH100
            found.labels.setdefault(challenge, []).append(here)
        for name in names:
            if split := _match(_MTL_LISTS, name):
                found.lists.setdefault(split, []).append(here / name)
            elif challenge := _match(_TEST_LISTS, name):
                found.tests.setdefault(challenge, []).append(here / name)
        searched = [folder for folder in folders if not _split(folder) and not re.fullmatch(_PASSED_OVER, _plain(folder))]
        folders[:] = searched if len(here.relative_to(root).parts) < _DEPTH else []
    return found


def _plain(name: str) -> str:
    return re.sub(r"[ _-]+", "_", name.strip().lower())


def _match(patterns: Mapping[str, str], name: str) -> str | None:
    return next((key for key, pattern in patterns.items() if re.fullmatch(pattern, _plain(name))), None)


def _split(folder: str) -> str | None:
    return _match(_SPLITS, folder)


def _edition(path: Path) -> str:
    """The folder of the edition to which a challenge's folder or a list belongs."""
    parent = Path(os.path.abspath(path)).parent  # noqa: PTH100
    return parent.parent.name if path.suffix and _plain(parent.name).startswith("mtl") else parent.name


def _only(what: str, paths: Sequence[Path], root: Path) -> Path:
    """The one there is.

    Raises:
        RequestError: There are more.
    """
    if len(paths) > 1:
        names = sorted({_edition(path) for path in paths})
        several = ", ".join(sorted(str(path.relative_to(root)) for path in paths))
        remedy = f"set task.dataset.read.edition to one of: {', '.join(names)}" if len(names) > 1 else "take all but one away"
        raise RequestError(f"{len(paths)} editions of the {what} are in {str(root)!r}: {several}", where="task.root", remedy=remedy)
    return paths[0]


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Images:
    """Which images of which videos are there. Folders are listed, no file is asked for: there are millions."""

    def __init__(self, root: Path, folders: Sequence[Path], problems: Problems) -> None:
        self.folders: dict[str, str] = {}  # video → its folder, relative to the root
        self._names: dict[str, pl.Series] = {}
        self._root, self._problems = root, problems
        for folder in folders:
            for here, _, names in files.walk(folder, problems):
                pictures = pl.Series("name", names, dtype=pl.String)
                pictures = pictures.filter(pictures.str.contains(r"(?i)^\d{1,9}\.(jpe?g|png)$"))
                if pictures.is_empty() or here == folder:
                    continue
                if here.name in self.folders:
                    problems.add("stands twice", here, f"{self.folders[here.name]} is used")
                    continue
                self.folders[here.name] = here.relative_to(root).as_posix()
                self._names[here.name] = pictures

    def folder(self, clip: str) -> str:
        """Where the images of a video are, or would be."""
        return self.folders.get(clip, f"{_IMAGES}/{clip}")

    def of(self, clips: Sequence[str]) -> pl.DataFrame:
        """The images of some videos: columns ``clip`` (a place in ``clips``), ``frame`` (Int32) and ``name``, in this order."""
        parts = [self._names.get(clip, pl.Series("name", dtype=pl.String)) for clip in clips]
        which = np.repeat(np.arange(len(clips)), [len(part) for part in parts])
        there = pl.DataFrame({"clip": which, "name": pl.concat([pl.Series("name", dtype=pl.String), *parts])})
        there = there.with_columns(frame=pl.col("name").str.extract(r"^(\d+)").cast(pl.Int32))
        key = pl.col("clip") * 2**32 + pl.col("frame")
        there = there.sort(key, maintain_order=True)
        twice = there.select(key == key.shift()).to_series().fill_null(False)
        for clip, name in there.filter(twice).select("clip", "name").iter_rows():
            self._problems.add("stands twice", self._root / self.folder(clips[clip]) / name, "another image has this number, and is used")
        return there.filter(~twice)


# ── a file a video ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _File:
    """The labels of a video in one challenge."""

    challenge: str
    split: str
    clip: str
    path: Path
    lines: int = 0  # with labels

    def length(self) -> tuple[int, int]:
        """To sort by: of two files with as many lines the one of the first challenge is the longer one."""
        return self.lines, -CHALLENGES.index(self.challenge)


def _read_videos(root: Path, found: _Found, challenges: Sequence[str], problems: Problems) -> Reading:
    folders = {name: _only(f"{name} challenge", found.labels[name], root) for name in challenges}
    if len({folder.parent for folder in folders.values()}) > 1:
        where = ", ".join(f"{name} in {folder.relative_to(root)}" for name, folder in folders.items())
        problems.add("labels of several folders", root, f"{where}: nothing says that they are of one edition")
    listed = {name: _label_files(name, folder, problems) for name, folder in folders.items()}
    parsed = {name: _challenge(of, problems) for name, of in listed.items()}
    labelled = [file for of in listed.values() for file in of if file.lines]
    by_length = {file.clip: file for file in sorted(labelled, key=_File.length)}
    longest = dict(sorted(by_length.items()))
    tested = _test_videos(found, challenges, problems)
    splits = _splits(labelled, tested, longest, problems)
    images = _Images(root, found.images, problems)

    lengths = np.array([file.lines for file in longest.values()], np.int64)
    starts = dict(zip(longest, (np.cumsum(lengths) - lengths).tolist(), strict=True))
    rows = _frames(root, list(longest.values()), lengths, images, problems)
    rows = rows.with_columns(split=pl.Series([splits[clip] for clip in longest], dtype=pl.String).gather(rows["place"])).drop("place")
    for name, (labels, faults) in parsed.items():
        first = pl.Series([starts.get(file.clip, 0) for file in listed[name]], dtype=pl.Int64)
        at = _places(rows.height, (first.gather(labels["file"]) + labels["line"] - 2).to_numpy())
        rows = rows.hstack(labels.drop("file", "line").select(pl.all().gather(at)))
        paths = pl.Series([str(file.path) for file in listed[name]], dtype=pl.String)
        sample = rows["sample"].gather(first.gather(faults["file"]) + faults["line"] - 2)
        _report(faults.with_columns(file=paths.gather(faults["file"]), sample=sample), problems)
    rows = pl.concat([rows, _test_frames(root, [clip for clip in tested if clip not in longest], tested, images, problems)], how="diagonal")
    if unknown := sorted(images.folders.keys() - longest.keys() - tested.keys()):
        names = ", ".join(unknown[:5]) + " …" * (len(unknown) > 5)
        detail = f"videos with images that no file labels and no test list names: {len(unknown)} ({names})"
        problems.add("image without a label", root, detail)
    return Reading(check(conform(rows.with_columns(subject=_RECORDING))), problems.frame())


def _splits(
    labelled: Sequence[_File], tested: Mapping[str, Mapping[str, Path]], longest: Mapping[str, _File], problems: Problems
) -> dict[str, str | None]:
    """The official split of each video; None where the challenges do not agree."""
    splits: dict[str, dict[str, str]] = {}
    for file in labelled:
        splits.setdefault(file.clip, {})[file.challenge] = file.split
    for clip, lists in tested.items():
        for challenge, path in lists.items():
            if splits.setdefault(clip, {}).setdefault(challenge, "test") != "test":
                problems.add("stands twice", path, f"{clip} has labels in the {challenge} challenge, which are used")
    for clip, file in longest.items():
        if len(set(splits[clip].values())) > 1:
            parts = ", ".join(f"{split} of {challenge}" for challenge, split in splits[clip].items())
            problems.add("two splits", file.path, f"{clip} is in {parts}: it has no official split")
    return {clip: next(iter(parts.values())) if len(set(parts.values())) == 1 else None for clip, parts in splits.items()}


def _frames(root: Path, longest: Sequence[_File], lengths: np.ndarray, images: _Images, problems: Problems) -> pl.DataFrame:
    """A row for each labelled frame, video by video.

    Args:
        root: The dataset's folder.
        longest: Of each video the file with the most lines.
        lengths: How many these are.
        images: Those that are there.
        problems: Takes labels without images, and images without labels.

    Returns:
        Columns ``place`` (of the video), ``clip``, ``frame``, ``sample`` and ``image``.
    """
    clips = [file.clip for file in longest]
    place = np.repeat(np.arange(len(clips)), lengths)
    starts = np.cumsum(lengths) - lengths
    frame = np.arange(len(place)) - np.repeat(starts, lengths) + 1
    there = images.of(clips)
    inside = there["frame"].is_between(1, pl.Series(lengths).gather(there["clip"]))
    beyond = there.filter(~inside).group_by("clip", maintain_order=True).agg(n=pl.len(), first=pl.col("name").first())
    for number, n, first in beyond.iter_rows():
        detail = f"{n} have a number that no line has; the first is {first}"
        problems.add("image without a label", root / images.folder(clips[number]), detail)
    there = there.filter(inside)
    at = _places(len(frame), starts[there["clip"].to_numpy()] + there["frame"].to_numpy() - 1)
    _tell_absent(at.is_null().to_numpy(), place, frame, longest, root, problems)

    folders = pl.Series([images.folder(clip) for clip in clips], dtype=pl.String)
    rows = pl.DataFrame({"place": place, "frame": frame.astype(np.int32), "name": there["name"].gather(at)})
    usual = pl.col("frame").cast(pl.String).str.zfill(5) + ".jpg"
    rows = rows.with_columns(
        clip=pl.Series(clips, dtype=pl.String).gather(place), sample=pl.lit(folders).gather("place") + "/" + pl.coalesce("name", usual)
    )
    return rows.with_columns(image=_where_known("name", root)).drop("name")


def _where_known(name: str, root: Path) -> pl.Expr:
    """The path of an image, null where there is no name of one that is there."""
    return pl.when(pl.col(name).is_not_null()).then(f"{root}/" + pl.col("sample"))


def _label_files(challenge: str, folder: Path, problems: Problems) -> list[_File]:
    """The files of a challenge, one a video; those of the validation part first."""
    listed: dict[str, _File] = {}
    for split in _SPLITS:
        for part in files.listing(folder):
            for name in files.listing(folder / part) if _split(part) == split else ():
                clip, suffix = os.path.splitext(name)  # noqa: PTH122
                if suffix.lower() != ".txt" or clip.startswith("."):
                    continue
                if clip in listed:
                    problems.add("stands twice", folder / part / name, f"{listed[clip].path} is used")
                else:
                    listed[clip] = _File(challenge, split, clip, folder / part / name)
    return list(listed.values())


def _challenge(listed: Sequence[_File], problems: Problems) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The labels of a challenge, and what is wrong with them; says in every file how many lines have labels.

    Returns:
        Columns ``file`` (a place in ``listed``), ``line`` and labels; and columns ``file``, ``line``, ``kind`` and ``detail``.
    """
    alike: dict[tuple[tuple[str, ...], tuple[str, ...]], list[tuple[int, pl.Series]]] = {}
    for number, file in enumerate(listed):
        table = files.lines(file.path, problems)
        header, texts = files.header(table), table["text"].slice(1)
        while len(texts) and not texts[-1].strip():
            texts = texts.head(-1)
        columns = label_columns(file.challenge, header)
        if columns is None:
            told = files.text(",".join(header))[:60]
            detail = f"'{told}' is no header of the {file.challenge} challenge; none of its {len(texts)} lines is used"
            problems.add("unknown header", file.path, detail, line=1)
            continue
        file.lines = len(texts)
        alike.setdefault(columns, []).append((number, texts))
    labels = [pl.DataFrame(schema={"file": pl.Int64, "line": pl.Int64})]
    faults = [pl.DataFrame(schema={"file": pl.Int64, "line": pl.Int64, "kind": pl.String, "detail": pl.String})]
    for (fields, names), group in alike.items():
        lengths = [len(texts) for _, texts in group]
        rows = pl.DataFrame(
            {
                "file": np.repeat([number for number, _ in group], lengths),
                "line": np.concatenate([np.arange(2, 2 + length) for length in lengths]),
                "text": pl.concat([texts for _, texts in group]),
            }
        )
        known, wrong = _parsed(rows["text"].unique(), fields, names)  # few lines differ: a frame is labelled as the one before it
        labels.append(rows.join(known, on="text", how="left", maintain_order="left").drop("text"))
        if wrong.height:
            faults.append(rows.join(wrong, on="text").drop("text"))
    return pl.concat(labels, how="diagonal"), pl.concat(faults)


def label_columns(challenge: str, header: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The label of each cell under a header, and the expressions of the codes 0, 1 …; None where it is no header of the challenge."""
    cells = [cell.lower() for cell in header]
    if challenge == "va":
        return (tuple(cells), ()) if sorted(cells) == ["arousal", "valence"] else None
    names = [(au_name(cell) if cell.startswith("au") else None) if challenge == "au" else EXPRESSION_NAMES.get(cell) for cell in cells]
    known = tuple(name for name in names if name is not None)
    if not known or len(set(known)) != len(cells):
        return None
    return (known, ()) if challenge == "au" else (("expression",), known)


def _test_videos(found: _Found, challenges: Sequence[str], problems: Problems) -> dict[str, dict[str, Path]]:
    """Test video → challenge → the list in which it is."""
    tested: dict[str, dict[str, Path]] = {}
    for challenge in challenges:
        lists = found.tests.get(challenge, [])
        for other in lists[1:]:
            problems.add("stands twice", other, f"{lists[0]} is used")
        for path in lists[:1]:
            for name in files.lines(path, problems)["text"].str.strip_chars(" \t\"'"):
                if name:
                    tested.setdefault(name, {})[challenge] = path
    return tested


def _test_frames(
    root: Path, clips: Sequence[str], tested: Mapping[str, Mapping[str, Path]], images: _Images, problems: Problems
) -> pl.DataFrame:
    there = images.of(clips)
    absent = [clip for clip in clips if clip not in images.folders]
    if clips and len(absent) == len(clips):
        detail = f"{len(clips)} test videos have no images; the list does not say how many frames they have"
        problems.add("no images", next(iter(tested[clips[0]].values())), detail)
    else:
        for clip in absent:
            problems.add("missing image", next(iter(tested[clip].values())), f"no folder of images is called {clip!r}")
    folder = pl.Series([images.folder(clip) for clip in clips], dtype=pl.String).gather(there["clip"])
    named = pl.Series(clips, dtype=pl.String).gather(there["clip"])
    rows = there.with_columns(clip=named, sample=folder + "/" + there["name"], split=pl.lit("test")).drop("name")
    return rows.with_columns(image=f"{root}/" + pl.col("sample"))


def _tell_absent(absent: np.ndarray, clip: np.ndarray, frame: np.ndarray, longest: Sequence[_File], root: Path, problems: Problems) -> None:
    """One line a video with the labels that have no image: where no face was found, which is usual."""
    if len(absent) and absent.all():
        detail = f"none of the {len(absent)} images that the labels name is there; only labels can be counted"
        problems.add("no images", root / _IMAGES, detail)
        return
    rows = pl.DataFrame({"clip": clip[absent], "line": frame[absent] + 1})
    told = rows.group_by("clip").agg(n=pl.len(), first=pl.col("line").min(), last=pl.col("line").max()).sort("clip")
    for number, n, first, last in told.iter_rows():
        file = longest[number]
        which = f"line {first}" if n == 1 else f"the first is line {first}, the last line {last}"
        problems.add("lines without an image", file.path, f"{n} of {file.lines} lines: {which}", line=first)


def _places(height: int, rows: np.ndarray) -> pl.Series:
    """For each of so many rows the place at which it stands in ``rows``; null where it does not."""
    at = np.full(height, -1, np.int64)
    at[rows] = np.arange(len(rows))
    return pl.Series(at).replace(-1, None)


# ── lists of images ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_lists(root: Path, found: _Found, problems: Problems) -> Reading:
    lists = {split: _only(f"{split} list", found.lists[split], root) for split in _MTL_LISTS if split in found.lists}
    tests = found.tests.get("mtl", [])
    for other in tests[1:]:
        problems.add("stands twice", other, f"{tests[0]} is used")
    read = [_list(path, split, problems) for split, path in lists.items()]
    rows = pl.concat([*(part for part, _ in read), *(_test_list(path, problems) for path in tests[:1])], how="diagonal")
    first = rows.select(pl.struct("clip", "frame").is_first_distinct()).to_series()
    detail = pl.format("{}/{}: the first is used, the validation list's before the others'", "clip", "name")
    problems.extend(rows.filter(~first), "row stands twice", detail)
    rows = rows.filter(first)

    images = _Images(root, found.images, problems)
    clips = rows["clip"].unique().sort()
    there = images.of(clips.to_list())
    there = there.select("frame", clip=clips.gather(there["clip"]), name_there="name")
    rows = rows.join(there, on=["clip", "frame"], how="left", maintain_order="left")
    folders = pl.Series([images.folder(clip) for clip in clips], dtype=pl.String)
    folder = pl.col("clip").replace_strict(clips, folders, return_dtype=pl.String)
    rows = rows.with_columns(subject=_RECORDING, sample=folder + "/" + pl.coalesce("name_there", "name"))
    rows = rows.with_columns(image=_where_known("name_there", root))
    for _, faults in read:
        _report(faults.join(rows.select("file", "line", "sample"), on=["file", "line"], how="left"), problems)
    files.missing_images(problems, rows, f"{root}/{_IMAGES}")
    return Reading(check(conform(rows.drop("file", "line", "name", "name_there"))), problems.frame())


def _list(path: Path, split: str, problems: Problems) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of a list: columns ``file``, ``line``, ``split``, ``clip``, ``frame``, ``name`` and labels; and what is wrong with these."""
    table = files.lines(path, problems)
    header = [cell.lower() for cell in files.header(table)]
    fields = mtl_fields(header)
    if fields is None:
        told = files.text(",".join(header))[:60]
        detail = f"'{told}' where {','.join(MTL_HEADER)} belongs; none of its {max(0, table.height - 1)} lines is used"
        problems.add("unknown header", path, detail, line=1)
        fields, table = MTL_FIELDS, table.clear()
    table = table.slice(1).filter(pl.col("text").str.strip_chars() != "")
    known, wrong = _parsed(table["text"].unique(), fields, AFF_WILD2)
    rows = table.join(known, on="text", how="left", maintain_order="left").with_columns(file=pl.lit(str(path)), split=pl.lit(split))
    faults = rows.select("file", "line", "text").join(wrong, on="text").drop("text")
    return _named(rows.drop("text"), problems), faults


def _test_list(path: Path, problems: Problems) -> pl.DataFrame:
    """The rows of a list without labels. It may have a header, and further cells, of which nothing is said."""
    image = pl.col("text").str.split(",").list.first().str.strip_chars(" \t\"'").str.replace_all("\\", "/", literal=True)
    rows = files.lines(path, problems).select("line", file=pl.lit(str(path)), split=pl.lit("test"), image=image)
    header = (pl.col("line") == 1) & ~pl.col("image").str.contains("/", literal=True)
    return _named(rows.filter((pl.col("image") != "") & ~header), problems)


def _named(rows: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    """Those rows whose ``image`` names a frame of a video, by ``clip``, ``frame`` and ``name``."""
    part = pl.col("image").str.extract
    named = rows.with_columns(clip=part(IMAGE, 1), name=part(IMAGE, 2), frame=part(IMAGE, 3).cast(pl.Int32))
    nameless = named.filter(pl.col("image").is_not_null() & pl.col("clip").is_null())
    problems.extend(nameless, "unreadable name", pl.format("'{}' names no frame of a video; the row is not used", "image"))
    return named.drop("image").filter(pl.col("clip").is_not_null())


def mtl_fields(header: Sequence[str]) -> tuple[str, ...] | None:
    """What the cells of a row are under a header in lower case, which may name the twelve action units or only say ``aus``."""
    aus = MTL_FIELDS[4:] if list(header[4:]) == ["aus"] else tuple(au_name(cell) if cell.startswith("au") else None for cell in header[4:])
    if tuple(header[:4]) != MTL_HEADER[:4] or not aus or None in aus or len(set(aus)) != len(aus):
        return None
    return (*MTL_HEADER[:4], *(au for au in aus if au))


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _parsed(texts: pl.Series, fields: Sequence[str], expressions: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Lines as labels.

    Args:
        texts: The lines, none twice.
        fields: What stands in each cell: ``valence``, ``arousal``, ``expression``, ``au1`` …, ``image``.
        expressions: Of the codes 0, 1 ….

    Returns:
        Columns ``text`` and the fields; and what is wrong: columns ``text``, ``kind`` and ``detail``, a row for each.
    """
    cut = pl.DataFrame({"text": texts}).with_columns(cells=pl.col("text").str.split(",")).with_columns(n=pl.col("cells").list.len())
    whole = pl.when(pl.col("n") == len(fields)).then("cells")
    rows = cut.select(
        "text", "n", *(whole.list.get(place, null_on_oob=True).str.strip_chars(" \t\"'").alias(name) for place, name in enumerate(fields))
    )
    detail = pl.format(f"{{}}, where {len(fields)} belong", "n")
    faults = [rows.filter(pl.col("n") != len(fields)).select("text", kind=pl.lit("wrong number of cells"), detail=detail)]
    values = [_value(name, expressions) for name in fields]
    for name in fields:
        if name != "image":
            value, (fits, mask, wanted) = files.numbers(name), _rule(name, expressions)
            unread = rows.filter(pl.col(name).is_not_null() & value.is_null())
            faults.append(unread.select("text", kind=pl.lit("unreadable label"), detail=pl.format(f"{name} '{{}}' is no number", name)))
            wrong = rows.filter(~fits & (value != mask))
            faults.append(wrong.select("text", kind=pl.lit("label out of range"), detail=pl.format(f"{name} {{}} is {wanted}", name)))
    return rows.select("text", *values), pl.concat(faults)


def _rule(name: str, expressions: Sequence[str]) -> tuple[pl.Expr, int, str]:
    """Which numbers are labels, which one says that there is none, and what any other is."""
    value = files.numbers(name)
    if name == "expression":
        last = len(expressions) - 1
        return value.is_between(0, last) & (value == value.floor()), -1, f"no code 0-{last}"
    if name.startswith("au"):
        return value.is_in([0.0, 1.0]), -1, "neither 0 nor 1"
    return value.is_between(-1, 1), -5, "outside -1..1"


def _value(name: str, expressions: Sequence[str]) -> pl.Expr:
    """A cell as a label, null where it is none."""
    if name == "image":
        return pl.col(name).str.replace_all("\\", "/", literal=True)
    label = pl.when(_rule(name, expressions)[0]).then(files.numbers(name))
    if name == "expression":
        names = pl.Series(expressions, dtype=pl.Enum(EXPRESSIONS))
        return pl.lit(names).gather(label.cast(pl.UInt32)).alias(name)
    if name.startswith("au"):
        return label.cast(pl.Float32).alias(name)
    other = {"valence": "arousal", "arousal": "valence"}[name]
    return pl.when((files.numbers(other) >= -1).fill_null(True)).then(label).alias(name)


def _report(faults: pl.DataFrame, problems: Problems) -> None:
    """Columns ``file``, ``line``, ``sample``, ``kind`` and ``detail``."""
    for (kind,), part in faults.sort("file", "line", maintain_order=True).group_by("kind", maintain_order=True):
        problems.extend(part, str(kind), pl.col("detail"))
