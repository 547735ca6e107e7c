"""A user's own dataset, baseline and stage, small enough that a whole sweep of them takes seconds.

A frame is one grey value, and valence is what the grey value says; so the stage learns it, and a test can tell.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import torch
from PIL import Image
from torch import Tensor, nn

from harness.baseline import Baseline, Data, Previous, Query, Stage, Step
from harness.samples import Problems, Reading, conform


def write(root: Path, *, subjects: int = 6, clips: int = 2, frames: int = 8, seed: int = 0) -> None:
    """``root/SUBJECT/CLIP/FRAME.png``, the labels in the grey value."""
    rng = np.random.default_rng(seed)
    for subject in range(subjects):
        for clip in range(clips):
            folder = Path(root) / f"s{subject}" / f"s{subject}c{clip}"
            folder.mkdir(parents=True)
            for frame, grey in enumerate(rng.integers(20, 235, frames)):
                noise = rng.integers(-5, 6, (8, 8))
                Image.fromarray((grey + noise).astype(np.uint8)).save(folder / f"{frame}.png")


def read(root: Path) -> Reading:
    """What :func:`write` wrote; arousal is the opposite of valence."""
    rows = []
    for path in sorted(Path(root).glob("*/*/*.png")):
        valence = round(float(np.asarray(Image.open(path)).mean()) / 127.5 - 1, 3)
        rows.append((path.relative_to(root).as_posix(), str(path), path.parent.name, int(path.stem), path.parts[-3], valence, -valence))
    schema = ["sample", "image", "clip", "frame", "subject", "valence", "arousal"]
    return Reading(conform(pl.DataFrame(rows, schema=schema, orient="row")), Problems().frame())


def read_units(root: Path) -> Reading:
    """The same frames; AU 1 is there where they are bright, which is on a third of them."""
    reading = read(root)
    return Reading(conform(reading.samples.with_columns(au1=(pl.col("valence") > 0.3).cast(pl.Float32))), reading.problems)


class Brightness(Stage):
    """Regresses valence and arousal on the frame; can be slow, wrong or deadly when a test wants it to."""

    def __init__(
        self, *, width: int = 16, nan_in_epoch: int = 0, die_once: str | None = None, pause: float = 0.0, hoard: str | None = None
    ) -> None:
        self.width, self.nan_in_epoch, self.die_once, self.pause, self.hoard = width, nan_in_epoch, die_once, pause, hoard

    def setup(self, train: Data, validation: Data, targets: tuple[str, ...], classes: tuple[str, ...], previous: Previous | None) -> None:
        self.targets = {"train": self._labels(train, targets), "validation": self._labels(validation, targets)}

    @staticmethod
    def _labels(data: Data, targets: tuple[str, ...]) -> Tensor:
        return torch.from_numpy(np.stack([data.labels(target) for target in targets], 1))

    def module(self) -> nn.Module:
        return _Net(self.width)

    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        order = rng.permutation(len(self.targets[part]))
        for first in range(0, len(order), size):
            yield order[first : first + size, None]

    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        time.sleep(self.pause)
        error = (step.gather(module(step.frames())) - step.rows(self.targets["train" if step.training else "validation"])).square().mean(0)
        epoch = round(step.progress * 4)  # the toy's trainer has four epochs
        if self.nan_in_epoch and epoch >= self.nan_in_epoch:
            error = error * float("nan")
        if self.die_once and epoch >= 3 and not Path(self.die_once).exists():
            Path(self.die_once).touch()
            os._exit(1)
        if self.hoard and epoch >= 2:
            _run_out_of_memory(Path(self.hoard))
        return {"valence": error[0], "arousal": error[1]}

    def encode(self, module: nn.Module, frames: Tensor) -> Tensor:
        output: Tensor = module(frames)
        return output


def _run_out_of_memory(told: Path) -> None:
    """Write a line, and take more memory than a limit that is a little above what is held allows."""
    with told.open("a", encoding="utf-8") as file:
        file.write("once more\n")
    held = psutil.Process().memory_info().data
    resource.setrlimit(resource.RLIMIT_DATA, (held + 2**28, held + 2**28))
    np.ones(2**27)


class _Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, frames: Tensor) -> Tensor:
        output: Tensor = self.layers(frames.mean((1, 2, 3))[:, None])
        return output


class Toy(Baseline):
    """Predicts what the stage regressed."""

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        return {target: query.embeddings[:, place] for place, target in enumerate(query.targets)}


class Hostile(Baseline):
    """Predicts nothing finite."""

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        return {target: np.full(query.test.samples.height, np.nan) for target in query.targets}


class Witness(Baseline):
    """A control that tells where it ran and when, and answers with zeros."""

    def __init__(self, *, folder: str, pause: float) -> None:
        self.folder, self.pause = Path(folder), pause

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        import ray

        began = time.time()
        time.sleep(self.pause)
        here = ray.get_runtime_context()
        seen = {"node": here.get_node_id(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""), "began": began, "ended": time.time()}
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{here.get_actor_id()}-{time.time_ns()}.json").write_text(json.dumps(seen), encoding="utf-8")
        return {target: np.zeros(query.test.samples.height) for target in query.targets}
