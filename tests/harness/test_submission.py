"""Somebody else's predictions: what is right scores as a run does, what is wrong is listed at once and enters nothing."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import zipfile
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness import boards, evaluation, intake, plan, snapshot, submission
from harness.cli import submit_
from harness.errors import RequestError
from harness.plan import Sweep
from harness.rescoring import rescore_task
from harness.store import Store
from harness.submission import Wanted
from tests.conftest import PLUGIN, Run

EXTRA = [PLUGIN / "configs"]
SMALL = ["task.dataset.synth.clips=12", "task.dataset.synth.frames=[20,24]", "task.frames.size=16"]
TASKS: dict[str, list[str]] = {
    "toy": ["evaluate.support.size=2"],
    "toy_units": [],
    "csv_expression": ["task.frames.size=16"],
    "abaw_mtl": SMALL,
}
PREDICTED = ["sample", "valence_pred", "arousal_pred"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder whose store holds a control's run of each task."""
    root: Path = tmp_path_factory.mktemp("home")
    store = Store(root / "store")
    for task, more in TASKS.items():
        sweep = plan.single([f"task={task}", "tracker=none", "baseline=mean_label", *more], EXTRA)
        sweep = Sweep("s", "", {"mean_label": sweep.arms["mean_label"]}, sweep.axes, sweep.overrides)
        made = plan.build(sweep, extra=EXTRA, snapshot_of=lambda node, _: snapshot.take(node, root / "cache"))
        for job in made.jobs.values():
            assert evaluation.run(job, store).failed == 0
    return root


@pytest.fixture
def store(home: Path, tmp_path: Path) -> Store:
    shutil.copytree(home / "store", tmp_path / "out" / "store")
    (tmp_path / "out" / "cache").symlink_to(home / "cache")
    return Store(tmp_path / "out" / "store")


def asked_of(home: Path, task: str, *more: str) -> Wanted:
    return submission.wanted(task, [*TASKS[task], *more], extra=EXTRA, cache=home / "cache")


@pytest.fixture(scope="module")
def asked(home: Path) -> Wanted:
    return asked_of(home, "toy")


