"""What was chosen and why, for pytest's header: told without building anything that takes time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.errors import HostLacks
from harness.lab.registry import Request, open_lab, profile_of
from harness.vm.cache import Build, Cache, Entry, Progress, silent
from harness.vm.rundir import RunFolder

QUICK = ("initrd", "kvm-probe")  # made in a second or two: the initrd once an agent, the probe once a boot


class LookOnly(Cache):
    """A cache that builds only what is quick: so the header can say what would run, KVM or not."""

    def obtain(
        self,
        kind: str,
        name: str,
        key: str,
        build: Build,
        *,
        inputs: Mapping[str, str],
        progress: Progress = silent,
        needs_bytes: int = 0,
    ) -> Entry:
        if kind not in QUICK and self.find(kind, name, key) is None:
            raise HostLacks(f"{kind} {name}", got="not in the cache yet; made on first use")
        return super().obtain(kind, name, key, build, inputs=inputs, progress=progress, needs_bytes=needs_bytes)


def describe(request: Request, root: Path) -> Mapping[str, str]:
    """As a lab describes itself; where something is not there yet, that instead.

    Raises:
        UsageError: an unknown lab or profile, or a QEMU that is none.
        HostLacks: KVM was asked for by name and does not work.
    """
    profile = profile_of(request)
    try:
        with RunFolder() as folder:
            return open_lab(request, LookOnly(root), folder.path, silent).describe()
    except HostLacks as error:
        if "not in the cache yet" not in error.got:
            raise
        return {
            "lab": f"{request.lab}, profile {profile.name} ({profile.title})",
            "not yet": f"{error.tried}: {error.got}",
        }
