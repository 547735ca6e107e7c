"""How sure a score is: intervals and paired tests as matrix products over subjects, from the sums of :mod:`harness.metrics`.

Decisions taken by simulation (``docs/statistics.md``: frames in clips in 12 to 60 subjects, 1,000 experiments a design):

* A draw takes whole subjects, ``n - 1`` of the ``n`` in a fold (Rao & Wu 1988, which makes the variance of few clusters unbiased), with
  all their clips. Drawing the clips inside a drawn subject anew counts the variance inside subjects twice: 97-98 % for 95 %.
* The interval is the score ± a multiple of its standard error, on a scale where the metric is nearly normal (Fisher's z for CCC and PCC,
  the logarithm for RMSE). Percentiles of the same draws have the bias of CCC over few subjects twice: 88-95 %.
* Of shares of frames (SAGR, F1, accuracy) and P_MTL the multiple is Student's t of the standard deviation over draws. Metrics made of
  squares (CCC, PCC, RMSE) depend on few subjects, and a sample without these has both a good score and a small spread: 92 % with 20
  subjects. They are studentised (Efron's bootstrap-t, symmetric; Hall 1992): the standard error is computed anew in each draw from what
  each subject adds to the score, and the multiple is the 95 % quantile of |draw - score| / its standard error. With fewer than ten
  subjects it is Student's t again.
* A difference is treated in the same way, on the scale, and shown as it looks from the middle of the two scores.

What is covered is the score that the protocol gives on average, 93-97 % of the time (a macro F1 over twelve subjects: 91 %; CCC in folds
of six: 98 %). The swap test is exact, 5 %, where two methods err by one law: that is its null. Two that err by different laws and have
the same expected CCC or RMSE are told apart 7-9 % of the time, with 12 as with 60 subjects; the interval of the difference leaves out 0
some 6 % of the time and is the better judge. A mean over folds of few subjects is biased downwards itself (CCC): its interval is right
for the protocol, not for endless subjects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl

from harness.errors import RequestError
from harness.metrics import Array, Statistic, statistic

_LEVEL = 0.95
_STUDENTISED = 1000  # draws that are enough for the quantile of a studentised score
_FEW = 10  # with fewer clusters a standard error in a draw of them is too rough to divide by


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; nan ends where there is no freedom left to estimate them."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference.

    Attributes:
        p: Two-sided, of the permutation that swaps the two within subjects; nan where nothing can be compared.
    """

    p: float


@dataclass(frozen=True)
class _Linear:
    """A score as it is (the first row) and in every draw: ``value`` ``(1 + draws,)``; fold by fold ``(1 + draws, clusters)`` what each
    cluster adds to it (its influence: the slope of the score times the cluster's sums) and how often it is drawn."""

    value: Array
    influences: list[Array]
    weights: list[Array]


