"""What only the endpoint suite shares."""

from __future__ import annotations

import pytest

from harness.host import PhysicalFunction

STUB = "pci-pf-stub"  # enables VFs and does nothing else (drivers/pci/pci-pf-stub.c, Linux 4.18)


@pytest.fixture
def quiet_pf(pf: PhysicalFunction) -> PhysicalFunction:
    """The PF with a driver that only enables VFs, so that nothing but the test touches the device."""
    pf.bind(STUB)
    return pf