def ran(store: Store, task: str) -> pl.DataFrame:
    """What the control's run of a task predicted, without its support frames, all folds in one table."""
    records = store.records().filter(task=task, arm="mean_label").sort("fold")
    parts = [
        store.read_predictions(record["predictions"], record["sha256"]).with_columns(fold=record["fold"])
        for record in records.iter_rows(named=True)
    ]
    return pl.concat(parts).filter(~pl.col("support"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def faults(path: Path, asked: Wanted) -> list[tuple[int | None, str | None, str | None, str]]:
    predictions, found = submission.read(path, asked)
    assert bool(predictions) == found.is_empty()
    return found.rows()


def arguments(task: str, out: Path, *more: str) -> list[str]:
    return ["submit", *more, "--task", task, "--config-dir", "configs", "--output-dir", str(out), *TASKS[task]]


# ── what is right ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_a_run_predicted_scores_as_it_did_to_the_digit(home: Path, store: Store, tmp_path: Path, task: str, kind: str) -> None:
    file = tmp_path / f"theirs.{kind}"
    theirs = ran(store, task).drop("fold").sample(fraction=1, shuffle=True, seed=0)
    theirs.write_csv(file) if kind == "csv" else theirs.write_parquet(file)
    asked = asked_of(home, task)
    predictions, wrong = submission.read(file, asked)
    assert wrong.is_empty(), wrong
    entered = submission.enter(predictions, asked, store, name="theirs", sha256="0" * 64)
    assert not entered.known
    records = store.records().filter(task=task).sort("fold")
    ours, copy = (records.filter(arm=arm) for arm in ("mean_label", "theirs"))
    assert copy.height == ours.height == len(asked.folds)
    for before, after in zip(ours["metrics"], copy["metrics"], strict=True):
        assert {k: v for k, v in json.loads(before).items() if "subject" not in k} == {
            k: v for k, v in json.loads(after).items() if "subject" not in k
        }, "but for retrieval, which asks for embeddings"
    same = ["protocol", "data", "setting", "labels_used", "n_samples", "n_clips", "n_subjects", "synthetic", "seed"]
    assert copy.select(same).equals(ours.select(same))
    assert set(copy["selection"]) == {"submitted"}
    (board,) = boards.of_task(store, task)
    row = board.table.filter(arm="theirs").row(0, named=True)
    assert row["note"] == "submitted"
    assert row["rank"] is not None
    if row["score"]:
        assert row["lo"] is not None


def test_it_is_scored_again_and_listed_as_any_other(home: Path, store: Store, asked: Wanted, tmp_path: Path) -> None:
    file = tmp_path / "theirs.parquet"
    ran(store, "toy").select(PREDICTED).write_parquet(file)
    submission.enter(submission.read(file, asked)[0], asked, store, name="theirs", sha256="1" * 64, paper="https://a.b/c", by="A lab")
    before = store.records()
    again = rescore_task("toy", store, EXTRA)
    assert (again.changed, again.problems) == (0, [])
    assert store.records()["evaluation"].equals(before["evaluation"])
    (board,) = boards.of_task(store, "toy")
    assert any(line.startswith("theirs: predictions sent in by A lab") and "https://a.b/c" in line for line in board.notes)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_template_is_filled_in_and_submitted(home: Path, store: Store, tmp_path: Path, task: str, kind: str) -> None:
    asked = asked_of(home, task)
    file = tmp_path / f"template.{kind}"
    file.write_bytes(submission.template(asked, parquet=kind == "parquet"))
    empty = pl.read_csv(file, comment_prefix="#", infer_schema=False) if kind == "csv" else pl.read_parquet(file)
    assert not set(empty.columns) & {"valence", "arousal", "expression", "au1", "support"}
    assert empty.height == asked.rows.height
    filled = empty.drop([name for name in empty.columns if "_p_" in name or name.endswith("_pred")])
    known = ran(store, task)
    filled = filled.join(known.select("sample", pl.col("^.*_(pred|p_.*)$")), on="sample", how="left", maintain_order="left")
    if kind == "csv":
        head = [line for line in file.read_text().splitlines() if line.startswith("#")]
        file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*head, *filled.write_csv().splitlines()]).encode())
    else:
        filled.write_parquet(file, metadata=asked.facts)
    predictions, wrong = submission.read(file, asked)
    assert wrong.is_empty(), wrong
    assert sorted(predictions) == [(fold, 0) for fold in asked.folds]


def test_one_fold_may_be_entered_and_is_shown_as_a_part(home: Path, store: Store, tmp_path: Path) -> None:
    asked = asked_of(home, "toy", "fold=1")
    file = tmp_path / "one.csv"
    ran(store, "toy").filter(fold=1).select(PREDICTED).write_csv(file)
    submission.enter(submission.read(file, asked)[0], asked, store, name="part", sha256="2" * 64)
    (board,) = boards.of_task(store, "toy")
    row = board.table.filter(arm="part").row(0, named=True)
    assert (row["rank"], row["note"]) == (None, "1 of 2 folds; submitted")


def test_several_seeds_are_records_of_their_own_and_each_must_be_whole(store: Store, asked: Wanted, tmp_path: Path) -> None:
    file = tmp_path / "seeds.csv"
    one = ran(store, "toy").select("fold", *PREDICTED)
    both = pl.concat([one.with_columns(seed=0), one.with_columns(seed=3)])
    both.write_csv(file)
    assert sorted(submission.read(file, asked)[0]) == [(0, 0), (0, 3), (1, 0), (1, 3)]
    both.head(-1).write_csv(file)
    assert [(row, what) for row, _, _, what in faults(file, asked)] == [(None, "is not predicted with seed 3 (fold 1)")]


