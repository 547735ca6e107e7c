"""The DISFA reader against small folders written by hand, whole ones and mangled ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings

from harness.errors import RequestError
from harness.frames import Transform, fill
from harness.samples import intensity_columns
from tasks.datasets.disfa import read
from tasks.datasets.vocabulary import DISFA_AUS
from tests.tasks.datasets.mangling import Mangling, manglings, survives


def write_labels(root: Path, subject: str, frames: int = 4, changed: Mapping[int, str | None] | None = None) -> None:
    """Intensities 0, 1, 2 … over and over; ``changed``: the whole text of the file of an action unit, or None for no file."""
    folder = root / "ActionUnit_Labels" / subject
    folder.mkdir(parents=True, exist_ok=True)
    for au in DISFA_AUS:
        content = (changed or {}).get(au, "".join(f"{frame},{(frame - 1) % 6}\n" for frame in range(1, frames + 1)))
        if content is not None:
            (folder / f"{subject}_au{au}.txt").write_text(content)


def write_frames(root: Path, names: Sequence[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def write_video(path: Path, frames: int) -> None:
    """Frame k is grey of tone 20 + 10 k."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=20)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuvj420p"
        for number in range(frames):
            pixels = np.full((16, 16, 3), 20 + 10 * number, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))


def said(problems: pl.DataFrame) -> list[tuple[str, int | None]]:
    return list(problems.select("kind", "line").iter_rows())


def kinds(problems: pl.DataFrame) -> dict[str, int]:
    return dict(problems.group_by("kind").len().iter_rows())


def images(samples: pl.DataFrame, root: Path) -> dict[int, str | None]:
    return {frame: image and str(Path(image).relative_to(root)) for frame, image in samples.select("frame", "image").iter_rows()}


# ── labels ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_is_a_frame_and_a_file_an_action_unit(tmp_path: Path) -> None:
    write_labels(tmp_path, "SN001", 6, {12: "1,5\n2,4\n3,3\n4,2\n5,1\n6,0\n"})
    write_frames(tmp_path, [f"SN001/{number}.png" for number in range(6)])
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    assert intensity_columns(reading.samples) == [f"au{au}_intensity" for au in DISFA_AUS]
    assert not {"au1", "au12"} & {*reading.samples.columns}, "what is there at which intensity is the task's to say"
    assert reading.samples["frame"].to_list() == [1, 2, 3, 4, 5, 6]
    assert reading.samples["au12_intensity"].to_list() == [5, 4, 3, 2, 1, 0]
    assert reading.samples["au26_intensity"].to_list() == [0, 1, 2, 3, 4, 5]
    assert reading.samples.select("clip", "subject").unique().rows() == [("SN001", "SN001")]
    unknown = ["split", "activity", "valence", "arousal", "expression", "box", "landmarks"]
    assert reading.samples.select(unknown).null_count().unique().rows() == [(6,) * len(unknown)]


def test_lines_are_joined_by_the_frames_they_name_and_not_by_their_places(tmp_path: Path) -> None:
    write_labels(tmp_path, "SN001", 3, {2: "3,5\n1,1\n2,4\n"})
    reading = read(tmp_path)
    assert reading.samples.select("frame", "au2_intensity").rows() == [(1, 1), (2, 4), (3, 5)]


def test_intensities_written_as_floats_with_blanks_or_by_windows_are_read(tmp_path: Path) -> None:
    write_labels(tmp_path, "SN001", 2, {1: "1,2.0\n2,5.00\n", 2: "1, 2\r\n2 ,5\r\n", 4: "\ufeff1,2\n2,5", 5: '"1","2"\n\n2,5\n\n'})
    reading = read(tmp_path)
    assert kinds(reading.problems) == {"no images": 1}
    for au in (1, 2, 4, 5):
        assert reading.samples[f"au{au}_intensity"].to_list() == [2, 5]


