"""Frames in, calls out, answers back.

The reader only cuts frames and hands each call to a thread of its own, so a call that is stuck in the kernel blocks
nobody. The watchdog ends calls whose deadline has come; one that does not react (it is in the kernel) is answered for,
and its late result is ignored. A ``hello`` begins a run: it ends everything of the run before.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback

from harness.agent import frames
from harness.agent.remote import verbs
from harness.agent.remote.calls import DEFAULT_DEADLINE_S, LONGEST_DEADLINE_S, Call, Failure, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from harness.agent.remote.link import Link

IDLE_LOOK_S = 0.1  # how long half a frame may lie still before we look whether a new harness has begun inside it
REACTION_S = 0.05  # what a verb gets to end by itself before the watchdog answers for it
MOST_CALLS = 64  # of one run at a time
MOST_THREADS = 512  # with those that earlier runs and deadlines have left stuck in the kernel
IDLE_WORKERS = 4
LAST_WAIT_S = (
    5.0  # for open devices to close when the other side is gone; one that hangs in the kernel must not hold us
)


class Run:
    """What one harness has asked for since its ``hello``."""

    def __init__(self, server: Server, token: str) -> None:
        self.server = server
        self.token = token
        self.calls: dict[int, Call] = {}
        self.closers: dict[int, Callable[[], None]] = {}  # open handles, and how each is closed
        self.handles: dict[int, Any] = {}
        self.handle_number = 0
        self.over = threading.Event()  # everything is cancelled and closed
        self.before = self.over  # the same of the run before
        self.ended = False
        self.lock = threading.Lock()

    def emit(self, message: dict[str, Any], body: bytes = b"") -> None:
        """Send a frame of this run, unless the run is over."""
        self.send(frames.encode(message, body))

    def send(self, frame: bytes) -> None:
        """The same with an encoded frame. Nothing of this run follows the answer to the next run's hello: see Link."""
        self.server.link.send(frame, lambda: self.server.run is self)

    def keep(self, thing: Any, close: Callable[[], None]) -> int:
        """Keep an open thing until it is released or the run ends; its handle. Too late, it is closed at once."""
        with self.lock:
            if not self.ended:
                self.handle_number += 1
                self.handles[self.handle_number] = thing
                self.closers[self.handle_number] = close
                return self.handle_number
        close()
        raise Failure("cancelled", "the run ended meanwhile")

    def release(self, handle: int) -> None:
        """Close one thing."""
        with self.lock:
            self.handles.pop(handle, None)
            close = self.closers.pop(handle, None)
        if close is not None:
            close()

    def end(self) -> None:
        """Cancel every call and close everything that is open."""
        with self.lock:
            self.ended = True
        for call in list(self.calls.values()):
            call.end("cancelled")
        for handle in list(self.closers):
            try:
                self.release(handle)
            except OSError:  # it is gone, which is what we want
                continue
        self.over.set()


class Server:
    """The agent itself.

    Args:
        link: the byte stream to the harness.
        sysfs: where sysfs is mounted; tests give a tree of plain files.
        owned: this machine is the harness's own (a guest): its clock may be set and its power switched.
    """

    def __init__(self, link: Link, *, sysfs: str = "/sys", owned: bool = False) -> None:
        self.link = link
        self.sysfs = sysfs
        self.owned = owned
        self.run = Run(self, "")
        self._workers = Workers()
        self._watchdog = Watchdog(self._workers.start)

    def serve(self) -> None:
        """Serve until the other side is gone for good (never, on a lasting link)."""
        splitter = frames.Splitter(resync=True)
        while True:
            data = self.link.receive(IDLE_LOOK_S if splitter.pending else None)
            if data is None and not splitter.skip_to(_is_hello):
                data = self.link.receive()  # a slow sender: wait for the rest
            if data == b"":
                splitter.clear()
                if not self.link.lasting:
                    break
            elif data is not None:
                splitter.feed(data)
            frame = splitter.next()
            while frame is not None:
                self._accept(*frame)
                frame = splitter.next()
        self._workers.start(self.run.end)
        self.run.over.wait(LAST_WAIT_S)

    def _accept(self, message: dict[str, Any], body: bytes) -> None:
        """Start what one frame asks for. Never blocks, never raises."""
        number = message.get("id")
        verb = message.get("verb")
        if not isinstance(number, int) or not isinstance(verb, str):
            return  # an answer to nobody would only confuse the client
        args = message.get("args", {})
        deadline_s = message.get("deadline_s", DEFAULT_DEADLINE_S)
        if verb == "hello":
            self._new_run(args)
        sound = isinstance(deadline_s, (int, float)) and 0 < deadline_s <= LONGEST_DEADLINE_S
        call = Call(
            self.run,
            number,
            verb,
            args if isinstance(args, dict) else {},
            body,
            deadline_s if sound else DEFAULT_DEADLINE_S,
        )
        if not sound:
            self._refuse(call, f"deadline_s must be a number of seconds up to {LONGEST_DEADLINE_S:g}")
        elif not self.run.token:
            self._refuse(call, "the first call must be 'hello' with a token")
        elif number in self.run.calls:
            self._refuse(call, f"call {number} is still running")
        elif len(self.run.calls) >= MOST_CALLS or threading.active_count() >= MOST_THREADS:
            self._refuse(call, f"{MOST_CALLS} calls are running, or {MOST_THREADS} are stuck, already")
        elif verb == "hello" and self.run.before.is_set():
            # Nothing to wait for, and another thread would be the dearest part of a clone's first answer.
            self._perform(call)
        else:
            self.run.calls[number] = call
            self._watchdog.watch(call)
            self._workers.start(lambda: self._perform(call))

    def _new_run(self, args: Any) -> None:
        token = args.get("token") if isinstance(args, dict) else None
        if not isinstance(token, str) or not token:
            return  # the call itself will say so, with the token of the run that goes on
        old, self.run = self.run, Run(self, token)
        self.run.before = old.over
        if old.calls or old.closers:
            self._workers.start(old.end)
        else:
            old.end()

    def _refuse(self, call: Call, message: str) -> None:
        self._workers.start(lambda: _fail(call, usage(message, call.verb)))

    def _perform(self, call: Call) -> None:
        call.thread_id = threading.get_native_id()
        try:
            result = verbs.find(call.verb)(call)
            value, body = result if isinstance(result, tuple) else (result, b"")
            answer = frames.encode({"id": call.id, "token": call.run.token, "ok": value}, body)
        except Exception as error:  # whatever happens, the caller is told
            self._done(call)
            _fail(call, _failure(call, error))
            return
        self._done(call)
        if call.claim_answer():
            call.run.send(answer)
        if call.after is not None:
            call.after()

    def _done(self, call: Call) -> None:
        self._watchdog.forget(call)
        call.run.calls.pop(call.id, None)


