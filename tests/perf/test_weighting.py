"""What each weighting costs a training step over the plain sum, on a trunk with three heads; one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from torch import Tensor, nn

from harness import training
from harness.baseline import Data, Stage, Step
from harness.config import instantiate
from harness.weighting import REGRESSION
from tests.perf.measuring import Measure

CONFIGS = Path(__file__).parents[2] / "configs" / "weighting"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
FRAMES, SIDE, BATCH, LOSSES = 128, 48, 32, 3
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": BATCH, "resources": {"checkpoint_every": 0}}


class Heads(Stage):
    """Four convolutional blocks, and a head a loss."""

    def setup(self, train: Data, *others: Any) -> None:
        self.labels = torch.tensor(np.random.default_rng(0).normal(0, 1, (FRAMES, LOSSES)), dtype=torch.float32)

    def module(self) -> nn.Module:
        blocks: list[nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 64), (64, 128)):
            blocks += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, LOSSES))

    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        return iter(np.array_split(rng.permutation(FRAMES)[:, None], FRAMES // size))

    def objectives(self) -> dict[str, str]:
        return {f"l{i}": REGRESSION for i in range(LOSSES)}

    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        errors = (step.gather(module(step.frames())) - step.rows(self.labels)).square().mean(0)
        return {f"l{i}": error for i, error in enumerate(errors)}


def _fit(name: str, folder: Path) -> None:
    rng = np.random.default_rng(0)
    samples = pl.DataFrame({"valence": rng.uniform(-1, 1, FRAMES)})
    data = Data(samples, rng.integers(0, 256, (FRAMES, SIDE, SIDE, 1), dtype=np.uint8))  # type: ignore[arg-type]
    training.fit(
        Heads(),
        data,
        Data(samples.clear(), np.zeros((0, SIDE, SIDE, 1), np.uint8)),  # type: ignore[arg-type]
        targets=("valence",),
        classes=(),
        trainer=SETTINGS,
        weighting=instantiate(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())),
        seed=0,
        context=training.Local(folder),
    )


@pytest.mark.parametrize("name", NAMES)
def test_training_with_a_weighting(measure: Measure, tmp_path: Path, name: str) -> None:
    """``ratios`` says how many times as long the plain sum takes: 0.5 where the weighting doubles the cost."""
    instead = {"the plain sum": lambda: _fit("equal", tmp_path)} if name != "equal" and measure.benchmarks else None
    measure(lambda: _fit(name, tmp_path), rounds=3, instead=instead)
