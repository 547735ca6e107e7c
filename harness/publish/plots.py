"""Pictures of a table on its page: score over labels, score against cost, an interval in a cell, losses over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import polars as pl

from harness import identity
from harness.publish.curve import label_efficiency
from harness.publish.document import INK, LINE, SOFT
from harness.publish.drawing import LOOK, files
from harness.publish.inventory import Row, Standing
from harness.publish.report import every_anchor
from harness.publish.tables import cell_text, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS, CONTROLS = 8, 4
"""How many curves one figure holds: the best of each."""

_COLOUR, _SENT = "#0072B2", "#CC79A7"


def over_labels(standing: Standing, *, kinds: Sequence[str], on_page: bool) -> dict[str, bytes] | None:
    """Score over labelled frames a clip, of rows that are ranked; None where these do not differ in it.

    Args:
        standing: The table.
        kinds, on_page: As of :func:`harness.publish.curve.label_efficiency`.
    """
    table = every_anchor(standing.table).filter(pl.col("rank").is_not_null())
    known = table.filter((pl.col("labels_per_clip") > 0) & pl.col("score").is_not_null())
    if known["labels_per_clip"].n_unique() < 2:
        return None
    order = known.group_by("arm", "control").agg(pl.col("score").mean()).sort("score", "arm", descending=[standing.higher_is_better, False])
    shown = [arm for control, most in ((False, METHODS), (True, CONTROLS)) for arm in order.filter(control=control)["arm"].head(most)]
    panels = "support.selection" if "support.selection" in table.columns else "_all"
    table = table.with_columns(_all=pl.lit("any")).with_columns(pl.col("arm").map_elements(_label, pl.String))
    others = [name for name in others_of(standing) if table[name].drop_nulls().n_unique() > 1]
    free = table.filter(pl.col("control") & (pl.col("labels_per_clip") == 0) & pl.col("score").is_not_null())
    reference = None if free.is_empty() else free["score"].max() if standing.higher_is_better else free["score"].min()
    left = order.height - len(shown)
    return label_efficiency(
        table.filter(pl.col("arm").is_in([_label(arm) for arm in shown])),
        title=standing.title,
        score=standing.primary,
        panels=panels,
        series=("arm", *others),
        reference=reference,  # type: ignore[arg-type]
        note=f"Bands: 95 % interval.{f' {left} more arms are in the table.' if left else ''}",
        kinds=kinds,
        on_page=on_page,
    )


def cost_of(row: Row) -> dict[str, float | None]:
    """``fit s`` and ``GPU s``, means over a row's records, and ``memory``, the most of any, in bytes; None where it is not known."""
    columns = {"fit s": "fit_seconds", "GPU s": "gpu_seconds"}
    means = {name: row.records[column].mean() for name, column in columns.items()}
    most = row.records["peak_memory"].max()
    return {name: float(value) if isinstance(value, int | float) else None for name, value in {**means, "memory": most}.items()}


def widest(standing: Standing) -> tuple[dict[str, str], list[Row]]:
    """The ranking with the most scored methods; of equal ones that with the most labels."""

    def size(ranking: tuple[dict[str, str], list[Row]]) -> tuple[int, float]:
        scored = [
            row for row in ranking[1] if row.facts["score"] is not None and "methods" in row.marks and (cost_of(row)["fit s"] or 0) > 0
        ]
        return len(scored), max((row.facts["labels_per_clip"] or 0.0 for row in ranking[1]), default=0.0)

    return max(standing.rankings, key=size)


