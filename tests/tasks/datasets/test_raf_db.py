"""The RAF-DB reader against small folders written by hand, whole ones and mangled ones."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings

from harness.errors import RequestError
from tasks.datasets.raf_db import read
from tests.tasks.datasets.mangling import Mangling, manglings, survives

LIST = "basic/EmoLabel/list_patition_label.txt"
REAL = "train_00001.jpg 5\ntrain_00002.jpg 5\ntrain_00003.jpg 4\ntest_3068.jpg 7"  # as the real file begins and ends


def write(root: Path, content: str | bytes = REAL, *, file: str = LIST, images: tuple[str, ...] = ()) -> Path:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(content.encode() if isinstance(content, str) else content)
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(b"")
    return root


def told(problems: pl.DataFrame) -> list[tuple[str, int | None]]:
    return sorted(problems.select("kind", "line").iter_rows(), key=str)


def test_a_line_becomes_a_sample_with_its_aligned_image(tmp_path: Path) -> None:
    aligned = [f"basic/Image/aligned/{name}_aligned.jpg" for name in ("train_00001", "train_00002", "train_00003", "test_3068")]
    reading = read(write(tmp_path, images=(*aligned, "basic/Image/original/train_00001.jpg")))
    assert reading.problems.is_empty()
    samples = reading.samples
    assert samples["sample"].to_list() == samples["clip"].to_list() == aligned, "the last line counts though nothing ends it"
    assert samples["image"].to_list() == [f"{tmp_path}/{file}" for file in aligned]
    assert samples["expression"].to_list() == ["sad", "sad", "happy", "neutral"]
    assert samples["split"].to_list() == ["train", "train", "train", "test"]
    assert samples["frame"].to_list() == [0] * 4
    assert samples["subject"].null_count() == 4, "nobody says who it is"


def test_the_original_images_bear_the_names_of_the_list(tmp_path: Path) -> None:
    originals = tuple(f"basic/Image/original/{name}.jpg" for name in ("train_00001", "train_00002", "train_00003", "test_3068"))
    reading = read(write(tmp_path, images=originals), images="original")
    assert reading.samples["sample"].to_list() == list(originals)
    assert reading.samples["image"].null_count() == 0
    assert reading.problems.is_empty()


def test_every_code_has_its_expression(tmp_path: Path) -> None:
    reading = read(write(tmp_path, "\n".join(f"train_{code:05}.jpg {code}" for code in range(1, 8))))
    assert reading.samples["expression"].to_list() == ["surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"]


@pytest.mark.parametrize("root", ["", "basic", "basic/EmoLabel"])
def test_the_folder_may_be_given_at_several_heights(tmp_path: Path, root: str) -> None:
    write(tmp_path / root, file=LIST.removeprefix(root).removeprefix("/"))
    assert read(tmp_path / root).samples.height == 4


@pytest.mark.parametrize(
    "file", ["basic/EmoLabel/list_partition_label.txt", "list_patition_label.txt", "data/RAF/Basic/emolabel/LIST_PATITION_LABEL.TXT"]
)
def test_the_list_is_found_however_it_is_spelled_and_wherever_it_lies(tmp_path: Path, file: str) -> None:
    assert read(write(tmp_path, file=file)).samples.height == 4


def test_images_beside_the_labels_and_in_other_case_are_found(tmp_path: Path) -> None:
    reading = read(
        write(tmp_path, "train_00001.jpg 5", file="basic/list_patition_label.txt", images=("basic/Aligned/train_00001_aligned.jpg",))
    )
    assert reading.samples["image"].to_list() == [f"{tmp_path}/basic/Aligned/train_00001_aligned.jpg"]


def test_windows_copies_are_read(tmp_path: Path) -> None:
    reading = read(write(tmp_path, b"\xef\xbb\xbf" + REAL.replace("\n", "\r\n").encode() + b"\r\n\r\n"))
    assert reading.samples["expression"].to_list() == ["sad", "sad", "happy", "neutral"]
    assert set(reading.problems["kind"]) == {"no images"}


def test_bad_lines_are_said_with_their_number_and_spoil_nothing_else(tmp_path: Path) -> None:
    content = """train_00001.jpg 5
