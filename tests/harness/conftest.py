"""Two workers that have done all that tests ask of two workers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which a pair of processes has written what it learned; see ``two_workers.py``."""
    from harness.preemption import Preempted
    from tests.harness.fitting import LearnedWeights, Odd, Told, fit
    from tests.harness.two_workers import MOVES

    folder = tmp_path_factory.mktemp("workers")
    for name, trainer in MOVES.items():
        with pytest.raises(Preempted):
            fit(Odd(), folder, LearnedWeights(), Told(folder / f"of-one-{name}", at=8), **trainer)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(__file__).with_name("two_workers.py")
    common = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(program.parents[2]),
    }
    workers = [
        subprocess.Popen(
            [sys.executable, str(program), str(folder)], env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    said = [worker.communicate(timeout=300)[1].decode() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said[0][-3000:] + said[1][-3000:]
    return folder
