"""The frame cache against decoding the same images with Pillow: DESIGN 9 asks for ten times the images a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from harness.frames import Frames, Transform, fill
from harness.samples import conform
from tests.perf.measuring import Instead, Measure

SIDE, BATCH = 64, 64


class Decoded(torch.utils.data.Dataset[np.ndarray]):
    """What one hands to a ``DataLoader`` without a cache: images decoded as they are asked for."""

    def __init__(self, paths: list[Path], channels: int) -> None:
        self.paths, self.channels = paths, channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> np.ndarray:
        with Image.open(self.paths[row]) as image:
            mode = "L" if self.channels == 1 else "RGB"
            pixels = np.asarray(image.convert(mode).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
            return pixels.reshape(SIDE, SIDE, self.channels).copy()  # torch wants to be able to write


def write_faces(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
        small.resize((112, 112), Image.Resampling.BICUBIC).save(folder / f"{number:04}.jpg")


def cached(paths: list[Path], channels: int, cache: Path) -> Frames:
    names = [str(path) for path in paths]
    return fill(conform(pl.DataFrame({"sample": names, "image": names, "clip": names})), Transform(SIDE, channels), cache).frames


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_come_from_the_cache_in_random_order(measure: Measure, tmp_path: Path, channels: int) -> None:
    count = measure.sized(512, 512, 64)
    paths = sorted(measure.folder("faces", lambda folder: write_faces(folder, count)).glob("*.jpg"))
    frames, decoded = cached(paths, channels, tmp_path / "cache"), Decoded(paths, channels)
    batches = [np.random.default_rng(0).integers(0, count, BATCH) for _ in range(50)]
    few = batches[: measure.sized(8, 8, 1)]
    share = len(few) / len(batches)

    def load() -> None:
        for _ in torch.utils.data.DataLoader(decoded, batch_sampler=[batch.tolist() for batch in few]):
            pass

    def by_hand() -> None:
        for batch in few:
            np.stack([decoded[row] for row in batch])

    taken = measure(
        lambda: [frames[batch] for batch in batches],
        instead={"Pillow": Instead(by_hand, share), "a DataLoader over PIL images": Instead(load, share)},
        rates={"images": 50 * BATCH},
    )
    np.testing.assert_array_equal(taken[0], np.stack([decoded[row] for row in batches[0]]))


def test_filling_the_cache(measure: Measure, tmp_path: Path) -> None:
    count = measure.sized(512, 256, 64)
    paths = sorted(measure.folder("faces", lambda folder: write_faces(folder, 512 if measure.size != "tiny" else 64)).glob("*.jpg"))[:count]
    folders = iter(range(10_000))
    frames = measure(lambda: cached(paths, 1, tmp_path / str(next(folders))), rates={"images": count})
    assert len(frames) == count
