"""A store as a site: everything there, nothing mixed up, nothing obeyed, the same bytes twice."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pytest

from harness import evaluation, plan, sweep
from harness.errors import RequestError
from harness.publish import folder, inventory, results, site, task_page
from harness.reproducing import Reproducer
from harness.store import Store
from tests.conftest import PLUGIN, Run
from tests.stores import EVIL, LONG, enter, full
from tests.stores import sweep as sweep_folder
from tests.wandb_file import read as read_wandb


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("store")
    full(made)
    return made


@pytest.fixture(scope="module")
def files(output: Path) -> dict[str, bytes]:
    return site.pages(inventory.read(output), output)


class _Page(HTMLParser):
    """Addresses, elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name in ("href", "src") and value and not value.startswith("#")]

    def handle_data(self, data: str) -> None:
        self.text += data


def pages(files: dict[str, bytes]) -> dict[str, _Page]:
    return {name: _Page(data.decode()) for name, data in files.items() if name.endswith(".html")}


def task(files: dict[str, bytes], *having: str) -> str:
    """The one page of a table that says all of these."""
    found = [data.decode() for name, data in files.items() if name.startswith("tasks/") and all(text in data.decode() for text in having)]
    assert len(found) == 1
    return found[0]


def test_every_address_leads_to_a_file_of_the_site_and_every_file_is_reached(files: dict[str, bytes]) -> None:
    reached = {"index.html"}
    for name, page in pages(files).items():
        for link in page.links:
            if link.startswith("https://example.org/"):
                continue
            assert not re.match(r"[a-z]+:|/", link), link
            parts = [*Path(name).parent.parts]
            for part in unquote(link).split("/"):
                parts = parts[:-1] if part == ".." else [*parts, part]
            assert "/".join(parts) in files, (name, link)
            reached.add("/".join(parts))
    assert reached == files.keys()


def test_nothing_is_loaded_and_no_name_is_obeyed(files: dict[str, bytes]) -> None:
    for name, page in pages(files).items():
        if name.startswith("sweeps/"):
            continue
        assert "default-src 'none'" in files[name].decode()
        tags = [tag for tag, _ in page.elements]
        assert tags.count("script") == 1, name
        assert not {"img", "link", "iframe", "object", "base", "form"} & set(tags)
        assert not any(attribute.startswith("on") for _, attributes in page.elements for attribute in attributes)
    assert any(EVIL in page.text for page in pages(files).values())
    assert all(re.fullmatch(r"[a-z0-9_./-]+", name) and ".." not in name for name in files)


def test_two_publishes_of_a_store_are_the_same_bytes(output: Path, files: dict[str, bytes]) -> None:
    script = "import sys, hashlib; from pathlib import Path; from harness.publish import site, inventory, results; o = Path(sys.argv[1]);"
    script += "s = inventory.read(o); f = site.pages(s, o) | results.files(s);"
    script += "print(hashlib.sha256(b''.join(n.encode() + d for n, d in sorted(f.items()))).hexdigest())"
    digests = set()
    for seed in ("1", "2"):  # of Python's hashes of strings: no order of a set may be seen
        done = subprocess.run(
            [sys.executable, "-c", script, str(output)],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, **_environment()},
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}


def test_protocols_versions_and_data_never_share_a_table_and_what_differs_is_said(files: dict[str, bytes]) -> None:
    assert sum(name.startswith("tasks/") for name in files) == 4
    main = task(files, "folds-2", "cheat</a>")
    other = main.split("Not comparable")[1].split("<h2>")[0]
    assert "protocol folds-3, not folds-2" in other
    assert "task version 2, not 1" in other
    assert "d" * 20 not in other
    assert len(re.findall(r"<tr", task(files, "real v1</h1>").split("</tbody>")[0])) == 3
    real = [page for name, page in pages(files).items() if "real v1" in page.text and name.startswith("tasks/")]
    assert "Synthetic data:" not in real[0].text


