"""People filmed at length in the layout of DISFA."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from harness.errors import RequestError, did_you_mean
from harness.images import part_of
from tasks.datasets.vocabulary import DISFA_AUS
from tasks.synthetic.faces import AUS
from tasks.synthetic.world import ACTIVITIES, Footage, World
from tasks.synthetic.writing import Quirk, Written, at_least, new_folder, written

FOLDS = (
    ("SN002", "SN010", "SN001", "SN026", "SN027", "SN032", "SN030", "SN009", "SN016"),
    ("SN013", "SN018", "SN011", "SN028", "SN012", "SN006", "SN031", "SN021", "SN024"),
    ("SN003", "SN029", "SN023", "SN025", "SN008", "SN005", "SN007", "SN017", "SN004"),
)
"""The people of DISFA as the field deals them into three folds."""

_SHORT = "SN010"  # the one with a label fewer than the others


def write(
    root: str | Path,
    *,
    subjects: int = 9,
    frames: Sequence[int] = (110, 130),
    seed: int = 0,
    image: int = 112,
    images: str = "frames",
    quirks: bool = True,
) -> Written:
    """People in the layout of DISFA: ``ActionUnit_Labels/SN002/SN002_au1.txt …``, with ``SN002/0.png …`` or with videos of the left camera.

    Each is one clip, in which they do all that :data:`world.ACTIVITIES` has, one after another. They are named as the real ones,
    by turns from the three folds of the field, so that three people are enough for all of them.

    The quirks: of SN010 (or who comes last) the last frame has no label; one file of the first has its intensities as floats. Of
    extracted frames those of every second person are numbered from 1 (``LeftVideoSN013/00001.jpg …``); a video, the first one's, lacks its
    last frame.

    Args:
        root: A new or empty folder.
        subjects: Number of people, 1 … 27.
        frames: The least and the most frames of a person, 16 or more.
        seed: 0 or more. The same arguments write the same bytes.
        image: Height and width of the images.
        images: ``frames`` (extracted) or ``video``.
        quirks: False: frames numbered from 0 throughout, and nothing wrong.

    Raises:
        RequestError: ``root`` is not empty, or an argument is out of range.
    """
    low, high = (int(number) for number in frames)
    at_least(seed=(seed, 0), subjects=(subjects, 1), frames=(low, 16), image=(image, 16))
    if high < low or subjects > 27:
        remedy = "give the least and the most frames, and at most 27 people"
        raise RequestError(f"frames={[low, high]} and subjects={subjects}", remedy=remedy)
    if images not in ("frames", "video"):
        raise RequestError(f"DISFA has no images as {images!r}", remedy=did_you_mean(str(images), ("frames", "video")))
    lengths = np.random.default_rng([seed, 7]).integers(low, high + 1, subjects)
    tasks = len(ACTIVITIES)
    scenes = [len(part) for length in lengths for part in np.array_split(np.arange(length), tasks)]
    footage = World(seed, subjects).film(np.repeat(np.arange(subjects), tasks).tolist(), list(range(tasks)) * subjects, scenes)
    names = [name for turn in zip(*FOLDS, strict=True) for name in turn][:subjects]
    with new_folder(root) as partial, ThreadPoolExecutor() as pool:
        people = pool.map(lambda number: _person(partial, footage, names, number, image, images == "video", quirks), range(subjects))
        samples, planted = zip(*people, strict=True)
    return written(root, pl.concat(samples), [quirk for some in planted for quirk in some])


def _person(
    root: Path, footage: Footage, names: list[str], number: int, image: int, video: bool, quirks: bool
) -> tuple[pl.DataFrame, list[Quirk]]:
    name, rows = names[number], np.flatnonzero(footage.subject == number)
    pictures = footage.render(rows, image).images
    short = quirks and name == (_SHORT if _SHORT in names else names[-1])
    coded = footage.intensity[rows[: len(rows) - short]][:, [AUS.index(au) for au in DISFA_AUS]]
    planted: list[Quirk] = []
    folder = f"ActionUnit_Labels/{name}"
    (root / folder).mkdir(parents=True)
    for au, intensities in zip(DISFA_AUS, coded.T, strict=True):
        file = f"{folder}/{name}_au{au}.txt"
        as_floats = quirks and number == 0 and au == DISFA_AUS[-1]
        values = intensities.astype(float if as_floats else int).tolist()
        (root / file).write_text("".join(f"{frame},{value}\n" for frame, value in enumerate(values, start=1)))
        if as_floats:
            planted.append(("float labels", file, None))
    if short:
        planted.append(("one label line fewer", folder, None))
    if video:
        cut = quirks and number == 0 and not short
        film = f"Videos_LeftCamera/LeftVideo{name}_comp.avi"
        _film(root / film, pictures[: len(pictures) - cut])
        files = [part_of(film, frame) for frame in range(len(coded))]
        there = [*files[: len(coded) - cut], *([None] * cut)]
        if cut:
            planted.append(("one frame fewer", film, files[-1]))
    else:
        from_1 = quirks and number % 2 == 1
        shot = f"LeftVideo{name}/{{:05}}.jpg" if from_1 else f"{name}/{{}}.png"
        files = [shot.format(frame + from_1) for frame in range(len(rows))]
        (root / files[0]).parent.mkdir()
        for file, pixels in zip(files, pictures, strict=True):
            Image.fromarray(pixels).save(root / file, quality=90, compress_level=1)
        if quirks:
            planted.append((f"frames from {int(from_1)}", files[0], files[0]))
        files = files[: len(coded)]
        there = [*files]
    labels = {f"au{au}_intensity": pl.Series(intensities) for au, intensities in zip(DISFA_AUS, coded.T, strict=True)}
    facts = {"sample": files, "image": pl.Series(there, dtype=pl.String), "frame": range(1, len(coded) + 1)}
    return pl.DataFrame(facts | labels).with_columns(clip=pl.lit(name), subject=pl.lit(name)), planted


def _film(path: Path, pictures: np.ndarray) -> None:
    """An AVI of 20 frames a second, each a JPEG."""
    import av

    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream("mjpeg", rate=20, options={"qmin": "2", "qmax": "2", "flags": "+bitexact", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], "yuvj420p"
        for pixels in pictures:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))
