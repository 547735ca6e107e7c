"""What every writer of a synthetic dataset shares: a folder that appears whole, and a note of what was meant."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from harness.errors import RequestError
from harness.samples import conform


@dataclass(frozen=True)
class Written:
    """What a writer meant, to compare with what a reader returns.

    Attributes:
        samples: As the reader should return them, in no particular order.
        quirks: Columns ``quirk``, ``file`` (relative to the root) and ``sample`` (null where there is none): what was planted.
    """

    samples: pl.DataFrame
    quirks: pl.DataFrame


Quirk = tuple[str, str, str | None]
"""What was planted, in which file (relative to the root), of which sample."""


@contextmanager
def new_folder(root: str | Path) -> Iterator[Path]:
    """A folder to write into that becomes ``root`` when all is written, so that nobody sees a half of it.

    Raises:
        RequestError: ``root`` is a file, or a folder with something in it.
    """
    root = Path(root).resolve()  # of a link to an empty folder, the folder is replaced and not the link
    if root.exists() and not (root.is_dir() and next(root.iterdir(), None) is None):
        raise RequestError(f"{str(root)!r} is not empty", where="root", remedy="give a new folder")
    partial = root.with_name(f".{root.name}.{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        yield partial
        if root.exists():
            root.rmdir()
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def at_least(**given: tuple[int, int]) -> None:
    """Refuse a number that is too small: name → value and least value.

    Raises:
        RequestError: Names the first of them.
    """
    for name, (value, least) in given.items():
        if value < least:
            raise RequestError(f"{name}={value} is too small", remedy=f"give {least} or more")


def written(root: str | Path, samples: pl.DataFrame, planted: list[Quirk]) -> Written:
    """What was meant, as a reader of ``root`` should return it.

    Args:
        root: Where it was written.
        samples: Some of the columns of ``samples.SCHEMA``. ``image`` is relative to the root, null where there is none; without that
            column every sample is its own image.
        planted: The quirks.
    """
    image = pl.lit(f"{Path(root)}/") + pl.col("image" if "image" in samples.columns else "sample")
    quirks = pl.DataFrame(planted, schema={"quirk": pl.String, "file": pl.String, "sample": pl.String}, orient="row")
    return Written(conform(samples.with_columns(image=image)), quirks)
