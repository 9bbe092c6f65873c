"""Defects in the endpoint's words, made of taps: registers, BARs, VFs, resets, and a device of another kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.agent.results import Answer
from harness.host.function import DEVICES
from harness.lab.emulated import ENDPOINT_ID
from harness.pci.address import Bdf
from harness.pci.capabilities import Cap, ExtCap, find
from harness.pci.layout import COMMAND
from harness.pci.registers import Register
from harness.waiting import wait_until
from tests.lab.mutants.model import Tap
from tests.lab.mutants.taps import (
    Ask,
    Call,
    When,
    after,
    answered,
    asked,
    asked_otherwise,
    on_agent,
    on_qmp,
    since,
    wrote,
)

PF = "0000:01:00.0"  # of emulated:igb: the bus below root port 0
VF_FILES = f"{DEVICES}/{PF}/sriov_numvfs"
BUS_MASTER = COMMAND.mask("bus_master")
CONFIG_BYTES = 4096
GHOST = {"driver": "virtio-rng-pci", "id": "ghost", "bus": "port1"}
GHOST_FOLDER = f"{DEVICES}/0000:02:00.0"
LINE_WITHIN_S = 5.0

Value = int | Callable[[int], int]


def vf(number: int) -> str:
    """The address of VF ``number`` (from 1) of the igb."""
    return str(Bdf.parse(PF).vf(number, first_offset=0x80, stride=2))


# Config space


def reads(function: str, register: Register, value: Value, capability: Cap | ExtCap | None = None) -> Tap:
    """A register of a function shows another value, however it is read."""
    return reads_when(asked("config.read", bdf=function), register, value, capability)


def reads_when(when: When, register: Register, value: Value, capability: Cap | ExtCap | None = None) -> Tap:
    def tap(ask: Ask, call: Call) -> Answer:
        answer = ask(call)
        if not when(call):
            return answer
        config = ask(call.but(offset=0, size=CONFIG_BYTES)).body
        base = base_of(config, capability)
        if base + register.offset + register.size_bytes > len(config):
            return answer  # the function shows no such capability just now
        wanted = value(register.read(config, base)) if callable(value) else value
        raw = wanted.to_bytes(register.size_bytes, "little")
        body = overlaid(answer.body, base + register.offset - call.args["offset"], raw)
        return Answer(answer.verb, answer.value, body)

    return on_agent(tap)


def overlaid(body: bytes, at: int, raw: bytes) -> bytes:
    """``body`` with ``raw`` at that place, as far as it reaches into it."""
    return bytes(raw[place - at] if at <= place < at + len(raw) else byte for place, byte in enumerate(body))


def base_of(config: bytes, capability: Cap | ExtCap | None) -> int:
    if capability is None:
        return 0
    found = find(config, capability)
    return found.offset if found else len(config)


def write(
    function: str, register: Register, value: Value, capability: Cap | ExtCap | None = None
) -> Callable[[Call], None]:
    """Really write a register of a function, behind the test's back."""

    def act(call: Call) -> None:
        config = call.agent.config_space(function)
        at = base_of(config, capability) + register.offset
        wanted = value(register.read(config, at - register.offset)) if callable(value) else value
        call.agent.config_write(function, at, register.size_bytes, wanted)

    return act


# What Linux holds of a function


def shows(path: str, text: str | Callable[[str], str]) -> Tap:
    """A file of the host holds another text."""
    return shows_when(asked("file.read", path=path), text if callable(text) else lambda _: text)


def shows_since(event: When, path: str, change: Callable[[str], str]) -> Tap:
    """… from the moment on when something has happened."""
    return shows_when(since(event, asked("file.read", path=path)), change)


def shows_when(when: When, change: Callable[[str], str]) -> Tap:
    return answered(when, body=lambda body: change(body.decode()).encode())


def resource(function: str, index: int, **ends: Callable[[int], int]) -> Tap:
    """A range of a function is another: ``start`` or ``end`` of line ``index`` of its ``resource``."""

    def change(text: str) -> str:
        lines = text.splitlines()
        start, end, flags = (int(word, 16) for word in lines[index].split())
        start, end = ends.get("start", int)(start), ends.get("end", int)(end)
        lines[index] = f"{start:#018x} {end:#018x} {flags:#018x}"
        return "\n".join(lines) + "\n"

    return shows(f"{DEVICES}/{function}/resource", change)


def no_resource(function: str, index: int) -> Tap:
    """A range of a function is not there."""

    def change(text: str) -> str:
        lines = text.splitlines()
        lines[index] = " ".join(["0x0000000000000000"] * 3)
        return "\n".join(lines) + "\n"

    return shows(f"{DEVICES}/{function}/resource", change)


def lists(when: When, name: str) -> Tap:
    """A folder of the host has one entry more."""
    return answered(when, entries=lambda rows: sorted([*rows, [name, "link", ""]]))


def vfs_switched(text: str = "*") -> When:
    """The test writes ``sriov_numvfs``."""
    return wrote(VF_FILES, text)


def turns_on(change: Callable[[int], int]) -> Tap:
    """Another number of VFs comes up than was asked for."""
    return asked_otherwise(vfs_switched("[1-9]"), lambda call: rewritten(call, str(change(int(call.body)))))


def rewritten(call: Call, text: str) -> Call:
    return Call(call.agent, call.verb, call.args, text.encode(), call.how, call.item)


# QEMU


def device(driver: str, properties: Mapping[str, Any] | None = None) -> Tap:
    """Another device, or the same with other properties, is plugged as the endpoint."""

    def tap(ask: Callable[..., Any], command: str, arguments: dict[str, Any]) -> Any:
        if command == "device_add" and arguments["id"] == ENDPOINT_ID:
            arguments = {**arguments, "driver": driver, **(properties or {})}
        return ask(command, arguments)

    return on_qmp(tap)


def ghost_when(when: When) -> Tap:
    """A function that nobody asked for comes up on the host, and stays."""

    def act(call: Call) -> None:
        call.machine.vm.qmp.execute("device_add", GHOST)
        call.agent.wait_for_path(f"{GHOST_FOLDER}/driver", within_s=LINE_WITHIN_S)

    return after(when, act)


def error_reported_when(when: When) -> Tap:
    """The port above the endpoint gets a bad symbol (Receiver Error, correctable), and the host's kernel tells of it.

    The port, because igb cannot send error messages: its Device Control has no enable bits (QEMU 11.1).
    """

    def act(call: Call) -> None:
        log = call.machine.host.log.mark()
        call.machine.vm.qmp.human("pcie_aer_inject_error -c port0 0x1")
        wait_until("the kernel to tell of the error", log.trouble, within_s=LINE_WITHIN_S)

    return after(when, act)
