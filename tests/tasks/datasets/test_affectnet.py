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
from harness.samples import check
from tasks.datasets.affectnet import read

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
        ({"expression": "nan"}, "label out of range", "expression"),
        ({"valence": 1.01}, "label out of range", "valence"),
        ({"valence": "nan"}, "label out of range", "valence"),
        ({"arousal": "-inf"}, "label out of range", "arousal"),
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


def test_rows_that_give_no_sample_are_said_with_their_lines(tmp_path: Path) -> None:
    rows = [
        row("1/a.jpg"),
        "1/b.jpg,1,2",
        "",
        row("1/a.jpg"),
        row("1/absent.jpg"),
        row("1/c.jpg") + ",more",
        row("../training.csv"),
        row("1/d.jpg"),
    ]
    reading = read(write_2015(tmp_path, rows, [row("1/d.jpg")], absent={"1/absent.jpg", "../training.csv"}))
    assert sorted(by_name(reading.samples)) == ["a.jpg", "d.jpg"]
    said = sorted(reading.problems.select("kind", "line").iter_rows())
    wrong = [("missing image", 6), ("missing image", 8), ("row stands twice", 5), ("row stands twice", 9)]
    assert said == sorted([*wrong, ("wrong number of cells", 3), ("wrong number of cells", 7)])
    assert by_name(reading.samples)["d.jpg"]["split"] == "validation", "an image of both parts must not be trained on"


def test_windows_copies_are_read(tmp_path: Path) -> None:
    root = write_2015(tmp_path, [row("1\\a.jpg")])
    path = root / "Manually_Annotated" / "training.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    reading = read(root)
    assert reading.samples["sample"].to_list() == [f"{IMAGES}/1/a.jpg"]
    assert reading.problems.is_empty()


def test_machine_made_labels_are_not_read(tmp_path: Path) -> None:
    write_2015(tmp_path, [row("1/a.jpg")])
    other = tmp_path / "Automatically_Annotated" / "Automatically_annotated_file_list"
    other.mkdir(parents=True)
    (other / "training.csv").write_text("anything")
    assert read(tmp_path).problems.is_empty()


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"a,b,c\n1,2,3\n", HEADER.replace("valence", "v").encode()])
def test_a_list_without_its_columns_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    write_2015(tmp_path, [row("1/a.jpg")])
    (tmp_path / "Manually_Annotated" / "training.csv").write_bytes(content)
    with pytest.raises(RequestError, match=r"no column .*training\.csv"):
        read(tmp_path)


flips = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(flips=flips)
def test_any_flipped_byte_below_the_header_gives_samples_that_pass_the_checks(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    root = write_2015(tmp_path_factory.mktemp("flipped"), [row("1/a.jpg"), row("1/b.jpg", 9, -2, -2)])
    path = root / "Manually_Annotated" / "training.csv"
    content = bytearray(path.read_bytes())
    for place, byte in flips:
        content[len(HEADER) + 1 + place % (len(content) - len(HEADER) - 1)] = byte
    path.write_bytes(content)
    check(read(root).samples)


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


def test_notes_and_images_without_each_other_are_said(tmp_path: Path) -> None:
    write_2021(tmp_path / "train_set", "1")
    write_2021(tmp_path / "train_set", "2", image=False)
    write_2021(tmp_path / "train_set", "3", exp=None, val=None, aro=None, lnd=None)
    write_2021(tmp_path / "train_set", "4", val=None)
    reading = read(tmp_path)
    assert sorted(by_name(reading.samples)) == ["1.jpg", "4.jpg"]
    assert by_name(reading.samples)["4.jpg"]["valence"] is None
    assert kinds(reading.problems) == {"annotation without an image": 1, "image without a label": 1, "unreadable label": 1}


@pytest.mark.parametrize("value", ["x", "", np.zeros(2), np.array([]), np.datetime64("2020"), 1j, "1.5"])
def test_a_note_that_is_no_label_is_null_and_said(tmp_path: Path, value: Any) -> None:
    write_2021(tmp_path / "train_set", "1", exp=value)
    reading = read(tmp_path)
    assert reading.samples["expression"].to_list() == [None]
    assert reading.problems.height == 1
    assert reading.problems["file"][0].endswith("1_exp.npy")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    write_2021(tmp_path / "train_set", "1", exp=None)
    np.save(tmp_path / "train_set" / "annotations" / "1_exp.npy", np.array({"a": 1}, dtype=object), allow_pickle=True)
    reading = read(tmp_path)
    assert reading.samples["expression"].to_list() == [None]
    assert "type object" in reading.problems["detail"][0]


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200), flips=flips)
def test_any_bytes_in_a_note_give_samples_that_pass_the_checks(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, flips: list[tuple[int, int]]
) -> None:
    root = tmp_path_factory.mktemp("any")
    write_2021(root / "val_set", "1")
    notes = root / "val_set" / "annotations"
    (notes / "1_exp.npy").write_bytes(content)
    for name in ("1_val.npy", "1_lnd.npy"):
        changed = bytearray((notes / name).read_bytes())
        for place, byte in flips:
            changed[place % min(len(changed), 200)] = byte
        (notes / name).write_bytes(changed)
    check(read(root).samples)


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
