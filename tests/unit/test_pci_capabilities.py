"""Capability chains: a real device's, and hostile ones, which end the walk and never loop it."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from pci_kit import CAPABILITIES_POINTER, CONFIG_BYTES, STATUS, put, recorded, with_extended, with_standard

from harness.pci.capabilities import Cap, Capability, ExtCap, extended, find, standard

PM, MSIX = Cap.PM, Cap.MSIX
ENDS_WITHIN_S = 10


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """A walk that does not end fails its test, and does not hold up the run."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"still walking after {ENDS_WITHIN_S} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(ENDS_WITHIN_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def offsets(chain: tuple[Capability, ...]) -> list[int]:
    return [link.offset for link in chain]


def test_ids_are_those_of_the_pci_code_and_id_assignment() -> None:
    assert {cap.name: cap.value for cap in Cap} == {"PM": 1, "MSI": 5, "VENDOR": 9, "EXPRESS": 0x10, "MSIX": 0x11}
    assert {cap.name: cap.value for cap in ExtCap} == {"AER": 1, "DSN": 3, "ACS": 13, "ARI": 14, "ATS": 15, "SRIOV": 16}


def test_both_chains_of_a_real_pf() -> None:
    config = recorded("igb-pf")
    assert standard(config) == (
        Capability(Cap.PM, 0x40),
        Capability(Cap.MSI, 0x50),
        Capability(Cap.MSIX, 0x70),
        Capability(Cap.EXPRESS, 0xA0),
    )
    assert extended(config) == (
        Capability(ExtCap.AER, 0x100, version=1),
        Capability(ExtCap.ARI, 0x150, version=1),
        Capability(ExtCap.SRIOV, 0x160, version=1),
    )


def test_a_real_vf_has_no_sriov_capability() -> None:
    config = recorded("igb-vf1")
    assert find(config, Cap.MSIX) == Capability(Cap.MSIX, 0x70)
    assert find(config, ExtCap.SRIOV) is None


def test_the_first_of_several_is_found() -> None:
    config = with_standard((0x40, Cap.VENDOR, 0x50), (0x50, MSIX, 0x60), (0x60, MSIX, 0))
    assert find(config, Cap.MSIX) == Capability(MSIX, 0x50)


@pytest.mark.parametrize(
    ("links", "seen"),
    [
        ([(0x40, PM, 0x40)], [0x40]),
        ([(0x40, PM, 0x50), (0x50, MSIX, 0x40)], [0x40, 0x50]),
        ([(0x40, PM, 0x3C)], [0x40]),
        ([(0x40, PM, 0x04)], [0x40]),
        ([(0x40, PM, 0x53), (0x50, MSIX, 0)], [0x40, 0x50]),
        ([(0x40, PM, 0x50), (0x50, 0xFF, 0x60), (0x60, MSIX, 0)], [0x40]),
        ([(0x40, PM, 0xFC), (0xFC, MSIX, 0)], [0x40, 0xFC]),
    ],
    ids=["itself", "circle", "into-the-header", "into-the-ids", "low-bits-ignored", "id-ff", "at-the-end"],
)
def test_a_hostile_standard_chain_ends(links: list[tuple[int, int, int]], seen: list[int]) -> None:
    assert offsets(standard(with_standard(*links))) == seen


@pytest.mark.parametrize("first", [0x00, 0x04, 0x3F])
def test_a_pointer_into_the_header_leads_nowhere(first: int) -> None:
    assert standard(with_standard((0x40, PM, 0), first=first)) == ()


def test_the_pointer_counts_only_with_its_status_bit() -> None:
    config = bytearray(with_standard((0x40, PM, 0)))
    config[STATUS] = 0
    assert standard(bytes(config)) == ()


@pytest.mark.parametrize("size", [0, 0x34, 64, 255])
def test_a_short_dump_has_no_standard_chain(size: int) -> None:
    assert standard(recorded("igb-pf")[:size]) == ()


@pytest.mark.parametrize(
    ("links", "seen"),
    [
        ([(0x100, ExtCap.AER, 0x100)], [0x100]),
        ([(0x100, ExtCap.AER, 0x200), (0x200, ExtCap.ARI, 0x100)], [0x100, 0x200]),
        ([(0x100, ExtCap.AER, 0x0FC)], [0x100]),
        ([(0x100, ExtCap.AER, 0x203), (0x200, ExtCap.ARI, 0)], [0x100, 0x200]),
        ([(0x100, ExtCap.AER, 0xFFC), (0xFFC, ExtCap.SRIOV, 0)], [0x100, 0xFFC]),
        ([(0x100, 0, 0x200), (0x200, ExtCap.SRIOV, 0)], [0x100, 0x200]),
    ],
    ids=["itself", "circle", "into-the-standard-part", "low-bits-ignored", "at-the-end", "null-first"],
)
def test_a_hostile_extended_chain_ends(links: list[tuple[int, int, int]], seen: list[int]) -> None:
    assert offsets(extended(with_extended(*links))) == seen


@pytest.mark.parametrize("header", [0x0000_0000, 0xFFFF_FFFF])
def test_a_header_of_zeros_or_ones_ends_the_extended_chain(header: int) -> None:
    config = bytearray(with_extended((0x100, ExtCap.AER, 0x200)))
    put(config, 0x200, header.to_bytes(4, "little"))
    assert offsets(extended(bytes(config))) == [0x100]


@pytest.mark.parametrize(("size", "seen"), [(256, []), (0x103, []), (0x104, [0x100]), (0x163, [0x100, 0x150])])
def test_a_short_dump_has_the_links_that_are_whole(size: int, seen: list[int]) -> None:
    assert offsets(extended(recorded("igb-pf")[:size])) == seen


def test_a_function_that_answers_no_more_has_no_capabilities() -> None:
    ones = b"\xff" * CONFIG_BYTES
    assert (standard(ones), extended(ones)) == ((), ())


def test_any_bytes_end_the_walk() -> None:
    dice = random.Random(82576)
    for _ in range(300):
        config = bytearray(dice.randbytes(CONFIG_BYTES))
        config[STATUS] |= 0x10
        config[CAPABILITIES_POINTER] |= 0x40
        for chain in (standard(bytes(config)), extended(bytes(config))):
            assert len(set(offsets(chain))) == len(chain)
            assert all(link.offset % 4 == 0 for link in chain)
