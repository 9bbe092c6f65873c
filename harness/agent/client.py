"""The agent as the rest of the harness sees it: typed methods over a channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.agent.channel import Channel, OnStream
from harness.agent.frames import MAX_BODY_BYTES
from harness.agent.results import Answer, Completed, Entry, FlrSample, Hello, PollResult, Stat, Stream
from harness.agent.vfio import VfioDevice
from harness.errors import HarnessError, RemoteError

DEADLINE_S = 30.0  # of a call that should take milliseconds: a guest under TCG on a busy machine is slow
FILE_LIMIT_BYTES = 64 << 20
OUTPUT_LIMIT_BYTES = 64 << 20
NS = 1_000_000_000
POLL_GRACE_S = 10.0


class Agent:
    """The one program beside the device. Thread-safe; every method raises what ``Channel.call`` raises.

    Attributes:
        machine: who answered hello.
    """

    def __init__(self, channel: Channel, machine: Hello) -> None:
        self.channel = channel
        self.machine = machine

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        return self.channel.name

    def call(
        self,
        verb: str,
        *,
        deadline_s: float = DEADLINE_S,
        body: bytes = b"",
        on_stream: OnStream | None = None,
        **args: Any,
    ) -> Answer:
        """Any verb of the agent; see ``Channel.call``."""
        return self.channel.call(verb, deadline_s=deadline_s, body=body, on_stream=on_stream, **args)

    def lost(self, reason: HarnessError) -> None:
        """The machine is gone: every waiting and later call ends with this reason."""
        self.channel.lost(reason)

    def check_alive(self) -> None:
        self.channel.check_alive()

    def close(self) -> None:
        self.channel.close()

    # files

    def read_file(self, path: str, *, deadline_s: float = DEADLINE_S) -> bytes:
        """The whole content, at most 64 MiB."""
        content = b""
        while True:
            answer = self.call("file.read", path=path, offset=len(content), deadline_s=deadline_s)
            content += answer.body
            if answer.flag("end") or not answer.body:
                return content
            if len(content) > FILE_LIMIT_BYTES:
                raise RemoteError(
                    "read a file beside the device", on=path, got=f"it has more than {FILE_LIMIT_BYTES} bytes"
                )

    def read_text(self, path: str, *, deadline_s: float = DEADLINE_S) -> str:
        """The content without white space at the end, as sysfs files are meant."""
        return self.read_file(path, deadline_s=deadline_s).decode(errors="replace").rstrip()

    def write_file(self, path: str, data: bytes | str, *, create: bool = False, deadline_s: float = DEADLINE_S) -> None:
        """One write(2) of exactly these bytes, as sysfs wants it; nothing is added.

        Args:
            create: make an ordinary file of exactly this content, however long; otherwise a missing file is ENOENT.
        """
        raw = data.encode() if isinstance(data, str) else data
        self.call("file.write", path=path, create=create, body=raw[:MAX_BODY_BYTES], deadline_s=deadline_s)
        for offset in range(MAX_BODY_BYTES, len(raw), MAX_BODY_BYTES):
            part = raw[offset : offset + MAX_BODY_BYTES]
            self.call("file.write", path=path, create=create, offset=offset, body=part, deadline_s=deadline_s)

    def exists(self, path: str) -> bool:
        """True for a link that leads nowhere, too."""
        return self.call("file.exists", path=path).flag("exists")

    def list(self, path: str) -> tuple[Entry, ...]:
        """What is in a folder, in order of name."""
        return tuple(Entry(*row) for row in self.call("file.list", path=path).rows("entries", str, str, str))

    def link(self, path: str) -> str:
        """What a symbolic link says."""
        return self.call("file.link", path=path).text("target")

    def real_path(self, path: str) -> str:
        """Where a symbolic link leads in the end."""
        return self.call("file.link", path=path).text("real")

    def stat(self, path: str) -> Stat:
        answer = self.call("file.stat", path=path)
        return Stat(answer.text("kind"), *map(answer.number, ("size", "mode", "uid", "gid", "mtime_ns")))

    def glob(self, pattern: str) -> tuple[str, ...]:
        """Paths that match, in order; at most 10 000."""
        return tuple(self.call("file.glob", pattern=pattern).items("paths", str))

    def wait_for_path(self, path: str, *, within_s: float, present: bool = True) -> None:
        """Wait, beside the device, until a path exists or is gone; DeadlineExceeded otherwise."""
        self.call("file.wait", path=path, present=present, deadline_s=within_s)

    def wait_for_value(self, path: str, pattern: str, *, within_s: float) -> str:
        """Wait until a file's content matches a regular expression; the content."""
        answer = self.call("file.wait_value", path=path, pattern=pattern, deadline_s=within_s)
        return answer.body.decode(errors="replace")

    # functions

    def config_space(self, bdf: str) -> bytes:
        """All that the kernel gives of a function's configuration space: 4096 or 256 bytes, 64 without root."""
        return self.call("config.read", bdf=bdf, offset=0, size=4096).body

    def config_read(self, bdf: str, offset: int, width: int) -> int:
        """One register of 1, 2 or 4 bytes, by one access of that width."""
        raw = self.call("config.read", bdf=bdf, offset=offset, size=width).body
        if len(raw) != width:
            raise RemoteError(
                f"read {width} bytes of configuration space at {offset:#x}",
                on=bdf,
                got=f"{len(raw)} bytes",
                fix="beyond 64 bytes the agent must run as root; beyond 256 the device must be PCI Express",
            )
        return int.from_bytes(raw, "little")

    def config_write(self, bdf: str, offset: int, width: int, value: int) -> None:
        """One register of 1, 2 or 4 bytes, by one access of that width."""
        self.call("config.write", bdf=bdf, offset=offset, body=value.to_bytes(width, "little"))

    def config_poll(
        self,
        bdf: str,
        offset: int,
        width: int,
        *,
        mask: int,
        value: int,
        timeout_s: float,
        equal: bool = True,
        interval_s: float = 0.0,
        keep: int = 0,
    ) -> PollResult:
        """Poll a register until ``register & mask`` equals ``value`` (or differs); a time-out is a result."""
        answer = self.call(
            "config.poll",
            deadline_s=timeout_s + POLL_GRACE_S,
            bdf=bdf,
            offset=offset,
            width=width,
            mask=mask,
            value=value,
            equal=equal,
            interval_ns=int(interval_s * NS),
            timeout_ns=int(timeout_s * NS),
            keep=keep,
        )
        return PollResult.of(answer)

    def flr(self, bdf: str, *, pcie_cap_offset: int, timeout_s: float = 2.0, hold_s: float = 0.0) -> FlrSample:
        """Reset one function and time it; its configuration space is left as the reset made it.

        Args:
            pcie_cap_offset: of its PCI Express capability.
            timeout_s: from the write on; not ready by then is a result (``ready``).
            hold_s: leave the function alone for so long after the write.
        """
        answer = self.call(
            "flr",
            deadline_s=timeout_s + hold_s + POLL_GRACE_S,
            bdf=bdf,
            cap_offset=pcie_cap_offset,
            timeout_ns=int(timeout_s * NS),
            hold_ns=int(hold_s * NS),
        )
        return FlrSample.of(answer)

    def vfio(self, bdf: str, *, vf_token: str = "") -> VfioDevice:
        """Open a function that is bound to vfio-pci; a context manager."""
        return VfioDevice(self, bdf, vf_token=vf_token)

    def bar_read(self, bdf: str, bar: int, offset: int, width: int = 4) -> int:
        """One aligned access to a BAR of a function that neither a driver nor VFIO holds."""
        return self.call("bar.read", bdf=bdf, bar=bar, offset=offset, width=width).number("value")

    def bar_write(self, bdf: str, bar: int, offset: int, value: int, width: int = 4) -> None:
        """One aligned access to a BAR of a function that neither a driver nor VFIO holds."""
        self.call("bar.write", bdf=bdf, bar=bar, offset=offset, width=width, value=value)

    # programs and power

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline_s: float = DEADLINE_S,
        check: bool = True,
        input: bytes = b"",
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        on_stream: OnStream | None = None,
    ) -> Completed:
        """Run a program, without a shell, and wait for it. It is killed with its process group at the deadline.

        Args:
            check: RemoteError when it fails.
            input: its standard input.
            env: added to the agent's environment.
            on_stream: sees ("stdout" | "stderr", bytes) as they come.
        """
        outputs = {"stdout": bytearray(), "stderr": bytearray()}

        def keep(name: str, data: bytes) -> None:
            if sum(map(len, outputs.values())) > OUTPUT_LIMIT_BYTES:
                raise RemoteError(
                    f"run {argv[0]}", on=self.name, got=f"it printed more than {OUTPUT_LIMIT_BYTES} bytes"
                )
            outputs.setdefault(name, bytearray()).extend(data)
            if on_stream is not None:
                on_stream(name, data)

        args: dict[str, Any] = {"argv": list(argv), "env": env or {}}
        if cwd is not None:
            args["cwd"] = cwd
        answer = self.call("command.run", deadline_s=deadline_s, body=input, on_stream=keep, **args)
        done = Completed(tuple(argv), answer.number("status"), bytes(outputs["stdout"]), bytes(outputs["stderr"]))
        return done.check() if check else done

    def power(self, action: str) -> None:
        """Switch the machine off ("poweroff") or on again ("reboot") at once; only a machine of our own."""
        self.call("power", action=action)


def connect(
    stream: Stream,
    *,
    name: str = "agent",
    deadline_s: float = DEADLINE_S,
    time_ns: int | None = None,
    seed: bytes | None = None,
    on_eof: Callable[[], HarnessError] | None = None,
    leftovers: bool = False,
) -> Agent:
    """Begin a run with the agent at the other end of ``stream``: one round trip; see ``Channel`` and ``Channel.hello``.

    The agent may not have been started yet: hello waits in the stream.
    """
    channel = Channel(stream, name=name, on_eof=on_eof, leftovers=leftovers)
    try:
        return Agent(channel, channel.hello(deadline_s=deadline_s, seed=seed, time_ns=time_ns))
    except BaseException:
        channel.close()
        raise