@pytest.mark.parametrize("value", ["6", "-1", "1.5", "9", "nan", "inf", "1e400", "-0.5"])
def test_what_is_no_whole_number_from_0_to_5_is_out_of_range(tmp_path: Path, value: str) -> None:
    write_labels(tmp_path, "SN001", 3, {6: f"1,3\n2,{value}\n3,4\n"})
    write_frames(tmp_path, [f"SN001/{number}.png" for number in range(3)])
    reading = read(tmp_path)
    assert reading.samples["au6_intensity"].to_list() == [3, None, 4]
    others = [name for name in intensity_columns(reading.samples) if name != "au6_intensity"]
    assert set(reading.samples.select(others).null_count().row(0)) == {0}
    problem = reading.problems.row(0, named=True)
    assert (problem["kind"], problem["line"], problem["sample"]) == ("label out of range", 2, "SN001/1.png")
    assert problem["file"] == str(tmp_path / "ActionUnit_Labels/SN001/SN001_au6.txt")
    assert reading.problems.height == 1


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("2,", "unreadable label"),
        ("2,NULL", "unreadable label"),
        ("2", "wrong number of cells"),
        ("2,1,1", "wrong number of cells"),
        ("2;1", "wrong number of cells"),
        ("x,1", "unreadable frame number"),
        ("0,1", "unreadable frame number"),
        ("2.5,1", "unreadable frame number"),
        ("9" * 400 + ",1", "unreadable frame number"),
        ("3000000000,1", "unreadable frame number"),
        ("1,4", "row stands twice"),
    ],
)
def test_a_bad_line_masks_its_frame_in_one_action_unit_and_is_said_with_its_number(tmp_path: Path, line: str, kind: str) -> None:
    write_labels(tmp_path, "SN001", 3, {6: f"1,3\n{line}\n3,4\n"})
    reading = read(tmp_path)
    assert reading.samples["frame"].to_list() == [1, 2, 3]
    assert reading.samples["au6_intensity"].to_list() == [3, None, 4]
    assert reading.samples["au9_intensity"].to_list() == [0, 1, 2]
    assert (kind, 2) in said(reading.problems)


def test_frames_that_one_file_lacks_are_null_there_and_said_once(tmp_path: Path) -> None:
    write_labels(tmp_path, "SN001", 5, {6: "1,3\n4,4\n"})
    reading = read(tmp_path)
    assert reading.samples["au6_intensity"].to_list() == [3, None, None, 4, None]
    problem = reading.problems.filter(kind="missing frame number").row(0, named=True)
    assert problem["file"].endswith("SN001_au6.txt")
    assert problem["detail"] == "3 frames that other files label, the first of them 2"
    assert kinds(reading.problems) == {"missing frame number": 1, "no images": 1}


def test_frames_that_no_file_labels_are_said_once(tmp_path: Path) -> None:
    write_labels(tmp_path, "SN001", 9, dict.fromkeys(DISFA_AUS, "1,0\n2,0\n5,1\n6,1\n9,0\n"))
    reading = read(tmp_path)
    assert reading.samples["frame"].to_list() == [1, 2, 5, 6, 9]
    assert kinds(reading.problems) == {"missing frame number": 1, "no images": 1}
    assert reading.problems["detail"][0] == "4 frames of SN001 are in no file, the first of them 3"


@pytest.mark.parametrize(("content", "kind"), [(None, "missing label file"), ("", "unreadable file")])
def test_an_action_unit_without_a_file_or_without_a_line_is_masked_and_never_0(tmp_path: Path, content: str | None, kind: str) -> None:
    write_labels(tmp_path, "SN001", 3, {17: content})
    write_labels(tmp_path, "SN002", 2)
    reading = read(tmp_path)
    assert reading.samples["au17_intensity"].to_list() == [None] * 3 + [0, 1]
    assert reading.samples.filter(subject="SN001")["au12_intensity"].to_list() == [0, 1, 2]
    assert kinds(reading.problems) == {kind: 1, "no images": 1}


def test_a_file_of_another_unit_or_a_second_copy_is_said_and_not_used(tmp_path: Path) -> None:
    write_labels(tmp_path, "SN001", 2)
    (tmp_path / "ActionUnit_Labels/SN001/SN001_au7.txt").write_text("1,5\n2,5\n")
    (tmp_path / "Backup").mkdir()
    (tmp_path / "Backup/SN001_au1.txt").write_text("1,5\n2,5\n")
    reading = read(tmp_path)
    assert reading.samples["au1_intensity"].to_list() == [0, 1]
    assert "au7_intensity" not in reading.samples.columns
    assert kinds(reading.problems) == {"unknown action unit": 1, "stands twice": 1, "no images": 1}


