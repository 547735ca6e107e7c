"""What a job occupies of the cluster, and where its parts may lie. Ray places; this says what is asked of it, and when to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.config import Config
from harness.errors import RequestError
from harness.nodes import LABEL, Node, Nodes
from harness.plan import Job


@dataclass
class _Free:
    """What is left of a node."""

    node: Node
    cpus: float
    gpus: float

    def holds(self, resources: Config) -> int:
        """How many workers of a fit it has room for."""
        if not suffices(resources, self.node):
            return 0
        needs = ((self.cpus, float(resources["cpus"])), (self.gpus, _whole_share(resources["gpus"])))
        return min(int((there + 1e-6) // need) for there, need in needs if need)

    def take(self, resources: Config, workers: int) -> None:
        self.cpus -= workers * resources["cpus"]
        self.gpus -= workers * _whole_share(resources["gpus"])


def suffices(resources: Config, node: Node) -> bool:
    """Whether a GPU of the node has the memory that a worker needs. Where nobody knows, it is taken to be too small."""
    wanted = resources.get("gpu_memory")
    if wanted is None or not resources["gpus"]:
        return True
    return node.gpu_memory is not None and node.gpu_memory * min(1.0, resources["gpus"]) >= wanted


def check(jobs: Iterable[Job], nodes: Nodes) -> None:
    """Refuse what cannot be placed even on an empty cluster.

    Raises:
        RequestError: A fit needs more than there is, and than what an autoscaler may bring.
    """
    there = list(nodes.now())
    for resources in _distinct(jobs):
        fewest = resources.get("min_workers") or resources["workers"]
        if fewest > resources["workers"]:
            what = f"{fewest} workers at least, of {resources['workers']}"
            raise RequestError(what, where="trainer.resources.min_workers", remedy="give no more than workers")
        if resources["workers"] > 1 and 0 < resources["gpus"] < 1:
            what = "the workers of one fit cannot share a GPU"
            raise RequestError(what, where="trainer.resources.gpus", remedy="give whole ones, or one worker")
        if nodes.autoscaling and (_may_come(resources, nodes.config) or any(suffices(resources, node) for node in there)):
            continue
        if _placed(resources, fewest, [_Free(node, node.cpus, node.gpus) for node in there]) is None:
            memory = resources.get("gpu_memory")
            where = "trainer.resources" + (".gpu_memory" if memory and not any(suffices(resources, node) for node in there) else "")
            raise RequestError(f"{_needs(resources, fewest)}; there is {_inventory(there)}", where=where, remedy="ask for less")


def bundles(job: Job, nodes: Nodes) -> dict[str, list[Any]]:
    """What a trial itself occupies, as arguments of a ``PlacementGroupFactory``.

    One that drives a group asks for a little memory, because a trial must ask for something.
    """
    alone = {"CPU": float(job.resources["cpus"]), "GPU": float(job.resources["gpus"])}
    one = {"memory": float(2**20)} if grouped(job) else {kind: amount for kind, amount in alone.items() if amount}
    found = selector({**job.resources, "gpu_memory": None} if grouped(job) else job.resources, nodes)
    return {"bundles": [one]} | ({"bundle_label_selector": [found]} if found else {})


def selector(resources: Config, nodes: Nodes) -> dict[str, str]:
    """Ray's label selector of the nodes a worker may go to: all but those known not to do, so that one that joins later may be used."""
    there = nodes.now()
    bad = {*nodes.unfit(), *(node.name for node in there if not suffices(resources, node))}
    wanted, told = resources.get("gpu_memory"), nodes.config.get("gpu_memory") or {}
    small = sorted(kind for kind, memory in told.items() if wanted and memory * min(1.0, resources["gpus"]) < wanted)
    found = {"ray.io/node-id": f"!in({','.join(sorted(bad))})"} if bad else {}
    return found | ({"ray.io/accelerator-type": f"!in({','.join(small)})"} if small else {})


def strategy(resources: Config) -> str:
    """Ray's name of how the workers of a fit lie."""
    return str(resources.get("placement", "pack")).upper()


def size(job: Job) -> tuple[Any, ...]:
    """What two jobs have in common that take the same room."""
    return grouped(job), *(job.resources.get(name) for name in ("workers", "min_workers", "cpus", "gpus", "gpu_memory", "placement"))


def elastic(resources: Config) -> bool:
    """Whether a fit may go on with fewer workers than it has."""
    return int(resources.get("min_workers") or resources["workers"]) < int(resources["workers"])


def grouped(job: Job) -> bool:
    """Whether several workers train it."""
    return bool(job.stages) and int(job.resources["workers"]) > 1