def test_the_files_of_abaw_are_taken(home: Path, store: Store, tmp_path: Path) -> None:
    asked = asked_of(home, "abaw_mtl")
    records = store.records().filter(task="abaw_mtl", arm="mean_label").row(0, named=True)
    ours = store.read_predictions(records["predictions"], records["sha256"])
    from harness.samples import Problems

    ((name, text),) = asked.task.submission(ours, Problems()).items()
    file = tmp_path / name
    file.write_text(text)
    predictions, wrong = submission.read(file, asked)
    assert wrong.is_empty(), wrong
    assert predictions[0, 0]["expression_pred"].equals(ours["expression_pred"])
    lines = text.splitlines()
    file.write_text("\n".join([lines[0], lines[2], lines[2], "nowhere/00001.jpg" + ",0" * 15, lines[3].rpartition(",")[0], *lines[5:]]))
    said = {(row, what.split(" ")[0]) for row, _, _, what in faults(file, asked)}
    assert said == {(3, "stands"), (4, "no"), (5, "wrong"), (None, "is")}
    file.write_text("image,valence,arousal\n" + "\n".join(lines[1:]))
    with pytest.raises(RequestError, match="no submission to the mtl challenge"):
        submission.read(file, asked)


def test_a_folder_of_a_file_a_video_is_taken(home: Path, tmp_path: Path) -> None:
    more = ["task.dataset.synth.clips=12", "task.dataset.synth.frames=[20,24]", "task.frames.size=16"]
    asked = submission.wanted("abaw_va", more, cache=home / "cache")
    rows = asked.rows
    for (clip,), own in rows.group_by("clip"):
        last = int(own["frame"].max())  # type: ignore[arg-type]
        (tmp_path / f"{clip}.txt").write_text("\n".join(["valence,arousal", *["0.5,-0.5"] * last]) + "\n")
    found = faults(tmp_path, asked)
    assert {what.split(" (")[0] for *_, what in found} <= {"no sample of the test part"}, "frames that no image is of"
    assert len({sample for _, sample, _, _ in found}) == len(found)


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_everything_wrong_is_listed_by_row_at_once(store: Store, asked: Wanted, tmp_path: Path) -> None:
    rows = ran(store, "toy").select(PREDICTED).rows()
    support = asked.tests[0].filter("support")["sample"][0]
    names = [row[0] for row in rows]
    lines = ["sample,valence_pred,arousal_pred", *(f"{name},{v},{a}" for name, v, a in rows)]
    lines[1] = f"{names[0]},nan,inf"
    lines[2] = f"{names[1]},1.5,-1.01"
    lines[3] = f"{names[2]},,x"
    lines[4] = lines[5]
    lines[6] = "../../etc/passwd,0,0"
    lines[7] = "<script>alert(1)</script>,0,0"
    lines += [f"{support},0,0", f'"{names[7]}",0.1', '"a""b, c",0,0']
    file = tmp_path / "wrong.csv"
    file.write_text("\r\n".join(lines))
    last = len(lines)
    found = set(faults(file, asked))
    assert found == {
        (2, names[0], "arousal_pred", "inf is not finite"),
        (2, names[0], "valence_pred", "NaN is not finite"),
        (3, names[1], "arousal_pred", "-1.01 is outside -1..1"),
        (3, names[1], "valence_pred", "1.5 is outside -1..1"),
        (4, names[2], "arousal_pred", "'x' is no number"),
        (4, names[2], "valence_pred", "is empty"),
        (6, names[4], None, "stands twice: first in row 5"),
        (7, "../../etc/passwd", None, "no sample of the test part (folds 0, 1)"),
        (8, "<script>alert(1)</script>", None, "no sample of the test part (folds 0, 1)"),
        (last - 2, support, None, "a support frame: its label was given, so it is not predicted"),
        (last - 1, names[7], None, "2 cells, where 3 belong"),
        (last, 'a"b, c', None, "no sample of the test part (folds 0, 1)"),
        (None, names[3], None, "is not predicted (fold 0)"),
        (None, names[5], None, "is not predicted (fold 0)"),
        (None, names[6], None, "is not predicted (fold 0)"),
    }


