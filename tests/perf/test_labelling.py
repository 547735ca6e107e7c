"""Labelling clips from their support frames, at several sizes of the support; against a loop over pairs, as released code does it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from baselines.controls import Interpolation
from baselines.mt_clar import MtClar, PairNet
from harness.baseline import Data, Query
from harness.samples import conform
from tests.perf.measuring import Instead, Measure

CLIPS, FRAMES, DIM = 120, 50, 256


def _query(clips: int, size: int) -> Query:
    rng = np.random.default_rng(0)
    n = clips * FRAMES
    clip, frame = (axis.ravel() for axis in np.indices((clips, FRAMES)))
    samples = conform(pl.DataFrame({"sample": [f"{i}" for i in range(n)], "clip": clip.astype(str), "frame": frame}))
    test = Data(samples.sort("clip", "frame"), np.zeros((n, 4, 4, 1), np.uint8))  # type: ignore[arg-type]
    support = np.tile(np.isin(np.arange(FRAMES), np.linspace(0, FRAMES - 1, size).astype(int)), clips)
    embeddings = rng.standard_normal((n, DIM)).astype(np.float32)
    torch.manual_seed(0)
    net = PairNet(torch.nn.Identity(), dim=DIM, fusion="concat", hidden=[128], dropout=0.1, symmetric=True).eval()
    return Query(
        test=test,
        support=support,
        labels={target: rng.uniform(-1, 1, support.sum()).astype(np.float32) for target in ("valence", "arousal")},
        setting={"anchor": "mean"},
        targets=("valence", "arousal"),
        classes=(),
        train=test,
        modules=(net,),
        device=torch.device("cpu"),
        encoder=lambda data, part: embeddings,
    )


def pair_by_pair(query: Query, frames: int) -> np.ndarray:
    """Valence of the first frames: each compared with each support frame of its clip by a call of the network."""
    net, embeddings = query.modules[0], torch.from_numpy(query.embeddings)
    clip = query.test.samples["clip"].to_numpy()
    given = np.flatnonzero(query.support)
    found = np.zeros(frames)
    for row in range(frames):
        values = []
        for place in np.flatnonzero(clip[given] == clip[row]):
            _, difference = net(embeddings[row : row + 1], embeddings[given[place] : given[place] + 1])
            values.append(query.labels["valence"][place] + float(difference[0, 0]))
        found[row] = np.mean(values)
    return np.clip(found, -1, 1)


@pytest.mark.parametrize("size", [1, 4, 16])
def test_labels_from_so_many_support_frames_a_clip(measure: Measure, size: int) -> None:
    torch.set_num_threads(1)
    query = _query(measure.sized(CLIPS, CLIPS, 4), size)
    n, few = len(query.support), measure.sized(600, 100, 20)
    with torch.inference_mode():
        predicted = measure(
            lambda: MtClar().predict(query),
            instead={"pair by pair": Instead(lambda: pair_by_pair(query, few), few / n)},
            rates={"frames": n},
        )
        np.testing.assert_allclose(predicted["valence"][:few], pair_by_pair(query, few), atol=1e-5)


def test_interpolated_labels(measure: Measure) -> None:
    query = replace(_query(measure.sized(CLIPS * 10, CLIPS * 10, 4), 4), modules=())
    measure(lambda: Interpolation().predict(query), rounds=10, rates={"frames": len(query.support)})
