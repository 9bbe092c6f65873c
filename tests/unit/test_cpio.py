"""The writer of initramfs archives, read back by a reader of our own, and by cpio where there is one."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from harness.vm import cpio
from harness.vm.kernels import initramfs

NODES = (
    cpio.folder("sriov"),
    cpio.file("sriov/agent.pyz", b"PK\x03\x04odd"),
    cpio.file("init", b"#!/bin/sh\n", executable=True),
    cpio.link("sh", "bin/busybox"),
    cpio.Node("console", stat.S_IFCHR | 0o600, device=(5, 1)),
)


def read(archive: bytes) -> list[tuple[str, int, bytes, tuple[int, int]]]:
    """(path, mode, data, device) of every node of an archive, or of several laid end to end."""
    nodes = []
    at = 0
    while at < len(archive):
        if archive[at : at + 4] == bytes(4):  # padding between archives, in steps of four
            at += 4
            continue
        assert archive[at : at + 6] == b"070701", f"no header at {at}"
        field = [int(archive[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        name_at = at + 110
        name = archive[name_at : name_at + field[11] - 1].decode()
        data_at = -(-(name_at + field[11]) // 4) * 4
        at = -(-(data_at + field[6]) // 4) * 4
        if name != "TRAILER!!!":
            nodes.append((name, field[1], archive[data_at : data_at + field[6]], (field[9], field[10])))
    return nodes


def test_golden_header() -> None:
    numbers = (1, 0o100644, 0, 0, 1, 0, 2, 0, 0, 0, 0, 2, 0)  # inode, mode, …, size at 6, name at 11
    header = b"070701" + b"".join(b"%08X" % number for number in numbers)
    assert cpio.archive([cpio.file("a", b"xy")])[:116] == header + b"a\0" + b"xy\0\0"


def test_everything_comes_back() -> None:
    assert read(cpio.archive(NODES)) == [
        ("sriov", stat.S_IFDIR | 0o755, b"", (0, 0)),
        ("sriov/agent.pyz", stat.S_IFREG | 0o644, b"PK\x03\x04odd", (0, 0)),
        ("init", stat.S_IFREG | 0o755, b"#!/bin/sh\n", (0, 0)),
        ("sh", stat.S_IFLNK | 0o777, b"bin/busybox", (0, 0)),
        ("console", stat.S_IFCHR | 0o600, b"", (5, 1)),
    ]


def test_archives_laid_end_to_end_are_read_in_order() -> None:
    first, second = cpio.archive(NODES), cpio.archive([cpio.folder("sriov"), cpio.file("sriov/more", b"1")])
    assert len(first) % 512 == len(second) % 512 == 0
    assert [node[0] for node in read(first + second)][-2:] == ["sriov", "sriov/more"]


def test_same_nodes_give_the_same_bytes() -> None:
    assert cpio.archive(NODES) == cpio.archive(list(NODES))


@pytest.mark.parametrize(
    "nodes",
    [
        [cpio.file("a/b", b"")],
        [cpio.file("/a", b"")],
        [cpio.file("./a", b"")],
        [cpio.file("a", b"1"), cpio.file("a", b"2")],
        [cpio.file("d/f", b""), cpio.folder("d")],
    ],
    ids=["no folder", "absolute", "dot", "twice", "folder too late"],
)
def test_what_the_kernel_would_drop_silently_is_refused(nodes: list[cpio.Node]) -> None:
    with pytest.raises(ValueError, match="cpio: "):
        cpio.archive(nodes)


def test_initramfs_has_the_modules_in_their_order() -> None:
    made = initramfs(b"ELF", b"#!", [("kernel/drivers/virtio/virtio.ko", b"1"), ("kernel/fs/squashfs.ko", b"2")])
    nodes = {name: (mode, data) for name, mode, data, _ in read(made)}
    assert nodes["modules/order"][1] == b"virtio.ko\nsquashfs.ko\n"
    assert nodes["modules/squashfs.ko"][1] == b"2"
    assert nodes["init"] == (nodes["bin/busybox"][0], b"#!")
    assert nodes["init"][0] & 0o111


@pytest.mark.skipif(shutil.which("cpio") is None, reason="no cpio program here")
def test_cpio_reads_it_too(tmp_path: Path) -> None:
    subprocess.run(["cpio", "-id", "--quiet"], input=cpio.archive(NODES[:4]), cwd=tmp_path, check=True)
    assert (tmp_path / "sriov/agent.pyz").read_bytes() == b"PK\x03\x04odd"
    assert (tmp_path / "sh").readlink() == Path("bin/busybox")
