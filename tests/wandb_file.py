"""Reads an offline ``.wandb`` file (LevelDB's log format under W&B's seven-byte header), checksums verified."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb

BLOCK = 32768


def _records(path: Path) -> Iterator[Any]:
    data = path.read_bytes()
    assert struct.unpack("<4sHB", data[:7])[:2] == (b":W&B", 0xBEE1)
    place, whole = 7, b""
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        checksum, length, kind = struct.unpack("<IHB", data[place : place + 7]) if left >= 7 else (0, 0, 0)
        if kind == 0:
            place += left
            continue
        part = data[place + 7 : place + 7 + length]
        place += 7 + length
        assert zlib.crc32(bytes([kind]) + part) & 0xFFFFFFFF == checksum
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):
            record = pb.Record()
            record.ParseFromString(whole)
            yield record


def read(path: Path) -> dict[str, Any]:
    """``run`` (id, group, type), ``config``, ``history`` (a list of dicts), ``summary``, ``artifacts`` (names and types)."""
    found: dict[str, Any] = {"history": [], "config": {}, "summary": {}, "artifacts": []}

    def key(item: Any) -> str:
        return str(item.key or ".".join(item.nested_key))

    for record in _records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["run"] = {"id": record.run.run_id, "group": record.run.run_group, "type": record.run.job_type}
            found["config"] |= {key(item): json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            found["history"].append({key(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            found["summary"] |= {key(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "artifact":
            found["artifacts"].append((record.artifact.name, record.artifact.type))
    return found
