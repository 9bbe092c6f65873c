"""What a test did, in the tester's words, and what it wants to show: one recording a test.

The plugin opens a recording around each test; tests and fixtures only say ``with step("enable 4 VFs"):`` and
``attach_svg("FLR of each function", svg)``. All of it goes to Allure when allure-pytest is there, and always into the
recording, which the terminal and the evidence folder show. The only state is a context variable, so two tests in two
contexts never see each other's steps.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import inspect
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

from harness.measure.statistics import Measured
from harness.report.categories import status_of

Outcome = Literal["running", "passed", "failed", "broken", "skipped"]

# The HTML report is one file that holds every attachment in base64: a console log of 100 MB must not get into it.
TEXT_LIMIT_CHARACTERS = 256 * 1024
BYTES_LIMIT = 4 * 1024 * 1024

_MARKS: dict[Outcome, str] = {"running": "…", "passed": "✓", "failed": "✗", "broken": "✗", "skipped": "-"}


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One step of a test.

    Attributes:
        title: in the tester's words.
        depth: 0 for a step of the test itself, 1 for a step within that, and so on.
        start_s: seconds since the recording began.
        duration_s: seconds it took; None while it runs.
        outcome: "running" until it ends; "failed" for a failed assertion, "broken" for any other exception.
        reason: the first line of what ended it, when that was an exception.
    """

    title: str
    depth: int
    start_s: float
    duration_s: float | None = None
    outcome: Outcome = "running"
    reason: str = ""


class Recording:
    """The steps, files and values of one test, in the order in which they came.

    Args:
        evidence: the folder that gets a copy of every attachment; made with the first of them. None: keep none.
        description: what the test claims (its docstring); stands above its pictures in the report.
    """

    def __init__(self, evidence: Path | None = None, description: str = "") -> None:
        self.evidence = evidence
        self._page = f"<p>{html.escape(inspect.cleandoc(description))}</p>" if description else ""
        self._began = time.monotonic()
        self._steps: list[Step] = []
        self._depth = 0
        self._files: list[Path] = []
        self._parameters: dict[str, str] = {}
        self._measured: list[Measured] = []

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(self._steps)

    @property
    def files(self) -> tuple[Path, ...]:
        """What was kept in the evidence folder."""
        return tuple(self._files)

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._parameters.items())

    @property
    def measured(self) -> tuple[Measured, ...]:
        return tuple(self._measured)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        index = len(self._steps)
        self._steps.append(Step(title, self._depth, time.monotonic() - self._began))
        self._depth += 1
        try:
            yield
        except BaseException as error:
            self._finish(index, status_of(error), _first_line(error))
            raise
        else:
            self._finish(index, "passed", "")
        finally:
            self._depth -= 1

    def keep(self, name: str, extension: str, data: bytes) -> Path | None:
        """Write a copy into the evidence folder, under a name that is safe and not yet taken there."""
        if self.evidence is None:
            return None
        self.evidence.mkdir(parents=True, exist_ok=True)
        path = _free_path(self.evidence, _file_name(name, extension))
        path.write_bytes(data)
        self._files.append(path)
        return path

    def add_picture(self, svg: bytes) -> str:
        """Add a picture to the test's page and return the page so far, as HTML."""
        data = base64.b64encode(svg).decode()
        self._page += f'\n<img style="max-width: 100%" src="data:image/svg+xml;base64,{data}">'
        return self._page

    def note_parameter(self, name: str, value: str) -> None:
        self._parameters[name] = value

    def note_measured(self, one: Measured) -> None:
        self._measured.append(one)

    def _finish(self, index: int, outcome: Outcome, reason: str) -> None:
        begun = self._steps[index]
        duration = time.monotonic() - self._began - begun.start_s
        self._steps[index] = dataclasses.replace(begun, duration_s=duration, outcome=outcome, reason=reason)


_current: ContextVar[Recording | None] = ContextVar("sriov_harness_recording", default=None)


@contextmanager
def recording(evidence: Path | None = None, description: str = "") -> Iterator[Recording]:
    """Record everything in the body, which is one test with its set-up and teardown; for the arguments see there."""
    opened = Recording(evidence, description)
    token = _current.set(opened)
    try:
        yield opened
    finally:
        _current.reset(token)


@contextmanager
def step(title: str) -> Iterator[None]:
    """One thing that the test does, in the tester's words: ``with step("enable 4 VFs"):``."""
    __tracebackhide__ = True  # a failure shows the test's line, not this one
    recorded = _current.get()
    with _allure_step(title), recorded.step(title) if recorded else nullcontext():
        yield


