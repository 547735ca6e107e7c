"""`harness data`: what is on disk, what is wrong with it, and a copy made up to try things on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from harness import checking
from harness.samples import EXPRESSIONS, Problems, Reading, conform
from tests.conftest import Run

POINTS = [[float(10 + i % 10), float(10 + i // 10)] for i in range(68)]


def clip(root: Path, name: str, frames: dict[str, Any], *, actor: str, images: dict[str, int | bytes]) -> None:
    """One AFEW-VA clip; images by stem, of a seed or of bytes."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / f"{name}.json").write_text(json.dumps({"actor": actor, "video_id": name, "frames": frames}, indent=1))
    for stem, content in images.items():
        if isinstance(content, bytes):
            (folder / f"{stem}.png").write_bytes(content)
        else:
            pixels = np.random.default_rng(content).integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{stem}.png")


def label(valence: Any = 3, arousal: Any = -2) -> dict[str, Any]:
    return {"valence": valence, "arousal": arousal, "landmarks": POINTS}


@pytest.fixture(scope="module")
def afew(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of two actors: a label out of range, a missing, an unreadable and a twice used image, a broken JSON."""
    root: Path = tmp_path_factory.mktemp("afew")
    clip(root, "001", {"00000": label(), "00001": label(99), "00002": label()}, actor="One", images={"00000": 1, "00001": 2})
    clip(root, "002", {"00000": label(), "00001": label()}, actor="Two", images={"00000": 1, "00001": b"no image"})
    clip(root, "003", {"00000": label()}, actor="Two", images={"00000": 3})
    (root / "004").mkdir()
    (root / "004" / "004.json").write_text('{"actor": "Three",\n "frames": {')
    return root


def problems(report: dict[str, Any]) -> dict[str, int]:
    return {problem["kind"]: problem["count"] for problem in report["problems"]}


def counts(report: dict[str, Any]) -> dict[str, tuple[int, int | None]]:
    return {count["what"]: (count["found"], count["published"]) for count in report["counts"]}


def test_a_check_counts_what_is_there_and_every_problem_by_kind(harness: Run, afew: Path) -> None:
    done = harness("data", "check", "afew_va", str(afew), "--format", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert problems(report) == {"missing image": 1, "unreadable file": 1, "label out of range": 1}
    found = counts(report)
    assert found["samples"] == (6, None)
    assert found["images"] == (5, None)
    assert found["clips"] == (3, 600)
    assert found["subjects"] == (2, None)
    assert [(row["label"], row["split"], row["samples"]) for row in report["labels"]] == [("valence", "all", 5), ("arousal", "all", 6)]
    (unreadable,) = [problem["examples"][0] for problem in report["problems"] if problem["kind"] == "unreadable file"]
    assert (Path(unreadable["file"]).name, unreadable["line"]) == ("004.json", 2)


def test_opening_the_images_finds_the_unreadable_and_those_of_two_subjects(harness: Run, afew: Path) -> None:
    done = harness("data", "check", "afew_va", str(afew), "--images", "--format", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert problems(report) == {
        "missing image": 1,
        "unreadable file": 1,
        "label out of range": 1,
        "unreadable image": 1,
        "identical images": 1,
    }
    by_kind = {problem["kind"]: problem["examples"][0] for problem in report["problems"]}
    assert by_kind["unreadable image"]["sample"] == "002/00001.png"
    assert by_kind["identical images"]["sample"] == "001/00000.png"
    assert "002/00000.png" in by_kind["identical images"]["detail"]


def test_a_person_reads_file_and_line(harness: Run, afew: Path) -> None:
    done = harness("data", "check", "afew_va", str(afew))
    assert done.returncode == 0, done.stderr
    assert "004.json:2" in done.stdout.replace("\n", "")
    assert "600" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_table_can_be_written_to_a_file(harness: Run, afew: Path, tmp_path: Path) -> None:
    done = harness("data", "check", "afew_va", str(afew), "--format", "csv", "--output", str(tmp_path / "counts.csv"))
    assert done.returncode == 0, done.stderr
    assert dict(pl.read_csv(tmp_path / "counts.csv").select("what", "found").iter_rows())["clips"] == 3


def test_expressions_stand_beside_what_was_published_of_their_part() -> None:
    rows = [("a", "train", "happy"), ("b", "train", "happy"), ("c", "validation", "sad"), ("d", "validation", None)]
    frame = pl.DataFrame(
        [(name, name, split, expression) for name, split, expression in rows],
        schema=["sample", "clip", "split", "expression"],
        orient="row",
    )
    published: dict[str, int | Sequence[int]] = {"train": list(range(100, 108)), "validation": [500] * 8, "clips": 9}
    found = counts(checking.report(Reading(conform(frame), Problems().frame()), published))
    assert found["train happy"] == (2, 100 + EXPRESSIONS.index("happy"))
    assert found["validation sad"] == (1, 500)
    assert found["clips"] == (4, 9)
    assert found["train samples"] == (2, None)


def test_what_was_published_and_is_not_there_is_told_with_its_difference() -> None:
    frame = conform(pl.DataFrame({"sample": ["a"], "clip": ["a"], "split": ["train"], "expression": ["sad"]}))
    report = checking.report(Reading(frame, Problems().frame()), {"subjects": 27, "train": [3, 4, 5]})
    rows = {row["what"]: (row["found"], row["published"], row["difference"]) for row in report["counts"]}
    assert rows["train happy"] == (0, 4, -4)
    assert rows["train sad"] == (1, 5, -4)
    assert rows["subjects"] == (0, 27, -27)
    assert rows["clips"] == (1, None, None)


def test_labels_are_counted_by_part_and_value() -> None:
    frame = conform(
        pl.DataFrame(
            {
                "sample": ["a", "b", "c"],
                "clip": ["a", "b", "c"],
                "split": ["train", "train", "test"],
                "valence": [0.5, -0.1, None],
                "au4": [1, 0, None],
                "au4_intensity": [3, 0, 5],
            }
        )
    )
    report = checking.report(Reading(frame, Problems().frame()), {})
    assert [tuple(row.values()) for row in report["labels"]] == [
        ("valence", "train", 2, pytest.approx(0.2), {}),
        ("au4", "train", 2, 0.5, {"0": 1, "1": 1}),
        ("au4_intensity", "test", 1, 5.0, {"5": 1}),
        ("au4_intensity", "train", 2, 1.5, {"0": 1, "3": 1}),
    ]
    _, labels, _ = checking.tables(report)
    assert labels["values"].to_list() == ["", "0: 1, 1: 1", "5: 1", "0: 1, 3: 1"]


def test_a_clip_or_subject_in_two_official_parts_is_a_problem() -> None:
    frame = conform(
        pl.DataFrame(
            {"sample": list("abc"), "clip": ["v", "v", "w"], "frame": [1, 2, 1], "subject": list("pps"), "split": ["train", "test", None]}
        )
    )
    report = checking.report(Reading(frame, Problems().frame()), {})
    assert problems(report) == {"clip in two parts": 1, "subject in two parts": 1}
    assert report["problems"][0]["examples"][0]["detail"] == "clip v is in test and train"


def test_only_some_examples_of_a_kind_are_told_and_all_are_counted() -> None:
    met = Problems()
    for number in range(5):
        met.add("bad", "file", f"number {number}", line=number)
    met.add("worse", "file")
    empty = conform(pl.DataFrame(schema={"sample": pl.String}))
    report = checking.report(Reading(empty, met.frame()), {}, examples=2)
    assert [(problem["kind"], problem["count"], len(problem["examples"])) for problem in report["problems"]] == [
        ("bad", 5, 2),
        ("worse", 1, 1),
    ]
    _, _, table = checking.tables(report)
    assert table.rows() == [("bad", 5, "file:0", "number 0"), ("bad", 5, "file:1", "number 1"), ("worse", 1, "file", "")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["check", "afew", "."], "did you mean 'afew_va'?"),
        (["check", "afew_va", "/nowhere"], "no such folder: /nowhere"),
        (["check", "afew_va", "."], "no clip in"),
        (["check", "afew_va", ".", "--format", "jsn"], "did you mean 'json'?"),
        (["check", "afew_va", ".", "--examples", "few"], "--examples"),
        (["chekc", "afew_va", "."], "check"),
        (["synth", "afew_va", "x", "subject=2"], "did you mean 'subjects'?"),
        (["synth", "afew_va", "x", "--subject", "2"], "did you mean 'subjects'?"),
        (["synth", "afew_va", "x", "frames=[2"], "'[2' is no value"),
        (["check", "affectnet", ".", "distribution=2051"], "did you mean '2021'?"),
        (["check", "affectnet", ".", "distributions=2021"], "did you mean 'distribution'?"),
        (["cache", "afew_va", ".", "--task", "afew_vaa"], "did you mean 'afew_va'?"),
        (["cache", "affectnet", ".", "--task", "afew_va"], "no task reads affectnet (--task afew_va)"),
    ],
)
def test_a_wrong_request_is_one_line(harness: Run, tmp_path: Path, arguments: list[str], expected: str) -> None:
    done = harness("data", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr


def test_a_copy_is_made_up_checked_and_cached(harness: Run, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    options = ("--config-dir", "configs")
    assert harness("data", "synth", "toy", str(root), "subjects=3", "--clips", "1", "--seed=1", *options).returncode == 0
    checked = harness("data", "check", "toy", str(root), "--format", "json", *options)
    assert counts(json.loads(checked.stdout))["samples"] == (24, None)
    assert problems(json.loads(checked.stdout)) == {}
    cached = harness("data", "cache", "toy", str(root), f"output_dir={tmp_path / 'out'}", *options)
    assert cached.returncode == 0, cached.stderr
    assert "24 frames of toy are in the cache" in cached.stderr
    assert list((tmp_path / "out" / "cache" / "frames").glob("*/*.frames"))
