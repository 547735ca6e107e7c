"""The AffectNet reader on real photographs in AffectNet's first layout, where they are at hand.

They are looked for in the folder that ``HARNESS_REAL_FACES`` names, otherwise in ``shared/real_faces`` beside the repository.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from harness import checking
from harness.samples import Reading
from tasks.datasets import affectnet

ROOT = Path(os.environ.get("HARNESS_REAL_FACES") or Path(__file__).parents[4] / "shared" / "real_faces")
CODES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")

pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="the real photographs are not here")


@pytest.fixture(scope="module")
def reading() -> Reading:
    return affectnet.read(ROOT)


@pytest.fixture(scope="module")
def rows() -> dict[str, tuple[str, dict[str, str]]]:
    """Path of an image → its part and its row, by Python's own reader of csv files."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for part, file in {"train": "training.csv", "validation": "validation.csv"}.items():
        with (ROOT / "Manually_Annotated" / file).open(newline="") as lines:
            found |= {row["subDirectory_filePath"]: (part, row) for row in csv.DictReader(lines)}
    return found


def test_every_photograph_is_read_without_a_problem(reading: Reading, rows: dict[str, tuple[str, dict[str, str]]]) -> None:
    assert reading.problems.is_empty()
    folder = "Manually_Annotated/Manually_Annotated_Images"
    assert set(reading.samples["sample"]) == {f"{folder}/{path}" for path in rows}
    assert set(reading.samples["image"]) == {str(path) for path in (ROOT / folder).rglob("*.jpg")}


def test_every_label_is_the_one_on_disk(reading: Reading, rows: dict[str, tuple[str, dict[str, str]]]) -> None:
    counted = Counter((part, CODES[int(row["expression"])]) for part, row in rows.values())
    assert Counter(reading.samples.select("split", "expression").iter_rows()) == counted
    for sample in reading.samples.iter_rows(named=True):
        part, row = rows["/".join(Path(sample["sample"]).parts[-2:])]
        assert (sample["split"], sample["expression"]) == (part, CODES[int(row["expression"])])
        x, y, width, height = (float(row[f"face_{side}"]) for side in ("x", "y", "width", "height"))
        assert list(sample["box"]) == [x, y, x + width, y + height]
        points = np.array(row["facial_landmarks"].split(";"), np.float32).reshape(68, 2)
        np.testing.assert_array_equal(np.array(sample["landmarks"], np.float32), points)


def test_minus_two_is_no_valence(reading: Reading, rows: dict[str, tuple[str, dict[str, str]]]) -> None:
    unrated = sum(float(row["valence"]) == -2 for _, row in rows.values())
    assert reading.samples["valence"].null_count() == reading.samples["arousal"].null_count() == unrated


def test_boxes_and_landmarks_lie_in_their_images(reading: Reading) -> None:
    for image, box, landmarks in reading.samples.select("image", "box", "landmarks").iter_rows():
        with Image.open(image) as picture:
            picture.load()
            assert list(picture.size) >= list(box)[2:]
            assert (np.array(landmarks) < picture.size).all()


def test_every_photograph_can_be_opened_and_none_stands_twice(reading: Reading, rows: dict[str, tuple[str, dict[str, str]]]) -> None:
    report = checking.report(checking.with_images(reading, lambda done, of: None), {"samples": len(rows)})
    assert report["problems"] == []
    counts = {row["what"]: row["found"] for row in report["counts"]}
    assert counts["samples"] == counts["images"] == len(rows)


def test_no_identity_is_on_both_sides(reading: Reading) -> None:
    identities = pl.read_csv(ROOT / "identities.csv", infer_schema=False)
    image, identity = identities.columns
    stems = reading.samples.select("split", stem=pl.col("sample").str.extract(r"([^/]+)\.\w+$"))
    joined = stems.join(identities.with_columns(stem=pl.col(image).str.extract(r"([^/]+?)(?:\.\w+)?$")), on="stem")
    assert joined.height == reading.samples.height
    assert joined.group_by(identity).agg(pl.col("split").n_unique())["split"].max() == 1
