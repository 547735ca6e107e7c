"""Tuned sweeps: equal budgets, the same luck for all, a choice by the validation part alone, and nobody fails but who fails."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from toy import Brightness

from harness import boards, evaluation, plan, rungs, snapshot, suggestions, sweep, tuning
from harness.baseline import Baseline, Query
from harness.errors import RequestError
from harness.plan import Plan, Sweep, load_sweep
from harness.publish.report import Board, Extra, Study
from harness.rescoring import Rescored, rescore_task
from harness.rungs import Halving, Note, Referee
from harness.samples import label_columns
from harness.store import Store
from harness.suggestions import Search
from harness.sweep import Prepared
from harness.task import Split
from harness.tuning import Tune, best, drawn
from tasks.few_shot import FewShotVideo
from tests.conftest import PLUGIN, Run, toy

EXTRA = [PLUGIN / "configs"]
LR = {"_target_": "ray.tune.loguniform", "lower": 1e-3, "upper": 1e-1}
NAN = "baseline.stages.brightness.nan_in_epoch"
ARMS = {"a": ["baseline=toy"], "b": ["baseline=toy", "baseline.stages.brightness.width=5"], "mean_label": ["baseline=mean_label"]}
AXES: dict[str, list[Any]] = {"fold": [0, 1], "seed": [0, 1], "evaluate.support.size": [2]}
Planned = Callable[..., Plan]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def planned(cache: Path, store: Store) -> Planned:
    def build(
        *more: str,
        arms: dict[str, list[str]] = ARMS,
        axes: dict[str, list[Any]] = AXES,
        draws: int = 3,
        seed: int = 100,
        space: dict[str, Any] | None = None,
        own: dict[str, dict[str, Any]] | None = None,
        search: Search | None = None,
        stop: Halving | None = None,
    ) -> Plan:
        tune = Tune(draws, seed, {"trainer.lr": LR} if space is None else space, own or {}, search, stop)
        made = Sweep("s", "", arms, axes, ["task=toy", "tracker=none", *more], tune=tune)
        return plan.build(made, extra=EXTRA, snapshot_of=lambda node, _: snapshot.take(node, cache), store=store)

    return build


def score(store: Store, evaluation: str, value: float | None) -> None:
    """Write the record of an evaluation on the validation part."""
    store.write_record({"evaluation": evaluation, "protocol": f"p{tuning.ON_VALIDATION}", "score": value}, pl.DataFrame({"n": [1]}))


def tries(made: Plan, arm: str = "a", fold: int = 0) -> list[dict[str, Any]]:
    return made.rows.filter(arm=arm, fold=fold, phase="tuning").sort("draw").rows(named=True)


def score_all(made: Plan, store: Store, *values: float | None, arm: str = "a", fold: int = 0) -> None:
    for row, value in zip(tries(made, arm, fold), values, strict=True):
        score(store, row["evaluation"], value)


# ── budgets ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_arm_that_trains_has_the_same_draws_and_epochs_and_a_control_has_none(planned: Planned, store: Store) -> None:
    made = planned()
    assert Counter(made.rows.select("arm", "phase").iter_rows()) == {
        ("a", "tuning"): 2 * 3,
        ("a", "refit"): 2 * 2,
        ("b", "tuning"): 2 * 3,
        ("b", "refit"): 2 * 2,
        ("mean_label", None): 2,
    }
    assert set(made.rows.filter(phase="tuning")["seed"]) == {100}
    prepared = Prepared(made.sweep, made, store, {}, store.root, "")
    assert sweep.budget(prepared).rows() == [("a", 3, 6, 24, 0, 4), ("b", 3, 6, 24, 0, 4)]
    assert boards.budgets(sweep.budget(prepared)).startswith("Budgets are equal: 24 epochs")
    longer = planned(arms={**ARMS, "b": [*ARMS["b"], "+baseline.stages.brightness.trainer.epochs=9"]})
    spent = sweep.budget(dataclasses.replace(prepared, plan=longer))
    assert boards.budgets(spent) == "Budgets are equal in draws and differ in epochs of tuning: 24 for a; 54 for b."


def test_until_its_draws_are_scored_an_arm_waits_with_no_name_and_is_counted(planned: Planned, store: Store) -> None:
    made = planned()
    waiting = made.rows.filter(stand="waiting")
    assert set(waiting["arm"]) == {"a", "b"}
    assert set(waiting["why_not"]) == {"waits for its 3 draws"}
    assert waiting["evaluation"].null_count() == waiting["fit"].null_count() == waiting.height == 8
    assert made.pending(store).height == 12 + 2
    prepared = Prepared(made.sweep, made, store, {}, store.root, "")
    assert sweep.estimate(prepared) | {"seconds": None} == {"fits": 12 + 8, "evaluations": 12 + 2 + 8, "seconds": None}
    assert Counter(sweep.state(prepared)["state"]) == {"pending": 14, "waiting": 8}
    assert not sweep.complete(prepared)


def test_all_arms_try_the_same_values(planned: Planned) -> None:
    made = planned(own={"b": {"baseline.stages.brightness.width": {"_target_": "ray.tune.randint", "lower": 2, "upper": 9}}})
    by_arm = {arm: [made.jobs[row["fit"]].stages[0] for row in tries(made, arm)] for arm in ("a", "b")}
    rates = [spec.trainer["lr"] for spec in by_arm["a"]]
    assert rates == [spec.trainer["lr"] for spec in by_arm["b"]]
    assert len(set(rates)) == 3
    assert all(1e-3 < rate < 1e-1 for rate in rates)
    assert {spec.config["width"] for spec in by_arm["a"]} == {16}
    assert len({spec.config["width"] for spec in by_arm["b"]}) > 1
    assert [json.loads(text)["trainer.lr"] for text in made.tries.filter(arm="b", fold=1)["values"]] == rates


def test_a_learning_rate_that_is_drawn_goes_to_a_stage_with_a_trainer_of_its_own(planned: Planned) -> None:
    made = planned("+baseline.stages.brightness.trainer.lr=0.3", arms={"a": ["baseline=toy"]}, axes={})
    assert 0.3 not in [made.jobs[row["fit"]].stages[0].trainer["lr"] for row in tries(made)]


def test_a_value_follows_from_seed_key_and_draw_alone(tmp_path: Path) -> None:
    few, many = (drawn({"trainer.lr": LR}, draws, 7, tmp_path) for draws in (2, 5))
    assert many[:2] == few
    both = drawn({"x.y": {"_target_": "ray.tune.choice", "categories": ["p", 3]}, "trainer.lr": LR, "z": 5}, 2, 7, tmp_path)
    assert [values["trainer.lr"] for values in both] == [values["trainer.lr"] for values in few]
    assert list(both[0]) == ["x.y", "trainer.lr", "z"]
    assert {type(values["x.y"]) for values in both} <= {str, int}
    assert [values["z"] for values in both] == [5, 5]
    assert drawn({"trainer.lr": LR}, 2, 8, tmp_path) != few
    assert [values["x.lr"] for values in drawn({"x.lr": LR}, 2, 7, tmp_path)] != [values["trainer.lr"] for values in few]


@pytest.mark.parametrize("damage", ["", '{"values": {"trainer.lr": [0.5, 0.5]}}', "digit"])
def test_what_was_drawn_is_kept_and_what_is_damaged_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    first = drawn({"trainer.lr": LR}, 2, 7, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_sample", lambda *_: pytest.fail("drawn again"))
        assert drawn({"trainer.lr": LR}, 2, 7, tmp_path) == first
    (kept,) = tmp_path.iterdir()
    text = kept.read_text()
    kept.write_text(text.replace("0.0", "0.1", 1) if damage == "digit" else damage)
    assert kept.read_text() != text
    assert drawn({"trainer.lr": LR}, 2, 7, tmp_path) == first
    assert kept.read_text() == text


# ── the choice ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_best_draw_is_fitted_again_with_every_seed_and_each_fold_has_its_own(planned: Planned, store: Store) -> None:
    before = planned()
    score_all(before, store, 0.1, 0.9, 0.5)
    score_all(before, store, 0.7, 0.2, None, fold=1)
    made = planned()
    rates = [made.jobs[row["fit"]].stages[0].trainer["lr"] for row in tries(made)]
    for fold, chosen in ((0, 1), (1, 0)):
        refits = made.rows.filter(arm="a", fold=fold, phase="refit")
        assert refits.select("seed", "draw", "stand").rows() == [(0, chosen, None), (1, chosen, None)]
        assert {made.jobs[fit].stages[0].trainer["lr"] for fit in refits["fit"]} == {rates[chosen]}
        assert [json.loads(text) for text in refits["setting"]] == [{"support": {"selection": "uniform", "size": 2}}] * 2
    assert not set(made.rows.filter(phase="refit")["fit"].drop_nulls()) & set(made.rows.filter(phase="tuning")["fit"])
    assert set(made.rows.filter(stand="waiting")["arm"]) == {"b"}
    assert made.tries.filter("chosen").select("arm", "fold", "draw", "score").rows() == [("a", 0, 1, 0.9), ("a", 1, 0, 0.7)]
    assert made.tries.filter(fold=1, arm="a")["left_out"].to_list() == [None, None, "its score is undefined"]


def test_of_equal_draws_the_first_is_chosen_and_the_direction_is_the_metrics_own(planned: Planned, store: Store) -> None:
    score_all(planned(), store, 0.2, 0.4, 0.4)
    assert planned().tries.filter("chosen")["draw"].to_list() == [1]
    assert best([0.2, None, 0.2, 0.3], higher_is_better=False) == 0
    assert best([None, None]) is None


def test_one_choice_is_made_for_all_settings_by_their_mean(planned: Planned, store: Store) -> None:
    axes = {"evaluate.support.size": [0, 1, 4]}
    made = planned(arms={"a": ["baseline=toy", "baseline.min_support=1"]}, axes=axes, draws=2)
    settings = [json.loads(text) for text in made.rows.filter(phase="tuning", draw=0)["setting"]]
    assert [(setting["part"], setting["support"]["size"]) for setting in settings] == [("validation", 1), ("validation", 4)]
    for draw, values in enumerate([(0.9, 0.1), (0.6, 0.6)]):
        for name, value in zip(made.rows.filter(phase="tuning", draw=draw)["evaluation"], values, strict=True):
            score(store, name, value)
    made = planned(arms={"a": ["baseline=toy", "baseline.min_support=1"]}, axes=axes, draws=2)
    assert made.tries.select("score", "chosen").rows() == [(0.5, False), (0.6, True)]
    assert made.rows.filter(phase="refit").select("stand", "draw").rows() == [("impossible", 1), (None, 1), (None, 1)]


def test_an_arm_that_can_do_nothing_of_it_is_impossible_and_has_no_budget(planned: Planned) -> None:
    made = planned(arms={"a": ["baseline=toy", "baseline.min_support=9"]}, axes={})
    assert made.rows["stand"].to_list() == ["impossible"]
    assert made.tries.is_empty()


def test_two_arms_that_are_the_same_stand_once(planned: Planned) -> None:
    made = planned(arms={"a": ["baseline=toy"], "twin": ["baseline=toy"]}, axes={})
    assert set(made.rows["arm"]) == set(made.tries["arm"]) == {"a"}
    impossible = planned(arms={name: ["baseline=toy", "baseline.min_support=9"] for name in ("a", "twin")}, axes={})
    assert impossible.rows["arm"].to_list() == ["a"]


def test_a_draw_that_failed_is_left_out_and_an_arm_of_which_all_did_fails_alone(planned: Planned, store: Store) -> None:
    before = planned(axes={"seed": [0]})
    score_all(before, store, 0.5, 0.5, 0.5, arm="b")
    for row in tries(before):
        store.fail(row["fit"], {"error": "valence: not finite"})
    made = planned(axes={"seed": [0]})
    assert made.rows.filter(phase="refit").select("arm", "stand", "draw").rows() == [("a", "failed", None), ("b", None, 0)]
    (why,) = made.rows.filter(stand="failed")["why_not"]
    assert why == "none of its 3 draws can be chosen; of the first: valence: not finite"
    score_all(before, store, None, 0.1, 0.2)
    made = planned(axes={"seed": [0]})
    assert made.rows.filter(arm="a", phase="refit")["draw"].to_list() == [2]


def test_a_draw_that_diverged_is_not_tried_again_while_its_source_is_the_same(planned: Planned, store: Store) -> None:
    made = planned(axes={"seed": [0]}, arms={"a": ["baseline=toy", f"{NAN}=2"]}, draws=1)
    (row,) = tries(made)
    assert evaluation.run(made.jobs[row["fit"]], store).failed == 1
    assert made.pending(store).is_empty()
    known = store.failures()[row["fit"]]
    assert set(known["sources"]) == {"toy.Toy", "toy.Brightness"}
    store.fail(row["fit"], known | {"sources": known["sources"] | {"toy.Brightness": "0" * 64}})
    assert made.pending(store)["evaluation"].to_list() == [row["evaluation"]]
    store.fail(row["fit"], {"error": "the worker died"})
    assert made.pending(store).height == 1, "what may work next time is tried again"


# ── rounds of a search ───────────────────────────────────────────────────────────────────────────────────────────────────────

SEARCH: dict[str, Any] = {"arms": {"a": ARMS["a"], "b": ARMS["b"]}, "axes": {"seed": [0]}, "draws": 5, "search": Search(2, 2)}


def asked(made: Plan, arm: str = "a") -> list[dict[str, Any]]:
    """The values of the draws that are there by now."""
    return [json.loads(text) for text in made.tries.filter(arm=arm)["values"].drop_nulls()]


def score_asked(made: Plan, store: Store, arm: str = "a") -> None:
    """Every draw that is there has a score: the better, the nearer its learning rate is to 0.01."""
    for row, values in zip(tries(made, arm), asked(made, arm), strict=False):
        score(store, row["evaluation"], 1 - abs(np.log10(values["trainer.lr"]) + 2))


def test_a_round_is_asked_once_all_draws_before_are_scored(planned: Planned, store: Store) -> None:
    made = planned(**SEARCH)
    assert asked(made) == asked(planned(**{**SEARCH, "search": None, "draws": 2})), "the first are random, and the same for all arms"
    assert asked(made) == asked(made, "b")
    assert made.rows.filter(arm="a", phase="tuning").select("draw", "stand").rows() == [
        *((draw, None) for draw in range(2)),
        *((draw, "waiting") for draw in range(2, 5)),
    ]
    prepared = Prepared(made.sweep, made, store, {}, store.root, "")
    assert sweep.budget(prepared).rows() == [("a", 5, 5, 20, 0, 1), ("b", 5, 5, 20, 0, 1)], "what is not asked yet is part of the budget"
    assert sweep.estimate(prepared)["fits"] == 2 * (5 + 1)
    assert not list((store.root / "searches").glob("*"))
    score(store, tries(made)[0]["evaluation"], 0.5)
    assert len(asked(planned(**SEARCH))) == 2, "one of two is not scored yet"
    for expected in (4, 5, 5):
        score_asked(planned(**SEARCH), store)
        made = planned(**SEARCH)
        assert len(asked(made)) == expected
    assert made.rows.filter(phase="refit").select("arm", "stand").rows() == [("a", None), ("b", "waiting")]
    assert len(asked(made, "b")) == 2, "arms go on alone"
    more = planned(**{**SEARCH, "draws": 7})
    assert asked(more)[:5] == asked(made), "the first draws of many are those of few"
    assert sweep.tuning(dataclasses.replace(prepared, plan=more)).filter(arm="a")["state"].to_list() == [
        *["done"] * 5,
        "pending",
        "waiting",
    ]


def test_what_was_asked_stays_and_what_is_lost_is_asked_the_same(planned: Planned, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        score_asked(planned(**SEARCH), store)
    first = asked(planned(**SEARCH))
    kept = sorted((store.root / "searches").iterdir())
    assert len(kept) == 2
    with monkeypatch.context() as patch:
        patch.setattr(suggestions, "suggest", lambda *_, **__: pytest.fail("asked again"))
        assert asked(planned(**SEARCH)) == first
        for row in tries(planned(**SEARCH)):
            score(store, row["evaluation"], 0.5)
        assert asked(planned(**SEARCH)) == first, "rescoring changes no draw"
        score(store, tries(planned(**SEARCH))[1]["evaluation"], None)
        assert asked(planned(**SEARCH)) == first, "nor does a draw that is made again"
    score_asked(planned(**SEARCH), store)
    kept[0].unlink()
    kept[1].write_text(kept[1].read_text().replace("0.0", "0.1", 1))
    assert asked(planned(**SEARCH)) == first
    assert asked(planned(**SEARCH, seed=7)) != first


def test_a_draw_that_failed_keeps_no_round_waiting(planned: Planned, store: Store) -> None:
    made = planned(**SEARCH)
    score(store, tries(made)[0]["evaluation"], 0.5)
    store.fail(tries(made)[1]["fit"], {"error": "valence: not finite"})
    assert len(asked(planned(**SEARCH))) == 4


# ── early stopping ───────────────────────────────────────────────────────────────────────────────────────────────────────────

STOP: dict[str, Any] = {"arms": {"a": ARMS["a"]}, "axes": {"seed": [0]}, "stop": Halving(1, 2)}
WIDE = {"trainer.lr": {"_target_": "ray.tune.loguniform", "lower": 1e-6, "upper": 1e-1}}


def carried_out(made: Plan, store: Store, *rows: dict[str, Any]) -> None:
    """Run some draws one after the other, each with a referee of its own, as if the sweep had been killed between them."""
    for row in rows:
        job = made.jobs[row["fit"]]
        referee = Referee(made.jobs.values(), store)

        def report(metrics: dict[str, float], job: plan.Job = job, referee: Referee = referee) -> None:
            if "rung" in metrics:
                referee.hears(job, int(metrics["rung"]), metrics["loss"])

        evaluation.run(job, store, report=report)


def test_a_draw_that_does_worse_is_stopped_and_left_out_and_not_tried_again(planned: Planned, store: Store) -> None:
    made = planned(**STOP, space=WIDE, draws=4)
    by_rate = sorted(tries(made), key=lambda row: made.jobs[row["fit"]].stages[0].trainer["lr"], reverse=True)
    carried_out(made, store, *by_rate)
    made = planned(**STOP, space=WIDE, draws=4)
    assert store.failures() == {}
    assert made.pending(store)["phase"].to_list() == ["refit"]
    spent = {row["draw"]: row["stopped"] for row in made.tries.iter_rows(named=True)}
    worst = by_rate[-1]
    assert spent[worst["draw"]] == 1
    assert spent[by_rate[0]["draw"]] is None
    assert made.tries.filter("chosen")["score"].to_list() == [max(made.tries["score"].drop_nulls())]
    assert made.tries.filter(draw=worst["draw"])["left_out"].to_list() == ["stopped after epoch 1 of 4"]
    assert not store.fit(worst["fit"])
    assert not (store.fit_folder(worst["fit"]) / "checkpoint").exists()
    prepared = Prepared(made.sweep, made, store, {}, store.root, "")
    stopped = [epoch for epoch in spent.values() if epoch]
    assert sweep.budget(prepared).select("tuning_epochs", "epochs_spent").rows() == [(16, sum(stopped) + 4 * (4 - len(stopped)))]
    assert Counter(sweep.state(prepared).filter(phase="tuning")["state"]) == {"stopped": len(stopped), "done": 4 - len(stopped)}
    assert set(sweep.tuning(prepared).filter(state="stopped")["epochs_spent"]) <= {1, 2}
    assert sweep.failed(sweep.state(prepared)).is_empty()
    # Another rule, or none, knows nothing of these notes.
    assert planned(**{**STOP, "stop": Halving(2, 2)}, space=WIDE, draws=4).pending(store).height == len(stopped)
    assert planned(**{**STOP, "stop": None}, space=WIDE, draws=4).pending(store).height == len(stopped)


def test_a_killed_sweep_keeps_its_standards(planned: Planned, store: Store) -> None:
    made = planned(**STOP, draws=4)
    first, second, third, fourth = (made.jobs[row["fit"]] for row in tries(made))
    referee = Referee(made.jobs.values(), store)
    for job, loss in ((first, 0.2), (second, 0.1), (third, 0.3)):
        referee.hears(job, 1, loss)
    assert [rungs.read(store, job.name, Halving(1, 2)).stopped for job in (first, second, third)] == [None, None, (1, 0.3)]
    Referee(made.jobs.values(), store).hears(fourth, 1, 0.25)
    assert rungs.read(store, fourth.name, Halving(1, 2)).stopped == (1, 0.25), "it is compared with what others were before"
    (store.fit_folder(fourth.name) / "rungs.json").write_text("{")
    assert rungs.read(store, fourth.name, Halving(1, 2)) == Note({})


class Unvalidated(Brightness):
    """Has no loss on the validation part."""

    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        return super().batches(part, size, rng) if part == "train" else iter(())


def test_where_nothing_says_when_to_stop_it_is_told_in_one_line(planned: Planned, store: Store) -> None:
    arm = ["baseline=toy", f"baseline.stages.brightness._target_={__name__}.Unvalidated"]
    made = planned(**{**STOP, "arms": {"a": arm}}, draws=1)
    carried_out(made, store, *tries(made))
    (failure,) = store.failures().values()
    assert failure["error"] == "the stage brightness has no loss on the validation part, so nothing says when to stop it (tune.stop)"
    with pytest.raises(RequestError, match="a is trained by 2 workers, and such a fit is not stopped early"):
        planned("trainer.resources.workers=2", **STOP)


# ── axes that only some arms know ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_axis_of_a_stage_is_nothing_to_an_arm_without_it_and_refused_where_no_arm_has_it(planned: Planned) -> None:
    axes: dict[str, list[Any]] = {"baseline.stages.brightness.width": [3, 4], "seed": [0]}
    arms = {arm: ARMS[arm] for arm in ("a", "mean_label")}
    made = planned(axes=axes, arms=arms)
    assert Counter(made.rows.filter((pl.col("phase") != "tuning").fill_null(True))["arm"]) == {"a 3": 1, "a 4": 1, "mean_label": 1}
    with pytest.raises(RequestError, match=r"no such key: baseline.stages.brightness.widht .*did you mean 'width'"):
        planned(axes={"baseline.stages.brightness.widht": [3], "seed": [0]})
    with pytest.raises(RequestError, match=r"no such key: baseline.wdth"):
        planned(axes={"baseline.wdth": [3]})


def test_choices_are_made_for_each_value_of_another_axis(planned: Planned, store: Store) -> None:
    axes: dict[str, list[Any]] = {"baseline.stages.brightness.width": [3, 4], "seed": [0]}
    arms = {"a": ARMS["a"]}
    score_all(planned(axes=axes, arms=arms), store, 0.1, 0.2, 0.3, arm="a 3")
    made = planned(axes=axes, arms=arms)
    assert made.rows.filter(phase="refit").select("arm", "draw", "stand").rows() == [("a 3", 2, None), ("a 4", None, "waiting")]
    assert set(made.tries["axes"]) == {'{"baseline.stages.brightness.width":3}', '{"baseline.stages.brightness.width":4}'}


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("more", "options", "expected"),
    [
        (["task.validation=0"], {}, "toy has no validation part on fold 0, so nothing can be tuned (tune); set task.validation"),
        ([], {"axes": {"seed": [0, 100]}}, "seed 100 is of the fits that are tuned"),
        ([], {"space": {"trainer.lrr": LR}}, "a: no such key: trainer.lrr (tune: trainer.lrr); did you mean 'lr'?"),
        (
            [],
            {"own": {"a": {"weighting.temperature": LR}}},
            "a: no such key: weighting (tune: weighting.temperature); give the arm a weighting",
        ),
        ([], {"own": {"a": {"baseline.stages.brightness.widht": 3}}}, "did you mean 'width'?"),
        ([], {"space": {"baseline.stages.brightness.widht": 3}}, "nothing of it is tuned"),
        ([], {"space": {"trainer.lr": LR | {"lower": 0}}}, "ray.tune.loguniform refuses"),
        ([], {"space": {"trainer.lr": LR | {"uper": 1}}}, "ray.tune.loguniform refuses"),
        ([], {"space": {"trainer.lr": {"_target_": "ray.tune.choice", "categories": []}}}, "ray.tune.choice refuses"),
        ([], {"space": {"trainer.lr": {"_target_": "ray.tune.choice", "categories": ["fast"]}}}, "'fast' is out of range (trainer.lr)"),
    ],
)
def test_what_cannot_be_tuned_is_told_in_one_line(planned: Planned, more: list[str], options: dict[str, Any], expected: str) -> None:
    with pytest.raises(RequestError) as caught:
        planned(*more, **options)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_was_never_taught_cannot_be_tuned_by(planned: Planned) -> None:
    with pytest.raises(RequestError, match="has no label of au1 in its validation part"):
        planned("task=toy_units", "+task.taught=[valence]", arms={"a": ["baseline=toy", "baseline.targets=null"]}, axes={})


YAML = """
base: [task=toy]
arms: {a: [baseline=toy], b: [weighting=equal]}
axes: {seed: [0]}
tune:
  draws: 8
  space:
    trainer.lr: {_target_: ray.tune.loguniform, lower: 3.0e-4, upper: 1.0e-2}
    trainer.weight_decay: {_target_: ray.tune.uniform, lower: 0, upper: 1}
  arms: {b: {weighting.x: 1}}
