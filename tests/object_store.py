"""An object store on the loopback: as much of S3's protocol as a client needs, in memory, and faults on demand.

It keeps what is uploaded in one piece or in parts, lists with continuation, and counts what it is asked. It knows one key id, so that
wrong credentials are refused as by a real one; signatures are not verified.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

KEY_ID = "AKIATESTTESTTESTTEST"
SECRET = "the-secret-key-of-the-tests-0123456789"


@dataclass
class Objects:
    """What is in the store, and what was asked of it.

    Attributes:
        buckets: Name → key → content and the time it was written.
        requests: Method, with ``?list`` and the like for what is no plain one → how often.
        names: Of every request, in order: method and key.
        read_only: Refuse what would change anything.
        ahead: Seconds by which its clock is ahead of the machine's.
        broken: Answer so many requests with an internal error before it is well again.
    """

    buckets: dict[str, dict[str, tuple[bytes, float]]] = field(default_factory=lambda: {"lab": {}})
    requests: Counter[str] = field(default_factory=Counter)
    names: list[tuple[str, str]] = field(default_factory=list)
    read_only: bool = False
    ahead: float = 0.0
    broken: int = 0
    port: int = 0
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        """What a client is told by the environment."""
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.port}",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def keys(self, bucket: str = "lab", begins: str = "") -> list[str]:
        """Sorted; without the empty objects by which clients mark folders."""
        return sorted(key for key in self.buckets[bucket] if key.startswith(begins) and not key.endswith("/"))


@contextmanager
def serving() -> Iterator[Objects]:
    """An object store with a bucket ``lab`` for as long as the block lasts."""
    objects = Objects()

    class Handler(_Handler):
        store = objects

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    objects.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield objects
    finally:
        server.shutdown()
        server.server_close()


def _unchunked(rest: bytes) -> bytes:
    """``SIZE;…\\r\\n DATA \\r\\n … 0 \\r\\n`` and checksums, without what is about the data."""
    pieces = []
    while rest:
        head, _, rest = rest.partition(b"\r\n")
        size = int(head.partition(b";")[0], 16)
        if not size:
            break
        pieces.append(rest[:size])
        rest = rest[size + 2 :]
    return b"".join(pieces)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 2**16  # head and body in one packet: the client's delayed answer to the first would cost 40 ms
    store: Objects

    def do_GET(self) -> None:
        self._answer()

    do_PUT = do_HEAD = do_DELETE = do_POST = do_GET

    def handle_expect_100(self) -> bool:
        go_on = super().handle_expect_100()
        self.wfile.flush()
        return go_on

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        data = self._body()
        kind = self.command + next((f"?{name}" for name in ("list-type", "uploads", "uploadId", "delete") if name in query), "")
        with self.store.guard:
            self.store.requests[kind] += 1
            self.store.names.append((kind, key))
            if self.store.broken > 0:
                self.store.broken -= 1
                return self._error(503, "SlowDown", "Please reduce your request rate.")
            if KEY_ID not in self.headers.get("Authorization", ""):
                return self._error(403, "AccessDenied", "Access Denied")
            if bucket not in self.store.buckets:
                return self._error(404, "NoSuchBucket", "The specified bucket does not exist")
            if self.store.read_only and self.command in ("PUT", "POST", "DELETE"):
                return self._error(403, "AccessDenied", "Access Denied")
            getattr(self, f"_{self.command.lower()}")(self.store.buckets[bucket], key, query, data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            data = b"".join(pieces)
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return _unchunked(data) if "aws-chunked" in self.headers.get("Content-Encoding", "") else data

    def _put(self, objects: dict[str, tuple[bytes, float]], key: str, query: dict[str, str], data: bytes) -> None:
        if "uploadId" in query:
            self.store.parts[query["uploadId"]][int(query["partNumber"])] = data
        elif key:
            objects[key] = (data, time.time() + self.store.ahead)
        self._send(200, headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    def _get(self, objects: dict[str, tuple[bytes, float]], key: str, query: dict[str, str], data: bytes) -> None:
        if not key:
            return self._list(objects, query)
        if key not in objects:
            return self._error(404, "NoSuchKey", "The specified key does not exist.")
        content, when = objects[key]
        headers = {
            "Last-Modified": formatdate(when, usegmt=True),
            "ETag": f'"{hashlib.md5(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.command == "GET":
            first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
            self._send(206, content[first : last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"})
        else:
            self._send(200, content, headers)

    def _head(self, objects: dict[str, tuple[bytes, float]], key: str, query: dict[str, str], data: bytes) -> None:
        self._get(objects, key, query, data) if key else self._send(200)

    def _list(self, objects: dict[str, tuple[bytes, float]], query: dict[str, str]) -> None:
        begins, after = query.get("prefix", ""), query.get("continuation-token", "")
        found = sorted(key for key in objects if key.startswith(begins) and key > after)
        page = found[: int(query.get("max-keys", "1000"))]
        entries = "".join(
            f"<Contents><Key>{escape(quote(key) if query.get('encoding-type') else key)}</Key><Size>{len(objects[key][0])}</Size>"
            f"<LastModified>{time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(objects[key][1]))}</LastModified></Contents>"
            for key in page
        )
        more = len(page) < len(found)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        self._xml("ListBucketResult", f"<IsTruncated>{str(more).lower()}</IsTruncated><KeyCount>{len(page)}</KeyCount>{token}{entries}")

    def _post(self, objects: dict[str, tuple[bytes, float]], key: str, query: dict[str, str], data: bytes) -> None:
        if "uploads" in query:
            upload = f"upload-{len(self.store.parts)}"
            self.store.parts[upload] = {}
            self._xml("InitiateMultipartUploadResult", f"<Key>{escape(key)}</Key><UploadId>{upload}</UploadId>")
        elif "uploadId" in query:
            parts = self.store.parts.pop(query["uploadId"])
            objects[key] = (b"".join(parts[number] for number in sorted(parts)), time.time() + self.store.ahead)
            self._xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key><ETag>&quot;x&quot;</ETag>")
        else:
            for name in re.findall(r"<Key>(.*?)</Key>", data.decode()):
                objects.pop(name, None)
            self._xml("DeleteResult", "")

    def _delete(self, objects: dict[str, tuple[bytes, float]], key: str, query: dict[str, str], data: bytes) -> None:
        objects.pop(key, None)
        self._send(204)

    def _error(self, status: int, code: str, message: str) -> None:
        self._xml("Error", f"<Code>{code}</Code><Message>{message}</Message>", status)

    def _xml(self, name: str, inner: str, status: int = 200) -> None:
        self._send(status, f'<?xml version="1.0" encoding="UTF-8"?><{name}>{inner}</{name}>'.encode(), {"Content-Type": "application/xml"})

    def _send(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
