"""The frame cache: real images in small folders, decoded, cropped, found again, damaged, changed and filled by two at once."""

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import harness.frames
from harness.errors import RequestError
from harness.frames import Filled, Frames, Transform, fill, thumbnails
from harness.samples import conform

SMALL = Transform(size=8, channels=1, crop="image")


def write_images(folder: Path, count: int, *, seed: int = 0, size: tuple[int, int] = (32, 24), suffix: str = "png") -> list[Path]:
    """Smooth images, each another."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        paths.append(folder / f"{number:04}.{suffix}")
        coarse.resize(size, Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def samples_of(paths: list[Path], **columns: Any) -> pl.DataFrame:
    names = [str(path) for path in paths]
    return conform(pl.DataFrame({"sample": names, "image": names, "clip": names} | columns))


def everything(filled: Filled) -> np.ndarray:
    return filled.frames[np.arange(len(filled.frames))]


def chunks(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.frames"))


# ── pixels ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("channels", [1, 3])
def test_a_square_image_is_resized_as_pillow_does(tmp_path: Path, channels: int) -> None:
    (path,) = write_images(tmp_path, 1, size=(32, 32))
    frame = everything(fill(samples_of([path]), Transform(size=8, channels=channels), tmp_path / "cache"))
    expected = Image.open(path).convert("L" if channels == 1 else "RGB").resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(frame, np.asarray(expected).reshape(1, 8, 8, channels))


def test_an_image_that_is_not_square_is_shown_whole_with_its_edge_repeated(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[0], pixels[-1] = 50, 200
    Image.fromarray(pixels).save(path)
    frame = everything(fill(samples_of([path]), Transform(size=16), tmp_path / "cache"))[0, :, :, 0]
    assert (frame[:5] == 50).all()
    assert (frame[11:] == 200).all()
    assert (frame[5:11] == 0).all()


def test_a_box_and_landmarks_are_cropped_to_a_square_with_a_margin(tmp_path: Path) -> None:
    path = tmp_path / "ramp.png"
    columns = np.arange(64, dtype=np.uint8) * 4
    Image.fromarray(np.tile(columns, (64, 1))).save(path)
    points = np.stack([np.linspace(24, 40, 68), np.linspace(28, 36, 68)], axis=1).tolist()

    def edges(crop: str, **columns: Any) -> tuple[float, float]:
        """The columns of the image that lie at the left and right edge of the frame."""
        frame = everything(fill(samples_of([path], **columns), Transform(64, 1, crop, 0.25), tmp_path / "cache"))[0, 32, :, 0] / 4
        return float(frame[0]), float(frame[-1])

    assert edges("landmarks", landmarks=[points]) == pytest.approx((20, 43), abs=0.6), "16 wide, 4 more on each side"
    assert edges("box", box=[[24, 28, 40, 36]]) == pytest.approx((20, 43), abs=0.6)
    assert edges("auto", box=[[24, 28, 40, 36]], landmarks=[np.zeros((68, 2)).tolist()]) == pytest.approx((20, 43), abs=0.6)
    assert edges("auto") == pytest.approx((0, 63), abs=0.6)
    assert edges("box", box=[[0, 0, 64, 64]]) == pytest.approx((0, 63), abs=0.6), "no margin beyond the image"
    assert edges("box", box=[[2, 2, 62, 62]]) == pytest.approx((0, 63), abs=0.6), "as much margin as there is"


def test_crops_that_show_nothing_are_refused_one_by_one(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 6)
    boxes = [[0.0, 0, 20, 20], [100.0, 100, 120, 120], [5.0, 5, 5, 9], [-9e4, -9e4, 9e4, 9e4], None, [0.0, 0.0, float("nan"), 5.0]]
    filled = fill(samples_of(paths, box=boxes), Transform(8, 1, "box"), tmp_path / "cache")
    assert filled.ok.tolist() == [True, False, False, False, False, False]
    assert sorted(filled.problems["kind"]) == ["no face to crop by"] * 2 + ["unreadable image"] * 3
    assert not everything(filled)[1:].any()
    assert everything(filled)[0].any()


@settings(max_examples=60, deadline=None)
@given(
    corner=st.tuples(*[st.floats(-40, 70)] * 2), extent=st.tuples(*[st.floats(1e-3, 60)] * 2), source=st.sampled_from(["box", "landmarks"])
)
def test_any_box_that_meets_the_image_gives_a_frame(
    tmp_path_factory: pytest.TempPathFactory, corner: tuple[float, float], extent: tuple[float, float], source: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    x0, y0, x1, y1 = (float(np.float32(edge)) for edge in (*corner, corner[0] + extent[0], corner[1] + extent[1]))
    points = [[x0, y0]] * 34 + [[x1, y1]] * 34
    samples = samples_of(write_images(folder, 1), box=[[x0, y0, x1, y1]], landmarks=[points])
    filled = fill(samples, Transform(8, 3, source), folder / "cache")
    meets = x0 < 32 and y0 < 24 and x1 > 0 and y1 > 0 and x1 > x0 and y1 > y0
    assert filled.ok.tolist() == [meets]


# ── what is wrong with images ────────────────────────────────────────────────────────────────────────────────────────────────


def test_missing_and_unreadable_images_are_said_and_the_others_are_there(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 4, suffix="jpg")
    paths[1].unlink()
    paths[2].write_bytes(paths[2].read_bytes()[:200])
    paths.append(tmp_path / "empty.jpg")
    paths[-1].write_bytes(b"")
    seen: list[tuple[int, int]] = []
    filled = fill(samples_of(paths), SMALL, tmp_path / "cache", progress=lambda done, total: seen.append((done, total)))
    assert filled.ok.tolist() == [True, False, False, True, False]
    assert filled.problems.sort("file").select("kind", "sample").rows() == [
        ("missing image", str(paths[1])),
        ("unreadable image", str(paths[2])),
        ("unreadable image", str(paths[-1])),
    ]
    assert filled.frames.digests[1] == ""
    assert (filled.frames.digests != "").sum() == 4
    assert seen[-1] == (5, 5)


def test_a_file_that_would_start_a_program_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    assert not fill(samples_of([path]), SMALL, tmp_path / "cache").ok.any()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_image_becomes_a_frame(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tiff" if mode == "CMYK" else tmp_path / "a.png"
    Image.new(mode, (9, 9)).save(path)
    assert fill(samples_of([path]), Transform(8, 3), tmp_path / "cache").ok.all()


# ── the cache ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_decoded_or_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_images(tmp_path, 20)
    monkeypatch.setattr("harness.frames._SETTLED_NS", 0)  # trust the times of files written just now
    first = fill(samples_of(paths), SMALL, tmp_path / "cache")

    def refuse(path: Path) -> bytes:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr("harness.frames._decode", refuse)
    again = fill(samples_of(paths), SMALL, tmp_path / "cache")
    assert len(chunks(tmp_path)) == 1
    assert again.ok.all()
    np.testing.assert_array_equal(everything(first), everything(again))
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert fill(samples_of(paths[::-1]), SMALL, tmp_path / "cache").frames.digests.tolist() == first.frames.digests.tolist()[::-1]


def test_the_same_bytes_under_two_names_are_one_frame(tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1)
    twin = tmp_path / "twin.png"
    twin.write_bytes(path.read_bytes())
    filled = fill(samples_of([path, twin]), SMALL, tmp_path / "cache")
    assert filled.frames.digests[0] == filled.frames.digests[1]
    assert chunks(tmp_path)[0].stat().st_size < 2 * 64


def test_a_changed_image_has_another_frame_even_with_its_old_size_and_time(tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1, suffix="bmp")
    before = fill(samples_of([path]), SMALL, tmp_path / "cache")
    old = path.stat()
    write_images(tmp_path, 1, suffix="bmp", seed=1)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert path.stat().st_size == old.st_size
    after = fill(samples_of([path]), SMALL, tmp_path / "cache")
    assert before.frames.digests[0] != after.frames.digests[0]
    assert (everything(before) != everything(after)).any()


def test_another_transform_or_box_has_other_frames(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 3)
    boxes = [[[0, 0, side, side]] * 3 for side in (8, 16)]
    first, second = (everything(fill(samples_of(paths, box=box), Transform(8, margin=0), tmp_path / "cache")) for box in boxes)
    assert (first != second).any()
    assert fill(samples_of(paths), Transform(12, 3), tmp_path / "cache").frames.shape == (3, 12, 12, 3)


@pytest.mark.parametrize("damage", ["cut", "flip", "extend", "empty"])
def test_a_damaged_chunk_is_set_aside_and_made_again(tmp_path: Path, damage: str) -> None:
    paths = write_images(tmp_path, 5)
    expected = everything(fill(samples_of(paths), SMALL, tmp_path / "cache"))
    (chunk,) = chunks(tmp_path)
    content = bytearray(chunk.read_bytes())
    content[7] ^= damage == "flip"
    damaged = {"cut": content[:-1], "flip": content, "extend": content + b"\0", "empty": bytearray()}
    chunk.write_bytes(damaged[damage])
    filled = fill(samples_of(paths), SMALL, tmp_path / "cache")
    np.testing.assert_array_equal(everything(filled), expected)
    assert filled.ok.all()
    assert filled.problems["kind"].to_list() == ["corrupt cache chunk"]
    assert len(list(tmp_path.rglob("*.corrupt"))) == 1
    assert fill(samples_of(paths), SMALL, tmp_path / "cache").problems.is_empty()


def test_a_damaged_index_costs_only_time(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 3)
    expected = everything(fill(samples_of(paths), SMALL, tmp_path / "cache"))
    (tmp_path / "cache" / "digests.parquet").write_bytes(b"PAR1 no more")
    filled = fill(samples_of(paths), SMALL, tmp_path / "cache")
    np.testing.assert_array_equal(everything(filled), expected)
    assert filled.problems["kind"].to_list() == ["corrupt cache index"]


def fill_in_small_chunks(paths: list[Path], cache: Path, seen: Any = None) -> None:
    """What another process does: count the images it decodes, slowly."""
    decode = harness.frames._decode

    def counted(*args: Any) -> np.ndarray:
        with seen.get_lock():
            seen.value += 1
        time.sleep(0.01)
        return decode(*args)

    with mock.patch.multiple(harness.frames, _CHUNK_FRAMES=8, _decode=counted):
        fill(samples_of(paths), SMALL, cache)


def test_two_processes_share_the_work_and_decode_nothing_twice(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 60)
    context = multiprocessing.get_context("spawn")
    seen = context.Value("i", 0)
    both = [context.Process(target=fill_in_small_chunks, args=(paths, tmp_path / "cache", seen)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert seen.value == 60
    assert len(chunks(tmp_path)) == 8
    np.testing.assert_array_equal(
        everything(fill(samples_of(paths), SMALL, tmp_path / "cache")), everything(fill(samples_of(paths), SMALL, tmp_path / "other"))
    )


def test_after_a_kill_the_finished_chunks_stay_and_nothing_half_written_is_read(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 60)
    context = multiprocessing.get_context("spawn")
    seen = context.Value("i", 0)
    process = context.Process(target=fill_in_small_chunks, args=(paths, tmp_path / "cache", seen))
    process.start()
    while seen.value < 20:
        time.sleep(0.005)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    finished = chunks(tmp_path)
    assert len(finished) >= 2
    (finished[0].parent / "abcd.partial").write_bytes(b"half a chu")
    seen.value = 0
    process = context.Process(target=fill_in_small_chunks, args=(paths, tmp_path / "cache", seen))
    process.start()
    process.join()
    assert seen.value == 60 - 8 * len(finished)
    assert set(finished) < set(chunks(tmp_path))
    assert not list(tmp_path.rglob("*.partial"))
    np.testing.assert_array_equal(
        everything(fill(samples_of(paths), SMALL, tmp_path / "cache")), everything(fill(samples_of(paths), SMALL, tmp_path / "other"))
    )


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_images(tmp_path, 3)

    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(RequestError, match=r"No space left on device .*free space"):
            fill(samples_of(paths), SMALL, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.partial"))
    assert fill(samples_of(paths), SMALL, tmp_path / "cache").ok.all()


def test_a_cache_that_is_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RequestError, match="frame cache cannot be used"):
        fill(samples_of([]), SMALL, tmp_path / "cache")


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Filled:
    """Frames of several chunks, one of them missing."""
    monkeypatch.setattr("harness.frames._CHUNK_FRAMES", 8)
    paths = write_images(tmp_path, 30)
    paths[11].write_bytes(b"no image")
    return fill(samples_of(paths), SMALL, tmp_path / "cache")


def test_rows_are_gathered_from_all_chunks_in_any_order(filled: Filled) -> None:
    frames = filled.frames
    one_by_one = np.concatenate([frames[np.array([row])] for row in range(30)])
    assert len(np.unique(one_by_one.reshape(30, -1), axis=0)) == 30
    for rows in (np.array([], int), np.array([29, 0, 11, 0, 17]), np.random.default_rng(0).integers(0, 30, 200), np.arange(30) % 2 == 0):
        np.testing.assert_array_equal(frames[rows], one_by_one[rows])
        part = frames.take(rows)
        np.testing.assert_array_equal(part[np.arange(len(part))], one_by_one[rows])
        assert part.digests.tolist() == frames.digests[rows].tolist()


def test_frames_survive_saving_and_pickling_without_their_pixels(filled: Filled, tmp_path: Path) -> None:
    frames, rows = filled.frames, np.arange(30)
    frames.save(tmp_path / "frames.parquet")
    content = pickle.dumps(frames)
    for copy in (Frames.load(tmp_path / "frames.parquet"), pickle.loads(content)):
        assert copy.shape == (30, 8, 8, 1)
        assert copy.digests.tolist() == frames.digests.tolist()
        np.testing.assert_array_equal(copy[rows], frames[rows])
    frames[rows]
    assert len(pickle.dumps(frames)) == len(content)


def test_a_lost_chunk_is_said_with_the_remedy(filled: Filled, tmp_path: Path) -> None:
    filled.frames.save(tmp_path / "frames.parquet")
    for chunk in chunks(tmp_path):
        chunk.unlink()
    for frames in (Frames.load(tmp_path / "frames.parquet"), filled.frames):
        with pytest.raises(RequestError, match=r"lost a chunk.*fill the frame cache again"):
            frames[np.arange(3)]
    with pytest.raises(RequestError, match="no frames can be read"):
        Frames.load(tmp_path / "absent.parquet")
    (tmp_path / "frames.parquet").write_bytes(b"PAR1")
    with pytest.raises(RequestError, match="no frames can be read"):
        Frames.load(tmp_path / "frames.parquet")


@pytest.mark.parametrize("bad", [{"size": 3}, {"channels": 2}, {"crop": "boxes"}, {"margin": -0.1}, {"margin": float("nan")}])
def test_a_transform_out_of_range_is_one_line(bad: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=rf"frames\.{next(iter(bad))}"):
        Transform(**bad)


def test_thumbnails_are_area_means_with_mean_zero_and_deviation_one(filled: Filled) -> None:
    found = thumbnails(filled.frames, size=4)
    pixels = everything(filled)[..., 0].reshape(30, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(30, 16)
    expected = (pixels - pixels.mean(axis=1, keepdims=True)) / np.maximum(pixels.std(axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32
    assert not found[11].any()
    assert np.isfinite(thumbnails(filled.frames, size=16)).all()
