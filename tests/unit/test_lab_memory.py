"""``-n``: as many workers as memory holds, in a container too."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.lab.memory import available_mib, check_workers, most_workers, worker_mib

ONE = worker_mib(512)


def test_what_fits_is_taken() -> None:
    check_workers(4, 512, available=4 * ONE)
    check_workers(0, 512, available=0)


def test_more_is_refused_with_a_number_that_fits() -> None:
    with pytest.raises(UsageError, match=rf"run 5 workers: .* need {5 * ONE} MiB, .* are free\n.*pass -n 4 or fewer"):
        check_workers(5, 512, available=5 * ONE - 1)
    assert most_workers(512, 5 * ONE - 1) == 4


def test_one_worker_is_never_refused() -> None:
    """It may need less than the most that it can need; and there is no smaller number."""
    check_workers(1, 512, available=10)
    with pytest.raises(UsageError, match="pass -n 1 or fewer"):
        check_workers(2, 512, available=10)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """/proc and /sys/fs/cgroup of a computer with 8 GiB free, for a process in /outer/inner."""
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n")
    (tmp_path / "self/cgroup").write_text("1:name=systemd:/\n0::/outer/inner\n")
    return tmp_path


def limit(folder: Path, most: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used << 20}\n")
    (folder / "memory.stat").write_text(f"anon 1\nfile {cached << 20}\nfile_mapped 5\n")


def test_without_a_limit_all_that_is_free_counts(proc: Path) -> None:
    limit(proc / "cgroup/outer/inner", "max", 100, 0)
    assert available_mib(proc, proc / "cgroup") == 8192


def test_the_tightest_limit_around_us_counts_and_files_can_be_dropped(proc: Path) -> None:
    limit(proc / "cgroup/outer/inner", str(4096 << 20), 200, 100)
    limit(proc / "cgroup/outer", str(2048 << 20), 1500, 1000)
    assert available_mib(proc, proc / "cgroup") == 2048 - 1500 + 1000


def test_a_cgroup_that_is_over_its_limit_gives_nothing(proc: Path) -> None:
    limit(proc / "cgroup/outer/inner", str(100 << 20), 200, 0)
    assert available_mib(proc, proc / "cgroup") == 0


@pytest.mark.parametrize("text", ["", "4:memory:/x\n", "0::/gone\n"])
def test_no_cgroup_that_could_be_read_is_no_limit(proc: Path, text: str) -> None:
    (proc / "self/cgroup").write_text(text)
    assert available_mib(proc, proc / "cgroup") == 8192


def test_this_computer_has_some_memory() -> None:
    assert available_mib() > 0
