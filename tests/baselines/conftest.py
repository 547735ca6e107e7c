from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from harness.baseline import Data, Query
from harness.samples import conform


@dataclass(frozen=True)
class Pixels:
    """Frames that lie in memory."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.array[rows]


def make_data(frames: np.ndarray | None = None, **columns: Any) -> Data:
    """Some samples from their label columns; every frame is black unless given."""
    n = len(next(iter(columns.values())))
    columns = {"sample": [f"{i}.png" for i in range(n)], "clip": ["c"] * n, "frame": list(range(n)), **columns}
    pixels = np.zeros((n, 24, 24, 1), np.uint8) if frames is None else frames
    return Data(conform(pl.DataFrame(columns, strict=False)), Pixels(pixels))  # type: ignore[arg-type]


@pytest.fixture
def data() -> Callable[..., Data]:
    return make_data


@dataclass(frozen=True)
class World:
    """Clips with smooth labels of which a few frames are given, and embeddings that tell the labels with some noise."""

    query: Query
    valence: np.ndarray
    arousal: np.ndarray


@pytest.fixture
def world() -> Callable[..., World]:
    def make(
        per_clip: int = 3, *, lengths: tuple[int, ...] = (11, 7, 14), targets: tuple[str, ...] = ("valence", "arousal"), **more: Any
    ) -> World:
        rng = np.random.default_rng(0)
        n = sum(lengths)
        clip = np.repeat([f"clip {i}" for i in range(len(lengths))], lengths)
        frame = np.concatenate([np.sort(rng.choice(100, size, replace=False)) for size in lengths])
        valence, arousal = rng.uniform(-0.7, 0.7, (2, n)).astype(np.float32)
        embeddings = np.column_stack([valence, arousal, rng.normal(0, 1, (n, 6))]).astype(np.float32)
        test = make_data(clip=clip, frame=frame)
        hidden = Data(test.samples.drop("valence", "arousal", "expression"), test.frames)
        train_v, train_a = rng.uniform(-1, 1, (2, 60))
        train = make_data(clip=np.repeat(list("abcdef"), 10), frame=np.tile(np.arange(10), 6), valence=train_v, arousal=train_a)
        train_embeddings = np.column_stack([train_v, train_a, rng.normal(0, 1, (60, 6))]).astype(np.float32)
        support = np.concatenate([np.isin(np.arange(size), rng.choice(size, per_clip, replace=False)) for size in lengths])
        arguments = {
            "test": hidden,
            "support": support,
            "labels": {"valence": valence[support], "arousal": arousal[support]},
            "setting": {},
            "targets": targets,
            "classes": (),
            "train": train,
            "modules": (),
            "device": torch.device("cpu"),
            "encoder": lambda given, part: train_embeddings if part == "train" else embeddings,
        }
        return World(Query(**{**arguments, **more}), valence, arousal)

    return make
