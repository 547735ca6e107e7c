"""Methods over several tasks at once: average ranks, Friedman's test and Nemenyi's critical difference (Demšar, JMLR 7, 2006)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from harness.errors import RequestError
from harness.leaderboard import SAME
from harness.metrics import higher_is_better
from harness.store import Store

ALPHA = 0.05


@dataclass(frozen=True)
class Ranks:
    """What several tasks together say of some methods.

    Attributes:
        table: The best first: ``method``, ``average`` (its rank, 1 the best, the mean over tasks, each weighed alike), and its rank in each
            task; equal scores share the mean of their ranks.
        tasks: Names, the columns of ``table``.
        statistic, p: Friedman's chi-square and its p; nan with fewer than three methods or tasks, or where all are equal.
        distance: Average ranks that are closer cannot be told apart (Nemenyi, 5 %).
        cliques: Methods that cannot be told apart, as many as go together; the bars of the picture.
        notes: What was ranked, and what so few tasks can tell.
    """

    table: pl.DataFrame
    tasks: tuple[str, ...]
    statistic: float
    p: float
    distance: float
    cliques: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def across(store: Store, tasks: Sequence[str] = ()) -> Ranks:
    """The ranks of every method that has a row in each of some tasks.

    Args:
        store: Where.
        tasks: Names; all that the store has records of, without.

    Raises:
        RequestError: Fewer than two tasks, or fewer than two methods that are in all of them.
    """
    from harness import boards
    from harness.plan import flatten

    records = store.records().filter(~pl.col("protocol").str.ends_with("/validation-part"))
    names = list(dict.fromkeys(tasks)) or sorted(set(records["task"]))
    found: dict[str, list[dict[str, float]]] = {}
    notes = []
    for task in names:
        parts = records.filter(task=task).sort("written", descending=True).partition_by(SAME, maintain_order=True)
        if not parts:
            raise RequestError(f"no records of {task!r}", where=str(store), remedy="run it first")
        found[task] = boards.rankings(flatten(parts[0]))
        if len(parts) > 1:
            notes.append(f"{task}: of {len(parts)} tables the newest, protocol {parts[0]['protocol'][0]}.")
    methods = sorted(set.intersection(*({name for ranking in task for name in ranking} for task in found.values())))
    if len(names) < 2 or len(methods) < 2:
        what = f"{len(methods)} methods have a row in each of {len(names)} tasks"
        raise RequestError(what, where="--across", remedy="two tasks and two methods at least: run the same baselines on more tasks")
    ranks: dict[str, np.ndarray] = {}
    for task, rankings in found.items():
        whole = [ranking for ranking in rankings if set(methods) <= ranking.keys()]
        if not whole:
            raise RequestError(
                f"no support of {task} has a row of each of {', '.join(methods)}", where="--across", remedy="run them all at one"
            )
        if len(rankings) > 1:
            notes.append(f"{task}: the mean of the ranks at {len(whole)} of {len(rankings)} supports, those that every method has.")
        sign = 1 if higher_is_better(records.filter(task=task).sort("written")["primary"][-1]) else -1
        ranks[task] = np.mean([_ranks([sign * ranking[name] for name in methods]) for ranking in whole], axis=0)
    return from_ranks(pl.DataFrame({"method": methods, **ranks}), notes=notes)


def from_ranks(ranks: pl.DataFrame, *, notes: Sequence[str] = ()) -> Ranks:
    """Test ranks.

    Args:
        ranks: ``method``, and a column a task with the rank of each method in it.
        notes: Said before what the number of tasks means.
    """
    from scipy import stats

    tasks, k = tuple(ranks.columns[1:]), ranks.height
    table = ranks.with_columns(average=pl.mean_horizontal(tasks)).sort("average", "method").select("method", "average", *tasks)
    distance = critical_difference(k, len(tasks))
    columns = [ranks.row(place)[1:] for place in range(k)]
    statistic = p = float("nan")
    if k >= 3 and len(tasks) >= 3 and ranks.select(pl.any_horizontal(pl.col(tasks).n_unique() > 1)).item():
        statistic, p = (float(value) for value in stats.friedmanchisquare(*columns))
    enough = next(n for n in range(2, 1000) if critical_difference(k, n) <= k - 1)
    tested = f"Friedman's chi-square {statistic:.2f}, p {p:.3f}." if math.isfinite(p) else "Friedman's test wants three methods and tasks."
    told = f"Average ranks closer than {distance:.2f} cannot be told apart (Nemenyi, 5 %); equal scores share ranks, tasks weigh alike."
    few = (
        f"With {len(tasks)} tasks this can tell nothing: {k} methods can be at most {k - 1} ranks apart, and {enough} tasks are the least."
        if distance > k - 1
        else f"{k} methods can be at most {k - 1} ranks apart; with fewer than {enough} tasks nothing could be told."
    )
    notes = (*notes, tested, told, few)
    return Ranks(table, tasks, statistic, p, distance, _cliques(table, distance), notes)


def critical_difference(methods: int, tasks: int) -> float:
    """How far average ranks must be apart: q √(k (k + 1) / 6n), q the studentised range over √2.

    >>> round(critical_difference(4, 14), 2)  # Demšar's example: 2.569 √(4 · 5 / (6 · 14))
    1.25
    """
    from scipy.stats import studentized_range

    q = studentized_range.ppf(1 - ALPHA, methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * tasks)))


def _ranks(scores: Sequence[float]) -> np.ndarray:
    ranks: np.ndarray = pl.Series(scores).round(12).rank("average", descending=True).to_numpy()
    return ranks


def _cliques(table: pl.DataFrame, distance: float) -> tuple[tuple[str, ...], ...]:
    """The longest runs, in the order of the ranks, whose ends are closer than the distance."""
    names, average = table["method"].to_list(), table["average"].to_list()
    runs: list[tuple[int, int]] = []
    for start in range(len(names)):
        end = max(place for place in range(start, len(names)) if average[place] - average[start] < distance)
        if end > start and (not runs or end > runs[-1][1]):
            runs.append((start, end))
    return tuple(tuple(names[start : end + 1]) for start, end in runs)
