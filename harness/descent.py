"""How the losses of a batch become gradients in DeepSpeed's engine: by a scalar of their values, or by a direction made of their gradients.

Gradients of single losses are taken beside the engine, whose outputs can only be descended as they are. The direction made of them is given
to it as a scalar whose gradient it is, so that no pass goes through the module once more, and reductions, clipping and partitions are
DeepSpeed's, at every stage of ZeRO and with any number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness import seeds
from harness.baseline import Stage, Step
from harness.errors import FitError
from harness.recomputing import recomputing
from harness.trainer import Trainer
from harness.weighting import GradientWeighting, Weighting


class Seeded(Step, Protocol):
    """A step that knows what its random numbers follow from."""

    seed: int


class Objective(nn.Module):
    """A stage's module and its weighting as what DeepSpeed runs: a step in, the losses or the scalar to descend out."""

    def __init__(self, stage: Stage, weighting: Weighting, *, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.stage, self.module, self.weighting = stage, stage.module(), weighting
        self.names = tuple(stage.objectives())

    def forward(self, asked: Seeded | Direction, *, weighted: bool = False) -> tuple[Tensor, ...]:
        """The losses, in the order of their names. Weighted: the scalar, the losses, and its derivative by each of them.

        Of a direction, the scalar whose gradient it is.
        """
        with torch.autocast(asked.device.type, enabled=False):
            if isinstance(asked, Direction):
                return (asked.scalar(),)
        with recomputing(self.recompute):
            losses = self.stage.losses(self.module, asked)
        self.names = self.names or tuple(losses)
        if self.names != tuple(losses):
            raise FitError(f"{type(self.stage).__name__} gives losses {', '.join(losses)} where it gave {', '.join(self.names)}")
        found = {name: loss.float() for name, loss in losses.items()}
        if not weighted:
            return tuple(found.values())
        with torch.autocast(asked.device.type, enabled=False):
            values = torch.stack(list(found.values()))
            present = present_of(dict(zip(self.names, values.unbind(), strict=True)))
            total = self.weighting(present, asked.generator) if present else values.sum()
            (weights,) = torch.autograd.grad(total, values, retain_graph=True)
        return total, values.detach(), weights


def present_of(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses that say something: one of exactly 0 is of a batch without a label for it, and no weighting should learn from it."""
    zero = torch.stack([loss.detach() for loss in losses.values()]) == 0
    return {name: loss for (name, loss), absent in zip(losses.items(), zero.tolist(), strict=True) if not absent}


@dataclass
class Direction:
    """A gradient made by hand, as DeepSpeed can be asked to descend it: the sum of each parameter times its part of it.

    So no pass backward goes through the module once more, and DeepSpeed's reductions, clipping and partitions are as ever.
    """

    parts: list[tuple[nn.Parameter, Tensor]]
    device: torch.device

    def scalar(self) -> Tensor:
        return torch.stack([torch.dot(parameter.flatten(), part.flatten()) for parameter, part in self.parts]).sum()


class Descent:
    """How one batch's losses become gradients in the engine."""

    def __init__(self, engine: Any, objective: Objective, settings: Trainer, world: int) -> None:
        self.engine, self.objective, self.settings, self.world = engine, objective, settings, world
        self.weighting = objective.weighting
        self.by_gradients = isinstance(self.weighting, GradientWeighting)

    def __call__(self, step: Seeded, share: float) -> tuple[Tensor, Tensor]:
        """Add a batch's share of the gradient.

        Returns:
            The ``(k,)`` losses, and what each was multiplied with; nan for a loss that says nothing, and where nothing is multiplied.

        Raises:
            FitError: Something is not finite.
        """
        return self._by_gradients(step, share) if self.by_gradients else self._by_values(step, share)

    def again(self, step: Seeded) -> dict[str, Tensor]:
        """The losses of a batch once more, without gradient."""
        with torch.no_grad():
            losses = self.engine(step)
        return present_of(dict(zip(self.objective.names, losses, strict=True)))

    def _by_values(self, step: Seeded, share: float) -> tuple[Tensor, Tensor]:
        total, losses, weights = self.engine(step, weighted=True)
        self._check(losses, weights, total.detach())
        self.engine.backward(total * share, scale_wrt_gas=False)
        return losses, torch.where(losses == 0, torch.nan, weights)

    def _by_gradients(self, step: Seeded, share: float) -> tuple[Tensor, Tensor]:
        from deepspeed.runtime.torch_autocast import autocast_if_enabled
        from deepspeed.runtime.zero.partition_parameters import GatheredParameters

        assert isinstance(self.weighting, GradientWeighting)
        with autocast_if_enabled(self.engine):
            losses = self.engine.module(step)  # not of the engine, whose outputs can only be descended as they are
        values = torch.stack([loss.detach() for loss in losses])
        self._check(values)
        parameters = [p for p in self.objective.module.parameters() if p.requires_grad]
        present = [place for place, value in enumerate(values.tolist()) if value != 0 and losses[place].requires_grad]
        rows = [torch.autograd.grad(losses[place], parameters, retain_graph=place != present[-1], allow_unused=True) for place in present]
        with torch.no_grad():
            parts, weights = self._directed(parameters, rows, present, values, step)
        parts = [(parameter, part * share) for parameter, part in parts]
        with GatheredParameters([parameter for parameter, _ in parts], enabled=self.settings.resources.zero == 3):
            (total,) = self.engine(Direction(parts, step.device))
            self.engine.backward(total, scale_wrt_gas=False)
        return values, weights

    def _directed(
        self, parameters: list[nn.Parameter], rows: Sequence[tuple[Tensor | None, ...]], present: list[int], values: Tensor, step: Seeded
    ) -> tuple[list[tuple[nn.Parameter, Tensor]], Tensor]:
        """The direction, parameter by parameter, and the ``(k,)`` weights it was made with."""
        weighting = self.weighting
        assert isinstance(weighting, GradientWeighting)
        reached = [[gradient for gradient in column if gradient is not None] for column in zip(*rows, strict=True)]
        shared = [place for place, found in enumerate(reached) if len(found) > 1]
        parts = [
            (parameter, found[0] if len(found) == 1 else torch.zeros(_shape(parameter), device=values.device))
            for parameter, found in zip(parameters, reached, strict=True)
        ]
        weights = torch.full_like(values, torch.nan)
        if not shared:
            weights[present] = 1.0
            return parts, weights
        jacobian = torch.stack([_flat([row[place] for place in shared], [parameters[place] for place in shared]) for row in rows])
        if self.world > 1:
            dist.all_reduce(jacobian)
            jacobian /= self.world
        gramian = _gramian(jacobian)
        if not bool(torch.isfinite(gramian).all()):
            raise FitError("the gradient of a loss is not finite")
        active = gramian.diagonal() > 0  # a loss that does not move what is shared has no say in it
        names = [self.objective.names[place] for place, moves in zip(present, active.tolist(), strict=True) if moves]
        if not names:
            return parts, weights
        seeds.reseed(seeds.seed_of(step.seed, "weigh"), step.device)  # the same on every worker, whatever the forward pass drew
        if weighting.elementwise:
            direction = weighting.combine(jacobian[active], step.generator)
        else:
            chosen = {name: values[self.objective.names.index(name)] for name in names}
            found = weighting.weigh(gramian[active][:, active], chosen, step.generator).to(jacobian)
            weights[torch.tensor(present, device=values.device)[active]] = found
            direction = found @ jacobian[active]
        if not bool(torch.isfinite(direction).all()):
            raise FitError(f"{type(weighting).__name__} gives a direction that is not finite")
        sizes = [math.prod(_shape(parameters[place])) for place in shared]
        for place, part in zip(shared, torch.split(direction, sizes), strict=True):
            parts[place] = parameters[place], part.reshape(_shape(parameters[place]))
        return parts, weights

    def _check(self, losses: Tensor, weights: Tensor | None = None, total: Tensor | None = None) -> None:
        """Raises FitError where something is not finite."""
        seen = losses if weights is None or total is None else torch.cat([losses, weights, total[None]])
        finite = torch.isfinite(seen)
        if not bool(finite.all()):
            names = [f"{what} {name!r}" for what in ("loss", "the weight of") for name in self.objective.names] + ["the weighted sum"]
            bad = [name for name, good in zip(names, finite.tolist(), strict=False) if not good]
            raise FitError(f"{', '.join(bad)}: not finite")


def _shape(parameter: nn.Parameter) -> torch.Size:
    """Of the whole parameter, also where ZeRO 3 has left a part of it here."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


def _flat(gradients: list[Tensor | None], parameters: list[nn.Parameter]) -> Tensor:
    """Gradients as one vector, zeros where there is none."""
    device = next(gradient.device for gradient in gradients if gradient is not None)
    return torch.cat(
        [
            torch.zeros(math.prod(_shape(p)), device=device) if gradient is None else gradient.flatten().float()
            for gradient, p in zip(gradients, parameters, strict=True)
        ]
    )


def _gramian(jacobian: Tensor) -> Tensor:
    """``(k, k)`` float64 inner products, summed in blocks, which a single float32 product over millions would round away."""
    return torch.stack([(block @ block.T).double() for block in torch.split(jacobian, 2**16, dim=1)]).sum(0)
