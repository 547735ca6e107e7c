"""What a comparison of loss weightings shows: gains over the plain sum and what pays for them, costs, and the weights over training."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import polars as pl

from harness.errors import RequestError
from harness.leaderboard import against
from harness.metrics import higher_is_better
from harness.publish.drawing import COLOURS, LOOK, files, plain
from harness.publish.report import Board, Extra, Study
from harness.publish.tables import p_value, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_MANY = "#8c8c8c"
_MOST = 32.0
_ACROSS = 4


GAINS, COST = "over the plain sum", "what it costs"


def report(board: Board, study: Study, *, reference: str = "equal", parts: Sequence[str] = ()) -> Extra:
    """The report of a sweep over weightings.

    Args:
        board: Its table.
        study: Its records and fits.
        reference: The arm to beat. Where axes make several of it (``equal task``, ``equal output``), the one that was best on
            validation, or, where nothing was tuned, the first of the table.
        parts: Metrics that the score is made of, in which a gain may be paid for.

    Returns:
        The tables :data:`GAINS` and :data:`COST`, and two pictures. Arms that train nothing are in none of them.
    """
    order = board.table["arm"].unique(maintain_order=True).to_list()
    fits = _fits(study)
    trained = [arm for arm in order if arm in set(fits.filter("scored")["arm"])]
    plain = _reference(trained, study.tuning, reference, higher=higher_is_better(board.primary))
    metrics = [board.primary, *parts]
    records = study.records.filter(pl.col("arm").is_in(trained))
    gains = against(records, study.units, plain, metrics, higher_is_better=[higher_is_better(metric) for metric in metrics])
    cost = _cost(fits, plain, trained)
    score = board.table.select("arm", "score", "lo", "hi").unique("arm", keep="first", maintain_order=True)
    points = cost.select("arm", cost="time").join(score, on="arm", how="left", maintain_order="left")
    points = points.with_columns(reference=pl.col("arm") == plain)
    note = " ".join(board.notes[:1])
    pictures = {
        "weights_over_training": over_training(
            _weights(fits.filter("scored"), study, trained), title=f"Weights of {board.title}", note=note
        ),
        "score_against_cost": against_cost(
            points, title=f"Cost of {board.title}", score=board.primary, cost=f"an epoch's time, in times of {plain}'s", note=note
        ),
    }
    return Extra(
        tables={GAINS: _gains(gains, trained, plain, metrics), COST: cost},
        figures={f"{name}.{kind}": data for name, made in pictures.items() for kind, data in made.items()},
        notes=(
            f"{GAINS}: gains over {plain}, paired, with 95 % intervals over subjects and p with Holm's correction; trade: the "
            "parts that are surely gained (+) or lost (-), whose intervals do not hold 0.",
            f"{COST}: over {plain}, of an epoch's {'time' if fits['gpu'].any() else 'processor time'} (median of all fits, draws too) "
            "and of the memory that the last epoch needed beyond what the process held (the least of all fits).",
            "Weights over training: what each loss, or its gradient, was multiplied with, over the mean of all; bands are the extremes of "
            "the fits.",
        ),
        headings={"weights_over_training.svg": "Weights over training", "score_against_cost.svg": "Score against cost"},
    )


def _fits(study: Study) -> pl.DataFrame:
    """The fits that trained, draws too.

    Returns:
        ``arm``, ``fit``, ``scored`` (no draw), ``seconds`` of an epoch, ``memory`` (bytes that a step needs), ``gpu``.
    """
    scored = [(arm, fit, True) for arm, fit in study.records.select("arm", "fit").unique(maintain_order=True).iter_rows()]
    drawn = study.tuning.select("arm", "fit").unique(maintain_order=True).iter_rows() if study.tuning.height else ()
    rows = []
    seen = {fit for _, fit, _ in scored}
    for arm, fit, is_scored in [*scored, *((arm, fit, False) for arm, fit in drawn if fit not in seen)]:
        known = study.fit(fit)
        if known:
            gpu = bool(known["trainer"]["resources"]["gpus"])
            epochs = [entry["seconds" if gpu else "processor_seconds"] for entry in study.history(fit)]
            rows.append((arm, fit, is_scored, median(epochs) if epochs else None, known.get("working_memory"), gpu))
    schema = {"arm": pl.String, "fit": pl.String, "scored": pl.Boolean, "seconds": pl.Float64, "memory": pl.Int64, "gpu": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _reference(trained: Sequence[str], tuning: pl.DataFrame, reference: str, *, higher: bool) -> str:
    named = [arm for arm in trained if arm == reference or arm.startswith(f"{reference} ")]
    if not named:
        raise RequestError(f"no arm is called {reference!r}", where="report.reference", remedy=f"choose from {', '.join(trained)}")
    if tuning.height:
        chosen = tuning.filter(pl.col("arm").is_in(named) & pl.col("chosen"))
        means = (
            chosen.group_by("arm", maintain_order=True).agg(pl.col("score").mean()).sort("score", descending=higher, maintain_order=True)
        )
        named = means["arm"].to_list() or named
    return named[0]


def _gains(gains: pl.DataFrame, trained: Sequence[str], plain: str, metrics: Sequence[str]) -> pl.DataFrame:
    """Readable: an arm a row, in the order of the table; all text."""
    of = {(row["arm"], row["metric"]): row for row in gains.to_dicts()}
    rows = []
    for arm in trained:
        if arm == plain:
            rows.append({"method": arm, "gain": "the plain sum", "p": "", **dict.fromkeys(metrics[1:], ""), "trade": ""})
            continue
        first, *others = (of[arm, metric] for metric in metrics)
        sure = ["+ " + row["metric"] for row in others if row["lo"] is not None and row["lo"] > 0]
        sure += ["- " + row["metric"] for row in others if row["hi"] is not None and row["hi"] < 0]
        shown = {row["metric"]: with_interval(row["gain"], row["lo"], row["hi"], sign=True) for row in others}
        gain = with_interval(first["gain"], first["lo"], first["hi"], sign=True)
        rows.append({"method": arm, "gain": gain, "p": p_value(first["p"]), **shown, "trade": ", ".join(sure)})
    return pl.DataFrame(rows)


def _cost(fits: pl.DataFrame, plain: str, trained: Sequence[str]) -> pl.DataFrame:
    """``arm``, ``time`` and ``memory`` over the plain sum's, ``seconds`` of an epoch, ``mebibytes``, ``fits``; the cheapest first."""
    medians = fits.group_by("arm").agg(seconds=pl.col("seconds").median(), memory=pl.col("memory").min(), fits=pl.len())
    of_plain = medians.filter(arm=plain)
    return (
        medians.select(
            "arm",
            time=pl.col("seconds") / of_plain["seconds"][0],
            memory=pl.col("memory") / of_plain["memory"][0],
            seconds="seconds",
            mebibytes=pl.col("memory") / 2**20,
            fits="fits",
        )
        .filter(pl.col("arm").is_in(trained))
        .sort("time", "arm")
    )


