"""What is taken out of a tar file of packages, and what is not."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

from harness.vm import trees


def add(
    tar: tarfile.TarFile,
    name: str,
    data: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    to: str = "",
    mode: int = 0o644,
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode, member.size = kind, to, mode, len(data)
    member.uid = member.gid = 0
    tar.addfile(member, io.BytesIO(data))


def everything(_path: str) -> bool:
    return True


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_files_links_and_hard_links_come_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        add(tar, "./usr/bin/", kind=tarfile.DIRTYPE)
        add(tar, "./usr/bin/qemu", b"ELF", mode=0o4755)
        add(tar, "./usr/bin/kvm", kind=tarfile.SYMTYPE, to="qemu")
        add(tar, "./usr/bin/same", kind=tarfile.LNKTYPE, to="./usr/bin/qemu")
        add(tar, "./etc/motd", b"not wanted")
    count = trees.unpack(tmp_path / "t.tar", tmp_path / "out", trees.matcher(["usr/bin/*"]))
    assert count == 3
    assert names(tmp_path / "out") == {"usr/bin/qemu", "usr/bin/kvm", "usr/bin/same"}
    assert (tmp_path / "out/usr/bin/kvm").read_bytes() == (tmp_path / "out/usr/bin/same").read_bytes() == b"ELF"
    assert (tmp_path / "out/usr/bin/qemu").stat().st_mode & 0o7777 == 0o755


def test_nothing_gets_out_of_the_tree(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        add(tar, "../outside", b"x")
        add(tar, "/outside", b"x")
        add(tar, "a/../../outside", b"x")
        add(tar, "up", kind=tarfile.SYMTYPE, to="../..")
        add(tar, "absolute", kind=tarfile.SYMTYPE, to="/etc")
        add(tar, "sub/inside", kind=tarfile.SYMTYPE, to="../good")
        add(tar, "null", kind=tarfile.CHRTYPE)
        add(tar, "good", b"x")
    trees.unpack(tmp_path / "t.tar", tmp_path / "out", everything)
    assert names(tmp_path) == {"t.tar", "out/good", "out/sub/inside"}


def test_modules_are_inflated_on_the_way(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        add(tar, "igb.ko.xz", lzma.compress(b"module" * 1000))
        add(tar, "plain.ko", b"module")
    trees.unpack(tmp_path / "t.tar", tmp_path / "out", everything, inflate=True)
    assert (tmp_path / "out/igb.ko").read_bytes() == b"module" * 1000
    assert names(tmp_path / "out") == {"igb.ko", "plain.ko"}


def test_pattern_crosses_no_slash() -> None:
    wanted = trees.matcher(["usr/lib/*.so*", "var/lib/dpkg/status"])
    assert wanted("usr/lib/libc.so.6")
    assert wanted("var/lib/dpkg/status")
    assert not wanted("usr/lib/deep/libc.so.6")
    assert not wanted("x/usr/lib/libc.so.6")


def test_overlay_belongs_to_root_and_scripts_can_be_run(tmp_path: Path) -> None:
    for base, name, data in (("a", "usr/sbin/init", "#!/bin/sh\n"), ("a", "etc/motd", "a"), ("b", "etc/motd", "b")):
        path = tmp_path / base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(data)
    (tmp_path / "b/etc/link").symlink_to("motd")
    trees.overlay_tar([tmp_path / "a", tmp_path / "b"], tmp_path / "o.tar")
    with tarfile.open(tmp_path / "o.tar") as tar:
        members = {member.name: member for member in tar}
        content = tar.extractfile("etc/motd")
        assert content is not None
        assert content.read() == b"b", "the later overlay lies on top"
    assert members["usr/sbin/init"].mode == 0o755
    assert members["etc/motd"].mode == 0o644
    assert members["etc/link"].linkname == "motd"
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, 0)}


def test_versions_are_read_from_names_of_archives() -> None:
    log = "partial\nqemu-system-x86_1%3a11.1.3+ds-1~bpo13+1_amd64.deb\npci.ids_0.0~2025.06.09-1_all.deb\nI: done\n"
    assert trees.package_versions(log) == {
        "qemu-system-x86": "1:11.1.3+ds-1~bpo13+1",
        "pci.ids": "0.0~2025.06.09-1",
    }
    assert trees.package_versions("mount_2.41.5-0+deb13u1_amd64.deb\n") == {"mount": "2.41.5-0+deb13u1"}
