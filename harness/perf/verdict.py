"""Which benchmarks became slower: decided from pairs of processes, on a machine that does other things, too.

A *block* is two fresh processes, one of each revision, that take turns with rounds of one benchmark; what it says is one number, the median
log-ratio of neighbouring rounds. A slow spell of the machine is in both; what differs from process to process, such as where things
lie in memory, differs between blocks. So blocks are the unit of every interval, and their order is balanced.

Noise has heavy tails, and some forty benchmarks are looked at twice (processor time, elapsed time). So there are two stages. *Screening*
measures everything in a few blocks. Whoever looks slower or faster there is a *suspect* and is measured again, in fresh blocks, which alone
decide: that a suspect was picked for its noise is not held against it. The interval is the exact one of Wilcoxon's signed ranks
(any symmetric noise, however heavy its tails), with the error of all suspects, both quantities and all looks together at most 5 %.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

QUANTITIES = ("processor", "elapsed")
"""Seconds on processors, of all threads and of processes waited for; seconds on the clock, less those in the queue for a processor."""

ERROR = 0.05
"""Chance that a comparison accuses anything that is not slower by more than the threshold."""

SCREEN = 5
"""Blocks of the screening: with five, the range of what they say is an interval of 94 %."""

LOOKS = (8, 16, 28)
"""Fresh blocks of a suspect after which is judged."""

Rounds = Sequence[tuple[float, float]]
"""Neighbouring rounds of a block: seconds of a call, of the old and of the new revision."""

Blocks = Mapping[str, Mapping[str, Sequence[Rounds]]]
"""Benchmark → quantity → blocks."""

Measurer = Callable[[Sequence[str], int], Blocks]
"""Measures benchmarks in so many new blocks."""


@dataclass(frozen=True)
class Rule:
    """What counts as slower.

    Attributes:
        threshold: Share by which it must be slower, surely.
        least: Seconds a call by which it must be slower, too.
        screen: Blocks of the screening.
        looks: Fresh blocks of suspects after which is judged.
    """

    threshold: float = 0.05
    least: float = 0.0005
    screen: int = SCREEN
    looks: tuple[int, ...] = LOOKS


@dataclass(frozen=True)
class Finding:
    """What is known of one benchmark in one quantity.

    Attributes:
        benchmark: Its name.
        quantity: One of :data:`QUANTITIES`.
        old, new: Seconds a call, the median of blocks.
        ratio: New over old.
        lo, hi: Interval of the ratio; infinitely wide where blocks are too few.
        blocks: How many it rests on.
        verdict: ``slower``, ``faster``, ``same`` (not told apart from the threshold either way).
    """

    benchmark: str
    quantity: str
    old: float
    new: float
    ratio: float
    lo: float
    hi: float
    blocks: int
    verdict: str = "same"


def judge(
    measure: Measurer, benchmarks: Sequence[str], rule: Rule | None = None, say: Callable[[str], None] = lambda _: None
) -> list[Finding]:
    """Screen all benchmarks, measure suspects again, and say what became of each.

    Args:
        measure: Called with the benchmarks it shall measure and the number of blocks; it may leave some out.
        benchmarks: All of them.
        rule: When one is slower.
        say: Told what is done.

    Returns:
        Findings in the order of the benchmarks, by quantity.
    """
    rule = rule or Rule()
    screened = measure(benchmarks, rule.screen)
    findings = {
        (name, quantity): finding(name, quantity, blocks, 2 * 0.5**rule.screen)
        for name, of_quantity in screened.items()
        for quantity, blocks in of_quantity.items()
    }
    suspects = [key for key, found in findings.items() if _suspect(found, rule)]
    error = ERROR / max(1, len(suspects)) / len(rule.looks)
    fresh = _Collected()
    done = 0
    for look in rule.looks:
        names = [name for name in benchmarks if any(name == suspect for suspect, _ in suspects)]
        if not names:
            break
        say(f"again, in {look - done} fresh pairs of processes: {', '.join(names)}")
        fresh.add(measure(names, look - done))
        done = look
        undecided = []
        for key in suspects:
            if not fresh.of(key):
                continue
            found = finding(*key, fresh.of(key), 2 * error)
            verdict = _verdict(found, rule)
            findings[key] = Finding(**{**vars(found), "verdict": verdict})
            if verdict == "same" and _suspect(found, rule):
                undecided.append(key)
        suspects = undecided
    return [findings[name, quantity] for name in benchmarks for quantity in QUANTITIES if (name, quantity) in findings]


def finding(benchmark: str, quantity: str, blocks: Sequence[Rounds], error: float) -> Finding:
    """What blocks say together.

    Args:
        benchmark, quantity: What they are of.
        blocks: At least one, each with at least one pair.
        error: Both sides of the interval together.
    """
    logs = [statistics.median(math.log(max(new, 1e-9) / max(old, 1e-9)) for old, new in block) for block in blocks]
    old = statistics.median(statistics.median(pair[0] for pair in block) for block in blocks)
    centre = statistics.median(_walsh(logs))
    lo, hi = interval(logs, error)
    return Finding(
        benchmark,
        quantity,
        old,
        old * math.exp(centre),
        math.exp(centre),
        math.exp(lo),
        math.exp(hi) if hi < 700 else math.inf,
        len(blocks),
    )


def interval(values: Sequence[float], error: float) -> tuple[float, float]:
    """Of the centre of symmetry: the shifts that Wilcoxon's exact signed-rank test does not reject.

    Args:
        values: Of blocks.
        error: Of both sides together.

    Returns:
        Infinite limits where there are too few values for so small an error.
    """
    from scipy import stats

    if error / 2 * (1 + 1e-9) < 0.5 ** len(values):
        return -math.inf, math.inf
    averages = _walsh(values)

    def limit(sign: int) -> float:
        ordered = sorted(sign * average for average in averages)
        low, high = 0, len(ordered) - 1  # a shift just below the first average is always rejected
        while low < high:
            middle = (low + high + 1) // 2
            shifted = [sign * value - ordered[middle] for value in values]
            span = max(map(abs, shifted)) or 1.0
            tested = [value + span * 1e-9 for value in shifted]  # just below: no zeros
            p = float(stats.wilcoxon(tested, alternative="greater", method="exact").pvalue)
            low, high = (middle, high) if p <= error / 2 * (1 + 1e-9) else (low, middle - 1)
        return ordered[low]

    return limit(1), -limit(-1)


def _walsh(values: Sequence[float]) -> list[float]:
    """All averages of two values, themselves too; their median is Hodges' and Lehmann's."""
    return [(first + second) / 2 for place, first in enumerate(values) for second in values[place:]]


def _suspect(found: Finding, rule: Rule) -> bool:
    """Whether it looks as if it might be slower, or faster, by what counts: by more than six tenths of it."""
    ratio = max(found.ratio, 1 / found.ratio)
    return ratio > 1 + 0.6 * rule.threshold and abs(found.new - found.old) > rule.least / 2


def _verdict(found: Finding, rule: Rule) -> str:
    if abs(found.new - found.old) < rule.least:
        return "same"
    if found.lo > 1 + rule.threshold:
        return "slower"
    return "faster" if found.hi < 1 / (1 + rule.threshold) else "same"


@dataclass
class _Collected:
    """Blocks of several measurements."""

    blocks: dict[tuple[str, str], list[Rounds]] = field(default_factory=dict)

    def add(self, more: Blocks) -> None:
        for name, of_quantity in more.items():
            for quantity, blocks in of_quantity.items():
                self.blocks.setdefault((name, quantity), []).extend(blocks)

    def of(self, key: tuple[str, str]) -> list[Rounds]:
        return self.blocks.get(key, [])
