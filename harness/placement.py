"""What a job occupies of the cluster, and where its parts may lie. Ray places; this says what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.config import Config
from harness.errors import RequestError
from harness.plan import Job


def check(jobs: Mapping[str, Job], available: Mapping[str, float]) -> None:
    """Refuse what cannot be placed.

    Raises:
        RequestError: A fit needs more than there is.
    """
    for job in jobs.values():
        for kind, key in (("CPU", "cpus"), ("GPU", "gpus")):
            need, have = job.resources[key] * job.resources["workers"], available.get(kind, 0.0)
            if need > have:
                raise RequestError(
                    f"a fit needs {need:g} {kind}, the cluster has {have:g}",
                    where=f"trainer.resources.{key} × workers",
                    remedy=f"at most {have:g} in all",
                )


def share(job: Job) -> Any:
    """What a trial itself occupies. One that drives a group asks for a little memory, because a trial must ask for something."""
    from ray import tune

    alone = {"CPU": float(job.resources["cpus"]), "GPU": float(job.resources["gpus"])}
    return tune.PlacementGroupFactory(
        [{"memory": float(2**20)} if grouped(job) else {kind: amount for kind, amount in alone.items() if amount}]
    )


def grouped(job: Job) -> bool:
    """Whether several workers train it."""
    return bool(job.stages) and int(job.resources["workers"]) > 1


def at_once(resources: Config, available: Mapping[str, float]) -> int:
    """How many such fits the cluster can train at the same time."""
    need = {"CPU": resources["cpus"] * resources["workers"], "GPU": resources["gpus"] * resources["workers"]}
    return max(1, min(int(available.get(kind, 0) // amount) for kind, amount in need.items() if amount))


def weight(job: Job) -> int:
    """Long jobs first: those that train, then those with many evaluations."""
    return 10**6 * len(job.stages[:1]) + sum(len(evaluations) for _, _, evaluations in job.entries)
