"""Images that are parts of zips, videos and csvs of pixels: whole ones, damaged ones, and through the frame cache."""

import io
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import harness.images
from harness.frames import Filled, Transform, fill
from harness.images import Images, container_of, frames_in, part_of
from harness.samples import conform

SMALL = Transform(size=4, channels=1, crop="image")
FORMATS = [("film.avi", "mjpeg", "yuvj420p"), ("film.AVI", "mpeg4", "yuv420p"), ("film.mp4", "mpeg4", "yuv420p")]


def tone(number: int) -> int:
    """Of frame ``number`` of a film: far enough from its neighbours' for any encoder."""
    return 10 + 9 * number


def write_film(path: Path, frames: int, codec: str = "mjpeg", pixels: str = "yuvj420p") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=path.suffix[1:].lower()) as file:
        stream: Any = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, pixels
        for number in range(frames):
            picture = np.full((16, 32, 3), tone(number), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        file.mux(stream.encode(sound))
        file.mux(stream.encode(None))
    return path


def png(grey: int, size: int = 8) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((size, size), grey, np.uint8)).save(content, "PNG")
    return content.getvalue()


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def write_csv(path: Path, tones: list[int], side: int = 3) -> Path:
    """As FER2013's: the image with ``tones[k]`` in line k + 2."""
    rows = [f"{k % 7},{' '.join([str(grey)] * side**2)},Training" for k, grey in enumerate(tones)]
    path.write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")
    return path


def read(path: Path, part: str | int) -> np.ndarray:
    with Images() as images:
        return pixels(images.read(part_of(path, part)))


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture)


def numbers(contents: list[bytes]) -> list[int]:
    """Which frames of a film these are."""
    return [round((float(pixels(content).mean()) - 10) / 9) for content in contents]


def samples_of(references: list[str | None]) -> pl.DataFrame:
    names = [f"{number}" for number in range(len(references))]
    return conform(pl.DataFrame({"sample": names, "image": pl.Series(references, dtype=pl.String), "clip": names}))


def tones(filled: Filled) -> list[int]:
    return [round(float(frame.mean())) for frame in filled.frames[np.arange(len(filled.frames))]]


