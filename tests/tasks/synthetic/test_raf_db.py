"""RAF-DB as it is written and read again."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.datasets import raf_db
from tasks.synthetic.raf_db import write
from tests.tasks.synthetic.compare import assert_same_samples, tree

SMALL = {"train": 40, "test": 12, "image": 32}


def test_raf_db_is_read_as_it_was_meant(tmp_path: Path) -> None:
    root = tmp_path / "raf"
    written = write(root, **SMALL)
    reading = raf_db.read(root)
    assert_same_samples(reading.samples, written.samples)
    assert reading.samples.drop_nulls("split").group_by("split").len().sort("split").rows() == [("test", 12), ("train", 40)]
    assert sorted(reading.problems["kind"]) == ["image without a label", "missing image"]
    content = (root / "basic/EmoLabel/list_patition_label.txt").read_text()
    assert content.startswith("train_00001.jpg ")
    assert "\ntest_0012.jpg " in content
    assert not content.endswith("\n")
    compound = {int(line.split()[1]) for line in (root / "compound/EmoLabel/list_patition_label.txt").read_text().splitlines()}
    assert max(compound) > 7
    cut = written.quirks.filter(quirk="unreadable image")["file"][0]
    with pytest.raises(OSError, match=r"[Tt]runcated"):
        Image.open(root / cut).load()


def test_the_originals_show_the_same_faces_in_wider_pictures(tmp_path: Path) -> None:
    root = tmp_path / "raf"
    aligned = write(root, **SMALL, quirks=False).samples
    originals = raf_db.read(root, images="original").samples
    assert originals["expression"].to_list() == aligned["expression"].to_list()
    for small, large in zip(aligned["image"][:5], originals["image"][:5], strict=True):
        with Image.open(small) as face, Image.open(large) as photograph:
            assert face.size == (32, 32)
            assert min(photograph.size) > 36
            inner, outer = np.asarray(face, float), np.asarray(photograph, float)
            windows = np.lib.stride_tricks.sliding_window_view(outer, inner.shape)[..., 0, :, :, :]
            assert np.abs(windows - inner).mean(axis=(-3, -2, -1)).min() < 12


def test_raf_db_without_quirks_has_no_problem(tmp_path: Path) -> None:
    written = write(tmp_path / "clean", **SMALL, quirks=False)
    reading = raf_db.read(tmp_path / "clean")
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.is_empty()
    assert written.quirks.is_empty()
    assert reading.samples.select("image", "expression", "split").null_count().sum_horizontal().item() == 0
    assert "contempt" not in reading.samples["expression"]


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        write(tmp_path / name, train=8, test=2, image=24, seed=seed)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") != tree(tmp_path / "c")