def test_files_without_a_single_line_give_no_samples_and_a_problem_each(tmp_path: Path) -> None:
    write_labels(tmp_path, "SN001", 0)
    reading = read(tmp_path)
    assert reading.samples.is_empty()
    assert len(intensity_columns(reading.samples)) == 12
    assert kinds(reading.problems) == {"unreadable file": 12}


def test_the_published_counts_are_those_of_label_files_alone(tmp_path: Path) -> None:
    numbers = [*range(1, 14), 16, 17, 18, 21, *range(23, 33)]
    for number in numbers:
        lines = "".join(f"{frame},0\n" for frame in range(1, 4846 - (number == 10)))
        write_labels(tmp_path, f"SN{number:03}", changed={au: lines if au in (1, 26) else None for au in DISFA_AUS})
    reading = read(tmp_path)
    assert (reading.samples.height, reading.samples["subject"].n_unique()) == (130_814, 27)
    assert reading.samples.filter(subject="SN010").height == 4_844
    part3 = ["SN003", "SN029", "SN023", "SN025", "SN008", "SN005", "SN007", "SN017", "SN004"]
    assert reading.samples.filter(pl.col("subject").is_in(part3)).height == 43_605
    part1 = ["SN002", "SN010", "SN001", "SN026", "SN027", "SN032", "SN030", "SN009", "SN016"]
    assert reading.samples.filter(pl.col("subject").is_in(part1)).height == 43_604


# ── extracted frames ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_with_a_frame_0_counts_from_0_and_another_from_1(tmp_path: Path) -> None:
    for subject in ("SN001", "SN002", "SN003"):
        write_labels(tmp_path, subject, 3)
    write_frames(tmp_path, [f"SN001/{number}.png" for number in range(3)])
    write_frames(tmp_path, [f"frames/LeftVideoSN002/{number:05}.jpg" for number in range(1, 4)])
    write_frames(tmp_path, [f"left/SN003_comp/frame_{number:05}.jpeg" for number in range(3)])
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    by_subject = {subject: images(part, tmp_path) for (subject,), part in reading.samples.group_by("subject")}
    assert by_subject["SN001"] == {1: "SN001/0.png", 2: "SN001/1.png", 3: "SN001/2.png"}
    assert by_subject["SN002"] == {frame: f"frames/LeftVideoSN002/0000{frame}.jpg" for frame in (1, 2, 3)}
    assert by_subject["SN003"] == {frame: f"left/SN003_comp/frame_0000{frame - 1}.jpeg" for frame in (1, 2, 3)}
    assert reading.samples["sample"].to_list() == [str(Path(image).relative_to(tmp_path)) for image in reading.samples["image"]]


@pytest.mark.parametrize("base", [1, "1"])
def test_what_the_user_says_of_the_first_number_wins_and_a_frame_0_is_said(tmp_path: Path, base: Any) -> None:
    write_labels(tmp_path, "SN001", 3)
    write_frames(tmp_path, [f"SN001/{number}.png" for number in range(4)])
    reading = read(tmp_path, frame_base=base)
    assert images(reading.samples, tmp_path) == {1: "SN001/1.png", 2: "SN001/2.png", 3: "SN001/3.png"}
    assert kinds(reading.problems) == {"frame 0": 1, "image without a label": 1}


def test_frames_from_0_whose_first_is_lost_are_right_once_the_user_says_so(tmp_path: Path) -> None:
    write_labels(tmp_path, "SN001", 3)
    write_frames(tmp_path, ["SN001/01.png", "SN001/02.png"])
    reading = read(tmp_path, frame_base=0)
    assert images(reading.samples, tmp_path) == {1: None, 2: "SN001/01.png", 3: "SN001/02.png"}
    assert reading.samples["sample"][0] == "SN001/00.png"
    assert kinds(reading.problems) == {"missing image": 1}


def test_more_or_fewer_images_than_labels_are_said_one_by_one_and_labels_stay(tmp_path: Path) -> None:
    write_labels(tmp_path, "SN001", 4)
    write_labels(tmp_path, "SN010", 3)
    write_frames(tmp_path, [f"SN001/{number:04}.png" for number in (0, 1, 3)])
    write_frames(tmp_path, [f"SN010/{number}.png" for number in range(5)])
    reading = read(tmp_path)
    first = reading.samples.filter(subject="SN001")
    assert first.select("sample", "au1_intensity").rows()[2] == ("SN001/0002.png", 2)
    assert first["image"].is_null().to_list() == [False, False, True, False]
    missing, *extra = reading.problems.sort("kind", descending=True).iter_rows(named=True)
    assert (missing["kind"], missing["sample"], missing["line"]) == ("missing image", "SN001/0002.png", 3)
    assert [(row["kind"], Path(row["file"]).name) for row in extra] == [("image without a label", f"{n}.png") for n in (3, 4)]


