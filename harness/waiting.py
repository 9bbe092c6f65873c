"""Wait for a named thing until a deadline: the only loop with a clock.

A wait that waits for a machine ends at once, with the machine's own reason, when the machine is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from harness.errors import DeadlineExceeded

T = TypeVar("T")

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.1


class Alive(Protocol):
    """Something that can be lost while one waits for it."""

    def check_alive(self) -> None:
        """Raise GuestLost (or what fits) when it is gone; return at once otherwise."""


def wait_until(name: str, probe: Callable[[], T], *, within_s: float, alive: Alive | None = None) -> T:
    """Call ``probe`` until it gives something true, and return that.

    Args:
        name: what is waited for, as it stands in the error ("VF 3 to appear").
        probe: asked again and again, with pauses that double from 2 ms to 100 ms.
        within_s: seconds until DeadlineExceeded; the last answer of ``probe`` is in its message.
        alive: asked before each pause, so that a dead machine ends the wait with its own reason.
    """
    deadline = time.monotonic() + within_s
    pause = FIRST_PAUSE_S
    while True:
        answer = probe()
        if answer:
            return answer
        if alive is not None:
            alive.check_alive()
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"waited {within_s:g} s for {name}", got=f"last seen: {answer!r}")
        time.sleep(min(pause, left))
        pause = min(pause * 2, LONGEST_PAUSE_S)
