"""A cache whose template is damaged, wanted by two at once, or on a full disk. Each in a cache of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from fault_kit import PROMISE_S, linked_cache, program, pytest_in

from harness.errors import CacheDamaged, HostLacks
from harness.lab import Request, open_lab
from harness.lab.emulated import EmulatedLab
from harness.vm.cache import Cache, Entry

TWO_TESTS = """
@pytest.mark.unplugged
@pytest.mark.parametrize("name", ["one", "two"])
def test_answers(machine, name):
    machine.vm.agent.call("ping")
    Path(name).write_text(f"{os.getpid()}")
"""


def copy_of_template(lab: EmulatedLab, root: Path) -> tuple[Cache, Entry]:
    """A cache with everything the lab needs, whose template may be damaged: it is a copy, holes and all."""
    frozen = lab.template().entry
    cache = linked_cache(lab._cache, root, without="template")
    copy = root / "template" / frozen.path.name
    copy.parent.mkdir()
    subprocess.run(["cp", "-r", "--sparse=always", "--reflink=auto", frozen.path, copy], check=True)
    return cache, Entry(copy, frozen.manifest)


def flip(path: Path, at: int) -> None:
    """Change one bit, and nothing that a look from outside would show but the times."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("name", ["state", "memory"])
def test_one_wrong_bit_in_a_template_is_noticed_before_a_machine_starts_from_it(
    lab: EmulatedLab, tmp_path: Path, name: str
) -> None:
    """… and the machine is booted again, which is left out here: a full disk refuses it."""
    cache, entry = copy_of_template(lab, tmp_path / "cache")
    flip(entry.file(name), entry.file(name).stat().st_size // 2)
    said: list[str] = []
    linked = open_lab(Request(accelerator="tcg"), cache, tmp_path / "run", said.append)
    with room(0), pytest.raises(CacheDamaged) as refused:
        linked.template()
    assert f"{name} has " in said[0]
    assert said[0].endswith("; building it again")
    assert f"build the damaged cache entry template {entry.manifest.name} again" in str(refused.value)
    assert "the disk is full" in str(refused.value)


@contextmanager
def room(free_bytes: int) -> Iterator[None]:
    """A disk with no more room than this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(total=1 << 40, used=0, free=free_bytes))
        yield


def test_two_workers_that_want_a_damaged_template_boot_it_once(lab: EmulatedLab, tmp_path: Path) -> None:
    cache, entry = copy_of_template(lab, tmp_path / "cache")
    flip(entry.file("state"), 1000)
    with pytest_in(tmp_path, TWO_TESTS, "-n", "2", SRIOV_HARNESS_CACHE=str(cache.root)) as run:
        assert run.end(within_s=180) == 0, run.output
        said = run.output
        run.check_nothing_left()
    assert said.count("building it again") == 1, said
    assert said.count(f"booting {lab.stack.image.name} once") == 1, said
    assert (tmp_path / "one").read_text() != (tmp_path / "two").read_text(), "two workers had a machine each"
    cache.verify(entry_of(cache), full=True)
    assert not list(cache.root.glob("template/.*.tmp"))


def entry_of(cache: Cache) -> Entry:
    (entry,) = (entry for entry in cache.entries() if entry.manifest.kind == "template")
    return entry


# Freezes a machine of 128 MiB in a cache on a disk that somebody else fills while the machine boots.
FULL_DISK = """
import os, sys, time
from dataclasses import replace
from pathlib import Path
from harness.errors import HostLacks
from harness.lab import Request, open_lab
from harness.vm.cache import Cache
from harness.vm.spec import MachineSpec
from harness.vm.template import template

def fill(line):
    print(line, flush=True)
    if "booting" in line:
        disk = os.statvfs(root)
        with (root / "somebody-elses").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - (20 << 20))
        print("filled", time.monotonic(), flush=True)

root, folder = Path(sys.argv[1]), Path(sys.argv[2])
lab = open_lab(Request(accelerator="tcg"), Cache(root), folder, fill)
try:
    template(Cache(root), lab.stack, MachineSpec(memory_mib=128), folder / "m", fill)
except HostLacks as error:
    print("refused", time.monotonic(), error, flush=True)
    print("left", *(path.name for path in (root / "template").iterdir() if path.is_dir()), flush=True)
"""


def test_a_disk_that_fills_while_a_template_is_made_is_named_and_nothing_half_built_is_left(
    lab: EmulatedLab, tmp_path: Path
) -> None:
    """Guest RAM is a file then, and QEMU dies of SIGBUS when that cannot grow."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small disk")
    root = tmp_path / "cache"
    linked_cache(lab._cache, tmp_path / "links", without="template")
    prepare = f"mkdir {root} && mount -t tmpfs -o size=160m small {root} && cp -a {tmp_path}/links/. {root}"
    script = f'{prepare} && exec "$0" -c "$1" {root} {tmp_path}/run'
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this computer gives no mount namespace")
    with program(tmp_path, "unshare", "-m", "sh", "-c", script, sys.executable, FULL_DISK) as run:
        assert run.end(within_s=120) == 0, run.output
        said = run.output
        run.check_nothing_left()
    assert f"build into the cache ({root}/template" in said, said
    assert "the disk is full" in said
    assert "SRIOV_HARNESS_CACHE" in said
    assert "\nleft\n" in said, "something half-built"
    filled, refused = (float(re.search(rf"^{word} ([\d.]+)", said, re.MULTILINE)[1]) for word in ("filled", "refused"))
    assert refused - filled < PROMISE_S
    assert "Traceback" not in said


def test_a_disk_without_room_for_a_template_is_refused_before_it_is_begun(lab: EmulatedLab, tmp_path: Path) -> None:
    cache = linked_cache(lab._cache, tmp_path / "cache", without="template")
    start = time.monotonic()
    linked = open_lab(Request(accelerator="tcg"), cache, tmp_path / "run", lambda _line: None)
    with room(100 << 20), pytest.raises(HostLacks, match="the disk is full") as refused:
        linked.template()
    assert time.monotonic() - start < PROMISE_S
    assert f"build into the cache ({cache.root / 'template'})" in str(refused.value)
    assert re.search(r"\b537 MB needed, 105 MB free", str(refused.value)), "the machine's RAM of 512 MiB"
