"""AFEW-VA: film clips labelled frame by frame with valence and arousal (Kossaifi et al. 2017).

Layout, of which both forms in circulation are read, side by side too::

    ROOT/01/001/00000.png …  ROOT/01/001/001.json      twelve archives
    ROOT/001/00000.png …     ROOT/001/001.json         flattened

A clip is any ``NNN/NNN.json``. It holds ``actor``, ``video_id`` and, under ``frames``, for each frame's stem ``valence`` and
``arousal`` (-10..10) and 68 ``landmarks``.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.errors import RequestError
from harness.samples import Problems, Reading, as_landmarks, check, conform
from tasks.datasets import files

_SUFFIXES = (".png", ".jpg", ".jpeg")  # in the order in which one of several is taken
_FAR = 1e5  # no landmark lies so many pixels away


def read(root: str | Path) -> Reading:
    """All clips under a folder.

    A subject is the actor's name, its blanks and case made uniform; a clip without one has none, and splits then keep the
    clip together instead. A label outside -10..10 is null.

    Args:
        root: The dataset's folder, or one above it.

    Returns:
        Samples sorted by clip and frame, and every problem met.

    Raises:
        RequestError: There is no such folder, or no clip in it.
    """
    root = files.folder(root, "AFEW-VA")
    problems = Problems()
    clips: dict[str, Path] = {}
    tables: list[pl.DataFrame] = []
    spellings: dict[str, str] = {}
    for folder, _, names in files.walk(root, problems, skip=r".*_cropped"):
        name = folder.name
        if not re.fullmatch("[0-9]{3}", name):
            continue
        if f"{name}.json" not in names:
            if any(map(_is_image, names)):
                problems.add("missing annotation", folder / f"{name}.json", "the folder holds images; they are not used")
        elif name in clips:
            problems.add("stands twice", folder / f"{name}.json", f"{clips[name]} is used")
        else:
            clips[name] = folder
            tables.append(_clip(root, folder, names, spellings, problems))
    if not clips:
        remedy = "AFEW-VA has a file NNN/NNN.json for each clip, 001/001.json say"
        raise RequestError(f"no clip in {str(root)!r}", where="task.root", remedy=remedy)
    rows = pl.concat(tables).sort("clip", "frame")
    files.missing_images(problems, rows, str(root))
    samples = rows.drop("file", "line").with_columns(image=files.as_paths(root, rows["image"]))
    return Reading(check(conform(samples)), problems.frame())


def _clip(root: Path, folder: Path, names: list[str], spellings: dict[str, str], problems: Problems) -> pl.DataFrame:
    """The samples of one clip, with the file and the line they stand in; none where its JSON cannot be read."""
    path = folder / f"{folder.name}.json"
    content, lines = _content(path, problems)
    if not content:
        return _table([], [], path, None)
    if content.get("video_id") not in (None, folder.name):
        detail = f"video_id {_shown(content['video_id'])} in folder {folder.name!r}; the folder's is used"
        problems.add("clip id differs", path, detail, line=lines.get("video_id"))
    images, before = _images(folder, names, problems), files.before(root, folder)
    rows: list[tuple[str, str | None, int, float | None, float | None, int | None]] = []
    points: list[np.ndarray | None] = []
    numbers: set[int] = set()
    for key, labels in sorted(content["frames"].items()):
        file, line = images.pop(key, None), lines.get(key)
        if not re.fullmatch("[0-9]{1,9}", key) or int(key) in numbers:
            problems.add("unreadable frame number", path, f"{_shown(key)} is no number, or one of another frame", line=line)
            continue
        numbers.add(int(key))
        sample = before + (file or f"{key}.png")
        given = labels if isinstance(labels, dict) else {}
        valence, arousal = (_label(given, name, path, line, sample, problems) for name in ("valence", "arousal"))
        points.append(_landmarks(given.get("landmarks")))
        if points[-1] is None:
            problems.add("unreadable landmarks", path, f"frame {key!r} has no 68 points", line=line, sample=sample)
        rows.append((sample, file and sample, int(key), valence, arousal, line))
    for file in images.values():
        problems.add("image without a label", folder / file, f"{path.name} has no such frame; the image is not used")
    return _table(rows, points, path, _subject(content.get("actor"), path, spellings, problems))


def _content(path: Path, problems: Problems) -> tuple[dict[str, Any], dict[str, int]]:
    """What a JSON file holds, with an object under ``frames``, and the line of each key; nothing where it cannot be read."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            problems.add("key stands twice", path, f"{_shown(next(key for key in keys if keys.count(key) > 1))}: the last one is used")
        return found

    kind, outcome = "unreadable file", "the clip is not used"
    try:
        written = path.read_bytes()
        text = written.decode("utf-8-sig", "replace")
        if text.count("\ufffd") > written.count("\ufffd".encode()):
            problems.add("unreadable text", path, "some bytes are no UTF-8; they are read as \ufffd")
        content = json.loads(text, object_pairs_hook=members)
    except json.JSONDecodeError as error:
        problems.add(kind, path, f"{error.msg}; {outcome}", line=error.lineno)
    except (OSError, ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        problems.add(kind, path, f"{type(error).__name__}: {_shown(str(error))}; {outcome}")
    else:
        if isinstance(content, dict) and isinstance(content.get("frames"), dict):
            return content, _lines(text)
        problems.add(kind, path, f"it has no object 'frames'; {outcome}")
    return {}, {}


def _lines(text: str) -> dict[str, int]:
    """Key → the line in which it first stands, from 1. A key with an escape in it is left out."""
    found: dict[str, int] = {}
    line, end = 1, 0
    for key in re.finditer(r'"([^"\\]*)"\s*:', text):
        line += text.count("\n", end, key.start())
        end = key.start()
        found.setdefault(key[1], line)
    return found


def _table(rows: Sequence[tuple[Any, ...]], points: list[np.ndarray | None], path: Path, subject: str | None) -> pl.DataFrame:
    schema = {"sample": pl.String, "image": pl.String, "frame": pl.Int32, "valence": pl.Float64, "arousal": pl.Float64, "line": pl.Int64}
    known = np.array([one is not None for one in points], dtype=bool)
    landmarks = np.array([one for one in points if one is not None], np.float32).reshape(-1, 68, 2)
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        as_landmarks(landmarks, known),
        pl.lit(path.stem).alias("clip"),
        pl.lit(subject, dtype=pl.String).alias("subject"),
        pl.lit(str(path)).alias("file"),
    )


