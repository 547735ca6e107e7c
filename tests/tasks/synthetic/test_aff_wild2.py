"""Editions of Aff-Wild2 as they are written and read again."""

from pathlib import Path

import polars as pl
import pytest

from harness.errors import RequestError
from harness.samples import au_columns
from tasks.datasets import aff_wild2
from tasks.synthetic.aff_wild2 import write
from tests.tasks.synthetic.compare import assert_same_samples, tree

SMALL = {"subjects": 12, "clips": 12, "frames": (20, 24), "image": 16}


def kinds(problems: pl.DataFrame) -> dict[str, int]:
    return dict(problems["kind"].value_counts().iter_rows())


@pytest.mark.parametrize("edition", ["1", "3", "5", "6"])
def test_an_edition_is_read_as_it_was_meant(tmp_path: Path, edition: str) -> None:
    written = write(tmp_path / "x", edition=edition, **SMALL)
    reading = aff_wild2.read(tmp_path / "x")
    assert_same_samples(reading.samples, written.samples)
    lists = {} if edition == "1" else {"not read": 1}
    assert kinds(reading.problems) == {"lines without an image": 2, "two splits": 1} | lists
    assert au_columns(reading.samples) == [
        f"au{au}" for au in ((1, 2, 4, 6, 12, 15, 20, 25) if edition == "1" else aff_wild2.AFF_WILD2_AUS)
    ]
    assert set(reading.samples["split"]) == {"train", "validation", "test", None}


@pytest.mark.parametrize("edition", ["4", "7"])
def test_an_edition_of_lists_is_read_as_it_was_meant(tmp_path: Path, edition: str) -> None:
    written = write(tmp_path / "x", edition=edition, **SMALL)
    reading = aff_wild2.read(tmp_path / "x")
    assert_same_samples(reading.samples, written.samples)
    missing = written.quirks.filter(quirk="missing image")
    assert reading.problems.select("kind", "sample").rows() == [("missing image", sample) for sample in missing["sample"]]
    assert missing.height == 4


def test_each_challenge_has_the_labels_it_has_together_with_the_others(tmp_path: Path) -> None:
    together = write(tmp_path / "x", **SMALL).samples
    split = pl.col("split").is_null() & pl.col("sample").is_not_null()
    aus = au_columns(together)
    for challenge, labels in {"va": ["valence", "arousal"], "expr": ["expression"], "au": aus}.items():
        alone = aff_wild2.read(tmp_path / "x", challenge=challenge).samples
        assert not alone["split"].is_null().any()
        assert all(alone[other].is_null().all() for other in ("valence", "arousal", "expression") if other not in labels)
        both = alone.join(together, on="sample", suffix="_together")
        assert both.height == alone.height
        for label in labels:
            assert both[label].to_list() == both[f"{label}_together"].to_list()
        conflicting = together.filter(split)["clip"].unique()
        parts = alone.filter(pl.col("clip").is_in(conflicting.implode()))["split"].unique().to_list()
        assert parts == (["validation"] if challenge == "au" else ["train"])


def test_the_lists_say_what_the_files_say(tmp_path: Path) -> None:
    together = write(tmp_path / "x", **SMALL).samples
    reading = aff_wild2.read(tmp_path / "x", challenge="mtl")
    listed = reading.samples
    assert kinds(reading.problems) == {"missing image": 4}
    assert listed["image"].null_count() == 4
    assert set(listed["split"]) == {"train", "validation", "test"}
    clips = together.filter(pl.any_horizontal(pl.col("au1", "expression").is_not_null()))
    both = listed.join(clips, on="sample", suffix="_there")
    assert both.height > 0.4 * clips.height
    labelled_by_all = both.filter(pl.col("au1_there").is_not_null())
    for label in ("valence", "arousal", "expression", *au_columns(listed)):
        assert labelled_by_all[label].to_list() == labelled_by_all[f"{label}_there"].to_list()
    partly = listed.filter(
        pl.col("valence").is_null() & pl.col("expression").is_not_null() & pl.col("au1").is_null() & (pl.col("split") != "test")
    )
    assert partly.height == 1


