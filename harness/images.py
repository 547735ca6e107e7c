"""Where the bytes of an image come from: a file of its own, or a part of a larger one.

A reference is a path, or ``PATH::PART`` of

* a zip archive: the name of a member;
* a video: the number of a frame, from 0, decoded by FFmpeg (PyAV; its version is part of a record's provenance);
* a csv of pixels, as FER2013's: the number of a line, from 1, whose longest run of numbers is a square grey image.

What is no image file by itself is handed on as an uncompressed one (PGM, PPM), so that all that follows is the same for all of them.
"""

from __future__ import annotations

import lzma
import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

VIDEOS = (".avi", ".mp4", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".wmv", ".webm")
_SAFE = {"protocol_whitelist": "file", "format_whitelist": "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegvideo,mpegts,asf"}
"""What FFmpeg may read: it looks at the content and not at the name, and a list of other files is a kind of video to it."""

_LARGEST = 256 << 20  # bytes of one image: a larger member of an archive is a trap
_MARK = "::"


def part_of(container: str | Path, part: str | int) -> str:
    """The reference of a part.

    >>> part_of("F001.zip", "T1/0012.jpg")
    'F001.zip::T1/0012.jpg'
    """
    return f"{container}{_MARK}{part}"


def container_of(reference: str) -> str:
    """The file on disk that a reference needs: itself, or what it is a part of.

    >>> container_of("a/F001.zip::T1/0012.jpg"), container_of("a/b::c.png")
    ('a/F001.zip', 'a/b::c.png')
    """
    return _split(reference)[0]


def frames_in(video: str | Path) -> int:
    """How many frames a video has, by counting its packets; nothing is decoded.

    Raises:
        OSError: It cannot be read, or is no video.
    """
    with _opened(video) as container, _told("cannot be read"):
        return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))


class Images:
    """Reads images by their references and keeps the containers it has opened, until it is closed.

    Of one container only one thread may read at a time; of a video the frames should be asked for in their order.
    """

    def __init__(self) -> None:
        self._open: dict[str, _Container] = {}

    def __enter__(self) -> Images:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close_others(set())

    def read(self, reference: str) -> bytes:
        """The bytes of an image file.

        Raises:
            OSError: There is no such file or part, or it cannot be read.
            ValueError: A part's name is none.
        """
        path, part = _split(reference)
        if part is None:
            return Path(path).read_bytes()
        if path not in self._open:
            self._open[path] = _container(path)
        return self._open[path].read(part)

    def close_others(self, containers: set[str]) -> None:
        """Close every container but these."""
        for path in self._open.keys() - containers:
            self._open.pop(path).close()


class _Container(Protocol):
    def read(self, part: str) -> bytes: ...

    def close(self) -> None: ...


def _split(reference: str) -> tuple[str, str | None]:
    """The first container named and the part of it, in whose name the mark may stand again."""
    end = reference.find(_MARK)
    while end >= 0:
        if _kind(reference[:end]):
            return reference[:end], reference[end + len(_MARK) :]
        end = reference.find(_MARK, end + 1)
    return reference, None


def _kind(path: str) -> str | None:
    suffix = Path(path).suffix.lower()
    return "video" if suffix in VIDEOS else {".zip": "zip", ".csv": "csv"}.get(suffix)


def _container(path: str) -> _Container:
    opener: Any = {"video": _Video, "zip": _Zip, "csv": _Pixels}[_kind(path) or ""]
    made: _Container = opener(path)
    return made


class _Zip:
    def __init__(self, path: str) -> None:
        try:
            self._file = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise OSError(f"no zip archive: {error}") from None

    def read(self, part: str) -> bytes:
        try:
            member = self._file.getinfo(part)
            if member.file_size > _LARGEST:
                raise OSError(f"a member of {member.file_size} bytes is no image")
            return self._file.read(member)
        except KeyError:
            raise FileNotFoundError(f"no member {part!r}") from None
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, EOFError) as error:  # damaged, encrypted
            raise OSError(f"member {part!r} cannot be read: {error}") from None

    def close(self) -> None:
        self._file.close()


class _Video:
    """Frames are counted as they are decoded, so that a number means the same whatever the container says of times."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._start()

    def _start(self) -> None:
        self._file = _opened(self._path)
        self._file.streams.video[0].thread_type = "AUTO"
        self._frames = self._file.decode(video=0)
        self._next = 0
        self._damage = ""

    def read(self, part: str) -> bytes:
        wanted = int(part)
        if wanted < 0:
            raise FileNotFoundError(f"no frame {wanted}")
        if wanted < self._next:
            self.close()
            self._start()
        try:
            with _told("it cannot be decoded"):
                for frame in self._frames:
                    self._next += 1
                    if self._next > wanted:
                        pixels: np.ndarray = frame.to_ndarray(format="rgb24")
                        return b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()
        except OSError as error:
            self._damage = f"{error} after {self._next} frames"
        if self._damage:  # nor can what comes after it
            raise OSError(self._damage)
        raise FileNotFoundError(f"the video ends after {self._next} frames")

    def close(self) -> None:
        self._file.close()


class _Pixels:
    def __init__(self, path: str) -> None:
        self._content = np.memmap(path, np.uint8, "r") if Path(path).stat().st_size else np.zeros(0, np.uint8)
        self._ends = np.append(np.flatnonzero(self._content == ord("\n")), len(self._content))

    def read(self, part: str) -> bytes:
        line = int(part)
        if not 1 <= line <= len(self._ends):
            raise FileNotFoundError(f"no line {line}")
        start = self._ends[line - 2] + 1 if line > 1 else 0
        runs = re.findall(rb"\d+(?: +\d+)+", self._content[start : self._ends[line - 1]].tobytes())
        numbers = np.array(max(runs, key=len, default=b"").split(), np.float64)  # of any length
        side = math.isqrt(len(numbers))
        if not side or side**2 != len(numbers) or numbers.max() > 255:
            raise OSError(f"line {line} holds no square of pixels 0..255")
        return b"P5 %d %d 255\n" % (side, side) + numbers.astype(np.uint8).tobytes()

    def close(self) -> None:
        del self._content


def _opened(video: str | Path) -> Any:
    import av

    with _told("no video"):
        container = av.open(str(video), options=_SAFE)
    if not container.streams.video:
        container.close()
        raise OSError("it has no picture")
    return container


@contextmanager
def _told(what: str) -> Iterator[None]:
    """PyAV's errors as OSErrors. Of its own they are of all kinds: ValueError, LookupError, EOFError, MemoryError …"""
    import av

    try:
        yield
    except FileNotFoundError:
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise OSError(f"{what}: {getattr(error, 'strerror', None) or error}") from None