def kinds(filled: Filled) -> list[tuple[str, str | None]]:
    return list(filled.problems.select("kind", "sample").iter_rows())


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The videos that were opened, one entry each time."""
    seen: list[str] = []
    real = harness.images._opened

    def spy(video: str | Path) -> Any:
        seen.append(Path(video).name)
        return real(video)

    monkeypatch.setattr(harness.images, "_opened", spy)
    return seen


# ── references ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reference", "container"),
    [
        ("a/1.png", "a/1.png"),
        ("a/F001.zip::T1/0012.jpg", "a/F001.zip"),
        ("a/F001.ZIP::T1/0012.jpg", "a/F001.ZIP"),
        ("film.Mp4::3", "film.Mp4"),
        ("fer2013.csv::2", "fer2013.csv"),
        ("a/b::c.png", "a/b::c.png"),
        ("take::2/1.png", "take::2/1.png"),
        ("take::2/F001.zip::1.png", "take::2/F001.zip"),
        ("F001.zip::take::2/1.png", "F001.zip"),
        ("F001.zip", "F001.zip"),
        ("", ""),
        ("::", "::"),
    ],
)
def test_a_reference_needs_one_file_on_disk(reference: str, container: str) -> None:
    assert container_of(reference) == container


@pytest.mark.parametrize("part", ["T1/0012.jpg", "a::b.jpg", 7, "::", ""])
@pytest.mark.parametrize("container", ["x/F001.zip", "x::y/film.avi", "pixels.csv"])
def test_a_part_is_of_its_container(container: str, part: str | int) -> None:
    assert container_of(part_of(Path(container), part)) == container


def test_a_plain_path_is_read_as_it_is_even_with_the_mark_in_it(tmp_path: Path) -> None:
    path = tmp_path / "take::2" / "a::b.png"
    path.parent.mkdir()
    path.write_bytes(png(7))
    with Images() as images:
        assert images.read(str(path)) == png(7)
        with pytest.raises(FileNotFoundError):
            images.read(str(tmp_path / "absent.png"))


# ── zips ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_is_read_as_it_was_packed(tmp_path: Path, method: int) -> None:
    path = write_zip(tmp_path / "F001.zip", {"F001/T1/1.png": png(1), "F001/T1/a::b.png": png(2), "./F001/é.png": png(3)}, method)
    with Images() as images:
        for number, name in enumerate(("F001/T1/1.png", "F001/T1/a::b.png", "./F001/é.png"), start=1):
            assert images.read(part_of(path, name)) == png(number)


def test_a_member_that_is_not_there_is_no_file(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "F001.zip", {"1.png": png(1)})
    with pytest.raises(FileNotFoundError, match=r"no member '2\.png'"):
        read(path, "2.png")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "F002.zip", "1.png")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing more", b"\x89PNG" * 50])
def test_what_is_no_zip_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "F001.zip").write_bytes(content)
    with pytest.raises(OSError, match="no zip archive"):
        read(tmp_path / "F001.zip", "1.png")


def test_an_encrypted_member_cannot_be_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "F001.zip", {"1.png": png(1)}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flags of the member and of the directory
        content[content.index(signature) + place] |= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"'1\.png' cannot be read: .*encrypted"):
        read(path, "1.png")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_cannot_be_read_and_spoils_no_other(tmp_path: Path, method: int) -> None:
    rng = np.random.default_rng(0)
    members = {name: rng.bytes(400) for name in ("1.png", "2.png", "3.png")}
    path = write_zip(tmp_path / "F001.zip", members, method)
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("2.png").header_offset + 30 + len("2.png")
    content = bytearray(path.read_bytes())
    content[start + 20 : start + 60] = bytes(40)
    path.write_bytes(content)
    with Images() as images:
        assert images.read(part_of(path, "1.png")) == members["1.png"]
        with pytest.raises(OSError, match=r"cannot be read|Invalid data stream"):
            images.read(part_of(path, "2.png"))
        assert images.read(part_of(path, "3.png")) == members["3.png"]


def test_a_member_too_large_for_an_image_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "F001.zip", {"1.png": bytes(1000)})
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 3 << 30)  # its size, as the directory has it
    path.write_bytes(content)
    with pytest.raises(OSError, match="a member of 3221225472 bytes is no image"):
        read(path, "1.png")


# ── videos ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "codec", "layout"), FORMATS)
@pytest.mark.parametrize("order", [[*range(20)], [5, 5, 3, 19, 0, 7, 6], [*range(19, -1, -4)]])
def test_each_frame_is_the_one_that_was_asked_for(tmp_path: Path, name: str, codec: str, layout: str, order: list[int]) -> None:
    path = write_film(tmp_path / name, 20, codec, layout)
    with Images() as images:
        assert numbers([images.read(part_of(path, number)) for number in order]) == order
        assert pixels(images.read(part_of(path, 0))).shape == (16, 32, 3)


@pytest.mark.parametrize(("name", "codec", "layout"), FORMATS)
@pytest.mark.parametrize("length", [1, 2, 17])
def test_frames_are_counted_without_decoding_them(tmp_path: Path, name: str, codec: str, layout: str, length: int) -> None:
    path = write_film(tmp_path / name, length, codec, layout)
    assert frames_in(path) == length
    with Images() as images:
        images.read(part_of(path, length - 1))
        with pytest.raises(FileNotFoundError, match=f"ends after {length} frames"):
            images.read(part_of(path, length))


def test_two_videos_are_read_by_turns(tmp_path: Path, opened: list[str]) -> None:
    one, other = write_film(tmp_path / "one.avi", 6), write_film(tmp_path / "other.mp4", 6, "mpeg4", "yuv420p")
    with Images() as images:
        read_by_turns = [images.read(part_of(path, number)) for number in range(6) for path in (one, other)]
    assert numbers(read_by_turns) == [number for number in range(6) for _ in range(2)]
    assert opened == ["one.avi", "other.mp4"]


def test_a_frame_beyond_the_end_spoils_none_before_it(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.avi", 3)
    with Images() as images:
        for beyond in (3, 99, -1):
            with pytest.raises(FileNotFoundError):
                images.read(part_of(path, beyond))
        assert numbers([images.read(part_of(path, 2))]) == [2]


@pytest.mark.parametrize("part", ["", "x", "1.5", "1::2"])
def test_a_frame_without_a_number_is_none(tmp_path: Path, part: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        read(write_film(tmp_path / "film.avi", 3), part)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no video at all" * 20])
def test_what_is_no_video_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "film.avi").write_bytes(content)
    for attempt in (lambda: read(tmp_path / "film.avi", 0), lambda: frames_in(tmp_path / "film.avi")):
        with pytest.raises(OSError, match="no video"):
            attempt()
    with pytest.raises(FileNotFoundError):
        frames_in(tmp_path / "absent.avi")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.avi", 0)


def test_a_video_without_a_picture_is_said_to_have_none(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "film.avi")
    for attempt in (lambda: read(path, 0), lambda: frames_in(path)):
        with pytest.raises(OSError, match="it has no picture"):
            attempt()


def test_a_video_that_no_decoder_is_there_for_is_an_error_of_files(tmp_path: Path) -> None:
    """PyAV's ``DecoderNotFoundError`` is a LookupError and used to go through and end the sweep."""
    path = write_film(tmp_path / "film.avi", 3)
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"ZZZZ"))
    with pytest.raises(OSError, match="Decoder not found"):
        read(path, 0)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    return [write_film(folder / name, 8, codec, layout) for name, codec, layout in FORMATS]


