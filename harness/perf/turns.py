"""Two revisions measured in turns: a pair of processes that are told, round by round, whose turn it is.

Both run the same benchmarks in the same order (``tests/perf/measuring.py`` is the other end of the pipes). While one works the other
waits, so that neighbouring rounds meet the same machine; the order is A B B A, and another one begins with every pair of processes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import RequestError
from harness.perf.checkout import Side
from harness.perf.verdict import QUANTITIES, Blocks

TURNS = "HARNESS_PERF_TURNS"
LEAST, MOST = 2, 24
"""Pairs of rounds of a benchmark in a block."""
SECONDS = 0.8
"""For a benchmark in a block, both sides together, where the fewest pairs do not take longer; what others take meanwhile is not counted."""
SHORT = 0.02
"""Seconds that a round lasts at least: as many calls as that takes."""
WARM = 0.5
"""Seconds of the call that does not count, above which it is taken for how long a call takes."""
PATIENCE = 900.0
"""Seconds without a word after which a process is given up."""
TESTS = "tests/perf"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
"""Set to 1: what is compared is the work. How it spreads over cores that others use, too, differs by a third from process to process."""


def short(name: str) -> str:
    """A benchmark's name without what all have.

    >>> short("tests/perf/test_plan.py::test_plan_of_100_000_evaluations[x]")
    'plan/plan_of_100_000_evaluations[x]'
    """
    return re.sub(r"^(?:.*/)?(?:test_)?([^/]*?)\.py::(?:test_)?", r"\1/", name)


def environment(side: Side) -> dict[str, str]:
    """Of a process of one side: its own packages come first, and one thread does the work."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "HARNESS_PERF_"))}
    return kept | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": str(side.folder), "PYTHONDONTWRITEBYTECODE": "", "WANDB_MODE": "offline"}


def collect(side: Side, files: Sequence[str] = (TESTS,)) -> list[str]:
    """The names of all benchmarks of a side, in order."""
    command = [sys.executable, "-m", "pytest", *files, "--collect-only", "-q", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=side.folder, env=environment(side), capture_output=True, text=True, timeout=PATIENCE, check=False)
    names = [line.strip() for line in done.stdout.splitlines() if "::" in line and not line.startswith(("ERROR", "FAILED"))]
    if not names and done.returncode not in (0, 5):
        reason = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["pytest said nothing"])[-1]
        raise RequestError(f"the benchmarks of {side.label} cannot be collected: {reason}", where=TESTS, remedy="run pytest tests/perf")
    return names


def reasons(text: str) -> dict[str, str]:
    """What pytest says of benchmarks that did not run, by name; of skipped ones by file."""
    found = {}
    for line in text.splitlines():
        if told := re.match(r"(?:FAILED|ERROR) (\S+\.py(?:::.*?)?)(?: - (.*))?$", line):
            found[told[1]] = (told[2] or "failed")[:200]
        elif told := re.match(r"SKIPPED \[\d+\] (\S+?):\d+: (.*)$", line):
            found[told[1]] = f"skipped: {told[2]}"[:200]
    return found