@dataclass
class Room:
    """What may start now: a model of where the jobs in flight lie, by which no more are started than there is room for.

    Ray makes a trial that is alone wait for its place. A trial that drives a group has its place at once, and its group would wait
    inside it; so what groups need is counted here. Where an autoscaler brings nodes, up to as much again as there is may wait for them.
    """

    nodes: Callable[[], Sequence[Node]]
    autoscaling: bool = False
    workers: dict[str, int] = field(default_factory=dict)
    """How many workers each job in flight was given room for."""
    _flying: dict[str, Config] = field(default_factory=dict)
    _waiting: set[str] = field(default_factory=set)
    _free: list[_Free] = field(default_factory=list)
    _laid_out: Sequence[Node] | None = None

    def take(self, name: str, job: Job) -> bool:
        """Whether the job may start; then it counts as started until :meth:`give_back`."""
        resources = job.resources if grouped(job) else {**job.resources, "workers": 1}
        nodes = self.nodes()
        if nodes != self._laid_out:
            self._lay_out(nodes)
        if not self._place(name, resources):
            if not self.autoscaling or len(self._waiting) > len(self._flying) - len(self._waiting):
                return False
            self._waiting.add(name)
        self._flying[name] = resources
        self.workers.setdefault(name, resources["workers"])
        return True

    def give_back(self, name: str) -> None:
        if self._flying.pop(name, None) is not None:
            self.workers.pop(name)
            self._lay_out(self.nodes())

    def hopeless(self) -> bool:
        """Whether nothing in flight has a place, and none will come."""
        self._lay_out(self.nodes())
        return not self.autoscaling and bool(self._flying) and self._waiting == self._flying.keys()

    def _lay_out(self, nodes: Sequence[Node]) -> None:
        self._laid_out = list(nodes)
        self._free = [_Free(node, node.cpus, node.gpus) for node in nodes]
        self._waiting = {name for name, resources in self._flying.items() if not self._place(name, resources)}

    def _place(self, name: str, resources: Config) -> bool:
        fewest = resources.get("min_workers") or resources["workers"]
        for workers in range(resources["workers"], fewest - 1, -1):
            placed = _placed(resources, workers, self._free)
            if placed is not None:
                for free, count in placed:
                    free.take(resources, count)
                self.workers.setdefault(name, workers)
                return True
        return False


def weight(job: Job) -> int:
    """Long jobs first: those that train, then those with many evaluations."""
    return 10**6 * len(job.stages[:1]) + sum(len(evaluations) for _, _, evaluations in job.entries)


def _placed(resources: Config, workers: int, free: Sequence[_Free]) -> list[tuple[_Free, int]] | None:
    """Nodes and how many workers each takes; None where there is no room."""
    how, spread = strategy(resources), strategy(resources).endswith("SPREAD")
    rooms = sorted(((each.holds(resources), each) for each in free), key=lambda item: -item[0])
    if how == "STRICT_PACK":
        rooms = rooms[:1]
    if how == "STRICT_SPREAD":
        rooms = [(min(room, 1), each) for room, each in rooms]
    if sum(room for room, _ in rooms) < workers:
        return None
    taken = [0] * len(rooms)
    while sum(taken) < workers:
        for place, (room, _) in enumerate(rooms):
            left = workers - sum(taken)
            taken[place] += min(room - taken[place], 1 if spread else left, left)
    return [(each, count) for (_, each), count in zip(rooms, taken, strict=True) if count]


def _whole_share(gpus: float) -> float:
    """A share of a GPU lies on one GPU: two of 0.4 fill one."""
    return 1 / int(1 / gpus + 1e-6) if 0 < gpus < 1 else float(gpus)


def _may_come(resources: Config, config: Config) -> bool:
    """Whether an autoscaler may bring a node that does: any, or of a type that is known to have the memory."""
    wanted, told = resources.get("gpu_memory"), config.get("gpu_memory") or {}
    return wanted is None or not told or any(memory * min(1.0, resources["gpus"]) >= wanted for memory in told.values())


def _distinct(jobs: Iterable[Job]) -> list[Config]:
    found: dict[str, Config] = {}
    for job in jobs:
        resources = job.resources if grouped(job) else {**job.resources, "workers": 1, "min_workers": None}
        found[repr(sorted(resources.items(), key=str))] = resources
    return list(found.values())


def _needs(resources: Config, workers: int) -> str:
    gpus, memory = resources["gpus"], resources.get("gpu_memory")
    each = f"{resources['cpus']:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "") + (f" with {memory:g} GiB" if memory and gpus else "")
    how = strategy(resources).lower()
    if workers == 1:
        return f"a fit needs {each}"
    return f"a fit needs {workers} workers of {each}" + (f" ({how})" if how.startswith("strict") else "")


def _inventory(nodes: Sequence[Node]) -> str:
    """What there is, alike nodes counted together."""
    kinds: dict[str, int] = {}
    for node in nodes:
        told = f"{node.gpu_memory:.3g} GiB" if node.gpu_memory else f"memory unknown: label the node {LABEL}=GIB"
        what = f"{node.cpus:g} CPUs" + (f" and {node.gpus:g} GPUs ({' '.join(filter(None, (node.kind, told)))})" if node.gpus else "")
        kinds[what] = kinds.get(what, 0) + 1
    return ", ".join(f"{count} × {what}" for what, count in kinds.items()) or "no node"