flips = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(which=st.integers(0, 2), flips=flips, cut=st.integers(0, 1 << 14))
def test_a_damaged_video_raises_nothing_but_errors_of_files(
    films: list[Path], tmp_path_factory: pytest.TempPathFactory, which: int, flips: list[tuple[int, int]], cut: int
) -> None:
    """What FFmpeg says of damage comes as errors of all kinds: ``EOFError``, ``MemoryError``, ``ValueError`` …"""
    content = bytearray(films[which].read_bytes())
    for place, byte in flips:
        content[place % len(content)] = byte
    path = tmp_path_factory.mktemp("damaged") / films[which].name
    path.write_bytes(content[: cut or None])
    with Images() as images:
        for part in (0, 4, 2, 7):
            with suppress(OSError):
                assert pixels(images.read(part_of(path, part))).ndim == 3
    with suppress(OSError):
        assert frames_in(path) >= 0


# ── csvs of pixels ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_is_an_image_by_its_number_in_the_file(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "fer2013.csv", [5, 6, 255])
    with Images() as images:
        for line, grey in ((2, 5), (4, 255), (3, 6), (2, 5)):
            np.testing.assert_array_equal(pixels(images.read(part_of(path, line))), np.full((3, 3), grey))


def test_pixels_stand_row_by_row_in_any_column_with_quotes_or_without(tmp_path: Path) -> None:
    path = tmp_path / "pixels.csv"
    path.write_bytes(b'emotion,pixels,Usage\r\n0,"0 1 2 3",Training\r\n3 4,Training,10 11 12 13 14 15 16 17 18\n6,4  5 6  7,Test')
    np.testing.assert_array_equal(read(path, 2), [[0, 1], [2, 3]])
    np.testing.assert_array_equal(read(path, 3), [[10, 11, 12], [13, 14, 15], [16, 17, 18]])
    np.testing.assert_array_equal(read(path, 4), [[4, 5], [6, 7]])


@pytest.mark.parametrize("line", [0, -1, 5, 10**12])
def test_a_line_that_is_not_there_is_no_file(tmp_path: Path, line: int) -> None:
    path = write_csv(tmp_path / "fer2013.csv", [1, 2])
    with pytest.raises(FileNotFoundError, match="no line"):
        read(path, line)


