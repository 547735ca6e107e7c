"""The label-efficiency curve: score over labelled frames, with intervals, the controls drawn through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import RequestError
from harness.publish.document import INK, LINE
from harness.publish.drawing import COLOURS, LOOK, files, plain
from harness.publish.tables import with_interval

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

# Methods take the strong colours, controls greys told apart by their dashes
_MARKERS = ("o", "s", "D", "^", "v", "P")
_CONTROLS = ("#4d4d4d", "#808080", "#666666", "#999999", "#595959", "#8c8c8c")
_DASHES = ((4, 2), (1, 1.5), (6, 2, 1, 2), (2, 2), (8, 2), (3, 1, 1, 1, 1, 1))


def label_efficiency(
    table: pl.DataFrame,
    *,
    title: str,
    score: str = "score",
    panels: str = "support.selection",
    series: Sequence[str] = ("arm",),
    reference: float | None = None,
    note: str = "",
    kinds: Sequence[str] = ("svg", "png"),
    on_page: bool = False,
) -> dict[str, bytes]:
    """Draw the rows of a leaderboard as curves.

    Args:
        table: What ``harness.leaderboard.leaderboard`` returned, several label budgets in it.
        title: Above the figure.
        score: What the score is called on its axis.
        panels: A setting; each of its values is a panel of its own.
        series: What makes one curve.
        reference: The score of the fully labelled control, drawn across.
        note: Above the legend: protocol, dataset, that it is synthetic, what the bands are.
        kinds: Of files: ``svg``, ``png``, ``pdf``.
        on_page: The SVG is for a page: on the page's own paper, and each point says what it is.

    Returns:
        A file a kind; the same table gives the same bytes.

    Raises:
        RequestError: No row has both labels and a score.
    """
    import matplotlib
    import polars as pl
    from matplotlib.figure import Figure

    points = table.filter((pl.col("labels_per_clip") > 0) & pl.col("score").is_not_null()).with_columns(pl.col(panels).fill_null("any"))
    if points.is_empty():
        raise RequestError("no row of the table has labels and a score", where="label-efficiency curve")
    points = points.with_columns(series=pl.concat_str([pl.col(name).fill_null("") for name in series], separator=" ").str.strip_chars())
    styles = _styles(points)
    names = points.group_by(panels).len().sort("len", panels, descending=[True, False])[panels].to_list()
    texts: dict[str, str] = {}
    with matplotlib.rc_context(LOOK | ({"axes.facecolor": "none"} if on_page else {})):
        across = min(len(names), 3)
        down = -(-len(names) // across)
        figure = Figure(figsize=(1.4 + 4.6 * across, 1.1 + 3.3 * down), layout="constrained")
        axes = figure.subplots(down, across, sharey=True, squeeze=False).ravel().tolist()
        for axis in axes[len(names) :]:
            axis.remove()
        for axis, name in zip(axes, names, strict=False):
            heading = "" if name == "any" and len(names) == 1 else f"{panels.rsplit('.', 1)[-1]}: {plain(name)}"
            _panel(axis, points.filter(pl.col(panels) == name), styles, reference, heading, texts if on_page else None)
        figure.supylabel(plain(score), fontsize=9)
        figure.suptitle(plain(title), x=0.01, ha="left", fontsize=12, fontweight="bold")
        handles, labels = _legend(axes[: len(names)])
        look = {
            "ncols": min(len(labels), 2 + 2 * across),
            "frameon": False,
            "handlelength": 3,
            "title_fontsize": 8,
            "alignment": "left",
        }
        figure.legend(handles, labels, loc="outside lower left", title=plain(note), **look)
        return files(figure, kinds, texts if on_page else None, bbox_inches="tight")


def _styles(points: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Series → how it is drawn. The best method is given the first colour, so that it looks the same in every panel."""
    import polars as pl

    order = (
        points.group_by("series", "control").agg(pl.col("score").mean()).sort("control", "score", "series", descending=[False, True, False])
    )
    styles: dict[str, dict[str, Any]] = {}
    for control in (False, True):
        for i, name in enumerate(order.filter(pl.col("control") == control)["series"]):
            if control:
                styles[name] = {"color": _CONTROLS[i % 6], "dashes": _DASHES[i % 6], "linewidth": 1.3, "zorder": 2}
            else:
                styles[name] = {"color": COLOURS[i % 6], "marker": _MARKERS[i % 6], "markersize": 5, "linewidth": 2.2, "zorder": 3}
    return styles


def _panel(
    axis: Axes, points: pl.DataFrame, styles: dict[str, dict[str, Any]], reference: float | None, title: str, texts: dict[str, str] | None
) -> None:
    """One panel; what each point says is put into ``texts``, by its gid."""
    import numpy as np
    import polars as pl
    from matplotlib.ticker import FuncFormatter, NullLocator

    for name, style in styles.items():
        curve = points.filter(pl.col("series") == name).sort("labels_per_clip")
        x, y, lo, hi = (curve[column].cast(pl.Float64).to_numpy() for column in ("labels_per_clip", "score", "lo", "hi"))
        axis.plot(x, y, label=plain(name), **style)
        if len(x) == 1:  # an interval of one budget is a bar, as a band of no width cannot be seen
            axis.errorbar(x, y, yerr=[y - lo, hi - y], color=style["color"], capsize=3, linewidth=1.2)
        elif not curve["control"][0]:
            axis.fill_between(x, lo, hi, color=style["color"], alpha=0.15, linewidth=0)
        for at, value, low, high in zip(x, y, lo, hi, strict=True) if texts is not None else ():
            gid = f"point-{len(texts)}"  # type: ignore[arg-type]
            texts[gid] = f"{name}, {at:.3g} labels a clip: {with_interval(value, *(None if np.isnan(v) else v for v in (low, high)))}"  # type: ignore[index]
            axis.plot([at], [value], "o", color=style["color"], markersize=9, alpha=0, gid=gid, zorder=5)
    if reference is not None:
        axis.axhline(reference, color=INK, linewidth=1, linestyle=(0, (1, 3)), label="all training labels (linear probe)", zorder=1)
    ticks = points.group_by("labels_per_clip").agg(pl.col("labelled").mean()).sort("labels_per_clip")
    axis.set_xscale("log", base=2)
    shares = {round(n, 6): share for n, share in ticks.iter_rows()}
    budgets = _apart(np.array(sorted(shares)))
    axis.set_xticks(budgets)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}\n{_percent(shares[round(x, 6)])}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("labelled frames a clip, and their share")
    axis.set_title(title, loc="left", fontsize=10)
    axis.grid(axis="y", color=LINE, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _apart(values: Any) -> list[float]:
    """Ticks whose labels do not run into each other: the budgets at least a third of a doubling from the last one kept."""
    kept: list[float] = []
    for value in values:
        if not kept or value / kept[-1] >= 2 ** (1 / 3):
            kept.append(float(value))
    return kept


def _legend(axes: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """One entry a curve, methods before controls, whatever panels it is in."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return list(entries.values()), list(entries)
