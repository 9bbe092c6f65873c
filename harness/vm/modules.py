"""Which module needs which, from the index that depmod writes beside a kernel's modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError


def canonical(name: str) -> str:
    """A module's name as the kernel knows it: "kernel/drivers/pci/pci-stub.ko" is "pci_stub"."""
    return name.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


@dataclass(frozen=True, slots=True)
class ModuleIndex:
    """The modules of one kernel.

    Attributes:
        needs: canonical name → (file, files it needs, nearest first), as in ``modules.dep``; files relative to it.
        builtin: canonical names of what is in the kernel itself.
    """

    needs: Mapping[str, tuple[str, tuple[str, ...]]]
    builtin: frozenset[str]

    @classmethod
    def load(cls, folder: Path) -> ModuleIndex:
        """Read ``modules.dep`` and ``modules.builtin`` of /usr/lib/modules/RELEASE."""
        return cls.parse((folder / "modules.dep").read_text(), (folder / "modules.builtin").read_text())

    @classmethod
    def parse(cls, dep: str, builtin: str) -> ModuleIndex:
        """The same from their texts."""
        rows = (line.partition(":") for line in dep.splitlines() if ":" in line)
        needs = {canonical(file): (file, tuple(after.split())) for file, _, after in rows}
        return cls(needs, frozenset(canonical(line) for line in builtin.split()))

    def check(self, names: Iterable[str], kernel: str) -> None:
        """Raise HarnessError naming those that are neither modules nor built in."""
        missing = sorted(name for name in map(canonical, names) if name not in self.needs and name not in self.builtin)
        if missing:
            raise HarnessError(
                f"build the kernel {kernel}",
                got=f"it has no {', '.join(missing)}, neither as a module nor built in",
                fix="correct must_have, drop or the fragment of its recipe",
            )

    def load_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """The files to insert for these modules and all they need, each after what it needs; built-in ones left out."""
        names = tuple(map(canonical, names))
        self.check(names, "(its initramfs)")
        order: dict[str, None] = {}
        for name in names:
            if name not in self.builtin:
                file, needs = self.needs[name]
                order |= dict.fromkeys((*reversed(needs), file))
        return tuple(order)
