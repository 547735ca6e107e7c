"""Drawing ten epochs of pairs by each rule, from a training set of 30,000 frames in 600 clips; against drawing them one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from baselines import pairs
from harness.config import available, compose
from tests.perf.measuring import Instead, Measure

FRAMES, EPOCHS = 50, 10


def _labels(clips: int) -> pairs.Labels:
    rng, n = np.random.default_rng(0), clips * FRAMES
    valence, arousal = rng.uniform(-1, 1, (2, n))
    return pairs.Labels(valence, arousal, pairs.affect_kind(valence, arousal), np.repeat(np.arange(clips), FRAMES))


def one_by_one(labels: pairs.Labels, count: int) -> Callable[[], None]:
    """As one writes it first: toss a coin, look for the frames that are alike (or not), choose one."""

    def draw() -> None:
        rng = np.random.default_rng(0)
        for _ in range(count):
            first = rng.integers(len(labels.kind))
            alike = labels.kind == labels.kind[first]
            rng.choice(np.flatnonzero(alike if rng.random() < 0.5 else ~alike))

    return draw


@pytest.mark.parametrize("name", sorted(available("pairs")))
def test_ten_epochs_of_pairs(measure: Measure, name: str) -> None:
    labels = _labels(measure.sized(600, 600, 10))
    n, few = len(labels.kind), measure.sized(300, 50, 10)
    rule = pairs.make(compose([f"+pairs@rule={name}"])["rule"])
    drawn = measure(
        lambda: [rule.draw(labels, n, np.random.default_rng(epoch)) for epoch in range(EPOCHS)],
        rounds=10,
        instead={"one by one": Instead(one_by_one(labels, few), few / n / EPOCHS)},
        rates={"pairs": n * EPOCHS},
    )
    assert drawn[-1].shape == (n, 2)
