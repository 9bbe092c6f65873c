"""Registers: a table whose widths do not add up cannot be made, and decoding follows the table."""

from __future__ import annotations

import pytest

from harness.pci import layout
from harness.pci.registers import Register, field, reserved

CONTROL = Register("Control", 0x02, 16, (field("low", 4), reserved(3), field("middle"), field("high", 8)))
TABLES = [value for value in vars(layout).values() if isinstance(value, Register)]


@pytest.mark.parametrize("widths", [(11, 3, 1), (11, 3, 1, 2), (17,)], ids=["short", "long", "one-too-wide"])
def test_widths_that_do_not_add_up_are_refused(widths: tuple[int, ...]) -> None:
    # ACRN's parser declares MSI-X Message Control with 15 of 16 bits, and reads an enabled device as disabled.
    fields = tuple(field(f"field_{index}", width) for index, width in enumerate(widths))
    with pytest.raises(ValueError, match=f"Message Control: its fields are {sum(widths)} bits, the register is 16"):
        Register("Message Control", 0x02, 16, fields)


@pytest.mark.parametrize("width", [0, 7, 12, 64])
def test_no_register_has_another_width_than_8_16_or_32(width: int) -> None:
    with pytest.raises(ValueError, match=f"Odd: no register is {width} bits wide"):
        Register("Odd", 0, width)


def test_a_register_is_read_little_endian_from_its_capability() -> None:
    assert CONTROL.read(bytes.fromhex("0000 00ff 34 12 ff"), 2) == 0x1234
    assert Register("Byte", 0, 8).read(b"\x01\x02", 1) == 2
    assert Register("Dword", 0, 32).read(bytes.fromhex("78563412"), 0) == 0x12345678


@pytest.mark.parametrize(("size", "base"), [(4, 1), (3, 0), (0, 0)])
def test_a_register_past_the_end_is_an_error_that_says_so(size: int, base: int) -> None:
    with pytest.raises(IndexError, match=f"Control at {base + 2:#x} is past the {size} bytes that were read"):
        CONTROL.read(bytes(size), base)


def test_fields_are_decoded_from_bit_0_up_and_reserved_ones_left_out() -> None:
    assert CONTROL.decode(0xA5F3) == {"low": 3, "middle": 1, "high": 0xA5}
    assert CONTROL.decode(0x0070) == {"low": 0, "middle": 0, "high": 0}, "reserved bits are nobody's"


def test_masks_and_decoding_agree() -> None:
    assert (CONTROL.mask("low"), CONTROL.mask("middle"), CONTROL.mask("high")) == (0x000F, 0x0080, 0xFF00)
    with pytest.raises(KeyError, match="Control has no field middel"):
        CONTROL.mask("middel")


def test_a_register_without_fields_is_one_number() -> None:
    whole = Register("NumVFs", 0x10, 16)
    assert (whole.size_bytes, whole.decode(0xFFFF)) == (2, {})


@pytest.mark.parametrize("register", TABLES, ids=lambda register: register.name)
def test_the_tables_name_each_field_once(register: Register) -> None:
    names = [part.name for part in register.fields if part.name is not None]
    assert len(set(names)) == len(names)
    assert sum(register.mask(name) for name in names) < 1 << register.width
