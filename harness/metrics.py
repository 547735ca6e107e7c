"""Every metric as a function of sums, so that intervals and paired tests are matrix products over subjects and not runs over frames.

A predictions frame is read once into *units*, one row a subject and clip. Of a unit only sums are kept: six moments for valence, arousal
and intensities, confusion counts for expressions and action units. Scores, clustered intervals, paired tests and per-clip scores all come
from the units; those of several shards or folds are simply put below each other. The area under the ROC curve (:func:`auc`) compares frames
of one subject with those of every other and is no sum over them: it is computed from the predictions, and has no interval.

Traps of published numbers, and what is done here:

* CCC has population moments (a loss written with torch's ``std`` has n - 1); of each dimension by itself, then the mean of both. Valence
  and arousal put into one vector give far larger numbers.
* SAGR takes zero for a sign of its own, as NumPy does: a frame labelled 0 counts as wrong for any prediction but 0, and AFEW-VA's whole
  numbers make such frames frequent. ``sagr_nonzero`` leaves these frames out.
* Macro-F1 is over the classes that occur among the labels; the F1 of an action unit that neither occurs nor is predicted is undefined, and
  left out of the mean, where scikit-learn counts 0.
* A probability of at least 0.5 is a detection. A threshold chosen on validation moves probabilities before they are written
  (:mod:`harness.thresholds`), so that it is 0.5 again; one chosen on what is scored does not exist here.
* The mean over folds of F1 and the F1 of all folds' counts differ; a table has both (``score``, ``pooled``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.task import kind_of

_LARGEST = 1e100  # beyond it squares overflow, and no label lives there
_ROUNDING = 1e-13  # relative; a spread below it is what computing a mean leaves of a constant
_LEAST = 1e-7  # a probability below it counts as this much in a logarithm

Array = np.ndarray


# ── units ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def units(
    predictions: pl.DataFrame, *, targets: Sequence[str], classes: Sequence[str] = (), by: Sequence[str] = ("subject", "clip")
) -> pl.DataFrame:
    """The additive statistics of a predictions frame, one row a unit.

    Args:
        predictions: One row a scored sample: the columns of ``by``, every target (null where it is not labelled: such a cell is not
            scored) and ``TARGET_pred``. An action unit's label is 0 or 1 and its prediction a probability. With ``votes_CLASS`` of every
            class and ``expression_p_CLASS`` the raters' votes are scored too.
        targets: ``valence``, ``arousal``, ``expression``, ``au12``, ``au12_intensity`` …
        classes: The vocabulary of ``expression``.
        by: What makes a unit.

    Returns:
        Sorted by ``by``, with ``frames`` (rows of the unit) and for each target

        * valence, arousal and intensities: ``T.n`` labelled rows, ``T.y`` and ``T.p`` means of label and prediction, ``T.yy``, ``T.pp``,
          ``T.yp`` sums of squares and products about these means (so that an offset of 1e8 costs no digits), ``T.se`` of squared errors;
        * valence, arousal: ``T.agree`` rows where the signs agree (zero is a sign of its own, as in NumPy), ``T.zero`` rows whose label is
          0, ``T.zero_agree`` those of them that agree; intensities: ``T.ae`` sum of absolute errors;
        * expression: ``expression.TRUE.PREDICTED`` counts; with votes ``expression.voted`` rows, ``expression.agree`` sum of the share of
          raters who chose the prediction, ``expression.kl`` sum of the divergence of the votes from the prediction;
        * action units: ``au12.tp``, ``.fp``, ``.fn``, ``.tn`` with a probability of at least 0.5 taken as present;
        * with a column ``nearest_subject``: ``retrieval.count`` rows where it is known, ``.found`` those where it is the row's subject, and
          ``.chance`` the sum of the shares of frames of other clips that are of the subject.

    Raises:
        RequestError: A column is missing; where a label is given, a prediction is missing, not finite, no class, or beyond ±1e100;
            a label that is not finite, no class, or (action units) not 0 or 1.
    """
    missing = {*by, *targets, *(f"{target}_pred" for target in targets)} - set(predictions.columns)
    if missing:
        raise RequestError(f"predictions lack the columns {', '.join(sorted(missing))}")
    exprs: list[pl.Expr] = [pl.len().alias("frames")]
    typed: list[pl.Expr] = []
    deviations: list[pl.Expr] = []
    terms: list[pl.Expr] = []
    for target in targets:
        kind = kind_of(target)
        if kind == "expression":
            typed += [pl.col(target).cast(pl.String), pl.col("expression_pred").cast(pl.String)]
            exprs += _confusion(classes)
            if classes and {f"votes_{name}" for name in classes} <= set(predictions.columns):
                typed += _voted(classes)
                exprs += [pl.col(f"expression.{name}").sum() for name in ("voted", "agree", "kl")]
        else:
            scored = pl.when(pl.col(target).is_not_null()).then(pl.col(f"{target}_pred"))
            typed += [pl.col(target).cast(pl.Float64), scored.cast(pl.Float64)]
            if kind == "occurrence":
                exprs += _detections(target)
            else:
                for found, more in zip((deviations, terms, exprs), _moments(target, kind, by), strict=True):
                    found += more
    if "nearest_subject" in predictions.columns:
        typed += _retrieved()
        exprs += [pl.col(f"retrieval.{name}").sum() for name in ("count", "found", "chance")]
    frame = predictions.select(*by, *typed)
    _check(frame, targets, classes)
    return frame.with_columns(deviations).with_columns(terms).group_by(by).agg(exprs).sort(by)  # one lazy query's last bits would vary


def _moments(target: str, kind: str, by: Sequence[str]) -> tuple[list[pl.Expr], list[pl.Expr], list[pl.Expr]]:
    """Deviations from the unit's means, then terms of each row, then sums over the unit: in this order three times faster than at once."""
    y, p, dy, dp = (pl.col(f"{target}{part}") for part in ("", "_pred", ".dy", ".dp"))
    deviations = [(y - y.mean().over(by)).alias(f"{target}.dy"), (p - p.mean().over(by)).alias(f"{target}.dp")]
    terms = {"yy": dy * dy, "pp": dp * dp, "yp": dy * dp, "se": (p - y) ** 2}
    if kind == "affect":
        agree, zero = y.sign() == p.sign(), y == 0
        terms |= {"agree": agree, "zero": zero, "zero_agree": zero & agree}
    else:
        terms |= {"ae": (p - y).abs()}
    sums = {"n": y.count(), "y": y.mean(), "p": p.mean()} | {name: pl.col(f"{target}.{name}").sum() for name in terms}
    rows, unit = ([expr.alias(f"{target}.{name}") for name, expr in each.items()] for each in (terms, sums))
    return deviations, rows, unit


