"""QMP by qemu.qmp, for code that waits: one event loop in one thread for each connection."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any

from qemu.qmp import QMPClient
from qemu.qmp.error import QMPError
from qemu.qmp.qmp_client import ExecuteError

from harness.errors import DeadlineExceeded, HarnessError, LabTrouble, TransportFailed

TRANSCRIPT_LINES = 5000
# What goes wrong is told by our errors; without a handler, logging would print it on standard error as well.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())


class QmpRefused(LabTrouble):
    """QEMU answered a command with an error.

    Attributes:
        description: QEMU's own words, to be matched against what it is known to say.
    """

    def __init__(self, command: str, description: str) -> None:
        self.description = description
        super().__init__(f"QMP {command}", got=description)


@dataclass(frozen=True, slots=True)
class Event:
    """One QMP event: its name, its data, and its place in the order of arrival (from 0)."""

    number: int
    name: str
    data: Mapping[str, Any]


class Qmp:
    """One connection to QEMU's monitor.

    Args:
        connection: our end; QEMU holds the other from its start on.
        why_lost: asked when the connection ends, for the reason to give.
    """

    def __init__(self, connection: socket.socket, why_lost: Callable[[], HarnessError]) -> None:
        self._why_lost = why_lost
        self._lines: list[str] = []
        self._events: list[Event] = []
        self._news = threading.Condition()
        self._lost: HarnessError | None = None
        self._client = QMPClient("qemu")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        connection.setblocking(False)
        self._listener: asyncio.Task[None] | None = None
        self._connected: Future[None] = self._submit(self._open(connection))

    def greeted(self, *, within_s: float) -> None:
        """Wait for QEMU's greeting: until then, nothing is known to be at the other end.

        Raises:
            DeadlineExceeded: it did not come in time.
            GuestLost: QEMU is gone.
        """
        self._wait(self._connected, "QEMU to greet on QMP", within_s, time.monotonic() + within_s)

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None, *, within_s: float = 10.0) -> Any:
        """Run one command and give its ``return`` value.

        Raises:
            QmpRefused: QEMU said no, in its own words.
            DeadlineExceeded: no answer in time.
            GuestLost: QEMU is gone.
        """
        deadline = time.monotonic() + within_s
        self._wait(self._connected, "QEMU to greet on QMP", within_s, deadline)
        if self._lost is not None:
            raise self._lost
        self._note({"execute": command, **({"arguments": dict(arguments)} if arguments else {})})
        call = self._submit(self._client.execute(command, dict(arguments) if arguments else None))
        try:
            answer = self._wait(call, f"the answer to QMP {command}", within_s, deadline)
        except ExecuteError as error:
            self._note({"error": str(error)})
            raise QmpRefused(command, str(error)) from None
        self._note({"return": answer})
        return answer

    def human(self, line: str, *, within_s: float = 10.0) -> str:
        """A command of the human monitor, for what has no QMP form."""
        return str(self.execute("human-monitor-command", {"command-line": line}, within_s=within_s))

    def events_so_far(self) -> int:
        """A mark: ``wait_event(after=mark)`` sees only what comes later."""
        with self._news:
            return len(self._events)

    def events(self, after: int = 0) -> tuple[Event, ...]:
        with self._news:
            return tuple(self._events[after:])

    def wait_event(self, name: str, *, within_s: float, after: int = 0, **data: Any) -> Event:
        """The first event of that name, and with these values, since the mark ``after``."""
        deadline = time.monotonic() + within_s
        with self._news:
            while True:
                for event in self._events[after:]:
                    if event.name == name and all(event.data.get(key) == value for key, value in data.items()):
                        return event
                if self._lost is not None:
                    raise self._lost
                left = deadline - time.monotonic()
                if left <= 0:
                    seen = ", ".join(event.name for event in self._events[after:]) or "no event"
                    raise DeadlineExceeded(
                        f"waited {within_s:g} s for QMP event {name} {data or ''}".rstrip(), got=seen
                    )
                self._news.wait(left)

    def transcript(self) -> str:
        """Everything said so far, one JSON object a line, with seconds since the first."""
        return "\n".join(self._lines) + "\n"

    def lost(self, reason: HarnessError) -> None:
        """End every wait with ``reason``; called by the machine when it knows more than an end of file."""
        with self._news:
            self._lost = self._lost or reason
            self._news.notify_all()

    def close(self) -> None:
        """Let go of the connection and the thread; QEMU's fate is not our matter here."""
        with self._news:
            self._lost = self._lost or TransportFailed("use QMP", got="the connection was closed by us")
        if self._loop.is_closed():
            return
        ended = self._submit(self._disconnect())
        try:
            ended.result(timeout=2.0)
        except (TimeoutError, QMPError, OSError, EOFError):
            ended.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=2.0)
        if not self._thread.is_alive():
            self._loop.close()

    async def _open(self, connection: socket.socket) -> None:
        # We negotiate ourselves: as soon as QEMU has taken this command it sends events, and one that overtakes the
        # answer ends qemu.qmp's own negotiation (0.0.6, "assert 'return' in reply").
        self._client.negotiate = False
        await self._client.connect(connection)
        await self._client.execute("qmp_capabilities")
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for message in self._client.events:
            self._note(dict(message))
            with self._news:
                data = message.get("data", {})
                assert isinstance(data, dict)
                self._events.append(Event(len(self._events), str(message["event"]), data))
                self._news.notify_all()

    async def _disconnect(self) -> None:
        if self._listener is None:  # still connecting, or failed to: qemu.qmp cleans up after itself then
            others = asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            return
        self._listener.cancel()
        await self._client.disconnect()

    def _submit(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _wait(self, call: Future[Any], what: str, within_s: float, deadline: float) -> Any:
        """The result of ``call``; polls ``_lost`` because a hung QEMU never ends its connection."""
        while True:
            left = deadline - time.monotonic()
            try:
                return call.result(timeout=max(0.0, min(left, 0.1)))
            except TimeoutError:
                if self._lost is None and left > 0:
                    continue
                if call is not self._connected:
                    call.cancel()  # its answer may still come; qemu.qmp drops it then
                if self._lost is not None:
                    raise self._lost from None
                raise DeadlineExceeded(f"waited {within_s:g} s for {what}", got="QEMU said nothing") from None
            except ExecuteError:
                raise
            except (QMPError, OSError, EOFError, asyncio.CancelledError, CancelledError) as error:
                raise (self._lost or self._why_lost()) from error

    def _note(self, message: Mapping[str, Any]) -> None:
        text = json.dumps({"t": round(time.monotonic(), 4), **message}, default=str)
        if len(self._lines) < TRANSCRIPT_LINES:
            self._lines.append(text)
