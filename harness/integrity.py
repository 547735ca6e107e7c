"""Every file of a store against its hash: what is damaged is set aside, so that the next sweep makes it again.

A file whose size and times are those of when it was last read is not read again: where nothing has changed, a store of a hundred thousand
evaluations is looked through in a second. What the disk itself loses changes no time; ``every`` reads that, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import time
from pathlib import Path

import polars as pl

from harness import archives
from harness.errors import RequestError
from harness.sealed import sha256_of
from harness.store import Store, write_atomically

logger = logging.getLogger(__name__)

_SETTLED_NS = 2_000_000_000
"""A file that changed so recently may change again within one tick of the file system's clock."""

_SCHEMA = pl.Schema({"path": pl.String, "size": pl.Int64, "mtime": pl.Int64, "ctime": pl.Int64, "inode": pl.Int64, "sha256": pl.String})


def check(store: Store, *, every: bool = False) -> list[Path]:
    """Look through a store.

    Args:
        store: One that is a folder of this machine; a working copy is checked by whoever reads it.
        every: Read every file, also those that have not changed since they were last read.

    Returns:
        What was damaged, by the path it had. A store that may only be read keeps it there.
    """
    if store.elsewhere:
        return []
    seen = _Seen(store.output / "cache" / "checked.parquet", every)
    before = set_aside(store)
    records = store.records()  # with the packs, each of which has its hash in its name
    store.failures()
    for path in store.root.glob("searches/*.json"):
        store.search(path.stem)
    for path in store.root.glob("fits/*/rungs.json"):
        store.rungs(path.parent.name)
    for name in records["provenance"].drop_nulls().unique():
        store.provenance(name)
    for known in store.fits():
        store.whole(known["fit"], seen.sha256)
        for path in store.fit_folder(known["fit"]).glob("embeddings-*.npy"):
            store.as_named(path, seen.sha256)
    _check_predictions(store, records, seen)
    seen.keep()
    return [path.with_suffix("") for path, _ in sorted(set_aside(store).items() - before.items())]


def set_aside(store: Store) -> dict[Path, tuple[int, ...]]:
    """What was ever set aside in a store, and the state of each file, by which two of one name are told apart."""
    found = [
        path
        for folder in ("records", "predictions", "provenance", "failures", "searches", "fits/*")
        for path in store.root.glob(f"{folder}/*.corrupt")
    ]
    return {path: _state(path) for path in found}


def _check_predictions(store: Store, records: pl.DataFrame, seen: _Seen) -> None:
    folder = store.root / "predictions"
    named = dict(records.select(pl.col("predictions").str.split("/").list.last(), "sha256").drop_nulls().iter_rows())
    loose = {entry.name for entry in os.scandir(folder) if entry.name in named} if folder.is_dir() else set()
    for name in sorted(loose):
        with contextlib.suppress(FileNotFoundError):  # gathered meanwhile
            if seen.sha256(folder / name) != named[name]:
                store.set_aside(folder / name)
    newer = set(loose)
    for archive in sorted(folder.glob("*.zip"), reverse=True):
        inside = {*archives.members(archive)}
        if seen.changed(archive):
            digests = {name: hashlib.sha256(data).hexdigest() for name, data in archives.each(archive)}
            damaged = {name for name in inside & named.keys() - newer if digests.get(name) != named[name]}
            if damaged or not inside:
                store.repair_archive(archive, damaged)
            else:
                seen.sha256(archive)
        newer |= inside


class _Seen:
    """The hashes that files had when they were last read."""

    def __init__(self, path: Path, every: bool) -> None:
        self._path = path
        self._known: dict[str, tuple[tuple[int, ...], str]] = {}
        self._now: dict[str, tuple[tuple[int, ...], str]] = {}
        if not every:
            with contextlib.suppress(OSError, pl.exceptions.PolarsError):
                rows = pl.read_parquet(path)
                if rows.schema == _SCHEMA:
                    self._known = {row[0]: (row[1:5], row[5]) for row in rows.iter_rows()}

    def changed(self, path: Path) -> bool:
        """Whether a file is not the one that was last read; one that is not is kept as known."""
        known = self._known.get(str(path))
        if known is None or known[0] != _state(path):
            return True
        self._now[str(path)] = known
        return False

    def sha256(self, path: Path) -> str:
        """Of a file's bytes; read only where it has changed.

        Raises:
            OSError: It cannot be read.
        """
        if not self.changed(path):
            return self._known[str(path)][1]
        state, began = _state(path), time.time_ns()
        found = sha256_of(path)
        if max(state[1], state[2]) < began - _SETTLED_NS:
            self._now[str(path)] = state, found
        return found

    def keep(self) -> None:
        """Remember what was read, if anything is new; in a store that may only be read, nothing is."""
        if self._now == self._known:
            return
        buffer = io.BytesIO()
        rows = [(path, *state, found) for path, (state, found) in self._now.items()]
        pl.DataFrame(rows, schema=_SCHEMA, orient="row").write_parquet(buffer)
        with contextlib.suppress(RequestError):
            write_atomically(self._path, buffer.getvalue())


def _state(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