scale: small
scales:
  small: {}
  large: {tune: {draws: 20, space: {trainer.lr: {_target_: ray.tune.uniform, lower: 0, upper: 1}}}}
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], list[Path]]:
    def write(text: str) -> list[Path]:
        (tmp_path / "sweep").mkdir(exist_ok=True)
        (tmp_path / "sweep" / "mine.yaml").write_text(text)
        return [tmp_path]

    return write


def test_the_yaml_says_what_is_tuned_and_scale_and_command_line_change_it(written: Callable[[str], list[Path]]) -> None:
    extra = written(YAML)
    tune = load_sweep("mine", [], extra).tune
    assert tune is not None
    assert (tune.draws, tune.seed, list(tune.space), tune.arms) == (
        8,
        100,
        ["trainer.lr", "trainer.weight_decay"],
        {"b": {"weighting.x": 1}},
    )
    assert list(tune.of("b")) == ["trainer.lr", "trainer.weight_decay", "weighting.x"]
    large = load_sweep("mine", ["scale=large"], extra).tune
    assert large is not None
    assert large.draws == 20
    assert large.space["trainer.lr"] == {"_target_": "ray.tune.uniform", "lower": 0, "upper": 1}, "a space is replaced whole"
    assert large.space["trainer.weight_decay"] == tune.space["trainer.weight_decay"]
    changed = load_sweep("mine", ["scale=large", "tune.draws=4", "tune.seed=9", "arms=a"], extra)
    assert changed.tune is not None
    assert (changed.tune.draws, changed.tune.seed) == (4, 9)
    assert changed.overrides == ["task=toy"]
    assert (tune.search, tune.stop) == (None, None)
    both = load_sweep("mine", ["tune.search=optuna", "tune.stop=asha", "arms=a"], extra).tune
    assert both is not None
    assert (both.search, both.stop) == (Search(4, 4), Halving(1, 3))
    nothing = load_sweep("mine", ["tune.search=random", "tune.stop=null"], extra).tune
    assert nothing is not None
    assert (nothing.search, nothing.stop) == (None, None)
    assert load_sweep("mine", [], written("base: [task=toy]")).tune is None


