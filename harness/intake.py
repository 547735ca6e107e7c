"""A table that a stranger wrote, read so that it can do no harm: its size is known before it is decoded, and it is only ever data.

A Parquet file says in its footer how large it is, and may lie; so its footer is held against bounds first, and its pages are decoded in a
process of their own with little memory and time, which hands back plain columns. A csv is read line by line within the same bounds.
Nothing is unpickled, and no name or path in a file is followed.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness.errors import RequestError

if TYPE_CHECKING:
    import polars as pl

FILE = 512 << 20
"""Bytes of a file, or of all files of a folder."""

ROWS, COLUMNS, FILES = 5_000_000, 200, 1_000
"""Rows and columns of a table; files of a folder."""

TEXT = 1_000
"""Characters of a cell, of a column's name and of a value of the metadata."""

LINE = 64 << 10
"""Characters of a line."""

FOOTER = 16 << 20
"""Bytes of a Parquet file's footer."""

DECODED = 1 << 30
"""Bytes of a Parquet file's columns once decompressed, by its footer and in truth."""

MEMORY, SECONDS = 3 << 30, 120
"""What the process that decodes may use."""

_BATCH = 8_192  # rows at a time: the same long text in every row is written out for these only


@dataclass(frozen=True)
class Table:
    """What stands in a file, as it stands there.

    Attributes:
        rows: ``row`` (its line in a csv, its number from 1 in a Parquet file), ``cells`` (how many a csv's line has, null where it is as
            many as belong), and the columns wanted: text, or Float64 where the file has numbers.
        names: Every column the file has.
        metadata: Of the file: ``protocol``, ``task_version`` …
    """

    rows: pl.DataFrame
    names: tuple[str, ...]
    metadata: dict[str, str]


def shown(text: str, length: int = 80) -> str:
    """A stranger's text in quotes on one line, cut short; control characters are escaped."""
    return repr(text if len(text) <= length else f"{text[: length - 1]}…")


def weigh(path: Path) -> None:
    """Refuse what is not there, no plain file (or folder of such), empty, or too large; nothing is read.

    Raises:
        RequestError: It is one of these.
    """
    if path.is_dir():
        with os.scandir(path) as entries:
            sizes = []
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    raise RequestError(f"{shown(entry.name)} is no plain file", where=str(path), remedy="give a folder of text files only")
                sizes.append(entry.stat(follow_symlinks=False).st_size)
                if len(sizes) > FILES:
                    raise RequestError(f"more than {FILES} files", where=str(path), remedy="give one file a video, or a single file")
    elif path.is_file():
        sizes = [path.stat().st_size]
    else:
        raise RequestError(f"no such file: {path}", where="FILE", remedy="give a Parquet file, a csv or a challenge's text file")
    if sum(sizes) > FILE:
        raise RequestError(
            f"{sum(sizes) / 2**20:.0f} MiB, at most {FILE >> 20} are read", where=str(path), remedy="leave other columns out"
        )
    if not sum(sizes):
        raise RequestError("nothing is in it", where=str(path), remedy="give one row a sample")


