"""An output that is a URL: the same guarantees as a folder's, on an object store that answers, fails, and forgets nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness import lease, output, remote
from harness.errors import RequestError
from harness.lease import Leases
from harness.output import Output
from harness.remote import Remote
from harness.store import RECORD, Store
from harness.working_copy import WorkingCopy
from tests.conftest import PLUGIN, Run, command
from tests.object_store import KEY_ID, SECRET, Objects, serving
from tests.stores import enter

URL = "s3://lab/a/store-of-ours"


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:
    with serving() as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


def machine(tmp_path: Path, name: str, url: str = URL) -> Output:
    """The output as another machine has it: with a working copy of its own."""
    folder = tmp_path / name
    return Output(folder, WorkingCopy(folder, Remote(url)))


def record(name: str, **more: object) -> dict[str, object]:
    return {**dict.fromkeys(RECORD), "evaluation": name, "score": 0.5, **more}


def units(value: float) -> pl.DataFrame:
    return pl.DataFrame({"subject": ["s"], "clip": ["c"], "n": [value]})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s4://lab/x", "no file system is called 's4'"),
        ("s3://AKIA:hushhush@lab/x", "a user or password in it"),
        ("s3://lab/x?secret_key=hushhush", "'secret_key' in it"),
        ("abfs://c@account.dfs.core.windows.net/x?sas_token=hushhush", "'sas_token' in it"),
        ("s3://lab/x?regio=here", "did you mean 'region'?"),
        ("s3:///x", "names no bucket"),
        ("file://host/x", "file:///shared/lab"),
        ("s3://lab/../x", "leads upwards"),
        ("fsspec+nothing://x", "nothing"),
        ("fsspec+memory://x", "does not list, date or give back"),
    ],
)
def test_a_url_that_cannot_be_is_one_line_without_its_secret(url: str, expected: str) -> None:
    with pytest.raises(RequestError) as error:
        output.opened(url, write=True)
    assert expected in str(error.value)
    assert "hushhush" not in str(error.value)
    assert "\n" not in str(error.value)


def test_what_an_object_store_refuses_is_said_at_the_start(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    remote.check(URL, write=True)
    assert objects.keys() == []
    with pytest.raises(RequestError, match="there is no bucket 'nowhere'"):
        remote.check("s3://nowhere/x", write=False)
    objects.read_only = True
    remote.check(URL, write=False)
    with pytest.raises(RequestError, match="no permission"):
        remote.check(URL, write=True)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASOMEBODYELSE")
    with pytest.raises(RequestError, match=r"no permission.*AWS_PROFILE"):
        remote.check(URL, write=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(RequestError, match="does not answer"):
        remote.check(URL, write=False)


def test_one_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE", 0.5)
    with pytest.raises(RequestError, match="does not answer within"):
        remote._within(remote.PATIENCE, lambda: time.sleep(30), URL)


def test_files_of_any_size_come_back_as_they_were(objects: Objects, tmp_path: Path) -> None:
    far, large = Remote(URL), os.urandom(2**20) * 24
    (tmp_path / "large").write_bytes(large)
    far.put("some/small", b"small")
    far.put_file("some/large", tmp_path / "large")
    assert objects.requests["PUT?uploadId"] > 1, "in parts"
    assert far.get("some/small") == b"small"
    assert far.fetch("some/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large
    assert {name: entry.size for name, entry in far.list("some").items()} == {"small": 5, "large": len(large)}
    assert far.get("some/other") is None
    assert not far.fetch("some/other", tmp_path / "none")
    far.remove(["some/small", "some/other"])
    assert set(far.list("some")) == {"large"}
    assert far.list("nowhere") == {}


def test_a_listing_goes_on_over_its_pages(objects: Objects) -> None:
    objects.buckets["lab"] |= {f"a/store-of-ours/many/{number:05d}": (b"x", 1.0) for number in range(2100)}
    assert len(Remote(URL).list("many")) == 2100
    assert objects.requests["GET?list-type"] == 3


def test_requests_that_fail_for_a_while_are_made_again(objects: Objects) -> None:
    objects.broken = 2
    Remote(URL).put("name", b"data")
    assert objects.requests["PUT"] == 3
    assert Remote(URL).get("name") == b"data"


def test_an_empty_object_is_a_write_that_did_not_end(objects: Objects, tmp_path: Path) -> None:
    objects.buckets["lab"]["a/store-of-ours/store/records/e.json"] = (b"", time.time())
    assert machine(tmp_path, "m").store.done() == set()


def test_a_store_far_away_is_as_a_folder(objects: Objects, tmp_path: Path) -> None:
    near, far, other = Store(tmp_path / "near"), machine(tmp_path, "one").store, machine(tmp_path, "two").store
    frame = pl.DataFrame({"sample": ["a"], "valence_pred": [0.5]})
    for store in (near, far):
        for number in range(4):
            path, sha256 = store.write_predictions(f"e{number}", frame)
            facts = record(f"e{number}", predictions=path, sha256=sha256, provenance=store.put({"a": 1}))
            store.write_record(facts, units(number))
        store.fail("f", {"error": "why"})
        store.finish_fit("fit", {"fit": "fit", "stage": "s"})
    for step in ("written", "packed", "forgotten"):
        for store in (far, other):
            assert store.records().equals(near.records()), step
            assert store.units(["e1", "e3"]).equals(near.units(["e1", "e3"])), step
            assert store.done() == near.done(), step
            assert store.failures() == near.failures(), step
            assert store.fits() == near.fits() == [{"fit": "fit", "stage": "s"}]
            for row in store.records().iter_rows(named=True):
                assert store.read_predictions(row["predictions"], row["sha256"]).equals(frame)
                assert store.provenance(row["provenance"]) == {"a": 1}
        if step == "written":
            near.pack()
            other.pack()
            assert not [key for key in objects.keys(begins="a/store-of-ours/store/records/") if key.endswith(".json")]
        if step == "packed":
            for store in (near, far):
                store.forget(["e1"])
                store.forget_failure("f")
    assert len(objects.keys(begins="a/store-of-ours/store/predictions/")) == 3


def test_predictions_are_there_before_the_record_that_names_them(objects: Objects, tmp_path: Path) -> None:
    store = machine(tmp_path, "one").store
    store.write_predictions("e", pl.DataFrame({"sample": ["a"]}))
    store.write_record(record("e"), units(1))
    written = [key.partition("/store/")[2] for method, key in objects.names if method == "PUT"]
    assert written == ["predictions/e.parquet", "records/e.json"]


def test_a_write_that_fails_is_nowhere(objects: Objects, tmp_path: Path) -> None:
    store = machine(tmp_path, "one").store
    objects.read_only = True
    with pytest.raises(RequestError, match=r"cannot write s3://lab/a/store-of-ours/store/records/e.json: no permission"):
        store.write_record(record("e"), units(1))
    assert not list(tmp_path.rglob("*.json"))
    objects.read_only = False
    assert store.done() == set()


def test_a_copy_fetches_what_is_new_and_no_more(objects: Objects, tmp_path: Path) -> None:
    one, two = machine(tmp_path, "one").store, machine(tmp_path, "two").store
    for number in range(5):
        one.write_record(record(f"e{number}"), units(number))
    assert one.done() == two.done() == {f"e{number}" for number in range(5)}
    assert objects.requests["GET"] == 5, "what one wrote it need not fetch"
    assert one.done() == two.done()
    assert objects.requests["GET"] == 5
    one.write_record(record("e0", score=0.25), units(0))
    assert two.records().filter(evaluation="e0")["score"].to_list() == [0.25]
    assert objects.requests["GET"] == 6


def test_a_copy_that_rots_is_fetched_again_and_what_is_kept_stays(objects: Objects, tmp_path: Path) -> None:
    one = machine(tmp_path, "one").store
    path, sha256 = one.write_predictions("e", pl.DataFrame({"sample": ["a"]}))
    (one.root / path).write_bytes(b"rotten")
    with pytest.raises(RequestError, match="not what was written"):
        one.read_predictions(path, sha256)
    assert one.read_predictions(path, sha256).height == 1


def test_what_rots_where_it_is_kept_is_set_aside_there(objects: Objects, tmp_path: Path) -> None:
    path, sha256 = machine(tmp_path, "one").store.write_predictions("e", pl.DataFrame({"sample": ["a"]}))
    key = f"a/store-of-ours/store/{path}"
    objects.buckets["lab"][key] = (b"rotten", time.time())
    with pytest.raises(RequestError, match="not what was written"):
        machine(tmp_path, "two").store.read_predictions(path, sha256)
    assert key not in objects.buckets["lab"]
    assert objects.buckets["lab"][f"{key}.corrupt"][0] == b"rotten"


def claim(name: str, where: str = "elsewhere", number: int = 0) -> str:
    return f"a/store-of-ours/store/locks/{name}@{where}-1.1-{number:06d}"


def test_a_lock_is_held_by_one(objects: Objects) -> None:
    first, second = Leases(Remote(URL)), Leases(Remote(URL))
    with first.hold("f") as got:
        assert got
        assert second.held() == {"f"}
        with second.hold("f", wait=False) as again, second.hold("g", wait=False) as other:
            assert (again, other) == (False, True)
    assert second.held() == set()
    with second.hold("f", wait=False) as got:
        assert got


def test_of_two_who_want_a_lock_at_once_one_waits(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease.random, "uniform", lambda low, high: 0.01)
    script = (
        "import sys, time\nfrom harness.lease import Leases\nfrom harness.remote import Remote\nfrom harness import lease\n"
        "lease.random.uniform = lambda low, high: 0.02\nleases = Leases(Remote(sys.argv[1]))\n"
        "for _ in range(6):\n    with leases.hold('f'):\n        print('in', time.monotonic())\n"
        "        time.sleep(0.03)\n        print('out', time.monotonic())"
    )
    racers = [subprocess.Popen([sys.executable, "-c", script, URL], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    lines = [line.split() for racer in racers for line in racer.communicate(timeout=120)[0].splitlines()]
    said = sorted((float(when), word) for word, when in lines)
    assert [word for _, word in said] == ["in", "out"] * 18, "nobody comes in before the one before him is out"


def test_a_lock_is_free_when_its_holder_has_died(objects: Objects) -> None:
    script = "import sys, time\nfrom harness.lease import Leases\nfrom harness.remote import Remote\n"
    script += "with Leases(Remote(sys.argv[1])).hold('f'): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script, URL], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    leases = Leases(Remote(URL))
    assert leases.held() == {"f"}
    holder.kill()
    holder.wait()
    assert leases.held() == set()
    with leases.hold("f", wait=False) as got:
        assert got


@pytest.mark.parametrize("ahead", [0.0, 86400.0, -86400.0])
def test_a_lock_of_another_machine_ends_by_the_clock_of_the_store(objects: Objects, ahead: float) -> None:
    objects.ahead = ahead
    now = time.time() + ahead
    leases = Leases(Remote(URL))
    objects.buckets["lab"][claim("f")] = (b"somebody", now - lease.EXPIRY + 20)
    assert leases.held() == {"f"}
    with leases.hold("f", wait=False) as got:
        assert not got
    objects.buckets["lab"][claim("f")] = (b"somebody", now - lease.EXPIRY - 20)
    assert leases.held() == set()
    with leases.hold("f", wait=False) as got:
        assert got
    assert claim("f") not in objects.buckets["lab"], "what is void is cleared away"


def test_a_held_lock_is_written_again_now_and_then(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.05)
    with Leases(Remote(URL)).hold("f"):
        until = time.monotonic() + 20
        while objects.requests["PUT"] < 4 and time.monotonic() < until:
            time.sleep(0.02)
    assert objects.requests["PUT"] >= 4
    assert not objects.keys(begins="a/store-of-ours/store/locks")


def test_a_checkpoint_goes_where_the_store_is_and_comes_from_there(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness import checkpoint, checkpoint_elsewhere

    monkeypatch.setattr(checkpoint, "intact", lambda folder: (folder / "rank-0").is_file())
    monkeypatch.setattr(checkpoint_elsewhere, "EVERY", 1000.0)
    leaving = False

    def kept(name: str) -> checkpoint_elsewhere.Kept:
        out = machine(tmp_path, name)
        assert out.copy is not None
        return checkpoint_elsewhere.Kept(out.store.fit_folder("f") / "checkpoint", out.copy, leaving=lambda: leaving)

    def write(text: str) -> Any:
        return lambda folder: (folder / "rank-0").write_text(text)

    one = kept("one")
    assert one.checkpoint() is None
    one.keep("epoch-000001", write("first"))
    assert kept("two").checkpoint() is None, "it was too early for it to go there"
    leaving = True
    one.keep("epoch-000002", write("second"))
    found = kept("two").checkpoint()
    assert found is not None
    assert (found.name, (found / "rank-0").read_text()) == ("epoch-000002", "second")
    one.keep("epoch-000003", write("third"))
    assert len(objects.keys(begins="a/store-of-ours/store/fits/f/checkpoint/")) == 2, "the one before is gone"
    one.clear()
    assert not objects.keys(begins="a/store-of-ours/store/fits/f/checkpoint/")


def test_frames_come_to_a_machine_that_has_none(objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness import config, snapshot

    monkeypatch.syspath_prepend(str(PLUGIN))
    task = config.compose(["task=toy"], [PLUGIN / "configs"])["task"]
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    taken = snapshot.take(task, one.folder / "cache")
    with pytest.raises(RequestError, match="are not in s3://lab"):
        snapshot.at_hand(str(taken.folder), two.store)
    snapshot.keep(str(taken.folder), one.store)
    written = objects.requests["PUT"]
    snapshot.keep(str(taken.folder), one.store)
    assert objects.requests["PUT"] == written
    found = snapshot.load(Path(snapshot.at_hand(str(taken.folder), two.store)))
    assert found.folder.is_relative_to(two.folder)
    assert found.samples.equals(taken.samples)
    rows = pl.arange(len(taken.frames), eager=True).to_numpy()
    assert all(chunk.is_relative_to(two.folder) for chunk in found.frames.chunks)
    assert (found.frames[rows] == taken.frames[rows]).all()


def test_verbs_read_a_url_as_they_read_a_folder(harness: Run, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'shared'}"
    for folder in (tmp_path / "folder", tmp_path / "shared"):
        for fold in (0, 1):
            for arm, skill in (("method", 0.8), ("mean", 0.3)):
                enter(Store(folder / "store"), arm, skill=skill, fold=fold, stage="train" if arm == "method" else "", control=arm == "mean")
    environment = os.environ | {"HARNESS_HOME": str(tmp_path / "home")}
    for verb in (["leaderboard", "toy"], ["list", "evaluations"], ["compare", "method", "mean", "--task", "toy"]):
        near, far = (harness(*verb, "--output-dir", str(where), env=environment) for where in (tmp_path / "folder", url))
        assert far.returncode == 0, far.stderr
        assert far.stdout == near.stdout
        assert near.stdout.strip()
    assert not list((tmp_path / "shared").rglob(".*")), "nothing is left half-written"


def test_a_folder_is_tried_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    output.at(folder).check(write=True)
    assert [*folder.iterdir()] == []

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        with pytest.raises(RequestError, match=r"cannot be locked .*: No locks available.*file:///"):
            output.at(folder).check(write=True)
    with monkeypatch.context() as patch:
        patch.setattr(output, "_file_system", lambda path: ("nfs4", {"rw", "local_lock=all"}))
        with pytest.raises(RequestError, match=r"do not keep others out \(nfs4\)"):
            output.at(folder).check(write=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot write"):
        output.at(tmp_path / "file").check(write=True)


def test_the_mount_of_a_folder_is_the_deepest_one_above_it(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/a / ext4 rw 0 0\nnas:/x /shared nfs rw,local_lock=none 0 0\nnas:/y /shared/my\\040lab nfs rw,nolock 0 0\n")
    assert output._file_system(Path("/home"), mounts) == ("ext4", {"rw"})
    assert output._file_system(Path("/shared/lab"), mounts) == ("nfs", {"rw", "local_lock=none"})
    assert output._file_system(Path("/shared/my lab/x"), mounts) == ("nfs", {"rw", "nolock"})


@pytest.mark.cluster
def test_a_killed_sweep_goes_on_from_other_machines_and_ends_as_in_a_folder(objects: Objects, harness: Run, tmp_path: Path) -> None:
    def sweep(where: object, *more: str) -> list[str]:
        return ["sweep", "toy", "--config-dir", "configs", f"output_dir={where}", "fold=0", "trainer.resources.retries=0", *more]

    def on(name: str) -> dict[str, str]:
        return os.environ | {"HARNESS_HOME": str(tmp_path / name)}

    first = subprocess.Popen(
        command(*sweep(URL)), cwd=PLUGIN, env=on("one"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 300
    while not objects.keys(begins="a/store-of-ours/store/records/") and first.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert objects.keys(begins="a/store-of-ours/store/records/")
    goes_on = [
        subprocess.Popen(command(*sweep(URL)), cwd=PLUGIN, env=on(name), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in ("two", "three")
    ]
    said = [(*driver.communicate(timeout=400), driver.returncode) for driver in goes_on]
    assert [status for _, _, status in said] == [0, 0], said
    puts = [key.rpartition("/")[2] for method, key in objects.names if method == "PUT" and "/predictions/" in key]
    wanted = machine(tmp_path, "reader").store.records()
    assert {name.removesuffix(".parquet") for name in puts} == set(wanted["evaluation"])
    assert len(puts) - len(set(puts)) <= 2, "at most what each of two workers had in hand is done again"
    objects.requests.clear()
    objects.names.clear()
    again = harness(*sweep(URL), env=on("four"))
    assert (again.returncode, again.stdout) == (0, said[0][0])
    assert "to run" not in again.stderr
    assert "written: s3://lab/a/store-of-ours/sweeps/toy/table.md" in again.stderr
    assert not [key for method, key in objects.names if method in ("PUT", "POST", "DELETE")]
    folder = harness(*sweep(tmp_path / "folder"))
    assert folder.returncode == 0, folder.stderr
    same = ["evaluation", "fit", "score", "sha256", "metrics"]
    assert Store(tmp_path / "folder" / "store").records().select(same).equals(wanted.select(same))
    held = b"".join(data for data, _ in objects.buckets["lab"].values())
    assert SECRET.encode() not in held
    assert KEY_ID.encode() not in held
