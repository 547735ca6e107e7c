"""People who pose and feel expressions in the layout of DISFA+."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from harness.errors import RequestError
from tasks.datasets.vocabulary import DISFA_AUS
from tasks.synthetic.faces import AUS
from tasks.synthetic.world import Footage, World
from tasks.synthetic.writing import Quirk, Written, at_least, new_folder, written

SUBJECTS = ("SN001", "SN013", "SN003", "SN009", "SN004", "SN010", "SN007", "SN027", "SN025")
"""The people of DISFA+, by turns from the folds that they have in DISFA as long as there are any."""

TRIALS: dict[str, int] = {
    "A1_AU1_TrailNo_1": 2,
    "Y_HappyDescribed_TrailNo_1": 0,
    "A3_AU1_2_TrailNo_2": 2,
    "Y_SadDescribed_TrailNo_1": 1,
    "A5_AU1_4b_TrailNo_1": 4,
    "Y_DisgustDescribed_TrailNo_1": 7,
    "A1_AU1_TrailNo_2": 2,
    "Y_AngerDescribed_TrailNo_1": 6,
    "Y_FearDescribed_TrailNo_1": 4,
    "Y_ContemptDescribed_TrailNo_1": 3,
}
"""Trial → what of :data:`world.ACTIVITIES` comes closest to it. Only some of the real names are known."""


def write(
    root: str | Path,
    *,
    subjects: int = 9,
    trials: int = 8,
    frames: Sequence[int] = (12, 18),
    seed: int = 0,
    image: int = 112,
    quirks: bool = True,
) -> Written:
    """Trials in the layout of DISFA+: ``Labels/SN001/A1_AU1_TrailNo_1/AU1.txt …`` and ``Images/SN001/A1_AU1_TrailNo_1/000.jpg …``.

    The quirks: all labels of the second person lie in a folder more (``Labels/SN013/SN013/…``); of the first trial of each the file of one
    action unit is absent; the others of that trial begin with a header, a line with ``#`` and a blank one, and have runs of
    different blanks between image and intensity.

    Args:
        root: A new or empty folder.
        subjects: Number of people, 1 … 9.
        trials: Of each of them, 1 … 10.
        frames: The least and the most frames of a trial.
        seed: 0 or more. The same arguments write the same bytes.
        image: Height and width of the images.
        quirks: False: nothing wrong.

    Raises:
        RequestError: ``root`` is not empty, or a number is out of range.
    """
    low, high = (int(number) for number in frames)
    at_least(seed=(seed, 0), subjects=(subjects, 1), trials=(trials, 1), frames=(low, 1), image=(image, 16))
    if high < low or subjects > len(SUBJECTS) or trials > len(TRIALS):
        remedy = f"give the least and the most frames, at most {len(SUBJECTS)} people and {len(TRIALS)} trials"
        raise RequestError(f"frames={[low, high]}, subjects={subjects} and trials={trials}", remedy=remedy)
    clips = subjects * trials
    lengths = np.random.default_rng([seed, 7]).integers(low, high + 1, clips)
    names = list(TRIALS)[:trials]
    activities = [TRIALS[name] for name in names] * subjects
    footage = World(seed, subjects).film(np.repeat(np.arange(subjects), trials).tolist(), activities, lengths.tolist())
    with new_folder(root) as partial, ThreadPoolExecutor() as pool:
        first = range(0, clips, trials)  # of each person
        made = pool.map(lambda clip: _trial(partial, footage, clip, names[clip % trials], image, quirks and clip in first), range(clips))
        samples, planted = zip(*made, strict=True)
        everything = [quirk for some in planted for quirk in some]
        if quirks and subjects > 1:
            name = SUBJECTS[1]
            (partial / f"Labels/{name}").rename(partial / "Labels/once")
            (partial / f"Labels/{name}").mkdir()
            (partial / "Labels/once").rename(partial / f"Labels/{name}/{name}")
            everything = [(quirk, file.replace(f"/{name}/", f"/{name}/{name}/"), None) for quirk, file, _ in everything]
            everything.append(("doubled subject folder", f"Labels/{name}/{name}", None))
    return written(root, pl.concat(samples), everything)


def _trial(root: Path, footage: Footage, clip: int, trial: str, image: int, spoiled: bool) -> tuple[pl.DataFrame, list[Quirk]]:
    rows = np.flatnonzero(footage.clip == clip)
    subject = SUBJECTS[footage.subject[rows[0]]]
    labels, shots = root / "Labels" / subject / trial, root / "Images" / subject / trial
    labels.mkdir(parents=True)
    shots.mkdir(parents=True)
    files = [f"{number:03}.jpg" for number in range(len(rows))]
    for file, pixels in zip(files, footage.render(rows, image).images, strict=True):
        Image.fromarray(pixels).save(shots / file, quality=90)
    columns: dict[str, pl.Series] = {}
    absent = DISFA_AUS[clip % len(DISFA_AUS)] if spoiled else None
    planted: list[Quirk] = []
    for au in DISFA_AUS:
        coded = footage.intensity[rows, AUS.index(au)]
        columns[f"au{au}_intensity"] = pl.Series([None] * len(rows) if au == absent else coded, dtype=pl.Float32)
        notes = labels / f"AU{au}.txt"
        if au == absent:
            planted.append(("missing label file", notes.relative_to(root).as_posix(), None))
            continue
        gap = " " * (2 + au % 7) if spoiled else " " * 5
        lines = [f"{name}{gap}{intensity}" for name, intensity in zip(files, coded.tolist(), strict=True)]
        if spoiled:
            lines = [f"Image{gap}Intensity", f"# AU {au}", "", *lines]
            planted += [(quirk, notes.relative_to(root).as_posix(), None) for quirk in ("header line", "run of blanks")]
        notes.write_text("\n".join(lines) + "\n")
    facts = {"sample": [f"Images/{subject}/{trial}/{file}" for file in files], "frame": range(len(rows))}
    named = {"clip": f"{subject}/{trial}", "subject": subject, "activity": trial.rpartition("_TrailNo_")[0]}
    return pl.DataFrame(facts | columns).with_columns(pl.lit(text).alias(name) for name, text in named.items()), planted
