"""Videos in the layouts of Aff-Wild2: labels of three challenges, lists of the multi-task challenge, and aligned faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from harness.errors import RequestError, did_you_mean
from harness.samples import EXPRESSIONS
from tasks.datasets.vocabulary import ABAW1_AUS, AFF_WILD2, AFF_WILD2_AUS
from tasks.synthetic.world import ACTIVITIES, Footage, World
from tasks.synthetic.writing import Quirk, Written, at_least, new_folder, written

MTL_HEADER = "image,valence,arousal,expression,aus"

_HEADS = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
_NAMED = "names_of_videos_in_each_test_set"
_EXAMPLE = "prediction_files_format/CVPR_{}th_ABAW_{{}}_test_set_sample.txt"
_TEST_LISTS = {"va": "Valence_Arousal_Estimation", "expr": "Expression_Recognition", "au": "Action_Unit_Detection"}


@dataclass(frozen=True)
class _Edition:
    """How an edition spells its files."""

    folder: str
    challenges: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=lambda: {"train": "Train_Set", "validation": "Validation_Set"})
    lists: dict[str, str] = field(default_factory=dict)
    example: str = ""  # of a submission: its name with a gap for the challenge's
    aus: tuple[int, ...] = AFF_WILD2_AUS
    expressions: int = 8


def _challenges(expression: str) -> dict[str, str]:
    return {"va": "VA_Estimation_Challenge", "expr": f"EXPR_{expression}_Challenge", "au": "AU_Detection_Challenge"}


_LISTS = {
    "train": "MTL_Challenge/train_set.txt",
    "validation": "MTL_Challenge/validation_set.txt",
    "test": f"../{_NAMED}/MTL_Challenge_test_set_release.txt",
}
_LATER_LISTS = {"train": "training_set_annotations.txt", "validation": "validation_set_annotations.txt"}
_EDITIONS = {
    "1": _Edition(
        "annotations",
        {"va": "VA_Set", "expr": "EXPR_Set", "au": "AU_Set"},
        {"train": "Training_Set", "validation": "Validation_Set"},
        aus=ABAW1_AUS,
        expressions=7,
    ),
    "3": _Edition("Third ABAW Annotations", _challenges("Classification"), lists=_LISTS),
    "4": _Edition("", lists=_LATER_LISTS | {"test": "MTL_Challenge_test_set_release.txt"}),
    "5": _Edition("5th_ABAW_Annotations", _challenges("Classification"), lists=_LISTS, example=_EXAMPLE.format(5)),
    "6": _Edition("6th ABAW Annotations", _challenges("Recognition"), lists=_LISTS, example=_EXAMPLE.format(6)),
    "7": _Edition("", lists=_LATER_LISTS | {"test": "MTL.txt"}),
}


@dataclass
class _Video:
    """A video and its labels as they stand on disk, with the sentinels of what is not annotated."""

    name: str
    split: str
    rows: np.ndarray  # of the footage
    valence: np.ndarray
    arousal: np.ndarray
    code: np.ndarray
    aus: np.ndarray
    there: np.ndarray  # which images
    folder: str = "cropped_aligned"
    parts: dict[str, str] = field(default_factory=dict)  # challenge → train or validation
    fewer: dict[str, int] = field(default_factory=dict)  # challenge → lines that its file lacks at the end

    def image(self, number: int) -> str:
        return f"{self.folder}/{self.name}/{number:05}.jpg"

    def lines(self, challenge: str) -> int:
        return len(self.rows) - self.fewer.get(challenge, 0) if challenge in self.parts else 0


def write(
    root: str | Path,
    *,
    subjects: int = 24,
    clips: int = 24,
    frames: Sequence[int] = (40, 60),
    seed: int = 0,
    image: int = 112,
    quirks: bool = True,
    edition: str = "6",
    mtl: bool = True,
) -> Written:
    """Videos in the layout of an edition: of 24 there are 14 for training, 6 for validation and 4 for the test.

    The three challenges label the same videos, and the multi-task lists every second frame of them. Test videos have images, and their
    names in lists. From the fifth edition on the challenges' samples of submissions are there too.

    The quirks: the faces of two recordings as ``NAME`` and ``NAME_right``, ``NAME_left`` and ``NAME_right``; one video with more
    lines than images, two with a gap in their images, one of which is a test video; -5 in valence alone, in arousal alone and in both; -1
    for an expression, for all and for some action units of a line; headers with a blank; a video that one challenge trains and another
    validates on; a video that one challenge lacks; a file with one line fewer than the others; images in a second folder; notes beside the
    labels; and in the lists rows whose image is missing, and rows with one task labelled only.

    Args:
        root: A new or empty folder.
        subjects: How many people are seen, 3 or more; nobody in two parts.
        clips: Number of videos, 12 or more. With two faces a recording has two.
        frames: The least and the most lines of a video's labels; 20 or more.
        seed: 0 or more. The same arguments write the same bytes.
        image: Height and width of the images.
        quirks: False: nothing wrong, and all annotated.
        edition: ``1`` (seven expressions and eight action units), ``3``, ``5`` (the folder ``EXPR_Classification_Challenge``) or ``6``
            (``EXPR_Recognition_Challenge``), which have a file a video; ``4`` and ``7`` have lists alone.
        mtl: Whether the lists are there too; the first edition has none, the fourth and the seventh have nothing else.

    Returns:
        The samples as they are read with ``challenge="auto"``.

    Raises:
        RequestError: ``root`` is not empty, there is no such edition, or a number is out of range.
    """
    if str(edition) not in _EDITIONS:
        raise RequestError(f"Aff-Wild2 has no edition {edition!r}", remedy=did_you_mean(str(edition), _EDITIONS))
    low, high = (int(number) for number in frames)
    at_least(seed=(seed, 0), subjects=(subjects, 3), clips=(clips, 12), frames=(low, 20), image=(image, 16))
    if high < low:
        raise RequestError(f"frames={[low, high]}", remedy="give the least and the most frames")
    chosen = _EDITIONS[str(edition)]
    footage, filmed = _film(seed, subjects, clips, (low, high), chosen, quirks)
    with new_folder(root) as partial:
        planted = _quirks(partial, filmed, chosen) if quirks else []
        _draw(partial, footage, filmed, image)
        if chosen.challenges:
            samples = _write_videos(partial, filmed, chosen, quirks)
        if chosen.lists and (mtl or not chosen.challenges):
            listed, more = _write_lists(partial, filmed, chosen, quirks)
            planted += more
            samples = samples if chosen.challenges else listed
    subject = pl.col("clip").str.replace("_(left|right)$", "")
    return written(root, samples.with_columns(subject=subject), planted)


def _film(seed: int, subjects: int, videos: int, frames: tuple[int, int], edition: _Edition, quirks: bool) -> tuple[Footage, list[_Video]]:
    """All videos with the labels that raters gave; training first, then validation, then test."""
    rng = np.random.default_rng([seed, 8])
    counts = _shares(videos)
    people = _shares(subjects)
    first = np.cumsum([0, *people])
    cast = [int(start + place % size) for start, size, count in zip(first, people, counts, strict=False) for place in range(count)]
    lengths = rng.integers(frames[0], frames[1] + 1, videos)
    activities = np.concatenate([rng.permutation(len(ACTIVITIES)) for _ in range(-(-videos // len(ACTIVITIES)))])[:videos]
    footage = World(seed, subjects).film(cast, activities.tolist(), lengths.tolist())
    codes = {name: code for code, name in enumerate(AFF_WILD2[: edition.expressions])}
    of_expression = np.array([codes.get(name, codes.get("other", -1)) for name in EXPRESSIONS])  # nobody could choose contempt
    aus = np.column_stack([footage.present(au) for au in edition.aus])
    filmed = []
    for number, name in enumerate(_names(videos, rng, quirks)):
        rows = np.flatnonzero(footage.clip == number)
        split = np.repeat(("train", "validation", "test"), counts)[number]
        filmed.append(
            _Video(
                name,
                str(split),
                rows,
                footage.valence[rows].round(3),
                footage.arousal[rows].round(3),
                of_expression[footage.expression[rows]],
                aus[rows],
                np.ones(len(rows), bool),
                parts={} if split == "test" else dict.fromkeys(edition.challenges, str(split)),
            )
        )
    return footage, filmed


def _shares(count: int) -> tuple[int, int, int]:
    validation, test = max(1, round(count / 4)), max(1, round(count / 6))
    return count - validation - test, validation, test


def _names(videos: int, rng: np.random.Generator, quirks: bool) -> list[str]:
    """As real ones are called: by a number, as ``video48``, or with their size."""
    numbers = rng.choice(np.arange(1, max(600, 2 * videos)), videos, replace=False)
    sizes = ("1280x720", "1920x1080", "484x360")
    names = [(f"{number}", f"video{number}", f"{number}-30-{sizes[number % 3]}")[place % 3] for place, number in enumerate(numbers)]
    if quirks:
        names[1], names[2], names[3] = f"{names[0]}_right", f"{names[2]}_left", f"{names[2]}_right"
    return names


def _draw(root: Path, footage: Footage, filmed: Sequence[_Video], image: int) -> None:
    def draw(video: _Video) -> None:
        (root / video.folder / video.name).mkdir(parents=True)
        drawn = footage.render(video.rows, image)
        for number in np.flatnonzero(video.there).tolist():
            Image.fromarray(drawn.images[number]).save(root / video.image(number + 1), quality=90)

    with ThreadPoolExecutor() as pool:
        list(pool.map(draw, filmed))


def _quirks(root: Path, filmed: list[_Video], edition: _Edition) -> list[Quirk]:
    """Spoils what will be written, and says so; the files of headers and lists are spoilt where they are written."""
    train, validation, test = ([video for video in filmed if video.split == split] for split in ("train", "validation", "test"))
    planted: list[Quirk] = []

    def said(quirk: str, video: _Video, challenge: str = "va", number: int | None = None) -> None:
        file = _label_file(edition, video, challenge) if challenge in video.parts else f"{video.folder}/{video.name}"
        planted.append((quirk, file, None if number is None else video.image(number)))

    train[-1].folder = validation[-1].folder = "cropped_aligned_new_50_vids"
    planted += [("second folder of images", f"{video.folder}/{video.name}", None) for video in (train[-1], validation[-1])]
    for video in train[:4]:
        said("two faces", video)
    one, two = train[1], train[2]
    one.valence[4] = one.arousal[5] = one.valence[6] = one.arousal[6] = -5
    for quirk, number in {"-5 in valence alone": 5, "-5 in arousal alone": 6, "-5 in both": 7}.items():
        said(quirk, one, "va", number)
    two.code[[2, 3]], two.aus[4], two.aus[5, ::3] = -1, -1, -1
    two.valence[8], two.arousal[8], two.aus[8] = -5, -5, -1
    for quirk, challenge, number in (("-1", "expr", 3), ("-1 in all", "au", 5), ("-1 in some", "au", 6), ("one task only", "expr", 9)):
        said(quirk, two, challenge, number)
    train[3].there[-3:] = False
    said("more lines than images", train[3])
    for video in (train[4], test[0]):
        video.there[9:13] = False
        said("gap in the images", video)
    if edition.challenges:
        train[5].parts["au"] = "validation"
        said("train of va, validation of au", train[5], "au")
        del train[6].parts["au"]
        said("not in the challenge au", train[6])
        validation[1].fewer["expr"] = 1
        said("one line fewer", validation[1], "expr")
        for file in (f"{edition.folder}/readme.txt", f"{edition.folder}/{edition.challenges['va']}/notes.txt"):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text("valence,arousal\n0.5,0.5\n")
            planted.append(("notes beside the labels", file, None))
        for challenge in ("va", "au"):
            said("header with a blank", train[0], challenge)
    return planted


def _label_file(edition: _Edition, video: _Video, challenge: str) -> str:
    return f"{edition.folder}/{edition.challenges[challenge]}/{edition.parts[video.parts[challenge]]}/{video.name}.txt"


def _write_videos(root: Path, filmed: Sequence[_Video], edition: _Edition, quirks: bool) -> pl.DataFrame:
    """The files of the three challenges, and what they mean."""
    headers = {"va": "valence,arousal", "expr": ",".join(_HEADS[: edition.expressions]), "au": ",".join(f"AU{au}" for au in edition.aus)}
    rows: dict[str, Callable[[_Video], list[str]]] = {
        "va": lambda video: [f"{valence},{arousal}" for valence, arousal in zip(_texts(video.valence), _texts(video.arousal), strict=True)],
        "expr": lambda video: video.code.astype(str).tolist(),
        "au": lambda video: [",".join(line) for line in video.aus.astype(str)],
    }
    tests = [video for video in filmed if video.split == "test"]
    for challenge, header in headers.items():
        for video in filmed:
            if challenge in video.parts:
                file = root / _label_file(edition, video, challenge)
                file.parent.mkdir(parents=True, exist_ok=True)
                first = header.replace(",", ", ") if quirks and video is filmed[0] and challenge != "expr" else header
                file.write_text("\n".join([first, *rows[challenge](video)[: video.lines(challenge)]]) + "\n")
        listed = root / _NAMED / f"{_TEST_LISTS[challenge]}_Challenge_test_set_release.txt"
        listed.parent.mkdir(exist_ok=True)
        listed.write_text("".join(f"{video.name}\n" for video in tests))
        if edition.example:
            example = root / edition.example.format({"va": "VA", "expr": "Expr", "au": "AU"}[challenge])
            example.parent.mkdir(exist_ok=True)
            zeros = ",0" * (1 if challenge == "expr" else header.count(",") + 1)
            lines = [f"{video.name}/{number + 1:05}.jpg{zeros}" for video in tests for number in np.flatnonzero(video.there)]
            example.write_text("\n".join([f"image_location,{header}", *lines]) + "\n")
    return pl.concat([_meant(video, edition) for video in filmed], how="diagonal")


def _texts(values: np.ndarray) -> list[str]:
    return [str(int(value)) if value == -5 else f"{value:.3f}" for value in values]


def _meant(video: _Video, edition: _Edition) -> pl.DataFrame:
    """The samples of a video: a row a line, or a row an image of a test video."""
    count = max(video.lines(challenge) for challenge in edition.challenges) if video.parts else len(video.rows)
    samples = _labelled(video, np.arange(count), edition)
    if video.split == "test":
        return samples.select("sample", "image", "clip", "frame", "split").filter(pl.col("image").is_not_null())
    for challenge, labels in {"va": ["valence", "arousal"], "expr": ["expression"], "au": [f"au{au}" for au in edition.aus]}.items():
        known = pl.col("frame") <= video.lines(challenge)
        samples = samples.with_columns(pl.when(known).then(label).alias(label) for label in labels)
    agreed = set(video.parts.values()) == {video.split}
    return samples.with_columns(split=pl.lit(video.split if agreed else None, dtype=pl.String))


def _labelled(video: _Video, rows: np.ndarray, edition: _Edition) -> pl.DataFrame:
    """Some frames of a video with all their labels."""
    rated = (video.valence[rows] != -5) & (video.arousal[rows] != -5)
    names = [AFF_WILD2[code] if code >= 0 else None for code in video.code[rows]]
    files = [video.image(row + 1) for row in rows]
    aus = {f"au{au}": video.aus[rows, place] for place, au in enumerate(edition.aus)}
    samples = pl.DataFrame(
        {
            "sample": files,
            "image": [file if there else None for file, there in zip(files, video.there[rows], strict=True)],
            "clip": [video.name] * len(rows),
            "frame": rows + 1,
            "split": [video.split] * len(rows),
            "valence": video.valence[rows],
            "arousal": video.arousal[rows],
            "expression": pl.Series(names, dtype=pl.String),
            **aus,
        },
        schema_overrides={"image": pl.String},
    )
    return samples.with_columns(
        *(pl.when(pl.Series(rated)).then(name).alias(name) for name in ("valence", "arousal")),
        *(pl.when(pl.col(name) >= 0).then(name).alias(name) for name in aus),
    )


def _write_lists(root: Path, filmed: Sequence[_Video], edition: _Edition, quirks: bool) -> tuple[pl.DataFrame, list[Quirk]]:
    """The lists of the multi-task challenge: every second frame that has an image, and with quirks some that have none."""
    samples: list[pl.DataFrame] = []
    planted: list[Quirk] = []
    for split, name in edition.lists.items():
        file = (root / edition.folder / name).resolve()
        lines: list[str] = []
        for video in filmed:
            if video.split != split:
                continue
            rows = np.flatnonzero(video.there)[::2]
            if quirks and split != "test":
                absent = np.flatnonzero(~video.there)[:2]
                planted += [("missing image", file.relative_to(root.resolve()).as_posix(), video.image(row + 1)) for row in absent]
                rows = np.sort(np.concatenate([rows, absent]))
            meant = _labelled(video, rows, edition)
            if split == "test":
                meant = meant.select("sample", "image", "clip", "frame", "split")
                lines += [f"{video.name}/{row + 1:05}.jpg" for row in rows]
            else:
                labels = np.column_stack([video.code[rows], video.aus[rows]]).astype(str)
                rated = zip(video.valence[rows].tolist(), video.arousal[rows].tolist(), labels, strict=True)
                lines += [f"{video.name}/{row + 1:05}.jpg,{v},{a},{','.join(rest)}" for row, (v, a, rest) in zip(rows, rated, strict=True)]
            samples.append(meant)
        headed = [] if file.name == "MTL.txt" else ["image" if split == "test" else MTL_HEADER]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join([*headed, *lines]) + "\n")
    return pl.concat(samples, how="diagonal"), planted
