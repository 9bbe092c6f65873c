"""Files beside the device: sysfs, procfs, ordinary ones. What the kernel refuses comes back with its errno."""

# pathlib costs a slow guest more to import than this file does:
# ruff: noqa: PTH115, PTH116, PTH123, PTH207

from __future__ import annotations

import contextlib
import glob
import os
import re
import stat as modes

from harness.agent import frames
from harness.agent.remote import verbs
from harness.agent.remote.calls import Call, Failure, usage

POLL_PAUSE_S = 0.005
CHUNK_BYTES = 1 << 18
MOST_PATHS = 10_000
KINDS = (
    (modes.S_ISREG, "file"),
    (modes.S_ISDIR, "folder"),
    (modes.S_ISLNK, "link"),
    (modes.S_ISCHR, "char"),
    (modes.S_ISBLK, "block"),
    (modes.S_ISFIFO, "fifo"),
    (modes.S_ISSOCK, "socket"),
)


def read(call: Call) -> verbs.Result:
    """``{path, offset?, size?}`` → the content as body, ``end``: whether that was all. At most 4 MiB a call."""
    path = call.text("path")
    offset = call.number("offset", 0)
    size = call.number("size", frames.MAX_BODY_BYTES, high=frames.MAX_BODY_BYTES)
    call.at(f"opening {path}")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        call.at(f"reading {path}")
        if offset:
            os.lseek(fd, offset, os.SEEK_SET)
        return _read_up_to(call, fd, size)
    except OSError as error:
        raise _named(error, path) from None
    finally:
        os.close(fd)


def _read_up_to(call: Call, fd: int, size: int) -> verbs.Result:
    parts: list[bytes] = []
    left = size
    while left:
        part = os.read(fd, min(left, CHUNK_BYTES))
        if not part:
            return {"end": True}, b"".join(parts)
        parts.append(part)
        left -= len(part)
        call.check()
    return {"end": False}, b"".join(parts)


def write(call: Call) -> verbs.Result:
    """``{path, offset?, create?}`` + body: one write(2), nothing added. A short write is an error.

    ``create`` makes an ordinary file of exactly this content; without it a missing file stays missing and nothing is
    truncated.
    """
    path = call.text("path")
    offset = call.number("offset", 0)
    flags = os.O_WRONLY | os.O_CLOEXEC
    if call.flag("create"):
        flags |= os.O_CREAT | (0 if offset else os.O_TRUNC)
    call.at(f"opening {path} for writing")
    fd = os.open(path, flags, 0o644)
    try:
        call.at(f"writing {call.body[:32]!r} ({len(call.body)} bytes) to {path}")
        if offset:
            os.lseek(fd, offset, os.SEEK_SET)
        written = os.write(fd, call.body)
    except OSError as error:
        raise _named(error, path) from None
    finally:
        os.close(fd)
    if written != len(call.body):
        raise Failure("internal", f"short write: the kernel took {written} of {len(call.body)} bytes", path)
    return {"written": written}


def list_folder(call: Call) -> verbs.Result:
    """``{path}`` → ``entries: [[name, kind, link target or ""], …]`` in order of name."""
    path = call.text("path")
    call.at(f"listing {path}")
    entries = []
    with os.scandir(path) as folder:
        for entry in folder:
            call.check()
            with contextlib.suppress(FileNotFoundError):  # gone since: devices come and go in sysfs
                kind = _kind(entry.stat(follow_symlinks=False).st_mode)
                entries.append([entry.name, kind, os.readlink(entry.path) if kind == "link" else ""])
    return {"entries": sorted(entries)}


def link(call: Call) -> verbs.Result:
    """``{path}`` → ``target`` as it stands in the link, ``real``: where it leads in the end."""
    path = call.text("path")
    call.at(f"reading the link {path}")
    return {"target": os.readlink(path), "real": os.path.realpath(path)}


def stat(call: Call) -> verbs.Result:
    """``{path}`` → kind, size, mode, uid, gid, modification time, of what a link leads to."""
    path = call.text("path")
    call.at(f"looking at {path}")
    seen = os.stat(path)
    return {
        "kind": _kind(seen.st_mode),
        "size": seen.st_size,
        "mode": modes.S_IMODE(seen.st_mode),
        "uid": seen.st_uid,
        "gid": seen.st_gid,
        "mtime_ns": seen.st_mtime_ns,
    }


def exists(call: Call) -> verbs.Result:
    """``{path}`` → ``exists``; a link that leads nowhere exists."""
    return {"exists": os.path.lexists(call.text("path"))}


def glob_paths(call: Call) -> verbs.Result:
    """``{pattern}`` → ``paths`` in order, at most 10 000."""
    pattern = call.text("pattern")
    call.at(f"looking for {pattern}")
    paths = []
    for path in glob.iglob(pattern):
        call.check()
        paths.append(path)
        if len(paths) > MOST_PATHS:
            raise usage(f"more than {MOST_PATHS} paths match", pattern)
    return {"paths": sorted(paths)}


def wait(call: Call) -> verbs.Result:
    """``{path, present}``: wait until the path is there, or is gone."""
    path = call.text("path")
    present = call.flag("present", True)
    call.at(f"waiting for {path} to {'appear' if present else 'go'}")
    while os.path.lexists(path) != present:
        call.pause(POLL_PAUSE_S)
    return {}


def wait_value(call: Call) -> verbs.Result:
    """``{path, pattern}``: wait until the content matches a regular expression → the content as body.

    A file that is missing or cannot be read yet is waited for.
    """
    path = call.text("path")
    try:
        pattern = re.compile(call.text("pattern").encode("utf-8", "surrogateescape"))
    except (re.error, OverflowError, RecursionError) as error:
        raise usage(f"{call.args.get('pattern')!r:.100} is no regular expression: {error}") from None
    while True:
        try:
            with open(path, "rb", buffering=0) as file:
                content = file.read(CHUNK_BYTES) or b""
            if pattern.search(content):
                return {}, content
            seen = repr(content[:80])
        except OSError as error:
            seen = os.strerror(error.errno or 0)
        call.at(f"waiting for {path} to match {call.args['pattern']!r}; last seen: {seen}")
        call.pause(POLL_PAUSE_S)


def _kind(mode: int) -> str:
    return next((name for test, name in KINDS if test(mode)), "other")


def _named(error: OSError, path: str) -> OSError:
    """The same error with the path in it: read(2) and write(2) know only a descriptor."""
    return OSError(error.errno, error.strerror, path)
