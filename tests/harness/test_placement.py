"""Where workers may lie, what is refused, and how many start at once; Ray itself places in tests/cluster."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from harness import placement
from harness.errors import RequestError
from harness.nodes import Node
from harness.placement import Room
from harness.plan import Job, StageSpec

SMALL = Node("small", "10.0.0.1", cpus=4, gpus=2, kind="T4", gpu_memory=16)
LARGE = Node("large", "10.0.0.2", cpus=4, gpus=1, kind="A100", gpu_memory=40)
UNKNOWN = Node("unknown", "10.0.0.3", cpus=4, gpus=1)


class There:
    """Nodes that are there, and the settings of their cluster."""

    def __init__(self, *nodes: Node, unfit: Sequence[str] = (), **config: Any) -> None:
        self.nodes, self.bad, self.config, self.autoscaling = nodes, list(unfit), config, bool(config.get("autoscaling"))

    def now(self) -> Sequence[Node]:
        return self.nodes

    def unfit(self) -> list[str]:
        return self.bad


def job(name: str = "fit", stages: int = 1, **resources: Any) -> Job:
    usual = {"workers": 1, "min_workers": None, "cpus": 1, "gpus": 0.0, "gpu_memory": None, "placement": "pack", "retries": 2}
    spec = StageSpec(fit=name, name="stage", config={}, trainer={}, weighting=None, seed=0)
    return Job(name, {}, "", 0, 0, (spec,) * stages, usual | resources, {})


def most(one: Job, *nodes: Node) -> int:
    """How many of a job are started on an empty cluster."""
    room = Room(lambda: nodes)
    return sum(room.take(f"fit {number}", one) for number in range(50))


@pytest.mark.parametrize(
    ("resources", "started"),
    [
        ({}, 8),
        ({"gpus": 1.0}, 3),
        ({"gpus": 0.5}, 6),
        ({"gpus": 0.4}, 6),  # two of 0.4 fill a GPU: a share lies on one
        ({"gpus": 0.5, "gpu_memory": 10}, 2),  # half of 16 GiB is too little
        ({"gpus": 2.0}, 1),
        ({"workers": 2}, 4),
        ({"workers": 3, "placement": "strict_pack"}, 2),
        ({"workers": 2, "placement": "strict_spread"}, 4),
        ({"workers": 2, "gpus": 1.0}, 1),
        ({"workers": 2, "gpus": 1.0, "min_workers": 1}, 2),
    ],
)
def test_as_many_start_as_there_is_room_for(resources: dict[str, Any], started: int) -> None:
    assert most(job(**resources), SMALL, LARGE) == started


def test_a_large_job_that_has_no_room_keeps_no_small_one_waiting() -> None:
    room = Room(lambda: [SMALL, LARGE])
    assert room.take("first", job(workers=2, gpus=1.0))
    assert not room.take("second", job(workers=2, gpus=1.0))
    assert room.take("small", job())
    room.give_back("first")
    assert room.take("second", job(workers=2, gpus=1.0))


def test_room_follows_the_nodes_that_come_and_go() -> None:
    there = [SMALL]
    room = Room(lambda: there)
    assert [room.take(f"{number}", job(gpus=1.0)) for number in range(3)] == [True, True, False]
    there.append(LARGE)
    assert room.take("2", job(gpus=1.0))
    there.clear()
    assert room.hopeless()
    there.append(LARGE)
    assert not room.hopeless()


def test_an_elastic_group_gets_the_workers_there_is_room_for() -> None:
    room = Room(lambda: [LARGE])
    assert room.take("fit", job(workers=3, gpus=1.0, min_workers=1))
    assert room.workers == {"fit": 1}


def test_a_cluster_that_grows_is_asked_for_as_much_again() -> None:
    room = Room(lambda: [LARGE], autoscaling=True)
    assert (
        sum(room.take(f"{number}", job(gpus=1.0)) for number in range(50)) == 3
    )  # one runs; one is asked for beside it, and one before any
    assert not room.hopeless()


def test_ray_is_told_which_nodes_not_to_use() -> None:
    wanted = {"gpus": 1.0, "gpu_memory": 20}
    there = There(SMALL, LARGE, UNKNOWN, unfit=["blind"], gpu_memory={"T4": 16, "V100": 16, "A100": 40})
    found = placement.selector(job(**wanted).resources, there)  # type: ignore[arg-type]
    assert found == {"ray.io/node-id": "!in(blind,small,unknown)", "ray.io/accelerator-type": "!in(T4,V100)"}
    assert placement.selector(job().resources, There(SMALL)) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"cpus": 5}, "a fit needs 5 CPUs; there is 1 × 4 CPUs and 2 GPUs (T4 16 GiB), 1 × 4 CPUs and 1 GPUs (A100 40 GiB)"),
        ({"gpus": 1.0, "gpu_memory": 41}, "with 41 GiB; there is 1 × 4 CPUs and 2 GPUs (T4 16 GiB)"),
        ({"workers": 4, "gpus": 1.0}, "a fit needs 4 workers of 1 CPUs and 1 GPUs"),
        ({"workers": 3, "placement": "strict_spread"}, "a fit needs 3 workers of 1 CPUs (strict_spread)"),
        ({"workers": 5, "placement": "strict_pack"}, "a fit needs 5 workers of 1 CPUs (strict_pack)"),
        ({"workers": 2, "min_workers": 3}, "3 workers at least, of 2"),
        ({"workers": 2, "gpus": 0.5}, "cannot share a GPU"),
    ],
)
def test_what_no_node_can_hold_is_refused(resources: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=re.escape(says)):
        placement.check([job(**resources)], There(SMALL, LARGE))  # type: ignore[arg-type]


def test_what_may_come_is_not_refused() -> None:
    wanted = job(gpus=1.0, gpu_memory=70)
    placement.check([wanted], There(SMALL, autoscaling=True))  # type: ignore[arg-type]
    placement.check([wanted], There(SMALL, autoscaling=True, gpu_memory={"H100": 80}))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="70 GiB"):
        placement.check([wanted], There(SMALL, autoscaling=True, gpu_memory={"T4": 16}))  # type: ignore[arg-type]
