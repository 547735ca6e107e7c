"""What a writer meant against what a reader returns, and one folder against another."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal


def tree(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def assert_same_samples(read: pl.DataFrame, meant: pl.DataFrame) -> None:
    assert_frame_equal(read.sort("sample"), meant.sort("sample"), abs_tol=1e-6)
