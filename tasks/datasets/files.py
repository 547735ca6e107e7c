"""What readers share: folders and text files as people really have them, with every line keeping its number."""

from __future__ import annotations

import os
import re
from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from harness.errors import RequestError
from harness.samples import Problems

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_BLOCK = 1 << 24  # bytes of a text file at a time: a large one at once is in memory four times over


def folder(root: str | Path, title: str) -> Path:
    """The dataset's folder.

    Raises:
        RequestError: There is none, or its path is no text.
    """
    root = Path(root)
    if str(root) != text(str(root)):
        raise RequestError(f"the path {text(str(root))!r} is no UTF-8", where="task.root", remedy="give the folder another name")
    if not os.path.isdir(root):  # noqa: PTH112  Path.is_dir() raises where it may not look
        raise RequestError(f"there is no folder {text(str(root))!r}", where="task.root", remedy=f"give the folder with {title} in it")
    return root


def walk(root: Path, problems: Problems, *, skip: str = r"(?!)") -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder from ``root`` down with the sorted names of its folders and files; a link that leads back is followed once.

    Args:
        root: Where to begin.
        problems: Takes folders that may not be read, and names that are no text, which are passed over.
        skip: Folders whose name matches this are not entered (ignoring case). The caller may also take names out of the list.
    """

    def unreadable(error: OSError) -> None:
        problems.add("unreadable folder", text(str(error.filename)), error.strerror or "")

    seen: set[tuple[int, int]] = set()
    for where, folders, files in os.walk(root, followlinks=True, onerror=unreadable):
        found = Path(where).stat()
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        for name in (*folders, *files):
            if name != text(name):
                problems.add("unreadable name", text(f"{where}/{name}"), "it is not used")
        folders[:] = sorted(name for name in folders if name == text(name) and not re.fullmatch(skip, name, re.IGNORECASE))
        yield Path(where), folders, sorted(name for name in files if name == text(name))


def listing(where: Path) -> list[str]:
    """The sorted names in a folder that are text; none where there is no such folder."""
    try:
        with os.scandir(where) as entries:
            return sorted(entry.name for entry in entries if entry.name == text(entry.name))
    except (OSError, ValueError):
        return []


def before(root: Path, folder: Path) -> str:
    """What stands before the names of a folder's files in the names of samples.

    >>> before(Path("a"), Path("a/b/c")), before(Path("a"), Path("a"))
    ('b/c/', '')
    """
    return "".join(f"{part}/" for part in folder.relative_to(root).parts)


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's."""
    return os.path.splitext(name)[1].lower() in IMAGES  # noqa: PTH122  asked of millions of names


def lines(path: Path, problems: Problems) -> pl.DataFrame:
    """A text file line by line, whatever is in it: columns ``line`` (UInt32, from 1) and ``text`` (String, never null).

    A byte-order mark and the ends of lines (LF or CRLF) are taken off, bytes that are no UTF-8 become U+FFFD. Blank lines are there too.
    A file that cannot be read is a problem, and has no lines.
    """
    parts: list[pl.Series] = []
    begun = ""  # a line whose end is not read yet
    try:
        with path.open("rb") as file:
            block = file.read(_BLOCK)
            decoder = getincrementaldecoder("utf-16" if block[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")("replace")
            while block:
                found = (begun + decoder.decode(block)).replace("\0", "\ufffd").split("\n")
                begun = found.pop()
                parts.append(pl.Series(found, dtype=pl.String).str.strip_suffix("\r"))
                block = file.read(_BLOCK)
            begun += decoder.decode(b"", final=True)
    except OSError as error:
        problems.add("unreadable file", path, error.strerror or str(error))
        return pl.DataFrame(schema={"line": pl.UInt32, "text": pl.String})
    if begun:  # the end of the last line begins no other
        parts.append(pl.Series([begun]).str.strip_suffix("\r"))
    return pl.DataFrame({"text": pl.concat([pl.Series(dtype=pl.String), *parts])}).with_row_index("line", 1)


def cells(table: pl.DataFrame, count: int, path: Path, problems: Problems, *, separator: str = ",") -> pl.DataFrame:
    """The lines of :func:`lines` cut into cells: columns ``line`` and ``c0`` … (String, blanks and quotes around them taken off).

    A line with more or fewer cells than ``count`` is a problem (kind ``wrong number of cells``) and has null in every cell; a blank line
    is left out.
    """
    kept = table.filter(pl.col("text").str.strip_chars() != "")
    cut = kept.select("line", cut=pl.col("text").str.split(separator))
    wrong = cut.filter(pl.col("cut").list.len() != count).with_columns(file=pl.lit(str(path)), n=pl.col("cut").list.len())
    problems.extend(wrong, "wrong number of cells", pl.format(f"{{}}, where {count} belong", "n"))
    right = pl.when(pl.col("cut").list.len() == count).then(pl.col("cut"))
    return cut.select(
        "line", *(right.list.get(place, null_on_oob=True).str.strip_chars(" \t\"'").alias(f"c{place}") for place in range(count))
    )


def header(table: pl.DataFrame, *, separator: str = ",") -> list[str]:
    """The cells of the first line, blanks and quotes around them taken off; none of a file without lines."""
    return [cell.strip(" \t\"'") for cell in table["text"][0].split(separator)] if table.height else []


def numbers(column: str) -> pl.Expr:
    """Cells as numbers; null for what is none, or is not finite."""
    value = pl.col(column).cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def expressions(rows: pl.DataFrame, column: str, codes: Mapping[int, str], problems: Problems) -> pl.DataFrame:
    """Codes as names: the same rows with a column ``expression``, null where a cell is no code, which is a problem.

    Args:
        rows: Columns ``file``, and where there are any ``line`` and ``sample``.
        column: The one with the codes, as text.
        codes: Code → name.
        problems: Takes what is no number, and numbers that are no code.
    """
    code = pl.col(column).cast(pl.Float64, strict=False)
    problems.extend(
        rows.filter(code.is_null()), "unreadable label", pl.format("expression '{}' is no number", pl.col(column).fill_null(""))
    )
    known = code.is_in(pl.Series(list(codes), dtype=pl.Float64).implode())
    wrong = rows.filter(code.is_not_null() & ~known)
    problems.extend(wrong, "label out of range", pl.format(f"expression {{}} is no code {min(codes)}-{max(codes)}", column))
    name = pl.when(known).then(code).cast(pl.Int64, strict=False)
    return rows.with_columns(expression=name.replace_strict(dict(codes), default=None, return_dtype=pl.String))


def missing_images(problems: Problems, rows: pl.DataFrame, what: str) -> None:
    """Say which samples have no image: each with its line, or in one line where none has.

    Args:
        problems: Takes them.
        rows: All samples: columns ``sample``, ``image`` (null where it is not there), ``file``, and where there are any ``line``.
        what: Where the images were looked for, as a person would be told.
    """
    absent = rows.filter(pl.col("image").is_null())
    if absent.height == rows.height and rows.height:
        problems.add("no images", what, f"none of the {rows.height} images that the labels name is there; only labels can be counted")
    else:
        problems.extend(absent, "missing image", pl.format("there is no {}", "sample"))


def as_paths(root: Path, relative: Sequence[str | None] | pl.Series) -> pl.Series:
    """Paths under a folder, null where there is none."""
    return f"{root}/" + pl.Series("image", relative, dtype=pl.String)


def text(name: str) -> str:
    """Without lone surrogates, which file names and JSON can hold and UTF-8 cannot."""
    return name.encode("utf-8", "replace").decode()
