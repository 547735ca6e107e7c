"""The Aff-Wild2 reader against small folders written by hand in the spellings of all editions, whole ones and mangled ones."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import RequestError
from harness.samples import au_columns
from tasks.datasets.aff_wild2 import read
from tests.tasks.datasets.mangling import Mangling, manglings, survives

VA = "valence,arousal"
EXPR = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
AUS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
AU = ",".join(f"AU{au}" for au in AUS)
MTL = "image,valence,arousal,expression,aus"
SIXTH = "6th_ABAW_Annotations"
VA_TRAIN, VA_VALIDATION = (f"{SIXTH}/VA_Estimation_Challenge/{part}_Set" for part in ("Train", "Validation"))
EXPR_TRAIN, AU_TRAIN = f"{SIXTH}/EXPR_Recognition_Challenge/Train_Set", f"{SIXTH}/AU_Detection_Challenge/Train_Set"
AU_VALIDATION = f"{SIXTH}/AU_Detection_Challenge/Validation_Set"


def put(root: Path, files: Mapping[str, Sequence[str]]) -> Path:
    for name, lines in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def faces(root: Path, video: str, numbers: Sequence[int], folder: str = "cropped_aligned", suffix: str = ".jpg") -> None:
    (root / folder / video).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (root / folder / video / f"{number:05}{suffix}").write_bytes(b"")


def rows(samples: pl.DataFrame) -> dict[tuple[str, int], dict[str, Any]]:
    return {(sample["clip"], sample["frame"]): sample for sample in samples.iter_rows(named=True)}


def kinds(problems: pl.DataFrame) -> dict[str, int]:
    return dict(problems.group_by("kind").len().iter_rows())


# ── a file a video ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_line_k_after_the_header_labels_the_image_numbered_k(tmp_path: Path) -> None:
    put(tmp_path, {f"{VA_TRAIN}/4.txt": [VA, "0.602,0.389", "-1,1"], f"{VA_VALIDATION}/video5_left.txt": [VA, "0,0"]})
    faces(tmp_path, "4", [1, 2])
    faces(tmp_path, "video5_left", [1])
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    found = rows(reading.samples)
    one, two, left = found["4", 1], found["4", 2], found["video5_left", 1]
    assert one["sample"] == "cropped_aligned/4/00001.jpg"
    assert one["image"] == f"{tmp_path}/{one['sample']}"
    assert (one["valence"], one["arousal"], one["split"], one["subject"], one["expression"]) == (0.602, 0.389, "train", "4", None)
    assert (two["valence"], two["arousal"]) == (-1, 1)
    assert (left["split"], left["subject"]) == ("validation", "video5")
    assert au_columns(reading.samples) == []


def test_the_labels_of_three_challenges_meet_in_one_sample(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            f"{VA_TRAIN}/4.txt": [VA, "0.1,0.2", "0.3,0.4", "0.5,0.6"],
            f"{EXPR_TRAIN}/4.txt": [EXPR, "7", "-1"],
            f"{AU_TRAIN}/9.txt": [AU, "1,0,0,0,0,0,0,0,0,0,0,1"],
            f"{AU_TRAIN}/4.txt": [AU, *["0,1,0,0,0,0,0,0,0,0,0,0"] * 2],
        },
    )
    samples = read(tmp_path).samples
    assert samples.select("clip", "frame").rows() == [("4", 1), ("4", 2), ("4", 3), ("9", 1)]
    assert samples["valence"].to_list() == [0.1, 0.3, 0.5, None]
    assert samples["expression"].to_list() == ["other", None, None, None]
    assert samples.select("au1", "au2", "au26").rows() == [(0, 1, 0), (0, 1, 0), (None, None, None), (1, 0, 1)]
    assert samples["split"].to_list() == ["train"] * 4
    assert au_columns(samples) == [f"au{au}" for au in AUS]


def test_the_codes_are_those_of_the_dataset_and_its_names_ours(tmp_path: Path) -> None:
    put(tmp_path, {f"{EXPR_TRAIN}/4.txt": [EXPR, *map(str, range(8)), "-1"]})
    reading = read(tmp_path)
    names = ["neutral", "anger", "disgust", "fear", "happy", "sad", "surprise", "other", None]
    assert reading.samples["expression"].to_list() == names
    assert kinds(reading.problems) == {"no images": 1}


@pytest.mark.parametrize(
    ("line", "label"), [("-5,-5", (None, None)), ("-5,0.3", (None, None)), ("0.3,-5.0", (None, None)), (" 0.3 , -0.2\t", (0.3, -0.2))]
)
def test_minus_five_in_either_masks_both_and_is_no_problem(tmp_path: Path, line: str, label: tuple[float | None, ...]) -> None:
    put(tmp_path, {f"{VA_TRAIN}/4.txt": [VA, line]})
    reading = read(tmp_path)
    assert reading.samples.select("valence", "arousal").row(0) == label
    assert kinds(reading.problems) == {"no images": 1}


@pytest.mark.parametrize(
    ("folder", "header", "line", "kind", "labels"),
    [
        (VA_TRAIN, VA, "-1.2,0.5", "label out of range", {"valence": None, "arousal": None}),
        (VA_TRAIN, VA, "1.2,0.5", "label out of range", {"valence": None, "arousal": 0.5}),
        (VA_TRAIN, VA, "0.5,nan", "unreadable label", {"valence": 0.5, "arousal": None}),
        (VA_TRAIN, VA, "0.5,1e400", "unreadable label", {"valence": 0.5, "arousal": None}),
        (VA_TRAIN, VA, "0.5", "wrong number of cells", {"valence": None, "arousal": None}),
        (VA_TRAIN, VA, "0.5,0.5,0.5", "wrong number of cells", {"valence": None, "arousal": None}),
        (VA_TRAIN, VA, "", "wrong number of cells", {"valence": None, "arousal": None}),
        (EXPR_TRAIN, EXPR, "8", "label out of range", {"expression": None}),
        (EXPR_TRAIN, EXPR, "-2", "label out of range", {"expression": None}),
        (EXPR_TRAIN, EXPR, "1.5", "label out of range", {"expression": None}),
        (EXPR_TRAIN, EXPR, "happy", "unreadable label", {"expression": None}),
        (AU_TRAIN, AU, "2" + ",1" * 11, "label out of range", {"au1": None, "au2": 1}),
        (AU_TRAIN, AU, "0.5" + ",1" * 11, "label out of range", {"au1": None, "au26": 1}),
        (AU_TRAIN, AU, "x" + ",0" * 11, "unreadable label", {"au1": None, "au2": 0}),
    ],
)
def test_a_bad_cell_is_null_and_said_with_its_line_and_spoils_nothing_else(
    tmp_path: Path, folder: str, header: str, line: str, kind: str, labels: dict[str, Any]
) -> None:
    good = {VA: "0.1,0.2", EXPR: "1", AU: ",".join(["1"] * 12)}[header]
    put(tmp_path, {f"{folder}/4.txt": [header, good, line, good]})
    faces(tmp_path, "4", [1, 2, 3])
    reading = read(tmp_path)
    found = rows(reading.samples)
    assert len(found) == 3
    assert {name: found["4", 2][name] for name in labels} == labels
    for name in labels:
        assert found["4", 1][name] == found["4", 3][name] is not None
    problem = reading.problems.row(0, named=True)
    assert reading.problems.height == 1
    assert (problem["kind"], problem["line"], problem["sample"]) == (kind, 3, "cropped_aligned/4/00002.jpg")
    assert problem["file"].endswith(f"{folder}/4.txt")


def test_each_action_unit_of_minus_one_is_unknown_by_itself(tmp_path: Path) -> None:
    put(tmp_path, {f"{AU_TRAIN}/4.txt": [AU, "-1,1" + ",0" * 10, ",".join(["-1"] * 12)]})
    reading = read(tmp_path)
    assert reading.samples.select("au1", "au2", "au26").rows() == [(None, 1, 0), (None, None, None)]
    assert kinds(reading.problems) == {"no images": 1}


def test_action_units_and_expressions_go_by_the_names_of_the_header(tmp_path: Path) -> None:
    first = "annotations/{}_Set/Training_Set/{}.txt"
    put(
        tmp_path,
        {
            first.format("AU", "4"): ["AU1,AU2,AU4,AU6,AU12,AU15,AU20,AU25", "0,0,0,0,0,0,1,0"],
            first.format("AU", "5"): ["AU25, AU1", "1, 0"],
            first.format("EXPR", "4"): ["Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise", "6"],
            first.format("EXPR", "5"): ["Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise", "7"],
            first.format("VA", "4"): ["arousal, valence", "0.1,0.2"],
        },
    )
    reading = read(tmp_path)
    found = rows(reading.samples)
    assert au_columns(reading.samples) == ["au1", "au2", "au4", "au6", "au12", "au15", "au20", "au25"]
    assert (found["4", 1]["au20"], found["4", 1]["au25"]) == (1, 0)
    assert (found["5", 1]["au25"], found["5", 1]["au1"], found["5", 1]["au20"]) == (1, 0, None)
    assert (found["4", 1]["expression"], found["5", 1]["expression"]) == ("surprise", None)
    assert (found["4", 1]["valence"], found["4", 1]["arousal"]) == (0.2, 0.1)
    assert kinds(reading.problems) == {"label out of range": 1, "no images": 1}


@pytest.mark.parametrize(
    "folders",
    [
        ("annotations/VA_Set/Training_Set", "annotations/EXPR_Set/Training_Set", "annotations/AU_Set/Validation_Set"),
        *(
            (
                f"{edition}/VA_Estimation_Challenge/Train_Set",
                f"{edition}/EXPR_{word}_Challenge/Train_Set",
                f"{edition}/AU_Detection_Challenge/Validation_Set",
            )
            for edition in ("Third ABAW Annotations", "5th_ABAW_Annotations", "6th ABAW Annotations")
            for word in ("Recognition", "Classification")
        ),
        ("x/VA Estimation Challenge/Train Set", "x/EXPR Recognition Challenge/Train Set", "x/AU Detection Challenge/Validation Set"),
        ("VA_Estimation_Challenge/Train_Set", "EXPR_Recognition_Challenge/Train_Set", "AU_Detection_Challenge/Validation_Set"),
        ("a/b/c/VA_Set/Train_Set", "a/b/c/EXPR_Set/Train_Set", "a/b/c/AU_Set/Validation_Set"),
    ],
)
def test_every_spelling_of_the_folders_is_known(tmp_path: Path, folders: tuple[str, str, str]) -> None:
    put(tmp_path, {f"{folders[0]}/1.txt": [VA, "0,0"], f"{folders[1]}/2.txt": [EXPR, "0"], f"{folders[2]}/3.txt": [AU, "0" + ",0" * 11]})
    samples = read(tmp_path).samples.sort("clip")
    assert samples.select("clip", "split").rows() == [("1", "train"), ("2", "train"), ("3", "validation")]
    for challenge, clip in {"va": "1", "expr": "2", "au": "3"}.items():
        assert read(tmp_path, challenge=challenge).samples["clip"].to_list() == [clip]


def test_text_files_beside_the_labels_are_not_labels(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            f"{VA_TRAIN}/4.txt": [VA, "0,0"],
            f"{VA_TRAIN}/._4.txt": ["x"],
            f"{VA_TRAIN}/4.csv": [VA, "1,1"],
            f"{SIXTH}/VA_Estimation_Challenge/readme.txt": [VA, "1,1"],
            f"{SIXTH}/5.txt": [VA, "1,1"],
            "prediction_files_format/CVPR_6th_ABAW_VA_test_set_sample.txt": ["image_location,valence,arousal", "9/00001.jpg,0,0"],
            f"__MACOSX/{VA_TRAIN}/5.txt": [VA, "1,1"],
        },
    )
    reading = read(tmp_path)
    assert reading.samples["clip"].to_list() == ["4"]
    assert kinds(reading.problems) == {"no images": 1}


@pytest.mark.parametrize("header", ["0.1,0.2", "", EXPR, "valence;arousal", "valence,arousal,quality"])
def test_a_file_whose_first_line_is_no_header_is_said_and_not_used(tmp_path: Path, header: str) -> None:
    put(tmp_path, {f"{VA_TRAIN}/4.txt": [header, "0.1,0.2"], f"{VA_TRAIN}/5.txt": [VA, "0.1,0.2"]})
    reading = read(tmp_path)
    assert reading.samples["clip"].to_list() == ["5"]
    problem = reading.problems.filter(kind="unknown header").row(0, named=True)
    assert problem["file"].endswith("4.txt")
    assert "1 lines" in problem["detail"]


def test_where_no_file_can_be_used_there_is_no_sample(tmp_path: Path) -> None:
    put(tmp_path, {f"{VA_TRAIN}/4.txt": ["0,0"], f"{AU_TRAIN}/5.txt": [AU]})
    reading = read(tmp_path)
    assert reading.samples.is_empty()
    assert kinds(reading.problems) == {"unknown header": 1}
    put(tmp_path, {"lists/train_set.txt": ["x", *MTL_ROWS]})
    assert read(tmp_path / "lists").samples.is_empty()
    assert kinds(read(tmp_path / "lists").problems) == {"unknown header": 1}


@pytest.mark.parametrize(
    "bytes_", [b"\xef\xbb\xbfvalence,arousal\r\n0.1,0.2\r\n0.3,0.4\r\n\r\n", "valence,arousal\n0.1,0.2\n0.3,0.4".encode("utf-16")]
)
def test_encodings_and_ends_of_lines_make_no_difference(tmp_path: Path, bytes_: bytes) -> None:
    put(tmp_path, {f"{VA_TRAIN}/4.txt": []})
    (tmp_path / VA_TRAIN / "4.txt").write_bytes(bytes_)
    reading = read(tmp_path)
    assert reading.samples.select("valence", "arousal").rows() == [(0.1, 0.2), (0.3, 0.4)]
    assert kinds(reading.problems) == {"no images": 1}


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lines_without_an_image_stay_and_are_one_row_a_video(tmp_path: Path) -> None:
    put(tmp_path, {f"{VA_TRAIN}/4.txt": [VA, *["0,0"] * 9], f"{VA_TRAIN}/5.txt": [VA, *["0,0"] * 3], f"{VA_TRAIN}/6.txt": [VA, "0,0"]})
    faces(tmp_path, "4", [1, 2, 5, 6])
    faces(tmp_path, "5", [1, 2, 3])
    reading = read(tmp_path)
    assert reading.samples.height == 13
    assert reading.samples.filter(pl.col("image").is_null()).select("clip", "frame").rows() == [
        *(("4", n) for n in (3, 4, 7, 8, 9)),
        ("6", 1),
    ]
    assert reading.samples.filter(clip="4", frame=9)["sample"].item() == "cropped_aligned/4/00009.jpg"
    assert reading.problems.select("kind", "line").rows() == [("lines without an image", 4), ("lines without an image", 2)]
    assert reading.problems["detail"][0] == "5 of 9 lines: the first is line 4, the last line 10"
    assert reading.problems["file"].str.ends_with(".txt").all()


def test_without_any_image_one_row_says_so(tmp_path: Path) -> None:
    put(tmp_path, {f"{VA_TRAIN}/{video}.txt": [VA, *["0,0"] * 9] for video in "456"})
    reading = read(tmp_path)
    assert reading.samples["image"].is_null().all()
    assert reading.samples.height == 27
    assert reading.problems["kind"].to_list() == ["no images"]
    assert "27" in reading.problems["detail"][0]


def test_images_may_lie_in_several_folders_one_deeper_and_be_png(tmp_path: Path) -> None:
    put(tmp_path, {f"{VA_TRAIN}/{video}.txt": [VA, "0,0"] for video in "4567"})
    faces(tmp_path, "4", [1], "cropped_aligned")
    faces(tmp_path, "5", [1], "cropped_aligned_new_50_vids")
    faces(tmp_path, "6", [1], "data/cropped_aligned/cropped_aligned", ".png")
    faces(tmp_path, "7", [1], "cropped_aligned/batch2", ".JPG")
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    assert reading.samples.sort("clip")["sample"].to_list() == [
        "cropped_aligned/4/00001.jpg",
        "cropped_aligned_new_50_vids/5/00001.jpg",
        "data/cropped_aligned/cropped_aligned/6/00001.png",
        "cropped_aligned/batch2/7/00001.JPG",
    ]
    assert all(Path(image).is_file() for image in reading.samples["image"])


def test_images_that_no_line_labels_are_said(tmp_path: Path) -> None:
    put(tmp_path, {f"{VA_TRAIN}/4.txt": [VA, "0,0"]})
    faces(tmp_path, "4", [0, 1, 2, 3])
    faces(tmp_path, "5", [1])
    (tmp_path / "cropped_aligned/4/00001.png").write_bytes(b"")
    (tmp_path / "cropped_aligned/4/Thumbs.db").write_bytes(b"")
    faces(tmp_path, "4", [1], "cropped_aligned_2")
    reading = read(tmp_path)
    assert reading.samples["sample"].to_list() == ["cropped_aligned/4/00001.jpg"]
    assert kinds(reading.problems) == {"image without a label": 2, "stands twice": 2}
    assert reading.problems.filter(kind="image without a label")["detail"].to_list() == [
        "3 have a number that no line has; the first is 00000.jpg",
        "videos with images that no file labels and no test list names: 1 (5)",
    ]


# ── splits ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_video_in_different_parts_of_two_challenges_has_no_split_but_each_challenge_has_its_own(tmp_path: Path) -> None:
    put(tmp_path, {f"{VA_TRAIN}/4.txt": [VA, *["0,0"] * 3], f"{AU_VALIDATION}/4.txt": [AU, "0" + ",0" * 11]})
    reading = read(tmp_path)
    assert reading.samples["split"].to_list() == [None] * 3
    told = reading.problems.filter(kind="two splits")
    assert told.height == 1
    assert "train of va, validation of au" in told["detail"][0]
    assert read(tmp_path, challenge="va").samples["split"].to_list() == ["train"] * 3
    assert read(tmp_path, challenge="au").samples["split"].to_list() == ["validation"]
    assert "two splits" not in kinds(read(tmp_path, challenge="au").problems)


def test_a_video_in_both_parts_of_a_challenge_is_the_validation_parts(tmp_path: Path) -> None:
    put(tmp_path, {f"{VA_TRAIN}/4.txt": [VA, "0,0"], f"{VA_VALIDATION}/4.txt": [VA, "1,1"]})
    reading = read(tmp_path)
    assert reading.samples.select("split", "valence").rows() == [("validation", 1)]
    assert kinds(reading.problems) == {"stands twice": 1, "no images": 1}


@pytest.mark.parametrize(
    ("challenge", "name"),
    [
        ("va", "Valence_Arousal_Estimation_Challenge_test_set_release.txt"),
        ("expr", "Expression_Recognition_Challenge_test_set_release.txt"),
        ("au", "Action_Unit_Detection_Challenge_test_set_release.txt"),
    ],
)
def test_test_videos_give_a_sample_for_each_image(tmp_path: Path, challenge: str, name: str) -> None:
    folder, header, line = {"va": (VA_TRAIN, VA, "0,0"), "expr": (EXPR_TRAIN, EXPR, "0"), "au": (AU_TRAIN, AU, "0" + ",0" * 11)}[challenge]
    put(tmp_path, {f"{folder}/4.txt": [header, line], f"names_of_videos_in_each_test_set/{name}": ["8", "9_right", "10", ""]})
    faces(tmp_path, "4", [1])
    faces(tmp_path, "8", [2, 5])
    faces(tmp_path, "9_right", [1])
    for chosen in ("auto", challenge):
        reading = read(tmp_path, challenge=chosen)
        test = reading.samples.filter(split="test")
        assert test.select("clip", "frame", "subject").rows() == [("8", 2, "8"), ("8", 5, "8"), ("9_right", 1, "9")]
        assert test.select("valence", "arousal", "expression").null_count().row(0) == (3, 3, 3)
        assert all(Path(image).is_file() for image in test["image"])
        assert reading.problems.select("kind", "detail").rows() == [("missing image", "no folder of images is called '10'")]


def test_without_images_a_test_list_gives_no_sample_and_one_row(tmp_path: Path) -> None:
    put(tmp_path, {f"{VA_TRAIN}/4.txt": [VA, "0,0"], "x/Valence_Arousal_Estimation_Challenge_test_set_release.txt": ["8", "9"]})
    reading = read(tmp_path)
    assert reading.samples["clip"].to_list() == ["4"]
    assert reading.problems["kind"].to_list() == ["no images", "no images"]
    assert "2 test videos" in reading.problems["detail"][1]


def test_a_test_video_of_one_challenge_that_another_labels_has_no_split(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            f"{VA_TRAIN}/4.txt": [VA, "0,0"],
            f"{AU_TRAIN}/5.txt": [AU, "0" + ",0" * 11],
            "x/Action_Unit_Detection_Challenge_test_set_release.txt": ["4", "5"],
        },
    )
    faces(tmp_path, "4", [1, 2])
    faces(tmp_path, "5", [1])
    reading = read(tmp_path)
    assert reading.samples.select("clip", "split").rows() == [("4", None), ("5", "train")]
    assert kinds(reading.problems) == {"two splits": 1, "stands twice": 1, "image without a label": 1}
    assert read(tmp_path, challenge="au").samples.select("clip", "split").rows() == [("5", "train"), ("4", "test"), ("4", "test")]


# ── lists of the multi-task challenge ────────────────────────────────────────────────────────────────────────────────────────

MTL_ROWS = [
    "426/00001.jpg,0.0,0.054,0,0,0,0,0,0,1,0,0,0,0,0,0",
    "426/00050.jpg,0.0,0.156,-1,0,0,0,0,0,1,0,0,0,0,0,0",
    "video48_left/02518.jpg,-5.0,-5.0,4,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1",
    "7/00003.jpg,0.5,-5.0,7,1,-1,1,1,1,1,1,1,1,1,1,1",
]


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ("train_set.txt", "validation_set.txt"),
        ("Third ABAW Annotations/MTL_Challenge/train_set.txt", "Third ABAW Annotations/MTL_Challenge/validation_set.txt"),
        ("training_set_annotations.txt", "validation_set_annotations.txt"),
    ],
)
def test_sixteen_fields_stand_under_five_names_and_each_task_is_masked_by_itself(tmp_path: Path, train: str, validation: str) -> None:
    put(tmp_path, {train: [MTL, *MTL_ROWS], validation: [MTL, MTL_ROWS[0].replace("426", "9")]})
    for video, numbers in {"426": [1, 50], "video48_left": [2518], "7": [3], "9": [1, 2]}.items():
        faces(tmp_path, video, numbers)
    for challenge in ("auto", "mtl"):
        reading = read(tmp_path, challenge=challenge)
        assert reading.problems.is_empty()
        found = rows(reading.samples)
        assert set(found) == {("426", 1), ("426", 50), ("video48_left", 2518), ("7", 3), ("9", 1)}
        one, two, three, four = (found[key] for key in (("426", 1), ("426", 50), ("video48_left", 2518), ("7", 3)))
        assert (one["valence"], one["arousal"], one["expression"]) == (0, 0.054, "neutral")
        assert [one[f"au{au}"] for au in AUS] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
        assert (two["arousal"], two["expression"], two["au10"]) == (0.156, None, 1)
        assert (three["valence"], three["arousal"], three["expression"], three["subject"]) == (None, None, "happy", "video48")
        assert [three[f"au{au}"] for au in AUS] == [None] * 12
        assert (four["valence"], four["arousal"], four["expression"], four["au1"], four["au2"]) == (None, None, "other", 1, None)
        assert one["sample"] == "cropped_aligned/426/00001.jpg"
        assert Path(one["image"]).is_file()
        assert (one["split"], found["9", 1]["split"]) == ("train", "validation")


def test_listed_images_that_are_not_there_stay_and_are_said_with_their_lines(tmp_path: Path) -> None:
    put(tmp_path, {"train_set.txt": [MTL, *MTL_ROWS]})
    faces(tmp_path, "426", [1])
    reading = read(tmp_path)
    assert reading.samples["image"].is_null().to_list() == [False, True, True, True]
    assert reading.problems.select("kind", "line", "sample").rows() == [
        ("missing image", 3, "cropped_aligned/426/00050.jpg"),
        ("missing image", 4, "cropped_aligned/video48_left/02518.jpg"),
        ("missing image", 5, "cropped_aligned/7/00003.jpg"),
    ]
    (tmp_path / "cropped_aligned/426/00001.jpg").unlink()
    assert kinds(read(tmp_path).problems) == {"no images": 1}


@pytest.mark.parametrize(("name", "header"), [("MTL_Challenge_test_set_release.txt", ["image"]), ("MTL.txt", [])])
def test_a_test_list_names_images_with_or_without_a_header(tmp_path: Path, name: str, header: list[str]) -> None:
    put(tmp_path, {"train_set.txt": [MTL, MTL_ROWS[0]], name: [*header, "8/00007.jpg", "8/00009.jpg", "426/00001.jpg", "nonsense"]})
    faces(tmp_path, "8", [7])
    reading = read(tmp_path, challenge="mtl")
    test = reading.samples.filter(split="test")
    assert test.select("clip", "frame").rows() == [("8", 7), ("8", 9)]
    assert test.select(pl.col("valence", "expression", "au1").is_null().all()).row(0) == (True, True, True)
    assert kinds(reading.problems) == {"missing image": 2, "row stands twice": 1, "unreadable name": 1}


def test_bad_rows_of_a_list_are_said_with_their_lines(tmp_path: Path) -> None:
    good = MTL_ROWS[0]
    lines = [
        good,
        good.replace("0.054", "x"),
        "426/00002.jpg,0.1,0.2",
        "",
        "00003.jpg" + good[13:],
        good.replace("00001", "00004").replace("0.054,0,", "3,9,"),
        good.replace("00001.jpg", "1.png"),
    ]
    put(tmp_path, {"train_set.txt": [MTL, *lines]})
    reading = read(tmp_path)
    assert reading.samples.select("frame", "arousal", "expression").rows() == [(1, 0.054, "neutral"), (4, None, None)]
    found = reading.problems.filter(pl.col("kind") != "no images").select("line", "kind").sort("line").rows()
    assert set(found) == {
        (3, "row stands twice"),
        (3, "unreadable label"),
        (4, "wrong number of cells"),
        (6, "unreadable name"),
        (7, "label out of range"),
        (8, "row stands twice"),
    }


def test_a_row_in_both_lists_is_the_validation_parts(tmp_path: Path) -> None:
    put(tmp_path, {"train_set.txt": [MTL, MTL_ROWS[0]], "validation_set.txt": [MTL, MTL_ROWS[0]]})
    reading = read(tmp_path)
    assert reading.samples["split"].to_list() == ["validation"]
    assert kinds(reading.problems) == {"row stands twice": 1, "no images": 1}


def test_the_twelve_action_units_may_be_named_in_the_header(tmp_path: Path) -> None:
    put(tmp_path, {"train_set.txt": [MTL.replace("aus", "AU26, AU1"), "4/00001.jpg,0,0,0,1,0"]})
    assert read(tmp_path).samples.select("au1", "au26").row(0) == (0, 1)


def test_lists_beside_the_challenges_are_read_only_when_asked_for(tmp_path: Path) -> None:
    put(tmp_path, {f"{VA_TRAIN}/4.txt": [VA, "0,0"], f"{SIXTH}/MTL_Challenge/train_set.txt": [MTL, MTL_ROWS[0]]})
    reading = read(tmp_path)
    assert reading.samples["clip"].to_list() == ["4"]
    assert reading.problems["kind"].to_list() == ["not read", "no images"]
    assert "task.dataset.read.challenge=mtl" in reading.problems["detail"][0]
    assert read(tmp_path, challenge="mtl").samples["clip"].to_list() == ["426"]
    assert kinds(read(tmp_path, challenge="va").problems) == {"no images": 1}


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_editions_are_refused_unless_one_is_named(tmp_path: Path) -> None:
    fifth = VA_TRAIN.replace("6th", "5th")
    put(
        tmp_path,
        {f"{VA_TRAIN}/4.txt": [VA, "0.6,0"], f"{fifth}/4.txt": [VA, "0.5,0"], f"{SIXTH}/MTL_Challenge/train_set.txt": [MTL, MTL_ROWS[0]]},
    )
    with pytest.raises(RequestError, match=r"2 editions of the va challenge.*edition.*5th_ABAW_Annotations, 6th_ABAW_Annotations"):
        read(tmp_path)
    assert read(tmp_path, edition="5th_ABAW_Annotations").samples["valence"].to_list() == [0.5]
    assert read(tmp_path, edition="6th abaw annotations").samples["valence"].to_list() == [0.6]
    assert read(tmp_path / SIXTH).samples["valence"].to_list() == [0.6]
    with pytest.raises(RequestError, match=r"no edition '7th_ABAW_Annotations'.*did you mean"):
        read(tmp_path, edition="7th_ABAW_Annotations")
    put(tmp_path, {"5th_ABAW_Annotations/MTL_Challenge/train_set.txt": [MTL, MTL_ROWS[1]]})
    with pytest.raises(RequestError, match="2 editions of the train list"):
        read(tmp_path, challenge="mtl")
    assert read(tmp_path, challenge="mtl", edition="5th_ABAW_Annotations").samples["frame"].to_list() == [50]


def test_challenges_from_two_folders_are_read_with_a_warning(tmp_path: Path) -> None:
    put(tmp_path, {"a/VA_Set/Train_Set/4.txt": [VA, "0,0"], "b/EXPR_Set/Train_Set/4.txt": [EXPR, "1"]})
    reading = read(tmp_path)
    assert reading.samples.select("valence", "expression").rows() == [(0, "anger")]
    assert kinds(reading.problems) == {"labels of several folders": 1, "no images": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"challenge": "exp"}, "did you mean 'expr'"),
        ({"challenge": "au"}, "no labels of the au challenge.*va"),
        ({"challenge": "mtl"}, "no labels of the mtl challenge"),
        ({"edition": "nothing"}, "no edition 'nothing'"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path, options: dict[str, str], message: str) -> None:
    put(tmp_path, {f"{VA_TRAIN}/4.txt": [VA, "0,0"]})
    with pytest.raises(RequestError, match=message):
        read(tmp_path, **options)


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    put(tmp_path, {"cropped_aligned/4/readme.txt": [""], "VA_Set/4.txt": [VA]})
    with pytest.raises(RequestError, match="no labels of Aff-Wild2"):
        read(tmp_path)
    with pytest.raises(RequestError, match="there is no folder"):
        read(tmp_path / "absent")


# ── mangled ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

FILES = [f"{VA_TRAIN}/4.txt", f"{EXPR_TRAIN}/4.txt", f"{AU_TRAIN}/5_left.txt", "names/Action_Unit_Detection_Challenge_test_set_release.txt"]
LISTS = ["train_set.txt", "MTL.txt"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    put(
        root / "videos",
        dict(zip(FILES, ([VA, "0.25,-0.5", "-5,-5", "1,-1"], [EXPR, "0", "7", "-1"], [AU, *["0,1" * 6] * 2], ["4", "6"]), strict=True)),
    )
    put(root / "lists", dict(zip(LISTS, ([MTL, *MTL_ROWS], ["image", "8/00007.jpg"]), strict=True)))
    faces(root / "videos", "6", [1])
    return root


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(mangling=manglings, file=st.sampled_from([*FILES, *LISTS]))
def test_a_mangled_file_is_reported_or_refused(whole: Path, tmp_path: Path, mangling: Mangling, file: str) -> None:
    kind = "lists" if file in LISTS else "videos"
    reading = survives(read, whole / kind, tmp_path / "scratch", Path(file), mangling)
    assert reading is not None
    if file in FILES[:3]:
        untouched = {"valence": FILES[0], "expression": FILES[1]}
        for label, its_file in untouched.items():
            if its_file != file:
                assert reading.samples[label].is_not_null().sum() == 2


def test_names_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, {f"{VA_TRAIN}/4.txt": [VA, "0,0"]})
    faces(tmp_path, "4", [1])
    for path in (f"{tmp_path}/{VA_TRAIN}/".encode() + b"\xff.txt", f"{tmp_path}/cropped_aligned/4/".encode() + b"\xff.jpg"):
        with open(path, "wb"):  # noqa: PTH123
            pass
    os.mkdir(f"{tmp_path}/cropped_aligned/".encode() + b"\xfe")  # noqa: PTH102
    assert read(tmp_path).samples["clip"].to_list() == ["4"]
