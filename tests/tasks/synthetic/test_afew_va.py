"""AFEW-VA as it is written and read again."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from tasks.datasets import afew_va
from tasks.synthetic.afew_va import write
from tests.tasks.synthetic.compare import assert_same_samples

SMALL = {"subjects": 3, "clips": 5, "frames": (4, 7), "image": 48}


def test_afew_va_is_read_as_it_was_meant(tmp_path: Path) -> None:
    written = write(tmp_path / "clean", **SMALL, quirks=False)
    reading = afew_va.read(tmp_path / "clean")
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.is_empty()
    assert written.quirks.is_empty()
    assert reading.samples["subject"].n_unique() == 3
    assert set(np.round(reading.samples["valence"] * 10, 6) % 1) == {0.0}


def test_the_quirks_of_afew_va_are_on_disk_and_the_reader_copes(tmp_path: Path) -> None:
    root = tmp_path / "afew"
    written = write(root, **SMALL)
    reading = afew_va.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems["kind"].sort().to_list() == ["actor spelled in several ways", "missing image"]
    assert {path.relative_to(root).as_posix() for path in root.rglob("*.json")} == {
        *(f"01/{clip}/{clip}.json" for clip in ("001", "003", "005")),
        *(f"{clip}/{clip}.json" for clip in ("002", "004")),
    }
    assert "01/001/00001.jpg" in reading.samples["sample"]
    (missing,) = written.quirks.filter(quirk="missing image")["sample"]
    assert reading.samples.filter(pl.col("image").is_null())["sample"].to_list() == [missing]
    assert not (root / missing).exists()
    assert (root / "01/001_cropped").is_dir()
    values = {type(frame["valence"]) for path in root.rglob("*.json") for frame in json.loads(path.read_text())["frames"].values()}
    assert values == {int, float}
    assert set(written.quirks["quirk"]) == {"flattened", "float labels", "other spelling", "missing image", "jpeg", "cropped leftover"}
