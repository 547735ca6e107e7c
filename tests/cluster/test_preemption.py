"""What a cluster does to a fit: notices, nodes that die, a head that dies, memory that runs out. Nothing finished is lost or done twice."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest

from harness.store import Store
from tests.cluster.machines import Machines, environment, machines
from tests.conftest import PLUGIN, Run, command, toy

pytestmark = pytest.mark.cluster
ONE = ("arms=toy", "fold=0", "seed=0", "tracker=none", "baseline.stages.brightness.pause=0.05")


def scores(output: Path) -> pl.DataFrame:
    return Store(output / "store").records().select("evaluation", "setting", "score", "sha256").sort("setting")


@pytest.fixture(scope="module")
def undisturbed(harness: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed")
    done = harness(*toy(output, *ONE))
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture
def folder() -> Iterator[Path]:
    """For Ray's sockets: short."""
    made = Path(tempfile.mkdtemp(prefix="ray-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A driver that is ended with all that it started, whatever happens."""
    driver = subprocess.Popen(
        command(*arguments),
        cwd=PLUGIN,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()


def until(seen: Callable[[], object], driver: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 240
    while not seen():
        if driver.poll() is not None or time.monotonic() > end:
            raise AssertionError(driver.communicate())
        time.sleep(0.05)


def kept(output: Path, epoch: int = 1) -> bool:
    """Whether a fit under way has a checkpoint of that epoch or a later one."""
    return any(int(path.name.split("-")[1]) >= epoch for path in output.glob("store/fits/*/checkpoint/epoch-*"))


def errors(driver: subprocess.Popen[str], status: int) -> list[str]:
    _, said = driver.communicate(timeout=240)
    assert driver.returncode == status, said
    assert "Traceback" not in said
    return [line for line in said.splitlines() if line.startswith("error: ")]


def listening(process: int) -> set[str]:
    """The addresses on which a process or one of its descendants listens."""
    found = set()
    with contextlib.suppress(psutil.Error):
        for each in [psutil.Process(process), *psutil.Process(process).children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                found |= {tcp.laddr.ip.removeprefix("::ffff:") for tcp in each.net_connections("tcp") if tcp.status == psutil.CONN_LISTEN}
    return found


def test_a_driver_told_to_leave_keeps_a_checkpoint_and_the_same_command_ends_with_the_same_bytes(undisturbed: Path, tmp_path: Path) -> None:
    with running(*toy(tmp_path, *ONE)) as driver:
        until(lambda: kept(tmp_path), driver)
        driver.send_signal(signal.SIGUSR1)
        (line,) = errors(driver, 143)
    assert "4 evaluations are left, all others are kept; go on with: harness sweep toy" in line
    assert kept(tmp_path)
    assert not list(tmp_path.glob("store/notices/*"))
    assert Store(tmp_path / "store").failures() == {}
    with running(*toy(tmp_path, *ONE)) as driver:
        errors(driver, 0)
    assert scores(tmp_path).equals(scores(undisturbed))


def test_a_group_listens_on_the_loopback_alone_and_leaves_at_sigterm(undisturbed: Path, tmp_path: Path) -> None:
    arguments = toy(tmp_path, *ONE, "trainer.resources.workers=2")
    heard: set[str] = set()
    with running(*arguments) as driver:
        until(lambda: heard.update(listening(driver.pid)) or kept(tmp_path), driver)
        heard |= listening(driver.pid)
        driver.send_signal(signal.SIGTERM)
        errors(driver, 143)
    assert heard == {"127.0.0.1"}
    with running(*toy(tmp_path, *ONE)) as driver:  # with another number of workers
        errors(driver, 0)
    assert scores(tmp_path)["evaluation"].equals(scores(undisturbed)["evaluation"])
    assert scores(tmp_path)["score"].to_list() == pytest.approx(scores(undisturbed)["score"].to_list(), abs=1e-3)


def test_a_fit_of_two_workers_outlives_a_node_and_a_notice_and_the_driver_a_head(undisturbed: Path, folder: Path, tmp_path: Path) -> None:
    with machines(folder) as nodes:
        nodes.start("head", "--num-cpus=0")
        for name in "abc":
            nodes.start(name, "--num-cpus=1", HARNESS_NOTICE=str(folder / f"{name}.leave"))
        group = ("trainer.resources.workers=2", "trainer.resources.min_workers=1", "trainer.resources.placement=strict_spread")
        joined = ("cluster=address", f"cluster.address={nodes.address}", "baseline.stages.brightness.pause=0.3")
        with running(*toy(tmp_path, *ONE, *group, *joined)) as driver:
            until(lambda: kept(tmp_path), driver)
            nodes.kill(_training(nodes)[0])
            until(lambda: kept(tmp_path, 2), driver)
            (folder / f"{_training(nodes)[0]}.leave").touch()
            until(lambda: kept(tmp_path, 3), driver)
            nodes.kill("head")
            (line,) = errors(driver, 1)
    assert "the head of the cluster is gone" in line
    assert Store(tmp_path / "store").failures() == {}
    with running(*toy(tmp_path, *ONE, "baseline.stages.brightness.pause=0.3")) as driver:
        errors(driver, 0)
    assert scores(tmp_path)["score"].to_list() == pytest.approx(scores(undisturbed)["score"].to_list(), abs=1e-3)
    assert len(Store(tmp_path / "store").fits()) == 1


def _training(nodes: Machines) -> list[str]:
    """Names of the nodes on which a worker of a group is."""
    found = []
    for name, node in nodes.nodes.items():
        with contextlib.suppress(psutil.Error):
            names = [" ".join(child.cmdline()) for child in psutil.Process(node.pid).children(recursive=True)]
            found += [name] * any("RayTrainWorker" in each for each in names)
    return found


def test_a_worker_out_of_memory_is_tried_again_within_the_bound_and_the_failure_says_so(harness: Run, tmp_path: Path) -> None:
    told = tmp_path / "told"
    done = harness(*toy(tmp_path, *ONE, f"baseline.stages.brightness.hoard={told}", "trainer.resources.retries=1"))
    assert done.returncode == 1, done.stderr
    (failure,) = Store(tmp_path / "store").failures().values()
    assert "MemoryError: Unable to allocate" in failure["error"], failure
    assert len(told.read_text(encoding="utf-8").splitlines()) == 2, "once, and once more"
