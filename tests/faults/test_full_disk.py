"""A disk that is full, wherever that happens: it is said, nothing finished is lost, and with more room the same ends as it would have."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.faults.conftest import Disturbed

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="a small disk is mounted, which takes root")


def test_a_disk_that_is_full_at_any_step_is_said_and_with_room_the_store_is_the_same(disturbed: Disturbed, tmp_path: Path) -> None:
    disks = disturbed("starve", tmp_path)["starved"]["disks"]
    *full, enough = disks
    assert enough["said"] == []
    assert len(full) > 15
    for disk in full:
        (said,) = disk["said"]
        assert said.startswith(f"cannot write {tmp_path / 'disk' / 'store'}"), said
        assert "the disk is full" in said
        assert "\n" not in said
    everywhere = "\n".join(disk["said"][0] for disk in full)
    for place in ("checkpoint", "records/", ".units.parquet", ".records.parquet"):
        assert place in everywhere
    assert {disk["pages"]: disk["different"] for disk in disks if disk["different"]} == {}