@pytest.mark.parametrize("cells", ["0,1 2 3,Training", "0,,Training", "", "0,1 2 3 256,Test", "0," + "9" * 400 + " 1 1 1,Test", "a,b,c"])
def test_a_line_without_a_square_of_pixels_is_no_image(tmp_path: Path, cells: str) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_text(f"emotion,pixels,Usage\n{cells}\n0,1 2 3 4,Test\n")
    with pytest.raises(OSError, match="line 2 holds no square"):
        read(path, 2)
    assert read(path, 3).shape == (2, 2)


def test_a_csv_without_a_byte_has_no_image(tmp_path: Path) -> None:
    (tmp_path / "fer2013.csv").write_bytes(b"")
    with pytest.raises(OSError, match="line"):
        read(tmp_path / "fer2013.csv", 1)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.csv", 1)


# ── through the frame cache ──────────────────────────────────────────────────────────────────────────────────────────────────


def write_all(folder: Path) -> list[str | None]:
    """References to four images of each kind, all of different tones."""
    film = write_film(folder / "film.avi", 4)
    archive = write_zip(folder / "F001.zip", {f"T1/{number}.png": png(100 + 10 * number) for number in range(4)})
    table = write_csv(folder / "fer2013.csv", [150, 160, 170, 180])
    for number in range(4):
        (folder / f"{number}.png").write_bytes(png(200 + 10 * number))
    return [
        *(part_of(film, number) for number in range(4)),
        *(part_of(archive, f"T1/{number}.png") for number in range(4)),
        *(part_of(table, line) for line in range(2, 6)),
        *(str(folder / f"{number}.png") for number in range(4)),
    ]


EXPECTED = [tone(0), tone(1), tone(2), tone(3), 100, 110, 120, 130, 150, 160, 170, 180, 200, 210, 220, 230]


@pytest.mark.parametrize("jobs", [1, 4])
def test_every_kind_of_part_is_decoded_whatever_the_order(tmp_path: Path, jobs: int) -> None:
    references = write_all(tmp_path)
    order = np.random.default_rng(0).permutation(len(references))
    filled = fill(samples_of([references[place] for place in order]), SMALL, tmp_path / "cache", jobs=jobs)
    assert filled.problems.is_empty()
    assert filled.ok.all()
    np.testing.assert_allclose(tones(filled), np.array(EXPECTED)[order], atol=2)


def test_what_the_cache_holds_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references = write_all(tmp_path)
    monkeypatch.setattr("harness.frames._SETTLED_NS", 0)
    first = fill(samples_of(references), SMALL, tmp_path / "cache")

    def none(self: Images, reference: str) -> bytes:
        raise AssertionError(f"{reference} is read again")

    monkeypatch.setattr(Images, "read", none)
    second = fill(samples_of(references), SMALL, tmp_path / "cache")
    assert second.problems.is_empty()
    assert tones(second) == tones(first)
    assert second.frames.digests.tolist() == first.frames.digests.tolist()


def test_a_changed_container_is_read_again_and_others_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]) -> None:
    references = write_all(tmp_path)
    monkeypatch.setattr("harness.frames._SETTLED_NS", 0)
    fill(samples_of(references), SMALL, tmp_path / "cache")
    assert opened == ["film.avi"]
    write_zip(tmp_path / "F001.zip", {f"T1/{number}.png": png(10 + 10 * number, size=9) for number in range(4)})
    changed = fill(samples_of(references), SMALL, tmp_path / "cache")
    np.testing.assert_allclose(tones(changed), [*EXPECTED[:4], 10, 20, 30, 40, *EXPECTED[8:]], atol=2)
    assert opened == ["film.avi"]


def test_a_video_is_decoded_in_one_pass_though_its_frames_fill_many_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    monkeypatch.setattr("harness.frames._CHUNK_FRAMES", 3)
    films = [write_film(tmp_path / name, 10) for name in ("one.avi", "other.avi")]
    filled = fill(samples_of([part_of(film, number) for film in films for number in range(10)]), SMALL, tmp_path / "cache")
    np.testing.assert_allclose(tones(filled), [tone(number) for number in range(10)] * 2, atol=2)
    assert len(list((tmp_path / "cache").rglob("*.frames"))) > 3
    assert opened == ["one.avi", "other.avi"]


