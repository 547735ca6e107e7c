from __future__ import annotations

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

from harness.errors import RequestError
from harness.metrics import auc, higher_is_better, metrics, names_for, statistic, units

CLASSES = ("neutral", "happy", "sad")
VA = ("valence", "arousal")


def affect(y: np.ndarray, p: np.ndarray, *, clips: int = 1, subjects: int = 1) -> pl.DataFrame:
    """Predictions of valence, and of arousal the other way round, in clips of equal length."""
    clip = np.arange(len(y)) * clips // max(len(y), 1)
    names = {"clip": clip.astype(str), "subject": (clip * subjects // clips).astype(str)}
    return pl.DataFrame(names | {"valence": y, "valence_pred": p, "arousal": -y, "arousal_pred": -p})


def valence_metrics(y: list[float] | np.ndarray, p: list[float] | np.ndarray, **how: int) -> dict[str, float]:
    return metrics(units(affect(np.asarray(y, float), np.asarray(p, float), **how), targets=VA))


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
    found = metrics(units(holes, targets=VA))
    kept = np.arange(40) % 4 > 0
    assert found["ccc_valence"] == pytest.approx(_population_ccc(y[kept], p[kept]))
    assert found["ccc_arousal"] == pytest.approx(_population_ccc(-y, -p))
    nothing = metrics(units(frame.with_columns(valence=pl.lit(None, pl.Float64)), targets=VA))
    assert math.isnan(nothing["ccc_valence"])
    assert math.isnan(nothing["ccc"])
    assert nothing["undefined_ccc_valence_per_clip"] == 0


def test_units_of_shards_put_below_each_other_give_the_same_metrics() -> None:
    frame = affect(*drawn(), clips=10, subjects=5)
    whole = units(frame, targets=VA)
    shards = pl.concat([units(frame[:120], targets=VA), units(frame[120:], targets=VA)])
    assert whole["frames"].to_list() == [40] * 10
    assert metrics(shards) == pytest.approx(metrics(whole), rel=1e-12)


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
        units(affect(*drawn(20)).with_columns(**change), targets=VA)


def test_the_same_predictions_give_the_same_bits_however_often() -> None:
    """The sums of one lazy query used to differ in their last bits in one of ten calls on few rows."""
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=36) for name in ("valence", "arousal", "valence_pred", "arousal_pred")}
    clips = np.repeat(np.arange(6), 6).astype(str)
    frame = pl.DataFrame({"subject": clips, "clip": clips, **values})
    first = units(frame, targets=("valence", "arousal"))
    assert all(units(frame, targets=("valence", "arousal")).equals(first) for _ in range(200))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(RequestError, match="lack the columns valence_pred"):
        units(affect(*drawn(20)).drop("valence_pred"), targets=VA)


# ── expressions and action units ─────────────────────────────────────────────────────────────────────────────────────────────


def expressions(true: list[str | None], found: list[str]) -> pl.DataFrame:
    clips = [str(i % 3) for i in range(len(true))]
    return pl.DataFrame({"clip": clips, "subject": clips, "expression": true, "expression_pred": found})


def test_accuracy_and_macro_f1_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    true, found = (rng.choice(CLASSES, 200, p=p).tolist() for p in ([0.5, 0.3, 0.2], [0.4, 0.3, 0.3]))
    sums = units(expressions(true, found), targets=["expression"], classes=CLASSES)
    got = metrics(sums)
    assert got["accuracy_expression"] == pytest.approx(sklearn_metrics.accuracy_score(true, found))
    assert got["f1_expression"] == pytest.approx(sklearn_metrics.f1_score(true, found, average="macro"))
    counts = sums.select(pl.col("^expression\\..*$").sum()).to_numpy().reshape(3, 3)
    assert (counts == sklearn_metrics.confusion_matrix(true, found, labels=CLASSES)).all()


