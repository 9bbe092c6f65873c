"""What every lab gives: machines with the endpoint in them, the same to a test wherever they are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from harness.host import Host, PhysicalFunction
from harness.profiles import Profile
from harness.vm.spec import Hotplug


class Endpoint(Protocol):
    """The device under test, as something that can be put in and taken out of its slot."""

    def plug(self, *, driver: str = "") -> PhysicalFunction:
        """Put it in, and wait until the host has found it and a driver has it; AssertionError when that fails.

        Args:
            driver: this one takes the PF, instead of the one that would take it by itself.
        """

    def unplug(self) -> None:
        """Take it out, and wait until the host has let go of it; AssertionError when it does not."""

    def request_unplug(self) -> None:
        """Ask for it and do not wait; QmpRefused carries QEMU's words."""

    def wait_unplugged(self, *, after: int) -> None:
        """Until it is out, or AssertionError; ``after`` is a mark of QMP's events from before the request."""

    def present(self) -> bool:
        """Whether the host shows it."""

    @property
    def pf(self) -> PhysicalFunction: ...


class Machine(Protocol):
    """A host with the endpoint, and the evidence of what happened to it."""

    @property
    def host(self) -> Host: ...

    @property
    def endpoint(self) -> Endpoint: ...

    @property
    def folder(self) -> Path: ...

    def evidence(self) -> Mapping[str, str]:
        """Texts by file name: command line, console, transcripts. Never fails: what cannot be had says why."""


class Lab(Protocol):
    """Where the endpoint is.

    Attributes:
        name: as ``--lab`` has it.
        profile: what the design promises.
    """

    name: str
    profile: Profile

    def describe(self) -> Mapping[str, str]:
        """What was chosen and why, for the header and the report."""

    def machine(
        self, name: str, *, hotplug: Hotplug = "acpi", plugged: bool = True, driver: str = ""
    ) -> AbstractContextManager[Machine]:
        """A machine of its own for one test, with the endpoint in it when ``plugged``."""
