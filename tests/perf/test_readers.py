"""Readers at the size of the real label sets, written without images: seconds, labels a second, memory."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.perf.measuring import Measure


def read(measure: Measure, dataset: str, root: Path, **options: Any) -> int:
    """Measures a reader and says how many samples it found."""
    module = importlib.import_module(f"tasks.datasets.{dataset}")
    reading = measure(lambda: module.read(root, **options), rounds=3)
    return int(reading.samples.height)


# ── Aff-Wild2 ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

FRAMES, VIDEOS = 2_993_081, 594
_EXPRESSIONS = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
_AUS = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"


def write_aff_wild2(root: Path, frames: int, videos: int) -> None:
    """As many frames as asked for, labelled in all three challenges as raters do it: one frame as the one before it, or nearly."""
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


@pytest.mark.parametrize("challenge", ["va", "expr", "au", "auto"])
def test_labels_of_three_million_frames_of_aff_wild2(measure: Measure, challenge: str) -> None:
    frames, videos = measure.sized((FRAMES, VIDEOS), (150_000, 60), (3000, 6))
    root = measure.folder("aff_wild2", lambda folder: write_aff_wild2(folder, frames, videos))
    assert read(measure, "aff_wild2", root, challenge=challenge) == frames


# ── AffectNet and AFEW-VA ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_lists_of_affectnet_with_68_landmarks_a_row(measure: Measure) -> None:
    training, validation = measure.sized((414_799, 5_500), (20_000, 500), (300, 50))

    def write(root: Path) -> None:
        rng = np.random.default_rng(0)
        landmarks = [";".join(map(str, points)) for points in rng.uniform(0, 900, (500, 136)).round(2).tolist()]
        for name, size in (("training.csv", training), ("validation.csv", validation)):
            codes, rated = rng.integers(0, 11, size).tolist(), rng.uniform(-1, 1, (size, 2)).round(6).tolist()
            with (root / name).open("w") as file:
                file.write("subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n")
                for row, (code, (valence, arousal)) in enumerate(zip(codes, rated, strict=True)):
                    labels = f"{code},-2,-2" if code > 8 else f"{code},{valence},{arousal}"
                    file.write(f"{row % 1000}/{name[0]}{row:055x}.jpg,134,134,899,899,{landmarks[row % 500]},{labels}\n")

    assert read(measure, "affectnet", measure.folder("affectnet_lists", write)) == training + validation


def test_the_notes_of_affectnet_four_files_an_image(measure: Measure) -> None:
    """A tenth of them: in full they are more than a million files."""
    size = measure.sized(29_165, 1_000, 50)

    def write(root: Path) -> None:
        (root / "train_set" / "annotations").mkdir(parents=True)
        values = {"exp": np.array("1"), "val": np.array("0.785714"), "aro": np.array("-0.055556"), "lnd": np.arange(136.0)}
        for kind, value in values.items():
            first = root / "train_set" / "annotations" / f"0_{kind}.npy"
            np.save(first, value, allow_pickle=False)
            for number in range(1, size):
                first.with_name(f"{number}_{kind}.npy").write_bytes(first.read_bytes())

    assert read(measure, "affectnet", measure.folder("affectnet_notes", write)) == size


def test_600_clips_of_afew_va_with_68_landmarks_a_frame(measure: Measure) -> None:
    frames, clips = measure.sized((30_051, 600), (1_500, 30), (200, 5))

    def write(root: Path) -> None:
        rng = np.random.default_rng(0)
        for clip, length in enumerate(np.diff(np.linspace(0, frames, clips + 1).astype(int)), start=1):
            folder = root / f"{(clip - 1) // 50 + 1:02}" / f"{clip:03}"
            folder.mkdir(parents=True)
            points = rng.uniform(0, 720, (length, 68, 2)).round(4).tolist()
            labels = {f"{frame:05}": {"arousal": 3.0, "landmarks": points[frame], "valence": -2.0} for frame in range(length)}
            told = {"actor": f"Actor {clip % 240}", "frames": labels, "video_id": f"{clip:03}"}
            (folder / f"{clip:03}.json").write_text(json.dumps(told))

    assert read(measure, "afew_va", measure.folder("afew_va", write)) == frames
