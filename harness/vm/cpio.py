"""A writer for cpio archives in the "newc" format: what Linux unpacks as its initramfs.

Archives may be laid end to end; the kernel unpacks them in order, so a second one adds files to the first.
Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_ALIGN = 512  # the kernel wants 4 between archives; 512 is what cpio programs write


@dataclass(frozen=True, slots=True)
class Node:
    """One file, folder, link or device.

    Attributes:
        path: relative, without "./" ("bin/busybox"); its folder must come before it.
        mode: type and permission bits, as in ``st_mode``.
        data: of a file its content, of a symbolic link its target.
        device: (major, minor) of a device node.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(path: str) -> Node:
    """A folder, 0755."""
    return Node(path, stat.S_IFDIR | 0o755)


def file(path: str, data: bytes, *, executable: bool = False) -> Node:
    """A file, 0644 or 0755."""
    return Node(path, stat.S_IFREG | (0o755 if executable else 0o644), data)


def link(path: str, target: str) -> Node:
    """A symbolic link."""
    return Node(path, stat.S_IFLNK | 0o777, target.encode())


def archive(nodes: Iterable[Node]) -> bytes:
    """The whole archive, padded to 512 bytes: the same nodes always give the same bytes (no times, no owners).

    Raises:
        ValueError: a path twice, not relative, or below a folder that has not come yet (the kernel drops it silently).
    """
    out = bytearray()
    seen: set[str] = set()
    for number, node in enumerate(nodes, 1):
        parent = node.path.rpartition("/")[0]
        if node.path.startswith(("/", "./")) or node.path in seen or (parent and parent not in seen):
            raise ValueError(f"cpio: {node.path!r} is absolute, comes twice, or comes before its folder")
        seen.add(node.path)
        out += _entry(node, number)
    out += _entry(Node("TRAILER!!!", 0), 0)
    return bytes(out) + bytes(-len(out) % _ALIGN)


def _entry(node: Node, number: int) -> bytes:
    name = node.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(node.mode) else 1
    fields = (number, node.mode, 0, 0, links, 0, len(node.data), 0, 0, *node.device, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + name
    return head + bytes(-len(head) % 4) + node.data + bytes(-len(node.data) % 4)
