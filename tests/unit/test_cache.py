"""The cache, seen by one process: what it keeps, what it notices, what it leaves behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from harness.errors import CacheDamaged, HarnessError, HostLacks, UsageError
from harness.vm import manifest as manifests
from harness.vm.cache import Cache, Entry
from harness.vm.entry import beside

KEY = "0123456789abcdef" * 4


class Builder:
    """Builds an entry of two files, a link and a fact, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> Mapping[str, str]:
        self.calls += 1
        (folder / "sub").mkdir()
        (folder / "data").write_bytes(b"content of data")
        (folder / "sub/program").write_bytes(b"#!/bin/sh\n")
        (folder / "sub/program").chmod(0o700)
        (folder / "link").symlink_to("data")
        return {"release": "6.12"}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def builder() -> Builder:
    return Builder()


def obtain(cache: Cache, build: Callable[[Path], Mapping[str, str]], **more: object) -> Entry:
    return cache.obtain("image", "guest", KEY, build, inputs={"recipe": "x"}, **more)  # type: ignore[arg-type]


def fresh(cache: Cache) -> Cache:
    """The same cache as another process sees it: nothing checked yet."""
    return Cache(cache.root)


def test_second_obtain_finds_what_the_first_built(cache: Cache, builder: Builder) -> None:
    first = obtain(cache, builder)
    second = obtain(fresh(cache), builder)
    assert builder.calls == 1
    assert second == first
    assert second.path == cache.root / "image/guest-0123456789abcdef"
    assert second.file("data").read_bytes() == b"content of data"
    assert second.facts == {"release": "6.12"}
    assert second.manifest.inputs == {"recipe": "x"}


def test_another_key_is_another_entry(cache: Cache, builder: Builder) -> None:
    obtain(cache, builder)
    cache.obtain("image", "guest", "f" * 64, builder, inputs={})
    assert builder.calls == 2
    assert [entry.manifest.key[:4] for entry in cache.entries()] == ["0123", "ffff"]


def test_manifest_holds_sums_that_sha256sum_prints(cache: Cache, builder: Builder) -> None:
    entry = obtain(cache, builder)
    said = subprocess.run(["sha256sum", entry.file("data")], capture_output=True, text=True, check=True).stdout
    digests = {item.path: item.digest for item in entry.manifest.items}
    assert digests["data"] == f"sha256:{said.split()[0]}"
    assert digests["link"] == "link:data"


def rewritten_in_place(entry: Entry) -> None:
    """Same size, same mtime, same inode: only ctime tells."""
    path = entry.file("data")
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_facts(entry: Entry) -> None:
    path = entry.file(manifests.NAME)
    path.write_text(path.read_text().replace("6.12", "6.13"))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        pytest.param(rewritten_in_place, "data has sha256:", id="a byte flipped behind mtime's back"),
        pytest.param(lambda entry: os.truncate(entry.file("data"), 3), "data has 3 bytes instead of 15", id="cut"),
        pytest.param(lambda entry: entry.file("sub/program").unlink(), "sub/program", id="file missing"),
        pytest.param(lambda entry: entry.file("link").unlink(), "link", id="link missing"),
        pytest.param(lambda entry: entry.file(manifests.NAME).unlink(), "manifest.json is missing", id="no manifest"),
        pytest.param(lambda entry: entry.file(manifests.NAME).write_text("{"), "cannot be read", id="manifest cut"),
        pytest.param(lambda entry: entry.file(manifests.NAME).write_text("[]"), "cannot be read", id="not a manifest"),
        pytest.param(change_facts, "was changed", id="a fact changed"),
    ],
)
def test_damage_is_named_and_built_again(
    cache: Cache, builder: Builder, damage: Callable[[Entry], object], named: str
) -> None:
    good = obtain(cache, builder)
    damage(good)
    lines: list[str] = []
    again = obtain(fresh(cache), builder, progress=lines.append)
    assert builder.calls == 2
    assert len(lines) == 1
    assert named in lines[0]
    assert "building it again" in lines[0]
    assert again.manifest.items == good.manifest.items
    fresh(cache).verify(again, full=True)


def test_damage_that_cannot_be_repaired_names_the_entry(cache: Cache, builder: Builder) -> None:
    entry = obtain(cache, builder)
    rewritten_in_place(entry)

    def refuse(_folder: Path) -> Mapping[str, str]:
        raise HostLacks("get Debian packages", got="no network", fix="check the network")

    with pytest.raises(CacheDamaged) as caught:
        obtain(fresh(cache), refuse)
    for part in ("image guest", str(entry.path), "data has sha256:", "no network", "check the network"):
        assert part in str(caught.value)


def test_entry_of_another_key_is_not_handed_out(cache: Cache, builder: Builder) -> None:
    """16 digits of the key are in the folder's name; the manifest has all."""
    obtain(cache, builder)
    other = KEY[:16] + "f" * 48
    assert cache.obtain("image", "guest", other, builder, inputs={}).manifest.key == other
    assert builder.calls == 2


