"""The csv reader against small files written by hand, whole ones and mangled ones, and against real photographs where they are at hand."""

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from harness.errors import RequestError
from tasks.datasets import affectnet
from tasks.datasets.table import read
from tests.tasks.datasets.mangling import Mangling, manglings, survives

REPOSITORY = Path(__file__).parents[3]
REAL_FACES = Path(os.environ.get("HARNESS_REAL_FACES", REPOSITORY.parent / "shared/real_faces"))


def write(root: Path, content: str | bytes, *, file: str = "labels.csv", images: tuple[str, ...] = ()) -> Path:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(content.encode() if isinstance(content, str) else content)
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(b"")
    return root


def told(problems: pl.DataFrame) -> list[tuple[str, int | None]]:
    """All problems but those of images and columns, which most of these tests have none of or do without."""
    return sorted(problems.filter(~pl.col("kind").is_in(["no images", "column not used"])).select("kind", "line").iter_rows(), key=str)


def only(root: Path, **options: Any) -> dict[str, Any]:
    return read(root, **options).samples.row(0, named=True)


# ── which column is which ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    names = "Valence,AROUSAL,Emotion,AU01,au 12,AU6_r,AU25_intensity,votes_happiness,Image Path,Person,video,Frame,Partition,Activity"
    cells = "0.5,-0.25,Joy,1,0,3.5,2,7,a/1.png,Ada,v1,4,Val,singing"
    reading = read(write(tmp_path, f"{names}\n{cells}\n", images=("a/1.png",)))
    assert reading.problems.is_empty()
    sample = reading.samples.drop("box", "landmarks").row(0, named=True)
    assert sample == {
        "sample": "a/1.png",
        "image": f"{tmp_path}/a/1.png",
        "clip": "v1",
        "frame": 4,
        "subject": "Ada",
        "split": "validation",
        "activity": "singing",
        "valence": 0.5,
        "arousal": -0.25,
        "expression": "happy",
        "au1": 1,
        "au12": 0,
        "au6_intensity": 3.5,
        "au25_intensity": 2,
        "votes_happy": 7,
    }


def test_columns_can_be_mapped_by_any_names(tmp_path: Path) -> None:
    columns = {"image": "file", "au12": "LipCorner", "au6_intensity": 6, "expression": "LABEL", "valence": "v"}
    reading = read(write(tmp_path, "v,label,6,LipCorner,arousal,file\n0.5,sad,2,1,0.3,a.png\n", images=("a.png",)), columns=columns)
    sample = reading.samples.row(0, named=True)
    assert reading.problems.is_empty(), "a column that is not mapped is not wanted"
    assert (sample["au12"], sample["au6_intensity"], sample["expression"], sample["valence"], sample["arousal"]) == (1, 2, "sad", 0.5, None)


