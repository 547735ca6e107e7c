"""Readers at the size of the real label sets, written without images: seconds, and less than 2 GiB.

Each is read in a process of its own, whose peak memory is nobody else's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

_READ = """
import importlib, json, resource, sys, time
module, root, options = sys.argv[1:]
started = time.perf_counter()
reading = importlib.import_module(module).read(root, **json.loads(options))
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"samples": reading.samples.height, "seconds": seconds, "peak_memory_mib": peak}))
"""


def read_apart(benchmark: BenchmarkFixture, dataset: str, root: Path, **options: Any) -> int:
    """Measures a reader in another process, its imports included, and says how many samples it found."""

    def read() -> dict[str, Any]:
        arguments = [sys.executable, "-c", _READ, f"tasks.datasets.{dataset}", str(root), json.dumps(options)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=600)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    found = benchmark.pedantic(read, rounds=3 if benchmark.enabled else 1)
    benchmark.extra_info |= {"peak_memory_mib": round(found["peak_memory_mib"]), "seconds_without_imports": round(found["seconds"], 2)}
    return int(found["samples"])


# ── Aff-Wild2 ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

FRAMES, VIDEOS = 2_993_081, 594
_EXPRESSIONS = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
_AUS = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"


@pytest.fixture(scope="module")
def aff_wild2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Writes as many frames as asked for, labelled in all three challenges as raters do it: one frame as the one before it, or nearly."""
    written: dict[int, Path] = {}

    def write(frames: int, videos: int) -> Path:
        if frames not in written:
            root = written[frames] = tmp_path_factory.mktemp("aff_wild2")
            rng = np.random.default_rng(0)
            for number, length in enumerate(np.diff(np.linspace(0, frames, videos + 1).astype(int))):
                rated = np.clip(np.cumsum(rng.normal(0, 0.02, (length, 2)), 0), -1, 1)
                units = np.repeat(rng.integers(0, 2, (length // 8 + 1, 12)), 8, axis=0)[:length]
                codes = np.repeat(rng.integers(-1, 8, length // 30 + 1), 30)[:length]
                labels = {
                    "VA_Estimation_Challenge": ("valence,arousal", [f"{valence:.3f},{arousal:.3f}" for valence, arousal in rated]),
                    "EXPR_Recognition_Challenge": (_EXPRESSIONS, codes.astype(str)),
                    "AU_Detection_Challenge": (_AUS, [",".join(row) for row in units.astype(str)]),
                }
                for challenge, (header, lines) in labels.items():
                    folder = root / "6th_ABAW_Annotations" / challenge / ("Validation_Set" if number % 5 == 0 else "Train_Set")
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"video{number}.txt").write_text("\n".join([header, *lines]) + "\n")
        return written[frames]

    return write


@pytest.mark.parametrize("challenge", ["va", "expr", "au", "auto"])
def test_labels_of_three_million_frames_of_aff_wild2(benchmark: BenchmarkFixture, aff_wild2: Any, challenge: str) -> None:
    frames, videos = (FRAMES, VIDEOS) if benchmark.enabled else (3000, 6)
    assert read_apart(benchmark, "aff_wild2", aff_wild2(frames, videos), challenge=challenge) == frames


# ── AffectNet and AFEW-VA ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_lists_of_affectnet_with_68_landmarks_a_row(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    sizes = {"training.csv": 414_799, "validation.csv": 5_500} if benchmark.enabled else {"training.csv": 300, "validation.csv": 50}
    rng = np.random.default_rng(0)
    landmarks = [";".join(map(str, points)) for points in rng.uniform(0, 900, (500, 136)).round(2).tolist()]
    for name, size in sizes.items():
        codes, rated = rng.integers(0, 11, size).tolist(), rng.uniform(-1, 1, (size, 2)).round(6).tolist()
        with (tmp_path / name).open("w") as file:
            file.write("subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n")
            for row, (code, (valence, arousal)) in enumerate(zip(codes, rated, strict=True)):
                labels = f"{code},-2,-2" if code > 8 else f"{code},{valence},{arousal}"
                file.write(f"{row % 1000}/{name[0]}{row:055x}.jpg,134,134,899,899,{landmarks[row % 500]},{labels}\n")
    assert read_apart(benchmark, "affectnet", tmp_path) == sum(sizes.values())


def test_the_notes_of_affectnet_four_files_an_image(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """A tenth of them: in full they are more than a million files."""
    size = 29_165 if benchmark.enabled else 50
    (tmp_path / "train_set" / "annotations").mkdir(parents=True)
    values = {"exp": np.array("1"), "val": np.array("0.785714"), "aro": np.array("-0.055556"), "lnd": np.arange(136.0)}
    for kind, value in values.items():
        first = tmp_path / "train_set" / "annotations" / f"0_{kind}.npy"
        np.save(first, value, allow_pickle=False)
        for number in range(1, size):
            first.with_name(f"{number}_{kind}.npy").write_bytes(first.read_bytes())
    assert read_apart(benchmark, "affectnet", tmp_path) == size


def test_600_clips_of_afew_va_with_68_landmarks_a_frame(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    frames, clips = (30_051, 600) if benchmark.enabled else (200, 5)
    rng = np.random.default_rng(0)
    for clip, length in enumerate(np.diff(np.linspace(0, frames, clips + 1).astype(int)), start=1):
        folder = tmp_path / f"{(clip - 1) // 50 + 1:02}" / f"{clip:03}"
        folder.mkdir(parents=True)
        points = rng.uniform(0, 720, (length, 68, 2)).round(4).tolist()
        labels = {f"{frame:05}": {"arousal": 3.0, "landmarks": points[frame], "valence": -2.0} for frame in range(length)}
        (folder / f"{clip:03}.json").write_text(json.dumps({"actor": f"Actor {clip % 240}", "frames": labels, "video_id": f"{clip:03}"}))
    assert read_apart(benchmark, "afew_va", tmp_path) == frames
