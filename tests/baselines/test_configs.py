from __future__ import annotations

from typing import Any

import pytest
import torch

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
def test_every_weighting_takes_mt_clars_losses(name: str) -> None:
    weighting = instantiate(baseline("mt_clar", f"weighting@baseline.stages.pairs.weighting={name}")["stages"]["pairs"]["weighting"])
    losses = {loss: torch.tensor(2.0) for loss in ("similarity", "valence", "arousal", "cosine")}
    assert weighting(losses, torch.Generator()).item() == pytest.approx(2.0)