def test_a_column_that_is_not_known_is_said_where_none_is_mapped(tmp_path: Path) -> None:
    reading = read(write(tmp_path, "image,valance,arousal,99\na.png,0.5,0.5,1\n", images=("a.png",)))
    assert reading.problems.select("kind", "line", "detail").rows() == [("column not used", 1, "valance, 99")]
    assert "au99" not in reading.samples.columns


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"valence": "valance"}, r"no column 'valance' for valence .*labels\.csv.*did you mean 'valence'"),
        ({"valense": "valence"}, "did you mean 'valence'"),
        ({"au0": "AU0"}, "no column of ours"),
        ({"votes_joy": "v"}, "no column of ours"),
        ({"x0": "valence", "y0": "valence"}, "x0, y0, x1, y1 or x, y, width, height"),
        (["valence"], "give a map"),
    ],
)
def test_a_column_that_is_asked_for_and_not_there_is_refused(tmp_path: Path, columns: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read(write(tmp_path, "image,valence\na.png,1\n"), columns=columns)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"files": "*.txt"}, r"no file '\*\.txt'.*labels\.csv"),
        ({"files": "/etc/*"}, "no file"),
        ({"files": {"*.csv": "training"}}, "did you mean 'train'"),
        ({"separator": ";;"}, "one character"),
        ({"separator": ";", "columns": {"image": "image"}}, "set task.dataset.read.separator to ','"),
        ({"expression_codes": "affectnett"}, "did you mean 'affectnet'"),
        ({"expression_codes": {0: "hapy"}}, "did you mean 'happy'"),
        ({"expression_codes": 3}, "give a map"),
        ({"valence_scale": 0}, "above 0"),
        ({"valence_scale": "ten"}, "above 0"),
        ({"missing": {"arousel": [9]}}, "did you mean 'arousal'"),
        ({"missing": 9}, "give a list"),
        ({"splits": {"a": "tset"}}, "did you mean 'test'"),
        ({"frame_base": "one"}, "whole number"),
        ({"image_name": "{clip}.png"}, "no column gives it"),
        ({"image_name": "{image:5}.png"}, "five digits"),
        ({"image_name": "{image"}, "give text"),
        ({"patterns": {"person": "(a)"}}, "no pattern gives 'person'"),
        ({"patterns": {"subject": "abc"}}, "no regular expression for subject"),
        ({"patterns": {"subject": "(["}}, "no regular expression for subject"),
    ],
)
def test_an_option_that_is_none_is_refused_in_one_line(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read(write(tmp_path, "image,arousal\na.png,1\n"), **options)


def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no folder"):
        read(tmp_path / "absent")
    with pytest.raises(RequestError, match=r"no file '\*\.csv'.*none at all"):
        read(tmp_path)
    with pytest.raises(RequestError, match=r"no csv .* has a column that is known"):
        read(write(tmp_path, "a,b\n1,2\n"))


def test_a_file_of_something_else_is_passed_over_and_said(tmp_path: Path) -> None:
    write(write(write(tmp_path, "a,b\n1,2\n", file="costs.csv"), "", file="empty.csv"), "image,valence\na.png,0.5\n")
    reading = read(tmp_path)
    assert reading.samples.height == 1
    assert told(reading.problems) == [("unreadable file", 1), ("unreadable file", None)]


# ── cells ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_quoted_cells_hold_commas_quotes_and_ends_of_lines_and_the_lines_keep_their_numbers(tmp_path: Path) -> None:
    content = '''"image",activity,"valence"
"a.png","talking, loudly",0.5
b.png,"he said ""no""","-0.5"
c.png,"two
lines",0.25
d.png, "blanks around" ,x
e.png,5'11" tall,1
'''
    reading = read(write(tmp_path, content))
    assert reading.samples["sample"].to_list() == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert reading.samples["activity"].to_list() == ["talking, loudly", 'he said "no"', "two\nlines", "blanks around", "5'11\" tall"]
    assert reading.samples["valence"].to_list() == [0.5, -0.5, 0.25, None, 1]
    assert told(reading.problems) == [("unreadable label", 6)]


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path: Path) -> None:
    content = 'image,activity,valence\na.png,"open,0.5\nb.png,fine,0.25\nc.png,"so, so",0.125\n'
    reading = read(write(tmp_path, content))
    assert reading.samples["valence"].to_list() == [0.5, 0.25, 0.125]
    content = content.replace('"open', '"open, and more')
    reading = read(write(tmp_path, content))
    assert reading.samples["sample"].to_list() == ["b.png", "c.png"]
    assert told(reading.problems) == [("wrong number of cells", 2)]


def test_rows_with_other_numbers_of_cells_are_said(tmp_path: Path) -> None:
    reading = read(write(tmp_path, "image,valence\na.png,0.5\nb.png\n\nc.png,1,2\nd.png,1\n"))
    assert reading.samples["sample"].to_list() == ["a.png", "d.png"]
    assert told(reading.problems) == [("wrong number of cells", 3), ("wrong number of cells", 5)]


