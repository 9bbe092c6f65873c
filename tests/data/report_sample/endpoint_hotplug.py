"""Hotplug: functions come and go under a running guest."""

import pytest

from harness.errors import DeadlineExceeded, GuestLost, RemoteOSError
from harness.report.steps import attach_text, step

CONSOLE = "\n".join(f"[{index / 40:12.6f}] pci 0000:01:10.{index % 8}: enabling device" for index in range(400))


@pytest.fixture
def guest():
    with step("boot a guest with VF 1 passed through"):
        attach_text(
            "console.log", CONSOLE + "\n[   10.000001] Kernel panic - not syncing: Fatal exception in interrupt\n"
        )
        raise GuestLost(
            "wait for the guest's agent",
            on="guest of VF 1",
            got="Kernel panic - not syncing: Fatal exception in interrupt",
            fix="console.log in the evidence folder",
        )


def test_guest_sees_a_hot_added_vf():
    """A VF that is added while the guest runs is bound by its driver."""
    with step("device_add VF 2"):
        pass
    with step("wait for the guest's driver"):
        pass


def test_guest_survives_removal(guest):
    """A VF that is taken away while it carries traffic does not hurt the guest."""


def test_slot_is_quiet_after_removal():
    """After device_del, the slot says that it is empty."""
    with step("device_del VF 2"):
        raise DeadlineExceeded("waited 30 s for DEVICE_DELETED of VF 2", got="last seen: None")


def test_vf_is_given_back_to_its_driver():
    """When the guest has gone, the VF is bound to its former driver."""
    with step("bind VF 2 to igbvf"):
        raise RemoteOSError(16, "write /sys/bus/pci/drivers/igbvf/bind", on="0000:01:10.2")


def test_hotplug_events_are_counted():
    """Each plug gives one event."""
    with step("count the events of the slot"):
        return {"presence": 1}["attention"]
