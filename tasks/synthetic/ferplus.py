"""Faces in the layouts of FERPlus: pixels in a csv, or files, and ten votes each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from harness.errors import RequestError, did_you_mean
from harness.samples import EXPRESSIONS
from tasks.datasets.vocabulary import ANSWER_NAMES, EXPRESSION_NAMES, FER2013
from tasks.synthetic.world import World
from tasks.synthetic.writing import Quirk, Written, at_least, new_folder, written

LAYOUTS = ("csv", "images")

COUNTS = (9365, 7410, 3403, 3378, 648, 175, 2399, 162)
"""Images of the real training part by what most raters chose, neutral … contempt."""

ANSWERS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
"""What a rater may say, in the order of the file."""

_RATERS = 10
_NOT_A_FACE = (0, 0, 0, 0, 0, 0, 0, 0, 0, 10)
_SPLITS = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
_FOLDERS = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}


@dataclass
class _Face:
    """A row of both files, as it stands on disk."""

    usage: str
    name: str
    label: int
    votes: tuple[int, ...]
    pixels: np.ndarray


def write(
    root: str | Path,
    *,
    layout: str = "csv",
    train: int = 1600,
    validation: int = 200,
    test: int = 200,
    seed: int = 0,
    image: int = 48,
    quirks: bool = True,
) -> Written:
    """Grey faces in a layout of FERPlus, each of another person, as unbalanced as the real ones.

    A rater chooses as the world's raters do, sometimes just anything, and rarely says "unknown" or "not a face".

    The quirks, in the training part: three rows for no face without an image's name, of which every second takes no number, so that
    the numbers in the names fall behind the rows; a row for no face that has a name; one that most found unknown; a tie of two
    expressions and one of an expression with "unknown"; a row of nine votes; pixels in quotes; and where images are files,
    one that is missing.

    Args:
        root: A new or empty folder.
        layout: ``csv`` (fer2013.csv and fer2013new.csv) or ``images`` (fer2013new.csv, and files with a label.csv beside them).
        train: Number of rows, 20 or more.
        validation: Number of rows of the public test, 1 or more.
        test: Number of rows of the private test, 1 or more.
        seed: 0 or more. The same arguments write the same bytes.
        image: Height and width of the images.
        quirks: False: nothing wrong.

    Raises:
        RequestError: ``root`` is not empty, there is no such layout, or a number is too small.
    """
    if layout not in LAYOUTS:
        raise RequestError(f"FERPlus has no layout {layout!r}", remedy=did_you_mean(str(layout), LAYOUTS))
    at_least(seed=(seed, 0), train=(train, 20), validation=(validation, 1), test=(test, 1), image=(image, 16))
    faces = _faces(dict(zip(_SPLITS, (train, validation, test), strict=True)), seed, image)
    planted = _quirks(faces) if quirks else []
    if layout == "csv" and quirks:
        planted.append(("quoted pixels", "fer2013.csv", None))
    with new_folder(root) as partial:
        rows = [f"{face.usage},{face.name},{','.join(map(str, face.votes))}" for face in faces]
        (partial / "fer2013new.csv").write_text("\n".join([f"Usage,Image name,{','.join(ANSWERS)}", *rows]) + "\n")
        images = _as_csv(partial, faces, quirks) if layout == "csv" else _as_files(partial, faces)
        if layout == "images" and quirks:
            missing = faces[19].name
            (partial / images[missing]).unlink()
            planted.append(("missing image", images.pop(missing), missing))
    named = [face for face in faces if face.name]
    votes = {ANSWER_NAMES[answer.lower()]: [face.votes[place] for face in named] for place, answer in enumerate(ANSWERS)}
    samples = pl.DataFrame(
        {
            "sample": [face.name for face in named],
            "image": pl.Series([images.get(face.name) for face in named], dtype=pl.String),
            "clip": [face.name for face in named],
            "frame": 0,
            "split": [_SPLITS[face.usage] for face in named],
            "expression": pl.Series([_chosen(face.votes) for face in named], dtype=pl.String),
            **{f"votes_{name}": counts for name, counts in votes.items()},
        }
    )
    return written(root, samples, planted)


def _faces(counts: dict[str, int], seed: int, image: int) -> list[_Face]:
    total = sum(counts.values())
    rng = np.random.default_rng([seed, 10])
    world = World(seed, total)
    footage = world.stills(rng.choice(len(COUNTS), total, p=np.array(COUNTS) / sum(COUNTS)))
    opinions = world.opinions(footage)
    divided = np.sqrt(opinions) / np.sqrt(opinions).sum(1, keepdims=True)  # a crowd is less of one mind than one careful rater
    chances = np.column_stack([0.9 * divided + 0.05 / 8, np.full(total, 0.045), np.full(total, 0.005)])
    place = [EXPRESSIONS.index(EXPRESSION_NAMES[answer]) for answer in ANSWERS[:8]]
    votes = rng.multinomial(_RATERS, chances)[:, [*place, 8, 9]]
    codes = [EXPRESSIONS.index(name) for name in FER2013]
    labels = opinions[:, codes].argmax(1)

    def some(rows: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(Image.fromarray(pixels).convert("L")) for pixels in footage.render(rows, image).images]

    with ThreadPoolExecutor() as pool:
        drawn = [pixels for part in pool.map(some, np.array_split(np.arange(total), -(-total // 64))) for pixels in part]
    usages = [usage for usage, count in counts.items() for _ in range(count)]
    return [_Face(usage, f"fer{row:07}.png", int(labels[row]), tuple(votes[row].tolist()), drawn[row]) for row, usage in enumerate(usages)]


def _quirks(faces: list[_Face]) -> list[Quirk]:
    """Changes some rows of the training part, and the numbers in all names."""
    planted: list[Quirk] = []
    blank = (3, 7, 12)
    for face in (faces[row] for row in blank):
        face.name, face.votes, face.pixels = "", _NOT_A_FACE, np.zeros_like(face.pixels)
        planted.append(("no image name", "fer2013new.csv", None))
    number = 0
    for row, face in enumerate(faces):
        if face.name:
            face.name = f"fer{number:07}.png"
        number += row not in blank[1::2]
    planted.append(("offset numbers", "fer2013new.csv", faces[-1].name))
    votes = {
        "named NF row": _NOT_A_FACE,
        "unknown row": (2, 0, 0, 1, 0, 0, 0, 0, 7, 0),
        "tie": (5, 0, 0, 5, 0, 0, 0, 0, 0, 0),
        "tie with unknown": (4, 1, 0, 0, 0, 0, 0, 1, 4, 0),
        "nine votes": (0, 0, 6, 0, 1, 0, 2, 0, 0, 0),
    }
    for face, (quirk, answer) in zip(faces[14:], votes.items(), strict=False):
        face.votes = answer
        planted.append((quirk, "fer2013new.csv", face.name))
    return planted


def _as_csv(root: Path, faces: list[_Face], quoted: bool) -> dict[str, str]:
    quote = '"' if quoted else ""
    rows = [f"{face.label},{quote}{' '.join(map(str, face.pixels.ravel().tolist()))}{quote},{face.usage}" for face in faces]
    (root / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")
    return {face.name: f"fer2013.csv::{line}" for line, face in enumerate(faces, 2) if face.name}


def _as_files(root: Path, faces: list[_Face]) -> dict[str, str]:
    images: dict[str, str] = {}
    for usage, folder in _FOLDERS.items():
        (root / "data" / folder).mkdir(parents=True)
        named = [face for face in faces if face.usage == usage and face.name]
        for face in named:
            images[face.name] = f"data/{folder}/{face.name}"
            Image.fromarray(face.pixels).save(root / images[face.name], compress_level=1)
        side = f'"(0, 0, {faces[0].pixels.shape[1]}, {faces[0].pixels.shape[0]})"'
        rows = [f"{face.name},{side},{','.join(map(str, face.votes))}" for face in named]
        (root / "data" / folder / "label.csv").write_text("\n".join(rows) + "\n")
    return images


def _chosen(votes: tuple[int, ...]) -> str | None:
    """What more raters said than anything else, where it is an expression."""
    first, second = sorted(range(len(votes)), key=lambda place: -votes[place])[:2]
    return EXPRESSION_NAMES.get(ANSWERS[first]) if votes[first] > votes[second] else None
