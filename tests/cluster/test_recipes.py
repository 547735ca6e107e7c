"""The recipes of docs/cluster: what Ray's own code says of them, and those that can be run without a cloud are run."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.cluster.machines import ROOT

RECIPES = ROOT / "docs" / "cluster"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((RECIPES / name).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", ["aws", "gcp", "ssh"])
def test_rays_own_schema_takes_what_ray_up_is_given(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    given = read(f"{name}.yaml")
    validate_config(prepare_config(given))
    with pytest.raises(jsonschema.ValidationError, match="head_node_typ"):
        validate_config(prepare_config(given | {"head_node_typ": "head"}))


@pytest.mark.parametrize("name", ["aws", "gcp", "ssh"])
def test_ray_is_started_with_its_token_and_shows_its_dashboard_to_nobody(name: str) -> None:
    given = read(f"{name}.yaml")
    starts = [line for key in ("head", "worker") for line in given[f"{key}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "~/.ray/auth_token" in given["file_mounts"]


@pytest.mark.parametrize("name", ["aws", "gcp", "ssh"])
def test_every_command_of_a_recipe_is_shell(name: str) -> None:
    given = read(f"{name}.yaml")
    for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        for line in given.get(key, ()):
            done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True, check=False)
            assert done.returncode == 0, (line, done.stderr)


def test_a_ray_job_has_the_fields_of_its_definition() -> None:
    job = read("kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    fields = {"entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
    assert set(job["spec"]) == fields
    cluster = job["spec"]["rayClusterSpec"]
    fields = {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"}
    assert set(cluster) == fields
    assert cluster["authOptions"] == {"mode": "token"}
    assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
    for group in cluster["workerGroupSpecs"]:
        assert set(group) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for params in (group["rayStartParams"] for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]):
        assert all(isinstance(value, str) for value in params.values())
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_version_of_ray_in_the_recipes_is_the_one_that_is_installed() -> None:
    import ray

    assert read("kuberay.yaml")["spec"]["rayClusterSpec"]["rayVersion"].rpartition(".")[0] == ray.__version__.rpartition(".")[0]


@pytest.mark.parametrize("text", [*RECIPES.glob("*.yaml"), RECIPES / "slurm.sh", RECIPES.parent / "cluster.md"], ids=lambda path: path.name)
def test_every_setting_a_recipe_names_is_there(text: Path) -> None:
    from harness import config

    known = set(config.dotted_keys(config.compose([])))
    named = set(re.findall(r"\b((?:cluster|trainer\.resources)\.[a-z_]+)=", text.read_text(encoding="utf-8")))
    assert named <= known | {"cluster.address"}


def test_the_batch_script_passes_its_signal_on_and_is_put_into_the_queue_again(tmp_path: Path) -> None:
    """SLURM's and Ray's commands are stood in for here; with SLURM itself it was run by hand."""
    stand_ins = {
        "scontrol": 'echo "$@" > requeued',
        "srun": 'touch started; until [ -e "$notice" ]; do sleep 0.1; done; exit 143',
        "ray": "",
    }
    for name, text in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_NNODES": "1"}
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HARNESS": str(tmp_path), **slurm}
    job = subprocess.Popen(["bash", str(RECIPES / "slurm.sh"), "sweep", "toy"], cwd=tmp_path, env=variables)
    while not (tmp_path / "started").exists():
        assert job.poll() is None
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 143
    assert (tmp_path / "requeued").read_text(encoding="utf-8").split() == ["requeue", "7"]
    assert not list(tmp_path.glob(".leave-*"))
