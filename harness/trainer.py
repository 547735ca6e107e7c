"""How a stage is trained: the settings under the config key ``trainer``, checked before anything heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from harness.errors import RequestError, did_you_mean

Reader = Callable[[Any, str], Any]
"""From a value of the config and the dotted key that set it to a checked value."""


def _whole(low: int, high: float = math.inf) -> Reader:
    def read(value: Any, where: str) -> int:
        if type(value) is not int or not low <= value <= high:  # a bool is an int, too
            limit = "" if high == math.inf else f" to {high:g}"
            raise RequestError(f"{value!r} is out of range", where=where, remedy=f"give a whole number from {low}{limit}")
        return value

    return read


def _number(low: float, high: float = math.inf, *, above: bool = False) -> Reader:
    def read(value: Any, where: str) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not low <= value <= high or (above and value == low):
            limits = f"{'above' if above else 'from'} {low:g}" + ("" if high == math.inf else f" to {high:g}")
            raise RequestError(f"{value!r} is out of range", where=where, remedy=f"give a number {limits}")
        return float(value)

    return read


def _truth(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"{value!r} is neither true nor false", where=where, remedy="give one of them")
    return value


def _choice(*options: str) -> Reader:
    def read(value: Any, where: str) -> str:
        if value not in options:
            raise RequestError(f"{value!r} is unknown", where=where, remedy=did_you_mean(str(value), options))
        return str(value)

    return read


def _or_null(reader: Reader) -> Reader:
    return lambda value, where: None if value is None else reader(value, where)


def _gpus(value: Any, where: str) -> float:
    number = float(_number(0)(value, where))
    if number > 1 and number != int(number):
        raise RequestError(f"{value!r} GPUs", where=where, remedy="give a share of one below 1, or whole ones")
    return number


def _interval(value: Any, where: str) -> tuple[float, float]:
    number = _number(0, above=True)
    if not isinstance(value, list | tuple) or len(value) != 2 or number(value[0], where) > number(value[1], where):
        raise RequestError(f"{value!r} is no interval", where=where, remedy="give two factors, the smaller first")
    return float(value[0]), float(value[1])


def _one(default: Any, read: Reader) -> Any:
    return field(default=default, metadata={"read": read})


def _keys_of(kind: Any) -> dict[str, Reader]:
    return {"read": lambda value, where: _read(kind, value, where)}


@dataclass(frozen=True)
class Schedule:
    """What happens to the learning rate from epoch to epoch.

    Attributes:
        name: ``none``; ``step``: times ``factor`` after every ``every`` epochs; ``cosine``: down to zero along half a cosine;
            ``plateau``: times ``factor`` when the validation loss has not fallen for ``patience`` epochs.
        warmup: Epochs over which ``cosine`` first rises, in equal steps.
    """

    name: str = _one("none", _choice("none", "step", "cosine", "plateau"))
    every: int = _one(15, _whole(1))
    factor: float = _one(0.1, _number(0, 1, above=True))
    patience: int = _one(5, _whole(0))
    warmup: int = _one(0, _whole(0))


@dataclass(frozen=True)
class Augment:
    """What may happen to a frame while training; nothing by default. Every kind keeps the labels as they are.

    Attributes:
        flip: Probability of a mirror image.
        rotate: Largest angle either way, degrees.
        translate: Largest shift either way, a share of the side.
        crop: A further shift of that size, independent of the first: a random crop next to a central one.
        scale: Smallest and largest factor.
        shear: Largest angle along x either way, degrees.
        brightness: Largest change either way, where black to white is 1.
        contrast: Largest change of the factor 1 about the frame's mean.
        erase: Probability that a rectangle of 2 to 25 % of the frame turns grey.
    """

    flip: float = _one(0.0, _number(0, 1))
    rotate: float = _one(0.0, _number(0, 180))
    translate: float = _one(0.0, _number(0, 1))
    crop: float = _one(0.0, _number(0, 1))
    scale: tuple[float, float] = _one((1.0, 1.0), _interval)
    shear: float = _one(0.0, _number(0, 80))
    brightness: float = _one(0.0, _number(0, 1))
    contrast: float = _one(0.0, _number(0, 1))
    erase: float = _one(0.0, _number(0, 1))

    @property
    def warps(self) -> bool:
        """Whether any of it moves pixels."""
        return bool(self.flip or self.rotate or self.translate or self.crop or self.shear or self.scale != (1.0, 1.0))


@dataclass(frozen=True)
class Resources:
    """What one fit takes, and how it is kept safe; none of it changes what is learned beyond rounding.

    Attributes:
        workers: Processes that share each batch.
        min_workers: With how many a fit goes on where a node is lost and there is no room for all; null for no fewer.
        cpus, gpus: Of each worker; a share of a GPU lets several fits use it.
        gpu_memory: GiB of GPU memory that each worker needs, where it has a share of a GPU that share of its memory; null for any.
        placement: Where the workers of a fit lie: ``pack`` or ``spread``, as far as there is room, or else not at all (``strict_…``).
        zero: Stage of DeepSpeed's ZeRO: what the workers share out among them. 0 nothing, 1 what the optimizer keeps, 2 gradients too,
            3 parameters too.
        offload: What is in the memory of the machine and not of the GPU: ``none``; ``optimizer`` (what it keeps, and its work; ZeRO 1 to
            3); ``optimizer_and_parameters`` (ZeRO 3). The optimizer is PyTorch's there as well, as DeepSpeed would compile its own.
        activation_checkpointing: Compute the activations of the network's blocks again in the pass backward and do not keep them.
        checkpoint_every: Epochs between training checkpoints; 0 for none but the one kept when a fit has to leave.
        checkpoint_minutes: Minutes after which one is kept in the middle of an epoch, too; 0 for never.
        retries: How often a fit whose worker died is tried again in the same run.
        attempts: In how many runs it may fail before it is left alone until `harness retry`.
    """

    workers: int = _one(1, _whole(1))
    min_workers: int | None = _one(None, _or_null(_whole(1)))
    cpus: int = _one(1, _whole(1))
    gpus: float = _one(0.0, _gpus)
    gpu_memory: float | None = _one(None, _or_null(_number(0, above=True)))
    placement: str = _one("pack", _choice("pack", "spread", "strict_pack", "strict_spread"))
    zero: int = _one(0, _whole(0, 3))
    offload: str = _one("none", _choice("none", "optimizer", "optimizer_and_parameters"))
    activation_checkpointing: bool = _one(False, _truth)
    checkpoint_every: int = _one(1, _whole(0))
    checkpoint_minutes: float = _one(0.0, _number(0))
    retries: int = _one(2, _whole(0))
    attempts: int = _one(3, _whole(1))


@dataclass(frozen=True)
class Trainer:
    """Everything about the training of a stage that is not the stage's own business.

    None of it scales with the number of workers. The batch is of all of them together, each takes its share of it, and a gradient is
    that of the whole batch: so neither the learning rate nor its schedule (of epochs) nor the norm that is clipped (of the whole gradient,
    at any stage of ZeRO) changes with them, and a fit learns the same with any number of workers, but for rounding.

    Attributes:
        epochs: Passes over what the stage's ``batches`` yield.
        batch_size: Of the global batch, all workers together.
        optimizer: ``adam``, ``adamw`` or ``sgd`` (with momentum 0.9).
        clip: Largest norm of the gradient; 0 leaves it.
        accumulate: Batches whose gradients are averaged to one update.
        precision: ``fp32``; ``bf16``, ``fp16``: matrix products in that precision, weights and losses in fp32.
        selection: ``last`` epoch, or the one of the lowest ``validation`` loss, averaged over the losses with equal weights.
    """

    epochs: int = _one(15, _whole(1))
    batch_size: int = _one(64, _whole(1))
    optimizer: str = _one("adamw", _choice("adam", "adamw", "sgd"))
    lr: float = _one(1e-3, _number(0, above=True))
    weight_decay: float = _one(1e-4, _number(0))
    schedule: Schedule = field(default_factory=Schedule, metadata=_keys_of(Schedule))
    clip: float = _one(0.0, _number(0))
    accumulate: int = _one(1, _whole(1))
    precision: str = _one("fp32", _choice("fp32", "bf16", "fp16"))
    selection: str = _one("last", _choice("last", "validation"))
    augment: Augment = field(default_factory=Augment, metadata=_keys_of(Augment))
    resources: Resources = field(default_factory=Resources, metadata=_keys_of(Resources))


def read(node: Mapping[str, Any], where: str = "trainer") -> Trainer:
    """The settings of a config node; what it does not name keeps its default.

    Raises:
        RequestError: A key or value that cannot be.
    """
    settings: Trainer = _read(Trainer, node, where)
    resources, least = settings.resources, {"none": 0, "optimizer": 1, "optimizer_and_parameters": 3}
    if resources.zero < least[resources.offload]:
        what = f"ZeRO {resources.zero} cannot offload {resources.offload.replace('_', ' ')}"
        raise RequestError(what, where=f"{where}.resources.offload", remedy=f"set resources.zero to {least[resources.offload]} or higher")
    if settings.precision == "fp16" and resources.zero:
        # It clips gradients before it has taken the scale off them, and never lowers a scale at which they overflow: nothing is learned.
        what = f"DeepSpeed does not scale losses under ZeRO {resources.zero} as fp16 needs it"
        raise RequestError(what, where=f"{where}.precision", remedy="use bf16, or set resources.zero to 0")
    return settings


def _read(kind: Any, node: Any, where: str) -> Any:
    if not isinstance(node, Mapping):
        raise RequestError(f"{node!r} is no mapping", where=where, remedy=f"its keys are {', '.join(f.name for f in fields(kind))}")
    readers: dict[str, Reader] = {f.name: f.metadata["read"] for f in fields(kind)}
    for key in node:
        if key not in readers:
            raise RequestError(f"no such key: {where}.{key}", where=where, remedy=did_you_mean(str(key), readers))
    return kind(**{key: readers[key](value, f"{where}.{key}") for key, value in node.items()})
