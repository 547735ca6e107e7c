"""DISFA as it is written and read again."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from harness.errors import RequestError
from harness.frames import Transform, fill
from harness.samples import intensity_columns
from tasks.datasets import disfa
from tasks.synthetic.disfa import FOLDS, write
from tests.tasks.synthetic.compare import assert_same_samples, tree


def kinds(problems: pl.DataFrame) -> dict[str, int]:
    return dict(problems.group_by("kind").len().iter_rows())


@pytest.mark.parametrize(("images", "problems"), [("frames", {"image without a label": 1}), ("video", {"length mismatch": 2})])
def test_disfa_is_read_as_it_was_meant(tmp_path: Path, images: str, problems: dict[str, int]) -> None:
    root = tmp_path / "disfa"
    written = write(root, subjects=5, frames=(24, 30), image=32, images=images)
    reading = disfa.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert kinds(reading.problems) == problems
    lines = {path.parent.name: len(path.read_text().splitlines()) for path in root.glob("ActionUnit_Labels/*/*_au1.txt")}
    assert lines == dict(reading.samples.group_by("subject").len().iter_rows())
    assert (root / "ActionUnit_Labels/SN002/SN002_au26.txt").read_text().startswith(("1,0.0\n", "1,1.0\n", "1,2.0\n", "1,3.0\n"))


def test_extracted_frames_of_both_conventions_stand_in_one_copy(tmp_path: Path) -> None:
    root = tmp_path / "disfa"
    written = write(root, subjects=4, frames=(16, 20), image=16)
    assert {path.name for path in root.iterdir()} == {"ActionUnit_Labels", "SN002", "LeftVideoSN013", "SN003", "LeftVideoSN010"}
    assert (root / "SN002/0.png").is_file()
    assert (root / "LeftVideoSN013/00001.jpg").is_file()
    assert not (root / "LeftVideoSN013/00000.jpg").exists()
    short = sorted((root / "LeftVideoSN010").iterdir())
    labelled = written.samples.filter(subject="SN010")["image"].to_list()
    assert [str(path) for path in short[:-1]] == sorted(labelled), "the last frame has no label"


def test_a_frame_of_the_video_shows_what_its_label_says(tmp_path: Path) -> None:
    """The same world as extracted frames and as video: picture k is picture k."""
    for images in ("frames", "video"):
        write(tmp_path / images, subjects=1, frames=(16, 16), image=48, images=images, quirks=False)
    filled = [
        fill(disfa.read(tmp_path / images).samples, Transform(size=24, channels=3), tmp_path / "cache").frames[np.arange(16)].astype(int)
        for images in ("frames", "video")
    ]
    difference = np.abs(filled[0][:, None] - filled[1][None]).mean(axis=(2, 3, 4))
    assert (difference.argmin(axis=1) == np.arange(16)).all()


@pytest.mark.parametrize("images", ["frames", "video"])
def test_disfa_without_quirks_has_no_problem(tmp_path: Path, images: str) -> None:
    written = write(tmp_path / "clean", subjects=2, frames=(16, 18), image=16, images=images, quirks=False)
    reading = disfa.read(tmp_path / "clean")
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.is_empty()
    assert written.quirks.is_empty()
    assert reading.samples["image"].null_count() == 0


def test_every_action_unit_is_there_and_is_not_and_both_sides_of_the_threshold_occur(tmp_path: Path) -> None:
    samples = write(tmp_path / "disfa", image=16).samples
    assert samples["subject"].n_unique() == 9
    for name in intensity_columns(samples):
        assert {0, 1, 2} <= {*samples[name].to_list()}, name
        assert samples.filter(pl.col(name) >= 2)["subject"].n_unique() >= 3, name


@pytest.mark.parametrize("subjects", [3, 4, 9])
def test_three_people_are_enough_for_the_three_folds_of_the_field(tmp_path: Path, subjects: int) -> None:
    samples = write(tmp_path / "disfa", subjects=subjects, frames=(16, 16), image=16).samples
    people = {*samples["subject"].to_list()}
    assert len(people) == subjects
    assert all(people.intersection(fold) for fold in FOLDS)


@pytest.mark.parametrize("images", ["frames", "video"])
def test_the_same_seed_writes_the_same_bytes(tmp_path: Path, images: str) -> None:
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        write(tmp_path / name, subjects=2, frames=(16, 18), image=16, seed=seed, images=images)
    one, same, other = (tree(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one != other


def test_the_images_have_the_size_that_was_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "disfa", subjects=1, frames=(16, 16), image=33, quirks=False)
    with Image.open(tmp_path / "disfa/SN002/0.png") as picture:
        assert picture.size == (33, 33)


def test_what_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="subjects=28"):
        write(tmp_path / "many", subjects=28)
    with pytest.raises(RequestError, match="did you mean 'video'"):
        write(tmp_path / "other", images="videos")
    with pytest.raises(RequestError, match=r"frames=\[20, 17\]"):
        write(tmp_path / "reversed", frames=(20, 17))
    assert not list(tmp_path.iterdir())