def test_windows_copies_and_other_separators_are_read(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfimage;valence\r\nsub\\a.png;0,5\r\nsub\\b.png;0.5\r\n"
    reading = read(write(tmp_path, content, images=("sub/a.png", "sub/b.png")), separator=";")
    assert reading.samples["sample"].to_list() == ["sub/a.png", "sub/b.png"]
    assert reading.samples["image"].null_count() == 0
    assert told(reading.problems) == [("unreadable label", 2)]


def test_blank_cells_say_nothing_and_are_no_problem(tmp_path: Path) -> None:
    cells = ["", "NULL", "na", "N/A", "NaN", "None", '""', " "]
    rows = "".join(f"{number}.png,{cell},{cell},{cell},{cell},{cell}\n" for number, cell in enumerate(cells))
    reading = read(write(tmp_path, f"image,subject,valence,expression,au1,votes_sad\n{rows}"))
    assert told(reading.problems) == []
    assert reading.samples.select("subject", "valence", "expression", "au1", "votes_sad").null_count().row(0) == (len(cells),) * 5


# ── labels ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("column", "cell", "kind"),
    [
        ("valence", "1.01", "label out of range"),
        ("arousal", "-inf", "label out of range"),
        ("valence", "1e400", "label out of range"),
        ("valence", "high", "unreadable label"),
        ("au12", "2", "label out of range"),
        ("au12", "0.5", "label out of range"),
        ("au12", "-1", "label out of range"),
        ("au12_intensity", "5.5", "label out of range"),
        ("votes_happy", "-1", "label out of range"),
        ("expression", "3", "unreadable label"),
        ("expression", "bored", "unreadable label"),
        ("frame", "1.5", "unreadable frame"),
        ("frame", "99999999999", "unreadable frame"),
        ("frame", "first", "unreadable frame"),
        ("split", "holdout", "unknown split"),
    ],
)
def test_a_bad_cell_is_null_and_said_with_its_line_and_spoils_nothing_else(tmp_path: Path, column: str, cell: str, kind: str) -> None:
    good = {
        "valence": 1,
        "arousal": -1,
        "au12": 1,
        "au12_intensity": 5,
        "votes_happy": 3,
        "expression": "fear",
        "frame": 7,
        "split": "test",
    }
    bad = good | {column: cell}
    rows = "\n".join(f"{name}.png,{','.join(map(str, row.values()))}" for name, row in {"a": good, "b": bad, "c": good}.items())
    reading = read(write(tmp_path, f"image,{','.join(good)}\n{rows}\n"))
    nulls = reading.samples.select(pl.col(*good).is_null())
    assert nulls.row(1, named=True) == {name: name == column for name in good}
    assert not any(nulls.row(0) + nulls.row(2))
    assert told(reading.problems) == [(kind, 3)]


def test_expressions_are_understood_by_all_their_names(tmp_path: Path) -> None:
    names = ["Happiness", "ANGRY", "sadness", "Surprised", "fearful", "disgust", "Neutral", "contempt", "other"]
    reading = read(write(tmp_path, "image,expression\n" + "".join(f"{name}.png,{name}\n" for name in names)))
    assert reading.samples["expression"].to_list() == [
        "happy",
        "anger",
        "sad",
        "surprise",
        "fear",
        "disgust",
        "neutral",
        "contempt",
        "other",
    ]


@pytest.mark.parametrize(
    ("codes", "expressions"),
    [
        ("affectnet", ["neutral", "happy", "anger", "contempt", None]),
        ("aff_wild2", ["neutral", "anger", "surprise", "other", None]),
        ("raf_db", [None, "surprise", "anger", "neutral", None]),
        ("fer2013", ["anger", "disgust", "neutral", None, None]),
        ({0: "sad", "1": "Joy", 6: None, "7": "angry", 8: "fear"}, ["sad", "happy", None, "anger", "fear"]),
    ],
)
def test_numbers_mean_what_one_says_they_mean(tmp_path: Path, codes: Any, expressions: list[str | None]) -> None:
    rows = "".join(f"{place}.png,{code}\n" for place, code in enumerate(["0", "1.0", "6", "7", "8"]))
    reading = read(write(tmp_path, f"image,expression\n{rows}"), expression_codes=codes)
    assert reading.samples["expression"].to_list() == expressions
    unknown = {"aff_wild2": [6], "raf_db": [2, 6], "fer2013": [5, 6]}.get(codes if isinstance(codes, str) else "", [])
    assert told(reading.problems) == [("label out of range", line) for line in unknown], "8 of AffectNet is no expression and no problem"


def test_names_are_understood_beside_codes(tmp_path: Path) -> None:
    root = write(tmp_path, "image,expression\na.png,3\nb.png,joy\nc.png,HA\n")
    assert read(root, expression_codes={3: "fear", "HA": "happy"}).samples["expression"].to_list() == ["fear", "happy", "happy"]


