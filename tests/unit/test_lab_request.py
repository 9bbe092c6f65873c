"""What a person asks for is checked before anything is built or booted, and answered with what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HostLacks, ProfileError, UsageError
from harness.lab.registry import Request, check_request, open_lab
from harness.vm import accel
from harness.vm.cache import Cache


def test_the_default_is_fine() -> None:
    assert check_request(Request()).name == "qemu-igb"


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (Request(lab="emulated:ibg"), r"unknown lab 'emulated:ibg'\n.*known: .*emulated:igb"),
        (Request(profile="nope"), r"unknown profile 'nope'\n.*known: .*qemu-igb"),
        (Request(accelerator="hvf"), r"unknown accelerator 'hvf'\n.*known: auto, kvm, tcg"),
        (Request(kernel="6.12"), r"unknown kernel '6.12'\n.*known: .*stock"),
        (Request(qemu="/nonexistent"), r"use QEMU \(/nonexistent\): there is no such file"),
        (Request(qemu="no-such-program"), r"use QEMU \(no-such-program\): there is no such file"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(request_: Request, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told):
        check_request(request_)
    with pytest.raises(UsageError, match=told):  # and before anything is built
        open_lab(request_, Cache(tmp_path / "cache"), tmp_path, lambda line: pytest.fail(f"it began to build: {line}"))
    assert not (tmp_path / "cache").exists()


def test_a_wrong_profile_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n')
    with pytest.raises(ProfileError, match=rf"{path}:1: title: this key is missing"):
        check_request(Request(profile=str(path)))


def test_kvm_by_name_without_a_device_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "KVM", Path("/nonexistent/kvm"))
    with pytest.raises(HostLacks, match=r"use KVM \(/nonexistent/kvm\): there is no /nonexistent/kvm\n.*--accel=tcg"):
        check_request(Request(accelerator="kvm"))
    check_request(Request(accelerator="auto"))


def test_kvm_that_we_may_not_open_is_told_with_the_kernels_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(accel, "KVM", tmp_path)  # a folder does not open for writing
    with pytest.raises(HostLacks, match="does not open: Is a directory"):
        check_request(Request(accelerator="kvm"))
