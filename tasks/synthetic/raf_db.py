"""Photographs in the layout of RAF-DB."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from harness.samples import EXPRESSIONS
from tasks.datasets.vocabulary import RAF_DB
from tasks.synthetic.world import Footage, World
from tasks.synthetic.writing import Quirk, Written, at_least, new_folder, written

COUNTS = (2524, 4772, 1982, 1290, 281, 717, 705)
"""Images of the real training part by expression, neutral … anger; the test part is about as unbalanced."""

_COMPOUND = 11  # classes of the other subset


def write(
    root: str | Path,
    *,
    train: int = 1200,
    test: int = 400,
    seed: int = 0,
    image: int = 100,
    quirks: bool = True,
) -> Written:
    """Photographs in the layout of RAF-DB, each of another person, aligned and original, unbalanced as the real ones.

    The original of a photograph is wider and higher than the aligned one, on whose edges it goes on.

    The quirks: the list ends without a line's end; an aligned image is missing, another cut short, a third one in no list; and the
    compound subset lies beside, with the same file names.

    Args:
        root: A new or empty folder.
        train: Number of images, 5 or more.
        test: Number of images, 1 or more.
        seed: 0 or more. The same arguments write the same bytes.
        image: Height and width of the aligned images.
        quirks: False: nothing wrong, and nothing beside.

    Returns:
        The samples as they are read with ``images="aligned"``.

    Raises:
        RequestError: ``root`` is not empty, or a number is too small.
    """
    at_least(seed=(seed, 0), train=(train, 5), test=(test, 1), image=(image, 16))
    total = train + test
    emotion = np.random.default_rng([seed, 7]).choice(len(COUNTS), total, p=np.array(COUNTS) / sum(COUNTS))
    footage = World(seed, total).stills(emotion)
    seen = np.where(footage.expression < len(COUNTS), footage.expression, emotion)  # nobody could choose contempt
    names = [f"train_{row + 1:05}" for row in range(train)] + [f"test_{row + 1:04}" for row in range(test)]
    with new_folder(root) as partial:
        basic = partial / "basic"
        for folder in ("EmoLabel", "Image/aligned", "Image/original"):
            (basic / folder).mkdir(parents=True)
        with ThreadPoolExecutor() as pool:
            list(
                pool.map(
                    lambda rows: _draw(basic / "Image", footage, rows, names, image), np.array_split(np.arange(total), -(-total // 64))
                )
            )
        codes = [RAF_DB.index(EXPRESSIONS[place]) + 1 for place in seen]
        listed = "\n".join(f"{name}.jpg {code}" for name, code in zip(names, codes, strict=True))
        (basic / "EmoLabel/list_patition_label.txt").write_text(listed + ("" if quirks else "\n"))
        samples = pl.DataFrame(
            {
                "sample": [f"basic/Image/aligned/{name}_aligned.jpg" for name in names],
                "split": ["train"] * train + ["test"] * test,
                "expression": [EXPRESSIONS[place] for place in seen],
            }
        ).with_columns(image="sample", clip="sample", frame=0)
        planted = _quirks(partial, samples["sample"].to_list(), seed) if quirks else []
    absent = [sample for quirk, _, sample in planted if quirk == "missing image"]
    samples = samples.with_columns(image=pl.when(~pl.col("image").is_in(absent)).then("image"))
    return written(root, samples, planted)


def _draw(folder: Path, footage: Footage, rows: np.ndarray, names: list[str], image: int) -> None:
    rng = np.random.default_rng([footage.seed, 8, int(rows[0])])
    margins = rng.integers(image // 10, image, (len(rows), 2, 2))
    for row, pixels, margin in zip(rows, footage.render(rows, image).images, margins, strict=True):
        Image.fromarray(pixels).save(folder / f"aligned/{names[row]}_aligned.jpg", quality=90)
        around = np.pad(pixels, (*margin, (0, 0)), mode="edge")
        Image.fromarray(around).save(folder / f"original/{names[row]}.jpg", quality=80)


def _quirks(root: Path, files: list[str], seed: int) -> list[Quirk]:
    """Spoils three images of the training part and puts the other subset beside."""
    missing, cut = files[1], files[2]
    (root / missing).unlink()
    (root / cut).write_bytes((root / cut).read_bytes()[: (root / cut).stat().st_size // 2])
    unlisted = "basic/Image/aligned/train_99999_aligned.jpg"
    (root / unlisted).write_bytes((root / files[0]).read_bytes())
    (root / "compound/EmoLabel").mkdir(parents=True)
    (root / "compound/Image/aligned").mkdir(parents=True)
    codes = np.random.default_rng([seed, 9]).integers(1, _COMPOUND + 1, 20)
    lines = [f"train_{row + 1:05}.jpg {code}" for row, code in enumerate(codes)]
    (root / "compound/EmoLabel/list_patition_label.txt").write_text("\n".join(lines))
    (root / "compound/Image/aligned/train_00001_aligned.jpg").write_bytes((root / files[0]).read_bytes())
    return [
        ("no final newline", "basic/EmoLabel/list_patition_label.txt", files[-1]),
        ("missing image", missing, missing),
        ("unreadable image", cut, cut),
        ("image without a label", unlisted, None),
        ("compound subset", "compound/EmoLabel/list_patition_label.txt", None),
    ]
