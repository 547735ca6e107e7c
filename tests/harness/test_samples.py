"""What a reader tells beside its samples."""

import polars as pl

from harness.samples import Problems


def test_rows_of_several_files_are_told_although_those_of_one_are_all_well() -> None:
    """Polars 2.1 panicked where several frames put together were filtered and of one of them nothing was left."""
    well, bad = (pl.DataFrame({"file": ["a.csv"] * 2, "frame": frames}) for frames in ([1, 2], [3, 3]))
    problems = Problems()
    problems.extend(
        pl.concat([well, bad]).filter(pl.col("frame").is_duplicated()), "row stands twice", pl.format("frame {} again", "frame")
    )
    assert problems.frame()["detail"].to_list() == ["frame 3 again"] * 2
