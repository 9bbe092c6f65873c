"""Debian packages into a tar file, by ``mmdebstrap``: checked against Debian's keys, without root where that works.

``mmdebstrap`` chooses the way by itself: as root directly, else in a user namespace. Nothing is installed on this
computer; of its own apt it is only asked which mirror it uses.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError, HostLacks
from harness.vm import tools
from harness.vm.cache import Progress, silent

MIRROR_VARIABLE = "SRIOV_HARNESS_DEBIAN_MIRROR"  # a server with the archives ``debian`` and ``debian-security``
_ARCHIVES = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")

KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
WITHIN_S = 30 * 60.0

_APT_OPTIONS = (
    'Apt::Install-Recommends "false"',
    'Acquire::Languages "none"',
    'Acquire::Retries "1"',  # a host without network must hear so in seconds
    'Acquire::http::Timeout "15"',
    'Acquire::https::Timeout "15"',
)
# Every package with its version goes to the log, as the name of its .deb file; "extract" leaves no dpkg status to ask.
_LIST_ARCHIVES = """--extract-hook=ls "$1/var/cache/apt/archives\""""
_LIST_INSTALLED = """--customize-hook=chroot "$1" dpkg-query -W -f='${Package}_${Version}_${Architecture}.deb\\n'"""
_NO_NETWORK = re.compile(
    r"^.*(Temporary failure resolving|Could not resolve|Could not connect|Unable to connect|Connection failed"
    r"|Connection timed out|Network is unreachable|Cannot initiate the connection).*$",
    re.MULTILINE,
)
_NOT_ALLOWED = re.compile(r"^.*(unable to pick chroot mode|newuidmap|/etc/subuid|unshare\(|sysctl).*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Packages:
    """Which packages, from where, how deep.

    Attributes:
        suite: of Debian ("trixie"); its updates, security and backports are there too.
        variant: of mmdebstrap: "extract" unpacks and runs nothing, "essential" and larger install properly.
        include: in apt's own words: "python3", or "seabios/trixie-backports" to take one from there.
        exclude_paths: patterns that dpkg does not unpack ("/usr/share/doc/*").
    """

    suite: str
    variant: str
    include: tuple[str, ...]
    exclude_paths: tuple[str, ...] = ()


class Mirror(NamedTuple):
    """Where Debian's packages come from: the addresses of both archives."""

    main: str
    security: str

    @classmethod
    def at(cls, server: str) -> Mirror:
        """Both archives of one server."""
        base = server.rstrip("/")
        return cls(f"{base}/debian", f"{base}/debian-security")

    @classmethod
    def of_apt(cls, addresses: Iterable[str]) -> Mirror | None:
        """The one that this computer's apt uses; None when it uses none of Debian's."""
        known = [address.strip().rstrip("/") for address in addresses]
        main = next((address for address in known if address.endswith("/debian")), None)
        if main is None:
            return None
        security = next((address for address in known if address.endswith("/debian-security")), f"{main}-security")
        return cls(main, security)


def find_mirror() -> Mirror:
    """The mirror that the user named, else this computer's own.

    Raises:
        HostLacks: neither is there.
    """
    if named := os.environ.get(MIRROR_VARIABLE):
        return Mirror.at(named)
    try:
        said = subprocess.run(_ARCHIVES, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    found = Mirror.of_apt(said.splitlines())
    if found is None:
        raise HostLacks(
            "find a Debian mirror",
            got="this computer's apt uses none",
            fix=f"set {MIRROR_VARIABLE} to a server that has /debian and /debian-security",
        )
    return found


def sources(suite: str, *, keyring: Path, mirror: Mirror) -> tuple[str, ...]:
    """The lines of a sources.list: every part of the suite, signed by the keyring. Plain HTTP is safe: apt checks."""
    archives = (
        (mirror.main, suite),
        (mirror.main, f"{suite}-updates"),
        (mirror.security, f"{suite}-security"),
        (mirror.main, f"{suite}-backports"),
    )
    return tuple(f"deb [signed-by={keyring}] {archive} {part} main" for archive, part in archives)


def mmdebstrap_argv(
    packages: Packages, out: Path | None, *, keyring: Path, mirror: Mirror, hooks: Sequence[str] = ()
) -> tuple[str, ...]:
    """The command that makes the tar file ``out``, or (None) throws the system away when the hooks are done.

    Args:
        hooks: what happens in the system before it is packed: shell lines, in which "$1" is its root, and mmdebstrap's
            own words (``tar-in``, ``upload``, ``download``); not for the variant "extract", which runs nothing.
    """
    argv = ["mmdebstrap", f"--variant={packages.variant}", "--architectures=amd64"]
    argv += [f"--format={'null' if out is None else 'tar'}"]
    argv += [f"--include={','.join(packages.include)}"]
    argv += [f"--aptopt={option}" for option in _APT_OPTIONS]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in packages.exclude_paths]
    argv += [_LIST_ARCHIVES if packages.variant == "extract" else _LIST_INSTALLED]
    argv += [f"--customize-hook={hook}" for hook in hooks]
    target = "-" if out is None else str(out)
    return (*argv, packages.suite, target, *sources(packages.suite, keyring=keyring, mirror=mirror))


def find_keyring(candidates: Sequence[Path] = KEYRINGS) -> Path:
    """Debian's archive keys on this computer."""
    for path in candidates:
        if path.exists():
            return path
    raise HostLacks(
        "check Debian packages",
        got=f"no {candidates[0]}",
        fix="sudo apt install debian-archive-keyring (Ubuntu has it too)",
    )


def bootstrap(
    packages: Packages,
    out: Path | None,
    *,
    log: Path,
    hooks: Sequence[str] = (),
    progress: Progress = silent,
    within_s: float = WITHIN_S,
    needs_bytes: int = 0,
) -> None:
    """Make the tar file ``out`` of the packages and all they depend on (see ``mmdebstrap_argv``).

    Args:
        needs_bytes: room that unpacking takes at its peak, in $TMPDIR or /var/tmp.

    Raises:
        HostLacks: mmdebstrap, the keyring, the network or the right to make user namespaces is missing.
        HarnessError: anything else that mmdebstrap fails with, with its last lines.
        OSError: ENOSPC, naming the folder.
    """
    program = tools.find("mmdebstrap", "mmdebstrap")
    mirror = find_mirror()
    argv = mmdebstrap_argv(packages, out, keyring=find_keyring(), hooks=hooks, mirror=mirror)
    workplace = Path(os.environ.get("TMPDIR") or "/var/tmp")  # /tmp is memory on Debian 13
    if shutil.disk_usage(workplace).free < needs_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(workplace))
    progress(f"getting Debian packages: {', '.join(packages.include)}")
    try:
        tools.run(
            (program, *argv[1:]),
            tried="get Debian packages",
            log=log,
            within_s=within_s,
            progress=progress,
            environment={"TMPDIR": str(workplace)},
            room=workplace,
        )
    except HarnessError as error:
        raise _explained(error, log, mirror.main) from None


def _explained(error: HarnessError, log: Path, mirror: str) -> HarnessError:
    """The error with its cause in front, if the log shows one that we know."""
    said = log.read_text(encoding="utf-8", errors="replace")
    if found := _NO_NETWORK.search(said):
        return HostLacks(
            error.tried,
            on=mirror,
            got=found.group().strip(),
            fix="check network and proxy (http_proxy is honoured), or set SRIOV_HARNESS_DEBIAN_MIRROR to a mirror "
            "within reach; what is in the cache already needs no network",
        )
    if found := _NOT_ALLOWED.search(said):
        return HostLacks(
            error.tried,
            got=found.group().strip(),
            fix="sudo apt install uidmap, and give your user a line in /etc/subuid and /etc/subgid; or build as root "
            "into a cache that both of you read (SRIOV_HARNESS_CACHE)",
        )
    return error
