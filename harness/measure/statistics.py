"""What a handful of timed samples says, and what it cannot say: pure arithmetic on nanoseconds.

Percentiles are by nearest rank: pN is the smallest sample such that at least N % of all samples are not above it.
It is always a value that was measured, never one between two. Below 100 samples the p99 by this rule *is* the
maximum, and every text made here says so instead of printing the same number twice under two names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

NS_PER_MS = 1_000_000
SAMPLES_FOR_P99 = 100
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Distribution:
    """Samples of one quantity, in nanoseconds.

    Attributes:
        count: how many samples; at least 1.
        minimum_ns: the smallest sample.
        p50_ns: the median by nearest rank (of an even number, the lower of the middle two).
        p99_ns: the 99th percentile by nearest rank; the maximum when ``count`` is below 100.
        maximum_ns: the largest sample.
        mean_ns: the arithmetic mean.
    """

    count: int
    minimum_ns: int
    p50_ns: int
    p99_ns: int
    maximum_ns: int
    mean_ns: float

    @classmethod
    def of(cls, samples_ns: Iterable[int]) -> Distribution:
        """Summarise samples in any order.

        Raises:
            ValueError: no samples, or a negative one (a clock that ran backwards is not a measurement).
        """
        ordered = sorted(samples_ns)
        if not ordered:
            raise ValueError("no samples: nothing was measured")
        if ordered[0] < 0:
            raise ValueError(f"a sample of {ordered[0]} ns: the clock ran backwards")
        return cls(
            count=len(ordered),
            minimum_ns=ordered[0],
            p50_ns=percentile(ordered, 50),
            p99_ns=percentile(ordered, 99),
            maximum_ns=ordered[-1],
            mean_ns=sum(ordered) / len(ordered),
        )

    @property
    def p99_is_maximum(self) -> bool:
        """Whether there are too few samples for a p99 of its own."""
        return self.count < SAMPLES_FOR_P99


def percentile(ordered: Sequence[int], percent: int) -> int:
    """The nearest-rank percentile of samples in ascending order, ``percent`` from 1 to 100."""
    rank = -(-percent * len(ordered) // 100)  # the ceiling, in whole numbers: 0.99 * 100 is not 99 in floats
    return ordered[rank - 1]


def ms(value_ns: float) -> str:
    """A duration in milliseconds, with four significant digits but never finer than a microsecond: "12.35 ms"."""
    value = value_ns / NS_PER_MS
    decimals = 0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 10 else 3
    return f"{value:.{decimals}f} ms"


def summary_text(distribution: Distribution) -> str:
    """One line: "20 samples: min 10.02, p50 12.35, max 14.11, mean 12.40 ms (p99 needs 100 samples)"."""
    seen = distribution
    if seen.count == 1:
        return f"1 sample: {ms(seen.maximum_ns)}"
    named = [("min", seen.minimum_ns), ("p50", seen.p50_ns), ("p99", seen.p99_ns), ("max", seen.maximum_ns)]
    if seen.p99_is_maximum:
        del named[2]
    values = ", ".join(f"{name} {ms(value)[:-3]}" for name, value in named)
    few = f" (p99 needs {SAMPLES_FOR_P99} samples)" if seen.p99_is_maximum else ""
    return f"{seen.count} samples: {values}, mean {ms(seen.mean_ns)}{few}"


@dataclass(frozen=True, slots=True)
class Measured:
    """Samples of one quantity of one function, as a test hands them to the report.

    Attributes:
        what: the quantity: "FLR".
        function: "PF", "VF 3".
        samples_ns: in measured order, at least one.
        limit_ns: what each of them must keep; None when there is no limit.
    """

    what: str
    function: str
    samples_ns: tuple[int, ...]
    limit_ns: int | None = None

    @property
    def group(self) -> str:
        """All VFs are one group; any other function is a group by itself."""
        return "VFs" if self.function.startswith("VF ") else self.function

    @property
    def late(self) -> int:
        return 0 if self.limit_ns is None else sum(sample > self.limit_ns for sample in self.samples_ns)

    def as_plain(self) -> dict[str, Any]:
        """As JSON can carry it, from an xdist worker to its controller."""
        return asdict(self) | {"samples_ns": list(self.samples_ns)}

    @classmethod
    def from_plain(cls, row: Mapping[str, Any]) -> Measured:
        return cls(row["what"], row["function"], tuple(row["samples_ns"]), row["limit_ns"])


@dataclass(frozen=True, slots=True)
class LimitVerdict:
    """Samples against an upper limit that each of them must keep.

    Attributes:
        what: the measured thing, as it stands in the text ("FLR of VF 2").
        limit_ns: the limit; a sample equal to it keeps it.
        seen: the samples' distribution.
        late: (index of the sample from 0, its nanoseconds) of each sample above the limit, in measured order.
    """

    what: str
    limit_ns: int
    seen: Distribution
    late: tuple[tuple[int, int], ...]

    @property
    def ok(self) -> bool:
        return not self.late

    @property
    def unseen_fraction(self) -> float:
        """How often the limit could still be broken, at 95 % confidence, though none of the samples broke it.

        The exact binomial bound ``1 - 0.05 ** (1 / count)``: 14 % for 20 samples, 3 % for 100.
        """
        return float(1.0 - (1.0 - CONFIDENCE) ** (1.0 / self.seen.count))

    def check(self) -> None:
        """Raise AssertionError with ``text`` when a sample is late."""
        __tracebackhide__ = True  # the failure shows the test's line, not this one
        check_all(self)

    @property
    def text(self) -> str:
        if self.ok:
            return (
                f"{self.what}: {_all(self.seen.count)} within {_limit(self.limit_ns)}; {summary_text(self.seen)};"
                f" up to {self.unseen_fraction:.0%} late ones could go unseen (95 % confidence)"
            )
        index, worst = max(self.late, key=lambda sample: sample[1])
        return (
            f"{self.what}: {len(self.late)} of {self.seen.count} later than {_limit(self.limit_ns)},"
            f" worst {ms(worst)} ({_excess(worst - self.limit_ns)} over, sample {index + 1}); {summary_text(self.seen)}"
        )


def judge(samples_ns: Sequence[int], limit_ns: int, what: str) -> LimitVerdict:
    """Hold every sample against the limit: ``judge(samples, FLR_LIMIT_NS, "FLR of VF 2").check()``.

    Args:
        samples_ns: in measured order, at least one (ValueError otherwise: nothing measured is no pass).
        limit_ns: the largest allowed value.
        what: the measured thing, for the text.
    """
    late = tuple((index, sample) for index, sample in enumerate(samples_ns) if sample > limit_ns)
    return LimitVerdict(what=what, limit_ns=limit_ns, seen=Distribution.of(samples_ns), late=late)


def check_all(*verdicts: LimitVerdict) -> None:
    """Raise one AssertionError with the text of each verdict that is not ok, one a line; nothing when all are.

    Raised and not asserted, because pytest would print the values of every dataclass after the message.
    """
    __tracebackhide__ = True
    late = [verdict.text for verdict in verdicts if not verdict.ok]
    if late:
        raise AssertionError("\n".join(late))


def _all(count: int) -> str:
    return "the only sample" if count == 1 else f"all {count}"


def _excess(over_ns: int) -> str:
    return ms(over_ns) if over_ns >= 1000 else f"{over_ns} ns"


def _limit(limit_ns: int) -> str:
    return f"{limit_ns / NS_PER_MS:g} ms"