def test_valence_and_arousal_are_scaled(tmp_path: Path) -> None:
    reading = read(write(tmp_path, "image,valence,arousal,au1\na.png,-10,5,1\nb.png,11,0,0\n"), valence_scale=10)
    assert reading.samples["valence"].to_list() == [-1, None]
    assert reading.samples["arousal"].to_list() == [0.5, 0]
    assert reading.samples["au1"].to_list() == [1, 0]
    assert told(reading.problems) == [("label out of range", 3)]


def test_cells_that_stand_for_nothing_can_be_named(tmp_path: Path) -> None:
    root = write(
        tmp_path, "image,valence,au1,au2,au2_intensity,expression\na.png,-5,9,9,9,-1\nb.png,-5.0,1,0,2,happy\nc.png,-1,1,0,2,uncertain\n"
    )
    reading = read(root, missing={"valence": [-5], "au": [9], "au_intensity": [9.0], "expression": [-1, "uncertain"]})
    assert told(reading.problems) == []
    assert reading.samples["valence"].to_list() == [None, None, -1]
    assert reading.samples["au1"].to_list() == [None, 1, 1]
    assert reading.samples["au2_intensity"].to_list() == [None, 2, 2]
    assert reading.samples["expression"].to_list() == [None, "happy", None]
    everywhere = read(root, missing=[9, -5, -1, "uncertain"])
    assert told(everywhere.problems) == []
    assert everywhere.samples["valence"].to_list() == [None, None, None]


@pytest.mark.parametrize("names", ["x0,y0,x1,y1", "x,y,width,height", "face_x,face_y,face_width,face_height", "left,top,right,bottom"])
def test_boxes_are_read_in_both_forms(tmp_path: Path, names: str) -> None:
    corners = names.startswith(("x0", "left"))
    cells = ["1,2,11,22" if corners else "1,2,10,20", "5,5,5,9" if corners else "5,5,0,9", ",,,", "1,2,x,4", "0,0,1e30,1"]
    reading = read(write(tmp_path, f"image,{names}\n" + "".join(f"{place}.png,{cell}\n" for place, cell in enumerate(cells))))
    assert list(reading.samples["box"][0]) == [1, 2, 11, 22]
    assert reading.samples["box"].null_count() == 4
    assert told(reading.problems) == [("unusable box", 3), ("unusable box", 5), ("unusable box", 6)], "a blank box is no box"


# ── images, clips, people ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_images_are_looked_for_where_they_are_said_to_be(tmp_path: Path) -> None:
    root = write(tmp_path / "root", "image,valence\na.png,0\n./sub//b.png,0\nc.png,0\n", images=("faces/a.png", "faces/sub/b.png"))
    reading = read(root, images="faces")
    assert reading.samples["sample"].to_list() == ["faces/a.png", "faces/sub/b.png", "faces/c.png"]
    assert reading.samples["image"].to_list() == [f"{root}/faces/a.png", f"{root}/faces/sub/b.png", None]
    assert told(reading.problems) == [("missing image", 4)]
    elsewhere = write(tmp_path / "labels", (root / "labels.csv").read_text())
    reading = read(elsewhere, images=str(root / "faces"))
    assert reading.samples["sample"].to_list() == ["a.png", "sub/b.png", "c.png"]
    assert reading.samples["image"].to_list() == [f"{root}/faces/a.png", f"{root}/faces/sub/b.png", None]


def test_absolute_paths_count_where_they_lead_into_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, f"image,valence\n{root}/a.png,0\n{tmp_path}/b.png,0\n../b.png,0\nC:\\b.png,0\n", images=("a.png", "../b.png"))
    reading = read(root)
    assert reading.samples["sample"][0] == "a.png"
    assert reading.samples["image"].to_list() == [f"{root}/a.png", None, None, None]
    outside = reading.problems.filter(kind="image outside the folder")
    assert outside["line"].to_list() == [3, 4, 5]


def test_an_image_name_is_made_of_other_columns(tmp_path: Path) -> None:
    root = write(tmp_path, "clip,frame,valence\nv1,12,0\nv1,13,0\n,14,0\n", images=("faces/v1/00011.jpg",))
    reading = read(root, image_name="faces/{clip}/{frame:05}.jpg", frame_base=1)
    assert reading.samples["sample"].to_list() == ["faces/v1/00011.jpg", "faces/v1/00012.jpg"]
    assert reading.samples["frame"].to_list() == [12, 13], "as the labels count"
    assert reading.samples["image"].is_null().to_list() == [False, True]
    assert told(reading.problems) == [("missing image", 3), ("row without an image name", 4)]
    assert only(write(tmp_path / "b", "image,valence\na,0\n", images=("a.jpg",)), image_name="{image}.jpg")["image"].endswith("/a.jpg")


