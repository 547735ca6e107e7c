"""The FERPlus reader against small folders written by hand in its forms, whole ones and mangled ones."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import RequestError
from harness.images import Images
from tasks.datasets.ferplus import read
from tests.tasks.datasets.mangling import Mangling, manglings, survives

HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
REAL = [  # as the real file begins, and three more of its rows
    "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0",
    "Training,fer0000001.png,6,0,1,1,0,0,0,0,2,0",
    "Training,,0,0,0,0,0,0,0,0,0,10",
    "PublicTest,fer0028638.png,4,0,0,0,1,0,0,4,1,0",
    "PrivateTest,fer0032220.png,0,10,0,0,0,0,0,0,0,0",
]
USAGES = [row.split(",")[0] for row in REAL]
NAMES = ["fer0000000.png", "fer0000001.png", "fer0028638.png", "fer0032220.png"]


def write_votes(root: Path, rows: list[str] = REAL, header: str = HEADER) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "fer2013new.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def write_pixels(root: Path, usages: list[str] = USAGES, *, codes: list[Any] | None = None, side: int = 48, quote: str = "") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    codes = codes or list(range(len(usages)))
    rows = [
        f"{code},{quote}{' '.join([str(place)] * side**2)}{quote},{usage}"
        for place, (code, usage) in enumerate(zip(codes, usages, strict=True))
    ]
    (root / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")
    return root


def write_lists(root: Path, *, images: bool = True) -> Path:
    for folder, names in {"FER2013Train": NAMES[:2], "FER2013Valid": NAMES[2:3], "FER2013Test": NAMES[3:]}.items():
        (root / "data" / folder).mkdir(parents=True, exist_ok=True)
        votes = {row.split(",")[1]: row.split(",", 2)[2] for row in REAL}
        (root / "data" / folder / "label.csv").write_text("".join(f'{name},"(0, 0, 48, 48)",{votes[name]}\n' for name in names))
        for name in names if images else []:
            (root / "data" / folder / name).write_bytes(b"")
    return root


def told(problems: pl.DataFrame) -> list[tuple[str, int | None]]:
    return sorted(problems.select("kind", "line").iter_rows(), key=str)


# ── the votes ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("quote", ["", '"'])
def test_votes_meet_their_pixels_by_the_order_of_the_rows(tmp_path: Path, quote: str) -> None:
    reading = read(write_pixels(write_votes(tmp_path), quote=quote))
    samples = reading.samples
    assert samples["sample"].to_list() == samples["clip"].to_list() == NAMES
    assert samples["image"].to_list() == [f"{tmp_path}/fer2013.csv::{line}" for line in (2, 3, 5, 6)], "the row without a name counts"
    assert samples["split"].to_list() == ["train", "train", "validation", "test"]
    assert samples["expression"].to_list() == ["neutral", "neutral", None, "happy"]
    names = ["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt"]
    assert samples.select(f"votes_{name}" for name in names).rows()[0] == (4, 0, 1, 0, 0, 2, 3, 0)
    assert samples.select(pl.sum_horizontal(f"votes_{name}" for name in names)).to_series().to_list() == [10, 8, 9, 10]
    assert samples.select("votes_unknown", "votes_no_face").rows() == [(0, 0), (2, 0), (1, 0), (0, 0)]
    with Images() as images:
        assert images.read(samples["image"][2]) == b"P5 48 48 255\n" + bytes([3]) * 48**2
    assert told(reading.problems) == [("row without an image name", 4)]


def test_rows_without_an_image_name_are_told_in_one_line_with_their_count(tmp_path: Path) -> None:
    reading = read(write_votes(tmp_path, [REAL[0], *[REAL[2]] * 5]))
    said = reading.problems.filter(kind="row without an image name")
    assert said.height == 1
    assert said["line"][0] == 3
    assert said["detail"][0].startswith("5 rows")
    assert reading.samples.height == 1


@pytest.mark.parametrize(
    ("votes", "expression"),
    [
        ("4,0,0,1,3,2,0,0,0,0", "neutral"),
        ("0,4,3,3,0,0,0,0,0,0", "happy"),
        ("0,0,6,4,0,0,0,0,0,0", "surprise"),
        ("0,0,0,3,2,1,1,1,1,1", "sad"),
        ("0,0,0,0,9,1,0,0,0,0", "anger"),
        ("0,0,0,0,1,9,0,0,0,0", "disgust"),
        ("1,0,0,0,0,0,9,0,0,0", "fear"),
        ("1,0,0,0,0,0,0,9,0,0", "contempt"),
        ("5,0,0,5,0,0,0,0,0,0", None),
        ("4,0,0,0,1,0,0,0,5,0", None),
        ("4,0,0,2,0,0,0,0,4,0", None),
        ("0,0,0,0,0,0,0,0,0,10", None),
        ("4,4,0,0,0,0,0,0,1,1", None),
    ],
)
def test_the_expression_is_what_more_raters_chose_than_any_other_answer(tmp_path: Path, votes: str, expression: str | None) -> None:
    reading = read(write_votes(tmp_path, [f"Training,fer0000000.png,{votes}"]))
    assert reading.samples["expression"].to_list() == [expression]
    assert set(reading.problems["kind"]) == {"no images"}, "neither a tie nor an unknown face is a problem"


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    header = "NF,unknown,contempt,fear,disgust,anger,sadness,surprise,happiness,neutral,Image name,Usage"
    reading = read(write_votes(tmp_path, ["0,0,0,0,0,0,0,0,3,7,a.png,PublicTest"], header))
    sample = reading.samples.row(0, named=True)
    assert (sample["sample"], sample["split"], sample["expression"]) == ("a.png", "validation", "neutral")
    assert (sample["votes_neutral"], sample["votes_happy"]) == (7, 3)


def test_votes_that_are_not_ten_stay_and_are_said(tmp_path: Path) -> None:
    rows = ["Training,a.png,0,0,6,0,1,0,2,0,0,0", "Training,b.png,0,10,0,0,0,0,0,0,0,0", "Training,c.png,9,2,0,0,0,0,0,0,0,0"]
    reading = read(write_votes(tmp_path, rows))
    assert told(reading.problems.filter(pl.col("kind") != "no images")) == [("votes that are not ten", 2), ("votes that are not ten", 4)]
    assert reading.samples["expression"].to_list() == ["surprise", "happy", "neutral"]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("Training,b.png,x,0,6,0,1,0,2,0,0,0", "unreadable label"),
        ("Training,b.png,,0,6,0,1,0,2,0,0,0", "unreadable label"),
        ("Training,b.png,-1,0,6,0,1,0,2,0,0,0", "label out of range"),
        ("Training,b.png,1.5,0,6,0,1,0,2,0,0,0", "label out of range"),
        ("Training,b.png,nan,0,6,0,1,0,2,0,0,0", "label out of range"),
        ("Training,b.png,1e400,0,6,0,1,0,2,0,0,0", "label out of range"),
    ],
)
def test_a_row_with_a_vote_that_is_none_has_no_votes_and_is_said(tmp_path: Path, row: str, kind: str) -> None:
    reading = read(write_votes(tmp_path, [REAL[0], row, REAL[4]]))
    assert told(reading.problems.filter(pl.col("kind") != "no images")) == [(kind, 3)]
    assert reading.samples["votes_happy"].to_list() == [0, None, 10]
    assert reading.samples["expression"].to_list() == ["neutral", None, "happy"]


def test_rows_that_give_no_sample_and_usages_that_are_none_are_said(tmp_path: Path) -> None:
    rows = [REAL[0], "Training,b.png,1", "", REAL[0], "Test,c.png,0,10,0,0,0,0,0,0,0,0"]
    reading = read(write_votes(tmp_path, rows))
    assert reading.samples["sample"].to_list() == ["fer0000000.png", "c.png"]
    assert reading.samples["split"].to_list() == ["train", None]
    wanted = [("row stands twice", 5), ("unknown split", 6), ("wrong number of cells", 3)]
    assert told(reading.problems.filter(pl.col("kind") != "no images")) == wanted


# ── their images ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_where_the_rows_do_not_fit_together_no_image_is_guessed(tmp_path: Path) -> None:
    for name, usages in {"fewer": USAGES[:-1], "more": [*USAGES, "PrivateTest"]}.items():
        reading = read(write_pixels(write_votes(tmp_path / name), usages))
        assert reading.samples["image"].null_count() == reading.samples.height == 4, "the labels can be counted all the same"
        assert {"row order broken", "no images"} < set(reading.problems["kind"])
    other = ["Training", "PublicTest", "Training", "Training", "PrivateTest"]
    reading = read(write_pixels(write_votes(tmp_path / "other"), other))
    assert reading.samples["image"].null_count() == 4
    broken = reading.problems.filter(kind="row order broken")
    assert broken.select("line", "sample").rows() == [(3, "fer0000001.png"), (5, "fer0028638.png")]
    assert reading.samples["split"].to_list() == ["train", "train", "validation", "test"], "of the votes"


def test_images_in_files_are_found_by_their_names(tmp_path: Path) -> None:
    root = write_lists(write_votes(tmp_path))
    (root / "data/FER2013Test/fer0099999.png").write_bytes(b"")
    (root / "figure.png").write_bytes(b"")
    (root / "data/FER2013Train" / NAMES[1]).unlink()
    reading = read(root)
    assert reading.samples["sample"].to_list() == NAMES, "called as with a csv of pixels"
    folders = {NAMES[0]: "FER2013Train", NAMES[2]: "FER2013Valid", NAMES[3]: "FER2013Test"}
    found = dict(reading.samples.select("sample", "image").drop_nulls().iter_rows())
    assert found == {name: f"{root}/data/{folder}/{name}" for name, folder in folders.items()}
    assert told(reading.problems) == [("image without a label", None), ("missing image", 3), ("row without an image name", 4)]


def test_files_are_used_where_the_pixels_do_not_fit(tmp_path: Path) -> None:
    reading = read(write_pixels(write_lists(write_votes(tmp_path)), USAGES[:-1]))
    assert reading.samples["image"].null_count() == 0
    assert {Path(image).suffix for image in reading.samples["image"]} == {".png"}


def test_the_lists_beside_the_images_say_the_same_as_the_csv(tmp_path: Path) -> None:
    votes = read(write_lists(write_votes(tmp_path / "votes"))).samples.drop("image")
    reading = read(write_lists(tmp_path / "lists"))
    assert reading.problems.is_empty()
    assert reading.samples.drop("image").equals(votes)
    assert reading.samples["image"].null_count() == 0


def test_bad_lines_of_a_list_are_said(tmp_path: Path) -> None:
    path = write_lists(tmp_path) / "data/FER2013Train/label.csv"
    path.write_text(
        path.read_text()
        + 'fer1.png,"(0, 0, 48, 48)",1,2\nfer2.png,0,0,48,48,1,2,3,4,0,0,0,0,0,0\n\n,"(0, 0, 48, 48)",0,0,0,0,0,0,0,0,0,10\n'
    )
    reading = read(tmp_path)
    assert reading.samples.height == 4
    assert told(reading.problems) == [("row without an image name", 6), ("wrong number of cells", 3), ("wrong number of cells", 4)]


# ── FER2013 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_fer2013_alone_has_its_own_labels(tmp_path: Path) -> None:
    reading = read(write_pixels(tmp_path, ["Training"] * 5 + ["PublicTest", "PrivateTest"], side=3))
    assert reading.problems.is_empty()
    samples = reading.samples
    assert samples["expression"].to_list() == ["anger", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
    assert samples["split"].to_list() == ["train"] * 5 + ["validation", "test"]
    assert samples["sample"].to_list() == [f"fer2013.csv::{line}" for line in range(2, 9)]
    assert samples["image"].to_list() == [f"{tmp_path}/fer2013.csv::{line}" for line in range(2, 9)]
    assert not [name for name in samples.columns if name.startswith("votes")]


def test_the_other_columns_order_with_blanks_in_its_names_is_read(tmp_path: Path) -> None:
    pixels = " ".join(["7"] * 2304)
    (tmp_path / "icml_face_data.csv").write_bytes(f"emotion, Usage, pixels\r\n3,Training,{pixels}\r\n0,PrivateTest,{pixels}\r\n".encode())
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    assert reading.samples["expression"].to_list() == ["happy", "anger"]
    assert reading.samples["split"].to_list() == ["train", "test"]
    with Images() as images:
        assert images.read(reading.samples["image"][1]) == b"P5 48 48 255\n" + bytes([7]) * 2304


def test_the_labels_can_be_chosen(tmp_path: Path) -> None:
    root = write_pixels(write_votes(tmp_path), codes=[0, 1, 2, 3, 4])
    assert read(root).samples.height == 4
    assert read(root, labels="fer2013").samples["expression"].to_list() == ["anger", "disgust", "fear", "happy", "sad"]


def test_bad_rows_of_fer2013_are_said(tmp_path: Path) -> None:
    reading = read(write_pixels(tmp_path, ["Training"] * 5, codes=[7, "x", "", "1.5", 3]))
    assert reading.samples["expression"].to_list() == [None, None, None, None, "happy"]
    wanted = [("label out of range", 2), ("label out of range", 5), ("unreadable label", 3), ("unreadable label", 4)]
    assert told(reading.problems) == wanted


# ── all ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no folder"):
        read(tmp_path / "absent")
    with pytest.raises(RequestError, match=r"no FERPlus .*fer2013new\.csv"):
        read(tmp_path)
    with pytest.raises(RequestError, match=r"no FER2013 .*fer2013\.csv"):
        read(write_votes(tmp_path / "votes"), labels="fer2013")
    with pytest.raises(RequestError, match="no FERPlus"):
        read(write_pixels(tmp_path / "pixels"), labels="ferplus")
    with pytest.raises(RequestError, match="did you mean 'ferplus'"):
        read(tmp_path, labels="fer_plus")
    with pytest.raises(RequestError, match=r"no column nf .*fer2013new\.csv"):
        read(write_votes(tmp_path / "short", header=HEADER.removesuffix(",NF")))


def test_windows_copies_are_read(tmp_path: Path) -> None:
    root = write_pixels(write_votes(tmp_path))
    for path in root.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    reading = read(root)
    assert reading.samples["image"].null_count() == 0
    assert told(reading.problems) == [("row without an image name", 4)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fer")
    write_pixels(write_votes(root / "votes"), side=12)
    write_lists(root / "lists")
    write_pixels(root / "first", side=3)
    return root


FILES = ["votes/fer2013new.csv", "votes/fer2013.csv", "lists/data/FER2013Train/label.csv", "first/fer2013.csv"]


@settings(max_examples=100, deadline=None)
@given(mangling=manglings, file=st.sampled_from(FILES))
def test_any_mangled_file_is_read_or_refused(whole: Path, mangling: Mangling, file: str) -> None:
    form, _, inside = file.partition("/")
    survives(read, whole / form, whole.with_name("scratch"), Path(inside), mangling)
