"""Label files as they come back from years of copying: what every reader must survive."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from harness.errors import RequestError
from harness.samples import PROBLEMS, Reading, check

Mangling = Callable[[bytes], bytes]


def _flip(places: list[tuple[int, int]]) -> Mangling:
    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        for place, byte in places:
            if changed:
                changed[place % len(changed)] = byte
        return bytes(changed)

    return flip


def _cut(start: int, length: int) -> Mangling:
    return lambda content: content[: start % (len(content) + 1)] + content[start % (len(content) + 1) + length :]


def _drop_lines(start: int, count: int) -> Mangling:
    def drop(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        first = start % (len(lines) + 1)
        return b"".join(lines[:first] + lines[first + count :])

    return drop


def _swap_columns(a: int, b: int, separator: bytes) -> Mangling:
    def swap(content: bytes) -> bytes:
        out = []
        for line in content.split(b"\n"):
            cells = line.split(separator)
            x, y = a % len(cells), b % len(cells)
            cells[x], cells[y] = cells[y], cells[x]
            out.append(separator.join(cells))
        return b"\n".join(out)

    return swap


def _number(place: int, value: bytes) -> Mangling:
    def change(content: bytes) -> bytes:
        found = list(re.finditer(rb"-?\d+(?:\.\d+)?", content))
        if not found:
            return value
        chosen = found[place % len(found)]
        return content[: chosen.start()] + value + content[chosen.end() :]

    return change


_VALUES = (b"1e400", b"-1e30", b"9" * 400, b"nan", b"-inf", b"NULL", b"", b"0x1F", b"1.5", b"-9", b"2147483648", b"9" * 19, b"\xff")

manglings: st.SearchStrategy[Mangling] = st.one_of(
    st.builds(_flip, st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=8)),
    st.builds(_cut, st.integers(0, 1 << 20), st.integers(1, 200)),
    st.builds(_drop_lines, st.integers(0, 1 << 12), st.integers(1, 5)),
    st.builds(_swap_columns, st.integers(0, 40), st.integers(0, 40), st.sampled_from([b",", b" "])),
    st.builds(_number, st.integers(0, 1 << 12), st.sampled_from(_VALUES)),
    st.just(lambda content: content.replace(b"\n", b"\r\n")),
    st.just(lambda content: content.replace(b"\n", b"\r")),
    st.just(lambda content: b"\xef\xbb\xbf" + content),
    st.just(lambda content: content.decode("utf-8", "replace").encode("utf-16")),
    st.just(lambda content: content + content),
    st.just(lambda content: content.replace(b",", b";")),
    st.just(lambda content: content.upper()),
    st.just(lambda content: b""),
    st.binary(max_size=300).map(lambda noise: lambda content: noise),
)
"""What may happen to one file: bytes flipped, lines cut, columns swapped, wrong encodings and ends of lines, numbers beyond any range."""


def survives(read: Callable[[Path], Reading], whole: Path, scratch: Path, file: Path, mangling: Mangling) -> Reading | None:
    """Mangle one file of a copy and read it: a reading that passes the checks, or None where the reader refused it in one line.

    Args:
        read: The reader.
        whole: A small dataset; nothing in it is changed.
        scratch: Replaced by a copy of it. Files are linked, not copied.
        file: Which one to mangle, relative to the root.
        mangling: What to do to it.

    Anything but a ``RequestError`` goes through, and fails the test.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(whole, scratch, copy_function=lambda source, target: Path(target).hardlink_to(source))
    content = (scratch / file).read_bytes()
    (scratch / file).unlink()
    (scratch / file).write_bytes(mangling(content))
    try:
        reading = read(scratch)
    except RequestError as error:
        refused = str(error)
    else:
        refused = None
    if refused is not None:
        assert len(refused.splitlines()) == 1
        return None
    check(reading.samples)
    assert dict(reading.problems.schema) == PROBLEMS
    assert not reading.problems["file"].str.len_bytes().is_in([0]).any()
    return reading
