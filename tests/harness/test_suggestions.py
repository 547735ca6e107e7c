"""Rounds of Optuna: they follow from seed and scores alone, and they find what random draws do not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness.errors import RequestError
from harness.suggestions import Tried, suggest

LR = {"_target_": "ray.tune.loguniform", "lower": 1e-4, "upper": 1.0}
SPACE: dict[str, Any] = {"trainer.lr": LR, "fixed": 5, "kind": {"_target_": "ray.tune.choice", "categories": ["p", 3]}}


def off(values: dict[str, Any]) -> float:
    """How far the learning rate is from 0.01, in decades."""
    return abs(math.log10(values["trainer.lr"]) + 2)


def at_random(n: int, seed: int = 0) -> list[Tried]:
    rng = np.random.default_rng(seed)
    draws = [{"trainer.lr": 10 ** float(rng.uniform(-4, 0)), "fixed": 5, "kind": "p"} for _ in range(n)]
    return [Tried(values, -off(values)) for values in draws]


def test_a_round_follows_from_seed_and_scores_alone_and_the_first_of_many_are_those_of_few() -> None:
    tried = at_random(4)
    four = suggest(SPACE, tried, 4, seed=7, higher_is_better=True)
    assert suggest(SPACE, tried, 4, seed=7, higher_is_better=True) == four
    assert suggest(SPACE, tried, 2, seed=7, higher_is_better=True) == four[:2]
    assert suggest(SPACE, tried, 4, seed=8, higher_is_better=True) != four
    assert suggest(SPACE, [*tried[:3], Tried(tried[3].values, 9.0)], 4, seed=7, higher_is_better=True) != four
    assert [list(values) for values in four] == [list(SPACE)] * 4
    assert {values["fixed"] for values in four} == {5}
    assert all(1e-4 <= values["trainer.lr"] <= 1 and values["kind"] in ("p", 3) for values in four)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_later_rounds_look_where_good_scores_were(higher_is_better: bool) -> None:
    sign = -1 if higher_is_better else 1
    distances = []
    for seed in range(5):
        tried = [Tried(one.values, sign * off(dict(one.values))) for one in at_random(8, seed)]
        for _ in range(3):
            asked = suggest(SPACE, tried, 4, seed=seed, higher_is_better=higher_is_better)
            tried += [Tried(values, sign * off(values)) for values in asked]
        distances.append((np.mean([off(dict(one.values)) for one in tried[:8]]), np.mean([off(dict(one.values)) for one in tried[-4:]])))
    before, after = np.mean(distances, axis=0)
    assert after < before / 1.5


def test_what_was_stopped_teaches_and_what_failed_does_not() -> None:
    tried = at_random(6)
    plain = suggest(SPACE, tried, 2, seed=1, higher_is_better=True)
    assert suggest(SPACE, [*tried[:5], Tried(tried[5].values)], 2, seed=1, higher_is_better=True) != plain
    failed = suggest(SPACE, [*tried, Tried({**tried[0].values, "trainer.lr": 0.5})], 2, seed=1, higher_is_better=True)
    other = suggest(SPACE, [*tried, Tried({**tried[0].values, "trainer.lr": 2e-4})], 2, seed=1, higher_is_better=True)
    assert failed == other, "nothing is learned of where a draw failed"
    stopped = [Tried({**tried[0].values, "trainer.lr": 0.5}, stopped=(1, 0.1 * n)) for n in range(1, 5)]
    assert suggest(SPACE, [*tried, *stopped], 2, seed=1, higher_is_better=True) != suggest(
        SPACE, [*tried, *[Tried(one.values) for one in stopped]], 2, seed=1, higher_is_better=True
    )


@pytest.mark.parametrize(
    ("node", "ends"),
    [
        ({"_target_": "ray.tune.randint", "lower": 2, "upper": 5}, {2, 3, 4}),
        ({"_target_": "ray.tune.qrandint", "lower": 2, "upper": 8, "q": 3}, {2, 5, 8}),
        ({"_target_": "ray.tune.lograndint", "lower": 1, "upper": 3}, {1, 2}),
        ({"_target_": "ray.tune.quniform", "lower": 0.0, "upper": 1.0, "q": 0.5}, {0.0, 0.5, 1.0}),
        ({"_target_": "ray.tune.choice", "categories": [True, "a"]}, {True, "a"}),
    ],
)
def test_a_space_means_what_it_means_to_ray_tune(node: dict[str, Any], ends: set[Any]) -> None:
    asked = suggest({"x": node}, [], 60, seed=3, higher_is_better=True)
    assert {values["x"] for values in asked} == ends


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"_target_": "ray.tune.randn", "mean": 0, "sd": 1}, "Optuna has no space like ray.tune.randn (tune: x); use one of"),
        ({"_target_": "ray.tune.loguniform", "lower": 0, "upper": 1}, "Optuna refuses ray.tune.loguniform"),
        ({"_target_": "ray.tune.uniform", "lower": 0}, "Optuna refuses ray.tune.uniform"),
    ],
)
def test_a_space_that_cannot_be_is_told_in_one_line(node: dict[str, Any], expected: str) -> None:
    with pytest.raises(RequestError) as caught:
        suggest({"x": node}, [], 1, seed=0, higher_is_better=True)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
