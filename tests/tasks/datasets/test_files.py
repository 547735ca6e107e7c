"""Folders and text files as people have them, and what readers make of them."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import RequestError
from harness.samples import Problems
from tasks.datasets import files


def found(problems: Problems) -> list[tuple[str, str, int | None]]:
    """Kind, name of the file, and line."""
    return [(kind, Path(file).name, line) for kind, file, line in problems.frame().select("kind", "file", "line").iter_rows()]


def lines_of(path: Path, content: bytes) -> list[tuple[int, str]]:
    path.write_bytes(content)
    problems = Problems()
    table = files.lines(path, problems)
    assert dict(table.schema) == {"line": pl.UInt32, "text": pl.String}
    assert found(problems) == []
    return table.rows()


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\r\nb\r", ["a", "b"]),
        (b"\n\na\n\n", ["", "", "a", ""]),
        (b"\xef\xbb\xbfa\nb", ["a", "b"]),
        ("\ufeffa\r\nb\u00e9\r\n".encode("utf-16-le"), ["a", "b\u00e9"]),
        ("\ufeffa\nb".encode("utf-16-be"), ["a", "b"]),
        ("a\nb\U0001f600".encode(), ["a", "b\U0001f600"]),
        (b"a\xff\nb\x00c", ["a\ufffd", "b\ufffdc"]),
        ("\ufeffa\nb".encode("utf-16-le") + b"\x00", ["a", "b\ufffd"]),
        (b"a\rb\x0bc\x0cd\x85e\n", ["a\rb\x0bc\x0cd\ufffde"]),
        ("a\u2028b\u0085c".encode(), ["a\u2028b\u0085c"]),
    ],
)
def test_every_line_of_a_file_is_there_with_its_number(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    assert lines_of(tmp_path / "file.txt", content) == list(enumerate(expected, start=1))


@pytest.mark.parametrize("block", [2, 3, 5, 7])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_the_same_wherever_its_blocks_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, encoding: str) -> None:
    monkeypatch.setattr(files, "_BLOCK", block)
    text = ["äö", "", "\U0001f600,b", "x" * 20, "last"]
    assert lines_of(tmp_path / "file.txt", "\r\n".join(text).encode(encoding)) == list(enumerate(text, start=1))


@given(content=st.binary(max_size=60) | st.text(alphabet="a,\r\n\0\ufeffé", max_size=40).map(str.encode))
def test_lines_of_any_bytes_are_those_between_line_feeds(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        content = b"a" + content  # what follows the mark of UTF-16 has other line feeds
    found = lines_of(tmp_path_factory.getbasetemp() / "any.txt", content)
    assert len(found) == content.count(b"\n") + (content.removeprefix(b"\xef\xbb\xbf")[-1:] not in (b"", b"\n"))


@pytest.mark.parametrize("name", ["absent.txt", "folder"])
def test_a_file_that_cannot_be_read_is_a_problem_and_has_no_lines(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    problems = Problems()
    table = files.lines(tmp_path / name, problems)
    assert table.is_empty()
    assert table.columns == ["line", "text"]
    assert found(problems) == [("unreadable file", name, None)]


# ── cells ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def table(text: str) -> pl.DataFrame:
    return pl.DataFrame({"text": text.split("\n")}).with_row_index("line", 1)


def test_lines_are_cut_into_cells_and_those_of_another_number_are_said_with_their_line() -> None:
    problems = Problems()
    cut = files.cells(table(" a , \"b c\",'d'\n\n1,2\n  \nx,,\n1,2,3,4"), 3, Path("some.csv"), problems)
    assert cut.columns == ["line", "c0", "c1", "c2"]
    assert cut.rows() == [(1, "a", "b c", "d"), (3, None, None, None), (5, "x", "", ""), (6, None, None, None)]
    assert found(problems) == [("wrong number of cells", "some.csv", 3), ("wrong number of cells", "some.csv", 6)]
    assert problems.frame()["detail"].to_list() == ["2, where 3 belong", "4, where 3 belong"]


def test_cells_may_be_cut_at_blanks_and_an_empty_table_has_their_columns() -> None:
    problems = Problems()
    assert files.cells(table("a b"), 2, Path("f"), problems, separator=" ").rows() == [(1, "a", "b")]
    assert files.cells(table("a").clear(), 2, Path("f"), problems).columns == ["line", "c0", "c1"]
    assert problems.frame().is_empty()


def test_a_header_is_the_first_line() -> None:
    assert files.header(table('"image" , valence,\tarousal\n1,2,3')) == ["image", "valence", "arousal"]
    assert files.header(table("a b"), separator=" ") == ["a", "b"]
    assert files.header(table("a").clear()) == []


@pytest.mark.parametrize(
    ("cell", "number"),
    [("1", 1), ("-0.5", -0.5), ("+2", 2), ("1e3", 1000), (".5", 0.5)]
    + [(cell, None) for cell in ("", "NULL", "nan", "inf", "-inf", "1e400", "1,5", "0x1F", "1 2", "１２", "9" * 400, None)],
)
def test_a_cell_is_a_finite_number_or_null(cell: str | None, number: float | None) -> None:
    column = pl.DataFrame({"cell": pl.Series([cell], dtype=pl.String)}).select(files.numbers("cell"))
    assert column.schema == {"cell": pl.Float64}
    assert column.item() == number


def test_codes_become_names_and_what_is_none_is_said() -> None:
    rows = pl.DataFrame({"file": "list.txt", "line": range(1, 8), "code": ["1", "2", "3", "1.5", "x", None, "2.0"]})
    problems = Problems()
    named = files.expressions(rows, "code", {1: "sad", 2: "happy"}, problems)
    assert named["expression"].to_list() == ["sad", "happy", None, None, None, None, "happy"]
    assert sorted(found(problems)) == [("label out of range", "list.txt", line) for line in (3, 4)] + [
        ("unreadable label", "list.txt", line) for line in (5, 6)
    ]


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def walked(root: Path, problems: Problems, **options: str) -> dict[str, list[str]]:
    """Folder → its files."""
    return {where.relative_to(root).as_posix(): names for where, _, names in files.walk(root, problems, **options)}


def test_a_walk_visits_every_folder_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.txt", "b/1.txt", "a/c/3.txt", "0.txt")
    (tmp_path / "empty").mkdir()
    problems = Problems()
    assert walked(tmp_path, problems) == {".": ["0.txt"], "a": [], "a/c": ["3.txt"], "b": ["1.txt", "2.txt"], "empty": []}
    assert list(walked(tmp_path, problems)) == [".", "a", "a/c", "b", "empty"]
    assert found(problems) == []


def test_a_walk_skips_folders_by_name_and_those_the_caller_takes_out(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.txt", "A_Cropped/2.txt", "b/c/3.txt")
    assert list(walked(tmp_path, Problems(), skip=r".*_cropped")) == [".", "a", "b", "b/c"]
    visited = []
    for where, folders, _ in files.walk(tmp_path, Problems()):
        visited.append(where.name)
        folders[:] = [name for name in folders if name == "b"]
    assert visited == [tmp_path.name, "b"]


def test_a_walk_follows_links_and_none_of_them_twice(tmp_path: Path) -> None:
    touch(tmp_path, "data/a/1.txt", "elsewhere/2.txt")
    (tmp_path / "data" / "a" / "back").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "linked_again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "dangling").symlink_to(tmp_path / "nowhere")
    problems = Problems()
    assert walked(tmp_path / "data", problems) == {".": ["dangling"], "a": ["1.txt"], "linked": ["2.txt"]}
    assert found(problems) == []


def test_a_walk_says_what_it_may_not_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "closed/1.txt", "open/2.txt")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)  # root may enter everything
    problems = Problems()
    assert walked(tmp_path, problems) == {".": [], "open": ["2.txt"]}
    assert found(problems) == [("unreadable folder", "closed", None)]
    assert problems.frame()["detail"][0] == "Permission denied"


def test_names_that_are_no_text_are_said_and_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "1.txt", os.fsdecode(b"\xff.txt"), os.fsdecode(b"\xfe/2.txt"))
    problems = Problems()
    assert walked(tmp_path, problems) == {".": ["1.txt"]}
    assert found(problems) == [("unreadable name", "?", None), ("unreadable name", "?.txt", None)]
    assert files.listing(tmp_path) == ["1.txt"]


def test_a_listing_is_sorted_and_of_no_folder_empty(tmp_path: Path) -> None:
    touch(tmp_path, "b.txt", "a.txt", "c/d.txt")
    assert files.listing(tmp_path) == ["a.txt", "b.txt", "c"]
    assert files.listing(tmp_path / "absent") == files.listing(tmp_path / "a.txt") == []


def test_a_folder_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "file.txt")
    assert files.folder(str(tmp_path), "a dataset") == tmp_path
    for path in (tmp_path / "absent", tmp_path / "file.txt"):
        with pytest.raises(RequestError, match=r"there is no folder .* with a dataset in it"):
            files.folder(path, "a dataset")
    with pytest.raises(RequestError, match="is no UTF-8"):
        files.folder(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"), "a dataset")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", True), ("a.JPG", True), ("a.b.png", True), ("a.tiff", True), ("a.jpg.txt", False), ("jpg", False), (".jpg", False)],
)
def test_an_image_is_known_by_its_ending(name: str, expected: bool) -> None:
    assert files.is_image(name) is expected


# ── samples ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_some_missing_images_are_said_each_and_all_of_them_once() -> None:
    rows = pl.DataFrame({"sample": ["a", "b", "c"], "image": ["a", None, None], "file": "list.csv", "line": [2, 3, 4]})
    some, none, whole, empty = Problems(), Problems(), Problems(), Problems()
    files.missing_images(some, rows, "the folder")
    assert found(some) == [("missing image", "list.csv", 3), ("missing image", "list.csv", 4)]
    assert some.frame().select("sample", "detail").rows() == [("b", "there is no b"), ("c", "there is no c")]
    files.missing_images(none, rows.tail(2).drop("line"), "the folder")
    assert found(none) == [("no images", "the folder", None)]
    assert "none of the 2 images" in none.frame()["detail"][0]
    files.missing_images(whole, rows.head(1), "the folder")
    files.missing_images(empty, rows.clear(), "the folder")
    assert whole.frame().is_empty()
    assert empty.frame().is_empty()


def test_paths_are_under_their_folder_and_null_where_there_is_none() -> None:
    assert files.as_paths(Path("/data"), ["a/1.jpg", None]).to_list() == ["/data/a/1.jpg", None]
    assert files.as_paths(Path("/data"), []).dtype == pl.String
    assert files.before(Path("/data"), Path("/data/a/b")) == "a/b/"
    assert files.before(Path("/data"), Path("/data")) == ""