def test_macro_f1_is_over_the_classes_that_occur_and_a_null_is_not_scored() -> None:
    true, found = ["happy", "happy", "sad", "sad", None], ["happy", "neutral", "sad", "sad", "happy"]
    got = metrics(units(expressions(true, found), targets=["expression"], classes=CLASSES))  # type: ignore[arg-type]
    assert got["f1_expression"] == pytest.approx(sklearn_metrics.f1_score(true[:4], found[:4], average="macro", labels=["happy", "sad"]))
    assert got["accuracy_expression"] == 0.75


def test_one_class_alone_can_be_perfect_and_no_label_at_all_is_undefined() -> None:
    one = metrics(units(expressions(["sad"] * 3, ["sad"] * 3), targets=["expression"], classes=CLASSES))
    assert {name for name, value in one.items() if value == 1.0} == {"accuracy_expression", "f1_expression", "recall_expression", "f1_sad"}
    assert {name for name, value in one.items() if math.isnan(value)} == {"f1_neutral", "f1_happy"}
    none = units(expressions([None], ["sad"]).cast({"expression": pl.String}), targets=["expression"], classes=CLASSES)
    assert all(math.isnan(value) for value in metrics(none).values())


def test_a_class_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(RequestError, match="predicted as no class"):
        units(expressions(["sad"], ["joy"]), targets=["expression"], classes=CLASSES)
    with pytest.raises(RequestError, match="labelled with no class"):
        units(expressions(["joy"], ["sad"]), targets=["expression"], classes=CLASSES)


def test_f1_of_action_units_equals_scikit_learn_and_their_mean_skips_what_is_undefined() -> None:
    rng = np.random.default_rng(2)
    labels = {"au1": rng.integers(0, 2, 90), "au12": rng.random(90) < 0.2, "au2": np.zeros(90)}
    chances = {"au1": rng.random(90).round(1), "au12": rng.random(90), "au2": np.full(90, 0.4)}
    clip = np.repeat(np.arange(9), 10).astype(str)
    columns = {name: y.astype(float) for name, y in labels.items()} | {f"{name}_pred": p for name, p in chances.items()}
    sums = units(pl.DataFrame({"clip": clip, "subject": clip} | columns), targets=list(labels))
    got = metrics(sums)
    for name in ("au1", "au12"):
        assert got[f"f1_{name}"] == pytest.approx(sklearn_metrics.f1_score(labels[name], chances[name] >= 0.5))
    assert math.isnan(got["f1_au2"])
    assert got["f1_au"] == pytest.approx((got["f1_au1"] + got["f1_au12"]) / 2)
    assert list(got) == ["f1_au1", "f1_au2", "f1_au12", "f1_au"]


def test_an_intensity_is_no_presence() -> None:
    frame = pl.DataFrame({"clip": ["a"], "subject": ["a"], "au1": [3.0], "au1_pred": [0.5]})
    with pytest.raises(RequestError, match="not 0 or 1"):
        units(frame, targets=["au1"])


def test_an_unknown_metric_is_answered_with_the_right_one() -> None:
    with pytest.raises(RequestError, match="did you mean 'ccc_valence'"):
        statistic(units(affect(*drawn(20)), targets=VA), "ccc_valance")


def test_recall_and_f1_of_each_class_equal_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    true, found = rng.choice(CLASSES, 300, p=[0.7, 0.2, 0.1]).tolist(), rng.choice(CLASSES, 300).tolist()
    got = metrics(units(expressions(true, found), targets=["expression"], classes=CLASSES))
    assert got["recall_expression"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(true, found))
    each = sklearn_metrics.f1_score(true, found, average=None, labels=CLASSES)
    assert [got[f"f1_{name}"] for name in CLASSES] == pytest.approx(each)


