"""What holds for every writer."""

from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from harness.errors import RequestError
from tasks.datasets import afew_va
from tasks.synthetic.afew_va import write as write_afew_va
from tasks.synthetic.affectnet import write as write_affectnet
from tasks.synthetic.writing import at_least, new_folder, written
from tests.tasks.synthetic.compare import tree

SMALL = {"subjects": 3, "clips": 5, "frames": (4, 7), "image": 48}


@pytest.mark.parametrize(
    "write",
    [
        lambda root, seed: write_afew_va(root, **SMALL, seed=seed),
        lambda root, seed: write_affectnet(root, train=20, validation=4, image=32, seed=seed),
        lambda root, seed: write_affectnet(root, layout="2021", train=20, validation=4, image=32, seed=seed),
    ],
    ids=["afew_va", "affectnet 2015", "affectnet 2021"],
)
def test_the_same_arguments_write_the_same_bytes_and_another_seed_does_not(tmp_path: Path, write) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        write(tmp_path / name, seed)
    assert tree(tmp_path / "one") == tree(tmp_path / "same")
    one, other = (
        {path.read_bytes() for path in (tmp_path / name).rglob("*") if path.suffix in (".png", ".jpg")} for name in ("one", "other")
    )
    assert one & other <= {b""}  # the empty image


def test_nothing_is_written_into_a_folder_that_has_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(RequestError, match="is not empty"):
        write_afew_va(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    write_afew_va(tmp_path / "new", **SMALL)
    assert afew_va.read(tmp_path / "new").samples.height


def test_a_link_to_an_empty_folder_is_written_through_and_stays(tmp_path: Path) -> None:
    """The link was taken for the folder, and could not be replaced by one."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    write_afew_va(tmp_path / "data", **SMALL)
    assert (tmp_path / "data").is_symlink()
    assert afew_va.read(tmp_path / "disk").samples.height
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "disk"]


def test_a_file_is_no_folder_to_write_into(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("keep")
    with pytest.raises(RequestError, match="is not empty"):
        write_afew_va(tmp_path / "data", **SMALL)
    assert (tmp_path / "data").read_text() == "keep"


def test_folders_above_are_made_and_nobody_sees_a_half(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    with new_folder(root) as partial:
        (partial / "1.txt").write_text("1")
        assert not root.exists()
        assert partial.parent == root.parent, "a rename must not cross a disk"
    assert [path.name for path in root.parent.iterdir()] == ["b"]
    assert [path.name for path in root.iterdir()] == ["1.txt"]


def test_a_sample_is_its_own_image_unless_said_otherwise() -> None:
    rows = pl.DataFrame({"sample": ["a.jpg", "b.jpg"], "clip": ["a", "b"]})
    own = written("/data", rows, [])
    assert own.samples["image"].to_list() == ["/data/a.jpg", "/data/b.jpg"]
    assert own.quirks.schema == {"quirk": pl.String, "file": pl.String, "sample": pl.String}
    said = written("/data", rows.with_columns(image=pl.Series([None, "c.zip::b.jpg"])), [("missing image", "a.jpg", None)])
    assert said.samples["image"].to_list() == [None, "/data/c.zip::b.jpg"]
    assert said.quirks.rows() == [("missing image", "a.jpg", None)]


def test_a_number_that_is_too_small_is_refused_by_name() -> None:
    at_least(seed=(0, 0), clips=(3, 1))
    with pytest.raises(RequestError, match="clips=0 is too small; give 1 or more"):
        at_least(seed=(0, 0), clips=(0, 1), frames=(0, 1))


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_afew_va(tmp_path / "afew", **SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("write", "arguments", "message"),
    [
        (write_afew_va, {"subjects": 0}, "subjects=0 is too small"),
        (write_afew_va, {"clips": 1000}, "at most 999"),
        (write_afew_va, {"frames": (9, 5)}, "the least and the most"),
        (write_affectnet, {"train": 3}, "train=3 is too small"),
        (write_affectnet, {"layout": "2051"}, "did you mean"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(tmp_path: Path, write, arguments, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        write(tmp_path / "new", **arguments)
    assert not list(tmp_path.iterdir())