train_00002.jpg 8

train_00003.jpg five
train_00004.jpg
train_00005.jpg 1 2
train_00001.jpg 4
foto.jpg 3
train_00006.jpg 1.5
train_00007.jpg nan
test_0001.jpg 7"""
    names = ("train_00001", "train_00002", "train_00003", "train_00006", "train_00007", "foto", "test_0001")
    reading = read(write(tmp_path, content, images=tuple(f"basic/Image/aligned/{name}_aligned.jpg" for name in names)))
    assert told(reading.problems) == sorted(
        [
            ("label out of range", 2),
            ("label out of range", 9),
            ("label out of range", 10),
            ("unreadable label", 4),
            ("wrong number of cells", 5),
            ("wrong number of cells", 6),
            ("row stands twice", 7),
            ("unknown split", 8),
        ],
        key=str,
    )
    assert reading.samples["expression"].to_list() == ["sad", None, None, "disgust", None, None, "neutral"]
    assert reading.samples["split"].to_list() == ["train", "train", "train", None, "train", "train", "test"]


def test_images_that_are_not_there_and_images_that_no_line_names_are_said(tmp_path: Path) -> None:
    reading = read(write(tmp_path, images=("basic/Image/aligned/train_00001_aligned.jpg", "basic/Image/aligned/more.png")))
    assert reading.samples["image"].is_null().to_list() == [False, True, True, True]
    assert told(reading.problems) == [("image without a label", None), *(("missing image", line) for line in (2, 3, 4))]


def test_labels_alone_can_be_counted(tmp_path: Path) -> None:
    reading = read(write(tmp_path))
    assert reading.samples.height == 4
    assert reading.samples["sample"][0] == "basic/Image/aligned/train_00001_aligned.jpg"
    assert reading.problems["kind"].to_list() == ["no images"]


def test_the_compound_subset_is_never_mixed_in(tmp_path: Path) -> None:
    write(
        tmp_path,
        "train_00001.jpg 11",
        file="compound/EmoLabel/list_patition_label.txt",
        images=("compound/Image/aligned/train_00001_aligned.jpg",),
    )
    with pytest.raises(RequestError, match="only the compound subset"):
        read(tmp_path)
    with pytest.raises(RequestError, match="labels of the compound subset"):
        read(tmp_path / "compound")
    reading = read(write(tmp_path))
    assert reading.samples["expression"].to_list() == ["sad", "sad", "happy", "neutral"]
    assert reading.samples["image"].null_count() == 4
    assert reading.problems["kind"].to_list() == ["no images"]


def test_a_second_list_is_said(tmp_path: Path) -> None:
    write(tmp_path, "train_00001.jpg 1", file="copy/EmoLabel/list_patition_label.txt")
    reading = read(write(tmp_path))
    assert reading.samples.height == 4
    assert sorted(reading.problems["kind"]) == ["no images", "stands twice"]


def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no folder"):
        read(tmp_path / "absent")
    with pytest.raises(RequestError, match=r"no RAF-DB .*list_patition_label\.txt"):
        read(tmp_path)
    with pytest.raises(RequestError, match="did you mean 'aligned'"):
        read(write(tmp_path), images="aligend")


def test_an_empty_list_has_no_samples(tmp_path: Path) -> None:
    assert read(write(tmp_path, "")).samples.is_empty()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("raf") / "whole", images=("basic/Image/aligned/train_00001_aligned.jpg",))


@settings(max_examples=60, deadline=None)
@given(mangling=manglings)
def test_any_mangled_list_is_read_or_refused(whole: Path, mangling: Mangling) -> None:
    survives(read, whole, whole.with_name("scratch"), Path(LIST), mangling)
