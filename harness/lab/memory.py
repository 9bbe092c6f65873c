"""How many machines this computer's memory can hold at once."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from harness.errors import UsageError

# QEMU's own share beside guest RAM: 60 MB measured under TCG (11.1.3) with a translation buffer of 256 MB at most.
QEMU_MIB = 160
WORKER_MIB = 120  # a pytest worker with matplotlib loaded
# Hotplug cycles run on up to ten machines at once, which stay near what a fresh clone has for itself (60 to 100 MB).
MORE_MACHINES_MIB = 9 * 100


def available_mib(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """What the computer has free, or less where this process may not have all of it (a container)."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", (proc / "meminfo").read_text())
    return min([int(found[1]) // 1024 if found else 0, *_left_in_cgroups(proc, cgroups)])


def _left_in_cgroups(proc: Path, cgroups: Path) -> list[int]:
    """MiB that each cgroup around us still gives (v2: memory.max, less what is used and is no file's cache)."""
    left: list[int] = []
    with suppress(OSError, ValueError, StopIteration):  # no cgroup v2, so no limit that we could read
        path = next(line[3:] for line in (proc / "self/cgroup").read_text().splitlines() if line.startswith("0::"))
        here = cgroups / path.strip("/")
        for folder in (here, *here.parents):
            if not folder.is_relative_to(cgroups):
                break
            left += _left_in(folder)
    return left


def _left_in(folder: Path) -> list[int]:
    try:
        limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cached = re.search(r"^file (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
    except OSError:  # the root has no limit
        return []
    if limit == "max":
        return []
    return [max(0, int(limit) - int(used) + (int(cached[1]) if cached else 0)) >> 20]


def worker_mib(machine_mib: int) -> int:
    """What one worker may need: a machine whose guest uses all of its RAM, and the others of a hotplug test."""
    return machine_mib + QEMU_MIB + WORKER_MIB + MORE_MACHINES_MIB


def most_workers(machine_mib: int, available: int) -> int:
    """Workers that fit."""
    return available // worker_mib(machine_mib)


def check_workers(count: int, machine_mib: int, available: int | None = None) -> None:
    """Raise UsageError when ``count`` workers may need more memory than there is."""
    available = available_mib() if available is None else available
    most = most_workers(machine_mib, available)
    if count > max(1, most):
        need = count * worker_mib(machine_mib)
        raise UsageError(
            f"run {count} workers",
            got=f"their machines may need {need} MiB, and {available} MiB are free",
            fix=f"pass -n {max(1, most)} or fewer",
        )
