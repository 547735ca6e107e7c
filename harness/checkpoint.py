"""A training under way on disk, from which any number of workers and any stage of ZeRO can go on: safetensors and JSON, nothing pickled.

DeepSpeed's own checkpoints are pickled and lie in pieces, one for each worker as it was. Here the parameters, and what the optimizer keeps
of each, are put together by name on the first worker and written once. Weights are loaded before the engine parts them; the optimizer's
state is laid into the parts afterwards. The same workers and stage go on to the same bits.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

log = logging.getLogger(__name__)

FORMAT = 1
_MANIFEST, _FACTS, _MODULE, _OPTIMIZER = "manifest.json", "facts.json", "module.safetensors", "optimizer.safetensors"
_COUNT = "step"
"""The one scalar that torch's optimizers keep."""


def write(folder: Path, module: nn.Module, engine: Any, facts: Mapping[str, Any], *, rank: int) -> None:
    """Write a checkpoint into an empty folder; every rank calls it, and the first one writes.

    Args:
        folder: Complete and :func:`intact` once this returns on rank 0.
        module: What the engine runs.
        engine: At a boundary: no gradient lies about that has not been applied.
        facts: Whatever else the training has to remember: numbers, texts, tensors, and lists and mappings of these.
        rank: Of this worker.

    Raises:
        TypeError: Something in ``facts`` or in the extra state of a module is of another kind.
    """
    from safetensors.torch import save_file

    parts = _Parts(module, engine)
    found = state_of(module, copy=rank == 0)
    optimizer = {key: _on_cpu(value) for key, value in parts.state() if rank == 0}
    if rank != 0:
        return
    state = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    extra = {name: value for name, value in found.items() if name not in state}
    facts = {**facts, "extra": extra, "scaler": parts.scaler.state_dict() if parts.scaler else None}
    told = json.dumps(_as_json(facts, state))
    save_file(state, folder / _MODULE)
    save_file(optimizer, folder / _OPTIMIZER)
    (folder / _FACTS).write_text(told, encoding="utf-8")
    files = {name: _digest(folder / name) for name in (_MODULE, _OPTIMIZER, _FACTS)}
    (folder / _MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}), encoding="utf-8")


def state_of(module: nn.Module, *, copy: bool = True) -> dict[str, Any]:
    """A module's parameters and buffers on the CPU, sharing nothing, and its extra state, where it has some.

    Under ZeRO 3 every rank calls it, and no more than one parameter at a time is put together.

    Args:
        module: Also one that an engine has parted.
        copy: False on a rank that only takes part; it gets an empty mapping.
    """
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters

    state = {}
    for name, value in module.state_dict(keep_vars=True).items():
        with GatheredParameters([value], enabled=hasattr(value, "ds_id")):
            if copy:
                state[name] = _on_cpu(value) if isinstance(value, Tensor) else value
    return state


