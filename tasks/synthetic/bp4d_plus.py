"""Sequences in the layout of BP4D+."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.images import part_of
from tasks.synthetic import au_coding
from tasks.synthetic.world import LABORATORY_FOCUS, Footage, World
from tasks.synthetic.writing import Quirk, Written, at_least, new_folder, written

TASKS = {"T1": 0, "T6": 3, "T7": 4, "T8": 5}
"""The tasks that are coded, and which activity of the world each of them is here."""

PEOPLE = [f"{sex}{number:03}" for number in range(1, 83) for sex, last in (("F", 82), ("M", 58)) if number <= last]
"""The names of the real ones, women and men in turn."""

_IMAGES = "2D+3D"
_UNSURE = 0.03  # share of cells that no coder could tell
_PHANTOM = "T11"
_BEYOND = 3  # labels after the last image


def write(
    root: str | Path,
    *,
    subjects: int = 8,
    frames: Sequence[int] = (18, 30),
    seed: int = 0,
    image: int = 112,
    images: str = "both",
    quirks: bool = True,
) -> Written:
    """Everybody at the four tasks that are coded. Frames count from 1, images from 0.

    The quirks: 9 in cells of both kinds; names of images with four digits instead of as many as there are for every other person; the
    first person has a few images of a task that nobody was given, ``T11``, and recordings of the body sorted as images are; the
    labels of the seventh task go on after its last image; the second person, if there is one, has images of a task that is not coded.

    Args:
        root: A new or empty folder.
        subjects: Number of people, at most 140.
        frames: The least and the most frames of a sequence.
        seed: 0 or more. The same arguments write the same bytes.
        image: Height and width of the images.
        images: ``zip`` (an archive a person), ``folder``, or ``both``: one, then the other, beginning with an archive.
        quirks: False: nothing is unknown, and nothing wrong.

    Returns:
        The samples as they are read without texts for the activities.

    Raises:
        RequestError: ``root`` is not empty, ``images`` is none of the three, or a number is out of range.
    """
    low, high = (int(number) for number in frames)
    at_least(seed=(seed, 0), subjects=(subjects, 1), frames=(low, _BEYOND + 2), image=(image, 16))
    if subjects > len(PEOPLE):
        raise RequestError(f"subjects={subjects}", remedy=f"give at most {len(PEOPLE)}")
    packed = {"zip": (True, True), "folder": (False, False), "both": (True, False)}
    if images not in packed:
        raise RequestError(f"images={images!r}", remedy=did_you_mean(str(images), packed))
    count = len(TASKS)
    lengths = au_coding.lengths(subjects * count, (low, high), seed)
    cast = [place // count for place in range(subjects * count)]
    footage = World(seed, subjects).film(cast, [*TASKS.values()] * subjects, lengths, focus=LABORATORY_FOCUS)
    with new_folder(root) as partial, ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda place: _person(partial, footage, place, image, packed[images][place % 2], quirks), range(subjects)))
    return written(root, pl.concat(samples for samples, _ in made), [quirk for _, planted in made for quirk in planted])


def _person(root: Path, footage: Footage, place: int, image: int, packed: bool, quirks: bool) -> tuple[pl.DataFrame, list[Quirk]]:
    """Writes all sequences of a person."""
    person = PEOPLE[place]
    digits = 4 if quirks and place % 2 == 0 else 1
    before = part_of(f"{_IMAGES}/{person}.zip", f"{person}/") if packed else f"{_IMAGES}/{person}/"
    tables: list[pl.DataFrame] = []
    planted: list[Quirk] = []
    drawn: dict[str, bytes] = {}  # by path below the person's folder
    for scene, task in enumerate(TASKS):
        clip, name = place * len(TASKS) + scene, f"{person}_{task}"
        rows = np.flatnonzero(footage.clip == clip)
        stems = [f"{task}/{number:0{digits}}.jpg" for number in range(len(rows))]
        there = len(rows) - (_BEYOND if quirks and place == 0 and task == "T7" else 0)
        drawn |= dict(zip(stems[:there], au_coding.jpegs(footage, rows, image), strict=False))
        rng = np.random.default_rng([footage.seed, 23, clip])
        occurrences, intensities = au_coding.codes(footage, rows, _UNSURE if quirks else 0, rng)
        numbers = 1 + np.arange(len(rows))
        au_coding.save(root, name, numbers, occurrences, intensities, au_coding.CODED)
        samples = pl.DataFrame(
            {
                "sample": [before + stem for stem in stems],
                "image": [before + stem if number < there else None for number, stem in enumerate(stems)],
                "clip": name,
                "frame": numbers,
                "subject": person,
                "activity": task,
            }
        )
        tables.append(samples.hstack(au_coding.labels(occurrences, intensities)))
        if quirks:
            planted.append(("unknown cells", f"AUCoding/AU_OCC/{name}.csv", None))
        planted += [("length mismatch", f"AUCoding/AU_OCC/{name}.csv", before + stem) for stem in stems[there:]]
    if quirks and place < 2:
        other = _PHANTOM if place == 0 else "T2"
        some = [content for path, content in drawn.items() if path.startswith("T1/")][:3]
        drawn |= {f"{other}/{number:0{digits}}.jpg": content for number, content in enumerate(some)}
        planted.append(("task without labels", before + other, None))
    if quirks and place == 0:
        body = root / "Physiology" / person / "T1" / "BP_mmHg.txt"
        body.parent.mkdir(parents=True)
        body.write_text("101.5\n101.6\n")
        planted.append(("recording of the body", body.relative_to(root).as_posix(), None))
    if quirks and digits == 4:
        planted.append(("4 digits", before, None))
    _save(root / _IMAGES / person, drawn, packed)
    return pl.concat(tables), planted


def _save(folder: Path, drawn: dict[str, bytes], packed: bool) -> None:
    if packed:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder.with_name(f"{folder.name}.zip"), "w") as archive:
            for path, content in drawn.items():
                archive.writestr(zipfile.ZipInfo(f"{folder.name}/{path}"), content)  # of a fixed date: the same bytes again
        return
    for path, content in drawn.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
