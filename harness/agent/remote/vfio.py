"""Verbs on a function held through VFIO: open, registers, reset, close."""

# pathlib costs a slow guest more to import than this file does:
# ruff: noqa: PTH115, PTH116, PTH119

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time

from harness.agent.remote import config, verbs
from harness.agent.remote import vfio_abi as abi
from harness.agent.remote.calls import Call, usage
from harness.agent.remote.vfio_device import Device, driver_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
MOST_BYTES = 1 << 22
LOCK_LOOK_S = 0.05


def open_device(call: Call) -> verbs.Result:
    """``{bdf, vf_token?}`` → ``handle``, ``group``, ``reset``, ``regions``, ``irqs``: [[index, count, flags], …].

    The function must be bound to vfio-pci (or a driver derived from it) already.
    """
    folder = config.device_folder(call)
    bdf = os.path.basename(folder)
    vf_token = call.text("vf_token") if "vf_token" in call.args else ""
    if vf_token and not UUID.fullmatch(vf_token):
        raise usage(f"{vf_token!r:.50} is no UUID, which a VF token is")
    call.at(f"looking at {folder}")
    os.stat(folder)
    driver = driver_of(folder)
    if "vfio" not in driver:
        raise usage(f"{bdf} is bound to {driver or 'no driver'}; it must be bound to vfio-pci first", folder)
    try:
        group = os.path.basename(os.readlink(f"{folder}/iommu_group"))
    except FileNotFoundError:
        raise usage(f"{bdf} is in no IOMMU group: is there an IOMMU, and is it on (intel_iommu=on)?", folder) from None
    device = Device(call, bdf, group, vf_token)
    return {
        "handle": call.run.keep(device, device.close),
        "group": group,
        "reset": bool(device.flags & abi.DEVICE_RESETTABLE),
        "regions": [region.as_json() for region in device.regions.values()],
        "irqs": [[index, count, flags] for index, (count, flags) in device.irqs.items()],
    }


@contextlib.contextmanager
def held(call: Call) -> Iterator[Device]:
    """The device behind the argument ``handle``, for this call alone."""
    device = find(call)
    call.at(f"waiting for another call to be done with {device.bdf}")
    while not device.lock.acquire(timeout=LOCK_LOOK_S):
        call.check()
    try:
        if device.closed:
            raise usage(f"{device.bdf} has been closed")
        call.at(f"{call.verb} of {device.bdf}")
        yield device
    finally:
        device.lock.release()


def find(call: Call) -> Device:
    device = call.run.handles.get(call.number("handle"))
    if not isinstance(device, Device):
        raise usage(
            f"there is no open device {call.args.get('handle')!r:.20}; vfio.open gives handles, hello ends them"
        )
    return device


def close(call: Call) -> verbs.Result:
    """``{handle}``: give the function back."""
    device = find(call)
    call.at(f"closing {device.bdf}")
    call.run.release(call.number("handle"))
    return {}


def read(call: Call) -> verbs.Result:
    """``{handle, region, offset, width}`` → ``value``, by one access of that width; or ``size`` instead: a body."""
    region, offset = call.number("region"), call.number("offset")
    if "size" in call.args:
        size = call.number("size", low=1, high=MOST_BYTES)
        with held(call) as device:
            return {}, device.block(region, offset, size)
    width = call.width()
    with held(call) as device:
        return {"value": device.load(region, offset, width)}


def write(call: Call) -> verbs.Result:
    """``{handle, region, offset, width, value}``: one access of that width."""
    region, offset, width, value = call.number("region"), call.number("offset"), call.width(), call.number("value")
    with held(call) as device:
        device.store(region, offset, width, value)
    return {}


def write_many(call: Call) -> verbs.Result:
    """``{handle, writes: [[region, offset, width, value], …]}``: in this order, close together."""
    writes = rows_of_writes(call, "writes")
    with held(call) as device:
        do_writes(device, writes)
    return {}


def rows_of_writes(call: Call, name: str) -> list[Any]:
    """An argument that is a list of writes."""
    rows = call.args.get(name, [])
    good = isinstance(rows, list) and all(
        isinstance(row, list)
        and len(row) == 4
        and all(isinstance(cell, int) and not isinstance(cell, bool) and cell >= 0 for cell in row)
        and row[2] in (1, 2, 4)
        for row in rows
    )
    if not good:
        raise usage(f"{call.verb} needs {name!r}, a list of [region, offset, width, value]; it got {rows!r:.100}")
    return list(rows)


def do_writes(device: Device, writes: list[Any]) -> None:
    for region, offset, width, value in writes:
        device.store(region, offset, width, value)


def reset(call: Call) -> verbs.Result:
    """``{handle}``: VFIO_DEVICE_RESET. Interrupts must be enabled again afterwards: the kernel forgets the triggers."""
    with held(call) as device:
        call.at(f"resetting {device.bdf} by VFIO_DEVICE_RESET")
        start = time.monotonic_ns()
        fcntl.ioctl(device.fd, abi.DEVICE_RESET)
        return {"elapsed_ns": time.monotonic_ns() - start}
