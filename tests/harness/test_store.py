"""The store keeps what is finished, whatever happens to whoever writes it."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import polars as pl
import pytest

from harness.errors import RequestError
from harness.store import RECORD, Store, write_atomically


def record(name: str, score: float = 0.5, **more: object) -> dict[str, object]:
    return {**dict.fromkeys(RECORD), "evaluation": name, "score": score, "arm": "a", **more}


def units(value: float) -> pl.DataFrame:
    return pl.DataFrame({"subject": ["s", "t"], "clip": ["c", "d"], "n": [value, value]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_an_empty_store_has_records_of_the_right_columns(store: Store) -> None:
    assert store.records().schema == pl.Schema(RECORD)
    assert store.done() == set()
    assert store.units(["x"]).is_empty()
    assert store.fits() == []


def test_packing_changes_nothing_that_is_read(store: Store) -> None:
    for number in range(5):
        store.write_record(record(f"e{number}", number / 10), units(number))
    before, sums = store.records(), store.units(["e1", "e3"]).sort("evaluation", "clip")
    store.pack()
    assert not list((store.root / "records").glob("*.json"))
    assert store.records().equals(before)
    assert store.units(["e1", "e3"]).sort("evaluation", "clip").equals(sums)
    assert store.done() == {f"e{number}" for number in range(5)}


def test_sums_of_one_task_have_no_columns_of_another_that_was_packed_with_it(store: Store) -> None:
    """A table over classes that only another task tells apart used to ask for cells that neither has."""
    clips = {"subject": ["s", None], "clip": ["c", "d"]}
    store.write_record(record("seven"), pl.DataFrame(clips | {"expression.sad.sad": [1, 2]}))
    store.write_record(
        record("eight"), pl.DataFrame(clips | {"expression.other.other": [3, 4], "valence.n": [0, 0], "valence.y": [None, None]})
    )
    store.pack()
    assert set(store.units(["seven"]).columns) == {"evaluation", "subject", "clip", "expression.sad.sad"}
    assert set(store.units(["eight"]).columns) == {"evaluation", "subject", "clip", "expression.other.other", "valence.n", "valence.y"}


def test_a_record_written_again_replaces_the_packed_one_and_its_sums(store: Store) -> None:
    store.write_record(record("e", 0.1), units(1))
    store.pack()
    for number in range(2, 16):
        store.write_record(record("e", number / 10), units(number))
        store.pack()
        assert store.records()["score"].to_list() == [number / 10]
        assert store.units(["e"])["n"].to_list() == [number, number]
        assert len(list((store.root / "records").glob("*.records.parquet"))) == 1


def test_a_death_between_packing_and_removing_leaves_each_record_once(store: Store) -> None:
    store.write_record(record("e"), units(1))
    loose = (store.root / "records" / "e.json").read_bytes()
    store.pack()
    (store.root / "records" / "e.json").write_bytes(loose)
    assert store.records().height == 1
    assert store.units(["e"]).height == 2
    store.pack()
    assert store.records().height == 1
    assert store.units(["e"]).height == 2


def test_a_half_written_record_is_set_aside_and_counts_as_missing(store: Store) -> None:
    store.write_record(record("good"), units(1))
    store.write_record(record("bad"), units(1))
    path = store.root / "records" / "bad.json"
    path.write_bytes(path.read_bytes()[:40])
    assert store.records()["evaluation"].to_list() == ["good"]
    assert store.done() == {"good"}
    assert path.with_name("bad.json.corrupt").is_file()


def test_changed_predictions_are_refused_and_set_aside(store: Store) -> None:
    frame = pl.DataFrame({"sample": ["a"], "valence_pred": [0.5]})
    path, sha256 = store.write_predictions("e", frame)
    assert store.read_predictions(path, sha256).equals(frame)
    file = store.root / path
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(RequestError, match="not what was written"):
        store.read_predictions(path, sha256)
    assert not file.exists()
    with pytest.raises(RequestError, match="are gone"):
        store.read_predictions(path, sha256)


def test_provenance_shared_by_many_is_kept_once(store: Store) -> None:
    assert store.put({"a": 1}) == store.put({"a": 1})
    assert store.put({"a": 2}) != store.put({"a": 1})
    assert store.provenance(store.put({"a": 2})) == {"a": 2}
    assert len(list((store.root / "provenance").iterdir())) == 2
    assert store.provenance("nothing") == {}


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RequestError, match="the disk is full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def _hold(root: str, ready: object) -> None:
    with Store(Path(root)).lock("f"):
        ready.set()  # type: ignore[attr-defined]
        time.sleep(60)


def test_the_lock_of_a_killed_process_is_free_again(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(str(store.root), ready))
    holder.start()
    assert ready.wait(30)
    assert store.running("f")
    holder.kill()
    holder.join()
    assert not store.running("f")
    with store.lock("f"):
        pass


def test_failures_are_remembered_until_forgotten(store: Store) -> None:
    store.fail("f", {"error": "loss is not finite"})
    assert store.failures() == {"f": {"error": "loss is not finite"}}
    store.forget_failure("f")
    store.forget_failure("f")
    assert store.failures() == {}


def test_a_finished_fit_is_known_by_the_file_written_last(store: Store) -> None:
    store.fit_folder("f").mkdir(parents=True)
    (store.fit_folder("f") / "weights.safetensors").write_bytes(b"")
    assert store.fit("f") is None
    store.finish_fit("f", {"fit": "f", "seconds": 1.0})
    assert store.fit("f") == {"fit": "f", "seconds": 1.0}
    (store.fit_folder("f") / "fit.json").write_text(json.dumps({"fit": "f"})[:-3])
    assert store.fit("f") is None
