"""One piece of work on several machines at once: what mostly waits (5 s for pciehp's button) need not wait in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Machine = TypeVar("Machine")
Result = TypeVar("Result")


def on_each(machines: Sequence[Machine], work: Callable[[Machine], Result]) -> list[Result]:
    """The results in order; the first error of any machine is raised after all have ended."""
    with ThreadPoolExecutor(max_workers=max(1, len(machines))) as pool:
        futures = [pool.submit(work, machine) for machine in machines]
    return [future.result() for future in futures]
