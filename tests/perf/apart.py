"""Commands in processes of their own, and what each of them took: its peak of memory, and how long it waited for a processor."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
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
        peak_mib: The most memory it held, MiB, where it was watched; of itself, not of processes that it started.
    """

    printed: str
    peak_mib: float


def run(arguments: Sequence[str], cwd: Path, *, check: bool = True, watch: bool = False) -> Finished:
    """Run a command to its end; a failure raises with what it said.

    Args:
        arguments, cwd: The command, and where.
        check: Whether another exit status than 0 is a failure.
        watch: Look at its memory every few milliseconds, which itself takes time.
    """
    global waited
    peak = 0.0
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(arguments, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        while watch and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            peak = max(peak, _most(process.pid))  # what the kernel tells at the end has the memory of this process in it, from before exec
            time.sleep(0.003)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and still there to be asked
        waited += queued(process.pid)
        process.wait()
        out.seek(0)
        if check and process.returncode:
            err.seek(0)
            raise RuntimeError(f"{' '.join(arguments)}: exit status {process.returncode}: {err.read().decode()[-2000:]}")
        return Finished(out.read().decode(), peak)


def _most(process: int) -> float:
    """MiB that a process held at most so far; 0 before it has become the command, and after its end."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def queued(process: int | str = "self") -> int:
    """Nanoseconds that the threads of a process which are alive were ready to run and did not; 0 where the kernel does not say.

    Where one thread works at a time, as in comparisons, that is what the process lost to others.
    """
    total = 0
    for thread in Path(f"/proc/{process}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, IndexError, ValueError):  # it has ended meanwhile
            total += int(thread.read_text().split()[1])
    return total
