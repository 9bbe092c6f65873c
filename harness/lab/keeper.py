"""``--keep``: of all machines of a run, one stays up: that of the first failure, else the last."""

from __future__ import annotations

from harness.lab.kept import KeptMachine, mark_kept, stop_kept
from harness.vm.vm import Vm


class Keeper:
    """Decides, at the end of each machine, which one stays."""

    def __init__(self) -> None:
        self._left: KeptMachine | None = None
        self._left_failed = False

    @property
    def left(self) -> KeptMachine | None:
        """The machine that is up now."""
        return self._left

    def at_end(self, vm: Vm, about: str, *, failed: bool) -> None:
        """Call before a machine is ended; it is let go of instead, if it should stay."""
        if self._left_failed:
            return
        if self._left is not None:
            stop_kept(self._left)
        self._left, self._left_failed = mark_kept(vm.folder, about), failed
        vm.leave_up()


def how_to_get_in(machine: KeptMachine) -> str:
    return f"kept: {machine.about}\n  sriov-harness lab shell {machine.name}\n  sriov-harness lab stop {machine.name}"
