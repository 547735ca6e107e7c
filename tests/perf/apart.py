"""Commands in processes of their own, and what each of them took: its peak of memory, and how long it waited for a processor."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

waited = 0
"""Nanoseconds that the processes run so far stood in the queue for a processor, as far as the kernel tells."""


@dataclass(frozen=True)
class Finished:
    """What is left of a process.

    Attributes:
        printed: On its standard output.
        peak_mib: The most memory it held, MiB; of itself, not of processes that it started.
    """

    printed: str
    peak_mib: float


def run(arguments: Sequence[str], cwd: Path, *, check: bool = True, env: dict[str, str] | None = None) -> Finished:
    """Run a command to its end; a failure raises with what it said."""
    global waited
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(arguments, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and still there to be asked
        waited += queued(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        if check and process.returncode:
            err.seek(0)
            raise RuntimeError(f"{' '.join(arguments)}: exit status {process.returncode}: {err.read().decode()[-2000:]}")
        return Finished(out.read().decode(), usage.ru_maxrss / 1024)


def queued(process: int | str = "self") -> int:
    """Nanoseconds that the threads of a process which are alive were ready to run and did not; 0 where the kernel does not say.

    Where one thread works at a time, as in comparisons, that is what the process lost to others.
    """
    total = 0
    for thread in Path(f"/proc/{process}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, IndexError, ValueError):  # it has ended meanwhile
            total += int(thread.read_text().split()[1])
    return total
