"""The Weighting contract: how the losses of a stage become one gradient, from their values or from their gradients.

A stage names its losses, and what kind each is; the weighting sees nothing else of it. What a weighting learns or remembers are its
parameters and buffers, so that they are in every checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.errors import RequestError
from harness.trainer import Trainer

REGRESSION, LIKELIHOOD, OTHER = "regression", "likelihood", "other"
"""Kinds of a loss: a mean squared error or what stands for one, a negative logarithm of a likelihood (cross-entropy), anything else."""


class Weighting(nn.Module):
    """A scalar made of the values of the losses. What it has as parameters learns with the module, by the same optimizer, without decay.

    Attributes:
        names: Of the losses, in their order; empty where the stage does not say (``Stage.objectives``).
        lr: Learning rate of its own parameters; None for that of the module.
        again: Whether it wants to see the losses of the same batch after the step, which costs a second pass forward.
    """

    names: tuple[str, ...] = ()
    lr: float | None = None
    again = False

    def setup(self, objectives: Mapping[str, str]) -> None:
        """Make what is needed for each loss. Called once, before the optimizer is made and before anything is loaded.

        Args:
            objectives: Name → kind, in the order of the losses; empty where the stage does not say.

        Raises:
            RequestError: It cannot weigh these.
        """
        self.names = tuple(objectives)

    def check(self, trainer: Trainer) -> None:
        """Refuse a training that it cannot be part of, before anything starts.

        Raises:
            RequestError: What cannot be, and what would be right.
        """

    def forward(self, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """The scalar to descend.

        Args:
            losses: Of the global batch, one scalar each. One that says nothing of this batch, for want of a label, is not there.
            generator: For whatever is drawn; the same on every worker, and another one in every step.
        """
        raise NotImplementedError

    def after_step(self, losses: dict[str, Tensor]) -> None:
        """Where ``again`` is set: the losses of the same batch, its augmentation and dropout alike, after the step."""

    def after_epoch(self, losses: dict[str, float]) -> None:
        """The means of the losses over the epoch that ends."""

    def learned(self) -> dict[str, Tensor]:
        """What it has learned of each loss, ``(k,)`` by what it is called (``log_variance``, say); reported after every epoch."""
        return {}

    def known(self, objectives: Mapping[str, str]) -> int:
        """How many losses there are, where a weighting has to know that beforehand.

        Raises:
            RequestError: The stage does not say.
        """
        if not objectives:
            what = f"{type(self).__name__} keeps something for each loss, and the stage does not say which losses it has"
            raise RequestError(what, where="weighting", remedy="define objectives() in the stage, or use weighting=equal")
        return len(objectives)


class GradientWeighting(Weighting):
    """Weights, or a direction, made of the losses' gradients by the parameters that several of them share.

    Every parameter that one loss alone reaches takes that loss's own gradient. It costs one pass backward for each loss instead of
    one in all, and memory for as many gradients as there are losses.
    """

    elementwise = False
    """True where the direction is no weighted sum of the gradients, so that :meth:`combine` is asked and not :meth:`weigh`."""

    def check(self, trainer: Trainer) -> None:
        """Gradients of single losses are taken beside the engine: without loss scaling, and several times through one graph.

        Raises:
            RequestError: It would be trained in fp16, or with activation checkpointing under ZeRO 3.
        """
        if trainer.precision == "fp16":
            what = f"{type(self).__name__} needs the gradient of each loss, which fp16 would round to zero"
            raise RequestError(what, where="trainer.precision", remedy="use bf16 or fp32")
        if trainer.resources.activation_checkpointing and trainer.resources.zero == 3:  # PyTorch ends there in a segmentation fault
            what = f"{type(self).__name__} needs the gradient of each loss, which ZeRO 3 cannot give where activations are computed again"
            raise RequestError(what, where="trainer.resources.activation_checkpointing", remedy="set it to false, or resources.zero to 2")

    def weigh(self, gramian: Tensor, losses: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """``(k,)`` weights of the gradients.

        Args:
            gramian: ``(k, k)`` float64, inner products of the losses' gradients by the shared parameters.
            losses: Their values, as of :meth:`forward`, in the order of the Gramian; those that move no shared parameter are left out.
            generator: As of :meth:`forward`.
        """
        raise NotImplementedError

    def combine(self, jacobian: Tensor, generator: torch.Generator) -> Tensor:
        """``(p,)``, the direction, of the ``(k, p)`` gradients by the shared parameters; where :attr:`elementwise` is set."""
        raise NotImplementedError
