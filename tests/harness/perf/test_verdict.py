"""What is called slower, by simulation: noise with heavy tails, slow spells, drift, and a bias of every process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy import stats

from harness.perf import verdict
from harness.perf.verdict import QUANTITIES, Blocks, Finding, Measurer, Rule, judge

NAMES = [f"benchmark {number}" for number in range(20)]


def noisy(seed: int, ratios: Mapping[str, float], *, process: float = 0.02, tail: float = 2.0, own: float = 0.05) -> Measurer:
    """A loaded machine. Nothing is told of a spell to the one that measures."""
    rng = np.random.default_rng(seed)
    clock = [0.0]

    def measure(names: Sequence[str], blocks: int) -> Blocks:
        found: dict[str, dict[str, list[list[tuple[float, float]]]]] = {}
        for _ in range(blocks):
            for name in names:
                for quantity in QUANTITIES:
                    bias, drift = rng.normal(0, process, 2), rng.normal(0, 0.05)
                    pairs = []
                    for place in range(4):
                        clock[0] += 1
                        spell = 1.6 if math.sin(clock[0] / 37) > 0.4 else 1.0
                        base = own * spell * math.exp(drift * place)
                        tails = 1 + 0.03 * rng.pareto(tail, 2)
                        noise = np.exp(bias) * tails
                        pairs.append((base * noise[0], base * ratios.get(name, 1.0) * noise[1]))
                    found.setdefault(name, {}).setdefault(quantity, []).append(pairs)
        return found

    return measure


def accused(findings: Sequence[Finding]) -> set[str]:
    return {finding.benchmark for finding in findings if finding.verdict == "slower"}


def test_a_revision_against_itself_raises_no_alarm() -> None:
    assert sum(bool(accused(judge(noisy(seed, {}), NAMES))) for seed in range(20)) <= 1


def test_ten_percent_are_found_and_nobody_else_is_accused() -> None:
    found = [accused(judge(noisy(seed, {NAMES[7]: 1.10}), NAMES)) for seed in range(12)]
    assert sum(NAMES[7] in names for names in found) >= 11
    assert sum(bool(names - {NAMES[7]}) for names in found) == 0


def test_exactly_the_threshold_is_not_more_than_it() -> None:
    """The hardest case of no regression: the error of all suspects together stays at 5 %."""
    edge = dict.fromkeys(NAMES[:2], 1.05)
    assert sum(bool(accused(judge(noisy(seed, edge, process=0.01), NAMES[:4]))) for seed in range(20)) <= 3  # 5 % of 20, and chance


def test_what_became_faster_is_said_and_is_no_regression() -> None:
    findings = judge(noisy(3, {NAMES[2]: 0.8}), NAMES)
    assert {finding.benchmark for finding in findings if finding.verdict == "faster"} == {NAMES[2]}
    assert not accused(findings)


def test_too_little_time_is_no_regression_whatever_the_ratio() -> None:
    measure = noisy(1, {NAMES[0]: 1.5}, own=0.0005)
    assert not accused(judge(measure, NAMES[:3]))
    assert accused(judge(measure, NAMES[:3], Rule(least=0.0001))) == {NAMES[0]}


def test_a_wider_threshold_lets_ten_percent_pass() -> None:
    assert not accused(judge(noisy(4, {NAMES[0]: 1.10}), NAMES[:3], Rule(threshold=0.15)))


def test_suspects_are_measured_again_in_fresh_blocks_that_alone_decide() -> None:
    """One that looked twice as slow in the screening, and does not again, is not accused."""
    asked: list[tuple[list[str], int]] = []

    def measure(names: Sequence[str], blocks: int) -> Blocks:
        slow = 2.0 if not asked else 1.0
        asked.append((list(names), blocks))
        ratio = {"a": slow, "b": 1.0}
        rounds = {name: [[(0.1, 0.1 * ratio[name] * (1 + 0.001 * block))] for block in range(blocks)] for name in names}
        return {name: dict.fromkeys(QUANTITIES, blocks) for name, blocks in rounds.items()}

    findings = judge(measure, ["a", "b"])
    assert asked == [(["a", "b"], 5), (["a"], 8)]
    assert not accused(findings)
    assert {finding.benchmark: finding.blocks for finding in findings} == {"a": 8, "b": 5}


def test_a_benchmark_that_sleeps_is_accused_by_the_clock_alone() -> None:
    def measure(names: Sequence[str], blocks: int) -> Blocks:
        rng = np.random.default_rng(blocks)

        def of(ratio: float) -> list[list[tuple[float, float]]]:
            return [[(0.1, 0.1 * ratio * float(np.exp(rng.normal(0, 0.01))))] for _ in range(blocks)]

        return {name: {"processor": of(1.0), "elapsed": of(1.2)} for name in names}

    slower = [finding for finding in judge(measure, ["a"]) if finding.verdict == "slower"]
    assert [finding.quantity for finding in slower] == ["elapsed"]


@pytest.mark.parametrize("n", [5, 8, 13, 16])
def test_the_interval_holds_what_wilcoxons_test_does_not_reject(n: int) -> None:
    values = np.random.default_rng(n).normal(0.3, 1, n).tolist()
    lo, hi = verdict.interval(values, 0.10)
    for shift, rejected in ((lo - 1e-6, True), (lo + 1e-6, False), (hi - 1e-6, False), (hi + 1e-6, True)):
        p = stats.wilcoxon([value - shift for value in values], method="exact").pvalue
        assert (p <= 0.10) == rejected, (shift, p)


def test_the_interval_covers_as_often_as_it_says_under_heavy_tails() -> None:
    rng = np.random.default_rng(0)
    covered = [lo <= 0 <= hi for lo, hi in (verdict.interval(rng.standard_t(2, 8).tolist(), 0.05) for _ in range(150))]
    assert 0.91 <= np.mean(covered) <= 0.99


def test_too_few_blocks_say_nothing() -> None:
    assert verdict.interval([0.1, 0.2, 0.3], 0.05) == (-math.inf, math.inf)
