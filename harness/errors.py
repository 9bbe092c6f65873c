"""Every exception of the harness, by who must act.

HarnessError                 what was tried, on what, what came back, what to do
├── UsageError               the person at the keyboard: an option, a name, a test
│   └── ProfileError         … a profile or a recipe: file, line, key
├── HostLacks                this computer lacks something: a program, a package, disk, memory, KVM
│   └── CacheDamaged         … a cache entry is not what was put there
└── LabTrouble               the lab, not the endpoint: the run says nothing about the device
    ├── GuestLost            a machine of ours is gone: QEMU exited, the kernel panicked, it fell silent
    ├── DeadlineExceeded     a named thing did not happen in time (also a TimeoutError)
    ├── TransportFailed      QMP or the agent's channel said something that makes no sense
    └── RemoteError          the agent could not do what it was asked
        └── RemoteOSError    … and the kernel beside the device said why (also an OSError, with its errno)

A wrong *device* is never one of these: it is a failed assertion or a finding.
"""

from __future__ import annotations

import os
from collections.abc import Mapping


class HarnessError(Exception):
    """Something that a person must read.

    Args:
        tried: what the harness was doing, as a phrase ("start QEMU").
        on: the thing it was done to, if that is not clear from ``tried``.
        got: what came back, in its own words.
        fix: what the reader should do next.

    Attributes:
        evidence: texts by file name that tell more, from a machine whose own files are gone when somebody reads this.
    """

    def __init__(self, tried: str, *, on: str = "", got: str = "", fix: str = "") -> None:
        self.tried = tried
        self.on = on
        self.got = got
        self.fix = fix
        self.evidence: Mapping[str, str] = {}
        super().__init__(tried)

    def __str__(self) -> str:
        text = self.tried
        if self.on:
            text += f" ({self.on})"
        if self.got:
            text += f": {self.got.rstrip()}"
        if self.fix:
            text += f"\n  → {self.fix}"
        return text


class UsageError(HarnessError):
    """An option, a name or a test asks for something that does not exist or cannot be."""


class ProfileError(UsageError):
    """A profile or recipe has a wrong key, type or value; the message names file, line and key."""


class HostLacks(HarnessError):
    """This computer lacks something; the message names it and says how to get it."""


class CacheDamaged(HostLacks):
    """A cache entry is not what was put there and could not be rebuilt."""


class LabTrouble(HarnessError):
    """The lab failed; the run says nothing about the endpoint."""


class GuestLost(LabTrouble):
    """A machine is gone: QEMU exited, its kernel panicked, or it fell silent."""


class DeadlineExceeded(LabTrouble, TimeoutError):
    """A named thing did not happen before its deadline."""


class TransportFailed(LabTrouble):
    """A channel (QMP, agent) broke or carried something that makes no sense."""


class RemoteError(LabTrouble):
    """The agent could not do what it was asked."""


class RemoteOSError(RemoteError, OSError):
    """The kernel beside the device refused, with its errno.

    A test that expects a refusal catches OSError and looks at ``errno``.
    """

    def __init__(self, code: int, tried: str, *, on: str = "") -> None:
        RemoteError.__init__(self, tried, on=on, got=f"{os.strerror(code)} (errno {code})")
        self.errno = code
        self.strerror = os.strerror(code)


def unknown_name(what: str, name: str, known: list[str] | tuple[str, ...]) -> UsageError:
    """The answer to a name that nobody knows: the names that are known."""
    return UsageError(f"unknown {what} {name!r}", fix=f"known: {', '.join(sorted(known)) or '(none)'}")
