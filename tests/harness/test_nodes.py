"""What a node says of itself, and which cannot be used; and addresses at which there is no cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import cluster, node_cache, nodes, snapshot
from harness.errors import RequestError


@pytest.fixture
def said(tmp_path: Path) -> dict[str, Any]:
    token = tmp_path / "token"
    token.write_text("text", encoding="utf-8")
    return nodes.facts(str(token), "text")


def test_a_node_like_this_one_can_be_used(said: dict[str, Any], tmp_path: Path) -> None:
    assert nodes._wrong(said, "10.0.0.7", tmp_path) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sees": False}, "node 10.0.0.7 does not see /shared/out"),
        ({"writes": False}, "node 10.0.0.7 cannot write to /shared/out"),
        ({"software": {"python": "3.10.1"}}, "node 10.0.0.7 has python 3.10.1, and this machine 3.11"),
        ({"code": "other"}, "node 10.0.0.7 runs another revision"),
        ({"notice": "/tmp/x.leave"}, "node 10.0.0.7 has been given notice to leave (/tmp/x.leave)"),
    ],
)
def test_a_node_that_cannot_be_used_is_named_with_the_reason(said: dict[str, Any], change: dict[str, Any], says: str) -> None:
    assert says in str(nodes._wrong(said | change, "10.0.0.7", Path("/shared/out")))


def test_a_folder_with_another_token_is_not_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of somebody else", encoding="utf-8")
    assert not nodes.facts(str(tmp_path / "token"), "text")["sees"]
    assert not nodes.facts(str(tmp_path / "nothing"), "text")["sees"]


def test_a_node_without_the_code_is_told_how_to_get_it() -> None:
    wrong = str(nodes._wrong(ModuleNotFoundError("No module named 'harness'"), "10.0.0.7", None))
    assert "node 10.0.0.7 cannot import the code" in wrong
    assert "PYTHONPATH of `ray start`" in wrong


def test_memory_of_gpus_is_asked_of_their_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-40GB, 40960'\necho 'Tesla T4, 15360'\n", encoding="utf-8")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert nodes.gpus() == [("NVIDIA A100-SXM4-40GB", 40.0), ("Tesla T4", 15.0)]
    entry: dict[str, Any] = {"NodeID": "n", "NodeManagerAddress": "10.0.0.7", "Resources": {"CPU": 8.0, "GPU": 2.0}}
    assert nodes._node(entry, {"gpus": nodes.gpus()}).gpu_memory == 15.0
    assert nodes._node(entry | {"Labels": {"gpu-memory": "12"}}, {"gpus": nodes.gpus()}).gpu_memory == 12.0


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("HOST:PORT", "no address of a cluster"),
        ("ray://127.0.0.1:10001", "no address of a cluster"),
        ("127.0.0.1:1", "no Ray cluster answers"),
    ],
)
def test_an_address_without_a_cluster_is_refused_before_ray_is_asked(address: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        cluster._check(address)


@pytest.fixture
def shared(tmp_path: Path) -> snapshot.Snapshot:
    import toy

    toy.write(tmp_path / "data")
    task = {"root": str(tmp_path / "data"), "frames": {"size": 8, "channels": 1}, "dataset": {"name": "toy", "title": "Toy"}}
    task["dataset"] |= {"read": {"_target_": "toy.read"}}  # type: ignore[operator]
    return snapshot.take(task, tmp_path / "shared")


def test_a_node_copies_frames_once_and_only_whole_ones(
    shared: snapshot.Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert node_cache.local(shared.folder) == shared.folder, "nobody asked for a copy"
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv(node_cache.VARIABLE, "$SCRATCH/frames")
    (chunk,) = (tmp_path / "shared").rglob("*.frames")
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1] + b"?")
    assert node_cache.local(shared.folder) == shared.folder, "a damaged chunk is not copied"
    assert "damaged" in caplog.text
    chunk.write_bytes(content)
    copy = node_cache.local(shared.folder)
    assert copy == node_cache.local(shared.folder) == tmp_path / "scratch" / "frames" / "snapshots" / shared.folder.name
    assert len((tmp_path / "scratch" / "frames" / "copied.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    chunk.unlink()
    frames = snapshot.load(copy).frames
    assert len(frames) == 96
    assert frames[frames._chunk * 0].shape == (96, 8, 8, 1), "frames are mapped from the copy"


def test_a_variable_that_a_node_does_not_have_leaves_the_shared_folder(
    shared: snapshot.Snapshot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(node_cache.VARIABLE, "$NO_SUCH_FOLDER/frames")
    assert node_cache.local(shared.folder) == shared.folder
    assert "absolute path" in caplog.text
