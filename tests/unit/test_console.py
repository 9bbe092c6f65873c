"""The serial console: panics are seen however they arrive, patterns must end, and a dead line ends a wait at once."""

from __future__ import annotations

import errno
import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import DeadlineExceeded, GuestLost, UsageError
from harness.vm.console import LINE_LIMIT_BYTES, Console
from harness.waiting import wait_until

PANIC = b"Kernel panic - not syncing: VFS: Unable to mount root fs\r\n"
REASON = "VFS: Unable to mount root fs"


class Line:
    """A console and the machine's end of its line."""

    def __init__(self, folder: Path) -> None:
        self.panics: list[str] = []
        self.log = folder / "console.log"
        ours, self.machine = socket.socketpair()
        self.console = Console(ours, self.log, self.panics.append)

    def say(self, *chunks: bytes) -> None:
        """Each chunk is seen by itself."""
        size = self.log.stat().st_size if self.log.exists() else 0
        for chunk in chunks:
            self.machine.sendall(chunk)
            size += len(chunk)
            self.wait_for(size)

    def wait_for(self, size: int) -> None:
        wait_until(f"{size} bytes of log", lambda: self.log.exists() and self.log.stat().st_size >= size, within_s=5)

    def end(self) -> None:
        self.machine.close()
        assert self.console.drained(within_s=5)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    yield made
    made.machine.close()
    made.console.close()


def test_everything_is_kept(line: Line) -> None:
    line.say(b"one\r\n", b"two\r\nthr\xffee")
    assert line.console.text() == "one\ntwo\nthr\ufffdee", "read with universal newlines"
    assert line.console.tail(1) == "thr\ufffdee"


def test_a_panic_is_told_with_its_reason(line: Line) -> None:
    line.say(b"booting\r\n[    1.2] " + PANIC)
    assert line.panics == [REASON]


@pytest.mark.parametrize("at", range(1, len(PANIC)))
def test_a_panic_is_seen_across_the_border_of_two_chunks(line: Line, at: int) -> None:
    line.say(b"x\r\n" + PANIC[:at], PANIC[at:])
    line.end()
    assert line.panics == [REASON]


def test_a_panic_at_the_start_of_much_text_is_seen(line: Line) -> None:
    """The call trace behind it may arrive in the same chunk, and be longer than any line."""
    line.machine.sendall(PANIC + b"Call Trace: something\r\n" * 2000)
    line.end()
    assert line.panics == [REASON]


def test_a_panic_in_the_last_words_is_seen(line: Line) -> None:
    """QEMU may end before the line does."""
    line.say(PANIC.rstrip())
    assert line.panics == []
    line.end()
    assert line.panics == [REASON]


def test_a_long_reason_is_cut(line: Line) -> None:
    line.say(b"Kernel panic - not syncing: " + b"x" * 1000 + b"\r\n")
    assert line.panics == ["x" * 200]


def test_an_endless_line_is_not_kept_and_hides_no_later_panic(line: Line) -> None:
    assert len(line.console._watch(b"y" * 100_000)) == LINE_LIMIT_BYTES
    for _ in range(50):
        line.machine.sendall(b"y" * 4000)
    line.machine.sendall(b"\r\n" + PANIC)
    line.end()
    assert line.panics == [REASON]


def test_talk_about_panics_is_no_panic(line: Line) -> None:
    line.say(b"panic=-1 on the command line; a kernel panic would say so\r\nKernel panic\r\n")
    assert line.panics == []


def test_expect_takes_what_it_matched_and_no_more(line: Line) -> None:
    line.say(b"login: one\r\nlogin: two\r\n")
    assert line.console.expect(r"login: (\w+)\r", within_s=5)[1] == b"one"
    assert line.console.expect(r"login: (\w+)\r", within_s=5)[1] == b"two"


def test_expect_ends_at_its_deadline_with_what_was_said_last(line: Line) -> None:
    line.say(b"starting\r\nstill starting\r\n")
    with pytest.raises(DeadlineExceeded, match=r"waited 0.1 s for 'login: ' on the console: last lines:\n.*\nstill st"):
        line.console.expect("login: ", within_s=0.1)


@pytest.mark.parametrize(
    "pattern",
    [".*", r"a.+", r"\w+", "(.*)", "(a|b+)", "x{3,}", ".*?", r"\S*+", "[a-z]+", "foo$", r"foo\Z", r"\\*", "(?:ab)+"],
)
def test_a_pattern_without_an_end_is_refused(line: Line, pattern: str) -> None:
    """It would match whatever part of the text has arrived, so differently on every run."""
    with pytest.raises(UsageError, match="has no end"):
        line.console.expect(pattern, within_s=1)


@pytest.mark.parametrize("pattern", [r"a.*\n", r"\w+ ", "x{3,8}", "x?", r"foo\*", r"a\+", r"\+?", r"\$", "# ", r".*\)"])
def test_a_pattern_with_an_end_is_taken(line: Line, pattern: str) -> None:
    line.say(b"aaa xxxx foo* a+ $ # )\n")
    line.console.expect(pattern, within_s=5)


def test_a_dead_console_ends_expect_at_once_every_time(line: Line) -> None:
    line.say(b"last words\r\n")
    line.end()
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(GuestLost, match=r"it closed; last lines:\nlast words"):
            line.console.expect("login: ", within_s=30)
        assert time.monotonic() - start < 1


def test_a_console_that_dies_during_expect_ends_it_with_the_machines_reason(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    reason = GuestLost("use the machine", on="m", got="QEMU ended (killed by SIGKILL)")
    console = Console(ours, tmp_path / "log", lambda _: theirs.close(), lambda: reason)
    theirs.sendall(PANIC)  # the harness closes the line as soon as it has read this: while expect waits
    start = time.monotonic()
    with pytest.raises(GuestLost) as lost:
        console.expect("login: ", within_s=30)
    assert lost.value is reason
    assert time.monotonic() - start < 1
    console.close()


class FullDisk(io.BytesIO):
    """A file that takes nothing."""

    def write(self, _data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_the_evidence_and_not_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An undrained console would stop the guest, and hide its panic."""
    panics: list[str] = []
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(Path, "open", lambda *_, **__: FullDisk())
    console = Console(ours, tmp_path / "log", panics.append)
    theirs.sendall(b"one\r\n" + PANIC)
    console.expect("one", within_s=5)
    theirs.close()
    assert console.drained(within_s=5)
    assert panics == [REASON]
    console.close()


def test_what_is_typed_arrives(line: Line) -> None:
    line.console.send("reboot\r")
    assert line.machine.recv(100) == b"reboot\r"


def test_closing_ends_the_wait_of_the_draining_thread(line: Line) -> None:
    start = time.monotonic()
    line.console.close()
    assert line.console.drained(within_s=0.1)
    assert time.monotonic() - start < 1
