"""Pictures of comparisons: the differences of two methods subject by subject, and the average ranks of many over tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.errors import RequestError
from harness.publish.drawing import LOOK, files, plain

if TYPE_CHECKING:
    import polars as pl

_ABOVE, _BELOW, _OVERALL = "#0072B2", "#D55E00", "#222222"  # of Okabe & Ito's palette
_NAMED = 60  # more subjects than this have no name on the axis


def by_subject(
    places: pl.DataFrame, *, a: str, b: str, metric: str, overall: Sequence[float], better: str, note: str = ""
) -> dict[str, bytes]:
    """A dot a subject, sorted, beside the overall difference and its interval.

    Args:
        places: ``subjects`` of a ``harness.comparison.Comparison``.
        a, b: Names of the two.
        metric: Of which the differences are.
        overall: Difference and the ends of its interval; nan where there is none.
        better: The direction of the metric: ``higher`` or ``lower``.
        note: Below the figure.

    Returns:
        ``svg`` and ``png``; the same table gives the same bytes.

    Raises:
        RequestError: The difference is defined in no subject.
    """
    import matplotlib
    import numpy as np
    from matplotlib.figure import Figure

    if places.is_empty():
        raise RequestError("the difference is defined in no subject", where="--figure", remedy="choose another --metric")
    places = places.sort("difference", "subject", "fold")
    values, y = places["difference"].to_numpy(), np.arange(places.height)
    names = ["?" if name is None else str(name) for name in places["subject"]]
    value, lo, hi = overall
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(7, 1.7 + min(0.19 * places.height, 11)), layout="constrained")
        axis = figure.subplots()
        axis.axvspan(lo, hi, color=_OVERALL, alpha=0.12, linewidth=0, label="its 95 % interval")
        axis.axvline(value, color=_OVERALL, linewidth=1.6, label=f"all frames together {value:+.3f}")
        axis.axvline(0, color="#888888", linewidth=0.8, linestyle=(0, (3, 3)))
        axis.hlines(y, 0, values, color="#cccccc", linewidth=1, zorder=1)
        for ahead, marker, colour, above in ((a, "o", _ABOVE, True), (b, "s", _BELOW, False)):
            mine = (values >= 0) == above
            axis.scatter(values[mine], y[mine], s=22, marker=marker, color=colour, zorder=3, label=f"{plain(ahead)} is higher")
        axis.set_yticks(y if len(y) <= _NAMED else [], [plain(name) for name in names] if len(y) <= _NAMED else [], fontsize=7)
        axis.set_ylabel(f"{places.height} subjects")
        axis.set_xlabel(f"{plain(metric)}: {plain(a)} − {plain(b)} ({better} is better)")
        axis.set_title(f"{plain(a)} against {plain(b)}, subject by subject", loc="left", fontsize=11, fontweight="bold")
        axis.margins(y=0.6 / max(len(y), 8))
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower left", ncols=2, frameon=False, title=plain(note), title_fontsize=7.5, alignment="left")
        return files(figure, ("svg", "png"))


def critical_difference(
    table: pl.DataFrame, *, distance: float, cliques: Sequence[Sequence[str]], title: str, note: str = ""
) -> dict[str, bytes]:
    """Average ranks on a line, the best left; bars join methods that cannot be told apart (Demšar 2006).

    Args:
        table: ``table`` of ``harness.ranks.Ranks``.
        distance: The critical difference.
        cliques: Methods that are joined, the bars from top to bottom.
        title: Above the figure.
        note: Below it.

    Returns:
        ``svg`` and ``png``; the same table gives the same bytes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    ranks = dict(table.select("method", "average").iter_rows())
    k, half = len(ranks), -(-len(ranks) // 2)
    step, top = 0.28, 0.35 + 0.16 * len(cliques)
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(8, 1.9 + step * half + 0.16 * len(cliques)), layout="constrained")
        axis = figure.subplots()
        axis.hlines(0, 1, k, color=_OVERALL, linewidth=1.2)
        for rank in range(1, k + 1):
            axis.vlines(rank, -0.09, 0, color=_OVERALL, linewidth=1)
            axis.text(rank, -0.15, str(rank), ha="center", va="bottom", fontsize=8)
        shown = min(distance, float(k - 1))
        axis.hlines(-0.72, 1, 1 + shown, color=_BELOW, linewidth=2.4)
        beyond = "" if distance <= k - 1 else ", more than ranks can differ"
        axis.text(1, -0.8, f"critical difference {distance:.2f}{beyond}", ha="left", va="bottom", color=_BELOW, fontsize=8.5)
        for row, clique in enumerate(cliques):
            ends = [ranks[name] for name in clique]
            axis.hlines(0.2 + 0.16 * row, min(ends) - 0.04, max(ends) + 0.04, color=_ABOVE, linewidth=3.5)
        for place, (name, rank) in enumerate(ranks.items()):
            left = place < half
            y = top + step * (place if left else k - 1 - place)
            edge = 0.9 if left else k + 0.1
            axis.plot([rank, rank, edge], [0, y, y], color="#666666", linewidth=0.8)
            text = f"{plain(name)}  {rank:.2f}" if left else f"{rank:.2f}  {plain(name)}"
            axis.text(edge - 0.05 if left else edge + 0.05, y, text, ha="right" if left else "left", va="center")
        axis.set_ylim(top + step * half, -1.25)
        axis.set_xlim(1 - 0.45 * max(k - 1, 1), k + 0.45 * max(k - 1, 1))
        axis.axis("off")
        axis.set_title(plain(title), loc="left", fontsize=11, fontweight="bold")
        if note:
            figure.supxlabel(plain(note), fontsize=7.5, x=0.01, ha="left")
        return files(figure, ("svg", "png"))
