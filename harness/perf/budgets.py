"""What things may cost, with two cores and no GPU: the budgets that the suite is held against. Nothing fails by them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Budget:
    """A limit on one thing that a benchmark measures.

    Attributes:
        benchmark: A pattern of its name.
        quantity: A key of what is kept of it; ``ratios.NAME`` for how many times as long NAME takes.
        most, least: The limits, each where there is one.
        or_most: Another quantity, and its limit: it is enough to keep one of the two.
        text: As one says it.
    """

    benchmark: str
    quantity: str
    text: str
    most: float | None = None
    least: float | None = None
    or_most: tuple[str, float] | None = None


BUDGETS = (
    Budget(r"start_up\[(--help|list .*)\]", "median_s", "≤ 150 ms", most=0.150),
    Budget(r"start_up\[(--help|list .*)\]", "heavy_modules", "nothing heavy imported", most=0),
    Budget(r"finished_sweep_run_again", "median_s", "≤ 2 s", most=2.0),
    Budget(r"test_the_demo", "median_s", "≤ 2 min", most=120.0),
    Budget(r"further_support_setting", "share_of_fit", "≤ 2 % of the fit", most=0.02),
    Budget(r"training_steps_of_a_baseline", "over_bare", "≤ 5 % or 0.3 s over a bare loop", most=0.05, or_most=("seconds_over_bare", 0.3)),
    Budget(r"frames_come_from_the_cache", "ratios.Pillow", "≥ 10 × Pillow", least=10.0),
    Budget(r"intervals_of_eight_metrics", "median_s", "≤ 0.2 s", most=0.2),
    Budget(r"intervals_of_eight_metrics", "ratios.row resampling", "≥ 500 × row resampling", least=500.0),
    Budget(r"ranking_a_hundred_thousand", "median_s", "≤ 2 s", most=2.0),
    Budget(r"ranking_a_hundred_thousand", "peak_mib", "< 1 GiB", most=1024.0),
    Budget(r"plan_of_100_000", "median_s", "≤ 3 s", most=3.0),
)
"""DESIGN 9."""


def judge(name: str, entry: Mapping[str, Any]) -> list[tuple[Budget, float, bool]]:
    """The budgets of a benchmark with what was measured and whether it is within; none unless it was measured in full size."""
    found = []
    for budget in BUDGETS:
        value = _value(entry, budget.quantity)
        if entry.get("size") != "full" or value is None or not re.search(budget.benchmark, name):
            continue
        within = (budget.most is None or value <= budget.most) and (budget.least is None or value >= budget.least)
        if budget.or_most is not None and (other := _value(entry, budget.or_most[0])) is not None:
            within = within or other <= budget.or_most[1]
        found.append((budget, value, within))
    return found


def shown(budget: Budget, value: float) -> str:
    """The measured value as one says it."""
    if budget.quantity.endswith("_s"):
        return f"{value:.3g} s"
    if budget.quantity.endswith("_mib"):
        return f"{value:.0f} MiB"
    if budget.quantity in ("share_of_fit", "over_bare"):
        return f"{100 * value:.1f} %"
    return f"{value:.3g}"


def _value(entry: Mapping[str, Any], quantity: str) -> float | None:
    first, _, rest = quantity.partition(".")
    value = entry.get(first)
    if rest and isinstance(value, Mapping):
        value = value.get(rest)
    return float(value) if isinstance(value, int | float) else None