def _weights(fits: pl.DataFrame, study: Study, trained: Sequence[str]) -> pl.DataFrame:
    """Long: ``arm``, ``fit``, ``epoch``, ``loss``, ``weight``, arms in the order of the table."""
    rows = [
        (arm, fit, int(entry["epoch"]), name.removeprefix("weight/"), float(value))
        for arm in trained
        for fit in fits.filter(arm=arm)["fit"]
        for entry in study.history(fit)
        for name, value in entry.items()
        if name.startswith("weight/")
    ]
    schema = {"arm": pl.String, "fit": pl.String, "epoch": pl.Int64, "loss": pl.String, "weight": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def over_training(weights: pl.DataFrame, *, title: str, note: str = "") -> dict[str, bytes]:
    """A panel an arm: each loss's weight over the mean weight, epoch by epoch; the mean over fits, and from the least to the most.

    1 is what the plain sum has. The scale is of doublings; a weight below a thirty-second of the mean, or below 0, is drawn at the edge.

    Args:
        weights: Columns ``arm``, ``fit``, ``epoch``, ``loss``, ``weight``; panels in the order in which arms come.
        title: Above the figure.
        note: Below it.

    Returns:
        ``svg`` and ``png``; the same table gives the same bytes.

    Raises:
        RequestError: No arm has weights.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if weights.is_empty():
        raise RequestError("no arm has weights of its losses", where="weights over training")
    ratio = pl.col("weight") / pl.col("weight").abs().mean().over("arm", "fit", "epoch")
    ratios = (
        weights.with_columns(ratio=ratio.fill_nan(None).clip(1 / _MOST, _MOST))
        .group_by("arm", "loss", "epoch", maintain_order=True)
        .agg(mean=pl.col("ratio").mean(), least=pl.col("ratio").min(), most=pl.col("ratio").max())
        .sort("epoch", maintain_order=True)
    )
    arms = weights["arm"].unique(maintain_order=True).to_list()
    losses = weights["loss"].unique(maintain_order=True).to_list()
    styles = _styles(losses)
    with matplotlib.rc_context(LOOK):
        across = min(_ACROSS, len(arms))
        down = -(-len(arms) // across)
        figure = Figure(figsize=(0.6 + 2.7 * across, 1.3 + 2.0 * down), layout="constrained")
        axes = figure.subplots(down, across, sharex=False, sharey=True, squeeze=False).ravel().tolist()
        for axis in axes[len(arms) :]:
            axis.remove()
        for axis, arm in zip(axes, arms, strict=False):
            for name in losses:
                line = ratios.filter(arm=arm, loss=name)
                if line.height:
                    x, mean, least, most = (line[column].to_numpy() for column in ("epoch", "mean", "least", "most"))
                    axis.plot(x, mean, label=plain(name), **styles[name])
                    if styles[name]["color"] != _MANY:
                        axis.fill_between(x, least, most, color=styles[name]["color"], alpha=0.12, linewidth=0)
            axis.set_title(plain(arm), loc="left", fontsize=9)
            axis.axhline(1, color="#222222", linewidth=0.7, linestyle=(0, (1, 3)), zorder=1)
            _tidy(axis)
        axes[0].set_yscale("log", base=2)
        low, high = float(ratios["least"].min() or 1), float(ratios["most"].max() or 1)  # type: ignore[arg-type]
        axes[0].set_ylim(min(low, 0.5) / 1.15, max(high, 2) * 1.15)
        axes[0].yaxis.set_major_formatter(lambda y, _: f"{y:g}" if y >= 1 else f"1/{1 / y:g}")
        for axis in axes[max(0, len(arms) - across) : len(arms)]:
            axis.set_xlabel("epoch")
        figure.supylabel("weight over the mean weight", fontsize=9)
        figure.suptitle(plain(title), x=0.01, ha="left", fontsize=12, fontweight="bold")
        grey = [plain(name) for name, style in styles.items() if style["color"] == _MANY]
        handles = _handles(axes[: len(arms)], grey)
        look = {"frameon": False, "handlelength": 3, "title_fontsize": 8, "alignment": "left"}
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower left", ncols=min(len(handles), 2 * across), title=plain(note), **look
        )
        return files(figure, ("svg", "png"), bbox_inches="tight")


def against_cost(points: pl.DataFrame, *, title: str, score: str, cost: str, note: str = "") -> dict[str, bytes]:
    """Score with its interval against cost; the name of each arm beside it, with a line to its point where names would collide.

    Args:
        points: Columns ``arm``, ``score``, ``lo``, ``hi``, ``cost``, and ``reference``, true for the arm that the others are compared with.
        title: Above the figure.
        score, cost: What the axes say.
        note: Below the figure.

    Returns:
        As :func:`over_training`.

    Raises:
        RequestError: No arm has both.
    """
    import matplotlib
    from matplotlib.figure import Figure

    rows = sorted(points.drop_nulls(["score", "cost"]).to_dicts(), key=lambda row: (row["score"], row["arm"]))
    if not rows:
        raise RequestError("no arm has both a score and a cost", where="score against cost")
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(9.2, 1.4 + max(3.2, 0.22 * len(rows))), layout="constrained")
        axis = figure.subplots()
        low = min(row["score"] if row["lo"] is None else row["lo"] for row in rows)
        high = max(row["score"] if row["hi"] is None else row["hi"] for row in rows)
        right = max(row["cost"] for row in rows)
        left = min(row["cost"] for row in rows)
        for row, height in zip(rows, _spread([row["score"] for row in rows], low, high), strict=True):
            colour = "#222222" if row["reference"] else COLOURS[0]
            if row["lo"] is not None:
                axis.plot([row["cost"]] * 2, [row["lo"], row["hi"]], color=colour, alpha=0.35, linewidth=1.2, zorder=2)
            axis.plot(row["cost"], row["score"], "s" if row["reference"] else "o", color=colour, markersize=5, zorder=3)
            edge = right * (right / left) ** 0.08
            axis.plot([row["cost"], edge], [row["score"], height], color="#bbbbbb", linewidth=0.5, zorder=1)
            axis.text(edge * (right / left) ** 0.01, height, plain(row["arm"]), fontsize=8, va="center", color=colour, clip_on=False)
            if row["reference"]:
                axis.axhline(row["score"], color=colour, linewidth=0.8, linestyle=(0, (1, 3)), zorder=1)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:.3g}×")
        axis.set_xticks([2.0**power for power in range(math.floor(math.log2(left)), math.ceil(math.log2(right)) + 1)])
        axis.minorticks_off()
        axis.set_xlim(left * 0.9, right * (right / left) ** 0.35 * 1.25)
        axis.set_xlabel(plain(cost))
        axis.set_ylabel(plain(score))
        _tidy(axis)
        figure.suptitle(plain(title), x=0.01, ha="left", fontsize=12, fontweight="bold")
        if note:
            figure.text(0.01, -0.03, plain(note), fontsize=8, ha="left", va="top")
        return files(figure, ("svg", "png"), bbox_inches="tight")


def _styles(losses: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A colour a loss; of more than the palette has, those that are numbered share a grey."""
    few = len(losses) <= len(COLOURS)
    alone = [name for name in losses if few or not name[-1:].isdigit()]
    styles = {}
    for name in losses:
        place = alone.index(name) if name in alone else -1
        if place >= 0:
            dashes = _DASHES[place // len(COLOURS) % len(_DASHES)]
            styles[name] = {"color": COLOURS[place % len(COLOURS)], "linestyle": dashes, "linewidth": 1.8, "zorder": 3}
        else:
            styles[name] = {"color": _MANY, "linewidth": 0.8, "alpha": 0.8, "zorder": 2}
    return styles


def _handles(axes: Sequence[Axes], grey: Collection[str]) -> Mapping[str, Any]:
    """One entry a loss, whatever panels it is in; one for all of a name (au1, au2 …) that are grey."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(f"each {label.rstrip('0123456789')}" if label in grey else label, handle)
    return entries


def _spread(values: Sequence[float], low: float, high: float) -> list[float]:
    """Heights of labels, rising as the values, none closer than a line's height to the next."""
    step = (high - low) / max(14, len(values)) if high > low else 1.0
    heights: list[float] = []
    for value in values:
        heights.append(max(value, heights[-1] + step) if heights else value)
    over = heights[-1] - max(high, values[-1])
    if over > 0:  # pushed beyond the top: move down what can be moved
        heights = [height - over for height in heights]
        for place in range(len(heights) - 2, -1, -1):
            heights[place] = min(max(heights[place], values[place]), heights[place + 1] - step)
    return heights


def _tidy(axis: Axes) -> None:
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
