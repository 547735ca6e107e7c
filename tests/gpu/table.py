"""What a GPU gives: ``python -m tests.gpu.table`` prints how right it is, how fast and how much memory it takes, in two short tables.

With ``--device cpu`` the same runs small, so that it is known to work where there is no GPU; its numbers then say nothing of one.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from baselines.supervised import SupervisedStage
from baselines.weighting import Equal
from harness import trainer, training
from harness.augmentation import augment
from harness.baseline import Data, Previous, Stage
from harness.config import compose, instantiate
from tests.baselines.conftest import make_data

BASELINES = ("mt_clar", "mt_clar_sl", "supervised", "clef", "mtt", "mtt_pooled", "mtt_single_task")
"""One of every kind of stage; the others differ in sizes, or need weights that have to be downloaded."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TARGETS, CLASSES = ("valence", "arousal", "expression", "au1", "au12"), ("neutral", "happy", "sad")

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "fp32, recomputed": {"resources": {"activation_checkpointing": True}},
    "bf16, recomputed": {"precision": "bf16", "resources": {"activation_checkpointing": True}},
    "bf16, ZeRO 1": {"precision": "bf16", "resources": {"zero": 1}},
    "bf16, ZeRO 2": {"precision": "bf16", "resources": {"zero": 2}},
    "bf16, ZeRO 3": {"precision": "bf16", "resources": {"zero": 3}},
    "bf16, ZeRO 2, optimizer offloaded": {"precision": "bf16", "resources": {"zero": 2, "offload": "optimizer"}},
    "bf16, ZeRO 3, all offloaded": {"precision": "bf16", "resources": {"zero": 3, "offload": "optimizer_and_parameters"}},
}
AUGMENT = {"flip": 0.5, "rotate": 20, "translate": 0.1, "scale": [0.8, 1.2], "brightness": 0.2, "contrast": 0.2}


@dataclass(frozen=True)
class Size:
    """Of the frames, the network and the epochs whose speed is measured."""

    frames: int
    side: int
    batch: int
    widths: tuple[int, ...]
    epochs: int


LARGE, SMALL = Size(8192, 112, 256, (32, 64, 128, 256), 4), Size(96, 24, 32, (8, 16), 2)


def faces(n: int, side: int) -> Data:
    """Noise with every kind of label."""
    rng = np.random.default_rng(0)
    columns = {
        "clip": [f"{row // 4}" for row in range(n)],
        "frame": [row % 4 for row in range(n)],
        "subject": [f"{row // 8}" for row in range(n)],
        "activity": rng.choice(["talk", "watch"], n),
        "valence": rng.uniform(-1, 1, n),
        "arousal": rng.uniform(-1, 1, n),
        "expression": rng.choice(CLASSES, n),
        "au1": rng.integers(0, 2, n),
        "au12": rng.integers(0, 2, n),
    }
    return make_data(rng.integers(0, 256, (n, side, side, 1), dtype=np.uint8), **columns)


# Correctness


