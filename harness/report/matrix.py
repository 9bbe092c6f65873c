"""Which MSI-X vector was fired and which eventfds counted it, as a checked value. Pure, no matplotlib.

Row k of the matrix is one fired vector; column k is the eventfd that belongs to it. A good endpoint counts
``expected`` on the diagonal and 0 everywhere else, also on the eventfds of the other functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_ROWS = 64


@dataclass(frozen=True, slots=True)
class Matrix:
    """Counts by (fired vector, eventfd).

    Attributes:
        labels: of rows and columns alike: "VF 1 vector 0". What stands before " vector " is the function.
        counts: one tuple a fired vector, one count an eventfd.
        expected: what the diagonal must count: how often each vector was fired.
        left_out: how many good vectors are not in this matrix because there are too many to show.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    expected: int = 1
    left_out: int = 0

    @classmethod
    def of(cls, rows: Sequence[tuple[str, Sequence[int]]], expected: int = 1) -> Matrix:
        """Check and take the rows as they were measured.

        Raises:
            ValueError: no rows, or a row that does not have one count for each fired vector.
        """
        if not rows:
            raise ValueError("no vectors: nothing was fired")
        for label, counts in rows:
            if len(counts) != len(rows):
                raise ValueError(f"{label}: {len(counts)} counts for {len(rows)} vectors; each vector has an eventfd")
        return cls(tuple(label for label, _ in rows), tuple(tuple(counts) for _, counts in rows), expected)

    def wanted(self, row: int, column: int) -> int:
        return self.expected if row == column else 0

    def bad_cells(self) -> tuple[tuple[int, int], ...]:
        """(row, column) of each count that is not as wanted, row by row."""
        size = range(len(self.labels))
        return tuple((row, at) for row in size for at in size if self.counts[row][at] != self.wanted(row, at))

    def faults(self) -> tuple[str, ...]:
        """One sentence for each fired vector that did not do what it must."""
        bad: dict[int, list[int]] = {}
        for row, column in self.bad_cells():
            bad.setdefault(row, []).append(column)
        return tuple(self._fault(row, columns) for row, columns in bad.items())

    def check(self) -> None:
        """Raise AssertionError with all faults, one a line, when there are any."""
        __tracebackhide__ = True  # the failure shows the test's line, not this one
        if faults := self.faults():
            raise AssertionError("\n".join(faults))

    def groups(self) -> tuple[tuple[str, int, int], ...]:
        """Neighbouring labels of one function: (function, first index, how many)."""
        found: list[tuple[str, int, int]] = []
        for index, label in enumerate(self.labels):
            name = function_of(label)
            if found and found[-1][0] == name:
                found[-1] = (name, found[-1][1], found[-1][2] + 1)
            else:
                found.append((name, index, 1))
        return tuple(found)

    def headline(self) -> str:
        total = len(self.labels) + self.left_out
        wrong = len({row for row, _ in self.bad_cells()})
        if wrong:
            return f"{wrong} of {total} vectors wrong"
        return f"all {total} vectors arrived {times(self.expected)}, each on its own eventfd and nowhere else"

    def to_show(self, most: int = MOST_ROWS) -> Matrix:
        """This matrix, or the part of it that has the faults when it has more than ``most`` vectors."""
        if len(self.labels) <= most:
            return self
        involved = {index for cell in self.bad_cells() for index in cell}
        keep = sorted(involved)[:most]
        keep = sorted({*keep, *[at for at in range(len(self.labels)) if at not in involved][: most - len(keep)]})
        return Matrix(
            labels=tuple(self.labels[at] for at in keep),
            counts=tuple(tuple(self.counts[row][at] for at in keep) for row in keep),
            expected=self.expected,
            left_out=len(self.labels) - len(keep),
        )

    def _fault(self, row: int, columns: Sequence[int]) -> str:
        own = self.counts[row][row]
        elsewhere = ", ".join(
            f"{self.labels[at]}{'' if self.counts[row][at] == 1 else f' ({times(self.counts[row][at])})'}"
            for at in columns
            if at != row
        )
        if own == self.expected:
            happened = f"arrived, and also on {elsewhere}"
        elif own == 0:
            happened = f"arrived on {elsewhere} instead" if elsewhere else "never arrived"
        else:
            happened = f"arrived {times(own)}, not {times(self.expected)}"
            happened += f", and also on {elsewhere}" if elsewhere else ""
        return f"{self.labels[row]} {happened}"


def function_of(label: str) -> str:
    """The function in "VF 1 vector 0"."""
    return label.rpartition(" vector ")[0]


def short_label(label: str) -> str:
    """The vector in "VF 1 vector 0"; the label itself when it has another form."""
    return label.rpartition(" vector ")[2]


def times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
