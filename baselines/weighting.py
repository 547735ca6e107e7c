"""Weightings: how the losses of a stage become one gradient (``harness.weighting``). The losses' names are the stage's.

What is more than a line of arithmetic is TorchJD's (papers 7); GradNorm, which it has not, is ours. A batch may lack the labels of a loss:
no weighting learns from it then, which is why the one-line formulas are here and not TorchJD's, against which they are tested.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import FitError, RequestError, did_you_mean
from harness.trainer import Trainer
from harness.weighting import LIKELIHOOD, GradientWeighting, Weighting

FORMS = ("kendall", "half", "positive")
DRAWS = ("uniform", "normal")


class Equal(Weighting):
    """The mean of the losses: the plain sum, which a tuned learning rate makes the same."""

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        return torch.stack(list(losses.values())).mean()


class Fixed(Weighting):
    """A weighted sum, the weights by the names of the losses; one that is not named weighs 1.

    Args:
        weights: Finite and not below 0. A name that no loss has stands for all that have a number behind it: ``au`` for au1, au2 …

    Raises:
        RequestError: A weight that cannot be; at set-up, a name that no loss has.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        weights = weights or {}
        for name, weight in weights.items():
            if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                where = f"weighting.weights.{name}"
                raise RequestError(f"a weight of {weight!r} for {name}", where=where, remedy="give a number from 0 on")
        self.weights = dict(weights)

    def setup(self, objectives: Mapping[str, str]) -> None:
        super().setup(objectives)
        self.known(objectives)
        families = {name.rstrip("0123456789") for name in objectives}
        for name in sorted(self.weights.keys() - objectives.keys() - families):
            raise RequestError(f"no loss is called {name!r}", where="weighting.weights", remedy=did_you_mean(name, objectives))
        self.of = {name: self.weights.get(name, self.weights.get(name.rstrip("0123456789"), 1.0)) for name in objectives}

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        return torch.stack([self.of[name] * loss for name, loss in losses.items()]).sum()


class Random(Weighting):
    """Weights that sum to 1, new in every step.

    Args:
        draw: ``uniform`` numbers divided by their sum, as MT-CLAR's release draws them (papers 1.4); ``normal`` numbers through a
            softmax, as random loss weighting (RLW, Lin et al. 2022) does.
    """

    def __init__(self, draw: str = "uniform") -> None:
        super().__init__()
        if draw not in DRAWS:
            raise RequestError(f"no draw is called {draw!r}", where="weighting.draw", remedy=did_you_mean(str(draw), DRAWS))
        self.draw = draw

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        values = torch.stack(list(losses.values()))
        if self.draw == "normal":
            weights = torch.randn(len(values), generator=generator).softmax(0).to(values.device)
            return (values * weights).sum()
        weights = torch.rand(len(values), generator=generator).to(values.device)
        return (values * weights).sum() / weights.sum()


class Uncertainty(Weighting):
    """Learned uncertainties (Kendall, Gal & Cipolla 2018), with s = log σ² a number for each loss.

    A loss that has no label in a batch moves its s as little as its network. 1 - CCC is no likelihood, so its σ is no standard deviation;
    that of a mean squared error is.

    Args:
        form: ``kendall``: ½e^(-s) L + ½s of a regression and e^(-s) L + ½s of a likelihood; ``half``: ½e^(-s) L + ½s of
            every loss, as TorchJD and LibMTL have it; ``positive``: ½e^(-s) L + log(1 + e^s), which is never negative.
        start: Of every s.
        lr: Learning rate of s; null for that of the network.

    Raises:
        RequestError: An unknown form, or a number that cannot be.
    """

    def __init__(self, form: str = "kendall", start: float = 0.0, lr: float | None = None) -> None:
        super().__init__()
        if form not in FORMS:
            raise RequestError(f"no form is called {form!r}", where="weighting.form", remedy=did_you_mean(str(form), FORMS))
        self.form, self.start, self.lr = form, _number(start, "start"), None if lr is None else _number(lr, "lr", above=0)

    def setup(self, objectives: Mapping[str, str]) -> None:
        super().setup(objectives)
        self.s = nn.Parameter(torch.full((self.known(objectives),), self.start))
        factors = [1.0 if self.form == "kendall" and kind == LIKELIHOOD else 0.5 for kind in objectives.values()]
        self.register_buffer("factors", torch.tensor(factors), persistent=False)

    factors: Tensor

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        values, places = _of(losses, self.names)
        s = self.s[places]
        price = nn.functional.softplus(s) if self.form == "positive" else s / 2
        return (self.factors[places] * torch.exp(-s) * values + price).sum()

    def learned(self) -> dict[str, Tensor]:
        return {"log_variance": self.s.detach()}