def test_a_vocabulary_and_probabilities_are_checked(home: Path, store: Store, tmp_path: Path) -> None:
    asked = asked_of(home, "csv_expression")
    known = ran(store, "csv_expression").select("sample", "expression_pred", pl.col("^expression_p_.*$"))
    rows = known.to_dicts()
    rows[0]["expression_pred"] = "happiness"
    rows[1]["expression_p_happy"] += 0.5
    rows[2]["expression_p_sad"] = -0.1
    file = tmp_path / "e.parquet"
    pl.DataFrame(rows).write_parquet(file)
    first, second, third = faults(file, asked)
    assert (first[0], first[2], first[3][:36]) == (1, "expression_pred", "'happiness' is none of the classes: ")
    assert (second[0], second[2]) == (2, "expression_p_…")
    assert third == (3, rows[2]["sample"], "expression_p_sad", "-0.1 is outside 0..1")
    pl.DataFrame(rows[3:]).drop("expression_p_sad").write_parquet(file)
    assert (None, None, "expression_p_sad", "the column is missing") in faults(file, asked)
    known.drop("expression_pred").write_parquet(file)
    predictions, wrong = submission.read(file, asked)
    assert wrong.is_empty()
    assert predictions[0, 0]["expression_pred"].null_count() == 0, "the likeliest is the answer"


def test_another_protocol_version_setting_or_data_is_refused(home: Path, store: Store, asked: Wanted, tmp_path: Path) -> None:
    file = tmp_path / "other.parquet"
    other = asked_of(home, "toy", "task.folds=3", "evaluate.support.size=4")
    ran(store, "toy").select(PREDICTED).write_parquet(file, metadata=other.facts | {"task_version": "2", "data": "x"})
    assert {column for _, _, column, _ in faults(file, asked)} == {"protocol", "task_version", "setting", "data"}
    _, wrong = submission.read(file, asked, claims={"protocol": "another", "task_version": None})
    assert any("beside it 'another' is said" in what for what in wrong["what"])
    with pytest.raises(RequestError, match="no validation part"):
        submission.wanted("toy_units", ["evaluate.threshold=validation"], extra=EXTRA, cache=home / "cache")


