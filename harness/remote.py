"""Files at a URL, in an object store or in whatever else pyarrow opens: whole ones, by their names below it.

A file appears whole or not at all. An object store gives that by itself, as an object is there when its upload ends; elsewhere a file
is written under a temporary name and renamed. Credentials are the environment's business: a URL that holds one is refused.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from harness.errors import RequestError, did_you_mean

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file")
"""What pyarrow opens by itself; ``fsspec+NAME`` is opened where that fsspec file system is installed."""
THREADS = 16
"""Files moved at the same time."""
PATIENCE = 20.0
"""Seconds within which a URL must have answered at the start."""
ATTEMPTS = 8
"""How often a request to an object store is tried, with growing pauses, before a sweep is told."""
CHUNK = 2**23
"""Bytes read at a time."""

_SECRET = re.compile(r"key|secret|token|passw|credential|sas|sig", re.IGNORECASE)
_CHECKED_HERE = ("s3", "file")
_APPEARS_WHOLE = ("s3", "gcs", "abfs")  # the last shows an empty file while it is written, which counts as none


@dataclass(frozen=True)
class Entry:
    """What a listing says of one file.

    Attributes:
        size: Bytes.
        modified: When it was written by the clock of where it is, nanoseconds since 1970.
    """

    size: int
    modified: int


def is_url(where: object) -> bool:
    """Whether an ``output_dir`` is a URL and no path.

    >>> is_url("s3://bucket/lab"), is_url("outputs"), is_url("/data/a:b")
    (True, False, False)
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(where)) is not None


def checked(url: str) -> str:
    """The URL, if it names something that can be opened and holds no secret; without a slash at its end.

    Raises:
        RequestError: It does not. The message does not repeat what is secret.
    """
    parts = urlsplit(url)
    shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    where = f"output_dir={shown}"
    if parts.scheme not in SCHEMES and not parts.scheme.startswith("fsspec+"):
        raise RequestError(f"no file system is called {parts.scheme!r}", where=where, remedy=did_you_mean(parts.scheme, SCHEMES))
    user, _, _ = parts.netloc.rpartition("@")
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    secret = next((name for name in names if _SECRET.search(name)), None)
    if ":" in user or (user and parts.scheme == "s3") or secret or parts.fragment:
        what = f"the URL has {f'{secret!r}' if secret else 'a part after #' if parts.fragment else 'a user or password'} in it"
        remedy = "credentials come from the environment (AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS …) or the instance"
        raise RequestError(what, where=where, remedy=remedy)
    if parts.scheme == "file" and (parts.netloc not in ("", "localhost") or parts.path in ("", "/")):
        raise RequestError("a file URL names an absolute folder", where=where, remedy="write it as file:///shared/lab")
    if parts.scheme in SCHEMES[:-1] and not parts.netloc:
        raise RequestError("the URL names no bucket", where=where, remedy=f"write it as {parts.scheme}://BUCKET/FOLDER")
    if ".." in parts.path.split("/"):
        raise RequestError("the URL leads upwards", where=where, remedy="name the folder itself")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), parts.query, ""))