class Panel:
    """Many evaluations of the same clips: what a leaderboard and a comparison draw their uncertainty from.

    Folds are independent, so subjects are drawn inside each; the score of several evaluations is the mean over folds of the mean over the
    evaluations (seeds, draws of support) of a fold. Every row of a table is given the same draws, which makes differences paired.
    A clip without a subject is its own; where a fold has a single subject, its clips are drawn, as nothing else can be.

    Args:
        units: Columns ``evaluation``, ``fold``, ``subject``, ``clip`` and the sums of :func:`units`.
        draws: Of the bootstrap, and of the permutation where not all of its swaps can be listed.
        seed: Of both.
    """

    def __init__(self, units: pl.DataFrame, *, draws: int = 2000, seed: int = 0) -> None:
        self._draws, self._seed = draws, seed
        cluster = ["fold", "subject", "part"]
        alone = pl.col("subject").is_null() | (pl.col("subject").n_unique().over("fold") == 1)
        keyed = units.with_columns(part=pl.when(alone).then("clip"))
        places = keyed.select(cluster).unique().sort(cluster).with_columns(place=pl.int_range(pl.len()).over("fold"))
        self._units = keyed.join(places, on=cluster, nulls_equal=True).sort("evaluation", "place", "clip")
        self._sizes: dict[object, int] = dict(places.group_by("fold", maintain_order=True).len().iter_rows())
        rows = self._units.select("evaluation", "fold", "place", same=pl.struct("evaluation", "place").rle_id())
        rows = rows.with_row_index("start").unique("same", keep="first", maintain_order=True)
        self._starts, self._place = rows["start"].to_numpy(), rows["place"].to_numpy()
        runs = rows.with_row_index("run").group_by("evaluation").agg(pl.first("fold"), first=pl.min("run"), last=pl.max("run"))
        self._runs = {name: (fold, slice(first, last + 1)) for name, fold, first, last in runs.iter_rows()}
        self._known: dict[str, tuple[Statistic, Array]] = {}
        self._linears: dict[tuple[object, ...], _Linear] = {}
        self._drawn: dict[tuple[str, ...], dict[object, Array]] = {}  # a row of a table is asked for more than once

    def score(self, evaluations: Sequence[str], metric: str) -> float:
        """The metric: mean over folds of the mean over a fold's evaluations."""
        return self._mean(self._dense(evaluations, metric), metric)

    def pooled(self, evaluations: Sequence[str], metric: str) -> float:
        """The metric of all folds put together, a fold's evaluations (seeds) having equal shares; not the mean of the folds' metrics."""
        dense = self._dense(evaluations, metric)
        sums = np.sum([grids.sum(axis=1).mean(axis=0) for grids in dense.values()], axis=0)
        return float(self._statistic(metric)[0].value(sums))

    def interval(self, evaluations: Sequence[str], metric: str) -> Interval:
        """The score with its 95 % interval over subjects."""
        dense, scale = self._dense(evaluations, metric), self._statistic(metric)[0].scale
        score = self._mean(dense, metric)
        half = self._studentised_half([self._linear(evaluations, metric, list(dense))]) if scale.studentised else float("nan")
        if math.isnan(half):
            half = self._half_width(dense, scale.forward(self._resample(evaluations, metric, dense)))
        centre = scale.forward(np.asarray(score))
        lo, hi = (float(scale.backward(centre + side * half)) for side in (-1, 1))
        return Interval(score, min(lo, score), max(hi, score))  # a perfect score lies beyond the end of its scale

    def intervals(self, evaluations: Sequence[str], metrics: Sequence[str]) -> dict[str, Interval]:
        """The same of several metrics at the cost of little more than one."""
        self._draw(evaluations, [metric for metric in metrics if not self._statistic(metric)[0].scale.studentised])
        return {metric: self.interval(evaluations, metric) for metric in metrics}

    def difference(self, a: Sequence[str], b: Sequence[str], metric: str) -> Difference:
        """How far ``a`` is above ``b``, over the folds that both have."""
        dense_a, dense_b = self._dense(a, metric), self._dense(b, metric)
        shared = [fold for fold in dense_a if fold in dense_b]
        if not shared:
            return Difference(*[float("nan")] * 4)
        dense_a, dense_b = ({fold: dense[fold] for fold in shared} for dense in (dense_a, dense_b))
        above, below = self._mean(dense_a, metric), self._mean(dense_b, metric)
        value, scale = above - below, self._statistic(metric)[0].scale
        half = self._studentised_half([self._linear(side, metric, shared) for side in (a, b)]) if scale.studentised else float("nan")
        if math.isnan(half):
            half = self._half_width(dense_a, self._resample(a, metric, dense_a) - self._resample(b, metric, dense_b))
            lo, hi = value - half, value + half
        else:  # a difference on the scale, seen from the middle of the two
            ends = scale.forward(np.array([above, below]))
            middle, apart = ends.mean(), (ends[0] - ends[1]) + np.array([-half, half])
            found = np.sort(scale.backward(middle + apart / 2) - scale.backward(middle - apart / 2))
            lo, hi = min(float(found[0]), value), max(float(found[1]), value)
        return Difference(value, lo, hi, self._permutation(dense_a, dense_b, metric, value))

    def _statistic(self, metric: str) -> tuple[Statistic, Array]:
        """The statistic and its sums, one row an evaluation and cluster."""
        if metric not in self._known:
            made = statistic(self._units, metric)
            self._known[metric] = made, np.add.reduceat(made.sums, self._starts, axis=0)
        return self._known[metric]

    def _dense(self, evaluations: Sequence[str], metric: str) -> dict[object, Array]:
        """Fold → ``(evaluations of it, clusters, k)`` sums."""
        sums = self._statistic(metric)[1]
        grids: dict[object, list[Array]] = {}
        for name in evaluations:
            if name not in self._runs:
                raise RequestError(f"no units of the evaluation {name!r}")
            fold, rows = self._runs[name]
            grid = np.zeros((self._sizes[fold], sums.shape[1]))
            grid[self._place[rows]] = sums[rows]
            grids.setdefault(fold, []).append(grid)
        return {fold: np.stack(grids[fold]) for fold in self._sizes if fold in grids}

    def _mean(self, dense: dict[object, Array], metric: str) -> float:
        value = self._statistic(metric)[0].value
        return float(np.mean([value(grid.sum(axis=1)).mean() for grid in dense.values()]))

    def _resample(self, evaluations: Sequence[str], metric: str, folds: Iterable[object]) -> Array:
        """``(draws,)`` scores over some of the folds, the same draws of subjects for whatever is asked."""
        if (metric, *evaluations) not in self._drawn:
            self._draw(evaluations, [metric])
        scores: Array = np.mean([self._drawn[metric, *evaluations][fold] for fold in folds], axis=0)
        return scores

    def _draw(self, evaluations: Sequence[str], metrics: Sequence[str]) -> None:
        """Draw subjects: one matrix product a fold, of the sums of all metrics side by side."""
        if not metrics:
            return
        dense = [self._dense(evaluations, metric) for metric in metrics]
        ends = np.cumsum([self._statistic(metric)[1].shape[1] for metric in metrics])[:-1]
        for place, fold in enumerate(self._sizes):
            if fold not in dense[0]:
                continue
            counts = bootstrap(self._sizes[fold], draws=self._draws, seed=(self._seed, place))
            sums = np.tensordot(counts, np.concatenate([grids[fold] for grids in dense], axis=2), axes=(1, 1))
            for metric, own in zip(metrics, np.split(sums, ends, axis=2), strict=True):
                scores = self._statistic(metric)[0].value(own).mean(axis=1)
                self._drawn.setdefault((metric, *evaluations), {})[fold] = scores

    def _half_width(self, dense: dict[object, Array], values: Array) -> float:
        from scipy.special import stdtrit  # a twentieth of the import of scipy.stats

        freedom = sum(grid.shape[1] - 1 for grid in dense.values())
        defined = values[np.isfinite(values)]  # a draw of subjects over whom the metric is undefined says nothing
        if freedom < 1 or len(defined) < 2:
            return float("nan")
        return float(stdtrit(freedom, 0.5 + _LEVEL / 2) * defined.std(ddof=1))

    def _linear(self, evaluations: Sequence[str], metric: str, folds: Sequence[object]) -> _Linear:
        """The score on its scale and what each cluster adds to it, as they are and in every draw."""
        key = (metric, *evaluations, *folds)
        if key in self._linears:
            return self._linears[key]
        made, dense = self._statistic(metric)[0], self._dense(evaluations, metric)
        counts, sums, values = [], [], []
        for place, fold in enumerate(self._sizes):
            if fold not in folds:
                continue
            draws = bootstrap(self._sizes[fold], draws=self._draws, seed=(self._seed, place))[:_STUDENTISED]
            counts.append(np.concatenate([np.ones((1, draws.shape[1])), draws]))
            sums.append(np.tensordot(counts[-1], dense[fold], axes=(1, 1)))
            values.append(made.value(sums[-1]))
        score = np.mean([value.mean(axis=1) for value in values], axis=0)
        step = 1e-6
        steep = (made.scale.forward(score + step) - made.scale.forward(score - step)) / (2 * step)
        influences = []
        grids = (dense[fold] for fold in self._sizes if fold in folds)
        for grid, drawn, value in zip(grids, sums, values, strict=True):
            slope = np.zeros_like(drawn)
            for column, size in enumerate(np.abs(grid).sum(axis=(0, 1)) / len(grid)):
                if size > 0:
                    moved = drawn.copy()
                    moved[..., column] += 1e-6 * size
                    slope[..., column] = (made.value(moved) - value) / (1e-6 * size)
            slope *= (steep / (len(grid) * len(folds)))[:, None, None]
            influences.append(slope.reshape(len(drawn), -1) @ grid.transpose(0, 2, 1).reshape(-1, grid.shape[1]))
        self._linears[key] = _Linear(made.scale.forward(score), influences, counts)
        return self._linears[key]

    def _studentised_half(self, sides: Sequence[_Linear]) -> float:
        """Half of the interval of a score, or of the difference of two, from the differences over their standard errors in the draws."""
        first = sides[0]
        if sum(weights.shape[1] for weights in first.weights) < _FEW:
            return float("nan")
        value = first.value - sides[1].value if len(sides) == 2 else first.value
        variance = np.zeros(len(value))
        for fold, weights in enumerate(first.weights):
            each = first.influences[fold] - sides[1].influences[fold] if len(sides) == 2 else first.influences[fold]
            n = weights.sum(axis=1)
            drawn = weights * each
            variance += (np.einsum("ij,ij->i", drawn, each) - drawn.sum(axis=1) ** 2 / n) * n / np.maximum(n - 1, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.sqrt(variance)
            t = np.abs(value[1:] - value[0]) / error[1:]
        t = t[np.isfinite(t)]
        return float(np.quantile(t, _LEVEL) * error[0]) if len(t) >= len(value) / 2 else float("nan")

    def _permutation(self, a: dict[object, Array], b: dict[object, Array], metric: str, observed: float) -> float:
        """Share of the swaps of ``a`` and ``b`` within subjects that give a difference as large; exact where all can be listed."""
        if not np.isfinite(observed):
            return float("nan")
        value = self._statistic(metric)[0].value
        swaps = _swaps(sum(grid.shape[1] for grid in a.values()), self._draws, self._seed)
        total, start = np.zeros(len(swaps)), 0
        for grid_a, grid_b in zip(a.values(), b.values(), strict=True):
            pairs = np.lcm(len(grid_a), len(grid_b))  # every evaluation of one meets as many of the other
            left, right = (np.tile(grid, (pairs // len(grid), 1, 1)) for grid in (grid_a, grid_b))
            moved = np.tensordot(swaps[:, start : start + left.shape[1]], right - left, axes=(1, 1))
            start += left.shape[1]
            total += (value(left.sum(axis=1) + moved) - value(right.sum(axis=1) - moved)).mean(axis=1)
        extreme = ~(np.abs(total / len(a)) < abs(observed) - 1e-12)  # undefined counts against us
        return float(extreme.mean())


@lru_cache(maxsize=32)
def bootstrap(clusters: int, *, draws: int, seed: tuple[int, ...]) -> Array:
    """How often each cluster is drawn, ``clusters - 1`` times in all.

    Metrics are ratios of sums, so the missing one need not be made up for by weights.

    Returns:
        ``(draws, clusters)`` float64, read-only and shared: the weights of ``sums`` in a matrix product.
    """
    rng, counts = np.random.default_rng(seed), np.empty((draws, clusters))
    for start in range(0, draws, 500):  # blocks that stay in the cache of the processor: twice as fast
        block = counts[start : start + 500]
        drawn = rng.integers(0, clusters, (len(block), max(clusters - 1, 1)), dtype=np.uint32) + np.arange(len(block))[:, None] * clusters
        block[:] = np.bincount(drawn.ravel(), minlength=block.size).reshape(block.shape)
    counts.flags.writeable = False
    return counts


@lru_cache(maxsize=8)
def _swaps(clusters: int, draws: int, seed: int) -> Array:
    """``(n, clusters)`` of 0 and 1: all there are if that is fewer than ``draws``, else random ones after the one that swaps nothing."""
    if 2**clusters <= draws:
        return ((np.arange(2**clusters)[:, None] >> np.arange(clusters)) & 1).astype(np.float64)
    swaps = np.random.default_rng([seed, clusters]).integers(0, 2, (draws, clusters)).astype(np.float64)
    swaps[0] = 0  # what was observed is one of the permutations: p is never 0
    return swaps


def holm(p: Array) -> Array:
    """Holm's (1979) step-down correction of ``(n,)`` p-values; nan, no test at all, stays nan and is not counted.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    out = np.full(len(p), np.nan)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    out[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return out