def test_a_shared_baseline_is_for_the_arms_without_one(written: Callable[[str], list[Path]]) -> None:
    assert load_sweep("mine", ["baseline=ridge"], written(YAML)).overrides == ["task=toy", "baseline=ridge"]
    with pytest.raises(RequestError, match="every arm has a baseline of its own"):
        load_sweep("mine", ["baseline=ridge", "arms=a"], written(YAML))


@pytest.mark.parametrize(
    ("overrides", "tune", "expected"),
    [
        (["tune.draws=0"], None, "tune.draws is '0' (tune.draws); give a whole number from 1 on"),
        (["tune.seed=x"], None, "tune.seed is 'x'"),
        (["tune.search=optun"], None, "tune.search is 'optun' (tune.search); did you mean 'optuna'?"),
        (["tune.stop=hyperband"], None, "tune.stop is 'hyperband' (tune.stop); "),
        ([], "{draws: 2, space: {trainer.lr: 1}, search: {name: optuna, start: 4}}", "no such key: tune.search.start"),
        ([], "{draws: 2, space: {trainer.lr: 1}, search: {name: optuna, startup: 1}}", "give a whole number from 2 on"),
        ([], "{draws: 2, space: {trainer.lr: 1}, search: {name: random, startup: 4}}", "no such key: tune.search.startup"),
        ([], "{draws: 2, space: {trainer.lr: 1}, stop: {name: asha, factor: 1}}", "tune.stop.factor is 1"),
        ([], "{draws: 2, space: {trainer.lr: 1}, stop: {grace: 2}}", "no such key: tune.stop.grace"),
        (
            ["tune.search=optuna"],
            "{draws: 2, space: {trainer.lr: {_target_: ray.tune.randn, mean: 0, sd: 1}}}",
            "Optuna has no space like ray.tune.randn (tune: trainer.lr); use one of",
        ),
        (["tune.drws=3"], None, "no such key: tune.drws (mine.yaml); did you mean 'draws'?"),
        ([], "{space: {trainer.lr: 1}}", "tune.draws is not set"),
        ([], "{draws: 2}", "nothing is to be drawn"),
        ([], "{draws: 2.5, space: {trainer.lr: 1}}", "tune.draws is 2.5"),
        ([], "{draws: true, space: {trainer.lr: 1}}", "tune.draws is True"),
        ([], "[draws]", "['draws'] is no mapping (mine.yaml: tune)"),
        ([], "{draws: 2, arms: {aa: {}}, space: {trainer.lr: 1}}", "no arm is called 'aa' (mine.yaml: tune.arms); did you mean"),
        ([], "{draws: 2, space: {trainer.lr: {_target_: os.system, command: ls}}}", "'os.system' is no sample space"),
        ([], "{draws: 2, space: {trainer.lr: {_target_: ray.tune.logunifrm}}}", "did you mean 'ray.tune.loguniform'?"),
        ([], "{draws: 2, space: {trainer.lr: {_target_: ray.tune.sample_from}}}", "'ray.tune.sample_from' is no sample space"),
        ([], "{draws: 2, space: {trainer.lr: {lower: 1}}}", "None is no sample space"),
        ([], "{draws: 2, space: {trainer.lr: [1, 2]}}", "[1, 2] is no sample space"),
        ([], "{draws: 2, space: {trainer.lr: {_target_: ray.tune.uniform, lower: 1e-4, upper: 1}}}", "'1e-4' is no number"),
        ([], "{draws: 2, space: {trainer.lr: {_target_: ray.tune.uniform, lower: 2, upper: 1}}}", "nothing lies from 2 to 1"),
        ([], "{draws: 2, space: {seed: {_target_: ray.tune.randint, lower: 0, upper: 9}}}", "seed cannot be tuned"),
        ([], "{draws: 2, space: {task.validation: 0.5}}", "task.validation cannot be tuned"),
        ([], "{draws: 2, arms: {a: {trainer.epochs: 9}}}", "trainer.epochs cannot be tuned: budgets would differ"),
        ([], "{draws: 2, space: {baseline.width: 9}}", "baseline.width is an axis of the sweep as well"),
    ],
)
def test_a_wrong_tune_is_told_in_one_line(
    written: Callable[[str], list[Path]], overrides: list[str], tune: str | None, expected: str
) -> None:
    text = YAML if tune is None else f"base: [task=toy]\narms: {{a: [], b: []}}\naxes: {{baseline.width: [1]}}\ntune: {tune}\n"
    with pytest.raises(RequestError) as caught:
        load_sweep("mine", overrides, written(text))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_budget_where_nothing_is_tuned_is_told(written: Callable[[str], list[Path]]) -> None:
    with pytest.raises(RequestError, match="nothing is tuned in this sweep"):
        load_sweep("mine", ["tune.draws=3"], written("base: [task=toy]"))


