"""Frames: what is one, what is none, and how the agent finds its way back."""

from __future__ import annotations

import pytest

from harness.agent.frames import HEADER, MAGIC, MAX_BODY_BYTES, MAX_JSON_BYTES, FrameError, Splitter, encode

CALL = {"id": 7, "verb": "ping"}
HELLO = {"id": 1, "verb": "hello", "args": {"token": "new"}}


def split(data: bytes, *, resync: bool = False, step: int | None = None) -> list[tuple[dict, bytes]]:
    splitter, found = Splitter(resync=resync), []
    for start in range(0, len(data), step or len(data)):
        splitter.feed(data[start : start + (step or len(data))])
        while (frame := splitter.next()) is not None:
            found.append(frame)
    return found


def is_hello(message: dict) -> bool:
    return message.get("verb") == "hello"


@pytest.mark.parametrize("step", [1, 3, 13, None], ids=lambda step: f"{step or 'all'}-at-a-time")
def test_frames_survive_any_chunking(step):
    data = encode(CALL, b"\xf5srh body") + encode(HELLO) + encode({}, bytes(300))
    assert split(data, step=step) == [(CALL, b"\xf5srh body"), (HELLO, b""), ({}, bytes(300))]


def test_file_names_that_are_no_utf8_survive():
    name = b"caf\xe9".decode(errors="surrogateescape")
    assert split(encode({"name": name}))[0][0]["name"].encode(errors="surrogateescape") == b"caf\xe9"


@pytest.mark.parametrize(
    ("message", "body", "words"),
    [({"x": "y" * MAX_JSON_BYTES}, b"", "bytes of JSON"), ({}, bytes(MAX_BODY_BYTES + 1), "the body has 4194305")],
    ids=["json", "body"],
)
def test_what_is_over_a_limit_is_not_sent(message, body, words):
    with pytest.raises(FrameError, match=words):
        encode(message, body)


def test_the_largest_body_is_sent():
    assert len(split(encode({}, bytes(MAX_BODY_BYTES)))[0][1]) == MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"login: ", r"not a frame: b'login: '"),
        (b"\xf5sr!", "not a frame"),
        (encode(CALL) + b"x", "not a frame: b'x'"),
        (HEADER.pack(MAGIC, MAX_JSON_BYTES + 1, 0), "1048577 bytes of JSON"),
        (HEADER.pack(MAGIC, 2, 0xFFFFFFFF), "body of 4294967295"),
        (HEADER.pack(MAGIC, 4, 0) + b'{"id', "JSON cannot be read"),
        (HEADER.pack(MAGIC, 2, 0) + b"[]", "is a list, not an object"),
        (HEADER.pack(MAGIC, 3, 0) + b'"\xff"', "UnicodeDecodeError"),
        (HEADER.pack(MAGIC, 200_000, 0) + b"[" * 200_000, "JSON cannot be read"),
        (HEADER.pack(MAGIC, 6001, 0) + b"1" * 6001, "JSON cannot be read|not an object"),
    ],
    ids=["text", "near-magic", "behind", "json-length", "body-length", "truncated", "list", "utf8", "nested", "number"],
)
def test_the_client_refuses_what_is_no_frame(data, words):
    with pytest.raises(FrameError, match=words):
        split(data)


def test_a_huge_length_is_refused_by_its_header_alone():
    splitter = Splitter(resync=False)
    splitter.feed(HEADER.pack(MAGIC, 2, MAX_BODY_BYTES + 1))
    with pytest.raises(FrameError):
        splitter.next()


@pytest.mark.parametrize("step", [1, None], ids=["bytewise", "at-once"])
@pytest.mark.parametrize(
    "garbage",
    [
        b"login: root\r\n",
        b"\xf5\xf5s\xf5sr",
        HEADER.pack(MAGIC, 0xFFFFFFFF, 0),
        HEADER.pack(MAGIC, 4, 0) + b'{"id',
        HEADER.pack(MAGIC, 2, 0) + b"[]" + b"tail",
        MAGIC * 3,
        b"",
    ],
    ids=["text", "near-magics", "huge", "truncated", "list", "magics", "none"],
)
def test_the_agent_finds_the_frame_behind_garbage(garbage, step):
    assert split(garbage + encode(CALL, b"body"), resync=True, step=step) == [(CALL, b"body")]


def test_a_false_header_does_not_swallow_the_frame_that_it_announces_as_its_own():
    real = encode(CALL)
    assert split(HEADER.pack(MAGIC, len(real), 0) + real, resync=True) == [(CALL, b"")]


def test_a_hello_inside_half_a_frame_is_found():
    splitter = Splitter(resync=True)
    half = encode({"id": 1, "verb": "file.write"}, bytes(5000))[:2000]
    splitter.feed(half + encode(HELLO))
    assert splitter.next() is None, "still waiting for the rest of the first"
    assert splitter.skip_to(is_hello)
    assert splitter.next() == (HELLO, b"")
    assert splitter.skipped == len(half)


def test_a_slow_sender_loses_nothing_when_a_hello_is_looked_for():
    whole = encode({"id": 1, "verb": "file.write"}, encode(CALL) + encode(HELLO)[:-1] + bytes(100))
    splitter = Splitter(resync=True)
    splitter.feed(whole[:-50])
    assert not splitter.skip_to(is_hello), "half a hello and another call do not count"
    splitter.feed(whole[-50:])
    assert splitter.next()[0]["verb"] == "file.write"


def test_a_hang_up_forgets_half_a_frame():
    splitter = Splitter(resync=True)
    splitter.feed(encode(CALL, bytes(100))[:50])
    splitter.clear()
    splitter.feed(encode(HELLO))
    assert splitter.next() == (HELLO, b"")
