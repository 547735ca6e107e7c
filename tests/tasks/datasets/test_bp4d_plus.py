"""The BP4D+ reader against small folders written by hand; what it shares with BP4D is tested there."""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import RequestError
from harness.images import Images
from harness.samples import au_columns, intensity_columns
from tasks.datasets.bp4d_plus import read
from tests.tasks.datasets.mangling import Mangling, manglings, survives

HEADER = [1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 27, 28, 29, *range(30, 40)]
"""The action units of the sparse header, behind the column of the frames."""


def coded(root: Path, clip: str, frames: Iterable[int], **cells: int) -> None:
    lines = [",".join(map(str, [0, *HEADER]))]
    lines += [",".join([str(frame), *(str(cells.get(f"au{au}", 9)) for au in HEADER)]) for frame in frames]
    put(root / "AUCoding/AU_OCC" / f"{clip}.csv", "\n".join(lines) + "\n")


def put(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def packed(path: Path, members: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, f"picture {member}")
    return path


def test_cells_are_read_by_the_sparse_header_and_never_by_position(tmp_path: Path) -> None:
    benchmark = {
        "au1": 1,
        "au2": 0,
        "au4": 1,
        "au6": 0,
        "au7": 1,
        "au10": 0,
        "au12": 1,
        "au14": 0,
        "au15": 1,
        "au17": 0,
        "au23": 1,
        "au24": 0,
    }
    coded(tmp_path, "F001_T1", [1], **benchmark, au39=1)
    samples = read(tmp_path).samples
    assert au_columns(samples) == [*benchmark, "au39"]
    assert samples.select(au_columns(samples)).row(0) == (*benchmark.values(), 1)


def test_frame_f_of_the_labels_is_image_f_minus_1_in_an_archive(tmp_path: Path) -> None:
    coded(tmp_path, "F001_T1", [1, 2, 3])
    packed(
        tmp_path / "2D+3D/F001.zip", ["F001/T1/", *(f"F001/T1/{index:03}.jpg" for index in range(5)), "F001/T1/000.obj", "F001/T2/1.jpg"]
    )
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    assert reading.samples["frame"].to_list() == [1, 2, 3]
    assert reading.samples["sample"].to_list() == [f"2D+3D/F001.zip::F001/T1/{index:03}.jpg" for index in (0, 1, 2)]
    with Images() as images:
        assert [images.read(image)[-7:] for image in reading.samples["image"]] == [b"000.jpg", b"001.jpg", b"002.jpg"]


@pytest.mark.parametrize("top", ["", "F001/", "a/b/"])
def test_an_archive_may_have_any_folder_above_the_tasks(tmp_path: Path, top: str) -> None:
    coded(tmp_path, "F001_T1", [1])
    packed(tmp_path / "2D+3D/F001.zip", [f"{top}T1/0.jpg", f"__MACOSX/{top}T1/._0.jpg"])
    reading = read(tmp_path)
    assert reading.samples["sample"].to_list() == [f"2D+3D/F001.zip::{top}T1/0.jpg"]
    assert reading.problems.is_empty()


def test_unpacked_folders_are_read_as_well_and_rather_than_the_archive(tmp_path: Path) -> None:
    coded(tmp_path, "F001_T1", [1])
    coded(tmp_path, "M002_T6", [1])
    packed(tmp_path / "2D+3D/F001.zip", ["F001/T1/0.jpg"])
    put(tmp_path / "2D+3D/F001/T1/0000.jpg")
    put(tmp_path / "2D+3D/M002/T6/0.jpg")
    reading = read(tmp_path)
    assert reading.samples["sample"].to_list() == ["2D+3D/F001/T1/0000.jpg", "2D+3D/M002/T6/0.jpg"]
    assert reading.problems.select("kind", "file").rows() == [("stands twice", f"{tmp_path}/2D+3D/F001.zip::F001/T1/")]


def test_the_offset_of_the_images_can_be_set(tmp_path: Path) -> None:
    coded(tmp_path, "F001_T1", [1, 2])
    for index in range(3):
        put(tmp_path / f"2D+3D/F001/T1/{index}.jpg")
    assert [Path(image).stem for image in read(tmp_path).samples["image"]] == ["0", "1"]
    assert [Path(image).stem for image in read(tmp_path, image_offset=0).samples["image"]] == ["1", "2"]
    bad: list[Any] = ["-1", 1.5, None, 10**9]
    for offset in bad:
        with pytest.raises(RequestError, match=r"dataset\.read\.image_offset"):
            read(tmp_path, image_offset=offset)


def test_labels_that_go_on_after_the_last_image_are_a_length_mismatch_told_once_and_stay(tmp_path: Path) -> None:
    coded(tmp_path, "F041_T7", range(1, 7))
    for index in (0, 2, 3):
        put(tmp_path / f"2D+3D/F041/T7/{index:04}.jpg")
    reading = read(tmp_path)
    assert reading.samples["image"].is_null().to_list() == [False, True, False, False, True, True]
    said = reading.problems.select("kind", "sample").rows()
    assert sorted(said) == [("length mismatch", "2D+3D/F041/T7/0004.jpg"), ("lines without an image", "2D+3D/F041/T7/0001.jpg")]
    assert reading.problems.filter(kind="length mismatch")["detail"].str.contains("of 2 ").all()


def test_tasks_that_are_not_coded_and_one_that_nobody_was_given_are_no_problem(tmp_path: Path) -> None:
    coded(tmp_path, "F042_T1", range(1, 20))
    members = [f"F042/{task}/{index}.jpg" for task in ("T1", "T2", "T10", "T11") for index in range(19)]
    packed(tmp_path / "2D+3D/F042.zip", members)
    for name in ("T1/BP_mmHg.txt", "T3/BP_mmHg.txt"):
        put(tmp_path / "Physiology/F042" / name, "1\n2\n")
    put(tmp_path / "Thermal/F042/T1.mv")
    reading = read(tmp_path)
    assert reading.problems.is_empty()
    assert set(reading.samples["clip"]) == {"F042_T1"}


def test_a_sequence_of_a_coded_task_without_labels_is_told(tmp_path: Path) -> None:
    coded(tmp_path, "F001_T1", [1])
    packed(tmp_path / "2D+3D/F001.zip", ["F001/T1/0.jpg", "F001/T6/0.jpg", "F001/T6/1.jpg"])
    problems = read(tmp_path).problems
    assert problems.select("kind", "file").rows() == [("image without a label", f"{tmp_path}/2D+3D/F001.zip::F001/T6/")]


def test_without_images_the_labels_are_counted_and_it_is_told_in_one_line(tmp_path: Path) -> None:
    coded(tmp_path, "F001_T1", [1, 2], au12=1)
    put(tmp_path / "AUCoding/AU_INT/AU12/F001_T1_AU12.csv", "1,5\n2,9\n")
    reading = read(tmp_path, activities={"T1": "chatting"})
    assert reading.samples["sample"].to_list() == ["2D+3D/F001.zip::F001/T1/0.jpg", "2D+3D/F001.zip::F001/T1/1.jpg"]
    assert reading.samples.select("subject", "activity", "au12", "au12_intensity").rows() == [
        ("F001", "chatting", 1, 5),
        ("F001", "chatting", 1, None),
    ]
    assert len(intensity_columns(reading.samples)) == 5
    assert reading.problems["kind"].to_list() == ["no images"]


def test_what_is_no_archive_is_told_and_its_labels_stay(tmp_path: Path) -> None:
    coded(tmp_path, "F001_T1", [1])
    coded(tmp_path, "M001_T1", [1])
    put(tmp_path / "2D+3D/F001.zip", "PK\x03\x04 cut short")
    packed(tmp_path / "2D+3D/M001.zip", ["M001/T1/0.jpg"])
    reading = read(tmp_path)
    assert reading.samples.select("clip", "image").rows()[0] == ("F001_T1", None)
    assert sorted(reading.problems["kind"]) == ["lines without an image", "unreadable file"]


def test_what_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no BP4D\+ in .*AU_OCC/F001_T1\.csv"):
        read(tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    file=st.sampled_from(["AUCoding/AU_OCC/F001_T1.csv", "AUCoding/AU_INT/AU06/F001_T1_AU06.csv", "2D+3D/F001.zip"]),
    mangling=manglings,
)
def test_any_mangled_label_file_or_archive_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, file: str, mangling: Mangling
) -> None:
    whole = tmp_path_factory.getbasetemp() / "bp4d_plus whole"
    if not whole.exists():
        coded(whole, "F001_T1", [1, 2], au12=1)
        coded(whole, "M001_T6", [1, 2], au12=1)
        put(whole / "AUCoding/AU_INT/AU06/F001_T1_AU06.csv", "1,3\n2,9\n")
        packed(whole / "2D+3D/F001.zip", ["F001/T1/0.jpg", "F001/T1/1.jpg"])
        put(whole / "2D+3D/M001/T6/0.jpg")
    reading = survives(read, whole, tmp_path_factory.getbasetemp() / "bp4d_plus mangled", Path(file), mangling)
    assert reading is not None
    assert reading.samples.filter(clip="M001_T6")["au12"].to_list() == [1, 1]
