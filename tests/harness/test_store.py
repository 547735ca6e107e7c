"""The store keeps what is finished, whatever happens to whoever writes it."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from harness import archives
from harness import store as stores
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


def flip(path: Path, place: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[min(int(len(data) * place), len(data) - 1)] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 1.0])
def test_one_changed_bit_anywhere_in_a_record_or_a_failure_is_found(store: Store, place: float) -> None:
    store.write_record(record("good"), units(1))
    store.write_record(record("bad"), units(1))
    store.fail("f", {"error": "loss is not finite"})
    store.fail("g", {"error": "loss is not finite"})
    flip(store.root / "records" / "bad.json", place)
    flip(store.root / "failures" / "g.json", place)
    assert store.done() == {"good"}
    assert set(store.failures()) == {"f"}
    assert (store.root / "records" / "bad.json.corrupt").is_file()
    assert (store.root / "failures" / "g.json.corrupt").is_file()


@pytest.mark.parametrize("kind", ["records", "units"])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 1.0])
def test_a_damaged_pack_is_set_aside_with_its_partner_and_the_other_packs_count(store: Store, kind: str, place: float) -> None:
    for names in (("a", "b"), ("c",)):  # the second pack is smaller than the first, so both stay
        for name in names:
            store.write_record(record(name), units(1))
        store.pack()
    first, second = (sorted((store.root / "records").glob(f"*.{kind}.parquet")) for kind in ("records", "units"))
    assert len(first) == len(second) == 2
    flip((first if kind == "records" else second)[0], place)
    assert store.done() == {"c"}
    assert store.records()["evaluation"].to_list() == ["c"]
    assert store.units(["a", "b", "c"])["evaluation"].unique().to_list() == ["c"]
    assert len(list((store.root / "records").glob("*.corrupt"))) == 2
    for name in ("a", "b"):
        store.write_record(record(name), units(2))
    store.pack()
    assert store.done() == {"a", "b", "c"}


def test_provenance_that_was_changed_is_none_and_its_records_are_not_done(store: Store) -> None:
    name = store.put({"a": 1, "b": "text"})
    store.write_record(record("e", provenance=name), units(1))
    assert store.done() == {"e"}
    flip(store.root / "provenance" / f"{name}.json")
    assert store.provenance(name) == {}
    assert store.done() == set()
    assert store.put({"a": 1, "b": "text"}) == name
    assert store.done() == {"e"}


def test_an_evaluation_without_its_predictions_is_not_done(store: Store) -> None:
    frame = pl.DataFrame({"sample": ["a"], "valence_pred": [0.5]})
    for name in ("e", "f"):
        path, sha256 = store.write_predictions(name, frame)
        store.write_record(record(name, predictions=path, sha256=sha256), units(1))
    assert store.done() == store.done(["e", "f"]) == {"e", "f"}
    (store.root / "predictions" / "e.parquet").unlink()
    assert store.done() == store.done(["e", "f"]) == {"f"}


def test_a_store_from_before_there_were_hashes_is_read(store: Store) -> None:
    """Its JSON is plain, and the names of its packs have an address of the evaluations in them."""
    store.write_record(record("packed"), units(1))
    store.pack()
    for path in (store.root / "records").glob("*.parquet"):
        path.rename(path.with_name("000001-" + "0" * 20 + path.name[path.name.index(".") :]))
    old = {"record": record("loose"), "units": {"subject": ["s"], "clip": ["c"], "n": [1.0]}}
    (store.root / "records" / "loose.json").write_text(json.dumps(old, sort_keys=True))
    (store.root / "failures").mkdir()
    (store.root / "failures" / "f.json").write_text(json.dumps({"error": "e"}, indent=1))
    store.fit_folder("fit").mkdir(parents=True)
    (store.fit_folder("fit") / "fit.json").write_text(json.dumps({"fit": "fit"}, indent=1))
    assert store.done() == {"packed", "loose"}
    assert store.failures() == {"f": {"error": "e"}}
    assert store.fit("fit") == {"fit": "fit"}
    assert store.whole("fit")
    assert set(store.units(["packed", "loose"])["evaluation"]) == {"packed", "loose"}


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


def test_packs_merge_as_binary_digits_carry_and_whole_ones_never_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every eighth pack used to be a merge of all there was, so that packing a store of n records took n² time."""
    monkeypatch.setattr(stores, "WHOLE", 16)
    written: list[int] = []
    write = Store._write_pack

    def counted(self: Store, number: int, kind: str, frame: pl.DataFrame) -> Path:
        written.append(frame.height if kind == "records" else 0)
        return write(self, number, kind, frame)

    monkeypatch.setattr(Store, "_write_pack", counted)
    for batch in range(32):
        for number in range(2):
            store.write_record(record(f"e{batch:02d}-{number}"), units(batch))
        store.pack()
        packs = sorted((store.root / "records").glob("*.records.parquet"))
        sizes = [pl.read_parquet(path).height for path in packs]
        grown = [size for size in sizes if size < 16]
        assert grown == sorted(set(grown), reverse=True), "an older pack is larger"
        assert sum(sizes) == 2 * (batch + 1)
    assert sum(written) == 4 * (2 + 4 + 2 + 8 + 2 + 4 + 2 + 16)
    assert store.units(["e00-0"])["n"].to_list() == [0, 0]


def test_packing_waits_until_there_are_too_many(store: Store) -> None:
    for number in range(3):
        store.write_record(record(f"e{number}"), units(number))
    store.pack(above=3)
    assert len(list((store.root / "records").glob("*.json"))) == 3
    store.pack(above=2)
    assert not list((store.root / "records").glob("*.json"))


