from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from harness.metrics import metrics, units
from harness.statistics import Panel, bootstrap, holm

VA = ("valence", "arousal")


def _population_ccc(y: np.ndarray, p: np.ndarray) -> float:
    return float(2 * np.cov(y, p, ddof=0)[0, 1] / (y.var() + p.var() + (y.mean() - p.mean()) ** 2))


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
    return units(pl.concat(frames), targets=VA, by=("evaluation", "fold", "subject", "clip"))


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
        by_hand.append((taken["valence"].sign() == taken["valence_pred"].sign()).mean())
    score = (frame["valence"].sign() == frame["valence_pred"].sign()).mean()
    scaled = np.arcsin(2 * np.array([score, *by_hand]) - 1)
    half = stats.t.ppf(0.975, 11) * scaled[1:].std(ddof=1)
    got = panel.interval(["a"], "sagr_valence")
    ends = [(np.sin(scaled[0] + side * half) + 1) / 2 for side in (-1, 1)]
    assert (got.value, got.lo, got.hi) == pytest.approx((score, *ends))


def _weighted_ccc(weights: np.ndarray, y: np.ndarray, p: np.ndarray) -> float:
    share = weights / weights.sum()
    my, mp = share @ y, share @ p
    return float(2 * share @ ((y - my) * (p - mp)) / (share @ (y - my) ** 2 + share @ (p - mp) ** 2 + (my - mp) ** 2))


def _studentised(weights: np.ndarray, subject: np.ndarray, sides: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Fisher's z of the CCC of weighted subjects (or the difference of two), and its standard error by a nudge of each subject's weight."""

    def z(each: np.ndarray) -> float:
        values = [np.arctanh(_weighted_ccc(each[subject], y, p)) for y, p in sides]
        return float(values[0] - values[1]) if len(values) == 2 else float(values[0])

    nudge = 1e-6
    slopes = np.array([(z(weights + nudge * (np.arange(len(weights)) == i)) - z(weights)) / nudge for i in range(len(weights))])
    n = weights.sum()
    slopes -= weights @ slopes / n
    return z(weights), float(np.sqrt(n / (n - 1) * weights @ slopes**2))


def test_the_interval_of_a_ccc_takes_the_spread_of_each_draw_anew() -> None:
    a, b = clustered(evaluation="a"), clustered(evaluation="b", error=0.3)
    panel = Panel(sums(a, b), draws=40, seed=5)
    names = sorted(a["subject"].unique())
    subject = a["subject"].replace_strict(names, range(12), return_dtype=pl.Int64).to_numpy()
    pairs = [(frame["valence"].to_numpy(), frame["valence_pred"].to_numpy()) for frame in (a, b)]
    for sides in (pairs[:1], pairs):
        value, error = _studentised(np.ones(12), subject, sides)
        drawn = [_studentised(draw, subject, sides) for draw in bootstrap(12, draws=40, seed=(5, 0))]
        half = np.quantile([abs(z - value) / spread for z, spread in drawn], 0.95) * error
        if len(sides) == 1:
            got = panel.interval(["a"], "ccc_valence")
            assert (got.lo, got.hi) == pytest.approx((np.tanh(value - half), np.tanh(value + half)), rel=1e-3)
        else:
            gap = panel.difference(["a"], ["b"], "ccc_valence")
            middle = sum(np.arctanh(_weighted_ccc(np.ones(len(y)), y, p)) for y, p in pairs) / 2
            ends = [np.tanh(middle + (value + side * half) / 2) - np.tanh(middle - (value + side * half) / 2) for side in (-1, 1)]
            assert (gap.lo, gap.hi) == pytest.approx(ends, rel=1e-3)


def test_several_metrics_at_once_are_what_each_is_alone() -> None:
    units = sums(clustered(), clustered(evaluation="b", fold=1))
    together = Panel(units).intervals(["a", "b"], ["ccc", "rmse_valence", "sagr"])
    assert together == {metric: Panel(units).interval(["a", "b"], metric) for metric in together}


def test_folds_count_the_same_and_their_subjects_are_drawn_apart() -> None:
    frames = [clustered(6, evaluation=name, fold=fold) for fold, names in ((0, "ab"), (1, "c")) for name in names]
    panel = Panel(sums(*frames))
    each = [metrics(sums(frame))["ccc_valence"] for frame in frames]
    assert panel.score(["a", "b", "c"], "ccc_valence") == pytest.approx(((each[0] + each[1]) / 2 + each[2]) / 2)
    apart = [panel.interval(list(names), "ccc_valence") for names in ("ab", "c")]
    both = panel.interval(["a", "b", "c"], "ccc_valence")
    assert both.hi - both.lo < min(one.hi - one.lo for one in apart)


def test_folds_put_together_are_one_large_fold_and_not_the_mean_of_small_ones() -> None:
    frames = [clustered(6, fold=0), clustered(8, evaluation="b", fold=1)]
    panel = Panel(sums(*frames))
    whole = pl.concat(frames)
    pooled = panel.pooled(["a", "b"], "ccc_valence")
    assert pooled == pytest.approx(_population_ccc(whole["valence"].to_numpy(), whole["valence_pred"].to_numpy()))
    assert abs(pooled - panel.score(["a", "b"], "ccc_valence")) > 1e-4
    assert panel.pooled(["a"], "ccc_valence") == pytest.approx(panel.score(["a"], "ccc_valence"))


def test_seeds_of_a_fold_have_equal_shares_in_what_is_put_together() -> None:
    frames = [clustered(6, fold=0), clustered(6, evaluation="c", fold=0), clustered(6, evaluation="b", fold=1)]
    errors = [((frame["valence"] - frame["valence_pred"]) ** 2).mean() for frame in frames]
    pooled = Panel(sums(*frames)).pooled(["a", "b", "c"], "rmse_valence")
    assert pooled == pytest.approx(np.sqrt((np.mean(errors[:2]) + errors[2]) / 2))


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
    each = [metrics(sums(frame))["rmse"] for frame in frames]
    assert got.value == pytest.approx(np.mean(each[:2]) - np.mean(each[2:]))
    assert 0 < got.p <= 1


def test_what_shares_no_fold_cannot_be_compared() -> None:
    got = Panel(sums(clustered(evaluation="a", fold=0), clustered(evaluation="b", fold=1))).difference(["a"], ["b"], "ccc")
    assert math.isnan(got.value)
    assert math.isnan(got.p)


def test_holm_is_the_textbook_step_down() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    got = holm(np.array([0.5, np.nan, 0.001, 0.9]))
    assert got[[0, 2, 3]].tolist() == pytest.approx([1.0, 0.003, 1.0])
    assert math.isnan(got[1])
    assert holm(np.array([])).tolist() == []
