"""The cache, seen by several processes and users at once: real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import DeadlineExceeded, HostLacks, UsageError
from harness.vm.cache import Cache
from harness.vm.entry import beside
from harness.vm.locks import holders
from harness.waiting import wait_until

KEY = "ab" * 32
REPOSITORY = Path(__file__).parents[2]

# Says "building" and builds until the file "go" exists; then says what it got.
WORKER = f"""
import sys
from pathlib import Path
from harness.vm.cache import Cache
from harness.vm.entry import beside
from harness.vm.locks import holders
from harness.waiting import wait_until

def say(line):
    print(line, flush=True)

def build(folder):
    (folder / "data").write_bytes(b"x" * 1000)
    say("building")
    wait_until("go", (Path(sys.argv[1]) / "go").exists, within_s=20)
    return {{}}

entry = Cache(Path(sys.argv[1]) / "cache").obtain("image", "guest", "{KEY}", build, inputs={{}}, progress=say)
say("done")
with entry.in_use():
    say("using")
    sys.stdin.read()
"""


class Worker:
    """A process that obtains the entry and then uses it until its standard input ends."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> list[str]:
        """Let it end by itself; returns what it said and nobody read."""
        return self.process.communicate("")[0].splitlines()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    workers: list[Worker] = []

    def start_one() -> Worker:
        workers.append(Worker(tmp_path))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.kill()


def test_two_at_once_build_once_and_the_waiting_one_says_for_whom(tmp_path: Path, start: Callable[[], Worker]) -> None:
    first = start()
    assert first.line() == "building"
    second = start()
    waiting = second.line()
    assert waiting.startswith(f"image guest-{KEY[:16]}: waiting for pid {first.process.pid}, user ")
    (tmp_path / "go").touch()
    assert first.end() == ["done", "using"]
    assert second.end() == ["done", "using"]


def test_killed_builder_frees_the_lock_at_once_and_its_leftovers_go(
    tmp_path: Path, start: Callable[[], Worker]
) -> None:
    first = start()
    assert first.line() == "building"
    left = list(tmp_path.glob("cache/image/.*.tmp"))
    assert len(left) == 1
    first.kill()
    assert left[0].is_dir(), "a process killed by SIGKILL cannot have tidied up"
    cache = Cache(tmp_path / "cache", build_wait_s=0.5)

    def build(_folder: Path) -> dict[str, str]:
        assert not left[0].exists(), "the room that it takes is needed now"
        return {}

    cache.obtain("image", "guest", KEY, build, inputs={})
    assert not list(tmp_path.glob("cache/image/.*.tmp"))


def test_sweep_removes_what_the_dead_left_and_not_what_the_living_build(
    tmp_path: Path, start: Callable[[], Worker]
) -> None:
    worker = start()
    assert worker.line() == "building"
    cache = Cache(tmp_path / "cache")
    cache.sweep()
    assert len(list(tmp_path.glob("cache/image/.*.tmp"))) == 1
    worker.kill()
    cache.sweep()
    assert list(tmp_path.glob("cache/image/*")) == []


def test_waiting_ends_with_the_name_of_who_builds(tmp_path: Path, start: Callable[[], Worker]) -> None:
    worker = start()
    assert worker.line() == "building"
    cache = Cache(tmp_path / "cache", build_wait_s=0.1)
    began, descriptors = time.monotonic(), len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(DeadlineExceeded, match=rf"waited 0.1 s .*still being built by pid {worker.process.pid}, user"):
        cache.obtain("image", "guest", KEY, lambda _folder: {}, inputs={})
    assert time.monotonic() - began < 1
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors, "each look at the lock left a descriptor open"


def test_entry_that_another_process_uses_is_not_removed_until_that_dies(
    tmp_path: Path, start: Callable[[], Worker]
) -> None:
    (tmp_path / "go").touch()
    worker = start()
    assert [worker.line() for _ in range(3)] == ["building", "done", "using"]
    cache = Cache(tmp_path / "cache")
    (entry,) = cache.entries()
    with pytest.raises(UsageError, match=rf"image/guest-{KEY[:16]}: it is in use by pid {worker.process.pid}\b"):
        cache.remove(entry)
    worker.kill()
    cache.remove(entry)
    assert cache.entries() == ()


def test_entry_being_built_is_not_removed(tmp_path: Path, start: Callable[[], Worker]) -> None:
    worker = start()
    assert worker.line() == "building"
    cache = Cache(tmp_path / "cache")
    with pytest.raises(UsageError, match=rf"it is being built by pid {worker.process.pid}\b"):
        cache.remove(cache.path("image", "guest", KEY))


def as_user(uid: int, gid: int, do: Callable[[], object]) -> str:
    """Run ``do`` in a child process as another user; returns what it raised ("" for nothing)."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            os.umask(0o077)
            do()
        except BaseException as error:
            os.write(write, "".join(traceback.format_exception_only(error)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can reach (pytest's own are closed to them)."""
    if os.getuid() != 0:
        pytest.skip("only root can become two users")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


ANN, BOB, LAB = 60001, 60002, 60003


def test_two_users_share_a_cache_of_their_group(shared: Path) -> None:
    root = shared / "cache"
    root.mkdir()
    os.chown(root, 0, LAB)
    root.chmod(0o2775)

    def build(folder: Path) -> dict[str, str]:
        (folder / "sub").mkdir()
        (folder / "sub/data").write_bytes(b"x")
        return {}

    def obtain() -> None:
        Cache(root).obtain("image", "guest", KEY, build, inputs={})

    def use_then_damage_then_rebuild() -> None:
        cache = Cache(root)
        (entry,) = cache.entries()
        with entry.in_use():
            pass
        entry.file("sub/data").unlink()
        obtain()
        cache.remove(cache.entries()[0])

    assert as_user(ANN, LAB, obtain) == ""
    assert as_user(BOB, LAB, use_then_damage_then_rebuild) == ""
    assert as_user(ANN, LAB, obtain) == ""
    assert wait_until("the entry", lambda: Cache(root).entries(), within_s=1)


def test_reader_of_a_closed_cache_uses_what_is_there_and_hears_what_is_not(shared: Path) -> None:
    root = shared / "cache"
    cache = Cache(root)
    cache.obtain("image", "guest", KEY, lambda _folder: {}, inputs={})

    def use() -> None:
        entry = Cache(root).obtain("image", "guest", KEY, lambda _folder: {}, inputs={})
        with entry.in_use():
            assert holders(beside(entry.path, "use")) == f"pid {os.getpid()}", "its owner would not see that we use it"
        with pytest.raises(HostLacks, match="Permission denied"):
            Cache(root).remove(entry)

    assert as_user(ANN, ANN, use) == ""
    missing = as_user(ANN, ANN, lambda: Cache(root).obtain("image", "host", KEY, lambda _folder: {}, inputs={}))
    assert "HostLacks: build into the cache" in missing
    assert "set SRIOV_HARNESS_CACHE to a folder of yours" in missing
