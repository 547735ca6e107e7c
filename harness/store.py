"""The store: fits, predictions and records on disk. It is the truth; whatever schedules the work is never read back.

    store/
      fits/FIT/              one stage trained on one split with one seed
        fit.json             written last: what it is, how it was made, what it cost
        weights.safetensors  what it learned
        embeddings-*.npy     frames embedded once, by part
        history.json         losses by epoch
        checkpoint/          while it trains
      predictions/EVALUATION.parquet
      records/EVALUATION.json          written after the predictions it names
      records/N-*.records.parquet      the same, packed, the highest number last; *.units.parquet beside it holds their sums
      provenance/ADDRESS.json          configs, versions, hardware, proofs: what many records share
      locks/FIT                        held by whoever trains or evaluates it
      failures/NAME.json               what went wrong and would go wrong again

Every file is written under a temporary name and renamed, so that what has a name is whole. A store whose ``output_dir`` is
a URL is kept there, and this folder is a working copy: a file is there before it is here, and what is new there is fetched.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from harness.errors import RequestError
from harness.identity import address, address_of_file, address_of_names

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

MAX_PACKS = 8
"""More packs than this are merged into one."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: a temporary name in the same folder, flushed to the disk, then a rename.

    Raises:
        RequestError: The disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


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

    def remove(self, *paths: Path) -> None:
        """Remove files, there and here; one that is not there is none to remove."""
        ...

    def look(self, folder: Path, wanted: Callable[[str], bool]) -> None:
        """Make the files of a folder, of those whose names are wanted, the same here as there."""
        ...

    def fetch(self, path: Path) -> bool:
        """Fetch one file if it is there."""
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
            known: dict[str, Any] = json.loads(self.file(fit, "fit.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            self._set_aside(self.fit_folder(fit) / "fit.json")
            return None
        return known

    def fits(self) -> list[dict[str, Any]]:
        """Every finished fit, by name."""
        folder = self._looked("fits", lambda name: name.endswith("/fit.json"))
        names = sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []
        return [known for name in names if (known := self.fit(name)) is not None]

    def finish_fit(self, fit: str, known: Mapping[str, Any]) -> None:
        self.write(self.fit_folder(fit) / "fit.json", json.dumps(known, indent=1, sort_keys=True).encode())

    @contextlib.contextmanager
    def lock(self, fit: str) -> Iterator[None]:
        """Held while a fit trains, so that two sweeps on one store train it once. The kernel frees it when its holder dies."""
        if self.elsewhere:
            with self.elsewhere.hold(fit):
                yield
            return
        folder = self.root / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = (folder / fit).open("w")
        except OSError as error:
            raise cannot_write(folder, error) from error
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

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
        path = self.predictions_path(evaluation)
        self.write(path, buffer.getvalue())
        return str(path.relative_to(self.root)), address_of_file(path)

    def read_predictions(self, path: str, sha256: str) -> pl.DataFrame:
        """Predictions that are what was written.

        Raises:
            RequestError: The file is gone, or its bytes have changed; a changed one is set aside as ``*.corrupt``.
        """
        file = self._fetched(self.root / path)
        if not file.is_file():
            raise RequestError(f"the predictions are gone: {file}", remedy="run the sweep again")
        if address_of_file(file) != sha256:
            aside = self._set_aside(file)
            raise RequestError(
                f"the predictions are not what was written: {file}", remedy=f"set aside as {aside.name}; run the sweep again"
            )
        return pl.read_parquet(file)

    def put(self, provenance: Mapping[str, Any]) -> str:
        """Keep what many records share once; returns its address."""
        name = address(provenance)
        path = self.root / "provenance" / f"{name}.json"
        if not path.is_file():
            self.write(path, json.dumps(provenance, indent=1, sort_keys=True).encode())
        return name

    def provenance(self, name: str) -> dict[str, Any]:
        """What was put; empty where the file is gone or unreadable."""
        try:
            path = self._fetched(self.root / "provenance" / f"{name}.json")
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return kept

    def write_record(self, record: Mapping[str, Any], units: pl.DataFrame) -> None:
        """Write one record with its additive sums, in one file by one rename."""
        whole = {"record": dict(record), "units": {name: units[name].to_list() for name in units.columns}}
        self.write(self.root / "records" / f"{record['evaluation']}.json", json.dumps(whole, sort_keys=True).encode())

    def records(self) -> pl.DataFrame:
        """Every record, columns as in :data:`RECORD`, sorted by evaluation."""
        packed = [pl.read_parquet(path) for path in self._packs("records")]
        loose = self._frame([record for record, _ in self._loose().values()])
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
        loose = [_sums(name, units) for name, (_, units) in self._loose(wanted).items()]
        packed = [pl.scan_parquet(path).filter(pl.col("evaluation").is_in(wanted)).collect() for path in self._packs("units")]
        sums = _newest([*loose, *packed])
        there = {name for name in sums.columns if sums[name].is_not_null().any()}
        means = {f"{name[:-2]}.{moment}" for name in there if name.endswith(".n") for moment in "yp"}  # null where a clip has no label
        return sums.select(name for name in sums.columns if name in there | means | {"evaluation", "subject", "clip"})

    def done(self, among: Iterable[str] | None = None) -> set[str]:
        """The evaluations, of all or of some, that have a readable record."""
        among = None if among is None else set(among)
        packed = [pl.scan_parquet(path).select("evaluation").collect()["evaluation"] for path in self._packs("records")]
        found = {name for names in packed for name in names} | set(self._loose(among))
        return found if among is None else found & among

    def pack(self) -> None:
        """Gather loose records into Parquet files, so that files stay few. Whoever comes second leaves it to the first.

        Sums are renamed into place before the records that need them, and loose files go last: a death in between
        leaves a record twice, which is read as one.
        """
        loose = self._loose()
        if not loose:
            return
        with self._packing(wait=False) as alone:
            if not alone:
                return
            packs = self._packs("records")
            number = int(packs[0].name.split("-")[0]) + 1 if packs else 1
            old = packs if len(packs) >= MAX_PACKS else []
            old_units = [path.with_name(path.name.replace(".records.", ".units.")) for path in old]
            records = pl.concat([self._frame([record for record, _ in loose.values()]), *map(pl.read_parquet, old)])
            sums = [_sums(name, units) for name, (_, units) in loose.items()]
            name = f"{number:06d}-{address_of_names(records['evaluation'])}"
            self._write_parquet(f"{name}.units.parquet", _newest([*sums, *map(pl.read_parquet, old_units)]))
            self._write_parquet(f"{name}.records.parquet", records.unique("evaluation", keep="first").sort("evaluation"))
            self.remove(*old, *old_units, *(self.root / "records" / f"{evaluation}.json" for evaluation in loose))

    def forget(self, evaluations: Iterable[str]) -> None:
        """Take records and their predictions out of the store, packed ones too. Sums in packs stay, which nothing asks for."""
        gone = set(evaluations)
        paths = self.records().filter(pl.col("evaluation").is_in(sorted(gone)))["predictions"].to_list()
        with self._packing():
            for pack in self._packs("records"):
                records = pl.read_parquet(pack)
                kept = records.filter(~pl.col("evaluation").is_in(sorted(gone)))
                if kept.height < records.height:
                    self._write_parquet(pack.name, kept)
            self.remove(*(self.root / "records" / f"{evaluation}.json" for evaluation in gone))
        self.remove(*(self.root / path for path in paths))

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
        """Remember that a fit or an evaluation failed, and why."""
        self.write(self.root / "failures" / f"{name}.json", json.dumps(failure, indent=1, sort_keys=True).encode())

    def forget_failure(self, name: str) -> None:
        path = self.root / "failures" / f"{name}.json"
        if path.is_file():
            self.remove(path)

    def failures(self) -> dict[str, dict[str, Any]]:
        folder = self._looked("failures")
        return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}

    def _packs(self, kind: str) -> list[Path]:
        """The newest first."""
        ending = f".{kind}.parquet"
        return sorted(self._looked("records", lambda name: name.endswith(ending)).glob(f"*{ending}"), reverse=True)

    def _loose(self, among: Iterable[str] | None = None) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        among = None if among is None else {*among}
        folder = self._looked("records", lambda name: name.endswith(".json") and (among is None or name[:-5] in among))
        names = {entry.name[:-5] for entry in os.scandir(folder) if entry.name.endswith(".json")} if folder.is_dir() else set()
        found = {}
        for name in sorted(names if among is None else names.intersection(among)):
            path = folder / f"{name}.json"
            try:
                whole = json.loads(path.read_bytes())
                found[name] = (whole["record"], whole["units"])
            except FileNotFoundError:  # packed by somebody else meanwhile
                continue
            except (ValueError, KeyError, TypeError):
                self._set_aside(path)
        return found

    @staticmethod
    def _frame(records: list[dict[str, Any]]) -> pl.DataFrame:
        return pl.DataFrame([[record.get(name) for name in RECORD] for record in records], schema=RECORD, orient="row")

    def _write_parquet(self, name: str, frame: pl.DataFrame) -> None:
        import io

        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        self.write(self.root / "records" / name, buffer.getvalue())

    def _set_aside(self, path: Path) -> Path:
        aside = path.with_name(f"{path.name}.corrupt")
        if self.elsewhere:
            self.elsewhere.set_aside(path, aside)
            return aside
        with contextlib.suppress(OSError):
            path.replace(aside)
        return aside


def _sums(evaluation: str, units: Mapping[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(dict(units)).with_columns(evaluation=pl.lit(evaluation))


def _newest(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Sums of each evaluation from the first frame that has it."""
    kept: list[pl.DataFrame] = []
    for frame in frames:
        known = pl.concat([one.select("evaluation") for one in kept]).unique() if kept else pl.DataFrame(schema={"evaluation": pl.String})
        kept.append(frame.join(known, on="evaluation", how="anti"))
    return pl.concat(kept, how="diagonal_relaxed") if kept else pl.DataFrame(schema={"evaluation": pl.String})
