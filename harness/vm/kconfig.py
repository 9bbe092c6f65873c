"""Kernel configuration fragments: the lines that must be in a configuration, and those of them that are not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ProfileError

_SET = re.compile(r"(CONFIG_[A-Z0-9_a-z]+)=(y|m|-?\d+|0x[0-9a-fA-F]+|\"[^\"]*\")")
_UNSET = re.compile(r"# (CONFIG_[A-Z0-9_a-z]+) is not set")


@dataclass(frozen=True, slots=True)
class Wish:
    """One line of a fragment: a symbol with its value, or (``value`` is "n") without one."""

    line: int
    symbol: str
    value: str

    @property
    def text(self) -> str:
        """As it stands in a configuration."""
        return f"# {self.symbol} is not set" if self.value == "n" else f"{self.symbol}={self.value}"


def parse_fragment(path: Path) -> tuple[Wish, ...]:
    """The wishes of a fragment; other comments and empty lines are for people.

    Raises:
        ProfileError: a line that is neither (``CONFIG_X=n`` too: kconfig never writes that), or a symbol twice.
    """
    wishes: dict[str, Wish] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if found := _SET.fullmatch(text):
            wish = Wish(number, found[1], found[2])
        elif found := _UNSET.fullmatch(text):
            wish = Wish(number, found[1], "n")
        elif not text or (text.startswith("#") and not text.startswith("# CONFIG_")):
            continue
        else:
            raise _wrong(path, number, f"{text!r} is neither CONFIG_X=VALUE nor # CONFIG_X is not set")
        if wish.symbol in wishes:
            raise _wrong(path, number, f"{wish.symbol} stands on line {wishes[wish.symbol].line} already")
        wishes[wish.symbol] = wish
    return tuple(wishes.values())


def missing(wishes: tuple[Wish, ...], config: str) -> tuple[tuple[Wish, str], ...]:
    """The wishes that a finished ``.config`` does not fulfil, each with what it has instead.

    A symbol that is not there at all counts as not set.
    """
    have = {found[1]: found[2] for found in map(_SET.fullmatch, config.splitlines()) if found}
    return tuple((wish, have.get(wish.symbol, "n")) for wish in wishes if have.get(wish.symbol, "n") != wish.value)


def check(path: Path, config: str) -> None:
    """Raise ProfileError with every line of the fragment that did not survive ``make olddefconfig``."""
    lost = missing(parse_fragment(path), config)
    if lost:
        rows = "\n".join(f"    {path}:{wish.line}: {wish.text}, but it is {was}" for wish, was in lost)
        raise ProfileError(
            f"configure the kernel with {path.name}",
            got=f"{len(lost)} lines did not survive:\n{rows}",
            fix="the symbol was renamed, or lacks something it depends on: look it up in that kernel's Kconfig files",
        )


def _wrong(path: Path, line: int, what: str) -> ProfileError:
    return ProfileError(f"read the fragment {path.name}", on=f"{path}:{line}", got=what)
