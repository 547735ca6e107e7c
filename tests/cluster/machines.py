"""Several Ray nodes on one machine, joined by an address: those of the machine itself and of other tests are left alone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import cluster
from tests.conftest import PLUGIN

ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    """Of a node or a driver that belong together."""
    path = os.pathsep.join([str(ROOT), str(PLUGIN)])
    return {**os.environ, **cluster.environment(0), "RAY_AUTH_MODE": "token", "PYTHONPATH": path, **more}


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Machines:
    """Nodes that are started and killed one by one, each a ``ray start`` process with all that it starts in a group of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.nodes = folder, {}  # type: ignore[var-annotated]
        self.address = ""

    def start(self, name: str, *arguments: str, before: Sequence[str] = (), **variables: str) -> subprocess.Popen[bytes]:
        """A node; the first is the head."""
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--object-store-memory=80000000"]
        if not self.nodes:
            port, dashboard = free_ports(2)
            port = int(self.address.rpartition(":")[2] or port)  # a head that is started again is where it was
            self.address = f"{own_address()}:{port}"
            ray += ["--head", f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
            ray += [f"--temp-dir={self.folder}"]
        else:
            ray += [f"--address={self.address}"]
        agent, metrics, *_ = free_ports(3)
        ray += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
        log = (self.folder / f"{name}.log").open("wb")
        node = subprocess.Popen(
            [*before, *ray, *arguments], env=environment(**variables), stdout=log, stderr=log, start_new_session=True, cwd=ROOT
        )
        self.nodes[name] = node
        self._wait(name)
        return node

    def _wait(self, name: str) -> None:
        until = time.monotonic() + 90
        while b"Ray runtime started" not in (self.folder / f"{name}.log").read_bytes():
            if self.nodes[name].poll() is not None or time.monotonic() > until:
                raise OSError((self.folder / f"{name}.log").read_text())
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        """All of a node at once, as when its power goes."""
        for process in [self.nodes[name].pid, *_descendants(self.nodes[name].pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.nodes.pop(name).wait()

    def stop(self) -> None:
        for name in reversed(list(self.nodes)):
            self.kill(name)


def _descendants(process: int) -> list[int]:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(process).children(recursive=True)]
    return []


def own_address() -> str:
    import ray.util

    return str(ray.util.get_node_ip_address())


@contextlib.contextmanager
def machines(folder: Path) -> Iterator[Machines]:
    made = Machines(folder)
    try:
        yield made
    finally:
        made.stop()
