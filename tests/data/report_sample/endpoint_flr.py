"""Function Level Reset: in time, and nobody else is touched."""

import random

import pytest

from harness.measure.statistics import check_all, judge, ms
from harness.report.plots import flr_histogram
from harness.report.series import FLR_LIMIT_NS
from harness.report.steps import attach_json, attach_svg, attach_text, parameter, step
from harness.report.text import histogram_text

FUNCTIONS = ["PF", *(f"VF {index}" for index in range(1, 8))]


def samples_ns(function: str) -> list[int]:
    chance = random.Random(function)
    middle_ms = 14 if function == "PF" else 9
    samples = [int(chance.gauss(middle_ms, 0.6) * 1e6) for _ in range(20)]
    if function == "VF 3":
        samples[6], samples[11], samples[17] = 352_100_000, 131_000_000, 349_800_000
    return samples


def test_flr_of_each_function_is_in_time():
    """PCIe 6.0, 6.6.2: a function completes an FLR within 100 ms."""
    series = {}
    with step("enable 7 VFs"):
        pass
    for function in FUNCTIONS:
        with step(f"reset {function} 20 times"):
            series[function] = samples_ns(function)
    verdicts = [judge(samples, FLR_LIMIT_NS, f"FLR of {function}") for function, samples in series.items()]
    attach_svg("FLR of each function", flr_histogram(series))
    attach_text("FLR as text", histogram_text(series))
    attach_json("samples in ns", series)
    parameter("slowest FLR", ms(max(verdict.seen.maximum_ns for verdict in verdicts)))
    with step("hold every reset against 100 ms"):
        check_all(*verdicts)


@pytest.mark.parametrize("function", ["PF", "VF 1"])
def test_flr_clears_command_register(function):
    """After an FLR, Bus Master and Memory Space are off."""
    with step(f"switch on bus mastering of {function}"):
        pass
    with step(f"reset {function} and read its Command register"):
        pass


def test_flr_of_one_vf_leaves_the_others_alone():
    """VF 2 keeps its MSI-X table while VF 1 is reset."""
    with step("reset VF 1 while VF 2 carries interrupts"):
        pass
