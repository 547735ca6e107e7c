"""Two revisions side by side, each in a git worktree of its own that is gone afterwards, also after Ctrl-C."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import RequestError

SUITE = "tests"
"""What measures. That of this side measures both."""

DEPENDENCIES = ("pyproject.toml", "constraints.txt")


@dataclass(frozen=True)
class Side:
    """One revision on disk.

    Attributes:
        name: ``old`` or ``new``.
        commit: Full name of the commit.
        dirty: Whether it has changes beyond the commit.
        folder: A worktree.
    """

    name: str
    commit: str
    dirty: bool
    folder: Path

    @property
    def label(self) -> str:
        """Short, for a person."""
        return self.commit[:12] + (" with changes" if self.dirty else "")


def git(folder: Path, *arguments: str) -> str:
    """What git says, or a request that cannot be carried out."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=300)
    except FileNotFoundError:
        raise RequestError("git is not installed", where="harness perf", remedy="install git") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
        raise RequestError(f"git {arguments[0]}: {said}", where=str(folder), remedy="see `git status`") from None
    return done.stdout


def root(folder: Path | None = None) -> Path:
    """The repository this runs in: that of the working directory, with ``tests/perf`` in it."""
    folder = folder or Path.cwd()
    try:
        found = Path(git(folder, "rev-parse", "--show-toplevel").strip())
    except RequestError:
        found = folder
    if not (found / SUITE / "perf").is_dir():
        raise RequestError(f"{found} has no tests/perf", where="working directory", remedy="go to a checkout of the repository")
    return found


def resolve(repository: Path, revision: str) -> str:
    """The full name of a commit."""
    if revision.startswith("-"):
        raise RequestError(f"{revision!r} is no revision", where="REV", remedy="give a commit, a branch or a tag")
    try:
        return git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").strip()
    except RequestError:
        raise RequestError(
            f"{revision!r} is no revision", where="REV", remedy="give a commit, a branch or a tag of this repository"
        ) from None


def is_dirty(repository: Path) -> bool:
    """Whether files under git, or new ones that git does not ignore, differ from the commit."""
    return bool(git(repository, "status", "--porcelain", "--", ".", ":(exclude)results/perf").strip())


def same_suite(repository: Path, commit: str) -> bool:
    """Whether the benchmarks of a commit are those of the working tree."""
    changed = git(repository, "diff", "--name-only", commit, "--", "tests/perf")
    return not (changed + git(repository, "ls-files", "--others", "--exclude-standard", "--", "tests/perf")).strip()


@contextlib.contextmanager
def sides(repository: Path, revision: str) -> Iterator[tuple[Side, Side, list[str]]]:
    """The old revision and this working tree as it is now, in folders with names of one length.

    The suite of this side is put into both, so that the same work is measured. Beside the two, ``made`` is a folder for whatever is made.

    Yields:
        The old side, the new side, and what is to be known of them.
    """
    old, head = resolve(repository, revision), git(repository, "rev-parse", "HEAD").strip()
    dirty = is_dirty(repository)
    scratch = Path(tempfile.mkdtemp(prefix="harness-perf-"))
    folders = scratch / "old", scratch / "new"
    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # not in the main thread
        before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        (scratch / "made").mkdir()
        for folder, commit in zip(folders, (old, head), strict=True):
            git(repository, "worktree", "add", "--detach", "--force", str(folder), commit)
        if dirty:
            _take_changes(repository, folders[1])
        notes = [
            f"{name} differs: both sides run with what is installed here, which may not be what the old one asks for"
            for name in DEPENDENCIES
            if _text(folders[0] / name) != _text(folders[1] / name)
        ]
        shutil.rmtree(folders[0] / SUITE, ignore_errors=True)
        shutil.copytree(folders[1] / SUITE, folders[0] / SUITE, symlinks=True)
        shutil.copy(folders[1] / "pyproject.toml", folders[0] / "pyproject.toml")  # pytest's settings
        yield Side("old", old, False, folders[0]), Side("new", head, dirty, folders[1]), notes
    finally:
        for folder in folders:
            with contextlib.suppress(RequestError):
                git(repository, "worktree", "remove", "--force", "--force", str(folder))
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(RequestError):
            git(repository, "worktree", "prune")
        for number, handler in before.items():
            signal.signal(number, handler)


def _take_changes(repository: Path, folder: Path) -> None:
    """What differs from the commit, new files too, is copied; what is gone is removed."""
    changed = git(repository, "diff", "--name-only", "-z", "--no-renames", "HEAD").split("\0")
    added = git(repository, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, (*changed, *added)):
        source, target = repository / name, folder / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
        elif not source.exists():
            target.unlink(missing_ok=True)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _stop(*_: Any) -> None:
    """Once; what asks again is not listened to, so that the way out is gone to its end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
