"""One stage trained by several workers: a Ray Train group, each worker of which runs the same loop as one alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from harness.errors import FitError, RequestError
from harness.plan import Job, StageSpec
from harness.store import Store


def train(job: Job, spec: StageSpec, store: Store, report: object) -> None:
    """Train one stage on a Ray Train group of DeepSpeed workers, and wait for it.

    Raises:
        FitError: The fit cannot go on, as one worker said.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = spec.trainer["resources"]
    gpus = float(resources["gpus"])
    per_worker = {"CPU": resources["cpus"], **({"GPU": gpus} if gpus else {})}
    scratch = store.root.parent / "ray" / spec.fit
    stopped = store.fit_folder(spec.fit) / "stopped.txt"
    stopped.unlink(missing_ok=True)
    try:
        TorchTrainer(
            _worker,
            train_loop_config={"job": job, "spec": spec, "store": str(store.root)},
            torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
            scaling_config=ScalingConfig(num_workers=int(resources["workers"]), use_gpu=bool(gpus), resources_per_worker=per_worker),
            run_config=RunConfig(
                name=spec.fit,
                storage_path=str(scratch),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
                failure_config=FailureConfig(max_failures=int(resources["retries"]), controller_failure_limit=3),  # type: ignore[call-arg]
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if stopped.is_file():
        raise FitError(stopped.read_text(encoding="utf-8"))


def _worker(config: dict[str, Any]) -> None:
    """One worker of a group: the same training as alone, with the group's rank and world."""
    import ray.train

    from harness import evaluation
    from harness.store import write_atomically

    job, spec, store = config["job"], config["spec"], Store(Path(config["store"]))
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    try:
        evaluation.train_here(job, spec, store, ray.train.report, rank=rank, world=world)
    except (FitError, RequestError) as error:  # trying again would not help, so Ray Train is not told of an error
        if rank == 0:
            write_atomically(store.fit_folder(spec.fit) / "stopped.txt", str(error).encode())