def hostile(folder: Path) -> dict[str, Path]:
    """Files that nobody would want to read."""
    small = pa.table({"sample": ["a"] * 10, "valence_pred": [0.0] * 10, "arousal_pred": [0.0] * 10})
    plain = io.BytesIO()
    pq.write_table(small, plain, compression="none")
    data = plain.getvalue()
    found = {
        "claims a footer of 10 GB": data[:-8] + struct.pack("<I", 0xFFFFFFFF) + b"PAR1",
        "claims a footer of 1 GB": data[:-8] + struct.pack("<I", 1 << 30) + b"PAR1",
        "is cut": data[: len(data) // 2],
        "has no footer": b"PAR1" + b"\0" * 100,
        "has a footer of noise": b"PAR1" + bytes(range(256)) * 4 + struct.pack("<I", 1000) + b"PAR1",
        "is binary": b"\x7fELF" + bytes(range(256)),
        "is no UTF-8": b"sample,valence_pred\n\xff\xfe,0\n",
        "has an enormous field": b"sample,valence_pred,arousal_pred\n" + b"x" * 5000 + b",0,0\n",
        "has an enormous line": b"sample," + b"y" * 1_000_000,
        "never ends its quote": b'sample,valence_pred\n"' + b"x,\n" * 5000,
        "has two columns of a name": b"sample,sample,valence_pred,arousal_pred\na,b,0,0\n",
        "has 1000 columns": b"sample," + b",".join(b"c%d" % n for n in range(1000)) + b"\n",
        "is empty": b"",
        "is one new line": b"\n",
    }
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("a", b"\0" * 10_000_000)
    found["is a zip"] = (folder / "bomb.zip").read_bytes()
    paths = {}
    for name, text in found.items():
        paths[name] = folder / f"{name}{'.parquet' if text[:4] == b'PAR1' else '.csv'}"
        paths[name].write_bytes(text)
    tables = {
        "has lists": pa.table({"sample": ["a"], "valence_pred": [[0.1]], "arousal_pred": [0.0]}),
        "has a long cell": pa.table({"sample": ["a" * 100_000], "valence_pred": [0.1], "arousal_pred": [0.0]}),
    }
    for name, table in tables.items():
        paths[name] = folder / f"{name}.parquet"
        pq.write_table(table, paths[name])
    return paths


def test_hostile_files_are_one_line_each_and_change_nothing(store: Store, asked: Wanted, tmp_path: Path) -> None:
    before = content(store.root)
    for name, path in hostile(tmp_path).items():
        try:
            predictions, wrong = submission.read(path, asked)
        except RequestError as error:
            told = str(error)
            assert len(told) < 600, name
            assert "\n" not in told, name
        else:
            assert not predictions, name
            assert wrong.height, name
    assert content(store.root) == before


def test_bombs_are_refused_by_their_footer_and_where_that_is_small_while_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "bomb.parquet", tmp_path / "out.arrow"
    monkeypatch.setattr(intake, "DECODED", 1 << 20)
    monkeypatch.setattr(intake, "ROWS", 20_000)
    zeros = pa.table({"sample": pa.array([f"{n:0900}" for n in range(10_000)])})
    pq.write_table(zeros, file, compression="zstd", use_dictionary=False)
    assert file.stat().st_size < 1 << 20
    with pytest.raises(RequestError, match=r"its footer says .* GiB of values"):
        intake.decode(file, out, ["sample"])
    pq.write_table(pa.table({"sample": ["x" * 900] * 20_000}), file)  # once in a dictionary: 18 MB from a few hundred bytes
    assert file.stat().st_size < 10_000
    with pytest.raises(RequestError, match="larger than it says"):
        intake.decode(file, out, ["sample"])
    pq.write_table(pa.table({"sample": ["x"] * 20_001}), file)
    with pytest.raises(RequestError, match="its footer says 20001 rows"):
        intake.decode(file, out, ["sample"])


@pytest.mark.parametrize("rows", [2**62, 10_000_000_000, -1])
def test_a_footer_that_claims_too_many_rows_is_refused_before_anything_is_decoded(tmp_path: Path, rows: int) -> None:
    class Claims:
        num_rows, num_columns, num_row_groups = rows, 3, 0

    with pytest.raises(RequestError, match=f"its footer says {rows} rows"):
        intake._check_metadata(Claims(), pa.schema([]))


def test_a_footer_whose_numbers_were_changed_is_refused(asked: Wanted, tmp_path: Path) -> None:
    file = tmp_path / "lies.parquet"
    pq.write_table(pa.table({"sample": [str(n) for n in range(100)]}), file)
    data = file.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    ours, theirs = b"\x16\xc8\x01", b"\x16" + b"\xfe" * 8 + b"\x01"  # 100 rows as a zigzag varint, and some 2^60 of them
    footer = data[start:-8].replace(ours, theirs)
    assert footer != data[start:-8]
    file.write_bytes(data[:start] + footer + struct.pack("<I", len(footer)) + b"PAR1")
    with pytest.raises(RequestError, match=r"its footer says|no readable Parquet"):
        submission.read(file, asked)


def test_mangled_files_end_in_problems_or_one_line(store: Store, asked: Wanted, tmp_path: Path) -> None:
    rng = random.Random(0)
    good = ran(store, "toy").select(PREDICTED)
    sources = {"m.csv": good.write_csv().encode(), "m.parquet": b""}
    buffer = io.BytesIO()
    good.write_parquet(buffer)
    sources["m.parquet"] = buffer.getvalue()
    out, wanted = tmp_path / "out.arrow", ["sample", "fold", "seed", *PREDICTED[1:]]
    for turn in range(240):
        name = ("m.csv", "m.parquet")[turn % 2]
        data = bytearray(sources[name])
        for _ in range(rng.choice((1, 3, 30))):
            place = rng.randrange(len(data)) if rng.random() < 0.5 else max(0, len(data) - 1 - rng.randrange(400))
            how = rng.randrange(3)
            if how == 0:
                data[place] = rng.randrange(256)
            elif how == 1:
                del data[place : place + rng.randrange(1, 40)]
            else:
                data[place:place] = rng.randbytes(rng.randrange(1, 20))
        file = tmp_path / name
        file.write_bytes(data)
        try:
            if name == "m.parquet" and turn % 20 != 1:  # a process of its own for some; all the same code
                intake.weigh(file)
                intake.decode(file, out, wanted)
                pl.read_ipc(out.read_bytes())
            else:
                submission.read(file, asked)
        except RequestError as error:
            told = str(error)
            assert "\n" not in told


# ── the verb ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "ftp://a.b", "https://", "https://u:p@a.b", 'https://a.b/"><script>', "http://[", "x"]
)
def test_a_paper_is_a_plain_address(url: str) -> None:
    with pytest.raises(RequestError, match="no address of a paper"):
        submission.check_paper(url)
    assert submission.check_paper("https://arxiv.org/abs/2308.02173") == "https://arxiv.org/abs/2308.02173"


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "\udcff", "ridge"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(RequestError):
        submission.check_name(name, ["ridge"])


