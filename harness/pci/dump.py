"""Config space as people read it: sixteen bytes a line, as ``lspci -xxx`` prints it."""

from __future__ import annotations


def hex_dump(config: bytes) -> str:
    lines = (config[start : start + 16] for start in range(0, len(config), 16))
    return "\n".join(f"{16 * number:02x}: {line.hex(' ')}" for number, line in enumerate(lines)) + "\n"


def changed_dwords(before: bytes, after: bytes) -> tuple[tuple[int, int, int], ...]:
    """(offset, before, after) of every dword that differs."""
    size = min(len(before), len(after))
    pairs = (
        (at, int.from_bytes(before[at : at + 4], "little"), int.from_bytes(after[at : at + 4], "little"))
        for at in range(0, size - 3, 4)
    )
    return tuple(row for row in pairs if row[1] != row[2])
