from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines.supervised import MultiHead, SupervisedStage
from harness.errors import RequestError

Make = Callable[..., Any]
TARGETS = ("valence", "arousal", "expression", "au12", "au4_intensity")
CLASSES = ("neutral", "happy", "sad")
SMALL: dict[str, Any] = {"backbone": {"name": "conv", "widths": [8, 8]}, "dim": 6}


class Alone:
    """A step on one worker that holds all rows."""

    training = True
    progress = 1.0
    device = torch.device("cpu")

    def __init__(self, pixels: np.ndarray) -> None:
        self.index = np.arange(len(pixels))[:, None]
        self.pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255

    def frames(self, column: int = 0, view: int = 0) -> torch.Tensor:
        return self.pixels

    def gather(self, local: torch.Tensor) -> torch.Tensor:
        return local

    def rows(self, values: torch.Tensor, column: int = 0) -> torch.Tensor:
        return values


def given(data: Make) -> Any:
    return data(
        np.random.default_rng(0).integers(0, 256, (6, 24, 24, 1), dtype=np.uint8),
        valence=[0.1, -0.4, None, 0.8, 0.0, 0.3],
        arousal=[None] * 6,
        expression=["happy", "sad", "happy", "happy", None, "fear"],
        au12=[1, 0, 0, None, None, 0],
        au4_intensity=[0, 5, 2, None, 1, 3],
    )


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_every_target_has_a_loss_of_its_own_over_the_rows_that_are_labelled(data: Make, weights: str) -> None:
    labelled = given(data)
    stage = SupervisedStage(**SMALL, dropout=0.0, smoothing=0.0, class_weights=weights, presence_weights=weights, mse=1.0)
    stage.setup(labelled, labelled, TARGETS, CLASSES, None)
    net = stage.module()
    step = Alone(labelled.frames.array)
    found = stage.losses(net, step)
    assert list(stage.objectives().items()) == [
        ("valence", "regression"),
        ("arousal", "regression"),
        ("expression", "likelihood"),
        ("au12", "likelihood"),
        ("au4_intensity", "regression"),
    ]
    assert list(found) == list(stage.objectives())
    raw = net(net.encoder(step.pixels))
    known = [0, 1, 3, 4, 5]
    assert found["valence"].item() == pytest.approx(
        F.mse_loss(raw["valence"][known], torch.tensor([0.1, -0.4, 0.8, 0.0, 0.3])).item(), rel=1e-5
    )
    assert found["arousal"].item() == 0.0
    weight = torch.tensor([0.0, 4 / (2 * 3), 4 / (2 * 1)]) if weights == "balanced" else None
    expected = F.cross_entropy(raw["expression"][:4], torch.tensor([1, 2, 1, 1]), weight=weight)
    assert found["expression"].item() == pytest.approx(expected.item(), rel=1e-5)
    positive = torch.tensor(3.0) if weights == "balanced" else None
    expected = F.binary_cross_entropy_with_logits(raw["au12"][[0, 1, 2, 5]], torch.tensor([1.0, 0, 0, 0]), pos_weight=positive)
    assert found["au12"].item() == pytest.approx(expected.item(), rel=1e-5)
    expected = F.mse_loss(raw["au4_intensity"][[0, 1, 2, 4, 5]], torch.tensor([0.0, 5, 2, 1, 3]))
    assert found["au4_intensity"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_outputs_are_values_and_probabilities() -> None:
    net = MultiHead(torch.nn.Identity(), {"valence": 1, "expression": 3, "au12": 1, "au4_intensity": 1}, dim=6, dropout=0.5).eval()
    outputs = net.outputs(3 * torch.randn(7, 6))
    assert outputs["valence"].shape == (7,)
    assert outputs["expression"].shape == (7, 3)
    torch.testing.assert_close(outputs["expression"].sum(1), torch.ones(7))
    assert 0 <= outputs["au12"].min() <= outputs["au12"].max() <= 1
    assert 0 <= outputs["au4_intensity"].min() <= outputs["au4_intensity"].max() <= 5


def test_an_epoch_meets_every_frame_once(data: Make) -> None:
    labelled = given(data)
    stage = SupervisedStage(**SMALL)
    stage.setup(labelled, labelled, TARGETS, CLASSES, None)
    batches = list(stage.batches("train", 4, np.random.default_rng(0)))
    assert [batch.shape for batch in batches] == [(3, 1), (3, 1)]
    assert sorted(np.concatenate(batches).ravel()) == list(range(6))


@pytest.mark.parametrize("name", ["class_weights", "presence_weights"])
def test_unknown_weights_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match=rf"stages.supervised.{name}.*did you mean 'balanced'"):
        SupervisedStage(**SMALL, **{name: "balancd"})


def test_raters_votes_are_learned_where_the_samples_have_them(data: Make) -> None:
    votes = {"votes_neutral": [5, 0, 0], "votes_happy": [5, 8, 0], "votes_sad": [0, 0, 0]}
    labelled = data(np.zeros((3, 24, 24, 1), np.uint8), expression=[None, "happy", None], **votes)
    stage = SupervisedStage(**SMALL)
    stage.setup(labelled, labelled, ("expression",), CLASSES, None)
    learned = stage.labels["train"]["expression"]
    torch.testing.assert_close(learned[:2], torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]))
    assert learned[2].isnan().all()


def test_the_engine_trains_it_and_it_learns(data: Make, tmp_path: Path) -> None:
    from baselines.weighting import Equal
    from harness import training

    rng = np.random.default_rng(0)
    happy = np.arange(80) % 2 == 0
    pixels = rng.integers(0, 120, (80, 24, 24, 1), dtype=np.uint8)
    pixels[happy, 14:18, 6:18] += 120  # a mouth
    part = data(pixels, expression=np.where(happy, "happy", "sad"), clip=[f"c{i}" for i in range(80)])
    stage = SupervisedStage(**SMALL)
    fitted = training.fit(
        stage,
        part,
        part,
        targets=("expression",),
        classes=("happy", "sad"),
        trainer={"epochs": 8, "batch_size": 16, "lr": 1e-2},
        weighting=Equal(),
        seed=0,
        context=training.Local(tmp_path),
    )
    net = training.load(stage, fitted.state)
    outputs = net.outputs(stage.encode(net, Alone(pixels).pixels))["expression"]  # type: ignore[operator]
    assert ((outputs[:, 0] > 0.5).numpy() == happy).mean() > 0.9
