"""MSI-X: each vector arrives once, where it belongs."""

from harness.report.matrix import Matrix
from harness.report.plots import msix_matrix
from harness.report.steps import attach_svg, attach_text, step
from harness.report.text import matrix_text


def matrix(faults):
    labels = [f"VF {vf} vector {vector}" for vf in range(1, 5) for vector in range(3)]
    rows = [(label, [int(row == column) for column in range(12)]) for row, label in enumerate(labels)]
    for row, column, count in faults:
        rows[row][1][column] = count
    return rows


def test_each_vector_arrives_once():
    """Every vector of VF 1 to 4, fired once, is counted once by its own eventfd."""
    with step("give each of the 12 vectors an eventfd"):
        rows = matrix([(4, 4, 0), (4, 5, 1), (7, 7, 2), (2, 8, 1), (9, 9, 0)])
    with step("fire each vector once"):
        pass
    attach_svg("MSI-X of VF 1 to 4", msix_matrix(rows))
    attach_text("MSI-X as text", matrix_text(rows))
    with step("compare what was fired with what arrived"):
        Matrix.of(rows).check()


def test_each_vector_arrives_once_after_flr():
    """The same after an FLR of each VF, with the table written again."""
    with step("fire each vector once"):
        rows = matrix([])
    attach_svg("MSI-X of VF 1 to 4", msix_matrix(rows))
    Matrix.of(rows).check()


def test_masked_vector_is_held_in_the_pba():
    """A masked vector that fires sets its PBA bit and arrives when it is unmasked."""
