"""What the engine costs over a bare PyTorch loop that does the same: the same batches, augmentation, network and optimizer.

Both run on one thread and are measured in processor time, so that what else the machine does hardly shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from baselines.weighting import Equal
from harness import trainer, training
from harness.baseline import Data, Stage, Step

FRAMES, SIDE, BATCH, EPOCHS, ROUNDS = 192, 48, 64, 2, 3
SETTINGS: dict[str, Any] = {
    "epochs": EPOCHS,
    "batch_size": BATCH,
    "augment": {"flip": 0.5, "rotate": 20, "translate": 0.1, "scale": [0.8, 1.2], "shear": 5, "brightness": 0.2, "contrast": 0.2},
}


class Small(Stage):
    """Four convolutional blocks on single frames, about 0.1 million weights."""

    def setup(self, train: Data, *others: Any) -> None:
        self.labels = torch.tensor(train.labels("valence"))

    def module(self) -> nn.Module:
        blocks: list[nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 64), (64, 128)):
            blocks += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(4, after), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 1))

    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        return iter(np.array_split(rng.permutation(FRAMES)[:, None], FRAMES // size))

    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        return {"valence": (step.gather(module(step.frames()))[:, 0] - step.rows(self.labels)).square().mean()}


def _data(n: int) -> Data:
    rng = np.random.default_rng(0)
    samples = pl.DataFrame({"valence": rng.uniform(-1, 1, n)})
    return Data(samples, rng.integers(0, 256, (n, SIDE, SIDE, 1), dtype=np.uint8))  # type: ignore[arg-type]


def _bare(data: Data) -> None:
    stage = Small()
    stage.setup(data)
    module = stage.module()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-4)
    pixels = torch.from_numpy(data.frames[np.arange(FRAMES)]).permute(0, 3, 1, 2)
    augment, generator = trainer.read(SETTINGS).augment, torch.Generator()
    for _ in range(EPOCHS):
        for index in stage.batches("train", BATCH, np.random.default_rng(0)):
            rows = torch.from_numpy(index[:, 0])
            frames = training.augment(pixels[rows].float() / 255, augment, generator, np.arange(len(rows)), len(rows))
            optimizer.zero_grad()
            (module(frames)[:, 0] - stage.labels[rows]).square().mean().backward()
            optimizer.step()


def _fit(folder: Path, **settings: Any) -> training.Fitted:
    return training.fit(
        Small(),
        _data(FRAMES),
        _data(0),
        targets=("valence",),
        classes=(),
        trainer={**SETTINGS, **settings},
        weighting=Equal(),
        seed=0,
        context=training.Local(folder),
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def test_a_fit_against_a_bare_loop(benchmark: Any, tmp_path: Path) -> None:
    settings = {"resources": {"checkpoint_every": 0}}
    data = _data(FRAMES)
    _fit(tmp_path, epochs=1, **settings)  # imports
    _bare(data)
    rounds = [(_seconds(lambda: _fit(tmp_path, **settings)), _seconds(lambda: _bare(data))) for _ in range(ROUNDS)]
    fit, bare = map(min, zip(*rounds, strict=True))
    benchmark.extra_info.update(fit_over_bare=fit / bare, seconds_over_bare=fit - bare)
    benchmark.pedantic(_fit, args=(tmp_path,), kwargs=settings, rounds=1, iterations=1)


def test_a_checkpoint(benchmark: Any, tmp_path: Path) -> None:
    """Writing, hashing and keeping the checkpoint of 0.1 million weights: what a fit takes beside its epochs, with and without."""
    epochs = 3

    def beside(every: int) -> float:
        started = time.perf_counter()
        fitted = _fit(tmp_path / f"{time.time_ns()}", epochs=epochs, resources={"checkpoint_every": every})
        return time.perf_counter() - started - fitted.seconds

    beside(1)
    with_and_without = [min(beside(every) for _ in range(ROUNDS)) for every in (1, 0)]
    benchmark.extra_info["seconds_a_checkpoint"] = (with_and_without[0] - with_and_without[1]) / (epochs - 1)
    benchmark.pedantic(beside, args=(1,), rounds=1, iterations=1)
