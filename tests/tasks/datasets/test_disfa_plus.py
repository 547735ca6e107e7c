"""The DISFA+ reader against small folders written by hand, whole ones and mangled ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings

from harness.errors import RequestError
from harness.samples import intensity_columns
from tasks.datasets.disfa_plus import read
from tasks.datasets.vocabulary import DISFA_AUS
from tests.tasks.datasets.mangling import Mangling, manglings, survives

TRIAL = "A1_AU1_TrailNo_1"


def write_labels(
    root: Path, clip: str = f"SN001/{TRIAL}", images: int = 4, changed: Mapping[int, str | None] | None = None, doubled: bool = False
) -> None:
    """Intensities 0, 1, 2 …; ``changed``: the whole text of the file of an action unit, or None for no file."""
    folder = root / "Labels" / (f"{clip.split('/')[0]}/" * doubled) / clip
    folder.mkdir(parents=True, exist_ok=True)
    for au in DISFA_AUS:
        content = (changed or {}).get(au, "".join(f"{number:03}.jpg     {number % 6}\n" for number in range(images)))
        if content is not None:
            (folder / f"AU{au}.txt").write_text(content)


def write_images(root: Path, clip: str = f"SN001/{TRIAL}", names: Sequence[str] = ("000.jpg", "001.jpg", "002.jpg", "003.jpg")) -> None:
    folder = root / "Images" / clip
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def kinds(problems: pl.DataFrame) -> dict[str, int]:
    return dict(problems.group_by("kind").len().iter_rows())


def test_a_trial_is_a_clip_and_an_image_named_in_a_line_is_a_frame(tmp_path: Path) -> None:
    write_labels(tmp_path, changed={9: "000.jpg     5\n001.jpg     4\n002.jpg     3\n003.jpg     2\n"})
    write_images(tmp_path)
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    assert intensity_columns(reading.samples) == [f"au{au}_intensity" for au in DISFA_AUS]
    assert not {"au1", "au12"} & {*reading.samples.columns}, "what is there at which intensity is the task's to say"
    assert reading.samples["sample"].to_list() == [f"Images/SN001/{TRIAL}/00{number}.jpg" for number in range(4)]
    assert all(Path(image).is_file() for image in reading.samples["image"])
    assert reading.samples["frame"].to_list() == [0, 1, 2, 3]
    assert reading.samples["au9_intensity"].to_list() == [5, 4, 3, 2]
    assert reading.samples["au26_intensity"].to_list() == [0, 1, 2, 3]
    assert reading.samples.select("clip", "subject", "activity").unique().rows() == [(f"SN001/{TRIAL}", "SN001", "A1_AU1")]


@pytest.mark.parametrize(
    ("trial", "activity"),
    [
        ("A3_AU1_2_TrailNo_2", "A3_AU1_2"),
        ("A5_AU1_4b_TrailNo_1", "A5_AU1_4b"),
        ("Y_HappyDescribed_TrailNo_1", "Y_HappyDescribed"),
        ("Y_HappyDescribed_TrialNo_12", "Y_HappyDescribed"),
        ("A4", "A4"),
    ],
)
def test_the_activity_is_the_name_of_the_trial_without_its_number(tmp_path: Path, trial: str, activity: str) -> None:
    write_labels(tmp_path, f"SN027/{trial}")
    samples = read(tmp_path).samples
    assert samples.select("clip", "activity").unique().rows() == [(f"SN027/{trial}", activity)]


def test_headers_comments_blank_lines_and_any_blanks_are_read_over(tmp_path: Path) -> None:
    head = "\ufeffImage Intensity\r\nof   many words\r\n# AU1\r\n\r\n"
    lines = head + "000.jpg \t 5\r\n  001.jpg 4  \r\n\r\n# 7\r\n002.jpg\t3.0\r\n003.jpg               2"
    write_labels(tmp_path, changed={1: lines})
    write_images(tmp_path)
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    assert reading.samples["au1_intensity"].to_list() == [5, 4, 3, 2]


def test_lines_are_joined_by_the_image_they_name(tmp_path: Path) -> None:
    write_labels(tmp_path, changed={2: "003.jpg 5\n001.jpg 1\n000.jpg 0\n002.jpg 4\n"})
    assert read(tmp_path).samples["au2_intensity"].to_list() == [0, 1, 4, 5]


def test_a_copy_with_other_endings_is_joined_by_the_number_of_the_image(tmp_path: Path) -> None:
    write_labels(tmp_path, images=2)
    write_images(tmp_path, names=["0.png", "1.png"])
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    assert reading.samples["sample"].to_list() == [f"Images/SN001/{TRIAL}/{number}.png" for number in range(2)]


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("images", [False, True])
def test_a_doubled_folder_of_a_subject_changes_neither_clip_nor_join(tmp_path: Path, labels: bool, images: bool) -> None:
    write_labels(tmp_path, doubled=labels)
    write_images(tmp_path, f"SN001/SN001/{TRIAL}" if images else f"SN001/{TRIAL}")
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    assert reading.samples["image"].null_count() == 0
    assert reading.samples["clip"].unique().to_list() == [f"SN001/{TRIAL}"]


def test_the_same_trial_in_both_places_is_said_and_used_once(tmp_path: Path) -> None:
    write_labels(tmp_path)
    write_labels(tmp_path, images=2, doubled=True)
    write_images(tmp_path)
    reading = read(tmp_path)
    assert reading.samples.height in (2, 4)
    assert kinds(reading.problems)["stands twice"] == 12


@pytest.mark.parametrize(
    ("content", "kind"), [(None, "missing label file"), ("", "unreadable file"), ("Image Intensity\n# none\n", "unreadable file")]
)
def test_an_action_unit_without_a_file_or_without_a_line_is_masked_and_never_0(tmp_path: Path, content: str | None, kind: str) -> None:
    write_labels(tmp_path, changed={17: content})
    write_labels(tmp_path, "SN001/A4_TrailNo_1", images=2)
    for clip in (f"SN001/{TRIAL}", "SN001/A4_TrailNo_1"):
        write_images(tmp_path, clip)
    reading = read(tmp_path)
    by_clip = {clip: part["au17_intensity"].to_list() for (clip,), part in reading.samples.group_by("clip", maintain_order=True)}
    assert by_clip == {f"SN001/{TRIAL}": [None] * 4, "SN001/A4_TrailNo_1": [0, 1]}
    assert kinds(reading.problems) == {kind: 1, "image without a label": 2}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("001.jpg NULL", "unreadable label"),
        ("001.jpg", "wrong number of cells"),
        ("001.jpg 1 2", "wrong number of cells"),
        ("001.jpg 6", "label out of range"),
        ("001.jpg -1", "label out of range"),
        ("001.jpg 1.5", "label out of range"),
        ("001.jpg nan", "label out of range"),
        ("face.jpg 1", "unreadable frame number"),
        ("99999999999.jpg 1", "unreadable frame number"),
        ("000.jpg 4", "row stands twice"),
        ("Image Intensity", "unreadable frame number"),
    ],
)
def test_a_bad_line_masks_its_frame_in_one_action_unit_and_is_said_with_its_number(tmp_path: Path, line: str, kind: str) -> None:
    write_labels(tmp_path, images=3, changed={6: f"000.jpg 3\n{line}\n002.jpg 4\n"})
    write_images(tmp_path, names=["000.jpg", "001.jpg", "002.jpg"])
    reading = read(tmp_path)
    assert reading.samples["frame"].to_list() == [0, 1, 2]
    assert reading.samples["au6_intensity"].to_list() == [3, None, 4]
    assert reading.samples["au9_intensity"].to_list() == [0, 1, 2]
    first = reading.problems.row(0, named=True)
    assert (first["kind"], first["line"]) == (kind, 2)
    assert first["file"] == str(tmp_path / f"Labels/SN001/{TRIAL}/AU6.txt")
    assert {*kinds(reading.problems)} <= {kind, "missing frame number"}


def test_a_first_line_with_a_number_is_no_header(tmp_path: Path) -> None:
    write_labels(tmp_path, images=2, changed={6: "0oo.jpx 3\n001.jpg 4\n"})
    reading = read(tmp_path)
    assert reading.problems.filter(kind="unreadable frame number")["line"].to_list() == [1]
    assert reading.samples["au6_intensity"].to_list() == [None, 4]


def test_images_and_labels_without_each_other_are_said_and_labels_stay(tmp_path: Path) -> None:
    write_labels(tmp_path)
    write_images(tmp_path, names=["000.jpg", "002.jpg", "003.jpg", "004.jpg", "notes.jpg"])
    write_images(tmp_path, "SN001/A9_TrailNo_1")
    reading = read(tmp_path)
    assert reading.samples["image"].is_null().to_list() == [False, True, False, False]
    assert reading.samples["sample"][1] == f"Images/SN001/{TRIAL}/001.jpg"
    missing = reading.problems.filter(kind="missing image").row(0, named=True)
    assert (missing["sample"], missing["line"]) == (f"Images/SN001/{TRIAL}/001.jpg", 2)
    extra = reading.problems.filter(kind="image without a label")["file"].to_list()
    assert sorted(Path(file).name for file in extra) == ["004.jpg", "A9_TrailNo_1", "notes.jpg"], "one row for a whole trial"
    assert kinds(reading.problems) == {"missing image": 1, "image without a label": 3}


def test_label_files_alone_can_be_counted(tmp_path: Path) -> None:
    for subject in ("SN001", "SN003"):
        for trial in ("A1_AU1_TrailNo_1", "A1_AU1_TrailNo_2"):
            write_labels(tmp_path, f"{subject}/{trial}")
    reading = read(tmp_path)
    assert kinds(reading.problems) == {"no images": 1}
    assert (reading.samples.height, reading.samples["clip"].n_unique(), reading.samples["subject"].n_unique()) == (16, 4, 2)
    assert reading.samples["sample"][0] == "Images/SN001/A1_AU1_TrailNo_1/000.jpg"


def test_faces_cut_out_by_the_makers_are_passed_over(tmp_path: Path) -> None:
    write_labels(tmp_path)
    write_images(tmp_path)
    other = tmp_path / "FaceLandmarks/SN001"
    other.mkdir(parents=True)
    (other / f"{TRIAL}_FaceCropped.mat").write_bytes(b"")
    assert read(tmp_path).problems.is_empty()


def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no folder"):
        read(tmp_path / "absent")
    with pytest.raises(RequestError, match=r"no labels of DISFA\+ .*TrailNo"):
        read(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("disfa_plus")
    write_labels(root, changed={12: "Image   Intensity\n# AU12\n" + "".join(f"{n:03}.jpg     {n}\n" for n in range(4))})
    write_images(root)
    return root


@settings(max_examples=60, deadline=None)
@given(mangling=manglings)
def test_a_mangled_label_file_spoils_nothing_but_its_action_unit(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, mangling: Mangling
) -> None:
    file = Path(f"Labels/SN001/{TRIAL}/AU12.txt")
    reading = survives(read, whole, tmp_path_factory.mktemp("mangled") / "copy", file, mangling)
    assert reading is not None
    kept = reading.samples.filter(pl.col("frame") < 4)
    assert kept["sample"].to_list() == [f"Images/SN001/{TRIAL}/00{number}.jpg" for number in range(4)]
    assert kept["au9_intensity"].to_list() == [0, 1, 2, 3]
