from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness import metrics
from harness.errors import RequestError
from harness.leaderboard import ORACLE, SAME, against, efficiency, leaderboard, parts
from harness.statistics import Panel, holm

SETTINGS = ("support.size", "support.selection", "anchor")


def world(
    arms: dict[str, dict[str, Any]], *, sizes: tuple[str, ...] = ("4",), folds: int = 2, seeds: int = 1, clips: int = 12
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and units of made-up predictions: an arm is its error, and what else its records say."""
    records, units = [], []
    for arm, facts in arms.items():
        facts = dict(facts)
        error, anchor, own = facts.pop("error"), facts.pop("anchor", None), facts.pop("sizes", sizes)
        for size in own:
            for fold in range(folds):
                for seed in range(seeds):
                    name = f"{arm}-{size}-{fold}-{seed}"
                    labels = np.random.default_rng(fold)  # the same clips for everybody
                    noise = np.random.default_rng([fold, seed, *map(ord, arm + str(size))])
                    y = np.repeat(labels.normal(0, 0.3, (clips, 2)), 10, axis=0) + labels.normal(0, 0.2, (10 * clips, 2))
                    p = y + error * (noise.normal(0, 1, y.shape) + np.repeat(noise.normal(0, 1, (clips, 2)), 10, axis=0))
                    clip = np.repeat(np.arange(clips), 10) + 100 * fold
                    frame = pl.DataFrame(
                        {"clip": clip.astype(str), "subject": (clip // 2).astype(str), "valence": y[:, 0], "arousal": y[:, 1]}
                    )
                    frame = frame.with_columns(valence_pred=p[:, 0], arousal_pred=p[:, 1])
                    sums = metrics.units(frame, targets=("valence", "arousal"))
                    units.append(sums.with_columns(evaluation=pl.lit(name)))
                    known = {"support.size": size, "support.selection": "uniform", "anchor": anchor, "fold": fold, "seed": seed}
                    known |= {"evaluation": name, "arm": arm, "baseline": arm, "baseline_version": 1, "control": False, "selection": "last"}
                    known |= {"task": "t", "task_version": 1, "protocol": "p", "dataset": "d", "data": "f", "synthetic": True}
                    found = {what: None if math.isnan(value) else value for what, value in metrics.metrics(sums).items()}
                    known |= {
                        "score": found["ccc"],
                        "metrics": json.dumps(found),
                        "labels_used": clips * int(size or 0),
                        "n_samples": 10 * clips,
                    }
                    records.append(known | {"n_clips": clips, "n_subjects": clips // 2} | facts)
    return pl.DataFrame(records, infer_schema_length=None), pl.concat(units)


ARMS: dict[str, dict[str, Any]] = {
    "good": {"error": 0.05, "anchor": "nearest"},
    "fair": {"error": 0.3, "anchor": "nearest"},
    "mean": {"error": 0.8, "control": True},
    "last": {"error": 0.6, "control": True},
}


def rank(records: pl.DataFrame, units: pl.DataFrame | None = None, **options: Any) -> pl.DataFrame:
    return leaderboard(records, units, primary="ccc", settings=SETTINGS, draws=400, **options)


def row(table: pl.DataFrame, arm: str) -> dict[str, Any]:
    (found,) = table.filter(pl.col("arm") == arm).to_dicts()
    return found


def test_a_score_is_the_mean_over_records_and_the_best_stands_first() -> None:
    records, units = world(ARMS, seeds=3)
    table = rank(records, units)
    assert table["arm"].to_list() == ["good", "fair", "last", "mean"]
    assert table["rank"].to_list() == [1, 2, 3, 4]
    for arm in ARMS:
        mine = records.filter(pl.col("arm") == arm)
        assert row(table, arm)["score"] == pytest.approx(mine["score"].mean(), abs=1e-12)
        assert row(table, arm)["lo"] < row(table, arm)["score"] < row(table, arm)["hi"]
        by_seed = mine.group_by("seed").agg(pl.col("score").mean())["score"].to_numpy()
        by_fold = mine.group_by("fold").agg(pl.col("score").mean())["score"].to_numpy()
        assert row(table, arm)["se_seed"] == pytest.approx(by_seed.std(ddof=1) / np.sqrt(3))
        assert row(table, arm)["se_fold"] == pytest.approx(by_fold.std(ddof=1) / np.sqrt(2))
    assert row(table, "good") | {"n_records": 6, "n_fold": 2, "n_seed": 3, "n_subjects": 12, "n_clips": 24} == row(table, "good")
    assert row(table, "good")["labels_per_clip"] == 4
    assert row(table, "good")["labelled"] == pytest.approx(0.4)


def test_a_row_of_one_seed_has_no_error_over_seeds() -> None:
    table = rank(*world(ARMS))
    assert table["se_seed"].is_null().all()
    assert table["se_fold"].is_not_null().all()


def test_folds_weigh_the_same_however_many_seeds_they_have() -> None:
    records, units = world(ARMS, seeds=2)
    lame = pl.col("arm").eq("good") & pl.col("fold").eq(1) & pl.col("seed").eq(1)
    table = rank(records.filter(~lame), units)
    mine = records.filter(~lame & pl.col("arm").eq("good"))
    expected = np.mean([mine.filter(pl.col("fold") == fold)["score"].mean() for fold in (0, 1)])
    assert row(table, "good")["score"] == pytest.approx(expected)


def test_a_gain_is_over_the_best_control_at_the_same_setting() -> None:
    arms = ARMS | {"last": {"error": 0.6, "control": True, "sizes": ("4",)}}
    table = rank(*world(arms, sizes=("1", "4")), within=("support.size",))
    at = {(r["support.size"], r["arm"]): r for r in table.to_dicts()}
    assert at["4", "good"]["best_control"] == "last"
    assert at["1", "good"]["best_control"] == "mean"  # last has no row of size 1
    for size, control in (("4", "last"), ("1", "mean")):
        gain = at[size, "good"]["gain"]
        assert gain == pytest.approx(at[size, "good"]["score"] - at[size, control]["score"])
        assert at[size, "good"]["gain_lo"] < gain < at[size, "good"]["gain_hi"]
        assert at[size, control]["gain"] is None
    assert [(r["support.size"], r["rank"]) for r in table.to_dicts()][:4] == [("1", 1), ("1", 2), ("1", 3), ("4", 1)]


def test_a_control_that_knows_no_support_is_beside_every_size() -> None:
    arms = {"good": ARMS["good"], "prior": {"error": 0.7, "control": True, "sizes": (None,)}}
    table = rank(*world(arms, sizes=("1", "4")))
    assert table.filter(~pl.col("control"))["best_control"].to_list() == ["prior", "prior"]


def test_what_cannot_be_told_from_the_leader_is_marked() -> None:
    arms = {"good": {"error": 0.2}, "twin": {"error": 0.2}, "bad": {"error": 1.5}}
    table = rank(*world(arms, clips=40))
    first, second = table["arm"].to_list()[:2]
    assert {first, second} == {"good", "twin"}
    assert table["tie"].to_list() == [None, True, False]


def test_lower_is_better_turns_the_table_and_the_sign_of_the_gain() -> None:
    records, units = world(ARMS)
    rmse = pl.Series([metrics.metrics(units.filter(pl.col("evaluation") == name))["rmse"] for name in records["evaluation"]])
    table = leaderboard(records.with_columns(score=rmse), units, primary="rmse", settings=SETTINGS, higher_is_better=False, draws=200)
    assert table["arm"].to_list() == ["good", "fair", "last", "mean"]
    assert row(table, "good")["gain"] == pytest.approx(row(table, "last")["score"] - row(table, "good")["score"])
    assert row(table, "good")["gain_lo"] < row(table, "good")["gain"] < row(table, "good")["gain_hi"]


def test_an_oracle_and_a_row_without_all_its_folds_are_shown_and_not_ranked() -> None:
    arms = ARMS | {"peeking": {"error": 0.01, "selection": ORACLE}}
    records, units = world(arms)
    table = rank(records.filter(~(pl.col("arm").eq("fair") & pl.col("fold").eq(1))), units)
    assert table["arm"].to_list()[:1] == ["good"]
    assert row(table, "peeking")["rank"] is None
    assert row(table, "peeking")["note"] == "selected on the test set"
    assert row(table, "fair")["rank"] is None
    assert row(table, "fair")["note"] == "1 of 2 folds"
    shared = records.filter(pl.col("fold") == 0)
    gap = shared.filter(pl.col("arm") == "fair")["score"][0] - shared.filter(pl.col("arm") == "last")["score"][0]
    assert row(table, "fair")["gain"] == pytest.approx(gap)  # over the folds both have


def test_an_undefined_score_is_no_rank() -> None:
    records, _ = world(ARMS)
    table = rank(records.with_columns(score=pl.when(pl.col("evaluation") == "fair-4-0-0").then(None).otherwise("score")))
    assert row(table, "fair")["score"] is None
    assert row(table, "fair")["note"] == "undefined"
    assert row(table, "good")["rank"] == 1


def test_without_units_there_are_ranks_and_gains_but_no_intervals() -> None:
    table = rank(world(ARMS)[0])
    assert table["rank"].to_list() == [1, 2, 3, 4]
    assert row(table, "good")["gain"] > 0
    assert table.select("lo", "hi", "gain_p", "tie").null_count().row(0) == (4, 4, 4, 4)


@pytest.mark.parametrize(("column", "value"), [("task_version", 2), ("protocol", "as_released"), ("synthetic", False), ("data", "g")])
def test_what_may_not_share_a_table_is_refused(column: str, value: object) -> None:
    records, _ = world(ARMS)
    mixed = records.with_columns(pl.when(pl.col("arm") == "good").then(pl.lit(value)).otherwise(column).alias(column))
    with pytest.raises(RequestError, match=f"{column}.*cannot share a table"):
        rank(mixed)
    assert [part.height for part in mixed.partition_by(SAME)] == [2, 6]


def test_two_records_in_one_cell_are_refused_by_name() -> None:
    records, _ = world(ARMS)
    double = records.filter(pl.col("evaluation") == "good-4-0-0").with_columns(evaluation=pl.lit("other"))
    with pytest.raises(RequestError, match="good-4-0-0 and other"):
        rank(pl.concat([records, double]))


def test_versions_of_a_baseline_are_rows_of_their_own() -> None:
    records, _ = world(ARMS)
    newer = records.filter(pl.col("arm") == "good").with_columns(
        baseline_version=pl.lit(2, pl.Int64), evaluation=pl.col("evaluation") + "v2"
    )
    assert rank(pl.concat([records, newer])).filter(pl.col("arm") == "good")["baseline_version"].sort().to_list() == [1, 2]


def test_the_same_records_in_another_order_give_the_same_table() -> None:
    records, units = world(ARMS, sizes=("1", "4"), seeds=2)
    shuffled = rank(records.sample(fraction=1, shuffle=True, seed=3), units.sample(fraction=1, shuffle=True, seed=4))
    assert shuffled.equals(rank(records, units))


def curve(scores: dict[float, float], arm: str = "a") -> pl.DataFrame:
    rows = [
        {"arm": arm, "support.selection": "uniform", "selection": "last", "score": s, "labels_per_clip": n, "labelled": n / 50}
        for n, s in scores.items()
    ]
    return pl.DataFrame(rows)


def test_the_area_is_a_mean_score_over_doublings_of_the_labels() -> None:
    table = efficiency(curve({1.0: 0.2, 2.0: 0.4, 8.0: 0.6}), reference=0.5)
    assert table["area"][0] == pytest.approx((1 * 0.3 + 2 * 0.5) / 3)
    assert table["meets"][0] == pytest.approx(4 / 50)  # half-way between 2 and 8 in doublings
    assert table.select("points", "labels_from", "labels_to").row(0) == (3, 1.0, 8.0)


def test_a_curve_meets_the_reference_at_once_or_never_or_in_the_other_direction() -> None:
    both = pl.concat([curve({1.0: 0.2, 2.0: 0.4}, "low"), curve({1.0: 0.7, 2.0: 0.8}, "high")])
    high, low = efficiency(both, reference=0.5).to_dicts()
    assert (high["arm"], high["meets"], low["arm"], low["meets"]) == ("high", pytest.approx(1 / 50), "low", None)
    errors = efficiency(curve({1.0: 0.4, 4.0: 0.2}), reference=0.3, higher_is_better=False)
    assert errors["meets"][0] == pytest.approx(2 / 50)


def test_a_budget_without_labels_is_no_point_of_the_curve_and_one_point_no_area() -> None:
    table = efficiency(curve({0.0: 0.9, 2.0: 0.4}))
    assert table.select("points", "area", "meets").row(0) == (1, None, None)


def test_folds_put_together_stand_beside_their_mean() -> None:
    records, units = world(ARMS, folds=3)
    table = rank(records, units)
    assert all(row(table, arm)["pooled"] != row(table, arm)["score"] for arm in ARMS)
    for arm in ARMS:
        mine = records.filter(pl.col("arm") == arm)["evaluation"]
        whole = units.filter(pl.col("evaluation").is_in(mine.implode()))
        assert row(table, arm)["pooled"] == pytest.approx(metrics.metrics(whole)["ccc"])
    assert rank(*world(ARMS, folds=1))["pooled"].is_null().all()


def test_the_score_in_parts_has_the_rows_of_the_table_and_means_over_folds_and_seeds() -> None:
    records, units = world(ARMS, folds=2, seeds=2, sizes=("1", "4"))
    table = rank(records, units, within=["support.size"])
    shown = parts(records, table, ["ccc_valence", "rmse", "f1_au12"], settings=SETTINGS)
    assert shown.columns == ["arm", *SETTINGS, "ccc_valence", "rmse"], "what no record has is left out"
    assert shown.select("arm", *SETTINGS).equals(table.select("arm", *SETTINGS))
    rmse = records.with_columns(rmse=pl.col("metrics").str.json_path_match("$.rmse").cast(pl.Float64))
    for found in shown.to_dicts():
        mine = rmse.filter(arm=found["arm"], **{"support.size": found["support.size"]})["rmse"]
        assert found["rmse"] == pytest.approx(mine.mean())


def test_a_part_that_is_undefined_in_one_fold_is_undefined() -> None:
    records, units = world({"good": {"error": 0.1}})
    holes = records.with_columns(metrics=pl.Series(['{"f1_au1": 0.5}', '{"f1_au1": null}']))
    assert parts(holes, rank(records, units), ["f1_au1"], settings=SETTINGS)["f1_au1"].to_list() == [None]


def test_every_arm_against_one_of_them_is_paired_and_corrected() -> None:
    records, units = world(ARMS)
    found = against(records, units, "fair", ["ccc", "rmse_valence"], higher_is_better=[True, False], draws=400)
    assert found["arm"].unique().sort().to_list() == ["good", "last", "mean"]
    table = rank(records, units)
    for arm in ("good", "last", "mean"):
        (of_score,) = found.filter(arm=arm, metric="ccc").to_dicts()
        assert of_score["gain"] == pytest.approx(row(table, arm)["score"] - row(table, "fair")["score"])
        assert of_score["lo"] < of_score["gain"] < of_score["hi"]
    good = found.filter(arm="good").to_dicts()
    assert all(one["lo"] > 0 for one in good), "positive is better, of an error as of a correlation"
    panel = Panel(units.join(records.select("evaluation", "fold"), on="evaluation"), draws=400)
    of = {arm: sorted(records.filter(arm=arm)["evaluation"]) for arm in ARMS}
    plain = [panel.difference(of[arm], of["fair"], "ccc").p for arm in ("good", "last", "mean")]
    assert found.filter(metric="ccc")["p"].to_list() == pytest.approx(holm(np.array(plain)).tolist())
    with pytest.raises(RequestError, match="no record of 'best'"):
        against(records, units, "best", ["ccc"], higher_is_better=[True])