def test_frames_of_a_video_are_its_parts(tmp_path: Path) -> None:
    root = write(tmp_path, "video,frame,valence\nv1,1,0\nv1,2,0\nv2,1,0\n", images=("v1.mp4",))
    reading = read(root, image_name="{clip}.mp4", frame_base=1)
    assert reading.samples["sample"].to_list() == ["v1.mp4::0", "v1.mp4::1", "v2.mp4::0"]
    assert reading.samples["image"].to_list() == [f"{root}/v1.mp4::0", f"{root}/v1.mp4::1", None]
    assert reading.samples["frame"].to_list() == [1, 2, 1]
    assert reading.samples["clip"].to_list() == ["v1", "v1", "v2"]
    alone = read(write(tmp_path / "b", "image,frame,valence\nx/v1.mp4,0,0\nx/v1.mp4,1,0\n"))
    assert alone.samples["clip"].to_list() == ["x/v1.mp4"] * 2


def test_an_image_is_its_own_clip_and_frames_are_counted_where_nobody_counts_them(tmp_path: Path) -> None:
    reading = read(write(tmp_path, "image,valence\nb.png,0\na.png,0\n"))
    assert reading.samples.select("clip", "frame").rows() == [("b.png", 0), ("a.png", 0)]
    reading = read(write(tmp_path, "image,clip,valence\nb.png,x,0\na.png,y,0\nc.png,x,0\nd.png,,0\n"))
    assert reading.samples.select("clip", "frame").rows() == [("x", 0), ("y", 0), ("x", 1), ("d.png", 0)]


def test_labels_without_any_image_can_be_counted(tmp_path: Path) -> None:
    write(write(tmp_path, "frame, AU12_c\n1,1\n2,0\n", file="of/v1.csv"), "frame, AU12_c\n1,0\n", file="of/v2.csv")
    reading = read(tmp_path, files="of/*.csv")
    assert reading.samples.select("sample", "clip", "frame", "au12").rows() == [
        ("of/v1.csv::2", "of/v1", 1, 1),
        ("of/v1.csv::3", "of/v1", 2, 0),
        ("of/v2.csv::2", "of/v2", 1, 0),
    ]
    assert reading.problems["kind"].to_list() == ["no images"]


def test_patterns_find_clip_frame_subject_and_split_in_names(tmp_path: Path) -> None:
    patterns = {"subject": r"^(\d{3})", "clip": r"^(\d{3}[A-Z])/", "frame": r"/(\d+)\.", "split": r"\d(train|val)\."}
    root = write(tmp_path, "image,valence\n001A/1train.png,0\n001B/02val.png,0\nother.png,0\n")
    reading = read(root, patterns=patterns | {"frame": r"/(\d+)"})
    columns = ["subject", "clip", "frame", "split"]
    assert reading.samples.select(columns).rows() == [
        ("001", "001A", 1, "train"),
        ("001", "001B", 2, "validation"),
        (None, "other.png", None, None),
    ]
    assert told(reading.problems) == [("pattern does not fit", 4)] * 4
    own = read(write(tmp_path / "own", "image,subject,valence\na.png,001A,0\nb.png,001B,0\n"), patterns={"subject": r"^(\d{3})"})
    assert own.samples["subject"].to_list() == ["001", "001"], "the column of the same name comes first"


def test_a_file_may_be_a_part(tmp_path: Path) -> None:
    write(write(tmp_path, "image,valence\na.png,0\n", file="lists/one.csv"), "image,valence\nb.png,0\nc.png,0\n", file="lists/two.csv")
    reading = read(tmp_path, files={"lists/one.csv": "train", "lists/t*.csv": "test", "lists/*.csv": None})
    assert reading.samples.select("sample", "split").rows() == [("a.png", "train"), ("b.png", "test"), ("c.png", "test")]
    assert read(tmp_path, files=["lists/two.csv", "lists/one.csv"]).samples["sample"].to_list() == ["b.png", "c.png", "a.png"]


