"""The sweeps around CLEF as plans: which arms there are, how many fits they need, and what is fitted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from harness import plan, snapshot
from harness.config import available
from harness.plan import Job, Plan, load_sweep

SMALL = ["task.dataset.synth.frames=[6,6]", "task.frames.size=16", "task.frames.channels=1"]
METHODS = ("clef", "linear", "knn")
STRATEGIES = sorted(available("positives"))
TASKS = ("bp4d", "csv_expression")
ROWS = [  # of the paper's table: pre-training with texts and with images; images, names and descriptions after it
    *(
        (name, False, False, *after)
        for name in ("CLIP", "FaRL")
        for after in ((True, False, False), (True, True, False), (True, True, True))
    ),
    ("CLEF", False, True, True, False, False),
    ("CLEF", True, True, True, False, False),
    ("CLEF", False, True, True, True, False),
    ("CLEF", True, True, True, True, False),
    ("CLEF", False, True, True, True, True),
    ("CLEF", True, True, True, False, True),
    ("CLEF", True, True, True, True, True),
]
Planned = Callable[..., Plan]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    cache = tmp_path_factory.mktemp("cache")

    def build(name: str, *overrides: str) -> Plan:
        return plan.build(load_sweep(name, [*SMALL, *overrides]), snapshot_of=lambda node, _: snapshot.take(node, cache))

    return build


@pytest.fixture(scope="module")
def strategies(planned: Planned) -> Plan:
    return planned("pair_strategy", "scale=full", "fold=0,1", "seed=0,1")


def first_stage(made: Plan, row: dict[str, Any]) -> str:
    """The fit of the first stage that a row rests on."""
    return made.jobs[row["fit"]].stages[0].fit


def switches(job: Job) -> tuple[bool, ...]:
    """What is told apart in the paper's table."""
    stages = {stage.name: stage.config for stage in job.stages}
    before, after = stages.get("contrast", {"image_text": False, "image_image": False}), stages["similarity"]
    return before["image_text"], before["image_image"], True, after["names"], after["descriptions"]


def test_every_strategy_has_its_three_arms_beside_the_controls() -> None:
    sweep = load_sweep("pair_strategy")
    assert STRATEGIES
    assert set(sweep.arms) == {f"{method} {strategy}" for method in METHODS for strategy in STRATEGIES} | {
        "supervised",
        "ridge",
        "mean_label",
    }
    for method in METHODS:
        for strategy in STRATEGIES:
            baseline, positives, *_ = sweep.arms[f"{method} {strategy}"]
            assert baseline == ("baseline=clef" if method == "clef" else f"baseline=clef_{method}")
            assert positives == f"positives@baseline.stages.contrast.positives={strategy}"


def test_each_arm_has_a_row_a_task_fold_and_seed_and_controls_one_a_fold(strategies: Plan) -> None:
    counts = Counter(strategies.rows["arm"])
    assert counts == {
        **{f"{method} {strategy} {task}": 4 for method in METHODS for strategy in STRATEGIES for task in TASKS},
        **{f"supervised {task}": 4 for task in TASKS},
        **{f"{control} {task}": 2 for control in ("ridge", "mean_label") for task in TASKS},
    }


def test_the_first_stage_of_a_strategy_task_fold_and_seed_is_one_fit_of_all_three_arms(strategies: Plan) -> None:
    rows = strategies.rows.filter(pl.col("why_not").is_null(), pl.col("baseline").str.starts_with("clef")).rows(named=True)
    shared: dict[tuple[Any, ...], set[str]] = {}
    for row in rows:
        strategy = row["arm"].split(" ")[1]
        shared.setdefault((strategy, row["task"], row["fold"], row["seed"]), set()).add(first_stage(strategies, row))
    assert len(rows) == 3 * len(shared)
    assert {len(fits) for fits in shared.values()} == {1}
    assert len(set.union(*shared.values())) == len(shared) == (2 * len(STRATEGIES) - 1) * 4, "BP4D has no expressions to pair by"