def _confusion(classes: Sequence[str]) -> list[pl.Expr]:
    true, pred = pl.col("expression"), pl.col("expression_pred")
    return [((true == t) & (pred == p)).sum().alias(f"expression.{t}.{p}") for t in classes for p in classes]


def _voted(classes: Sequence[str]) -> list[pl.Expr]:
    """Of each row: whether anybody voted, the share of the votes for the prediction, and the divergence from it; 0 without votes."""
    votes = {name: pl.col(f"votes_{name}").cast(pl.Float64).fill_null(0) for name in classes}
    total = pl.sum_horizontal(votes.values())
    predicted = {name: pl.col(f"expression_p_{name}").cast(pl.Float64).clip(_LEAST) for name in classes}
    mass = pl.sum_horizontal(predicted.values())
    chosen = pl.sum_horizontal(pl.when(pl.col("expression_pred") == name).then(votes[name]).otherwise(0.0) for name in classes)
    divergence = pl.sum_horizontal(
        pl.when(votes[name] > 0).then(votes[name] / total * (votes[name] / total / (predicted[name] / mass)).log()).otherwise(0.0)
        for name in classes
    )
    known = total > 0
    return [
        known.cast(pl.Float64).alias("expression.voted"),
        pl.when(known).then(chosen / total).otherwise(0.0).alias("expression.agree"),
        pl.when(known).then(divergence).otherwise(0.0).alias("expression.kl"),
    ]