# ── the validation part ──────────────────────────────────────────────────────────────────────────────────────────────────────

SEEN: list[Query] = []


class Spy(Baseline):
    """Remembers all it was shown, and answers with the grey value where it may."""

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        SEEN.append(query)
        grey = query.test.frames[np.arange(query.test.samples.height)].mean(axis=(1, 2, 3)) / 127.5 - 1
        return {target: grey if target == "valence" else -grey for target in query.targets}


SPY = ["baseline=toy", f"baseline._target_={__name__}.Spy", "baseline.name=spy"]


def finish(prepared: Prepared) -> Prepared:
    """Run what is missing in this process: the draws, and then the rest."""
    for _ in range(2):
        for job in sweep.missing_jobs(prepared.plan, prepared.plan.pending(prepared.store), prepared.store).values():
            evaluation.run(job, prepared.store)
        prepared = sweep.planned_again(prepared)
    return prepared


class Backwards(FewShotVideo):
    """Splits in an order that is not that of the frames."""

    def split(self, samples: pl.DataFrame, fold: int) -> Split:
        made = super().split(samples, fold)
        return Split(made.name, made.train, made.validation[::-1].copy(), made.test)


def test_on_the_validation_part_a_baseline_sees_support_labels_alone_and_no_support_frame_is_scored(planned: Planned, store: Store) -> None:
    SEEN.clear()
    backwards = f"task._target_={__name__}.Backwards"
    made = planned(backwards, arms={"spy": SPY}, axes={"evaluate.support.size": [2]}, draws=1)
    (row,) = tries(made, "spy")
    job = made.jobs[row["fit"]]
    assert evaluation.run(job, store).made == 1
    (query,) = SEEN
    bench = evaluation.lay_out(job.task, job.snapshot, job.fold)
    held = bench.validation.samples
    assert set(query.test.samples["sample"]) == set(held["sample"])
    assert not set(query.test.samples["sample"]) & set(bench.asked["test"].data.samples["sample"])
    assert not {*label_columns(held), "valence", "arousal"} & set(query.test.samples.columns)
    assert query.test.samples.select("clip", "frame").equals(query.test.samples.select("clip", "frame").sort("clip", "frame"))
    assert query.setting == {"support": {"selection": "uniform", "size": 2}}
    assert query.part == "validation"
    clips = held["clip"].n_unique()
    assert query.support.sum() == 2 * clips
    truth = query.test.samples.select("sample").join(held, on="sample", maintain_order="left").filter(pl.Series(query.support))
    np.testing.assert_array_equal(query.labels["valence"], truth["valence"].to_numpy().astype(np.float32))
    pixels = query.test.frames[np.arange(query.test.samples.height)].mean(axis=(1, 2, 3)) / 127.5 - 1
    np.testing.assert_allclose(pixels[query.support], query.labels["valence"], atol=1e-3)
    (record,) = store.records().rows(named=True)
    assert record["protocol"] == f"{next(iter(made.tasks.values())).info.protocol}/validation-part"
    assert (record["n_samples"], record["labels_used"]) == (held.height, 2 * clips)
    assert json.loads(record["metrics"])["frames_scored"] == held.height - 2 * clips
    assert record["score"] == pytest.approx(1, abs=1e-3), "frames and labels are in the same order"
    predictions = store.read_predictions(record["predictions"], record["sha256"])
    assert predictions["support"].to_list() == query.support.tolist()


