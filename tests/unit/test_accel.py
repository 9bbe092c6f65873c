"""Which accelerator: what is asked once a boot, what is said when KVM does not work. The probe itself: tests/lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HostLacks
from harness.vm import accel
from harness.vm.accel import Choice, choose
from harness.vm.cache import Cache
from harness.vm.machine import Image, Kernel, Qemu
from harness.vm.template import Stack

# As QEMU 11.1.3 says it on a computer whose KVM cannot run an ordinary kernel.
KVM_WORDS = """\
KVM internal error. Suberror: 1
extra data[0]: 0x0000000000000001
emulation failure
RAX=0000000001ad2b90 RBX=0000000004795b64 RCX=0000000001ad2b90 RDX=0000000000000005
CR0=80050033 CR2=0000000000000000 CR3=00000000047ce000 CR4=00000020
Code=05 83 fa 0f 77 b5 4d 01 fd 41 b8 01 00 00 00 89
"""


class Probe:
    """A probe with a known outcome, that counts."""

    def __init__(self, trouble: str) -> None:
        self.trouble = trouble
        self.count = 0

    def __call__(self, _stack: Stack, _folder: Path) -> str:
        self.count += 1
        return self.trouble


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """… of a computer whose /dev/kvm opens."""
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accel, "KVM", tmp_path / "kvm")
    return Cache(tmp_path / "cache")


def stack(qemu_key: str = "q") -> Stack:
    files = Path("/nonexistent")
    return Stack(
        Qemu(argv=("/usr/bin/qemu",), version=(11, 1, 3), origin="pinned", key=qemu_key),
        Kernel("stock", "6.12", files, files, files, "k"),
        Image("guest", files, "i"),
        files,
    )


def chosen(request: str, cache: Cache, of: Stack | None = None) -> Choice:
    return choose(request, cache, of or stack(), Path("/nonexistent"), lambda _line: None)


def test_kvm_is_chosen_when_a_kernel_ran(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "probe", Probe(""))
    assert chosen("auto", cache) == Choice("kvm", "a probe boot worked")
    assert chosen("kvm", cache) == Choice("kvm", "a probe boot worked")


def test_tcg_is_chosen_with_the_reason_when_none_did(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "probe", Probe("QEMU stopped the kernel\nand more"))
    assert chosen("auto", cache) == Choice("tcg", "no KVM: QEMU stopped the kernel")


def test_kvm_by_name_is_refused_when_none_did(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "probe", Probe("QEMU stopped the kernel"))
    with pytest.raises(HostLacks, match=r"use KVM \(.*/kvm\): QEMU stopped the kernel\n.*--accel=tcg"):
        chosen("kvm", cache)


def test_the_probe_is_made_once_for_each_qemu(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe("no")
    monkeypatch.setattr(accel, "probe", probe)
    for _ in range(3):
        chosen("auto", cache)
    assert probe.count == 1
    chosen("auto", cache, stack("another"))
    assert probe.count == 2


def test_tcg_by_name_makes_no_probe(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe("")
    monkeypatch.setattr(accel, "probe", probe)
    assert chosen("tcg", cache) == Choice("tcg", "as asked")
    assert probe.count == 0


def test_a_computer_without_kvm_makes_no_probe(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "KVM", Path("/nonexistent/kvm"))
    assert chosen("auto", cache) == Choice("tcg", "no KVM: there is no /nonexistent/kvm")


def test_qemus_dump_of_registers_is_left_out() -> None:
    assert accel._stopped(KVM_WORDS) == (
        "QEMU stopped the kernel with an internal error (KVM internal error. Suberror: 1; emulation failure)"
    )
    assert accel._stopped("") == "QEMU stopped the kernel with an internal error (and said nothing)"
