"""Clips as one's own data would lie on disk, with one csv of labels; and as GFT's might."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from harness.errors import RequestError
from harness.samples import EXPRESSIONS
from tasks.synthetic.faces import AUS
from tasks.synthetic.world import ACTIVITIES, LABORATORY_FOCUS, Footage, World
from tasks.synthetic.writing import Quirk, Written, at_least, new_folder, written

GFT_AUS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 15, 17, 23, 24)

_SYNONYMS = {
    "neutral": "Calm",
    "happy": "Joy",
    "sad": "Sadness",
    "surprise": "surprised",
    "fear": "FEARFUL",
    "disgust": "Disgusted",
    "anger": "Angry",
}
_QUOTED = 'watching "a sad film", alone'
_TWO_LINES = "being startled\nby a sudden sound"


def write(
    root: str | Path,
    *,
    subjects: int = 16,
    clips: int = 32,
    frames: Sequence[int] = (30, 60),
    seed: int = 0,
    image: int = 96,
    quirks: bool = True,
) -> Written:
    """Clips with one ``labels.csv`` that the csv reader understands without a map: who, what, when, valence, arousal, expression, AUs.

    The quirks: columns in another order than ours, and one of no use; of clip 001 the first frame has ``NULL`` for valence and an empty
    arousal, the second an expression by another name, the third nothing in ``AU12``; the activity of clip 002 is quoted, with a quote
    and a comma inside, and on one frame goes over two lines; the image of its last frame is missing; a row stands twice, and one is
    cut short.

    Args:
        root: A new or empty folder.
        subjects: Number of people.
        clips: Number of clips, 2 to 999.
        frames: The least and the most frames of a clip, 4 or more.
        seed: 0 or more. The same arguments write the same bytes.
        image: Height and width of the images.
        quirks: False: our columns in our order, and nothing wrong.

    Raises:
        RequestError: ``root`` is not empty, or a number is out of range.
    """
    low, high = _lengths(frames)
    at_least(seed=(seed, 0), subjects=(subjects, 1), clips=(clips, 2), image=(image, 16))
    if clips > 999:
        raise RequestError(f"clips={clips} is too many", remedy="give at most 999")
    footage = World(seed, subjects).clips(clips, (low, high), focus=LABORATORY_FOCUS)
    clip = [f"{number + 1:03}" for number in footage.clip]
    files = [f"images/{name}/{frame:05}.jpg" for name, frame in zip(clip, footage.frame, strict=True)]
    meant: dict[str, list[object]] = {
        "image": list(files),
        "subject": [f"p{number + 1:02}" for number in footage.subject],
        "clip": list(clip),
        "frame": footage.frame.tolist(),
        "activity": [list(ACTIVITIES)[place] for place in footage.activity],
        "valence": footage.valence.round(3).tolist(),
        "arousal": footage.arousal.round(3).tolist(),
        "expression": [EXPRESSIONS[place] for place in footage.expression],
        **{f"au{au}": footage.present(au).tolist() for au in AUS},
    }
    with new_folder(root) as partial:
        _draw(partial, footage, files, image)
        planted = _plant(partial, meant, footage) if quirks else []
        if not quirks:
            _write_csv(partial / "labels.csv", {_header(name): values for name, values in meant.items()})
    samples = pl.DataFrame({name: values for name, values in meant.items() if name != "image"}, strict=False)
    there = [None if quirk_file else file for file, quirk_file in zip(files, _absent(files, planted), strict=True)]
    return written(root, samples.with_columns(sample=pl.Series(files), image=pl.Series(there, dtype=pl.String)), planted)


def write_gft(
    root: str | Path,
    *,
    groups: int = 8,
    frames: Sequence[int] = (30, 60),
    seed: int = 0,
    image: int = 96,
    quirks: bool = True,
) -> Written:
    """Groups of three people, whose frames are called ``001A/1.jpg``, with action units in one csv.

    Nobody here has seen GFT's own files: this is what its name of a frame and its list of action units suggest, as
    ``configs/dataset/gft.yaml`` reads it. AU 11, which the drawn faces lack, is unknown (9) throughout.

    The quirks: a column ``99``; one action unit in twenty is unknown; an image is missing.

    Args:
        root: A new or empty folder.
        groups: 1 to 999.
        frames: The least and the most frames of a person, 4 or more.
        seed: 0 or more. The same arguments write the same bytes.
        image: Height and width of the images.
        quirks: False: nothing wrong.

    Returns:
        Samples whose ``subject`` is the group: people of one room belong together.

    Raises:
        RequestError: ``root`` is not empty, or a number is out of range.
    """
    low, high = _lengths(frames)
    at_least(seed=(seed, 0), groups=(groups, 1), image=(image, 16))
    if groups > 999:
        raise RequestError(f"groups={groups} is too many", remedy="give at most 999")
    footage = World(seed, 3 * groups).clips(3 * groups, (low, high))
    clip = [f"{number // 3 + 1:03}{'ABC'[number % 3]}" for number in footage.clip]
    files = [f"{name}/{frame + 1}.jpg" for name, frame in zip(clip, footage.frame, strict=True)]
    rng = np.random.default_rng([seed, 11])
    coded = {
        au: np.where(rng.random(len(files)) < (0.05 if quirks else 0), 9, footage.present(au)) if au in AUS else np.full(len(files), 9)
        for au in GFT_AUS
    }
    planted: list[Quirk] = []
    with new_folder(root) as partial:
        _draw(partial, footage, files, image)
        more: dict[str, Sequence[object]] = {"99": ["0"] * len(files)} if quirks else {}
        _write_csv(partial / "labels.csv", {"image": files, **{str(au): values.tolist() for au, values in coded.items()}, **more})
        if quirks:
            (partial / files[1]).unlink()
            planted = [
                ("column 99", "labels.csv", None),
                ("unknown action units", "labels.csv", None),
                ("missing image", files[1], files[1]),
            ]
    samples = pl.DataFrame(
        {
            "sample": files,
            "image": pl.Series(
                [None if absent else file for file, absent in zip(files, _absent(files, planted), strict=True)], dtype=pl.String
            ),
            "clip": clip,
            "frame": footage.frame + 1,
            "subject": [name[:3] for name in clip],
            **{f"au{au}": pl.Series(values).replace(9, None) for au, values in coded.items()},
        }
    )
    return written(root, samples, planted)


def _lengths(frames: Sequence[int]) -> tuple[int, int]:
    low, high = (int(number) for number in frames)
    at_least(frames=(low, 4))
    if high < low:
        raise RequestError(f"frames={[low, high]}", remedy="give the least and the most frames")
    return low, high


def _draw(root: Path, footage: Footage, files: list[str], image: int) -> None:
    def some(rows: np.ndarray) -> None:
        for row, pixels in zip(rows, footage.render(rows, image).images, strict=True):
            Image.fromarray(pixels).save(root / files[row], quality=90)

    for folder in {(root / file).parent for file in files}:
        folder.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(some, np.array_split(np.arange(len(files)), -(-len(files) // 64))))


def _absent(files: list[str], planted: list[Quirk]) -> list[bool]:
    gone = {file for quirk, file, _ in planted if quirk == "missing image"}
    return [file in gone for file in files]


def _header(name: str) -> str:
    return f"AU{int(name[2:]):02}" if name[:2] == "au" else name


def _write_csv(path: Path, columns: dict[str, Sequence[object]]) -> list[list[object]]:
    """Writes columns, and returns the rows."""
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([list(columns), *rows])
    return rows


def _plant(root: Path, meant: dict[str, list[object]], footage: Footage) -> list[Quirk]:
    """Writes the csv with its quirks, and changes what was meant where they change it."""
    second = np.flatnonzero(footage.clip == 1).tolist()
    meant["valence"][0] = meant["arousal"][0] = None
    meant["au12"][2] = None
    for row in second:
        meant["activity"][row] = _QUOTED
    meant["activity"][second[1]] = _TWO_LINES
    cells = {name: ["" if value is None else value for value in values] for name, values in meant.items()}
    cells["valence"][0] = "NULL"
    cells["expression"][1] = _SYNONYMS.get(str(cells["expression"][1]), "Contemptuous")
    order = [
        *sorted(name for name in cells if name[:2] == "au"),
        "expression",
        "frame",
        "activity",
        "arousal",
        "image",
        "subject",
        "valence",
        "clip",
    ]
    columns: dict[str, Sequence[object]] = {_header(name).upper(): cells[name] for name in order}
    path = root / "labels.csv"
    rows = _write_csv(path, columns | {"REMARK": [""] * len(footage)})
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([[*rows[3]], rows[3][:5]])
    images = [str(file) for file in meant["image"]]
    missing = images[second[-1]]
    (root / missing).unlink()
    return [
        ("other order of columns", "labels.csv", None),
        ("column of no use", "labels.csv", None),
        ("NULL and empty cells", "labels.csv", images[0]),
        ("synonym", "labels.csv", images[1]),
        ("empty action unit", "labels.csv", images[2]),
        ("quoted cells", "labels.csv", images[second[0]]),
        ("cell over two lines", "labels.csv", images[second[1]]),
        ("missing image", missing, missing),
        ("row twice", "labels.csv", images[3]),
        ("row cut short", "labels.csv", None),
    ]
