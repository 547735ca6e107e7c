"""Sequences in the layout of BP4D."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path

import numpy as np
import polars as pl

from harness.errors import RequestError
from tasks.synthetic import au_coding
from tasks.synthetic.world import ACTIVITIES, LABORATORY_FOCUS, Footage, World
from tasks.synthetic.writing import Quirk, Written, at_least, new_folder, written

FOLDS = (
    "F001 F002 F008 F009 F010 F016 F018 F023 M001 M004 M007 M008 M012 M014",
    "F003 F005 F011 F013 F020 F022 M002 M005 M010 M011 M013 M016 M017 M018",
    "F004 F006 F007 F012 F014 F015 F017 F019 F021 M003 M006 M009 M015",
)
"""The real people, in the three parts that are usually tested on in turn."""

_IMAGES = "Sequences(2D+3D)"
_UNSURE = 0.03  # share of cells that no coder could tell


def write(
    root: str | Path,
    *,
    subjects: int = 9,
    frames: Sequence[int] = (10, 18),
    seed: int = 0,
    image: int = 112,
    columns: int = 99,
    quirks: bool = True,
) -> Written:
    """Everybody at all eight tasks, each of which is an activity of the world.

    People have the names of the real ones, the first of each of :data:`FOLDS`, then the second, so that three of them fill three folds.
    The numbers of frames are those of a longer recording and begin anywhere.

    The quirks: names of images with three, with four or with as many digits as there are, from one sequence to the next; 9 in cells of
    both kinds; of the second sequence a whole action unit is 9, and its first and last image are not coded, nor are those of every
    fourth one after it; of the third the last two images are missing.

    Args:
        root: A new or empty folder.
        subjects: Number of people, at most 41.
        frames: The least and the most frames of a sequence.
        seed: 0 or more. The same arguments write the same bytes.
        image: Height and width of the images.
        columns: The last column of a file of occurrences; 39 or more.
        quirks: False: nothing is unknown, and nothing wrong.

    Returns:
        The samples as they are read without texts for the activities.

    Raises:
        RequestError: ``root`` is not empty, or a number is out of range.
    """
    low, high = (int(number) for number in frames)
    at_least(seed=(seed, 0), subjects=(subjects, 1), frames=(low, 5), image=(image, 16), columns=(columns, au_coding.CODED[-1]))
    people = [person for three in zip_longest(*map(str.split, FOLDS)) for person in three if person]
    if subjects > len(people) or columns > 99:
        raise RequestError(f"subjects={subjects} and columns={columns}", remedy=f"give at most {len(people)} subjects and 99 columns")
    tasks = len(ACTIVITIES)
    lengths = au_coding.lengths(subjects * tasks, (low, high), seed)
    cast = [place // tasks for place in range(subjects * tasks)]
    footage = World(seed, subjects).film(cast, list(range(tasks)) * subjects, lengths, focus=LABORATORY_FOCUS)
    with new_folder(root) as partial, ThreadPoolExecutor() as pool:
        made = list(
            pool.map(lambda clip: _sequence(partial, footage, clip, people[clip // tasks], image, columns, quirks), range(len(lengths)))
        )
    return written(root, pl.concat(samples for samples, _ in made), [quirk for _, planted in made for quirk in planted])


def _sequence(
    root: Path, footage: Footage, clip: int, person: str, image: int, columns: int, quirks: bool
) -> tuple[pl.DataFrame, list[Quirk]]:
    """Writes one sequence; ``clip`` is its number in the footage."""
    rng = np.random.default_rng([footage.seed, 22, clip])
    task = f"T{clip % len(ACTIVITIES) + 1}"
    name, folder = f"{person}_{task}", f"{_IMAGES}/{person}/{task}"
    digits = (1, 3, 4)[clip % 3] if quirks else 1
    rows = np.flatnonzero(footage.clip == clip)
    numbers = int(rng.integers(2, {1: 2400, 3: 90, 4: 900}[digits])) + np.arange(len(rows))
    files = [f"{folder}/{number:0{digits}}.jpg" for number in numbers.tolist()]
    coded = slice(1, -1) if quirks and clip % 4 == 1 else slice(None)
    absent = files[-2:] if quirks and clip == 2 else []

    (root / folder).mkdir(parents=True)
    for file, content in zip(files, au_coding.jpegs(footage, rows, image), strict=True):
        if file not in absent:
            (root / file).write_bytes(content)
    occurrences, intensities = au_coding.codes(footage, rows[coded], _UNSURE if quirks else 0, rng)
    if quirks and clip == 1:
        occurrences[24][:] = au_coding.UNKNOWN
    au_coding.save(root, name, numbers[coded], occurrences, intensities, range(1, columns + 1))

    samples = pl.DataFrame(
        {
            "sample": files[coded],
            "image": [None if file in absent else file for file in files[coded]],
            "clip": name,
            "frame": numbers[coded],
            "subject": person,
            "activity": task,
        }
    ).hstack(au_coding.labels(occurrences, intensities))
    if not quirks:
        return samples, []
    table = f"AUCoding/AU_OCC/{name}.csv"
    planted: list[Quirk] = [("unknown cells", table, None)]
    if digits > 1:
        planted.append((f"{digits} digits", folder, None))
    if coded != slice(None):
        planted.append(("images without labels", folder, None))
    if clip == 1:
        planted.append(("unknown action unit", table, None))
    return samples, [*planted, *(("missing image", table, file) for file in absent)]
