"""A dataset as it was read and decoded: samples, frames and problems in one folder, addressed by content.

The driver reads labels and decodes frames once; every worker, and every later run while no file under the root has
changed, maps what is here. Where a task has no root, a synthetic copy in the dataset's layout is written first.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from harness import identity
from harness.config import instantiate
from harness.errors import RequestError
from harness.frames import Frames, Transform, fill, look_at, whole
from harness.samples import Reading, check
from harness.sealed import seal, sha256_of, unseal
from harness.store import Store, write_atomically

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Snapshot:
    """One dataset, read and decoded.

    Attributes:
        folder: Holds ``samples.parquet``, ``problems.parquet``, ``frames.parquet`` and ``snapshot.json``, written last.
        fingerprint: Address of labels, images and the transform of the frames; no path enters.
        root: Where the dataset was read.
        synthetic: Whether it was written by this program.
    """

    folder: Path
    fingerprint: str
    root: str
    synthetic: bool

    @cached_property
    def samples(self) -> pl.DataFrame:
        """Columns of ``samples.SCHEMA``; row i is frame i."""
        return pl.read_parquet(self.folder / "samples.parquet")

    @cached_property
    def frames(self) -> Frames:
        return Frames.load(self.folder / "frames.parquet")

    @cached_property
    def problems(self) -> pl.DataFrame:
        return pl.read_parquet(self.folder / "problems.parquet")

    def problem_counts(self) -> dict[str, int]:
        return dict(self.problems.group_by("kind").len().sort("kind").iter_rows())


def load(folder: Path) -> Snapshot:
    """A snapshot by its folder.

    Raises:
        FileNotFoundError: It is not there or not whole.
        RequestError: Something in it is not what was written; that is set aside, so that the data are read again.
    """
    try:
        known = unseal((folder / "snapshot.json").read_bytes())
        damaged = [folder / name for name, sha256 in known.get("files", {}).items() if sha256_of(folder / name) != sha256]
    except ValueError:
        damaged = [folder / "snapshot.json"]
    for path in damaged:
        logger.warning("%s is not what was written; it is set aside, and the data are read again", path)
        with contextlib.suppress(OSError):
            path.replace(path.with_name(f"{path.name}.corrupt"))
    if damaged:
        raise RequestError(f"the data as they were read are damaged: {damaged[0]}", where="output_dir", remedy="run it again")
    return Snapshot(folder, known["fingerprint"], known["root"], known["synthetic"])


def root_of(task: Mapping[str, Any], cache: Path) -> tuple[Path, bool]:
    """The folder a task reads, and whether it is synthetic (then written on first use)."""
    dataset, root = task["dataset"], task["root"]
    if root is not None:
        path = Path(root).expanduser()
        if not path.is_dir():
            raise RequestError(f"no such folder: {path}", where=f"task.root={root}", remedy=f"give the folder of {dataset['title']}")
        return path.resolve(), False
    synth = dict(dataset["synth"])
    source = identity.source_of(synth["_target_"])
    beside = sorted(Path(source[0]).parent.glob("*.py")) if source else []  # what draws may stand beside what writes
    drawn_by = [identity.address_of_file(file) for file in beside]
    folder = Path(cache) / "synthetic" / f"{dataset['name']}-{identity.address([synth, drawn_by])[:12]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        try:
            instantiate(synth, root=partial)
            with contextlib.suppress(OSError):  # somebody else was first with the same bytes
                partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder.resolve(), True


def take(task: Mapping[str, Any], cache: Path, progress: Progress | None = None) -> Snapshot:
    """Read and decode the dataset of a resolved task config, or find that it was done before.

    Args:
        task: ``root``, ``frames`` (arguments of ``Transform``) and ``dataset`` (``name``, ``title``, ``read``, ``synth``).
        cache: Folder of the frame cache and the snapshots.
        progress: Called with images done and images to do.

    Raises:
        RequestError: No such folder, nothing in it, or no readable image at all.
    """
    root, synthetic = root_of(task, cache)
    if not isinstance(task["frames"], Mapping):
        raise RequestError(f"{task['frames']!r} is no mapping", where="task.frames", remedy="set task.frames.size=64, say")
    transform: Transform = instantiate({"_target_": "harness.frames.Transform", **task["frames"]})
    signature = cache / "signatures" / f"{_signature(root, task)}.json"
    try:
        known = load(cache / "snapshots" / json.loads(signature.read_text(encoding="utf-8"))["fingerprint"])
        _look_at(known)
        return known
    except (OSError, ValueError, KeyError, RequestError, pl.exceptions.PolarsError):
        pass
    reading: Reading = instantiate(task["dataset"]["read"], root=root)
    filled = fill(reading.samples, transform, cache / "frames", progress=progress)
    kept = check(reading.samples.filter(pl.Series(filled.ok)))
    if kept.is_empty():
        remedy = f"{reading.problems.height + filled.problems.height} problems were met: see `harness data check`"
        raise RequestError(f"no readable image under {root}", where="task.root", remedy=remedy)
    rows = pl.Series(filled.ok).arg_true().to_numpy()
    frames = filled.frames.take(rows)
    content = kept.drop("image").with_columns(digest=pl.Series(frames.digests))
    fingerprint = identity.address([identity.address_of_frame(content), task["frames"]])
    folder = cache / "snapshots" / fingerprint
    _write(kept, folder / "samples.parquet")
    _write(pl.concat([reading.problems, filled.problems]), folder / "problems.parquet")
    frames.save(folder / "frames.parquet")
    where = {"fingerprint": fingerprint, "root": str(root)}
    facts = where | {"synthetic": synthetic, "dataset": task["dataset"]["name"], "frames": task["frames"]}
    facts["files"] = {name: identity.address_of_file(folder / name) for name in ("samples.parquet", "problems.parquet")}
    write_atomically(folder / "snapshot.json", seal(facts, indent=1))
    write_atomically(signature, json.dumps(where).encode())
    return load(folder)


_PARTS = ("samples.parquet", "problems.parquet", "frames.there.parquet")
"""Of a snapshot where it is kept for others; the last says in which chunks its frames are, with the paths of who put it there."""


def at_hand(folder: str, store: Store) -> str:
    """The folder of a snapshot as this machine has it: where the store is elsewhere it is fetched from there, unless it is here.

    Args:
        folder: As the driver has it, below the cache of its output.
        store: Of the sweep.

    Raises:
        RequestError: It is neither here nor there.
    """
    if not store.elsewhere:
        return folder
    here, cache = store.output / "cache" / "snapshots" / Path(folder).name, store.output / "cache"
    if not (here / "snapshot.json").is_file():
        if not all(store.elsewhere.fetch(here / name) for name in _PARTS):
            what, remedy = f"the frames of this dataset are not in {store.address}", "start the sweep again, which puts them there"
            raise RequestError(what, where="output_dir", remedy=remedy)
        frames = Frames.load(here / "frames.there.parquet").below(cache / "frames")
        for chunk in frames.chunks:
            if not (chunk.is_file() or (store.elsewhere.fetch(chunk) and whole(chunk))):
                chunk.unlink(missing_ok=True)
                raise RequestError("a chunk of the frames is gone or damaged", where=str(chunk), remedy="start the sweep again")
        frames.save(here / "frames.parquet")
        store.elsewhere.fetch(here / "snapshot.json")
    return str(here)


def keep(folder: str, store: Store) -> None:
    """Put a snapshot and its frames where the store is, for nodes that do not have them."""
    if not store.elsewhere:
        return
    here = Path(folder)
    if "snapshot.json" in store.elsewhere.names(here):
        return
    frames = Frames.load(here / "frames.parquet")
    frames.save(here / _PARTS[-1])
    there = {folder / name for folder in {chunk.parent for chunk in frames.chunks} for name in store.elsewhere.names(folder)}
    store.push(*(chunk for chunk in frames.chunks if chunk not in there))
    store.push(*(here / name for name in _PARTS))
    store.push(here / "snapshot.json")


def _write(frame: pl.DataFrame, path: Path) -> None:
    """Over an older copy too, which another process may be reading: the content under a fingerprint is the same but for paths."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    write_atomically(path, buffer.getvalue())


