"""The machine the agent runs on: who it is, its clock, its random numbers, its power."""

# pathlib costs a slow guest more to import than this file does:
# ruff: noqa: PTH123

from __future__ import annotations

import binascii
import fcntl
import os
import sys
import threading
import time

from harness.agent import frames
from harness.agent.remote import verbs
from harness.agent.remote.calls import Call, Failure, usage

URANDOM = "/dev/urandom"
RNDRESEEDCRNG = 0x5207  # linux/random.h: _IO('R', 0x07), Linux 4.14 and later
EARLIER_RUN_S = 5.0  # for the devices of an earlier run to be closed
SYSRQ = {"poweroff": "o", "reboot": "b"}
REBOOT = {"poweroff": 0x4321FEDC, "reboot": 0x01234567}  # linux/reboot.h: LINUX_REBOOT_CMD_POWER_OFF, _RESTART


def hello(call: Call) -> verbs.Result:
    """Begin a run: ``{token, protocol, time_ns?, seed?}``.

    The seed (base64) goes into the kernel's random numbers, because clones of one frozen machine share theirs. The run
    before has been cancelled by the reader already; its devices are closed before this answers.
    """
    call.text("token")
    if call.number("protocol") != frames.PROTOCOL:
        raise usage(
            f"this agent speaks protocol {frames.PROTOCOL}, the caller {call.number('protocol')}; rebuild the image"
        )
    if "time_ns" in call.args:
        _only_our_own(call, "set the clock")
        time.clock_settime_ns(time.CLOCK_REALTIME, call.number("time_ns"))
    reseeded = "seed" in call.args and _stir(call)
    call.at("closing what an earlier run left open")
    closed = call.run.before.wait(min(EARLIER_RUN_S, call.left()))
    if not _identity:
        _identity.update(_who())
        call.after = _load_in_background
    return {**_identity, "monotonic_ns": time.monotonic_ns(), "reseeded": reseeded, "earlier_run_closed": closed}


_identity: dict[str, object] = {}  # asked once: a clone's first answer is mostly code that runs for the first time


def _who() -> dict[str, object]:
    kernel = os.uname()
    return {
        "protocol": frames.PROTOCOL,
        "python": ".".join(map(str, sys.version_info[:3])),
        "kernel": kernel.release,
        "hostname": kernel.nodename,
        "boot_id": _first_line("/proc/sys/kernel/random/boot_id"),
        "pid": os.getpid(),
        "uid": os.getuid(),
    }


def ping(_call: Call) -> verbs.Result:
    """The shortest answer."""
    return {"monotonic_ns": time.monotonic_ns()}


def cancel(call: Call) -> verbs.Result:
    """Cancel another call of this run: ``{id}``."""
    other = call.run.calls.get(call.number("id"))
    if other is not None and other is not call:
        other.end("cancelled")
    return {"found": other is not None}


def power(call: Call) -> verbs.Result:
    """Switch this machine off or on again, at once but after answering: ``{action: "poweroff" | "reboot"}``."""
    action = call.text("action")
    if action not in SYSRQ:
        raise usage(f"power knows {', '.join(SYSRQ)}; it got {action!r:.50}")
    _only_our_own(call, f"{action} it")
    call.after = lambda: _switch(action)
    return {"action": action}


def _only_our_own(call: Call, what: str) -> None:
    if not call.run.server.owned:
        raise usage(
            f"this machine is not ours alone; an agent may {what} only when it was started on a virtio-serial port"
        )


def _switch(action: str) -> None:
    """By sysrq; by reboot(2) where sysrq does not exist."""
    os.sync()
    try:
        with open("/proc/sysrq-trigger", "w", encoding="ascii") as file:
            file.write(SYSRQ[action])
    except OSError:
        import ctypes

        ctypes.CDLL(None).reboot(REBOOT[action])


def _stir(call: Call) -> bool:
    """Mix the seed in and let the kernel use it now (it would wait for minutes); False when not permitted."""
    try:
        seed = binascii.a2b_base64(call.text("seed"))
    except (binascii.Error, ValueError) as error:
        raise Failure("usage", f"the seed is not base64: {error}") from None
    try:
        with open(URANDOM, "wb", buffering=0) as pool:
            pool.write(seed)
            fcntl.ioctl(pool, RNDRESEEDCRNG)
    except OSError:  # not root (EPERM), or the pool is not ready yet (ENODATA) and reseeds itself anyway
        return False
    return True


def _load_in_background() -> None:
    threading.Thread(target=verbs.load_all, name="loader", daemon=True).start()


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""
