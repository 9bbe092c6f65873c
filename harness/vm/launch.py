"""What to start: a QEMU and its command line, for the harness and as a script for a person."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.vm.machine import Qemu
from harness.vm.spec import IGNORE_SHARED, Channels

LINES = ("qmp", "console", "agent")


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start: a QEMU, and its command line for any given connection of the three lines.

    Attributes:
        incoming: a state that an older QEMU must be told by QMP to start from.
    """

    name: str
    qemu: Qemu
    argv: Callable[[Channels], tuple[str, ...]]
    incoming: Path | None = None


def ignore_shared() -> tuple[str, dict[str, object]]:
    """The QMP command, and its arguments, for a QEMU whose command line cannot say so."""
    return "migrate-set-capabilities", {"capabilities": [{"capability": IGNORE_SHARED, "state": True}]}


def run_script(launch: Launch) -> str:
    """The exact command line as a script for a person: the same machine, its lines as sockets in the current folder."""
    channels = Channels(*(f"socket,path={line}.sock,server=on,wait=off" for line in LINES))
    environment = [f"export {name}={shlex.quote(value)}" for name, value in launch.qemu.environment]
    words = " \\\n  ".join(shlex.quote(word) for word in launch.argv(channels))
    how = "# The console: socat -,raw,echo=0 unix-connect:console.sock   QMP: socat - unix-connect:qmp.sock"
    title = f"# {launch.name}, QEMU {launch.qemu.version_text}"
    return "\n".join(["#!/bin/sh", title, how, *_to_type(launch), *environment, f"exec {words}", ""])


def _to_type(launch: Launch) -> list[str]:
    """What a person must say on QMP to a QEMU that waits for a state."""
    if launch.incoming is None:
        return []
    command, arguments = ignore_shared()
    rows: list[dict[str, object]] = [
        {"execute": "qmp_capabilities"},
        {"execute": command, "arguments": arguments},
        {"execute": "migrate-incoming", "arguments": {"uri": f"file:{launch.incoming}"}},
    ]
    return ["# It waits for its state; say on QMP:", *(f"#   {json.dumps(row)}" for row in rows)]
