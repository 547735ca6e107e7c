"""One stage trained by several workers: a Ray Train group, each worker of which runs the same loop as one alone."""

from __future__ import annotations

import os
import shutil
import socket
from typing import Any

from harness import placement, preemption
from harness.errors import FitError, RequestError
from harness.plan import Job, StageSpec
from harness.preemption import Notice, Preempted
from harness.store import Store


class Left(Preempted):
    """A group was told to leave.

    Args:
        nodes: Ray's ids of the nodes whose own notice it was; none where all of the run is to leave.
    """

    def __init__(self, nodes: list[str]) -> None:
        super().__init__("left")
        self.nodes = nodes


class Lost(Exception):
    """A group that may go on with fewer workers has lost one."""


def train(job: Job, spec: StageSpec, store: Store, report: object, *, workers: int, selector: dict[str, str], notice: str) -> None:
    """Train one stage on a Ray Train group of DeepSpeed workers, and wait for it.

    Where it may go on with fewer workers (``min_workers``), a group that loses one is given up at once: how many there is room for then
    is for who sees the whole cluster to say. Ray Train's own elastic groups do not look at labels of nodes, and would wait for one that
    was told to leave.

    Args:
        job: Whose stage it is.
        spec: The stage.
        store: Where it goes.
        report: Not called: what a group says goes to its own run.
        workers: How many there is room for.
        selector: Of the nodes its workers may go to.
        notice: The name of the file that tells all of the run to leave.

    Raises:
        FitError: The fit cannot go on, as one worker said.
        Left: It was told to leave; a checkpoint is kept.
        Lost: It lost a worker, and may go on with fewer.
        TrainingFailedError: It lost workers too often.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    resources = spec.trainer["resources"]
    gpus = float(resources["gpus"])
    scaling: dict[str, Any] = {
        "num_workers": workers,
        "use_gpu": bool(gpus),
        "resources_per_worker": {"CPU": resources["cpus"], **({"GPU": gpus} if gpus else {})},
        "placement_strategy": placement.strategy(resources),
        "label_selector": selector or None,
    }
    scratch = store.output / "ray" / spec.fit
    said = ["stopped.txt", *(f"left-{rank}.txt" for rank in range(workers))]
    store.remove(*(store.fit_folder(spec.fit) / name for name in said))
    try:
        TorchTrainer(
            _worker,
            train_loop_config={"job": job, "spec": spec, "store": store.address, "notice": notice},
            torch_config=_backend(),
            scaling_config=ScalingConfig(**scaling),
            run_config=RunConfig(
                name=spec.fit,
                storage_path=str(scratch),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
                failure_config=FailureConfig(  # type: ignore[call-arg]
                    max_failures=0 if placement.elastic(resources) else int(resources["retries"]), controller_failure_limit=3
                ),
            ),
        ).fit()
    except TrainingFailedError as error:
        if placement.elastic(resources):
            raise Lost(str(error)) from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    stopped, *leaving = [file.read_text(encoding="utf-8") if (file := store.file(spec.fit, name)).is_file() else None for name in said]
    store.remove(*(store.fit_folder(spec.fit) / name for name in said))
    if stopped is not None:
        raise FitError(stopped)
    if left := [node.strip() for node in leaving if node is not None]:
        raise Left(sorted(filter(None, set(left))))


def _backend() -> Any:
    """Of what Ray Train does for PyTorch only that the workers of a node see each other's GPUs; :func:`meet` does the rest."""
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig

    class Shared(Backend):
        share_cuda_visible_devices = True

    class Config(TorchConfig):
        @property
        def backend_cls(self) -> Any:
            return Shared

    return Config()


def _worker(config: dict[str, Any]) -> None:
    """One worker of a group: the same training as alone, with the group's rank and world."""
    import ray
    import ray.train

    from harness import evaluation, output

    job, spec, store = config["job"], config["spec"], output.at(config["store"]).store
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    gpus = bool(spec.trainer["resources"]["gpus"])
    own, run = Notice([preemption.of_node()]), preemption.of_run(store, config["notice"])
    folder = store.fit_folder(spec.fit)
    try:
        hardware = meet(rank, world, context.get_local_rank(), gpus=gpus)
        evaluation.train_here(
            job,
            spec,
            store,
            ray.train.report,
            rank=rank,
            world=world,
            leaving=lambda: own.given() or run.given(),
            hardware=hardware,
        )
    except Preempted:
        node = ray.get_runtime_context().get_node_id() if own.given() else ""
        store.write(folder / f"left-{rank}.txt", f"{node}\n".encode())
    except (FitError, RequestError) as error:  # trying again would not help, so Ray Train is not told of an error
        if rank == 0:
            store.write(folder / "stopped.txt", str(error).encode())


def meet(rank: int, world: int, local_rank: int, *, gpus: bool) -> dict[str, Any]:
    """Make the group's process group, on the network of the nodes alone: the loopback where all is one machine.

    Ray Train's own would listen on every address of the machine.

    Returns:
        ``nodes``, how many the group lies on, and ``gpus``, what every worker trains on, by rank.
    """
    import ray.util
    import torch.distributed as dist
    from ray.train.collective import broadcast_from_rank_zero

    from harness import provenance

    host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if interface := _interface(host):
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = interface
    places = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": local_rank}  # DeepSpeed reads them
    os.environ.update({name: str(place) for name, place in places.items()})
    store: Any = None
    address = (host, 0)
    if rank == 0:
        listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        address = (host, listening.getsockname()[1])
        store = _tcp_store(address, world, master_listen_fd=listening.detach())
    address = broadcast_from_rank_zero(address)
    store = store or _tcp_store(address, world)
    os.environ.update({"MASTER_ADDR": address[0], "MASTER_PORT": str(address[1])})
    dist.init_process_group("nccl" if gpus else "gloo", store=store, rank=rank, world_size=world)
    store.set(f"node/{rank}", ray.get_runtime_context().get_node_id())
    store.set(f"gpu/{rank}", provenance.gpu(local_rank) if gpus else "")
    nodes, names = ([store.get(f"{what}/{other}").decode() for other in range(world)] for what in ("node", "gpu"))
    dist.barrier()  # rank 0 holds the store that the others read
    return {"nodes": len(set(nodes)), "gpus": list(filter(None, names))}


def _tcp_store(address: tuple[str, int], world: int, **master: Any) -> Any:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(*address, world, is_master=bool(master), wait_for_workers=False, **master)


def _interface(host: str) -> str | None:
    """The name of the network interface that has an address."""
    import psutil

    return next((name for name, own in psutil.net_if_addrs().items() if any(each.address == host for each in own)), None)
