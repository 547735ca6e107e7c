"""The DeepSpeed loop: one stage, trained the same in a Tune actor, in a Ray Train worker and alone. It knows nothing of Ray.

What a step draws follows from the seed, the stage, the epoch and the step alone. So a run that was killed and goes on ends
bit for bit where an undisturbed one ends, and several workers draw what one draws: all of them see the global batch,
each reads its slice of the frames, and what looks at the whole batch runs on what :meth:`Step.gather` returns.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import math
import os
import shutil
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness import checkpoint, seeds
from harness import trainer as trainer_settings
from harness.augmentation import augment
from harness.baseline import Data, Previous, Stage
from harness.descent import Descent, Objective
from harness.errors import FitError, RequestError
from harness.frames import Frames
from harness.preemption import Preempted
from harness.store import as_os_error, cannot_write
from harness.trainer import Augment, Trainer
from harness.weighting import Weighting

log = logging.getLogger(__name__)

State = dict[str, Tensor]


class Context(Protocol):
    """All the loop sees of where it runs."""

    rank: int
    world: int

    def checkpoint(self) -> Path | None:
        """The folder of the latest checkpoint that is complete and :func:`harness.checkpoint.intact`. Every rank calls it."""
        ...

    def keep(self, name: str, write: Callable[[Path], object]) -> None:
        """Keep a checkpoint instead of the one before. Every rank calls it, and it returns when the checkpoint is complete.

        Args:
            name: A later checkpoint has a greater one; one that is there already stays as it is.
            write: Puts the checkpoint's files into an empty folder; called on every rank.
        """
        ...

    def report(self, metrics: dict[str, float]) -> None:
        """Called by every rank after every epoch, its checkpoint kept, with the new entry of :attr:`Fitted.history`."""
        ...

    def leaving(self) -> bool:
        """Whether this rank has been told to leave. If any has, all keep a checkpoint and raise :class:`harness.preemption.Preempted`."""
        ...


class Local:
    """Keeps the latest checkpoint in a folder that all ranks see.

    The ranks' files are collected under another name and renamed when all are there, so that what is found is complete; one
    that was damaged since is set aside as ``corrupt-…``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rank: int = 0,
        world: int = 1,
        on_report: Callable[[dict[str, float]], object] = lambda metrics: None,
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder, self.rank, self.world, self.on_report, self.leaving = folder, rank, world, on_report, leaving

    def checkpoint(self) -> Path | None:
        name: list[str | None] = [None]
        if self.rank == 0:
            for found in sorted(self.folder.glob("epoch-*"), reverse=True):
                if checkpoint.intact(found):
                    name = [found.name]
                    break
                log.warning("%s is damaged; it is set aside, and training goes on from an earlier one or from the start", found)
                aside = found.with_name(f"corrupt-{found.name}")
                shutil.rmtree(aside, ignore_errors=True)
                found.replace(aside)
        if self.world > 1:
            dist.broadcast_object_list(name)  # a file system may show a rename to others later
        return self.folder / name[0] if name[0] else None

    def report(self, metrics: dict[str, float]) -> None:
        self.on_report(metrics)

    def keep(self, name: str, write: Callable[[Path], object]) -> None:
        coming = self.folder / "coming"
        with _written(coming):
            if self.rank == 0:
                shutil.rmtree(coming, ignore_errors=True)  # of a run that was killed while it wrote
                coming.mkdir(parents=True)
            self._meet()
            write(coming)
        self._meet()
        if self.rank == 0:
            older = [folder for folder in self.folder.glob("epoch-*") if folder.name != name]
            if not (self.folder / name).exists():  # whatever led here again, the same has been learned
                coming.replace(self.folder / name)
            for folder in older:
                shutil.rmtree(folder)
        self._meet()

    def _meet(self) -> None:
        if self.world > 1:
            dist.barrier()


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    """What cannot be written to the end is removed, so that it takes no room of what a user frees, and told in one line."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        system = as_os_error(error)
        raise cannot_write(path, system) from system


@dataclass(frozen=True)
class Fitted:
    """What training a stage gives.

    Attributes:
        state: Weights and buffers of the stage's module, float32 on the CPU.
        history: One entry an epoch: ``epoch``, ``lr``, ``seconds``, ``processor_seconds`` (of this process), ``train/NAME`` and
            ``validation/NAME`` of every loss (means over the epoch's batches that have a label for it; 0 where none has), ``weight/NAME``,
            what the weighting multiplied it with, or its gradient (not there where it was in no batch), and what the weighting has
            learned of it (``log_variance/NAME``, say).
        seconds: Of all epochs, those before a restart included.
        peak_memory: Bytes: of the GPU where there is one, else of this process.
        working_memory: Bytes: how far the peak of the last epoch is above what was held before it: what a step needs and gives back.
        selected_epoch: The epoch ``state`` is of, from 1.
        steps: Batches trained on.
    """

    state: State
    history: list[dict[str, float]]
    seconds: float
    peak_memory: int
    working_memory: int
    selected_epoch: int
    steps: int

    @property
    def epochs(self) -> int:
        return len(self.history)


def fit(
    stage: Stage,
    train: Data,
    validation: Data,
    *,
    targets: tuple[str, ...],
    classes: tuple[str, ...],
    trainer: Mapping[str, Any],
    weighting: Weighting,
    seed: int,
    context: Context,
    previous: Previous | None = None,
) -> Fitted:
    """Train one stage, from the context's checkpoint where there is one.

    Args:
        stage: A new one; it is set up here.
        train, validation: Samples with labels, and their frames.
        targets, classes: Of the task.
        trainer: The config node ``trainer``; see :class:`harness.trainer.Trainer`.
        weighting: A new one; it is set up here.
        seed: Everything drawn follows from it.
        context: Where this runs.
        previous: The stage before.

    Raises:
        RequestError: The settings cannot be, or do not fit the data or the machine.
        FitError: A loss is not finite, or there is nothing to train on.
        Preempted: The context is leaving; a checkpoint has been kept.
    """
    settings = trainer_settings.read(trainer)
    device = _device(settings)
    if not validation.samples.height and (settings.selection == "validation" or settings.schedule.name == "plateau"):
        raise RequestError("there are no validation samples", where="trainer", remedy="select the last epoch, without a plateau schedule")
    torch.set_num_threads(settings.resources.cpus)
    _reset_peak_memory(device)
    ensure_process_group(device)
    stage.setup(train, validation, targets, classes, previous)
    loop = _Loop(stage, train, validation, settings, weighting, seed, context, device)
    try:
        return loop.run()
    finally:
        loop.engine.destroy()


def ensure_process_group(device: torch.device) -> None:
    """The process group of this process: the one there is, or a new one of ``WORLD_SIZE`` (else one) members."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        os.environ.setdefault(name, value)  # DeepSpeed reads them, too
    if dist.is_initialized():
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    if os.environ["WORLD_SIZE"] != "1":
        dist.init_process_group(backend)
    else:
        for _, name in socket.if_nameindex():
            if name in ("lo", "lo0"):
                os.environ.setdefault("GLOO_SOCKET_IFNAME", name)  # Gloo listens even when alone; nobody outside needs to hear
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]