# ── votes ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def voted(votes: np.ndarray, chances: np.ndarray) -> pl.DataFrame:
    """Raters' votes and predicted probabilities, ``(n, 3)`` each; the expression is the plurality's, null on a tie."""
    best = [CLASSES[int(row.argmax())] if (row == row.max()).sum() == 1 else None for row in votes]
    frame = expressions(best, [CLASSES[int(row.argmax())] for row in chances])
    columns = {f"votes_{name}": votes[:, place] for place, name in enumerate(CLASSES)}
    return frame.with_columns(**columns, **{f"expression_p_{name}": chances[:, place] for place, name in enumerate(CLASSES)})


def test_agreement_and_divergence_from_votes_equal_scipy() -> None:
    rng = np.random.default_rng(4)
    votes, chances = rng.multinomial(10, [0.5, 0.3, 0.2], 50).astype(float), rng.dirichlet([1, 1, 1], 50)
    got = metrics(units(voted(votes, chances), targets=["expression"], classes=CLASSES))
    assert got["agreement_expression"] == pytest.approx(np.mean(votes[np.arange(50), chances.argmax(1)] / 10))
    assert got["kl_expression"] == pytest.approx(np.mean([stats.entropy(v, p) for v, p in zip(votes, chances, strict=True)]))


def test_the_votes_themselves_are_a_perfect_prediction_and_a_face_nobody_named_is_not_scored() -> None:
    votes = np.array([[6.0, 4, 0], [0, 0, 10], [0, 0, 0]])
    chances = np.array([[0.6, 0.4, 0], [0, 0, 1.0], [0.3, 0.3, 0.4]])
    got = metrics(units(voted(votes, chances), targets=["expression"], classes=CLASSES))
    assert got["kl_expression"] == pytest.approx(0, abs=1e-5)
    assert got["agreement_expression"] == pytest.approx(0.8)


def test_a_probability_of_zero_for_what_raters_saw_costs_much_and_is_finite() -> None:
    got = metrics(units(voted(np.array([[1.0, 0, 0]]), np.array([[0, 1.0, 0]])), targets=["expression"], classes=CLASSES))
    assert 10 < got["kl_expression"] < 20
    assert got["agreement_expression"] == 0


def test_a_probability_that_is_not_finite_is_refused() -> None:
    with pytest.raises(RequestError, match="probability of an expression is not finite"):
        units(voted(np.array([[1.0, 0, 0]]), np.array([[np.nan, 1.0, 0]])), targets=["expression"], classes=CLASSES)


