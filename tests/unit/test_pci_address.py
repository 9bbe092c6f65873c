"""Addresses: text, routing IDs with and without ARI, and where VF n is."""

from __future__ import annotations

import pytest

from harness.pci.address import Bdf

PF = Bdf.parse("0000:01:00.0")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0000:01:10.2", (0, 0x01, 0x10, 2)),
        ("01:10.2", (0, 0x01, 0x10, 2)),
        ("10000:E1:1F.7", (0x10000, 0xE1, 0x1F, 7)),  # Intel VMD numbers its domains from 10000 on
        (" ffffffff:ff:1f.7\n", (0xFFFF_FFFF, 0xFF, 0x1F, 7)),
    ],
)
def test_an_address_is_read(text: str, parts: tuple[int, ...]) -> None:
    seen = Bdf.parse(text)
    assert (seen.domain, seen.bus, seen.device, seen.function) == parts


@pytest.mark.parametrize(
    "text", ["", "01:10", "0000:01:10.8", "0000:001:10.2", "1:10.2", "0000:01:10.2x", "000:01:10.2"]
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"' is not a PCI address like 0000:01:10\.2"):
        Bdf.parse(text)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ((1 << 32, 0, 0, 0), "domain 0x100000000 does not fit in 32 bits"),
        ((0, 0x100, 0, 0), "bus 0x100 does not fit in 8 bits"),
        ((0, 0, 0x20, 0), "device 0x20 does not fit in 5 bits"),
        ((0, 0, 0, 8), "function 0x8 does not fit in 3 bits"),
        ((0, -1, 0, 0), "bus -0x1 does not fit"),
    ],
)
def test_a_number_out_of_range_is_refused_by_name(parts: tuple[int, int, int, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Bdf(*parts)


def test_device_32_has_no_text() -> None:
    with pytest.raises(ValueError, match="device 0x20"):
        Bdf.parse("0000:01:20.0")


def test_an_address_shows_as_linux_writes_it() -> None:
    assert str(Bdf(0x10000, 0x0A, 0x1F, 7)) == "10000:0a:1f.7"
    assert repr([PF]) == "[0000:01:00.0]", "as pytest shows it in a comparison"
    assert Bdf.parse(str(PF)) == PF


def test_addresses_are_in_the_order_of_the_bus() -> None:
    texts = ["0001:00:00.0", "0000:02:00.0", "0000:01:10.0", "0000:01:02.1"]
    assert [str(bdf) for bdf in sorted(map(Bdf.parse, texts))] == texts[::-1]


def test_a_routing_id_carries_bus_device_and_function() -> None:
    assert Bdf.parse("0000:01:10.2").routing_id == 0x0182
    assert Bdf.from_routing_id(0x0182, domain=3) == Bdf.parse("0003:01:10.2")
    assert all(Bdf.from_routing_id(number, domain=0).routing_id == number for number in range(0, 1 << 16, 7))


def test_with_ari_function_numbers_above_7_are_still_written_as_device_and_function() -> None:
    assert str(Bdf.from_routing_id(0x01FF, domain=0)) == "0000:01:1f.7"


def test_vfs_of_igb_are_where_the_lab_shows_them() -> None:
    seen = [str(PF.vf(number, first_offset=0x80, stride=2)) for number in (1, 2, 5, 8)]
    assert seen == ["0000:01:10.0", "0000:01:10.2", "0000:01:11.0", "0000:01:11.6"]


@pytest.mark.parametrize(
    ("pf", "number", "first_offset", "stride", "vf"),
    [
        ("0000:01:00.0", 1, 1, 1, "0000:01:00.1"),  # the nearest there can be
        ("0000:01:00.0", 256, 1, 1, "0000:02:00.0"),  # carried into the next bus
        ("0000:01:00.1", 3, 0x10, 4, "0000:01:03.1"),  # the second PF of a device: all its VFs move by one
        ("0000:01:00.0", 2, 0x100, 0, "0000:02:00.0"),  # VF Stride may be 0 only with one VF; arithmetic does not care
        ("0005:ff:1f.7", 1, 1, 1, "0005:00:00.0"),  # modulo 2^16, within the domain
        ("0000:80:00.0", 1, 0xFFFF, 1, "0000:7f:1f.7"),  # an offset that leads backwards
    ],
    ids=["next", "carry", "second-pf", "stride-0", "wrap", "backwards"],
)
def test_vf_addresses_are_routing_id_arithmetic(pf: str, number: int, first_offset: int, stride: int, vf: str) -> None:
    assert str(Bdf.parse(pf).vf(number, first_offset=first_offset, stride=stride)) == vf
