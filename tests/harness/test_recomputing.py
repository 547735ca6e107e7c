"""Activations that are computed again give the same gradients, and fewer are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines import backbones
from baselines.task_tokens import TokenEncoder
from harness.recomputing import recomputed, recomputing

VIT = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}


def _conv() -> nn.Module:
    return backbones.build({"name": "conv"}, channels=1, dim=8)


def _vit() -> nn.Module:
    dropping = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}
    config = {**VIT, **dropping, "image_size": 24, "patch_size": 6}
    return backbones.build({"name": "transformers", "config": config}, channels=1, dim=8)


def _tokens() -> nn.Module:
    backbone = backbones.build({"name": "conv"}, channels=1, dim=None)
    return TokenEncoder(backbone, tokens=3, dim=8, layers=3, heads=2, mlp=2, self_attention=True)


def _gradients(make: Callable[[], nn.Module], wanted: bool, precision: torch.dtype) -> tuple[list[Tensor], int]:
    """Of all parameters, and the bytes that are kept for the pass backward, parameters aside."""
    torch.manual_seed(0)
    module = make().train()
    frames = torch.rand(6, 1, 24, 24)
    own = {parameter.data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with recomputing(wanted), torch.autocast("cpu", precision, enabled=precision != torch.float32):
            made = module(frames)
        size = sum(kept.values())
    made.float().square().sum().backward()
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None], size


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("make", [_conv, _vit, _tokens])
def test_gradients_are_the_same_and_less_is_kept(make: Any, precision: torch.dtype) -> None:
    """Dropout included, which is drawn as it was."""
    kept, much = _gradients(make, False, precision)
    again, little = _gradients(make, True, precision)
    assert len(kept) == len(again) > 8
    torch.testing.assert_close(again, kept, rtol=0, atol=0)
    assert little < much / 2


def test_without_gradients_nothing_runs_twice() -> None:
    runs = []

    def block(x: Tensor) -> Tensor:
        runs.append(1)
        return x * x

    x = torch.ones(2, requires_grad=True)
    with recomputing(True), torch.no_grad():
        recomputed(block, x)
    recomputed(block, x).sum().backward()
    assert len(runs) == 2
    with recomputing(True):
        recomputed(block, x).sum().backward()
    assert len(runs) == 4
