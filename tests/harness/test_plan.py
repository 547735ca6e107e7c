"""A sweep as a table: what makes a fit, what does not, and what is asked for only once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness import plan, snapshot
from harness.errors import RequestError
from harness.plan import Plan, Sweep, load_sweep, single
from harness.store import Store
from tests.conftest import PLUGIN

TOY = ["task=toy"]
Planned = Callable[..., Plan]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """Plans arms and axes of the toy."""
    cache = tmp_path_factory.mktemp("cache")

    def build(
        arms: dict[str, list[str]] | None = None, axes: dict[str, list[Any]] | None = None, *more: str, extra: tuple[Path, ...] = ()
    ) -> Plan:
        sweep = Sweep("s", "", arms or {"toy": ["baseline=toy"]}, axes or {}, [*TOY, *more])
        return plan.build(sweep, extra=[*extra, PLUGIN / "configs"], snapshot_of=lambda node, _: snapshot.take(node, cache))

    return build


@pytest.fixture(scope="module")
def plain(planned: Planned) -> Plan:
    return planned()


def settings(made: Plan) -> list[str]:
    return made.rows["setting"].to_list()


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sweep_of_one_is_one_row(planned: Planned) -> None:
    made = planned()
    assert made.rows.schema == pl.Schema(plan.PLAN)
    (row,) = made.rows.rows(named=True)
    assert (row["arm"], row["baseline"], row["fold"], row["seed"], row["task"], row["why_not"]) == ("toy", "toy", 0, 0, "toy", None)
    assert list(made.jobs) == [row["fit"]]
    assert made.jobs[row["fit"]].stages[-1].fit == row["fit"]


def test_draws_of_a_selection_without_chance_stand_once(planned: Planned) -> None:
    axes = {"evaluate.support.size": [2], "evaluate.support.selection": ["uniform", "random"], "evaluate.support.draw": [0, 1, 2]}
    made = planned(None, axes)
    assert sorted(settings(made)) == [
        '{"support":{"draw":0,"selection":"random","size":2}}',
        '{"support":{"draw":1,"selection":"random","size":2}}',
        '{"support":{"draw":2,"selection":"random","size":2}}',
        '{"support":{"selection":"uniform","size":2}}',
    ]


def test_anchors_stand_once_where_there_is_one_support_frame_and_only_for_who_reads_them(planned: Planned) -> None:
    axes = {"evaluate.support.size": [1, 2], "evaluate.anchor": ["last", "mean"]}
    assert len(settings(planned(None, axes))) == 2
    assert len(settings(planned({"toy": ["baseline=toy", "baseline.reads=[anchor]"]}, axes))) == 1 + 2


def test_what_does_not_depend_on_the_seed_is_not_repeated_over_seeds(planned: Planned) -> None:
    arms = {"toy": ["baseline=toy"], "mean_label": ["baseline=mean_label"]}
    made = planned(arms, {"fold": [0, 1], "seed": [0, 1, 2]})
    assert Counter(made.rows["arm"]) == {"toy": 2 * 3, "mean_label": 2}
    assert set(made.rows.filter(arm="mean_label")["seed"]) == {0}


def test_one_evaluation_under_two_names_stands_once(planned: Planned) -> None:
    made = planned({"a": ["baseline=mean_label"], "b": ["baseline=mean_label"]}, {"seed": [0, 1]})
    assert made.rows["arm"].to_list() == ["a"]


def test_a_varied_key_names_the_arm_and_a_group_may_be_an_axis(planned: Planned) -> None:
    made = planned({"arm": []}, {"baseline": ["toy", "mean_label"], "trainer.lr": [0.1, 0.2], "fold": [0, 1]})
    assert Counter(made.rows["arm"]) == {"arm toy 0.1": 2, "arm toy 0.2": 2, "arm mean_label 0.1": 2}


def test_what_a_method_cannot_do_is_a_row_with_a_reason_and_no_job(planned: Planned) -> None:
    arms = {"last": ["baseline=last_label"], "toy": ["baseline=toy"], "greedy": ["baseline=mean_label", "baseline.min_support=3"]}
    made = planned(arms, {"evaluate.support.size": [0, 1, 4, "50%"]})
    why = {(row["arm"], row["setting"]): row["why_not"] for row in made.rows.rows(named=True) if row["why_not"]}
    assert why == {
        ("last", '{"support":{"size":0}}'): "last_label needs at least 1 support frame",
        ("greedy", '{"support":{"size":0}}'): "mean_label needs at least 3 support frames",
        ("greedy", '{"support":{"selection":"uniform","size":1}}'): "mean_label needs at least 3 support frames",
    }
    entered = {evaluation for job in made.jobs.values() for _, _, evaluations in job.entries for evaluation, _ in evaluations}
    assert entered == set(made.rows.filter(pl.col("why_not").is_null())["evaluation"])


def test_a_target_that_a_method_does_not_predict_is_a_reason(planned: Planned) -> None:
    made = planned({"toy": ["baseline=toy", "baseline.targets=[valence]"]})
    assert made.rows["why_not"].to_list() == ["toy does not predict arousal"]


def test_every_combination_is_a_row(planned: Planned) -> None:
    axes: dict[str, list[Any]] = {
        "fold": [0, 1],
        "seed": [0, 1, 2],
        "evaluate.support.size": [1, 2, 3],
        "evaluate.support.selection": ["random"],
        "evaluate.support.draw": [0, 1, 2, 3],
    }
    made = planned({"toy": ["baseline=toy"], "mean_label": ["baseline=mean_label"]}, axes)
    assert made.rows.height == made.rows["evaluation"].n_unique() == 2 * 3 * 3 * 4 + 2 * 3 * 4
    assert len(made.jobs) == 2 * 3 + 2
    assert sum(len(evaluations) for job in made.jobs.values() for _, _, evaluations in job.entries) == made.rows.height


def test_what_has_a_record_is_not_pending(planned: Planned, tmp_path: Path) -> None:
    made, store = planned(None, {"evaluate.support.size": [0, 1]}), Store(tmp_path)
    assert made.pending(store).height == 2
    store.write_record({"evaluation": made.rows["evaluation"][0]}, pl.DataFrame({"n": [1]}))
    assert made.pending(store)["evaluation"].to_list() == made.rows["evaluation"].to_list()[1:]


def test_a_split_is_made_once_and_read_by_later_processes(planned: Planned, plain: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    node, task = next((job.task, task) for job, task in zip(plain.jobs.values(), plain.tasks.values(), strict=True))
    taken = next(iter(plain.snapshots.values()))
    rows, split, proof = plan.selected(task, node, taken, 0)
    monkeypatch.setattr(plan, "_splits", {})
    monkeypatch.setattr(type(task), "split", lambda *_: pytest.fail("split again"))
    again_rows, again, again_proof = plan.selected(task, node, taken, 0)
    assert again_rows.equals(rows)
    assert again_proof == proof
    assert again.name == split.name
    assert planned().rows.equals(plain.rows), "and it names the same fits"
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(again, part), getattr(split, part))
    for kept in (taken.folder / "splits").iterdir():
        kept.write_bytes(kept.read_bytes()[:50])
    monkeypatch.setattr(plan, "_splits", {})
    with pytest.raises(pytest.fail.Exception, match="split again"):
        plan.selected(task, node, taken, 0)


# ── what makes a fit ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def fit(made: Plan) -> str:
    (name,) = set(made.rows["fit"])
    return str(name)


@pytest.mark.parametrize(
    "override",
    [
        "baseline.stages.brightness.width=5",
        "+baseline.stages.brightness.weighting._target_=baselines.weighting.Equal",
        "+baseline.stages.brightness.version=2",
        "+baseline.stages.brightness.trainer.lr=0.3",
        "trainer.epochs=5",
        "trainer.lr=0.01",
        "trainer.augment.flip=0.0",
        "trainer.selection=validation",
        "seed=1",
        "fold=1",
        "task.frames.size=12",
        "task.dataset.synth.seed=1",
        "task.folds=3",
        "task.validation=0.5",
    ],
)
def test_what_changes_what_is_learned_makes_another_fit(planned: Planned, plain: Plan, override: str) -> None:
    assert fit(planned(None, None, override)) != fit(plain)


@pytest.mark.parametrize(
    "override",
    [
        "trainer.resources.workers=2",
        "trainer.resources.checkpoint_every=0",
        "trainer.resources.zero=2",
        "output_dir=elsewhere",
        "tracker=none",
        "cluster.cpus=2",
        "evaluate.support.size=1",
        "evaluate.anchor=mean",
        "baseline.version=2",
        "baseline.name=renamed",
        "task.version=2",
        "+task.note=changed",
        "+task.score_support=true",
    ],
)
def test_what_does_not_change_what_is_learned_leaves_the_fit(planned: Planned, plain: Plan, override: str) -> None:
    assert fit(planned(None, None, override)) == fit(plain)


@pytest.mark.parametrize(
    "override", ["baseline.version=2", "baseline.name=renamed", "+baseline.scale=2", "task.version=2", "task.protocol=p"]
)
def test_what_changes_a_prediction_or_its_score_leaves_the_fit_too(planned: Planned, plain: Plan, override: str) -> None:
    changed = planned(None, None, override)
    assert fit(changed) == fit(plain)
    assert changed.rows["evaluation"].to_list() != plain.rows["evaluation"].to_list()


def test_a_task_that_defines_other_labels_makes_another_fit(
    planned: Planned, plain: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "import polars as pl",
        "from tasks.few_shot import FewShotVideo",
        "class Turned(FewShotVideo):",
        "    def select(self, samples): return super().select(samples).with_columns(-pl.col('valence'))",
    ]
    (tmp_path / "turned.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    assert fit(planned(None, None, "task._target_=turned.Turned")) != fit(plain)


def test_a_setting_made_by_hand_goes_to_every_stage_also_to_one_with_a_trainer_of_its_own(planned: Planned) -> None:
    own = "+baseline.stages.brightness.trainer.lr=0.3"
    (job,) = planned(None, None, own).jobs.values()
    assert (job.stages[0].trainer["lr"], job.stages[0].trainer["epochs"]) == (0.3, 4)
    (job,) = planned(None, None, own, "trainer.lr=0.2", "trainer.augment.flip=0.1").jobs.values()
    assert (job.stages[0].trainer["lr"], job.stages[0].trainer["augment"]["flip"]) == (0.2, 0.1)


# ── what is shared ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A second method on the toy's stage, and one with a second stage on top of it."""
    folder = tmp_path / "configs" / "baseline"
    folder.mkdir(parents=True)
    head = "_target_: toy.Toy\nversion: 1\n"
    (folder / "twin.yaml").write_text(f"# Twin\ndefaults: [toy, _self_]\n{head}name: twin\nreads: [anchor]\n")
    top = "stages: {top: {_target_: toy.Brightness, width: 2}}\n"
    (folder / "tower.yaml").write_text(f"# Tower\ndefaults: [toy, _self_]\n{head}name: tower\n{top}")
    return folder.parent


