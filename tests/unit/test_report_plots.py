"""The pictures: what must be seen in them, and how large they may be."""

import random
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from harness.report.plots import flr_histogram, msix_matrix
from harness.report.svg import BAD, GOOD

pytest.importorskip("matplotlib", reason="this computer lacks matplotlib: the pictures are not tested")

MS = 1_000_000
MOST_BYTES = 60_000


def words(svg):
    return [element.text.strip() for element in ElementTree.fromstring(svg).iter() if (element.text or "").strip()]


def identity(functions, vectors):
    size = functions * vectors
    labels = [f"VF {1 + index // vectors} vector {index % vectors}" for index in range(size)]
    return [(label, [int(row == column) for column in range(size)]) for row, label in enumerate(labels)]


def test_importing_the_plots_does_not_import_matplotlib():
    program = "import sys, harness.report.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_histogram_shows_functions_limit_second_and_the_late_one():
    svg = flr_histogram({"PF": [14 * MS] * 20, "VF 3": [9 * MS] * 19 + [352 * MS], "VF 4": []})
    shown = words(svg)
    assert "FLR: later than 100 ms: VF 3 (1 of 20)" in shown
    assert {"PF", "VF 3", "VF 4", "limit 100 ms", "1 s", "Linux warns", "not measured", "352.00"} <= set(shown)
    assert "p99 / ms" not in shown
    assert re.search(rf"stroke: {BAD.lower()}; stroke-width: 1.8", svg.decode()), "the late sample is not marked"


def test_histogram_in_time_has_no_late_mark_and_a_p99_from_100_samples():
    svg = flr_histogram({"PF": [14 * MS] * 100, "VF 1": [9 * MS] * 20})
    assert "FLR: all 120 resets within 100 ms" in words(svg)
    assert "p99 / ms" in words(svg)
    assert "stroke-width: 1.8" not in svg.decode()


def test_the_same_samples_give_the_same_picture():
    assert flr_histogram({"PF": [14 * MS, 15 * MS]}) == flr_histogram({"PF": [14 * MS, 15 * MS]})


def test_many_functions_and_samples_stay_small():
    chance = random.Random(1)
    series = {f"VF {at}": [int(chance.lognormvariate(16, 1.2)) for _ in range(500)] for at in range(64)}
    svg = flr_histogram(series)
    assert len(svg) < MOST_BYTES
    assert "45 others" in words(svg)


def test_matrix_of_a_good_endpoint_is_blue_only():
    svg = msix_matrix(identity(2, 3))
    assert "MSI-X: all 6 vectors arrived once, each on its own eventfd and nowhere else" in words(svg)
    assert GOOD.lower() in svg.decode()
    assert not re.search(rf'<path [^>]*style="fill: {BAD.lower()}', svg.decode())


def test_matrix_marks_lost_doubled_and_strayed_interrupts_with_their_number():
    rows = identity(2, 3)
    rows[1][1][1], rows[1][1][5], rows[4][1][4] = 0, 1, 2
    svg = msix_matrix(rows)
    assert {"VF 1 vector 1 arrived on VF 2 vector 2 instead", "VF 2 vector 1 arrived twice, not once"} <= set(
        words(svg)
    )
    path = re.search(rf'<path d="([^"]*)" [^>]*style="fill: {BAD.lower()}', svg.decode())
    assert path, "nothing is drawn in the colour for wrong"
    assert path[1].count("M") == 3
    in_bad_cells = re.findall(r"font-weight: 700; font-size: 9px;[^>]*fill: #ffffff[^>]*>(\d)<", svg.decode())
    assert sorted(in_bad_cells) == ["0", "1", "2"]


def test_matrix_of_many_vectors_stays_small_and_shows_the_fault():
    rows = identity(64, 4)
    rows[201][1][201] = 0
    svg = msix_matrix(rows)
    assert len(svg) < MOST_BYTES
    assert "MSI-X: 1 of 256 vectors wrong" in words(svg)
    assert any("192 good vectors not shown" in word for word in words(svg))