def test_the_plan_fits_each_stage_once_and_nothing_twice(strategies: Plan) -> None:
    fits = [stage.fit for job in strategies.jobs.values() for stage in job.stages[-1:]]
    contrasts = (2 * len(STRATEGIES) - 1) * 4
    possible = strategies.rows.filter(pl.col("why_not").is_null())
    needed = set(possible["fit"]) | {stage.fit for fit in set(possible["fit"]) for stage in strategies.jobs[fit].stages}
    assert len(fits) == len(set(fits))
    assert len(needed & set(fits)) == 2 * contrasts + 2 * 4, "a first and a second stage for each strategy, and the supervised network"
    entered = Counter(len(strategies.jobs[fit].entries) for fit in needed if fit in strategies.jobs and strategies.jobs[fit].stages)
    assert entered == {2: contrasts, 1: contrasts + 2 * 4}, "both probes on the first stage, and one method on each of the others"


def test_what_has_no_expressions_is_not_paired_by_them_and_says_so(strategies: Plan) -> None:
    told = strategies.rows.filter(pl.col("why_not").is_not_null())
    assert set(told["arm"]) == {f"{method} expression bp4d" for method in METHODS}
    assert told["why_not"].str.contains("does not predict au1").all()


def test_the_demonstration_is_one_fold_and_seed_of_both_tasks() -> None:
    demo = load_sweep("pair_strategy")
    assert demo.axes == {"task": list(TASKS), "fold": [0], "seed": [0]}


def test_the_ablation_has_the_papers_thirteen_rows(planned: Planned) -> None:
    made = planned("clef_ablation", "scale=paper", "fold=0", "seed=0")
    assert made.rows.height == len(made.sweep.arms) == len(ROWS) == 13
    found = [(row["arm"].split(" ")[0], *switches(made.jobs[row["fit"]])) for row in made.rows.rows(named=True)]
    assert found == ROWS
    for row in made.rows.rows(named=True):
        models = {stage.config["backbone"]["model"] for stage in made.jobs[row["fit"]].stages}
        assert models == {"weights/farl-base-patch16" if row["arm"].startswith("FaRL") else "openai/clip-vit-base-patch16"}
    assert sum(len(job.stages) == 1 and job.stages[0].name == "contrast" for job in made.jobs.values()) == 2, "with texts and without"


def test_the_ablation_without_weights_differs_from_it_in_nothing_but_where_it_begins(planned: Planned) -> None:
    made = planned("clef_ablation_demo", "task=bp4d")
    rows = made.rows.filter(pl.col("baseline").str.starts_with("clef")).rows(named=True)
    found = [(row["arm"].split(" ")[0], *switches(made.jobs[row["fit"]])) for row in rows]
    assert found == [("scratch", *row[1:]) for row in ROWS[:3]] + ROWS[6:]
    assert {stage.config["backbone"]["name"] for row in rows for stage in made.jobs[row["fit"]].stages} == {"conv"}
    assert sum(len(job.stages) == 1 and job.stages[0].name == "contrast" for job in made.jobs.values()) == 2
    assert {"supervised bp4d", "ridge bp4d", "mean_label bp4d"} < set(made.rows["arm"])


@pytest.mark.parametrize("probe", ["clef_linear", "clef_knn"])
def test_probes_rest_on_the_stage_of_clef_itself(probe: str) -> None:
    from harness.config import compose

    for changed in ([], ["positives@baseline.stages.contrast.positives=subject", "baseline.stages.contrast.temperature=0.2"]):
        own, clef = (compose([f"baseline={name}", *changed])["baseline"]["stages"] for name in (probe, "clef"))
        assert list(own) == ["contrast"]
        assert own["contrast"] == clef["contrast"]


def test_the_first_stage_by_itself_is_no_baseline() -> None:
    assert "clef_contrast" not in available("baseline")
