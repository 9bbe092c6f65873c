"""Frames over any byte stream: what the client and the agent beside the device both speak.

A frame is a header, one JSON object and a raw body::

    offset  size  field
    0       4     magic, b"\\xf5srh" (0xf5 occurs in no UTF-8 text, so neither a console nor our own JSON can fake it)
    4       4     length of the JSON in bytes, big endian, at most 1 MiB
    8       4     length of the body in bytes, big endian, at most 4 MiB
    12      …     the JSON object in UTF-8, then the body

This file travels inside ``agent.pyz``: standard library only, Python 3.9.
"""

from __future__ import annotations

import json
import struct

TYPE_CHECKING = False  # `typing` itself costs an interpreter in a slow guest several milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Message = dict[str, Any]

PROTOCOL = 1
MAGIC = b"\xf5srh"
HEADER = struct.Struct(">4sII")
MAX_JSON_BYTES = 1 << 20
MAX_BODY_BYTES = 4 << 20
SHOWN_BYTES = 80  # of garbage, in a message


class FrameError(Exception):
    """Bytes that are no frame, or a message that does not fit into one."""


def encode(message: Message, body: bytes | bytearray | memoryview = b"") -> bytes:
    """One frame as bytes; FrameError when the message or the body is over its limit.

    File names that are no UTF-8 survive: they are lone surrogates, which JSON's ``\\uXXXX`` can carry.
    """
    text = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(text) > MAX_JSON_BYTES:
        raise FrameError(f"the message has {len(text)} bytes of JSON; a frame holds {MAX_JSON_BYTES}")
    if len(body) > MAX_BODY_BYTES:
        raise FrameError(f"the body has {len(body)} bytes; a frame holds {MAX_BODY_BYTES}")
    return b"".join((HEADER.pack(MAGIC, len(text), len(body)), text, body))


def _decode(text: bytes) -> Message:
    """The JSON object in ``text``; FrameError when it is anything else."""
    try:
        message = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise FrameError(f"its JSON cannot be read ({type(error).__name__}: {str(error)[:SHOWN_BYTES]})") from None
    if not isinstance(message, dict):
        raise FrameError(f"its JSON is a {type(message).__name__}, not an object")
    return message


class Splitter:
    """Cuts a byte stream into frames.

    Args:
        resync: True (the agent) skips what is no frame and goes on at the next magic; False (the client) raises
            FrameError for it. May be changed at any time.
    """

    def __init__(self, *, resync: bool) -> None:
        self.skipped = 0  # bytes thrown away so far
        self.resync = resync
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def clear(self) -> None:
        """Forget what is pending: the other side is gone and will not send the rest."""
        self.skipped += len(self._buffer)
        self._buffer.clear()

    def next(self) -> tuple[Message, bytes] | None:
        """The next complete frame, or None until more bytes are fed."""
        while self._at_magic():
            size = self._frame_size(0)
            if isinstance(size, FrameError):
                self._reject(size)
                continue
            if size is None or len(self._buffer) < size:
                return None
            try:
                return self._take(0, size)
            except FrameError as error:
                self._reject(error)
        return None

    def skip_to(self, wanted: Callable[[Message], bool]) -> bool:
        """Look for a whole frame with a wanted message *inside* the frame that is pending, and go on from there.

        A harness that is killed half-way through a frame leaves us waiting for the rest, and the first frame of the
        next harness would be taken for that rest. True when such a frame was found; nothing changes otherwise, so that
        a sender that is merely slow loses nothing.
        """
        start = self._buffer.find(MAGIC, 1)
        while start >= 0:
            size = self._frame_size(start)
            if isinstance(size, int) and start + size <= len(self._buffer):
                try:
                    found = wanted(_decode(self._json_at(start)))
                except FrameError:
                    found = False
                if found:
                    self.skipped += start
                    del self._buffer[:start]
                    return True
            start = self._buffer.find(MAGIC, start + 1)
        return False

    def _at_magic(self) -> bool:
        """True when a magic, or the part of it that has arrived, stands first."""
        head = bytes(self._buffer[: len(MAGIC)])
        if MAGIC.startswith(head):
            return len(head) == len(MAGIC)
        if not self.resync:
            raise FrameError(f"not a frame: {bytes(self._buffer[:SHOWN_BYTES])!r}")
        found = self._buffer.find(MAGIC)
        drop = found if found >= 0 else len(self._buffer) - self._magic_tail()
        self.skipped += drop
        del self._buffer[:drop]
        return found >= 0

    def _magic_tail(self) -> int:
        """How many of the last bytes may be the beginning of a magic."""
        for length in range(len(MAGIC) - 1, 0, -1):
            if self._buffer.endswith(MAGIC[:length]):
                return length
        return 0

    def _frame_size(self, start: int) -> int | FrameError | None:
        """Bytes of the frame at ``start``, None when its header is incomplete, an error when it is over a limit."""
        if len(self._buffer) - start < HEADER.size:
            return None
        _, json_bytes, body_bytes = HEADER.unpack_from(self._buffer, start)
        if json_bytes > MAX_JSON_BYTES or body_bytes > MAX_BODY_BYTES:
            return FrameError(
                f"a frame announces {json_bytes} bytes of JSON and a body of {body_bytes}; "
                f"the limits are {MAX_JSON_BYTES} and {MAX_BODY_BYTES}"
            )
        return HEADER.size + int(json_bytes) + int(body_bytes)

    def _json_at(self, start: int) -> bytes:
        json_bytes = HEADER.unpack_from(self._buffer, start)[1]
        return bytes(self._buffer[start + HEADER.size : start + HEADER.size + json_bytes])

    def _take(self, start: int, size: int) -> tuple[Message, bytes]:
        text = self._json_at(start)
        message = _decode(text)
        body = bytes(self._buffer[start + HEADER.size + len(text) : start + size])
        del self._buffer[: start + size]
        return message, body

    def _reject(self, error: FrameError) -> None:
        """Strict: raise. Otherwise step over the magic, not over what it announced: a real frame may stand there."""
        if not self.resync:
            raise error
        self.skipped += 1
        del self._buffer[:1]
