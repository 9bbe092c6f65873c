"""What needs no program of its own: the guest's clock and power, the ruler of measurements, the threads that work."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from harness.agent.remote import config, files, flr, machine, server
from harness.agent.remote.calls import Call, Failure
from harness.agent.remote.link import Link
from harness.agent.remote.server import IDLE_WORKERS, Run, Server, Watchdog, Workers

READY, GONE = 0x00100000, 0xFFFFFFFF


def call(verb: str, *, owned: bool = True, **args: object) -> Call:
    over = threading.Event()
    over.set()
    run = SimpleNamespace(server=SimpleNamespace(owned=owned), before=over, calls={}, token="t")
    return Call(run, 1, verb, args, b"", 5.0)


# clock, random numbers, power


def test_the_clock_of_a_guest_is_set(monkeypatch):
    told = []
    monkeypatch.setattr(time, "clock_settime_ns", lambda clock, ns: told.append((clock, ns)))
    answer = machine.hello(call("hello", token="t", protocol=1, time_ns=12))
    assert told == [(time.CLOCK_REALTIME, 12)]
    assert answer["reseeded"] is False, "no seed was given"


def test_the_seed_goes_into_the_pool_and_the_pool_is_reseeded(monkeypatch, tmp_path):
    pool = tmp_path / "urandom"
    pool.touch()
    asked = []
    monkeypatch.setattr(machine, "URANDOM", str(pool))
    monkeypatch.setattr(machine.fcntl, "ioctl", lambda file, request: asked.append((file.name, request)))
    assert machine.hello(call("hello", token="t", protocol=1, seed="c2VlZA=="))["reseeded"] is True
    assert pool.read_bytes() == b"seed"
    assert asked == [(str(pool), 0x5207)]


def test_a_pool_that_may_not_be_reseeded_is_said(monkeypatch):
    monkeypatch.setattr(machine, "URANDOM", "/no/such/device")
    assert machine.hello(call("hello", token="t", protocol=1, seed="c2VlZA=="))["reseeded"] is False


@pytest.mark.parametrize("seed", ["a", "ü"])
def test_a_seed_that_is_no_base64_is_refused(seed):
    with pytest.raises(Failure, match="the seed is not base64"):
        machine.hello(call("hello", token="t", protocol=1, seed=seed))


def test_an_earlier_run_that_does_not_end_is_said(monkeypatch):
    monkeypatch.setattr(machine, "EARLIER_RUN_S", 0.05)
    asked = call("hello", token="t", protocol=1)
    asked.run.before = threading.Event()
    assert machine.hello(asked)["earlier_run_closed"] is False


def test_power_is_switched_after_the_answer(monkeypatch):
    done = []
    monkeypatch.setattr(machine, "_switch", done.append)
    asked = call("power", action="poweroff")
    assert (machine.power(asked), done) == ({"action": "poweroff"}, [])
    asked.after()
    assert done == ["poweroff"]


# the ruler


class Script:
    """A register that reads as scripted; its last value stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *values: int, vendor: int = GONE) -> None:
        self.values = list(values)
        self.vendor_reads = 0
        self._vendor = vendor
        monkeypatch.setattr(config, "fetch", self._fetch)

    def _fetch(self, _fd: int, offset: int, _width: int, _path: str) -> int:
        if offset == flr.VENDOR:
            self.vendor_reads += 1
            return self._vendor
        return self.values.pop(0) if len(self.values) > 1 else self.values[0]


def recovery() -> dict:
    watch = flr.Recovery()
    watch.poll(call("flr"), -1, 50_000_000, "path")
    return watch.answer()


def test_a_function_that_falls_away_again_has_relapsed(monkeypatch):
    Script(monkeypatch, GONE, READY, READY, GONE, READY)
    seen = recovery()
    assert (seen["ready"], seen["relapsed"], seen["reads"]) == (True, True, 2)


def test_the_vendor_id_is_looked_at_rarely(monkeypatch):
    script = Script(monkeypatch, *[GONE] * 500, READY, vendor=0xABCD0001)
    assert recovery()["rrs"] is True
    assert 1 <= script.vendor_reads <= 3, "it is a second read in the loop"


def test_all_ones_of_the_vendor_id_are_no_retry_status(monkeypatch):
    Script(monkeypatch, GONE, READY)
    assert recovery()["rrs"] is False


def test_a_gap_after_the_change_does_not_count(monkeypatch):
    script = Script(monkeypatch, READY)
    slow = script._fetch

    def late(fd: int, offset: int, width: int, path: str) -> int:
        time.sleep(0.002)  # noqa: TID251
        return slow(fd, offset, width, path)

    watch = flr.Recovery()
    monkeypatch.setattr(config, "fetch", lambda *args: slow(*args) if watch.track.reads == 0 else late(*args))
    watch.poll(call("flr"), -1, 50_000_000, "path")
    assert watch.answer()["longest_gap_ns"] < 2_000_000 <= watch.track.longest_gap_ns


