"""Folds by group and the guard: what is on both sides of a split is found, whatever it is."""

from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import RequestError
from harness.samples import conform
from harness.splits import by_group, by_lists, check_settings, guard, guard_support, official
from harness.task import Split


def samples_of(subjects: list[str | None], *, frames: int = 3, **columns: Any) -> pl.DataFrame:
    """One clip a subject given, of some frames."""
    rows = [(f"{clip:02}/{frame}.png", f"{clip:02}", frame, subject) for clip, subject in enumerate(subjects) for frame in range(frames)]
    frame = pl.DataFrame(rows, schema={"sample": pl.String, "clip": pl.String, "frame": pl.Int32, "subject": pl.String}, orient="row")
    return conform(frame.with_columns(**columns))


def values(samples: pl.DataFrame, column: str, rows: np.ndarray) -> set[Any]:
    return set(samples[rows][column])


def no_digests(samples: pl.DataFrame) -> np.ndarray:
    return np.full(samples.height, "", dtype="<U32")


# ── folds ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=50, deadline=None)
@given(subjects=st.lists(st.sampled_from([*"abcdefgh", None]), min_size=9, max_size=25), seed=st.integers(0, 1000))
def test_folds_test_every_sample_once_and_share_no_subject_or_clip(subjects: list[str | None], seed: int) -> None:
    samples = samples_of(subjects)
    groups = len({s for s in subjects if s} | {f"clip {n}" for n, s in enumerate(subjects) if s is None})
    if groups < 4:
        with pytest.raises(RequestError, match="4 folds of"):
            by_group(samples, folds=4, group="subject", seed=seed, validation=0.2)
        return
    splits = by_group(samples, folds=4, group="subject", seed=seed, validation=0.2)
    assert np.array_equal(np.sort(np.concatenate([split.test for split in splits])), np.arange(samples.height))
    for split in splits:
        parts = [split.train, split.validation, split.test]
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(samples.height))
        for one, other in combinations(parts, 2):
            assert not (values(samples, "subject", one) & values(samples, "subject", other)) - {None}
            assert not values(samples, "clip", one) & values(samples, "clip", other)
        guard(samples, no_digests(samples), split, group="subject")


def test_folds_do_not_depend_on_the_order_of_the_rows_and_do_on_the_seed() -> None:
    samples = samples_of([f"s{number % 7}" for number in range(20)])
    shuffled = samples.sample(fraction=1, shuffle=True, seed=1)

    def tested(frame: pl.DataFrame, seed: int) -> list[tuple[set[str], set[str]]]:
        splits = by_group(frame, folds=3, group="subject", seed=seed, validation=0.3)
        return [(values(frame, "sample", split.validation), values(frame, "sample", split.test)) for split in splits]

    assert tested(samples, 0) == tested(shuffled, 0)
    assert tested(samples, 0) != tested(samples, 1)


def test_the_validation_part_is_a_share_of_the_training_groups_rounded_up() -> None:
    samples = samples_of([f"s{number}" for number in range(10)])
    for split in by_group(samples, folds=5, group="subject", seed=0, validation=0.3):
        assert [len(values(samples, "subject", rows)) for rows in (split.train, split.validation, split.test)] == [5, 3, 2]
    assert len(by_group(samples, folds=5, group="subject", seed=0, validation=0)[0].validation) == 0


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"folds": 1}, "task.folds"),
        ({"folds": 11}, "task.folds"),
        ({"validation": 1}, "task.validation"),
        ({"group": "actor"}, "task.group"),
    ],
)
def test_folds_that_cannot_be_made_are_one_line(changed: dict[str, Any], where: str) -> None:
    asked: dict[str, Any] = {"folds": 2, "group": "subject", "seed": 0, "validation": 0.1} | changed
    with pytest.raises(RequestError, match=where):
        by_group(samples_of(list("abcdefghij")), **asked)
    with pytest.raises(RequestError, match=r"leaves none of 1 groups"):
        by_group(samples_of(list("ab")), folds=2, group="subject", seed=0, validation=0.1)


def test_the_official_test_part_is_kept_and_validation_is_carved_out_of_training() -> None:
    parts = ["train"] * 12 + ["validation"] * 6
    samples = samples_of([None] * 18, frames=1, split=pl.Series(parts))
    split = official(samples, validation=0.25, seed=0)
    assert split.test.tolist() == list(range(12, 18))
    assert sorted([*split.train, *split.validation]) == list(range(12))
    assert len(split.validation) == 3
    assert official(samples, validation=0, seed=0).train.tolist() == list(range(12))
    with pytest.raises(RequestError, match=r"no official part 'test'; the parts are: train, validation"):
        official(samples, test="test", validation=0.25, seed=0)


def test_identical_images_stay_on_one_side_of_the_validation_part() -> None:
    samples = samples_of([None] * 41, frames=1, split=pl.Series(["train"] * 40 + ["validation"]))
    digests = np.array([f"image{number // 4}" for number in range(40)] + [""])
    for seed in range(5):
        split = official(samples, validation=0.3, seed=seed, digests=digests)
        assert not set(digests[split.train]) & set(digests[split.validation])
        assert len(set(digests[split.validation])) == 3