class ImtlL(Weighting):
    """Scales that are learned so that every scaled loss is 1 (IMTL-L, Liu et al. 2021): e^s L - s.

    Args:
        lr: Learning rate of s; null for that of the network.
    """

    def __init__(self, lr: float | None = None) -> None:
        super().__init__()
        self.lr = None if lr is None else _number(lr, "lr", above=0)

    def setup(self, objectives: Mapping[str, str]) -> None:
        super().setup(objectives)
        self.s = nn.Parameter(torch.zeros(self.known(objectives)))

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        values, places = _of(losses, self.names)
        s = self.s[places]
        return (torch.exp(s) * values - s).sum()

    def learned(self) -> dict[str, Tensor]:
        return {"log_scale": self.s.detach()}


class Geometric(Weighting):
    """The geometric mean of the losses (GLS, Chennupati et al. 2019), whatever their scales. Losses have to be positive."""

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        from torchjd.scalarization import GeometricMean

        below = [name for name, loss in losses.items() if float(loss.detach()) < 0]
        if below:  # of predicted variances, say
            raise FitError(f"a geometric mean has no losses below 0, as {', '.join(below)} is")
        total: Tensor = GeometricMean()(torch.stack(list(losses.values())))
        return total


class Dwa(Weighting):
    """Dynamic weight average (Liu et al. 2019): a loss that fell less over the last two epochs weighs more.

    k softmax(r / T) with r the ratio of the means of the last epoch and the one before; 1 in the first two epochs. A loss that had no
    label in an epoch keeps the mean it had.

    Args:
        temperature: T; larger is more equal.
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        self.temperature = _number(temperature, "temperature", above=0)

    def setup(self, objectives: Mapping[str, str]) -> None:
        super().setup(objectives)
        self.register_buffer("means", torch.full((2, self.known(objectives)), math.nan))

    means: Tensor
    """Of the epoch before the last one, and of the last one."""

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        values, places = _of(losses, self.names)
        rates = self.means[1] / self.means[0]
        weights = len(rates) * torch.where(rates.isnan(), 1.0, rates).div(self.temperature).softmax(0)
        return (values * weights[places]).sum()

    def after_epoch(self, losses: dict[str, float]) -> None:
        before = self.means[1].clone()
        now = [losses.get(name, math.nan) for name in self.names]
        self.means[0], self.means[1] = before, torch.tensor(now)
        self.means[1] = torch.where(self.means[1].isnan(), before, self.means[1])


class Famo(Weighting):
    """Fast adaptive multitask optimization (Liu et al. 2023): logits that follow which loss a step has lowered least.

    It looks at each batch again after the step, which is a second pass forward. A loss without a label counts as one that did not change.

    Args:
        rate: Learning rate of the logits, by an Adam of their own.
        decay: Weight decay of the logits.
    """

    again = True

    def __init__(self, rate: float = 0.025, decay: float = 1e-3) -> None:
        super().__init__()
        self.rate, self.decay = _number(rate, "rate", above=0), _number(decay, "decay", least=0)

    def setup(self, objectives: Mapping[str, str]) -> None:
        super().setup(objectives)
        # In a tuple, because its logits are its own optimizer's business and not the engine's
        self._famo = (_resumable_famo(self.known(objectives), self.rate, self.decay),)

    def check(self, trainer: Trainer) -> None:
        if trainer.accumulate > 1:
            what = "FAMO compares a batch's losses before and after its step, and an accumulated step is of several batches"
            raise RequestError(what, where="trainer.accumulate", remedy="set it to 1, and trainer.batch_size higher")

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        total: Tensor = self._famo[0](self._every(losses))
        return total

    def after_step(self, losses: dict[str, Tensor]) -> None:
        self._famo[0].update(self._every(losses))

    def learned(self) -> dict[str, Tensor]:
        return {"share": self._famo[0].shares()}

    def get_extra_state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._famo[0].resumable()
        return state

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._famo[0].resume(state)

    def _every(self, losses: dict[str, Tensor]) -> Tensor:
        """``(k,)``, 1 for a loss that is not there: its logarithm is 0 before and after."""
        some = next(iter(losses.values()))
        self._famo[0].to(some.device)
        return torch.stack([losses.get(name, torch.ones_like(some)) for name in self.names])


def _resumable_famo(k: int, rate: float, decay: float) -> Any:
    """TorchJD's FAMO, whose logits and their optimizer can be kept and taken up again."""
    from torchjd.scalarization import FAMO

    class Resumable(FAMO):
        def shares(self) -> Tensor:
            return self._w.detach().softmax(0)

        def resumable(self) -> dict[str, Any]:
            return {"logits": self._w.detach().cpu(), "optimizer": self._optimizer and self._optimizer.state_dict()}

        def resume(self, state: dict[str, Any]) -> None:
            with torch.no_grad():
                self._w.copy_(state["logits"])
            if state["optimizer"]:
                self._optimizer = torch.optim.Adam([self._w], lr=self.lr, weight_decay=self.weight_decay)
                self._optimizer.load_state_dict(state["optimizer"])

    return Resumable(k, lr=rate, weight_decay=decay)


