"""The frame cache against decoding the same images with Pillow: DESIGN 9 asks for ten times the images a second."""

import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from harness.frames import Transform, fill
from harness.samples import conform


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_come_from_the_cache_in_random_order(benchmark: BenchmarkFixture, tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.jpg" for number in range(512)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).resize((112, 112), Image.Resampling.BICUBIC).save(path)
    names = [str(path) for path in paths]
    samples = conform(pl.DataFrame({"sample": names, "image": names, "clip": names}))
    frames = fill(samples, Transform(64, channels), tmp_path / "cache").frames
    batches = [rng.integers(0, len(frames), 64) for _ in range(50)]

    def decode(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image.convert("L" if channels == 1 else "RGB").resize((64, 64), Image.Resampling.BILINEAR))

    started = time.perf_counter()
    decoded = np.stack([decode(path) for path in paths]).reshape(-1, 64, 64, channels)
    pillow = len(paths) / (time.perf_counter() - started)

    np.testing.assert_array_equal(benchmark(lambda: [frames[batch] for batch in batches])[0], decoded[batches[0]])
    if benchmark.stats is None:  # switched off
        return
    cached = 50 * 64 / benchmark.stats.stats.median
    benchmark.extra_info |= {"images_per_s": round(cached), "pillow_images_per_s": round(pillow), "ratio": round(cached / pillow, 1)}