def intact(folder: Path) -> bool:
    """Whether a checkpoint has every file as it was written."""
    try:
        files = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
        return {_FACTS, _MODULE, _OPTIMIZER} <= files.keys() and all(_digest(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def load(folder: Path, module: nn.Module) -> dict[str, Any] | None:
    """Put the weights of a checkpoint that is :func:`intact` into a module that no engine has taken yet.

    Returns:
        The facts, for which and for the optimizer :func:`place` is called next; None, and a warning, where it is of another module or
        another version of this file.
    """
    from safetensors.torch import load_file

    loaded = load_file(folder / _MODULE)
    facts: dict[str, Any] = _from_json(json.loads((folder / _FACTS).read_text(encoding="utf-8")), loaded)
    extra = facts.pop("extra")
    wanted = module.state_dict()
    found = {name: loaded[name] for name in wanted if name in loaded} | extra
    shapes = [{name: value.shape if isinstance(value, Tensor) else None for name, value in state.items()} for state in (wanted, found)]
    if json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["format"] != FORMAT or shapes[0] != shapes[1]:
        log.warning("%s is of another module or version; training starts again", folder)
        return None
    module.load_state_dict(found)
    return facts


def place(folder: Path, facts: Mapping[str, Any], module: nn.Module, engine: Any) -> None:
    """Lay what the optimizer knew into the parts that this engine has made of the module; every rank calls it.

    A parameter of which the checkpoint knows nothing, because nothing had moved it under ZeRO 0, begins with zeros where others of its
    group have begun.
    """
    from safetensors import safe_open

    parts = _Parts(module, engine)
    with safe_open(folder / _OPTIMIZER, framework="pt") as file:
        parts.set_state({key: partial(file.get_tensor, key) for key in file.keys()})  # noqa: SIM118  it is no mapping
    if parts.scaler and facts["scaler"]:
        parts.scaler.load_state_dict(facts["scaler"])


class _Parts:
    """What the optimizer keeps of each parameter, wherever the stage of ZeRO has put it.

    ZeRO 0 keeps it by parameter. ZeRO 1 and 2 keep a vector a parameter group and worker, ZeRO 3 one a group of the parts that it makes of
    every parameter. Of such a vector the steps are counted as a whole; where in it a parameter lies DeepSpeed knows.
    """

    def __init__(self, module: nn.Module, engine: Any) -> None:
        self.engine, self.zero = engine, int(engine.zero_optimization_stage())
        self.wrapped = engine.optimizer  # ZeRO's, which has torch's inside
        self.optimizer: torch.optim.Optimizer = self.wrapped.optimizer if self.zero else self.wrapped
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.vectors = {name: self._vector(p) for name, p in self.parameters.items()}

    def _vector(self, parameter: nn.Parameter) -> Tensor:
        """What the optimizer takes for a parameter."""
        found: Tensor = parameter
        if self.zero == 3:
            group, *_ = self.wrapped.grad_position[self.wrapped.get_param_id(parameter)]
            found = self.wrapped.fp32_partitioned_groups_flat[group]
        elif self.zero:
            group = next(place for place, members in enumerate(self.wrapped.bit16_groups) if any(p is parameter for p in members))
            found = self.wrapped.single_partition_of_fp32_groups[group]
        return found

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """Of the losses in fp16."""
        found: torch.amp.GradScaler | None = self.engine.torch_autocast_z0_gradscaler
        return found

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """What is kept, as ``key/parameter``; every rank draws all of it."""
        from deepspeed.utils import safe_get_full_optimizer_state

        self._link()
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(self.vectors[name], {}).items():
                if isinstance(value, Tensor):
                    yield f"{key}/{name}", safe_get_full_optimizer_state(parameter, key) if self.zero and key != _COUNT else value

    def set_state(self, kept: Mapping[str, Callable[[], Tensor]]) -> None:
        """The opposite of :meth:`state`: functions that read what was kept."""
        found: dict[str, dict[str, Callable[[], Tensor]]] = {}
        for path, read in kept.items():
            key, _, name = path.partition("/")
            found.setdefault(name, {})[key] = read
        if self.zero:
            self._begin(found)
        for name, reads in found.items():
            parameter = self.parameters[name]
            for key, read in reads.items():
                if not self.zero:
                    self.optimizer.state[parameter][key] = read() if key == _COUNT else read().to(parameter.device)
                elif key != _COUNT:
                    self._set(parameter, key, read().to(parameter.device))

    def _begin(self, found: Mapping[str, Mapping[str, Callable[[], Tensor]]]) -> None:
        """Give every vector the state that its parameters have, all zeros, as if it had taken as many steps."""
        for name, reads in found.items():
            vector = self.vectors[name]
            state = self.optimizer.state[vector]
            for key, read in reads.items():
                if key == _COUNT:  # under ZeRO 0 a parameter that no loss has reached has taken fewer than others
                    state[key] = torch.maximum(state[key], read()) if key in state else read()
                elif key not in state:
                    state[key] = torch.zeros_like(vector)
        self._link()

    def _link(self) -> None:
        """Have DeepSpeed find what is kept; it does so itself when the first of several groups has taken its first step, and not again."""
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        if self.zero in (1, 2):
            for members, vector in zip(self.wrapped.bit16_groups, self.wrapped.single_partition_of_fp32_groups, strict=True):
                lazy_init_hp_params_optimizer_state(members, vector, self.optimizer.state)

    def _set(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if self.zero < 3:
            safe_set_full_optimizer_state(parameter, value, key)
            return
        # DeepSpeed's function for the whole of it fails where it cannot be divided by the workers
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        padded = value.new_zeros(size * dist.get_world_size())
        padded[: value.numel()] = value.flatten()
        safe_set_local_optimizer_state(parameter, padded[dist.get_rank() * size :][:size], key)


def _on_cpu(value: Tensor) -> Tensor:
    """A copy that shares nothing, as safetensors want it."""
    return value.detach().to("cpu", copy=True).contiguous()


def _as_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What JSON can say of a value; its tensors are put among ``tensors``."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        name = f"facts.{len(tensors)}"
        tensors[name] = _on_cpu(value)
        return {"tensor": name}
    if isinstance(value, list):
        return [_as_json(one, tensors) for one in value]
    if isinstance(value, tuple):
        return {"tuple": [_as_json(one, tensors) for one in value]}
    if isinstance(value, Mapping):  # its keys need not be texts
        return {"mapping": [[_as_json(key, tensors), _as_json(one, tensors)] for key, one in value.items()]}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a checkpoint keeps numbers, texts, tensors, lists and mappings; {type(value).__name__} is none")


def _from_json(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_from_json(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_from_json(one, tensors) for one in content)
    return {_from_json(key, tensors): _from_json(one, tensors) for key, one in content}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
