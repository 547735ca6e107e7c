from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import training
from harness.baseline import Data
from harness.config import available, compose, instantiate
from harness.plan import BASELINE_FACTS

PAPER = {"fusion": "concat", "hidden": [2048, 1024, 512, 128], "dropout": 0.5, "margin": 0.25, "symmetric": False, "extra": 0.0}


def baseline(name: str, *overrides: str) -> dict[str, Any]:
    composed: dict[str, Any] = compose([f"baseline={name}", *overrides])["baseline"]
    return composed


@pytest.mark.parametrize("name", sorted(available("baseline")))
def test_every_baseline_can_be_made_from_its_config(name: str) -> None:
    config = baseline(name)
    assert set(BASELINE_FACTS) <= set(config)
    assert config["name"] == name
    assert available("baseline")[name]
    instantiate({key: value for key, value in config.items() if key not in BASELINE_FACTS})
    for stage in config["stages"].values():
        instantiate({key: value for key, value in stage.items() if key not in ("trainer", "weighting")})
        instantiate(stage["weighting"])


@pytest.mark.parametrize("name", ["mt_clar_sl", "ridge_backbone"])
@pytest.mark.parametrize("overrides", [[], ["baseline.stages.pairs.fusion=absolute", "weighting@baseline.stages.pairs.weighting=equal"]])
def test_baselines_on_mt_clars_embeddings_share_its_fit(name: str, overrides: list[str]) -> None:
    assert baseline(name, *overrides)["stages"]["pairs"] == baseline("mt_clar", *overrides)["stages"]["pairs"]


def test_the_papers_mt_clar_has_its_constants() -> None:
    stage = baseline("mt_clar_paper", "trainer=paper")["stages"]["pairs"]
    assert {key: stage[key] for key in PAPER} == PAPER
    assert stage["pairs"] == {"_target_": "baselines.pairs.Expression"}
    assert stage["weighting"] == {"_target_": "baselines.weighting.Random"}
    assert not stage["trainer"]


@pytest.mark.parametrize("name", sorted(available("pairs")))
def test_every_pair_rule_can_be_chosen_by_name(name: str) -> None:
    from baselines import pairs

    pairs.make(baseline("mt_clar", f"pairs@baseline.stages.pairs.pairs={name}")["stages"]["pairs"]["pairs"])


@pytest.mark.parametrize("name", sorted(available("weighting")))
def test_every_weighting_learns_mt_clars_losses(name: str, tmp_path: Path, data: Callable[..., Data]) -> None:
    """A real fit of two epochs, as ``harness run baseline=mt_clar weighting=NAME`` makes it."""
    composed = compose(["baseline=mt_clar", f"weighting={name}"])
    stage = {key: value for key, value in composed["baseline"]["stages"]["pairs"].items() if key not in ("trainer", "weighting")}
    rng = np.random.default_rng(0)
    columns = {"clip": np.repeat(list("abcd"), 8), "frame": np.tile(np.arange(8), 4)}
    train = data(
        rng.integers(0, 256, (32, 24, 24, 1), dtype=np.uint8), **columns, valence=rng.uniform(-1, 1, 32), arousal=rng.uniform(-1, 1, 32)
    )
    fitted = training.fit(
        instantiate(stage),
        train,
        train,
        targets=("valence", "arousal"),
        classes=(),
        trainer={"epochs": 2, "batch_size": 16, "resources": {"checkpoint_every": 0}},
        weighting=instantiate(composed["weighting"]),
        seed=0,
        context=training.Local(tmp_path),
    )
    losses = {"similarity", "valence", "arousal", "cosine"}
    assert {key.partition("/")[2] for key in fitted.history[-1] if key.startswith("train/")} == losses
    assert all(math.isfinite(value) for value in fitted.history[-1].values())
