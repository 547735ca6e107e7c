"""DISFA+ as it is written and read again."""

from pathlib import Path

import polars as pl
import pytest

from harness.errors import RequestError
from harness.samples import intensity_columns
from tasks.datasets import disfa_plus
from tasks.synthetic.disfa import FOLDS
from tasks.synthetic.disfa_plus import SUBJECTS, write
from tests.tasks.synthetic.compare import assert_same_samples, tree


def test_disfa_plus_is_read_as_it_was_meant(tmp_path: Path) -> None:
    root = tmp_path / "disfa_plus"
    written = write(root, subjects=3, trials=3, frames=(4, 6), image=16)
    reading = disfa_plus.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert dict(reading.problems["kind"].value_counts().iter_rows()) == {"missing label file": 3}
    masked = reading.samples.filter(pl.any_horizontal(pl.col(intensity_columns(reading.samples)).is_null()))
    assert masked["clip"].unique().sort().to_list() == [f"{subject}/A1_AU1_TrailNo_1" for subject in ("SN001", "SN003", "SN013")]


def test_every_quirk_of_the_checklist_is_on_disk(tmp_path: Path) -> None:
    root = tmp_path / "disfa_plus"
    written = write(root, subjects=2, trials=2, frames=(3, 3), image=16)
    kinds = {"doubled subject folder", "header line", "missing label file", "run of blanks"}
    assert {*written.quirks["quirk"].to_list()} == kinds
    by_quirk = {quirk: root / file for quirk, file in written.quirks.select("quirk", "file").reverse().iter_rows()}
    assert not by_quirk["missing label file"].exists()
    header, comment, blank, first, *_ = by_quirk["header line"].read_text().splitlines()
    assert not header.split()[1].isdigit()
    assert comment.startswith("#")
    assert not blank
    assert first.startswith("000.jpg  ")
    spaced = written.quirks.filter(quirk="run of blanks")["file"]
    widths = {line.count(" ") for file in spaced for line in (root / file).read_text().splitlines()[3:]}
    assert len(widths) > 1
    assert (root / "Labels/SN013/SN013/A1_AU1_TrailNo_1").is_dir()
    assert [path.name for path in (root / "Labels/SN013").iterdir()] == ["SN013"]
    assert all("TrailNo" in path.name for path in root.glob("Images/*/*"))


def test_disfa_plus_without_quirks_has_no_problem(tmp_path: Path) -> None:
    written = write(tmp_path / "clean", subjects=2, trials=10, frames=(2, 3), image=16, quirks=False)
    reading = disfa_plus.read(tmp_path / "clean")
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.is_empty()
    assert written.quirks.is_empty()
    assert reading.samples.select(intensity_columns(reading.samples), "image").null_count().sum_horizontal().item() == 0


def test_every_action_unit_is_there_and_is_not_and_both_sides_of_the_threshold_occur(tmp_path: Path) -> None:
    samples = write(tmp_path / "disfa_plus", image=16).samples
    assert {*samples["subject"].to_list()} == {*SUBJECTS}
    for name in intensity_columns(samples):
        assert {0, 1, 2} <= {*samples[name].drop_nulls().to_list()}, name


def test_the_first_three_people_are_of_three_folds_of_disfa() -> None:
    assert all({*SUBJECTS[:3]}.intersection(fold) for fold in FOLDS)
    assert {*SUBJECTS} < {name for fold in FOLDS for name in fold}, "all of them are in DISFA too"


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        write(tmp_path / name, subjects=2, trials=2, frames=(3, 4), image=16, seed=seed)
    one, same, other = (tree(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one != other


def test_what_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="subjects=10"):
        write(tmp_path / "many", subjects=10)
    with pytest.raises(RequestError, match="at most 9 people and 10 trials"):
        write(tmp_path / "long", trials=11)
    assert not list(tmp_path.iterdir())
