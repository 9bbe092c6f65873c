"""MSI-X, SR-IOV and PCI Express, decoded from what real functions show, and from the borders of the specification."""

from __future__ import annotations

import pytest
from pci_kit import put, recorded, with_extended, with_standard

from harness.pci.capabilities import Cap, ExtCap
from harness.pci.layout import (
    COMMAND,
    DEVICE_CAPABILITIES,
    DEVICE_CONTROL,
    DEVICE_CONTROL_2,
    EXPRESS_CAPABILITIES,
    LINK_CONTROL,
    MSIX_VECTOR_CONTROL,
    MSIX_VECTOR_MASKED,
    SLOT_CONTROL,
    SRIOV_CONTROL,
    SUPPORTED_PAGE_SIZES,
    SYSTEM_PAGE_SIZE,
    VF_BARS,
    Express,
    Msix,
    Sriov,
)
from harness.pci.registers import Register


def msix(control: int, table: int, pba: int) -> Msix:
    """A function whose MSI-X capability has these registers."""
    config = bytearray(with_standard((0x40, Cap.MSIX, 0)))
    put(config, 0x42, control.to_bytes(2, "little"))
    put(config, 0x44, table.to_bytes(4, "little"))
    put(config, 0x48, pba.to_bytes(4, "little"))
    found = Msix.of(bytes(config))
    assert found is not None
    return found


def test_msix_of_a_real_pf() -> None:
    assert Msix.of(recorded("igb-pf")) == Msix(
        offset=0x70,
        vectors=10,
        enabled=True,
        function_masked=False,
        table_bar=3,
        table_offset=0,
        pba_bar=3,
        pba_offset=0x2000,
    )


def test_msix_of_a_real_vf() -> None:
    seen = Msix.of(recorded("igb-vf1"))
    assert seen is not None
    assert (seen.vectors, seen.enabled, seen.table_bytes, seen.pba_bytes) == (3, False, 48, 8)


def test_sriov_of_a_real_pf_with_7_vfs_on() -> None:
    config = recorded("igb-pf")
    assert Sriov.of(config) == Sriov(
        offset=0x160,
        vf_enable=True,
        vf_mse=True,
        initial_vfs=8,
        total_vfs=8,
        num_vfs=7,
        first_vf_offset=0x80,
        vf_stride=2,
        vf_device_id=0x10CA,
    )
    assert [bar.read(config, 0x160) for bar in VF_BARS] == [0xFE80_000C, 0, 0, 0xFE82_000C, 0, 0]
    assert SRIOV_CONTROL.decode(SRIOV_CONTROL.read(config, 0x160))["ari_capable_hierarchy"] == 1


def test_page_sizes_of_a_real_pf() -> None:
    config = recorded("igb-pf")
    assert SUPPORTED_PAGE_SIZES.read(config, 0x160) == 0x553, "4 KiB to 4 MiB, as SR-IOV 3.3.12 asks for"
    assert SYSTEM_PAGE_SIZE.read(config, 0x160) == 1, "4 KiB, as Linux on x86 sets it"


def test_pci_express_capabilities_of_a_real_pf() -> None:
    seen = EXPRESS_CAPABILITIES.decode(EXPRESS_CAPABILITIES.read(recorded("igb-pf"), 0xA0))
    assert (seen["version"], seen["device_port_type"]) == (2, 0)


@pytest.mark.parametrize(
    ("register", "offset"),
    [(DEVICE_CONTROL, 0x08), (LINK_CONTROL, 0x10), (SLOT_CONTROL, 0x18), (DEVICE_CONTROL_2, 0x28)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_registers_that_a_recording_shows_empty_are_where_linux_has_them(register: Register, offset: int) -> None:
    assert (register.offset, register.width) == (offset, 16)  # PCI_EXP_DEVCTL and so on, pci_regs.h, 6.12


def test_the_mask_bit_of_a_vector_is_bit_0_of_its_fourth_dword() -> None:
    assert (MSIX_VECTOR_CONTROL, MSIX_VECTOR_MASKED) == (12, 1)


@pytest.mark.parametrize("name", ["igb-pf", "igb-vf1"])
def test_pci_express_of_real_functions(name: str) -> None:
    assert Express.of(recorded(name)) == Express(offset=0xA0, device_port_type=0, flr=True)


def test_command_of_a_real_pf() -> None:
    config = recorded("igb-pf")
    on = [name for name, value in COMMAND.decode(COMMAND.read(config, 0)).items() if value]
    assert on == ["memory_space", "bus_master", "intx_disable"]


@pytest.mark.parametrize(
    ("control", "vectors", "pba_bytes"), [(0, 1, 8), (63, 64, 8), (64, 65, 16), (0x7FF, 2048, 256)]
)
def test_the_table_size_is_one_less_than_the_vectors(control: int, vectors: int, pba_bytes: int) -> None:
    seen = msix(control, 0, 0)
    assert (seen.vectors, seen.table_bytes, seen.pba_bytes) == (vectors, 16 * vectors, pba_bytes)


def test_msix_enable_and_function_mask_are_bits_15_and_14() -> None:
    assert (msix(0x8000, 0, 0).enabled, msix(0x8000, 0, 0).function_masked) == (True, False)
    assert (msix(0x4000, 0, 0).enabled, msix(0x4000, 0, 0).function_masked) == (False, True)
    assert msix(0x3800, 0, 0) == msix(0, 0, 0), "reserved bits are nobody's"


def test_the_low_three_bits_of_table_and_pba_are_the_bar() -> None:
    seen = msix(0, 0xFFFF_FFFC, 0x0000_1005)
    assert (seen.table_bar, seen.table_offset, seen.pba_bar, seen.pba_offset) == (4, 0xFFFF_FFF8, 5, 0x1000)


def test_a_function_without_a_capability_has_none() -> None:
    bare = bytes(4096)
    assert (Msix.of(bare), Sriov.of(bare), Express.of(bare)) == (None, None, None)


def test_without_extended_config_space_there_is_no_sriov_to_see() -> None:
    assert Sriov.of(recorded("igb-pf")[:256]) is None


def test_a_capability_that_runs_past_the_end_is_an_error_that_names_the_register() -> None:
    with pytest.raises(IndexError, match="PBA Offset/BIR at 0x100 is past the 256 bytes"):
        Msix.of(with_standard((0xF8, Cap.MSIX, 0)))
    with pytest.raises(IndexError, match="SR-IOV Control at 0x1004 is past the 4096 bytes"):
        Sriov.of(with_extended((0x100, ExtCap.AER, 0xFFC), (0xFFC, ExtCap.SRIOV, 0)))


def test_flr_is_bit_28_of_device_capabilities() -> None:
    assert DEVICE_CAPABILITIES.mask("flr") == 1 << 28
    config = bytearray(recorded("igb-pf"))
    config[0xA7] &= ~0x10
    seen = Express.of(bytes(config))
    assert seen is not None
    assert not seen.flr


def test_the_power_indicator_of_a_slot_is_bits_9_to_8() -> None:
    assert SLOT_CONTROL.mask("power_indicator") == 0x0300