def test_parts_have_their_usual_names_and_ones_own(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        "image,split,valence\n" + "".join(f"{place}.png,{name},0\n" for place, name in enumerate(["TRAIN", "dev", "testing", "1", "2"])),
    )
    reading = read(root, splits={1: "train", 2: None})
    assert reading.samples["split"].to_list() == ["train", "validation", "test", "train", None]
    assert told(reading.problems) == []


def test_what_stands_twice_is_used_once_and_said(tmp_path: Path) -> None:
    content = "image,clip,frame,subject,valence\na.png,v,0,Ada,0\na.png,v,1,Ada,0\nb.png,v,0,Ada,0\nc.png,v,2,Ben,0\nd.png,v,3,,0\n"
    reading = read(write(tmp_path, content))
    assert reading.samples["sample"].to_list() == ["a.png", "c.png", "d.png"]
    assert reading.samples["subject"].to_list() == ["Ada"] * 3, "one clip is of one person"
    assert told(reading.problems) == [("clip with two subjects", 5), ("frame stands twice", 4), ("row stands twice", 3)]


# ── real ones, mangled ones ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not (REAL_FACES / "Manually_Annotated").is_dir(), reason="the real photographs are not at hand")
def test_the_lists_of_affectnet_are_read_as_its_own_reader_reads_them() -> None:
    lists = {"Manually_Annotated/validation.csv": "validation", "Manually_Annotated/training.csv": "train"}
    box = {"x": "face_x", "y": "face_y", "width": "face_width", "height": "face_height"}
    columns = {"image": "subDirectory_filePath", **{name: name for name in ("expression", "valence", "arousal")}, **box}
    reading = read(
        REAL_FACES,
        files=lists,
        columns=columns,
        images="Manually_Annotated/Manually_Annotated_Images",
        expression_codes="affectnet",
        missing={"valence": [-2], "arousal": [-2]},
    )
    assert reading.problems.is_empty()
    assert_frame_equal(reading.samples.drop("landmarks"), affectnet.read(REAL_FACES).samples.drop("landmarks"))


NAMES = "image,clip,frame,subject,split,activity,valence,arousal,expression,AU01,au12_intensity,votes_sad,x,y,width,height\n"
CELLS = '{0}/{1}.png,{0},{1},p{0},train,"eating, with ""fork""",0.{1},-0.5,Joy,1,3,4,0,0,10,10\n'
OWN = NAMES + "".join(CELLS.format(clip, frame) for clip in (1, 2) for frame in (0, 1))
OPTIONS: dict[str, dict[str, Any]] = {
    "found": {},
    "mapped": {"columns": {"image": "image", "au12": "AU01", "expression": "frame"}, "expression_codes": "fer2013", "missing": [4]},
    "made": {
        "image_name": "{clip}/{frame:03}.mp4",
        "patterns": {"subject": r"(\d)", "clip": r"(.)"},
        "frame_base": 1,
        "splits": {"train": "test"},
    },
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("csv") / "whole", OWN, images=("1/0.png", "1/1.png", "2/0.png"))


@settings(max_examples=120, deadline=None)
@given(mangling=manglings, options=st.sampled_from(sorted(OPTIONS)))
def test_any_mangled_file_is_read_or_refused(whole: Path, mangling: Mangling, options: str) -> None:
    survives(lambda root: read(root, **OPTIONS[options]), whole, whole.with_name("scratch"), Path("labels.csv"), mangling)


cells = st.text(st.sampled_from('a1,"\n\r .-\\/é\x00;'), max_size=6)


@settings(max_examples=120, deadline=None)
@given(rows=st.lists(st.lists(cells, min_size=2, max_size=4), max_size=5))
def test_any_cells_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    content = "image,activity,valence\n" + "\n".join(",".join(row) for row in rows)
    root = write(tmp_path_factory.getbasetemp() / "any", content.encode())
    survives(read, root, root.with_name("any_scratch"), Path("labels.csv"), lambda content: content)


@pytest.mark.parametrize("name", ["csv", "gft"])
def test_the_yaml_names_options_that_there_are(name: str) -> None:
    known = yaml.safe_load((REPOSITORY / f"configs/dataset/{name}.yaml").read_text())
    assert set(known["read"]) - {"_target_"} <= set(read.__annotations__)
