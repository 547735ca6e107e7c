"""Lives of an evaluation, disturbed in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Disturbed = Callable[[str, Path], dict[str, Any]]
ROOT = Path(__file__).parents[2]
ALONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"), "1")


@pytest.fixture(scope="session")
def disturbed() -> Disturbed:
    """Runs ``lives.py`` to do something to lives; gives what it tells of each, by its name."""

    def run(what: str, scratch: Path) -> dict[str, Any]:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "plugin")])
        command = [sys.executable, str(Path(__file__).with_name("lives.py")), what, str(scratch)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=580, check=False, env=os.environ | ALONE | {"PYTHONPATH": path}
        )
        assert done.returncode == 0, done.stderr
        told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return {life["life"]: life | {"said": done.stderr} for life in told}

    return run
