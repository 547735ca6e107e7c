"""Where everything of a lab goes (``output_dir``): a folder, or a URL with a working copy of it on each machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import RequestError
from harness.store import Store, cannot_write

if TYPE_CHECKING:
    from harness.working_copy import WorkingCopy

_TRY_LOCK = "import fcntl, sys\ntry: fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)\nexcept OSError: print('busy')"


@dataclass(frozen=True)
class Output:
    """One ``output_dir``.

    Attributes:
        folder: Where its files are on this machine.
        copy: What keeps them, where the folder is only a working copy.
    """

    folder: Path
    copy: WorkingCopy | None = None

    @property
    def store(self) -> Store:
        return Store(self.folder / "store", self.copy)

    def __str__(self) -> str:
        return self.copy.url if self.copy else str(self.folder)

    def shown(self, path: Path) -> str:
        """A file of it as a person finds it."""
        return f"{self.copy.url}/{path.relative_to(self.folder).as_posix()}" if self.copy else str(path)

    def look(self, name: str) -> Path:
        """A folder of it, by its path here, with its files as they are now."""
        if self.copy:
            self.copy.look(self.folder / name)
        return self.folder / name

    def keep(self, folder: Path) -> None:
        """Keep what was made in a folder of it; nothing to do where the folder is the output itself."""
        if self.copy:
            self.copy.keep(folder)

    def check(self, *, write: bool) -> None:
        """See at the start whether it can be used, and not after hours of work.

        Args:
            write: Also whether it can be written, and in a folder: renamed, locked against other processes, and removed.

        Raises:
            RequestError: Something of it is not possible, or takes too long.
        """
        if self.copy:
            from harness import remote

            remote.check(self.copy.url, write=write)
        elif write:
            _check_folder(self.folder)


def at(where: str | Path) -> Output:
    """The output at a path or a URL; the same object for the same URL in one process.

    Raises:
        RequestError: A URL that cannot be opened or has a secret in it.
    """
    text = str(where)
    if "://" in text:
        from harness import remote

        return _kept_at(remote.checked(text))
    return Output(Path(text).expanduser().resolve())


def opened(where: str | Path, *, write: bool = False) -> Output:
    """The output at a path or a URL, :meth:`Output.check`-ed.

    Raises:
        RequestError: It cannot be used.
    """
    found = at(where)
    found.check(write=write)
    return found


@cache
def _kept_at(url: str) -> Output:
    from harness.remote import Remote
    from harness.working_copy import WorkingCopy, folder_for

    folder = folder_for(url)
    return Output(folder, WorkingCopy(folder, Remote(url)))


def _check_folder(folder: Path) -> None:
    """Write, rename, lock from a second process, read and remove, as the store will.

    Raises:
        RequestError: Something of it is not possible.
    """
    path = folder / f".probe-{uuid.uuid4().hex[:8]}"
    renamed, data = path.with_suffix(".renamed"), b"written by harness to see whether it can be; safe to remove"
    kind, options = _file_system(folder)
    remedy = "mount it with locks that all machines see, or write the folder as a URL, file:///…, which needs none"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.replace(renamed)
        if renamed.read_bytes() != data:
            raise RequestError(f"{folder} does not give back what was written ({kind})", where="output_dir", remedy=remedy)
        with renamed.open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                what = f"{folder} cannot be locked ({kind}: {error.strerror})"
                raise RequestError(what, where="output_dir", remedy=remedy) from error
            tried = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _TRY_LOCK, str(renamed)], capture_output=True, text=True, timeout=60, check=False
            )
        if tried.stdout.strip() != "busy" or options & {"local_lock=all", "local_lock=flock", "nolock", "localflock"}:
            raise RequestError(f"locks in {folder} do not keep others out ({kind})", where="output_dir", remedy=remedy)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        for left in (path, renamed):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)


def _file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> tuple[str, set[str]]:
    """The kind of file system a folder is on and the options it is mounted with, as far as the system tells."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return "unknown file system", set()
    on = [(point, kind, options) for _, point, kind, options, *_ in lines if folder.is_relative_to(point.encode().decode("unicode_escape"))]
    _, kind, options = max(on, key=lambda found: len(found[0]), default=("", "unknown file system", ""))
    return kind, set(options.split(","))
