"""The AFEW-VA reader against small folders written by hand, whole ones and mangled ones."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.errors import RequestError
from harness.samples import check
from tasks.datasets.afew_va import read
from tests.tasks.datasets.mangling import Mangling, manglings, survives

POINTS = [[float(i), float(2 * i)] for i in range(68)]


def frame(valence: Any = 3, arousal: Any = -2.0, landmarks: Any = POINTS) -> dict[str, Any]:
    return {"landmarks": landmarks, "valence": valence, "arousal": arousal}


def write_clip(folder: Path, frames: dict[str, Any], *, actor: Any = "Some Name", images: list[str] | None = None, **other: Any) -> None:
    folder.mkdir(parents=True)
    content = {"actor": actor, "frames": frames, "video_id": folder.name} | other
    (folder / f"{folder.name}.json").write_text(json.dumps(content, indent=1))
    for name in [f"{stem}.png" for stem in frames] if images is None else images:
        Image.new("RGB", (8, 8)).save(folder / name)


def kinds(problems: pl.DataFrame) -> dict[str, int]:
    return dict(problems.group_by("kind").len().iter_rows())


def test_both_layouts_are_read_side_by_side_in_the_order_of_clips_and_frames(tmp_path: Path) -> None:
    write_clip(tmp_path / "002", {"00001": frame(), "00000": frame(10, -10)})
    write_clip(tmp_path / "01" / "001", {"00000": frame(0, 5)}, actor="Another")
    reading = read(tmp_path)
    assert reading.samples["sample"].to_list() == ["01/001/00000.png", "002/00000.png", "002/00001.png"]
    assert reading.samples["clip"].to_list() == ["001", "002", "002"]
    assert reading.samples["frame"].to_list() == [0, 0, 1]
    assert reading.samples["subject"].to_list() == ["another", "some name", "some name"]
    assert reading.samples["valence"].to_list() == [0.0, 1.0, 0.3]
    assert reading.samples["arousal"].to_list() == [0.5, -1.0, -0.2]
    np.testing.assert_array_equal(reading.samples["landmarks"].to_numpy()[2], np.array(POINTS, np.float32))
    assert all(Path(image).is_file() for image in reading.samples["image"])
    assert reading.problems.is_empty()
    check(reading.samples)


def test_one_actor_under_several_spellings_is_one_subject_and_said(tmp_path: Path) -> None:
    for number, actor in enumerate(["Some Name", " some   NAME ", "Some Name", "Someone Else"]):
        write_clip(tmp_path / f"00{number}", {"00000": frame()}, actor=actor)
    reading = read(tmp_path)
    assert reading.samples["subject"].to_list() == ["some name"] * 3 + ["someone else"]
    assert kinds(reading.problems) == {"actor spelled in several ways": 1}


@pytest.mark.parametrize("actor", [None, "", "  ", 7, ["a"]])
def test_a_clip_without_an_actor_has_no_subject(tmp_path: Path, actor: Any) -> None:
    write_clip(tmp_path / "001", {"00000": frame()}, actor=actor)
    reading = read(tmp_path)
    assert reading.samples["subject"].to_list() == [None]
    assert kinds(reading.problems) == {"missing actor": 1}


def test_whole_numbers_and_decimals_are_the_same_labels(tmp_path: Path) -> None:
    write_clip(tmp_path / "001", {"00000": frame(7, -3), "00001": frame(7.0, -3.0), "00002": frame(7.5, 0)})
    samples = read(tmp_path).samples
    assert samples["valence"].to_list() == [0.7, 0.7, 0.75]
    assert samples["arousal"].to_list() == [-0.3, -0.3, 0.0]


@pytest.mark.parametrize("value", [11, -10.5, 10**400, float("nan"), float("inf"), None, "3", True, [1], {}])
def test_a_label_that_is_no_number_in_range_is_null_and_said_with_its_line(tmp_path: Path, value: Any) -> None:
    write_clip(tmp_path / "001", {"00000": frame(), "00001": frame(valence=value)})
    reading = read(tmp_path)
    assert reading.samples["valence"].to_list() == [0.3, None]
    assert reading.samples["arousal"].to_list() == [-0.2, -0.2]
    problem = reading.problems.row(0, named=True)
    kind = "label out of range" if value in (11, -10.5, 10**400) else "unreadable label"
    assert (problem["kind"], problem["sample"]) == (kind, "001/00001.png")
    assert '"00001"' in Path(problem["file"]).read_text().splitlines()[problem["line"] - 1]
    assert reading.problems.height == 1


@pytest.mark.parametrize(
    "landmarks", [None, [], POINTS[:67], [[1.0, "2"]] * 68, [[1.0, float("nan")]] * 68, [[1]] * 68, [[-(2**63), 0]] * 68]
)
def test_landmarks_that_are_not_68_points_are_null_and_said(tmp_path: Path, landmarks: Any) -> None:
    write_clip(tmp_path / "001", {"00000": frame(landmarks=landmarks), "00001": frame()})
    reading = read(tmp_path)
    assert reading.samples["landmarks"].is_null().to_list() == [True, False]
    assert kinds(reading.problems) == {"unreadable landmarks": 1}


def test_a_frame_without_an_image_stays_and_an_image_without_a_frame_does_not(tmp_path: Path) -> None:
    images = ["00000.png", "00001.JPG", "00002.jpeg", "00009.png", "00000_cropped.png", "notes.txt.bak.png"]
    write_clip(tmp_path / "001", {f"0000{i}": frame(i) for i in range(4)}, images=images)
    reading = read(tmp_path)
    assert reading.samples["sample"].to_list() == ["001/00000.png", "001/00001.JPG", "001/00002.jpeg", "001/00003.png"]
    assert reading.samples["image"].is_null().to_list() == [False, False, False, True]
    assert reading.samples["valence"].to_list() == [0.0, 0.1, 0.2, 0.3]
    assert kinds(reading.problems) == {"missing image": 1, "image without a label": 2}
    missing = reading.problems.filter(kind="missing image").row(0, named=True)
    assert missing["sample"] == "001/00003.png"
    assert '"00003"' in Path(missing["file"]).read_text().splitlines()[missing["line"] - 1]


def test_labels_without_any_image_are_counted_and_that_is_said_once(tmp_path: Path) -> None:
    for clip in ("001", "002"):
        write_clip(tmp_path / clip, {"00000": frame(), "00001": frame()}, images=[])
    reading = read(tmp_path)
    assert reading.samples.height == reading.samples["image"].null_count() == 4
    assert kinds(reading.problems) == {"no images": 1}


def test_cropped_leftovers_and_files_of_another_stem_are_no_clips(tmp_path: Path) -> None:
    write_clip(tmp_path / "01" / "001", {"00000": frame()})
    for leftover in (
        "01/001_cropped/001.json",
        "01/001_cropped/001/001.json",
        "01/001/002.json",
        "01/notes.json",
        "002.json",
        "12/12.json",
    ):
        (tmp_path / leftover).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / leftover).write_text("not even read")
    reading = read(tmp_path)
    assert reading.samples["sample"].to_list() == ["01/001/00000.png"]
    assert reading.problems.is_empty()


def test_the_folder_above_and_the_folder_of_one_clip_are_read_too(tmp_path: Path) -> None:
    write_clip(tmp_path / "AFEW-VA" / "12" / "600", {"00000": frame()})
    assert read(tmp_path).samples["sample"].to_list() == ["AFEW-VA/12/600/00000.png"]
    assert read(tmp_path / "AFEW-VA/12/600").samples["sample"].to_list() == ["00000.png"]


def test_a_reupload_beside_the_original_is_not_used(tmp_path: Path) -> None:
    write_clip(tmp_path / "001", {"00000": frame()}, images=["00000.jpg", "00000.png"])
    reading = read(tmp_path)
    assert reading.samples["sample"].to_list() == ["001/00000.png"]
    assert kinds(reading.problems) == {"stands twice": 1}


def test_a_clip_in_both_layouts_is_used_once(tmp_path: Path) -> None:
    write_clip(tmp_path / "01" / "001", {"00000": frame(1)})
    write_clip(tmp_path / "001", {"00000": frame(2)})
    reading = read(tmp_path)
    assert reading.samples["clip"].to_list() == ["001"]
    assert kinds(reading.problems) == {"stands twice": 1}


def test_an_unreadable_json_costs_its_clip_only_and_is_said_with_the_line(tmp_path: Path) -> None:
    write_clip(tmp_path / "001", {"00000": frame()})
    write_clip(tmp_path / "002", {"00000": frame()})
    (tmp_path / "001" / "001.json").write_text('{"actor": "x",\n "frames": {\n')
    reading = read(tmp_path)
    assert reading.samples["clip"].to_list() == ["002"]
    assert reading.problems.select("kind", "line").rows() == [("unreadable file", 3)], "its images are not at fault"


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"[" * 99_999, b"9" * 5000, b"null", b"[]", b'{"frames": []}', b'{"frames": {"0": [1]}}'],
)
def test_no_content_of_a_json_raises(tmp_path: Path, content: bytes) -> None:
    write_clip(tmp_path / "001", {"00000": frame()})
    (tmp_path / "001" / "001.json").write_bytes(content)
    assert read(tmp_path).problems.height >= 1


def test_a_name_in_another_encoding_costs_no_label(tmp_path: Path) -> None:
    write_clip(tmp_path / "001", {"00000": frame()}, actor="Zoe")
    path = tmp_path / "001" / "001.json"
    path.write_bytes(path.read_bytes().replace(b"Zoe", "Zoé".encode("latin-1")))
    reading = read(tmp_path)
    assert reading.samples.select("subject", "valence").row(0) == ("zo\ufffd", 0.3)
    assert kinds(reading.problems) == {"unreadable text": 1}


def test_a_windows_copy_is_read(tmp_path: Path) -> None:
    write_clip(tmp_path / "001", {"00000": frame(), "00001": frame(None)})
    path = tmp_path / "001" / "001.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    reading = read(tmp_path)
    assert reading.samples["valence"].to_list() == [0.3, None]
    (line,) = reading.problems["line"]
    assert b'"00001"' in path.read_bytes().split(b"\r\n")[line - 1]


def test_a_key_that_stands_twice_is_said(tmp_path: Path) -> None:
    write_clip(tmp_path / "001", {"00000": frame()})
    (tmp_path / "001" / "001.json").write_text('{"actor": "a", "frames": {"00000": {}, "00000": ' + json.dumps(frame(9)) + "}}")
    reading = read(tmp_path)
    assert reading.samples["valence"].to_list() == [0.9]
    assert kinds(reading.problems) == {"key stands twice": 1}


def test_numbers_that_name_one_frame_twice_give_one_sample(tmp_path: Path) -> None:
    write_clip(tmp_path / "001", {"00001": frame(), "1": frame(), "x": frame()})
    reading = read(tmp_path)
    assert reading.samples["sample"].to_list() == ["001/00001.png"]
    assert kinds(reading.problems) == {"unreadable frame number": 2}


def test_folders_with_images_and_no_json_and_links_that_lead_back_are_survived(tmp_path: Path) -> None:
    write_clip(tmp_path / "001", {"00000": frame()})
    write_clip(tmp_path / "002", {"00000": frame()})
    (tmp_path / "002" / "002.json").unlink()
    (tmp_path / "001" / "003").symlink_to(tmp_path)
    reading = read(tmp_path)
    assert reading.samples.height == 1
    assert kinds(reading.problems) == {"missing annotation": 1}


def test_a_file_name_that_is_no_text_is_said(tmp_path: Path) -> None:
    write_clip(tmp_path / "001", {"00000": frame()})
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/001/\xff.png")).write_bytes(b"")
    assert kinds(read(tmp_path).problems) == {"unreadable name": 1}


def test_a_folder_without_clips_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no folder"):
        read(tmp_path / "absent")
    with pytest.raises(RequestError, match=r"no clip .*NNN/NNN\.json"):
        read(tmp_path)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["00000", "valence", "\ud800", "x"]), inner, max_size=4),
    max_leaves=12,
)
some_frames = st.dictionaries(st.sampled_from(["00000", "00001", "\udfff", "-1"]), anything)


@settings(max_examples=60, deadline=None)
@given(actor=anything, video_id=anything, frames=anything | some_frames)
def test_any_json_gives_samples_that_pass_the_checks(
    tmp_path_factory: pytest.TempPathFactory, actor: Any, video_id: Any, frames: Any
) -> None:
    root = tmp_path_factory.mktemp("any")
    write_clip(root / "001", {"00000": frame(), "00001": frame()})
    (root / "001" / "001.json").write_text(json.dumps({"actor": actor, "video_id": video_id, "frames": frames}))
    reading = read(root)
    check(reading.samples)
    assert reading.problems.height > 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("whole")
    write_clip(root / "01" / "001", {"00000": frame(), "00001": frame(10, -10), "00002": frame()})
    write_clip(root / "002", {"00000": frame()}, actor="Other")
    return root


@settings(max_examples=100, deadline=None)
@given(mangling=manglings)
def test_a_mangled_copy_is_read_or_refused_in_one_line(whole: Path, tmp_path_factory: pytest.TempPathFactory, mangling: Mangling) -> None:
    reading = survives(read, whole, tmp_path_factory.getbasetemp() / "mangled", Path("01/001/001.json"), mangling)
    assert reading is not None, "the other clip is whole"
    assert reading.samples.filter(clip="002").height == 1
    if reading.samples.filter(clip="001")["valence"].drop_nulls().len() < 3:
        assert reading.problems.height, "what is lost is said"