def test_names_are_only_ever_shown(store: Store, asked: Wanted, tmp_path: Path) -> None:
    from harness.publish.page import page
    from harness.publish.tables import readable, render

    file = tmp_path / "n.csv"
    ran(store, "toy").select(PREDICTED).write_csv(file)
    predictions, _ = submission.read(file, asked)
    before = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_dir()}
    for number, name in enumerate(["../../x", "<script>alert(1)</script>", "a\x1b[31m|b\u202e"]):
        submission.enter(predictions, asked, store, name=name, sha256=str(number) * 64)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_dir()} == before
    assert all(
        set(path.name) <= set("0123456789abcdef.-recodsunitpqj") for path in store.root.rglob("*.*") if path.parent.name == "records"
    )
    (board,) = boards.of_task(store, "toy")
    html = page(board.table, title="t", question="", primary="ccc", command="", synthetic=True, notes=board.notes)
    assert "<script>alert" not in html
    for format in ("table", "markdown", "latex"):
        text = str(render(readable(board.table), format, notes=board.legend))
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script>" not in str(render(readable(board.table), "markdown", notes=board.legend))


def test_the_same_file_is_one_record_and_another_needs_replace(store: Store, asked: Wanted, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    good = ran(store, "toy").select(PREDICTED)
    good.write_csv(file)
    predictions, _ = submission.read(file, asked)
    assert submission.enter(predictions, asked, store, name="m", sha256="a" * 64).known is False
    before = content(store.root)
    assert submission.enter(predictions, asked, store, name="m", sha256="a" * 64).known
    assert content(store.root) == before
    with pytest.raises(RequestError, match="'m' stands already: another file"):
        submission.enter(predictions, asked, store, name="m", sha256="b" * 64)
    with pytest.raises(RequestError, match="'mean_label' was run here"):
        submission.enter(predictions, asked, store, name="mean_label", sha256="b" * 64)
    assert content(store.root) == before
    store.pack()
    assert submission.enter(predictions, asked, store, name="m", sha256="b" * 64, replace=True).replaced == 2
    mine = store.records().filter(arm="m")
    assert mine.height == 2
    assert {store.provenance(address)["submission"]["sha256"] for address in mine["provenance"]} == {"b" * 64}
    assert len(boards.of_task(store, "toy")) == 1


def test_the_verb_from_template_to_leaderboard(harness: Run, store: Store, tmp_path: Path) -> None:
    out, file = store.root.parent, tmp_path / "theirs.csv"
    ran(store, "toy").select(PREDICTED).write_csv(file)
    done = harness(*arguments("toy", out, str(file), "--name", "Théirs", "--check"))
    assert done.returncode == 0, done.stderr
    assert "nothing is wrong" in done.stderr
    assert "Théirs" not in set(store.records()["arm"])
    done = harness(*arguments("toy", out, str(file), "--name", "Théirs", "--paper", "https://a.b/c"))
    assert done.returncode == 0, done.stderr
    done = harness("leaderboard", "toy", "--output-dir", str(out))
    assert "Théirs" in done.stdout
    assert "submitted" in done.stdout
    assert "https://a.b/c" in done.stdout
    before = content(store.root)
    file.write_text(file.read_text().replace("0.", "7.", 1) + "x,0,0\n")
    done = harness(*arguments("toy", out, str(file), "--name", "Other", "--format", "json", "--problems", "1"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert len(json.loads(done.stdout)) == 1
    assert done.stderr.splitlines()[-1].startswith("error: theirs.csv: ")
    assert "harness status" not in done.stderr
    assert content(store.root) == before
    status = json.loads(harness("status", "--output-dir", str(out), "--format", "json").stdout)
    assert {row["state"] for row in status if row["arm"] == "Théirs"} == {"submitted"}


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["nowhere.csv", "--name", "n"], "no such file: nowhere.csv"),
        (["--name", "n"], "0 files are given"),
        (["a.csv", "--name", ""], "the name ''"),
        (["a.csv", "--name", "n", "--paper", "javascript:alert(1)"], "no address of a paper"),
        (["a.csv", "--name", "n", "--set", "support.sise=4"], "did you mean"),
        (["a.csv", "--template", "t.csv"], "leave FILE out"),
        (["--template", "t.xlsx"], "neither .csv nor .parquet"),
        (["a.csv", "--name", "n", "fold=7"], "fold 7 is not there"),
        (["a.csv", "--name", "n", "seed=1"], "in a column"),
    ],
)
def test_a_request_that_cannot_be_is_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], line: str
) -> None:
    from harness.cli import main

    monkeypatch.chdir(PLUGIN)
    monkeypatch.setattr("sys.argv", ["harness", *arguments("toy", home, *more)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    told = [text for text in capsys.readouterr().err.splitlines() if not text.startswith("reading frames")]
    assert len(told) == 1, told
    assert line in told[0]
    assert submit_.SHOWN == 50


def test_what_is_stale_or_failed_is_said_beside_the_rank(store: Store) -> None:
    record = store.records().filter(task="toy").row(0, named=True)
    known = store.provenance(record["provenance"])
    old = store.put(known | {"sources": {"tasks.few_shot.FewShotVideo": "of old"}})
    store.write_record({**record, "provenance": old}, store.units([record["evaluation"]]).drop("evaluation"))
    store.fail("f1", {"task": "toy", "arms": ["mean_label", "gone"], "error": "out of memory"})
    store.fail("f2", {"task": "another", "arms": ["mean_label"], "error": "x"})
    (board,) = boards.of_task(store, "toy")
    assert board.table.filter(arm="mean_label")["note"].to_list() == ["stale: 1 of 2 records; 1 failed"]
    assert "gone: 1 failed: out of memory." in board.notes
    assert any(line.startswith("stale: ") for line in board.notes)
