"""Config space as people read it: IDs and dumps as ``lspci`` prints them, and what has changed."""

from __future__ import annotations


def ids(vendor: int, device: int) -> str:
    """Vendor and Device ID: "8086:10c9", as ``lspci -n`` prints them."""
    return f"{vendor:04x}:{device:04x}"


def hex_dump(config: bytes) -> str:
    """Sixteen bytes a line, as ``lspci -xxx`` prints it."""
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


def changes(before: bytes, after: bytes) -> tuple[str, ...]:
    """A line for every dword that differs: "004: was 00100406, is 00100402"; empty when all is the same."""
    rows = tuple(f"{offset:03x}: was {old:08x}, is {new:08x}" for offset, old, new in changed_dwords(before, after))
    return rows if len(before) == len(after) else (*rows, f"was {len(before)} bytes, is {len(after)} bytes")