# ── intensities ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def intensities(y: np.ndarray, p: np.ndarray, *, clips: int = 1) -> pl.DataFrame:
    clip = (np.arange(len(y)) * clips // max(len(y), 1)).astype(str)
    return pl.DataFrame(
        {"clip": clip, "subject": clip, "au12_intensity": y, "au12_intensity_pred": p}, schema_overrides={"clip": pl.String}
    )


def icc_3_1(y: np.ndarray, p: np.ndarray) -> float:
    """Shrout & Fleiss' own way: mean squares of a two-way analysis of variance."""
    table = np.stack([y, p], 1)
    n, k = table.shape
    between = k * ((table.mean(1) - table.mean()) ** 2).sum() / (n - 1)
    residual = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    error = (residual**2).sum() / ((n - 1) * (k - 1))
    return float((between - error) / (between + (k - 1) * error))


@pytest.mark.parametrize("clips", [1, 7])
def test_metrics_of_intensities_equal_the_analysis_of_variance_and_scikit_learn(clips: int) -> None:
    rng = np.random.default_rng(5)
    y = rng.integers(0, 6, 120).astype(float)
    p = np.clip(0.6 * y + 1 + rng.normal(0, 0.8, 120), 0, 5)
    got = metrics(units(intensities(y, p, clips=clips), targets=["au12_intensity"]))
    assert got["icc_au12"] == pytest.approx(icc_3_1(y, p), abs=1e-12)
    assert got["pcc_au12"] == pytest.approx(stats.pearsonr(y, p).statistic, abs=1e-12)
    assert got["mse_au12"] == pytest.approx(sklearn_metrics.mean_squared_error(y, p))
    assert got["mae_au12"] == pytest.approx(sklearn_metrics.mean_absolute_error(y, p))
    assert all(got[f"{kind}_au"] == got[f"{kind}_au12"] for kind in ("icc", "pcc", "mse", "mae"))


def test_icc_is_blind_to_an_offset_and_ccc_is_not() -> None:
    y = np.array([0.0, 1, 2, 3, 1, 0])
    shifted = metrics(units(intensities(y, y + 2), targets=["au12_intensity"]))
    assert shifted["icc_au12"] == pytest.approx(1)
    assert shifted["mse_au12"] == pytest.approx(4)
    assert valence_metrics(y / 5, y / 5 + 0.4)["ccc_valence"] < 0.5


@pytest.mark.parametrize(
    ("y", "p", "icc"), [([0, 0, 0], [1, 2, 3], 0), ([1, 2, 3], [2, 2, 2], 0), ([2, 2], [2, 2], math.nan), ([], [], math.nan)]
)
def test_constants_have_an_icc_of_zero_and_nothing_at_all_has_none(y: list[float], p: list[float], icc: float) -> None:
    got = metrics(units(intensities(np.array(y, float), np.array(p, float)), targets=["au12_intensity"]))
    assert got["icc_au12"] == pytest.approx(icc, nan_ok=True)


# ── action units ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def detections(y: np.ndarray, p: np.ndarray, au: str = "au12") -> pl.DataFrame:
    return pl.DataFrame({au: y, f"{au}_pred": p}, schema_overrides={au: pl.Float64, f"{au}_pred": pl.Float64})


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1)), min_size=1, max_size=60),
)
def test_the_area_under_the_curve_equals_scikit_learn_ties_and_all(data: list[tuple[bool, float]]) -> None:
    y, p = (np.array(column, float) for column in zip(*data, strict=True))
    got = auc(detections(y, p), ["au12"])
    if len(set(y)) < 2:
        assert math.isnan(got["auc_au12"])
    else:
        assert got["auc_au12"] == pytest.approx(sklearn_metrics.roc_auc_score(y, p))
        assert auc(detections(y, stats.rankdata(p)), ["au12"]) == got, "only the order counts"
    assert got["auc_au"] == pytest.approx(got["auc_au12"], nan_ok=True)


def test_cells_that_are_not_labelled_have_no_part_in_the_area() -> None:
    frame = pl.DataFrame({"au1": [1.0, 0.0, None], "au1_pred": [0.9, 0.1, 0.95]})
    assert auc(frame, ["au1"])["auc_au1"] == 1


@settings(max_examples=60, deadline=None)
@given(
    cells=st.lists(st.tuples(st.sampled_from([0.0, 1.0, None]), st.floats(0, 1)), min_size=1, max_size=50),
    cut=st.integers(1, 5),
)
def test_f1_is_in_range_and_the_same_however_rows_are_ordered_and_cut(cells: list[tuple[float | None, float]], cut: int) -> None:
    y, p = zip(*cells, strict=True)
    frame = pl.DataFrame({"au1": y, "au1_pred": p}, schema_overrides={"au1": pl.Float64}).with_row_index("i")
    one = frame.select(pl.lit("a").alias("clip"), pl.lit("a").alias("subject"), "au1", "au1_pred")
    many = frame.select((pl.col("i") % cut).cast(pl.String).alias("clip"), pl.lit("a").alias("subject"), "au1", "au1_pred")[::-1]
    got, again = (metrics(units(rows, targets=["au1"]))["f1_au1"] for rows in (one, many))
    assert got == pytest.approx(again, nan_ok=True)
    known = [(a, b >= 0.5) for a, b in cells if a is not None]
    if any(a for a, _ in known) or any(b for _, b in known):
        assert got == pytest.approx(sklearn_metrics.f1_score([a for a, _ in known], [b for _, b in known]))
    else:
        assert math.isnan(got)


