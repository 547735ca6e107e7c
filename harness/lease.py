"""Locks where there are no locks: claims beside each other in one folder of an object store.

Who wants a lock writes a claim and then looks who else has one. Alone, he holds it. With others, whoever has the first name by the alphabet
keeps his claim and looks again, and all others take theirs back: so a lock is got by nobody who sees another claim, which with a
listing that shows what was written before it excludes two holders, and a lock that is free is got by somebody in the end.

A claim is written again every :data:`BEAT` seconds, and is void when that was last done more than :data:`EXPIRY` seconds ago by the
clock of the store; one of a process of this machine is void when that process is gone. So a lock is lost to a holder that can
neither write for so long nor knows it. What is done twice then is done to the same names with the same content.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import random
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from harness.errors import RequestError
from harness.remote import Entry, Remote

BEAT = 5.0
EXPIRY = 60.0
FOLDER = "store/locks"

log = logging.getLogger(__name__)

_COUNT = itertools.count()  # of the claims of this process


class Leases:
    """The locks of one store, as one process sees them."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._mine: set[str] = set()
        self._beating: threading.Thread | None = None
        self._guard = threading.Lock()
        self._ahead: float | None = None

    @contextlib.contextmanager
    def hold(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold a lock for as long as the block lasts; yields whether it is held, which without ``wait`` it may not be."""
        claim = f"{name}@{machine()}-{_process()}-{next(_COUNT):06d}"
        held = False
        try:
            while not (held := self._got(claim)) and wait:
                time.sleep(random.uniform(0.5, 1.5))
                while claim not in self._mine and self._others(claim):
                    time.sleep(random.uniform(0.5, 1.5))
            yield held
        finally:
            if claim in self._mine:
                self._withdraw(claim)

    def held(self) -> set[str]:
        """The names of all locks that somebody holds or waits for."""
        listed = self._remote.list(FOLDER)
        if listed:
            self._set_clock()
        return {_name(claim) for claim, entry in listed.items() if self._lives(claim, entry)}

    def _got(self, claim: str) -> bool:
        """One try. Where others are in the way the claim stays only if it is the first."""
        if claim not in self._mine:
            self._write(claim)
        others = self._others(claim)
        if others and min(others) < claim:
            self._withdraw(claim)
        return not others

    def _others(self, claim: str) -> list[str]:
        """The claims of others to the same lock; those that are void are removed."""
        began = time.monotonic()
        listed = self._remote.list(FOLDER)
        if claim in listed:
            self._ahead = listed[claim].modified / 1e9 - began  # or later: it was written before this listing
        rivals = {other: self._lives(other, entry) for other, entry in listed.items() if other != claim and _name(other) == _name(claim)}
        self._remote.remove(f"{FOLDER}/{other}" for other, lives in rivals.items() if not lives)
        return [other for other, lives in rivals.items() if lives]

    def _lives(self, claim: str, entry: Entry) -> bool:
        where, process, *_ = [*claim.rpartition("@")[2].split("-"), "", ""]
        if where == machine() and not _alive(process):
            return False
        now = time.time() if self._ahead is None else time.monotonic() + self._ahead
        return now - entry.modified / 1e9 <= EXPIRY

    def _set_clock(self) -> None:
        """Learn the store's clock; one that may only be read is judged by the clock here."""
        with contextlib.suppress(RequestError):
            if self._ahead is not None:
                return
            began = time.monotonic()
            self._remote.put("store/clock", b"its time of change is the time of the store")
            if (entry := self._remote.entry("store/clock")) is not None:
                self._ahead = entry.modified / 1e9 - began

    def _write(self, claim: str) -> None:
        self._mine.add(claim)
        self._remote.put(f"{FOLDER}/{claim}", f"{os.uname().nodename} {os.getpid()}".encode())
        with self._guard:
            if self._beating is None or not self._beating.is_alive():
                self._beating = threading.Thread(target=self._beat, name="leases", daemon=True)
                self._beating.start()

    def _withdraw(self, claim: str) -> None:
        self._mine.discard(claim)
        try:
            self._remote.remove([f"{FOLDER}/{claim}"])
        except RequestError as error:
            log.warning("a lock could not be given back and is void in a minute: %s", error)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._guard:
                if not self._mine:
                    self._beating = None
                    return
            for claim in [*self._mine]:
                try:
                    self._remote.put(f"{FOLDER}/{claim}", f"{os.uname().nodename} {os.getpid()}".encode())
                    if claim not in self._mine:  # taken back meanwhile
                        self._remote.remove([f"{FOLDER}/{claim}"])
                except RequestError as error:
                    log.warning("a lock could not be kept up: %s", error)


def _name(claim: str) -> str:
    return claim.rpartition("@")[0]


@cache
def machine() -> str:
    """This machine since it was started, and this name space of its processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        space = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:12]
    return hashlib.sha256((boot + space).encode()).hexdigest()[:12]


def _process(number: int | None = None) -> str:
    """A process by its number and when it began, as numbers are given again."""
    number = number or os.getpid()
    try:
        state, *facts = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        began = "ended" if state == "Z" else facts[18]
    except (OSError, IndexError, ValueError):
        began = "0"
    return f"{number}.{began}"


def _alive(process: str) -> bool:
    number = process.partition(".")[0]
    return number.isdigit() and Path(f"/proc/{number}").exists() and _process(int(number)) == process