def _is_hello(message: dict[str, Any]) -> bool:
    return message.get("verb") == "hello"


def _fail(call: Call, failure: Failure) -> None:
    """Answer with an error, unless the call has been answered."""
    if call.claim_answer():
        error = {
            "kind": failure.kind,
            "errno": failure.errno,
            "message": failure.message[:8000],
            "on": failure.on[:2000],
        }
        call.run.emit({"id": call.id, "token": call.run.token, "error": error})


def _failure(call: Call, error: Exception) -> Failure:
    """What to tell the caller about an exception."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, frames.FrameError):
        return Failure("usage", f"the answer does not fit into a frame: {error}; ask for less", call.verb)
    if isinstance(error, OSError) and error.errno:
        return Failure("os", call.where or call.verb, _text(error.filename) or call.verb, error.errno)
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
    return Failure("internal", f"{type(error).__name__} at {place}: {error}", call.verb)


def _text(name: Any) -> str:
    return name if isinstance(name, str) else name.decode(errors="replace") if isinstance(name, bytes) else ""


class Watchdog:
    """One thread that ends calls at their deadlines.

    Args:
        start: runs a job in another thread: an answer may have to wait for a full stream, the watchdog must not.
    """

    def __init__(self, start: Callable[[Callable[[], None]], None]) -> None:
        self._start = start
        self._calls: set[Call] = set()
        self._changed = threading.Condition()
        self._next = float("inf")
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def watch(self, call: Call) -> None:
        with self._changed:
            self._calls.add(call)
            if call.alarm < self._next:
                self._changed.notify()

    def forget(self, call: Call) -> None:
        with self._changed:
            self._calls.discard(call)

    def _watch(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                due = [call for call in self._calls if call.alarm <= now]
                if not due:
                    self._next = min((call.alarm for call in self._calls), default=float("inf"))
                    self._changed.wait(None if self._next == float("inf") else self._next - now)
                    continue
            for call in due:
                self._ring(call)

    def _ring(self, call: Call) -> None:
        """First ask the call to end, then answer for it."""
        if call.alarm == call.deadline:
            call.alarm += REACTION_S
            call.end("deadline")
            return
        self.forget(call)
        call.run.calls.pop(call.id, None)
        if not call.answered:
            failure = call.ending(call.stuck())
            self._start(lambda: _fail(call, failure))


class Workers:
    """Threads that do jobs; a few idle ones are kept, because starting one costs more than most calls."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = 0  # workers that wait for a job, less the jobs that wait for them
        self._lock = threading.Lock()

    def start(self, job: Callable[[], None]) -> None:
        with self._lock:
            taken = self._idle > 0
            self._idle -= taken
        if taken:
            self._jobs.put(job)
        else:
            threading.Thread(target=self._work, args=(job,), daemon=True).start()

    def _work(self, job: Callable[[], None]) -> None:
        while True:
            job()
            with self._lock:
                if self._idle >= IDLE_WORKERS:
                    return
                self._idle += 1
            job = self._jobs.get()
