"""The nodes of a cluster: each is asked once, when it is first seen, what it is and whether a fit can run there.

A node that joins later is asked then. One that cannot be used (it does not see the output folder, or runs other code) is an error at the
start, and is left out with a line if it comes later.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import preemption, provenance
from harness.config import Config
from harness.errors import RequestError

log = logging.getLogger(__name__)

LABEL = "gpu-memory"
"""A node's label with the GiB of its smallest GPU, where it cannot be asked (``ray start --labels gpu-memory=40``)."""

_AGAIN = 1.0  # seconds for which a list of the nodes is good
_PATIENCE = 120.0  # seconds a node has to answer; its first worker has to start and import


@dataclass(frozen=True)
class Node:
    """One node, as far as placing fits is concerned.

    Attributes:
        name: Ray's id.
        address: Its IP address, for messages; it is never kept.
        kind: Ray's name of its GPUs' type, ``A100`` say; empty where it has none.
        gpu_memory: GiB of the smallest of its GPUs; None where nobody can tell.
        usable: Whether fits may go there.
    """

    name: str
    address: str
    cpus: float
    gpus: float
    kind: str = ""
    gpu_memory: float | None = None
    usable: bool = True


class Nodes:
    """Who is there now.

    Args:
        config: The config group ``cluster``.
        shared: The output folder, which every node must see; None where it is no folder, or there is but this machine.
        snapshots: Datasets that each node copies to its own disk, where ``cluster.node_cache`` says so.
    """

    def __init__(self, config: Config, *, shared: Path | None, snapshots: Sequence[str] = ()) -> None:
        self.config, self.shared, self.snapshots = config, shared, sorted(set(snapshots))
        self.alone = config["address"] is None
        self.autoscaling = bool(config.get("autoscaling"))
        self.left = False  # whether a node was given notice since the start
        self._known: dict[str, Node] = {}
        self._alive: list[Node] = []
        self._seen_at = float("-inf")
        self._filling: list[Any] = []

    def first_look(self) -> None:
        """Ask every node there is.

        Raises:
            RequestError: One of them cannot be used.
        """
        self._look(late=False)

    def now(self) -> Sequence[Node]:
        """The usable nodes that are alive."""
        if time.monotonic() - self._seen_at > _AGAIN:
            self._look(late=True)
        return [node for node in self._alive if node.usable]

    def unfit(self) -> list[str]:
        """Names of the nodes that were found not to be usable."""
        return sorted(name for name, node in self._known.items() if not node.usable)

    def leaves(self, names: Iterable[str]) -> None:
        """Some nodes were given notice: nothing more goes there."""
        for name in names:
            if name in self._known:
                self._known[name] = replace(self._known[name], usable=False)
                self.left = True
        self._seen_at = float("-inf")

    def _look(self, *, late: bool) -> None:
        import ray

        alive = [entry for entry in ray.nodes() if entry["Alive"]]  # type: ignore[no-untyped-call]
        new = {entry["NodeID"]: entry for entry in alive if entry["NodeID"] not in self._known}
        for name, facts in self._ask(list(new)).items():
            node = _node(new[name], facts)
            wrong = None if self.alone and not facts["notice"] else _wrong(facts, node.address, self.shared)
            if wrong is not None and not late:
                raise wrong
            if wrong is not None:
                log.warning("a node is left out: %s", wrong)
            self._known[name] = replace(node, usable=wrong is None)
            if wrong is None and node.cpus and self.config.get("node_cache"):
                self._fill(name)
        self._alive = [self._known[entry["NodeID"]] for entry in alive]
        self._seen_at = time.monotonic()

    def _ask(self, names: list[str]) -> dict[str, Any]:
        """What each node says of itself, or the error of asking."""
        import ray

        if not names:
            return {}
        if self.alone:
            return {name: facts() for name in names}
        with _token(self.shared) as token:
            asked = {name: _on(name, facts).remote(*token) for name in names}
            answers: dict[str, Any] = {}
            until = time.monotonic() + _PATIENCE
            for name, answer in asked.items():
                try:
                    answers[name] = ray.get(answer, timeout=max(0.1, until - time.monotonic()))
                except ray.exceptions.RayError as error:
                    answers[name] = error
        return answers

    def _fill(self, name: str) -> None:
        """A task of the node's own copies the frames to its disk; fits that land there meanwhile wait for it."""
        from harness import node_cache

        self._filling += [_on(name, node_cache.local).remote(Path(folder)) for folder in self.snapshots]


