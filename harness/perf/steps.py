"""Where a history stepped: change points by ``ruptures``, in times of one machine."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.perf.comparing import chosen
from harness.perf.history import Kept
from harness.perf.turns import short

LEAST_STEP = 0.05
"""Share by which a level must differ from the one before it to be called a step."""
NOISE = 0.02
"""Standard deviation from run to run that is taken to be there even where fewer runs do not show it."""
PENALTY = 2.5
"""Of a further step, times the logarithm of the number of revisions: fewer than one in twenty histories without a step is given one
(by simulation with noise of heavy tails, ``tests/harness/perf/test_steps.py``)."""
SHORTEST = 2
"""Revisions that must stand on a level: one alone may be a bad hour."""


@dataclass(frozen=True)
class Step:
    """A revision from which on a level is another.

    Attributes:
        place: Of the first revision on the new level, in the series.
        commit: Its name.
        before, after: Medians of the levels.
        text: As one says it.
    """

    place: int
    commit: str
    before: float
    after: float
    text: str


@dataclass(frozen=True)
class Series:
    """One quantity of one benchmark, or a score, on one machine.

    Attributes:
        name: Of the benchmark, short; or of the score.
        quantity: ``elapsed`` (median of rounds), ``processor`` (the least of rounds), or ``score``.
        machine: Fingerprint.
        commits: Of the revisions, in order.
        values: Seconds, or scores.
        lo, hi: Quartiles about the values, or the intervals of scores; as long as the values.
        steps: In order.
    """

    name: str
    quantity: str
    machine: str
    commits: tuple[str, ...]
    values: tuple[float, ...]
    lo: tuple[float, ...]
    hi: tuple[float, ...]
    steps: tuple[Step, ...]

    def text(self, value: float) -> str:
        """A value as one says it."""
        from harness.perf.tables import seconds

        return f"{value:.4f}" if self.quantity == "score" else seconds(value)


def series_of(kept: Sequence[Kept], only: Sequence[str] = ()) -> list[Series]:
    """All histories of what was kept in full size, sorted by machine and name; revisions in the order they are given.

    Runs with changes beyond a commit are of no revision, and are left out; so are sizes other than the last one's.
    """
    found = []
    clean = [one for one in kept if not one.dirty]
    for machine in sorted({one.machine for one in clean}):
        mine = [one for one in clean if one.machine == machine]
        for name in sorted({name for one in mine for name in one.benchmarks}):
            if not chosen([name], only, strict=False):
                continue
            there = [one for one in mine if name in one.benchmarks]
            size = there[-1].benchmarks[name].get("size")
            there = [one for one in there if one.benchmarks[name].get("size") == size]
            entries = [one.benchmarks[name] for one in there]
            commits = tuple(one.commit for one in there)
            medians = tuple(float(entry["median_s"]) for entry in entries)
            half = [float(entry["iqr_s"]) / 2 for entry in entries]
            lo, hi = (tuple(m + sign * h for m, h in zip(medians, half, strict=True)) for sign in (-1, 1))
            found.append(Series(short(name), "elapsed", machine, commits, medians, lo, hi, steps(medians, commits)))
            if all(entry.get("processor_least_s") for entry in entries):
                least = tuple(float(entry["processor_least_s"]) for entry in entries)
                found.append(Series(short(name), "processor", machine, commits, least, least, least, steps(least, commits)))
        found += [] if only else _scores(mine, machine)
    return found


def _scores(mine: Sequence[Kept], machine: str) -> list[Series]:
    keys = ("task", "task_version", "protocol", "data", "arm", "baseline_version", "setting", "metric", "records")
    rows: dict[tuple[str, ...], list[tuple[str, float, float, float]]] = {}
    for one in mine:
        for row in one.scores:
            if isinstance(score := row.get("score"), int | float):
                low, high = (row[name] if isinstance(row.get(name), int | float) else score for name in ("lo", "hi"))
                rows.setdefault(tuple(str(row.get(key)) for key in keys), []).append((one.commit, score, low, high))
    found = []
    for key, entries in sorted(rows.items()):
        commits, values, lo, hi = (tuple(column) for column in zip(*entries, strict=True))
        name = f"{key[0]} v{key[1]}: {key[4]} v{key[5]} {key[6]}"
        found.append(Series(name, "score", machine, commits, values, lo, hi, changes(values, commits)))
    return found


def changes(values: Sequence[float], commits: Sequence[str]) -> tuple[Step, ...]:
    """Scores are exact: every change beyond rounding is a step."""
    from harness.perf.accuracy import ROUNDING

    found = []
    for place in range(1, len(values)):
        before, after = values[place - 1], values[place]
        if abs(after - before) > ROUNDING:
            found.append(Step(place, commits[place], before, after, f"{before:.4f} → {after:.4f} at {commits[place][:8]}"))
    return tuple(found)


def steps(values: Sequence[float], commits: Sequence[str]) -> tuple[Step, ...]:
    """Where times changed their level: PELT on logarithms, in units of the noise from run to run.

    Args:
        values: Seconds, in the order of revisions.
        commits: Of them.
    """
    if len(values) < 2 * SHORTEST:
        return ()
    import numpy as np
    import ruptures

    logs = np.log(np.maximum(np.asarray(values, float), 1e-9))
    scaled = (logs / _noise(logs.tolist()))[:, None]
    ends = ruptures.Pelt(model="l1", min_size=SHORTEST, jump=1).fit(scaled).predict(pen=PENALTY * math.log(len(values)))
    edges = [0, *ends]
    found: list[Step] = []
    start = 0
    for place, end in pairwise(edges[1:]):
        before, after = (statistics.median(values[a:b]) for a, b in ((start, place), (place, end)))
        if abs(math.log(max(after, 1e-9) / max(before, 1e-9))) > math.log(1 + LEAST_STEP):
            found.append(Step(place, commits[place], before, after, f"× {after / max(before, 1e-9):.2f} at {commits[place][:8]}"))
            start = place
    return tuple(found)


def _noise(logs: Sequence[float]) -> float:
    """Standard deviation of single runs, by the median of differences of neighbours, which a few steps do not move."""
    differences = [abs(after - before) for before, after in pairwise(logs)]
    return max(NOISE, statistics.median(differences) / 0.954)
