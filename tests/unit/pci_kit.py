"""Config space for tests: what a real device shows, and small ones made by hand."""

from __future__ import annotations

from pathlib import Path

CONFIG_BYTES = 4096
STATUS, CAPABILITIES_POINTER = 0x06, 0x34


def recorded(name: str) -> bytes:
    """A function's config space from tests/unit/data/NAME.hex."""
    config = bytearray(CONFIG_BYTES)
    for line in (Path(__file__).parent / "data" / f"{name}.hex").read_text().splitlines():
        if not line.startswith("#"):
            offset, _, row = line.partition(":")
            put(config, int(offset, 16), bytes.fromhex(row))
    return bytes(config)


def with_standard(*links: tuple[int, int, int], first: int | None = None, size: int = 256) -> bytes:
    """Config space with a standard chain of (offset, ID, next); the first link is where the pointer leads."""
    config = bytearray(size)
    config[STATUS] = 0x10
    config[CAPABILITIES_POINTER] = links[0][0] if first is None else first
    for offset, identity, following in links:
        put(config, offset, bytes([identity, following]))
    return bytes(config)


def with_extended(*links: tuple[int, int, int], size: int = CONFIG_BYTES) -> bytes:
    """Config space with an extended chain of (offset, ID, next), all of version 1."""
    config = bytearray(size)
    for offset, identity, following in links:
        put(config, offset, (identity | 1 << 16 | following << 20).to_bytes(4, "little"))
    return bytes(config)


def put(config: bytearray, offset: int, raw: bytes) -> None:
    config[offset : offset + len(raw)] = raw
