"""Random numbers that follow from what they are for, alike on every machine and on every worker."""

from __future__ import annotations

import hashlib

import torch


def seed_of(*words: int | str) -> int:
    """63 bits that follow from the words alone, alike on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=8).digest()) >> 1


def reseed(seed: int, device: torch.device) -> None:
    """``torch.manual_seed`` without its millisecond: where CUDA was never used it keeps a traceback of every call."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
