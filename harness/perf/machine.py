"""Which machine this is, as far as its speed depends on it, and how busy; no host name, address or user."""

from __future__ import annotations

import contextlib
import os
import platform
from typing import Any

from harness import identity


def facts() -> dict[str, Any]:
    """Processor, cores, memory, kind of kernel, GPUs, Python: what must agree for two times to be compared."""
    from harness import provenance

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    release = ".".join(platform.release().split(".")[:2])
    environment = provenance.environment()
    return {
        "processor": environment["processor"],
        "cores": environment["cores"],
        "memory_gib": round(memory),
        "kernel": f"{platform.system()} {release} {platform.machine()}",
        "gpus": environment["gpus"],
        "python": ".".join(environment["python"].split(".")[:2]),
    }


def fingerprint(known: dict[str, Any]) -> str:
    """A short name of such a machine."""
    return identity.address(known)[:12]


def load() -> list[float]:
    """Processes that wanted a processor, on average of 1, 5 and 15 minutes; empty where it is not known."""
    with contextlib.suppress(OSError, AttributeError):
        return [round(value, 2) for value in os.getloadavg()]
    return []
