"""The README's own examples run as they are printed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

import configs
from harness.cli import VERBS
from harness.store import Store
from tests.conftest import Run

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SMALL = ["tracker=none", "task.folds=2", "task.dataset.synth.subjects=6", "task.dataset.synth.clips=6", "task.dataset.synth.frames=[12,16]"]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README shows, under the names that it gives them."""
    folder = tmp_path_factory.mktemp("user")
    for block in re.findall(r"```(?:python|yaml)\n(.*?)```", README, flags=re.DOTALL):
        name = re.search(r"^# (mine/\S+)$", block, flags=re.MULTILINE)
        assert name is not None, block
        path = folder / name[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    return folder


@pytest.mark.cluster
def test_the_baseline_and_the_task_of_the_readme_run(harness: Run, mine: Path) -> None:
    commands = [line.strip() for line in README.splitlines() if re.match(r"\s+harness run --config-dir mine .*baseline=shrunk", line)]
    assert len(commands) == 2
    for command in commands:
        done = harness(*shlex.split(command)[1:], *SMALL, cwd=mine, env=None)
        assert done.returncode == 0, done.stderr
        assert "shrunk" in done.stdout
    records = Store(mine / "outputs" / "store").records()
    assert set(records["task"]) == {"afew_va_support", "second_half"}
    assert set(records["protocol"]) >= {"second_half_scored-2-folds-seed-0"}


def test_the_readme_names_the_verbs_that_there_are() -> None:
    section = README.split("## The verbs")[1].split("##")[0]
    assert set(re.findall(r"^    harness (\w+)", section, flags=re.MULTILINE)) == set(VERBS)


@pytest.mark.parametrize(("heading", "count"), [("Which faces belong together?", 10), ("How should losses be weighed?", 7)])
def test_commands_are_planned_as_they_are_printed(harness: Run, mine: Path, heading: str, count: int) -> None:
    section = README.split(f"## {heading}")[1].split("\n## ")[0]
    commands = re.findall(r"^    harness ((?:run|sweep) .*?)(?:  +#.*)?$", section, flags=re.MULTILINE)
    assert len(commands) == count
    (mine / "mine" / "texts").mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(configs.__file__).parent / "texts" / "facs.yaml", mine / "mine" / "texts" / "lab.yaml")
    for command in commands:
        words = [word for word in shlex.split(command) if word != "--dry-run" and not word.startswith("task.root=")]
        done = harness(*words, "--dry-run", "--format", "json", cwd=mine)
        assert done.returncode == 0, done.stderr
        assert "pending" in {row["state"] for row in json.loads(done.stdout)}, command
