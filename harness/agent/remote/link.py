"""The byte stream to the harness: a virtio-serial port, stdin and stdout, or a socket."""

from __future__ import annotations

import os
import select
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ_BYTES = 1 << 18
WRITE_BYTES = 1 << 16
HUNG_UP_LOOK_S = 0.5  # only a fallback: the kernel wakes us when the other side comes back


class Link:
    """Two file descriptors (often the same one), read by one thread and written by any.

    A virtio-serial port reads as end-of-file and polls as POLLHUP while nobody holds the host's end; that is no end,
    only a pause (``lasting``). Edge-triggered epoll waits through it without looping: virtio_console wakes its pollers
    when the host's end is opened, and level-triggered poll(2) would return at once for ever.
    """

    def __init__(self, fd_in: int, fd_out: int, *, lasting: bool = False) -> None:
        self.lasting = lasting
        self._in = fd_in
        self._out = fd_out
        self._hung_up = False
        self._write_lock = threading.Lock()
        os.set_blocking(fd_in, False)
        os.set_blocking(fd_out, False)
        self._epoll = select.epoll()
        self._epoll.register(fd_in, select.EPOLLIN | select.EPOLLET)

    def receive(self, idle_s: float | None = None) -> bytes | None:
        """Wait for bytes. ``b""``: the other side has gone (said once). None: nothing came for ``idle_s``."""
        while True:
            try:
                data = os.read(self._in, READ_BYTES)
            except BlockingIOError:
                self._hung_up = False
                if not self._epoll.poll(idle_s) and idle_s is not None:
                    return None
                continue
            except OSError:  # a socket that was reset, a port that was unplugged
                data = b""
            if data:
                self._hung_up = False
                return data
            if not self._hung_up:
                self._hung_up = True
                return b""
            self._epoll.poll(HUNG_UP_LOOK_S)

    def send(self, data: bytes, wanted: Callable[[], bool] = lambda: True) -> bool:
        """Write a whole frame; False (and the rest dropped) when the other side has gone.

        ``wanted`` is asked when it is this frame's turn, so that what it depends on cannot change between two frames.
        """
        with self._write_lock:
            if not wanted():
                return False
            rest = memoryview(data)
            while rest:
                try:
                    rest = rest[os.write(self._out, rest[:WRITE_BYTES]) :]
                except BlockingIOError:
                    if not self._wait_writable():
                        return False
                except OSError:
                    return False
            return True

    def _wait_writable(self) -> bool:
        poll = select.poll()
        poll.register(self._out, select.POLLOUT)
        events = poll.poll()[0][1]
        return bool(events & select.POLLOUT) and not events & select.POLLHUP
