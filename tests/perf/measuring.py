"""How a benchmark is measured: time, processor time, memory, and what a user would take instead, in turns.

A benchmark is a test with the fixture ``measure``, called once. It does one of four things, as the command line asks for:

- without ``--benchmark-enable`` (the suite): the work once, at its smallest, and each alternative;
- with it (``harness perf run``): some rounds by pytest-benchmark, one more for memory, and alternatives in turns with the work;
- as one of two processes that ``harness perf compare`` started (``HARNESS_PERF_TURNS``): one round whenever told to.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import re
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pytest_benchmark.fixture import BenchmarkFixture

from tests.perf import apart

SIZES = ("tiny", "modest", "full")
TURNS = "HARNESS_PERF_TURNS"
"""Names the variable that holds two file descriptors, to read and to write, of a process that takes turns with another."""
PAIRS = 3
"""Rounds of an alternative, and as many of the work, in turns."""
LONG = 10.0
"""Seconds above which there is no further round for memory."""

T = TypeVar("T")


@dataclass(frozen=True)
class Instead:
    """What a user would take in the place of what is measured.

    Attributes:
        work: Does the same, or a share of it.
        share: Which share.
    """

    work: Callable[[], object]
    share: float = 1.0


@dataclass(frozen=True)
class Cost:
    """Seconds of one call.

    Attributes:
        wall: As a clock on the wall shows them.
        processor: Of all threads, and of processes that were waited for.
        queue: That threads, and the processes run by ``apart``, waited for a processor. Where one works at a time, ``wall - queue`` is
            what the call would have taken alone, as far as the kernel knows.
    """

    wall: float
    processor: float
    queue: float

    def __truediv__(self, n: int) -> Cost:
        return Cost(self.wall / n, self.processor / n, self.queue / n)


def cost(work: Callable[[], T]) -> tuple[T, Cost]:
    """What work returns, and what it cost."""
    queue, processor, wall = _queue(), _processor(), time.perf_counter()
    result = work()
    wall, processor, queue = time.perf_counter() - wall, _processor() - processor, max(0.0, _queue() - queue)
    return result, Cost(wall, processor, queue)


class Measure:
    """The fixture.

    Attributes:
        size: ``tiny``, ``modest`` or ``full``.
    """

    def __init__(self, benchmark: BenchmarkFixture, size: str, name: str, cache: Callable[[str], Path]) -> None:
        self._benchmark, self.size, self._name, self._cache = benchmark, size, name, cache
        self._peaks: list[float] = []
        self._median, self._watching = 0.0, False

    @property
    def times(self) -> dict[str, float]:
        """The median of the rounds in seconds, once they are measured."""
        stats = self._benchmark.stats
        return {} if stats is None else {"median_s": stats.stats.median}

    @property
    def benchmarks(self) -> bool:
        """Whether times are kept; else it is only seen that everything runs."""
        return bool(self._benchmark.enabled)

    def sized(self, full: T, modest: T, tiny: T) -> T:
        """The one of three that goes with the size asked for."""
        return {"full": full, "modest": modest, "tiny": tiny}[self.size]

    def folder(self, name: str, build: Callable[[Path], object]) -> Path:
        """A folder with files that are costly to make, made once a session, or once a comparison."""
        folder = self._cache(f"{name}-{self.size}")
        if not (folder / "made").exists():
            build(folder)
            (folder / "made").touch()
        return folder

    def command(self, *arguments: str, cwd: Path, check: bool = True) -> str:
        """Run a command to its end as a part of the work, whose memory is then that of the command."""
        done = apart.run(arguments, cwd, check=check, watch=self._watching)
        if self._watching:
            self._peaks.append(done.peak_mib)
        return done.printed

    def note(self, **facts: Any) -> None:
        """Facts kept beside the times: counts, shares, rates."""
        self._benchmark.extra_info.update(facts)

    def __call__(
        self,
        work: Callable[[], T],
        *,
        rounds: int = 5,
        setup: Callable[[], object] | None = None,
        instead: Mapping[str, Instead | Callable[[], object]] | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> T:
        """Measure, and return what the work returned last.

        Args:
            work: What is measured.
            rounds: How often under ``harness perf run``, after one round that does not count.
            setup: Before each round, not counted.
            instead: What a user would take, by name. ``ratios`` says how many times as long that takes.
            rates: Things done by one call, by name: kept as so many a second.
        """
        setup = setup or (lambda: None)
        others = {name: other if isinstance(other, Instead) else Instead(other) for name, other in (instead or {}).items()}
        if TURNS in os.environ:
            return _take_turns(self._name, work, setup)
        if not self._benchmark.enabled:
            for other in others.values():
                other.work()
            setup()
            return self._benchmark.pedantic(work, rounds=1)  # type: ignore[no-any-return]
        costs: list[Cost] = []
        result: list[T] = []

        def counted() -> T:
            value, spent = cost(work)
            costs.append(spent)
            return value

        result.append(
            self._benchmark.pedantic(counted, setup=lambda: (setup(), None)[1], rounds=rounds, warmup_rounds=1 if rounds > 1 else 0)
        )
        costs = costs[-rounds:]
        self.note(
            size=self.size,
            processor_s=statistics.median(c.processor for c in costs),
            processor_least_s=min(c.processor for c in costs),
            queue_s=statistics.median(c.queue for c in costs),
        )
        median = statistics.median(c.wall for c in costs)
        if median < LONG:
            setup()
            self.note(**self._memory(work))
        if rates:
            self.note(rates={name: round(count / median, 3) for name, count in rates.items()})
        if others:
            self._median = median
            self.note(ratios={name: float(f"{self._ratio(work, setup, other):.4g}") for name, other in others.items()})
        return result[0]

    def over(self, other: str) -> dict[str, float]:
        """How much longer the work takes than what one would take instead: as a share of that, and in seconds."""
        ratio = self._benchmark.extra_info.get("ratios", {}).get(other)
        if ratio is None:
            return {}
        share = 1 / ratio - 1
        return {"over_bare": share, "seconds_over_bare": self._median * (1 - ratio)}

    def _memory(self, work: Callable[[], object]) -> dict[str, float]:
        """The most resident memory during one call, MiB, and how much that is above what was there before; of a command, if it runs one."""
        self._peaks.clear()
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        before = _status("VmRSS")
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        self._watching = True
        work()
        self._watching = False
        if self._peaks:
            return {"peak_mib": round(max(self._peaks), 1)}
        peak = _status("VmHWM")
        return {"peak_mib": round(peak, 1), "grown_mib": round(max(0.0, peak - before), 1)}

    def _ratio(self, work: Callable[[], object], setup: Callable[[], object], other: Instead) -> float:
        """How many times as long the other takes: the median of rounds in turns, one after the other."""
        pairs = []
        other.work()  # imports
        for _ in range(PAIRS):
            setup()
            own = cost(work)[1].wall
            pairs.append(cost(other.work)[1].wall / other.share / own)
        return statistics.median(pairs)


def _take_turns(name: str, work: Callable[[], T], setup: Callable[[], object]) -> T:
    """Rounds as the other end of the pipe asks for them: ``N`` calls a round, or ``0`` to leave."""
    reads, writes = (int(part) for part in os.environ[TURNS].split(","))
    setup()
    result, first = cost(work)  # imports, caches: does not count
    gc.collect()
    gc.freeze()
    _tell(writes, {"ready": name, "wall": first.wall, "peak_mib": _status("VmHWM")})
    while calls := int(_line(reads)):
        spent = []
        for _ in range(calls):
            setup()
            result, one = cost(work)
            spent.append(one)
        total = Cost(sum(c.wall for c in spent), sum(c.processor for c in spent), sum(c.queue for c in spent)) / calls
        _tell(writes, {"wall": total.wall, "processor": total.processor, "queue": total.queue})
    gc.unfreeze()
    return result


def _tell(descriptor: int, message: dict[str, Any]) -> None:
    os.write(descriptor, (json.dumps(message) + "\n").encode())


def _line(descriptor: int) -> str:
    """The next line, byte by byte: lines are short, and nothing is read ahead. At the end of the pipe: ``0``."""
    read = b""
    while not read.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            return "0"
        read += byte
    return read.decode()


def _processor() -> float:
    """Seconds of processor time of this process, and of those that it waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _queue() -> float:
    return (apart.queued() + apart.waited) / 1e9


def _status(key: str) -> float:
    """MiB of ``VmRSS`` (now) or ``VmHWM`` (at most); without Linux, the most since the process began."""
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(found[1]) / 1024 if found else 0.0
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
