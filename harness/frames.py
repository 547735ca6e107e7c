"""Decode every image once: a cache of face crops on disk, mapped by every worker.

What a crop shows is fixed by the bytes of its image file, where the face is in it, and the transform. These make its key,
and crops lie in *chunks*, files of some 1,024 crops::

    CACHE/digests.parquet                       which bytes a file held when it was last read (path, size, times → digest)
    CACHE/64px-grey-auto-0.25-v1/               one folder a transform
          DIGEST.frames                         crops one after another, then their keys; named by the digest of the whole
          DIGEST.corrupt                        a chunk whose content no longer fits its name, set aside
          lock                                  held while a chunk is made

A chunk appears by rename and never changes, so nothing half-written is ever read, two processes that fill at once share the
work chunk by chunk, and one that is killed loses at most the chunk it was making. A changed image has another key.
"""

from __future__ import annotations

import fcntl
import io
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.identity import address, address_of_frame
from harness.images import Images, container_of
from harness.samples import Problems

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raised whenever the same image and transform would give other pixels."""

CROPS = ("auto", "landmarks", "box", "image")

_IMAGE, _BOX, _LANDMARKS, _NOTHING = 0.0, 1.0, 2.0, -1.0  # where a crop comes from: the last number of its geometry
_KEY_BYTES = 16 + 5 * 4  # the image's digest, then the geometry as five float32
_CHUNK_FRAMES, _CHUNK_BYTES = 1024, 64 << 20
_SETTLED_NS = 2_000_000_000  # a file changed this recently may change again within one tick of the file system's clock
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM")  # no plug-in that starts a program, as EPS does

Progress = Callable[[int, int], None]
"""Called with the samples done and the samples there are."""


@dataclass(frozen=True)
class Transform:
    """How an image becomes a frame: a square around the face, resized with antialiasing.

    Attributes:
        size: Side of the frame in pixels, 4 to 1024.
        channels: 1 (grey) or 3 (RGB).
        crop: ``box`` or ``landmarks`` of the sample, ``image`` for the whole of it, ``auto`` for the first of these three
            (in this order) that the sample has.
        margin: Added on each side of the face, as a share of the longer side of its box or landmarks. A box's margin ends
            where the image does; around landmarks the image's edge is repeated instead, so that a face keeps its scale
            through a clip.

    Raises:
        RequestError: A value out of range.
    """

    size: int = 64
    channels: int = 1
    crop: str = "auto"
    margin: float = 0.25

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or not 4 <= self.size <= 1024:
            raise RequestError(f"frames of {self.size} pixels", where="frames.size", remedy="choose 4 to 1024")
        if self.channels not in (1, 3):
            raise RequestError(f"frames of {self.channels} channels", where="frames.channels", remedy="choose 1 (grey) or 3 (RGB)")
        if self.crop not in CROPS:
            raise RequestError(f"no crop {self.crop!r}", where="frames.crop", remedy=did_you_mean(str(self.crop), CROPS))
        if not isinstance(self.margin, int | float) or not 0 <= self.margin <= 2:
            raise RequestError(f"a margin of {self.margin}", where="frames.margin", remedy="choose 0 to 2")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels of a frame."""
        return self.size, self.size, self.channels

    @property
    def name(self) -> str:
        """Of its folder in the cache."""
        return f"{self.size}px-{'grey' if self.channels == 1 else 'rgb'}-{self.crop}-{self.margin:g}-v{FORMAT}"


