"""Function Level Resets, done and timed beside the device.

The kernel sleeps 100 ms after an FLR and says nothing about a function that needs up to 1 s (drivers/pci/pci.c,
pci_dev_wait, 6.12), so the agent writes the bit itself and polls Command until it answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.agent.client import Agent
from harness.agent.results import FlrSample
from harness.host.function import Function

RESETS = 20
GIVE_UP_S = 2.0  # twice what the specification lets a function take to become ready (1.0 s, PCIe Base 6.6.1)


def reset_many(agent: Agent, function: Function, times: int = RESETS) -> tuple[FlrSample, ...]:
    """Reset one function again and again; its driver must be away.

    Raises:
        AssertionError: it does not offer FLR (or has no PCI Express capability).
    """
    express = function.express()
    assert express.flr, f"{function} offers no Function Level Reset (Device Capabilities bit 28 is 0)"
    return tuple(
        agent.flr(str(function.bdf), pcie_cap_offset=express.offset, timeout_s=GIVE_UP_S) for _ in range(times)
    )


def ready_times_ns(samples: Sequence[FlrSample]) -> list[int]:
    """How long each took, at most: from the write's beginning to the first answer, or to giving up if none came."""
    never = int(GIVE_UP_S * 1e9)
    return [sample.ready_from_before_write_ns if sample.ready else never for sample in samples]
