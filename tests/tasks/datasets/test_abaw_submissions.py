"""Submission files of the ABAW challenges: to the byte as the challenge wants them, and read back whole or mangled."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from harness.errors import RequestError
from harness.samples import PROBLEMS, Problems
from tasks.datasets.abaw_submissions import read_submission, write_submission
from tasks.datasets.vocabulary import AFF_WILD2, AFF_WILD2_AUS
from tests.tasks.datasets.mangling import Mangling, manglings

AU = ",".join(f"AU{au}" for au in AFF_WILD2_AUS)
EXPR = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
LABELS = {
    "va": ["valence_pred", "arousal_pred"],
    "expr": ["expression_pred"],
    "au": [f"au{au}_pred" for au in AFF_WILD2_AUS],
}
LABELS["mtl"] = [name for names in LABELS.values() for name in names]
TYPES = {"image": pl.String, "clip": pl.String, "frame": pl.Int32}


def predictions(*frames: tuple[str, int], **columns: list[Any]) -> pl.DataFrame:
    """Of some frames, the same everywhere unless given."""
    n = len(frames)
    values: dict[str, Any] = {
        "sample": [f"cropped_aligned/{clip}/{frame:05}.jpg" for clip, frame in frames],
        "clip": [clip for clip, _ in frames],
        "frame": [frame for _, frame in frames],
        "valence_pred": [0.25] * n,
        "arousal_pred": [-0.5] * n,
        "expression_pred": ["happy"] * n,
        **{name: [0.1] * n for name in LABELS["au"]},
    }
    return pl.DataFrame(values | columns)


def written(frame: pl.DataFrame, challenge: str, **options: Any) -> tuple[dict[str, str], pl.DataFrame]:
    problems = Problems()
    files = write_submission(frame, challenge, problems=problems, **options)
    return files, problems.frame()


def read(source: Any, challenge: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    problems = Problems()
    found = read_submission(source, challenge, problems)
    return found, problems.frame()


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_valence_and_arousal_are_a_row_an_image_within_their_range() -> None:
    files, problems = written(predictions(("4", 2), ("4", 1), valence_pred=[1.5, -0.3], arousal_pred=[0.125, -7]), "va")
    assert files == {"VA_predictions.txt": "image_location,valence,arousal\n4/00001.jpg,-0.3,-1.0\n4/00002.jpg,1.0,0.125\n"}
    assert problems.is_empty()


def test_an_expression_is_a_code_in_the_challenges_order_under_all_names() -> None:
    frames = [("4", number) for number in range(1, 9)]
    files, _ = written(predictions(*frames, expression_pred=list(AFF_WILD2)), "expr")
    lines = files["EXPR_predictions.txt"].splitlines()
    assert lines[0] == f"image_location,{EXPR}"
    assert lines[1:] == [f"4/{code + 1:05}.jpg,{code}" for code in range(8)]
    assert AFF_WILD2.index("happy") == 4


def test_an_action_unit_is_there_from_a_probability_of_a_half() -> None:
    frame = predictions(("4", 1), au1_pred=[0.5], au26_pred=[0.499999], au12_pred=[1.0])
    files, _ = written(frame, "au")
    assert files["AU_predictions.txt"] == f"image_location,{AU}\n4/00001.jpg,1,0,0,0,0,0,1,0,0,0,0,0\n"


def test_the_multi_task_challenge_has_sixteen_cells_under_five_names() -> None:
    files, _ = written(predictions(("4_left", 7)), "mtl")
    assert files == {
        "MTL_predictions.txt": "image,valence,arousal,expression,aus\n4_left/00007.jpg,0.25,-0.5,4" + ",0" * 12 + "\n",
    }


def test_a_file_a_video_has_a_line_a_frame_under_the_header_of_the_labels() -> None:
    frame = predictions(("4", 1), ("4", 4), ("5_right", 2), valence_pred=[0.1, 0.4, 0.5])
    files, problems = written(frame, "va", layout="per_video")
    assert files == {
        "4.txt": "valence,arousal\n0.1,-0.5\n0.1,-0.5\n0.4,-0.5\n0.4,-0.5\n",
        "5_right.txt": "valence,arousal\n0.5,-0.5\n0.5,-0.5\n",
    }
    assert problems.select("kind", "file", "detail").rows() == [
        ("filled from the nearest frame", "4.txt", "2 of 4 rows of 4"),
        ("filled from the nearest frame", "5_right.txt", "1 of 2 rows of 5_right"),
    ]
    assert written(frame, "expr", layout="per_video")[0]["5_right.txt"] == f"{EXPR}\n4\n4\n"
    assert written(frame, "au", layout="per_video")[0]["5_right.txt"].startswith(f"{AU}\n0,0,")


def order(folder: Path, *rows: str, header: str = "image_location,valence,arousal\n") -> Path:
    path = folder / "CVPR_6th_ABAW_VA_test_set_sample.txt"
    path.write_text(header + "\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("header", ["image_location,valence,arousal\n", "image\n", ""])
def test_the_sample_file_fixes_rows_and_order_and_the_nearest_frame_fills_them(tmp_path: Path, header: str) -> None:
    asked = order(tmp_path, "5/00002.jpg,0,0", "4/00010.jpg,0,0", "4/00001.jpg,0,0", "4/00004.jpg,0,0", header=header)
    frame = predictions(("4", 1), ("4", 5), ("5", 2), ("6", 1), valence_pred=[0.1, 0.5, 0.2, 0.9])
    files, problems = written(frame, "va", order=asked)
    assert files["VA_predictions.txt"].splitlines()[1:] == [
        "5/00002.jpg,0.2,-0.5",
        "4/00010.jpg,0.5,-0.5",
        "4/00001.jpg,0.1,-0.5",
        "4/00004.jpg,0.5,-0.5",
    ]
    assert problems.select("kind", "detail").rows() == [
        ("filled from the nearest frame", "2 of 3 rows of 4"),
        ("not asked for", "2 of 4 predictions are of frames that are not in the order"),
    ]


def test_a_list_of_videos_orders_files_of_videos(tmp_path: Path) -> None:
    asked = order(tmp_path, "5", "4", header="")
    files, _ = written(predictions(("4", 2), ("5", 1), ("6", 1)), "expr", order=asked, layout="per_video")
    assert list(files) == ["5.txt", "4.txt"]
    assert files["4.txt"] == f"{EXPR}\n4\n4\n"
    asked = order(tmp_path, "4/00003.jpg,0,0", "4/00001.jpg,0,0")
    assert written(predictions(("4", 2)), "expr", order=asked, layout="per_video")[0] == {"4.txt": f"{EXPR}\n4\n4\n4\n"}


def test_what_is_null_or_not_finite_is_no_prediction(tmp_path: Path) -> None:
    frame = predictions(("4", 1), ("4", 2), ("4", 3), valence_pred=[0.1, float("nan"), 0.3], arousal_pred=[0.1, 0.2, None])
    asked = order(tmp_path, *(f"4/{number:05}.jpg" for number in (1, 2, 3)))
    files, problems = written(frame, "va", order=asked)
    assert files["VA_predictions.txt"].splitlines()[1:] == [f"4/{number:05}.jpg,0.1,0.1" for number in (1, 2, 3)]
    assert problems["detail"].to_list() == ["2 of 3 rows of 4"]


@pytest.mark.parametrize(
    ("frame", "challenge", "options", "message"),
    [
        (predictions(("4", 1)), "vaa", {}, "did you mean 'va'"),
        (predictions(("4", 1)), "va", {"layout": "per-video"}, "did you mean 'per_video'"),
        (predictions(("4", 1)), "mtl", {"layout": "per_video"}, "single file"),
        (predictions(("4", 1)).drop("au1_pred", "au2_pred"), "au", {}, "no column au1_pred, au2_pred"),
        (predictions(("4", 1), ("4", 1)), "va", {}, "2 predictions are of the same frames"),
        (predictions(("4", 1), expression_pred=["contempt"]), "expr", {}, "no expression of the challenge: contempt"),
        (predictions(("4", 1)).with_columns(frame=None), "va", {}, "lack their sample, clip or frame"),
        (predictions(("a/b", 1)), "va", {}, "no frame of a video"),
        (predictions(("4", 1)).with_columns(sample=pl.lit("4/x.jpg")), "va", {}, "no frame of a video"),
    ],
)
def test_what_cannot_be_handed_in_is_refused_in_one_line(
    frame: pl.DataFrame, challenge: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        written(frame, challenge, **options)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["4/00001.jpg", "7/00001.jpg", "8/00001.jpg"], "no frame of '7' and of 1 more is predicted"),
        (["4/00001.jpg", "4"], "line 3 of the order names no image: '4'"),
        ([], "the order has no rows"),
    ],
)
def test_an_order_that_cannot_be_served_is_refused(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        written(predictions(("4", 1)), "va", order=order(tmp_path, *rows))


# ── there and back ───────────────────────────────────────────────────────────────────────────────────────────────────────────

finite = st.floats(-1, 1, allow_nan=False)
frames_ = st.sets(st.tuples(st.sampled_from(["4", "video59_right", "10-60-1280x720"]), st.integers(1, 30)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    frames=frames_, challenge=st.sampled_from(["va", "expr", "au", "mtl"]), layout=st.sampled_from(["single", "per_video"]), data=st.data()
)
def test_what_was_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, frames: set[tuple[str, int]], challenge: str, layout: str, data: st.DataObject
) -> None:
    layout = "single" if challenge == "mtl" else layout
    n = len(frames)

    def draw(values: st.SearchStrategy[Any]) -> list[Any]:
        return data.draw(st.lists(values, min_size=n, max_size=n))

    frame = predictions(
        *sorted(frames),
        valence_pred=draw(finite),
        arousal_pred=draw(finite),
        expression_pred=draw(st.sampled_from(AFF_WILD2)),
        au12_pred=draw(st.floats(0, 1)),
    )
    files, _ = written(frame, challenge, layout=layout)
    folder = tmp_path_factory.mktemp("submission")
    for name, text in files.items():
        (folder / name).write_text(text)
    found, problems = read(folder, challenge)
    assert problems.is_empty()
    meant = frame.with_columns(
        image=pl.col("clip") + "/" + pl.col("sample").str.split("/").list.last(),
        frame=pl.col("frame").cast(pl.Int32),
        **{name: (pl.col(name) >= 0.5).cast(pl.Float64) for name in LABELS["au"]},
    ).select(*TYPES, *LABELS[challenge])
    there = found.join(meant, on=["clip", "frame"], how="semi")
    assert_frame_equal(there, meant, check_row_order=False, check_exact=True)
    if layout == "single":
        assert found.height == n
        assert_frame_equal(read(files[f"{challenge.upper()}_predictions.txt"], challenge)[0], found)
        assert written(found.rename({"image": "sample"}), challenge)[0] == files
    else:
        assert found.height == sum(max(number for clip_, number in frames if clip_ == clip) for clip in {clip for clip, _ in frames})


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("challenge", "header", "row", "kind", "column"),
    [
        ("va", "image_location,valence,arousal", "4/00002.jpg,1.5,0", "prediction out of range", "valence_pred"),
        ("va", "image_location,valence,arousal", "4/00002.jpg,0,-5", "prediction out of range", "arousal_pred"),
        ("va", "image_location, valence, arousal", "4/00002.jpg,0,nan", "unreadable prediction", "arousal_pred"),
        ("expr", f"image_location,{EXPR}", "4/00002.jpg,8", "prediction out of range", "expression_pred"),
        ("expr", f"image_location,{EXPR}", "4/00002.jpg,-1", "prediction out of range", "expression_pred"),
        ("au", f"image_location,{AU}", "4/00002.jpg" + ",0" * 11 + ",0.5", "prediction out of range", "au26_pred"),
        ("mtl", "image,valence,arousal,expression,aus", "4/00002.jpg,0,0,x" + ",0" * 12, "unreadable prediction", "expression_pred"),
    ],
)
def test_a_cell_that_is_no_prediction_is_null_and_said_with_its_line(challenge: str, header: str, row: str, kind: str, column: str) -> None:
    good = {"va": ",0,0", "expr": ",1", "au": ",1" * 12, "mtl": ",0,0,1" + ",1" * 12}[challenge]
    found, problems = read(f"{header}\n4/00001.jpg{good}\n{row}\n", challenge)
    assert problems.select("kind", "line", "sample").rows() == [(kind, 3, "4/00002.jpg")]
    assert found["frame"].to_list() == [1, 2]
    nulls = found.select(pl.col(LABELS[challenge]).is_null())
    assert not any(nulls.row(0))
    assert [name for name, null in nulls.row(1, named=True).items() if null] == [column]


def test_rows_that_cannot_be_used_are_said_with_their_lines() -> None:
    text = (
        "image_location,valence,arousal\r\n4/00001.jpg,0,0\r\n4/00001.jpg,1,1\r\n4,0,0\r\n4/00002.jpg,0\r\n\r\nvideos/4/00003.png,1,1\r\n"
    )
    found, problems = read(text, "va")
    assert found.select("image", "clip", "frame", "valence_pred").rows() == [("4/00001.jpg", "4", 1, 0), ("videos/4/00003.png", "4", 3, 1)]
    assert problems.select("kind", "line").sort("line").rows() == [
        ("row stands twice", 3),
        ("unreadable name", 4),
        ("wrong number of cells", 5),
    ]


def test_columns_go_by_the_names_of_the_header() -> None:
    assert read("image_location,arousal,valence\n4/00001.jpg,0.1,0.2\n", "va")[0].select("valence_pred", "arousal_pred").row(0) == (
        0.2,
        0.1,
    )
    found, _ = read("image_location,AU12,AU1\n4/00001.jpg,1,0\n", "au")
    assert found.select("au1_pred", "au12_pred", "au26_pred").row(0) == (0, 1, None)


def test_a_file_of_one_video_is_known_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "video5_left.txt"
    path.write_text("valence,arousal\n0.1,0.2\n0.3,0.4")
    found, problems = read(path, "va")
    assert found.rows() == [("video5_left/00001.jpg", "video5_left", 1, 0.1, 0.2), ("video5_left/00002.jpg", "video5_left", 2, 0.3, 0.4)]
    assert problems.is_empty()
    (tmp_path / "6.txt").write_text("nothing")
    (tmp_path / ".7.txt").write_text("nothing")
    found, problems = read(tmp_path, "va")
    assert found.height == 2
    assert problems.select("kind", "line").rows() == [("unknown header", 1)]


@pytest.mark.parametrize("text", ["", "valence,arousal\n0,0\n", "image_location,AU1\n4/00001.jpg,1\n", "\udcff", "image_location"])
def test_what_is_no_submission_to_the_challenge_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="no submission to the va challenge"):
        read(text, "va")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no file"):
        read(tmp_path / "absent.txt", "va")
    with pytest.raises(RequestError, match="no submission"):
        read(tmp_path, "va")


@settings(max_examples=60, deadline=None)
@given(mangling=manglings, challenge=st.sampled_from(list(LABELS)), per_video=st.booleans())
def test_a_mangled_submission_is_reported_or_refused(
    tmp_path_factory: pytest.TempPathFactory, mangling: Mangling, challenge: str, per_video: bool
) -> None:
    layout = "per_video" if per_video and challenge != "mtl" else "single"
    files, _ = written(predictions(("4", 1), ("4", 2), ("4", 3)), challenge, layout=layout)
    ((name, text),) = files.items()
    path = tmp_path_factory.mktemp("mangled") / name
    path.write_bytes(mangling(text.encode()))
    try:
        found, problems = read(path, challenge)
    except RequestError:
        return
    assert found.columns == [*TYPES, *LABELS[challenge]]
    assert dict(problems.schema) == PROBLEMS
    assert not found.select("clip", "frame").is_duplicated().any()
    for name_ in LABELS[challenge]:
        if name_ != "expression_pred":
            assert found[name_].drop_nulls().is_between(-1, 1).all()
