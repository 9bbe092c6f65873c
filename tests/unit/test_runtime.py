"""Which QEMU: a host's own, the pinned one in the cache, and what is known to be wrong with some."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.vm import images, recipes, runtime, trees
from harness.vm.cache import Cache
from harness.vm.qemu_versions import DEFECTS, qemu_defects

SAYS = "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)"


def program(folder: Path, script: str) -> Path:
    path = folder / "qemu-system-x86_64"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_host_qemu_says_its_version(tmp_path: Path) -> None:
    path = program(tmp_path, f'[ "$*" = --version ] && echo "{SAYS}"')
    qemu = runtime.host_qemu(path)
    assert qemu.version == (10, 0, 13)
    assert qemu.argv == (str(path),)
    assert qemu.origin == str(path)


def test_host_qemu_is_found_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, f'echo "{SAYS}"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert runtime.host_qemu(Path("qemu-system-x86_64")).argv == (str(path),)


def test_key_changes_with_the_program(tmp_path: Path) -> None:
    keys = set()
    for extra in ("", "# rebuilt"):
        keys.add(runtime.host_qemu(program(tmp_path, f'echo "{SAYS}" {extra}')).key)
    keys.add(runtime.host_qemu(program(tmp_path, f'echo "{SAYS.replace("10.0.13", "10.0.12")}"')).key)
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo GNU bash, version 5.2", "does not say that it is QEMU, but: GNU bash, version 5.2"),
        ("echo 'libfoo.so: cannot open' >&2; exit 127", "but: libfoo.so: cannot open"),
        ("exit 3", "but: nothing"),
        ("exec sleep 60", "no answer to --version within 0.2 s"),
    ],
    ids=["another program", "does not start", "silent", "hangs"],
)
def test_what_is_not_qemu_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str) -> None:
    monkeypatch.setattr(runtime, "_ANSWER_WITHIN_S", 0.2)
    path = program(tmp_path, script)
    began = time.monotonic()
    with pytest.raises(UsageError, match=told) as caught:
        runtime.host_qemu(path)
    assert str(path) in str(caught.value)
    assert time.monotonic() - began < 1


def test_missing_and_not_executable_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        runtime.host_qemu(tmp_path / "qemu-system-x86_64")
    path = program(tmp_path, "")
    path.chmod(0o644)
    with pytest.raises(UsageError, match="not executable"):
        runtime.host_qemu(path)


def test_pinned_qemu_in_the_cache_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipes.image_recipe(runtime.NAME)
    cache = Cache(tmp_path)

    def build(folder: Path) -> dict[str, str]:
        trees.write_packages({"qemu-system-x86": "1:11.1.3"}, folder)
        return {"version": "11.1.3"}

    entry = cache.obtain("runtime", runtime.NAME, images.image_key(recipe), build, inputs={})
    monkeypatch.setattr("subprocess.Popen", lambda *_args, **_more: pytest.fail("started a process"))
    qemu = runtime.pinned_qemu(cache)
    assert qemu.version == (11, 1, 3)
    assert qemu.origin == "pinned"
    assert qemu.argv[0] == str(entry.path / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    assert qemu.argv[-1] == str(entry.path / "usr/bin/qemu-system-x86_64")
    assert [path.relative_to(entry.path).as_posix() for path in qemu.data_dirs] == [
        "usr/share/qemu",
        "usr/share/seabios",
        "usr/lib/ipxe/qemu",
    ]


def test_key_of_the_pinned_one_changes_with_debians_packages(tmp_path: Path) -> None:
    """The same recipe a month later is another QEMU, and templates of the first do not fit."""
    keys = set()
    for month, version in enumerate(("1:11.1.3", "1:11.1.4")):
        entry = Cache(tmp_path / str(month)).obtain(
            "runtime", "q", "ab" * 32, lambda folder, v=version: trees.write_packages({"q": v}, folder) or {}, inputs={}
        )
        keys.add(images.content_key(entry))
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((6, 2, 0), False),
        ((7, 0, 0), True),
        ((10, 0, 2), True),
        ((10, 0, 12), True),
        ((10, 0, 13), False),
        ((10, 1, 5), True),
        ((10, 2, 1), True),
        ((10, 2, 2), False),
        ((11, 0, 9), True),
        ((11, 1, 2), True),
        ((11, 1, 3), False),
        ((11, 2, 0), False),
        ((12, 0, 0), False),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_bars_above_4g_are_wrong_until_each_lines_fix(version: tuple[int, int, int], affected: bool) -> None:
    assert ("vf-bar-above-4g" in {defect.name for defect in qemu_defects(version)}) is affected


def test_every_defect_has_reason_and_source() -> None:
    assert all(defect.reason and defect.source and defect.fixed_in for defect in DEFECTS)