def embed(encode: Callable[[Tensor], Tensor], frames: Frames, *, device: torch.device, batch: int = 256) -> np.ndarray:
    """``(n, d)`` float32 embeddings of all frames, by batches, without gradient.

    Args:
        encode: ``(b, channels, height, width)`` in [0, 1] to ``(b, d)``, on ``device``.
        frames: Where they lie on disk does not matter.
        device: Of ``encode``.
        batch: Frames at once.
    """
    rows = np.arange(len(frames))
    with torch.inference_mode():
        made = [encode(_unit(_pixels(frames, rows[first : first + batch], device))).float().cpu() for first in range(0, len(rows), batch)]
    return torch.cat(made).numpy() if made else np.zeros((0, 0), np.float32)


def load(stage: Stage, state: State) -> nn.Module:
    """The stage's module with these weights, in eval mode, on the CPU. The stage has been set up.

    Raises:
        RequestError: The weights are of another module.
    """
    module = stage.module()
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise RequestError(f"the weights do not fit {type(stage).__name__}: {str(error).splitlines()[-1]}", remedy="fit it again") from None
    return module.eval()


def save_weights(state: State, path: Path) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        RequestError: The disk is full or the folder cannot be written.
    """
    from safetensors.torch import save_file

    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with _written(partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)


def load_weights(path: Path) -> State:
    """Read what :func:`save_weights` wrote.

    Raises:
        RequestError: No such file, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RequestError(f"cannot read the weights: {error}", where=str(path), remedy="remove the folder and fit again") from None