def test_a_reader_misses_nothing_that_is_packed_or_merged_while_it_reads(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_record(record("old"), units(1))
    store.pack()
    store.write_record(record("new"), units(2))
    listed = Store._packs

    def packed_meanwhile(self: Store, kind: str) -> list[Path]:
        found = listed(self, kind)
        monkeypatch.setattr(Store, "_packs", listed)
        self.pack()
        return found

    reads: list[Callable[[], Iterable[str]]] = [
        lambda: store.records()["evaluation"],
        store.done,
        lambda: store.units(["old", "new", "newer", "newest"])["evaluation"],
    ]
    wanted = {"old", "new"}
    for read, more in zip(reads, ("newer", "newest", "last"), strict=True):
        monkeypatch.setattr(Store, "_packs", packed_meanwhile)
        assert {*read()} == wanted
        store.write_record(record(more), units(3))
        wanted.add(more)


@pytest.fixture
def archived(store: Store, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    """Five predictions in three archives, and one that is still loose."""
    monkeypatch.setattr(stores, "LOOSE", 2)
    written = {}
    for number in range(5):
        name = f"e{number}"
        written[name] = store.write_predictions(name, predicted(number))
        store.write_record(record(name, predictions=written[name][0], sha256=written[name][1]), units(number))
    store.pack()
    written["loose"] = store.write_predictions("loose", predicted(9))
    return written


def predicted(value: float) -> pl.DataFrame:
    return pl.DataFrame({"sample": ["a"], "valence_pred": [float(value)]})


def test_many_predictions_are_gathered_and_read_as_before(store: Store, archived: dict[str, tuple[str, str]]) -> None:
    assert [path.name for path in (store.root / "predictions").glob("*.parquet")] == ["loose.parquet"]
    archives_there = sorted((store.root / "predictions").glob("*.zip"))
    assert [archives.members(path) for path in archives_there] == [
        ["e0.parquet", "e1.parquet"],
        ["e2.parquet", "e3.parquet"],
        ["e4.parquet"],
    ]
    assert zipfile.ZipFile(archives_there[0]).testzip() is None
    for name, (path, sha256) in archived.items():
        assert store.read_predictions(path, sha256).equals(predicted(9 if name == "loose" else int(name[1])))


def test_few_predictions_stay_files_that_one_can_open(store: Store) -> None:
    path, _ = store.write_predictions("e", predicted(1))
    store.write_record(record("e"), units(1))
    store.pack()
    assert pl.read_parquet(store.root / path).equals(predicted(1))


def test_a_death_between_an_archive_and_the_files_it_holds_leaves_both_and_is_made_good(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "LOOSE", 2)
    written = [store.write_predictions(f"e{number}", predicted(number)) for number in range(3)]
    with monkeypatch.context() as dying:
        dying.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.pack()
    assert len(list((store.root / "predictions").iterdir())) == 3 + 1
    assert [store.read_predictions(*one)["valence_pred"][0] for one in written] == [0, 1, 2]
    store.pack()
    assert not list((store.root / "predictions").glob("*.parquet"))
    assert [store.read_predictions(*one)["valence_pred"][0] for one in written] == [0, 1, 2]


def test_predictions_made_again_count_before_those_in_an_archive(store: Store, archived: dict[str, tuple[str, str]]) -> None:
    path, sha256 = store.write_predictions("e0", predicted(7))
    assert store.read_predictions(path, sha256).equals(predicted(7))
    for name in ("x", "y"):
        store.write_predictions(name, predicted(0))
    store.pack()
    assert store.read_predictions(path, sha256).equals(predicted(7))
    assert store.read_predictions(*archived["e0"]).equals(predicted(0)), "what an older record names is there as long as its archive is"


def test_predictions_changed_inside_an_archive_are_refused_and_set_aside(store: Store, archived: dict[str, tuple[str, str]]) -> None:
    archive = sorted((store.root / "predictions").glob("*.zip"))[0]
    data = archive.read_bytes()
    place = data.index(b"PAR1") + 20
    archive.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(RequestError, match="not what was written"):
        store.read_predictions(*archived["e0"])
    assert (store.root / "predictions" / "e0.parquet.corrupt").is_file()
    assert store.read_predictions(*archived["e1"]).equals(predicted(1))
    archive.write_bytes(data[:100])
    with pytest.raises(RequestError, match="are gone"):
        store.read_predictions(*archived["e1"])


def test_what_is_forgotten_is_taken_out_of_archives(store: Store, archived: dict[str, tuple[str, str]]) -> None:
    store.forget(["e0", "e4"])
    assert store.done() == {"e1", "e2", "e3"}
    for name in ("e0", "e4"):
        with pytest.raises(RequestError, match="are gone"):
            store.read_predictions(*archived[name])
    assert store.read_predictions(*archived["e1"]).equals(predicted(1))
    assert len(list((store.root / "predictions").glob("*.zip"))) == 2


def test_a_lock_leaves_no_file_and_keeps_out_all_but_one(store: Store) -> None:
    """The file goes while others wait for it: they must not hold one that a third then makes anew."""
    inside, most = 0, 0
    counting = threading.Lock()

    def use(_: int) -> None:
        nonlocal inside, most
        for _ in range(20):
            with store.lock("f"):
                with counting:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.0005)
                with counting:
                    inside -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(use, range(6)))
    assert most == 1
    assert not list((store.root / "locks").iterdir())
    assert not store.running("f")