def steps_text(steps: Sequence[Step]) -> str:
    """The steps as lines for a terminal or a file; the one that failed carries its reason.

    ✓   0.02 s  enable 4 VFs
    ✗   1.31 s  reset VF 2 ten times: 3 of 10 later than 100 ms
    """
    return "\n".join(_step_line(each) for each in steps)


def attach_text(name: str, text: str, *, extension: str = "txt") -> None:
    """Show a text. A long one is cut in the middle in the report; the evidence folder has all of it."""
    recorded = _current.get()
    if recorded is None:
        return
    kept = recorded.keep(name, extension, text.encode("utf-8", "replace"))
    _allure_attach(cut_text(text, TEXT_LIMIT_CHARACTERS, kept), name, "text/plain", extension)


def attach_bytes(name: str, data: bytes, *, mime: str = "application/octet-stream", extension: str = "bin") -> None:
    """Offer a file. One over 4 MiB is only named in the report; the evidence folder has it."""
    recorded = _current.get()
    if recorded is None:
        return
    kept = recorded.keep(name, extension, data)
    if len(data) > BYTES_LIMIT:
        where = f"it is in {kept.name} in the evidence folder" if kept else "no evidence folder was set to keep it"
        _allure_attach(f"{len(data)} bytes, too many for the report: {where}\n", name, "text/plain", "txt")
    else:
        _allure_attach(data, name, mime, extension)


def attach_json(name: str, value: Any) -> None:
    """Show a value as JSON: plain values, dataclasses, paths, sets and bytes (as hex); TypeError for others."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n"
    attach_bytes(name, text.encode(), mime="application/json", extension="json")


def attach_svg(name: str, svg: bytes) -> None:
    """Show a picture, also on the test's page itself: there it is seen without a click."""
    attach_bytes(name, svg, mime="image/svg+xml", extension="svg")
    if (recorded := _current.get()) is not None and (allure := _allure()) is not None:
        allure.dynamic.description_html(recorded.add_picture(svg))


def parameter(name: str, value: object) -> None:
    """Show a value beside the test's name, such as a measured p50.

    It stays out of the test's identity: Allure finds a test's history by a hash over its parameters, and with a
    measured value among them every run would be a test never seen before.
    """
    if (recorded := _current.get()) is not None:
        recorded.note_parameter(name, str(value))
        if (allure := _allure()) is not None:
            allure.dynamic.parameter(name, _Shown(str(value)), excluded=True)


def measured(one: Measured) -> None:
    """Hand samples to the summary at the end of the run."""
    if (recorded := _current.get()) is not None:
        recorded.note_measured(one)


def cut_text(text: str, limit: int, kept: Path | None = None) -> str:
    """At most ``limit`` characters and a line that says what is missing: a quarter from the start, the rest the end."""
    if len(text) <= limit:
        return text
    head, tail = limit // 4, limit - limit // 4
    where = f", all of it is in {kept.name} in the evidence folder" if kept else ""
    return f"{text[:head]}\n[… {len(text) - limit} characters left out here{where} …]\n{text[-tail:]}"


class _Shown:
    """A text that Allure shows as it is: it shows the repr of every value, so that a str would be in quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _allure() -> Any:
    """The allure module, or None; asked each time because it is a look into sys.modules, and a test may hide it."""
    try:
        import allure
    except ImportError:
        return None
    return allure


def _allure_step(title: str) -> AbstractContextManager[None]:
    allure = _allure()
    return nullcontext() if allure is None else allure.step(title)


def _allure_attach(body: str | bytes, name: str, mime: str, extension: str) -> None:
    if (allure := _allure()) is not None:
        allure.attach(body, name, mime, extension)


def _step_line(one: Step) -> str:
    took = "       …" if one.duration_s is None else f"{one.duration_s:6.2f} s"
    reason = f": {one.reason}" if one.reason else ""
    return f"{_MARKS[one.outcome]} {took}  {'  ' * one.depth}{one.title}{reason}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _file_name(name: str, extension: str) -> str:
    """A name for people as a file name that is safe everywhere; one that has an extension ("console.log") keeps it."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-80:] or "attachment"
    return safe if re.search(r"\.[a-z]{2,5}$", safe) else f"{safe}.{extension}"


def _free_path(folder: Path, file_name: str) -> Path:
    path, number = folder / file_name, 1
    while path.exists():
        number += 1
        path = folder / f"{Path(file_name).stem}-{number}{Path(file_name).suffix}"
    return path


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not a plain value")