def test_no_threshold_is_chosen_on_what_it_is_scored_on(planned: Planned, store: Store) -> None:
    axes = {"evaluate.threshold": [0.5, "validation"]}
    arm = ["task=toy_units", "baseline=toy", "baseline.targets=[au1]", "baseline.stages.brightness._target_=toy.Brightness"]
    made = planned(arms={"a": arm}, axes=axes, draws=1)
    assert made.rows.filter(phase="tuning")["setting"].to_list() == ['{"part":"validation","threshold":"0.5"}']
    assert made.rows.filter(phase="refit")["setting"].to_list() == ['{"threshold":"0.5"}', '{"threshold":"validation"}']


# ── a finished sweep ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def note(board: Board, study: Study) -> Extra:
    """A report that looks at everything it is given."""
    tuned = study.records.filter(arm="toy")
    losses = [len(study.history(fit)) for fit in tuned["fit"]]
    facts = [study.fit(fit)["trainer"]["lr"] for fit in tuned["fit"]]
    chosen = study.tuning.filter(pl.col("chosen"), arm="toy")["trainer.lr"].to_list()
    whole = study.units["evaluation"].n_unique() == study.records.height == board.table["n_records"].sum()
    figure = b'<svg width="9" height="9" viewBox="0 0 9 9"></svg>'
    return Extra({}, {"by_epoch.svg": figure, "other.svg": figure}, (f"{losses} {facts == chosen * 2} {whole} {study.history('none')}",))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The toy's tuned sweep, done in this process."""
    output = tmp_path_factory.mktemp("finished")
    chosen = load_sweep("toy_tuned", [f"output_dir={output}"], EXTRA)
    prepared = finish(sweep.prepare(chosen, command="harness sweep toy_tuned", extra=EXTRA))
    prepared.store.pack()
    return prepared