def test_two_methods_on_one_stage_share_its_fit(planned: Planned, users: Path) -> None:
    made = planned({"toy": ["baseline=toy"], "twin": ["baseline=twin"]}, {"evaluate.support.size": [1, 2]}, extra=(users,))
    assert made.rows.height == 4
    (job,) = made.jobs.values()
    entered = [(baseline["name"], arm, len(evaluations)) for baseline, arm, evaluations in job.entries]
    assert entered == [("toy", "toy", 2), ("twin", "twin", 2)]


def test_a_second_stage_waits_for_the_first_and_its_fit_depends_on_it(planned: Planned, users: Path) -> None:
    made = planned({"tower": ["baseline=tower"], "toy": ["baseline=toy"]}, extra=(users,))
    fits = dict(made.rows.select("arm", "fit").iter_rows())
    tower = made.jobs[fits["tower"]]
    assert [stage.name for stage in tower.stages] == ["brightness", "top"]
    assert tower.needs == fits["toy"] == tower.stages[0].fit
    assert made.jobs[fits["toy"]].needs is None
    wider = planned({"tower": ["baseline=tower", "baseline.stages.brightness.width=9"]}, extra=(users,))
    assert wider.rows["fit"][0] not in fits.values()


def test_a_first_stage_alone_is_a_job_without_evaluations(planned: Planned, users: Path) -> None:
    made = planned({"tower": ["baseline=tower"]}, extra=(users,))
    assert sorted(len(job.entries) for job in made.jobs.values()) == [0, 1]