# ── all at once ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_p_mtl_is_the_sum_of_its_three_parts_each_over_what_is_labelled_for_it() -> None:
    rng = np.random.default_rng(6)
    n = 300
    y, p = rng.uniform(-1, 1, (2, n)), rng.uniform(-1, 1, (2, n))
    expression, guess = rng.choice(CLASSES, n), rng.choice(CLASSES, n)
    au, chance = rng.integers(0, 2, n).astype(float), rng.random(n)
    frame = expressions(expression.tolist(), guess.tolist()).with_columns(
        valence=y[0], arousal=y[1], valence_pred=p[0], arousal_pred=p[1], au1=au, au1_pred=chance
    )
    holes = frame.with_row_index("i").with_columns(
        pl.when(pl.col("i") % 3 != 0).then("valence"),
        pl.when(pl.col("i") % 3 != 0).then("arousal"),
        pl.when(pl.col("i") % 5 != 0).then("expression"),
        pl.when(pl.col("i") % 7 != 0).then("au1"),
    )
    got = metrics(units(holes, targets=["valence", "arousal", "expression", "au1"], classes=CLASSES))
    i = np.arange(n)
    va, ex, at = i % 3 != 0, i % 5 != 0, i % 7 != 0
    expected = (_population_ccc(y[0][va], p[0][va]) + _population_ccc(y[1][va], p[1][va])) / 2
    expected += sklearn_metrics.f1_score(expression[ex], guess[ex], average="macro")
    expected += sklearn_metrics.f1_score(au[at], chance[at] >= 0.5)
    assert got["p_mtl"] == pytest.approx(expected)


def test_a_perfect_prediction_of_everything_has_a_p_mtl_of_three() -> None:
    y, _ = drawn(60)
    labels = (list(CLASSES) * 20)[:60]
    frame = expressions(labels, labels).with_columns(valence=y, arousal=-y, valence_pred=y, arousal_pred=-y)
    frame = frame.with_columns(au1=(pl.col("valence") > 0).cast(pl.Float64)).with_columns(au1_pred="au1")
    assert metrics(units(frame, targets=["valence", "arousal", "expression", "au1"], classes=CLASSES))["p_mtl"] == pytest.approx(3)


def test_sagr_can_leave_out_the_frames_labelled_zero() -> None:
    got = valence_metrics([0, 0, 0.5, -0.5, 0.2], [0, 0.1, 0.3, 0.2, 0.1])
    assert got["sagr_valence"] == pytest.approx(3 / 5)
    assert got["sagr_nonzero_valence"] == pytest.approx(2 / 3)
    assert math.isnan(valence_metrics([0, 0], [0, 1])["sagr_nonzero_valence"])


def test_the_metrics_of_a_task_are_known_before_there_are_predictions() -> None:
    targets = ["valence", "arousal", "expression", "au1", "au4_intensity"]
    y, _ = drawn(6)
    frame = voted(np.eye(3)[[0, 1, 2, 0, 1, 2]], np.eye(3)[[0, 1, 2, 0, 1, 2]]).with_columns(
        **{f"{name}{part}": y for name in ("valence", "arousal") for part in ("", "_pred")},
        **{f"{name}{part}": np.abs(np.sign(y)) for name in ("au1", "au4_intensity") for part in ("", "_pred")},
    )
    got = metrics(units(frame, targets=targets, classes=CLASSES)) | auc(frame, targets)
    assert names_for(targets, CLASSES, votes=True) == tuple(got)


def test_errors_and_divergences_are_better_when_lower() -> None:
    known = names_for(["valence", "arousal", "expression", "au1", "au1_intensity"], CLASSES, votes=True)
    lower = {name for name in known if not higher_is_better(name)}
    assert {name.split("_")[0] for name in lower} == {"rmse", "mse", "mae", "kl", "undefined"}
    assert all(higher_is_better(name) for name in ("ccc", "f1_au12", "p_mtl", "auc_au", "icc_au", "sagr", "accuracy_expression"))


