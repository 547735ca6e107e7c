"""Every metric as a function of sums, so that intervals and paired tests are matrix products over subjects and not runs over frames.

A predictions frame is read once into *units*, one row a subject and clip. Of a unit only sums are kept: six moments for valence and
arousal, confusion counts for expressions and action units. Scores, clustered intervals, paired tests and per-clip scores all come from
the units; those of several shards or folds are simply put below each other.

Two decisions were taken by simulation (CCC of clips nested in 12 to 60 subjects, 400 to 800 experiments a design; how often a nominal
95 % interval covers the score that the protocol gives on average):

* A draw takes whole subjects, ``n - 1`` of the ``n`` in a fold (Rao & Wu 1988, which makes the variance of few clusters unbiased), with all
  their clips: 93.5-95.4 %. Drawing the clips inside a drawn subject anew counts the variance inside subjects twice: 97-98 %.
* The interval is the score ± Student's t times the standard deviation over draws, on a scale where the metric is nearly normal (Fisher's z
  for CCC and PCC). Percentiles of the same draws have the bias of CCC over few subjects twice. Of the CCC of endless subjects, in one fold,
  percentiles cover 88-95 %, this 93-94 %.

What it does not do: RMSE, whose sampling is more skewed, is covered 90 % of the time with 20 subjects. A mean over folds of few subjects is
biased downwards itself (0.74 for 0.79 in folds of five), so that its interval, right for the protocol (94 %), covers the CCC of endless
subjects 81 % of the time. The swap test rejects true nulls 3.7-4.8 % of the time for CCC and SAGR, 7 % for RMSE.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import polars as pl

from harness.errors import RequestError, did_you_mean

CONTINUOUS = ("valence", "arousal")
_LARGEST = 1e100  # beyond it squares overflow, and no label lives there
_ROUNDING = 1e-13  # relative; a spread below it is what computing a mean leaves of a constant
_LEVEL = 0.95

Array = np.ndarray


# ── units ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def units(
    predictions: pl.DataFrame, *, targets: Sequence[str], classes: Sequence[str] = (), by: Sequence[str] = ("subject", "clip")
) -> pl.DataFrame:
    """The additive statistics of a predictions frame, one row a unit.

    Args:
        predictions: One row a scored sample: the columns of ``by``, every target (null where it is not labelled: such a cell is not
            scored) and ``TARGET_pred``. An action unit's label is 0 or 1 and its prediction a probability.
        targets: ``valence``, ``arousal``, ``expression``, ``au12`` …
        classes: The vocabulary of ``expression``.
        by: What makes a unit.

    Returns:
        Sorted by ``by``, with ``frames`` (rows of the unit) and for each target

        * valence, arousal: ``T.n`` labelled rows, ``T.y`` and ``T.p`` means of label and prediction, ``T.yy``, ``T.pp``, ``T.yp`` sums of
          squares and products about these means (so that an offset of 1e8 costs no digits), ``T.se`` sum of squared errors, ``T.agree``
          rows where the signs agree (zero is a sign of its own, as in NumPy);
        * expression: ``expression.TRUE.PREDICTED`` counts;
        * action units: ``au12.tp``, ``.fp``, ``.fn``, ``.tn`` with a probability of at least 0.5 taken as present.

    Raises:
        RequestError: A column is missing; where a label is given, a prediction is missing, not finite, no class, or beyond ±1e100;
            a label that is not finite, no class, or (action units) not 0 or 1.
    """
    missing = {*by, *targets, *(f"{target}_pred" for target in targets)} - set(predictions.columns)
    if missing:
        raise RequestError(f"predictions lack the columns {', '.join(sorted(missing))}")
    exprs: list[pl.Expr] = [pl.len().alias("frames")]
    typed: list[pl.Expr] = []
    for target in targets:
        if target == "expression":
            typed += [pl.col(target).cast(pl.String), pl.col("expression_pred").cast(pl.String)]
            exprs += _confusion(classes)
        else:
            scored = pl.when(pl.col(target).is_not_null()).then(pl.col(f"{target}_pred"))
            typed += [pl.col(target).cast(pl.Float64), scored.cast(pl.Float64)]
            exprs += _moments(target) if target in CONTINUOUS else _detections(target)
    frame = predictions.select(*by, *typed)
    _check(frame, targets, classes)
    return frame.group_by(by).agg(exprs).sort(by)


def _moments(target: str) -> list[pl.Expr]:
    y, p = pl.col(target), pl.col(f"{target}_pred")
    dy, dp = y - y.mean(), p - p.mean()
    sums = {
        "n": y.count(),
        "y": y.mean(),
        "p": p.mean(),
        "yy": (dy * dy).sum(),
        "pp": (dp * dp).sum(),
        "yp": (dy * dp).sum(),
        "se": ((p - y) ** 2).sum(),
        "agree": (y.sign() == p.sign()).sum(),
    }
    return [expr.alias(f"{target}.{name}") for name, expr in sums.items()]


def _confusion(classes: Sequence[str]) -> list[pl.Expr]:
    true, pred = pl.col("expression"), pl.col("expression_pred")
    return [((true == t) & (pred == p)).sum().alias(f"expression.{t}.{p}") for t in classes for p in classes]


def _detections(target: str) -> list[pl.Expr]:
    true, found = pl.col(target) == 1, pl.col(f"{target}_pred") >= 0.5
    counts = {"tp": true & found, "fp": ~true & found, "fn": true & ~found, "tn": ~true & ~found}
    return [cell.sum().alias(f"{target}.{name}") for name, cell in counts.items()]


def _check(frame: pl.DataFrame, targets: Sequence[str], classes: Sequence[str]) -> None:
    faults: dict[str, pl.Expr] = {}
    for target in targets:
        y, p = pl.col(target), pl.col(f"{target}_pred")
        faults[f"{target} is labelled but not predicted"] = y.is_not_null() & p.is_null()
        if target == "expression":
            faults["expression is labelled with no class of this task"] = y.is_not_null() & ~y.is_in(list(classes))
            faults["expression is predicted as no class of this task"] = y.is_not_null() & ~p.is_in(list(classes))
        else:
            faults[f"{target}_pred is not finite, or beyond ±{_LARGEST:g}"] = p.is_not_null() & ~(p.abs() <= _LARGEST)
            faults[f"{target} has a label that is not finite" if target in CONTINUOUS else f"{target} has a label that is not 0 or 1"] = (
                y.is_not_null() & ~(y.is_finite() if target in CONTINUOUS else y.is_in([0.0, 1.0]))
            )
    counts = frame.select(fault.sum().alias(what) for what, fault in faults.items())
    for what, count in zip(counts.columns, counts.row(0) if faults else (), strict=True):
        if count:
            raise RequestError(f"{what} in {count} of {frame.height} rows", where="predictions")


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Scale:
    """Where a metric is nearly normal, and the way back. Both map arrays of any shape."""

    forward: Callable[[Array], Array]
    backward: Callable[[Array], Array]


_FISHER_Z = Scale(lambda x: np.arctanh(np.clip(x, -1 + 1e-6, 1 - 1e-6)), np.tanh)
_ARCSINE = Scale(lambda x: np.arcsin(np.clip(2 * x - 1, -1, 1)), lambda z: (np.sin(np.clip(z, -np.pi / 2, np.pi / 2)) + 1) / 2)
_LOGARITHM = Scale(lambda x: np.log(np.maximum(x, 1e-3)), np.exp)  # labels span 2: an error of a thousandth is none
_COUNT = Scale(lambda x: x, lambda z: np.maximum(z, 0))


@dataclass(frozen=True)
class Statistic:
    """One metric over some units: ``value(weights @ sums)`` is the metric of the weighted units.

    Attributes:
        sums: ``(units, k)`` float64, additive.
        value: ``(…, k)`` sums to ``(…)`` values; nan where the metric is undefined, never infinite.
        scale: For intervals.
    """

    sums: Array
    value: Callable[[Array], Array]
    scale: Scale = _FISHER_Z


def metrics(units: pl.DataFrame) -> dict[str, float]:
    """Every metric of some units, pooled over their frames. Undefined ones are nan.

    For valence and arousal (definitions: population moments; chance-corrected agreement is Lin's 1989 CCC)

    * ``ccc_T``: 2 cov / (var y + var p + (mean y - mean p)²); 0 when one of both is constant, undefined when both are and are equal;
    * ``pcc_T``: undefined when one is constant; ``rmse_T``; ``sagr_T``: share of frames where the signs agree, zero a sign of its own;
    * ``…_T_per_clip``: the mean over the clips where it is defined, and ``undefined_ccc_T_per_clip``: how many are not;
    * ``ccc``, ``pcc``, ``rmse``, ``sagr`` (and ``…_per_clip``): the mean of valence and arousal, where both are targets.

    ``accuracy_expression``; ``f1_expression``: mean F1 of the classes that occur among the labels (not of those only predicted);
    ``f1_au12`` …: F1 of the presence, undefined where it neither occurs nor is predicted; ``f1_au``: their mean where defined.
    """
    made = ((name, make()) for name, make in _catalogue(units).items())
    return {name: float(each.value(each.sums.sum(axis=0))) for name, each in made}


def names(units: pl.DataFrame) -> tuple[str, ...]:
    """The metrics that these units can give."""
    return tuple(_catalogue(units))


def statistic(units: pl.DataFrame, name: str) -> Statistic:
    """One metric over some units.

    Raises:
        RequestError: The units cannot give it.
    """
    catalogue = _catalogue(units)
    if name not in catalogue:
        raise RequestError(f"no metric {name!r} from these predictions", remedy=did_you_mean(name, catalogue))
    return catalogue[name]()


def _catalogue(units: pl.DataFrame) -> dict[str, Callable[[], Statistic]]:
    """Metric → what makes its statistic, so that one metric of a million units costs one."""
    found: dict[str, Callable[[], Statistic]] = {}
    continuous = [target for target in CONTINUOUS if f"{target}.n" in units.columns]
    for suffix, wrap in (("", _pooled), ("_per_clip", _per_clip)):
        for kind in _CONTINUOUS_METRICS:
            for target in continuous:
                found[f"{kind}_{target}{suffix}"] = partial(wrap, units, kind, target)
            if len(continuous) == 2:
                found[kind + suffix] = partial(_mean, [found[f"{kind}_{target}{suffix}"] for target in continuous])
    for target in continuous:
        found[f"undefined_ccc_{target}_per_clip"] = partial(_undefined, units, target)
    classes = list(dict.fromkeys(c.split(".")[1] for c in units.columns if c.startswith("expression.")))
    if classes:
        found["accuracy_expression"] = partial(_accuracy, units, classes)
        found["f1_expression"] = partial(_macro_f1, units, classes)
    aus = sorted((c[:-3] for c in units.columns if re.fullmatch(r"au\d+\.tp", c)), key=lambda au: int(au[2:]))
    for au in aus:
        found[f"f1_{au}"] = partial(_f1, units, au)
    if aus:
        found["f1_au"] = partial(_mean, [found[f"f1_{au}"] for au in aus], skip_undefined=True)
    return found


def _ratio(sums: Array) -> Array:
    return _divide(sums[..., 0], sums[..., 1])


def _divide(a: Array, b: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient: Array = np.where(b > 0, a / b, np.nan)
    return quotient


def _column(units: pl.DataFrame, *columns: str) -> Array:
    """``(units, columns)`` float64; the mean of no value is taken as 0, as it is multiplied by no rows."""
    values: Array = units.select(pl.col(columns).cast(pl.Float64).fill_null(0.0)).to_numpy()
    return values


def _unit_moments(units: pl.DataFrame, target: str) -> tuple[Array, ...]:
    """n, means y and p, and sums of squares and products about them, each ``(units,)``; a constant's are exactly 0."""
    n, y, p, yy, pp, yp = _column(units, *(f"{target}.{name}" for name in ("n", "y", "p", "yy", "pp", "yp"))).T
    return n, y, p, *(np.where(square <= n * (_ROUNDING * mean) ** 2, 0.0, square) for square, mean in ((yy, y), (pp, p))), yp


def _moment_sums(units: pl.DataFrame, target: str) -> tuple[Array, float]:
    """``(units, 6)`` sums n, y, p, yy, pp, yp about the pooled means, and the difference of these means."""
    n, y, p, yy, pp, yp = _unit_moments(units, target)
    total = max(n.sum(), 1.0)
    cy, cp = float(n @ y / total), float(n @ p / total)
    dy, dp = (np.where(np.abs(x - c) <= _ROUNDING * abs(c), 0.0, x - c) for x, c in ((y, cy), (p, cp)))
    return np.stack([n, n * dy, n * dp, yy + n * dy * dy, pp + n * dp * dp, yp + n * dy * dp], axis=1), cy - cp


def _central(sums: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Means, variances and covariance of label and prediction; a variance that is but rounding is 0."""
    n = np.where(sums[..., 0] > 0, sums[..., 0], np.nan)
    y, p, yy, pp, yp = (sums[..., i] / n for i in range(1, 6))
    vy, vp = yy - y * y, pp - p * p
    vy, vp = np.where(vy <= _ROUNDING * yy, 0.0, vy), np.where(vp <= _ROUNDING * pp, 0.0, vp)
    return y, p, vy, vp, np.where((vy == 0) | (vp == 0), 0.0, yp - y * p)


def _ccc(sums: Array, *, gap: float | Array) -> Array:
    y, p, vy, vp, cov = _central(sums)
    ratio: Array = np.clip(_divide(2 * cov, vy + vp + (y - p + gap) ** 2), -1, 1)
    return ratio


def _pcc(sums: Array, *, gap: float | Array) -> Array:
    _, _, vy, vp, cov = _central(sums)
    ratio: Array = np.clip(_divide(cov, np.sqrt(vy) * np.sqrt(vp)), -1, 1)
    return ratio


def _root(sums: Array) -> Array:
    root: Array = np.sqrt(_ratio(sums))
    return root


_CONTINUOUS_METRICS = ("ccc", "pcc", "rmse", "sagr")


def _pooled(units: pl.DataFrame, kind: str, target: str) -> Statistic:
    if kind == "rmse":
        return Statistic(_column(units, f"{target}.se", f"{target}.n"), _root, _LOGARITHM)
    if kind == "sagr":
        return Statistic(_column(units, f"{target}.agree", f"{target}.n"), _ratio, _ARCSINE)
    sums, gap = _moment_sums(units, target)
    return Statistic(sums, partial(_ccc if kind == "ccc" else _pcc, gap=gap))


def _clip_values(units: pl.DataFrame, kind: str, target: str) -> Array:
    """``(units,)``: the metric of each unit alone."""
    if kind in ("rmse", "sagr"):
        each = _pooled(units, kind, target)
        return each.value(each.sums)
    n, y, p, yy, pp, yp = _unit_moments(units, target)
    own = np.stack([n, np.zeros_like(n), np.zeros_like(n), yy, pp, yp], axis=1)
    return (_ccc if kind == "ccc" else _pcc)(own, gap=y - p)


def _per_clip(units: pl.DataFrame, kind: str, target: str) -> Statistic:
    values = _clip_values(units, kind, target)
    defined = np.isfinite(values)
    sums = np.stack([np.where(defined, values, 0.0), defined], axis=1)
    return Statistic(sums, _ratio, {"rmse": _LOGARITHM, "sagr": _ARCSINE}.get(kind, _FISHER_Z))


def _undefined(units: pl.DataFrame, target: str) -> Statistic:
    labelled = _column(units, f"{target}.n")[:, 0] > 0
    missing = labelled & np.isnan(_clip_values(units, "ccc", target))
    return Statistic(missing[:, None].astype(float), lambda sums: sums[..., 0], _COUNT)


def _accuracy(units: pl.DataFrame, classes: Sequence[str]) -> Statistic:
    right = _column(units, *(f"expression.{c}.{c}" for c in classes)).sum(axis=1)
    return Statistic(np.stack([right, _column(units, *_cells(classes)).sum(axis=1)], axis=1), _ratio, _ARCSINE)


def _macro_f1(units: pl.DataFrame, classes: Sequence[str]) -> Statistic:
    counts = _column(units, *_cells(classes)).reshape(-1, len(classes), len(classes))
    right = np.diagonal(counts, axis1=1, axis2=2)

    def value(sums: Array) -> Array:
        hits, true, found = np.split(sums, 3, axis=-1)
        return _nanmean(np.where(true > 0, _divide(2 * hits, true + found), np.nan))

    return Statistic(np.concatenate([right, counts.sum(axis=2), counts.sum(axis=1)], axis=1), value, _ARCSINE)


def _cells(classes: Sequence[str]) -> list[str]:
    return [f"expression.{t}.{p}" for t in classes for p in classes]


def _f1(units: pl.DataFrame, au: str) -> Statistic:
    tp, fp, fn = _column(units, f"{au}.tp", f"{au}.fp", f"{au}.fn").T
    return Statistic(np.stack([2 * tp, 2 * tp + fp + fn], axis=1), _ratio, _ARCSINE)


def _mean(makers: Iterable[Callable[[], Statistic]], *, skip_undefined: bool = False) -> Statistic:
    """The mean of several metrics is a metric of all their sums."""
    parts = [make() for make in makers]
    ends = np.cumsum([part.sums.shape[1] for part in parts])[:-1]

    def value(sums: Array) -> Array:
        values = np.stack([part.value(own) for part, own in zip(parts, np.split(sums, ends, axis=-1), strict=True)], axis=-1)
        return _nanmean(values) if skip_undefined else values.mean(axis=-1)

    return Statistic(np.concatenate([part.sums for part in parts], axis=1), value, parts[0].scale)


def _nanmean(values: Array) -> Array:
    """Mean over the last axis of what is defined; nan, without a warning, where nothing is."""
    defined = np.isfinite(values)
    return _divide(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


# ── uncertainty ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


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
        self._drawn: dict[tuple[str, ...], dict[object, Array]] = {}  # a row of a table is asked for more than once

    def score(self, evaluations: Sequence[str], metric: str) -> float:
        """The metric: mean over folds of the mean over a fold's evaluations."""
        return self._mean(self._dense(evaluations, metric), metric)

    def interval(self, evaluations: Sequence[str], metric: str) -> Interval:
        """The score with its 95 % interval over subjects."""
        dense, scale = self._dense(evaluations, metric), self._statistic(metric)[0].scale
        score = self._mean(dense, metric)
        half = self._half_width(dense, scale.forward(self._resample(evaluations, metric, dense)))
        centre = scale.forward(np.asarray(score))
        lo, hi = (float(scale.backward(centre + side * half)) for side in (-1, 1))
        return Interval(score, min(lo, score), max(hi, score))  # a perfect score lies beyond the end of its scale

    def intervals(self, evaluations: Sequence[str], metrics: Sequence[str]) -> dict[str, Interval]:
        """The same of several metrics at the cost of little more than one."""
        self._draw(evaluations, metrics)
        return {metric: self.interval(evaluations, metric) for metric in metrics}

    def difference(self, a: Sequence[str], b: Sequence[str], metric: str) -> Difference:
        """How far ``a`` is above ``b``, over the folds that both have."""
        dense_a, dense_b = self._dense(a, metric), self._dense(b, metric)
        shared = [fold for fold in dense_a if fold in dense_b]
        if not shared:
            return Difference(*[float("nan")] * 4)
        dense_a, dense_b = ({fold: dense[fold] for fold in shared} for dense in (dense_a, dense_b))
        value = self._mean(dense_a, metric) - self._mean(dense_b, metric)
        half = self._half_width(dense_a, self._resample(a, metric, dense_a) - self._resample(b, metric, dense_b))
        return Difference(value, value - half, value + half, self._permutation(dense_a, dense_b, metric, value))

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
        drawn = rng.integers(0, clusters, (len(block), max(clusters - 1, 1)), dtype=np.uint32).astype(np.int64)
        drawn += np.arange(len(block))[:, None] * clusters
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
