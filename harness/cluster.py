"""Join or start Ray. Nothing else in the project calls ``ray.init``."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import node_cache, preemption
from harness.config import Config
from harness.errors import RequestError
from harness.nodes import Nodes

_LOOK_EVERY, _REFUSED, _SILENT = 1.0, 5, 60  # seconds, and how many looks in turn find nobody there, or hear nothing


def environment(gpus: float) -> dict[str, str]:
    """What Ray, DeepSpeed and W&B need to be told in every process."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # five files a trial, and TensorBoard in the driver: nobody reads what Tune writes
        "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # the same of its snapshots, which hold every trial there was
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # 2 s by default, spent by every worker group
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
        "OMP_NUM_THREADS": "1",
        "WANDB_SILENT": "true",
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning",
    }
    return settings if gpus else settings | {"DS_ACCELERATOR": "cpu"}


def tell_environment(gpus: float) -> dict[str, str]:
    """Set what :func:`environment` names, unless somebody has. Before Ray is imported, which reads some of it then."""
    here = environment(gpus)
    for name, value in ({"RAY_AUTH_MODE": "token"} | here).items():
        os.environ.setdefault(name, value)
    return here


@contextlib.contextmanager
def running(
    cluster: Config, *, nested: bool, gpus: float = 0, python_path: list[str], shared: Path | None = None, snapshots: Sequence[str] = ()
) -> Iterator[Nodes]:
    """Ray, for as long as the block lasts: started here and stopped after, or joined and left running.

    What is started here listens on the loopback alone.

    Args:
        cluster: The config group ``cluster``.
        nested: Whether trials start Ray Train groups. They need the dashboard's state service: without it a sweep
            whose trial driver dies hangs.
        gpus: Of the fit that needs most.
        python_path: Folders a user's own code is imported from.
        shared: The output folder, which all nodes must see; None where it is no folder.
        snapshots: Folders of the datasets, which nodes with a disk of their own copy to it.

    Yields:
        The nodes, each asked what it is.

    Raises:
        RequestError: No cluster answers at the address, or one of its nodes cannot be used.
    """
    address = cluster["address"]
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # whatever the system: this machine's address is then 127.0.0.1
    here = tell_environment(gpus or cluster["gpus"] or 0)
    if cluster.get("autoscaling"):
        here["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "900"  # a node has to be brought first
    if cluster.get("node_cache"):
        os.environ[node_cache.VARIABLE] = here[node_cache.VARIABLE] = str(cluster["node_cache"])
    if cluster.get("notice"):
        os.environ[preemption.VARIABLE] = here[preemption.VARIABLE] = str(cluster["notice"])
    _check(address)
    import ray

    variables = here | {"PYTHONPATH": os.pathsep.join([*python_path, *filter(None, [os.environ.get("PYTHONPATH")])])}
    options: dict[str, object] = {
        "runtime_env": {"env_vars": variables},
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if address is None:
        options |= {
            "address": "local",  # also where RAY_ADDRESS is set
            "num_cpus": cluster["cpus"],
            "num_gpus": cluster["gpus"],
            "include_dashboard": nested,
            "dashboard_host": "127.0.0.1",
            "object_store_memory": max(80, int(cluster["object_store_mb"] or 0)) * 2**20,
        }
    else:
        options["address"] = address
    where = f"cluster.address={address}"
    try:
        ray.init(**options)  # type: ignore[arg-type]
    except ConnectionError as error:
        what = f"no Ray cluster answers: {_line(error)}"
        raise RequestError(what, where=where, remedy="start one with `ray start --head`, or use cluster=local") from None
    except ray.exceptions.AuthenticationError as error:
        remedy = "copy ~/.ray/auth_token of the head here, with RAY_AUTH_MODE=token on both sides"
        raise RequestError(f"the cluster does not know this token: {_line(error)}", where=where, remedy=remedy) from None
    except RuntimeError as error:
        raise RequestError(
            f"the cluster cannot be joined: {_line(error)}", where=where, remedy="use the same versions on both sides"
        ) from None
    head = ray.get_runtime_context().gcs_address
    try:
        with _watched(head):
            nodes = Nodes(cluster, shared=shared, snapshots=snapshots)
            nodes.first_look()
            yield nodes
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _watched(head: str) -> Iterator[None]:
    """End this process with a line where the head has been gone for a while; Ray would wait, and then end it with a stack of its own."""
    done = threading.Event()

    def watch() -> None:
        refused = silent = 0
        while not done.wait(_LOOK_EVERY):
            error = _unreachable(head)
            refused, silent = refused + 1 if isinstance(error, ConnectionRefusedError) else 0, silent + 1 if error else 0
            if refused >= _REFUSED or silent >= _SILENT:
                print("error: the head of the cluster is gone; what is done is kept: run again once there is one", file=sys.stderr)
                sys.stderr.flush()
                os._exit(1)

    thread = threading.Thread(target=watch, daemon=True, name="head of the cluster")
    thread.start()
    try:
        yield
    finally:
        done.set()


def _unreachable(address: str) -> OSError | None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        return error
    return None


def logs() -> Path:
    """The folder of the logs of Ray's processes on this machine; it need not be there."""
    import ray

    node = getattr(ray._private.worker, "_global_node", None)
    return Path(node.get_logs_dir_path()) if node else Path(os.devnull)


def _check(address: str | None) -> None:
    """Refuse an address that cannot be one, or at which nobody listens: Ray would try for a minute.

    Raises:
        RequestError: It cannot be joined.
    """
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    where, remedy = f"cluster.address={address}", "give HOST:PORT, as `ray start --head` prints it"
    if "://" in address or not host or not port.isdigit():
        raise RequestError(f"{address!r} is no address of a cluster", where=where, remedy=remedy)
    if _unreachable(address):
        raise RequestError("no Ray cluster answers", where=where, remedy="start one with `ray start --head`, or use cluster=local")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
