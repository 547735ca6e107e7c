"""A notice that a process is to leave soon: a file that appears. Whoever hears of it first, by a signal say, makes the file.

A file is seen by every process of a fit, on every node that shares the folder, and needs no signal handler where a library has its own.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

VARIABLE = "HARNESS_NOTICE"
"""By which the processes of a cluster are told where the notice of their node would be."""


def of_node() -> Path:
    """The file that tells all fits of this node to leave once somebody makes it: ``cluster.notice``, or one with the temporary files."""
    named = os.environ.get(VARIABLE) or f"{tempfile.gettempdir()}/harness-{os.getuid()}.leave"
    return Path(os.path.expandvars(named)).expanduser()


class Preempted(Exception):
    """A process was given notice and has left, everything it had learned kept. Run again, it goes on from there."""


class Notice:
    """Whether one of some files has appeared.

    Args:
        paths: Of the files; folders that are not there yet are no error.
        every: Seconds between two looks at the disk.
    """

    def __init__(self, paths: Iterable[Path], *, every: float = 1.0) -> None:
        self.paths, self.every = tuple(paths), every
        self._given, self._next = False, 0.0

    def given(self) -> bool:
        """Cheap enough for every step of a training. Once given, a notice stays given, also where its file goes away."""
        if not self._given and (now := time.monotonic()) >= self._next:
            self._next = now + self.every
            self._given = any(path.exists() for path in self.paths)
        return self._given