def test_stamp_spares_the_next_process_the_reading(
    cache: Cache, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    obtain(cache, builder)
    monkeypatch.setattr(manifests, "check", lambda *_: pytest.fail("read every byte although the stamp fits"))
    obtain(fresh(cache), builder)


def test_without_a_stamp_every_byte_is_read_and_a_stamp_is_left(
    cache: Cache, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = obtain(cache, builder)
    beside(entry.path, "checked").unlink()
    read: list[Path] = []
    monkeypatch.setattr(manifests, "check", lambda folder, _manifest: read.append(folder))
    obtain(fresh(cache), builder)
    obtain(fresh(cache), builder)
    assert read == [entry.path]


def test_full_verify_reads_although_the_stamp_fits(cache: Cache, builder: Builder) -> None:
    """What a disk does that returns other bytes than were written; here the stamp is forged."""
    entry = obtain(cache, builder)
    rewritten_in_place(entry)
    beside(entry.path, "checked").write_text(manifests.stamp(entry.path, entry.manifest))
    cache.verify(entry)
    with pytest.raises(CacheDamaged, match="data has sha256:"):
        cache.verify(entry, full=True)


def test_failed_build_leaves_its_log_and_nothing_else(cache: Cache) -> None:
    def fail(folder: Path) -> Mapping[str, str]:
        (folder / "build.log").write_text("E: it was the mirror\n")
        (folder / "half").write_bytes(b"x" * 1000)
        raise HarnessError("get Debian packages", got="exit status 25", fix="try again")

    with pytest.raises(HarnessError, match="whole log: ") as caught:
        obtain(cache, fail)
    log = Path(str(caught.value).rpartition("whole log: ")[2])
    assert log.read_text() == "E: it was the mirror\n"
    assert "try again" in str(caught.value)
    assert {path.name for path in cache.root.glob("image/*")} == {log.name, ".guest-0123456789abcdef.lock"}


def test_success_takes_the_log_of_the_failure_away(cache: Cache, builder: Builder) -> None:
    test_failed_build_leaves_its_log_and_nothing_else(cache)
    obtain(cache, builder)
    assert not list(cache.root.glob("image/.*.failed.log"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, PermissionError(13, "Permission denied")])
def test_whatever_ends_a_build_nothing_half_built_stays(cache: Cache, error: BaseException) -> None:
    def fail(folder: Path) -> Mapping[str, str]:
        (folder / "half").write_bytes(b"x")
        raise error

    with pytest.raises((KeyboardInterrupt, ZeroDivisionError, HostLacks)):
        obtain(cache, fail)
    assert not list(cache.root.glob("image/.*.tmp"))
    assert not cache.entries()


def test_too_little_room_is_refused_before_the_build(cache: Cache, builder: Builder) -> None:
    with pytest.raises(HostLacks, match=r"more than 1000000000 MB needed, \d+ MB free"):
        obtain(cache, builder, needs_bytes=10**15)
    assert builder.calls == 0


def test_entry_has_the_rights_of_its_folder(cache: Cache, builder: Builder) -> None:
    """A shared cache stays shared whatever the umask of who builds; an executable stays one."""
    cache.root.mkdir(mode=0o777)
    cache.root.chmod(0o2775)
    before = os.umask(0o077)
    try:
        entry = obtain(cache, builder)
    finally:
        os.umask(before)
    modes = {
        path.name: oct(path.stat().st_mode & 0o7777) for path in (entry.path.parent, *entry.path.parent.rglob("*"))
    }
    assert modes["image"] == modes[entry.path.name] == modes["sub"] == "0o2775"
    assert modes["data"] == modes["manifest.json"] == "0o644"
    assert modes["program"] == "0o755"
    assert modes[f".{entry.path.name}.lock"] == modes[f".{entry.path.name}.use"] == "0o664"


def test_entry_in_use_is_not_removed(cache: Cache, builder: Builder) -> None:
    entry = obtain(cache, builder)
    with entry.in_use(), entry.in_use(), pytest.raises(UsageError, match=f"it is in use by pid {os.getpid()}"):
        cache.remove(entry)
    cache.remove(entry)
    assert list(cache.root.rglob("*")) == [cache.root / "image"]


def test_in_use_finds_the_entries_of_files(cache: Cache, builder: Builder) -> None:
    entry = obtain(cache, builder)
    with cache.in_use(entry.file("sub/program"), Path("/bin/sh")), pytest.raises(UsageError, match="in use"):
        cache.remove(entry)


def test_removed_entry_cannot_be_used(cache: Cache, builder: Builder) -> None:
    entry = obtain(cache, builder)
    cache.remove(entry)
    with pytest.raises(CacheDamaged, match="somebody removed it"), entry.in_use():
        pytest.fail("handed out an entry that is gone")
    assert obtain(cache, builder).path.is_dir()
    assert builder.calls == 2


def test_damaged_folder_is_listed_and_can_be_removed(cache: Cache, builder: Builder) -> None:
    entry = obtain(cache, builder)
    entry.file(manifests.NAME).write_text("{")
    assert cache.entries() == ()
    ((path, why),) = cache.damaged()
    assert path == entry.path
    assert "cannot be read" in why
    cache.remove(path)
    assert cache.damaged() == ()


def test_default_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SRIOV_HARNESS_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert Cache.default().root == Path("/home/ann/.cache/sriov-harness")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert Cache.default().root == Path("/xdg/sriov-harness")
    monkeypatch.setenv("SRIOV_HARNESS_CACHE", "~/own")
    assert Cache.default().root == Path("/home/ann/own")
