"""What was measured, compared and kept, as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from harness.perf import budgets
from harness.perf.comparing import Comparison
from harness.perf.turns import short

if TYPE_CHECKING:
    from harness.perf.history import Kept
    from harness.perf.steps import Series


def seconds(value: float | None) -> str:
    """A time with three digits and its unit.

    >>> seconds(0.01234), seconds(2.5), seconds(None)
    ('12.3 ms', '2.50 s', '')
    """
    if value is None:
        return ""
    if value == 0:
        return "0"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value) >= size or unit == "µs":
            scaled = value / size
            digits = max(0, 2 - math.floor(math.log10(max(abs(scaled), 1e-9))))
            return f"{scaled:.{min(digits, 3)}f} {unit}"
    return ""


def of_comparison(found: Comparison) -> pl.DataFrame:
    """One row a benchmark: the quantity that is farthest from where it was, or that decided."""
    rows: dict[str, dict[str, Any]] = {}
    order = {"slower": 0, "faster": 1, "same": 2}
    for finding in sorted(found.findings, key=lambda f: (order[f.verdict], f.quantity != "processor")):
        if finding.benchmark in rows:
            continue
        rows[finding.benchmark] = {
            "benchmark": short(finding.benchmark),
            "verdict": "" if finding.verdict == "same" else finding.verdict,
            "quantity": finding.quantity,
            "old": seconds(finding.old),
            "new": seconds(finding.new),
            "ratio": f"{finding.ratio:.3f}",
            "interval": f"[{finding.lo:.3f}, {finding.hi:.3f}]" if math.isfinite(finding.hi) and finding.lo > 0 else "",
            "pairs": finding.blocks,
        }
    schema = dict.fromkeys(("benchmark", "verdict", "quantity", "old", "new", "ratio", "interval"), pl.String)
    return pl.DataFrame(list(rows.values()), schema={**schema, "pairs": pl.Int64})


def of_run(kept: Kept, names: Sequence[str]) -> pl.DataFrame:
    """One row a benchmark: median, spread, processor time, memory, ratios, and its budgets."""
    rows = []
    for name in names:
        entry = kept.benchmarks[name]
        ratios = entry.get("ratios") or {}
        judged = budgets.judge(name, entry)
        rows.append(
            {
                "benchmark": short(name),
                "median": seconds(entry["median_s"]),
                "spread": seconds(entry["iqr_s"]),
                "rounds": entry["rounds"],
                "processor": seconds(entry.get("processor_s")),
                "peak MiB": None if entry.get("peak_mib") is None else round(entry["peak_mib"]),
                "grown MiB": None if entry.get("grown_mib") is None else round(entry["grown_mib"]),
                "instead": "; ".join(f"{other}: {ratio:.3g}×" for other, ratio in ratios.items()),
                "budget": "; ".join(f"{budget.text}: {budgets.shown(budget, value)}" for budget, value, _ in judged),
                "within": "; ".join("yes" if within else "NO" for _, _, within in judged),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def of_series(series: Sequence[Series]) -> pl.DataFrame:
    """One row a benchmark and machine: first and last time, and its steps."""
    rows = [
        {
            "benchmark": one.name,
            "quantity": one.quantity,
            "machine": one.machine[:8],
            "revisions": len(one.values),
            "first": one.text(one.values[0]),
            "last": one.text(one.values[-1]),
            "steps": "; ".join(step.text for step in one.steps),
        }
        for one in series
    ]
    return pl.DataFrame(rows, infer_schema_length=None)
