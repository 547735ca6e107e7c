"""Content addresses: equal inputs have equal names, on every machine and in every process."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

LENGTH = 20
"""Hex digits of an address: 80 bits, enough for 10^9 evaluations with a chance of 10^-6 that any two collide."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no white space; raises TypeError for what JSON cannot hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def address(value: Any) -> str:
    """The address of a JSON value.

    >>> address({"b": 1, "a": [2]}) == address({"a": [2], "b": 1})
    True
    """
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:LENGTH]


def address_of_names(names: Iterable[str]) -> str:
    """The address of a set of names, whatever their order."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:LENGTH]


def address_of_frame(frame: pl.DataFrame) -> str:
    """The address of a frame: column names, types, values and row order; the same under every version of Polars."""
    digest = hashlib.sha256(canonical([[name, str(dtype)] for name, dtype in frame.schema.items()]).encode())
    for column in frame.iter_columns():
        digest.update(column.is_null().to_numpy().tobytes())
        if isinstance(column.dtype, (pl.String, pl.Enum, pl.Categorical)):
            digest.update("\0".join(column.cast(pl.String).fill_null("").to_list()).encode())
        elif isinstance(column.dtype, pl.Array):
            width = math.prod(column.dtype.shape)
            values = column.reshape((-1,)).fill_null(0) if column.null_count() == 0 else column.drop_nulls().reshape((-1,)).fill_null(0)
            digest.update(f"{width}:".encode() + values.to_numpy().tobytes())
        else:
            digest.update(column.fill_null(0).to_numpy().tobytes())
    return digest.hexdigest()[:LENGTH]


def address_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_of(target: str) -> tuple[str, str] | None:
    """Dotted ``_target_`` → the module file that defines it and the SHA-256 of its text, found without importing it."""
    from importlib.util import find_spec

    parts = target.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            spec = find_spec(".".join(parts[:end]))
        except (ImportError, ValueError):
            continue
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            return spec.origin, hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
    return None
