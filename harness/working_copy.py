"""What is kept at a URL, as files of this machine: written there first, and fetched when it is asked for.

The URL is the truth, and the copy may be deleted at any time. All processes of a machine that use the same URL share one copy: a file
appears in it by rename, with the time of the one there, so that both are the same where size and time are.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.lease import Leases
from harness.remote import Entry, Remote
from harness.store import cannot_write, write_atomically

WRITTEN_HERE = 10**9
"""The time (nanoseconds since 1970) of a file that was written from here, until a listing has told when it was written there."""
FRESH = 5.0
"""Seconds for which what a listing did not name is not asked for one by one."""
SETTLED = 1000
"""Times are compared to this many nanoseconds: file systems round."""


class WorkingCopy:
    """A folder whose files are kept at a URL; what a store asks of it is ``store.Elsewhere``.

    Args:
        folder: Of the copy, on this machine.
        remote: Where its files are kept.
    """

    def __init__(self, folder: Path, remote: Remote) -> None:
        self.folder, self.remote, self.url = folder, remote, remote.url
        self._leases = Leases(remote)
        self._listed: dict[Path, tuple[float, dict[str, Entry]]] = {}
        self._held: tuple[float, set[str]] = (-FRESH, set())

    def __reduce__(self) -> tuple[object, ...]:
        return _reopened, (self.url,)

    def write(self, path: Path, data: bytes) -> None:
        self.remote.put(self._name(path), data)
        write_atomically(path, data)
        _date(path, WRITTEN_HERE)

    def push(self, *paths: Path) -> None:
        def push(path: Path) -> None:
            self.remote.put_file(self._name(path), path)
            _date(path, WRITTEN_HERE)

        self.remote.each(push, paths)

    def keep(self, folder: Path) -> None:
        """All files of a folder that are new or have changed, and no other is left there."""
        there = self.remote.list(self._name(folder))
        here = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")}
        self.push(*(path for name, path in here.items() if not _same(path, there.get(name))))
        self.remote.remove(f"{self._name(folder)}/{name}" for name in there if name not in here)

    def remove(self, *paths: Path) -> None:
        self.remote.remove(map(self._name, paths))

    def look(self, folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
        before = _files(folder, wanted)  # before the listing: what is written meanwhile is in none, and stays
        there = self.remote.list(self._name(folder))
        self._listed[folder] = (time.monotonic(), there)
        for name in before - there.keys():
            (folder / name).unlink(missing_ok=True)
        new = {name: entry for name, entry in there.items() if wanted(name) and not _same(folder / name, entry)}
        self.remote.each(lambda name: self._fetch(folder / name, new[name]), new)

    def fetch(self, path: Path) -> bool:
        for folder, (when, names) in [*self._listed.items()]:
            if path.is_relative_to(folder) and time.monotonic() - when < FRESH and str(path.relative_to(folder)) not in names:
                return False
        return self._fetch(path, None)

    def names(self, folder: Path) -> set[str]:
        return set(self.remote.list(self._name(folder)))

    def set_aside(self, path: Path, aside: Path) -> None:
        with contextlib.suppress(OSError):
            path.replace(aside)
            found = aside.read_bytes()
            if self.remote.get(self._name(path)) == found:  # it is no fault of the copy
                self.write(aside, found)
                self.remove(path)

    @contextlib.contextmanager
    def hold(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        with self._leases.hold(name, wait=wait) as held:
            self._listed.clear()  # what others have done before us counts
            yield held

    def held(self, name: str) -> bool:
        if time.monotonic() - self._held[0] > FRESH:
            self._held = time.monotonic(), self._leases.held()
        return name in self._held[1]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _fetch(self, path: Path, entry: Entry | None) -> bool:
        coming = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            if not self.remote.fetch(self._name(path), coming):
                return False
            os.utime(coming, ns=(WRITTEN_HERE, entry.modified if entry else WRITTEN_HERE))
            coming.replace(path)
        except OSError as error:
            raise cannot_write(path, error) from error
        finally:
            with contextlib.suppress(OSError):
                coming.unlink(missing_ok=True)
        return True


def _reopened(url: str) -> WorkingCopy | None:
    """The copy of this machine, and of this process."""
    from harness import output

    return output.at(url).copy


def _files(folder: Path, wanted: Callable[[str], bool]) -> set[str]:
    names = (str(Path(parent, name).relative_to(folder)) for parent, _, files in os.walk(folder) for name in files if name[0] != ".")
    return {name for name in names if wanted(name)}


def _same(path: Path, entry: Entry | None) -> bool:
    """Whether a file is here as it is there; one written from here takes the time that it has there."""
    try:
        status = path.stat()
    except OSError:
        return False
    if entry is None or status.st_size != entry.size:
        return False
    if status.st_mtime_ns == WRITTEN_HERE:
        _date(path, entry.modified)
        return True
    return abs(status.st_mtime_ns - entry.modified) < SETTLED


def _date(path: Path, when: int) -> None:
    with contextlib.suppress(OSError):
        os.utime(path, ns=(when, when))


def folder_for(url: str) -> Path:
    """Where the working copy of a URL is on this machine: below ``$HARNESS_HOME``, or else the user's cache folder."""
    import hashlib
    import re

    home = os.environ.get("HARNESS_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness"
    readable = re.sub(r"[^A-Za-z0-9]+", "-", url.partition("?")[0]).strip("-")[:60]
    return Path(home).expanduser().resolve() / "outputs" / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