class Doubled(TorchFunctionMode):
    """What asks for float32 gets float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0].double() if func is Tensor.float else func(*args, **(kwargs or {}))


@dataclass
class Alone:
    """A :class:`harness.baseline.Step` of one worker, without the engine."""

    index: np.ndarray
    pixels: Tensor
    device: torch.device
    dtype: torch.dtype = torch.float32
    augmentation: trainer.Augment = field(default_factory=trainer.Augment)
    progress: float = 1.0
    training: bool = True

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def frames(self, column: int = 0, view: int = 0) -> Tensor:
        rows = torch.from_numpy(self.index[:, column]).to(self.pixels.device)
        frames = self.pixels[rows].to(self.device, self.dtype).div_(255)
        with torch.autocast(self.device.type, enabled=False):
            return augment(frames, self.augmentation, torch.Generator().manual_seed(view), np.arange(len(rows)), len(rows))

    def gather(self, local: Tensor) -> Tensor:
        return local.to(self.dtype)

    def rows(self, values: Tensor, column: int = 0) -> Tensor:
        found = values[torch.from_numpy(self.index[:, column])].to(self.device)
        return found.to(self.dtype) if found.is_floating_point() else found


def stages(baseline: str, data: Data) -> Iterator[tuple[str, Stage, nn.Module]]:
    """The stages of a baseline as it is configured, each with a new module, in which nothing is dropped at random."""
    previous: Previous | None = None
    for name, config in compose([f"baseline={baseline}"])["baseline"]["stages"].items():
        stage: Stage = instantiate({key: value for key, value in config.items() if key not in ("trainer", "weighting")})
        stage.setup(data, data, TARGETS, CLASSES, previous)
        torch.manual_seed(0)
        module = stage.module().train()
        for part in module.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        yield f"{baseline} {name}", stage, module
        if not stage.on_embeddings:
            with torch.inference_mode():
                made = stage.encode(copy.deepcopy(module).eval(), _pixels(data).float() / 255).float().numpy()
            previous = Previous(stage, module, made, made)


def _pixels(data: Data) -> Tensor:
    return torch.from_numpy(np.asarray(data.frames[np.arange(len(data.frames))])).permute(0, 3, 1, 2).contiguous()


def gradients(
    stage: Stage, module: nn.Module, data: Data, device: torch.device, precision: torch.dtype, *, reference: bool = False
) -> tuple[Tensor, Tensor]:
    """The losses of one step, and the gradient of their sum by all parameters as one vector: float64 on the CPU."""
    module = copy.deepcopy(module).to(device, torch.float64 if reference else None)
    index = next(iter(stage.batches("train", 16, np.random.default_rng(0))))
    step = Alone(index, _pixels(data), device, torch.float64 if reference else torch.float32)
    scale = 1024.0 if precision == torch.float16 else 1.0
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        if reference:
            with Doubled():
                losses = stage.losses(module, step)
        else:
            losses = stage.losses(module, step)
    told = torch.stack([loss.double() for loss in losses.values()])
    (told.sum() * scale).backward()
    parts = [parameter.grad for parameter in module.parameters() if parameter.requires_grad and parameter.grad is not None]
    return told.detach().cpu(), torch.cat([part.detach().double().cpu().flatten() for part in parts]) / scale


def correctness(device: torch.device, precisions: Sequence[str], baselines: Sequence[str] = BASELINES) -> list[dict[str, Any]]:
    """How far the losses and gradients of every stage are from those of float64 on the CPU, relative to their norms."""
    data, rows = faces(32, 24), []
    for baseline in baselines:
        for name, stage, module in stages(baseline, data):
            losses, gradient = gradients(stage, module, data, torch.device("cpu"), torch.float32, reference=True)
            for precision in precisions:
                made = gradients(stage, module, data, device, PRECISIONS[precision])
                errors = [float((ours - theirs).norm() / theirs.norm()) for ours, theirs in zip(made, (losses, gradient), strict=True)]
                rows.append({"stage": name, "precision": precision, "losses off by": errors[0], "gradient off by": errors[1]})
    return rows


# Speed and memory


def _stage(size: Size) -> SupervisedStage:
    return SupervisedStage(backbone={"name": "conv", "widths": list(size.widths)})


def bare(size: Size, data: Data, device: torch.device) -> float:
    """Frames a second of a plain PyTorch loop: the same network, losses, batches, augmentation and optimizer, in fp32."""
    stage = _stage(size)
    stage.setup(data, data, TARGETS, CLASSES, None)
    module = stage.module().to(device).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-4)
    pixels, settings = _pixels(data).to(device), trainer.read({"augment": AUGMENT}).augment
    seconds = []
    for epoch in range(size.epochs):
        started = time.perf_counter()
        for index in stage.batches("train", size.batch, np.random.default_rng(epoch)):
            optimizer.zero_grad()
            losses = stage.losses(module, Alone(index, pixels, device, augmentation=settings))
            torch.stack(list(losses.values())).mean().backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return size.frames / min(seconds)


def fitted(size: Size, data: Data, device: torch.device, settings: dict[str, Any], folder: Path, **where: Any) -> training.Fitted:
    """A fit by the engine of the same."""
    resources = {"checkpoint_every": 0, "gpus": int(device.type == "cuda"), **settings.get("resources", {})}
    plain = {"epochs": size.epochs, "batch_size": size.batch, "schedule": {"name": "none"}, "augment": AUGMENT}
    return training.fit(
        _stage(size),
        data,
        Data(data.samples.clear(), make_data(np.zeros((0, size.side, size.side, 1), np.uint8), valence=[]).frames),
        targets=TARGETS,
        classes=CLASSES,
        trainer={**plain, **settings, "resources": resources},
        weighting=Equal(),
        seed=0,
        context=where.get("context") or training.Local(folder),
    )


def speed(size: Size, device: torch.device, configurations: Sequence[str]) -> list[dict[str, Any]]:
    """Frames a second of the engine and of the bare loop before it, and MiB: held at the peak, and how much of that a step gives back."""
    data, rows = faces(size.frames, size.side), []
    bare(size, data, device)  # what is loaded or chosen the first time
    for name in configurations:
        plain = bare(size, data, device)
        with tempfile.TemporaryDirectory() as folder:
            made = fitted(size, data, device, CONFIGURATIONS[name], Path(folder))
        ours = size.frames / min(entry["seconds"] for entry in made.history)
        rows.append(
            {
                "configuration": name,
                "frames/s": ours,
                "of the bare loop": ours / plain,
                "peak MiB": made.peak_memory / 2**20,
                "of a step": made.working_memory / 2**20,
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as aligned text."""
    cells = [list(rows[0]), *([value if isinstance(value, str) else f"{value:.3g}" for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells)


def main(arguments: Sequence[str] | None = None, tell: Callable[[str], object] = print) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.table", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(parser.parse_args(arguments).device)
    on_gpu = device.type == "cuda"
    where = torch.cuda.get_device_name(device) if on_gpu else "the CPU, small"
    tell(f"torch {torch.__version__} on {where}\n")
    known = [name for name in PRECISIONS if on_gpu or name != "fp16"]
    tell(table(correctness(device, known)) + "\n")
    possible = [name for name, settings in CONFIGURATIONS.items() if on_gpu or settings.get("precision") != "fp16"]
    tell(table(speed(LARGE if on_gpu else SMALL, device, possible)))


if __name__ == "__main__":
    main()
