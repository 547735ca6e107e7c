"""How long the command line takes to answer where nothing is computed, as a process of its own."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PLUGIN, command

ROUNDS = 11


@pytest.mark.parametrize("arguments", [("--help",), ("list", "tasks"), ("list", "baselines"), ("lsit",)], ids=" ".join)
def test_start_up(benchmark: Any, arguments: tuple[str, ...]) -> None:
    """Beside it, taking turns: an interpreter that imports nothing."""
    bare: list[float] = []

    def interpreter() -> None:
        started = time.perf_counter()
        _run([sys.executable, "-c", ""], PLUGIN)
        bare.append(time.perf_counter() - started)

    benchmark.pedantic(lambda: _run(command(*arguments), PLUGIN), setup=interpreter, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["seconds_of_a_bare_interpreter"] = statistics.median(bare)


def _run(arguments: list[str], folder: Path) -> None:
    subprocess.run(arguments, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