def test_what_was_scored_on_the_validation_part_is_left_out(files: dict[str, bytes]) -> None:
    assert not any(b"drawn" in data or b"validation-part" in data for data in files.values())


@pytest.mark.parametrize(
    ("arm", "marks"),
    [
        ("old", "methods stale"),
        ("half", "methods partial"),
        ("cheat", "methods oracle"),
        ("sent", "methods submitted"),
        ("mean", "controls"),
    ],
)
def test_rows_that_are_not_as_the_others_say_so(files: dict[str, bytes], arm: str, marks: str) -> None:
    rows = re.findall(rf'<tr[^>]*data-in="([^"]*)"[^>]*>((?:(?!</tr>).)*>{arm}</a>.*?)</tr>', task(files, "folds-2", "cheat</a>"))
    assert rows
    for found, cells in rows:
        assert found == marks
        if arm in ("cheat", "half"):
            assert cells.startswith("<td class=n></td>")  # no rank


def test_what_failed_is_on_the_page_of_its_task_and_what_is_of_none_in_the_index(files: dict[str, bytes]) -> None:
    assert "loss is nan &lt;script&gt;" in task(files, "folds-2", "cheat</a>")
    index = files["index.html"].decode()
    assert "no such task" in index
    assert "loss is nan" not in index


def test_a_row_has_its_scores_config_curves_provenance_and_cost(files: dict[str, bytes]) -> None:
    row = next(
        page
        for name, page in pages(files).items()
        if name.startswith("rows/")
        and "method" in page.text
        and "size 4" in page.text
        and "By subject" in page.text
        and "train" in page.text
    )
    for text in (
        "By fold and seed",
        "seed 1",
        "s0",
        "Learning curves",
        "loss valence",
        "nowhere.Method",
        "Proof of the guard",
        "epochs: 3",
        "harness sweep toys",
        "of wall time",
        "0" * 12,
    ):
        assert text in row.text, text
    sent = next(page for name, page in pages(files).items() if name.startswith("rows/") and "another lab" in page.text)
    assert "https://example.org/paper?a=1&b=2" in sent.links
    assert "nobody here can make them again" in sent.text


def test_long_names_are_cut_where_they_are_headings_and_whole_where_they_are_searched(files: dict[str, bytes]) -> None:
    assert LONG.strip() in task(files, "folds-2", "cheat</a>")
    assert (
        max(
            len(title)
            for title in re.findall(r"<title>(.*?)</title>", "".join(d.decode() for n, d in files.items() if n.startswith("rows/")))
        )
        < 400
    )


def test_only_what_was_published_before_is_removed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    first = folder.replace(tmp_path, {"a.html": b"a", "rows/b.html": b"b"})
    assert (first.written, first.removed, first.same) == (("a.html", "rows/b.html"), (), 0)
    again = folder.replace(tmp_path, {"a.html": b"a2", "c.html": b"c"})
    assert (again.written, again.removed, again.same) == (("a.html", "c.html"), ("rows/b.html",), 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "c.html", "manifest.json", "mine.txt"]
    assert folder.replace(tmp_path, {"a.html": b"a2", "c.html": b"c"}) == folder.Changed((), (), 2)