class GradNorm(GradientWeighting):
    """Weights under which the losses' gradients have norms that follow their relative training rates (Chen et al. 2018).

    The weights descend Σ |w_i ‖∇L_i‖ - mean(w ‖∇L‖) r_i^alpha|, with r_i the loss over its first value, divided by the mean of
    these ratios, and are then scaled to sum to their number. The norms are by all shared parameters, where the paper, to save
    time, takes the last shared layer.

    Args:
        alpha: How strongly a loss that has fallen less is favoured; 0 makes the norms equal.
        rate: Learning rate of the weights, by an Adam of their own.
    """

    def __init__(self, alpha: float = 1.5, rate: float = 0.025) -> None:
        super().__init__()
        self.alpha, self.rate = _number(alpha, "alpha", least=0), _number(rate, "rate", above=0)

    def setup(self, objectives: Mapping[str, str]) -> None:
        super().setup(objectives)
        k = self.known(objectives)
        self.register_buffer("first", torch.full((k,), math.nan))
        self._weights = (nn.Parameter(torch.ones(k)),)  # not the engine's to descend
        self._optimizer = torch.optim.Adam(self._weights, lr=self.rate)

    first: Tensor

    def weigh(self, gramian: Tensor, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        values, places = _of(losses, self.names)
        seen = self.first[places]
        self.first[places] = torch.where(seen.isnan(), values, seen)
        weights = self._weights[0]
        norms = gramian.diagonal().sqrt().cpu()
        now = weights.detach()[places.cpu()] * norms
        ratios = (values / self.first[places]).double().cpu()
        wanted = now.mean() * (ratios / ratios.mean()) ** self.alpha
        weights.grad = torch.zeros_like(weights)
        weights.grad[places.cpu()] = (torch.sign(now - wanted) * norms).float()
        self._optimizer.step()
        with torch.no_grad():
            weights.clamp_(min=1e-4)  # below 0 a loss would be ascended
            weights.mul_(len(weights) / weights.sum())
        return weights.detach()[places.cpu()]

    def get_extra_state(self) -> dict[str, Any]:
        return {"weights": self._weights[0].detach(), "optimizer": self._optimizer.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self._weights[0].copy_(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])


class Gradients(GradientWeighting):
    """Weights that TorchJD makes of the inner products of the losses' gradients.

    Args:
        method: ``pcgrad`` (Yu et al. 2020), ``cagrad`` (Liu et al. 2021), ``mgda`` (Sener & Koltun 2018), ``imtl_g`` (Liu et al. 2021),
            ``aligned`` (Senushkin et al. 2023), ``upgrad`` (Quinton & Rey 2024).
        options: Of TorchJD's class of that name: ``c`` of CAGrad, ``scale_mode`` of AlignedMTL.

    Raises:
        RequestError: A method that is not there or is no weighting of gradients, or an option it does not have.
    """

    def __init__(self, method: str, options: Mapping[str, Any] | None = None) -> None:
        from torchjd import aggregation

        super().__init__()
        if method not in _METHODS:
            remedy = did_you_mean(str(method), _METHODS)
            raise RequestError(f"no weighting of gradients is called {method!r}", where="weighting.method", remedy=remedy)
        self.method = method
        try:
            self.weights = getattr(aggregation, _METHODS[method])(**(options or {}))
        except (TypeError, ValueError, ImportError) as error:
            raise RequestError(f"{method}: {str(error).splitlines()[0]}", where="weighting.options") from None

    def weigh(self, gramian: Tensor, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        weights: Tensor = self.weights(_scaled(gramian))
        return weights


_METHODS = {
    "pcgrad": "PCGradWeighting",
    "cagrad": "CAGradWeighting",
    "mgda": "MGDAWeighting",
    "imtl_g": "IMTLGWeighting",
    "aligned": "AlignedMTLWeighting",
    "upgrad": "UPGradWeighting",
}


class Nash(GradientWeighting):
    """The Nash bargaining solution of the losses (Navon et al. 2022): weights a with G a = 1 / a, G the gradients' inner products.

    Args:
        steps: Most steps of the solver, which starts from the weights before.
    """

    def __init__(self, steps: int = 20) -> None:
        super().__init__()
        if type(steps) is not int or steps < 1:
            raise RequestError(f"{steps!r} steps", where="weighting.steps", remedy="give a whole number from 1")
        self.steps = steps
        self._solvers: dict[int, Any] = {}

    def setup(self, objectives: Mapping[str, str]) -> None:
        super().setup(objectives)
        self.register_buffer("before", torch.ones(self.known(objectives), dtype=torch.float64))

    before: Tensor

    def weigh(self, gramian: Tensor, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        from torchjd.aggregation import NashMTL

        k = len(gramian)
        if k not in self._solvers:  # its problem is of so many losses
            self._solvers[k] = NashMTL(k, max_norm=0.0, optim_niter=self.steps).weighting
        _, places = _of(losses, self.names)
        solver = self._solvers[k]
        solver.prvs_alpha = self.before[places].cpu().numpy()
        # All it asks of a Jacobian are its inner products, so a square root of these will do
        values, vectors = torch.linalg.eigh(_scaled(gramian))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CVXPY's, of how fast it could be
            weights: Tensor = solver(vectors * values.clamp_min(0).sqrt())
        self.before[places] = weights.to(self.before)
        return weights


class GradDrop(GradientWeighting):
    """One sign for every coordinate of the gradient, drawn by how the losses agree on it (Chen et al. 2020). It has no weights.

    Args:
        leak: Share of the gradients that is let through whatever the sign.
    """

    elementwise = True

    def __init__(self, leak: float = 0.0) -> None:
        super().__init__()
        self.leak = _number(leak, "leak", least=0, most=1)

    def combine(self, jacobian: Tensor, generator: torch.Generator) -> Tensor:
        from torchjd.aggregation import GradDrop as Drop

        direction: Tensor = Drop(leak=torch.full((len(jacobian),), self.leak, device=jacobian.device))(jacobian)
        return direction


def _of(losses: dict[str, Tensor], names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """``(m,)`` values of the losses that are there, and their ``(m,)`` places among all."""
    values = torch.stack(list(losses.values()))
    return values, torch.tensor([names.index(name) for name in losses], device=values.device)


def _scaled(gramian: Tensor) -> Tensor:
    """The same with a mean of 1 on its diagonal: TorchJD's solvers take very small gradients for none."""
    return gramian / gramian.diagonal().mean()


def _number(value: Any, name: str, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (least <= value <= most and value > above):
        limits = f"above {above:g}" if above > -math.inf else f"from {least:g}" + (f" to {most:g}" if most < math.inf else "")
        raise RequestError(f"{value!r} is out of range", where=f"weighting.{name}", remedy=f"give a number {limits}")
    return float(value)
