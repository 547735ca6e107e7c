"""Frames on a node's own disk: a dataset's chunks are copied there once a node, and workers map them from there.

The shared folder stays the truth. ``cluster.node_cache`` names a folder of each node (``$SCRATCH/frames`` is read with the node's own
environment); whoever comes first copies, whoever comes meanwhile waits, and what is copied is checked by the hash in its name::

    NODE_CACHE/frames/64px-grey-auto-0.25-v1/DIGEST.frames
    NODE_CACHE/snapshots/FINGERPRINT/                         a snapshot whose frames lie here
    NODE_CACHE/copied.jsonl                                   a line for every time something was copied
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from pathlib import Path

from harness.errors import RequestError
from harness.frames import Frames, locked

log = logging.getLogger(__name__)

VARIABLE = "HARNESS_NODE_CACHE"
"""By which the processes of a cluster are told the folder."""


def local(snapshot: Path) -> Path:
    """The folder to read a snapshot from on this node: a copy on its own disk, where one is wanted and can be made.

    Args:
        snapshot: Its folder in the shared cache.
    """
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return snapshot
    root = Path(os.path.expandvars(wanted)).expanduser()
    copy = root / "snapshots" / snapshot.name
    try:
        if not root.is_absolute():  # a variable that this node does not have stays as it is
            raise RequestError(f"{root} is no folder of this node", where="cluster.node_cache", remedy="give an absolute path")
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / "lock"):
            if not (copy / "snapshot.json").is_file():
                _copy(snapshot, copy, root)
    except (OSError, RequestError) as error:
        log.warning("frames are read from the shared folder, because the node cache cannot be used: %s", error)
        return snapshot
    return copy


def _copy(snapshot: Path, copy: Path, root: Path) -> None:
    """Chunks, then the list of where they are, then the file that says all is there. The lock is held."""
    began = time.monotonic()
    frames, copied = Frames.load(snapshot / "frames.parquet").copied(root / "frames")
    copy.mkdir(parents=True, exist_ok=True)
    frames.save(copy / "frames.parquet")
    for name in ("samples.parquet", "problems.parquet", "snapshot.json"):
        partial = copy / f".{name}"
        shutil.copyfile(snapshot / name, partial)
        partial.replace(copy / name)
    spent = {"chunks": len(copied), "bytes": sum(copied), "seconds": round(time.monotonic() - began, 3)}
    with (root / "copied.jsonl").open("a", encoding="utf-8") as told:
        told.write(json.dumps({"snapshot": snapshot.name, **spent}) + "\n")
