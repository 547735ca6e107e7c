"""JSON files that say themselves whether they are what was written: their first key is the hash of all that follows it."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FIRST, _HEX = b'{"seal": "', 64
_BEFORE = (b"{\n", b'{"record":')  # how files begin that were written before there were seals


def seal(value: Mapping[str, Any], *, indent: int | None = None) -> bytes:
    """A mapping as JSON with sorted keys and, before them, ``seal``: the SHA-256 of every byte after it."""
    rest = (("," if value else "") + json.dumps(value, sort_keys=True, indent=indent)[1:]).encode()
    return _FIRST + hashlib.sha256(rest).hexdigest().encode() + b'"' + rest


def unseal(data: bytes) -> dict[str, Any]:
    """What was sealed, or what was written as plain JSON before there were seals.

    Raises:
        ValueError: The bytes are not what was written.
    """
    if not data.startswith(_FIRST):
        if not data.startswith(_BEFORE):
            raise ValueError("this is no file of a store")
        found: dict[str, Any] = json.loads(data)
        return found
    rest = data[len(_FIRST) + _HEX + 1 :]
    if data[len(_FIRST) : -len(rest) or None] != hashlib.sha256(rest).hexdigest().encode() + b'"':
        raise ValueError("its bytes are not what was written")
    found = json.loads(data)
    del found["seal"]
    return found


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits; read once a process while its size, times and place are the same.

    Raises:
        OSError: It cannot be read.
    """
    status = path.stat()
    return _sha256_of(str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@functools.lru_cache(maxsize=4096)
def _sha256_of(path: str, *unchanged: int) -> str:
    with open(path, "rb", opener=os.open) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
