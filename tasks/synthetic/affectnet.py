"""Photographs in both layouts of AffectNet."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from harness.errors import RequestError, did_you_mean
from harness.samples import BOX, EXPRESSIONS, LANDMARKS
from tasks.synthetic.world import Footage, World
from tasks.synthetic.writing import Quirk, Written, at_least, new_folder, written

COUNTS = (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750)
"""Images of the real training part by expression, neutral … contempt."""

UNREADABLE = "103/29a31ebf1567693f4644c8ba3476ca9a72ee07fe67a5860d98707a0a.jpg"
"""The image of AffectNet that is empty in every copy."""


@dataclass
class _Photo:
    """An image of AffectNet and its labels as they stand on disk."""

    split: str
    file: str
    code: int
    valence: float | None
    arousal: float | None
    box: list[int] | None
    landmarks: np.ndarray | None


def write(
    root: str | Path,
    *,
    layout: str = "2015",
    train: int = 1200,
    validation: int = 400,
    seed: int = 0,
    image: int = 112,
    quirks: bool = True,
) -> Written:
    """Photographs in a layout of AffectNet, each of another person.

    The expressions of the training part are unbalanced as the square root of the real counts, those of the validation part balanced,
    before raters disagree.

    The quirks of 2015, one in the training part each unless said: two rows with the code 8 and valid labels, two with 9 and two with 10 and
    -2; ``NULL`` for landmarks, valence and arousal; a negative face width; the endings ``.JPG`` and ``.png``; :data:`UNREADABLE`,
    empty; a file that is listed and absent; an image cut short. Those of 2021: labels as numbers (one in three) among the usual
    text; the same ids in both parts; annotations without an image.

    Args:
        root: A new or empty folder.
        layout: ``2015`` (csv lists) or ``2021`` (npy files, faces of 224 pixels).
        train: Number of images, those of the quirks among them; 20 or more.
        validation: Number of images; 1 or more.
        seed: 0 or more. The same arguments write the same bytes.
        image: Height and width of what is drawn.
        quirks: False: nothing wrong.

    Raises:
        RequestError: ``root`` is not empty, there is no such layout, or a number is out of range.
    """
    writers = {"2015": _as_of_2015, "2021": _as_of_2021}
    if str(layout) not in writers:
        raise RequestError(f"AffectNet has no layout {layout!r}", remedy=did_you_mean(str(layout), writers))
    at_least(seed=(seed, 0), train=(train, 20), validation=(validation, 1), image=(image, 16))
    rng = np.random.default_rng([seed, 4])
    chances = np.sqrt(COUNTS)
    emotion = np.concatenate([rng.choice(8, train, p=chances / chances.sum()), np.arange(validation) % 8])
    footage = World(seed, len(emotion)).stills(emotion)
    with new_folder(root) as partial:
        photos, planted = writers[str(layout)](partial, footage, train, image, quirks)
        images = [photo.file if (partial / photo.file).exists() else None for photo in photos]
    samples = pl.DataFrame(
        {
            "sample": [photo.file for photo in photos],
            "image": images,
            "box": pl.Series([photo.box or None for photo in photos], dtype=BOX),
            "landmarks": pl.Series([None if p.landmarks is None else p.landmarks.tolist() for p in photos], dtype=LANDMARKS),
            "clip": [photo.file for photo in photos],
            "frame": 0,
            "split": [photo.split for photo in photos],
            "valence": [photo.valence for photo in photos],
            "arousal": [photo.arousal for photo in photos],
            "expression": [EXPRESSIONS[photo.code] if photo.code < 8 else None for photo in photos],
        }
    )
    return written(root, samples, planted)


def _photographs(root: Path, footage: Footage, train: int, image: int, files: list[str], size: int) -> list[_Photo]:
    """Draws and saves all photographs, enlarged to ``size``."""

    def some(rows: np.ndarray) -> list[_Photo]:
        drawn = footage.render(rows, image)
        for row, pixels in zip(rows, drawn.images, strict=True):
            Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(root / files[row], quality=90)
        points, boxes = (drawn.landmarks * (size / image)).round(2), (drawn.boxes * (size / image)).round().astype(int).tolist()
        valence, arousal = (label[rows].round(6).tolist() for label in (footage.valence, footage.arousal))
        splits, codes = np.where(rows < train, "train", "validation").tolist(), footage.expression[rows].tolist()
        return [_Photo(*facts) for facts in zip(splits, [files[row] for row in rows], codes, valence, arousal, boxes, points, strict=True)]

    for folder in {(root / file).parent for file in files}:
        folder.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        return [photo for part in pool.map(some, np.array_split(np.arange(len(files)), -(-len(files) // 64))) for photo in part]


_IMAGES = "Manually_Annotated/Manually_Annotated_Images"


def _as_of_2015(root: Path, footage: Footage, train: int, image: int, quirks: bool) -> tuple[list[_Photo], list[Quirk]]:
    stems = [hashlib.sha256(f"{footage.seed}/{row}".encode()).hexdigest()[:56] for row in range(len(footage))]
    files = [f"{_IMAGES}/{1 + int(stem[:4], 16) % 30}/{stem}.jpg" for stem in stems]
    photos = _photographs(root, footage, train, image, files, image)
    planted = _quirks(root, photos[:train]) if quirks else []
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    for split, name in {"train": "training.csv", "validation": "validation.csv"}.items():
        lines = [header, *(_row(photo) for photo in photos if photo.split == split)]
        (root / "Manually_Annotated" / name).write_text("\n".join(lines) + "\n")
    return photos, planted


def _row(photo: _Photo) -> str:
    x0, y0, x1, y1 = photo.box or (20, 20, 10, 10)  # of negative size
    landmarks = "NULL" if photo.landmarks is None else ";".join(f"{number:.2f}" for number in photo.landmarks.ravel())
    unrated = "-2" if photo.code in (9, 10) else "NULL"
    rated = [unrated if label is None else f"{label:.6f}" for label in (photo.valence, photo.arousal)]
    file = photo.file.removeprefix(f"{_IMAGES}/")
    return ",".join(str(cell) for cell in (file, x0, y0, x1 - x0, y1 - y0, landmarks, photo.code, *rated))


def _quirks(root: Path, photos: list[_Photo]) -> list[Quirk]:
    """Spoils the last of these photographs on disk, and says so in their labels."""
    planted: list[Quirk] = []
    fresh = iter(reversed(photos))

    def next_(quirk: str, **labels: Any) -> _Photo:
        photo = next(fresh)
        for name, value in labels.items():
            setattr(photo, name, value)
        planted.append((quirk, photo.file, photo.file))
        return photo

    def moved(quirk: str, name: Callable[[str], str]) -> Path:
        photo = next(fresh)
        file = name(photo.file)
        (root / file).parent.mkdir(exist_ok=True)
        (root / photo.file).rename(root / file)
        photo.file = file
        planted.append((quirk, file, file))
        return root / file

    for _ in range(2):
        next_("code 8", code=8)
        next_("code 9", code=9, valence=None, arousal=None)
        next_("code 10", code=10, valence=None, arousal=None)
    next_("NULL cells", landmarks=None, valence=None, arousal=None)
    next_("negative box", box=None)
    moved("ending .JPG", lambda file: file.replace(".jpg", ".JPG"))
    picture = moved("ending .png", lambda file: file.replace(".jpg", ".png"))
    Image.open(io.BytesIO(picture.read_bytes())).save(picture)
    moved("unreadable image", lambda _: f"{_IMAGES}/{UNREADABLE}").write_bytes(b"")
    (root / next_("missing image").file).unlink()
    cut = root / next_("unreadable image").file
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    return planted


def _as_of_2021(root: Path, footage: Footage, train: int, image: int, quirks: bool) -> tuple[list[_Photo], list[Quirk]]:
    steps = np.random.default_rng([footage.seed, 5]).integers(1, 4, len(footage))  # the real ids have gaps too
    ids = np.cumsum(steps)
    if quirks:
        ids[train:] -= ids[train] - ids[0]
    folders = ["train_set" if row < train else "val_set" for row in range(len(footage))]
    files = [f"{folder}/images/{number}.jpg" for folder, number in zip(folders, ids, strict=True)]
    photos = _photographs(root, footage, train, image, files, 224)
    for folder in set(folders):
        (root / folder / "annotations").mkdir()
    for row, photo in enumerate(photos):
        photo.box = None
        _annotate(root, photo, ids[row], as_text=not (quirks and row % 3 == 1))
    if not quirks:
        return photos, []
    shared = sorted(set(ids[:train]) & set(ids[train:]))[0]
    orphan = replace(photos[0], file=f"train_set/images/{ids[train - 1] + 1}.jpg")
    _annotate(root, orphan, ids[train - 1] + 1, as_text=True)
    return [*photos, orphan], [
        ("labels as numbers", f"train_set/annotations/{ids[1]}_exp.npy", photos[1].file),
        ("same id in both parts", f"val_set/images/{shared}.jpg", f"val_set/images/{shared}.jpg"),
        ("annotation without an image", f"train_set/annotations/{ids[train - 1] + 1}_exp.npy", orphan.file),
    ]


def _annotate(root: Path, photo: _Photo, number: int, *, as_text: bool) -> None:
    """The four files of an image: landmarks, and labels as 0-d arrays of text or of numbers."""
    notes = root / Path(photo.file).parents[1] / "annotations"
    for kind, value in {"exp": photo.code, "val": photo.valence, "aro": photo.arousal}.items():
        np.save(notes / f"{number}_{kind}.npy", np.array(str(value) if as_text else value), allow_pickle=False)
    assert photo.landmarks is not None
    np.save(notes / f"{number}_lnd.npy", photo.landmarks.astype(float).ravel(), allow_pickle=False)