def _retrieved() -> list[pl.Expr]:
    """Of each row: whether the nearest frame of another clip is known, whether it is of the same subject, and how likely any one is."""
    known = pl.col("nearest_subject").is_not_null() & pl.col("subject").is_not_null()
    clip = pl.len().over("clip")
    chance = (pl.len().over("subject") - clip) / (pl.len() - clip)
    return [
        known.cast(pl.Float64).alias("retrieval.count"),
        (known & (pl.col("nearest_subject") == pl.col("subject"))).fill_null(False).cast(pl.Float64).alias("retrieval.found"),
        pl.when(known).then(chance).otherwise(0.0).alias("retrieval.chance"),
    ]


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
            present = kind_of(target) == "occurrence"
            faults[f"{target}_pred is not finite, or beyond ±{_LARGEST:g}"] = p.is_not_null() & ~(p.abs() <= _LARGEST)
            faults[f"{target} has a label that is not 0 or 1" if present else f"{target} has a label that is not finite"] = (
                y.is_not_null() & ~(y.is_in([0.0, 1.0]) if present else y.is_finite())
            )
    if "expression.kl" in frame.columns:
        faults["a probability of an expression is not finite"] = ~pl.col("expression.kl").is_finite()
    counts = frame.select(fault.sum().alias(what) for what, fault in faults.items())
    for what, count in zip(counts.columns, counts.row(0) if faults else (), strict=True):
        if count:
            raise RequestError(f"{what} in {count} of {frame.height} rows", where="predictions")


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Scale:
    """Where a metric is nearly normal, and the way back. Both map arrays of any shape.

    Attributes:
        studentised: Whether its spread goes with its value, as that of squares does, which few subjects make up: its intervals then take
            the spread in each draw anew (:mod:`harness.statistics`). Shares of frames are bounded and do without.
    """

    forward: Callable[[Array], Array]
    backward: Callable[[Array], Array]
    studentised: bool = False


