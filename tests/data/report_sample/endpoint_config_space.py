"""Configuration space: what the endpoint says about itself."""

import pytest

from harness.report.steps import attach_text, step

BAR_MAP = """\
BAR 3 (VF 3), 16 KiB at 0xfe040000
  0x0000 ┌──────────────┐
         │ MSI-X table  │  3 vectors, 48 bytes
  0x0030 ├──────────────┤ ◄── PBA begins at 0x0020: 16 bytes inside the table
         │ PBA          │
  0x0038 └──────────────┘
"""


def test_capability_list_ends():
    """The list of capabilities ends in 0 and visits each offset once."""
    with step("walk the capabilities of PF 0000:01:00.0"):
        attach_text("capabilities", "40 PM\n50 MSI\n70 MSI-X\na0 PCI Express\n")


def test_initial_vfs_fit_in_total_vfs():
    """InitialVFs may not exceed TotalVFs."""


def test_msix_table_and_pba_do_not_overlap():
    """PCIe 6.0, 7.7.2: the PBA does not lie inside the MSI-X table."""
    with step("read the MSI-X capability of VF 3"):
        table, pba = range(0x30), range(0x20, 0x28)
    with step("compare the places of table and PBA"):
        attach_text("BAR map", BAR_MAP)
        overlap = min(table.stop, pba.stop) - max(table.start, pba.start)
        assert overlap <= 0, f"VF 3: the MSI-X PBA at BAR 3 + 0x20 lies {overlap} bytes inside the table, 0x00-0x2f"


def test_vf_device_id_is_not_in_its_header():
    """A VF's own Vendor ID and Device ID read as all ones."""
    pytest.skip("known deviation: QEMU's VFs show their IDs (SRIOV-VF-IDS; hw/pci/pcie_sriov.c, all versions)")


@pytest.mark.parametrize("function", ["PF", "VF 1", "VF 7"])
def test_reserved_bits_read_as_zero(function):
    """Reserved bits of the capabilities read as zero."""
