"""This terminal, connected to a machine's serial console."""

from __future__ import annotations

import os
import selectors
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import LabTrouble

LEAVE = b"\x1d"  # Ctrl-], as telnet has it
QUIET_S = 2.0  # after the end of input (a pipe), until the machine has said nothing for so long


def attach(path: Path) -> None:
    """Until Ctrl-], the end of the machine, or, after the end of standard input, until the machine is quiet.

    Raises:
        LabTrouble: nothing listens at ``path``.
    """
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(path))
        except OSError as error:
            got = f"{path}: {error.strerror}"
            raise LabTrouble("open the console", got=got, fix="is another terminal on it already?") from None
        print("(Ctrl-] leaves)", file=sys.stderr)  # noqa: T201  # for a person at a terminal
        line.sendall(b"\r")  # the machine comes from a template: its prompt was printed long ago
        with _raw(sys.stdin.fileno()):
            _copy(line, sys.stdin.fileno(), sys.stdout.fileno())
    print(file=sys.stderr)  # noqa: T201


def _copy(line: socket.socket, keyboard: int, screen: int) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        selector.register(keyboard, selectors.EVENT_READ)
        patience_s: float | None = None
        while True:
            ready = selector.select(patience_s)
            if not ready:
                return
            for key, _ in ready:
                if key.fileobj is line:
                    if not (said := line.recv(65536)):
                        return
                    os.write(screen, said)
                elif not (typed := os.read(keyboard, 4096)):
                    selector.unregister(keyboard)
                    patience_s = QUIET_S
                elif LEAVE in typed:
                    return
                else:
                    line.sendall(typed)


@contextmanager
def _raw(keyboard: int) -> Iterator[None]:
    """Every key goes to the machine, Ctrl-C too; the terminal is as before afterwards. A pipe stays as it is."""
    if not os.isatty(keyboard):
        yield
        return
    before = termios.tcgetattr(keyboard)
    try:
        tty.setraw(keyboard)
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
