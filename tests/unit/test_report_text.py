"""Series and matrices as values, and as text."""

import pytest

from harness.report.matrix import Matrix
from harness.report.series import LogScale, duration_label, headline, rows_of
from harness.report.text import histogram_text, matrix_text

MS = 1_000_000
LIMIT = 100 * MS


def identity(*labels):
    return [(label, [int(row == column) for column in range(len(labels))]) for row, label in enumerate(labels)]


def test_histogram_text():
    text = histogram_text({"PF": [12 * MS] * 3 + [14 * MS], "VF 1": [2 * MS, 350 * MS], "VF 2": []})
    assert text.splitlines() == [
        "FLR: later than 100 ms: VF 1 (1 of 2)",
        "      1 ms        10 ms         100 ms          1 s",
        "PF                   █▃            ┃             ┊      4 samples: p50 12.00, max 14.00 ms",
        "VF 1      █                        ┃      █      ┊      2 samples: p50 2.000, max 350.0 ms  ✗ 1 LATE",
        "VF 2                               ┃             ┊      not measured",
    ]


def test_histogram_text_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing was measured"):
        histogram_text({"PF": []})


def test_headline_counts_resets_and_names_what_was_not_measured():
    rows = rows_of({"PF": [MS], "VF 1": [MS, MS], "VF 2": []}, LIMIT)
    assert headline(rows, LIMIT) == "all 3 resets within 100 ms; not measured: VF 2"


def test_of_many_functions_the_slowest_are_shown_in_order_and_the_others_pooled():
    series = {f"VF {index}": [index * MS, MS] for index in range(1, 11)}
    series["VF 2"] = [500 * MS]
    rows = rows_of(series, LIMIT, most=4)
    assert [row.name for row in rows] == ["VF 2", "VF 9", "VF 10", "7 others"]
    assert [row.late for row in rows] == [1, 0, 0, 0]
    assert len(rows[3].samples_ns) == 14


@pytest.mark.parametrize("sample_ns", [0, 5_000, 50 * MS, 90_000 * MS])
def test_the_scale_always_shows_the_limit_and_one_second(sample_ns):
    rows = rows_of({"PF": [sample_ns]}, LIMIT)
    scale = LogScale.over(rows, LIMIT)
    assert 0.05 < scale.position(LIMIT) < scale.position(1000 * MS) < 0.97
    assert scale.position(sample_ns) < 1.0
    assert sum(scale.histogram([sample_ns], 10)) == 1


def test_bins_meet_at_their_edges():
    scale = LogScale(low_ns=1e6, high_ns=1e9)
    assert [round(edge) for edge in scale.edges(3)] == [MS, 10 * MS, 100 * MS, 1000 * MS]
    assert scale.histogram([MS, 9 * MS, 11 * MS, 999 * MS, 5000 * MS], 3) == (2, 1, 2)
    assert scale.decades() == (1e6, 1e7, 1e8, 1e9)


@pytest.mark.parametrize(("value", "text"), [(1e4, "10 µs"), (1e8, "100 ms"), (1e9, "1 s"), (5e2, "500 ns")])
def test_duration_label(value, text):
    assert duration_label(value) == text


def test_matrix_text():
    rows = identity("VF 1 vector 0", "VF 1 vector 1", "VF 2 vector 0")
    rows[1][1][:] = [0, 0, 1]
    assert matrix_text(rows).splitlines() == [
        "MSI-X: 1 of 3 vectors wrong",
        "  VF 1 vector 1 arrived on VF 2 vector 0 instead",
        "fired            0    1    0",
        "VF 1 vector 0    1    ·    ·",
        "VF 1 vector 1    ·   [0]  [1]",
        "",
        "VF 2 vector 0    ·    ·    1",
    ]


def test_matrix_text_names_few_of_many_faults():
    rows = [(f"VF 1 vector {index}", [0] * 10) for index in range(10)]
    assert matrix_text(rows).splitlines()[8:10] == ["  VF 1 vector 7 never arrived", "  … and 2 more"]


@pytest.mark.parametrize(
    ("counts", "fault"),
    [
        ([1, 0, 0], None),
        ([0, 0, 0], "VF 1 vector 0 never arrived"),
        ([2, 0, 0], "VF 1 vector 0 arrived twice, not once"),
        ([3, 1, 0], "VF 1 vector 0 arrived 3 times, not once, and also on VF 1 vector 1"),
        ([0, 0, 1], "VF 1 vector 0 arrived on VF 1 vector 2 instead"),
        ([1, 2, 1], "VF 1 vector 0 arrived, and also on VF 1 vector 1 (twice), VF 1 vector 2"),
    ],
)
def test_each_way_to_be_wrong_has_its_sentence(counts, fault):
    rows = identity("VF 1 vector 0", "VF 1 vector 1", "VF 1 vector 2")
    rows[0] = ("VF 1 vector 0", counts)
    assert Matrix.of(rows).faults() == ((fault,) if fault else ())


def test_check_raises_every_fault():
    with pytest.raises(AssertionError, match=r"^PF vector 0 never arrived\nPF vector 1 never arrived$"):
        Matrix.of([("PF vector 0", [0, 0]), ("PF vector 1", [0, 0])]).check()
    Matrix.of(identity("PF vector 0", "PF vector 1")).check()


def test_vectors_that_were_fired_more_often_are_expected_more_often():
    matrix = Matrix.of([("PF vector 0", [3, 0]), ("PF vector 1", [0, 2])], expected=3)
    assert matrix.faults() == ("PF vector 1 arrived twice, not 3 times",)


@pytest.mark.parametrize(("rows", "words"), [([], "nothing was fired"), ([("PF vector 0", [1, 0])], "2 counts for 1")])
def test_what_is_no_matrix_is_refused(rows, words):
    with pytest.raises(ValueError, match=words):
        Matrix.of(rows)


def test_of_many_vectors_both_ends_of_a_fault_are_shown():
    rows = identity(*(f"VF {index // 4} vector {index % 4}" for index in range(100)))
    rows[90][1][90], rows[90][1][70] = 0, 1
    shown = Matrix.of(rows).to_show(most=8)
    assert len(shown.labels) == 8
    assert shown.left_out == 92
    assert {"VF 22 vector 2", "VF 17 vector 2"} <= set(shown.labels)
    assert shown.headline() == "1 of 100 vectors wrong"
    assert shown.faults() == Matrix.of(rows).faults()