def test_the_ruler_keeps_the_last_samples_only():
    track = config.Track(3)
    for value in range(100):
        track.add(value)
    answer = track.answer()
    assert ([value for _, value in answer["samples"]], answer["reads"]) == ([97, 98, 99], 100)
    assert len(track.samples) < 6, "a long poll must not fill the memory"


def test_no_garbage_is_collected_while_anybody_measures():
    assert gc.isenabled()
    with config.undisturbed():
        with config.undisturbed():
            assert not gc.isenabled()
        assert not gc.isenabled(), "another measurement is still running"
    assert gc.isenabled()


def test_a_name_that_goes_while_a_folder_is_listed_is_left_out(monkeypatch, tmp_path):
    (tmp_path / "stays").touch()
    (tmp_path / "goes").touch()
    real = os.scandir

    @contextlib.contextmanager
    def late(path):
        with real(path) as entries:
            found = list(entries)
        (tmp_path / "goes").unlink()
        yield found

    monkeypatch.setattr(os, "scandir", late)
    assert files.list_folder(call("file.list", path=str(tmp_path))) == {"entries": [["stays", "file", ""]]}


# threads


def test_a_worker_is_used_again_and_a_busy_one_is_not_waited_for():
    workers, release = Workers(), threading.Event()
    ran: list[int] = []

    def job() -> None:
        ran.append(threading.get_ident())

    before = threading.active_count()
    for number in range(1, 6):
        workers.start(job)
        settle(lambda number=number: len(ran) == number and workers._idle == 1)
    assert len(set(ran)) == 1
    for _ in range(10):
        workers.start(release.wait)
    workers.start(job)
    settle(lambda: len(ran) == 6)
    release.set()
    settle(lambda: threading.active_count() <= before + IDLE_WORKERS)


def test_a_full_stream_does_not_hold_the_watchdog():
    full = threading.Event()
    watchdog = Watchdog(Workers().start)
    run = SimpleNamespace(calls={}, token="t", emit=lambda _: full.wait(5))
    calls = [Call(run, number, "ping", {}, b"", deadline_s) for number, deadline_s in ((1, 0.01), (2, 0.15))]
    for each in calls:
        watchdog.watch(each)
    settle(lambda: calls[0].answered)
    settle(lambda: calls[1].answered)
    full.set()


def test_nothing_of_a_run_follows_the_hello_of_the_next():
    """The first run's frame is encoded and waits for its turn while the second run begins."""
    sent: list[bytes] = []
    agent = Server(SimpleNamespace(send=lambda frame, wanted: wanted() and sent.append(frame), lasting=False))
    first = agent.run
    agent.link.send = lambda frame, wanted: (
        setattr(agent, "run", Run(agent, "second")),
        wanted() and sent.append(frame),
    )
    first.emit({"id": 1})
    assert sent == []


def test_a_frame_asks_whether_it_is_wanted_when_it_is_its_turn():
    ours, theirs = socket.socketpair()
    link = Link(ours.fileno(), ours.fileno())
    run = ["first"]
    blocked = threading.Thread(target=link.send, args=(bytes(1 << 20),))
    blocked.start()
    late = threading.Thread(target=link.send, args=(b"late", lambda: run[0] == "first"))
    late.start()
    run[0] = "second"
    left = 1 << 20
    while left:
        left -= len(theirs.recv(left))
    blocked.join(2)
    late.join(2)
    ours.close()
    assert theirs.recv(10) == b""
    theirs.close()


def test_what_is_opened_after_the_end_of_its_run_is_closed_at_once():
    run, closed = Run(SimpleNamespace(), "t"), []
    assert run.keep("early", lambda: closed.append("early")) == 1
    run.end()
    assert (closed, run.over.is_set()) == (["early"], True)
    with pytest.raises(Failure, match="the run ended meanwhile"):
        run.keep("late", lambda: closed.append("late"))
    assert closed == ["early", "late"]


def test_a_device_that_does_not_close_does_not_hold_the_agent(monkeypatch):
    monkeypatch.setattr(server, "LAST_WAIT_S", 0.05)
    hang = threading.Event()
    agent = Server(SimpleNamespace(receive=lambda *_: b"", lasting=False))
    agent.run.keep("device", lambda: hang.wait(5) and None)
    start = time.monotonic()
    agent.serve()
    assert 0.04 < time.monotonic() - start < 1
    hang.set()


def settle(done) -> None:
    until = time.monotonic() + 2
    while not done():
        assert time.monotonic() < until
        time.sleep(0.001)  # noqa: TID251