class _Gather(torch.autograd.Function):
    """Every worker's slice as the global batch.

    Its gradient is this worker's part, without communication, because all workers compute the same losses of the global
    batch. It is multiplied by their number because DeepSpeed averages over them where the parts add up.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, rank: int, world: int, total: int) -> Tensor:
        ctx.rank, ctx.world, ctx.size, ctx.total = rank, world, len(local), total
        parts = [torch.empty_like(local) for _ in range(world)]
        dist.all_gather(parts, local)
        return torch.cat(parts)[:total]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        padded = gradient.new_zeros(ctx.size * ctx.world, *gradient.shape[1:])
        padded[: ctx.total] = gradient
        return padded[ctx.rank * ctx.size : (ctx.rank + 1) * ctx.size] * ctx.world, None, None, None


class _Pixels:
    """Frames on the device if they take less than a quarter of its free memory; else each batch is read from the cache."""

    def __init__(self, frames: Frames, device: torch.device) -> None:
        self.frames, self.device = frames, device

    @cached_property
    def resident(self) -> Tensor | None:
        size = math.prod(self.frames.shape)
        return _pixels(self.frames, np.arange(len(self.frames)), self.device) if size < _free_memory(self.device) / 4 else None

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        if self.resident is None:
            return _unit(_pixels(self.frames, rows, self.device))
        return _unit(self.resident[torch.from_numpy(rows).to(self.device)])


@dataclass
class _Step:
    """A :class:`harness.baseline.Step`. ``places`` are the places of this worker's slice in the global batch."""

    index: np.ndarray
    progress: float
    device: torch.device
    training: bool
    generator: torch.Generator
    seed: int
    rank: int
    world: int
    places: np.ndarray
    pixels: _Pixels
    augmentation: Augment

    def frames(self, column: int = 0, view: int = 0) -> Tensor:
        frames = self.pixels[self.index[self.places, column]]
        if not self.training:
            return frames
        generator = torch.Generator().manual_seed(seeds.seed_of(self.seed, column, view))
        with torch.autocast(self.device.type, enabled=False):  # geometry in bf16 would be off by pixels
            return augment(frames, self.augmentation, generator, self.places, len(self.index))

    def gather(self, local: Tensor) -> Tensor:
        local = local.float() if local.is_floating_point() else local
        if self.world == 1:
            return local
        gathered: Tensor = _Gather.apply(local.contiguous(), self.rank, self.world, len(self.index))  # type: ignore[no-untyped-call]
        return gathered

    def rows(self, values: Tensor, column: int = 0) -> Tensor:
        return values[torch.from_numpy(self.index[:, column]).to(values.device)].to(self.device)