def _look_at(taken: Snapshot) -> None:
    """One frame of every chunk, so that a chunk that is gone is missed now and not by a worker.

    Raises:
        RequestError, OSError, PolarsError: Something is not there or not whole.
    """
    chunks = pl.read_parquet(taken.folder / "frames.parquet", columns=["chunk"]).with_row_index("place")
    look_at(taken.frames)
    taken.frames[chunks.group_by("chunk").agg(pl.col("place").first())["place"].to_numpy()]
    frames, samples, _ = len(taken.frames), taken.samples.height, taken.problems.height
    if frames != samples:
        raise RequestError(f"samples and frames do not fit each other in {taken.folder}")


def _signature(root: Path, task: Mapping[str, Any]) -> str:
    """Changes when a file is added, removed, resized or touched, and when the code that reads changes."""
    files = hashlib.sha256()
    folders, seen = [str(root)], set()
    while folders:
        folder = folders.pop()
        here = Path(folder).stat()
        if (here.st_dev, here.st_ino) in seen:  # a link may lead back
            continue
        seen.add((here.st_dev, here.st_ino))
        for entry in sorted(_entries(folder), key=lambda entry: entry.name):
            try:
                status = entry.stat()
            except OSError:  # a link to nowhere is the reader's to report
                files.update(f"{entry.path}\0gone\n".encode("utf-8", "surrogateescape"))
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(entry.path)
            else:
                files.update(f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    read = task["dataset"]["read"]
    sources = [identity.source_of(target) for target in (read["_target_"], "harness.frames.fill", "harness.samples.check")]
    return identity.address([files.hexdigest(), read, task["frames"], [source and source[1] for source in sources]])


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # no permission; the reader's to report, too
        return []
