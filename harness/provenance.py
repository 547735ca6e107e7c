"""Where a result came from: revision, versions, hardware, sources. No host name, path of a home or key is kept."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import identity

PACKAGES = (
    "harness",
    "torch",
    "ray",
    "deepspeed",
    "polars",
    "numpy",
    "scipy",
    "scikit-learn",
    "transformers",
    "kornia",
    "wandb",
    "pillow",
    "av",
)


@functools.cache
def environment() -> dict[str, Any]:
    """Package versions, Python, processor and GPUs, and the git revision of the code that runs."""
    hardware = {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "gpus": _gpus()}
    return {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}", **hardware, **software()}


@functools.cache
def software() -> dict[str, Any]:
    """Python, package versions and the git revision: all that scoring depends on. Imports no torch."""
    packages = {name: version for name in PACKAGES if (version := _version(name)) is not None}
    return {"python": platform.python_version(), "packages": packages, **_revision()}


def used(gpus: bool) -> dict[str, Any]:
    """What a fit of this process alone trains on: ``nodes`` and ``gpus``, as a group's ``hardware``."""
    return {"nodes": 1, "gpus": [gpu()] if gpus else []}


def gpu(device: int = 0) -> str:
    """Name and memory of one of the GPUs this process sees: ``NVIDIA H100 80GB HBM3, 79.2 GiB``."""
    import torch

    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB"


@functools.cache
def code() -> str:
    """An address of this program's own files, by which two machines know that they run the same."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return identity.address([[str(file.relative_to(Path(__file__).parent)), identity.address_of_file(file)] for file in files])


def now() -> str:
    """ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def sources(*targets: str) -> dict[str, str]:
    """Dotted targets → SHA-256 of the file that defines each, by which a stale result is known."""
    return {target: found[1] for target in targets if (found := identity.source_of(target)) is not None}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())]


def _revision() -> dict[str, Any]:
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no")) if commit else None}