def test_the_table_has_the_refits_alone_and_says_what_was_selected(finished: Prepared) -> None:
    (gathered,) = boards.gather(finished)
    table = gathered.board.table
    assert dict(table.select("arm", "selection").iter_rows()) == {
        "toy": "validation (3 draws)",
        "flaky": "validation (3 draws)",
        "mean_label": "none",
    }
    assert dict(table.select("arm", "n_seed").iter_rows()) == {"toy": 2, "flaky": 2, "mean_label": 1}
    said = " ".join(gathered.board.notes)
    assert "Tuned: 3 random draws of trainer.lr and what an arm has of its own for every arm that trains" in said
    assert "Budgets are equal: 12 epochs" in said
    assert "flaky: 1 of 3 draws are left out of the choice; the first: loss 'valence'" in said
    chosen = gathered.extra.tables[boards.CHOSEN]
    assert chosen["arm"].to_list() == ["toy", "flaky", "broken"]
    assert chosen.filter(arm="broken").select("draw", "validation", "left_out", "epochs").rows() == [(None, None, 3, 12)]
    assert "lr 0." in chosen["values"][0]
    tried = pl.read_csv(next(path for path in gathered.written if path.name == boards.TRIED))
    assert tried.height == 9
    best_of = tried.filter(arm="toy").sort("score", descending=True, nulls_last=True).row(0, named=True)
    assert best_of["chosen"]
    assert best_of["score"] == chosen["validation"][0] > chosen["worst"][0]