def test_every_quirk_is_in_the_files(tmp_path: Path) -> None:
    root = tmp_path / "x"
    quirks = write(root, **SMALL).quirks
    found = {quirk: (root / file) for quirk, file in quirks.select("quirk", "file").iter_rows()}
    assert set(found) == {
        "second folder of images", "two faces", "-5 in valence alone", "-5 in arousal alone", "-5 in both", "-1", "-1 in all", "-1 in some",
        "one task only", "more lines than images", "gap in the images", "train of va, validation of au", "not in the challenge au",
        "one line fewer", "notes beside the labels", "header with a blank", "missing image",
    }  # fmt: skip
    assert all(path.exists() for path in found.values())
    assert found["-5 in both"].read_text().splitlines()[7] == "-5,-5"
    valence, arousal = found["-5 in valence alone"].read_text().splitlines()[5].split(",")
    assert valence == "-5"
    assert -1 <= float(arousal) <= 1
    assert found["-1 in some"].read_text().splitlines()[6].count("-1") == 4
    assert found["-1 in all"].read_text().splitlines()[5] == ",".join(["-1"] * 12)
    assert found["header with a blank"].read_text().startswith("AU1, AU2")
    faces = quirks.filter(quirk="two faces")["file"].to_list()
    stems = [Path(file).stem for file in faces]
    assert stems[1] == f"{stems[0]}_right"
    assert [stem.rsplit("_", 1)[1] for stem in stems[2:]] == ["left", "right"]
    video = found["more lines than images"].stem
    lines = len(found["more lines than images"].read_text().splitlines()) - 1
    assert len(list((root / "cropped_aligned" / video).iterdir())) == lines - 3
    rows = [len(line.split(",")) for line in next(root.glob("*/MTL_Challenge/train_set.txt")).read_text().splitlines()]
    assert (rows[0], set(rows[1:])) == (5, {16})


@pytest.mark.parametrize("edition", ["1", "4", "6"])
def test_without_quirks_nothing_is_wrong(tmp_path: Path, edition: str) -> None:
    written = write(tmp_path / "x", edition=edition, quirks=False, mtl=False, **SMALL)
    reading = aff_wild2.read(tmp_path / "x")
    assert_same_samples(reading.samples, written.samples)
    assert reading.problems.is_empty()
    assert written.quirks.is_empty()
    labelled = reading.samples.filter(pl.col("split") != "test")
    assert labelled.select("image", "valence", "arousal", *au_columns(labelled)).null_count().sum_horizontal().item() == 0


@pytest.mark.parametrize(("edition", "folder"), [("5", "EXPR_Classification_Challenge"), ("6", "EXPR_Recognition_Challenge")])
def test_the_same_seed_writes_the_same_bytes_and_the_edition_its_own_names(tmp_path: Path, edition: str, folder: str) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, edition=edition, **SMALL)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert len(list((tmp_path / "a").glob(f"*/{folder}/Train_Set/*.txt"))) == 7
    write(tmp_path / "c", edition=edition, seed=1, **SMALL)
    assert tree(tmp_path / "c") != tree(tmp_path / "a")


def test_nobody_is_in_two_parts(tmp_path: Path) -> None:
    samples = write(tmp_path / "x", quirks=False, **SMALL).samples
    assert samples.group_by("split").agg(pl.col("clip").n_unique()).sort("split").rows() == [("test", 2), ("train", 7), ("validation", 3)]
    assert samples["subject"].n_unique() == 12


@pytest.mark.parametrize("wrong", [{"edition": "2"}, {"clips": 5}, {"frames": (30, 20)}, {"subjects": 2}])
def test_what_cannot_be_written_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        write(tmp_path / "x", **SMALL | wrong)
    assert not (tmp_path / "x").exists()
