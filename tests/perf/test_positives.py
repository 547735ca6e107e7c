"""What it costs to say which samples belong together: an epoch's batches and the weights of each, beside a training step on one of them.

The step is the small convolutional net's, forward, backward and optimizer, on one view of 64 frames of 48 pixels; contrast takes two. The
budget is 2 % of it.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines import backbones, positives
from baselines.positives import Table
from harness.config import available, compose, instantiate
from tests.perf.measuring import Measure, cost

BATCH, SIDE, STEPS, ROUNDS = 64, 48, 5, 3
SUBJECTS, ACTIVITIES, FRAMES = 41, 8, 60  # BP4D, with so many frames of each clip


def _table(frames: int) -> Table:
    subject, activity, frame = (axis.ravel() for axis in np.indices((SUBJECTS, ACTIVITIES, frames)))
    rng = np.random.default_rng(0)
    return Table(
        subject=subject,
        activity=activity,
        clip=subject * ACTIVITIES + activity,
        frame=frame,
        expression=rng.integers(0, 7, len(subject)),
        aus=rng.integers(0, 2, (len(subject), 12)).astype(np.float32),
        activities=tuple(f"activity {i}" for i in range(ACTIVITIES)),
        similarity=np.corrcoef(rng.normal(0, 1, (ACTIVITIES, 16))).astype(np.float32),
    )


def _strategy(name: str) -> positives.Strategy:
    composed = compose([f"+positives@strategy={name}"])
    strategy: positives.Strategy = instantiate(composed["strategy"])
    return strategy


def _epoch(table: Table, strategy: positives.Strategy) -> int:
    rows = [batch[:, 0] for batch in positives.batches(table, strategy, BATCH, np.random.default_rng(0))]
    for batch in rows:
        torch.from_numpy(strategy.weights(table, batch))
    return len(rows)


@pytest.fixture(scope="module")
def step() -> float:
    """Seconds of a training step."""
    torch.set_num_threads(1)
    net = backbones.build({"name": "conv"}, channels=1, dim=256)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    frames = torch.rand(BATCH, 1, SIDE, SIDE)

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            net(frames).square().mean().backward()
            optimizer.step()

    steps()
    return min(cost(steps)[1].processor for _ in range(ROUNDS)) / STEPS


@pytest.mark.parametrize("name", sorted(available("positives")))
def test_batches_and_weights_beside_a_step(measure: Measure, request: pytest.FixtureRequest, name: str) -> None:
    table, strategy = _table(measure.sized(FRAMES, FRAMES, 8)), _strategy(name)
    batches = measure(lambda: _epoch(table, strategy), rates={"epochs": 1})
    if measure.benchmarks:
        step = request.getfixturevalue("step")
        seconds = min(cost(lambda: _epoch(table, strategy))[1].processor for _ in range(ROUNDS)) / batches
        measure.note(share_of_step=seconds / step, seconds_a_batch=seconds, seconds_a_step=step)


def test_an_epoch_of_a_million(measure: Measure) -> None:
    n, rng = measure.sized(1_000_000, 50_000, 2_000), np.random.default_rng(0)
    unknown = np.full(n, -1)
    subject, activity = rng.integers(0, 140, n), rng.integers(0, 10, n)
    table = Table(subject, activity, unknown, unknown, unknown, np.zeros((n, 0), np.float32), tuple("abcdefghij"))
    strategy = positives.ActivityCrossSubject()
    measure(lambda: list(positives.batches(table, strategy, BATCH, np.random.default_rng(0))), rounds=ROUNDS, rates={"samples": n})
