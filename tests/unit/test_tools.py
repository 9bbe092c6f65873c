"""Programs run by builds: their output, their end, and that none outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.vm import tools
from harness.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]


def sh(script: str, folder: Path, within_s: float = 10.0) -> str:
    return tools.run(("/bin/sh", "-c", script), tried="try", log=folder / "log", within_s=within_s)


def gone(pid: int) -> bool:
    """Ended: no such process, or a zombie that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_returns_the_output_and_appends_to_the_log(tmp_path: Path) -> None:
    assert sh("echo one; echo two >&2", tmp_path) == "one\ntwo\n"
    sh("echo three", tmp_path)
    assert [line for line in (tmp_path / "log").read_text().splitlines() if not line.startswith("$")] == [
        "one",
        "two",
        "three",
    ]


@pytest.mark.parametrize(
    ("script", "within_s", "silence_s", "says"),
    [
        ("echo hello; exec sleep 60", 0.2, 180.0, "not done after 0.2 s"),
        ("while :; do echo hello; done", 0.2, 180.0, "not done after 0.2 s"),
        ("echo hello; exec sleep 60", 60.0, 0.1, "silent for 0.1 s"),
    ],
    ids=["hangs", "talks for ever", "falls silent"],
)
def test_program_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, within_s: float, silence_s: float, says: str
) -> None:
    monkeypatch.setattr(tools, "SILENCE_S", silence_s)
    began = time.monotonic()
    with pytest.raises(HarnessError, match=rf"{says}; its last lines:\n(    hello\n)*    hello"):
        sh(f"echo $$ > {tmp_path}/pid; {script}", tmp_path, within_s)
    assert time.monotonic() - began < 2
    assert gone(int((tmp_path / "pid").read_text()))


def test_program_dies_with_us_even_by_sigkill(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; exec sleep 60"
    code = (
        "import sys; from pathlib import Path; from harness.vm import tools\n"
        "tools.run(('/bin/sh', '-c', sys.argv[1]), tried='try', log=Path(sys.argv[2]), within_s=60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, script, str(tmp_path / "log")], cwd=REPOSITORY) as parent:
        pid = wait_until(
            "the child", lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), within_s=5
        )
        parent.send_signal(signal.SIGKILL)
    wait_until("the child's end", lambda: gone(int(pid)), within_s=2)


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/pid; exec sleep 60"
    with pytest.raises(HarnessError, match="not done"):
        sh(script, tmp_path, within_s=0.3)
    wait_until("the grandchild's end", lambda: gone(int((tmp_path / "pid").read_text())), within_s=2)


def test_program_outside_the_path_of_ordinary_users_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sbin/depmod"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(tools, "_SBIN", (str(program.parent),))
    assert tools.find("depmod", "kmod") == str(program)


def test_tree_runs_programs_through_its_own_loader() -> None:
    tree = tools.Tree(Path("/t"))
    lib = "/t/usr/lib/x86_64-linux-gnu"
    loader = (f"{lib}/ld-linux-x86-64.so.2", "--library-path", f"{lib}:/t/usr/lib")
    assert tree.argv("usr/bin/qemu") == (*loader, "/t/usr/bin/qemu")
    assert tree.argv("usr/bin/kmod", name="depmod") == (*loader, "--argv0", "depmod", "/t/usr/bin/kmod")


def test_locale_of_the_user_does_not_change_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "LC_ALL", "de_DE.UTF-8")
    assert sh('echo "$LC_ALL"', tmp_path) == "C.UTF-8\n"
