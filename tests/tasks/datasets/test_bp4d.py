"""The BP4D reader against small folders written by hand, whole ones and mangled ones."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import config
from harness.errors import RequestError
from harness.images import Images
from harness.samples import au_columns, intensity_columns
from tasks.datasets.bp4d import read
from tests.tasks.datasets.mangling import Mangling, manglings, survives

BENCHMARK = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
IMAGES = "Sequences(2D+3D)"


def occurrences(
    root: Path, clip: str, rows: Iterable[tuple[Any, dict[int, Any]]], columns: int = 99, folder: str = "AUCoding/AU_OCC"
) -> Path:
    """A dense file: of each frame the cells of some action units, the rest of the benchmark 0 and all others 9."""
    lines = [",".join(map(str, range(columns + 1)))]
    for frame, cells in rows:
        filled = dict.fromkeys(range(1, columns + 1), 9) | dict.fromkeys(BENCHMARK, 0) | cells
        lines.append(",".join([str(frame), *(str(filled[au]) for au in range(1, columns + 1))]))
    return put(root / folder / f"{clip}.csv", "\n".join(lines) + "\n")


def put(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def pictures(root: Path, clip: str, names: Iterable[Any], folder: str = IMAGES) -> None:
    for name in names:
        put(root / folder / clip.replace("_", "/") / f"{name}.jpg", "picture")


def kinds(problems: pl.DataFrame) -> dict[str, int]:
    return dict(problems.group_by("kind").len().iter_rows())


def small(root: Path, frames: Sequence[int] = (2440, 2441, 2442)) -> Path:
    """One whole sequence."""
    occurrences(root, "F001_T1", [(frame, {}) for frame in frames])
    pictures(root, "F001_T1", frames)
    return root


# ── a sequence ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_is_a_sample_of_its_real_frame_number_and_9_is_null(tmp_path: Path) -> None:
    occurrences(tmp_path, "F001_T1", [(2440, {1: 9, 12: 1}), (2441, {12: 0})])
    pictures(tmp_path, "F001_T1", [2440, 2441])
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    first, second = reading.samples.iter_rows(named=True)
    assert (first["sample"], first["clip"], first["frame"]) == (f"{IMAGES}/F001/T1/2440.jpg", "F001_T1", 2440)
    assert (first["subject"], first["activity"], first["split"]) == ("F001", "T1", None)
    assert first["image"] == f"{tmp_path}/{first['sample']}"
    assert (first["au1"], first["au12"], second["au1"], second["au12"]) == (None, 1, 0, 0)


@pytest.mark.parametrize("columns", [24, 60, 99])
def test_of_a_dense_header_however_long_the_benchmark_and_what_is_coded_anywhere_are_kept(tmp_path: Path, columns: int) -> None:
    occurrences(tmp_path, "F001_T1", [(1, {23: 9, 9: 9}), (2, {23: 9, 9: 9})], columns)
    occurrences(tmp_path, "M003_T8", [(1, {23: 9, 9: 1})], columns)
    samples = read(tmp_path).samples
    assert au_columns(samples) == [f"au{au}" for au in sorted({*BENCHMARK, 9})]
    assert samples["au23"].to_list() == [None] * 3
    assert samples["au9"].to_list() == [None, None, 1]


def test_columns_are_found_by_their_names_wherever_they_stand(tmp_path: Path) -> None:
    put(tmp_path / "AUCoding/AU_OCC/F001_T1.csv", "12,comment,AU04, 0 ,3x,100\n1,ha,0,7,1,1\n")
    put(tmp_path / "AUCoding/AU_OCC/F001_T2.csv", "Frame,AU1_c,\n5,1,\n")
    samples = read(tmp_path).samples
    assert samples.select("clip", "frame", "au1", "au4", "au12").rows() == [("F001_T1", 7, None, 0, 1), ("F001_T2", 5, 1, None, None)]
    assert au_columns(samples) == [f"au{au}" for au in BENCHMARK]


def test_aus_names_what_is_kept(tmp_path: Path) -> None:
    occurrences(tmp_path, "F001_T1", [(1, {6: 1, 12: 9, 30: 1})])
    put(tmp_path / "AUCoding/AU_INT/AU06/F001_T1_AU06.csv", "1,3\n")
    put(tmp_path / "AUCoding/AU_INT/AU10/F001_T1_AU10.csv", "1,x\n")
    reading = read(tmp_path, aus=[12, 6, 98])
    assert au_columns(reading.samples) == ["au6", "au12", "au98"]
    assert intensity_columns(reading.samples) == ["au6_intensity", "au12_intensity"]
    assert reading.samples.select("au6", "au12", "au98", "au6_intensity").row(0) == (1, None, None, 3)
    assert kinds(reading.problems) == {"no images": 1}


def test_intensities_are_joined_by_frame_and_9_is_null(tmp_path: Path) -> None:
    small(tmp_path)
    put(tmp_path / "AUCoding/AU_INT/AU06/F001_T1_AU06.csv", "2442,5\n2440,0\n2441,9\n")
    put(tmp_path / "AUCoding/AU_INT/AU17/F001_T1_AU17.csv", "2441,2\n")
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    assert reading.samples["au6_intensity"].to_list() == [0, None, 5]
    assert reading.samples["au17_intensity"].to_list() == [None, 2, None]
    assert intensity_columns(reading.samples) == [f"au{au}_intensity" for au in (6, 10, 12, 14, 17)]


@pytest.mark.parametrize("above", ["", "AUCoding/", "BP4D/AUCoding/"])
@pytest.mark.parametrize("spelled", [str.upper, str.lower, str.title])
def test_the_folders_of_labels_are_found_however_they_are_spelled(tmp_path: Path, above: str, spelled: Any) -> None:
    folder = above + spelled("AU_OCC")
    occurrences(tmp_path, spelled("F001_T1"), [(1, {12: 1})], folder=folder)
    put(tmp_path / above / spelled("AU_INT") / spelled("AU12") / f"{spelled('F001_T1_AU12')}.csv", "1,4\n")
    samples = read(tmp_path).samples
    assert samples.select("clip", "au12", "au12_intensity").row(0) == ("F001_T1", 1, 4)
    assert read(tmp_path / folder).samples.height == 1


def test_sequences_are_sorted_by_person_and_number_of_the_task(tmp_path: Path) -> None:
    for clip in ("M001_T10", "M001_T2", "F010_T1", "F002_T8"):
        occurrences(tmp_path, clip, [(2, {}), (1, {})])
    assert read(tmp_path).samples.select("clip", "frame").rows() == [
        (clip, frame) for clip in ("F002_T8", "F010_T1", "M001_T2", "M001_T10") for frame in (1, 2)
    ]


# ── activities ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_activity_is_its_text_and_without_one_the_name_of_the_task(tmp_path: Path) -> None:
    for task in ("T1", "T2", "T3"):
        occurrences(tmp_path, f"F001_{task}", [(1, {})])
    samples = read(tmp_path, activities={"T1": "joking", "t2": " weeping "}).samples
    assert samples["activity"].to_list() == ["joking", "weeping", "T3"]


def test_the_config_has_a_text_for_each_of_the_eight_tasks(tmp_path: Path) -> None:
    for task in range(1, 9):
        occurrences(tmp_path, f"F001_T{task}", [(1, {})])
    known = yaml.safe_load((config.config_dirs()[0] / "dataset/bp4d.yaml").read_text())
    texts = config.instantiate(known["read"], root=tmp_path).samples["activity"].to_list()
    assert len(set(texts)) == 8
    assert all(len(text.split()) > 3 for text in texts)


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("digits", [1, 3, 4])
def test_images_are_matched_by_number_however_many_digits_a_sequence_has(tmp_path: Path, digits: int) -> None:
    occurrences(tmp_path, "F001_T1", [(number, {}) for number in (9, 99, 100, 1000)])
    pictures(tmp_path, "F001_T1", [f"{number:0{digits}}" for number in (9, 99, 100)])
    samples = read(tmp_path).samples
    assert samples["sample"].to_list() == [f"{IMAGES}/F001/T1/{number:0{digits}}.jpg" for number in (9, 99, 100, 1000)]
    assert samples["image"].is_null().to_list() == [False, False, False, True]


@pytest.mark.parametrize("folder", ["", "Sequences(2D+3D)", "images", "BP4D/my copy"])
def test_the_folder_of_the_images_is_known_by_the_people_and_tasks_in_it(tmp_path: Path, folder: str) -> None:
    occurrences(tmp_path, "F001_T1", [(5, {}), (6, {})])
    pictures(tmp_path, "F001_T1", ["0005"], folder)
    samples = read(tmp_path).samples
    inside = f"{folder}/" if folder else ""
    assert samples["sample"].to_list() == [f"{inside}F001/T1/0005.jpg", f"{inside}F001/T1/0006.jpg"]
    with Images() as images:
        assert images.read(samples["image"][0]) == b"picture"


def test_labels_alone_are_counted_and_told_in_one_line(tmp_path: Path) -> None:
    for clip in ("F001_T1", "F001_T2"):
        occurrences(tmp_path, clip, [(1, {}), (2, {})])
    reading = read(tmp_path)
    assert reading.samples["image"].to_list() == [None] * 4
    assert reading.samples["sample"][0] == f"{IMAGES}/F001/T1/1.jpg"
    assert kinds(reading.problems) == {"no images": 1}


def test_labelled_frames_without_an_image_are_one_problem_a_sequence(tmp_path: Path) -> None:
    small(tmp_path)
    occurrences(tmp_path, "F001_T2", [(frame, {}) for frame in range(1, 6)])
    pictures(tmp_path, "F001_T2", ["001", "003"])
    occurrences(tmp_path, "F001_T3", [(7, {}), (8, {})])
    problems = read(tmp_path).problems
    assert kinds(problems) == {"lines without an image": 2}
    assert [Path(file).name for file in problems["file"]] == ["F001_T2.csv", "F001_T3.csv"]
    assert problems["detail"].str.extract(r"(\d+)").to_list() == ["3", "2"]
    assert problems["sample"].to_list() == [f"{IMAGES}/F001/T2/002.jpg", f"{IMAGES}/F001/T3/7.jpg"]


def test_images_beyond_the_coded_part_are_no_problem_and_sequences_that_nobody_coded_are(tmp_path: Path) -> None:
    small(tmp_path)
    pictures(tmp_path, "F001_T1", [1, 2, 5000, "notes", "._2440", "x7"])
    put(tmp_path / IMAGES / "F001/T1/2440.obj")
    pictures(tmp_path, "F001_T2", [1, 2])
    (tmp_path / IMAGES / "F002/T1").mkdir(parents=True)
    problems = read(tmp_path).problems
    assert kinds(problems) == {"image without a label": 1}
    assert problems["file"][0] == f"{tmp_path}/{IMAGES}/F001/T2/"
    assert "2 images" in problems["detail"][0]


def test_of_two_images_with_one_number_and_of_two_folders_of_one_sequence_one_is_used_and_the_other_told(tmp_path: Path) -> None:
    small(tmp_path)
    pictures(tmp_path, "F001_T1", ["02440"])
    pictures(tmp_path, "F001_T1", [2440, 2441], "A cropped copy")
    reading = read(tmp_path)
    assert reading.samples["sample"].to_list() == [f"{IMAGES}/F001/T1/{stem}.jpg" for stem in ("02440", "2441", "2442")]
    assert reading.problems.select("kind", "file").rows() == [
        ("stands twice", f"{tmp_path}/A cropped copy/F001/T1/"),
        ("stands twice", f"{tmp_path}/{IMAGES}/F001/T1/2440.jpg"),
    ]


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("2", "label out of range"),
        ("-1", "label out of range"),
        ("0.5", "label out of range"),
        ("9" * 400, "unreadable label"),
        ("", "unreadable label"),
        ("nan", "unreadable label"),
        ("yes", "unreadable label"),
    ],
)
def test_a_cell_that_is_none_of_0_1_9_is_null_and_told_and_spoils_nothing_else(tmp_path: Path, cell: str, kind: str) -> None:
    occurrences(tmp_path, "F001_T1", [(1, {}), (2, {12: cell, 14: 1})])
    pictures(tmp_path, "F001_T1", [1, 2])
    reading = read(tmp_path)
    assert reading.samples.select("au10", "au12", "au14").rows() == [(0, 0, 0), (0, None, 1)]
    assert reading.problems.height == 1
    problem = reading.problems.row(0, named=True)
    assert (problem["kind"], problem["line"], problem["sample"]) == (kind, 3, f"{IMAGES}/F001/T1/2.jpg")
    assert "AU 12" in problem["detail"]


def test_many_bad_cells_of_a_line_are_one_problem(tmp_path: Path) -> None:
    occurrences(tmp_path, "F001_T1", [(1, dict.fromkeys(range(1, 100), "")), (2, {})])
    reading = read(tmp_path)
    assert reading.samples.select(pl.col(au_columns(reading.samples)).is_null().all()).sum_horizontal().item() == 0
    assert kinds(reading.problems) == {"no images": 1, "unreadable label": 1}
    assert len(reading.problems["detail"].str.join("").item()) < 1000


@pytest.mark.parametrize("frame", ["", "x", "1.5", "-1", "nan", "1e30", "2147483648", "9" * 400])
def test_a_line_without_the_number_of_a_frame_is_told_and_not_used(tmp_path: Path, frame: str) -> None:
    occurrences(tmp_path, "F001_T1", [(2440, {}), (frame, {12: 1})])
    put(tmp_path / "AUCoding/AU_INT/AU06/F001_T1_AU06.csv", f"2440,1\n{frame},2\n")
    pictures(tmp_path, "F001_T1", [2440])
    reading = read(tmp_path)
    assert reading.samples["frame"].to_list() == [2440]
    assert reading.problems.select("kind", "line").rows() == [("unreadable frame number", 3), ("unreadable frame number", 2)]


def test_frames_that_stand_twice_and_lines_of_another_length_are_told_with_their_lines(tmp_path: Path) -> None:
    small(tmp_path)
    path = occurrences(tmp_path, "F001_T1", [(2440, {12: 1}), (2440, {12: 0}), (2441, {})])
    path.write_text(path.read_text() + "2442,0\n\n" + ",".join(["2443"] * 101) + "\n")
    put(tmp_path / "AUCoding/AU_INT/AU06/F001_T1_AU06.csv", "2440,1\n2440,2\n2441\n2441,3,4\n2441,7\n2440,x\n")
    reading = read(tmp_path)
    assert reading.samples.select("frame", "au12", "au6_intensity").rows() == [(2440, 1, 1), (2441, 0, None)]
    said = sorted((Path(file).name[8:12], line, kind) for kind, file, line in reading.problems.select("kind", "file", "line").iter_rows())
    assert said == [
        ("AU06", 2, "row stands twice"),
        ("AU06", 3, "wrong number of cells"),
        ("AU06", 4, "wrong number of cells"),
        ("AU06", 5, "label out of range"),
        ("AU06", 6, "row stands twice"),
        ("AU06", 6, "unreadable label"),
        ("csv", 3, "row stands twice"),
        ("csv", 5, "wrong number of cells"),
        ("csv", 7, "wrong number of cells"),
    ]


def test_intensities_of_frames_that_have_no_occurrences_are_told_once_a_file(tmp_path: Path) -> None:
    small(tmp_path)
    put(tmp_path / "AUCoding/AU_INT/AU06/F001_T1_AU06.csv", "1,2\n2,2\n3,9\n2440,2\n")
    put(tmp_path / "AUCoding/AU_INT/AU06/F001_T2_AU06.csv", "1,2\n")
    reading = read(tmp_path)
    assert reading.samples.height == 3
    assert reading.problems["kind"].to_list() == ["intensities without occurrences"] * 2
    assert reading.problems["detail"].str.extract(r"(\d+)").to_list() == ["2", "1"]


@pytest.mark.parametrize("first", ["2440,0,0,9,0,0", "a,b,c", "frame", "0,x,y,0", "", "1,2,3"])
def test_a_file_whose_first_line_does_not_name_its_columns_is_told_and_not_guessed_at(tmp_path: Path, first: str) -> None:
    small(tmp_path)
    path = put(tmp_path / "AUCoding/AU_OCC/F001_T2.csv", f"{first}\n2441,0,0,9,0,0\n")
    reading = read(tmp_path)
    assert set(reading.samples["clip"]) == {"F001_T1"}
    assert reading.problems.select("kind", "file").rows() == [("unreadable file", str(path))]


def test_a_header_that_lacks_an_action_unit_or_has_it_twice_is_told(tmp_path: Path) -> None:
    benchmark = ",".join(map(str, BENCHMARK))
    put(tmp_path / "AU_OCC/F001_T1.csv", f"0,{benchmark.replace('12', 'x')},01\n1,{',0' * 12 + ',1'}\n".replace(",,", ","))
    reading = read(tmp_path)
    assert reading.samples.select("au1", "au12").row(0) == (0, None)
    assert kinds(reading.problems) == {"key stands twice": 1, "missing column": 1, "no images": 1}
    assert "AU 12;" in reading.problems.filter(kind="missing column")["detail"].item()


def test_empty_files_files_of_other_names_and_second_copies_are_told(tmp_path: Path) -> None:
    small(tmp_path)
    put(tmp_path / "AUCoding/AU_OCC/F001_T2.csv")
    occurrences(tmp_path, "F001_T3", [])
    occurrences(tmp_path, "F001", [(1, {})])
    put(tmp_path / "AUCoding/AU_INT/AU06/AU06.csv", "1,2\n")
    put(tmp_path / "AUCoding/AU_OCC/readme.txt")
    put(tmp_path / "AUCoding/AU_OCC/._F001_T1.csv")
    occurrences(tmp_path, "F001_T1", [(9, {})], folder="old/AU_OCC")
    (tmp_path / "AUCoding/AU_OCC/F001_T4.csv").symlink_to("nowhere")
    reading = read(tmp_path)
    assert reading.samples["frame"].to_list() == [2440, 2441, 2442]
    assert sorted((kind, Path(file).name) for kind, file in reading.problems.select("kind", "file").iter_rows()) == [
        ("stands twice", "F001_T1.csv"),
        ("unreadable file", "F001_T2.csv"),
        ("unreadable file", "F001_T3.csv"),
        ("unreadable file", "F001_T4.csv"),
        ("unreadable name", "AU06.csv"),
        ("unreadable name", "F001.csv"),
    ]


def test_copies_from_windows_are_read(tmp_path: Path) -> None:
    small(tmp_path)
    path = tmp_path / "AUCoding/AU_OCC/F001_T1.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n").replace(b",", b", "))
    reading = read(tmp_path)
    assert reading.samples["frame"].to_list() == [2440, 2441, 2442]
    assert reading.problems.is_empty()


def test_what_is_not_there_and_options_that_are_none_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no folder"):
        read(tmp_path / "absent")
    with pytest.raises(RequestError, match=r"no BP4D in .*AU_OCC/F001_T1\.csv"):
        read(tmp_path)
    small(tmp_path)
    bad_aus: list[Any] = [[], [0], [100], [True], [1.0], ["1"], "12", 12, {1: 2}]
    for aus in bad_aus:
        with pytest.raises(RequestError, match=r"dataset\.read\.aus"):
            read(tmp_path, aus=aus)
    bad_activities: list[Any] = ["T1", ["T1"], {"T1": 1}, {"T1": ""}, {1: "x"}, {"talking": "x"}]
    for activities in bad_activities:
        with pytest.raises(RequestError, match=r"dataset\.read\.activities"):
            read(tmp_path, activities=activities)


@settings(max_examples=60, deadline=None)
@given(
    file=st.sampled_from(["AUCoding/AU_OCC/F001_T1.csv", "AUCoding/AU_OCC/F001_T2.csv", "AUCoding/AU_INT/AU06/F001_T1_AU06.csv"]),
    mangling=manglings,
)
def test_any_mangled_label_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, file: str, mangling: Mangling) -> None:
    whole = tmp_path_factory.getbasetemp() / "bp4d whole"
    if not whole.exists():
        for clip in ("F001_T1", "F001_T2"):
            occurrences(whole, clip, [(7, {12: 1}), (8, {1: 9})], columns=24)
            pictures(whole, clip, ["007", "008"])
        put(whole / "AUCoding/AU_INT/AU06/F001_T1_AU06.csv", "7,3\n8,9\n")
    reading = survives(read, whole, tmp_path_factory.getbasetemp() / "bp4d mangled", Path(file), mangling)
    assert reading is not None
    other = "F001_T2" if "T1" in file else "F001_T1"
    untouched = reading.samples.filter(clip=other) if "AU_INT" not in file else reading.samples
    assert untouched.select("frame", "au12", "au1").rows()[:2] == [(7, 1, 0), (8, 0, None)]
