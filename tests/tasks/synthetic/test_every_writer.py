"""Every dataset that has a YAML: what its writer meant is what its reader returns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from harness.config import instantiate
from harness.errors import RequestError
from harness.samples import Reading, check
from tasks.synthetic.writing import Written
from tests.tasks.synthetic.compare import assert_same_samples, tree

DATASETS = {path.stem: path for path in sorted((Path(__file__).parents[3] / "configs" / "dataset").glob("*.yaml"))}


def config(dataset: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(DATASETS[dataset].read_text(encoding="utf-8"))
    return found


def small(dataset: str) -> dict[str, Any]:
    """The arguments of the YAML, each number as low as the writer takes it."""
    synth = config(dataset)["synth"]
    least = {name: 0 if name == "seed" else 1 for name, value in synth.items() if type(value) is int}
    return synth | least | {"image": 32} | ({"frames": [1, 1]} if "frames" in synth else {})


def write(dataset: str, root: Path, **more: Any) -> Written:
    """The smallest copy: a number that is refused is set to the one that the refusal names."""
    arguments = small(dataset)
    while True:
        try:
            written: Written = instantiate(arguments | more, root=root)
            return written
        except RequestError as refused:
            told = re.match(r"(\w+)=\d+ is too small; give (\d+) or more", str(refused))
            if not told or told[1] in more:
                raise
            least = int(told[2])
            arguments[told[1]] = [least, least + 2] if told[1] == "frames" else least


def read(dataset: str, root: Path) -> Reading:
    reading: Reading = instantiate(config(dataset)["read"], root=root)
    return reading


@pytest.mark.parametrize("quirks", [False, True], ids=["clean", "with quirks"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_what_was_meant_is_what_is_read(dataset: str, quirks: bool, tmp_path: Path) -> None:
    written = write(dataset, tmp_path / "data", quirks=quirks)
    reading = read(dataset, tmp_path / "data")
    check(reading.samples)
    check(written.samples)
    assert_same_samples(reading.samples.drop("activity"), written.samples.drop("activity"))
    named = reading.samples.select("sample", "activity").join(written.samples.select("sample", meant="activity"), on="sample")
    pairs = named.select("activity", "meant").unique()
    assert pairs.height == pairs["activity"].n_unique() == pairs["meant"].n_unique(), "a YAML may call activities by other names"
    assert reading.samples["image"].drop_nulls().len() > 0
    if not quirks:
        assert reading.problems.filter(pl.col("kind") != "not read").rows() == [], "what nobody asked for is not wrong"
        assert written.quirks.rows() == []
        assert reading.samples["image"].null_count() == 0


@pytest.mark.parametrize("dataset", DATASETS)
def test_quirks_are_named_with_files_that_are_there_and_samples_that_are_meant(dataset: str, tmp_path: Path) -> None:
    written = write(dataset, tmp_path / "data")
    assert written.quirks.height, "they are the default"
    there = {path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*")}
    for quirk, file, sample in written.quirks.iter_rows():
        assert sample is None or sample in written.samples["sample"], quirk
        assert file.split("::")[0] in there or "missing" in quirk or "absent" in quirk, quirk


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_same_seed_writes_the_same_bytes_and_another_does_not(dataset: str, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        write(dataset, tmp_path / name, seed=seed)
    assert tree(tmp_path / "one") == tree(tmp_path / "same")
    assert tree(tmp_path / "one") != tree(tmp_path / "other")