class Remote:
    """The files below one URL.

    Args:
        url: As :func:`checked` gives it.
        attempts: How often a request is tried, with growing pauses, where the file system lets that be said.

    Raises:
        RequestError: It cannot be opened. Nothing is asked of the network yet, but for the region of a bucket.
    """

    def __init__(self, url: str, *, attempts: int = ATTEMPTS) -> None:
        self.url = url
        self._files, self._base = _within(PATIENCE, lambda: _opened(url, attempts), url)
        self._whole = self._files.type_name in _APPEARS_WHOLE
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="remote")

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Write one file, in one piece."""
        path = self._path(name)
        coming = path if self._whole else f"{path.rpartition('/')[0]}/.{path.rpartition('/')[2]}.{uuid.uuid4().hex[:8]}"

        def write() -> None:
            if not self._whole:
                self._files.create_dir(path.rpartition("/")[0], recursive=True)
            # One call for all of it: a stream that is dropped between two is completed as it is, and would leave half a file.
            stream = self._files.open_output_stream(coming)
            stream.write(data)
            stream.close()
            if not self._whole:
                self._files.move(coming, path)

        self._try("write", name, write)

    def put_file(self, name: str, path: Path) -> None:
        """Write one file from a file here, which is mapped and not read into memory."""
        import pyarrow

        with pyarrow.memory_map(str(path)) as source:
            self.put(name, source.read_buffer())

    def get(self, name: str) -> bytes | None:
        """The content of one file; None where there is none."""

        def read() -> bytes | None:
            try:
                with self._files.open_input_file(self._path(name)) as stream:
                    return bytes(stream.read()) or None
            except FileNotFoundError:
                return None

        found: bytes | None = self._try("read", name, read)
        return found

    def fetch(self, name: str, into: Path) -> bool:
        """Write one file into a file here; False, and nothing written, where there is none.

        Raises:
            OSError: Of the file here.
        """

        def open_source() -> Any:
            try:
                return self._files.open_input_file(self._path(name))
            except FileNotFoundError:
                return None

        source = self._try("read", name, open_source)
        if source is None:
            return False
        with source:
            size = self._try("read", name, source.size)
            if not size:
                return False
            into.parent.mkdir(parents=True, exist_ok=True)
            with into.open("wb") as target:
                while piece := self._try("read", name, lambda: source.read(CHUNK)):
                    target.write(piece)
                written = target.tell()
        if written != size:
            raise RequestError(f"cannot read {self._shown(name)}: {written} of {size} bytes came", remedy="run the same command again")
        return True

    def list(self, folder: str) -> dict[str, Entry]:
        """The files below a folder, by their names from there. An empty one is of a write that did not end, and is not there."""
        from pyarrow.fs import FileSelector, FileType

        base = self._path(folder)
        selector = FileSelector(base, recursive=True, allow_not_found=True)
        found = self._try("list", folder, lambda: self._files.get_file_info(selector))
        return {
            info.path[len(base) :].lstrip("/"): Entry(info.size, info.mtime_ns or 0)
            for info in found
            if info.type == FileType.File and info.size and not info.base_name.startswith(".")
        }

    def reach(self) -> None:
        """See whether it answers and, in an object store, whether the bucket is there.

        Raises:
            RequestError: It does not, or is not.
        """
        from pyarrow.fs import FileType

        bucket = self._base.partition("/")[0]
        if self._whole and self._try("open", "", lambda: self._files.get_file_info(bucket)).type == FileType.NotFound:
            raise RequestError(f"there is no bucket {bucket!r}", where=f"output_dir={self._shown('')}", remedy=_MAKE_IT)
        self.list("probe")

    def entry(self, name: str) -> Entry | None:
        """What there is of one file."""
        info = self._try("read", name, lambda: self._files.get_file_info(self._path(name)))
        return Entry(info.size, info.mtime_ns or 0) if info.size else None

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; one that is not there is none to remove."""

        def remove(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self._files.delete_file(self._path(name))

        self.each(lambda name: self._try("remove", name, lambda: remove(name)), names)

    def each(self, do: Callable[[Any], object], over: Iterable[Any]) -> None:
        """Do the same for many files at the same time. The first error is raised when all have been tried."""
        over = [*over]
        if len(over) == 1:  # without a thread's way there and back
            do(over[0])
            return
        errors = [error for future in [self._pool.submit(do, one) for one in over] if (error := future.exception())]
        if errors:
            raise errors[0]

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base

    def _shown(self, name: str) -> str:
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc, f"{parts.path}/{name}".rstrip("/"), "", ""))

    def _try(self, verb: str, name: str, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except RequestError:
            raise
        except Exception as error:  # pyarrow's are OSErrors, those of an fsspec file system anything
            why, remedy = _meaning(error)
            raise RequestError(f"cannot {verb} {self._shown(name)}: {why}", where="output_dir", remedy=remedy) from error


def check(url: str, *, write: bool) -> None:
    """See whether a URL answers, and whether it can be written, listed, read and removed from.

    Raises:
        RequestError: Something of it is not possible, or takes longer than :data:`PATIENCE`.
    """
    if urlsplit(url).scheme not in _CHECKED_HERE:
        _check_apart(url, write)
        return
    remote = Remote(url, attempts=2)
    name, data = uuid.uuid4().hex, b"written by harness to see whether it can be; safe to remove"

    def probe() -> None:
        remote.reach()
        if not write:
            return
        remote.put(f"probe/{name}", data)
        try:
            listed = remote.list("probe").get(name)
            if listed is None or not listed.modified or remote.get(f"probe/{name}") != data:
                what = f"{url} does not list, date or give back what was just written"
                raise RequestError(what, where="output_dir", remedy="use a file system that does, or a folder")
        finally:
            remote.remove([f"probe/{name}"])

    _within(PATIENCE, probe, url)


def _check_apart(url: str, write: bool) -> None:
    """The same in a process of its own: some clients end the process, or never return, where credentials are missing."""
    script = (
        "import sys\nfrom harness import remote\nfrom harness.errors import RequestError\nremote._CHECKED_HERE = (sys.argv[2],)\n"
        "try: remote.check(sys.argv[1], write=sys.argv[3] == 'True')\nexcept RequestError as error: print(repr(error.__reduce__()[1]))"
    )
    shown = urlunsplit((*urlsplit(url)[:3], "", ""))
    command = [sys.executable, "-c", script, url, urlsplit(url).scheme, str(write)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False, env=environment)
    except subprocess.TimeoutExpired:
        what = f"{shown} does not answer within {2 * PATIENCE:.0f} s"
        raise RequestError(what, where="output_dir", remedy="see whether the address, the network and the credentials are right") from None
    if done.stdout.strip():
        what, where, remedy = ast.literal_eval(done.stdout.strip().splitlines()[-1])
        raise RequestError(what, where=where, remedy=remedy)
    if done.returncode:
        said = [line.strip().removeprefix("what():") for line in done.stderr.splitlines() if "what():" in line or "Error" in line]
        why, remedy = _meaning(OSError(said[-1] if said else "its client died"))
        raise RequestError(f"cannot open {shown}: {why}", where="output_dir", remedy=remedy)


def _opened(url: str, attempts: int) -> tuple[Any, str]:
    from pyarrow import fs

    parts = urlsplit(url)
    if parts.scheme != "s3":
        files, base = fs.FileSystem.from_uri(url)
        return files, base.rstrip("/")
    options = dict(parse_qsl(parts.query))
    unknown = set(options) - {"region", "scheme", "endpoint_override"}
    if unknown:
        remedy = did_you_mean(min(unknown), ("region", "scheme", "endpoint_override"))
        raise RequestError(f"the URL sets {min(unknown)!r}", where=f"output_dir={url}", remedy=remedy)
    endpoint = options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint is None and region is None:
        region = fs.resolve_s3_region(parts.netloc)
    files = fs.S3FileSystem(
        region=region,
        endpoint_override=endpoint,
        scheme=options.get("scheme"),
        allow_delayed_open=True,  # a small file is one request
        background_writes=False,
        connect_timeout=5,
        request_timeout=30,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
    )
    return files, (parts.netloc + parts.path).rstrip("/")


def _within(seconds: float, action: Callable[[], Any], url: str) -> Any:
    """The outcome of an action that may hang in a call that cannot be interrupted."""
    outcome: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            outcome.append((True, action()))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < until:  # in steps, so that Ctrl-C is heard
        thread.join(0.2)
    shown = urlunsplit((*urlsplit(url)[:3], "", ""))
    if not outcome:
        remedy = "see whether the address, the network and the credentials are right"
        raise RequestError(f"{shown} does not answer within {seconds:.0f} s", where="output_dir", remedy=remedy)
    fine, value = outcome[0]
    if fine:
        return value
    if isinstance(value, RequestError) or not isinstance(value, Exception):
        raise value
    reason, mend = _meaning(value)
    raise RequestError(f"cannot open {shown}: {reason}", where="output_dir", remedy=mend) from value


_MAKE_IT = "make it first, or mend its name, region or endpoint"
_MEANINGS: Mapping[str, tuple[str, str | None]] = {
    r"NO_SUCH_BUCKET|bucket does not exist|NoSuchBucket|notFound.*bucket|Bucket '.*' not found": (
        "there is no such bucket",
        _MAKE_IT,
    ),
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|InvalidAccessKeyId|Forbidden|HTTP response code 403|code: 403|PERMISSION_DENIED": (
        "no permission",
        "give credentials by the environment (AWS_PROFILE, AWS_ACCESS_KEY_ID …) that may list, read, write and delete there",
    ),
    r"redential": ("no credentials were found", "give them by the environment (AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS …)"),
    r"NETWORK_CONNECTION|resolve host|Could ?n.t connect|timed out|Timeout": (
        "it does not answer",
        "see whether address and network are right",
    ),
    r"No module named": ("", "install it, or use a folder"),
    r"ENOSPC|No space left|QuotaExceeded": ("it is full", "free some space, or set output_dir=… elsewhere"),
    r"Errno 13|Permission denied|Errno 30|Read-only": ("no permission to write there", "set output_dir=… elsewhere"),
}
"""What file systems say, and what that means to a user."""


def _meaning(error: BaseException) -> tuple[str, str | None]:
    text = " ".join(str(error).split())
    for pattern, (meaning, remedy) in _MEANINGS.items():
        if re.search(pattern, text):
            return meaning or text[:200], remedy
    return text[:200] or type(error).__name__, None