def test_the_epoch_is_named_where_it_was_selected_too(finished: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    records = finished.store.records().with_columns(selection=pl.lit("validation"))
    monkeypatch.setattr(Store, "records", lambda _: records)
    assert set(sweep.records(finished)["selection"]) == {"validation (3 draws, and the epoch)", "validation"}
    assert set(sweep.records(dataclasses.replace(finished, sweep=dataclasses.replace(finished.sweep, tune=None)))["selection"]) == {
        "validation"
    }


def test_a_report_may_look_at_fits_and_draws_and_every_figure_is_on_the_page(finished: Prepared) -> None:
    reported = dataclasses.replace(finished.sweep, name="reported", report={"_target_": f"{__name__}.note"})
    (gathered,) = boards.gather(dataclasses.replace(finished, sweep=reported))
    assert gathered.extra.notes[0] == "[4, 4] True True []"
    html = next(path for path in gathered.written if path.name == "index.html").read_text()
    assert "<h2>By epoch</h2><figure><svg" in html
    assert "<h2>Other</h2><figure><svg" in html
    assert "<h2>What was chosen</h2>" in html
    assert boards.gather(dataclasses.replace(finished, sweep=reported))[0].extra.notes == gathered.extra.notes


def test_one_arm_failed_alone(finished: Prepared) -> None:
    state = sweep.state(finished)
    assert Counter(state.select("arm", "phase", "state").iter_rows()) == {
        ("toy", "tuning", "done"): 3,
        ("toy", "refit", "done"): 2,
        ("flaky", "tuning", "done"): 2,
        ("flaky", "tuning", "failed"): 1,
        ("flaky", "refit", "done"): 2,
        ("broken", "tuning", "failed"): 3,
        ("broken", "refit", "failed"): 2,
        ("mean_label", None, "done"): 1,
    }
    assert set(sweep.failed(state)["arm"]) == {"broken"}
    assert not sweep.complete(finished)
    assert finished.plan.pending(finished.store).is_empty()
    assert sweep.run(finished) is finished, "there is nothing to run"
    without = sweep.prepare(load_sweep("toy_tuned", [f"output_dir={finished.output}", "arms=toy,flaky"], EXTRA), command="", extra=EXTRA)
    assert sweep.complete(without), "a draw that is left out is no failure of the sweep"


def test_a_finished_sweep_is_read_without_ray(finished: Prepared) -> None:
    script = (
        f"import sys; sys.argv = ['harness', *{toy(finished.output, name='toy_tuned')!r}]\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print('MODULES', end.code, sorted({'ray', 'torch', 'wandb', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PLUGIN, capture_output=True, text=True, timeout=120, check=False)
    assert "MODULES 1 []" in done.stdout, done.stdout + done.stderr
    assert "failed: broken: 2 evaluations: none of its 3 draws can be chosen" in done.stderr


def test_records_of_the_validation_part_are_rescored_as_such_and_on_no_leaderboard(
    finished: Prepared, tmp_path: Path, harness: Run
) -> None:
    shutil.copytree(finished.store.root, tmp_path / "store")
    store = Store(tmp_path / "store")
    before = store.records()
    assert rescore_task("toy", store, EXTRA) == Rescored(before.height, 0, [])
    after = store.records()
    assert after.select("evaluation", "protocol", "score").equals(before.select("evaluation", "protocol", "score"))
    assert Counter(after["protocol"].str.ends_with("/validation-part")) == {True: 5, False: 5}
    (board,) = boards.of_task(store, "toy")
    assert board.table["n_records"].sum() == 5
    assert set(board.table["selection"]) == {"validation (3 draws)", "none"}, "also where no sweep says so"
    listed = json.loads(harness("list", "evaluations", "--output-dir", str(tmp_path), "--format", "json").stdout)
    assert sum('"part":"validation"' in row["setting"] for row in listed) == 5
    held = after.filter(pl.col("protocol").str.ends_with("/validation-part"))["evaluation"][0]
    done = harness("export", held, "--output-dir", str(tmp_path), "--to", str(tmp_path / "to"))
    assert done.returncode == 2
    assert "is of the validation part" in done.stderr
    status = harness("status", "--output-dir", str(tmp_path))
    assert "toy-2-folds-seed-0/validation-part" in status.stdout
    for file in (tmp_path / "store" / "records").iterdir():
        file.unlink()
    for record in before.filter(pl.col("protocol").str.ends_with("/validation-part")).rows(named=True):
        store.write_record(record, pl.DataFrame({"n": [1]}))
    assert "no records" in harness("leaderboard", "--output-dir", str(tmp_path)).stderr


def test_a_dry_run_shows_the_whole_budget(harness: Run, tmp_path: Path) -> None:
    done = harness(*toy(tmp_path, "--dry-run", "tune.draws=2", name="toy_tuned"))
    assert done.returncode == 0, done.stderr
    assert "waits for its 2 draws" in done.stdout
    assert "To run: 12 fits" in done.stdout
    assert "Budgets are equal: 8 epochs of tuning for every arm that trains." in done.stdout
    table = done.stdout.split("Budget of tuning")[1]
    assert [line.split() for line in table.strip().splitlines()[2:]] == [
        [arm, "2", "2", "8", "0", "2"] for arm in ("toy", "flaky", "broken")
    ]
    rows = json.loads(harness(*toy(tmp_path, "--dry-run", "tune.draws=2", "--format", "json", name="toy_tuned")).stdout)
    assert Counter(row["state"] for row in rows) == {"pending": 7, "waiting": 6}