def test_a_file_of_somebody_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("my home page")
    with pytest.raises(RequestError, match="was not written by this program"):
        folder.replace(tmp_path, {"index.html": b"x"})
    assert (tmp_path / "index.html").read_text() == "my home page"


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/passwd", "a/../../outside.txt", "..\\outside.txt", "", "."])
def test_a_forged_manifest_removes_nothing_outside(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.txt").write_text("keep")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text(json.dumps({"files": {name: "0" * 64}}))
    folder.replace(tmp_path / "site", {"a.html": b"a"})
    assert (tmp_path / "outside.txt").read_text() == "keep"


def test_one_name_of_two_configs_is_told_apart_and_what_was_made_anew_stands_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for lr in (1, 2):
        for written in ("2026-01-01", "2026-01-02"):
            enter(store, "same", skill=0.5, fit=f"{lr}{written}", written=written, provenance={"baseline": {"name": "same", "lr": lr}})
    (table,) = inventory.read(tmp_path).standings
    assert len(table.rows) == 2
    assert all(re.fullmatch(r"same · [0-9a-f]{6}", row.facts["arm"]) for row in table.rows)
    assert {row.records["written"][0] for row in table.rows} == {"2026-01-02"}
    assert any("2 records were made anew" in note for note in table.notes)


def test_numbers_from_papers_stand_in_a_table_of_their_own() -> None:
    block = task_page.reported_block(
        [{"method": EVIL, "ccc": 0.6, "source": "https://arxiv.org/abs/1", "bad": "javascript:alert(1)"}, {"method": "b"}]
    )
    page = _Page(block)
    assert page.links == ["https://arxiv.org/abs/1"]
    assert "not ranked" in page.text
    assert "script" not in [tag for tag, _ in page.elements]
    assert task_page.reported_block([]) == ""


def test_files_for_a_repository_are_stable_and_latex_marks_leader_and_ties(output: Path) -> None:
    shelf = inventory.read(output)
    made = results.files(shelf, [("toy", "harness sweep toys")])
    name = next(path for path, data in made.items() if path.endswith(".tex") and b"cheat" in data)
    text, place = made[name].decode(), name.removesuffix("table.tex")
    assert len(re.findall(r"^\\textbf\{1\} &", text, flags=re.MULTILINE)) == 3
    assert r"\toprule" in text
    assert r"\textless{}script\textgreater{}" in text
    ties = [row for table in shelf.standings if table.name == place[:-1] for row in table.rows if row.facts["tie"]]
    assert len(re.findall(r"^\d+ = &", text, flags=re.MULTILINE)) == len(ties)
    assert b"    harness sweep toys\n" in made[f"{place}table.md"]
    assert "Synthetic data" in made[f"{place}table.md"].decode()
    assert pl.read_parquet(made[f"{place}table.parquet"]).height == text.count("\\\\\n") - 1
    for kind, begins in (("svg", b"<?xml"), ("pdf", b"%PDF")):
        assert made[f"{place}score_over_labels.{kind}"].startswith(begins)
        assert made[f"{place}score_against_cost.{kind}"].startswith(begins)


def test_the_command_writes_what_changed_and_says_so(harness: Run, output: Path, tmp_path: Path) -> None:
    arguments = ("publish", "--output-dir", str(output), "--to", str(tmp_path / "site"), "--results", str(tmp_path / "results"))
    first, second = harness(*arguments), harness(*arguments)
    assert first.returncode == second.returncode == 0, first.stderr
    assert re.findall(r"(\d+) files written, (\d+) as they were", first.stderr)[0][1] == "0"
    assert [found[0] for found in re.findall(r"(\d+) files written", second.stderr)] == ["0", "0"]


def test_no_folder_of_the_machine_is_published(tmp_path: Path) -> None:
    enter(Store(tmp_path / "store"), "method", skill=0.5)
    sweep_folder(tmp_path, "toys", ["method"])
    told = tmp_path / "sweeps" / "toys" / "kept.json"
    command = "harness sweep toys 'output_dir=/home/me & you' task.root=/data/secret --config-dir /home/me/mine"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"command": command}))
    page = tmp_path / "sweeps" / "toys" / "index.html"
    page.write_text(page.read_text().replace("</h1>", f"</h1><pre>{escape(command)}</pre>"))
    Store(tmp_path / "store").fail("f", {"arms": ["method"], "task": "toy", "error": f"no file {Path.home()}/secret"})
    made = b"".join(site.pages(inventory.read(tmp_path), tmp_path).values()).decode(errors="replace")
    assert "harness sweep toys task.root=FOLDER --config-dir mine" in made
    assert "/home/me" not in made
    assert "/data/secret" not in made
    assert f"{Path.home()}/secret" not in made


