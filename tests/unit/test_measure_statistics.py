"""What samples say, and what they do not."""

import json

import pytest

from harness.measure.statistics import Distribution, Measured, check_all, judge, ms, percentile, summary_text

MS = 1_000_000


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [(1, 50, 1), (1, 99, 1), (2, 50, 1), (3, 50, 2), (20, 99, 20), (99, 99, 99), (100, 99, 99), (101, 99, 100)],
)
def test_percentile_is_the_nearest_rank(count, percent, expected):
    assert percentile(range(1, count + 1), percent) == expected


def test_distribution_does_not_depend_on_the_order():
    seen = Distribution.of([30, 10, 20, 40])
    assert (seen.count, seen.minimum_ns, seen.p50_ns, seen.p99_ns, seen.maximum_ns) == (4, 10, 20, 40, 40)
    assert seen.mean_ns == 25.0


@pytest.mark.parametrize("count", [1, 20, 99, 100])
def test_p99_is_called_the_maximum_exactly_while_it_is_one(count):
    seen = Distribution.of(range(count))
    assert seen.p99_is_maximum == (seen.p99_ns == seen.maximum_ns)


@pytest.mark.parametrize(("samples", "words"), [([], "nothing was measured"), ([5, -1], "ran backwards")])
def test_what_is_no_measurement_is_refused(samples, words):
    with pytest.raises(ValueError, match=words):
        Distribution.of(samples)


@pytest.mark.parametrize(
    ("value_ns", "text"),
    [
        (12_345, "0.012 ms"),
        (1_234_567, "1.235 ms"),
        (12_345_678, "12.35 ms"),
        (352_100_000, "352.1 ms"),
        (1_300_000_000, "1300 ms"),
    ],
)
def test_milliseconds_have_four_digits(value_ns, text):
    assert ms(value_ns) == text


def test_summary_of_twenty_samples_claims_no_p99():
    text = summary_text(Distribution.of([10 * MS] * 19 + [14 * MS]))
    assert text == "20 samples: min 10.00, p50 10.00, max 14.00, mean 10.20 ms (p99 needs 100 samples)"


def test_summary_of_a_hundred_samples_has_its_p99():
    text = summary_text(Distribution.of([10 * MS] * 98 + [12 * MS, 14 * MS]))
    assert text == "100 samples: min 10.00, p50 10.00, p99 12.00, max 14.00, mean 10.06 ms"


def test_summary_of_one_sample_is_that_sample():
    assert summary_text(Distribution.of([10 * MS])) == "1 sample: 10.00 ms"


def test_a_sample_equal_to_the_limit_keeps_it():
    assert judge([100 * MS], 100 * MS, "FLR of PF").ok


def test_a_sample_one_nanosecond_over_the_limit_is_late_and_says_by_how_much():
    verdict = judge([90 * MS, 100 * MS + 1], 100 * MS, "FLR of VF 2")
    assert not verdict.ok
    assert verdict.text.startswith("FLR of VF 2: 1 of 2 later than 100 ms, worst 100.0 ms (1 ns over, sample 2); ")


def test_verdict_names_the_worst_of_the_late_samples():
    verdict = judge([9 * MS, 131 * MS, 352 * MS, 200 * MS], 100 * MS, "FLR of VF 3")
    assert verdict.late == ((1, 131 * MS), (2, 352 * MS), (3, 200 * MS))
    assert "3 of 4 later than 100 ms, worst 352.0 ms (252.0 ms over, sample 3)" in verdict.text


def test_a_pass_says_what_it_could_have_missed():
    verdict = judge([10 * MS] * 20, 100 * MS, "FLR of PF")
    assert verdict.text.startswith("FLR of PF: all 20 within 100 ms; ")
    assert verdict.text.endswith("up to 14% late ones could go unseen (95 % confidence)")


def test_check_all_raises_one_error_with_every_late_function():
    late = [judge([200 * MS], 100 * MS, f"FLR of VF {index}") for index in (1, 2)]
    with pytest.raises(AssertionError) as caught:
        check_all(late[0], judge([MS], 100 * MS, "FLR of PF"), late[1])
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["FLR of VF 1", "FLR of VF 2"]


def test_check_is_silent_when_every_sample_is_in_time():
    judge([MS], 100 * MS, "FLR of PF").check()


def test_measured_survives_the_way_from_a_worker():
    one = Measured("FLR", "VF 3", (9 * MS, 352 * MS), 100 * MS)
    assert Measured.from_plain(json.loads(json.dumps(one.as_plain()))) == one
    assert (one.group, one.late) == ("VFs", 1)
    assert (Measured("FLR", "PF", (MS,)).group, Measured("FLR", "PF", (MS,)).late) == ("PF", 0)
