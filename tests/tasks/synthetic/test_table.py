"""One's own csv, and GFT's as it may be, as they are written and read again."""

import csv
from pathlib import Path

import pytest
import yaml

from harness import config
from harness.errors import RequestError
from tasks.datasets import table
from tasks.synthetic.table import write, write_gft
from tests.tasks.synthetic.compare import assert_same_samples, tree

SMALL = {"subjects": 3, "clips": 4, "frames": (5, 7), "image": 24}
GFT = yaml.safe_load((Path(__file__).parents[3] / "configs/dataset/gft.yaml").read_text())


def test_the_quirks_of_ones_own_csv_are_on_disk_and_the_reader_copes(tmp_path: Path) -> None:
    root = tmp_path / "own"
    written = write(root, **SMALL)
    reading = table.read(root)
    assert_same_samples(reading.samples.select(written.samples.columns), written.samples)
    assert sorted(reading.problems["kind"]) == ["column not used", "missing image", "row stands twice", "wrong number of cells"]
    with (root / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [rows[0]["VALENCE"], rows[0]["AROUSAL"], rows[2]["AU12"]] == ["NULL", "", ""]
    assert rows[1]["EXPRESSION"] != reading.samples["expression"][1]
    second = [row["ACTIVITY"] for row in rows if row["CLIP"] == "002"]
    assert {'"' in text or "\n" in text for text in second} == {True}
    assert "\n" in second[1]
    assert reading.samples.filter(clip="002")["activity"].to_list() == second


def test_ones_own_csv_without_quirks_has_no_problem(tmp_path: Path) -> None:
    written = write(tmp_path / "clean", **SMALL, quirks=False)
    reading = table.read(tmp_path / "clean")
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.is_empty()
    assert written.quirks.is_empty()
    assert reading.samples["subject"].n_unique() == 3
    assert reading.samples["clip"].n_unique() == 4


def test_gft_is_read_by_its_map_and_keeps_rooms_together(tmp_path: Path) -> None:
    written = write_gft(tmp_path / "gft", groups=2, frames=(4, 6), image=24)
    reading = config.instantiate(GFT["read"], root=tmp_path / "gft")
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems["kind"].to_list() == ["missing image"]
    assert reading.samples["clip"].unique().sort().to_list() == ["001A", "001B", "001C", "002A", "002B", "002C"]
    assert (reading.samples["subject"] == reading.samples["clip"].str.slice(0, 3)).all()
    assert reading.samples["frame"].min() == 1
    assert "au99" not in reading.samples.columns
    assert reading.samples["au11"].is_null().all()
    assert 0 < reading.samples["au12"].null_count() < reading.samples.height / 2


def test_gft_without_quirks_has_no_problem(tmp_path: Path) -> None:
    written = write_gft(tmp_path / "clean", groups=1, frames=(4, 5), image=24, quirks=False)
    reading = config.instantiate(GFT["read"], root=tmp_path / "clean")
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.is_empty()


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        write(tmp_path / name, subjects=2, clips=2, frames=(4, 5), image=16, seed=seed)
        write_gft(tmp_path / f"gft_{name}", groups=1, frames=(4, 5), image=16, seed=seed)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") != tree(tmp_path / "c")
    assert tree(tmp_path / "gft_a") == tree(tmp_path / "gft_b") != tree(tmp_path / "gft_c")


def test_numbers_that_are_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="clips=1000"):
        write(tmp_path / "x", clips=1000)
    with pytest.raises(RequestError, match="frames"):
        write_gft(tmp_path / "x", frames=(9, 5))