def test_a_part_that_is_not_there_is_one_problem_and_spoils_no_other(tmp_path: Path) -> None:
    references = write_all(tmp_path)
    absent = [
        part_of(tmp_path / "film.avi", 4),
        part_of(tmp_path / "film.avi", "x"),
        part_of(tmp_path / "F001.zip", "T1/9.png"),
        part_of(tmp_path / "fer2013.csv", 1),
        part_of(tmp_path / "fer2013.csv", 99),
    ]
    nowhere = [part_of(tmp_path / "F002.zip", "T1/0.png"), part_of(tmp_path / "other.avi", 0)]
    filled = fill(samples_of([*absent, *nowhere, *references]), SMALL, tmp_path / "cache")
    assert filled.ok.tolist() == [False] * 7 + [True] * 16
    np.testing.assert_allclose(tones(filled)[7:], EXPECTED, atol=2)
    unreadable = [("unreadable image", f"{number}") for number in range(5)]
    assert sorted(kinds(filled)) == sorted([*unreadable, ("missing image", "5"), ("missing image", "6")])
    assert filled.problems.filter(kind="unreadable image", sample="0")["detail"].item() == "the video ends after 4 frames"


def test_a_container_that_is_none_is_a_problem_of_each_of_its_samples(tmp_path: Path) -> None:
    for name in ("F001.zip", "film.mp4"):
        (tmp_path / name).write_bytes(b"something else")
    references = [part_of(tmp_path / "F001.zip", "1.png"), part_of(tmp_path / "film.mp4", 0), part_of(tmp_path / "film.mp4", 1)]
    filled = fill(samples_of([*references]), SMALL, tmp_path / "cache")
    assert sorted(kinds(filled)) == [("unreadable image", "0"), ("unreadable image", "1"), ("unreadable image", "2")]


def test_a_member_is_found_by_the_name_that_its_archive_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``./T1//1.png`` used to become ``T1/1.png`` as the path was made absolute."""
    write_zip(tmp_path / "F001.zip", {"./T1//1.png": png(40)})
    monkeypatch.chdir(tmp_path)
    filled = fill(samples_of([part_of("F001.zip", "./T1//1.png")]), SMALL, tmp_path / "cache")
    assert filled.problems.is_empty()
    assert tones(filled) == [40]


def test_bytes_that_are_no_image_are_said_in_the_same_words_each_time(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "F001.zip", {"1.png": b"", "2.png": b"no image"})
    filled = fill(samples_of([part_of(path, "1.png"), part_of(path, "2.png")]), SMALL, tmp_path / "cache")
    assert filled.problems["detail"].to_list() == ["0 bytes that are no image", "8 bytes that are no image"]


def test_a_sample_without_an_image_is_passed_over_without_a_problem(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.avi", 2)
    filled = fill(samples_of([part_of(film, 0), None, part_of(film, 1), None]), SMALL, tmp_path / "cache")
    assert filled.problems.is_empty()
    assert filled.ok.tolist() == [True, False, True, False]
    assert filled.frames.digests.tolist()[1] == ""


def test_the_same_pixels_in_containers_of_two_kinds_are_one_crop(tmp_path: Path) -> None:
    content = b"P5 3 3 255\n" + bytes([7] * 9)
    archive = write_zip(tmp_path / "F001.zip", {"1.pgm": content})
    table = write_csv(tmp_path / "fer2013.csv", [7])
    filled = fill(samples_of([part_of(archive, "1.pgm"), part_of(table, 2)]), SMALL, tmp_path / "cache")
    assert len({*filled.frames.digests.tolist()}) == 1, "so that duplicates are found wherever they lie"


def test_a_list_of_other_files_is_no_video(tmp_path: Path) -> None:
    write_film(tmp_path / "private.avi", 2)
    (tmp_path / "clip.avi").write_text("ffconcat version 1.0\nfile private.avi\n")
    with pytest.raises(OSError, match="no video"):
        frames_in(tmp_path / "clip.avi")
