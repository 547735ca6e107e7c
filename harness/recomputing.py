"""Activation checkpointing: what a block of a network holds for the pass backward is thrown away and computed again there.

A module offers it by calling its blocks through :func:`recomputed`; the engine says when it is wanted. It changes nothing that is learned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch

_wanted: ContextVar[bool] = ContextVar("recomputing", default=False)


@contextlib.contextmanager
def recomputing(wanted: bool) -> Iterator[None]:
    """What runs in the block is asked to recompute, or not to."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def is_wanted() -> bool:
    """Whether a block that runs now should be computed again in the pass backward, for modules that do so by other means."""
    return _wanted.get() and torch.is_grad_enabled()


def recomputed(block: Callable[..., Any], *inputs: Any) -> Any:
    """``block(*inputs)``, of which nothing but the inputs is kept for the pass backward where that is wanted.

    Args:
        block: Gives tensors. It runs twice, so it neither counts what it sees (batch normalisation) nor talks to other workers
            (``step.gather``); dropout is the same both times.
        inputs: Of it.
    """
    if not is_wanted():
        return block(*inputs)
    from torch.utils.checkpoint import checkpoint

    return checkpoint(block, *inputs, use_reentrant=False)
