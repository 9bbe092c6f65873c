"""Advisory locks on files: they die with their holder, and several users may share them.

``flock`` and not ``filelock``, because a running machine needs a *shared* lock, and a builder must be able to say who
it is. The kernel drops the lock with the last descriptor, so a killed holder leaves nothing to clean up.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType


class FileLock:
    """One lock file, unlocked; take it with ``try_lock``, give it back with ``release``.

    Not for sharing between threads: each takes its own object (two objects exclude each other in one process too).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        return self._fd is not None

    def try_lock(self, *, shared: bool = False) -> bool:
        """Take the lock if it is free now.

        Returns:
            False when another holds it in a way that excludes us.

        Raises:
            OSError: the lock file cannot be opened or made (a read-only cache, a missing folder).
        """
        while True:
            fd = _open(self.path)
            try:
                fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except OSError as error:
                os.close(fd)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    return False
                raise
            if _is_still(fd, self.path):
                self._fd = fd
                return True
            os.close(fd)  # the former holder removed the file under us: what we locked is no longer the lock

    def sign(self) -> None:
        """Write who we are into the file, for those who wait."""
        assert self._fd is not None, "only a holder signs"
        with suppress(OSError):  # a lock file of another user may be read-only to us; the lock counts, not the name
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps({"pid": os.getpid(), "user": _user()}).encode(), 0)

    def holder(self) -> str:
        """Who signed last, as text for people ("pid 42, user ann"); meaningful only while somebody holds it."""
        try:
            signed = json.loads(self.path.read_bytes())
            return f"pid {signed['pid']}, user {signed['user']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; ``remove`` (only for an exclusive holder) takes the file away as well."""
        if self._fd is None:
            return
        if remove:
            with suppress(OSError):
                self.path.unlink()
        os.close(self._fd)
        self._fd = None

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def holders(path: Path) -> str:
    """Who holds a lock file now, by the kernel's own list ("pid 7, pid 9"); "" when that cannot be told.

    Source: proc_locks(5); a holder in another PID namespace is listed with pid 0 or not at all.
    """
    try:
        status = path.stat()
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return ""
    node = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    pids = {row[4] for row in rows if len(row) >= 6 and row[1] == "FLOCK" and row[5] == node and row[4] != "0"}
    return ", ".join(f"pid {pid}" for pid in sorted(pids, key=int))


def fit_mode(fd: int, folder: Path) -> None:
    """Let those use a file who may use its folder: read and write by group and others as the folder allows them.

    Without this the umask of whoever came first would lock everybody else out of a shared cache.
    """
    with suppress(OSError):
        like = folder.stat()
        if like.st_gid != os.fstat(fd).st_gid and like.st_mode & stat.S_IRWXG:
            with suppress(OSError):
                os.fchown(fd, -1, like.st_gid)
        os.fchmod(fd, 0o600 | (like.st_mode & 0o066))


def _open(path: Path) -> int:
    """Open a lock file as well as we may, or make it.

    O_CREAT comes last: in a sticky folder (/tmp) the kernel refuses it on a file of another user (protected_regular).
    """
    while True:
        with suppress(FileNotFoundError):
            try:
                return os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except PermissionError:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        fit_mode(fd, path.parent)
        return fd


def _is_still(fd: int, path: Path) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(fd)
    return (now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a uid without a name, as in containers
        return str(os.getuid())
