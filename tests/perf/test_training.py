"""A training step of each baseline, by the DeepSpeed engine against a bare PyTorch loop; what a fit costs beside its steps; embedding.

Both loops take the same batches through the same stage: its network, its losses, their sum, AdamW. On one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from baselines import backbones
from baselines.weighting import Equal
from harness import training
from harness.baseline import Data, Stage, Step
from harness.config import compose, instantiate
from harness.samples import conform
from tests.perf.measuring import Instead, Measure
from tests.perf.test_frames import BATCH as LOADED
from tests.perf.test_frames import Decoded, cached, write_faces

SIDE, BATCH = 48, 64
TARGETS, CLASSES = ("valence", "arousal", "expression", "au6", "au12"), ("neutral", "happy", "sad")
PLAIN: dict[str, Any] = {"batch_size": BATCH, "augment": {}, "schedule": {"name": "none"}, "resources": {"checkpoint_every": 0}}


def _data(n: int) -> Data:
    rng = np.random.default_rng(0)
    columns = {
        "sample": [f"{i}.png" for i in range(n)],
        "clip": [f"c{i // 24}" for i in range(n)],
        "frame": list(range(n)),
        "subject": [f"s{i // 48}" for i in range(n)],
        "activity": [("a joke", "a sad film", "a bad smell")[i // 24 % 3] for i in range(n)],
        "valence": rng.uniform(-1, 1, n),
        "arousal": rng.uniform(-1, 1, n),
        "expression": [CLASSES[i] for i in rng.integers(0, 3, n)],
        "au6": rng.integers(0, 2, n).astype(float),
        "au12": rng.integers(0, 2, n).astype(float),
    }
    return Data(conform(pl.DataFrame(columns)), rng.integers(0, 256, (n, SIDE, SIDE, 1), dtype=np.uint8))  # type: ignore[arg-type]


@dataclass
class Bare(Step):
    """A step as one writes it: everything in memory, one process, nothing augmented."""

    index: np.ndarray
    pixels: Tensor
    progress: float
    generator: torch.Generator
    device: torch.device = torch.device("cpu")
    training: bool = True

    def frames(self, column: int = 0, view: int = 0) -> Tensor:
        return self.pixels[torch.from_numpy(self.index[:, column]).to(self.device)].float() / 255

    def gather(self, local: Tensor) -> Tensor:
        return local

    def rows(self, values: Tensor, column: int = 0) -> Tensor:
        return values[torch.from_numpy(self.index[:, column]).to(values.device)].to(self.device)


def bare_loop(stage: Stage, data: Data, epochs: int, device: str = "cpu") -> int:
    """Trains a stage without the engine and says in how many steps."""
    stage.setup(data, _data(0), TARGETS, CLASSES, None)
    module = stage.module().to(device).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-4)
    pixels = torch.from_numpy(np.asarray(data.frames[np.arange(len(data.frames))])).permute(0, 3, 1, 2).to(device)
    rng, generator, steps = np.random.default_rng(0), torch.Generator(), 0
    for epoch in range(epochs):
        for index in stage.batches("train", BATCH, rng):
            step = Bare(index.reshape(len(index), -1), pixels, (epoch + 1) / epochs, generator, torch.device(device))
            optimizer.zero_grad()
            sum(stage.losses(module, step).values()).backward()  # type: ignore[union-attr]
            optimizer.step()
            steps += 1
    return steps


def engine_loop(stage: Stage, data: Data, epochs: int, folder: Path, **resources: Any) -> training.Fitted:
    """The same by the engine."""
    return training.fit(
        stage,
        data,
        _data(0),
        targets=TARGETS,
        classes=CLASSES,
        trainer=PLAIN | {"epochs": epochs, "resources": PLAIN["resources"] | resources},
        weighting=Equal(),
        seed=0,
        context=training.Local(folder),
    )


def stage_of(baseline: str) -> Stage:
    """The first stage of a baseline, as configured."""
    node = next(iter(compose([f"baseline={baseline}"])["baseline"]["stages"].values()))
    stage: Stage = instantiate({key: value for key, value in node.items() if key not in ("trainer", "weighting")})
    return stage


@pytest.mark.parametrize("baseline", ["supervised", "mt_clar", "clef", "clef_scratch", "mtt"])
def test_training_steps_of_a_baseline(measure: Measure, tmp_path: Path, baseline: str) -> None:
    """``over_bare`` is what the engine costs, as a share of the bare loop; the rest of a fit is in it, too."""
    torch.set_num_threads(1)
    data, epochs = _data(measure.sized(384, 128, 64)), measure.sized(8, 2, 1)
    taken: list[int] = []
    fitted = measure(
        lambda: engine_loop(stage_of(baseline), data, epochs, tmp_path),
        rounds=3,
        instead={"a bare loop": Instead(lambda: taken.append(bare_loop(stage_of(baseline), data, epochs)))},
    )
    measure.note(steps=fitted.steps, **measure.over("a bare loop"))
    assert fitted.epochs == epochs
    assert not taken or set(taken) == {fitted.steps}


def test_a_bare_loop_of_pytorch(measure: Measure) -> None:
    """What the engine is measured against, watched by itself."""
    torch.set_num_threads(1)
    data, epochs = _data(measure.sized(384, 128, 64)), measure.sized(8, 2, 1)
    assert measure(lambda: bare_loop(stage_of("supervised"), data, epochs), rounds=3)


def test_what_a_fit_costs_beside_its_steps(measure: Measure, tmp_path: Path) -> None:
    """One step in a process that has fitted before: engine, optimizer, first step, weights."""
    torch.set_num_threads(1)
    data = _data(64)
    measure(
        lambda: engine_loop(stage_of("supervised"), data, 1, tmp_path),
        instead={"a bare loop": lambda: bare_loop(stage_of("supervised"), data, 1)},
    )


def test_a_checkpoint(measure: Measure, tmp_path: Path) -> None:
    """Writing, hashing and keeping a checkpoint after each of three epochs of one step; the same without beside it."""
    torch.set_num_threads(1)
    data = _data(64)

    def fit(every: int) -> Callable[[], object]:
        return lambda: engine_loop(stage_of("supervised"), data, 3, tmp_path / f"{time.time_ns()}", checkpoint_every=every)

    measure(fit(1), rounds=3, instead={"no checkpoints": fit(0)})


class Faces(Stage):
    """A stage of which only the encoder is asked."""

    def module(self) -> nn.Module:
        return backbones.build({"name": "conv"}, channels=1, dim=256)

    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        return iter(())

    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        return {}


def test_embedding_every_frame(measure: Measure, tmp_path: Path) -> None:
    """From the cache, against a ``DataLoader`` over the same images."""
    torch.set_num_threads(1)
    count = measure.sized(512, 512, 64)
    paths = sorted(measure.folder("faces", lambda folder: write_faces(folder, count)).glob("*.jpg"))
    frames, module = cached(paths, 1, tmp_path / "cache"), Faces().module().eval()

    def with_loader() -> None:
        with torch.inference_mode():
            for batch in torch.utils.data.DataLoader(Decoded(paths, 1), batch_size=LOADED):
                module(batch.permute(0, 3, 1, 2).float() / 255)

    embedded = measure(
        lambda: training.embed(module, frames, device=torch.device("cpu")),
        instead={"a DataLoader over PIL images": with_loader},
        rates={"frames": count},
    )
    assert embedded.shape == (count, 256)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_on_a_gpu(measure: Measure, tmp_path: Path, precision: str) -> None:
    """Frames a second, the share of the time the GPU was busy, and its memory."""
    data, epochs = _data(measure.sized(4096, 1024, 128)), measure.sized(10, 5, 1)
    fitted: list[training.Fitted] = []

    def fit() -> None:
        fitted.append(
            training.fit(
                stage_of("supervised"),
                data,
                _data(0),
                targets=TARGETS,
                classes=CLASSES,
                trainer=PLAIN | {"epochs": epochs, "precision": precision, "resources": PLAIN["resources"] | {"gpus": 1}},
                weighting=Equal(),
                seed=0,
                context=training.Local(tmp_path),
            )
        )
        torch.cuda.synchronize()

    bare = Instead(lambda: bare_loop(stage_of("supervised"), data, epochs, "cuda"))
    measure(fit, rounds=3, instead={"a bare loop": bare} if precision == "fp32" else None, rates={"frames": len(data.frames) * epochs})
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        began = time.perf_counter()
        fit()
        seconds = time.perf_counter() - began
    busy = sum(event.self_device_time_total for event in profile.key_averages()) / 1e6
    measure.note(gpu=torch.cuda.get_device_name(), gpu_busy=round(busy / seconds, 3), gpu_peak_mib=round(fitted[-1].peak_memory / 2**20, 1))
