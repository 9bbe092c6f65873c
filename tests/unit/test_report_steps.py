"""Steps, attachments and values: what the report and the evidence folder get."""

import json
import sys
from contextvars import Context, copy_context
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.measure.statistics import Measured
from harness.report import steps
from harness.report.steps import (
    Step,
    attach_bytes,
    attach_json,
    attach_svg,
    attach_text,
    measured,
    parameter,
    recording,
    step,
    steps_text,
)


@pytest.fixture(params=[None, "fake"], ids=["without allure", "with allure"])
def any_allure(request, monkeypatch):
    """The module ``allure``: missing, or one that notes what it is given."""
    return _put_allure(monkeypatch) if request.param else monkeypatch.setitem(sys.modules, "allure", None)


@pytest.fixture
def allure(monkeypatch):
    return _put_allure(monkeypatch)


def _put_allure(monkeypatch):
    noted = SimpleNamespace(steps=[], attached=[], parameters=[], pages=[])

    class Context:
        def __init__(self, title):
            noted.steps.append(title)

        def __enter__(self):
            pass

        def __exit__(self, *_error):
            pass

    fake = SimpleNamespace(
        step=Context,
        attach=lambda *given: noted.attached.append(given),
        dynamic=SimpleNamespace(
            parameter=lambda name, value, excluded: noted.parameters.append((name, repr(value), excluded)),
            description_html=noted.pages.append,
        ),
    )
    monkeypatch.setitem(sys.modules, "allure", fake)
    return noted


def test_steps_are_recorded_in_order_with_depth_and_outcome(any_allure):
    with recording() as recorded:
        with step("enable 4 VFs"), step("write sriov_numvfs"):
            pass
        with pytest.raises(AssertionError), step("reset VF 2"):
            raise AssertionError("3 of 10 later than 100 ms\nmore")
        with pytest.raises(KeyError), step("count"):
            raise KeyError("presence")
        with pytest.raises(pytest.skip.Exception), step("ask the lab"):
            pytest.skip("the lab lacks KVM")
    assert [(each.title, each.depth, each.outcome, each.reason) for each in recorded.steps] == [
        ("enable 4 VFs", 0, "passed", ""),
        ("write sriov_numvfs", 1, "passed", ""),
        ("reset VF 2", 0, "failed", "3 of 10 later than 100 ms"),
        ("count", 0, "broken", "'presence'"),
        ("ask the lab", 0, "skipped", "the lab lacks KVM"),
    ]
    assert all(each.duration_s is not None and each.duration_s >= 0 for each in recorded.steps)


def test_steps_reach_allure(allure):
    with step("enable 4 VFs"):
        pass
    assert allure.steps == ["enable 4 VFs"]


def test_a_step_that_still_runs_says_so():
    with recording() as recorded, step("boot the guest"):
        assert recorded.steps[0].outcome == "running"
        assert steps_text(recorded.steps) == "…        …  boot the guest"


def test_steps_as_text():
    done = (Step("enable 4 VFs", 0, 0.0, 0.02, "passed"), Step("reset VF 2", 1, 0.1, 1.31, "failed", "late"))
    assert steps_text(done) == "✓   0.02 s  enable 4 VFs\n✗   1.31 s    reset VF 2: late"


def test_a_recording_does_not_see_another_context(any_allure):
    with recording() as outer:
        other = copy_context()
        with recording() as inner:
            other.run(lambda: _one_step("outer"))
            _one_step("inner")
    assert [[each.title for each in recorded.steps] for recorded in (outer, inner)] == [["outer"], ["inner"]]


def _one_step(title):
    with step(title):
        pass


def test_attachments_are_kept_under_names_that_are_safe_and_free(tmp_path, any_allure):
    with recording(tmp_path / "evidence"):
        attach_text("../../etc/passwd", "one")
        attach_text("console.log", "two")
        attach_text("console.log", "three")
        attach_bytes("QMP of VF 1", b"\x00")
        attach_svg("FLR of each function", b"<svg/>")
    kept = {file.name: file.read_bytes() for file in (tmp_path / "evidence").iterdir()}
    assert kept == {
        "etc-passwd.txt": b"one",
        "console.log": b"two",
        "console-2.log": b"three",
        "QMP-of-VF-1.bin": b"\x00",
        "FLR-of-each-function.svg": b"<svg/>",
    }


