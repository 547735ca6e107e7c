"""Both distributions of AffectNet as they are written and read again."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from tasks.datasets import affectnet
from tasks.synthetic.affectnet import UNREADABLE, write
from tests.tasks.synthetic.compare import assert_same_samples


def test_affectnet_of_2015_is_read_as_it_was_meant(tmp_path: Path) -> None:
    root = tmp_path / "affectnet"
    written = write(root, train=40, validation=16, image=48)
    reading = affectnet.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert dict(reading.problems["kind"].value_counts().iter_rows()) == {
        "unreadable label": 2,  # NULL for valence and for arousal
        "unreadable landmarks": 1,
        "unusable box": 1,
        "missing image": 1,
    }
    rows = pl.read_csv(root / "Manually_Annotated/training.csv", infer_schema=False)
    assert rows.height == 40
    assert rows.filter(expression="8")["valence"].cast(float).is_between(-1, 1).sum() == 2
    assert rows.filter(pl.col("expression").is_in(["9", "10"]))["valence"].to_list() == ["-2"] * 4
    assert {Path(name).suffix for name in rows["subDirectory_filePath"]} == {".jpg", ".JPG", ".png"}
    assert UNREADABLE in rows["subDirectory_filePath"]
    broken = written.quirks.filter(quirk="unreadable image")["file"]
    assert len(broken) == 2
    (missing,) = written.quirks.filter(quirk="missing image")["sample"]
    assert reading.samples.filter(pl.col("image").is_null())["sample"].to_list() == [missing]
    for file in reading.samples.drop_nulls("image")["sample"]:
        if file in broken:
            with pytest.raises(OSError, match=r"identify|truncated"):
                Image.open(root / file).load()
        else:
            with Image.open(root / file) as picture:
                picture.load()
                assert picture.format == ("PNG" if file.endswith(".png") else "JPEG")


def test_affectnet_of_2021_is_read_as_it_was_meant(tmp_path: Path) -> None:
    root = tmp_path / "affectnet"
    written = write(root, layout="2021", train=24, validation=9, image=32)
    reading = affectnet.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems["kind"].to_list() == ["missing image"]
    orphan = reading.samples.filter(pl.col("image").is_null())
    assert orphan["sample"].to_list() == written.quirks.filter(quirk="annotation without an image")["sample"].to_list()
    assert orphan["expression"].null_count() == 0, "its labels count"
    kinds = {np.load(path, allow_pickle=False).dtype.kind for path in root.glob("train_set/annotations/*_exp.npy")}
    assert kinds == {"U", "i"}
    parts = [{path.stem for path in (root / part / "images").iterdir()} for part in ("train_set", "val_set")]
    assert parts[0] & parts[1]
    assert sorted(map(int, parts[0])) != list(range(min(map(int, parts[0])), max(map(int, parts[0])) + 1))


@pytest.mark.parametrize("layout", ["2015", "2021"])
def test_affectnet_without_quirks_has_no_problem(tmp_path: Path, layout: str) -> None:
    written = write(tmp_path / "clean", layout=layout, train=20, validation=5, image=32, quirks=False)
    reading = affectnet.read(tmp_path / "clean")
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.is_empty()
    assert reading.samples.select("valence", "arousal", "expression", "landmarks").null_count().sum_horizontal().item() == 0
