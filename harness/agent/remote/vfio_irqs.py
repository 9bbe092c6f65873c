"""Interrupts of a function held through VFIO: one eventfd a vector, which counts, so a doubled interrupt is seen."""

from __future__ import annotations

import os
import select
import time

from harness.agent.remote import verbs
from harness.agent.remote import vfio_abi as abi
from harness.agent.remote.calls import Call, Wakeup, usage
from harness.agent.remote.vfio import do_writes, find, held, rows_of_writes
from harness.agent.remote.vfio_device import ask, eventfd

MOST_VECTORS = 2048  # of a function, by MSI-X


def enable(call: Call) -> verbs.Result:
    """``{handle, index?, count}``: eventfds for the vectors 0 to count - 1 (MSI-X unless another index is given)."""
    index = call.number("index", abi.MSIX_INDEX)
    count = call.number("count", low=1, high=MOST_VECTORS)
    with held(call) as device:
        offered = device.irqs.get(index, (0, 0))[0]
        if count > offered:
            raise usage(f"{device.bdf} has {offered} vectors of interrupt index {index}; {count} were asked for")
        if index in device.eventfds:
            device.disable_irqs(index)
        fds: list[int] = []
        try:
            fds.extend(eventfd() for _ in range(count))
            call.at(f"enabling {count} vectors of {device.bdf}")
            ask(device.fd, abi.DEVICE_SET_IRQS, abi.set_eventfds(index, fds))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        device.eventfds[index] = fds
    return {}


def disable(call: Call) -> verbs.Result:
    """``{handle, index?}``."""
    index = call.number("index", abi.MSIX_INDEX)
    with held(call) as device:
        device.disable_irqs(index)
    return {}


def fire(call: Call) -> verbs.Result:
    """``{handle, index?, vector}``: have the kernel signal the eventfd of a vector; it tries our plumbing."""
    index = call.number("index", abi.MSIX_INDEX)
    vector = call.number("vector", high=MOST_VECTORS - 1)
    with held(call) as device:
        ask(device.fd, abi.DEVICE_SET_IRQS, abi.fire_irq(index, vector))
    return {}


def wait(call: Call) -> verbs.Result:
    """``{handle, index?, expect?, quiet_s, timeout_s, trigger?}`` → counts by vector, and when the first of each came.

    Ends when ``expect`` interrupts have come (all vectors together) and then none for ``quiet_s``; without ``expect``,
    when none has come for ``quiet_s``; in any case after ``timeout_s``. ``trigger`` is a list of writes as in
    vfio.write_many, made when the clock starts: what arrives is timed from there. Interrupts of before that nobody has
    waited for are counted with a time of 0.
    """
    index = call.number("index", abi.MSIX_INDEX)
    expect = call.number("expect", 0)
    quiet_s, timeout_s = call.seconds("quiet_s", 0.0), call.seconds("timeout_s")
    trigger = rows_of_writes(call, "trigger")
    device = find(call)
    with held(call):
        fds = [os.dup(fd) for fd in device.eventfds.get(index, [])]  # ours until the end, whoever closes the device
    if not fds:
        raise usage(f"no vectors of {device.bdf} are enabled at index {index}; vfio.irq_enable first")
    try:
        counter = Counter(fds)
        counter.collect(0)
        with held(call):
            counter.start()
            do_writes(device, trigger)
        call.at(f"waiting for interrupts of {device.bdf} ({expect or 'any number'} expected)")
        complete = _wait(call, counter, expect, quiet_s, timeout_s)
    finally:
        for fd in fds:
            os.close(fd)
    return dict(counter.answer(), complete=complete)


def _wait(call: Call, counter: Counter, expect: int, quiet_s: float, timeout_s: float) -> bool:
    """True when what was expected has come."""
    wakeup = Wakeup(call)
    try:
        counter.poll.register(wakeup.fd, select.POLLIN)
        last_s = 0.0
        while True:
            now_s = counter.elapsed_ns() / 1e9
            enough = counter.total >= expect
            end_s = min(timeout_s, last_s + quiet_s) if enough else timeout_s
            if now_s >= end_s:
                return enough
            if counter.collect(end_s - now_s):
                last_s = counter.elapsed_ns() / 1e9
            call.check()
    finally:
        wakeup.close()


class Counter:
    """Interrupts by vector, with the time of the first of each."""

    def __init__(self, fds: list[int]) -> None:
        self.counts = [0] * len(fds)
        self.first_ns = [-1] * len(fds)
        self.total = 0
        self.poll = select.poll()
        self._vector = {fd: vector for vector, fd in enumerate(fds)}
        self._start_ns = 0
        for fd in fds:
            self.poll.register(fd, select.POLLIN)

    def start(self) -> None:
        self._start_ns = time.monotonic_ns()

    def elapsed_ns(self) -> int:
        return time.monotonic_ns() - self._start_ns

    def collect(self, seconds: float) -> int:
        """Wait up to ``seconds`` for interrupts and count them; how many."""
        came = 0
        for fd, _ in self.poll.poll(max(0.0, seconds) * 1000):
            vector = self._vector.get(fd)
            if vector is None:
                continue
            try:
                count = int.from_bytes(os.read(fd, 8), "little")
            except BlockingIOError:  # somebody else was quicker
                continue
            if self.first_ns[vector] < 0:
                self.first_ns[vector] = self.elapsed_ns() if self._start_ns else 0
            self.counts[vector] += count
            came += count
        self.total += came
        return came

    def answer(self) -> dict[str, object]:
        return {"counts": self.counts, "first_ns": self.first_ns, "elapsed_ns": self.elapsed_ns()}
