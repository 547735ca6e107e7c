"""The command line as a user meets it: it answers at once, and a mistake is one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import VERBS
from harness.store import Store
from tests.conftest import PLUGIN, Run

HEAVY = (
    "torch",
    "ray",
    "pandas",
    "transformers",
    "wandb",
    "polars",
    "hydra",
    "omegaconf",
    "scipy",
    "sklearn",
    "numpy",
    "deepspeed",
    "kornia",
)


def modules(*arguments: str) -> tuple[int, set[str], str]:
    """Exit status, the heavy modules a verb imports, and what it prints."""
    script = (
        f"import sys; sys.argv = ['harness', *{arguments!r}]\n"
        "from harness.cli import main\n"
        "try: main()\n"
        f"except SystemExit as end: print('END', end.code, *sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PLUGIN, capture_output=True, text=True, timeout=120, check=True)
    printed, _, end = done.stdout.rpartition("END ")
    status, *found = end.split()
    return int(status), set(found), printed + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        [],
        ["list", "tasks"],
        ["list", "baselines"],
        ["list", "sweeps"],
        ["list", "datasets"],
        ["list", "tasks", "--format", "json"],
        ["list", "--help"],
        ["lsit"],
        ["list", "task"],
    ],
)
def test_help_and_names_import_nothing_heavy(arguments: list[str]) -> None:
    status, found, printed = modules(*arguments)
    assert found == set()
    assert status == (2 if arguments in (["lsit"], ["list", "task"]) else 0)
    assert printed.strip()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_helps_and_importing_it_imports_no_model(verb: str) -> None:
    status, found, printed = modules(verb, "--help")
    assert status == 0
    assert not found & {"torch", "ray", "transformers", "wandb", "scipy"}
    assert "Usage: harness" in printed


def test_the_help_names_every_verb_with_a_line(harness: Run) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        done = harness(*arguments)
        assert done.returncode == 0
        for verb in VERBS:
            assert re.search(rf"^  {verb} +\S", done.stdout, re.MULTILINE), verb
    assert "--debug" in done.stdout


@pytest.mark.parametrize("kind", ["tasks", "baselines", "sweeps", "datasets"])
def test_a_list_has_a_line_of_description_for_every_name_the_users_own_too(harness: Run, kind: str) -> None:
    rows = json.loads(harness("list", kind, "--config-dir", "configs", "--format", "json").stdout)
    assert "toy" in [row["name"] for row in rows]
    assert all(len(row["description"]) > 5 for row in rows)
    printed = harness("list", kind).stdout
    assert printed == harness("list", kind, "--format", "table").stdout
    assert "toy" not in printed
    own = {path.stem for path in (PLUGIN / "configs").glob("*/*.yaml")}
    assert all(row["name"] in printed for row in rows if row["name"] not in own)


@pytest.mark.parametrize("kind", ["fits", "evaluations"])
def test_an_empty_store_lists_nothing(harness: Run, tmp_path: Path, kind: str) -> None:
    done = harness("list", kind, "--output-dir", str(tmp_path), "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
    assert list(tmp_path.iterdir()) == []


def test_what_a_store_holds_is_listed_with_its_predictions(harness: Run, tmp_path: Path) -> None:
    import polars as pl

    store = Store(tmp_path / "store")
    facts = {
        "evaluation": "e1",
        "task": "t",
        "arm": "<b>a|b",
        "fold": 0,
        "seed": 1,
        "setting": "{}",
        "score": 0.5,
        "predictions": "predictions/e1.parquet",
    }
    store.write_record(facts, pl.DataFrame({"n": [1]}))
    store.finish_fit("f1", {"fit": "f1", "stage": "s", "task": "t", "fold": 0, "seed": 1, "seconds": 1.5})
    (row,) = json.loads(harness("list", "evaluations", "--output-dir", str(tmp_path), "--format", "json").stdout)
    assert row == facts
    (row,) = json.loads(harness("list", "fits", "--output-dir", str(tmp_path), "--format", "json").stdout)
    assert (row["fit"], row["stage"], row["seconds"]) == ("f1", "s", 1.5)
    for format in ("table", "markdown", "csv", "latex"):
        done = harness("list", "evaluations", "--output-dir", str(tmp_path), "--format", format)
        assert done.returncode == 0, (format, done.stderr)
        assert "e1" in done.stdout
    done = harness("list", "evaluations", "--output-dir", str(tmp_path), "--format", "parquet", "--output", str(tmp_path / "out.parquet"))
    assert done.returncode == 0
    assert pl.read_parquet(tmp_path / "out.parquet")["evaluation"].to_list() == ["e1"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["lsit"], "no verb is called 'lsit' (harness); did you mean 'list'?"),
        (["list", "task"], "nothing is called 'task' (harness list); did you mean 'tasks'?"),
        (["list", "tasks", "--format", "jsn"], "no format is called 'jsn' (--format jsn); did you mean 'json'?"),
        (["list", "fits", "--format", "jsn"], "did you mean 'json'?"),
        (["status", "--format", "jsn"], "did you mean 'json'?"),
        (["sweep", "toy", "--format", "jsn", "--config-dir", "configs"], "did you mean 'json'?"),
        (["list"], "see `harness list --help`"),
        (["list", "tasks", "--config-dir", "/nowhere"], "no such folder: /nowhere (--config-dir)"),
        (["list", "tasks", "--what"], "--what"),
        (["--what"], "--what"),
        (["sweep", "toi", "--config-dir", "configs"], "did you mean 'toy'?"),
        (["status", "toi", "--config-dir", "configs"], "did you mean 'toy'?"),
        (["status", "output_dir=x"], "name the sweep first, or give --output-dir alone"),
        (["rescore", "--output-dir", "/nowhere"], "no records in /nowhere/store"),
        (["leaderboard", "--output-dir", "/nowhere"], "no records in /nowhere/store"),
        (["compare", "a", "b", "--task", "t", "--output-dir", "/nowhere"], "no records in /nowhere/store"),
        (["compare", "a", "b"], "see `harness compare --help`"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_would_be_right(harness: Run, arguments: list[str], expected: str) -> None:
    done = harness(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert done.stdout == ""


def test_debug_adds_the_traceback_wherever_it_stands(harness: Run) -> None:
    for arguments in (["--debug", "list", "task"], ["list", "--debug", "task"], ["list", "task", "--debug"]):
        done = harness(*arguments)
        assert done.returncode == 2
        assert "Traceback" in done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: nothing is called 'task'")


def test_a_bug_is_one_line_too_and_is_found_with_debug(harness: Run, tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "buggy.yaml").write_text("# A reader that breaks\nname: buggy\ntitle: B\nread: {_target_: buggy.read}\n")
    (tmp_path / "buggy.py").write_text("def read(root):\n    raise ZeroDivisionError('division\\nby zero')\n")
    arguments = ["data", "check", "buggy", str(tmp_path), "--config-dir", str(tmp_path)]
    done = harness(*arguments)
    assert done.returncode == 1
    assert done.stderr == "error: ZeroDivisionError: division by zero (--debug shows where)\n"
    assert 'buggy.py", line 2' in harness(*arguments, "--debug").stderr


def test_a_closed_pipe_is_no_error() -> None:
    script = f"{sys.executable} -c 'from harness.cli import main; main()' list tasks --format json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=PLUGIN, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"
    assert done.stderr == ""


def test_status_of_a_named_sweep_looks_into_the_store_it_is_given(harness: Run, tmp_path: Path) -> None:
    done = harness("status", "toy", "--config-dir", "configs", "--output-dir", str(tmp_path / "there"), "--format", "json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["state"] for row in rows} == {"pending", "impossible"}
    assert (tmp_path / "there" / "cache").is_dir()