def weigh_lines(path: Path) -> None:
    """Refuse a text file, or a folder of them, with a line too long or too many lines, before anybody cuts it into cells.

    Raises:
        RequestError: It is so, or is no text.
    """
    count = 0
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        with file.open("rb") as binary:
            while line := binary.readline(LINE + 1):
                count += 1
                if len(line) > LINE:
                    raise RequestError(f"line {count} is longer than {LINE} characters", where=str(file), remedy="write one row a line")
                if count > ROWS:
                    raise RequestError(f"more than {ROWS} rows", where=str(path), remedy="give one row a sample")


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet files do."""
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


# ── csv ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_csv(path: Path, wanted: Collection[str]) -> Table:
    """A csv in UTF-8, with or without a byte-order mark, lines ending in LF or CRLF; ``# key: value`` lines may stand at its top.

    Args:
        path: Already weighed.
        wanted: Names of the columns to keep.

    Raises:
        RequestError: It is no such file, or beyond a bound; the line is named.
    """
    import polars as pl

    before = csv.field_size_limit(TEXT)
    parts: list[pl.DataFrame] = []
    block: list[list[str]] = []
    places: list[tuple[int, int | None]] = []
    reader = None
    skipped = 0
    names: list[str] = []
    kept: dict[str, int] = {}

    def settle() -> None:
        columns = {name: [line[place] if place < len(line) else None for line in block] for name, place in kept.items()}
        facts = pl.DataFrame(places, schema={"row": pl.Int64, "cells": pl.Int64}, orient="row")
        parts.append(facts.hstack(pl.DataFrame(columns, schema=dict.fromkeys(kept, pl.String))))
        block.clear()
        places.clear()

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            metadata, first, skipped = _comments(file)
            reader = csv.reader(_lines(first, file), strict=True)
            names = [name.strip() for name in next(reader, [])]
            _check_names(names, path)
            kept = {name: place for place, name in enumerate(names) if name in wanted}
            total = 0
            for line in reader:
                if not line:
                    continue
                total += 1
                if total > ROWS:
                    raise RequestError(f"more than {ROWS} rows", where=str(path), remedy="give one row a sample")
                block.append(line)
                places.append((reader.line_num + skipped, None if len(line) == len(names) else len(line)))
                if len(block) == 65_536:
                    settle()
    except UnicodeDecodeError as error:
        raise RequestError(f"byte {error.start} is no UTF-8", where=str(path), remedy="save it as csv in UTF-8, or as Parquet") from None
    except csv.Error as error:
        where = f"{path}:{max(1, reader.line_num + skipped) if reader is not None else 1}"
        raise RequestError(f"no csv: {error}", where=where, remedy=f"quote cells as csv does, at most {TEXT} characters each") from None
    finally:
        csv.field_size_limit(before)
    settle()
    return Table(pl.concat(parts), tuple(names), metadata)


def _comments(file: IO[str]) -> tuple[dict[str, str], str, int]:
    """The ``# key: value`` lines at the top, the first line after them, and how many there were."""
    metadata: dict[str, str] = {}
    count = 0
    while True:
        line = file.readline(LINE + 1)
        said = line.strip().strip(',;"').strip()  # as a spreadsheet leaves it
        if not said.startswith("#") or count >= 100:
            return metadata, line, count
        count += 1
        key, _, value = said.lstrip("# ").partition(":")
        metadata[key.strip()[:TEXT]] = value.strip()[:TEXT]


def _lines(first: str, file: IO[str]) -> Iterator[str]:
    line = first
    while line:
        if len(line) > LINE:
            raise csv.Error(f"a line is longer than {LINE} characters")
        yield line
        line = file.readline(LINE + 1)


def _check_names(names: list[str], path: Path) -> None:
    if len(names) > COLUMNS:
        raise RequestError(f"{len(names)} columns, at most {COLUMNS} are read", where=str(path))
    for name in names:
        if len(name) > TEXT:
            raise RequestError(f"a column's name has {len(name)} characters, at most {TEXT} are read", where=str(path))
        if names.count(name) > 1:
            raise RequestError(f"two columns are called {shown(name)}", where=str(path), remedy="name each once")


# ── Parquet ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_parquet(path: Path, wanted: Collection[str]) -> Table:
    """A Parquet file, decoded in a process of its own.

    Args:
        path: Already weighed.
        wanted: Names of the columns to keep.

    Raises:
        RequestError: It is no such file, beyond a bound, or damaged.
    """
    import polars as pl

    here = str(Path(__file__).parents[1])
    script = f"import sys; sys.path.insert(0, {here!r}); from harness.intake import decode_apart; decode_apart()"
    damaged = RequestError("it cannot be decoded: damaged, or larger than it says", where=str(path), remedy="write it anew")
    with tempfile.TemporaryDirectory(prefix="harness-intake-") as folder:
        out = Path(folder) / "table.arrow"
        settings = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", script, str(path.resolve()), str(out), json.dumps(sorted(wanted))],
                capture_output=True,
                timeout=2 * SECONDS,
                check=False,
                env=os.environ | settings,
            )
            answer = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, ValueError):  # it was ended, or ended by itself
            raise damaged from None
        if done.returncode or "names" not in answer:
            raise RequestError(answer["what"], where=str(path), remedy=answer.get("remedy")) if answer.get("what") else damaged
        rows = pl.read_ipc(out.read_bytes())
    return Table(rows.insert_column(1, pl.lit(None, pl.Int64).alias("cells")), tuple(answer["names"]), answer["metadata"])


