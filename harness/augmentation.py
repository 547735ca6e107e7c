"""Frames changed at random, on the device and by batches, so that what one worker draws does not depend on how many there are."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from harness.trainer import Augment


def augment(frames: Tensor, settings: Augment, generator: torch.Generator, places: np.ndarray, total: int) -> Tensor:
    """Frames changed at random, each in its own way; geometry in one warp.

    Args:
        frames: ``(b, channels, height, width)`` in [0, 1].
        settings: What may happen.
        generator: Of the CPU.
        places: ``(b,)``, where these frames stand in the global batch.
        total: Size of the global batch. What happens to all of it is drawn, so that it does not matter who holds which slice.

    Returns:
        The same shape, in [0, 1].
    """
    draws = torch.rand(total, 15, generator=generator)[places].to(frames.device)
    flip, angle, scale, shear, brightness, contrast, erase, area, aspect = draws[:, :9].unbind(1)
    shift, crop, corner = draws[:, 9:11], draws[:, 11:13], draws[:, 13:15]
    height, width = frames.shape[2:]
    if settings.warps:
        from kornia.geometry import get_affine_matrix2d, warp_affine

        centre = torch.tensor([width - 1, height - 1], device=frames.device).expand(len(frames), 2) / 2
        low, high = settings.scale
        matrix = get_affine_matrix2d(
            ((2 * shift - 1) * settings.translate + (2 * crop - 1) * settings.crop) * torch.tensor([width, height], device=frames.device),
            centre,
            (low + (high - low) * scale)[:, None].expand(-1, 2),
            (2 * angle - 1) * settings.rotate,
            sx=(2 * shear - 1) * math.radians(settings.shear),
            sy=torch.zeros_like(shear),
        )
        mirror = torch.eye(3, device=frames.device).repeat(len(frames), 1, 1)
        mirror[flip < settings.flip, 0] = torch.tensor([-1.0, 0.0, width - 1.0], device=frames.device)
        frames = warp_affine(frames, (matrix @ mirror)[:, :2], (height, width), padding_mode="border")
    if settings.brightness or settings.contrast:
        mean = frames.mean((1, 2, 3), keepdim=True)
        factor = 1 + (2 * contrast - 1) * settings.contrast
        offset = (2 * brightness - 1) * settings.brightness
        frames = ((frames - mean) * factor[:, None, None, None] + mean + offset[:, None, None, None]).clamp(0, 1)
    if settings.erase:
        area, ratio = 0.02 + 0.23 * area, 4 ** (aspect - 0.5)  # from half to twice as wide as high
        side = torch.stack([area * ratio, area / ratio], 1).sqrt()  # shares of width and height
        start = corner * (1 - side)
        x, y = (torch.arange(n, device=frames.device)[None] / n for n in (width, height))
        across, down = ((at >= start[:, [i]]) & (at < (start + side)[:, [i]]) for i, at in enumerate((x, y)))
        inside = down[:, :, None] & across[:, None, :] & (erase < settings.erase)[:, None, None]
        frames = torch.where(inside[:, None], 0.5, frames)
    return frames
