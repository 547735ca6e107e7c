"""RAF-DB: photographs from the web with one of seven basic expressions each (Li, Deng, Du 2017)::

    ROOT/basic/EmoLabel/list_patition_label.txt        "train_00001.jpg 5", in the authors' spelling
    ROOT/basic/Image/aligned/train_00001_aligned.jpg   the face upright, about 100 x 100
    ROOT/basic/Image/original/train_00001.jpg          the photograph as it was found

``ROOT`` may also be ``basic`` itself. The compound subset (``compound/…``) gives the same file names to other photographs and has
eleven classes of its own; it is never read.
"""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from harness.errors import RequestError, did_you_mean
from harness.samples import Problems, Reading, check, conform
from tasks.datasets import files
from tasks.datasets.vocabulary import CODES

IMAGES = ("aligned", "original")

_LISTS = ("list_patition_label.txt", "list_partition_label.txt")
_COMPOUND = pl.col("label").cast(pl.Float64, strict=False).is_between(8, 11)


def read(root: str | Path, *, images: str = "aligned") -> Reading:
    """All images of the training and the test part, in the order of the list.

    Nobody says who is on them, so each image is its own clip and there is no subject.

    Args:
        root: The dataset's folder, or up to three above it.
        images: ``aligned``, or ``original``: whole photographs, of which the list says nothing of where the face is.

    Raises:
        RequestError: There is no such folder, no list in it or only that of the compound subset, or no such kind of images.
    """
    root = files.folder(root, "RAF-DB")
    if images not in IMAGES:
        raise RequestError(f"RAF-DB has no images {images!r}", where="task.dataset.read.images", remedy=did_you_mean(str(images), IMAGES))
    problems = Problems()
    path = _find(root, problems)
    base = path.parent.parent if path.parent.name.lower() == "emolabel" and path.parent != root else path.parent
    folder = _folder(base, images)
    prefix = (folder / "x").relative_to(root).as_posix().removesuffix("x")
    suffix = "_aligned" if images == "aligned" else ""

    lines = files.lines(path, problems).filter(pl.col("text").str.strip_chars() != "")
    cut = lines.select("line", "text", file=pl.lit(str(path)), parts=pl.col("text").str.extract_groups(r"^\s*(\S+)\s+(\S+)\s*$"))
    rows = cut.unnest("parts").rename({"1": "name", "2": "label"})
    problems.extend(rows.filter(pl.col("name").is_null()), "wrong number of cells", "a line is a name, a blank and a label")
    rows = rows.drop_nulls("name")
    if 4 * rows.filter(_COMPOUND).height > rows.height:  # a wrong label or two are no other subset
        raise RequestError("these are labels of the compound subset, 1 to 11", where=str(path), remedy="give the folder `basic`")
    name = pl.col("name").str.replace_all("\\", "/", literal=True).str.replace(r"(\.[^./]*)?$", suffix + "${1}")
    rows = rows.with_columns(sample=prefix + name, split=pl.col("name").str.extract("^(train|test)_"))
    first = rows["sample"].is_first_distinct()
    problems.extend(rows.filter(~first), "row stands twice", "the first one is used")
    rows = rows.filter(first)
    problems.extend(rows.filter(pl.col("split").is_null()), "unknown split", pl.format("{} begins neither with train_ nor test_", "name"))

    there = pl.Series([prefix + name for name in files.listing(folder) if files.is_image(name)], dtype=pl.String)
    rows = files.expressions(rows, "label", CODES["raf_db"], problems)
    rows = rows.with_columns(image=pl.when(pl.col("sample").is_in(there.implode())).then(pl.lit(f"{root}/") + pl.col("sample")))
    unlabelled = there.filter(~there.is_in(rows["sample"].implode()))
    problems.extend(pl.DataFrame({"file": files.as_paths(root, unlabelled)}), "image without a label", "it is not used")
    files.missing_images(problems, rows, str(folder))
    samples = rows.select("sample", "image", "split", "expression", clip="sample", frame=0)
    return Reading(check(conform(samples)), problems.frame())


def _find(root: Path, problems: Problems) -> Path:
    found: list[Path] = []
    compound = False
    for here, folders, names in files.walk(root, problems, skip="image|annotation"):
        compound = compound or any(name.lower() == "compound" for name in folders)
        found += [here / name for name in names if name.lower() in _LISTS]
        folders[:] = [name for name in folders if name.lower() != "compound"] if len(here.relative_to(root).parts) < 4 else []
    if not found:
        what = "only the compound subset of RAF-DB is" if compound else "no RAF-DB"
        remedy = f"its labels are in basic/EmoLabel/{_LISTS[0]}"
        raise RequestError(f"{what} in {files.text(str(root))!r}", where="task.root", remedy=remedy)
    for other in found[1:]:
        problems.add("stands twice", other, f"{found[0]} is used")
    return found[0]


def _folder(base: Path, kind: str) -> Path:
    """The folder of the images: Image/KIND, or KIND beside the labels, in any case of letters."""

    def inside(where: Path, wanted: str) -> Path | None:
        return next((where / name for name in files.listing(where) if name.lower() == wanted), None)

    image = inside(base, "image")
    found = (image and inside(image, kind)) or inside(base, kind)
    return found if found is not None and os.path.isdir(found) else base / "Image" / kind  # noqa: PTH112  Path.is_dir() may raise
