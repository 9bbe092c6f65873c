"""What would be chosen, told without building or booting anything: the lines of pytest's header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.errors import HarnessError, HostLacks
from harness.lab.registry import Request, open_lab, profile_of
from harness.vm.cache import Build, Cache, Entry, Progress, silent


class LookOnly(Cache):
    """A cache that builds nothing."""

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
        found = self.find(kind, name, key)
        if found is None:
            raise HostLacks(f"{kind} {name}", got="not in the cache yet; made on first use")
        return found


def describe(request: Request, root: Path) -> Mapping[str, str]:
    """As a lab describes itself; where something is not there yet, that instead.

    Raises:
        UsageError: an unknown lab or profile.
    """
    profile = profile_of(request)
    try:
        return open_lab(request, LookOnly(root), Path("/nonexistent"), silent).describe()
    except HarnessError as error:
        return {
            "lab": f"{request.lab}, profile {profile.name} ({profile.title})",
            "not yet": str(error).replace("\n", " "),
        }