class Frames:
    """Frames of some samples, row by row, mapped from the cache when they are asked for. Pickles to paths and row numbers."""

    def __init__(self, chunks: list[str], chunk: np.ndarray, row: np.ndarray, digests: np.ndarray, frame: tuple[int, int, int]) -> None:
        self._chunks, self._chunk, self._row, self._frame = chunks, chunk, row, frame
        self._maps: dict[int, np.ndarray] = {}
        self.digests = digests
        """``(n,)`` str, a hash of each image file's bytes; empty where there was no file to read."""

    def __len__(self) -> int:
        return len(self._chunk)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(n, height, width, channels)``."""
        return (len(self), *self._frame)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Uint8 ``(len(rows), height, width, channels)``; zeros for an image that could not be read.

        Raises:
            RequestError: The cache has lost a chunk since it was filled.
        """
        chunk, row = self._chunk[rows], self._row[rows]
        order = np.argsort(chunk, kind="stable")
        starts = np.flatnonzero(np.diff(chunk[order], prepend=-2))
        frames = np.zeros((len(chunk), *self._frame), np.uint8)
        for places in np.split(order, starts[1:]):
            if len(places) and chunk[places[0]] >= 0:
                frames[places] = self._map(int(chunk[places[0]]))[row[places]]
        return frames

    def take(self, rows: np.ndarray) -> Frames:
        """The frames of some rows, without reading them."""
        return Frames(self._chunks, self._chunk[rows], self._row[rows], self.digests[rows], self._frame)

    def save(self, path: str | Path) -> None:
        """Write where the frames lie (not the frames) as Parquet, by rename."""
        names = pl.Series(self._chunks, dtype=pl.String)
        chunk = names.gather(pl.Series(self._chunk).replace(-1, None)).alias("chunk")
        table = pl.DataFrame([chunk, pl.Series("row", self._row), pl.Series("digest", self.digests, dtype=pl.String)])
        frame = json.dumps(self._frame)
        _write_parquet(table, Path(path), {"frame": frame, "address": address([frame, address_of_frame(table)])})

    @classmethod
    def load(cls, path: str | Path) -> Frames:
        """What :meth:`save` wrote.

        Raises:
            RequestError: No such file, or none of ours.
        """
        try:
            facts = pl.read_parquet_metadata(path)
            frame, table = json.loads(facts["frame"]), pl.read_parquet(path)
            if facts.get("address") not in (None, address([facts["frame"], address_of_frame(table)])):
                raise ValueError("they are not what was written")
            names = table["chunk"].drop_nulls().unique().sort()
            chunk = table["chunk"].replace_strict(names, pl.arange(len(names), eager=True), default=-1, return_dtype=pl.Int32).fill_null(-1)
            return cls(names.to_list(), chunk.to_numpy(), table["row"].to_numpy(), table["digest"].to_numpy().astype(str), tuple(frame))
        except (OSError, pl.exceptions.PolarsError, KeyError, ValueError) as error:
            raise RequestError(f"no frames can be read: {error}", where=str(path), remedy="fill the frame cache again") from None

    @property
    def chunks(self) -> list[Path]:
        """The files the frames are in."""
        return [Path(chunk) for chunk in self._chunks]

    def below(self, folder: Path) -> Frames:
        """The same frames in chunks of the same names below another folder."""
        chunks = [str(folder / chunk.parent.name / chunk.name) for chunk in self.chunks]
        return Frames(chunks, self._chunk, self._row, self.digests, self._frame)

    def copied(self, folder: Path) -> tuple[Frames, list[int]]:
        """The same frames from chunks of another folder, and the bytes of each chunk that was not there yet.

        Raises:
            RequestError: A chunk is not what its name says, or cannot be read.
            OSError: The folder cannot be written.
        """
        places, copied = [], []
        for source in map(Path, self._chunks):
            place = folder / source.parent.name / source.name
            if not place.is_file():
                try:
                    content = source.read_bytes()
                except OSError as error:
                    raise _lost(source, error) from None
                if _digest(content).hex() != source.stem:
                    raise RequestError("a chunk of the frame cache is damaged", where=str(source), remedy="fill the frame cache again")
                place.parent.mkdir(parents=True, exist_ok=True)
                partial = place.with_suffix(".partial")
                try:
                    partial.write_bytes(content)
                    partial.replace(place)
                except OSError:
                    partial.unlink(missing_ok=True)  # a full disk gets its space back
                    raise
                copied.append(len(content))
            places.append(str(place))
        return Frames(places, self._chunk, self._row, self.digests, self._frame), copied

    def __reduce__(self) -> tuple[Any, ...]:
        return Frames, (self._chunks, self._chunk, self._row, self.digests, self._frame)

    def _map(self, chunk: int) -> np.ndarray:
        if chunk not in self._maps:
            path, record = self._chunks[chunk], math.prod(self._frame) + _KEY_BYTES
            try:
                _check(path, self._chunks)
                count, rest = divmod(Path(path).stat().st_size, record)
                if rest or not count:
                    raise OSError("it was cut short")
                self._maps[chunk] = np.memmap(path, np.uint8, "r", shape=(count, *self._frame))
            except OSError as error:
                raise _lost(Path(path), error) from None
        return self._maps[chunk]


