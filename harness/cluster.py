"""Join or start Ray. Nothing else in the project calls ``ray.init``."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from harness.config import Config
from harness.errors import RequestError


def environment(gpus: float) -> dict[str, str]:
    """What Ray, DeepSpeed and W&B need to be told in every process."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
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
def running(cluster: Config, *, nested: bool, python_path: list[str]) -> Iterator[dict[str, float]]:
    """Ray, for as long as the block lasts: started here and stopped after, or joined and left running.

    Args:
        cluster: ``address`` (null: start here), ``cpus``, ``gpus``, ``object_store_mb``.
        nested: Whether trials start Ray Train groups. They need the dashboard's state service: without it a sweep
            whose trial driver dies hangs.
        python_path: Folders a user's own code is imported from.

    Yields:
        The cluster's resources.

    Raises:
        RequestError: No cluster answers at the address.
    """
    here = tell_environment(cluster["gpus"] or 0)
    import ray

    variables = here | {"PYTHONPATH": os.pathsep.join([*python_path, *filter(None, [os.environ.get("PYTHONPATH")])])}
    options: dict[str, object] = {
        "runtime_env": {"env_vars": variables},
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    address = cluster["address"]
    if address is None:
        options |= {
            "num_cpus": cluster["cpus"],
            "num_gpus": cluster["gpus"],
            "include_dashboard": nested,
            "dashboard_host": "127.0.0.1",
            "object_store_memory": max(80, int(cluster["object_store_mb"] or 0)) * 2**20,
        }
    else:
        options["address"] = address
    try:
        ray.init(**options)  # type: ignore[arg-type]
    except ConnectionError as error:
        raise RequestError(
            f"no Ray cluster answers: {error}", where=f"cluster.address={address}", remedy="start one, or use cluster=local"
        ) from None
    try:
        yield dict(ray.cluster_resources())  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()