def test_without_attachments_there_is_no_evidence_folder(tmp_path, any_allure):
    with recording(tmp_path / "evidence"), step("nothing"):
        parameter("p50", "9 ms")
    assert not (tmp_path / "evidence").exists()


def test_outside_of_a_recording_nothing_happens(allure):
    nothing_recorded = Context()  # the plugin records this test
    nothing_recorded.run(attach_text, "a", "b")
    nothing_recorded.run(attach_bytes, "a", b"b")
    nothing_recorded.run(attach_svg, "a", b"<svg/>")
    nothing_recorded.run(attach_json, "a", {})
    nothing_recorded.run(parameter, "a", 1)
    nothing_recorded.run(measured, Measured("FLR", "PF", (1,)))
    assert allure == SimpleNamespace(steps=[], attached=[], parameters=[], pages=[])


def test_a_long_text_is_cut_in_the_report_and_whole_in_the_evidence(tmp_path, allure):
    text = "first" + "x" * 2 * steps.TEXT_LIMIT_CHARACTERS + "last"
    with recording(tmp_path):
        attach_text("console", text)
    shown, name, mime, extension = allure.attached[0]
    assert (name, mime, extension) == ("console", "text/plain", "txt")
    assert len(shown) < steps.TEXT_LIMIT_CHARACTERS + 200
    assert shown.startswith("first")
    assert shown.endswith("last")
    assert f"{len(text) - steps.TEXT_LIMIT_CHARACTERS} characters left out here, all of it is in console.txt" in shown
    assert (tmp_path / "console.txt").read_text() == text


def test_a_short_text_is_not_cut():
    assert steps.cut_text("abcd", 4) == "abcd"


def test_too_many_bytes_are_only_named_in_the_report(tmp_path, allure):
    data = bytes(steps.BYTES_LIMIT + 1)
    with recording(tmp_path):
        attach_bytes("dump", data)
        attach_bytes("small", b"\x01", mime="application/x-small")
    where = "it is in dump.bin in the evidence folder"
    assert allure.attached == [
        (f"{len(data)} bytes, too many for the report: {where}\n", "dump", "text/plain", "txt"),
        (b"\x01", "small", "application/x-small", "bin"),
    ]
    assert (tmp_path / "dump.bin").stat().st_size == len(data)


def test_json_takes_our_values_and_refuses_others(tmp_path, any_allure):
    @dataclass(frozen=True, slots=True)
    class Row:
        name: str
        raw: bytes

    with recording(tmp_path):
        attach_json("rows", {"row": Row("VF 1", b"\x86\x80"), "at": Path("a/b"), "set": {2, 1}})
        with pytest.raises(TypeError, match="object is not a plain value"):
            attach_json("other", object())
    assert json.loads((tmp_path / "rows.json").read_text()) == {
        "row": {"name": "VF 1", "raw": "8680"},
        "at": "a/b",
        "set": [1, 2],
    }


def test_a_parameter_stays_out_of_the_identity_and_has_no_quotes(allure):
    with recording() as recorded:
        parameter("slowest FLR", "14.2 ms")
    assert allure.parameters == [("slowest FLR", "14.2 ms", True)]
    assert recorded.parameters == (("slowest FLR", "14.2 ms"),)


def test_pictures_stand_on_the_test_page_below_its_claim(allure):
    with recording(description="Resets <100 ms.\n\n    Always.\n    "):
        attach_svg("first", b"<svg>1</svg>")
        attach_svg("second", b"<svg>2</svg>")
    assert allure.pages[-1].startswith("<p>Resets &lt;100 ms.\n\nAlways.</p>\n<img")
    assert allure.pages[-1].count("data:image/svg+xml;base64,PHN2Zz") == 2


def test_measured_samples_wait_for_the_summary():
    with recording() as recorded:
        measured(Measured("FLR", "PF", (1, 2)))
    assert recorded.measured == (Measured("FLR", "PF", (1, 2)),)


def test_a_recording_ends_with_its_body_and_gives_back_the_one_around_it(tmp_path, any_allure):
    with recording(tmp_path / "outer") as outer:
        with recording(tmp_path / "inner"):
            attach_text("inner", "text")
        attach_text("outer", "text")
    attach_text("late", "text")
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.txt")) == [
        "inner/inner.txt",
        "outer/outer.txt",
    ]
    assert outer.files == (tmp_path / "outer" / "outer.txt",)
