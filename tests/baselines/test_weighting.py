"""Each weighting against its formula, on problems whose answer is known, and through real DeepSpeed engines.

Run as a program, this file is one of two workers: ``RANK=0 WORLD_SIZE=2 … python test_weighting.py FOLDER``.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from torch import Tensor, nn

from harness import seeds, training
from harness.baseline import Data, Stage, Step
from harness.config import instantiate
from harness.errors import FitError, RequestError
from harness.weighting import LIKELIHOOD, OTHER, REGRESSION, GradientWeighting, Weighting

CONFIGS = Path(__file__).parents[2] / "configs" / "weighting"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
BY_GRADIENTS = ["aligned", "cagrad", "graddrop", "gradnorm", "imtl_g", "mgda", "nash", "pcgrad", "upgrad"]


def make(name: str, **more: Any) -> Weighting:
    """As a run makes it, from its YAML."""
    made: Weighting = instantiate(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) | more)
    return made


class Shared(Stage):
    """A trunk and two heads: regression of two numbers from frames, so that some parameters are shared and some are not."""

    def setup(self, train: Data, validation: Data, targets: Any, classes: Any, previous: Any) -> None:
        self.labels = {
            True: torch.tensor(np.stack([train.labels(t) for t in ("valence", "arousal")], 1)),
            False: torch.tensor(np.stack([validation.labels(t) for t in ("valence", "arousal")], 1)),
        }

    def module(self) -> nn.Module:
        trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh())
        return nn.ModuleDict({"trunk": trunk, "valence": nn.Linear(8, 1), "arousal": nn.Linear(8, 1)})

    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        rows = rng.permutation(len(self.labels[part == "train"]))
        for first in range(0, len(rows), size):
            yield rows[first : first + size, None]

    def objectives(self) -> dict[str, str]:
        return {"valence": REGRESSION, "arousal": REGRESSION}

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        hidden = step.gather(module["trunk"](step.frames()))
        labels = step.rows(self.labels[step.training])
        return {
            name: (module[name](hidden)[:, 0] - labels[:, place]).square().mean() * (1 + 9 * place)
            for place, name in enumerate(("valence", "arousal"))
        }


def data(n: int = 50, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    valence, arousal = rng.uniform(-1, 1, (2, n))
    frames = 0.5 + 0.2 * valence[:, None, None] + 0.2 * arousal[:, None, None] * np.linspace(-1, 1, 8) + rng.normal(0, 0.02, (n, 8, 8))
    pixels = (frames.clip(0, 1) * 255).round().astype(np.uint8)[..., None]
    return Data(pl.DataFrame({"sample": [f"{i}" for i in range(n)], "valence": valence, "arousal": arousal}), pixels)


def fit(stage: Stage, folder: Path, weighting: Weighting, context: Any = None, **trainer: Any) -> training.Fitted:
    settings = {"epochs": 3, "batch_size": 16, "lr": 0.01, "weight_decay": 0.0, "resources": {"checkpoint_every": 0}} | trainer
    return training.fit(
        stage,
        data(),
        data(20, seed=1),
        targets=("valence", "arousal"),
        classes=(),
        trainer=settings,
        weighting=weighting,
        seed=3,
        context=context or training.Local(folder),
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, training.Fitted]:
    """Every weighting on one worker with ZeRO 0."""
    return {name: fit(Shared(), tmp_path_factory.mktemp(name), make(name)) for name in NAMES}


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_every_weighting_learns_the_same_at_every_stage_of_zero(plain: dict[str, training.Fitted], tmp_path: Path, zero: int) -> None:
    for name in NAMES:
        fitted = fit(Shared(), tmp_path / name, make(name), resources={"zero": zero, "checkpoint_every": 0})
        agree(fitted, plain[name], 1e-4, f"{name} at ZeRO {zero}")


def agree(one: training.Fitted, other: training.Fitted, tolerance: float, what: str) -> None:
    for name, values in one.state.items():
        assert torch.allclose(values, other.state[name], atol=tolerance), f"{what}: {name}"
    for entry, wanted in zip(one.history, other.history, strict=True):
        for name in entry.keys() - {"seconds", "processor_seconds"}:
            assert entry[name] == pytest.approx(wanted[name], abs=10 * tolerance, rel=1e-3), f"{what}: {name}"


# Formulas, on losses and gradients that are written down

DRAWN = torch.Generator().manual_seed(0)


def gradients(k: int = 3, n: int = 7, seed: int = 0) -> Tensor:
    """``(k, n)`` float64, of which some conflict."""
    return torch.randn(k, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ready(name: str, k: int = 3, kinds: tuple[str, ...] = (REGRESSION, LIKELIHOOD, OTHER), **more: Any) -> Weighting:
    weighting = make(name, **more)
    weighting.setup({f"l{i}": kinds[i % len(kinds)] for i in range(k)})
    return weighting


def named(values: Tensor) -> dict[str, Tensor]:
    return {f"l{i}": value for i, value in enumerate(values)}


def weights(name: str, jacobian: Tensor, losses: Tensor | None = None, **more: Any) -> Tensor:
    weighting = ready(name, len(jacobian), **more)
    assert isinstance(weighting, GradientWeighting)
    losses = torch.ones(len(jacobian)) if losses is None else losses
    return weighting.weigh(jacobian @ jacobian.T, named(losses), DRAWN).to(jacobian)


def descended(weighting: Weighting, values: Tensor) -> tuple[Tensor, Tensor]:
    """The scalar and its derivatives by the losses."""
    values = values.clone().requires_grad_()
    total = weighting(named(values), torch.Generator().manual_seed(1))
    return total.detach(), torch.autograd.grad(total, values)[0]


VALUES = torch.tensor([0.3, 2.0, 1.1])


def test_every_file_of_the_group_says_what_it_is() -> None:
    assert len(NAMES) == 18
    assert {name for name in NAMES if isinstance(make(name), GradientWeighting)} == set(BY_GRADIENTS)
    for name in NAMES:
        first = (CONFIGS / f"{name}.yaml").read_text().splitlines()[0]
        assert first.startswith("# ")


def test_the_plain_sum_and_fixed_weights() -> None:
    assert descended(ready("equal"), VALUES)[1].tolist() == pytest.approx([1 / 3] * 3)
    assert descended(ready("fixed", weights={"l1": 0.5, "l2": 0}), VALUES)[1].tolist() == pytest.approx([1, 0.5, 0])
    family = ready("fixed", weights={"l": 3, "l1": 0.5})
    assert descended(family, VALUES)[1].tolist() == pytest.approx([3, 0.5, 3]), "a name with numbers behind it"


def test_random_weights_are_those_of_their_papers() -> None:
    uniform, normal = (descended(ready(name), VALUES)[1] for name in ("random", "rlw"))
    drawn = torch.rand(3, generator=torch.Generator().manual_seed(1))
    assert uniform.tolist() == pytest.approx((drawn / drawn.sum()).tolist())
    assert normal.tolist() == pytest.approx(torch.randn(3, generator=torch.Generator().manual_seed(1)).softmax(0).tolist())


@pytest.mark.parametrize("form", ["kendall", "half", "positive"])
def test_uncertainty_is_its_formula(form: str) -> None:
    weighting = ready("uncertainty", form=form, start=0.4)
    total, found = descended(weighting, VALUES)
    wanted = 0.0
    for loss, kind in zip(VALUES.tolist(), (REGRESSION, LIKELIHOOD, OTHER), strict=True):
        variance = math.exp(0.4)
        if form == "positive":
            wanted += loss / (2 * variance) + math.log(1 + variance)
        else:
            wanted += loss / variance * (1 if form == "kendall" and kind == LIKELIHOOD else 0.5) + 0.4 / 2
    assert float(total) == pytest.approx(wanted, rel=1e-5)
    assert found[0] == pytest.approx(math.exp(-0.4) / 2)
    assert weighting.learned()["log_variance"].tolist() == pytest.approx([0.4] * 3)


def test_the_library_agrees_where_it_has_the_formula() -> None:
    from torchjd import scalarization

    for name, more, theirs in (
        ("uncertainty", {"form": "half"}, scalarization.UW(3)),
        ("imtl_l", {}, scalarization.IMTLL(3)),
        ("dwa", {}, scalarization.DWA(2.0)),
        ("geometric", {}, scalarization.GeometricMean()),
        ("famo", {}, scalarization.FAMO(3)),
    ):
        ours = ready(name, **more)
        for epoch in range(4):  # so that what they remember is compared, too
            for batch in range(3):
                values = VALUES * (1 + 0.3 * epoch + 0.1 * batch + torch.tensor([0.0, 0.2, -0.1]) * epoch)
                given = values.clone().requires_grad_()
                total = theirs(given)
                wanted = torch.autograd.grad(total, given)[0]
                mine, found = descended(ours, values)
                torch.testing.assert_close(mine, total.detach(), msg=name)
                torch.testing.assert_close(found, wanted, msg=name)
                if name == "famo":
                    theirs.update(values * 0.9)
                    ours.after_step(named(values * 0.9))
            if name == "dwa":
                theirs.step()
                epochs = [VALUES * (1 + 0.3 * epoch + 0.1 * b + torch.tensor([0.0, 0.2, -0.1]) * epoch) for b in range(3)]
                ours.after_epoch({k: float(v) for k, v in named(torch.stack(epochs).mean(0)).items()})


def test_dwa_favours_the_loss_that_falls_less() -> None:
    weighting = ready("dwa", k=2)
    for means in ({"l0": 1.0, "l1": 1.0}, {"l0": 0.5, "l1": 1.0}):
        assert descended(weighting, VALUES[:2])[1].tolist() == [1, 1], "the first two epochs are equal"
        weighting.after_epoch(means)
    wanted = 2 * torch.tensor([0.5, 1.0]).div(2).softmax(0)
    torch.testing.assert_close(descended(weighting, VALUES[:2])[1], wanted)


def test_pcgrad_is_its_projections() -> None:
    jacobian = gradients(2)
    jacobian[1] = -jacobian[0] * 0.4 + jacobian[1]
    a, b = jacobian
    assert a @ b < 0
    wanted = (a - (a @ b) / (b @ b) * b) + (b - (a @ b) / (a @ a) * a)
    torch.testing.assert_close(weights("pcgrad", jacobian) @ jacobian, wanted)


def test_mgda_is_the_shortest_mean() -> None:
    jacobian = gradients(2)
    a, b = jacobian
    share = float(((b - a) @ b / (a - b).square().sum()).clamp(0, 1))
    assert weights("mgda", jacobian).tolist() == pytest.approx([share, 1 - share], abs=1e-3)


def test_cagrad_is_its_dual_problem() -> None:
    from scipy.optimize import minimize

    jacobian = gradients(3)
    mean = jacobian.mean(0)
    radius = 0.4 * float(mean.norm())

    def dual(w: np.ndarray) -> float:
        mixed = torch.tensor(w) @ jacobian
        return float(mixed @ mean + radius * mixed.norm())

    constraint = {"type": "eq", "fun": lambda w: w.sum() - 1}
    w = minimize(dual, np.ones(3) / 3, bounds=[(0, 1)] * 3, constraints=[constraint], tol=1e-12).x
    mixed = torch.tensor(w) @ jacobian
    wanted = mean + radius * mixed / mixed.norm()
    torch.testing.assert_close(weights("cagrad", jacobian) @ jacobian, wanted, rtol=1e-3, atol=1e-3)
    assert float((weights("cagrad", jacobian, options={"c": 0.0}) - 1 / 3).abs().max()) < 1e-6


def test_imtl_g_projects_equally_on_every_gradient() -> None:
    jacobian = gradients(3) * torch.tensor([[1.0], [10.0], [0.1]])
    direction = weights("imtl_g", jacobian) @ jacobian
    projections = jacobian @ direction / jacobian.norm(dim=1)
    assert projections.tolist() == pytest.approx([float(projections[0])] * 3)


def test_nash_is_a_bargain() -> None:
    jacobian = gradients(3)
    found = weights("nash", jacobian)
    gramian = jacobian @ jacobian.T
    products = found * (gramian @ found)
    assert (products / products.mean()).tolist() == pytest.approx([1] * 3, rel=0.02)


def test_aligned_gradients_count_alike_where_they_are_orthogonal() -> None:
    jacobian = torch.diag(torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64))
    assert (weights("aligned", jacobian) @ jacobian).tolist() == pytest.approx([0.1 / 3] * 3)


def test_upgrad_harms_no_loss_and_is_the_mean_where_nothing_conflicts() -> None:
    for seed in range(5):
        jacobian = gradients(3, seed=seed)
        assert float((jacobian @ (weights("upgrad", jacobian) @ jacobian)).min()) > -1e-3
    assert weights("upgrad", gradients().abs()).tolist() == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_gradnorm_takes_the_step_of_its_loss() -> None:
    jacobian, losses = gradients(3) * torch.tensor([[1.0], [5.0], [0.2]]), torch.tensor([1.0, 2.0, 3.0])
    weighting = ready("gradnorm", alpha=1.5, rate=0.025)
    assert isinstance(weighting, GradientWeighting)
    w = nn.Parameter(torch.ones(3, dtype=torch.float64))
    adam = torch.optim.Adam([w], lr=0.025)
    for step in range(4):
        now = losses * (1 - 0.1 * step * torch.tensor([1.0, 0.2, 0.5]))
        norms = (w[:, None] * jacobian).norm(dim=1)
        ratios = (now / losses).double()
        wanted = norms.detach().mean() * (ratios / ratios.mean()) ** 1.5
        adam.zero_grad()
        (norms - wanted).abs().sum().backward()
        adam.step()
        with torch.no_grad():
            w *= 3 / w.sum()
        found = weighting.weigh(jacobian @ jacobian.T, named(now), DRAWN)
        torch.testing.assert_close(found.double(), w.detach(), rtol=1e-4, atol=1e-5)


def test_gradnorm_without_alpha_makes_norms_equal() -> None:
    jacobian = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    weighting = ready("gradnorm", k=2, alpha=0.0)
    assert isinstance(weighting, GradientWeighting)
    for _ in range(400):
        found = weighting.weigh(jacobian @ jacobian.T, named(torch.ones(2)), DRAWN)
    assert found.tolist() == pytest.approx([1.6, 0.4], abs=0.06)


def test_graddrop_draws_one_sign_for_each_coordinate() -> None:
    jacobian = torch.tensor([[3.0, 1.0, -2.0], [-1.0, 2.0, -1.0]])
    weighting = ready("graddrop")
    assert isinstance(weighting, GradientWeighting)
    drawn = torch.stack([weighting.combine(jacobian, DRAWN) for _ in range(2000)])
    assert set(drawn[:, 0].tolist()) == {3.0, -1.0}
    assert float((drawn[:, 0] > 0).float().mean()) == pytest.approx(0.5 * (1 + 2 / 4), abs=0.04)
    assert drawn[:, 1:].unique(dim=0).tolist() == [[3.0, -3.0]]


# What they claim about scales

FREE_OF_SCALE = ["imtl_g", "nash"]


@pytest.mark.parametrize("name", FREE_OF_SCALE)
def test_a_loss_in_other_units_does_not_turn_the_direction(name: str) -> None:
    jacobian = gradients(3)
    one = weights(name, jacobian) @ jacobian
    units = torch.tensor([[1.0], [30.0], [0.02]])
    other = weights(name, jacobian * units) @ (jacobian * units)
    assert float(nn.functional.cosine_similarity(one, other, dim=0)) > 0.999
    plain = jacobian.mean(0), (jacobian * units).mean(0)
    assert float(nn.functional.cosine_similarity(*plain, dim=0)) < 0.99, "or the test could not tell"


@pytest.mark.parametrize("name", ["geometric", "famo"])
def test_losses_that_are_logarithms_have_no_units(name: str) -> None:
    """The gradient by what a loss is of: units times the derivative by the loss."""
    units = torch.tensor([1.0, 1000.0, 0.01])
    (_, one), (_, other) = descended(ready(name), VALUES), descended(ready(name), VALUES * units)
    assert float(nn.functional.cosine_similarity(one, other * units, dim=0)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["uncertainty", "imtl_l"])
def test_learned_scales_take_the_units_away_once_learned(name: str) -> None:
    shares = []
    for units in (torch.ones(3), torch.tensor([1.0, 50.0, 0.1])):
        weighting = ready(name)
        adam = torch.optim.Adam(weighting.parameters(), lr=0.05)
        for _ in range(3000):
            adam.zero_grad()
            weighting(named(VALUES * units), DRAWN).backward()
            adam.step()
        shares.append(descended(weighting, VALUES * units)[1] * VALUES * units)
    assert shares[0].tolist() == pytest.approx(shares[1].tolist(), rel=1e-3)


# Two quadratics, whose Pareto front is the line between their minima

ENDS = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])


class Quadratics(Shared):
    def module(self) -> nn.Module:
        module = nn.Module()
        module.place = nn.Parameter(torch.tensor([0.3, 1.5]))
        return module

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        distances = (module.place - ENDS).square().sum(1)
        return {"valence": 0.1 + distances[0], "arousal": 0.1 + 3 * distances[1]}


@pytest.mark.parametrize("name", NAMES)
def test_every_weighting_finds_the_pareto_front_of_two_quadratics(name: str, tmp_path: Path) -> None:
    fitted = fit(Quadratics(), tmp_path, make(name), epochs=30, batch_size=8, lr=0.05, schedule={"name": "cosine"})
    x, y = fitted.state["place"].tolist()
    assert abs(y) < 0.05, f"off the front: ({x:.3f}, {y:.3f})"
    assert -1.05 < x < 1.05


def test_where_on_the_front_one_ends_is_what_it_weighs(tmp_path: Path) -> None:
    """(x + 1) : (1 - x) is as 3 w2 : w1."""
    fitted = fit(Quadratics(), tmp_path, make("equal"), epochs=30, batch_size=8, lr=0.05, schedule={"name": "cosine"})
    assert float(fitted.state["place"][0]) == pytest.approx(0.5, abs=0.02)
    assert fitted.history[-1]["weight/valence"] == pytest.approx(0.5)
    weighed = fit(Quadratics(), tmp_path / "b", make("fixed", weights={"valence": 9.0}), epochs=30, batch_size=8, lr=0.05)
    assert float(weighed.state["place"][0]) == pytest.approx(-0.5, abs=0.02)


# Uncertainty is the noise


class Noisy(Shared):
    """Two constants to regress whose labels have noise of 0.2 and 0.5."""

    noise = (0.2, 0.5)

    def setup(self, train: Data, validation: Data, targets: Any, classes: Any, previous: Any) -> None:
        rng = np.random.default_rng(5)
        self.labels = {part: torch.tensor(rng.normal((0.3, -0.4), self.noise, (4000, 2)), dtype=torch.float32) for part in (True, False)}

    def module(self) -> nn.Module:
        module = nn.Module()
        module.mean = nn.Parameter(torch.zeros(2))
        return module

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        errors = (module.mean - step.rows(self.labels[step.training])).square().mean(0)
        return {"valence": errors[0], "arousal": errors[1]}


def test_learned_sigmas_are_the_known_noise(tmp_path: Path) -> None:
    fitted = fit(Noisy(), tmp_path, make("uncertainty", lr=0.05), epochs=6, batch_size=50, lr=0.02, schedule={"name": "cosine"})
    for name, noise in zip(("valence", "arousal"), Noisy.noise, strict=True):
        sigma = math.exp(fitted.history[-1][f"log_variance/{name}"] / 2)
        assert sigma == pytest.approx(noise, rel=0.05)
        assert fitted.history[-1][f"weight/{name}"] == pytest.approx(0.5 / noise**2, rel=0.1)


# Labels that are missing


class Sparse(Shared):
    """Arousal has a label in every other batch of the first epoch, in none of the second and in all of the third."""

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        found = super().losses(module, step)
        epoch = round(step.progress * 3)
        absent = step.training and (epoch == 2 or (epoch == 1 and step.index[0, 0] % 2 == 0))
        return found | {"arousal": found["arousal"] * 0} if absent else found


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_without_labels_is_left_alone(name: str, tmp_path: Path) -> None:
    weighting = make(name)
    fitted = fit(Sparse(), tmp_path, weighting)
    first, second, third = fitted.history
    assert all(math.isfinite(value) for entry in fitted.history for value in entry.values())
    assert second["train/arousal"] == 0 < first["train/arousal"]
    assert "weight/arousal" not in second
    assert name == "graddrop" or {"weight/valence", "weight/arousal"} <= third.keys()
    for what in set(weighting.learned()) - {"share"}:  # one share of many moves with the others
        told = f"{what}/arousal"
        assert second[told] == pytest.approx(first[told], abs=0.02), "it learns nothing where there is no label"
    assert third["train/arousal"] < 1.5 * first["train/arousal"]


class Half(Shared):
    """Arousal has no label at all."""

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        found = super().losses(module, step)
        return found | {"arousal": found["arousal"] * 0}


@pytest.mark.parametrize("name", NAMES)
def test_one_loss_is_learned_whatever_others_are_never_labelled(name: str, tmp_path: Path) -> None:
    fitted = fit(Half(), tmp_path, make(name))
    assert fitted.history[-1]["train/valence"] < 0.9 * fitted.history[0]["train/valence"]
    assert not any("weight/arousal" in entry for entry in fitted.history)


class Alone(Shared):
    """Two networks that share nothing."""

    def module(self) -> nn.Module:
        def net() -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 1))

        return nn.ModuleDict({"valence": net(), "arousal": net()})

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        labels = step.rows(self.labels[step.training])
        made = {name: step.gather(module[name](step.frames()))[:, 0] for name in ("valence", "arousal")}
        return {name: (made[name] - labels[:, place]).square().mean() for place, name in enumerate(made)}


@pytest.mark.parametrize("name", BY_GRADIENTS)
def test_where_nothing_is_shared_each_loss_descends_alone(name: str, tmp_path: Path) -> None:
    fitted = fit(Alone(), tmp_path / "a", make(name))
    plain = fit(Alone(), tmp_path / "b", make("fixed"))
    for key, values in plain.state.items():
        torch.testing.assert_close(fitted.state[key], values, rtol=1e-3, atol=1e-5)


def test_what_one_loss_alone_reaches_takes_its_own_gradient(tmp_path: Path) -> None:
    """One step of plain descent, by hand."""
    stage = Shared()
    stage.setup(data(), data(20, seed=1), (), (), None)
    jacobians = {}

    class Seen(Recording):
        def weigh(self, gramian: Tensor, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
            jacobians["gramian"] = gramian
            return torch.tensor([2.0, -1.0])

    fitted = fit(Shared(), tmp_path, Seen(), epochs=1, batch_size=50, lr=0.1, optimizer="sgd")
    seed = seeds.seed_of(3, "Shared")
    torch.manual_seed(seeds.seed_of(seed, "module"))
    module: Any = stage.module()
    x, y = torch.from_numpy(data().frames).float().permute(0, 3, 1, 2) / 255, stage.labels[True]
    hidden = module["trunk"](x)
    losses = [(module[n](hidden)[:, 0] - y[:, p]).square().mean() * (1 + 9 * p) for p, n in enumerate(("valence", "arousal"))]
    shared = list(module["trunk"].parameters())
    rows = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses]
    flat = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]).double()
    torch.testing.assert_close(jacobians["gramian"], flat @ flat.T, rtol=1e-4, atol=1e-6)
    for p, n in enumerate(("valence", "arousal")):
        own = torch.autograd.grad(losses[p], module[n].weight, retain_graph=True)[0]
        torch.testing.assert_close(fitted.state[f"{n}.weight"], (module[n].weight - 0.1 * own).detach(), rtol=1e-4, atol=1e-5)
    wanted = module["trunk"][1].weight - 0.1 * (2 * rows[0][0] - rows[1][0])
    torch.testing.assert_close(fitted.state["trunk.1.weight"], wanted.detach(), rtol=1e-4, atol=1e-5)


class Recording(GradientWeighting):
    def setup(self, objectives: Mapping[str, str]) -> None:
        super().setup(objectives)


# Going on after a kill


class Killed(Exception):
    pass


class KilledAfter(training.Local):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, on_report=self.die)

    def die(self, metrics: dict[str, float]) -> None:
        if metrics["epoch"] == 2:
            raise Killed


@pytest.mark.parametrize("zero", [0, 2, 3])
@pytest.mark.parametrize("name", ["dwa", "famo", "gradnorm", "imtl_l", "nash", "uncertainty"])
def test_what_a_weighting_remembers_is_in_the_checkpoint(name: str, zero: int, tmp_path: Path) -> None:
    trainer: dict[str, Any] = {"epochs": 4, "resources": {"zero": zero}}
    whole = fit(Shared(), tmp_path / "a", make(name), **trainer)
    with pytest.raises(Killed):
        fit(Shared(), tmp_path / "b", make(name), KilledAfter(tmp_path / "b"), **trainer)
    resumed = fit(Shared(), tmp_path / "b", make(name), **trainer)
    for key, values in whole.state.items():
        assert torch.equal(values, resumed.state[key]), key
    strip = [[{k: v for k, v in entry.items() if not k.endswith("seconds")} for entry in fitted.history] for fitted in (whole, resumed)]
    assert strip[0] == strip[1]


# What cannot be


@pytest.mark.parametrize(
    ("name", "more", "trainer", "says"),
    [
        ("mgda", {}, {"precision": "fp16"}, "fp16"),
        ("famo", {}, {"accumulate": 2}, "accumulate"),
        ("fixed", {"weights": {"valense": 1}}, {}, "did you mean 'valence'"),
        ("fixed", {"weights": {"valence": -1}}, {}, "from 0 on"),
        ("fixed", {"weights": {"valence": math.nan}}, {}, "a weight of nan for valence"),
        ("mgda", {"method": "trimmed_mean"}, {}, "no weighting of gradients"),
        ("cagrad", {"options": {"c": -1}}, {}, "non-negative"),
        ("cagrad", {"options": {"radius": 1}}, {}, "radius"),
        ("uncertainty", {"form": "kendal"}, {}, "did you mean 'kendall'"),
        ("dwa", {"temperature": 0}, {}, "above 0"),
        ("gradnorm", {"alpha": -1}, {}, "from 0"),
        ("nash", {"steps": 0}, {}, "from 1"),
        ("graddrop", {"leak": 2}, {}, "from 0 to 1"),
        ("random", {"draw": "beta"}, {}, "beta"),
    ],
)
def test_what_cannot_be_is_refused(name: str, more: dict[str, Any], trainer: dict[str, Any], says: str, tmp_path: Path) -> None:
    from harness import trainer as trainers

    def prepare() -> None:
        weighting = make(name, **more)
        weighting.setup(Shared().objectives())
        weighting.check(trainers.read(trainer))

    with pytest.raises(RequestError, match=says) as refused:
        prepare()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["dwa", "famo", "fixed", "gradnorm", "imtl_l", "nash", "uncertainty"])
def test_a_stage_that_does_not_name_its_losses_can_be_weighed_by_some_only(name: str) -> None:
    with pytest.raises(RequestError, match="does not say which losses"):
        make(name).setup({})


class Diverging(Shared):
    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        found = super().losses(module, step)
        return found | {"arousal": (found["arousal"] - found["arousal"].detach()).sqrt() + 1}  # 1, with an endless gradient


@pytest.mark.parametrize("name", BY_GRADIENTS)
def test_a_gradient_that_is_not_finite_ends_the_fit_with_a_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(FitError, match="gradient of a loss is not finite at epoch 1, step 1"):
        fit(Diverging(), tmp_path, make(name))


class Negative(Shared):
    """Losses fall below 0, as those with predicted variances do."""

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        found = super().losses(module, step)
        return found | {"valence": found["valence"] - 5}


@pytest.mark.parametrize("name", ["famo", "geometric"])
def test_logarithms_of_losses_below_zero_end_the_fit_with_a_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"at epoch 1, step 1$"):
        fit(Negative(), tmp_path, make(name))


@pytest.mark.parametrize("name", sorted({*NAMES} - {"famo", "geometric"}))
def test_losses_below_zero_are_learned_by_all_others(name: str, tmp_path: Path) -> None:
    fitted = fit(Negative(), tmp_path, make(name))
    assert all(math.isfinite(value) for entry in fitted.history for value in entry.values())


@pytest.mark.parametrize("name", ["uncertainty", "mgda", "famo"])
def test_bf16_learns_nearly_the_same(plain: dict[str, training.Fitted], name: str, tmp_path: Path) -> None:
    fitted = fit(Shared(), tmp_path, make(name), precision="bf16")
    assert fitted.history[-1]["train/valence"] == pytest.approx(plain[name].history[-1]["train/valence"], abs=0.05)


# Several workers


def _worker(folder: Path) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for name in NAMES:
        for zero in (0, 1, 2, 3):
            fitted = fit(
                Shared(),
                folder / f"{name}-{zero}",
                make(name),
                training.Local(folder / f"{name}-{zero}", rank=rank, world=world),
                resources={"workers": world, "zero": zero, "checkpoint_every": 0},
            )
            if rank == 0:
                training.save_weights(fitted.state, folder / f"{name}-{zero}.safetensors")
                (folder / f"{name}-{zero}.json").write_text(json.dumps(fitted.history))


def test_two_workers_learn_what_one_learns(plain: dict[str, training.Fitted], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    workers = []
    for rank in range(2):
        with (tmp_path / f"said-{rank}.txt").open("w") as said:
            environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            workers.append(subprocess.Popen([sys.executable, __file__, str(tmp_path)], env=environment, stderr=said))
    for rank, worker in enumerate(workers):
        assert worker.wait(timeout=200) == 0, (tmp_path / f"said-{rank}.txt").read_text()[-3000:]
    for name in NAMES:
        for zero in (0, 1, 2, 3):
            state = training.load_weights(tmp_path / f"{name}-{zero}.safetensors")
            for key, values in state.items():
                assert torch.allclose(values, plain[name].state[key], atol=1e-4), f"{name} at ZeRO {zero}: {key}"
            history = json.loads((tmp_path / f"{name}-{zero}.json").read_text())
            wanted = plain[name].history[-1]
            assert history[-1]["train/arousal"] == pytest.approx(wanted["train/arousal"], rel=1e-3), f"{name} at ZeRO {zero}"


if __name__ == "__main__":
    _worker(Path(sys.argv[1]))