def against_cost(standing: Standing, *, kinds: Sequence[str], on_page: bool) -> dict[str, bytes] | None:
    """Score of ranked rows against the time of the fits of one record (of all GPUs, where any worked); the best control drawn through.

    Args:
        standing: The table; of several rankings, the one that :func:`widest` gives.
        kinds: Of files.
        on_page: As of :func:`harness.publish.curve.label_efficiency`.

    Returns:
        None where nothing that was scored took any time to fit.
    """
    import matplotlib
    from matplotlib.figure import Figure

    setting, rows = widest(standing)
    costs = {row.name: cost_of(row) for row in rows}
    gpus = any((cost["GPU s"] or 0) > 0 for cost in costs.values())
    column = "GPU s" if gpus else "fit s"
    scored = [row for row in rows if row.facts["rank"] is not None]
    points = [row for row in scored if (costs[row.name][column] or 0) > 0]
    if not points:
        return None
    best = sorted(scored, key=lambda row: (row.facts["score"] * (-1 if standing.higher_is_better else 1), row.facts["arm"]))
    kept = {row.name for row in best[:60]}
    control = next((row for row in best if "controls" in row.marks and row.facts["rank"] is not None), None)
    texts: dict[str, str] = {}
    with matplotlib.rc_context(LOOK | ({"axes.facecolor": "none"} if on_page else {})):
        figure = Figure(figsize=(10.6, 4.8), layout="constrained")
        axis = figure.subplots()
        for place, row in enumerate(row for row in points if row.name in kept):
            cost, facts = float(costs[row.name][column] or 0), row.facts
            muted = "controls" in row.marks
            colour = SOFT if muted else _SENT if "submitted" in row.marks else _COLOUR
            if facts["lo"] is not None:
                axis.plot([cost] * 2, [facts["lo"], facts["hi"]], color=colour, alpha=0.4, linewidth=1.2, zorder=2)
            axis.plot([cost], [facts["score"]], "s" if muted else "o", color=colour, markersize=7, zorder=3, gid=f"cost-{place}")
            said = f"{_name(row, standing)}: {with_interval(facts['score'], facts['lo'], facts['hi'])}, {cost:.3g} {_unit(gpus)}"
            texts[f"cost-{place}"] = said + (", control" if muted else "")
        if control is not None:
            label = f"best control: {_short(control.facts['arm'])} {control.facts['score']:.3f}".replace("$", r"\$")
            axis.axhline(control.facts["score"], color=SOFT, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1, label=label)
            axis.legend(frameon=False, loc="best", fontsize=8)
        axis.set_xscale("log")
        low, high = min(axis.get_xlim()), max(axis.get_xlim())
        axis.set_xlim(low / 1.15, high * 1.6)  # room for the names
        _labelled(axis, [(row, (float(costs[row.name][column] or 0), row.facts["score"])) for row in best if row in points], standing)
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axis.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if high / low < 12 else "")
        axis.set_xlabel(f"{_unit(gpus)} of all fits under a record (log)")
        axis.set_ylabel(standing.primary.replace("$", r"\$"))
        axis.grid(axis="y", color=LINE, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        at = f" ({', '.join(f'{name} {value}' for name, value in setting.items())})" if setting else ""
        title = _short(f"Cost of {standing.title}{at}", 110).replace("$", r"\$")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
        return files(figure, kinds, texts if on_page else None)


def _labelled(axis: Axes, points: Sequence[tuple[Row, tuple[float, float]]], standing: Standing) -> None:
    """The names of the best beside their points, as far as they do not run into each other."""
    taken: list[tuple[float, float]] = []
    for row, at in points[:12]:
        x, y = axis.transData.transform(at)
        if any(abs(x - other) < 190 and abs(y - above) < 14 for other, above in taken):
            continue
        taken.append((x, y))
        left = x > axis.transAxes.transform((0.72, 0))[0]
        text = _short(_name(row, standing), 28).replace("$", r"\$")
        axis.annotate(text, at, xytext=(-8 if left else 8, 4), textcoords="offset points", fontsize=8, ha="right" if left else "left")


def interval(row: Row, low: float, high: float) -> str:
    """The interval of a row as a small picture, on a scale that all rows share; the best control's score as a dashed line.

    Args:
        row: The row.
        low, high: Ends of the scale.
    """
    score, lo, hi = (row.facts[name] for name in ("score", "lo", "hi"))
    if score is None or high <= low:
        return ""

    def x(value: float) -> str:
        return f"{100 * min(max((value - low) / (high - low), 0), 1):.1f}%"

    line = f'<line x1="{x(lo)}" x2="{x(hi)}" y1="50%" y2="50%"/>' if lo is not None and hi is not None else ""
    level = f'<line class=level x1="{x(row.level)}" x2="{x(row.level)}" y1="0" y2="100%"/>' if row.level is not None else ""
    return f'<svg class=bar aria-hidden=true>{level}{line}<circle cx="{x(score)}" cy="50%" r="3.5"/></svg>'


def losses(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Small panels, one a loss or weight, with a line for each fit; dashed where it is of the validation part.

    Args:
        histories: Fit → what it reported, an entry an epoch.
    """
    panels: dict[str, list[tuple[str, list[tuple[float, float]]]]] = {}
    for entries in histories.values():
        lines: dict[str, list[tuple[float, float]]] = {}
        for entry in entries:
            for name, value in entry.items():
                if name not in ("epoch", "seconds") and isinstance(value, int | float) and abs(value) < 1e12:
                    lines.setdefault(name, []).append((float(entry.get("epoch", len(lines))), float(value)))
        for name, points in lines.items():
            part, _, loss = name.rpartition("/")
            heading = f"loss {loss}" if part in ("train", "validation", "val") else name.replace("/", " ")
            panels.setdefault(heading, []).append((part, points))
    constant = {heading: {value for _, points in lines for _, value in points} for heading, lines in panels.items()}
    drawn = "".join(_lines(heading, lines) for heading, lines in panels.items() if len(constant[heading]) > 1)
    told = ", ".join(f"{heading} {min(values):.3g}" for heading, values in constant.items() if len(values) == 1)
    return f"<div class=panels>{drawn}</div>" + (f"<p class=soft>Constant: {escape(cell_text(told))}.</p>" if told else "")


def _lines(heading: str, lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """One panel of 240 × 110."""
    xs, ys = ([point[axis] for _, points in lines for point in points] for axis in (0, 1))
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    wide, tall = right - left or 1.0, high - low or 1.0

    def place(point: tuple[float, float]) -> str:
        return f"{48 + 182 * (point[0] - left) / wide:.1f},{90 - 68 * (point[1] - low) / tall:.1f}"

    drawn = "".join(
        f'<polyline{" class=val" if part.startswith("val") else ""} points="{" ".join(map(place, points))}"/>' for part, points in lines
    )
    told = f"{heading}: {len(lines)} lines over epochs {left:g} to {right:g}, values from {low:.3g} to {high:.3g}"
    return (
        f'<svg viewBox="0 0 240 110" role=img aria-label="{escape(cell_text(told))}"><title>{escape(cell_text(told))}</title>'
        f'<text class=head x=4 y=12>{escape(_short(heading, 36))}</text><path d="M48 20V90H232"/>'
        f"<text x=44 y=26 text-anchor=end>{high:.3g}</text><text x=44 y=92 text-anchor=end>{low:.3g}</text>"
        f"<text x=48 y=104>{left:g}</text><text x=230 y=104 text-anchor=end>epoch {right:g}</text>{drawn}</svg>"
    )


def _unit(gpus: bool) -> str:
    return "GPU-seconds" if gpus else "seconds"


def _name(row: Row, standing: Standing) -> str:
    """The arm, with the settings besides the support that tell its rows apart."""
    mine = [other.facts for other in standing.rows if other.facts["arm"] == row.facts["arm"]]
    varied = [name for name in others_of(standing) if len({facts[name] for facts in mine}) > 1]
    return " ".join([row.facts["arm"], *(str(row.facts[name]) for name in varied if row.facts[name] is not None)])


def others_of(standing: Standing) -> list[str]:
    """The settings besides the support."""
    return [name for name in standing.settings if not name.startswith("support.")]


def _label(arm: str) -> str:
    """An arm in a legend: names that begin alike stay apart."""
    text = _short(arm, 36)
    return text if text == cell_text(arm) else f"{text} {identity.address(arm)[:4]}"


def _short(text: str, most: int = 48) -> str:
    text = cell_text(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"
