"""Whatever is changed in a store is found by its hash, set aside and done again; what has not changed is not read again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import integrity
from harness import store as stores
from harness.store import Store
from tests.conftest import Run
from tests.harness.test_store import flip, predicted, record, units


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A fit with its files, three evaluations of it in a pack and one that is not."""
    store = Store(tmp_path / "out" / "store")
    store.write(store.fit_folder("fit") / "weights.safetensors", b"weights")
    store.write(store.fit_folder("fit") / "history.json", b"[]")
    digests = {key: integrity.sha256_of(store.fit_folder("fit") / name) for key, name in stores.FIT_FILES.items()}
    store.finish_fit("fit", {"fit": "fit", **digests})
    store.keep_embeddings("fit", "rows", b"embeddings")
    for number in range(4):
        path, sha256 = store.write_predictions(f"e{number}", predicted(number))
        store.write_record(record(f"e{number}", predictions=path, sha256=sha256, provenance=store.put({"kept": number})), units(number))
        if number == 2:
            store.pack()
    store.fail("other", {"error": "loss is not finite"})
    return store


def every_file(store: Store) -> list[Path]:
    return sorted(path for path in store.root.rglob("*") if path.is_file() and not path.name.startswith("."))


FILES = ["weights", "history", "fit.json", "embeddings", ".records.", ".units.", "e3.json", "e1.parquet", "provenance", "failures"]


def test_what_nobody_touched_is_whole_and_stays_as_it_is(store: Store) -> None:
    before = {path: path.read_bytes() for path in every_file(store)}
    assert integrity.check(store) == []
    assert {path: path.read_bytes() for path in every_file(store)} == before


@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:-1])])
@pytest.mark.parametrize("name", FILES)
def test_each_damaged_file_is_found_set_aside_and_said(
    store: Store, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    integrity.check(store)
    path = next(path for path in every_file(store) if name in str(path.relative_to(store.root)))
    if name == "history" and damage is not flip:
        path.write_bytes(b"[ ]")
    damage(path)
    with caplog.at_level(logging.WARNING):
        found = integrity.check(store)
    assert path in found
    assert not path.exists()
    assert path.with_name(f"{path.name}.corrupt").is_file()
    assert str(path) in caplog.text
    lost = {
        ".records.": {"e0", "e1", "e2"},
        ".units.": {"e0", "e1", "e2"},
        "e3.json": {"e3"},
        "e1.parquet": {"e1"},
    }
    done = {"e0", "e1", "e2", "e3"} - lost.get(name, set())
    assert len(store.done()) == 3 if name == "provenance" else store.done() == done
    assert store.lost_fits() == (["fit"] if name in ("weights", "history", "fit.json") else [])
    assert integrity.check(store) == [], "once is enough"


def test_a_file_that_has_not_changed_is_not_read_again_unless_every_file_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(integrity, "_SETTLED_NS", -(10**12))
    monkeypatch.setattr(integrity, "sha256_of", lambda path: read.append(path) or stores.sha256_of(path))
    integrity.check(store)
    assert {path.name for path in read} >= {"e0.parquet", "weights.safetensors"}
    read.clear()
    integrity.check(store)
    assert read == []
    integrity.check(store, every=True)
    assert "e0.parquet" in {path.name for path in read}


def test_of_an_archive_only_the_damaged_member_is_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LOOSE", 2)
    store.pack()
    (archive, *_) = sorted((store.root / "predictions").glob("*.zip"))
    assert store.done() == {"e0", "e1", "e2", "e3"}
    place = archive.read_bytes().index(b"PAR1") + 5
    data = bytearray(archive.read_bytes())
    data[place] ^= 1
    archive.write_bytes(data)
    assert integrity.check(store) == [archive]
    assert store.done() == {"e1", "e2", "e3"}
    path, sha256 = store.write_predictions("e0", predicted(0))
    assert store.read_predictions(path, sha256).equals(predicted(0))
    archive.write_bytes(b"no archive")
    assert integrity.check(store) == [archive]
    assert store.done() == {"e0", "e2", "e3"}


def test_predictions_of_a_record_that_another_store_wrote_are_not_looked_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write_record(record("e"), units(1))
    assert integrity.check(store) == []
    assert store.done() == {"e"}


def test_the_verb_reads_every_file_and_says_what_it_found(store: Store, harness: Run) -> None:
    done = harness("status", "--verify", "--output-dir", str(store.output))
    assert (done.returncode, done.stderr) == (0, "every file is what was written\n")
    path = store.predictions_path("e1")
    flip(path)
    done = harness("status", "--verify", "--output-dir", str(store.output))
    assert done.returncode == 1
    assert f"{path} is not what was written; it is set aside as e1.parquet.corrupt" in done.stderr
    assert "1 files were damaged" in done.stderr
    done = harness("status", "toy", "--verify")
    assert done.returncode == 2
