"""New scores from stored predictions: no model, no torch, and nothing lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from harness import evaluation, plan, snapshot
from harness.errors import RequestError
from harness.plan import Plan, Sweep
from harness.rescoring import Rescored, rescore_task
from harness.store import Store
from harness.sweep import stale_provenance
from tests.conftest import PLUGIN, Run

EXTRA = [PLUGIN / "configs"]
FACTS = ["evaluation", "fit", "arm", "setting", "score", "metrics", "protocol", "task_version", "predictions", "sha256"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def planned(cache: Path, *more: str) -> Plan:
    axes = {"evaluate.support.size": [1, 2]}
    sweep = Sweep("s", "", {"mean_label": ["baseline=mean_label"]}, axes, ["task=toy", "tracker=none", *more])
    return plan.build(sweep, extra=EXTRA, snapshot_of=lambda node, _: snapshot.take(node, cache))


@pytest.fixture(scope="module")
def original(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two evaluations of the task as it is, and two of it with three folds."""
    store = Store(tmp_path_factory.mktemp("original") / "store")
    for made in (planned(cache), planned(cache, "task.folds=3")):
        for job in made.jobs.values():
            evaluation.run(job, store)
    return store


@pytest.fixture
def store(original: Store, tmp_path: Path) -> Store:
    return Store(Path(shutil.copytree(original.root, tmp_path / "store")))


@pytest.fixture
def newer(tmp_path: Path) -> list[Path]:
    """Config folders in which the toy task has another version."""
    folder = tmp_path / "newer" / "task"
    folder.mkdir(parents=True)
    text = (PLUGIN / "configs" / "task" / "toy.yaml").read_text()
    (folder / "toy.yaml").write_text(text.replace("version: 1", "version: 2"))
    return [folder.parent, *EXTRA]


def test_the_same_task_gives_the_same_scores_under_the_same_names(store: Store) -> None:
    before = store.records()
    assert rescore_task("toy", store, EXTRA) == Rescored(4, 0, [])
    assert store.records().select(FACTS).equals(before.select(FACTS))
    assert store.units(before["evaluation"]).equals(Store(store.root).units(before["evaluation"]))


def test_another_version_stands_beside_the_old_one_and_each_keeps_its_folds(store: Store, newer: list[Path]) -> None:
    before = store.records()
    assert rescore_task("toy", store, newer) == Rescored(4, 0, [])
    after = store.records()
    assert after.height == 8
    assert after.join(before, on="evaluation", how="semi").select(FACTS).equals(before.select(FACTS))
    added = after.join(before, on="evaluation", how="anti")
    assert set(added["task_version"]) == {2}
    same = ["predictions", "sha256", "fit", "protocol", "score", "metrics", "labels_used"]
    assert added.select(same).sort("predictions").equals(before.select(same).sort("predictions"))
    assert dict(added["protocol"].value_counts().iter_rows()) == {"toy-2-folds-seed-0": 2, "toy-3-folds-seed-0": 2}
    sums = store.units(added["evaluation"])
    assert sums.group_by("evaluation").agg(pl.col("frames").sum()).height == 4


def test_a_sweep_finds_what_was_scored_again(store: Store, newer: list[Path], cache: Path) -> None:
    rescore_task("toy", store, newer)
    for more in ((), ("task.folds=3",)):
        made = planned(cache, "task.version=2", *more)
        assert made.pending(store).is_empty()


def test_a_score_that_changes_is_counted_and_is_that_of_the_code_as_it_is_now(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "from harness.task import Score",
        "from tasks.few_shot import FewShotVideo",
        "class Halved(FewShotVideo):",
        "    def score(self, predictions):",
        "        score = super().score(predictions)",
        "        return Score(score.metrics | {'ccc': score.metrics['ccc'] / 2}, score.units)",
    ]
    (tmp_path / "halved.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "halved" / "task"
    folder.mkdir(parents=True)
    text = (PLUGIN / "configs" / "task" / "toy.yaml").read_text()
    (folder / "toy.yaml").write_text(text.replace("tasks.few_shot.FewShotVideo", "halved.Halved"))
    before = store.records()
    assert rescore_task("toy", store, [folder.parent, *EXTRA]) == Rescored(4, 4, [])
    after = store.records()
    assert after["evaluation"].equals(before["evaluation"])
    assert after["score"].to_list() == pytest.approx([score / 2 for score in before["score"]])


def test_what_was_scored_by_the_code_as_it_is_now_is_not_stale(store: Store) -> None:
    for record in store.records().iter_rows(named=True):
        known = store.provenance(record["provenance"])
        old = store.put(known | {"sources": known["sources"] | {"tasks.few_shot.FewShotVideo": "of old"}})
        store.write_record({**record, "provenance": old}, store.units([record["evaluation"]]).drop("evaluation"))
    assert len(stale_provenance(store, set(store.records()["provenance"]))) == 2
    assert rescore_task("toy", store, EXTRA).problems == []
    assert stale_provenance(store, set(store.records()["provenance"])) == []


def test_predictions_that_are_damaged_or_gone_are_told_and_stop_no_other(store: Store) -> None:
    first, second, *_ = store.records().iter_rows(named=True)
    (store.root / first["predictions"]).write_bytes(b"PAR1 and nothing else")
    (store.root / second["predictions"]).unlink()
    (store.root / "provenance" / "nothing.json").write_text("{")
    again = rescore_task("toy", store, EXTRA)
    assert again.done == 2
    assert sorted(problem.split(":")[0] for problem in again.problems) == [
        "the predictions are gone",
        "the predictions are not what was written",
    ]
    assert store.records().height == 4


def test_a_record_whose_provenance_is_gone_is_told(store: Store) -> None:
    shutil.rmtree(store.root / "provenance")
    again = rescore_task("toy", store, EXTRA)
    assert again.done == 0
    assert all("provenance" in problem and "is gone" in problem for problem in again.problems)
    assert len(again.problems) == 4


def test_a_task_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(RequestError, match="no task is called 'toy'"):
        rescore_task("toy", store, [])


def test_the_verb_scores_without_torch_and_says_what_it_did(store: Store, newer: list[Path]) -> None:
    folders = [text for folder in newer for text in ("--config-dir", str(folder))]
    script = (
        f"import sys; sys.argv = ['harness', 'rescore', 'toy', '--output-dir', {str(store.root.parent)!r}, *{folders!r}]\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print('END', end.code, sorted({'torch', 'ray', 'transformers', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PLUGIN, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "END 0 []\n", done.stderr
    assert done.stderr == "toy: 4 evaluations scored again, 0 scores changed\n"
    assert store.records().height == 8


def test_the_verb_goes_on_after_a_task_it_does_not_know_and_fails(store: Store, harness: Run) -> None:
    record = next(store.records().iter_rows(named=True))
    units = store.units([record["evaluation"]]).drop("evaluation")
    store.write_record({**record, "evaluation": "x", "task": "another"}, units)
    done = harness("rescore", "--output-dir", str(store.root.parent), "--config-dir", "configs")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == "toy: 4 evaluations scored again, 0 scores changed"
    assert second.startswith("error: no task is called 'another'")