class _Means:
    """Means over those samples of an epoch that say something, the same on every rank.

    Args:
        context: Where the samples are seen.
        kept: What :meth:`state` gave; with another number of workers, each goes on from the mean of theirs.
    """

    def __init__(self, context: Context, kept: Tensor | None = None) -> None:
        self.context = context
        self.sums: Tensor | None = None
        if kept is not None:
            self.sums = kept[context.rank] if len(kept) == context.world else kept.mean(0)

    def state(self) -> Tensor | None:
        """The sums of every rank; all of them call it."""
        if self.sums is None or self.context.world == 1:
            return self.sums if self.sums is None else self.sums[None]
        every = [torch.empty_like(self.sums) for _ in range(self.context.world)]
        dist.all_gather(every, self.sums)
        return torch.stack(every)

    def add(self, values: Tensor, there: Tensor, n: int) -> None:
        """``(k,)`` values of a batch of ``n``, and whether each is there."""
        batch = n * torch.stack([torch.where(there, values, 0.0), there.to(values)])
        self.sums = batch if self.sums is None else self.sums.to(batch.device) + batch

    def of(self, names: Sequence[str]) -> dict[str, float]:
        """By name; what no batch said anything of is left out."""
        if self.sums is None:
            return {}
        if self.context.world > 1:
            dist.all_reduce(self.sums)
        sums, counts = self.sums.tolist()
        return {name: total / count for name, total, count in zip(names, sums, counts, strict=True) if count}


class _UnderWay:
    """How far an epoch is: its batches trained on, the sums of their losses and weights, and the seconds that took."""

    def __init__(
        self,
        context: Context,
        *,
        steps: int = 0,
        losses: Tensor | None = None,
        weights: Tensor | None = None,
        seconds: float = 0.0,
        processor_seconds: float = 0.0,
    ) -> None:
        self.steps, self.losses, self.weights = steps, _Means(context, losses), _Means(context, weights)
        self.since = time.perf_counter() - seconds, time.process_time() - processor_seconds

    def spent(self) -> dict[str, float]:
        """Those before a restart included."""
        began, worked = self.since
        return {"seconds": time.perf_counter() - began, "processor_seconds": time.process_time() - worked}

    def state(self) -> dict[str, Any]:
        """What another one is made of."""
        return {"steps": self.steps, "losses": self.losses.state(), "weights": self.weights.state(), **self.spent()}


