"""The AffectNet reader against small folders written by hand in both distributions, whole ones and mangled ones."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import RequestError
from tasks.datasets.affectnet import read
from tests.tasks.datasets.mangling import Mangling, manglings, survives

HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
POINTS = [round(0.5 * i, 2) for i in range(136)]
LANDMARKS = ";".join(map(str, POINTS))
IMAGES = "Manually_Annotated/Manually_Annotated_Images"


def row(
    path: str, expression: Any = 1, valence: Any = 0.5, arousal: Any = -0.25, box: str = "10,20,30,40", landmarks: str = LANDMARKS
) -> str:
    return f"{path},{box},{landmarks},{expression},{valence},{arousal}"


def write_2015(
    root: Path, training: list[str], validation: Sequence[str] = (), absent: Collection[str] = (), lists: str = "Manually_Annotated"
) -> Path:
    (root / lists).mkdir(parents=True, exist_ok=True)
    for name, rows in {"training.csv": training, "validation.csv": validation}.items():
        (root / lists / name).write_text("\n".join([HEADER, *rows]) + "\n")
        for path in {line.split(",")[0] for line in rows if line}.difference(absent):
            image = root / IMAGES / path.replace("\\", "/")
            image.parent.mkdir(parents=True, exist_ok=True)
            image.write_bytes(b"")
    return root


def write_2021(folder: Path, name: str, image: bool = True, **notes: Any) -> None:
    for inside in ("images", "annotations"):
        (folder / inside).mkdir(parents=True, exist_ok=True)
    if image:
        (folder / "images" / f"{name}.jpg").write_bytes(b"")
    for kind, value in ({"exp": "1", "val": "0.5", "aro": "-0.25", "lnd": np.array(POINTS)} | notes).items():
        if value is not None:
            np.save(folder / "annotations" / f"{name}_{kind}.npy", np.asarray(value), allow_pickle=False)


def by_name(samples: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {Path(sample["sample"]).name: sample for sample in samples.iter_rows(named=True)}


def kinds(problems: pl.DataFrame) -> dict[str, int]:
    return dict(problems.group_by("kind").len().iter_rows())


# ── 2015 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("lists", ["Manually_Annotated", "Manually_Annotated_file_lists"])
def test_a_row_of_a_list_becomes_a_sample(tmp_path: Path, lists: str) -> None:
    reading = read(write_2015(tmp_path, [row("1/a.JPG")], [row("2/b.tiff", 6, -1, 1)], lists=lists))
    assert reading.problems.is_empty()
    samples = by_name(reading.samples)
    assert {name: sample["split"] for name, sample in samples.items()} == {"a.JPG": "train", "b.tiff": "validation"}
    a = samples["a.JPG"]
    assert a["sample"] == a["clip"] == f"{IMAGES}/1/a.JPG"
    assert (a["expression"], a["valence"], a["arousal"], a["subject"], a["frame"]) == ("happy", 0.5, -0.25, None, 0)
    assert list(a["box"]) == [10, 20, 40, 60]
    np.testing.assert_allclose(np.array(a["landmarks"]), np.array(POINTS).reshape(68, 2))
    assert Path(a["image"]).is_file()
    assert (samples["b.tiff"]["expression"], samples["b.tiff"]["valence"], samples["b.tiff"]["arousal"]) == ("anger", -1, 1)


def test_every_code_has_its_name_and_those_above_seven_none(tmp_path: Path) -> None:
    rows = [row(f"1/{code:02}.jpg", code, *((-2, -2) if code in (9, 10) else (0.1, 0.2))) for code in range(11)]
    reading = read(write_2015(tmp_path, rows))
    assert reading.problems.is_empty()
    samples = reading.samples.sort("sample")
    names = ["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt", None, None, None]
    assert samples["expression"].to_list() == names
    assert samples["valence"].to_list() == [0.1] * 9 + [None] * 2
    assert samples["arousal"].to_list() == [0.2] * 9 + [None] * 2


def test_minus_two_in_either_label_masks_both_and_is_no_problem(tmp_path: Path) -> None:
    reading = read(write_2015(tmp_path, [row("1/a.jpg", 0, -2, 0.5), row("1/b.jpg", 0, 0.5, "-2.000")]))
    assert reading.samples["valence"].to_list() == reading.samples["arousal"].to_list() == [None, None]
    assert reading.samples["expression"].to_list() == ["neutral"] * 2
    assert reading.problems.is_empty()


@pytest.mark.parametrize(
    ("changed", "kind", "column"),
    [
        ({"valence": "NULL"}, "unreadable label", "valence"),
        ({"arousal": ""}, "unreadable label", "arousal"),
        ({"expression": "NULL"}, "unreadable label", "expression"),
        ({"expression": "1.5"}, "label out of range", "expression"),
        ({"expression": 11}, "label out of range", "expression"),
        ({"expression": "nan"}, "unreadable label", "expression"),
        ({"expression": -1}, "label out of range", "expression"),
        ({"valence": 1.01}, "label out of range", "valence"),
        ({"valence": "nan"}, "unreadable label", "valence"),
        ({"arousal": "-inf"}, "unreadable label", "arousal"),
        ({"arousal": -3}, "label out of range", "arousal"),
        ({"box": "-1,-1,-1,-1"}, "unusable box", "box"),
        ({"box": "0,0,0,10"}, "unusable box", "box"),
        ({"box": "NULL,0,5,5"}, "unusable box", "box"),
        ({"box": "0,0,5,1e30"}, "unusable box", "box"),
        ({"landmarks": "NULL"}, "unreadable landmarks", "landmarks"),
        ({"landmarks": LANDMARKS + ";1"}, "unreadable landmarks", "landmarks"),
        ({"landmarks": LANDMARKS.replace("1.5", "inf")}, "unreadable landmarks", "landmarks"),
        ({"landmarks": LANDMARKS.replace("1.5", "x")}, "unreadable landmarks", "landmarks"),
    ],
)
def test_a_bad_cell_is_null_and_said_with_its_line_and_spoils_nothing_else(
    tmp_path: Path, changed: dict[str, Any], kind: str, column: str
) -> None:
    reading = read(write_2015(tmp_path, [row("1/a.jpg"), row("1/b.jpg", **changed), row("1/c.jpg")]))
    columns = ["expression", "valence", "arousal", "box", "landmarks"]
    nulls = reading.samples.select(pl.col(columns).is_null())
    assert nulls.row(1, named=True) == {name: name == column for name in columns}
    assert not any(nulls.row(0) + nulls.row(2))
    assert reading.problems.height == 1
    problem = reading.problems.row(0, named=True)
    assert (problem["kind"], problem["line"], problem["sample"]) == (kind, 3, f"{IMAGES}/1/b.jpg")
    assert problem["file"].endswith("training.csv")


def test_a_row_without_an_image_stays_and_one_that_names_none_does_not(tmp_path: Path) -> None:
    rows = [
        row("1/a.jpg"),
        "1/b.jpg,1,2",
        "",
        row("1/a.jpg"),
        row("1/absent.jpg"),
        row("1/c.jpg") + ",more",
        row(""),
        row("1/d.jpg"),
    ]
    reading = read(write_2015(tmp_path, rows, [row("1/d.jpg")], absent={"1/absent.jpg", ""}))
    assert sorted(by_name(reading.samples)) == ["a.jpg", "absent.jpg", "d.jpg"]
    absent = by_name(reading.samples)["absent.jpg"]
    assert (absent["sample"], absent["image"], absent["expression"]) == (f"{IMAGES}/1/absent.jpg", None, "happy")
    said = sorted(reading.problems.select("kind", "line").iter_rows())
    assert said == [
        ("missing image", 6),
        ("missing image name", 8),
        ("row stands twice", 5),
        ("row stands twice", 9),
        ("wrong number of cells", 3),
        ("wrong number of cells", 7),
    ]
    assert by_name(reading.samples)["d.jpg"]["split"] == "validation", "an image of both parts must not be trained on"


@pytest.mark.parametrize("lists", ["Manually_Annotated", "Manually_Annotated_file_lists", "."])
def test_labels_without_any_image_have_the_names_they_have_with_images_and_that_is_said_once(tmp_path: Path, lists: str) -> None:
    rows = [row("1/a.jpg"), row("2/b.jpg")]
    alone = read(write_2015(tmp_path / "alone", rows, absent={"1/a.jpg", "2/b.jpg"}, lists=lists))
    assert kinds(alone.problems) == {"no images": 1}
    assert alone.samples["image"].null_count() == 2
    home = "" if lists == "." else "Manually_Annotated/"
    assert alone.samples["sample"].to_list() == [f"{home}Manually_Annotated_Images/1/a.jpg", f"{home}Manually_Annotated_Images/2/b.jpg"]
    if lists != ".":
        assert alone.samples["sample"].equals(read(write_2015(tmp_path / "whole", rows, lists=lists)).samples["sample"])


def test_images_beside_the_lists_are_found(tmp_path: Path) -> None:
    write_2015(tmp_path, [row("1/a.jpg")])
    (tmp_path / IMAGES / "1").rename(tmp_path / "Manually_Annotated" / "1")
    (tmp_path / IMAGES).rmdir()
    reading = read(tmp_path)
    assert reading.samples["sample"].to_list() == ["Manually_Annotated/1/a.jpg"]
    assert reading.problems.is_empty()


def test_folders_of_images_may_be_links_and_lie_two_folders_down(tmp_path: Path) -> None:
    write_2015(tmp_path / "disk", [row("1/a.jpg")])
    write_2015(tmp_path / "data" / "faces" / "AffectNet", [row("1/a.jpg")], absent={"1/a.jpg"})
    (tmp_path / "data" / "faces" / "AffectNet" / IMAGES).mkdir()
    (tmp_path / "data" / "faces" / "AffectNet" / IMAGES / "1").symlink_to(tmp_path / "disk" / IMAGES / "1")
    assert read(tmp_path / "data" / "faces").samples["image"].null_count() == 0


def test_names_of_lists_folders_and_columns_are_found_in_any_case(tmp_path: Path) -> None:
    write_2015(tmp_path, [row("1/a.jpg")], [row("1/b.jpg", 0)])
    folder = tmp_path / "Manually_Annotated"
    text = (folder / "training.csv").read_text()
    (folder / "training.csv").unlink()
    (folder / "Training.CSV").write_text(text.replace(HEADER, HEADER.upper()))
    (tmp_path / IMAGES).rename(folder / "manually_annotated_images")
    folder.rename(tmp_path / "MANUALLY_ANNOTATED")
    reading = read(tmp_path)
    assert sorted(reading.samples.select("split", "expression").iter_rows()) == [("train", "happy"), ("validation", "neutral")]
    assert reading.problems.is_empty()


def test_columns_may_stand_in_another_order_and_among_others(tmp_path: Path) -> None:
    write_2015(tmp_path, [row("1/a.jpg", 6, 0.25, -0.75)])
    path = tmp_path / "Manually_Annotated" / "training.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\n".join(",".join(["id", *reversed(cells)]) for cells in lines))
    sample = read(tmp_path).samples.row(0, named=True)
    assert (sample["expression"], sample["valence"], sample["arousal"], list(sample["box"])) == ("anger", 0.25, -0.75, [10, 20, 40, 60])


def test_a_face_that_reaches_beyond_its_image_keeps_its_box(tmp_path: Path) -> None:
    reading = read(write_2015(tmp_path, [row("1/a.jpg", box="-12,-3,40,50")]))
    assert list(reading.samples["box"][0]) == [-12, -3, 28, 47]
    assert reading.problems.is_empty()


def test_a_label_of_an_image_without_a_face_is_not_used_and_that_is_said(tmp_path: Path) -> None:
    reading = read(write_2015(tmp_path, [row("1/a.jpg", 10, 0.5, -2), row("1/b.jpg", 9, 0.5, 0.25)]))
    assert reading.samples["valence"].to_list() == reading.samples["arousal"].to_list() == [None, None]
    assert reading.problems.select("kind", "line").rows() == [("label that contradicts another", 3)] * 2


def test_the_file_that_is_bad_in_every_copy_is_a_sample_like_any_other(tmp_path: Path) -> None:
    """What is wrong with it is its image, which says so when it is opened; its labels are whole."""
    reading = read(write_2015(tmp_path, [row("103/29a31ebf1567693f4644c8ba3476ca9a72ee07fe67a5860d98707a0a.jpg", 0, -0.1, 0.2)]))
    assert reading.samples.select("expression", "valence", "arousal").row(0) == ("neutral", -0.1, 0.2)
    assert Path(reading.samples["image"][0]).stat().st_size == 0


def test_windows_copies_are_read(tmp_path: Path) -> None:
    root = write_2015(tmp_path, [row("1\\a.jpg")])
    path = root / "Manually_Annotated" / "training.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    reading = read(root)
    assert reading.samples["sample"].to_list() == [f"{IMAGES}/1/a.jpg"]
    assert reading.problems.is_empty()


@pytest.mark.parametrize("lists", ["Automatically_Annotated/Automatically_annotated_file_list", "Automatically_Annotated_file_lists"])
def test_machine_made_labels_are_read_only_where_one_asks_for_them(tmp_path: Path, lists: str) -> None:
    write_2015(tmp_path, [row("1/a.jpg")], [row("1/b.jpg", 2)])
    (tmp_path / lists).mkdir(parents=True)
    (tmp_path / lists / "automatically_annotated.csv").write_text(f"{HEADER}\n{row('1/a.jpg', 0)}\n{row('1/c.jpg', 0)}\n")
    images = tmp_path / "Automatically_Annotated" / "Automatically_Annotated_Images" / "1"
    images.mkdir(parents=True)
    (images / "a.jpg").write_bytes(b"")
    manual = read(tmp_path)
    assert manual.samples.height == 2
    assert manual.problems.is_empty()
    both = read(tmp_path, automatic=True)
    assert sorted(both.samples.select("split", "expression", "sample").iter_rows()) == [
        ("train", "happy", f"{IMAGES}/1/a.jpg"),
        ("train", "neutral", "Automatically_Annotated/Automatically_Annotated_Images/1/a.jpg"),
        ("train", "neutral", "Automatically_Annotated/Automatically_Annotated_Images/1/c.jpg"),
        ("validation", "sad", f"{IMAGES}/1/b.jpg"),
    ]
    assert kinds(both.problems) == {"missing image": 1}


def test_a_list_in_two_places_is_used_once(tmp_path: Path) -> None:
    write_2015(tmp_path, [row("1/a.jpg")])
    write_2015(tmp_path, [row("1/a.jpg"), row("1/b.jpg")], lists="Manually_Annotated_file_lists")
    reading = read(tmp_path)
    assert sorted(by_name(reading.samples)) == ["a.jpg"]
    assert kinds(reading.problems) == {"stands twice": 2}


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"a,b,c\n1,2,3\n", HEADER.replace("valence", "v").encode()])
def test_a_list_without_its_columns_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    write_2015(tmp_path, [row("1/a.jpg")])
    (tmp_path / "Manually_Annotated" / "training.csv").write_bytes(content)
    with pytest.raises(RequestError, match=r"no column .*training\.csv"):
        read(tmp_path)


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("lists")
    return write_2015(root, [row("1/a.jpg"), row("1/b.jpg", 9, -2, -2), row("2/c.JPG", 8, box="0,0,-1,4")], [row("3/d.png", 0)])


@settings(max_examples=100, deadline=None)
@given(mangling=manglings)
def test_a_mangled_list_is_read_or_refused_in_one_line(lists: Path, tmp_path_factory: pytest.TempPathFactory, mangling: Mangling) -> None:
    file = Path("Manually_Annotated/training.csv")
    reading = survives(read, lists, tmp_path_factory.getbasetemp() / "mangled", file, mangling)
    if reading is not None:
        assert reading.samples.filter(split="validation").height == 1, "the other list is whole"


# ── 2021 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [str, np.float32, np.float64, lambda value: np.array([value]), lambda value: np.array(str(value), "S9")])
def test_labels_are_read_however_they_were_saved(tmp_path: Path, kind: Any) -> None:
    write_2021(tmp_path / "train_set", "5", exp=kind(7), val=kind(0.5), aro=kind(-1), lnd=np.array(POINTS, np.float32).reshape(68, 2))
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    sample = reading.samples.row(0, named=True)
    assert sample["sample"] == sample["clip"] == "train_set/images/5.jpg"
    assert (sample["expression"], sample["valence"], sample["arousal"], sample["split"]) == ("contempt", 0.5, -1, "train")
    np.testing.assert_allclose(np.array(sample["landmarks"]), np.array(POINTS).reshape(68, 2))


def test_the_same_number_in_both_sets_is_two_samples(tmp_path: Path) -> None:
    for folder in ("train_set", "val_set"):
        for name in ("10", "9"):
            write_2021(tmp_path / folder, name, exp=np.int64(2))
    reading = read(tmp_path)
    assert reading.samples["sample"].to_list() == [f"{s}_set/images/{n}.jpg" for s in ("val", "train") for n in (9, 10)]
    assert reading.samples["split"].to_list() == ["validation"] * 2 + ["train"] * 2


def test_a_note_without_an_image_stays_and_an_image_without_a_note_does_not(tmp_path: Path) -> None:
    write_2021(tmp_path / "train_set", "1")
    write_2021(tmp_path / "train_set", "2", image=False)
    write_2021(tmp_path / "train_set", "3", exp=None, val=None, aro=None, lnd=None)
    write_2021(tmp_path / "train_set", "4", val=None)
    reading = read(tmp_path)
    samples = by_name(reading.samples)
    assert sorted(samples) == ["1.jpg", "2.jpg", "4.jpg"]
    assert (samples["2.jpg"]["image"], samples["2.jpg"]["expression"]) == (None, "happy")
    assert (samples["4.jpg"]["valence"], samples["4.jpg"]["arousal"]) == (None, -0.25)
    assert kinds(reading.problems) == {"missing image": 1, "image without a label": 1, "unreadable label": 1}
    missing = reading.problems.filter(kind="missing image").row(0, named=True)
    assert missing["file"] == str(tmp_path / "train_set/annotations/2_exp.npy")


def test_notes_without_any_image_are_counted_and_that_is_said_once(tmp_path: Path) -> None:
    for name in ("7", "12"):
        write_2021(tmp_path / "val_set", name, image=False)
    reading = read(tmp_path)
    assert reading.samples["sample"].to_list() == ["val_set/images/7.jpg", "val_set/images/12.jpg"]
    assert kinds(reading.problems) == {"no images": 1}


def test_what_an_archiver_left_behind_is_no_note_and_no_image(tmp_path: Path) -> None:
    write_2021(tmp_path / "train_set", "1")
    for leftover in ("annotations/._1_exp.npy", "images/Thumbs.db"):
        (tmp_path / "train_set" / leftover).write_bytes(b"x")
    reading = read(tmp_path)
    assert reading.samples.height == 1
    assert reading.problems.is_empty()


def test_of_two_images_of_one_number_the_first_is_used(tmp_path: Path) -> None:
    write_2021(tmp_path / "train_set", "1")
    (tmp_path / "train_set/images/1.png").write_bytes(b"")
    reading = read(tmp_path)
    assert reading.samples["sample"].to_list() == ["train_set/images/1.jpg"]
    assert kinds(reading.problems) == {"stands twice": 1}


def test_minus_two_is_no_label_here_either(tmp_path: Path) -> None:
    write_2021(tmp_path / "train_set", "1", val="-2", aro="-2")
    reading = read(tmp_path)
    assert reading.samples.select("expression", "valence", "arousal").row(0) == ("happy", None, None)
    assert reading.problems.is_empty()


def test_landmarks_saved_column_by_column_are_the_same_landmarks(tmp_path: Path) -> None:
    write_2021(tmp_path / "train_set", "1", lnd=np.asfortranarray(np.array(POINTS).reshape(68, 2)))
    np.testing.assert_allclose(np.array(read(tmp_path).samples["landmarks"][0]), np.array(POINTS).reshape(68, 2))


@pytest.mark.parametrize("value", ["x", "", np.zeros(2), np.array([]), np.datetime64("2020"), 1j, "1.5", "nan", np.inf])
def test_a_note_that_is_no_label_is_null_and_said(tmp_path: Path, value: Any) -> None:
    write_2021(tmp_path / "train_set", "1", exp=value)
    reading = read(tmp_path)
    assert reading.samples["expression"].to_list() == [None]
    assert reading.problems.height == 1
    assert reading.problems["file"][0].endswith("1_exp.npy")


def test_a_character_that_is_none_raises_nothing(tmp_path: Path) -> None:
    """NumPy answered the text with a SystemError."""
    write_2021(tmp_path / "train_set", "1")
    path = tmp_path / "train_set/annotations/1_exp.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"\xff" * 4)
    assert kinds(read(tmp_path).problems) == {"unreadable label": 1}


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    write_2021(tmp_path / "train_set", "1", exp=None)
    np.save(tmp_path / "train_set" / "annotations" / "1_exp.npy", np.array({"a": 1}, dtype=object), allow_pickle=True)
    reading = read(tmp_path)
    assert reading.samples["expression"].to_list() == [None]
    assert "type object" in reading.problems["detail"][0]


beginnings: st.SearchStrategy[Mangling] = st.lists(st.tuples(st.integers(0, 160), st.integers(0, 255)), min_size=1, max_size=8).map(
    lambda changes: lambda content: bytes(dict(changes).get(place, byte) for place, byte in enumerate(content))
)
"""Bytes of the header changed, which a file of NumPy's format is read by."""


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("notes")
    for name in ("1", "2"):
        write_2021(root / "val_set", name)
    return root


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(["exp", "val", "aro", "lnd"]), mangling=manglings | beginnings)
def test_a_mangled_note_costs_at_most_its_label_and_is_said(
    notes: Path, tmp_path_factory: pytest.TempPathFactory, kind: str, mangling: Mangling
) -> None:
    reading = survives(read, notes, tmp_path_factory.getbasetemp() / "mangled", Path(f"val_set/annotations/1_{kind}.npy"), mangling)
    assert reading is not None
    lost = reading.samples.select(pl.col("expression", "valence", "arousal", "landmarks").is_null())
    assert not any(lost.row(1)), "the other image is whole"
    assert sum(lost.row(0)) <= reading.problems.height <= 1


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no folder"):
        read(tmp_path / "absent")
    with pytest.raises(RequestError, match=r"no AffectNet .*training\.csv"):
        read(tmp_path)
    with pytest.raises(RequestError, match="choose from: 2015, 2021, auto"):
        read(tmp_path, distribution="mine")


def test_of_both_distributions_in_one_folder_one_must_be_chosen(tmp_path: Path) -> None:
    write_2015(tmp_path, [row("1/a.jpg")])
    write_2021(tmp_path / "train_set", "5")
    with pytest.raises(RequestError, match="both distributions"):
        read(tmp_path)
    assert read(tmp_path, distribution="2015").samples["sample"].to_list() == [f"{IMAGES}/1/a.jpg"]
    assert read(tmp_path, distribution="2021").samples["sample"].to_list() == ["train_set/images/5.jpg"]
