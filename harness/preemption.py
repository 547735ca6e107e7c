"""A notice that a process is to leave soon: a file that appears. Whoever hears of it first, by a signal say, makes the file.

A file is seen by every process of a fit, on every node that shares the folder, and needs no signal handler where a library has its own.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from harness.errors import RequestError
from harness.store import Store

VARIABLE = "HARNESS_NOTICE"
"""By which the processes of a cluster are told where the notice of their node would be."""


def of_node() -> Path:
    """The file that tells all fits of this node to leave once somebody makes it: ``cluster.notice``, or one with the temporary files."""
    named = os.environ.get(VARIABLE) or f"{tempfile.gettempdir()}/harness-{os.getuid()}.leave"
    return Path(os.path.expandvars(named)).expanduser()


def path_in(store: Store, name: str) -> Path:
    """The file that tells all fits of one run to leave."""
    return store.root / "notices" / name


def of_run(store: Store, name: str) -> Notice:
    """The notice that :func:`path_in` is, as any process on any node hears of it."""
    if store.elsewhere is None:
        return Notice([path_in(store, name)])
    return Notice([path_in(store, name)], every=5.0, seek=store.elsewhere.fetch)


class Preempted(Exception):
    """A process was given notice and has left, everything it had learned kept. Run again, it goes on from there."""


class Notice:
    """Whether one of some files has appeared.

    Args:
        paths: Of the files; folders that are not there yet are no error.
        every: Seconds between two looks at the disk.
        seek: Called with each of them before a look, to bring it if it is elsewhere.
    """

    def __init__(self, paths: Iterable[Path], *, every: float = 1.0, seek: Callable[[Path], object] = lambda path: None) -> None:
        self.paths, self.every, self.seek = tuple(paths), every, seek
        self._given, self._next = False, 0.0

    def given(self) -> bool:
        """Cheap enough for every step of a training. Once given, a notice stays given, also where its file goes away."""
        if not self._given and (now := time.monotonic()) >= self._next:
            self._next = now + self.every
            for path in self.paths:
                with contextlib.suppress(RequestError):  # a store that does not answer gives no notice
                    self.seek(path)
            self._given = any(path.exists() for path in self.paths)
        return self._given
