"""Two of anything in a store against each other; and the slices of a leaderboard."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness import metrics, slices
from harness.comparison import compare
from harness.errors import RequestError
from harness.publish.difference import by_subject
from harness.statistics import Panel, holm
from harness.store import Store
from tests.conftest import Run

TARGETS = ("valence", "arousal")


def frame(arm: str, error: float, fold: int, seed: int = 0) -> pl.DataFrame:
    """Eight subjects of two clips of 8 or 24 frames; the labels are the same for everybody. Everybody fails on subject 3, ``good`` most."""
    labels, noise = np.random.default_rng(fold), np.random.default_rng([fold, seed, *map(ord, arm)])
    length = np.tile([8, 24], 8)
    clip = np.repeat(np.arange(16), length)
    subject = clip // 2
    y = labels.normal(0, 0.3, (16, 2))[clip] + labels.normal(0, 0.2, (len(clip), 2))
    worse = np.where(subject == 3, 3.0 if arm == "good" else 1.5, 1.0)[:, None]
    p = y + worse * error * noise.normal(0, 1, y.shape)
    names = pl.DataFrame({"clip": [f"c{fold}{i:02}" for i in clip], "subject": [f"s{fold}{i}" for i in subject]})
    return names.with_columns(valence=y[:, 0], arousal=y[:, 1], valence_pred=p[:, 0], arousal_pred=p[:, 1])


def put(
    store: Store, arm: str, error: float, *, folds: Sequence[int] = (0, 1), setting: dict[str, Any] | None = None, **facts: Any
) -> None:
    for fold in folds:
        commit = facts.pop("commit", None)
        units = metrics.units(frame(arm, error, fold), targets=TARGETS)
        found = metrics.metrics(units)
        name = f"{arm}-{json.dumps(setting or {})}-{fold}-{facts.get('tag', '')}"
        known = {"evaluation": name, "fit": f"fit-{arm}-{fold}-{facts.get('tag', '')}", "task": "t", "task_version": 1, "protocol": "p"}
        known |= {"dataset": "d", "data": "f", "synthetic": True, "primary": "ccc", "baseline": arm, "baseline_version": 1, "arm": arm}
        known |= {
            "fold": fold,
            "seed": 0,
            "setting": json.dumps(setting or {}),
            "score": found["ccc"],
            "control": False,
            "selection": "last",
        }
        known |= {"metrics": json.dumps({what: None if math.isnan(value) else value for what, value in found.items()}), "written": "2026"}
        known |= {"labels_used": 0, "n_samples": 256, "n_clips": 16, "n_subjects": 8}
        known |= {"provenance": store.put({"environment": {"commit": commit or "abc123"}})}
        store.write_record(known | {key: value for key, value in facts.items() if key != "tag"}, units)
        facts |= {"commit": commit} if commit else {}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    kept = Store(tmp_path / "store")
    put(kept, "good", 0.1)
    put(kept, "poor", 0.3)
    for size in ("1", "4"):
        put(kept, "few", 0.5 / int(size), setting={"support": {"size": size}, "anchor": "mean"})
    put(kept, "ridge", 0.4, setting={"support": {"size": "1"}})
    put(kept, "ridge", 0.3, setting={"support": {"size": "4"}})
    return kept


def refused(store: Store, a: str, b: str, **options: Any) -> str:
    with pytest.raises(RequestError) as error:
        compare(store, a, b, task="t", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_difference_is_the_panels_with_holm_over_the_metrics_shown(store: Store) -> None:
    found = compare(store, "good", "poor", task="t", draws=500)
    assert found.metrics["metric"].to_list() == ["ccc", "pcc", "rmse", "sagr"]
    folds = store.records().select("evaluation", "fold")
    panel = Panel(store.units([*found.a.evaluations, *found.b.evaluations]).join(folds, on="evaluation"), draws=500)
    each = [panel.difference(found.a.evaluations, found.b.evaluations, metric) for metric in found.metrics["metric"]]
    assert found.metrics["difference"].to_list() == pytest.approx([one.value for one in each])
    assert found.metrics["lo"].to_list() == pytest.approx([one.lo for one in each])
    assert found.metrics["p"].to_list() == pytest.approx(holm(np.array([one.p for one in each])).tolist())
    assert found.metrics.filter(metric="rmse")["difference"][0] < 0
    assert set(found.metrics["better"]) == {"good"}


def test_the_subject_where_they_differ_most_is_scored_on_its_frames_alone(store: Store) -> None:
    found = compare(store, "good", "poor", task="t", metrics=["rmse"], draws=100)
    for table, place in ((found.subjects, ["subject"]), (found.clips, ["subject", "clip"])):
        first = table.row(0, named=True)
        assert table["difference"].abs().is_sorted(descending=True)
        for side, error in (("good", 0.1), ("poor", 0.3)):
            own = frame(side, error, first["fold"]).filter(*(pl.col(name) == first[name] for name in place))
            rmse = np.mean([math.sqrt(((own[target] - own[f"{target}_pred"]) ** 2).mean()) for target in TARGETS])  # type: ignore[arg-type]
            assert first["a" if side == "good" else "b"] == pytest.approx(rmse)
            assert first["frames"] == own.height
    assert (found.subjects.height, found.clips.height) == (16, 32)


def test_a_name_of_several_rows_is_refused_with_one_that_is_a_row(store: Store) -> None:
    said = refused(store, "few", "good")
    assert said == "few fits 2 rows: support.size 1, 4 (harness compare); narrow it: few@support.size=1"
    assert compare(store, "few@support.size=1", "good", task="t", draws=50).a.name == "few"


def test_what_one_leaves_open_is_taken_from_the_other(store: Store) -> None:
    found = compare(store, "few@size=4", "ridge", task="t", draws=50)
    assert found.b.records["support.size"].unique().to_list() == ["4"]
    assert found.notes[-1] == "ridge: at the setting of few@size=4, support.size=4."
    assert compare(store, "few@size=4", "few@size=1", task="t", draws=50).b.name == "few size=1"


def test_an_evaluation_a_fit_a_version_and_a_commit_can_be_named(store: Store) -> None:
    put(store, "good", 0.2, baseline_version=2, commit="fed987", tag="two")
    assert "fits 2 rows: baseline_version 1, 2" in refused(store, "good", "poor")
    for one, other in (("good@version=1", "good@version=2"), ("good@git=abc", "good@git=fed"), ("fit-good-0-two", "fit-poor-0-")):
        assert compare(store, one, other, task="t", draws=50).metrics["difference"][0] > 0
    assert compare(store, "good@git=abc", "good@git=fed", task="t", draws=50).b.name == "good baseline_version=2"
    assert "choose from: abc123, fed987" in refused(store, "good@git=zzz", "poor")


def test_what_may_not_share_a_table_is_said_to_differ(store: Store) -> None:
    put(store, "other", 0.2, protocol="q", data="g")
    assert "they differ in protocol p and q; data f and g" in refused(store, "good", "other")


def test_the_validation_part_is_compared_only_when_asked_for(store: Store) -> None:
    put(store, "hidden", 0.2, protocol="p/validation-part")
    put(store, "good", 0.1, protocol="p/validation-part", tag="v")
    assert "nothing of t is called 'hidden'" in refused(store, "hidden", "good")
    assert compare(store, "hidden@protocol=p/validation-part", "good@protocol=p/validation-part", task="t", draws=50).a.name == "hidden"
    assert compare(store, "good", "poor", task="t", draws=50).a.records.height == 2


def test_only_folds_that_both_have_are_compared(store: Store) -> None:
    put(store, "half", 0.2, folds=[1])
    put(store, "third", 0.2, folds=[2])
    found = compare(store, "half", "good", task="t", draws=50)
    assert found.notes[-1] == "Compared on the 1 of 2 folds that both have: 1."
    assert found.b.records["fold"].to_list() == [1]
    assert "no fold in common" in refused(store, "half", "third")


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ("goood", "poor", "did you mean 'good'?"),
        ("few@siz=4", "good", "no key 'siz'"),
        ("few@size=9", "good", "no record with size=9 (few@size=9); choose from: 1, 4"),
        ("good", "good", "are the same evaluations"),
    ],
)
def test_a_mistake_is_one_line(store: Store, a: str, b: str, said: str) -> None:
    assert said in refused(store, a, b)


def test_a_metric_that_both_lack_is_refused(store: Store) -> None:
    assert "did you mean 'ccc_valence'?" in refused(store, "good", "poor", metrics=["ccc_valenc"])


def test_the_verb_prints_differences_and_draws_the_same_picture_again(harness: Run, store: Store, tmp_path: Path) -> None:
    arguments = ["compare", "good", "poor", "--task", "t", "--output-dir", str(tmp_path), "--by", "length"]
    done = harness(*arguments, "--figure", str(tmp_path / "x"))
    assert done.returncode == 0, done.stderr
    assert "where subjects differ most (ccc)" in done.stdout
    assert "short (8 frames)" in done.stdout
    drawn = (tmp_path / "x.svg").read_bytes()
    assert harness(*arguments, "--figure", str(tmp_path / "x")).returncode == 0
    assert (tmp_path / "x.svg").read_bytes() == drawn
    rows = json.loads(harness("compare", "good", "poor", "--task", "t", "--output-dir", str(tmp_path), "--format", "json").stdout)
    assert [row["metric"] for row in rows] == ["ccc", "pcc", "rmse", "sagr"]


def test_a_picture_of_nothing_is_refused() -> None:
    nothing = pl.DataFrame(schema={"subject": pl.String, "fold": pl.Int64, "difference": pl.Float64})
    with pytest.raises(RequestError, match="defined in no subject"):
        by_subject(nothing, a="a", b="b", metric="ccc", overall=(0, 0, 0), better="higher")


# ── slices ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def sliced(store: Store, by: str, metric: str = "rmse") -> pl.DataFrame:
    evaluations = {arm: store.records().filter(arm=arm)["evaluation"].to_list() for arm in ("good", "poor")}
    cut = slices.cut(store, [name for names in evaluations.values() for name in names], by, metric, cache=Path("/nowhere"))
    return slices.scores(cut, evaluations, draws=50)


def test_the_worst_subject_is_named_beside_the_mean(store: Store) -> None:
    table = sliced(store, "subject")
    found = slices.worst(table, higher_is_better=False).row(0, named=True)
    own = {
        f"s{fold}{i}": np.mean([math.sqrt(((part[t] - part[f"{t}_pred"]) ** 2).mean()) for t in TARGETS])  # type: ignore[arg-type]
        for fold in (0, 1)
        for i in range(8)
        for part in [frame("good", 0.1, fold).filter(subject=f"s{fold}{i}")]
    }
    assert found["worst"] == pytest.approx(max(own.values()))
    assert found["of"] == max(own, key=lambda name: own[name])
    assert found["of"] in ("s03", "s13")
    assert found["mean"] == pytest.approx(np.mean(list(own.values())))
    assert (found["counted"], found["left_out"], found["frames"]) == (16, 0, 32)


def test_subjects_with_too_few_frames_do_not_count(store: Store) -> None:
    found = slices.worst(sliced(store, "subject"), least=33, higher_is_better=False).row(0, named=True)
    assert (found["worst"], found["of"], found["counted"], found["left_out"]) == (None, None, 0, 16)


def test_clips_are_cut_by_length_and_never_parted_when_equal(store: Store) -> None:
    table = sliced(store, "length").filter(row=0)
    assert table["slice"].to_list() == ["short (8 frames)", "middle (24 frames)"]
    short = [frame("good", 0.1, fold).filter(pl.len().over("clip") == 8) for fold in (0, 1)]
    rmse = np.mean([math.sqrt(((part[t] - part[f"{t}_pred"]) ** 2).mean()) for part in short for t in TARGETS])  # type: ignore[arg-type]
    assert table["score"][0] == pytest.approx(rmse)
    assert table["frames"].to_list() == [128, 384]


def test_a_slice_in_which_a_metric_is_undefined_is_undefined() -> None:
    rows = pl.DataFrame({"subject": ["a", "a", "b", "b"], "clip": ["a", "a", "b", "b"], "valence": [0.5, 0.5, 0.1, 0.3]})
    sums = metrics.units(rows.with_columns(valence_pred=pl.col("valence")), targets=["valence"]).with_columns(
        evaluation=pl.lit("e"), fold=0
    )
    cut = [slices.Slice(name, "ccc_valence", sums.filter(subject=name)) for name in ("a", "b")]
    table = slices.scores(cut, {"e": ["e"]}, draws=20)
    assert table["score"].to_list() == [None, 1.0]
    assert slices.worst(table, least=1).row(0, named=True)["counted"] == 1


def test_every_class_has_its_own_metric(tmp_path: Path) -> None:
    rows = pl.DataFrame({"subject": ["a", "b"], "clip": ["a", "b"], "expression": ["sad", "happy"], "expression_pred": ["sad", "sad"]})
    store = Store(tmp_path)
    sums = metrics.units(rows, targets=["expression"], classes=["happy", "sad"])
    store.write_record({"evaluation": "e", "fold": 0, "task": "t"}, sums)
    cut = slices.cut(store, ["e"], "expression", "f1_expression", cache=tmp_path)
    assert slices.scores(cut, {"e": ["e"]}).select("slice", "metric", "score").rows() == [
        ("happy", "f1_happy", 0),
        ("sad", "f1_sad", 2 / 3),
    ]


def test_a_column_of_samples_that_are_not_there_is_one_line(store: Store) -> None:
    with pytest.raises(RequestError, match="the samples are not in /nowhere, so that there is no column 'activity'"):
        sliced(store, "activity")


def test_a_leaderboard_is_shown_by_worst_subject_and_over_tasks(harness: Run, store: Store, tmp_path: Path) -> None:
    where = ["--output-dir", str(tmp_path)]
    rows = json.loads(harness("leaderboard", "t", "--by", "worst", "--format", "json", *where).stdout)
    assert {row["of"] for row in rows if row["arm"] == "good"} <= {"s03", "s13"}
    assert "short (8 frames)" in harness("leaderboard", "t", "--by", "length", *where).stdout
    done = harness("leaderboard", "--across", *where)
    assert done.returncode == 2
    assert "have a row in each of 1 tasks" in done.stderr
    assert "--by wants one task" in harness("leaderboard", "--by", "length", *where).stderr
