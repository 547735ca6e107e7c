"""The store: fits, predictions and records on disk. It is the truth; whatever schedules the work is never read back.

    store/
      fits/FIT/              one stage trained on one split with one seed
        fit.json             written last: what it is, how it was made, what it cost
        weights.safetensors  what it learned
        embeddings-*.npy     frames embedded once, by part
        history.json         losses by epoch
        rungs.json           of a draw that may be stopped early: what it reached, and whether it was stopped
        checkpoint/          while it trains
      predictions/EVALUATION.parquet
      predictions/N-*.zip              the same, where there are thousands; of two with one name the file counts, then the highest number
      records/EVALUATION.json          written after the predictions it names
      records/N-*.records.parquet      the same, packed, the highest number last; *.units.parquet beside it holds their sums
      provenance/ADDRESS.json          configs, versions, hardware, proofs: what many records share
      locks/FIT                        held by whoever trains or evaluates it, and gone after
      failures/NAME.json               what went wrong, in how many runs
      searches/ADDRESS-N.json          which draws a search asked for after the first N
      progress/FIT.json                how far it is, while somebody trains or evaluates it

Every file is written under a temporary name and renamed, so that what has a name is whole. A store whose ``output_dir`` is
a URL is kept there, and this folder is a working copy: a file is there before it is here, and what is new there is fetched.

What holds whoever dies, and whenever:

- Order. Of a fit, ``fit.json`` comes last; of an evaluation, predictions, then provenance, then the record; of a pack, sums, then records,
  and only then what they replace goes. So what is named is there, and what is there twice is read once.
- Every file has a hash. JSON is sealed (``harness.sealed``); packs and embeddings have the hash of their content in their name,
  provenance is named by its address; a record has the hash of its predictions, ``fit.json`` those of its weights and its history.
- What is not what was written is never read. It is set aside as ``*.corrupt``, that is said, and it counts as missing.
- An evaluation is done where its record with its sums, its predictions and its provenance are there; a fit where ``fit.json`` is and
  all files it names. What is not done is done again by the same command, and from the same seeds.
- No time decides anything: packs and archives are ordered by their number, and a temporary file is removed when nobody holds it.

Files of older stores, which have no hash, are read as they are.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import polars as pl

from harness import archives
from harness.errors import RequestError
from harness.identity import address, address_of_names
from harness.sealed import seal, sha256_of, unseal

logger = logging.getLogger(__name__)

RECORD: dict[str, Any] = {
    "evaluation": pl.String,
    "fit": pl.String,
    "task": pl.String,
    "task_version": pl.Int64,
    "protocol": pl.String,
    "dataset": pl.String,
    "synthetic": pl.Boolean,
    "data": pl.String,  # fingerprint
    "primary": pl.String,
    "baseline": pl.String,
    "baseline_version": pl.Int64,
    "arm": pl.String,
    "control": pl.Boolean,
    "fold": pl.Int64,
    "seed": pl.Int64,
    "setting": pl.String,  # canonical JSON
    "score": pl.Float64,
    "metrics": pl.String,  # JSON, null for undefined
    "labels_used": pl.Int64,
    "n_samples": pl.Int64,
    "n_clips": pl.Int64,
    "n_subjects": pl.Int64,
    "selection": pl.String,
    "seconds": pl.Float64,  # of this evaluation
    "fit_seconds": pl.Float64,  # of all the fits under it
    "gpu_seconds": pl.Float64,
    "peak_memory": pl.Int64,  # bytes
    "predictions": pl.String,  # relative to the store
    "sha256": pl.String,  # of the predictions file
    "provenance": pl.String,  # address of what many records share
    "written": pl.String,  # ISO 8601, UTC
}

FIT_FILES = {"weights": "weights.safetensors", "history": "history.json"}
"""Key of ``fit.json`` that has the SHA-256 of a file → its name."""

LOOSE = 4096
"""More files than this of records or of predictions are gathered while a sweep runs."""

WHOLE = 16384
"""A pack of so many records is whole: it is never merged again, so that what merging takes does not grow with the store."""

HASHED = 32
"""Hex digits of the hash that a file has in its name. Packs of older stores have fewer, which say nothing of their content."""

ARCHIVE = 2**26
"""Bytes of predictions after which the next archive begins."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: a temporary name in the same folder, flushed to the disk, then a rename.

    The temporary file is locked as long as somebody writes it, so that one that is not was left by a process that died.

    Raises:
        RequestError: The disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with temporary.open("wb") as file:
                with contextlib.suppress(OSError):  # where nothing can be locked, nothing is tidied up either
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                with contextlib.suppress(FileNotFoundError):  # tidied up by somebody else before it was locked
                    temporary.replace(path)
                    return
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def as_os_error(error: Exception) -> OSError:
    """An error of a library that says the number of the system's error in its text only."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"(?:code: |os error )(\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def tidy(folder: Path) -> None:
    """Remove the temporary files of writers that were killed: those that nobody holds."""
    with contextlib.suppress(OSError):
        for path in folder.glob(".?*.*"):
            if _TEMPORARY.fullmatch(path.name):
                with contextlib.suppress(OSError), path.open("rb+") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


def cannot_write(path: Path, error: OSError) -> RequestError:
    """What an error of the file system means to a user, in one line."""
    why = {errno.ENOSPC: "the disk is full", errno.EROFS: "the disk is read-only", errno.EACCES: "no permission"}.get(
        error.errno or 0, error.strerror or str(error)
    )
    return RequestError(f"cannot write {path}: {why}", where="output_dir", remedy="free some space or set output_dir=… elsewhere")


class Elsewhere(Protocol):
    """Where a store is kept whose folder is only a working copy: what the store asks of it.

    Every method raises a ``RequestError`` where it does not answer.
    """

    url: str

    def write(self, path: Path, data: bytes) -> None:
        """Write a whole file or nothing, there and then here."""
        ...

    def push(self, *paths: Path) -> None:
        """Files that were made here, to there."""
        ...

    def keep(self, folder: Path) -> None:
        """All files of a folder as they are here, and no others."""
        ...

    def remove(self, *paths: Path) -> None:
        """Remove files, there and here; one that is not there is none to remove."""
        ...

    def look(self, folder: Path, wanted: Callable[[str], bool]) -> None:
        """Make the files of a folder, of those whose names are wanted, the same here as there."""
        ...

    def fetch(self, path: Path) -> bool:
        """Fetch one file if it is there."""
        ...

    def names(self, folder: Path) -> set[str]:
        """Of the files of a folder there."""
        ...

    def set_aside(self, path: Path, aside: Path) -> None:
        """A file whose content is not what was written gets another name."""
        ...

    def hold(self, name: str, *, wait: bool = True) -> contextlib.AbstractContextManager[bool]:
        """A lock, and whether it was got; without waiting it may not be."""
        ...

    def held(self, name: str) -> bool:
        """Whether somebody holds a lock."""
        ...


@dataclass(frozen=True)
class Store:
    """One store, by its folder (``OUTPUT_DIR/store``), and by where that is only a working copy of."""

    root: Path
    elsewhere: Elsewhere | None = None

    @property
    def output(self) -> Path:
        """The folder beside whose caches, tables and W&B files the store is."""
        return self.root.parent

    @property
    def address(self) -> str:
        """What another process opens the same store by: its output folder or URL."""
        return self.elsewhere.url if self.elsewhere else str(self.output)

    def __str__(self) -> str:
        return f"{self.address}/store"

    def write(self, path: Path, data: bytes) -> None:
        """Write a whole file of the store, or nothing.

        Raises:
            RequestError: The disk is full or the folder cannot be written.
        """
        if self.elsewhere:
            self.elsewhere.write(path, data)
        else:
            write_atomically(path, data)

    def remove(self, *paths: Path) -> None:
        """Remove files of the store; one that is not there is none to remove."""
        if self.elsewhere:
            self.elsewhere.remove(*paths)
        for path in paths:
            path.unlink(missing_ok=True)

    def push(self, *paths: Path) -> None:
        """Files of the store that were made in its folder are kept where the store is."""
        if self.elsewhere:
            self.elsewhere.push(*paths)

    def keep(self, folder: Path) -> None:
        """All files of a folder of the output that was made here are kept where the store is."""
        if self.elsewhere:
            self.elsewhere.keep(folder)

    def file(self, fit: str, name: str) -> Path:
        """A file of a fit, by its path here; it need not be there."""
        return self._fetched(self.fit_folder(fit) / name)

    def _fetched(self, path: Path) -> Path:
        if self.elsewhere and not path.is_file():
            self.elsewhere.fetch(path)
        return path

    def _looked(self, folder: str, wanted: Callable[[str], bool] = lambda name: True) -> Path:
        """A folder of the store as it is now."""
        if self.elsewhere:
            self.elsewhere.look(self.root / folder, wanted)
        return self.root / folder

    def fit_folder(self, fit: str) -> Path:
        return self.root / "fits" / fit

    def fit(self, fit: str) -> dict[str, Any] | None:
        """What is known of a finished fit; None where there is none."""
        try:
            return unseal(self.file(fit, "fit.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            self.set_aside(self.fit_folder(fit) / "fit.json")
            return None

    def whole(self, fit: str, sha256: Callable[[Path], str] = sha256_of) -> bool:
        """Whether a fit is finished and its files are what it was finished with; one that is not is set aside, to be fitted again.

        Args:
            fit: Its name.
            sha256: Of a file.
        """
        known = self.fit(fit)
        if known is None:
            return False
        for key, name in FIT_FILES.items():
            if not known.get(key):  # older fits have no hash of their history
                continue
            path = self.file(fit, name)
            try:
                intact = sha256(path) == known[key]
            except FileNotFoundError:
                intact = False
                logger.warning("%s is gone; it is made again when the sweep is run", path)
            else:
                if not intact:
                    self.set_aside(path)
            if not intact:
                self.set_aside(self.fit_folder(fit) / "fit.json", said=False)
                return False
        return True

    def lost_fits(self) -> list[str]:
        """Fits that were finished and are no more, because something of them was damaged or is gone; not those whose folder is."""
        folder = self.root / "fits"
        names = sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []
        marks = ("fit.json.corrupt", FIT_FILES["weights"])
        return [name for name in names if self.fit(name) is None and any((folder / name / mark).is_file() for mark in marks)]

    def history(self, fit: str) -> list[dict[str, Any]]:
        """Losses by epoch of a finished fit; empty where the file is gone or not what was written."""
        known, path = self.fit(fit) or {}, self.file(fit, FIT_FILES["history"])
        try:
            data = path.read_bytes()
            if known.get("history") not in (None, hashlib.sha256(data).hexdigest()):
                raise ValueError("not what was written")
            told: list[dict[str, Any]] = json.loads(data)
        except FileNotFoundError:
            return []
        except ValueError:
            self.set_aside(path)
            return []
        return told

    def fits(self) -> list[dict[str, Any]]:
        """Every finished fit, by name."""
        folder = self._looked("fits", lambda name: name.endswith("/fit.json"))
        names = sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []
        return [known for name in names if (known := self.fit(name)) is not None]

    def finish_fit(self, fit: str, known: Mapping[str, Any]) -> None:
        self.write(self.fit_folder(fit) / "fit.json", seal(known, indent=1))

    def keep_embeddings(self, fit: str, rows: str, data: bytes) -> None:
        """Keep embeddings of some rows, by the address of these and the hash of the file."""
        self.write(self.fit_folder(fit) / f"embeddings-{rows}-{_hash(data)}.npy", data)

    def embeddings(self, fit: str, rows: str) -> bytes | None:
        """What was kept; None where it is not there or not what was written."""
        folder = self._looked(f"fits/{fit}", lambda name: name.startswith(f"embeddings-{rows}")) if self.elsewhere else self.fit_folder(fit)
        for path in sorted(folder.glob(f"embeddings-{rows}*.npy"), reverse=True):
            with contextlib.suppress(FileNotFoundError):
                data = path.read_bytes()
                if self.as_named(path, lambda _, data=data: hashlib.sha256(data).hexdigest()):  # type: ignore[misc]
                    return data
        return None

    def as_named(self, path: Path, sha256: Callable[[Path], str] = sha256_of) -> bool:
        """Whether a file is what the hash in its name says, if it has one; one that is not is set aside."""
        named = _hashed(path)
        intact = named is None or sha256(path)[:HASHED] == named
        if not intact:
            self.set_aside(path)
        return intact

    @contextlib.contextmanager
    def lock(self, fit: str) -> Iterator[None]:
        """Held while a fit trains, so that two sweeps on one store train it once. The kernel frees it when its holder dies."""
        if self.elsewhere:
            with self.elsewhere.hold(fit):
                self._looked("failures")  # of this fit nobody remembers one while we hold it
                yield
            return
        path = self.root / "locks" / fit
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                handle = path.open("w")
            except OSError as error:
                raise cannot_write(path.parent, error) from error
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _same(handle, path):
                break
            handle.close()  # whoever held it has removed it meanwhile: there is another, or none
        with handle:
            try:
                tidy(self.fit_folder(fit))
                yield
            finally:
                with contextlib.suppress(OSError):
                    path.unlink()  # while it is held, so that nobody else's is removed

    def running(self, fit: str) -> bool:
        """Whether somebody trains or evaluates a fit now."""
        if self.elsewhere:
            return self.elsewhere.held(fit)
        try:
            handle = (self.root / "locks" / fit).open("r+")
        except OSError:
            return False
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def predictions_path(self, evaluation: str) -> Path:
        return self.root / "predictions" / f"{evaluation}.parquet"

    def write_predictions(self, evaluation: str, predictions: pl.DataFrame) -> tuple[str, str]:
        """Write one evaluation's predictions.

        Returns:
            The path relative to the store, and the SHA-256 of the file.
        """
        import io

        buffer = io.BytesIO()
        predictions.write_parquet(buffer)
        path, data = self.predictions_path(evaluation), buffer.getvalue()
        self.write(path, data)
        return str(path.relative_to(self.root)), hashlib.sha256(data).hexdigest()

    def read_predictions(self, path: str, sha256: str) -> pl.DataFrame:
        """Predictions that are what was written.

        Raises:
            RequestError: The file is gone, or its bytes have changed; a changed one is set aside as ``*.corrupt``.
        """
        file = self._fetched(self.root / path)
        seen = None
        for data in self._copies(file):
            if hashlib.sha256(data).hexdigest() == sha256:
                return pl.read_parquet(data)
            seen = data if seen is None else seen
        if seen is None:
            raise RequestError(f"the predictions are gone: {file}", remedy="run the sweep again")
        if not file.is_file():
            self.write(file, seen)
        aside = self.set_aside(file)
        raise RequestError(f"the predictions are not what was written: {file}", remedy=f"set aside as {aside.name}; run the sweep again")

    @staticmethod
    def _copies(file: Path) -> Iterator[bytes]:
        """What is there under a name of predictions: the file, and what was gathered into archives, the newest first."""
        with contextlib.suppress(FileNotFoundError):
            yield file.read_bytes()
        yield from archives.found(file.parent, file.name)

    def put(self, provenance: Mapping[str, Any]) -> str:
        """Keep what many records share once; returns its address."""
        name = address(provenance)
        path = self.root / "provenance" / f"{name}.json"
        if not self.provenance(name):
            self.write(path, json.dumps(provenance, indent=1, sort_keys=True).encode())
        return name

    def provenance(self, name: str) -> dict[str, Any]:
        """What was put; empty where the file is gone or not what was written."""
        path = self._fetched(self.root / "provenance" / f"{name}.json")
        try:
            kept: dict[str, Any] = json.loads(path.read_bytes())
        except OSError:
            return {}
        except ValueError:
            kept = {}
        if not kept or address(kept) != name:
            self.set_aside(path)
            return {}
        return kept

    def write_record(self, record: Mapping[str, Any], units: pl.DataFrame) -> None:
        """Write one record with its additive sums, in one file by one rename."""
        whole = {"record": dict(record), "units": {name: units[name].to_list() for name in units.columns}}
        self.write(self.root / "records" / f"{record['evaluation']}.json", seal(whole))

    def records(self) -> pl.DataFrame:
        """Every record, columns as in :data:`RECORD`, sorted by evaluation."""
        loose = self._frame([record for record, _ in self._loose().values()])  # first: what is packed meanwhile is found in its pack
        packed = self._packed("records", pl.read_parquet)
        return pl.concat([loose, *packed]).unique("evaluation", keep="first").sort("evaluation")

    def record(self, begins: str) -> dict[str, Any]:
        """The record of the one evaluation whose name begins so.

        Raises:
            RequestError: There is none, or several.
        """
        found = self.records().filter(pl.col("evaluation").str.starts_with(begins))
        if found.height != 1 or not begins:
            what = f"{found.height or 'no'} evaluations begin with {begins!r}"
            raise RequestError(what, where="EVALUATION", remedy="give a name of `harness list evaluations`, or enough of it")
        return found.row(0, named=True)

    def units(self, evaluations: Iterable[str]) -> pl.DataFrame:
        """Additive sums of some evaluations: ``metrics.units`` of each, with its ``evaluation``.

        A pack has the columns of every task in it; those that none of these evaluations has are left out again.
        """
        wanted = sorted(set(evaluations))
        loose = _sums(self._loose(wanted))
        packed = self._packed("units", lambda path: pl.scan_parquet(path).filter(pl.col("evaluation").is_in(wanted)).collect())
        sums = _newest([*loose, *packed])
        there = {name for name in sums.columns if sums[name].is_not_null().any()}
        means = {f"{name[:-2]}.{moment}" for name in there if name.endswith(".n") for moment in "yp"}  # null where a clip has no label
        return sums.select(name for name in sums.columns if name in there | means | {"evaluation", "subject", "clip"})

    def done(self, among: Iterable[str] | None = None) -> set[str]:
        """The evaluations, of all or of some, that have a readable record, and of which predictions and provenance are there."""
        among = None if among is None else set(among)
        found = {name: (record.get("predictions"), record.get("provenance")) for name, (record, _) in self._loose(among).items()}
        asked = pl.lit(True) if among is None else pl.col("evaluation").is_in(sorted(among))
        wanted = ("evaluation", "predictions", "provenance")
        for rows in self._packed("records", lambda path: pl.scan_parquet(path).select(wanted).filter(asked).collect()):
            for name, predictions, provenance in rows.iter_rows():
                found.setdefault(name, (predictions, provenance))
        if self.elsewhere:  # what is not here may be there
            return set(found)
        predictions = self._predictions_among({path for path, _ in found.values() if path})
        provenances = {
            name for name in {name for _, name in found.values()} if name and (self.root / "provenance" / f"{name}.json").is_file()
        }
        return {
            name
            for name, (path, provenance) in found.items()
            if (path is None or path in predictions) and (provenance is None or provenance in provenances)
        }

    def _predictions_among(self, paths: set[str]) -> set[str]:
        """Those of some paths of predictions, relative to the store, under which something is there."""
        folder = self.root / "predictions"
        if len(paths) > LOOSE:
            names = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
            there = {path for path in paths if path.rpartition("/")[2] in names}
        else:
            there = {path for path in paths if (self.root / path).is_file()}
        if there < paths:
            packed = {name for archive in folder.glob("*.zip") for name in archives.members(archive)}
            there |= {path for path in paths if path.rpartition("/")[2] in packed}
        return there

    def pack(self, *, above: int = 0) -> None:
        """Gather loose records into Parquet files, and predictions into archives where there are thousands, so that files stay few.

        Whoever comes second leaves it to the first. Packs are merged as the digits of a binary number are carried: each is larger than
        all that are newer, so that there are few and a record is written again a logarithmic number of times. Sums are renamed into
        place before the records that need them, and loose files go last: a death in between leaves a record twice, which is read as one.

        Args:
            above: How many loose files are too many; predictions of fewer than :data:`LOOSE` stay as they are all the same.
        """
        with self._packing(wait=False) as alone:
            if not alone:
                return
            if self._count("records", ".json") > above:
                self._pack_records(self._loose())
            if self.elsewhere is None and self._count("predictions", ".parquet") > max(above, LOOSE):  # a bucket minds no number
                self._archive_predictions()
            if not above:
                self._tidy()

    def _tidy(self) -> None:
        """What was left by who was killed: half-written files, and failures of evaluations that were made since."""
        self.remove(*(self.root / "failures" / f"{name}.json" for name in self._failures().keys() - self.failures().keys()))
        if self.elsewhere is None:
            for folder in ("records", "predictions", "provenance", "failures"):
                tidy(self.root / folder)

    def _count(self, folder: str, ending: str) -> int:
        looked = self._looked(folder, lambda name: name.endswith(ending)) if folder == "records" else self.root / folder
        return sum(entry.name.endswith(ending) for entry in os.scandir(looked)) if looked.is_dir() else 0

    def _pack_records(self, loose: Mapping[str, tuple[dict[str, Any], dict[str, Any]]]) -> None:
        packs = self._packs("records")
        number = max((_number(path) for kind in ("records", "units") for path in self._packs(kind)), default=0) + 1
        old, total = [], len(loose)
        for path in packs:
            rows = pl.scan_parquet(path).select(pl.len()).collect().item()
            if rows > total or rows >= WHOLE:
                break
            old.append(path)
            total += rows
        numbers = {_number(path) for path in old}
        old_units = [path for path in self._packs("units") if _number(path) in numbers]
        records = pl.concat([self._frame([record for record, _ in loose.values()]), *map(pl.read_parquet, old)])
        sums = _sums(loose)
        self._write_pack(number, "units", _newest([*sums, *map(pl.read_parquet, old_units)]))
        self._write_pack(number, "records", records.unique("evaluation", keep="first").sort("evaluation"))
        orphans = [path for path in self._packs("units") if _number(path) < number and _number(path) not in map(_number, packs)]
        self.remove(*old, *old_units, *orphans, *(self.root / "records" / f"{evaluation}.json" for evaluation in loose))

    def _archive_predictions(self) -> None:
        """All loose predictions into archives, which are in their place before the loose ones go: both are read as one."""
        folder = self.root / "predictions"
        number = max((int(path.name.split("-")[0]) for path in folder.glob("*.zip")), default=0)
        batch: dict[Path, bytes] = {}

        def put() -> None:
            nonlocal number
            number += 1
            name = f"{number:06d}-{address_of_names(path.name for path in batch)}.zip"
            self.write(folder / name, archives.made({path.name: data for path, data in batch.items()}))
            for path, data in batch.items():
                with contextlib.suppress(FileNotFoundError):
                    if path.read_bytes() == data:  # else it was written again meanwhile
                        path.unlink()
            batch.clear()

        size = 0
        for path in sorted(folder.glob("[!.]*.parquet")):
            batch[path] = path.read_bytes()
            size += len(batch[path])
            if size > ARCHIVE or len(batch) == LOOSE:
                put()
                size = 0
        if batch:
            put()

    def forget(self, evaluations: Iterable[str]) -> None:
        """Take records and their predictions out of the store, packed ones too. Sums in packs stay, which nothing asks for."""
        gone = set(evaluations)
        paths = self.records().filter(pl.col("evaluation").is_in(sorted(gone)))["predictions"].to_list()
        with self._packing():
            for pack in self._packs("records"):
                records = pl.read_parquet(pack)
                kept = records.filter(~pl.col("evaluation").is_in(sorted(gone)))
                if kept.height < records.height and self._write_pack(_number(pack), "records", kept) != pack:
                    self.remove(pack)
            self.remove(*(self.root / "records" / f"{evaluation}.json" for evaluation in gone))
            self.remove(*(self.root / path for path in paths))
            self._take_out({path.rpartition("/")[2] for path in paths})

    def _take_out(self, names: set[str]) -> None:
        """Predictions out of the archives."""
        for archive in sorted((self.root / "predictions").glob("*.zip")):
            inside = set(archives.members(archive))
            if inside & names:
                if inside <= names:
                    archive.unlink()
                else:
                    self.write(archive, archives.without(archive, names))

    def repair_archive(self, archive: Path, damaged: set[str]) -> None:
        """Set an archive aside of which members are not what was written, and keep the others."""
        with self._packing():
            kept = archives.without(archive, damaged) if set(archives.members(archive)) - damaged else None
            self.set_aside(archive)
            if kept:
                self.write(archive, kept)

    @contextlib.contextmanager
    def _packing(self, *, wait: bool = True) -> Iterator[bool]:
        """Whether the packs are ours to change."""
        if self.elsewhere:
            with self.elsewhere.hold("packing", wait=wait) as alone:
                yield alone
            return
        (self.root / "records").mkdir(parents=True, exist_ok=True)
        with (self.root / "records" / ".packing").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    def fail(self, name: str, failure: Mapping[str, Any]) -> None:
        """Remember that a fit or an evaluation failed, and why; see :mod:`harness.failures`."""
        self.write(self.root / "failures" / f"{name}.json", seal(failure, indent=1))

    def forget_failure(self, name: str) -> None:
        path = self.root / "failures" / f"{name}.json"
        if path.is_file():
            self.remove(path)

    def failure(self, name: str) -> dict[str, Any] | None:
        """What is remembered of one; None where it has not failed."""
        return self._unsealed(self._fetched(self.root / "failures" / f"{name}.json"))

    def _unsealed(self, path: Path) -> dict[str, Any] | None:
        """What was sealed; None where it is not there, or not what was written."""
        try:
            return unseal(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            self.set_aside(path)
            return None

    def failures(self) -> dict[str, dict[str, Any]]:
        """What is remembered, by name. An evaluation that has a record has not failed: who made it was killed before it forgot."""
        found = self._failures()
        made = self.done(found) if found else set()
        return {name: failure for name, failure in found.items() if name not in made}

    def _failures(self) -> dict[str, dict[str, Any]]:
        names = [path.stem for path in sorted(self._looked("failures").glob("*.json"))]
        return {name: known for name in names if (known := self.failure(name)) is not None}

    def keep_search(self, name: str, asked: Sequence[Mapping[str, Any]]) -> None:
        """Remember the values of one round of a search; see :mod:`harness.rounds`."""
        self.write(self.root / "searches" / f"{name}.json", seal({"values": list(asked)}, indent=1))

    def search(self, name: str) -> list[dict[str, Any]] | None:
        """The values of one round of a search, by key; None where it was not asked yet."""
        known = self._unsealed(self._fetched(self.root / "searches" / f"{name}.json"))
        return None if known is None else known.get("values")

    def keep_rungs(self, fit: str, reached: Mapping[str, Any]) -> None:
        """Remember what a fit reached that may be stopped early; see :mod:`harness.rungs`."""
        self.write(self.fit_folder(fit) / "rungs.json", seal(reached, indent=1))

    def rungs(self, fit: str) -> dict[str, Any] | None:
        """What was remembered, as it is now; None where nothing was."""
        return self._unsealed(self._looked(f"fits/{fit}", lambda name: name == "rungs.json") / "rungs.json")

    def progress(self) -> list[Path]:
        """What workers tell of what is under way; see :mod:`harness.progress`."""
        return sorted(self._looked("progress").glob("*.json"))

    def _packs(self, kind: str) -> list[Path]:
        """The newest first. Records and their sums count together: where one is not what was written, or gone, both are set aside.

        Raises:
            FileNotFoundError: One was merged into another meanwhile.
        """
        folder = self._looked("records", lambda name: name.endswith(".parquet"))
        packs = sorted(folder.glob("[!.]*.parquet"), reverse=True)
        by_kind = {each: [path for path in packs if path.name.endswith(f".{each}.parquet")] for each in ("records", "units")}
        damaged = [path for path in packs if _hashed(path) not in (None, sha256_of(path)[:HASHED])]
        summed = {_number(path) for path in by_kind["units"]}
        for path in by_kind["records"]:
            if _number(path) not in summed:
                path.stat()  # records go before their sums, so that these are missed where that is still there
                damaged.append(path)
        for path in damaged:
            self.set_aside(path)
        lost = {_number(path) for path in damaged}
        for path in packs:
            if _number(path) in lost and path not in damaged:
                self.set_aside(path, said=False)
        return [path for path in by_kind[kind] if _number(path) not in lost]

    def _packed(self, kind: str, read: Callable[[Path], pl.DataFrame]) -> list[pl.DataFrame]:
        """What is read of every pack, the newest first; all over again where one was merged into another meanwhile."""
        for _ in range(100):
            try:
                return [read(path) for path in self._packs(kind)]
            except FileNotFoundError:
                continue
        raise RequestError(f"the packs in {self.root / 'records'} change faster than they can be read")

    def _loose(self, among: Iterable[str] | None = None) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        among = None if among is None else {*among}
        folder = self._looked("records", lambda name: name.endswith(".json") and (among is None or name[:-5] in among))
        names = {entry.name[:-5] for entry in os.scandir(folder) if entry.name.endswith(".json")} if folder.is_dir() else set()
        found = {}
        for name in sorted(names if among is None else names.intersection(among)):
            path = folder / f"{name}.json"
            try:
                whole = unseal(path.read_bytes())
                found[name] = (whole["record"], whole["units"])
            except FileNotFoundError:  # packed by somebody else meanwhile
                continue
            except (ValueError, KeyError, TypeError):
                self.set_aside(path)
        return found

    @staticmethod
    def _frame(records: list[dict[str, Any]]) -> pl.DataFrame:
        return pl.DataFrame([[record.get(name) for name in RECORD] for record in records], schema=RECORD, orient="row")

    def _write_pack(self, number: int, kind: str, frame: pl.DataFrame) -> Path:
        import io

        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        data = buffer.getvalue()
        path = self.root / "records" / f"{number:06d}-{_hash(data)}.{kind}.parquet"
        self.write(path, data)
        return path

    def set_aside(self, path: Path, *, said: bool = True) -> Path:
        """Give a file that is not what was written another name, under which nobody reads it, and say so."""
        aside = path.with_name(f"{path.name}.corrupt")
        if said:
            logger.warning("%s is not what was written; it is set aside as %s and made again when the sweep is run", path, aside.name)
        if self.elsewhere:
            self.elsewhere.set_aside(path, aside)
            return aside
        with contextlib.suppress(OSError):
            path.replace(aside)
        return aside


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:HASHED]


def _hashed(path: Path) -> str | None:
    """The hash in a name, after the last hyphen and before the first full stop; None in names of older stores."""
    found = path.name.partition(".")[0].rpartition("-")[2]
    return found if len(found) == HASHED else None


def _number(pack: Path) -> int:
    return int(pack.name.split("-")[0])


def _sums(loose: Mapping[str, tuple[dict[str, Any], dict[str, Any]]]) -> list[pl.DataFrame]:
    """The sums of loose records, some hundred to a frame: a frame of its own for each takes ten times the memory of what is in it."""
    names, frames = list(loose), []
    for first in range(0, len(names), 256):
        each = [pl.DataFrame(dict(loose[name][1])).with_columns(evaluation=pl.lit(name)) for name in names[first : first + 256]]
        frames.append(pl.concat(each, how="diagonal_relaxed").rechunk())
    return frames


def _newest(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Sums of each evaluation from the first frame that has it."""
    if not frames:
        return pl.DataFrame(schema={"evaluation": pl.String})
    numbered = [frame.with_columns(_frame=pl.lit(number, pl.UInt32)) for number, frame in enumerate(frames)]
    every = pl.concat(numbered, how="diagonal_relaxed")
    return every.filter(pl.col("_frame") == pl.col("_frame").min().over("evaluation")).drop("_frame")


def _same(handle: IO[str], path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False