def test_a_person_without_images_among_others_is_one_problem(tmp_path: Path) -> None:
    for subject in ("SN001", "SN002"):
        write_labels(tmp_path, subject, 3)
    write_frames(tmp_path, [f"SN001/{number}.png" for number in range(3)])
    reading = read(tmp_path)
    assert kinds(reading.problems) == {"no images": 1}
    assert reading.samples["image"].is_null().to_list() == [False] * 3 + [True] * 3
    assert reading.samples["sample"].to_list()[3:] == [f"Videos_LeftCamera/LeftVideoSN002_comp.avi::{n}" for n in range(3)]


def test_the_camera_that_is_asked_for_is_used_and_a_folder_that_names_none_is_any(tmp_path: Path) -> None:
    for subject in ("SN001", "SN002"):
        write_labels(tmp_path, subject, 2)
    for side in ("Left", "Right"):
        write_frames(tmp_path, [f"{side}VideoSN001/{number}.png" for number in (1, 2)])
    write_frames(tmp_path, [f"bright/SN002/{number}.png" for number in (1, 2)])
    for side in ("left", "right"):
        reading = read(tmp_path, camera=side)
        assert reading.problems.is_empty()
        folders = {Path(image).parent.name for image in reading.samples["image"]}
        assert folders == {f"{side.title()}VideoSN001", "SN002"}


def test_a_second_folder_of_one_person_is_said_and_one_that_names_the_camera_goes_first(tmp_path: Path) -> None:
    write_labels(tmp_path, "SN001", 1)
    write_frames(tmp_path, ["A/SN001/1.png", "Z/LeftVideoSN001/1.png"])
    reading = read(tmp_path)
    assert images(reading.samples, tmp_path) == {1: "Z/LeftVideoSN001/1.png"}
    assert said(reading.problems) == [("stands twice", None)]


def test_two_images_of_one_number_and_one_of_none_are_said(tmp_path: Path) -> None:
    write_labels(tmp_path, "SN001", 1)
    write_frames(tmp_path, ["SN001/1.jpg", "SN001/1.png", "SN001/1_cropped.png"])
    reading = read(tmp_path)
    assert images(reading.samples, tmp_path) == {1: "SN001/1.jpg"}
    assert kinds(reading.problems) == {"stands twice": 1, "image without a label": 1}


def test_landmarks_are_passed_over(tmp_path: Path) -> None:
    write_labels(tmp_path, "SN001", 1)
    points = "Landmark_Points/Landmark_Points/SN001/tmp_frame_lm"
    write_frames(tmp_path, ["SN001/0.png", f"{points}/SN001_0000_lm.mat", f"{points}/0.png"])
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    assert reading.samples["landmarks"].is_null().all()


def test_disfa_plus_in_the_same_folder_is_no_part_of_it(tmp_path: Path) -> None:
    write_labels(tmp_path / "DISFA", "SN001", 2)
    write_frames(tmp_path, ["DISFA+/Images/SN001/A1_AU1_TrailNo_1/000.jpg", "DISFA+/Images/SN001/A1_AU1_TrailNo_1/001.jpg"])
    reading = read(tmp_path)
    assert reading.samples["image"].null_count() == 2
    assert kinds(reading.problems) == {"no images": 1}


# ── videos ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("camera", "path"),
    [
        ("left", "Videos_LeftCamera/LeftVideoSN001_comp.avi"),
        ("right", "Video_RightCamera/RightVideoSN001_Comp.avi"),
        ("left", "video_leftcamera/leftvideosn001_COMP.AVI"),
        ("right", "Videos_RightCamera/RightVideoSN001_comp.avi"),
    ],
)
def test_without_extracted_frames_the_label_k_is_the_frame_k_of_the_video(tmp_path: Path, camera: str, path: str) -> None:
    write_labels(tmp_path, "SN001", 5)
    write_video(tmp_path / path, 5)
    reading = read(tmp_path, camera=camera)
    assert reading.problems.is_empty()
    assert reading.samples["sample"].to_list() == [f"{path}::{number}" for number in range(5)]
    filled = fill(reading.samples, Transform(size=4), tmp_path / "cache")
    assert filled.problems.is_empty()
    tones = filled.frames[np.arange(5)].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(tones, [20, 30, 40, 50, 60], atol=3)


