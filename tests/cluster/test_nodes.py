"""Where fits go: several nodes with GPUs of different memory, a share of one each, a node that comes late, and what cannot be used."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.machines import Machines, environment, machines
from tests.conftest import Run, toy

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def few() -> Iterator[Machines]:
    """A head, a node with two GPUs of 16 GiB and one with a GPU of 40; that they have any is only said."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets lie under it
    with machines(folder) as made:
        made.start("head", "--num-cpus=0", "--num-gpus=0")
        made.start("small", "--num-cpus=4", "--num-gpus=2", "--labels=gpu-memory=16", SCRATCH=str(folder / "small"))
        made.start("large", "--num-cpus=4", "--num-gpus=1", "--labels=gpu-memory=40", SCRATCH=str(folder / "large"))
        yield made
    shutil.rmtree(folder, ignore_errors=True)


def joined(few: Machines, *more: str) -> list[str]:
    return ["cluster=address", f"cluster.address={few.address}", *more]


def witnesses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]


def together(seen: list[dict[str, Any]]) -> int:
    """The most that ran at the same time."""
    return max(sum(other["began"] <= one["began"] < other["ended"] for other in seen) for one in seen)


def test_shares_of_gpus_run_side_by_side_and_each_node_copies_the_frames_once(harness: Run, few: Machines, tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    arguments = joined(few, f"baseline.folder={folder}", "trainer.resources.gpus=0.5", "cluster.node_cache=$SCRATCH/frames")
    done = harness(*toy(tmp_path / "out", *arguments, name="toy_witness"), env=environment())
    assert done.returncode == 0, done.stderr
    seen = witnesses(folder)
    assert len(seen) == 8
    by_gpu: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in seen:
        by_gpu.setdefault((one["node"], one["gpus"]), []).append(one)
    assert max(map(together, by_gpu.values())) == 2, "two halves of one GPU are used at the same time, and no third"
    for name in ("small", "large"):
        lines = (few.folder / name / "frames" / "copied.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["chunks"] for line in lines] == [1], name
        assert len(list((few.folder / name).rglob("*.frames"))) == 1


def test_a_fit_goes_only_where_its_share_of_a_gpu_has_the_memory(harness: Run, few: Machines, tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    arguments = joined(few, f"baseline.folder={folder}", "trainer.resources.gpus=0.5", "trainer.resources.gpu_memory=17", "seed=0,1,2")
    done = harness(*toy(tmp_path / "out", *arguments, name="toy_witness"), env=environment())
    assert done.returncode == 0, done.stderr
    seen = witnesses(folder)
    assert len(seen) == 3
    assert len({one["node"] for one in seen}) == 1
    assert {one["gpus"] for one in seen} == {"0"}


def test_what_fits_nowhere_is_refused_with_what_there_is(harness: Run, few: Machines, tmp_path: Path) -> None:
    arguments = joined(few, f"baseline.folder={tmp_path}", "trainer.resources.gpus=1", "trainer.resources.gpu_memory=41")
    done = harness(*toy(tmp_path / "out", *arguments, name="toy_witness"), env=environment())
    assert done.returncode == 2, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "a fit needs 1 CPUs and 1 GPUs with 41 GiB; there is" in line
    assert "1 × 4 CPUs and 2 GPUs (16 GiB)" in line
    assert "1 × 4 CPUs and 1 GPUs (40 GiB)" in line


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, to hide a folder from a node")
def test_a_node_that_does_not_see_the_output_is_refused_by_name(harness: Run, few: Machines, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    hidden = ["unshare", "--mount", "--", "sh", "-c", f'mount -t tmpfs none "{output}" && exec "$@"', "sh"]
    try:
        few.start("blind", "--num-cpus=1", before=hidden)
    except OSError as error:
        pytest.skip(f"no mount namespace here: {error}")
    try:
        done = harness(*toy(output, *joined(few, f"baseline.folder={tmp_path}"), name="toy_witness"), env=environment())
    finally:
        few.kill("blind")
    assert done.returncode == 2, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert f"does not see {output} (output_dir)" in line
