"""Who is on a frame, told from the most similar frame of another clip."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from harness import retrieval
from harness.metrics import metrics, units


def test_the_nearest_row_is_of_another_clip_by_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    embeddings, clips = rng.normal(0, 1, (60, 5)), np.repeat(list("abcdef"), 10)
    expected = []
    for row in range(60):
        best, where = -2.0, -1
        for other in range(60):
            cosine = embeddings[row] @ embeddings[other] / np.linalg.norm(embeddings[row]) / np.linalg.norm(embeddings[other])
            if clips[other] != clips[row] and cosine > best:
                best, where = cosine, other
        expected.append(where)
    assert retrieval.nearest(embeddings, clips).tolist() == expected
    monkeypatch.setattr(retrieval, "_BLOCK", 60 * 7)
    assert retrieval.nearest(embeddings, clips).tolist() == expected, "however large the blocks are"


def test_a_clip_alone_has_no_nearest_and_zero_vectors_raise_nothing() -> None:
    assert retrieval.nearest(np.ones((3, 2)), np.array(["a"] * 3)).tolist() == [-1, -1, -1]
    assert retrieval.nearest(np.zeros((2, 2)), np.array(["a", "b"])).tolist() == [1, 0]


def frame(nearest: list[str | None]) -> pl.DataFrame:
    """Two subjects with two clips of two frames each, all of them labelled."""
    names = {"subject": ["s"] * 4 + ["t"] * 4, "clip": ["s1", "s1", "s2", "s2", "t1", "t1", "t2", "t2"]}
    columns = {"au1": [1.0, 0] * 4, "au1_pred": [0.9, 0.1] * 4, "nearest_subject": nearest}
    return pl.DataFrame(names | columns, schema_overrides={"nearest_subject": pl.String})


def test_retrieval_is_the_share_of_frames_whose_nearest_shows_the_same_subject() -> None:
    got = metrics(units(frame(["s", "t", "s", "s", "t", "t", "s", "t"]), targets=["au1"]))
    assert got["retrieval_subject"] == pytest.approx(6 / 8)
    assert got["chance_subject"] == pytest.approx(2 / 6), "two of the six frames of other clips are of the subject"
    assert got["f1_au1"] == 1


def test_where_nothing_was_retrieved_it_is_undefined() -> None:
    got = metrics(units(frame([None] * 8), targets=["au1"]))
    assert np.isnan(got["retrieval_subject"])
    assert np.isnan(got["chance_subject"])
