"""A world of drawn people whose labels are known, and writers that lay it on disk as the real datasets are laid.

Everything follows from action units. A person has a resting face, an expressivity for each AU and a neutral valence and
arousal of their own, none of which can be told from one picture. In a clip emotions drift slowly and, on top, flare up for
3 to 9 frames; they move AUs by :data:`PROTOTYPES`. What the face then *shows* is read back from the AUs alone
(:func:`shown_emotions`): valence and arousal are that reading times :data:`CIRCUMPLEX`, plus the person's neutral and the noise
of a rater; the expression is drawn from its softmax. So the difference between two frames of one face is visible and labelled,
while the label of one face says little of another's.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from harness.errors import RequestError, did_you_mean
from harness.samples import BOX, EXPRESSIONS, LANDMARKS, conform
from tasks.datasets.faces import AUS, IDENTITY, NUISANCE, Rendering, draw, render

EMOTIONS = ("happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")

PROTOTYPES: dict[str, dict[int, float]] = {
    "happy": {6: 0.9, 12: 1.0, 25: 0.7},
    "sad": {1: 1.0, 4: 0.6, 15: 1.0, 17: 0.6},
    "surprise": {1: 0.9, 2: 1.0, 5: 0.8, 25: 0.9, 26: 0.9},
    "fear": {1: 0.9, 2: 0.5, 4: 0.7, 5: 1.0, 7: 0.4, 20: 1.0, 25: 0.6, 26: 0.2},
    "disgust": {4: 0.3, 7: 0.4, 9: 1.0, 10: 1.0, 17: 0.3},
    "anger": {4: 1.0, 5: 0.4, 7: 0.7, 23: 1.0, 24: 0.6},
    "contempt": {12: 0.7, 14: 1.0},  # on one side of the face
}
"""AUs of a full emotion, after EMFACS (Friesen & Ekman 1983)."""

SPEECH: dict[int, float] = {25: 0.6, 26: 0.35}
"""AUs of an opening mouth. It means nothing: a method that takes every open mouth for surprise is wrong."""

CIRCUMPLEX: dict[str, tuple[float, float]] = {
    "happy": (0.80, 0.35),
    "sad": (-0.65, -0.50),
    "surprise": (0.15, 0.80),
    "fear": (-0.55, 0.75),
    "disgust": (-0.65, 0.30),
    "anger": (-0.55, 0.65),
    "contempt": (-0.40, -0.15),
}
"""Valence and arousal of a full emotion, about where Russell (1980) places them."""

ACTIVITIES: dict[str, dict[str, float]] = {
    "talking with the experimenter and hearing a joke": {"happy": 1.0},
    "watching a sad film": {"sad": 1.0},
    "being startled by a sudden sound": {"surprise": 0.8, "fear": 0.2},
    "improvising a silly song": {"happy": 0.6, "contempt": 0.4},
    "expecting a physical threat": {"fear": 0.8, "surprise": 0.2},
    "holding a hand in ice water": {"disgust": 0.4, "anger": 0.3, "sad": 0.3},
    "being insulted": {"anger": 0.7, "contempt": 0.3},
    "smelling something unpleasant": {"disgust": 1.0},
}
"""What a person may be doing, after the eight tasks of BP4D, and the emotions that it calls up."""

_NEUTRAL = 0.3  # a reading below this is a neutral face
_SHARPNESS = 12.0  # of a rater's choice between expressions


def shown_emotions(aus: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """How much of each emotion a face shows.

    The least-squares solution of ``aus - rest = emotions @ PROTOTYPES + speech @ SPEECH``: linear in the AUs, exact where no AU
    is at its limit, and blind to an opening mouth.

    Args:
        aus: ``(n, 17)``, 0..1, columns :data:`faces.AUS`.
        rest: ``(n, 17)``, those of the same faces at rest.

    Returns:
        ``(n, 7)``, about 0..1, columns :data:`EMOTIONS`.
    """
    inverse: np.ndarray = np.linalg.pinv(_prototypes())
    return np.asarray((aus - rest) @ inverse)[:, : len(EMOTIONS)]


@cache
def _prototypes() -> np.ndarray:
    """``(8, 17)``: the emotions, then speech."""
    return np.array([[units.get(au, 0.0) for au in AUS] for units in (*PROTOTYPES.values(), SPEECH)])


@dataclass(frozen=True)
class Footage:
    """Frames of the world, by row; nothing is drawn yet.

    Attributes:
        clip, frame, subject: ``(n,)`` int.
        activity: ``(n,)`` int, a place in :data:`ACTIVITIES`.
        aus: ``(n, 17)`` float32 in 0..1, columns :data:`faces.AUS`.
        valence, arousal: ``(n,)`` in -1..1, as a rater gave them.
        expression: ``(n,)`` int, a place in ``samples.EXPRESSIONS``.
        side: ``(n,)`` in -1..1, see ``faces.render``.
        identity: Parameters of the subjects by name, see ``faces.IDENTITY``.
        nuisance: Parameters of the frames by name, see ``faces.NUISANCE``.
        seed: Of the world.
    """

    clip: np.ndarray
    frame: np.ndarray
    subject: np.ndarray
    activity: np.ndarray
    aus: np.ndarray
    valence: np.ndarray
    arousal: np.ndarray
    expression: np.ndarray
    side: np.ndarray
    identity: dict[str, np.ndarray]
    nuisance: dict[str, np.ndarray]
    seed: int

    def __len__(self) -> int:
        return len(self.clip)

    def render(self, rows: np.ndarray, size: int) -> Rendering:
        """Draws some frames; the same rows always give the same pixels."""
        people = {name: values[self.subject[rows]] for name, values in self.identity.items()}
        nuisance = {name: values[rows] for name, values in self.nuisance.items()}
        seed = np.random.SeedSequence([self.seed, *rows[:1].tolist()])
        return render(people, nuisance, self.aus[rows], self.side[rows], size=size, seed=seed)


class World:
    """People, and what befalls them. The same seed is the same world.

    Args:
        seed: 0 or more.
        subjects: How many people live in it.
    """

    def __init__(self, seed: int, subjects: int) -> None:
        self.seed, self.subjects = seed, subjects
        rng = np.random.default_rng([seed, 0])
        self.identity = draw(IDENTITY, subjects, rng)
        units = (subjects, len(AUS))
        self.rest = np.where(rng.random(units) < 0.3, rng.uniform(0, 0.3, units), 0)
        self.rest[:, [AUS.index(25), AUS.index(26)]] *= 0.3  # nobody's mouth stands open at rest
        self.gain = rng.uniform(0.7, 1.1, (subjects, 1)) * rng.uniform(0.85, 1.15, units)
        self.neutral = rng.normal(0, 0.13, (subjects, 2))
        self.side = rng.choice([-1.0, 1.0], subjects)

    def clips(self, n: int, frames: tuple[int, int]) -> Footage:
        """Filmed clips, dealt out evenly among the subjects.

        Args:
            n: Number of clips.
            frames: The least and the most frames of a clip.
        """
        rng = np.random.default_rng([self.seed, 1])
        lengths = rng.integers(frames[0], frames[1] + 1, n)
        subject = np.concatenate([rng.permutation(self.subjects) for _ in range(-(-n // self.subjects))])[:n]
        activity = np.concatenate([rng.permutation(len(ACTIVITIES)) for _ in range(-(-n // len(ACTIVITIES)))])[:n]
        scenes = [_scene(int(length), int(what), rng) for length, what in zip(lengths, activity, strict=True)]
        emotions, speech, noise, nuisance = (np.concatenate([scene[part] for scene in scenes]) for part in range(4))
        return self._footage(
            clip=np.repeat(np.arange(n), lengths),
            frame=np.concatenate([np.arange(length) for length in lengths]),
            subject=np.repeat(subject, lengths),
            activity=np.repeat(activity, lengths),
            emotions=emotions,
            speech=speech,
            noise=noise,
            nuisance=dict(zip(NUISANCE, nuisance.T.astype(np.float32), strict=True)),
            rng=rng,
        )

    def stills(self, emotion: np.ndarray) -> Footage:
        """Photographs, each of the next subject, at the height of an emotion.

        Args:
            emotion: ``(n,)`` int, a place in ``samples.EXPRESSIONS`` up to contempt; what a rater sees may differ.
        """
        rng = np.random.default_rng([self.seed, 2])
        n = len(emotion)
        strength = np.eye(1 + len(EMOTIONS))[emotion][:, 1:] * rng.uniform(0.65, 1.1, (n, 1))
        mixed = np.where(rng.random((n, 1)) < 0.4, rng.uniform(0, 0.25, (n, 1)), 0)
        other = np.eye(len(EMOTIONS))[rng.integers(0, len(EMOTIONS), n)] * mixed
        nuisance = draw(NUISANCE, n, rng)
        nuisance["blink"] = (rng.random(n) < 0.03).astype(np.float32)
        nuisance["patch"] = (rng.random(n) < 0.05).astype(np.float32)
        return self._footage(
            clip=np.arange(n),
            frame=np.zeros(n, int),
            subject=np.arange(n) % self.subjects,
            activity=rng.integers(0, len(ACTIVITIES), n),
            emotions=strength + other,
            speech=np.where(rng.random(n) < 0.2, rng.random(n), 0),
            noise=rng.normal(0, 0.05, (n, len(AUS))),
            nuisance=nuisance,
            rng=rng,
        )

    def _footage(
        self,
        *,
        clip: np.ndarray,
        frame: np.ndarray,
        subject: np.ndarray,
        activity: np.ndarray,
        emotions: np.ndarray,
        speech: np.ndarray,
        noise: np.ndarray,
        nuisance: dict[str, np.ndarray],
        rng: np.random.Generator,
    ) -> Footage:
        """From what is felt to what is seen and rated."""
        rest = self.rest[subject]
        moved = np.column_stack([emotions, speech]) @ _prototypes()
        aus = np.clip(rest + self.gain[subject] * moved + noise, 0, 1)
        shown = shown_emotions(aus, rest)
        rated = shown @ np.array(list(CIRCUMPLEX.values())) + self.neutral[subject] + rng.normal(0, 0.04, (len(aus), 2))
        scores = _SHARPNESS * np.column_stack([np.full(len(aus), _NEUTRAL), shown])
        smirk = emotions[:, EMOTIONS.index("contempt")] / np.maximum(emotions.sum(1), 1e-6)
        return Footage(
            clip=clip,
            frame=frame,
            subject=subject,
            activity=activity,
            aus=aus.astype(np.float32),
            valence=np.clip(rated[:, 0], -1, 1),
            arousal=np.clip(rated[:, 1], -1, 1),
            expression=(scores + rng.gumbel(size=scores.shape)).argmax(1),  # a draw from the softmax
            side=(self.side[subject] * np.clip(2 * smirk, 0, 1)).astype(np.float32),
            identity=self.identity,
            nuisance=nuisance,
            seed=self.seed,
        )


def _scene(length: int, activity: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Emotions ``(t, 7)``, speech ``(t,)``, noise of the AUs ``(t, 17)`` and nuisance ``(t, len(NUISANCE))`` of one clip."""
    called = list(ACTIVITIES.values())[activity]
    chances = 0.45 * np.array([called.get(emotion, 0.0) for emotion in EMOTIONS]) + 0.55 / len(EMOTIONS)
    time = np.arange(length)

    count = 2 + length // 4  # events, of which some lie beyond the end
    onset, apex, offset, pause = (rng.uniform(low, high, count) for low, high in ((1, 2.5), (0.5, 4), (1, 3), (0.5, 6)))
    start = np.cumsum(pause + onset + apex + offset) - onset - apex - offset
    rise, fall = (time[:, None] - start) / onset, (start + onset + apex + offset - time[:, None]) / offset
    events = np.clip(np.minimum(rise, fall), 0, 1) * rng.uniform(0.5, 1.15, count)
    emotions = events @ np.eye(len(EMOTIONS))[rng.choice(len(EMOTIONS), count, p=chances)]
    mood = np.clip(0.12 + 0.20 * _drift(length, 2, rng), 0, 0.6)
    calm = 1 - np.clip(events.sum(1, keepdims=True), 0, 1)
    emotions += calm * mood @ np.eye(len(EMOTIONS))[rng.choice(len(EMOTIONS), 2, p=chances)]

    talking = (np.sin(2 * np.pi * time / rng.uniform(2.5, 4.5) + rng.uniform(0, 6)) > -0.2) * np.clip(_drift(length, 1, rng)[:, 0], 0, 1)
    low, high = np.array(list(NUISANCE.values())).T
    still = rng.uniform(low, high)
    travel = np.array([_TRAVEL.get(name, 0.0) for name in NUISANCE]) * (high - low)
    nuisance = np.clip(still + travel * _drift(length, len(NUISANCE), rng), low, high)
    names = list(NUISANCE)
    blinks = rng.random(length) < 0.04
    nuisance[:, names.index("blink")] = np.maximum(blinks, 0.5 * np.roll(blinks, 1))
    if rng.random() < 0.2:
        nuisance[:, names.index("patch")] = np.abs(time - rng.uniform(0, length)) < rng.uniform(2, 8)
    return emotions, talking, 0.03 * _drift(length, len(AUS), rng), nuisance