def _images(folder: Path, names: list[str], problems: Problems) -> dict[str, str]:
    """Stem → file name."""
    images: dict[str, str] = {}
    for file in sorted(filter(_is_image, names), key=lambda file: _SUFFIXES.index(Path(file).suffix.lower())):
        if Path(file).stem in images:
            problems.add("stands twice", folder / file, f"{images[Path(file).stem]} is used")
        else:
            images[Path(file).stem] = file
    return images


def _is_image(file: str) -> bool:
    """Cropped leftovers are no images of the dataset."""
    return Path(file).suffix.lower() in _SUFFIXES and not Path(file).stem.endswith("_cropped")


def _label(given: dict[str, Any], name: str, path: Path, line: int | None, sample: str, problems: Problems) -> float | None:
    """-10..10 as -1..1; null, and said, where it is something else."""
    value = given.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        problems.add("unreadable label", path, f"{name} {_shown(value)} is no number", line=line, sample=sample)
        return None
    if not -10 <= value <= 10:
        problems.add("label out of range", path, f"{name} {_shown(value)} is outside -10..10", line=line, sample=sample)
        return None
    return value / 10


def _landmarks(value: Any) -> np.ndarray | None:
    """``(68, 2)`` float32."""
    try:
        points = np.asarray(value)
    except (ValueError, OverflowError, RecursionError):  # ragged, or too deep
        return None
    if points.shape != (68, 2) or points.dtype.kind not in "if" or not ((points > -_FAR) & (points < _FAR)).all():
        return None
    return points.astype(np.float32)


def _subject(actor: Any, path: Path, spellings: dict[str, str], problems: Problems) -> str | None:
    """One name for all spellings of one actor that differ in blanks, case or the code points of a letter."""
    spelled = files.text(actor) if isinstance(actor, str) else ""
    subject = " ".join(unicodedata.normalize("NFKC", spelled).casefold().split())
    if not subject:
        problems.add("missing actor", path, "the clip is grouped by itself")
        return None
    first = spellings.setdefault(subject, spelled)
    if first != spelled:
        problems.add("actor spelled in several ways", path, f"{spelled!r} and {first!r} are taken for one")
    return subject


def _shown(value: Any) -> str:
    """As text for a problem, however long or deep it is."""
    return files.text(reprlib.repr(value))
