"""Backbones: a small convolutional net, and any vision model of ``transformers``. Frames in [0, 1] go in, embeddings or maps come out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import RequestError, did_you_mean
from harness.recomputing import is_wanted, recomputed


def build(config: Mapping[str, Any], *, channels: int, dim: int | None = 256) -> nn.Module:
    """A new backbone.

    Args:
        config: ``name`` (``conv`` or ``transformers``) and the options of :class:`Conv` or :class:`Pretrained`.
        channels: Of the frames, 1 or 3.
        dim: Of the embedding; None for a backbone that has none and is asked for its maps alone.

    Returns:
        A module from ``(b, channels, height, width)`` in [0, 1] to ``(b, dim)``. Its method ``maps`` gives the last feature map before
        that, ``(b, map_width, rows, columns)``. What it does with one frame does not depend on the others, as long as the model has no
        batch normalisation of its own.

    Raises:
        RequestError: An unknown name or option, or weights that are not there.
    """
    options = dict(config)
    name = options.pop("name", None)
    if name not in _BACKBONES:
        raise RequestError(f"no backbone is called {name!r}", where="backbone.name", remedy=did_you_mean(str(name), _BACKBONES))
    try:
        module: nn.Module = _BACKBONES[name](channels=channels, dim=dim, **options)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # the call itself, not what it does
            raise RequestError(f"backbone {name}: {error}", where="backbone") from error
        raise
    return module


class Conv(nn.Module):
    """Blocks of convolution, normalisation, ReLU and max-pooling on a coarse grid, then one linear layer.

    The first block works at full resolution: a mouth is a few pixels wide here, and a stride before anything has looked at
    it loses the corners. Each channel of each frame is normalised on its own, so that light and skin do not matter and
    no frame depends on the others of its batch. The last map is averaged over ``grid`` x ``grid`` cells and not over all of
    it: where a corner of the mouth is says more than that there is one.

    Args:
        channels: Of the frames.
        dim: Of the embedding; None for none.
        widths: Channels of the blocks.
        grid: Cells a side that the last map is averaged over for the embedding.
    """

    def __init__(self, *, channels: int, dim: int | None, widths: Sequence[int] = (8, 24, 48, 64), grid: int = 3) -> None:
        super().__init__()
        if not widths or any(not isinstance(width, int) or width < 1 for width in widths):
            raise RequestError(f"widths {list(widths)}", where="backbone.widths", remedy="give one or more whole numbers from 1")
        blocks: list[nn.Module] = []
        for before, width in zip((channels, *widths), widths, strict=False):
            blocks += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.GroupNorm(width, width), nn.ReLU(), nn.MaxPool2d(2)]
        self.blocks = nn.Sequential(*blocks[:-1])
        self.each = len(blocks) // len(widths)
        self.grid, self.map_width = grid, widths[-1]
        self.embedding = None if dim is None else nn.Linear(widths[-1] * grid**2, dim)

    def forward(self, frames: Tensor) -> Tensor:
        assert self.embedding is not None
        embedding: Tensor = self.embedding(F.adaptive_avg_pool2d(self.maps(frames), self.grid).flatten(1))
        return embedding

    def maps(self, frames: Tensor) -> Tensor:
        """``(b, map_width, rows, columns)``, a row of every ``2 ** (blocks - 1)`` pixels."""
        centred = frames - frames.mean((1, 2, 3), keepdim=True)
        centred = centred / centred.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-3)
        maps = centred.contiguous(memory_format=torch.channels_last)
        for first in range(0, len(self.blocks), self.each):
            maps = recomputed(self.blocks[first : first + self.each], maps)
        return maps


class Pretrained(nn.Module):
    """A vision model of ``transformers``, its pooled output and one linear layer.

    Grey frames are repeated to the model's channels, frames are resized to the model's size and normalised as the model's
    preprocessor says.

    Args:
        channels: Of the frames.
        dim: Of the embedding; None for none.
        model: A name on the Hugging Face hub or a local folder; None to build the model from ``config`` alone.
        pretrained: Take the model's weights, not only its configuration.
        config: Changes to the model's configuration; with ``model: null`` its ``model_type`` and sizes.
        frozen: Train the linear layer alone.
        download: Whether the network may be asked for what is not on this machine.
    """

    def __init__(
        self,
        *,
        channels: int,
        dim: int | None,
        model: str | None = None,
        pretrained: bool = True,
        config: Mapping[str, Any] | None = None,
        frozen: bool = False,
        download: bool = False,
    ) -> None:
        super().__init__()
        network, mean, std = _from_config(config or {}) if model is None else _from_model(model, config or {}, pretrained, download)
        self.network = getattr(network, "vision_model", network)  # CLIP and its kind: without the text half
        if self.network.main_input_name != "pixel_values":
            raise RequestError(f"{type(network).__name__} is no vision model", where="backbone", remedy="choose one that takes images")
        self.frozen = frozen
        self.channels = getattr(self.network.config, "num_channels", 3)
        self.size = getattr(self.network.config, "image_size", None)
        if channels not in (1, self.channels):
            what = f"frames of {channels} channels for a model of {self.channels}"
            raise RequestError(what, where="task.frames.channels", remedy="set it to 1")
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        if frozen:
            self.network.requires_grad_(False)
        self.train()
        side = self.size or 64
        with torch.no_grad():
            training, _ = self.network.training, self.network.eval()
            output = self._output(torch.zeros(1, channels, side, side))
            self.network.train(training)
        self.map_width = self._map(output).shape[1]
        self.embedding = None if dim is None else nn.Linear(_pooled(output).shape[1], dim)

    mean: Tensor
    std: Tensor

    def train(self, mode: bool = True) -> Pretrained:
        super().train(mode)
        if self.frozen:
            self.network.eval()  # dropout and running statistics rest as well
        return self

    def forward(self, frames: Tensor) -> Tensor:
        assert self.embedding is not None
        embedding: Tensor = self.embedding(_pooled(self._output(frames)))
        return embedding

    def maps(self, frames: Tensor) -> Tensor:
        """``(b, map_width, rows, columns)`` of the last layer.

        The tokens of a transformer are its patches in their places, without the class token and its like, which stand before them. Where
        no grid fits their number, they are one row.
        """
        return self._map(self._output(frames))

    def _output(self, frames: Tensor) -> Any:
        if self.size and frames.shape[2:] != (self.size, self.size):
            frames = F.interpolate(frames, (self.size, self.size), mode="bilinear", antialias=True)
        if self.network.supports_gradient_checkpointing and self.network.is_gradient_checkpointing != is_wanted():
            if is_wanted():
                self.network.gradient_checkpointing_enable({"use_reentrant": False})
            else:
                self.network.gradient_checkpointing_disable()
        return self.network(pixel_values=(frames.expand(-1, self.channels, -1, -1) - self.mean) / self.std)

    def _map(self, output: Any) -> Tensor:
        last: Tensor = output.last_hidden_state
        if last.dim() == 4:
            return last
        n, patch = last.shape[1], getattr(self.network.config, "patch_size", None)
        grid = self.size // patch if isinstance(self.size, int) and isinstance(patch, int) else 0
        for side, before in ((grid, _SPECIAL), (math.isqrt(n), 0)):  # the other where patches were merged on the way, as Swin does
            if side and 0 <= n - side**2 <= before:
                return last[:, n - side**2 :].transpose(1, 2).reshape(len(last), -1, side, side)
        return last.transpose(1, 2)[:, :, None]


_SPECIAL = 8  # tokens before the patches, at most: one of the class, or two, and some registers


def _pooled(output: Any) -> Tensor:
    """``(b, d)``, what a model gives of a whole frame."""
    pooled: Tensor | None = getattr(output, "pooler_output", None)
    if pooled is None:
        last: Tensor = output.last_hidden_state
        pooled = last.mean(1) if last.dim() == 3 else last.mean((2, 3))  # tokens, or a map
    return pooled.flatten(1)


_BACKBONES: dict[str, Any] = {"conv": Conv, "transformers": Pretrained}


def _from_config(config: Mapping[str, Any]) -> tuple[Any, list[float], list[float]]:
    """A model without weights, and the normalisation of its frames."""
    from transformers import AutoConfig, AutoModel

    options = dict(config)
    kind = options.pop("model_type", None)
    if kind is None:
        raise RequestError("neither a model nor a model_type", where="backbone", remedy="set backbone.model or backbone.config.model_type")
    try:
        return AutoModel.from_config(AutoConfig.for_model(kind, **options)), [0.5], [0.5]  # type: ignore[no-untyped-call]
    except (ValueError, TypeError) as error:
        raise RequestError(f"no such vision model: {_first_line(error)}", where="backbone.config") from error


def _from_model(model: str, config: Mapping[str, Any], pretrained: bool, download: bool) -> tuple[Any, list[float], list[float]]:
    from transformers import AutoConfig, AutoModel
    from transformers.image_processing_base import ImageProcessingMixin

    local = {"local_files_only": not download}
    try:
        settings = AutoConfig.from_pretrained(model, **local, **config)
        made = AutoModel.from_pretrained(model, config=settings, **local) if pretrained else AutoModel.from_config(settings)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        remedy = "give a folder with the model" if download else "give a folder with the model, or set backbone.download=true"
        raise RequestError(f"cannot load {model}: {_first_line(error)}", where="backbone.model", remedy=remedy) from error
    try:
        processor, _ = ImageProcessingMixin.get_image_processor_dict(model, **local)
    except (OSError, ValueError):
        processor = {}
    return made, processor.get("image_mean", [0.5]), processor.get("image_std", [0.5])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
