"""Content addresses: equal inputs have equal names, on every machine and in every process."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import RequestError

LENGTH = 20
"""Hex digits of an address: 80 bits, enough for 10^9 evaluations with a chance of 10^-6 that any two collide."""


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True).encode  # once: plans are long


def canonical(value: Any) -> str:
    """JSON with sorted keys and no white space.

    Raises:
        RequestError: A number in it is not finite.
        TypeError: Something in it is nothing that JSON can hold.
    """
    try:
        return _encode(value)
    except ValueError:
        raise RequestError("nan or inf stands in a config", remedy="give a finite number, or null") from None


def address(value: Any) -> str:
    """The address of a JSON value.

    >>> address({"b": 1, "a": [2]}) == address({"a": [2], "b": 1})
    True
    """
    return address_of_text(canonical(value))


def address_of_text(text: str) -> str:
    """The address of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def address_of_names(names: Iterable[str]) -> str:
    """The address of a set of names, whatever their order."""
    return address_of_text("\n".join(sorted(names)))


def address_of_frame(frame: pl.DataFrame) -> str:
    """The address of a frame: column names, types, values and row order; the same under every version of Polars."""
    digest = hashlib.sha256(canonical([[name, str(dtype)] for name, dtype in frame.schema.items()]).encode())
    for column in frame.iter_columns():
        values = column
        if isinstance(column.dtype, pl.List):
            digest.update(column.list.len().fill_null(2**32 - 1).to_numpy().tobytes())
            values = column.drop_nulls().list.explode(keep_nulls=False, empty_as_null=False)
        if isinstance(values.dtype, pl.Array):
            digest.update(values.is_null().to_numpy().tobytes())
            values = values.drop_nulls().reshape((-1,))
        digest.update(values.is_null().to_numpy().tobytes())
        if isinstance(column.dtype, (pl.String, pl.Enum, pl.Categorical)):
            text = values.cast(pl.String).fill_null("")
            digest.update(text.str.len_bytes().to_numpy().tobytes() + "".join(text.to_list()).encode())
        else:
            digest.update(values.fill_null(0).to_numpy().tobytes())
    return digest.hexdigest()[:LENGTH]


def address_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_of(target: str) -> tuple[str, str] | None:
    """Dotted ``_target_`` → the module file that defines it and the SHA-256 of its text, found without importing it."""
    names, search = target.split(".")[:-1], None
    origin = None
    for depth in range(len(names)):  # not importlib.util.find_spec, which imports the packages on the way
        name = ".".join(names[: depth + 1])
        spec = next((spec for finder in sys.meta_path if (spec := finder.find_spec(name, search)) is not None), None)
        if spec is None:  # the rest of the target are attributes
            break
        origin, search = spec.origin, spec.submodule_search_locations
        if search is None:
            break
    if origin is None or not Path(origin).is_file():
        return None
    return origin, hashlib.sha256(Path(origin).read_bytes()).hexdigest()