@pytest.mark.parametrize(("labels", "length"), [(5, 3), (3, 5)])
def test_labels_and_video_of_other_lengths_are_one_problem_and_what_both_have_is_used(tmp_path: Path, labels: int, length: int) -> None:
    write_labels(tmp_path, "SN010", labels)
    write_video(tmp_path / "Videos_LeftCamera/LeftVideoSN010_comp.avi", length)
    reading = read(tmp_path)
    assert reading.samples.height == labels, "labels without a frame can still be counted"
    assert reading.samples["image"].is_null().to_list() == [frame >= length for frame in range(labels)]
    assert said(reading.problems) == [("length mismatch", None)]
    assert f"{length} frames" in reading.problems["detail"][0]


def test_extracted_frames_go_before_a_video_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    write_labels(tmp_path, "SN001", 2)
    write_labels(tmp_path, "SN002", 2)
    write_frames(tmp_path, ["SN001/0.png", "SN001/1.png"])
    for subject in ("SN001", "SN002"):
        write_video(tmp_path / f"Videos_LeftCamera/LeftVideo{subject}_comp.avi", 2)
    video = "Videos_LeftCamera/LeftVideo{}_comp.avi::{}".format
    auto, frames, videos = (read(tmp_path, images=source) for source in ("auto", "frames", "video"))
    of_2 = [video("SN002", 0), video("SN002", 1)]
    assert auto.samples["sample"].to_list() == ["SN001/0.png", "SN001/1.png", *of_2]
    assert auto.problems.is_empty()
    assert videos.samples["sample"].to_list() == [video("SN001", 0), video("SN001", 1), *of_2]
    assert videos.samples["image"].null_count() == 0
    assert frames.samples["image"].is_null().to_list() == [False, False, True, True]
    assert kinds(frames.problems) == {"no images": 1}


@pytest.mark.parametrize("content", [b"", b"no video at all"])
def test_a_video_that_cannot_be_read_is_one_problem_and_its_labels_stay(tmp_path: Path, content: bytes) -> None:
    write_labels(tmp_path, "SN001", 3)
    write_frames(tmp_path, ["Videos_LeftCamera/LeftVideoSN001_comp.avi"])
    (tmp_path / "Videos_LeftCamera/LeftVideoSN001_comp.avi").write_bytes(content)
    reading = read(tmp_path)
    assert reading.samples["image"].null_count() == 3
    assert said(reading.problems) == [("unreadable file", None)]


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no folder"):
        read(tmp_path / "absent")
    with pytest.raises(RequestError, match=r"no labels of DISFA .*ActionUnit_Labels"):
        read(tmp_path)
    with pytest.raises(RequestError, match=r"no frame_base 2 .*choose from: 0, 1, auto"):
        read(tmp_path, frame_base=2)
    with pytest.raises(RequestError, match=r"no camera 'rigth' .*did you mean 'right'"):
        read(tmp_path, camera="rigth")
    with pytest.raises(RequestError, match=r"no images 'frame' .*did you mean 'frames'"):
        read(tmp_path, images="frame")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("disfa")
    write_labels(root, "SN001", 4)
    write_frames(root, [f"SN001/{number}.png" for number in range(4)])
    return root


@settings(max_examples=60, deadline=None)
@given(mangling=manglings)
def test_a_mangled_label_file_spoils_nothing_but_its_action_unit(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, mangling: Mangling
) -> None:
    file = Path("ActionUnit_Labels/SN001/SN001_au12.txt")
    reading = survives(read, whole, tmp_path_factory.mktemp("mangled") / "copy", file, mangling)
    assert reading is not None
    kept = reading.samples.filter(pl.col("frame") <= 4)
    assert kept["sample"].to_list() == [f"SN001/{number}.png" for number in range(4)]
    assert kept["au9_intensity"].to_list() == [0, 1, 2, 3]
