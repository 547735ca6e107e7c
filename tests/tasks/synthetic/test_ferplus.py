"""FERPlus as it is written and read again."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from harness.errors import RequestError
from harness.frames import Transform, fill
from tasks.datasets import ferplus
from tasks.synthetic.ferplus import write
from tests.tasks.synthetic.compare import assert_same_samples, tree

SMALL = {"train": 40, "validation": 8, "test": 6, "image": 24}


def test_the_csvs_are_read_as_they_were_meant(tmp_path: Path) -> None:
    root = tmp_path / "ferplus"
    written = write(root, **SMALL)
    reading = ferplus.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.select("kind", "line").rows() == [("row without an image name", 5), ("votes that are not ten", 20)]
    assert reading.samples.group_by("split").len().sort("split").rows() == [("test", 6), ("train", 37), ("validation", 8)]
    votes = pl.read_csv(root / "fer2013new.csv")
    assert votes.columns[2:] == ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF"]
    assert votes["Image name"].is_null().sum() == 3
    assert votes.filter(pl.col("Image name").is_null())["NF"].to_list() == [10] * 3
    assert votes.filter(pl.col("Image name").is_not_null(), NF=10).height == 1
    assert votes["Image name"][-1] == "fer0000052.png", "the number falls behind the row, which is 53 from 0"
    sums = votes.select(pl.sum_horizontal(votes.columns[2:])).to_series().to_list()
    assert sorted(sums) == [9] + [10] * 53
    tied = dict(written.quirks.filter(pl.col("quirk").str.starts_with("tie")).select("quirk", "sample").iter_rows())
    assert set(tied) == {"tie", "tie with unknown"}
    assert reading.samples.filter(pl.col("sample").is_in(list(tied.values())))["expression"].to_list() == [None, None]
    assert '"' in (root / "fer2013.csv").read_text()


def test_the_pixels_show_the_faces_of_their_rows(tmp_path: Path) -> None:
    frames = {}
    for layout in ("csv", "images"):
        root = tmp_path / layout
        write(root, **SMALL, layout=layout, quirks=False)
        filled = fill(ferplus.read(root).samples, Transform(size=24, crop="image"), tmp_path / "cache")
        assert filled.ok.all()
        frames[layout] = filled.frames[np.arange(len(filled.frames))]
    np.testing.assert_array_equal(frames["csv"], frames["images"])
    assert len(np.unique(frames["csv"].reshape(54, -1), axis=0)) == 54


def test_files_and_their_lists_are_read_as_they_were_meant(tmp_path: Path) -> None:
    root = tmp_path / "ferplus"
    written = write(root, **SMALL, layout="images")
    reading = ferplus.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert sorted(reading.problems["kind"]) == ["missing image", "row without an image name", "votes that are not ten"]
    (root / "fer2013new.csv").unlink()
    reading = ferplus.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert sorted(reading.problems["kind"]) == ["missing image", "votes that are not ten"]


def test_most_raters_see_what_is_shown_and_not_all_of_them(tmp_path: Path) -> None:
    written = write(tmp_path / "many", train=400, validation=1, test=1, image=16, quirks=False)
    samples = written.samples
    votes = samples.select(pl.selectors.starts_with("votes_")).to_numpy()
    assert 0.5 < votes.max(1).mean() / 10 < 0.9
    assert 0.85 < samples["expression"].is_not_null().mean() < 1
    first = ferplus.read(tmp_path / "many", labels="fer2013").samples["expression"]
    assert (first == samples["expression"]).mean() > 0.75


@pytest.mark.parametrize("layout", ["csv", "images"])
def test_ferplus_without_quirks_has_no_problem(tmp_path: Path, layout: str) -> None:
    written = write(tmp_path / "clean", **SMALL, layout=layout, quirks=False)
    reading = ferplus.read(tmp_path / "clean")
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.is_empty()
    assert written.quirks.is_empty()


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        write(tmp_path / name, train=20, validation=1, test=1, image=16, seed=seed)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") != tree(tmp_path / "c")


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="did you mean 'images'"):
        write(tmp_path / "x", layout="image")
