"""What all tests share: the command line in a process of its own, as a user runs it, with the toy plug-in on its path."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent / "plugin"
Run = Callable[..., subprocess.CompletedProcess[str]]

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def command(*arguments: str) -> list[str]:
    """``harness …`` by the interpreter of the tests."""
    return [sys.executable, "-c", "from harness.cli import main; main()", *arguments]


@pytest.fixture(scope="session")
def harness() -> Run:
    """Runs ``harness …`` in the plug-in's folder and gives back what it printed."""

    def run(*arguments: str, cwd: Path = PLUGIN, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=400, check=False, **options)  # type: ignore[call-overload,no-any-return]

    return run


def toy(output: Path, *more: str, name: str = "toy") -> list[str]:
    """The arguments of a toy sweep into a folder."""
    return ["sweep", name, "--config-dir", "configs", f"output_dir={output}", *more]