def test_two_protocols_on_one_fit_are_each_measured_as_themselves(planned: Planned) -> None:
    made = planned({"fair": [], "flattering": ["+task.score_support=true", "task.protocol=flattering"]})
    (job,) = made.jobs.values()
    by_arm = dict(made.rows.select("arm", "evaluation").iter_rows())
    assert by_arm["fair"] not in job.tasks
    assert job.task["protocol"] == "toy"
    assert job.tasks[by_arm["flattering"]]["protocol"] == "flattering"


def test_what_was_set_on_top_of_a_task_is_kept_for_rescoring(planned: Planned) -> None:
    made = planned(None, {"task.validation": [0.2, 0.3]}, "task.folds=3", "task.frames.size=12", "trainer.epochs=2")
    kept = [job.task["overrides"] for job in made.jobs.values()]
    assert kept == [{"task.folds": 3, "task.validation": 0.2}, {"task.folds": 3, "task.validation": 0.3}]


# ── the YAML and the command line ────────────────────────────────────────────────────────────────────────────────────────────

SWEEP = """
question: Which?
base: [task=toy]
arms: {a: [baseline=toy], b: [baseline=mean_label]}
axes: {seed: [0], evaluate.support.size: [1, 6%]}
scale: small
scales:
  small: {}
  large: {overrides: [trainer.epochs=9], axes: {seed: [0, 1, 2], fold: [0, 1]}}
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], list[Path]]:
    def write(text: str) -> list[Path]:
        (tmp_path / "sweep").mkdir(exist_ok=True)
        (tmp_path / "sweep" / "mine.yaml").write_text(text)
        return [tmp_path]

    return write


def test_a_sweep_is_what_its_yaml_says(written: Callable[[str], list[Path]]) -> None:
    sweep = load_sweep("mine", (), written(SWEEP))
    assert sweep.arms == {"a": ["baseline=toy"], "b": ["baseline=mean_label"]}
    assert sweep.axes == {"seed": [0], "evaluate.support.size": [1, "6%"]}
    assert sweep.overrides == ["task=toy"]
    assert load_sweep("mine", (), written("base: [task=toy]")).arms == {"mine": []}


def test_the_command_line_changes_scale_arms_axes_and_anything_else(written: Callable[[str], list[Path]]) -> None:
    extra = written(SWEEP)
    large = load_sweep("mine", ["scale=large"], extra)
    assert large.axes == {"seed": [0, 1, 2], "evaluate.support.size": [1, "6%"], "fold": [0, 1]}
    assert large.overrides == ["task=toy", "trainer.epochs=9"]
    changed = load_sweep("mine", ["seed=4,5", "evaluate.support.size=[2, 7%]", "arms=b", "trainer.lr=0.1", "+x.y=[1,2]"], extra)
    assert changed.axes == {"seed": [4, 5], "evaluate.support.size": [2, "7%"]}
    assert list(changed.arms) == ["b"]
    assert changed.overrides == ["task=toy", "trainer.lr=0.1", "+x.y=[1,2]"]
    assert load_sweep("mine", ["arms=[b,a]"], extra).arms == {"b": ["baseline=mean_label"], "a": ["baseline=toy"]}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["scale=larg"], "did you mean 'large'?"),
        (["arms=a,c"], "no arm is called 'c'"),
        (["baseline=toy"], "arms=a,b"),
        (["seed"], "write it as key=value"),
        (["=3"], "write it as key=value"),
        (["seed="], "an axis needs a list of values"),
        (["seed={0"], "'{0' is no list of values"),
    ],
)
def test_a_wrong_override_of_a_sweep_is_told_in_one_line(written: Callable[[str], list[Path]], overrides: list[str], expected: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_sweep("mine", overrides, written(SWEEP))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("arms: {a: [", "mine.yaml is no YAML"),
        ("a: \tb", "mine.yaml is no YAML"),
        ("- a\n- b", "mine.yaml holds no mapping"),
        ("", "mine.yaml holds no mapping"),
        ("axis: {seed: [0]}", "did you mean 'axes'?"),
        ("axes: {seed: 0}", "an axis needs a list of values, got 0"),
        ("axes: {seed: []}", "an axis needs a list of values, got []"),
        ("axes: [seed]", "['seed'] is no mapping (mine.yaml: axes)"),
        ("arms: [a, b]", "is no mapping (mine.yaml: arms)"),
        ("arms: {a: baseline=toy}", "'baseline=toy' is no list of overrides (mine.yaml: arms.a)"),
        ("arms: {a: [{baseline: toy}]}", "is no list of overrides (mine.yaml: arms.a); write it as [key=value, …]"),
        ("base: task=toy", "is no list of overrides (mine.yaml: base)"),
        ("scale: big", "no scale is called 'big' (scale=big); this sweep has none"),
        ("scale: s\nscales: {s: {axis: {}}}", "did you mean 'axes'?"),
        ("scale: s\nscales: {s: [1]}", "is no mapping (mine.yaml: scales.s)"),
    ],
)
def test_a_wrong_sweep_file_is_told_in_one_line(written: Callable[[str], list[Path]], text: str, expected: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_sweep("mine", (), written(text))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sweep_that_is_not_text_or_not_there_is_told(written: Callable[[str], list[Path]], tmp_path: Path) -> None:
    extra = written("")
    (tmp_path / "sweep" / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match="is no YAML"):
        load_sweep("mine", (), extra)
    with pytest.raises(RequestError, match="did you mean 'mine'"):
        load_sweep("mime", (), extra)


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"fold": ["a"]}, "give a whole number from 0 on"),
        ({"fold": [2]}, "toy has folds 0 to 1"),
        ({"seed": [-1]}, "give a whole number from 0 on"),
        ({"seed": [True]}, "give a whole number from 0 on"),
        ({"trainer.epoch": [1]}, "did you mean 'epochs'?"),
        ({"trainer.epochs": ["many"]}, "'many' is out of range (trainer.epochs)"),
        ({"evaluate.support.size": ["many"]}, "support size 'many'"),
        ({"evaluate.suport.size": [1]}, "did you mean 'support'?"),
        ({"baseline": ["toi"]}, "did you mean 'toy'?"),
    ],
)
def test_an_axis_value_that_cannot_be_is_told_while_planning(planned: Planned, axes: dict[str, list[Any]], expected: str) -> None:
    with pytest.raises(RequestError) as caught:
        planned({"arm": []}, axes)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_baseline_or_task_without_what_a_plan_needs_is_told(planned: Planned, tmp_path: Path) -> None:
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / "listed.yaml").write_text("- a\n- b\n")
    with pytest.raises(RequestError, match=r"baseline\._target_ is not set"):
        planned({"arm": ["baseline=listed"]}, extra=(tmp_path,))
    for override, expected in {"~baseline.version": "baseline.version is not set", "~task.frames": "task.frames is not set"}.items():
        with pytest.raises(RequestError, match=expected):
            planned(None, None, override)


def test_settings_become_columns_of_their_own(planned: Planned) -> None:
    made = planned({"toy": ["baseline=toy", "baseline.reads=[anchor]"]}, {"evaluate.support.size": [0, 2]})
    flat = plan.flatten(made.rows)
    assert flat.select("support.size", "support.selection", "anchor").rows() == [("0", None, None), ("2", "uniform", "last")]
    assert flat.select(made.rows.columns).equals(made.rows)


def test_what_is_run_alone_is_run_on_all_folds_of_its_task_unless_some_are_named() -> None:
    assert single(["task=disfa"]).axes == {"fold": [0, 1, 2]}
    assert single(["task=disfa", "task.folds=5"]).axes == {"fold": [0, 1, 2, 3, 4]}
    assert single(["task=raf_db_expression", "seed=0,1"]).axes == {"fold": [0], "seed": [0, 1]}
    assert single(["task=disfa", "fold=1"]).axes == {"fold": [1]}
    assert single(["fold=0,2", "trainer.epochs=3"]).overrides == ["trainer.epochs=3"]
    several = single(["task=disfa", "evaluate.threshold=0.5,validation", "evaluate.support.size=0"])
    assert several.axes["evaluate.threshold"] == [0.5, "validation"]
    assert several.overrides == ["task=disfa", "evaluate.support.size=0"]


def test_what_is_run_alone_has_the_controls_of_its_task_beside_it() -> None:
    sweep = single(["baseline=mt_clar", "baseline.stages.pairs.dropout=0.2", "trainer.epochs=3"])
    assert sweep.arms["mt_clar"] == ["baseline=mt_clar", "baseline.stages.pairs.dropout=0.2"]
    assert sweep.overrides == ["trainer.epochs=3"]
    assert sweep.arms["last_label"] == ["baseline=last_label"]
    assert list(single(["baseline=ridge"]).arms) == ["ridge", "mean_label", "last_label", "interpolation"]


def test_a_group_inside_a_baseline_is_chosen_for_it_and_not_for_its_controls() -> None:
    group = "positives@baseline.stages.contrast.positives=subject"
    sweep = single(["task=bp4d", "baseline=clef", group, "trainer.epochs=1"])
    assert sweep.arms["clef"] == ["baseline=clef", group]
    assert sweep.arms["ridge"] == ["baseline=ridge"]
    assert sweep.overrides == ["task=bp4d", "trainer.epochs=1"]
