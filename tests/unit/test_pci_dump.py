"""Config space for people: IDs, dumps, and what has changed."""

from __future__ import annotations

from harness.pci.dump import changed_dwords, changes, hex_dump, ids

BEFORE = bytes.fromhex("8680c910 06041000")
AFTER = bytes.fromhex("8680c910 02041000")


def test_ids_are_written_as_lspci_does() -> None:
    assert ids(0x8086, 0x10C9) == "8086:10c9"
    assert ids(0x1, 0x2) == "0001:0002"


def test_a_dump_has_sixteen_bytes_a_line() -> None:
    assert hex_dump(bytes(range(18))) == "00: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f\n10: 10 11\n"


def test_changed_dwords_are_told_with_both_values() -> None:
    assert changed_dwords(BEFORE, AFTER) == ((4, 0x00100406, 0x00100402),)
    assert changes(BEFORE, AFTER) == ("004: was 00100406, is 00100402",)
    assert changes(BEFORE, BEFORE) == ()


def test_another_size_is_a_change() -> None:
    assert changes(BEFORE, BEFORE[:4]) == ("was 8 bytes, is 4 bytes",)
    assert changes(BEFORE, b"") == ("was 8 bytes, is 0 bytes",)
