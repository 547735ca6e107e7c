"""Stages, weightings and data small enough that a fit of them, by a real DeepSpeed engine on the CPU, takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from harness import training
from harness.baseline import Data, Stage, Step
from harness.recomputing import recomputed
from harness.weighting import Weighting

N = 50  # no multiple of the batch, and the last batch no multiple of two
QUIET: dict[str, Any] = {"resources": {"checkpoint_every": 0}}


def data(n: int = N, seed: int = 0) -> Data:
    """Frames whose mean is the valence and whose left–right gradient is the arousal."""
    rng = np.random.default_rng(seed)
    valence, arousal = rng.uniform(-1, 1, (2, n))
    ramp = np.linspace(-1, 1, 8)
    frames = 0.5 + 0.2 * valence[:, None, None] + 0.2 * arousal[:, None, None] * ramp + rng.normal(0, 0.02, (n, 8, 8))
    pixels = (frames.clip(0, 1) * 255).round().astype(np.uint8)[..., None]
    return Data(pl.DataFrame({"sample": [f"{i}" for i in range(n)], "valence": valence, "arousal": arousal}), pixels)


class Line(Stage):
    """Linear regression on pixels; every frame on its own."""

    def setup(self, train: Data, validation: Data, targets: Any, classes: Any, previous: Any) -> None:
        self.labels = {True: torch.tensor(train.labels("valence")), False: torch.tensor(validation.labels("valence"))}

    def module(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 1))

    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        rows = rng.permutation(len(self.labels[part == "train"]))
        for first in range(0, len(rows), size):
            yield rows[first : first + size, None]

    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        made = step.gather(module(step.frames()))[:, 0]
        return {"valence": (made - step.rows(self.labels[step.training])).square().mean()}

    def encode(self, module: nn.Module, frames: Tensor) -> Tensor:
        made: Tensor = module(frames)
        return made


class Encoder(nn.Sequential):
    """In two blocks, of which nothing but the inputs need be kept."""

    def forward(self, frames: Tensor) -> Tensor:
        *first, flatten, last = self
        made: Tensor = recomputed(nn.Sequential(flatten, last), recomputed(nn.Sequential(*first), frames))
        return made


class Faces(Line):
    """An encoder of single frames, then dropout, batch normalisation and a loss (1 - CCC) that look at the whole batch."""

    def setup(self, train: Data, validation: Data, targets: Any, classes: Any, previous: Any) -> None:
        super().setup(train, validation, targets, classes, previous)
        self.both = {
            True: torch.tensor(np.stack([train.labels(t) for t in ("valence", "arousal")], 1)),
            False: torch.tensor(np.stack([validation.labels(t) for t in ("valence", "arousal")], 1)),
        }

    def module(self) -> nn.Module:
        encoder = Encoder(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8))
        # Without a bias: batch normalisation takes it away again, and Adam would move it by rounding errors.
        head = nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 2))
        return nn.ModuleDict({"encoder": encoder, "head": head})

    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        assert isinstance(module, nn.ModuleDict)
        made = module["head"](step.gather(module["encoder"](step.frames()))).float()
        wanted = step.rows(self.both[step.training])
        return {"valence": 1 - _ccc(made[:, 0], wanted[:, 0]), "arousal": (made[:, 1] - wanted[:, 1]).square().mean()}


class Odd(Faces):
    """No parameter of its middle can be shared out among two, one has one element, and one is frozen."""

    def module(self) -> nn.Module:
        module = super().module()
        assert isinstance(module, nn.ModuleDict)
        own = nn.ParameterDict({"scale": nn.Parameter(torch.tensor([1.5])), "frozen": nn.Parameter(torch.ones(7), requires_grad=False)})
        module["middle"] = nn.ModuleDict({"down": nn.Linear(8, 7), "own": own, "up": nn.Linear(7, 8)})
        return module

    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        assert isinstance(module, nn.ModuleDict)
        middle: Any = module["middle"]
        encoded = middle["down"](module["encoder"](step.frames()))
        made = module["head"](step.gather(middle["up"](encoded * middle["own"]["scale"] * middle["own"]["frozen"]))).float()
        wanted = step.rows(self.both[step.training])
        return {"valence": 1 - _ccc(made[:, 0], wanted[:, 0]), "arousal": (made[:, 1] - wanted[:, 1]).square().mean()}


class RandomWeights(Weighting):
    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        drawn = torch.rand(len(losses), generator=generator)
        return (torch.stack(list(losses.values())) * drawn / drawn.sum()).sum()


class First(Weighting):
    """The first loss times a number."""

    def __init__(self, times: float = 1.0) -> None:
        super().__init__()
        self.times = times

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        return next(iter(losses.values())) * self.times


class Uneven(Weighting):
    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        return 0.25 * losses["valence"] + 0.75 * losses["arousal"]


class LearnedWeights(Weighting):
    """Kendall's: exp(-s) L + s."""

    def __init__(self) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(2))

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        total: Tensor = (torch.exp(-self.s) * torch.stack(list(losses.values())) + self.s).sum()
        return total


def _ccc(x: Tensor, y: Tensor) -> Tensor:
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return 2 * covariance / (x.var(correction=0) + y.var(correction=0) + (x.mean() - y.mean()).square())


def fit(
    stage: Stage, folder: Path, weighting: Any = None, context: Any = None, train: Data | None = None, **trainer: Any
) -> training.Fitted:
    settings = {"epochs": 4, "batch_size": 16, "lr": 0.01, "schedule": {"name": "none"}, **trainer}
    return training.fit(
        stage,
        train or data(),
        data(20, seed=1),
        targets=("valence", "arousal"),
        classes=(),
        trainer=settings,
        weighting=weighting or RandomWeights(),
        seed=3,
        context=context or training.Local(folder),
    )


def same(one: training.Fitted, other: training.Fitted) -> bool:
    """Weights and history bit for bit, times aside."""
    histories = [[{k: v for k, v in entry.items() if not k.endswith("seconds")} for entry in fitted.history] for fitted in (one, other)]
    return (
        one.state.keys() == other.state.keys()
        and all(torch.equal(one.state[k], other.state[k]) for k in one.state)
        and histories[0] == histories[1]
    )


class Killed(Exception):
    """Stands for a kill: nothing after it runs in the context."""


class KilledAfter(training.Local):
    """Dies when epoch ``last`` has been reported, or, with ``half``, in the middle of keeping that epoch's checkpoint."""

    def __init__(self, folder: Path, last: int, *, half: bool = False) -> None:
        super().__init__(folder, on_report=self.die)
        self.last, self.half = last, half

    def die(self, metrics: dict[str, float]) -> None:
        if metrics["epoch"] == self.last:
            raise Killed

    def keep(self, name: str, write: Callable[[Path], object]) -> None:
        def half(folder: Path) -> None:
            write(folder)
            (folder / "manifest.json").unlink()
            raise Killed

        super().keep(name, half if self.half and name == f"epoch-{self.last:06d}" else write)


class Told(training.Local):
    """Is told to leave at its ``at``-th look."""

    def __init__(self, folder: Path, at: int, *, rank: int = 0, world: int = 1) -> None:
        super().__init__(folder, rank=rank, world=world, leaving=self.told)
        self.at, self.looks = at, 0

    def told(self) -> bool:
        self.looks += 1
        return self.looks >= self.at
