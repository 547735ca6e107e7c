"""Many small files in one: ZIP archives without compression, so that a member is a slice of its archive and any tool opens it.

An archive is written once and never changed, except that members may be taken out; of members with one name, that of the archive with
the highest number counts.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

_LOCAL_HEADER = struct.Struct("<26xHH")  # of a member in its archive: the lengths of its name and of what follows it


def made(files: Mapping[str, bytes]) -> bytes:
    """An archive of files by name. Equal files make equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def members(archive: Path) -> list[str]:
    """Their names; none where the archive is gone."""
    try:
        return [*_members(archive, archive.stat().st_mtime_ns)]
    except FileNotFoundError:
        return []


def without(archive: Path, gone: set[str]) -> bytes:
    """The archive as it is without some of its members."""
    kept = [name for name in members(archive) if name not in gone]
    return made({name: _slice(archive, name) for name in kept})


def each(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The members of an archive by name; those whose place in it is damaged are left out."""
    for name in members(archive):
        with contextlib.suppress(struct.error):
            yield name, _slice(archive, name)


def found(folder: Path, name: str) -> Iterator[bytes]:
    """What the archives of a folder have under a name, the newest first."""
    for archive in sorted(folder.glob("*.zip"), reverse=True):
        try:
            if name in _members(archive, archive.stat().st_mtime_ns):
                yield _slice(archive, name)
        except FileNotFoundError:
            continue


def _slice(archive: Path, name: str) -> bytes:
    first, size = _members(archive, archive.stat().st_mtime_ns)[name]
    with archive.open("rb") as file:
        file.seek(first)
        file.seek(sum(_LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))), io.SEEK_CUR)
        return file.read(size)


@functools.lru_cache(maxsize=256)
def _members(archive: Path, changed: int) -> dict[str, tuple[int, int]]:
    """Name → where its header stands, and its size; none where the archive is damaged. Read once while it is the same."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return {info.filename: (info.header_offset, info.file_size) for info in opened.infolist()}
    except zipfile.BadZipFile:
        return {}
