"""How much of the machine this container may use."""

from __future__ import annotations

import os
from pathlib import Path

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""`QUOTA PERIOD` in microseconds, or `max PERIOD`. Source: kernel documentation, cgroup v2, CPU controller."""


def available_cores(cpu_limit: Path = CPU_LIMIT) -> int:
    """Cores that this process may use at once: its affinity, cut by the container's CPU limit, at least 1.

    A pod limited to 2 cores on a 64-core node sees 64; as many threads would only wait for each other.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_limit.read_text().split()
    except (OSError, ValueError):  # no cgroup v2, or no limit file in the root group
        return cores
    if quota == "max":
        return cores
    return max(1, min(cores, round(int(quota) / int(period))))
