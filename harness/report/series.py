"""The measured series as pictures and as text see them: which rows are shown, on which scale. Pure, no matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.measure.statistics import Distribution

FLR_LIMIT_NS = 100_000_000  # PCIe base specification 6.0, 6.6.2: a function completes an FLR within 100 ms
LINUX_SPEAKS_NS = 1_000_000_000  # pci_dev_wait() in drivers/pci/pci.c prints "not ready" only above 1 s

MOST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Row:
    """The samples of one function, or of several when there are too many functions to show each.

    Attributes:
        name: the function, or "40 others".
        samples_ns: in measured order; empty when nothing was measured.
        late: how many of them are above the limit.
    """

    name: str
    samples_ns: tuple[int, ...]
    late: int

    @property
    def seen(self) -> Distribution | None:
        return Distribution.of(self.samples_ns) if self.samples_ns else None


def rows_of(series: Mapping[str, Sequence[int]], limit_ns: int, most: int = MOST_ROWS) -> tuple[Row, ...]:
    """One row a function, in the given order; of more than ``most``, the slowest and one row for all others.

    Raises:
        ValueError: no function has a sample: there is nothing to show.
    """
    if not any(series.values()):
        raise ValueError("no samples: nothing was measured")
    rows = [Row(name, tuple(samples), _late(samples, limit_ns)) for name, samples in series.items()]
    if len(rows) <= most:
        return tuple(rows)
    slowest = sorted(rows, key=lambda row: max(row.samples_ns, default=-1), reverse=True)[: most - 1]
    shown = {row.name for row in slowest}
    others = [sample for row in rows if row.name not in shown for sample in row.samples_ns]
    kept = [row for row in rows if row.name in shown]
    return (*kept, Row(f"{len(rows) - len(kept)} others", tuple(others), _late(others, limit_ns)))


@dataclass(frozen=True, slots=True)
class LogScale:
    """A logarithmic scale in nanoseconds that always shows the limit and 1 s, wherever the samples are."""

    low_ns: float
    high_ns: float

    @classmethod
    def over(cls, rows: Sequence[Row], limit_ns: int) -> LogScale:
        samples = [sample for row in rows for sample in row.samples_ns]
        smallest = max(min(samples), 1000)  # below a microsecond the clock, not the endpoint, is measured
        low = 10.0 ** math.floor(math.log10(min(smallest * 0.9, limit_ns / 10)))
        return cls(low_ns=low, high_ns=max(max(samples) * 1.3, limit_ns * 2.0, LINUX_SPEAKS_NS * 2.0))

    def position(self, value_ns: float) -> float:
        """Where a value stands, from 0.0 (left) to 1.0 (right); values off the scale stand at its ends."""
        clamped = min(max(value_ns, self.low_ns), self.high_ns)
        return math.log(clamped / self.low_ns) / math.log(self.high_ns / self.low_ns)

    def edges(self, bins: int) -> tuple[float, ...]:
        """The ``bins + 1`` edges of bins of equal width on this scale, in nanoseconds."""
        return tuple(self.low_ns * (self.high_ns / self.low_ns) ** (index / bins) for index in range(bins + 1))

    def histogram(self, samples_ns: Sequence[int], bins: int) -> tuple[int, ...]:
        """How many samples fall into each of ``bins`` bins."""
        counts = [0] * bins
        for sample in samples_ns:
            counts[min(int(self.position(sample) * bins), bins - 1)] += 1
        return tuple(counts)

    def decades(self) -> tuple[float, ...]:
        """The powers of ten on this scale, in nanoseconds."""
        first, last = math.ceil(math.log10(self.low_ns) - 1e-9), math.floor(math.log10(self.high_ns) + 1e-9)
        return tuple(10.0**power for power in range(first, last + 1))


def duration_label(value_ns: float) -> str:
    """A round duration for an axis: "10 µs", "100 ms", "1 s"."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if value_ns >= size * (1 - 1e-9):
            return f"{value_ns / size:g} {unit}"
    return f"{value_ns:g} ns"


def headline(rows: Sequence[Row], limit_ns: int) -> str:
    """What the picture shows, in one sentence: every function in time, or which were late and how often."""
    limit = duration_label(limit_ns)
    late = [row for row in rows if row.late]
    if late:
        named = ", ".join(f"{row.name} ({row.late} of {len(row.samples_ns)})" for row in late[:3])
        more = f" and {len(late) - 3} more" if len(late) > 3 else ""
        return f"later than {limit}: {named}{more}"
    total = sum(len(row.samples_ns) for row in rows)
    silent = [row.name for row in rows if not row.samples_ns]
    unmeasured = f"; not measured: {', '.join(silent)}" if silent else ""
    return f"all {total} resets within {limit}{unmeasured}"


def _late(samples: Sequence[int], limit_ns: int) -> int:
    return sum(sample > limit_ns for sample in samples)
