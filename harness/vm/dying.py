"""Die when our parent does: what ``setpriv --pdeathsig`` is to QEMU, for a Python process that others started."""

from __future__ import annotations

import ctypes
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Have the kernel kill us when the thread that started us ends, by whatever death.

    An xdist worker whose controller was killed would go on for seconds otherwise, and its machine with it.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