@dataclass(frozen=True)
class Filled:
    """What :func:`fill` returns.

    Attributes:
        frames: One a row of the samples.
        ok: ``(n,)`` bool; False where the image could not be read, and the frame is zeros.
        problems: Columns of ``samples.PROBLEMS``, one row for each sample that is not ok, and for each chunk set aside.
    """

    frames: Frames
    ok: np.ndarray
    problems: pl.DataFrame


def fill(
    samples: pl.DataFrame, transform: Transform, cache: str | Path, *, jobs: int | None = None, progress: Progress | None = None
) -> Filled:
    """The frames of all samples; what the cache does not hold is decoded, in parallel, and stays there.

    Args:
        samples: Columns ``sample``, ``image``, ``box`` and ``landmarks`` are read.
        transform: How to crop and resize.
        cache: A folder; made when missing.
        jobs: Threads that decode (Pillow lets others run meanwhile). The default is one for each core at hand.
        progress: Called after each image.

    Raises:
        RequestError: The cache cannot be written.
    """
    jobs, progress = jobs or len(os.sched_getaffinity(0)), progress or (lambda done, total: None)
    try:
        return _fill(samples, transform, Path(cache).absolute(), jobs, progress)
    except OSError as error:
        what = f"the frame cache cannot be used: {error.strerror or error}"
        raise RequestError(what, where=str(error.filename or cache), remedy="free space there, or choose another folder") from None


