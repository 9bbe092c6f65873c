"""KVM where it works, TCG where it does not: decided by booting a kernel, never by the presence of /dev/kvm."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DeadlineExceeded, HarnessError, HostLacks, LabTrouble, unknown_name
from harness.vm.cache import Cache
from harness.vm.spec import Accelerator, MachineSpec
from harness.vm.template import Stack
from harness.vm.vm import Vm
from harness.waiting import wait_until

REQUESTS = ("auto", "kvm", "tcg")
PROBE_WITHIN_S = 5.0  # TCG takes 3 s: what is slower under KVM is not worth having
KVM = Path("/dev/kvm")


@dataclass(frozen=True, slots=True)
class Choice:
    """An accelerator, and why it was chosen."""

    accelerator: Accelerator
    reason: str


def choose(requested: str, cache: Cache, stack: Stack, folder: Path, progress: Callable[[str], None]) -> Choice:
    """Decide once; a probe's result is kept for this boot of the computer, this QEMU and this kernel.

    Raises:
        UsageError: an unknown request.
        HostLacks: KVM was asked for by name and does not work here.
    """
    check_request(requested)
    if requested == "tcg":
        return Choice("tcg", "as asked")
    trouble = _cannot_open() or _kept_probe(cache, stack, folder, progress)
    if not trouble:
        return Choice("kvm", "a probe boot worked")
    if requested == "kvm":
        raise _no_kvm(trouble)
    return Choice("tcg", f"no KVM: {trouble.splitlines()[0]}")


def check_request(requested: str) -> None:
    """What can be said of a request without a probe boot; raises what ``choose`` raises."""
    if requested not in REQUESTS:
        raise unknown_name("accelerator", requested, REQUESTS)
    if requested == "kvm" and (trouble := _cannot_open()):
        raise _no_kvm(trouble)


def _no_kvm(trouble: str) -> HostLacks:
    return HostLacks("use KVM", on=str(KVM), got=trouble, fix="pass --accel=tcg, or leave the choice to --accel=auto")


def _cannot_open() -> str:
    if not KVM.exists():
        return f"there is no {KVM}"
    try:
        os.close(os.open(KVM, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{KVM} does not open: {error.strerror}"
    return ""


def _kept_probe(cache: Cache, stack: Stack, folder: Path, progress: Callable[[str], None]) -> str:
    """What is wrong with KVM; empty when nothing is."""

    def build(_target: Path) -> Mapping[str, str]:
        progress("trying whether KVM can run a kernel")
        with cache.in_use(*stack.files):
            return {"trouble": probe(stack, folder)}

    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    key = hashlib.sha256("\0".join((boot, stack.qemu.key, stack.kernel.key)).encode()).hexdigest()
    inputs = {"boot": boot, "qemu": stack.qemu.version_text, "kernel": stack.kernel.release}
    return cache.obtain("kvm-probe", "kvm", key, build, inputs=inputs, progress=progress).facts["trouble"]


def probe(stack: Stack, folder: Path) -> str:
    """Boot the kernel under KVM until its first program speaks; what went wrong, or nothing."""
    token = secrets.token_hex(8)
    spec = MachineSpec(memory_mib=256, accelerator="kvm", root_ports=0, kernel_words=(f"sriov.probe={token}",))
    try:
        with Vm(stack.launch(spec, "KVM probe"), folder) as vm:
            wait_until("a kernel to start under KVM", lambda: _spoke(vm, token), within_s=PROBE_WITHIN_S)
    except DeadlineExceeded:
        return f"no kernel started within {PROBE_WITHIN_S:g} s"
    except HarnessError as error:
        return f"{error.got or error.tried}".strip()
    return ""


def _stopped(words: str) -> str:
    """What QEMU said, without its dump of registers."""
    said = [line for line in words.splitlines() if "=" not in line and not line.startswith("extra data")]
    return f"QEMU stopped the kernel with an internal error ({'; '.join(said)[:300] or 'and said nothing'})"


def _spoke(vm: Vm, token: str) -> bool:
    if f"SRIOV-PROBE {token}" in vm.console.text():
        return True
    vm.check_alive()
    status = vm.qmp.execute("query-status", within_s=2)["status"]
    if status == "internal-error":
        raise LabTrouble("run a kernel under KVM", got=_stopped(vm.last_words()))
    return False
