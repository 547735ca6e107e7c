"""Training checkpoints of a store that is kept elsewhere: on the machine as always, and now and then where the store is.

So a fit whose node is gone goes on on another. ``fits/FIT/checkpoint/NAME/`` holds the files of all ranks, and ``NAME.complete`` beside it
is written when all are there. A group whose workers do not share a machine keeps its checkpoints there alone.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from harness import checkpoint, training
from harness.errors import RequestError
from harness.lease import machine
from harness.working_copy import WorkingCopy

EVERY = 60.0
"""Seconds between two checkpoints that go where the store is; one that is kept in order to leave always goes there."""

log = logging.getLogger(__name__)


class Kept(training.Local):
    """``training.Local`` with a copy of its checkpoint where the store is.

    Args:
        folder: Of the fit's checkpoints, in the working copy.
        copy: The working copy.
        more: As of ``training.Local``.
    """

    def __init__(self, folder: Path, copy: WorkingCopy, **more: Any) -> None:
        super().__init__(folder, **more)
        self.copy, self.name = copy, folder.relative_to(copy.folder).as_posix()
        self._kept_at, self._there = time.monotonic(), False

    def checkpoint(self) -> Path | None:
        machines = self._all(machine())
        (newest,) = self._all(self._newest() if self.rank == 0 else None)[:1]
        if machines.index(machine()) == self.rank:  # one of each machine
            here = max((found.name for found in self.folder.glob("epoch-*") if checkpoint.intact(found)), default="")
            if newest and newest != here and (newest > here or len(set(machines)) > 1):
                self._bring(newest)
        self._meet()
        return super().checkpoint() if len(set(machines)) == 1 else self.folder / newest if newest else None

    def keep(self, name: str, write: Callable[[Path], object]) -> None:
        machines, leaving = self._all(machine()), any(self._all(self.leaving()))
        (due,) = self._all(leaving or time.monotonic() - self._kept_at >= EVERY)[:1]
        if len(set(machines)) == 1:
            super().keep(name, write)
            if due and self.rank == 0:
                self._push(name, self.folder / name)
                self._complete(name)
        elif due:
            coming = self.folder / f"coming-{self.rank}"
            shutil.rmtree(coming, ignore_errors=True)
            coming.mkdir(parents=True)
            write(coming)
            self._push(name, coming)
            shutil.rmtree(coming, ignore_errors=True)
            self._meet()
            if self.rank == 0:
                self._complete(name)
            self._meet()
        if due:
            self._kept_at = time.monotonic()

    def clear(self) -> None:
        """The fit is finished: nobody needs them."""
        if self._there:
            self.copy.remote.remove(f"{self.name}/{file}" for file in self.copy.remote.list(self.name))

    def _newest(self) -> str | None:
        names = [name.removesuffix(".complete") for name in self.copy.remote.list(self.name) if name.endswith(".complete")]
        self._there = bool(names)
        return max(names, default=None)

    def _bring(self, name: str) -> None:
        coming = self.folder / f".{name}.{uuid.uuid4().hex[:8]}"
        try:
            files = [file for file in self.copy.remote.list(self.name) if file.startswith(f"{name}/")]
            self.copy.remote.each(lambda file: self.copy.remote.fetch(f"{self.name}/{file}", coming / file.partition("/")[2]), files)
            shutil.rmtree(self.folder / name, ignore_errors=True)
            coming.replace(self.folder / name)
        except (RequestError, OSError) as error:
            log.warning("a checkpoint could not be brought, and training begins at its start: %s", error)
        finally:
            shutil.rmtree(coming, ignore_errors=True)

    def _push(self, name: str, folder: Path) -> None:
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file() and path.stat().st_size}
        with self._mattering_little():
            self.copy.remote.each(lambda file: self.copy.remote.put_file(f"{self.name}/{name}/{file}", files[file]), files)

    def _complete(self, name: str) -> None:
        with self._mattering_little():
            older = [file for file in self.copy.remote.list(self.name) if not file.startswith((f"{name}/", f"{name}."))]
            self.copy.remote.put(f"{self.name}/{name}.complete", b"all ranks have written")
            self.copy.remote.remove(f"{self.name}/{file}" for file in sorted(older, key=lambda file: not file.endswith(".complete")))
            self._there = True

    @contextlib.contextmanager
    def _mattering_little(self) -> Any:
        """A checkpoint that does not get there ends no training."""
        try:
            yield
        except (RequestError, OSError) as error:
            log.warning("a checkpoint was not kept where the store is: %s", error)

    def _all(self, mine: Any) -> list[Any]:
        """What every rank says, by rank."""
        if self.world == 1:
            return [mine]
        said: list[Any] = [None] * self.world
        dist.all_gather_object(said, mine)
        return said