def thumbnails(frames: Frames, *, size: int = 16) -> np.ndarray:
    """A fixed embedding, the same for every method: grey thumbnails with mean 0 and standard deviation 1.

    Returns:
        ``(n, size * size)`` float32; zeros for a frame of one colour.
    """
    height, width, channels = frames.shape[1:]
    rows, columns = _area_weights(height, size), _area_weights(width, size)
    small = np.zeros((len(frames), size, size), np.float32)
    for start in range(0, len(frames), 4096):
        part = np.arange(start, min(start + 4096, len(frames)))
        grey = frames[part].sum(axis=-1, dtype=np.float32) / channels
        small[part] = rows @ grey @ columns.T
    flat = small.reshape(len(frames), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    spread = flat.std(axis=1, keepdims=True)
    return np.where(spread > 1e-3, flat / np.maximum(spread, 1e-3), np.float32(0))


def _area_weights(source: int, target: int) -> np.ndarray:
    """``(target, source)`` float32: each target pixel is the mean of the source it covers."""
    edges = np.linspace(0, source, target + 1)
    left, right = np.arange(source), np.arange(1, source + 1)
    cover = np.minimum(edges[1:, None], right) - np.maximum(edges[:-1, None], left)
    return np.asarray(np.clip(cover, 0, None) * target / source, dtype=np.float32)


def _fill(samples: pl.DataFrame, transform: Transform, cache: Path, jobs: int, progress: Progress) -> Filled:
    folder = cache / transform.name
    folder.mkdir(parents=True, exist_ok=True)
    problems = Problems()
    names, total = samples["sample"].to_list(), samples.height
    index = _Digests(cache / "digests.parquet", problems)
    references = [path and _absolute(path) for path in samples["image"]]
    files = index.look_up(references)
    paths, digests = files["path"].to_list(), [digest or b"" for digest in files["digest"]]
    geometry = _geometry(samples, transform.crop)
    shapes = [row.tobytes() for row in geometry]
    chunks = _Chunks(folder, transform, index, problems)

    def fault(row: int, kind: str, detail: str) -> None:
        problems.add(kind, paths[row], detail, sample=names[row])

    def settled(row: int) -> bool:
        return digests[row] + shapes[row] in chunks.where

    def load(rows: Sequence[int]) -> list[tuple[int, np.ndarray | None, str]]:
        """Read some images, all parts of one container or a single one; the frame of each if it is new, and what is wrong with it."""
        return [(row, *load_one(row)) for row in rows]

    def load_one(row: int) -> tuple[np.ndarray | None, str]:
        try:
            content = images.read(paths[row])
        except (OSError, ValueError) as error:
            return None, getattr(error, "strerror", None) or str(error)
        digests[row] = _digest(content)
        if settled(row):
            return None, ""
        try:
            return _decode(content, geometry[row].tolist(), transform), ""
        except Exception as error:  # whatever Pillow's plug-ins raise on bytes that are no image
            return None, str(error) or type(error).__name__

    with locked(folder / "lock"):
        chunks.refresh()
    there = files["size"].is_not_null().to_numpy() & (geometry[:, 4] != _NOTHING)
    for row in np.flatnonzero(~there).tolist():
        if files["size"][row] is None:
            if paths[row] is not None:  # what a reader did not find it has said itself
                fault(row, "missing image", "no such file")
        else:
            fault(row, "no face to crop by", f"the sample has no {transform.crop}")
    todo = [row for row in np.flatnonzero(there).tolist() if not settled(row)]
    done = total - len(todo)
    progress(done, total)
    try:
        with ThreadPoolExecutor(jobs) as pool, Images() as images:
            for start in range(0, len(todo), chunks.frames):
                batch = todo[start : start + chunks.frames]
                with locked(folder / "lock"):
                    chunks.refresh()  # another process may have made these meanwhile
                    fresh: dict[bytes, np.ndarray] = {}
                    groups = _by_container(batch, paths)
                    for group in pool.map(load, groups.values()):
                        for row, frame, wrong in group:
                            if frame is not None:
                                fresh[digests[row] + shapes[row]] = frame
                            elif wrong:
                                fault(row, "unreadable image", wrong)
                        done += len(group)
                        progress(done, total)
                    chunks.write(fresh)
                    images.close_others({container for container, _ in groups})
    finally:
        index.remember(files.with_columns(digest=pl.Series([digest or None for digest in digests], dtype=pl.Binary)))

    nowhere = (-1, -1)
    keys = (digest + shape for digest, shape in zip(digests, shapes, strict=True))
    where = np.array([chunks.where.get(key, nowhere) for key in keys], np.int32).reshape(-1, 2)
    hashes = np.array([digest.hex() for digest in digests], dtype=str)
    frames = Frames(chunks.paths, where[:, 0].copy(), where[:, 1].copy(), hashes, transform.shape)
    return Filled(frames, where[:, 0] >= 0, problems.frame())


def _by_container(rows: Sequence[int], paths: Sequence[str]) -> dict[tuple[str, int], list[int]]:
    """The rows whose images are parts of one file together, in order, so that a video is decoded once; every other row by itself."""
    groups: dict[tuple[str, int], list[int]] = {}
    for row in rows:
        container = container_of(paths[row])
        groups.setdefault((container, -1 if container != paths[row] else row), []).append(row)
    return groups


class _Chunks:
    """The chunks of one transform. ``where`` says for each key in which chunk it is and which row of it."""

    def __init__(self, folder: Path, transform: Transform, index: _Digests, problems: Problems) -> None:
        self._folder, self._index, self._problems = folder, index, problems
        self._pixels = math.prod(transform.shape)
        self.frames = max(1, min(_CHUNK_FRAMES, _CHUNK_BYTES // self._pixels))
        self.paths: list[str] = []
        self.where: dict[bytes, tuple[int, int]] = {}

    def refresh(self) -> None:
        """Take in the chunks that are new, and set aside those that are damaged. The lock is held."""
        for leftover in self._folder.glob("*.partial"):  # of a process that was killed: who writes holds the lock
            leftover.unlink()
        files = self._index.look_up(sorted({str(path) for path in self._folder.glob("*.frames")} - set(self.paths)))
        known = files["digest"].to_list()
        for path, digest in zip(files["path"], known, strict=True):
            name = Path(path).stem
            if (digest or _digest(Path(path).read_bytes())).hex() == name:
                self._add(path)
            else:
                Path(path).replace(self._folder / f"{name}.corrupt")
                self._problems.add("corrupt cache chunk", path, "its content does not fit its name; its images are decoded again")
        if None in known:
            intact = [bytes.fromhex(Path(path).stem) if path in self.paths else None for path in files["path"]]
            self._index.remember(files.with_columns(digest=pl.Series(intact, dtype=pl.Binary)))

    def write(self, fresh: dict[bytes, np.ndarray]) -> None:
        """Make one chunk. The lock is held."""
        if not fresh:
            return
        content = np.stack(list(fresh.values())).tobytes() + b"".join(fresh)
        path = self._folder / f"{_digest(content).hex()}.frames"
        partial = path.with_suffix(".partial")
        try:
            partial.write_bytes(content)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)  # a full disk gets its space back
            raise
        self._add(str(path))

    def _add(self, path: str) -> None:
        count = Path(path).stat().st_size // (self._pixels + _KEY_BYTES)
        keys = np.fromfile(path, f"V{_KEY_BYTES}", offset=count * self._pixels)
        self.where |= {key: (len(self.paths), row) for row, key in enumerate(keys.tolist())}
        self.paths.append(path)


class _Digests:
    """Which bytes a file held when it was last read, so that an unchanged file is not read again."""

    _SCHEMA = pl.Schema({"path": pl.String, "size": pl.Int64, "mtime_ns": pl.Int64, "ctime_ns": pl.Int64, "digest": pl.Binary})

    def __init__(self, path: Path, problems: Problems) -> None:
        self._path, self._problems = path, problems
        self._table = self._read()

    def look_up(self, files: Sequence[str | None]) -> pl.DataFrame:
        """One row a file: its size and times (null where there is none) and its digest (null where it has to be read).

        A digest of a file that is not yet ``settled`` is worth nothing later: the file may still change without its times changing.
        """
        settled = pl.max_horizontal("mtime_ns", "ctime_ns") < time.time_ns() - _SETTLED_NS
        known: dict[str, tuple[int | None, int | None, int | None]] = {}  # a container has many parts
        stats = pl.DataFrame(
            [(path, *_stat(path, known)) for path in files], schema=self._SCHEMA.names()[:4], schema_overrides=self._SCHEMA, orient="row"
        )
        return stats.join(self._table, on=stats.columns, how="left", maintain_order="left").with_columns(settled=settled)

    def remember(self, files: pl.DataFrame) -> None:
        """Keep the digests of these files, looked up before they were read, beside those that other processes kept."""
        new = files.filter("settled", pl.col("digest").is_not_null()).select(self._SCHEMA.names())
        new = new.join(self._table, on=self._SCHEMA.names(), how="anti")
        if new.height:
            with locked(self._path.with_suffix(".lock")):
                self._table = pl.concat([self._read(), new]).unique("path", keep="last", maintain_order=True)
                _write_parquet(self._table, self._path, {})

    def _read(self) -> pl.DataFrame:
        if not self._path.exists():
            return self._SCHEMA.to_frame()
        try:
            table = pl.read_parquet(self._path)
            if table.schema == self._SCHEMA:
                return table
        except pl.exceptions.PolarsError:
            pass
        self._path.replace(self._path.with_suffix(".corrupt"))
        self._problems.add("corrupt cache index", self._path, "set aside; the files are read again")
        return self._SCHEMA.to_frame()


def _absolute(reference: str) -> str:
    """Of the file alone: the name of a part, ``./T1/1.jpg`` say, is as its archive has it."""
    path = container_of(reference)
    return str(Path(path).absolute()) + reference[len(path) :]


def _stat(reference: str | None, known: dict[str, tuple[int | None, int | None, int | None]]) -> tuple[int | None, int | None, int | None]:
    """Size and times of the file that a reference needs; nothing where it is not there."""
    if reference is None:
        return None, None, None
    path = container_of(reference)
    if path == reference:
        return _size_and_times(path)
    if path not in known:
        known[path] = _size_and_times(path)
    return known[path]


def _size_and_times(path: str) -> tuple[int | None, int | None, int | None]:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None, None, None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


_sound: dict[str, tuple[int | None, ...]] = {}
"""Chunk → its size and times when this process last knew that it is what its name says."""


def _check(path: str, chunks: Sequence[str]) -> None:
    """Refuse a chunk that is not what its name says. It is read only if its size or times have changed since it was last read.

    Args:
        path: Of the chunk.
        chunks: Others that may be asked for next: whether they have changed is looked up with it.

    Raises:
        RequestError: It is damaged, and set aside, so that it is filled again.
    """
    if path in _sound and _sound[path] == _size_and_times(path):
        return
    chunk = Path(path)
    known = _known_chunks(str(chunk.parent.parent / "digests.parquet"), tuple(chunks)) if path not in _sound else {}
    before = _size_and_times(path)
    if known.get(path) != (*before, chunk.stem) and not whole(chunk):
        _set_aside(chunk)
        raise RequestError(
            "a chunk of the frame cache is damaged", where=path, remedy="it is set aside: run it again to decode its images again"
        )
    _sound[path] = before


@lru_cache(maxsize=8)
def _known_chunks(index: str, chunks: tuple[str, ...]) -> dict[str, tuple[int | str, ...]]:
    """Chunk → its size, its times and its name, when it was last read; only of chunks whose digest somebody has remembered."""
    try:
        rows = pl.scan_parquet(index).filter(pl.col("path").is_in(chunks)).collect()
    except (OSError, pl.exceptions.PolarsError):
        return {}
    return {path: (size, mtime, ctime, digest.hex()) for path, size, mtime, ctime, digest in rows.iter_rows()}


def look_at(frames: Frames) -> None:
    """Make sure that every chunk is there and what was written, and remember that they are.

    Raises:
        RequestError: One is not; a damaged one is set aside.
    """
    problems = Problems()
    for cache in {chunk.parent.parent for chunk in frames.chunks}:
        chunks = [str(chunk) for chunk in frames.chunks if chunk.parent.parent == cache]
        index = _Digests(cache / "digests.parquet", problems)
        files = index.look_up(chunks)
        for path, size, digest in files.select("path", "size", "digest").iter_rows():
            chunk = Path(path)
            if size is None:
                raise _lost(chunk, FileNotFoundError("it is gone"))
            if (digest.hex() if digest else None) != chunk.stem and not whole(chunk):
                _set_aside(chunk)
                raise RequestError("a chunk of the frame cache is damaged", where=path, remedy="its images are decoded again")
            _sound[path] = _size_and_times(path)
        with suppress(OSError):  # a cache that may only be read
            index.remember(files.with_columns(digest=pl.Series([bytes.fromhex(Path(path).stem) for path in chunks], dtype=pl.Binary)))


def _set_aside(chunk: Path) -> None:
    logger.warning("%s is not what was written; it is set aside, and its images are decoded again", chunk)
    with suppress(OSError):
        chunk.replace(chunk.with_suffix(".corrupt"))


def whole(chunk: Path) -> bool:
    """Whether a chunk is what its name says."""
    return _digest(chunk.read_bytes()).hex() == chunk.stem


def _lost(chunk: Path, error: OSError) -> RequestError:
    what = f"the frame cache has lost a chunk: {error.strerror or error}"
    return RequestError(what, where=str(chunk), remedy="fill the frame cache again")


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def _geometry(samples: pl.DataFrame, crop: str) -> np.ndarray:
    """``(n, 5)`` float32: x0, y0, x1, y1 of what to crop by, and which it is."""
    geometry = np.zeros((samples.height, 5), np.float32)
    geometry[:, 4] = _IMAGE if crop in ("image", "auto") else _NOTHING
    if crop in ("landmarks", "auto"):
        rows = np.flatnonzero(samples["landmarks"].is_not_null())
        points = samples["landmarks"].drop_nulls().explode().to_numpy().reshape(-1, 68, 2)
        _set(geometry, rows, np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1), _LANDMARKS)
    if crop in ("box", "auto"):
        rows = np.flatnonzero(samples["box"].is_not_null())
        _set(geometry, rows, samples["box"].drop_nulls().to_numpy().reshape(-1, 4), _BOX)
    return geometry


def _set(geometry: np.ndarray, rows: np.ndarray, corners: np.ndarray, source: float) -> None:
    finite = np.isfinite(corners).all(axis=1)
    geometry[rows[finite], :4], geometry[rows[finite], 4] = corners[finite], source


def _decode(content: bytes, geometry: list[float], transform: Transform) -> np.ndarray:
    """Uint8 ``(size, size, channels)``: the square around the face, its outside filled with the image's edge."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as file:
            image = file.convert("L" if transform.channels == 1 else "RGB")
    except UnidentifiedImageError:  # whose text is the address of a buffer
        raise ValueError(f"{len(content)} bytes that are no image") from None
    left, top, side = _square(geometry, image.width, image.height, transform.margin)
    x0, y0, x1, y1 = math.floor(left), math.floor(top), math.ceil(left + side), math.ceil(top + side)
    inside = max(x0, 0), max(y0, 0), min(x1, image.width), min(y1, image.height)
    face = image.crop(inside)
    if inside != (x0, y0, x1, y1):
        border = ((inside[1] - y0, y1 - inside[3]), (inside[0] - x0, x1 - inside[2]))
        pixels = np.asarray(face)
        face = Image.fromarray(np.pad(pixels, (*border, (0, 0))[: pixels.ndim], mode="edge"))
    window = left - x0, top - y0, min(left - x0 + side, face.width), min(top - y0 + side, face.height)
    return np.asarray(face.resize((transform.size, transform.size), Image.Resampling.BILINEAR, box=window)).reshape(transform.shape)


def _square(geometry: list[float], width: int, height: int, margin: float) -> tuple[float, float, float]:
    """Left, top and side of the square to cut out.

    Raises:
        ValueError: There is nothing to see in it.
    """
    x0, y0, x1, y1, source = geometry
    if source == _IMAGE:
        x0, y0, x1, y1 = 0, 0, width, height
    if not (x0 < x1 and y0 < y1 and x0 < width and y0 < height and x1 > 0 and y1 > 0):
        raise ValueError(f"the face ({x0:g}, {y0:g}, {x1:g}, {y1:g}) lies outside the image of {width}x{height}")
    x, y, side = (x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, y1 - y0)
    if side > 2 * max(width, height):
        raise ValueError(f"the face ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is larger than the image of {width}x{height}")
    room = min(x - side / 2, y - side / 2, width - x - side / 2, height - y - side / 2) if source == _BOX else math.inf
    side += 2 * max(0.0, min(margin * side, room)) if source != _IMAGE else 0
    return x - side / 2, y - side / 2, side


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Held by one process at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go by the system when the process dies
        yield


def _write_parquet(table: pl.DataFrame, path: Path, metadata: dict[str, str]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        table.write_parquet(partial, metadata=metadata)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
