"""A dataset is read and decoded once, and again whenever something about it has changed."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from harness import config, snapshot
from harness.errors import RequestError
from tests.conftest import PLUGIN


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import toy  # type: ignore[import-not-found]

    root: Path = tmp_path_factory.mktemp("original") / "toy"
    toy.write(root)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "data"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


TASK = config.compose(["task=toy"], [PLUGIN / "configs"])["task"]


def task(root: Path | None, **more: Any) -> dict[str, Any]:
    return {**copy.deepcopy(TASK), "root": None if root is None else str(root), **more}


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(root: Path) -> None:
        raise AssertionError("the dataset is read again")

    monkeypatch.setattr("toy.read", read)


def test_samples_and_frames_stand_row_by_row(root: Path, cache: Path) -> None:
    taken = snapshot.take(task(root), cache)
    assert taken.samples.height == len(taken.frames) == 6 * 2 * 8
    pixels = taken.frames[np.arange(96)].mean(axis=(1, 2, 3)) / 127.5 - 1
    np.testing.assert_allclose(pixels, taken.samples["valence"].to_numpy(), atol=1e-3)
    assert taken.problems.is_empty()
    assert not taken.synthetic


def test_a_second_take_reads_nothing(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = snapshot.take(task(root), cache)
    forbid_reading(monkeypatch)
    second = snapshot.take(task(root), cache)
    assert second.fingerprint == first.fingerprint
    assert second.samples.equals(first.samples)


def _repaint(root: Path) -> None:
    path = root / "s0" / "s0c0" / "0.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def _add(root: Path) -> None:
    shutil.copy(root / "s0" / "s0c0" / "0.png", root / "s0" / "s0c0" / "99.png")


def _remove(root: Path) -> None:
    (root / "s0" / "s0c0" / "0.png").unlink()


@pytest.mark.parametrize("change", [_repaint, _add, _remove])
def test_a_changed_added_or_removed_image_is_noticed(root: Path, cache: Path, change: Any) -> None:
    first = snapshot.take(task(root), cache)
    change(root)
    second = snapshot.take(task(root), cache)
    assert second.fingerprint != first.fingerprint
    images = second.samples["image"].to_list()
    expected = [np.asarray(Image.open(image)) for image in images]
    np.testing.assert_array_equal(second.frames[np.arange(len(images))][..., 0], expected)


def test_a_changed_label_is_noticed_though_the_image_is_the_same(tmp_path: Path, cache: Path) -> None:
    clip = tmp_path / "afew" / "001"
    clip.mkdir(parents=True)
    Image.new("L", (32, 32), 90).save(clip / "00000.png")
    node = config.compose(["task=afew_va_support", f"task.root={clip.parent}", "task.frames.crop=image"])["task"]

    def label(valence: float) -> str:
        content = {"actor": "a", "video_id": "001", "frames": {"00000": {"valence": valence, "arousal": 1, "landmarks": [[1, 1]] * 68}}}
        (clip / "001.json").write_text(json.dumps(content))
        taken = snapshot.take(node, cache)
        assert taken.samples["valence"].to_list() == [valence / 10]
        return taken.fingerprint

    assert len({label(3), label(4)}) == 2
    assert label(3) == label(3)


def test_the_same_content_at_another_path_has_the_same_fingerprint(root: Path, tmp_path: Path, cache: Path) -> None:
    here = snapshot.take(task(root), cache)
    moved = root.rename(tmp_path / "elsewhere")
    there = snapshot.take(task(moved), cache)
    assert there.fingerprint == here.fingerprint
    assert all(Path(image).is_file() for image in there.samples["image"])
    assert snapshot.take(task(moved), tmp_path / "another cache").fingerprint == here.fingerprint


def test_other_frames_of_the_same_images_have_another_fingerprint(root: Path, cache: Path) -> None:
    larger = snapshot.take(task(root, frames=TASK["frames"] | {"size": 12}), cache)
    assert larger.frames.shape == (96, 12, 12, 1)
    assert snapshot.take(task(root), cache).fingerprint != larger.fingerprint


def test_a_synthetic_copy_is_made_once_and_says_so(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = snapshot.take(task(None), cache)
    assert first.synthetic
    monkeypatch.setattr("toy.write", lambda root, **_: pytest.fail("made again"))
    assert snapshot.take(task(None), cache).fingerprint == first.fingerprint
    assert len(list((cache / "synthetic").iterdir())) == 1


def test_a_synthetic_copy_that_cannot_be_finished_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(root: Path, **_: Any) -> None:
        root.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("toy.write", write)
    with pytest.raises(OSError, match="No space"):
        snapshot.take(task(None), cache)
    assert list((cache / "synthetic").iterdir()) == []


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-50])])
def test_a_chunk_of_frames_that_is_gone_or_cut_short_is_made_again(root: Path, cache: Path, damage: Any) -> None:
    first = snapshot.take(task(root), cache)
    expected = first.frames[np.arange(96)]
    (chunk,) = cache.glob("frames/*/*.frames")
    damage(chunk)
    healed = snapshot.take(task(root), cache)
    np.testing.assert_array_equal(healed.frames[np.arange(96)], expected)
    assert healed.fingerprint == first.fingerprint


@pytest.mark.parametrize("name", ["samples.parquet", "frames.parquet", "snapshot.json", "problems.parquet"])
def test_a_snapshot_that_is_not_whole_is_made_again(root: Path, cache: Path, name: str) -> None:
    first = snapshot.take(task(root), cache)
    (first.folder / name).write_bytes(b"PAR1")
    again = snapshot.take(task(root), cache)
    assert again.fingerprint == first.fingerprint
    assert again.samples.height == 96
    assert again.problems.is_empty()


def flip(path: Path, place: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("place", [0.02, 0.4, 0.9])
@pytest.mark.parametrize("name", ["samples.parquet", "frames.parquet", "snapshot.json", "problems.parquet", "chunk"])
def test_one_changed_bit_of_what_was_read_is_found_and_it_is_read_again(root: Path, cache: Path, name: str, place: float) -> None:
    first = snapshot.take(task(root), cache)
    samples, expected = first.samples, first.frames[np.arange(96)]
    path = next(cache.glob("frames/*/*.frames")) if name == "chunk" else first.folder / name
    written = path.read_bytes()
    flip(path, place)
    again = snapshot.take(task(root), cache)
    assert again.samples.equals(samples)
    np.testing.assert_array_equal(again.frames[np.arange(96)], expected)
    assert path.read_bytes() == written


def test_a_worker_trains_on_no_pixel_that_was_changed_since_the_frames_were_taken(root: Path, cache: Path) -> None:
    folder = snapshot.take(task(root), cache).folder
    (chunk,) = cache.glob("frames/*/*.frames")
    flip(chunk)
    with pytest.raises(RequestError, match="a chunk of the frame cache is damaged"):
        snapshot.load(folder).frames[np.arange(96)]
    assert chunk.with_suffix(".corrupt").is_file()


def test_what_cannot_be_read_is_left_out_and_told(root: Path, cache: Path) -> None:
    (root / "s1" / "s1c1" / "3.png").write_bytes(b"no image")
    node = task(root) | {"dataset": TASK["dataset"] | {"read": {"_target_": "tests.harness.test_snapshot.read_all"}}}
    taken = snapshot.take(node, cache)
    assert taken.samples.height == 95
    assert taken.problem_counts() == {"unreadable image": 1}
    assert taken.problems["sample"].to_list() == ["s1/s1c1/3.png"]


def read_all(root: Path) -> Any:
    from harness.samples import Problems, Reading, conform

    paths = sorted(Path(root).glob("*/*/*.png"))
    rows = [(path.relative_to(root).as_posix(), str(path), path.parent.name, int(path.stem)) for path in paths]
    return Reading(conform(pl.DataFrame(rows, schema=["sample", "image", "clip", "frame"], orient="row")), Problems().frame())


def test_a_dataset_without_an_image_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"no readable image under .*empty"):
        snapshot.take(task(tmp_path / "empty"), cache)
    with pytest.raises(RequestError, match="no such folder"):
        snapshot.take(task(tmp_path / "nowhere"), cache)


def test_links_that_lead_back_or_nowhere_are_no_trap(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "s0" / "loop").symlink_to(root)
    (root / "s0" / "s0c0" / "dangling.txt").symlink_to(root / "nowhere")
    first = snapshot.take(task(root), cache)
    forbid_reading(monkeypatch)
    assert snapshot.take(task(root), cache).fingerprint == first.fingerprint


def test_a_folder_that_may_not_be_listed_is_no_trap(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def guarded(path: Any = ".") -> Any:
        if str(path).endswith("s5c1"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", guarded)
    assert snapshot.take(task(root), cache).fingerprint