_TRAVEL = {
    "x": 0.15, "y": 0.15, "scale": 0.15, "yaw": 0.25, "pitch": 0.25, "roll": 0.20, "gaze_x": 0.4, "gaze_y": 0.4,
    "light_x": 0.10, "light_y": 0.10, "exposure": 0.10, "back_shift": 0.02, "blur": 0.15, "patch_x": 0.3, "patch_y": 0.2,
}  # fmt: skip
"""How far a nuisance wanders within a clip, as a share of its range."""


def _drift(length: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """``(length, n)`` slow movements of unit variance."""
    period, phase = rng.uniform(18, 90, (2, 1, n)), rng.uniform(0, 2 * np.pi, (2, 1, n))
    waves = np.sin(2 * np.pi * np.arange(length)[None, :, None] / period + phase)
    return np.asarray(waves.sum(0))


# ── on disk ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Written:
    """What a writer meant, to compare with what a reader returns.

    Attributes:
        samples: As the reader should return them, in no particular order.
        quirks: Columns ``quirk``, ``file`` (relative to the root) and ``sample`` (null where there is none): what was planted.
    """

    samples: pl.DataFrame
    quirks: pl.DataFrame


_Quirk = tuple[str, str, str | None]


@contextmanager
def _new_folder(root: str | Path) -> Iterator[Path]:
    """A folder to write into that becomes ``root`` when all is written, so that nobody sees a half of it.

    Raises:
        RequestError: ``root`` is a file, or a folder with something in it.
    """
    root = Path(root).absolute()
    if root.exists() and not (root.is_dir() and next(root.iterdir(), None) is None):
        raise RequestError(f"{str(root)!r} is not empty", where="root", remedy="give a new folder")
    partial = root.with_name(f".{root.name}.{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        yield partial
        if root.exists():
            root.rmdir()
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _at_least(**given: tuple[int, int]) -> None:
    for name, (value, least) in given.items():
        if value < least:
            raise RequestError(f"{name}={value} is too small", remedy=f"give {least} or more")


def _written(root: str | Path, samples: pl.DataFrame, planted: list[_Quirk]) -> Written:
    image = pl.lit(f"{Path(root)}/") + pl.col("sample")
    quirks = pl.DataFrame(planted, schema={"quirk": pl.String, "file": pl.String, "sample": pl.String}, orient="row")
    return Written(conform(samples.with_columns(image=image)), quirks)


_FIRST = ("Ada", "Ben", "Cleo", "Dario", "Elif", "Femi", "Greta", "Hugo", "Ines", "Jun", "Kofi", "Lena", "Mina", "Nils", "Oya", "Pavel")
_LAST = ("Aydin", "Brandt", "Costa", "Dubois", "Eriksen", "Fofana", "Garcia", "Hayashi", "Ivanova", "Jansen", "Kumar", "Lindqvist")


def write_afew_va(
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
    _at_least(seed=(seed, 0), subjects=(subjects, 1), clips=(clips, 1), frames=(low, 3), image=(image, 16))
    if high < low or clips > 999:
        raise RequestError(f"frames={[low, high]} and clips={clips}", remedy="give the least and the most frames, and at most 999 clips")
    footage = World(seed, subjects).clips(clips, (low, high))
    with _new_folder(root) as partial, ThreadPoolExecutor() as pool:
        samples = pl.concat(pool.map(lambda number: _afew_va_clip(partial, footage, number, image), range(clips)))
        samples, planted = _afew_va_quirks(partial, samples) if quirks else (samples, [])
    return _written(root, samples, planted)


def _afew_va_clip(root: Path, footage: Footage, number: int, image: int) -> pl.DataFrame:
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
            "landmarks": pl.Series(landmarks.astype(np.float32), dtype=LANDMARKS),
            "clip": name,
            "frame": footage.frame[rows],
            "subject": actor.casefold(),
            "valence": valence / 10,
            "arousal": arousal / 10,
        }
    )


def _afew_va_quirks(root: Path, samples: pl.DataFrame) -> tuple[pl.DataFrame, list[_Quirk]]:
    """Spoils what was written, and says what that makes of the samples."""
    planted: list[_Quirk] = []
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
    return samples.filter(pl.col("sample") != missing).with_columns(
        pl.col("sample").replace("01/001/00001.png", "01/001/00001.jpg")
    ), planted


AFFECTNET_COUNTS = (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750)
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


def write_affectnet(
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
    writers = {"2015": _affectnet_2015, "2021": _affectnet_2021}
    if str(layout) not in writers:
        raise RequestError(f"AffectNet has no layout {layout!r}", remedy=did_you_mean(str(layout), writers))
    _at_least(seed=(seed, 0), train=(train, 20), validation=(validation, 1), image=(image, 16))
    rng = np.random.default_rng([seed, 4])
    chances = np.sqrt(AFFECTNET_COUNTS)
    emotion = np.concatenate([rng.choice(8, train, p=chances / chances.sum()), np.arange(validation) % 8])
    footage = World(seed, len(emotion)).stills(emotion)
    with _new_folder(root) as partial:
        photos, planted = writers[str(layout)](partial, footage, train, image, quirks)
    samples = pl.DataFrame(
        {
            "sample": [photo.file for photo in photos],
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
    return _written(root, samples, planted)


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


def _affectnet_2015(root: Path, footage: Footage, train: int, image: int, quirks: bool) -> tuple[list[_Photo], list[_Quirk]]:
    stems = [hashlib.sha256(f"{footage.seed}/{row}".encode()).hexdigest()[:56] for row in range(len(footage))]
    files = [f"{_IMAGES}/{1 + int(stem[:4], 16) % 30}/{stem}.jpg" for stem in stems]
    photos = _photographs(root, footage, train, image, files, image)
    planted = _affectnet_quirks(root, photos[:train]) if quirks else []
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    for split, name in {"train": "training.csv", "validation": "validation.csv"}.items():
        lines = [header, *(_affectnet_row(photo) for photo in photos if photo.split == split)]
        (root / "Manually_Annotated" / name).write_text("\n".join(lines) + "\n")
    return [photo for photo in photos if (root / photo.file).exists()], planted


def _affectnet_row(photo: _Photo) -> str:
    x0, y0, x1, y1 = photo.box or (20, 20, 10, 10)  # of negative size
    landmarks = "NULL" if photo.landmarks is None else ";".join(f"{number:.2f}" for number in photo.landmarks.ravel())
    unrated = "-2" if photo.code in (9, 10) else "NULL"
    rated = [unrated if label is None else f"{label:.6f}" for label in (photo.valence, photo.arousal)]
    file = photo.file.removeprefix(f"{_IMAGES}/")
    return ",".join(str(cell) for cell in (file, x0, y0, x1 - x0, y1 - y0, landmarks, photo.code, *rated))


def _affectnet_quirks(root: Path, photos: list[_Photo]) -> list[_Quirk]:
    """Spoils the last of these photographs on disk, and says so in their labels."""
    planted: list[_Quirk] = []
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


def _affectnet_2021(root: Path, footage: Footage, train: int, image: int, quirks: bool) -> tuple[list[_Photo], list[_Quirk]]:
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
    return photos, [
        ("labels as numbers", f"train_set/annotations/{ids[1]}_exp.npy", photos[1].file),
        ("same id in both parts", f"val_set/images/{shared}.jpg", f"val_set/images/{shared}.jpg"),
        ("annotation without an image", f"train_set/annotations/{ids[train - 1] + 1}_exp.npy", None),
    ]


def _annotate(root: Path, photo: _Photo, number: int, *, as_text: bool) -> None:
    """The four files of an image: landmarks, and labels as 0-d arrays of text or of numbers."""
    notes = root / Path(photo.file).parents[1] / "annotations"
    for kind, value in {"exp": photo.code, "val": photo.valence, "aro": photo.arousal}.items():
        np.save(notes / f"{number}_{kind}.npy", np.array(str(value) if as_text else value), allow_pickle=False)
    assert photo.landmarks is not None
    np.save(notes / f"{number}_lnd.npy", photo.landmarks.astype(float).ravel(), allow_pickle=False)
