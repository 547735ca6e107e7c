"""Each weighting against its formula, on problems whose answer is known, and through real DeepSpeed engines.

Run as a program, this file is one of two workers: ``RANK=0 WORLD_SIZE=2 … python test_weighting.py FOLDER``.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
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
from harness.errors import FitError, RequestError
from harness.weighting import LIKELIHOOD, REGRESSION, GradientWeighting, Weighting

CONFIGS = Path(__file__).parents[2] / "configs" / "weighting"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
BY_GRADIENTS = ["aligned", "cagrad", "graddrop", "gradnorm", "imtl_g", "mgda", "nash", "pcgrad", "upgrad"]


def make(name: str, **more: Any) -> Weighting:
    """As a run makes it, from its YAML."""
    made: Weighting = instantiate(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) | more)
    return made


class Shared(Stage):
    """A trunk and two heads: regression of two numbers from frames, so that some parameters are shared and some are not."""

    def setup(self, train: Data, validation: Data, targets: Any, classes: Any, previous: Any) -> None:
        self.labels = {
            True: torch.tensor(np.stack([train.labels(t) for t in ("valence", "arousal")], 1)),
            False: torch.tensor(np.stack([validation.labels(t) for t in ("valence", "arousal")], 1)),
        }

    def module(self) -> nn.Module:
        trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh())
        return nn.ModuleDict({"trunk": trunk, "valence": nn.Linear(8, 1), "arousal": nn.Linear(8, 1)})

    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        rows = rng.permutation(len(self.labels[part == "train"]))
        for first in range(0, len(rows), size):
            yield rows[first : first + size, None]

    def objectives(self) -> dict[str, str]:
        return {"valence": REGRESSION, "arousal": REGRESSION}

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        hidden = step.gather(module["trunk"](step.frames()))
        labels = step.rows(self.labels[step.training])
        return {
            name: (module[name](hidden)[:, 0] - labels[:, place]).square().mean() * (1 + 9 * place)
            for place, name in enumerate(("valence", "arousal"))
        }


def data(n: int = 50, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    valence, arousal = rng.uniform(-1, 1, (2, n))
    frames = 0.5 + 0.2 * valence[:, None, None] + 0.2 * arousal[:, None, None] * np.linspace(-1, 1, 8) + rng.normal(0, 0.02, (n, 8, 8))
    pixels = (frames.clip(0, 1) * 255).round().astype(np.uint8)[..., None]
    return Data(pl.DataFrame({"sample": [f"{i}" for i in range(n)], "valence": valence, "arousal": arousal}), pixels)


def fit(stage: Stage, folder: Path, weighting: Weighting, context: Any = None, **trainer: Any) -> training.Fitted:
    settings = {"epochs": 3, "batch_size": 16, "lr": 0.01, "weight_decay": 0.0, "resources": {"checkpoint_every": 0}} | trainer
    return training.fit(
        stage,
        data(),
        data(20, seed=1),
        targets=("valence", "arousal"),
        classes=(),
        trainer=settings,
        weighting=weighting,
        seed=3,
        context=context or training.Local(folder),
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, training.Fitted]:
    """Every weighting on one worker with ZeRO 0."""
    return {name: fit(Shared(), tmp_path_factory.mktemp(name), make(name)) for name in NAMES}


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_every_weighting_learns_the_same_at_every_stage_of_zero(plain: dict[str, training.Fitted], tmp_path: Path, zero: int) -> None:
    for name in NAMES:
        fitted = fit(Shared(), tmp_path / name, make(name), resources={"zero": zero, "checkpoint_every": 0})
        agree(fitted, plain[name], 1e-4, f"{name} at ZeRO {zero}")


def agree(one: training.Fitted, other: training.Fitted, tolerance: float, what: str) -> None:
    for name, values in one.state.items():
        assert torch.allclose(values, other.state[name], atol=tolerance), f"{what}: {name}"
    for entry, wanted in zip(one.history, other.history, strict=True):
        for name in entry.keys() - {"seconds"}:
            assert entry[name] == pytest.approx(wanted[name], abs=10 * tolerance, rel=1e-3), f"{what}: {name}"


# Several workers


def _worker(folder: Path) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for name in NAMES:
        for zero in (0, 1, 2, 3):
            fitted = fit(
                Shared(),
                folder / f"{name}-{zero}",
                make(name),
                training.Local(folder / f"{name}-{zero}", rank=rank, world=world),
                resources={"workers": world, "zero": zero, "checkpoint_every": 0},
            )
            if rank == 0:
                training.save_weights(fitted.state, folder / f"{name}-{zero}.safetensors")
                (folder / f"{name}-{zero}.json").write_text(json.dumps(fitted.history))


def test_two_workers_learn_what_one_learns(plain: dict[str, training.Fitted], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    workers = []
    for rank in range(2):
        with (tmp_path / f"said-{rank}.txt").open("w") as said:
            environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            workers.append(subprocess.Popen([sys.executable, __file__, str(tmp_path)], env=environment, stderr=said))
    for rank, worker in enumerate(workers):
        assert worker.wait(timeout=200) == 0, (tmp_path / f"said-{rank}.txt").read_text()[-3000:]
    for name in NAMES:
        for zero in (0, 1, 2, 3):
            state = training.load_weights(tmp_path / f"{name}-{zero}.safetensors")
            for key, values in state.items():
                assert torch.allclose(values, plain[name].state[key], atol=1e-4), f"{name} at ZeRO {zero}: {key}"
            history = json.loads((tmp_path / f"{name}-{zero}.json").read_text())
            wanted = plain[name].history[-1]
            assert history[-1]["train/arousal"] == pytest.approx(wanted["train/arousal"], rel=1e-3), f"{name} at ZeRO {zero}"


if __name__ == "__main__":
    _worker(Path(sys.argv[1]))
