"""Clips in the layout of AFEW-VA."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from harness.errors import RequestError
from harness.samples import as_landmarks
from tasks.synthetic.world import Footage, World
from tasks.synthetic.writing import Quirk, Written, at_least, new_folder, written

_FIRST = ("Ada", "Ben", "Cleo", "Dario", "Elif", "Femi", "Greta", "Hugo", "Ines", "Jun", "Kofi", "Lena", "Mina", "Nils", "Oya", "Pavel")
_LAST = ("Aydin", "Brandt", "Costa", "Dubois", "Eriksen", "Fofana", "Garcia", "Hayashi", "Ivanova", "Jansen", "Kumar", "Lindqvist")


def write(
    root: str | Path,
    *,
    subjects: int = 16,
    clips: int = 32,
    frames: Sequence[int] = (30, 60),
    seed: int = 0,
    image: int = 128,
    quirks: bool = True,
) -> Written:
    """Clips in the layout of AFEW-VA: ``01/001/00000.png … 01/001/001.json``, labels -10..10.

    The quirks: even clips lie flattened (``002/002.json``); the labels of every third are written as floats; the second clip of
    one actor spells the name with other case and blanks; of clip 001 the last PNG is missing, frame 1 is a JPEG, a cropped
    leftover lies among its frames and ``001_cropped`` beside it.

    Args:
        root: A new or empty folder.
        subjects: Number of actors; with fewer clips than that only so many appear.
        clips: 1 … 999.
        frames: The least and the most frames of a clip.
        seed: 0 or more. The same arguments write the same bytes.
        image: Height and width of the images.
        quirks: False: the first layout throughout, and nothing wrong.

    Raises:
        RequestError: ``root`` is not empty, or a number is out of range.
    """
    low, high = (int(number) for number in frames)
    at_least(seed=(seed, 0), subjects=(subjects, 1), clips=(clips, 1), frames=(low, 3), image=(image, 16))
    if high < low or clips > 999:
        raise RequestError(f"frames={[low, high]} and clips={clips}", remedy="give the least and the most frames, and at most 999 clips")
    footage = World(seed, subjects).clips(clips, (low, high))
    with new_folder(root) as partial, ThreadPoolExecutor() as pool:
        samples = pl.concat(pool.map(lambda number: _clip(partial, footage, number, image), range(clips)))
        samples, planted = _quirks(partial, samples) if quirks else (samples, [])
    return written(root, samples, planted)


def _clip(root: Path, footage: Footage, number: int, image: int) -> pl.DataFrame:
    rows = np.flatnonzero(footage.clip == number)
    subject, name = int(footage.subject[rows[0]]), f"{number + 1:03}"
    actor = f"{_FIRST[subject % 16]} {_LAST[subject // 16 % 12]}" + (f" {subject // 192 + 1}" if subject >= 192 else "")
    folder = root / f"{number // 50 + 1:02}" / name
    folder.mkdir(parents=True)
    drawn = footage.render(rows, image)
    for frame, pixels in zip(footage.frame[rows], drawn.images, strict=True):
        Image.fromarray(pixels).save(folder / f"{frame:05}.png", compress_level=1)
    jitter = np.random.default_rng([footage.seed, 3, number]).normal(0, 0.3, drawn.landmarks.shape)  # no tracker is exact
    landmarks = np.round(drawn.landmarks + jitter, 1)
    valence, arousal = (np.rint(10 * label[rows]).astype(int) for label in (footage.valence, footage.arousal))
    labels = zip(footage.frame[rows], arousal.tolist(), landmarks.tolist(), valence.tolist(), strict=True)
    content = {
        "actor": actor,
        "frames": {f"{frame:05}": {"arousal": a, "landmarks": points, "valence": v} for frame, a, points, v in labels},
        "video_id": name,
    }
    (folder / f"{name}.json").write_text(json.dumps(content))
    return pl.DataFrame(
        {
            "sample": [f"{folder.relative_to(root).as_posix()}/{frame:05}.png" for frame in footage.frame[rows]],
            "landmarks": as_landmarks(landmarks, np.ones(len(rows), bool)),
            "clip": name,
            "frame": footage.frame[rows],
            "subject": actor.casefold(),
            "valence": valence / 10,
            "arousal": arousal / 10,
        }
    )


def _quirks(root: Path, samples: pl.DataFrame) -> tuple[pl.DataFrame, list[Quirk]]:
    """Spoils what was written, and says what that makes of the samples."""
    planted: list[Quirk] = []
    folders = {path.stem: path.parent for path in sorted(root.glob("*/*/*.json"))}

    def edit(clip: str, quirk: str, change: Callable[[dict[str, Any]], None]) -> None:
        file = folders[clip] / f"{clip}.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))
        planted.append((quirk, file.relative_to(root).as_posix(), None))

    def to_floats(content: dict[str, Any]) -> None:
        for labels in content["frames"].values():
            labels.update(valence=float(labels["valence"]), arousal=float(labels["arousal"]))

    for clip in list(folders)[2::3]:
        edit(clip, "float labels", to_floats)
    actors = samples.group_by("clip").agg(pl.col("subject").first()).sort("clip")
    for clip in actors.filter(~pl.col("subject").is_first_distinct())["clip"].head(1):
        edit(clip, "other spelling", lambda content: content.update(actor=f" {content['actor'].upper().replace(' ', '  ')} "))

    for clip in list(folders)[1::2]:
        shutil.move(folders[clip], root / clip)
        planted.append(("flattened", f"{clip}/{clip}.json", None))
    flat = pl.col("sample").str.replace(r"^\d\d/(\d{3}/)", "$1")
    samples = samples.with_columns(pl.when(pl.col("clip").is_in(list(folders)[1::2])).then(flat).otherwise("sample").alias("sample"))

    folder = folders["001"]
    missing = samples.filter(pl.col("clip") == "001")["sample"][-1]
    (root / missing).unlink()
    planted.append(("missing image", missing, missing))
    with Image.open(folder / "00001.png") as picture:
        picture.save(folder / "00001.jpg", quality=95)
    (folder / "00001.png").unlink()
    planted.append(("jpeg", "01/001/00001.jpg", "01/001/00001.jpg"))
    for leftover in (folder / "00000_cropped.png", folder.with_name("001_cropped") / "00000.png"):
        leftover.parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / "00000.png", leftover)
        planted.append(("cropped leftover", leftover.relative_to(root).as_posix(), None))
    samples = samples.with_columns(pl.col("sample").replace("01/001/00001.png", "01/001/00001.jpg"))
    return samples.with_columns(image=pl.when(pl.col("sample") != missing).then("sample")), planted
