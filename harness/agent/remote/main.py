"""Options and start: ``agent.pyz --port PATH | --stdio | --fd N  [--sysfs ROOT]``."""

# pathlib costs a slow guest more to import than this file does:
# ruff: noqa: PTH110

from __future__ import annotations

import os
import signal
import sys
import time

from harness.agent.remote.link import Link
from harness.agent.remote.server import Server

USAGE = "usage: agent.pyz (--port PATH | --stdio | --fd N) [--sysfs ROOT]"
PORT_PAUSE_S = 0.05


def main(argv: list[str]) -> int:
    """Serve until the other side is gone; exit status 2 for a wrong command line."""
    try:
        options = _options(argv)
        sysfs = options.pop("--sysfs", "/sys")
        ((how, value),) = options.items()
    except ValueError as error:
        sys.stderr.write(f"agent: {error}\n{USAGE}\n")
        return 2
    try:
        link = {"--port": _port, "--stdio": _stdio, "--fd": _descriptor}[how](value)
    except (OSError, ValueError, OverflowError) as error:
        sys.stderr.write(f"agent: cannot use {how} {value}: {error}\n{USAGE}\n")
        return 2
    for number in (signal.SIGINT, signal.SIGHUP):  # Ctrl-C is for the harness, which cleans up through us
        signal.signal(number, _ignore)
    Server(link, sysfs=sysfs, owned=how == "--port").serve()
    sys.stderr.flush()
    os._exit(0)  # calls may be stuck in the kernel: no clean-up of an interpreter whose threads still run


def _options(argv: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    rest = list(argv)
    while rest:
        name = rest.pop(0)
        if name not in ("--port", "--stdio", "--fd", "--sysfs"):
            raise ValueError(f"unknown option {name!r}")
        if name != "--stdio" and not rest:
            raise ValueError(f"{name} needs a value")
        options[name] = "" if name == "--stdio" else rest.pop(0)
    if len(options) - ("--sysfs" in options) != 1:
        raise ValueError("one of --port, --stdio and --fd is needed")
    return options


def _ignore(_number: int, _frame: object) -> None:
    """A handler, unlike SIG_IGN, is not inherited by the programs that we start."""


def _port(path: str) -> Link:
    """A virtio-serial port; udev and the kernel may make its name a moment after we start."""
    for _ in range(100):
        if os.path.exists(path):
            break
        time.sleep(PORT_PAUSE_S)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return Link(fd, fd, lasting=True)


def _stdio(_value: str) -> Link:
    """The standard streams, moved out of the way: what anybody prints goes to stderr."""
    if os.isatty(0):
        raise ValueError("a terminal speaks no frames; the harness starts this program")
    streams = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return Link(*streams)


def _descriptor(value: str) -> Link:
    fd = int(value)
    os.set_inheritable(fd, False)
    return Link(fd, fd)
