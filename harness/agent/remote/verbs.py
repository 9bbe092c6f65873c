"""Everything that the agent can be asked. A verb that is not in this list does not exist.

A verb is a function of a ``Call`` that returns the answer's value, or the value and a body. Its file is read when it is
first needed (a slow guest says hello sooner) or, in the background, after the first ``hello`` (a frozen template has
them all).
"""

from __future__ import annotations

import importlib

from harness.agent.remote.calls import usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from harness.agent.remote.calls import Call

    Result = dict[str, Any] | tuple[dict[str, Any], bytes]

VERBS = {
    "hello": "machine.hello",
    "ping": "machine.ping",
    "cancel": "machine.cancel",
    "power": "machine.power",
    "file.read": "files.read",
    "file.write": "files.write",
    "file.list": "files.list_folder",
    "file.link": "files.link",
    "file.stat": "files.stat",
    "file.exists": "files.exists",
    "file.glob": "files.glob_paths",
    "file.wait": "files.wait",
    "file.wait_value": "files.wait_value",
    "config.read": "config.read",
    "config.write": "config.write",
    "config.poll": "config.poll",
    "bar.read": "bars.read",
    "bar.write": "bars.write",
    "flr": "flr.flr",
    "command.run": "command.run",
    "vfio.open": "vfio.open_device",
    "vfio.close": "vfio.close",
    "vfio.read": "vfio.read",
    "vfio.write": "vfio.write",
    "vfio.write_many": "vfio.write_many",
    "vfio.reset": "vfio.reset",
    "vfio.irq_enable": "vfio_irqs.enable",
    "vfio.irq_disable": "vfio_irqs.disable",
    "vfio.irq_wait": "vfio_irqs.wait",
    "vfio.irq_fire": "vfio_irqs.fire",
    "vfio.dma_map": "vfio_dma.map_buffer",
    "vfio.dma_unmap": "vfio_dma.unmap",
    "vfio.dma_read": "vfio_dma.read",
    "vfio.dma_write": "vfio_dma.write",
}
PACKAGE = "harness.agent.remote"


def find(verb: str) -> Callable[[Call], Result]:
    """The function behind a verb; a usage failure that lists the verbs otherwise."""
    place = VERBS.get(verb)
    if place is None:
        raise usage(f"there is no verb {verb!r:.100}; there are {', '.join(VERBS)}")
    module, _, name = place.partition(".")
    function: Callable[[Call], Result] = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    return function


def load_all() -> None:
    """Read every file of the list, so that no later call waits for it."""
    for place in VERBS.values():
        importlib.import_module(f"{PACKAGE}.{place.partition('.')[0]}")
