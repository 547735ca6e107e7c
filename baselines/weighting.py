"""How the losses of a stage become the one scalar that is descended. The losses' names are the stage's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.errors import RequestError, did_you_mean


class Equal(nn.Module):
    """The mean of the losses."""

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        return torch.stack(list(losses.values())).mean()


class Random(nn.Module):
    """MT-CLAR's weights, new in every step: uniform numbers divided by their sum (papers 1.4).

    Not the softmax of normal numbers that random loss weighting (RLW) draws elsewhere.
    """

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        values = torch.stack(list(losses.values()))
        weights = torch.rand(len(values), generator=generator).to(values.device)
        return (values * weights).sum() / weights.sum()


class Fixed(nn.Module):
    """A weighted sum, the weights by the names of the losses.

    Args:
        weights: One for every loss the stage has, finite and not below 0.

    Raises:
        RequestError: A weight that cannot be; when first called, a name too many or too few.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        for name, weight in weights.items():
            if not 0 <= weight < float("inf"):
                raise RequestError(f"a weight of {weight} for {name}", where="weighting.weights", remedy="give a number from 0 on")
        self.weights = dict(weights)

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        for name in sorted(self.weights.keys() - losses.keys()):
            raise RequestError(f"no loss is called {name!r}", where="weighting.weights", remedy=did_you_mean(name, losses))
        for name in sorted(losses.keys() - self.weights.keys()):
            raise RequestError(f"no weight for the loss {name!r}", where="weighting.weights", remedy=f"add {name}: 0 to leave it out")
        return torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
