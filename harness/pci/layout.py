"""The capabilities that the suite reads, as tables. Offsets and widths: PCIe Base 5.0, the sections beside each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from harness.pci.capabilities import Cap, ExtCap, find
from harness.pci.registers import Register, field, reserved

COMMAND = Register(  # 7.5.1.1.3
    "Command",
    0x04,
    16,
    (
        field("io_space"),
        field("memory_space"),
        field("bus_master"),
        reserved(3),
        field("parity_error_response"),
        reserved(1),
        field("serr"),
        reserved(1),
        field("intx_disable"),
        reserved(5),
    ),
)

# PCI Express capability, 7.5.3
EXPRESS_CAPABILITIES = Register(
    "PCI Express Capabilities",
    0x02,
    16,
    (field("version", 4), field("device_port_type", 4), field("slot"), field("interrupt_message", 5), reserved(2)),
)
DEVICE_CAPABILITIES = Register(  # 7.5.3.3
    "Device Capabilities",
    0x04,
    32,
    (
        field("max_payload_size_supported", 3),
        field("phantom_functions", 2),
        field("extended_tag"),
        field("l0s_latency", 3),
        field("l1_latency", 3),
        reserved(3),
        field("role_based_error_reporting"),
        reserved(2),
        field("captured_slot_power_value", 8),
        field("captured_slot_power_scale", 2),
        field("flr"),
        reserved(3),
    ),
)
DEVICE_CONTROL = Register("Device Control", 0x08, 16)  # 7.5.3.4
DEVICE_CONTROL_2 = Register("Device Control 2", 0x28, 16)  # 7.5.3.16
LINK_CONTROL = Register("Link Control", 0x10, 16)  # 7.5.3.7
SLOT_CONTROL = Register(  # 7.5.3.10
    "Slot Control",
    0x18,
    16,
    (
        reserved(6),
        field("attention_indicator", 2),
        field("power_indicator", 2),
        field("power_controller"),
        reserved(5),
    ),
)

# MSI-X capability, 7.7.2
MSIX_CONTROL = Register(
    "Message Control", 0x02, 16, (field("table_size", 11), reserved(3), field("function_mask"), field("enable"))
)
MSIX_TABLE = Register("Table Offset/BIR", 0x04, 32, (field("bir", 3), field("offset_8", 29)))
MSIX_PBA = Register("PBA Offset/BIR", 0x08, 32, (field("bir", 3), field("offset_8", 29)))
MSIX_ENTRY_BYTES = 16
MSIX_VECTOR_CONTROL = 0x0C
MSIX_VECTOR_MASKED = 1

# SR-IOV capability, 9.3.3
SRIOV_CONTROL = Register(
    "SR-IOV Control",
    0x08,
    16,
    (
        field("vf_enable"),
        field("vf_migration_enable"),
        field("vf_migration_interrupt_enable"),
        field("vf_mse"),
        field("ari_capable_hierarchy"),
        field("vf_10_bit_tag_requester_enable"),
        reserved(10),
    ),
)
INITIAL_VFS = Register("InitialVFs", 0x0C, 16)
TOTAL_VFS = Register("TotalVFs", 0x0E, 16)
NUM_VFS = Register("NumVFs", 0x10, 16)
FIRST_VF_OFFSET = Register("First VF Offset", 0x14, 16)
VF_STRIDE = Register("VF Stride", 0x16, 16)
VF_DEVICE_ID = Register("VF Device ID", 0x1A, 16)
SUPPORTED_PAGE_SIZES = Register("Supported Page Sizes", 0x1C, 32)
SYSTEM_PAGE_SIZE = Register("System Page Size", 0x20, 32)
VF_BARS = tuple(Register(f"VF BAR{number}", 0x24 + 4 * number, 32) for number in range(6))


@dataclass(frozen=True, slots=True)
class Msix:
    """A function's MSI-X capability, decoded."""

    offset: int
    vectors: int
    enabled: bool
    function_masked: bool
    table_bar: int
    table_offset: int
    pba_bar: int
    pba_offset: int

    @classmethod
    def of(cls, config: bytes) -> Self | None:
        """None when the function has none."""
        found = find(config, Cap.MSIX)
        if found is None:
            return None
        control = MSIX_CONTROL.decode(MSIX_CONTROL.read(config, found.offset))
        table = MSIX_TABLE.decode(MSIX_TABLE.read(config, found.offset))
        pba = MSIX_PBA.decode(MSIX_PBA.read(config, found.offset))
        return cls(
            offset=found.offset,
            vectors=control["table_size"] + 1,
            enabled=bool(control["enable"]),
            function_masked=bool(control["function_mask"]),
            table_bar=table["bir"],
            table_offset=table["offset_8"] << 3,
            pba_bar=pba["bir"],
            pba_offset=pba["offset_8"] << 3,
        )

    @property
    def table_bytes(self) -> int:
        return self.vectors * MSIX_ENTRY_BYTES

    @property
    def pba_bytes(self) -> int:
        return (self.vectors + 63) // 64 * 8


@dataclass(frozen=True, slots=True)
class Sriov:
    """A PF's SR-IOV capability, decoded."""

    offset: int
    vf_enable: bool
    vf_mse: bool
    initial_vfs: int
    total_vfs: int
    num_vfs: int
    first_vf_offset: int
    vf_stride: int
    vf_device_id: int

    @classmethod
    def of(cls, config: bytes) -> Self | None:
        """None when the function has none, or when its extended config space was not read."""
        found = find(config, ExtCap.SRIOV)
        if found is None:
            return None
        base = found.offset
        control = SRIOV_CONTROL.decode(SRIOV_CONTROL.read(config, base))
        return cls(
            offset=base,
            vf_enable=bool(control["vf_enable"]),
            vf_mse=bool(control["vf_mse"]),
            initial_vfs=INITIAL_VFS.read(config, base),
            total_vfs=TOTAL_VFS.read(config, base),
            num_vfs=NUM_VFS.read(config, base),
            first_vf_offset=FIRST_VF_OFFSET.read(config, base),
            vf_stride=VF_STRIDE.read(config, base),
            vf_device_id=VF_DEVICE_ID.read(config, base),
        )


@dataclass(frozen=True, slots=True)
class Express:
    """A function's PCI Express capability, as far as resets need it."""

    offset: int
    device_port_type: int
    flr: bool

    @classmethod
    def of(cls, config: bytes) -> Self | None:
        found = find(config, Cap.EXPRESS)
        if found is None:
            return None
        capabilities = EXPRESS_CAPABILITIES.decode(EXPRESS_CAPABILITIES.read(config, found.offset))
        device = DEVICE_CAPABILITIES.decode(DEVICE_CAPABILITIES.read(config, found.offset))
        return cls(found.offset, capabilities["device_port_type"], bool(device["flr"]))
