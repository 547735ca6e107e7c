"""Pictures of weights over training and of score against cost; what they look like was looked at."""

from __future__ import annotations

import polars as pl
import pytest

from harness.errors import RequestError
from harness.publish.weights import against_cost, over_training


def weights() -> pl.DataFrame:
    rows = [
        (arm, fit, epoch, loss, weight * (1 + 0.1 * epoch * fit))
        for arm, losses in {"equal <b>$x$": {"va": 1.0, "au": 1.0}, "imtl_g": {"va": -0.5, "au": 2.0, "au1": 1e-4, "au2": 300.0}}.items()
        for fit in (0, 1)
        for epoch in (1, 2, 3)
        for loss, weight in losses.items()
    ]
    return pl.DataFrame(rows, schema=["arm", "fit", "epoch", "loss", "weight"], orient="row")


def points(**more: list[object]) -> pl.DataFrame:
    columns = {"arm": ["equal", "mgda", "none"], "score": [1.0, 1.1, None], "lo": [0.9, None, None], "hi": [1.1, None, None]}
    return pl.DataFrame({**columns, "cost": [1.0, 2.5, 1.0], "reference": [True, False, False], **more})


def test_the_same_weights_give_the_same_bytes_of_both_kinds() -> None:
    first, second = (over_training(weights(), title="t <i>", note="n") for _ in range(2))
    assert first == second
    assert first["svg"].startswith(b"<?xml")
    assert first["png"].startswith(b"\x89PNG")
    assert b"<b>" not in first["svg"], "a name is drawn, not obeyed"


def test_the_same_costs_give_the_same_bytes_of_both_kinds() -> None:
    first, second = (against_cost(points(), title="t", score="p_mtl", cost="time") for _ in range(2))
    assert first == second
    assert first["png"].startswith(b"\x89PNG")


def test_where_all_cost_the_same_there_is_a_picture_all_the_same() -> None:
    assert against_cost(points(cost=[1.0, 1.0, 1.0]), title="t", score="s", cost="c")["svg"]


def test_nothing_to_draw_is_told() -> None:
    with pytest.raises(RequestError, match="no arm has weights"):
        over_training(weights().clear(), title="t")
    with pytest.raises(RequestError, match="no arm has both"):
        against_cost(points(score=[None, None, None]), title="t", score="s", cost="c")
