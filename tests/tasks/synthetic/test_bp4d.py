"""BP4D as it is written and read again."""

from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from harness.errors import RequestError
from harness.samples import au_columns, intensity_columns
from tasks.datasets import bp4d
from tasks.synthetic.bp4d import FOLDS, write
from tests.tasks.synthetic.compare import assert_same_samples, tree

SMALL: dict[str, Any] = {"subjects": 2, "frames": (5, 8), "image": 16}


def test_bp4d_without_quirks_is_read_as_it_was_meant_and_has_no_problem(tmp_path: Path) -> None:
    written = write(tmp_path / "clean", **SMALL, quirks=False)
    reading = bp4d.read(tmp_path / "clean")
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.is_empty()
    assert written.quirks.is_empty()
    assert reading.samples["clip"].n_unique() == 2 * 8
    assert reading.samples["image"].null_count() == 0
    labels = reading.samples.select(au_columns(reading.samples), *intensity_columns(reading.samples))
    assert labels.null_count().sum_horizontal().item() == 0


def test_the_quirks_of_bp4d_are_on_disk_and_the_reader_copes(tmp_path: Path) -> None:
    root = tmp_path / "bp4d"
    written = write(root, **SMALL)
    reading = bp4d.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.select("kind", "file").rows() == [("lines without an image", f"{root}/AUCoding/AU_OCC/F001_T3.csv")]
    assert (
        reading.samples.filter(pl.col("image").is_null())["sample"].to_list()
        == written.quirks.filter(quirk="missing image")["sample"].to_list()
    )
    kinds = {"unknown cells", "unknown action unit", "3 digits", "4 digits", "images without labels", "missing image"}
    assert set(written.quirks["quirk"]) == kinds

    stems = {path: [image.stem for image in path.iterdir()] for path in root.glob("Sequences(2D+3D)/*/*")}
    assert all(int(stem) > 1 for stem in chain(*stems.values()))
    padded = {len(stem) for stem in chain(*stems.values()) if stem.startswith("0")}
    assert padded == {3, 4}
    assert any(len(str(int(names[0]))) == len(names[0]) for names in stems.values())
    table = pl.read_csv(root / "AUCoding/AU_OCC/F001_T2.csv")
    assert table.columns == [str(column) for column in range(100)]
    assert set(table["24"]) == {9}
    assert table["0"].to_list() != [int(stem) for stem in sorted(stems[root / "Sequences(2D+3D)/F001/T2"])]
    levels = pl.concat(pl.read_csv(path, has_header=False) for path in root.glob("AUCoding/AU_INT/*/*.csv"))
    assert set(levels.to_series(1)) >= {0, 1, 9}
    with Image.open(next(root.glob("Sequences(2D+3D)/F001/T1/*.jpg"))) as picture:
        assert picture.size == (16, 16)


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        write(tmp_path / name, **SMALL, seed=seed) and tree(tmp_path / name) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    assert first != other


def test_three_people_fill_the_three_published_folds_and_no_more_than_the_real_ones_are_there(tmp_path: Path) -> None:
    written = write(tmp_path / "three", subjects=3, frames=(5, 5), image=16)
    people = set(written.samples["subject"])
    assert [len(people.intersection(fold.split())) for fold in FOLDS] == [1, 1, 1]
    assert len({person for fold in FOLDS for person in fold.split()}) == 41
    for wrong in ({"subjects": 42}, {"columns": 100}, {"columns": 20}, {"frames": (4, 9)}, {"frames": (9, 5)}):
        with pytest.raises(RequestError):
            write(tmp_path / "wrong", **wrong)
    assert not (tmp_path / "wrong").exists()


def test_what_people_do_tells_which_action_units_they_show(tmp_path: Path) -> None:
    """The premise of CLEF: faces of one activity are alike."""
    samples = write(tmp_path / "bp4d", subjects=20, frames=(14, 14), image=16, quirks=False).samples
    shown = samples.group_by("activity").agg(pl.col("au5", "au10", "au12", "au15").mean())
    rate = {task: dict(zip((5, 10, 12, 15), means, strict=True)) for task, *means in shown.iter_rows()}
    assert rate["T1"][12] > 2 * rate["T2"][12], "a joke makes people smile (AU 12) more than a sad film"
    assert rate["T2"][15] > 2 * rate["T1"][15], "and a sad film pulls the corners of their mouths down (AU 15)"
    assert rate["T3"][5] > 2 * rate["T6"][5], "a sudden sound opens their eyes wide (AU 5), ice water does not"
    assert rate["T8"][10] > 2 * rate["T5"][10], "a smell raises the upper lip (AU 10), a threat does not"
