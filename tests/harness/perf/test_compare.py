"""A real comparison in a small repository: two commits, real processes, and what is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.errors import RequestError
from harness.perf import checkout
from tests.conftest import command

SUITE = Path(__file__).parents[2] / "perf"
WORK = "def work():\n    return sum(i * i for i in range(COUNT))\n\n\ndef other():\n    return sorted(range(150_000), key=lambda i: -i)\n"
BENCHMARKS = """
from tests.perf.measuring import Measure
from code_under_test import other, work


def test_work(measure: Measure) -> None:
    measure(work)


def test_other(measure: Measure) -> None:
    measure(other)
"""
MORE = "\n\ndef test_new(measure: Measure) -> None:\n    from code_under_test import added\n\n    measure(added)\n"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", message)
    return git(folder, "rev-parse", "HEAD").strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One commit: a suite of two benchmarks by the real fixture, and a third that the next commit does not have."""
    folder = tmp_path / "repository"
    tests = folder / "tests" / "perf"
    tests.mkdir(parents=True)
    for name in ("conftest.py", "measuring.py", "apart.py"):
        shutil.copy(SUITE / name, tests / name)
    (folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\naddopts = "--import-mode=importlib"\n')
    (folder / ".gitignore").write_text("__pycache__/\n")
    (folder / "code_under_test.py").write_text(f"COUNT = 200_000\n{WORK}")
    (tests / "test_small.py").write_text(BENCHMARKS + "\n\ndef test_gone(measure: Measure) -> None:\n    measure(work)\n")
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "first")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.run(
        command("perf", *arguments), cwd=folder, capture_output=True, text=True, timeout=300, check=False, env=environment
    )


def left_behind(folder: Path) -> list[str]:
    return git(folder, "worktree", "list").splitlines()[1:]


def test_a_slow_down_is_named_and_what_appeared_and_vanished_is_said(repository: Path) -> None:
    """Half as slow again, in changes that were not even committed."""
    (repository / "code_under_test.py").write_text(f"COUNT = 320_000\n{WORK}\n\ndef added():\n    return sum(range(300_000))\n")
    (repository / "tests" / "perf" / "test_small.py").write_text(BENCHMARKS + MORE)
    done = run(repository, "compare", "HEAD", "--rounds", "3", "--threshold", "20")
    assert done.returncode == 1, done.stdout + done.stderr
    told = done.stderr.splitlines()
    assert [line.split(",")[0] for line in told if line.startswith("slower:")][:1] == ["slower: small/work"]
    assert not any(line.startswith("slower: small/other") for line in told)
    assert any(line.startswith("appeared: small/new (old side: ImportError") for line in told)
    assert "vanished: small/gone" in told
    assert "with changes" in done.stdout
    assert left_behind(repository) == []


def test_a_revision_against_itself_is_the_same(repository: Path) -> None:
    done = run(repository, "compare", "main", "--rounds", "3", "--threshold", "20", "--only", "OTHER", "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"benchmark": "small/other"' in done.stdout
    assert "none slower by more than 20 %" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["compare", "nothing-of-this-name"], "'nothing-of-this-name' is no revision (REV)"),
        (["compare", "--", "--upload-pack=x"], "is no revision"),
        (["compare", "HEAD", "--only", "smal/work"], "did you mean 'small/work'?"),
        (["compare", "HEAD", "--format", "jsn"], "did you mean 'json'?"),
        (["report"], "nothing was measured in results/perf"),
        (["run", "--only", "nothing"], "no benchmark has such a name"),
    ],
)
def test_a_wrong_request_is_one_line(repository: Path, arguments: list[str], expected: str) -> None:
    done = run(repository, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert expected in done.stderr.splitlines()[-1]
    assert left_behind(repository) == []


def test_a_comparison_that_is_stopped_leaves_no_worktree_and_no_process(repository: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(
        command("perf", "compare", "HEAD"), cwd=repository, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while not left_behind(repository):
        assert process.poll() is None
        time.sleep(0.05)
    scratch = Path(left_behind(repository)[0].split()[0]).parent
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    assert left_behind(repository) == []
    assert not scratch.exists()
    assert not [path for path in Path("/proc").glob("[0-9]*/cwd") if str(scratch) in _target(path)]


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def test_what_is_run_is_kept_with_its_machine_and_reported(repository: Path) -> None:
    done = run(repository, "run", "--quick", "--only", "small/")
    assert done.returncode == 0, done.stdout + done.stderr
    (kept,) = (repository / "results" / "perf").glob("*/*.json")
    assert kept.stem == git(repository, "rev-parse", "HEAD")[:12]
    text = kept.read_text()
    assert os.uname().nodename not in text.replace(kept.stem, "")
    assert kept.stat().st_size < 20_000
    for word in ('"median_s"', '"processor"', '"peak_mib"', '"torch"', '"load"', '"dirty": false'):
        assert word in text, word
    (repository / "code_under_test.py").write_text(f"COUNT = 210_000\n{WORK}")
    done = run(repository, "report", "--to", "site", "--format", "markdown")
    assert done.returncode == 0, done.stderr
    assert "small/work" in done.stdout
    assert (repository / "site" / "speed.html").is_file()


def test_changes_and_new_files_of_the_working_tree_are_measured_and_ignored_ones_are_not(repository: Path) -> None:
    (repository / "code_under_test.py").write_text("COUNT = 1\n")
    (repository / "fresh.py").write_text("x = 1\n")
    (repository / "__pycache__").mkdir()
    (repository / "__pycache__" / "x.pyc").touch()
    (repository / ".gitignore").unlink()
    (repository / ".gitignore").write_text("__pycache__/\n*.tmp\n")
    (repository / "tests" / "perf" / "apart.py").unlink()
    with checkout.sides(repository, "HEAD") as (old, new, notes):
        assert new.dirty
        assert not old.dirty
        assert (new.folder / "code_under_test.py").read_text() == "COUNT = 1\n"
        assert "200_000" in (old.folder / "code_under_test.py").read_text()
        assert (new.folder / "fresh.py").exists()
        assert not (old.folder / "fresh.py").exists()
        assert not (new.folder / "__pycache__").exists()
        assert not (new.folder / "tests" / "perf" / "apart.py").exists()
        assert len(str(old.folder)) == len(str(new.folder))
        assert notes == []
    assert not old.folder.exists()


def test_other_dependencies_are_said(repository: Path) -> None:
    (repository / "constraints.txt").write_text("numpy==1.0\n")
    with checkout.sides(repository, "HEAD") as (_, _, notes):
        assert [note.split(" differs")[0] for note in notes] == ["constraints.txt"]


def test_a_folder_without_a_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has no tests/perf"):
        checkout.root(tmp_path)
