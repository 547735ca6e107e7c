"""A folder that is published again and again: what changed is written, what is gone is removed, what is somebody else's is left alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.errors import RequestError
from harness.store import write_atomically

MANIFEST = "manifest.json"
"""Lists every file that was written, with its SHA-256; nothing else is ever removed or replaced."""


@dataclass(frozen=True)
class Changed:
    """What became of a folder: relative paths of files."""

    written: tuple[str, ...]
    removed: tuple[str, ...]
    same: int


def replace(folder: Path, files: Mapping[str, bytes]) -> Changed:
    """Make a folder hold these files, and no others of those that were written before.

    Args:
        folder: Made if it is not there.
        files: Relative path, with forward slashes → bytes.

    Raises:
        RequestError: A file of that name is there, of which the manifest does not know; or the disk is full. Nothing is removed then.
    """
    known = _manifest(folder)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    changed = []
    for name, digest in sorted(digests.items()):
        there = _digest(folder / name)
        if there == digest:
            continue
        if there is not None and name not in known:
            remedy = "give a folder that is empty, or that was published before"
            raise RequestError(f"{folder / name} was not written by this program", where="harness publish", remedy=remedy)
        changed.append(name)
    gone = sorted(name for name in known if name not in digests)
    if gone or changed or known != digests:
        _write_manifest(folder, known | digests)  # first: whoever is killed meanwhile leaves nothing that is not listed
    for name in changed:
        write_atomically(folder / name, files[name])
    for name in gone:
        (folder / name).unlink(missing_ok=True)
        for parent in (folder / name).parents:
            if parent == folder or not parent.is_dir() or any(parent.iterdir()):
                break
            parent.rmdir()
    if gone or changed or known != digests:
        _write_manifest(folder, digests)
    return Changed(tuple(changed), tuple(gone), len(files) - len(changed))


def _manifest(folder: Path) -> dict[str, str]:
    """Relative path → SHA-256 of what was written; a path that leads out of the folder is none of ours."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {name: str(digest) for name, digest in listed.items() if _inside(name)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and name not in ("", ".", MANIFEST)


def _write_manifest(folder: Path, files: Mapping[str, str]) -> None:
    write_atomically(folder / MANIFEST, (json.dumps({"files": dict(sorted(files.items()))}, indent=1) + "\n").encode())


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}", where="harness publish") from error