def test_make_results_says_what_differs_from_the_commit(output: Path, tmp_path: Path) -> None:
    root = PLUGIN.parents[1]

    def run(*words: str) -> str:
        path = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.run(words, cwd=tmp_path, env=path, capture_output=True, text=True, check=True).stdout

    binary = tmp_path / "bin"
    binary.mkdir()
    (binary / "harness").write_text(f'#!/bin/sh\nexec {sys.executable} -c "from harness.cli import main; main()" "$@"\n')
    (binary / "harness").chmod(0o755)
    run("git", "init", "-q")
    make = (
        "make",
        "-f",
        str(root / "Makefile"),
        "-o",
        ".venv/.installed",
        "results",
        "SWEEPS=",
        "BIN=bin",
        f"PUBLISHED={output}",
        "RESULTS=made",
    )
    assert "?? made/" in run(*make)
    run("git", "add", "made")
    run("git", "-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "made")
    assert "made" not in run(*make).split("git status")[-1].replace("-- made", "")
    table = next(tmp_path.glob("made/*/table.md"))
    table.write_text("changed by hand")
    run("git", "-c", "user.name=n", "-c", "user.email=e", "commit", "-qam", "changed")
    assert f" M made/{table.parent.name}/table.md" in run(*make)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((), "give --to DIR"), (("--to", "x", "--online"), "give --wandb"), (("--to", "x", "--output-dir", "nowhere"), "no store")],
)
def test_a_request_that_cannot_be_is_one_line(harness: Run, arguments: tuple[str, ...], says: str) -> None:
    done = harness("publish", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_tables_and_files_are_mirrored_offline_and_no_key_is_kept(harness: Run, output: Path, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    key = "k" * 40
    done = harness(
        "publish", "--wandb", "--output-dir", str(tmp_path / "out"), env={**os.environ, "WANDB_API_KEY": key, "WANDB_MODE": "offline"}
    )
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb")
    found = read_wandb(run)
    assert found["run"]["type"] == "leaderboards"
    assert [kind for _, kind in found["artifacts"]].count("leaderboard") == 4
    assert [kind for _, kind in found["artifacts"]].count("leaderboard-files") == 4
    assert any("score_over_labels" in name for step in found["history"] for name in step)
    assert not any(key.encode() in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def prepared(output: Path, overrides: list[str]) -> sweep.Prepared:
    extra = [PLUGIN / "configs"]
    return sweep.prepare(plan.single([*overrides, f"output_dir={output}"], extra), command="", extra=extra)


@pytest.mark.parametrize(
    "overrides",
    [
        ["task=toy", "baseline=toy", "fold=0,1", "seed=0,1"],
        ["task=toy", "baseline=toy", "trainer.lr=0.0123", "baseline.stages.brightness.width=8", "fold=0"],
        ["task=toy", "baseline=mean_label", "fold=0,1"],
    ],
)
def test_the_command_of_a_row_makes_the_very_evaluations(tmp_path: Path, overrides: list[str]) -> None:
    made = prepared(tmp_path, overrides)
    for job in made.plan.jobs.values():
        evaluation.run(job, made.store)
    baseline = overrides[1].partition("=")[2]
    records = made.store.records().filter(baseline=baseline)
    assert records.height
    for part in records.partition_by("setting"):
        again = Reproducer(made.store, [PLUGIN / "configs"]).again(part.to_dicts())
        assert again.command, again.why_not
        words = shlex.split(again.command)
        assert words[:2] == ["harness", "run"]
        planned = prepared(tmp_path, [word for word in words[2:] if "=" in word])
        assert set(part["evaluation"]) <= set(planned.plan.rows["evaluation"])


def test_a_row_whose_version_has_moved_on_has_no_command(tmp_path: Path) -> None:
    made = prepared(tmp_path, ["task=toy", "baseline=mean_label", "fold=0"])
    for job in made.plan.jobs.values():
        evaluation.run(job, made.store)
    record: dict[str, Any] = made.store.records().filter(baseline="mean_label").row(0, named=True)
    again = Reproducer(made.store, [PLUGIN / "configs"]).again([record | {"evaluation": "0" * 20}])
    assert again.command is None
    assert "other identities" in again.why_not
