"""How many machines this computer's memory can hold at once."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import UsageError

# QEMU's own share beside guest RAM: 60 MB measured under TCG (11.1.3) with a translation buffer of 256 MB at most.
QEMU_MIB = 160
WORKER_MIB = 120  # a pytest worker with matplotlib loaded


def available_mib() -> int:
    """MemAvailable of /proc/meminfo."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) // 1024 if found else 0


def most_workers(machine_mib: int, available: int) -> int:
    """Workers that fit when each has one machine whose guest uses all of its RAM."""
    return available // (machine_mib + QEMU_MIB + WORKER_MIB)


def check_workers(count: int, machine_mib: int, available: int | None = None) -> None:
    """Raise UsageError when ``count`` workers may need more memory than there is."""
    available = available_mib() if available is None else available
    most = most_workers(machine_mib, available)
    if count > max(1, most):
        need = count * (machine_mib + QEMU_MIB + WORKER_MIB)
        raise UsageError(
            f"run {count} workers",
            got=f"their machines may need {need} MiB, and {available} MiB are free",
            fix=f"pass -n {max(1, most)} or fewer",
        )
