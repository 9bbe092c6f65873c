"""What a kernel is put together from: the order of its modules, and the lines of its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HarnessError, ProfileError
from harness.vm import kconfig
from harness.vm.modules import ModuleIndex

DEP = """\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/pci/pci-pf-stub.ko:
kernel/fs/overlayfs/overlay.ko.xz:
"""
INDEX = ModuleIndex.parse(DEP, "kernel/fs/squashfs/squashfs.ko\nkernel/drivers/char/virtio-console.ko\n")


def test_modules_come_after_what_they_need_and_once() -> None:
    assert INDEX.load_order(["virtio_blk", "virtio_ring", "squashfs", "virtio_console", "overlay"]) == (
        "kernel/drivers/virtio/virtio.ko",
        "kernel/drivers/virtio/virtio_ring.ko",
        "kernel/drivers/block/virtio_blk.ko",
        "kernel/fs/overlayfs/overlay.ko.xz",
    )


def test_names_with_dash_and_underscore_are_the_same() -> None:
    INDEX.check(["pci-pf-stub", "pci_pf_stub", "virtio-blk"], "stock")


def test_missing_modules_are_named_all() -> None:
    with pytest.raises(HarnessError, match="build the kernel stock: it has no igb, igbvf, neither"):
        INDEX.check(["igbvf", "virtio_blk", "igb"], "stock")


FRAGMENT = """\
# --- comments are for people
CONFIG_PCI=y
# CONFIG_MODULES is not set
CONFIG_NR_CPUS=64
CONFIG_LOCALVERSION="-x"
CONFIG_IGB=y
# CONFIG_STRICT_DEVMEM is not set
"""
CONFIG = """\
# Linux/x86 6.12.1 Kernel Configuration
CONFIG_PCI=y
# CONFIG_MODULES is not set
CONFIG_NR_CPUS=64
CONFIG_LOCALVERSION="-x"
CONFIG_IGB=y
"""


@pytest.fixture
def fragment(tmp_path: Path) -> Path:
    path = tmp_path / "k.config"
    path.write_text(FRAGMENT)
    return path


def test_configuration_that_has_every_line_passes(fragment: Path) -> None:
    kconfig.check(fragment, CONFIG)


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("CONFIG_IGB=y\n", "", ":6: CONFIG_IGB=y, but it is n"),
        ("CONFIG_IGB=y", "CONFIG_IGB=m", ":6: CONFIG_IGB=y, but it is m"),
        ("CONFIG_NR_CPUS=64", "CONFIG_NR_CPUS=640", ":4: CONFIG_NR_CPUS=64, but it is 640"),
        ("CONFIG_PCI=y", "# CONFIG_PCI is not set", ":2: CONFIG_PCI=y, but it is n"),
        ("# CONFIG_MODULES is not set", "CONFIG_MODULES=y", ":3: # CONFIG_MODULES is not set, but it is y"),
        ("CONFIG_PCI=y", "CONFIG_PCI=y\nCONFIG_STRICT_DEVMEM=y", ":7: # CONFIG_STRICT_DEVMEM is not set, but it is y"),
    ],
)
def test_line_that_did_not_survive_is_named(fragment: Path, was: str, now: str, told: str) -> None:
    with pytest.raises(ProfileError, match="1 lines did not survive") as caught:
        kconfig.check(fragment, CONFIG.replace(was, now))
    assert f"{fragment}{told}" in str(caught.value)


def test_all_lost_lines_are_named_at_once(fragment: Path) -> None:
    with pytest.raises(ProfileError, match="4 lines did not survive"):
        kconfig.check(fragment, "")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("CONFIG_X=n", ":8.*neither"),
        ("CONFIG_X", ":8.*neither"),
        ("# CONFIG_X is unset", ":8.*neither"),
        ("CONFIG_IGB=m", ":8.*stands on line 6 already"),
        ("# CONFIG_PCI is not set", ":8.*stands on line 2 already"),
    ],
)
def test_line_that_can_never_come_true_is_refused(fragment: Path, line: str, told: str) -> None:
    fragment.write_text(FRAGMENT + line + "\n")
    with pytest.raises(ProfileError, match=told):
        kconfig.parse_fragment(fragment)
