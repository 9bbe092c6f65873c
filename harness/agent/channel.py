"""The channel to an agent: calls out, answers in, over any byte stream.

One thread writes and one reads, so that neither a full stream nor a silent one can hold a caller beyond its deadline.
Whatever is wrong with the stream ends every waiting call at once, with the reason.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from harness.agent.frames import PROTOCOL, FrameError, Splitter, encode
from harness.agent.results import Answer, Hello, Stream
from harness.errors import DeadlineExceeded, HarnessError, RemoteError, RemoteOSError, TransportFailed

GRACE_S = 1.5  # what the agent gets beyond a call's deadline to say that it has passed
READ_BYTES = 1 << 18
SEED_BYTES = 32
# {ENDED: exit status}, without id and token: said by the machine's init, because a virtio port stays open when the
# agent that held it dies (guest-images/guest/rootfs/usr/sbin/sriov-init).
ENDED = "ended"
Message = dict[str, Any]
Part = tuple[Message, bytes]
OnStream = Callable[[str, bytes], None]


class Asked(NamedTuple):
    """A call on its way. Its parts arrive in order; None stands for "the channel is lost"."""

    number: int
    what: str
    deadline_s: float
    parts: queue.SimpleQueue[Part | None]


class Channel:
    """Calls to one agent, from any number of threads.

    Args:
        stream: connected to the agent, or to where it will be: what is sent waits for it.
        name: of the machine, for messages.
        on_eof: asked for the reason when the stream ends; the VM knows why its QEMU died.
        leftovers: the stream may still hold what was said to an earlier run that was killed; skip what is no frame
            until hello is answered. Without it, whatever is no frame is an error at once.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        name: str = "agent",
        on_eof: Callable[[], HarnessError] | None = None,
        leftovers: bool = False,
    ) -> None:
        self.name = name
        self.token = secrets.token_hex(8)
        self._stream = stream
        self._on_eof = on_eof
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[Part | None]] = {}
        self._abandoned: set[int] = set()  # calls nobody waits for any more; their answers may still come
        self._reason: HarnessError | None = None
        self._greeted = False
        self._splitter = Splitter(resync=leftovers)
        self._stale = 0  # answers to an earlier run, dropped before our hello was answered
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        for work in (self._write, self._read):
            threading.Thread(target=work, name=f"agent-{work.__name__.strip('_')}-{name}", daemon=True).start()

    def hello(self, *, deadline_s: float, seed: bytes | None = None, time_ns: int | None = None) -> Hello:
        """Begin a run; one round trip. The agent forgets everything of the run before.

        Args:
            deadline_s: for the whole of it, the agent's start included.
            seed: goes into the machine's random numbers; fresh ones unless given. Clones need it.
            time_ns: sets the machine's clock (a guest's only), in ns since 1970.
        """
        args: dict[str, Any] = {"token": self.token, "protocol": PROTOCOL}
        args["seed"] = base64.b64encode(seed if seed is not None else os.urandom(SEED_BYTES)).decode()
        if time_ns is not None:
            args["time_ns"] = time_ns
        try:
            answer = self.call("hello", deadline_s=deadline_s, **args)
        except DeadlineExceeded as error:
            if self._stale or self._splitter.skipped:
                error.got += (
                    f" ({self._stale} answers to an earlier run and {self._splitter.skipped} bytes were dropped)"
                )
            raise
        return Hello.of(answer)

    def call(
        self, verb: str, *, deadline_s: float, body: bytes = b"", on_stream: OnStream | None = None, **args: Any
    ) -> Answer:
        """Ask for one verb and wait for its answer.

        Args:
            deadline_s: the agent stops then; ``GRACE_S`` later so do we, whatever the agent does.
            body: raw bytes that go with it.
            on_stream: gets what the call streams (name, bytes), in the thread of the caller; the call is cancelled if
                it raises.

        Raises:
            RemoteOSError: the kernel refused, with its errno.
            DeadlineExceeded: the agent stopped at the deadline, or is silent.
            RemoteError: the agent could not do it for another reason.
            TransportFailed: the stream broke or carried nonsense; or the reason given to ``lost``.
        """
        asked = self._ask(verb, args, body, deadline_s)
        try:
            answer = self._collect(asked, on_stream)
        except BaseException:
            self._abandon(asked.number)
            raise
        return _judge(asked.what, verb, *answer)

    def lost(self, reason: HarnessError) -> None:
        """The machine is gone: end every call, now and later, with this very reason. The first reason stands."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
            waiting = list(self._waiting.values())
        for parts in waiting:
            parts.put(None)

    def check_alive(self) -> None:
        """Raise the reason if the machine is gone."""
        if self._reason is not None:
            raise again(self._reason)

    def close(self) -> None:
        """End the channel and close the stream."""
        self.lost(TransportFailed("the channel to the agent was closed", on=self.name))
        self._out.put(None)
        if isinstance(
            self._stream, socket.socket
        ):  # close alone ends no recv that waits, and so tells the agent nothing
            with contextlib.suppress(OSError):
                self._stream.shutdown(socket.SHUT_RDWR)
        self._stream.close()

    def _ask(self, verb: str, args: dict[str, Any], body: bytes, deadline_s: float) -> Asked:
        asked = Asked(next(self._ids), _what(verb, args), deadline_s, queue.SimpleQueue())
        try:
            frame = encode({"id": asked.number, "verb": verb, "args": args, "deadline_s": deadline_s}, body)
        except FrameError as error:
            raise RemoteError(asked.what, got=str(error), fix="split it into several calls") from None
        with self._lock:
            self._waiting[asked.number] = asked.parts
            if self._reason is not None:
                asked.parts.put(None)
        self._out.put(frame)
        return asked

    def _collect(self, asked: Asked, on_stream: OnStream | None) -> Part:
        until = time.monotonic() + asked.deadline_s + GRACE_S
        while True:
            try:
                part = asked.parts.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise DeadlineExceeded(
                    asked.what,
                    on=self.name,
                    got=f"agent silent for {asked.deadline_s:g} s and {GRACE_S:g} s of grace",
                    fix="the console log tells whether the machine is alive",
                ) from None
            if part is None:
                assert self._reason is not None
                raise again(self._reason)
            if "stream" not in part[0]:
                return part
            if on_stream is not None:
                on_stream(part[0]["stream"], part[1])

    def _abandon(self, number: int) -> None:
        """Nobody waits for this call any more: cancel it, and take its late answer for what it is."""
        with self._lock:
            self._waiting.pop(number, None)
            if self._reason is not None:
                return
            cancel = next(self._ids)
            self._abandoned |= {number, cancel}
        self._out.put(encode({"id": cancel, "verb": "cancel", "args": {"id": number}, "deadline_s": 10}))

    def _write(self) -> None:
        while (frame := self._out.get()) is not None:
            try:
                self._stream.sendall(frame)
            except Exception as error:  # a stream is any class of anybody; the reader will see the end of it too
                self._broken(f"sending failed: {error}")
                return

    def _read(self) -> None:
        splitter = self._splitter
        while self._reason is None:
            try:
                data = self._stream.recv(READ_BYTES)
            except Exception as error:  # as above
                self._broken(f"receiving failed: {error}")
                return
            if not data:
                inside = f", {splitter.pending} bytes into a frame" if splitter.pending else ""
                self._broken(f"the stream ended{inside}")
                return
            try:
                splitter.feed(data)
                while (frame := splitter.next()) is not None:
                    self._deliver(*frame)
            except FrameError as error:
                self.lost(self._nonsense(str(error)))
            except HarnessError as error:
                self.lost(error)

    def _deliver(self, message: Message, body: bytes) -> None:
        """Give a frame to the call that waits for it; TransportFailed when there is none."""
        number, token = message.get("id"), message.get("token")
        if ENDED in message:
            raise self._agent_ended(message[ENDED])
        if token != self.token:
            if not self._greeted and isinstance(token, str):
                self._stale += 1  # said to the run before ours, on its way when we came
                return
            raise self._nonsense(f"an answer for run {token!r:.50}; ours is {self.token}")
        self._greeted = True
        self._splitter.resync = False
        if not isinstance(number, int) or not isinstance(message.get("stream", ""), str):
            raise self._nonsense(f"a frame without a sound id or stream name: {message!r:.200}")
        last = "stream" not in message
        with self._lock:
            parts = self._waiting.pop(number, None) if last else self._waiting.get(number)
            known = parts is not None or number in self._abandoned
            if last:
                self._abandoned.discard(number)
        if not known:
            raise self._nonsense(f"an answer to call {number}, which nobody waits for")
        if parts is not None:
            parts.put((message, body))

    def _broken(self, got: str) -> None:
        """The stream is of no use any more; whoever owns the machine may know why."""
        if self._reason is None and self._on_eof is not None:
            try:
                self.lost(self._on_eof())
            except Exception as error:  # nobody would ever be told otherwise
                got += f"; asking why failed: {type(error).__name__}: {error}"
        self.lost(TransportFailed("talk to the agent", on=self.name, got=got, fix="see the machine's console log"))

    def _agent_ended(self, status: object) -> TransportFailed:
        return TransportFailed(
            "talk to the agent",
            on=self.name,
            got=f"it ended with exit status {status!r:.20}, and what it knew of this run with it",
            fix="above 128, a signal of that number less 128 ended it; the console log has what it said",
        )

    def _nonsense(self, got: str) -> TransportFailed:
        return TransportFailed(
            "talk to the agent",
            on=self.name,
            got=got,
            fix="is something else writing to its stream (a console, a login message)?",
        )


def again(reason: HarnessError) -> HarnessError:
    """A fresh copy of an error, for one more thread to raise: same class, same words, a traceback of its own."""
    fresh = type(reason).__new__(type(reason), *reason.args)  # not __init__: every class has its own
    fresh.__dict__.update(reason.__dict__)
    fresh.__cause__ = reason.__cause__
    if isinstance(fresh, OSError) and isinstance(reason, OSError):  # these two live outside __dict__
        fresh.errno, fresh.strerror = reason.errno, reason.strerror
    return fresh


def _what(verb: str, args: dict[str, Any]) -> str:
    """A call as a phrase: the verb and its arguments, without the secrets of hello and cut to a line or two."""
    shown = " ".join(f"{name}={value!r:.200}" for name, value in args.items() if verb != "hello")
    return f"agent: {verb} {shown}".rstrip()[:600]


def _judge(what: str, verb: str, message: Message, body: bytes) -> Answer:
    """The answer, or the error that it carries."""
    error = message.get("error")
    if error is None:
        value = message.get("ok")
        if not isinstance(value, dict):
            raise TransportFailed(what, got=f"an answer that is neither ok nor error: {message!r:.200}")
        return Answer(verb, value, body)
    if not isinstance(error, dict):
        raise TransportFailed(what, got=f"an error that is no object: {error!r:.200}")
    said, on, code = str(error.get("message", "")), str(error.get("on", "")), error.get("errno")
    kind = error.get("kind")
    if kind == "os" and isinstance(code, int) and 0 < code < 4096:
        raise RemoteOSError(code, said or what, on=on)
    if kind == "deadline":
        raise DeadlineExceeded(what, on=on, got=said)
    raise RemoteError(what, on=on, got=said if kind == "usage" else f"{kind}: {said}")
