"""Profiles by name and by path: what is unknown is answered with what is known, what contradicts itself is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ProfileError, UsageError
from harness.profiles import known_profiles, load_profile
from harness.profiles.loader import BUILT_IN

TEXT = (BUILT_IN / "qemu-igb.toml").read_text()


@pytest.mark.parametrize("name", known_profiles())
def test_every_built_in_profile_is_good_and_named_as_its_file(name: str) -> None:
    assert load_profile(name).name == name


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown profile 'qemu-ibg'\n.*known: .*qemu-igb"):
        load_profile("qemu-ibg")


@pytest.mark.parametrize("name", ["./nothing.toml", "nothing.toml", "/nothing"])
def test_a_path_is_looked_at_as_a_path(name: str) -> None:
    with pytest.raises(ProfileError, match="No such file"):
        load_profile(name)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("vendor_id = 0x8086", "vendor_id = 0x18086", r":6: pf.vendor_id: .*65535 \(it is 98438\)"),
        ("driver_max = 7", "driver_max = 9", r":17: vf: driver_max 9 is more than total 8"),
        ("size = 0x4000", "size = 0x4001", r":24: vf.bars\[0\]: size 0x4001 is not a power of two"),
        ("index = 3\nsize", "index = 1\nsize", r":17: vf: bars need the registers \[0, 1, 1, 2\]"),
        ("index = 3\nsize", "index = 5\nsize", r":17: vf: bars need the registers \[0, 1, 5, 6\]"),
        ("width = 64", "width = 16", r":27: vf.bars\[0\].width: Input should be 32 or 64 \(it is 16\)"),
        ("fire = [{ bar = 0", "fire = [{ bar = 7", r":52: vf.msix.trigger.fire\[0\].bar: .*\(it is 7\)"),
        ("fire = [{ bar = 0", "fire = [{ bra = 0", r":52: vf.msix.trigger.fire\[0\].bra: unknown key"),
        ('name = "qemu-igb"', 'name = "QEMU igb"', r":2: name: String should match"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in TEXT
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ProfileError, match=told):
        load_profile(str(path))
