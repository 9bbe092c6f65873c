"""QEMU, in a way that can be started: the pinned one out of the cache, or one that this computer has."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from harness.errors import HostLacks, UsageError
from harness.vm import images, recipes
from harness.vm.cache import Cache, Entry, Progress, silent
from harness.vm.machine import Qemu
from harness.vm.tools import Tree

NAME = "qemu-runtime"
PROGRAM = "usr/bin/qemu-system-x86_64"
_VERSION = re.compile(r"QEMU emulator version (\d+)\.(\d+)\.(\d+)")
_ANSWER_WITHIN_S = 1.5  # QEMU takes a twentieth of a second
_PEAK_BYTES = 400_000_000


def pinned_qemu(cache: Cache, progress: Progress = silent) -> Qemu:
    """The QEMU that our images and templates are made for, built into the cache if it is not there.

    No process is started when it is there: its version was asked once, when it was built.
    """
    entry = obtain_runtime(cache, progress)
    major, minor, patch = map(int, entry.facts["version"].split("."))
    return Qemu(
        argv=Tree(entry.path).argv(PROGRAM),
        version=(major, minor, patch),
        origin="pinned",
        key=images.content_key(entry),
        environment=(("QEMU_MODULE_DIR", str(entry.file("usr/lib/x86_64-linux-gnu/qemu"))),),
        data_dirs=tuple(entry.file(f"usr/{name}") for name in ("share/qemu", "share/seabios", "lib/ipxe/qemu")),
    )


def obtain_runtime(cache: Cache, progress: Progress = silent) -> Entry:
    """The entry of the pinned QEMU.

    Raises:
        HostLacks: the archive has another QEMU than the recipe expects; or see ``Cache.obtain``.
    """
    recipe = recipes.image_recipe(NAME)

    def build(folder: Path) -> Mapping[str, str]:
        facts = images.fill_tree(recipe, folder, progress)
        version = ".".join(map(str, _ask_version(Tree(folder).argv(PROGRAM), PROGRAM, within_s=30.0)))
        if not f"{version}.".startswith(f"{recipe.expect_version}."):
            raise HostLacks(
                "build the pinned QEMU",
                on=f"{recipe.suite}: {', '.join(recipe.packages)}",
                got=f"the archive has QEMU {version}, the recipe expects {recipe.expect_version}",
                fix=f"set expect_version in {recipe.folder}/image.toml, and run the harness's own tests on it",
            )
        return {"version": version, **facts}

    return cache.obtain(
        "runtime",
        NAME,
        images.image_key(recipe),
        build,
        inputs=images.inputs(recipe),
        progress=progress,
        needs_bytes=_PEAK_BYTES,
    )


def host_qemu(path: Path) -> Qemu:
    """A QEMU of this computer, as given with ``--qemu``.

    Raises:
        UsageError: nothing there, not executable, or it does not answer ``--version`` as QEMU within 2 s.
    """
    found = path if path.is_absolute() or "/" in str(path) else _in_path(path)
    if not found.is_file():
        raise UsageError(
            "use QEMU", on=str(path), got="there is no such file", fix="give the path of a qemu-system-x86_64"
        )
    if not os.access(found, os.X_OK):
        raise UsageError("use QEMU", on=str(path), got="not executable", fix="give the path of a qemu-system-x86_64")
    version = _ask_version((str(found),), str(path), within_s=_ANSWER_WITHIN_S)
    status = found.resolve().stat()
    facts = (str(found.resolve()), str(status.st_size), str(status.st_mtime_ns), str(version))
    return Qemu(argv=(str(found),), version=version, origin=str(path), key=_digest("host", *facts))


def _in_path(name: Path) -> Path:
    for folder in os.get_exec_path():
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    return name


def _ask_version(argv: Sequence[str], name: str, *, within_s: float) -> tuple[int, int, int]:
    try:
        said = _output((*argv, "--version"), within_s)
    except subprocess.TimeoutExpired:
        got = f"no answer to --version within {within_s:g} s"
    except OSError as error:
        got = str(error.strerror)
    else:
        if found := _VERSION.search(said):
            major, minor, patch = map(int, found.groups())
            return major, minor, patch
        got = f"--version does not say that it is QEMU, but: {said.strip()[:200] or 'nothing'}"
    raise UsageError("use QEMU", on=name, got=got, fix="give the path of a qemu-system-x86_64")


def _output(argv: Sequence[str], within_s: float) -> str:
    """What a program prints, on either stream. At the deadline it is killed with everything that it has started."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(timeout=within_s)[0]
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
