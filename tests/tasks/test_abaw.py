"""The ABAW tasks from the labels on disk to the file that is handed in."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from harness import config, evaluation, plan, snapshot
from harness.errors import RequestError
from harness.samples import Problems
from harness.store import Store
from tasks.datasets.abaw_submissions import read_submission
from tests.conftest import Run

SMALL = ["tracker=none", "baseline=mean_label", "task.dataset.synth.clips=12", "task.dataset.synth.frames=[20,24]", "task.frames.size=16"]


def evaluated(root: Path, *overrides: str) -> Store:
    """A store with one evaluation of the best constant."""
    sweep = plan.Sweep("s", "", {"mean_label": []}, {}, [*SMALL, *overrides])
    made = plan.build(sweep, snapshot_of=lambda node, _: snapshot.take(node, root / "cache"))
    store = Store(root / "store")
    for job in made.jobs.values():
        assert evaluation.run(job, store) == evaluation.Outcome(made=1)
    return store


@pytest.fixture(scope="module")
def to_hand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store in which the valence-arousal challenge's test part, whose labels nobody has, was predicted."""
    root: Path = tmp_path_factory.mktemp("abaw")
    evaluated(root, "task=abaw_va", "task.test=test")
    return root


def test_a_test_part_without_labels_is_predicted_and_its_score_is_undefined(to_hand_in: Path) -> None:
    (record,) = Store(to_hand_in / "store").records().iter_rows(named=True)
    assert record["score"] is None
    assert record["n_samples"] > 10


def test_predictions_are_exported_as_the_challenge_wants_them_and_read_back(harness: Run, to_hand_in: Path) -> None:
    store = Store(to_hand_in / "store")
    (record,) = store.records().iter_rows(named=True)
    predictions = store.read_predictions(record["predictions"], record["sha256"])
    target = to_hand_in / "submission"
    done = harness("export", record["evaluation"][:8], "--output-dir", str(to_hand_in), "--to", str(target))
    assert done.returncode == 0, done.stderr
    (file,) = target.iterdir()
    assert file.read_text().startswith("image_location,valence,arousal\n")
    problems = Problems()
    back = read_submission(file, "va", problems)
    assert problems.frame().is_empty()
    assert back.height == predictions.height
    both = back.join(predictions, on=["clip", "frame"], suffix="_ours")
    assert both.height == predictions.height
    assert (both["valence_pred"] - both["valence_pred_ours"]).abs().max() < 1e-6


def test_the_sample_file_fixes_rows_and_order_and_what_had_to_be_filled_is_said(harness: Run, to_hand_in: Path) -> None:
    store = Store(to_hand_in / "store")
    (record,) = store.records().iter_rows(named=True)
    clip = store.read_predictions(record["predictions"], record["sha256"])["clip"][0]
    order = to_hand_in / "sample.txt"
    order.write_text(f"image_location,valence,arousal\n{clip}/00900.jpg,0,0\n{clip}/00002.jpg,0,0\n")
    target = to_hand_in / "ordered"
    done = harness("export", record["evaluation"], "--output-dir", str(to_hand_in), "--to", str(target), "--order", str(order))
    assert done.returncode == 0, done.stderr
    (file,) = target.iterdir()
    assert [line.split(",")[0] for line in file.read_text().splitlines()[1:]] == [f"{clip}/00900.jpg", f"{clip}/00002.jpg"]
    assert "filled from the nearest frame" in done.stderr


def test_older_editions_had_a_file_a_video(harness: Run, to_hand_in: Path) -> None:
    (record,) = Store(to_hand_in / "store").records().iter_rows(named=True)
    target = to_hand_in / "per_video"
    done = harness("export", record["evaluation"], "task.layout=per_video", "--output-dir", str(to_hand_in), "--to", str(target))
    assert done.returncode == 0, done.stderr
    assert len(list(target.iterdir())) == record["n_clips"]
    for arguments, line in {"task.layout=per_vidoe": "did you mean 'per_video'", "task.lay=single": "no such key: task.lay"}.items():
        wrong = harness("export", record["evaluation"], arguments, "--output-dir", str(to_hand_in), "--to", str(target))
        assert wrong.returncode == 2
        assert line in wrong.stderr


def test_the_multi_task_challenge_is_scored_by_the_sum_of_its_parts(tmp_path: Path) -> None:
    store = evaluated(tmp_path, "task=abaw_mtl")
    (record,) = store.records().iter_rows(named=True)
    metrics = pl.Series([record["metrics"]]).str.json_decode(
        pl.Struct(dict.fromkeys(("p_mtl", "ccc", "f1_expression", "f1_au", "accuracy_expression"), pl.Float64))
    )[0]
    assert record["score"] == metrics["p_mtl"] == pytest.approx(metrics["ccc"] + metrics["f1_expression"] + metrics["f1_au"])
    assert metrics["ccc"] == 0, "a constant agrees with nothing"
    assert 0 < metrics["f1_au"] < 1
    predictions = store.read_predictions(record["predictions"], record["sha256"])
    assert set(predictions["expression"].drop_nulls()) <= {"neutral", "anger", "disgust", "fear", "happy", "sad", "surprise", "other"}


@pytest.mark.parametrize("name", ["abaw_va", "abaw_expression", "abaw_au", "abaw_mtl"])
def test_each_challenge_reads_its_own_labels(name: str) -> None:
    task = config.compose([f"task={name}"])["task"]
    assert task["challenge"] == task["dataset"]["read"]["challenge"]


@pytest.mark.parametrize(
    ("changed", "line"),
    [("task.challenge=vaa", "did you mean 'va'"), ("task.layout=per-video", "did you mean 'per_video'")],
)
def test_a_challenge_that_is_none_is_refused(changed: str, line: str) -> None:
    with pytest.raises(RequestError, match=line):
        plan.make_task(config.compose(["task=abaw_va", changed])["task"])


def test_a_task_of_no_challenge_has_no_submission() -> None:
    task = plan.make_task(config.compose(["task=afew_va"])["task"])
    with pytest.raises(RequestError, match="afew_va is of no challenge"):
        task.submission(pl.DataFrame(), Problems())


def test_an_evaluation_that_is_not_there_is_one_line(harness: Run, tmp_path: Path) -> None:
    done = harness("export", "abc", "--output-dir", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: no evaluations begin with 'abc'")
    assert len(done.stderr.splitlines()) == 1