@dataclass
class Duel:
    """Measures benchmarks of two sides.

    Attributes:
        sides: Old and new.
        kept: A folder for files that are costly to make, made once a side.
        size: Of the benchmarks.
        say: Told what is done.
        seconds: For a benchmark in a block.
        alone: Benchmarks that ran on one side only → which, and what the other said.
        memory: Benchmark → peaks of both sides, MiB, block by block.
    """

    sides: tuple[Side, Side]
    kept: Path
    size: str = "modest"
    say: Callable[[str], None] = lambda _: None
    seconds: float = SECONDS
    alone: dict[str, tuple[str, str]] = field(default_factory=dict)
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    _blocks: int = 0

    def __call__(self, names: Sequence[str], blocks: int) -> Blocks:
        """So many blocks of these benchmarks; of those only that run on both sides."""
        found: dict[str, dict[str, list[list[tuple[float, float]]]]] = {}
        for number in range(blocks):
            began = time.monotonic()
            for name, pairs in self.block([name for name in names if name not in self.alone]).items():
                for quantity in QUANTITIES:
                    rounds = [(_seconds(old, quantity), _seconds(new, quantity)) for old, new in pairs]
                    found.setdefault(name, {}).setdefault(quantity, []).append(rounds)
            self.say(f"pair of processes {number + 1} of {blocks}: {time.monotonic() - began:.0f} s")
        return found

    def block(self, names: Sequence[str]) -> dict[str, list[tuple[dict[str, float], dict[str, float]]]]:
        """One pair of processes: benchmark → pairs of rounds, old and new."""
        if not names:
            return {}
        self._blocks += 1
        first = self._blocks % 2
        found: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {}
        place = {name: position for position, name in enumerate(names)}
        with contextlib.ExitStack() as stack:
            made: dict[int, _Process] = {}
            for which in (first, 1 - first):
                made[which] = stack.enter_context(_Process(self.sides[which], names, self.kept, self.size, seed=self._blocks))
            processes = made[0], made[1]
            ready = [process.next() for process in processes]
            while any(ready):
                heads = [place.get(message["ready"], -1) if message else len(names) for message in ready]
                if heads[0] == heads[1]:
                    name = ready[0]["ready"] if ready[0] else ""
                    found[name] = self._play(processes, first, max(message["wall"] for message in ready if message))
                    self.memory.setdefault(name, []).append((ready[0]["peak_mib"], ready[1]["peak_mib"]))  # type: ignore[index]
                    behind = [0, 1]
                else:
                    which = heads.index(min(heads))
                    self.alone[ready[which]["ready"]] = (self.sides[which].name, "")  # type: ignore[index]
                    behind = [which]
                for which in behind:
                    processes[which].leave()
                for which in behind:
                    ready[which] = processes[which].next()
            told = [process.reasons() for process in processes]
        for name in names:
            if name not in found:
                side, _ = self.alone.get(name, ("neither", ""))
                said = told[0 if side == "new" else 1]
                self.alone[name] = (side, said.get(name) or said.get(name.split("::")[0], ""))
        return found

    def _play(self, processes: tuple[_Process, _Process], first: int, wall: float) -> list[tuple[dict[str, float], dict[str, float]]]:
        if wall < WARM:
            wall = min(process.round(1)["wall"] for process in processes)
        calls = max(1, min(1000, math.ceil(SHORT / max(1e-6, wall))))
        pairs: list[tuple[dict[str, float], dict[str, float]]] = []
        spent = 0.0
        while len(pairs) < LEAST or (len(pairs) < MOST and spent < self.seconds) or len(pairs) % 2:
            begins = (len(pairs) + first) % 2
            told: dict[int, dict[str, float]] = {}
            for which in (begins, 1 - begins):
                told[which] = processes[which].round(calls)
            pairs.append((told[0], told[1]))
            spent += calls * sum(one["wall"] - one["queue"] for one in told.values())
        return pairs


def _seconds(round_: dict[str, float], quantity: str) -> float:
    return round_["processor"] if quantity == "processor" else max(round_["wall"] - round_["queue"], 0.0)


class _Process:
    """One side's process, with the pipes to it; ended at the end of a ``with``, come what may."""

    def __init__(self, side: Side, names: Sequence[str], kept: Path, size: str, *, seed: int) -> None:
        self._side = side
        self._log = kept / f"{side.name}.log"
        folder = kept / side.name
        folder.mkdir(parents=True, exist_ok=True)
        theirs, self._ours = os.pipe()
        self._reads, writes = os.pipe()
        command = [sys.executable, "-m", "pytest", *names, "-q", "--tb=line", "-rfEs", "-p", "no:cacheprovider", "--benchmark-disable"]
        command += [f"--perf-size={size}", f"--perf-folder={folder}"]
        env = environment(side) | {TURNS: f"{theirs},{writes}", "PYTHONHASHSEED": str(seed), "COLUMNS": "500"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=side.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs, writes),
                start_new_session=True,
            )
        os.close(theirs)
        os.close(writes)
        self._buffer = b""

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ours)
        os.close(self._reads)
        for signal_, patience in ((0, 5.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 60.0)):
            with contextlib.suppress(ProcessLookupError):
                if signal_:
                    os.killpg(self._process.pid, signal_)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # whatever it left behind

    def next(self) -> dict[str, Any] | None:
        """The next benchmark that is ready, or None when there is none left."""
        return self._message()

    def round(self, calls: int) -> dict[str, float]:
        """One round of so many calls."""
        self._tell(calls)
        message = self._message()
        if message is None:
            raise RequestError(f"a benchmark of {self._side.label} broke in the middle: {self._last()}", where=TESTS, remedy="run it alone")
        return message

    def leave(self) -> None:
        """Let it go on to the next benchmark."""
        self._tell(0)

    def reasons(self) -> dict[str, str]:
        """What pytest said of benchmarks that did not run."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        return reasons(self._log.read_text(encoding="utf-8", errors="replace"))

    def _last(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"

    def _tell(self, calls: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._ours, f"{calls}\n".encode())

    def _message(self) -> dict[str, Any] | None:
        until = time.monotonic() + PATIENCE
        while b"\n" not in self._buffer:
            if not select.select([self._reads], [], [], max(0.0, until - time.monotonic()))[0]:
                raise RequestError(
                    f"a benchmark of {self._side.label} gave no sign for {PATIENCE:.0f} s", where=TESTS, remedy="run it alone"
                )
            more = os.read(self._reads, 65536)
            if not more:
                return None
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message
