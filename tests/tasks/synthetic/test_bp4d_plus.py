"""BP4D+ as it is written and read again."""

import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.errors import RequestError
from harness.images import Images
from tasks.datasets import bp4d_plus
from tasks.synthetic.bp4d_plus import PEOPLE, write
from tests.tasks.synthetic.compare import assert_same_samples, tree

SMALL: dict[str, Any] = {"subjects": 2, "frames": (6, 9), "image": 16}
HEADER = "0,1,2,4,5,6,7,9,10,11,12,13,14,15,16,17,18,19,20,22,23,24,27,28,29,30,31,32,33,34,35,36,37,38,39"


@pytest.mark.parametrize("images", ["zip", "folder", "both"])
def test_bp4d_plus_without_quirks_is_read_as_it_was_meant_and_has_no_problem(tmp_path: Path, images: str) -> None:
    root = tmp_path / "clean"
    written = write(root, **SMALL, images=images, quirks=False)
    reading = bp4d_plus.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.is_empty()
    assert written.quirks.is_empty()
    assert sorted(set(reading.samples["clip"])) == [f"{person}_{task}" for person in ("F001", "M001") for task in ("T1", "T6", "T7", "T8")]
    kinds = {"zip": ["F001.zip", "M001.zip"], "folder": ["F001", "M001"], "both": ["F001.zip", "M001"]}
    assert sorted(path.name for path in (root / "2D+3D").iterdir()) == kinds[images]
    with Images() as opened:
        assert all(opened.read(image)[:2] == b"\xff\xd8" for image in reading.samples["image"])


def test_the_quirks_of_bp4d_plus_are_on_disk_and_the_reader_copes(tmp_path: Path) -> None:
    root = tmp_path / "bp4d_plus"
    written = write(root, **SMALL)
    reading = bp4d_plus.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.select("kind", "file").rows() == [("length mismatch", f"{root}/AUCoding/AU_OCC/F001_T7.csv")]
    assert reading.samples.filter(pl.col("image").is_null())["clip"].to_list() == ["F001_T7"] * 3
    kinds = {"unknown cells", "length mismatch", "task without labels", "recording of the body", "4 digits"}
    assert set(written.quirks["quirk"]) == kinds

    text = (root / "AUCoding/AU_OCC/F001_T1.csv").read_text()
    assert text.splitlines()[0] == HEADER
    assert text.splitlines()[1].startswith("1,")
    assert ",9" in text
    assert any(path.read_text().rstrip().endswith(",9") or ",9\n" in path.read_text() for path in root.glob("AUCoding/AU_INT/*/*.csv"))
    with zipfile.ZipFile(root / "2D+3D/F001.zip") as archive:
        members = archive.namelist()
    assert "F001/T1/0000.jpg" in members
    assert any(member.startswith("F001/T11/") for member in members)
    assert (root / "2D+3D/M001/T1/0.jpg").is_file()
    assert (root / "2D+3D/M001/T2").is_dir()


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        write(tmp_path / name, **SMALL, seed=seed) and tree(tmp_path / name) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    assert first != other


def test_people_have_the_names_of_the_real_ones_women_and_men_in_turn(tmp_path: Path) -> None:
    assert len(set(PEOPLE)) == 140
    assert [sum(person.startswith(sex) for person in PEOPLE) for sex in "FM"] == [82, 58]
    assert PEOPLE[:4] == ["F001", "M001", "F002", "M002"]
    for wrong in ({"subjects": 141}, {"images": "zips"}, {"frames": (2, 9)}, {"frames": (9, 6)}):
        with pytest.raises(RequestError):
            write(tmp_path / "wrong", **wrong)