class _Loop:
    """One fit under way."""

    def __init__(
        self,
        stage: Stage,
        train: Data,
        validation: Data,
        settings: Trainer,
        weighting: Weighting,
        seed: int,
        context: Context,
        device: torch.device,
    ) -> None:
        self.stage, self.settings, self.context, self.device = stage, settings, context, device
        self.seed = seeds.seed_of(seed, type(stage).__name__)
        self.pixels = {"train": _Pixels(train.frames, device), "validation": _Pixels(validation.frames, device)}
        self.validates = validation.samples.height > 0
        self.history: list[dict[str, float]] = []
        self.steps = 0
        self.best: tuple[float, int, State] = (math.inf, 0, {})
        self.under_way: _UnderWay | None = None
        self.weighting = weighting
        self.weighting.setup(stage.objectives())
        self.weighting.check(settings)
        seeds.reseed(seeds.seed_of(self.seed, "module"), device)
        self.objective = Objective(stage, weighting, recompute=settings.resources.activation_checkpointing).to(device)
        for name, parameter in self.objective.named_parameters():
            if parameter.ndim == 0:
                raise FitError(f"DeepSpeed takes no parameter without a dimension, as {name} is; make it a vector of one element")
        self.optimizer = _optimizer(self.objective, settings)
        self.scheduler = _scheduler(self.optimizer, settings)
        resumed = self._resume()
        self.engine = _engine(self.objective, self.optimizer, settings, context.world)
        if resumed:
            checkpoint.place(*resumed, self.objective, self.engine)
        self.descent = Descent(self.engine, self.objective, settings, context.world)
        self.kept = time.monotonic()

    def run(self) -> Fitted:
        settings = self.settings
        peak = held = 0
        for epoch in range(len(self.history) + 1, settings.epochs + 1):
            if epoch == settings.epochs:  # by now a process has loaded what it loads the first time
                peak = _peak_memory(self.device)
                held = _reset_peak_memory(self.device)
            self._epoch(epoch)
            every = settings.resources.checkpoint_every
            if every and epoch % every == 0 and epoch < settings.epochs:
                self._keep()
            self.context.report(self.history[-1])
        _, epoch, state = self.best
        if settings.selection == "last":
            epoch, state = settings.epochs, self._state()
        seconds = sum(entry["seconds"] for entry in self.history)
        last = _peak_memory(self.device)
        return Fitted(state, self.history, seconds, max(peak, last), max(last - held, 0) if held else 0, epoch, self.steps)

    def _epoch(self, epoch: int) -> None:
        """Train, validate, move the learning rate, remember."""
        under_way = self.under_way = self.under_way or _UnderWay(self.context)
        lr = self.optimizer.param_groups[0]["lr"]
        self._train(epoch, under_way)
        validated = self._validate(epoch) if self.validates else {}
        entry = {"epoch": float(epoch), "lr": lr, **self._trained(under_way), **validated}
        validation = [value for name, value in entry.items() if name.startswith("validation/")]
        mean = float(np.mean(validation)) if validation else math.nan
        if self.settings.selection == "validation" and mean < self.best[0]:
            self.best = mean, epoch, self._state()
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(mean)
        elif self.scheduler:
            self.scheduler.step()
        self.history.append({**entry, **under_way.spent()})
        self.steps += under_way.steps
        self.under_way = None

    def _train(self, epoch: int, under_way: _UnderWay) -> None:
        """What is left of the epoch's steps."""
        self.engine.train()
        batches = self._batches("train", epoch)
        if not batches:
            raise FitError(f"{type(self.stage).__name__} has no batch to train on")
        group = self.settings.accumulate
        for number, index in enumerate(batches[under_way.steps :], under_way.steps):
            step = self._step("train", index, epoch, number)
            boundary = (number + 1) % group == 0 or number + 1 == len(batches)
            self.engine.set_gradient_accumulation_boundary(boundary)
            try:
                found, weighed = self.descent(step, 1 / min(group, len(batches) - number // group * group))
            except FitError as error:
                raise FitError(f"{error} at epoch {epoch}, step {number + 1}") from None
            self.engine.step()
            under_way.losses.add(found, found != 0, len(index))
            under_way.weights.add(weighed, ~weighed.isnan(), len(index))
            if self.weighting.again:
                self.weighting.after_step(self.descent.again(self._step("train", index, epoch, number)))
            under_way.steps += 1
            if boundary:  # between two of them, gradients lie about that nobody has applied
                self._pause(epoch)

    def _trained(self, under_way: _UnderWay) -> dict[str, float]:
        """What the weighting learns of an epoch, and what is told of its training."""
        names = self.objective.names
        means, weights = under_way.losses.of(names), under_way.weights.of(names)
        self.weighting.after_epoch(means)
        told = {f"train/{name}": means.get(name, 0.0) for name in names} | {f"weight/{name}": weight for name, weight in weights.items()}
        with self._whole(self.weighting.parameters()):
            for what, values in self.weighting.learned().items():
                told |= {f"{what}/{name}": value for name, value in zip(names, values.tolist(), strict=True)}
        return told

    def _validate(self, epoch: int) -> dict[str, float]:
        self.engine.eval()
        batches = self._batches("validation")
        losses = _Means(self.context)
        with torch.no_grad():
            for number, index in enumerate(batches):
                found = self.engine(self._step("validation", index, epoch, number))
                values = torch.stack([loss.detach() for loss in found])
                losses.add(values, values != 0, len(index))
                self._pause(epoch)
        means = dict.fromkeys(self.objective.names if batches else (), 0.0) | losses.of(self.objective.names)
        if self.settings.selection == "validation" and not (means and all(map(math.isfinite, means.values()))):
            bad = [name for name, value in means.items() if not math.isfinite(value)]
            raise FitError(f"cannot select by {', '.join(bad) or 'validation'} at epoch {epoch}: the loss is not finite")
        return {f"validation/{name}": mean for name, mean in means.items()}

    def _batches(self, part: str, *when: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seeds.seed_of(self.seed, part, *when))
        return list(self.stage.batches(part, self.settings.batch_size, rng))

    def _step(self, part: str, index: np.ndarray, epoch: int, number: int) -> _Step:
        """The step, with every random number generator set for it."""
        training = part == "train"
        seed = seeds.seed_of(self.seed, part, epoch if training else 0, number)
        seeds.reseed(seed, self.device)
        rank, world = self.context.rank, self.context.world
        size = -(-len(index) // world)
        return _Step(
            index=index,
            progress=epoch / self.settings.epochs,
            device=self.device,
            training=training,
            generator=torch.Generator().manual_seed(seed),
            seed=seed,
            rank=rank,
            world=world,
            # Where the batch cannot be divided, the last slices take frames from its beginning again; gather leaves them out.
            places=np.arange(rank * size, (rank + 1) * size) % len(index),
            pixels=self.pixels[part],
            augmentation=self.settings.augment,
        )

    def _whole(self, parameters: Iterable[nn.Parameter]) -> Any:
        """Parameters as they are, gathered from all workers where ZeRO 3 has parted them; every rank takes part."""
        from deepspeed.runtime.zero.partition_parameters import GatheredParameters

        return GatheredParameters(list(parameters), enabled=self.settings.resources.zero == 3)

    def _state(self) -> State:
        """A copy of the module's weights; under ZeRO 3 every rank takes part."""
        state = checkpoint.state_of(self.objective.module)
        return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}

    def _pause(self, epoch: int) -> None:
        """Leave if any rank is to, and keep a checkpoint if one is due; all ranks decide the same.

        Raises:
            Preempted: The checkpoint is kept.
        """
        minutes = self.settings.resources.checkpoint_minutes
        wishes = [self.context.leaving(), bool(minutes) and time.monotonic() - self.kept > 60 * minutes]
        if self.context.world > 1:
            told = torch.tensor(wishes, dtype=torch.int32, device=self.device)
            dist.all_reduce(told, dist.ReduceOp.MAX)
            wishes = told.bool().tolist()
        leave, due = wishes
        if leave or due:
            self._keep()
        if leave:
            assert self.under_way is not None
            raise Preempted(f"left at epoch {epoch}, step {self.under_way.steps}")

    def _keep(self) -> None:
        steps = f"-step-{self.under_way.steps:09d}" if self.under_way else ""
        self.context.keep(f"epoch-{len(self.history):06d}{steps}", self._save)
        self.kept = time.monotonic()

    def _save(self, folder: Path) -> None:
        facts = {
            "history": self.history,
            "steps": self.steps,
            "best": self.best,
            "under_way": self.under_way and self.under_way.state(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "lr": [group["lr"] for group in self.optimizer.param_groups],
        }
        checkpoint.write(folder, self.objective, self.engine, facts, rank=self.context.rank)

    def _resume(self) -> tuple[Path, dict[str, Any]] | None:
        """Take up everything of the context's checkpoint but what the engine has to be there for."""
        folder = self.context.checkpoint()
        facts = checkpoint.load(folder, self.objective) if folder else None
        if folder is None or facts is None:
            return None
        self.history, self.steps, self.best = facts["history"], facts["steps"], facts["best"]
        if facts["under_way"]:
            self.under_way = _UnderWay(self.context, **facts["under_way"])
        for group, lr in zip(self.optimizer.param_groups, facts["lr"], strict=True):
            group["lr"] = lr
        if self.scheduler:
            self.scheduler.load_state_dict(facts["scheduler"])
        return folder, facts


def _optimizer(objective: Objective, settings: Trainer) -> torch.optim.Optimizer:
    """PyTorch's own, because DeepSpeed would compile its own for minutes. What the weighting learns does not decay."""
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": lambda groups, **settings: torch.optim.SGD(groups, momentum=0.9, **settings),
    }
    of_module = [p for p in objective.module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": of_module, "weight_decay": settings.weight_decay}]
    if learned := [p for p in objective.weighting.parameters() if p.requires_grad]:
        groups.append({"params": learned, "weight_decay": 0.0, "lr": objective.weighting.lr or settings.lr})
    return kinds[settings.optimizer](groups, lr=settings.lr)


def _scheduler(optimizer: torch.optim.Optimizer, settings: Trainer) -> Any:
    """Stepped after every epoch; None where the rate stays."""
    from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, ReduceLROnPlateau, SequentialLR, StepLR

    schedule = settings.schedule
    # said of a fit that left when an epoch's steps were done: its rate moves before its next step
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
    if schedule.name == "step":
        return StepLR(optimizer, schedule.every, schedule.factor)
    if schedule.name == "plateau":
        return ReduceLROnPlateau(optimizer, factor=schedule.factor, patience=schedule.patience)
    if schedule.name == "cosine":
        warmup = min(schedule.warmup, settings.epochs - 1)
        cosine = CosineAnnealingLR(optimizer, settings.epochs - warmup)
        if not warmup:
            return cosine
        return SequentialLR(optimizer, [LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup), cosine], [warmup])
    return None


_ON_CPU = {"device": "cpu", "pin_memory": False}  # pinning all of it is more than many machines allow
_OFFLOADED: dict[str, dict[str, Any]] = {
    "none": {},
    "optimizer": {"offload_optimizer": _ON_CPU},
    "optimizer_and_parameters": {"offload_optimizer": _ON_CPU, "offload_param": _ON_CPU},
}


def _engine(objective: Objective, optimizer: torch.optim.Optimizer, settings: Trainer, world: int) -> Any:
    import deepspeed
    import deepspeed.ops
    from deepspeed.runtime import torch_autocast

    deepspeed.ops.__compatible_ops__ = {}  # asked for, it runs a compiler to see; then a minute goes into an op of inference
    deepspeed.utils.logger.setLevel(logging.ERROR)
    torch_autocast.TORCH_AUTOCAST_INITIALIZED = False  # an engine before this one leaves it set
    for module in ("deepspeed", r"torch\.distributed"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
    config: dict[str, Any] = {
        "zero_force_ds_cpu_optimizer": False,  # where the optimizer is offloaded: its own Adam is compiled for two minutes
        "train_micro_batch_size_per_gpu": -(-settings.batch_size // world),
        "gradient_accumulation_steps": settings.accumulate,
        "gradient_clipping": settings.clip,
        "zero_optimization": {"stage": settings.resources.zero, **_OFFLOADED[settings.resources.offload]},
        "zero_allow_untested_optimizer": True,  # sgd
        "steps_per_print": None,
    }
    if settings.precision != "fp32":  # weights stay fp32, so that normalisation and small batches keep their precision
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[settings.precision]
        config["torch_autocast"] = {"enabled": True, "dtype": dtype, "lower_precision_safe_modules": []}
    engine, *_ = deepspeed.initialize(model=objective, optimizer=optimizer, config=config, dist_init_required=False)
    engine.enable_backward_allreduce = world > 1 or settings.resources.zero > 0  # with oneself, a copy of all gradients
    return engine


def _device(settings: Trainer) -> torch.device:
    if not settings.resources.gpus:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        if settings.precision == "fp16":
            raise RequestError("fp16 needs a GPU", where="trainer.precision", remedy="use bf16 or fp32, or set trainer.resources.gpus")
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RequestError("no GPU is visible", where="trainer.resources.gpus", remedy="set it to 0")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, products of matrices are not reproducible
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _pixels(frames: Frames, rows: np.ndarray, device: torch.device) -> Tensor:
    """``(n, channels, height, width)`` uint8 on the device."""
    return torch.from_numpy(frames[rows]).to(device).permute(0, 3, 1, 2).contiguous()


def _unit(pixels: Tensor) -> Tensor:
    return pixels.float().div_(255)


def _free_memory(device: torch.device) -> int:
    import psutil

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else int(psutil.virtual_memory().available)


def _reset_peak_memory(device: torch.device) -> int:
    """Count from here on, and tell the bytes held now; a process that has fitted before gives back what it does not need."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with contextlib.suppress(OSError, AttributeError):  # only Linux and its C library can
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_memory(device)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024
