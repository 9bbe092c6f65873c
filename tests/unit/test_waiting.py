"""The one loop with a clock, on a clock that the test turns."""

from __future__ import annotations

import re

import pytest

from harness import waiting
from harness.errors import DeadlineExceeded, GuestLost
from harness.waiting import FIRST_PAUSE_S, LONGEST_PAUSE_S, wait_until


class Clock:
    """Stands still but for pauses, which it remembers."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.pauses_s: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, pause_s: float) -> None:
        assert len(self.pauses_s) < 10_000, "it waits for ever"
        self.pauses_s.append(pause_s)
        self.now_s += pause_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(waiting, "time", made)
    return made


class Guest:
    """Alive for so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def check_alive(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise GuestLost("wait for the guest", got="QEMU exited")


def test_the_first_true_answer_is_given_at_once(clock: Clock) -> None:
    answers = iter([[1, 2], [3]])
    assert wait_until("a list", lambda: next(answers), within_s=5) == [1, 2]
    assert clock.pauses_s == []


def test_false_answers_are_asked_again_until_a_true_one(clock: Clock) -> None:
    answers = iter([0, "", None, [], "there"])
    assert wait_until("something", lambda: next(answers), within_s=5) == "there"
    assert len(clock.pauses_s) == 4


def test_pauses_double_up_to_the_longest(clock: Clock) -> None:
    answers = iter([False] * 9 + [True])
    wait_until("it", lambda: next(answers), within_s=60)
    assert clock.pauses_s == pytest.approx([0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.1, 0.1, 0.1])
    assert (clock.pauses_s[0], max(clock.pauses_s)) == (FIRST_PAUSE_S, LONGEST_PAUSE_S)


def test_the_deadline_ends_it_with_the_name_and_the_last_answer(clock: Clock) -> None:
    with pytest.raises(DeadlineExceeded, match=r"waited 0\.5 s for VF 3 to appear: last seen: \(\)"):
        wait_until("VF 3 to appear", lambda: (), within_s=0.5)
    assert clock.now_s == pytest.approx(1000.5), "no pause leads past the deadline"


def test_it_is_asked_once_more_at_the_deadline(clock: Clock) -> None:
    assert wait_until("the last moment", lambda: clock.now_s >= 1000.3, within_s=0.3)


def test_without_time_it_is_asked_once(clock: Clock) -> None:
    asked: list[int] = []
    with pytest.raises(DeadlineExceeded, match="waited 0 s"):
        wait_until("nothing", lambda: asked.append(1), within_s=0)
    assert (asked, clock.pauses_s) == ([1], [])


def test_a_lost_machine_ends_it_with_the_machines_own_reason(clock: Clock) -> None:
    with pytest.raises(GuestLost, match=re.escape("QEMU exited")):
        wait_until("VF 3 to appear", lambda: False, within_s=5, alive=Guest(looks=3))
    assert len(clock.pauses_s) == 3


def test_an_answer_counts_though_the_machine_is_gone(clock: Clock) -> None:
    assert wait_until("it", lambda: True, within_s=5, alive=Guest(looks=0))


def test_a_machine_that_is_gone_at_the_deadline_is_the_reason(clock: Clock) -> None:
    with pytest.raises(GuestLost):
        wait_until("it", lambda: False, within_s=0, alive=Guest(looks=0))


def test_an_error_of_the_probe_is_not_swallowed(clock: Clock) -> None:
    with pytest.raises(ZeroDivisionError):
        wait_until("it", lambda: 1 // 0, within_s=5)