# ── whatever comes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.sampled_from([*CLASSES, None]), st.sampled_from(CLASSES)), min_size=1, max_size=40),
    cut=st.integers(1, 4),
)
def test_metrics_of_expressions_equal_scikit_learn_on_any_labels(pairs: list[tuple[str | None, str]], cut: int) -> None:
    true, found = ([pair[side] for pair in pairs] for side in (0, 1))
    frame = expressions(true, found).with_columns(clip=(pl.int_range(pl.len()) % cut).cast(pl.String)).cast({"expression": pl.String})
    got = metrics(units(frame, targets=["expression"], classes=CLASSES))
    again = metrics(units(frame[::-1], targets=["expression"], classes=CLASSES))
    assert got == pytest.approx(again, nan_ok=True)
    known = [(a, b) for a, b in pairs if a is not None]
    if not known:
        assert all(math.isnan(value) for value in got.values())
        return
    y, p = zip(*known, strict=True)
    occurring = sorted(set(y))
    assert got["accuracy_expression"] == pytest.approx(sklearn_metrics.accuracy_score(y, p))
    assert got["f1_expression"] == pytest.approx(sklearn_metrics.f1_score(y, p, average="macro", labels=occurring, zero_division=0))
    assert got["recall_expression"] == pytest.approx(sklearn_metrics.recall_score(y, p, average="macro", labels=occurring))


@settings(max_examples=60, deadline=None)
@given(
    pair=st.integers(2, 40).flatmap(lambda n: st.tuples(*[arrays(float, n, elements=st.integers(0, 5).map(float))] * 2)),
    clips=st.integers(1, 5),
)
def test_metrics_of_intensities_stay_in_range_and_do_not_depend_on_order_or_clips(pair: tuple[np.ndarray, np.ndarray], clips: int) -> None:
    y, p = pair
    got = metrics(units(intensities(y, p, clips=clips), targets=["au12_intensity"]))
    turned = metrics(units(intensities(p[::-1], y[::-1]), targets=["au12_intensity"]))
    assert got == pytest.approx(turned, abs=1e-9, nan_ok=True), "label and prediction are alike to all of them"
    assert math.isnan(got["icc_au12"]) or -1 <= got["icc_au12"] <= 1
    assert 0 <= got["mae_au12"] ** 2 <= got["mse_au12"] + 1e-9 <= 25 + 1e-9
    perfect = metrics(units(intensities(y, y), targets=["au12_intensity"]))
    assert perfect["mse_au12"] == perfect["mae_au12"] == 0
    assert perfect["icc_au12"] == pytest.approx(1) if np.ptp(y) else math.isnan(perfect["icc_au12"])


def test_an_offset_of_1e8_costs_an_icc_no_digits() -> None:
    rng = np.random.default_rng(8)
    y = rng.integers(0, 6, 200).astype(float)
    p = y + rng.normal(0, 1, 200)
    near, far = (metrics(units(intensities(y + offset, p + offset, clips=5), targets=["au12_intensity"])) for offset in (0.0, 1e8))
    assert far["icc_au12"] == pytest.approx(near["icc_au12"], abs=1e-6)
    assert far["mse_au12"] == pytest.approx(near["mse_au12"], rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
def test_a_prediction_that_is_no_number_is_refused_for_every_kind_of_target(bad: float) -> None:
    names = {"clip": ["a"], "subject": ["a"]}
    for target, label in (("valence", 0.5), ("au12", 1.0), ("au12_intensity", 3.0)):
        with pytest.raises(RequestError, match=rf"{target}_pred is not finite"):
            units(pl.DataFrame(names | {target: [label], f"{target}_pred": [bad]}), targets=[target])