def facts(token: str | None = None, text: str = "") -> dict[str, Any]:
    """What a node says of itself: ``software``, ``code``, ``gpus`` (name and GiB of each), whether it sees the output folder and may
    write there, and the ``notice`` to leave it has been given (empty: none).
    """
    sees = writes = True
    if token is not None:
        try:
            sees = Path(token).read_text(encoding="utf-8") == text
        except OSError:
            sees = False
        writes = os.access(Path(token).parent, os.W_OK)
    notice = preemption.of_node()
    told = str(notice) if notice.exists() else ""
    return {"software": _versions(), "code": provenance.code(), "gpus": gpus(), "sees": sees, "writes": writes, "notice": told}


def gpus() -> list[tuple[str, float]]:
    """Name and GiB of every GPU of this machine, as its driver says; nothing is reserved or initialised."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
        rows = [line.rsplit(",", 1) for line in said.splitlines() if line.strip()]
        return [(name.strip(), float(mebibytes) / 1024) for name, mebibytes in rows]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def _versions() -> dict[str, str]:
    """What has to be alike on all nodes."""
    known = provenance.software()
    return {"python": known["python"], **{name: known["packages"].get(name, "none") for name in ("ray", "torch", "deepspeed", "polars")}}


def _node(entry: Mapping[str, Any], facts: Any) -> Node:
    resources, labels = entry["Resources"], entry.get("Labels", {})
    kind = labels.get("ray.io/accelerator-type", "")
    told = [memory for _, memory in facts["gpus"]] if isinstance(facts, dict) else []
    has = float(resources.get("GPU", 0))
    with contextlib.suppress(ValueError, KeyError):
        told = [float(labels[LABEL])]
    memory = min(told) if told and has else None
    return Node(entry["NodeID"], entry["NodeManagerAddress"], float(resources.get("CPU", 0)), has, kind, memory)


def _wrong(facts: Any, address: str, shared: Path | None) -> RequestError | None:
    """Why no fit may go to a node that says this."""
    if not isinstance(facts, dict):
        why = " ".join(str(getattr(facts, "cause", None) or facts).split())
        if "No module named" in why:
            remedy = "install this project there, or put its folder where every node sees it and on the PYTHONPATH of `ray start`"
            return RequestError(f"node {address} cannot import the code: {why[-200:]}", where="cluster", remedy=remedy)
        return RequestError(f"node {address} does not answer: {why[:200] or type(facts).__name__}", where="cluster", remedy="see its log")
    if facts["notice"]:
        what = f"node {address} has been given notice to leave"
        return RequestError(what, where=facts["notice"], remedy="remove this file where it is no longer so")
    if not facts["sees"] or not facts["writes"]:
        what = f"node {address} {'cannot write to' if facts['sees'] else 'does not see'} {shared}"
        return RequestError(what, where="output_dir", remedy="put it on a file system that every node mounts under the same path")
    here, there = _versions(), facts["software"]
    for name in here:
        if here[name] != there.get(name):
            what = f"node {address} has {name} {there.get(name)}, and this machine {here[name]}"
            return RequestError(what, where="cluster", remedy="install the same on all nodes")
    if facts["code"] != provenance.code():
        what = f"node {address} runs another revision of this project"
        return RequestError(what, where="cluster", remedy="bring all nodes to the same")
    return None


def _on(name: str, function: Any) -> Any:
    """The function as a task of one node, which takes nothing of it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return ray.remote(function).options(num_cpus=0, max_retries=1, scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False))


@contextlib.contextmanager
def _token(shared: Path | None) -> Iterator[tuple[str, str] | tuple[()]]:
    """A file of the output folder that says something nobody can guess, by its path, and what it says."""
    from harness.store import write_atomically

    if shared is None:
        yield ()
        return
    token, text = shared / f".seen-by-all-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    write_atomically(token, text.encode())
    try:
        yield str(token), text
    finally:
        token.unlink(missing_ok=True)