# ── guard ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

SAMPLES = samples_of(["a", "b", "c", None])  # rows 0-2, 3-5, 6-8, 9-11
SPLIT = Split("s", np.arange(0, 6), np.arange(6, 9), np.arange(9, 12))


def test_a_sound_split_comes_back_with_its_proof() -> None:
    split, proof = guard(SAMPLES, no_digests(SAMPLES), SPLIT, group="subject")
    for part in ("train", "validation", "test"):
        assert np.array_equal(getattr(split, part), getattr(SPLIT, part))
    train = proof["parts"]["train"]
    assert {key: train[key] for key in ("samples", "clips", "groups", "dropped")} == {"samples": 6, "clips": 2, "groups": 2, "dropped": 0}
    hashes = {part["sha256"] for part in proof["parts"].values()}
    assert len(hashes) == 3
    backwards = Split("t", *(getattr(SPLIT, part)[::-1] for part in ("train", "validation", "test")))
    again = guard(SAMPLES, no_digests(SAMPLES), backwards, group="subject")[1]
    assert again == proof, "the proof is of the sets, not of their order"


@pytest.mark.parametrize(
    ("samples", "split", "message"),
    [
        (
            SAMPLES,
            Split("s", np.arange(0, 6), np.arange(5, 9), np.arange(9, 12)),
            r"uses a sample twice: '01/2\.png' \(train\) .*\(validation\)",
        ),
        (SAMPLES, Split("s", np.array([0, 0]), np.array([], int), np.arange(9, 12)), "uses a sample twice"),
        (SAMPLES, Split("s", np.arange(0, 5), np.arange(5, 9), np.arange(9, 12)), "one subject in two parts"),
        (SAMPLES, Split("s", np.arange(0, 10), np.array([], int), np.arange(10, 12)), "one subject in two parts: '03/0.png'"),
        (samples_of(["a", "b", "c", "a"]), SPLIT, r"one subject in two parts: '00/0\.png' \(train\) and '03/2\.png' \(test\)"),
        (SAMPLES, Split("s", np.arange(0, 9), np.array([], int), np.array([], int)), "the test part .* is empty"),
        (SAMPLES, Split("s", np.array([], int), np.arange(0, 9), np.arange(9, 12)), "the train part .* is empty"),
        (SAMPLES, Split("s", np.arange(0, 6), np.arange(6, 9), np.arange(9, 13)), "row 12 of 12"),
        (SAMPLES, Split("s", np.arange(0, 6), np.arange(6, 9), np.array([-1])), "row -1 of 12"),
    ],
)
def test_a_leak_is_refused_and_named(samples: pl.DataFrame, split: Split, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        guard(samples, no_digests(samples), split, group="subject")


def test_a_protocol_by_clip_may_share_subjects_and_still_no_clip() -> None:
    samples = samples_of(["a", "a", "b", "b"])
    guard(samples, no_digests(samples), SPLIT, group="clip")
    with pytest.raises(RequestError, match="one clip in two parts"):
        guard(samples, no_digests(samples), Split("s", np.arange(0, 4), np.arange(4, 9), np.arange(9, 12)), group="clip")


def test_an_identical_image_is_refused_by_name_or_dropped_from_the_side_that_may_lose_it() -> None:
    digests = np.array([f"image{row}" for row in range(12)])
    digests[[0, 7, 10]] = "one"  # in all three parts
    digests[[1, 8]] = "two"  # train and validation
    digests[[2, 3]] = "three"  # twice in training, which is no leak
    with pytest.raises(RequestError, match=r"one image in two parts: '00/\d\.png' \(train\) and .*duplicates=drop"):
        guard(SAMPLES, digests, SPLIT, group="subject")
    split, proof = guard(SAMPLES, digests, SPLIT, group="subject", duplicates="drop")
    assert split.train.tolist() == [2, 3, 4, 5]
    assert split.validation.tolist() == [6, 8]
    assert split.test.tolist() == [9, 10, 11]
    assert [proof["parts"][part]["dropped"] for part in ("train", "validation", "test")] == [2, 1, 0]
    assert guard(SAMPLES, digests, split, group="subject")[0].train.tolist() == split.train.tolist()


def test_a_training_part_that_is_all_in_the_test_is_empty() -> None:
    digests = np.array([str(row % 3) for row in range(12)])
    with pytest.raises(RequestError, match=r"the train part .* is empty"):
        guard(SAMPLES, digests, SPLIT, group="subject", duplicates="drop")
    with pytest.raises(RequestError, match="choose from: refuse, drop"):
        guard(SAMPLES, digests, SPLIT, group="subject", duplicates="ignore")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_is_dropped_no_image_is_left_in_two_parts(data: st.DataObject) -> None:
    bounds = sorted(data.draw(st.lists(st.integers(1, 11), min_size=2, max_size=2, unique=True)))
    samples = samples_of([None] * 12, frames=1)
    split = Split("s", *(np.arange(start, stop) for start, stop in pairwise([0, *bounds, 12])))
    digests = np.array(data.draw(st.lists(st.sampled_from(["", *"abcdefgh"]), min_size=12, max_size=12)))
    elsewhere = {*digests[split.validation], *digests[split.test]} - {""}
    if elsewhere.issuperset(digests[split.train]):
        with pytest.raises(RequestError, match=r"the train part .* is empty"):
            guard(samples, digests, split, group="subject", duplicates="drop")
        return
    kept, proof = guard(samples, digests, split, group="subject", duplicates="drop")
    for one, other in combinations([kept.train, kept.validation, kept.test], 2):
        assert not (set(digests[one]) & set(digests[other])) - {""}
    assert kept.test.tolist() == split.test.tolist()
    lost = sum(part["dropped"] for part in proof["parts"].values())
    assert lost == 12 - len(kept.train) - len(kept.validation) - len(kept.test)


def test_no_support_frame_is_among_the_scored_ones() -> None:
    predictions = SAMPLES.select("sample", "clip", "subject").with_columns(support=pl.Series([True, False, False] * 4))
    units = predictions.filter(~pl.col("support")).group_by("subject", "clip").agg(frames=pl.len())
    guard_support(predictions, units)
    everything = predictions.group_by("subject", "clip").agg(frames=pl.len())
    with pytest.raises(RequestError, match="3 frames of clip '03' are scored, and 2 have no support label"):
        guard_support(predictions, everything)


def test_splitting_imports_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, harness.splits, harness.frames, tasks.datasets.afew_va, tasks.datasets.affectnet; print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout == "False\n"


# ── published lists ──────────────────────────────────────────────────────────────────────────────────────────────────────────

LISTS = [["a", "b"], ["c", "d"], ["e", "f"]]


def test_each_published_list_is_tested_once_and_the_others_train_and_validate() -> None:
    samples = samples_of([*"fedcba", "a"])
    splits = by_lists(samples, LISTS, group="subject", seed=0, validation=0.25)
    assert [values(samples, "subject", split.test) for split in splits] == [set(names) for names in LISTS]
    for split, names in zip(splits, LISTS, strict=True):
        assert values(samples, "subject", split.train) | values(samples, "subject", split.validation) == set("abcdef") - set(names)
        assert len(values(samples, "subject", split.validation)) == 1
        guard(samples, no_digests(samples), split, group="subject")


def test_a_published_fold_may_lack_some_of_its_subjects_but_not_all() -> None:
    samples = samples_of([*"ace"])
    assert [split.test.size for split in by_lists(samples, LISTS, group="subject", seed=0, validation=0)] == [3, 3, 3]
    with pytest.raises(RequestError, match=r"fold 2 \(e, f …\) has no sample"):
        by_lists(samples_of([*"abcd"]), LISTS, group="subject", seed=0, validation=0)


@pytest.mark.parametrize(("subject", "shown"), [("x", "subject x"), (None, "subject null")])
def test_a_subject_that_no_published_fold_names_is_refused_with_a_way_out(subject: str | None, shown: str) -> None:
    with pytest.raises(RequestError, match=rf"{shown} is in none of the 3 published folds.*set task.folds=3"):
        by_lists(samples_of([*"abcdef", subject]), LISTS, group="subject", seed=0, validation=0)


def test_a_subject_in_two_published_folds_is_refused() -> None:
    with pytest.raises(RequestError, match="'a' is in two folds"):
        by_lists(samples_of([*"ab"]), [["a"], ["b", "a"]], group="subject", seed=0, validation=0)


def test_a_validation_part_of_its_own_is_taken_whole() -> None:
    samples = samples_of([*"abcdef"]).with_columns(split=pl.Series(np.repeat(["train", "validation", "test"], 6)))
    split = official(samples, test="test", validation="validation", seed=0)
    assert [values(samples, "subject", part) for part in (split.train, split.validation, split.test)] == [set("ab"), set("cd"), set("ef")]
    with pytest.raises(RequestError, match="the validation part, which is used already"):
        official(samples, test="validation", validation="validation", seed=0)
    with pytest.raises(RequestError, match="no official part 'test'"):
        official(samples.filter(pl.col("split") != "test"), test="validation", validation="test", seed=0)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"folds": [["a"]]}, "folds are no lists"),
        ({"folds": ["a", "b"]}, "folds are no lists"),
        ({"folds": [["a"], []]}, "folds are no lists"),
        ({"folds": 3, "validation": "validation"}, "folds have no official part"),
        ({"folds": [["a"], ["b"]], "validation": "test"}, "folds have no official part"),
        ({"validation": "part"}, "give a share from 0 to below 1"),
    ],
)
def test_settings_of_a_split_that_cannot_be_are_refused(given: dict[str, Any], line: str) -> None:
    with pytest.raises(RequestError, match=line):
        check_settings(**{"folds": 1, "seed": 0, "validation": 0.2, "least_folds": 1} | given)
