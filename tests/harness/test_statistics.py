from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.regression import concordance_corrcoef

from harness import statistics
from harness.errors import RequestError
from harness.statistics import Panel, bootstrap, holm

CLASSES = ("neutral", "happy", "sad")
VA = ("valence", "arousal")


def affect(y: np.ndarray, p: np.ndarray, *, clips: int = 1, subjects: int = 1) -> pl.DataFrame:
    """Predictions of valence, and of arousal the other way round, in clips of equal length."""
    clip = np.arange(len(y)) * clips // max(len(y), 1)
    names = {"clip": clip.astype(str), "subject": (clip * subjects // clips).astype(str)}
    return pl.DataFrame(names | {"valence": y, "valence_pred": p, "arousal": -y, "arousal_pred": -p})


def valence_metrics(y: list[float] | np.ndarray, p: list[float] | np.ndarray, **how: int) -> dict[str, float]:
    return statistics.metrics(statistics.units(affect(np.asarray(y, float), np.asarray(p, float), **how), targets=VA))


def drawn(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.round(rng.uniform(-1, 1, n), 1)  # with exact zeros, as labels have
    return y, 0.6 * y + 0.2 + rng.normal(0, 0.3, n)


# ── valence and arousal ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("clips", [1, 8, 40])
def test_pooled_metrics_equal_those_of_other_libraries_however_the_frames_are_cut(clips: int) -> None:
    import torch

    y, p = drawn()
    found = valence_metrics(y, p, clips=clips, subjects=max(clips // 4, 1))
    assert found["ccc_valence"] == pytest.approx(_population_ccc(y, p), abs=1e-12)
    assert found["ccc_valence"] == pytest.approx(float(concordance_corrcoef(torch.tensor(p), torch.tensor(y))), abs=2e-3)  # ddof 1 there
    assert found["pcc_valence"] == pytest.approx(stats.pearsonr(y, p).statistic, abs=1e-12)
    assert found["rmse_valence"] == pytest.approx(sklearn_metrics.root_mean_squared_error(y, p), abs=1e-12)
    assert found["sagr_valence"] == pytest.approx(np.mean(np.sign(y) == np.sign(p)), abs=1e-12)
    for kind in ("ccc", "pcc", "rmse", "sagr"):
        assert found[kind] == pytest.approx((found[f"{kind}_valence"] + found[f"{kind}_arousal"]) / 2)


def _population_ccc(y: np.ndarray, p: np.ndarray) -> float:
    return float(2 * np.cov(y, p, ddof=0)[0, 1] / (y.var() + p.var() + (y.mean() - p.mean()) ** 2))


def test_per_clip_metrics_are_means_over_the_clips_where_they_are_defined() -> None:
    y, p = drawn(60)
    p[:20] = 0.7  # the first of three clips is predicted as a constant
    y[20:40] = p[20:40] = 0.3  # the second is constant, and right
    found = valence_metrics(y, p, clips=3)
    parts = [slice(0, 20), slice(20, 40), slice(40, 60)]
    assert found["ccc_valence_per_clip"] == pytest.approx((0 + _population_ccc(y[40:], p[40:])) / 2, abs=1e-12)
    assert found["undefined_ccc_valence_per_clip"] == 1
    assert found["pcc_valence_per_clip"] == pytest.approx(stats.pearsonr(y[40:], p[40:]).statistic, abs=1e-12)
    assert found["rmse_valence_per_clip"] == pytest.approx(np.mean([np.sqrt(np.mean((y[s] - p[s]) ** 2)) for s in parts]), abs=1e-12)
    assert found["sagr_valence_per_clip"] == pytest.approx(np.mean([np.mean(np.sign(y[s]) == np.sign(p[s])) for s in parts]), abs=1e-12)


def test_a_zero_label_agrees_only_with_a_zero_prediction() -> None:
    assert valence_metrics([0, 0, 0.5, -0.5], [0, 1e-9, 0.1, 0.1])["sagr_valence"] == 0.5


def test_an_offset_of_1e8_costs_no_digits() -> None:
    y, p = drawn()
    far = y + (p - y + 1e8)
    exact = _population_ccc(y, far - 1e8)  # what is left of p after its rounding to 1e-8
    found = valence_metrics(y, far, clips=8)
    expected = 2 * np.cov(y, far - 1e8, ddof=0)[0, 1] / (y.var() + (far - 1e8).var() + (y.mean() - far.mean()) ** 2)
    assert found["ccc_valence"] == pytest.approx(expected, rel=1e-6)
    assert found["pcc_valence"] == pytest.approx(stats.pearsonr(y, far - 1e8).statistic, abs=1e-9)
    both = valence_metrics(y + 1e8, far, clips=8)
    assert both["ccc_valence"] == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(
    ("y", "p", "ccc", "pcc"),
    [
        ([0.5, 0.5, 0.5], [0.1, 0.2, 0.3], 0.0, math.nan),  # constant label
        ([0.1, 0.2, 0.4], [0.3, 0.3, 0.3], 0.0, math.nan),  # constant prediction
        ([0.3, 0.3], [0.1, 0.1], 0.0, math.nan),  # both, and different
        ([0.3, 0.3], [0.3, 0.3], math.nan, math.nan),  # both, and equal
        ([0.3], [0.2], 0.0, math.nan),  # one frame
        ([], [], math.nan, math.nan),  # none
    ],
)
def test_degenerate_input_is_zero_or_undefined_and_never_infinite(y: list[float], p: list[float], ccc: float, pcc: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = valence_metrics(y, p)
    assert found["ccc_valence"] == pytest.approx(ccc, nan_ok=True)
    assert found["pcc_valence"] == pytest.approx(pcc, nan_ok=True)
    assert not any(math.isinf(value) for value in found.values())


values = st.floats(-1, 1, width=32) | st.sampled_from([0.0, 1.0, -1.0, 0.1])
paired = st.integers(2, 30).flatmap(lambda n: st.tuples(arrays(np.float64, n, elements=values), arrays(np.float64, n, elements=values)))


@given(paired, st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_metrics_stay_in_range_and_do_not_depend_on_order_or_clips(pair: tuple[np.ndarray, np.ndarray], clips: int) -> None:
    y, p = pair
    found = valence_metrics(y, p, clips=clips)
    for name, value in found.items():
        low, high = {"rmse": (0, 2), "sagr": (0, 1), "unde": (0, clips)}.get(name[:4], (-1, 1))
        assert math.isnan(value) or low <= value <= high, name
    again = valence_metrics(y[::-1], p[::-1])
    for name in ("ccc_valence", "rmse_valence", "sagr_valence"):
        assert found[name] == pytest.approx(again[name], abs=1e-9, nan_ok=True)
    if y.std() > 1e-6 and p.std() > 1e-6:
        swapped = valence_metrics(p, y)
        assert found["ccc_valence"] == pytest.approx(swapped["ccc_valence"], abs=1e-9)
        assert abs(found["ccc_valence"]) <= abs(found["pcc_valence"]) + 1e-9
        assert found["pcc_valence"] == pytest.approx(valence_metrics(y, 0.3 * p + 0.1)["pcc_valence"], abs=1e-6)
        assert found["ccc_valence"] == pytest.approx(valence_metrics(y / 2 + 3, p / 2 + 3)["ccc_valence"], abs=1e-6)
        perfect = valence_metrics(y, y, clips=clips)
        assert (perfect["ccc_valence"], perfect["pcc_valence"], perfect["rmse_valence"], perfect["sagr_valence"]) == pytest.approx(
            (1, 1, 0, 1)
        )


def test_cells_without_a_label_are_not_scored_and_their_predictions_not_asked_for() -> None:
    y, p = drawn(40)
    frame = affect(y, p, clips=4)
    holes = frame.with_columns(
        valence=pl.when(pl.int_range(40) % 4 > 0).then("valence"),
        valence_pred=pl.when(pl.int_range(40) % 4 > 0).then("valence_pred").otherwise(math.nan),
    )
    found = statistics.metrics(statistics.units(holes, targets=VA))
    kept = np.arange(40) % 4 > 0
    assert found["ccc_valence"] == pytest.approx(_population_ccc(y[kept], p[kept]))
    assert found["ccc_arousal"] == pytest.approx(_population_ccc(-y, -p))
    nothing = statistics.metrics(statistics.units(frame.with_columns(valence=pl.lit(None, pl.Float64)), targets=VA))
    assert math.isnan(nothing["ccc_valence"])
    assert math.isnan(nothing["ccc"])
    assert nothing["undefined_ccc_valence_per_clip"] == 0


def test_units_of_shards_put_below_each_other_give_the_same_metrics() -> None:
    frame = affect(*drawn(), clips=10, subjects=5)
    whole = statistics.units(frame, targets=VA)
    shards = pl.concat([statistics.units(frame[:120], targets=VA), statistics.units(frame[120:], targets=VA)])
    assert whole["frames"].to_list() == [40] * 10
    assert statistics.metrics(shards) == pytest.approx(statistics.metrics(whole), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"valence_pred": pl.lit(math.nan)}, "valence_pred is not finite"),
        ({"valence_pred": pl.lit(math.inf)}, "valence_pred is not finite"),
        ({"valence_pred": pl.lit(1e200)}, "beyond"),
        ({"valence_pred": pl.lit(None, pl.Float64)}, "labelled but not predicted in 20 of 20 rows"),
        ({"valence": pl.lit(math.nan)}, "label that is not finite"),
    ],
)
def test_predictions_that_cannot_be_scored_are_refused(change: dict[str, pl.Expr], what: str) -> None:
    with pytest.raises(RequestError, match=what):
        statistics.units(affect(*drawn(20)).with_columns(**change), targets=VA)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(RequestError, match="lack the columns valence_pred"):
        statistics.units(affect(*drawn(20)).drop("valence_pred"), targets=VA)


# ── expressions and action units ─────────────────────────────────────────────────────────────────────────────────────────────


def expressions(true: list[str | None], found: list[str]) -> pl.DataFrame:
    clips = [str(i % 3) for i in range(len(true))]
    return pl.DataFrame({"clip": clips, "subject": clips, "expression": true, "expression_pred": found})


def test_accuracy_and_macro_f1_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    true, found = (rng.choice(CLASSES, 200, p=p).tolist() for p in ([0.5, 0.3, 0.2], [0.4, 0.3, 0.3]))
    units = statistics.units(expressions(true, found), targets=["expression"], classes=CLASSES)
    got = statistics.metrics(units)
    assert got["accuracy_expression"] == pytest.approx(sklearn_metrics.accuracy_score(true, found))
    assert got["f1_expression"] == pytest.approx(sklearn_metrics.f1_score(true, found, average="macro"))
    counts = units.select(pl.col("^expression\\..*$").sum()).to_numpy().reshape(3, 3)
    assert (counts == sklearn_metrics.confusion_matrix(true, found, labels=CLASSES)).all()


def test_macro_f1_is_over_the_classes_that_occur_and_a_null_is_not_scored() -> None:
    true, found = ["happy", "happy", "sad", "sad", None], ["happy", "neutral", "sad", "sad", "happy"]
    got = statistics.metrics(statistics.units(expressions(true, found), targets=["expression"], classes=CLASSES))  # type: ignore[arg-type]
    assert got["f1_expression"] == pytest.approx(sklearn_metrics.f1_score(true[:4], found[:4], average="macro", labels=["happy", "sad"]))
    assert got["accuracy_expression"] == 0.75


def test_one_class_alone_can_be_perfect_and_no_label_at_all_is_undefined() -> None:
    one = statistics.metrics(statistics.units(expressions(["sad"] * 3, ["sad"] * 3), targets=["expression"], classes=CLASSES))
    assert one == {"accuracy_expression": 1.0, "f1_expression": 1.0}
    none = statistics.units(expressions([None], ["sad"]).cast({"expression": pl.String}), targets=["expression"], classes=CLASSES)
    assert all(math.isnan(value) for value in statistics.metrics(none).values())


def test_a_class_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(RequestError, match="predicted as no class"):
        statistics.units(expressions(["sad"], ["joy"]), targets=["expression"], classes=CLASSES)
    with pytest.raises(RequestError, match="labelled with no class"):
        statistics.units(expressions(["joy"], ["sad"]), targets=["expression"], classes=CLASSES)


def test_f1_of_action_units_equals_scikit_learn_and_their_mean_skips_what_is_undefined() -> None:
    rng = np.random.default_rng(2)
    labels = {"au1": rng.integers(0, 2, 90), "au12": rng.random(90) < 0.2, "au2": np.zeros(90)}
    chances = {"au1": rng.random(90).round(1), "au12": rng.random(90), "au2": np.full(90, 0.4)}
    clip = np.repeat(np.arange(9), 10).astype(str)
    columns = {name: y.astype(float) for name, y in labels.items()} | {f"{name}_pred": p for name, p in chances.items()}
    units = statistics.units(pl.DataFrame({"clip": clip, "subject": clip} | columns), targets=list(labels))
    got = statistics.metrics(units)
    for name in ("au1", "au12"):
        assert got[f"f1_{name}"] == pytest.approx(sklearn_metrics.f1_score(labels[name], chances[name] >= 0.5))
    assert math.isnan(got["f1_au2"])
    assert got["f1_au"] == pytest.approx((got["f1_au1"] + got["f1_au12"]) / 2)
    assert list(got) == ["f1_au1", "f1_au2", "f1_au12", "f1_au"]


def test_an_intensity_is_no_presence() -> None:
    frame = pl.DataFrame({"clip": ["a"], "subject": ["a"], "au1": [3.0], "au1_pred": [0.5]})
    with pytest.raises(RequestError, match="not 0 or 1"):
        statistics.units(frame, targets=["au1"])


def test_an_unknown_metric_is_answered_with_the_right_one() -> None:
    with pytest.raises(RequestError, match="did you mean 'ccc_valence'"):
        statistics.statistic(statistics.units(affect(*drawn(20)), targets=VA), "ccc_valance")


# ── uncertainty ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def clustered(subjects: int = 12, *, seed: int = 0, error: float = 0.2, evaluation: str = "a", fold: int = 0) -> pl.DataFrame:
    """Predictions of two clips a subject, whose subject is seen in label and error; the labels do not depend on the evaluation."""
    labels, errors = np.random.default_rng([seed, fold]), np.random.default_rng([seed, fold, ord(evaluation)])
    subject = np.repeat(np.arange(subjects), 20)
    y = labels.normal(0, 0.4, subjects)[subject] + labels.normal(0, 0.2, len(subject))
    p = y + error * (errors.normal(0, 1, subjects)[subject] + errors.normal(0, 1, len(subject)))
    names = {
        "evaluation": [evaluation] * len(y),
        "fold": fold,
        "subject": (subject + 100 * fold).astype(str),
        "clip": np.arange(len(y)) // 10,
    }
    return pl.DataFrame(names | {"valence": y, "valence_pred": p, "arousal": p, "arousal_pred": y}).cast({"clip": pl.String})


def sums(*frames: pl.DataFrame) -> pl.DataFrame:
    return statistics.units(pl.concat(frames), targets=VA, by=("evaluation", "fold", "subject", "clip"))


def test_a_draw_takes_all_subjects_but_one_and_is_the_same_for_the_same_seed() -> None:
    counts = bootstrap(7, draws=500, seed=(3, 0))
    assert counts.shape == (500, 7)
    assert (counts.sum(axis=1) == 6).all()
    assert counts.mean() == pytest.approx(6 / 7)
    assert (counts == bootstrap(7, draws=500, seed=(3, 0))).all()
    assert (counts != bootstrap(7, draws=500, seed=(3, 1))).any()
    assert (bootstrap(1, draws=3, seed=(0, 0)) == 1).all()


def test_the_matrix_product_is_what_drawing_whole_subjects_row_by_row_gives() -> None:
    frame = clustered()
    panel = Panel(sums(frame), draws=50, seed=5)
    counts = bootstrap(12, draws=50, seed=(5, 0))
    names = sorted(frame["subject"].unique())
    rows = {name: frame.filter(pl.col("subject") == name) for name in names}
    by_hand = []
    for draw in counts.astype(int):
        taken = pl.concat([rows[name] for name, times in zip(names, draw, strict=True) for _ in range(times)])
        by_hand.append(_population_ccc(taken["valence"].to_numpy(), taken["valence_pred"].to_numpy()))
    score = _population_ccc(frame["valence"].to_numpy(), frame["valence_pred"].to_numpy())
    half = stats.t.ppf(0.975, 11) * np.arctanh(by_hand).std(ddof=1)
    got = panel.interval(["a"], "ccc_valence")
    assert (got.value, got.lo, got.hi) == pytest.approx((score, np.tanh(np.arctanh(score) - half), np.tanh(np.arctanh(score) + half)))


def test_several_metrics_at_once_are_what_each_is_alone() -> None:
    units = sums(clustered(), clustered(evaluation="b", fold=1))
    together = Panel(units).intervals(["a", "b"], ["ccc", "rmse_valence", "sagr"])
    assert together == {metric: Panel(units).interval(["a", "b"], metric) for metric in together}


def test_folds_count_the_same_and_their_subjects_are_drawn_apart() -> None:
    frames = [clustered(6, evaluation=name, fold=fold) for fold, names in ((0, "ab"), (1, "c")) for name in names]
    panel = Panel(sums(*frames))
    each = [statistics.metrics(sums(frame))["ccc_valence"] for frame in frames]
    assert panel.score(["a", "b", "c"], "ccc_valence") == pytest.approx(((each[0] + each[1]) / 2 + each[2]) / 2)
    apart = [panel.interval(list(names), "ccc_valence") for names in ("ab", "c")]
    both = panel.interval(["a", "b", "c"], "ccc_valence")
    assert both.hi - both.lo < min(one.hi - one.lo for one in apart)


def test_a_clip_without_a_subject_is_its_own_and_a_lone_subject_lends_its_clips() -> None:
    nobody = clustered().with_columns(subject=pl.lit(None, pl.String))
    somebody = clustered().with_columns(subject=pl.col("clip"))
    alone = clustered().with_columns(subject=pl.lit("me"))
    intervals = [Panel(sums(frame)).interval(["a"], "rmse") for frame in (nobody, somebody, alone)]
    for other in intervals[:2]:
        assert (other.value, other.hi - other.lo) == pytest.approx((intervals[2].value, intervals[2].hi - intervals[2].lo), rel=0.1)


def test_one_clip_leaves_no_freedom_and_so_no_interval() -> None:
    interval = Panel(sums(clustered(1)[:10])).interval(["a"], "rmse")
    assert math.isfinite(interval.value)
    assert math.isnan(interval.lo)
    assert math.isnan(interval.hi)


def test_a_perfect_score_lies_in_its_interval() -> None:
    interval = Panel(sums(clustered(error=0.0))).interval(["a"], "ccc")
    assert interval.lo <= interval.value <= interval.hi
    assert interval.value == pytest.approx(1)


def test_the_permutation_lists_every_swap_of_few_subjects() -> None:
    a, b = clustered(6, evaluation="a", error=0.1), clustered(6, evaluation="b", error=0.4)
    got = Panel(sums(a, b)).difference(["a"], ["b"], "rmse_valence")

    def rmse(frame: pl.DataFrame) -> float:
        return sklearn_metrics.root_mean_squared_error(frame["valence"], frame["valence_pred"])

    observed, extreme = rmse(a) - rmse(b), 0
    of = [[frame.filter(pl.col("subject") == name) for frame in (a, b)] for name in a["subject"].unique().sort()]
    for swaps in itertools.product((0, 1), repeat=6):
        left = pl.concat([pair[swap] for pair, swap in zip(of, swaps, strict=True)])
        right = pl.concat([pair[1 - swap] for pair, swap in zip(of, swaps, strict=True)])
        extreme += abs(rmse(left) - rmse(right)) >= abs(observed) - 1e-12
    assert got.value == pytest.approx(observed)
    assert got.p == pytest.approx(extreme / 64)
    assert got.lo < observed < got.hi


def test_many_subjects_are_swapped_at_random_and_p_is_never_zero() -> None:
    a, b = clustered(30, evaluation="a", error=0.05), clustered(30, evaluation="b", error=1.0)
    got = Panel(sums(a, b), draws=400).difference(["a"], ["b"], "ccc")
    assert got.p == 1 / 400
    assert got.lo > 0


def test_a_difference_has_the_opposite_sign_the_other_way_round_and_p_1_with_itself() -> None:
    panel = Panel(sums(clustered(evaluation="a"), clustered(evaluation="b")))
    there, back, same = panel.difference(["a"], ["b"], "ccc"), panel.difference(["b"], ["a"], "ccc"), panel.difference(["a"], ["a"], "ccc")
    assert (there.value, there.lo, there.hi, there.p) == pytest.approx((-back.value, -back.hi, -back.lo, back.p))
    assert (same.value, same.lo, same.hi, same.p) == (0, 0, 0, 1)


def test_replicates_are_paired_however_many_each_side_has() -> None:
    frames = [clustered(evaluation=name) for name in "abcde"]
    got = Panel(sums(*frames)).difference(["a", "b"], ["c", "d", "e"], "rmse")
    each = [statistics.metrics(sums(frame))["rmse"] for frame in frames]
    assert got.value == pytest.approx(np.mean(each[:2]) - np.mean(each[2:]))
    assert 0 < got.p <= 1


def test_what_shares_no_fold_cannot_be_compared() -> None:
    got = Panel(sums(clustered(evaluation="a", fold=0), clustered(evaluation="b", fold=1))).difference(["a"], ["b"], "ccc")
    assert math.isnan(got.value)
    assert math.isnan(got.p)


def test_the_interval_covers_and_the_test_rejects_as_often_as_they_say() -> None:
    """A coarse check of what the module's docstring states, with small clusters: between 90 and 99 %, and at most 9 %."""
    covered, rejected, intervals = 0, 0, []
    for seed in range(150):
        panel = Panel(sums(clustered(14, seed=seed, evaluation="a"), clustered(14, seed=seed, evaluation="b")), draws=300)
        intervals.append(panel.interval(["a"], "ccc_valence"))
        rejected += panel.difference(["a"], ["b"], "ccc_valence").p <= 0.05
    truth = np.mean([interval.value for interval in intervals])
    covered = sum(interval.lo <= truth <= interval.hi for interval in intervals)
    assert 0.90 <= covered / 150 <= 0.99
    assert rejected / 150 <= 0.09


def test_holm_is_the_textbook_step_down() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    got = holm(np.array([0.5, np.nan, 0.001, 0.9]))
    assert got[[0, 2, 3]].tolist() == pytest.approx([1.0, 0.003, 1.0])
    assert math.isnan(got[1])
    assert holm(np.array([])).tolist() == []
