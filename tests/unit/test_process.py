"""QEMU's process, with other programs in its place: it dies with us, can always be killed, its last words are kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import HostLacks
from harness.vm import process as process_module
from harness.vm.process import QemuProcess, exit_in_words
from harness.vm.rundir import ProcessId
from harness.waiting import wait_until

# Another process that starts a "QEMU", says its number, and waits to be killed.
STARTER = """
import os, signal, sys
from pathlib import Path
from harness.vm.process import QemuProcess
qemu = QemuProcess(["sleep", "60"], environment=os.environ, stderr=Path(sys.argv[1]), keep=sys.argv[2:] == ["keep"])
print(qemu.pid, flush=True)
signal.pause()
"""


class Exits:
    """Counts what on_exit is told."""

    def __init__(self) -> None:
        self.seen: list[int | None] = []
        self.event = threading.Event()

    def __call__(self, process: QemuProcess) -> None:
        self.seen.append(process.exit_status)
        self.event.set()


@pytest.fixture
def errors(tmp_path: Path) -> Path:
    return tmp_path / "qemu.stderr"


def start(errors: Path, *argv: str, on_exit: Exits | None = None) -> QemuProcess:
    return QemuProcess(argv, environment=os.environ, stderr=errors, on_exit=on_exit or Exits())


@pytest.fixture
def victim(errors: Path) -> Iterator[QemuProcess]:
    """A process that runs."""
    process = start(errors, "sleep", "60")
    yield process
    process.kill()


def sleeps(pid: int) -> bool:
    """Whether the wrapper in front has made way for the program."""
    return Path(f"/proc/{pid}/comm").read_text().strip() == "sleep"


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_dies_with_us_however_we_die(errors: Path, death: signal.Signals) -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(errors)], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    qemu = ProcessId.of(int(starter.stdout.readline()))
    assert qemu is not None
    wait_until("it to run", lambda: sleeps(qemu.pid), within_s=5)
    starter.send_signal(death)
    wait_until("it to be gone", lambda: not qemu.alive(), within_s=2)
    starter.communicate()


def test_it_does_not_start_when_we_died_before_it_could_be_tied_to_us(
    errors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of deaths after the prctl only; who was adopted by somebody else must end by itself."""
    before = process_module._wrapper(False)
    assert str(os.getpid()) in " ".join(before)
    monkeypatch.setattr(
        process_module, "_wrapper", lambda _keep: [word.replace(str(os.getpid()), "1") for word in before]
    )
    process = start(errors, "sleep", "60")
    assert process.wait(5)
    assert process.exit_status != 0


def test_one_that_is_kept_outlives_us(errors: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(errors), "keep"], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    qemu = ProcessId.of(int(starter.stdout.readline()))
    assert qemu is not None
    starter.kill()
    starter.communicate()
    assert qemu.alive()
    os.kill(qemu.pid, signal.SIGKILL)


def test_ctrl_c_at_our_terminal_is_not_for_it(victim: QemuProcess) -> None:
    assert os.getsid(victim.pid) == victim.pid


def test_a_stopped_process_is_killed_all_the_same(victim: QemuProcess) -> None:
    os.kill(victim.pid, signal.SIGSTOP)
    begin = time.monotonic()
    victim.kill()
    assert time.monotonic() - begin < 1
    assert victim.exit_status == -signal.SIGKILL


def test_what_it_started_is_killed_with_it(errors: Path, tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! >{tmp_path}/child; wait"
    process = start(errors, "sh", "-c", script)
    child = tmp_path / "child"
    wait_until("its child", lambda: child.exists() and child.read_text(), within_s=5)
    it = ProcessId.of(int(child.read_text()))
    assert it is not None
    process.kill()
    wait_until("the child to be gone", lambda: not it.alive(), within_s=2)


def test_killing_twice_and_killing_what_has_ended_is_fine(errors: Path) -> None:
    process = start(errors, "true")
    assert process.wait(5)
    process.kill()
    process.kill()
    assert process.exit_status == 0


def test_its_end_is_told_once_with_its_status(errors: Path) -> None:
    exits = Exits()
    start(errors, "sh", "-c", "exit 3", on_exit=exits)
    assert exits.event.wait(5)
    assert exits.seen == [3]


def test_its_end_is_told_though_it_ends_before_we_have_looked(errors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback may come before the constructor returns: it is given the object and needs no other."""
    began = threading.Thread.start

    def wait_for_the_callback(thread: threading.Thread) -> None:
        began(thread)
        if thread.name.endswith("-watch"):
            assert exits.event.wait(5)

    exits = Exits()
    monkeypatch.setattr(threading.Thread, "start", wait_for_the_callback)
    start(errors, "sh", "-c", "exit 4", on_exit=exits)
    assert exits.seen == [4]


def test_waiting_says_whether_it_ended(victim: QemuProcess) -> None:
    assert not victim.wait(0.05)
    assert victim.exit_status is None
    os.kill(victim.pid, signal.SIGKILL)
    assert victim.wait(5)


def test_last_words_are_the_end_of_standard_error(errors: Path) -> None:
    process = start(errors, "sh", "-c", "yes noise | head -n 2000 >&2; echo 'qemu: no such machine' >&2")
    process.wait(5)
    assert process.last_words().endswith("noise\nqemu: no such machine")
    assert len(process.last_words()) < 5000


def test_a_program_that_is_not_there_is_in_the_last_words(errors: Path) -> None:
    process = start(errors, "/nonexistent/qemu")
    process.wait(5)
    assert process.exit_status == 127
    assert "/nonexistent/qemu" in process.last_words()


def test_another_thread_may_not_start_one(errors: Path) -> None:
    """It would die with that thread."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            start(errors, "sleep", "60")
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])


def test_a_computer_without_setpriv_is_told_what_to_install(errors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module.shutil, "which", lambda _name: None)
    with pytest.raises(HostLacks, match=r"no setpriv\n.*install util-linux"):
        start(errors, "true")


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (1, "exit status 1"), (-9, "killed by SIGKILL"), (-40, "killed by signal 40")],
)
def test_an_exit_is_told_in_words(status: int, words: str) -> None:
    assert exit_in_words(status) == words


def test_a_worker_dies_with_what_started_it() -> None:
    """An xdist worker is started by xdist, not by us, and ties itself to its controller."""
    worker = "import time; from harness.vm.dying import die_with_parent; die_with_parent(); print('up', flush=True); "
    controller = textwrap.dedent(f"""
        import subprocess, sys
        worker = subprocess.Popen([sys.executable, "-c", {worker + "time.sleep(60)"!r}], stdout=subprocess.PIPE)
        worker.stdout.readline()
        print(worker.pid, flush=True)
        worker.wait()
    """)
    started = subprocess.Popen([sys.executable, "-c", controller], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    it = ProcessId.of(int(started.stdout.readline()))
    assert it is not None
    started.kill()
    started.communicate()
    wait_until("the worker to be gone", lambda: not it.alive(), within_s=2)