_FISHER_Z = Scale(lambda x: np.arctanh(np.clip(x, -1 + 1e-6, 1 - 1e-6)), np.tanh, studentised=True)
_ARCSINE = Scale(lambda x: np.arcsin(np.clip(2 * x - 1, -1, 1)), lambda z: (np.sin(np.clip(z, -np.pi / 2, np.pi / 2)) + 1) / 2)
_LOGARITHM = Scale(lambda x: np.log(np.maximum(x, 1e-3)), np.exp, studentised=True)  # labels span 2: an error of a thousandth is none
_COUNT = Scale(lambda x: x, lambda z: np.maximum(z, 0))
_AS_IT_IS = Scale(lambda x: x, lambda z: z)


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

    * ``ccc_T``, -1..1: 2 cov / (var y + var p + (mean y - mean p)²); 0 when one of both is constant, undefined when both are and are equal;
    * ``pcc_T``, -1..1: undefined when one is constant; ``rmse_T``, from 0; ``sagr_T``, 0..1: share of frames where the signs agree, zero a
      sign of its own; ``sagr_nonzero_T``: the same of the frames whose label is not 0;
    * ``…_T_per_clip``: the mean over the clips where it is defined, and ``undefined_ccc_T_per_clip``: how many are not;
    * ``ccc``, ``pcc``, ``rmse``, ``sagr`` (and ``…_per_clip``): the mean of valence and arousal, where both are targets.

    For expressions (all 0..1 but the last) ``accuracy_expression``; ``f1_expression``: mean F1 of the classes that occur among the labels
    (not of those only predicted), ``f1_happy`` … of each; ``recall_expression``: mean recall of the classes that occur (balanced accuracy);
    with votes ``agreement_expression``, the mean share of raters who chose what is predicted, and ``kl_expression``, the mean
    Kullback-Leibler divergence of the votes from the predicted probabilities in nats.

    For action units ``f1_au12`` …: F1 of the presence, 0..1, undefined where it neither occurs nor is predicted; ``f1_au``: their mean
    where defined. For intensities ``icc_au12``, -1..1: ICC(3,1) of Shrout & Fleiss (1979) between label and prediction, which for two
    raters is 2 cov / (var y + var p): blind to a constant offset, 0 when one of both is constant, undefined when both are;
    ``pcc_au12``; ``mse_au12`` and ``mae_au12`` on the scale 0..5; ``icc_au``, ``pcc_au``, ``mse_au``, ``mae_au``: their means.

    Where the nearest frame of another clip is known, ``retrieval_subject``, 0..1: the share of frames where it shows the same subject, and
    ``chance_subject``, what any frame of another clip would give.

    ``p_mtl``, the score of ABAW's multi-task challenge, at most 3: ``ccc`` + ``f1_expression`` + ``f1_au``, where all are targets.
    """
    made = ((name, make()) for name, make in _catalogue(units).items())
    return {name: float(each.value(each.sums.sum(axis=0))) for name, each in made}


def names_for(targets: Sequence[str], classes: Sequence[str] = (), *, votes: bool = False) -> tuple[str, ...]:
    """The metrics of a task, before there are any predictions.

    Args:
        targets: As of :func:`units`.
        classes: The vocabulary of ``expression``.
        votes: Whether the raters' votes are scored too.
    """
    columns = {f"{target}{part}": pl.Float64 for target in targets for part in ("", "_pred") if target != "expression"}
    text = dict.fromkeys(("expression", "expression_pred", "subject", "clip"), pl.String)
    more = {f"{part}_{name}": pl.Float64 for name in classes for part in ("votes", "expression_p")} if votes else {}
    nothing = pl.DataFrame(schema={**text, **columns, **more})
    found = _catalogue(units(nothing, targets=targets, classes=classes))
    return (*found, *auc(nothing, targets))


def higher_is_better(name: str) -> bool:
    """The direction of a metric."""
    return not re.match(r"(rmse|mse|mae|kl|undefined)(_|$)", name)


def statistic(units: pl.DataFrame, name: str) -> Statistic:
    """One metric over some units.

    Raises:
        RequestError: The units cannot give it.
    """
    catalogue = _catalogue(units)
    if name not in catalogue:
        raise RequestError(f"no metric {name!r} from these predictions", remedy=did_you_mean(name, catalogue))
    return catalogue[name]()


_Catalogue = dict[str, Callable[[], Statistic]]


def _catalogue(units: pl.DataFrame) -> _Catalogue:
    """Metric → what makes its statistic, so that one metric of a million units costs one."""
    measured = [column.removesuffix(".n") for column in units.columns if column.endswith(".n")]
    found: _Catalogue = _affect_metrics(units, [target for target in measured if kind_of(target) == "affect"])
    cells = [column.split(".") for column in units.columns if column.startswith("expression.")]
    classes = list(dict.fromkeys(cell[1] for cell in cells if len(cell) == 3))
    if classes:
        found["accuracy_expression"] = partial(_accuracy, units, classes)
        found["f1_expression"] = partial(_macro_f1, units, classes)
        found["recall_expression"] = partial(_mean_recall, units, classes)
        found |= {f"f1_{name}": partial(_class_f1, units, classes, name) for name in classes}
    if "expression.voted" in units.columns:
        found["agreement_expression"] = partial(_mean_of, units, "expression.agree", "expression.voted", _ARCSINE)
        found["kl_expression"] = partial(_mean_of, units, "expression.kl", "expression.voted", _LOGARITHM)
    detected = _in_order(column.removesuffix(".tp") for column in units.columns if column.endswith(".tp"))
    if detected:
        found |= {f"f1_{au}": partial(_f1, units, au) for au in detected}
        found["f1_au"] = partial(_mean, [found[f"f1_{au}"] for au in detected], skip_undefined=True)
    if "retrieval.count" in units.columns:
        found["retrieval_subject"] = partial(_mean_of, units, "retrieval.found", "retrieval.count", _ARCSINE)
        found["chance_subject"] = partial(_mean_of, units, "retrieval.chance", "retrieval.count", _ARCSINE)
    found |= _intensity_metrics(units, _in_order(target for target in measured if kind_of(target) == "intensity"))
    if {"ccc", "f1_expression", "f1_au"} <= found.keys():
        found["p_mtl"] = partial(_total, [found[name] for name in ("ccc", "f1_expression", "f1_au")])
    return found


def _in_order(aus: Iterable[str]) -> list[str]:
    return sorted(aus, key=lambda au: int(re.sub(r"\D", "", au)))


def _affect_metrics(units: pl.DataFrame, targets: Sequence[str]) -> _Catalogue:
    found: _Catalogue = {}
    for suffix, wrap in (("", _pooled), ("_per_clip", _per_clip)):
        for kind in ("ccc", "pcc", "rmse", "sagr", "sagr_nonzero"):
            for target in targets:
                found[f"{kind}_{target}{suffix}"] = partial(wrap, units, kind, target)
            if len(targets) == 2:
                found[kind + suffix] = partial(_mean, [found[f"{kind}_{target}{suffix}"] for target in targets])
    return found | {f"undefined_ccc_{target}_per_clip": partial(_undefined, units, target) for target in targets}


def _intensity_metrics(units: pl.DataFrame, targets: Sequence[str]) -> _Catalogue:
    found: _Catalogue = {}
    for kind in ("icc", "pcc", "mse", "mae"):
        each = {f"{kind}_{target.removesuffix('_intensity')}": partial(_pooled, units, kind, target) for target in targets}
        found |= each
        if each:
            found[f"{kind}_au"] = partial(_mean, list(each.values()), skip_undefined=True)
    return found


def _ratio(sums: Array) -> Array:
    return _divide(sums[..., 0], sums[..., 1])


def _divide(a: Array, b: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        quotient: Array = np.where(b > 0, a / b, np.nan)
    return quotient


def _column(units: pl.DataFrame, *columns: str) -> Array:
    """``(units, columns)`` float64; the mean of no value is taken as 0, as it is multiplied by no rows."""
    values = np.empty((units.height, len(columns)))
    for place, name in enumerate(columns):  # not by an expression: a query over some hundred units is all overhead
        column = units[name]
        values[:, place] = column.to_numpy()
        if column.null_count():
            values[column.is_null().to_numpy(), place] = 0.0
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


def _icc(sums: Array, *, gap: float | Array) -> Array:
    _, _, vy, vp, cov = _central(sums)
    ratio: Array = np.clip(_divide(2 * cov, vy + vp), -1, 1)
    return ratio


def _pcc(sums: Array, *, gap: float | Array) -> Array:
    _, _, vy, vp, cov = _central(sums)
    ratio: Array = np.clip(_divide(cov, np.sqrt(vy) * np.sqrt(vp)), -1, 1)
    return ratio


def _root(sums: Array) -> Array:
    root: Array = np.sqrt(_ratio(sums))
    return root


_OF_MOMENTS = {"ccc": _ccc, "pcc": _pcc, "icc": _icc}


def _pooled(units: pl.DataFrame, kind: str, target: str) -> Statistic:
    if kind in ("rmse", "mse"):
        return Statistic(_column(units, f"{target}.se", f"{target}.n"), _root if kind == "rmse" else _ratio, _LOGARITHM)
    if kind == "mae":
        return _mean_of(units, f"{target}.ae", f"{target}.n", _LOGARITHM)
    if kind == "sagr":
        return _mean_of(units, f"{target}.agree", f"{target}.n", _ARCSINE)
    if kind == "sagr_nonzero":
        agree, n, zero, zero_agree = _column(units, *(f"{target}.{name}" for name in ("agree", "n", "zero", "zero_agree"))).T
        return Statistic(np.stack([agree - zero_agree, n - zero], axis=1), _ratio, _ARCSINE)
    sums, gap = _moment_sums(units, target)
    return Statistic(sums, partial(_OF_MOMENTS[kind], gap=gap))


def _mean_of(units: pl.DataFrame, total: str, count: str, scale: Scale) -> Statistic:
    return Statistic(_column(units, total, count), _ratio, scale)


def _clip_values(units: pl.DataFrame, kind: str, target: str) -> Array:
    """``(units,)``: the metric of each unit alone."""
    if kind not in _OF_MOMENTS:
        each = _pooled(units, kind, target)
        return each.value(each.sums)
    n, y, p, yy, pp, yp = _unit_moments(units, target)
    own = np.stack([n, np.zeros_like(n), np.zeros_like(n), yy, pp, yp], axis=1)
    return _OF_MOMENTS[kind](own, gap=y - p)


def _per_clip(units: pl.DataFrame, kind: str, target: str) -> Statistic:
    values = _clip_values(units, kind, target)
    defined = np.isfinite(values)
    sums = np.stack([np.where(defined, values, 0.0), defined], axis=1)
    return Statistic(sums, _ratio, {"rmse": _LOGARITHM, "sagr": _ARCSINE, "sagr_nonzero": _ARCSINE}.get(kind, _FISHER_Z))


def _undefined(units: pl.DataFrame, target: str) -> Statistic:
    labelled = _column(units, f"{target}.n")[:, 0] > 0
    missing = labelled & np.isnan(_clip_values(units, "ccc", target))
    return Statistic(missing[:, None].astype(float), lambda sums: sums[..., 0], _COUNT)


def _accuracy(units: pl.DataFrame, classes: Sequence[str]) -> Statistic:
    right = _column(units, *(f"expression.{c}.{c}" for c in classes)).sum(axis=1)
    return Statistic(np.stack([right, _column(units, *_cells(classes)).sum(axis=1)], axis=1), _ratio, _ARCSINE)


def _hits(units: pl.DataFrame, classes: Sequence[str]) -> tuple[Array, Array, Array]:
    """``(units, classes)`` each: rows of a class that are found, that there are, and that are taken for it."""
    counts = _column(units, *_cells(classes)).reshape(-1, len(classes), len(classes))
    return np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=2), counts.sum(axis=1)


def _macro_f1(units: pl.DataFrame, classes: Sequence[str]) -> Statistic:
    def value(sums: Array) -> Array:
        hits, true, found = np.split(sums, 3, axis=-1)
        return _nanmean(np.where(true > 0, _divide(2 * hits, true + found), np.nan))

    return Statistic(np.concatenate(_hits(units, classes), axis=1), value, _ARCSINE)


def _mean_recall(units: pl.DataFrame, classes: Sequence[str]) -> Statistic:
    def value(sums: Array) -> Array:
        return _nanmean(_divide(*np.split(sums, 2, axis=-1)))

    return Statistic(np.concatenate(_hits(units, classes)[:2], axis=1), value, _ARCSINE)


def _class_f1(units: pl.DataFrame, classes: Sequence[str], name: str) -> Statistic:
    hits, true, found = (counts[:, list(classes).index(name)] for counts in _hits(units, classes))

    def value(sums: Array) -> Array:
        return np.where(sums[..., 1] > 0, _divide(2 * sums[..., 0], sums[..., 1] + sums[..., 2]), np.nan)

    return Statistic(np.stack([hits, true, found], axis=1), value, _ARCSINE)


def _cells(classes: Sequence[str]) -> list[str]:
    return [f"expression.{t}.{p}" for t in classes for p in classes]


def _f1(units: pl.DataFrame, au: str) -> Statistic:
    tp, fp, fn = _column(units, f"{au}.tp", f"{au}.fp", f"{au}.fn").T
    return Statistic(np.stack([2 * tp, 2 * tp + fp + fn], axis=1), _ratio, _ARCSINE)


def _mean(makers: Iterable[Callable[[], Statistic]], *, skip_undefined: bool = False) -> Statistic:
    """The mean of several metrics is a metric of all their sums."""
    parts, sums, values = _beside(makers)

    def value(sums: Array) -> Array:
        each = values(sums)
        return _nanmean(each) if skip_undefined else each.mean(axis=-1)

    return Statistic(sums, value, parts[0].scale)


def _total(makers: Iterable[Callable[[], Statistic]]) -> Statistic:
    _, sums, values = _beside(makers)
    return Statistic(sums, lambda sums: values(sums).sum(axis=-1), _AS_IT_IS)


def _beside(makers: Iterable[Callable[[], Statistic]]) -> tuple[list[Statistic], Array, Callable[[Array], Array]]:
    """Several statistics, their sums side by side, and what makes their values, ``(…, parts)``, of these."""
    parts = [make() for make in makers]
    ends = np.cumsum([part.sums.shape[1] for part in parts])[:-1]

    def values(sums: Array) -> Array:
        return np.stack([part.value(own) for part, own in zip(parts, np.split(sums, ends, axis=-1), strict=True)], axis=-1)

    return parts, np.concatenate([part.sums for part in parts], axis=1), values


def _nanmean(values: Array) -> Array:
    """Mean over the last axis of what is defined; nan, without a warning, where nothing is."""
    defined = np.isfinite(values)
    return _divide(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


# ── what is no sum ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def auc(predictions: pl.DataFrame, targets: Sequence[str]) -> dict[str, float]:
    """``auc_au12`` …, 0..1: the area under the ROC curve of the action units among the targets, and ``auc_au``, their mean where defined.

    The chance that a frame with the unit has a higher probability than one without, ties counted half (Mann & Whitney 1947). Undefined
    (nan) where one of the two kinds of frame is missing.

    Args:
        predictions: As of :func:`units`.
        targets: As of :func:`units`.
    """
    aus = [target for target in targets if kind_of(target) == "occurrence"]
    found = {f"auc_{au}": _area(predictions.select(y=pl.col(au).cast(pl.Float64), p=f"{au}_pred").drop_nulls("y")) for au in aus}
    return found | ({"auc_au": float(_nanmean(np.array(list(found.values()))))} if found else {})


def _area(frame: pl.DataFrame) -> float:
    present = int((frame["y"] == 1).sum())
    pairs = present * (frame.height - present)
    if not pairs:
        return float("nan")
    ranks = float(frame["p"].rank("average").filter(frame["y"] == 1).sum())
    return float((ranks - present * (present + 1) / 2) / pairs)
