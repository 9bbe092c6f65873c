"""Machine spec → argv: the whole command line, against files that a person can read."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from harness.vm.machine import Image, Kernel, Qemu
from harness.vm.spec import Channels, MachineSpec, Memory, qemu_argv, root_port_address

GOLDEN = Path(__file__).parent / "golden"
QEMU = Qemu(("/qemu/ld.so", "/qemu/qemu"), (11, 1, 3), origin="pinned", key="q", data_dirs=(Path("/qemu/share"),))
KERNEL = Kernel("stock", "6.12.0", Path("/k/vmlinuz"), Path("/k/initramfs"), Path("/k/modules"), key="k")
IMAGE = Image("guest", Path("/i/root"), key="i")
CHANNELS = Channels("socket,fd=3", "socket,fd=4", "socket,fd=5")
SPEC = MachineSpec()


def argv(
    spec: MachineSpec = SPEC, qemu: Qemu = QEMU, memory: Memory | None = None, incoming: Path | None = None
) -> list[str]:
    made = qemu_argv(
        qemu, spec, CHANNELS, kernel=KERNEL, image=IMAGE, initrd=Path("/c/initrd"), memory=memory, incoming=incoming
    )
    return list(made)


CASES = {
    "cold": argv(),
    "template": argv(memory=Memory(Path("/t/memory"), share=True)),
    "clone": argv(memory=Memory(Path("/t/memory"), share=False), incoming=Path("/t/state")),
    "kvm": argv(replace(SPEC, accelerator="kvm")),
    "native-hotplug": argv(replace(SPEC, hotplug="native", caching_mode=True, root_ports=1)),
    "qemu-10.0": argv(qemu=replace(QEMU, version=(10, 0, 13))),
}


def lines(words: list[str]) -> str:
    """One option a line, as a person would write it."""
    text = "\n".join(" ".join(map(shlex.quote, words)).replace(" -", "\n-").splitlines())
    return text + "\n"


@pytest.mark.parametrize("name", CASES)
def test_argv_is_as_written_down(name: str) -> None:
    """A change of any command line shows in a diff of tests/unit/golden."""
    assert lines(CASES[name]) == (GOLDEN / f"{name}.argv").read_text()


def test_template_and_clone_differ_only_in_memory_and_state() -> None:
    """A clone that differs from its template in anything else would not be the same machine (its kernel is in RAM)."""
    template, clone = CASES["template"], CASES["clone"]
    kernel = {"-kernel", "/k/vmlinuz", "-initrd", "/c/initrd", "-append", template[template.index("-append") + 1]}
    assert set(template) - set(clone) == kernel | {word for word in template if "share=on" in word}
    own = {"-incoming", "file:/t/state"} | {word for word in clone if "share=off" in word}
    assert set(clone) - set(template) == own


def test_the_machine_type_is_versioned() -> None:
    """igb has FLR only from machine type 8.2 on, so "q35" alone would mean different devices."""
    assert any(word.startswith("pc-q35-11.1,") for word in CASES["cold"])
    assert any(word.startswith("pc-q35-10.0,") for word in CASES["qemu-10.0"])


def test_root_ports_are_where_the_guest_is_told() -> None:
    words = argv(replace(SPEC, root_ports=2))
    ports = [word for word in words if word.startswith("pcie-root-port")]
    assert [root_port_address(number) for number in range(2)] == ["0000:00:04.0", "0000:00:05.0"]
    assert ["addr=0x4" in ports[0], "addr=0x5" in ports[1]] == [True, True]


def test_a_comma_in_a_path_does_not_end_the_option() -> None:
    words = argv(memory=Memory(Path("/a,b/memory"), share=True))
    assert any("mem-path=/a,,b/memory,share=on" in word for word in words)