def decode_apart() -> None:
    """What that process does: bounds for itself, then :func:`decode`; its answer is JSON."""
    import resource

    for what, most in (
        (resource.RLIMIT_DATA, MEMORY),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, 2 * DECODED),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    path, out, wanted = sys.argv[1:]
    try:
        answer: dict[str, Any] = decode(Path(path), Path(out), json.loads(wanted))
    except RequestError as error:
        answer = {"what": error.what, "remedy": error.remedy}
    except MemoryError:
        answer = {"what": "it is larger than it says", "remedy": "write it anew as plain Parquet"}
    print(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # nothing that a broken file left behind is taken down


def decode(path: Path, out: Path, wanted: Collection[str]) -> dict[str, Any]:
    """Hold a footer against the bounds, then write the columns wanted as an Arrow file: ``row``, and text or Float64.

    Returns:
        ``names`` of all columns and ``metadata``.

    Raises:
        RequestError: It is beyond a bound, or no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_footer(path)
    try:
        file = pq.ParquetFile(path, thrift_string_size_limit=FOOTER, thrift_container_size_limit=1_000_000, memory_map=False)
        names = _check_metadata(file.metadata, file.schema_arrow)
        chosen = [name for name in names if name in wanted]
        types = {name: _plain(file.schema_arrow.field(name).type, name) for name in chosen}
        schema = pa.schema([("row", pa.int64()), *types.items()])
        found = written = 0
        with pa.OSFile(str(out), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in file.iter_batches(_BATCH, columns=chosen, use_threads=False) if chosen else ():
                columns = [_converted(batch.column(name), types[name], name) for name in chosen]
                numbers = pa.array(range(found + 1, found + 1 + batch.num_rows), pa.int64())
                whole = pa.record_batch([numbers, *columns], schema=schema)
                found, written = found + batch.num_rows, written + whole.nbytes
                if found > file.metadata.num_rows or written > DECODED:
                    raise RequestError("it is larger than it says", remedy="write it anew as plain Parquet")
                writer.write_batch(whole)
    except (pa.ArrowException, OSError, ValueError, KeyError, UnicodeDecodeError) as error:
        raise RequestError(f"no readable Parquet: {shown(str(error))}", remedy="write it anew as plain Parquet") from None
    if chosen and found != file.metadata.num_rows:
        raise RequestError(f"its footer says {file.metadata.num_rows} rows and {found} are there", remedy="write it anew as plain Parquet")
    said = {
        key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for key, value in (file.metadata.metadata or {}).items()
        if len(key) <= TEXT and len(value) <= TEXT
    }
    return {"names": names, "metadata": said}


def _check_footer(path: Path) -> None:
    """That the last eight bytes name a footer that is there, and is no larger than may be."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 8))
        end = file.read(8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or length + 12 > size:
        raise RequestError("it is no whole Parquet file: its footer is missing", remedy="send it again")
    if length > FOOTER:
        raise RequestError(f"a footer of {length} bytes, at most {FOOTER} are read", remedy="write fewer row groups")


def _check_metadata(metadata: Any, schema: Any) -> list[str]:
    """The names of the columns, where every size the footer claims is within its bound."""
    if metadata.num_columns > COLUMNS:
        raise RequestError(f"{metadata.num_columns} columns, at most {COLUMNS} are read", remedy="leave columns out")
    if not 0 <= metadata.num_rows <= ROWS:
        raise RequestError(f"its footer says {metadata.num_rows} rows, at most {ROWS} are read", remedy="give one row a sample")
    names = [str(name) for name in schema.names]
    _check_names(names, Path("Parquet"))
    rows = size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        columns = [group.column(place) for place in range(group.num_columns)]
        sizes = [group.total_byte_size, *(column.total_uncompressed_size for column in columns)]
        if group.num_rows < 0 or min(sizes) < 0:
            raise RequestError("its footer says a size below 0", remedy="write it anew as plain Parquet")
        rows += group.num_rows
        size += max(sizes[0], sum(sizes[1:]))
    if size > DECODED:
        raise RequestError(f"its footer says {size / 2**30:.1f} GiB of values, at most {DECODED >> 30} is read", remedy="leave columns out")
    if rows != metadata.num_rows:
        raise RequestError(f"its footer says {metadata.num_rows} rows, and {rows} in its groups", remedy="write it anew as plain Parquet")
    return names


def _plain(kind: Any, name: str) -> Any:
    """The type a column is handed back in.

    Raises:
        RequestError: It holds neither text nor numbers.
    """
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner):
        return pa.large_string()
    if pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_boolean(inner) or pa.types.is_null(inner):
        return pa.float64()
    raise RequestError(f"column {shown(name)} holds {shown(str(kind))}", remedy="write it as text or numbers")


def _converted(column: Any, kind: Any, name: str) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_large_string(kind):
        text = column.cast(kind)
        text.validate(full=True)  # offsets and UTF-8
        longest = pc.max(pc.binary_length(text)).as_py() or 0
        if longest > 4 * TEXT:
            raise RequestError(f"a cell of column {shown(name)} has {longest} bytes, at most {4 * TEXT} are read")
        return text
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return plain.cast(kind, safe=False)
