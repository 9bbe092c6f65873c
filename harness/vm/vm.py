"""A running machine: one owner for the process, its three lines and its folder."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.agent.channel import Channel
from harness.agent.client import Agent
from harness.errors import DeadlineExceeded, GuestLost, HarnessError, HostLacks, LabTrouble
from harness.vm.console import PANIC_WORDS, Console
from harness.vm.launch import LINES, Launch, ignore_shared, run_script
from harness.vm.machine import Qemu
from harness.vm.process import QemuProcess, exit_in_words
from harness.vm.qmp import Qmp
from harness.vm.rundir import QEMU, ProcessId
from harness.vm.spec import Channels
from harness.waiting import wait_until

QEMU_WITHIN_S = 10.0  # to say its first word: it takes a tenth of a second when the computer has nothing else to do
SOCKET_NAME_BYTES = 107  # unix(7): sun_path, less its final 0
QUIT_WITHIN_S = 1.0  # then it is killed: nothing of it is worth waiting for
CONSOLE_WITHIN_S = 1.0  # to read what the console still held when QEMU ended


class Vm:
    """Starts with the ``with`` statement; nothing of it is left afterwards, except with ``keep``.

    Args:
        keep: it may be left up, so it is not ended by the kernel when we die; the next run ends it then.
        named: its lines are sockets in the folder, for a person to come in. A kept machine's are.

    Attributes:
        folder: console.log, qemu.stderr, run.sh and, at the end, qmp.jsonl.
        qmp, console: two of the three lines. agent: the third, once ``greet`` has returned.
    """

    def __init__(self, launch: Launch, folder: Path, *, keep: bool = False, named: bool = False) -> None:
        self._launch = launch
        self.folder = folder
        self._keep = keep
        self._named = named or keep
        self._lost: HarnessError | None = None
        self._stopping = False
        self._leave_up = False
        self._lock = threading.Lock()
        self._stack = ExitStack()

    @property
    def name(self) -> str:
        return self._launch.name

    @property
    def qemu(self) -> Qemu:
        return self._launch.qemu

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        """Start it.

        Raises:
            HostLacks: its files cannot be written, or it cannot be started.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                self._start(stack)
                self._stack = stack.pop_all()
        except OSError as error:
            if isinstance(error, HarnessError):
                raise
            got = f"{error.strerror or error} ({error.filename or self.folder})"
            raise HostLacks("start the machine", on=self.name, got=got, fix="is the disk of TMPDIR full?") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leave_up and self._lost is None:
            self._detach()
        else:
            self.stop()

    def greet(self, *, within_s: float) -> Agent:
        """Begin a run with the machine's agent: its first answer, with a clock and random numbers of this run.

        Raises:
            GuestLost: no answer in time, from QEMU or from the agent; the end of the console is in the message.
        """
        self._hear_qemu(min(within_s, QEMU_WITHIN_S))
        if self._launch.incoming is not None:
            self.qmp.execute(*ignore_shared())
            self.qmp.execute("migrate-incoming", {"uri": f"file:{self._launch.incoming}"})
        try:
            hello = self._channel.hello(deadline_s=within_s, time_ns=time.time_ns())
        except DeadlineExceeded as error:
            got = f"its agent did not answer in {within_s:g} s; console:\n{self.console.tail(8)}"
            raise GuestLost("start the machine", on=self.name, got=got, fix=self._look()) from error
        self.agent = Agent(self._channel, hello)
        return self.agent

    def _hear_qemu(self, within_s: float) -> None:
        try:
            self.qmp.greeted(within_s=within_s)
        except DeadlineExceeded as error:
            got = f"QEMU runs, but said nothing on QMP within {within_s:g} s"
            raise GuestLost("start the machine", on=self.name, got=got, fix=self._look()) from error

    def leave_up(self) -> None:
        """At the end, let go of the machine instead of ending it; it must have been started with ``keep``."""
        self._leave_up = self._keep

    def evidence(self) -> Mapping[str, str]:
        """What it has said so far, by file name, and how to start it by hand. Asks the machine nothing."""
        return {
            "run.sh": run_script(self._launch),
            "console.log": self.console.text(),
            "qmp.jsonl": self.qmp.transcript(),
            "qemu.stderr": self.last_words(),
        }

    @contextmanager
    def evidence_for_errors(self) -> Iterator[None]:
        """Give our evidence to an error that passes: it will be read when our folder is gone."""
        try:
            yield
        except Exception as error:
            if not getattr(error, "evidence", None):
                error.evidence = self.evidence()  # type: ignore[attr-defined]  # of an AssertionError, say
            raise

    def last_words(self) -> str:
        """What QEMU has written to standard error so far, its end."""
        return self._process.last_words()

    def check_alive(self) -> None:
        """Raise the reason when the machine is gone."""
        if self._lost is not None:
            raise self._lost

    def stop(self) -> None:
        """End QEMU: asked by QMP, killed when it does not answer; then let go of everything."""
        self._stopping = True
        try:
            self._quit()
        finally:
            self._stack.close()

    def _detach(self) -> None:
        """Its sockets are free for a person afterwards."""
        self._stopping = True
        self._stack.close()

    def _quit(self) -> None:
        if self._process.exit_status is None and self._lost is None:
            with suppress(LabTrouble):  # it may end before it answers, or hang: what follows settles both
                self.qmp.execute("quit", within_s=QUIT_WITHIN_S)
                self._process.wait(QUIT_WITHIN_S)
        self._process.kill()

    def _start(self, stack: ExitStack) -> None:
        (self.folder / "run.sh").write_text(run_script(self._launch))
        ours = self._spawn_listening(stack) if self._named else self._spawn_connected(stack)
        self.console = Console(ours["console"], self.folder / "console.log", self._panicked, self._why_lost)
        stack.callback(self.console.close)
        self.qmp = Qmp(ours["qmp"], self._why_lost)
        stack.callback(self._end_qmp)
        self._channel = Channel(ours["agent"], name=self.name, on_eof=self._why_lost)
        stack.callback(self._channel.close)

    def _spawn_connected(self, stack: ExitStack) -> dict[str, socket.socket]:
        """Socket pairs: connected before QEMU starts, no names on disk, and an end of file when either side dies."""
        pairs = {line: socket.socketpair() for line in LINES}
        theirs = {line: pair[1] for line, pair in pairs.items()}
        try:
            self._spawn(stack, Channels(*(f"socket,fd={theirs[line].fileno()}" for line in LINES)), theirs.values())
        finally:
            for end in theirs.values():
                end.close()  # QEMU's end must be the only one, or its death is no end of file
        return {line: pair[0] for line, pair in pairs.items()}

    def _spawn_listening(self, stack: ExitStack) -> dict[str, socket.socket]:
        """Named sockets that QEMU listens on, so that a person can come in after us."""
        paths = {line: self.folder / f"{line}.sock" for line in LINES}
        if (longest := max(len(os.fsencode(path)) for path in paths.values())) > SOCKET_NAME_BYTES:
            got = f"its sockets' names have {longest} bytes, and UNIX sockets {SOCKET_NAME_BYTES} at most"
            raise HostLacks("start the machine", on=str(self.folder), got=got, fix="set TMPDIR to a shorter path")
        self._spawn(stack, Channels(*(f"socket,path={paths[line]},server=on,wait=off" for line in LINES)), ())
        return {line: self._reach(path) for line, path in paths.items()}

    def _reach(self, path: Path) -> socket.socket:
        def reached() -> socket.socket | None:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(path))
            except OSError:
                connection.close()
                return None
            return connection

        connection = wait_until(f"QEMU to listen on {path}", reached, within_s=QEMU_WITHIN_S, alive=self)
        assert connection is not None
        return connection

    def _spawn(self, stack: ExitStack, channels: Channels, pass_ends: Iterable[socket.socket]) -> None:
        self._process = QemuProcess(
            self._launch.argv(channels),
            environment={**os.environ, **dict(self._launch.qemu.environment)},
            stderr=self.folder / "qemu.stderr",
            pass_fds=[end.fileno() for end in pass_ends],
            keep=self._keep,
            on_exit=self._exited,
        )
        stack.callback(self._end_process)
        if (started := ProcessId.of(self._process.pid)) is not None:
            started.write(self.folder / QEMU)

    def _end_process(self) -> None:
        if not self._leave_up or self._lost is not None:
            self._process.kill()

    def _end_qmp(self) -> None:
        (self.folder / "qmp.jsonl").write_text(self.qmp.transcript())
        self.qmp.close()

    def _exited(self, process: QemuProcess) -> None:
        if not self._stopping:
            self._lose(self._why_ended(process))

    def _panicked(self, reason: str) -> None:
        # An init that gives up says why, and then the kernel panics; what the kernel says after that is no reason.
        # Read from the file: the console's thread may call this before its constructor has returned.
        log = (self.folder / "console.log").read_text(errors="replace")
        before = log.partition(PANIC_WORDS)[0].rpartition("\n")[0].splitlines()[-3:]
        got = "\n".join([f"its kernel panicked: {reason}", *before])
        self._lose(GuestLost("use the machine", on=self.name, got=got, fix=self._look()))

    def _lose(self, reason: HarnessError) -> None:
        with self._lock:
            if self._lost is not None:
                return
            self._lost = reason
        for line in ("_channel", "qmp"):  # one may not be there yet: QEMU can end while it is being connected
            if (end := getattr(self, line, None)) is not None:
                end.lost(reason)

    def _why_lost(self) -> HarnessError:
        """The reason for an end of file on any line: known already, or QEMU's exit with its last words."""
        if self._lost is None and not self._process.wait(QUIT_WITHIN_S):
            return GuestLost("use the machine", on=self.name, got="QEMU closed a line but runs on", fix=self._look())
        return self._lost or self._why_ended(self._process)

    def _why_ended(self, process: QemuProcess) -> HarnessError:
        """The guest's last words count for more than QEMU's: with -no-reboot, a panic ends QEMU with status 0."""
        console: Console | None = getattr(self, "console", None)
        if console is not None and console.drained(CONSOLE_WITHIN_S) and self._lost is not None:
            return self._lost
        status = process.exit_status
        assert status is not None
        got = f"QEMU ended ({exit_in_words(status)})"
        if words := process.last_words():
            got += f", saying:\n{words}"
        elif console is not None and (words := console.tail(5)):
            got += f"; the console's last lines:\n{words}"
        return GuestLost("use the machine", on=self.name, got=got, fix=self._look())

    def _look(self) -> str:
        return f"{self.folder}/console.log and run.sh tell more; they are kept with the test's result"
