"""Where a mutant can sit: on every call to the agent, and on every command to QEMU.

Nothing here knows a register or a test. A tap gets what was asked and a way to ask it; it may ask otherwise, change the
answer, keep it from being asked at all, or do something to the machine behind the test's back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import pytest

from harness.agent.client import Agent
from harness.agent.results import Answer
from harness.errors import RemoteOSError
from harness.lab.emulated import EmulatedMachine
from harness.plugin import MACHINES
from harness.vm.qmp import Qmp
from tests.lab.mutants.model import Tap


@dataclass(frozen=True, slots=True)
class Call:
    """One call to an agent, on its way."""

    agent: Agent
    verb: str
    args: Mapping[str, Any]
    body: bytes
    how: Mapping[str, Any]  # deadline, stream
    item: pytest.Item

    def but(self, **args: Any) -> Call:
        """The same call with other arguments."""
        return replace(self, args={**self.args, **args})

    @property
    def machine(self) -> EmulatedMachine:
        """The machine that is asked."""
        return next(one for one in self.item.stash[MACHINES] if one.vm.agent is self.agent)


Ask = Callable[[Call], Answer]
When = Callable[[Call], bool]
Act = Callable[[Call], object]


def on_agent(change: Callable[[Ask, Call], Answer]) -> Tap:
    """Sit on every call to an agent."""

    def install(patch: pytest.MonkeyPatch, item: pytest.Item) -> None:
        send = Agent.call

        def ask(call: Call) -> Answer:
            return send(call.agent, call.verb, body=call.body, **call.how, **call.args)

        def tapped(agent: Agent, verb: str, *, body: bytes = b"", **more: Any) -> Answer:
            how = {name: more.pop(name) for name in ("deadline_s", "on_stream") if name in more}
            return change(ask, Call(agent, verb, more, body, how, item))

        patch.setattr(Agent, "call", tapped)

    return install


def on_qmp(change: Callable[[Callable[..., Any], str, dict[str, Any]], Any]) -> Tap:
    """Sit on every QMP command: ``change(ask, command, arguments)`` gives what it returns."""

    def install(patch: pytest.MonkeyPatch, _: pytest.Item) -> None:
        execute = Qmp.execute

        def tapped(qmp: Qmp, command: str, arguments: Mapping[str, Any] | None = None, **how: Any) -> Any:
            def ask(command: str, arguments: Mapping[str, Any]) -> Any:
                return execute(qmp, command, arguments, **how)

            return change(ask, command, dict(arguments or {}))

        patch.setattr(Qmp, "execute", tapped)

    return install


def constant(where: str, value: object) -> Tap:
    """A constant of the harness ("harness.lab.emulated.UNPLUG_WITHIN_S"), or of the test's module, if it has it."""

    def install(patch: pytest.MonkeyPatch, item: pytest.Item) -> None:
        if "." in where:
            patch.setattr(where, value)
        elif hasattr(module := item.getparent(pytest.Module).obj, where):
            patch.setattr(module, where, value)

    return install


# Which calls are meant


def asked(verb: str, **wanted: object) -> When:
    """Calls of a verb with these arguments; ``*`` in a text is any text."""

    def when(call: Call) -> bool:
        return call.verb == verb and all(
            fnmatchcase(str(call.args.get(name)), str(value)) for name, value in wanted.items()
        )

    return when


def wrote(path: str, text: str = "*") -> When:
    """Writes of a text to a file."""
    return lambda call: asked("file.write", path=path)(call) and fnmatchcase(call.body.decode(), text)


def nth(number: int, when: When) -> When:
    """Only the one of that number (from 1), for each machine."""
    counts: WeakKeyDictionary[Agent, int] = WeakKeyDictionary()

    def counted(call: Call) -> bool:
        if not when(call):
            return False
        counts[call.agent] = counts.get(call.agent, 0) + 1
        return counts[call.agent] == number

    return counted


def since(event: When, when: When) -> When:
    """Only after another call has been made, for each machine."""
    seen: WeakSet[Agent] = WeakSet()

    def later(call: Call) -> bool:
        meant = call.agent in seen and when(call)
        if event(call):
            seen.add(call.agent)
        return meant

    return later


# What happens to them


def swallowed(when: When, answer: Mapping[str, Any] | None = None) -> Tap:
    """They never reach the machine."""
    return on_agent(lambda ask, call: Answer(call.verb, dict(answer or {})) if when(call) else ask(call))


def refused(when: When, code: int) -> Tap:
    """They never reach the machine, and an errno comes back."""

    def change(ask: Ask, call: Call) -> Answer:
        if when(call):
            raise RemoteOSError(code, f"agent: {call.verb}", on=str(call.args.get("path", "")))
        return ask(call)

    return on_agent(change)


def asked_otherwise(when: When, change: Callable[[Call], Call]) -> Tap:
    """Something else is asked."""
    return on_agent(lambda ask, call: ask(change(call) if when(call) else call))


def answered(when: When, **change: Callable[[Any], Any]) -> Tap:
    """The answer is changed: ``body`` or one of its values."""

    def tap(ask: Ask, call: Call) -> Answer:
        answer = ask(call)
        if not when(call):
            return answer
        value = {name: change[name](old) if name in change else old for name, old in answer.value.items()}
        return replace(answer, value=value, body=change.get("body", bytes)(answer.body))

    return on_agent(tap)


def before(when: When, act: Act) -> Tap:
    """The machine is changed just before."""

    def tap(ask: Ask, call: Call) -> Answer:
        if when(call):
            act(call)
        return ask(call)

    return on_agent(tap)


def after(when: When, act: Act) -> Tap:
    """The machine is changed just after, also when it refused."""

    def tap(ask: Ask, call: Call) -> Answer:
        meant = when(call)
        try:
            return ask(call)
        finally:
            if meant:
                act(call)

    return on_agent(tap)
