"""mmdebstrap: the command, and what a person hears when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HarnessError, HostLacks
from harness.vm import debian
from harness.vm.debian import Mirror, Packages

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = Mirror.at("http://m/")


def test_the_mirror_is_the_one_that_this_computers_apt_uses() -> None:
    said = ["http://s/debian-security/\n", "http://x/other/\n", "http://m/debian/\n", "http://m/debian/\n"]
    assert Mirror.of_apt(said) == ("http://m/debian", "http://s/debian-security")
    assert Mirror.of_apt(said[1:]) == ("http://m/debian", "http://m/debian-security")
    assert Mirror.of_apt(said[:2]) is None


def test_a_mirror_by_name_goes_before_and_none_at_all_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get
    with pytest.raises(HostLacks, match="SRIOV_HARNESS_DEBIAN_MIRROR"):
        debian.find_mirror()
    monkeypatch.setenv("SRIOV_HARNESS_DEBIAN_MIRROR", "http://m")
    assert debian.find_mirror() == MIRROR


def test_golden_command_of_a_tree() -> None:
    packages = Packages("trixie", "extract", ("qemu-system-x86/trixie-backports", "seabios"))
    assert debian.mmdebstrap_argv(packages, Path("/cache/x.tar"), keyring=KEYRING, mirror=MIRROR) == (
        "mmdebstrap",
        "--variant=extract",
        "--architectures=amd64",
        "--format=tar",
        "--include=qemu-system-x86/trixie-backports,seabios",
        '--aptopt=Apt::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::Retries "1"',
        '--aptopt=Acquire::http::Timeout "15"',
        '--aptopt=Acquire::https::Timeout "15"',
        '--extract-hook=ls "$1/var/cache/apt/archives"',
        "trixie",
        "/cache/x.tar",
        f"deb [signed-by={KEYRING}] http://m/debian trixie main",
        f"deb [signed-by={KEYRING}] http://m/debian trixie-updates main",
        f"deb [signed-by={KEYRING}] http://m/debian-security trixie-security main",
        f"deb [signed-by={KEYRING}] http://m/debian trixie-backports main",
    )


def test_golden_command_of_a_system_that_is_thrown_away() -> None:
    packages = Packages("trixie", "essential", ("gcc",), ("/usr/share/doc/*",))
    argv = debian.mmdebstrap_argv(packages, None, keyring=KEYRING, hooks=("tar-in /o.tar /",), mirror=MIRROR)
    assert argv[3:5] == ("--format=null", "--include=gcc")
    assert argv[10:] == (
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--customize-hook=chroot \"$1\" dpkg-query -W -f='${Package}_${Version}_${Architecture}.deb\\n'",
        "--customize-hook=tar-in /o.tar /",
        "trixie",
        "-",
        f"deb [signed-by={KEYRING}] http://m/debian trixie main",
        f"deb [signed-by={KEYRING}] http://m/debian trixie-updates main",
        f"deb [signed-by={KEYRING}] http://m/debian-security trixie-security main",
        f"deb [signed-by={KEYRING}] http://m/debian trixie-backports main",
    )


def test_every_source_is_checked_against_the_keys() -> None:
    lines = debian.sources("trixie", keyring=KEYRING, mirror=MIRROR)
    assert all(line.startswith(f"deb [signed-by={KEYRING}] ") for line in lines)
    argv = " ".join(debian.mmdebstrap_argv(Packages("trixie", "extract", ("x",)), None, keyring=KEYRING, mirror=MIRROR))
    assert "unauthenticated" not in argv.lower()
    assert "trusted" not in argv.lower()


def test_without_keys_the_package_that_has_them_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostLacks, match="sudo apt install debian-archive-keyring"):
        debian.find_keyring((tmp_path / "missing.gpg",))


def test_without_mmdebstrap_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostLacks, match=r"mmdebstrap.*not installed\n.*sudo apt install mmdebstrap"):
        debian.bootstrap(Packages("trixie", "extract", ("x",)), tmp_path / "x.tar", log=tmp_path / "log")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An mmdebstrap that does what the test writes into it."""
    program = tmp_path / "bin/mmdebstrap"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(debian, "find_keyring", lambda: KEYRING)
    return program


def bootstrap(folder: Path, **more: int) -> list[str]:
    lines: list[str] = []
    packages = Packages("trixie", "extract", ("x",))
    debian.bootstrap(packages, folder / "x.tar", log=folder / "log", progress=lines.append, **more)
    return lines


def test_output_is_progress_and_log(fake: Path, tmp_path: Path) -> None:
    fake.write_text('#!/bin/sh\necho "I: running apt-get update..."\necho "TMPDIR is $TMPDIR" >&2\n')
    lines = bootstrap(tmp_path)
    assert lines[:2] == ["getting Debian packages: x", "running apt-get update..."]
    log = (tmp_path / "log").read_text()
    assert log.startswith(f"$ {fake} --variant=extract ")
    assert "I: running apt-get update...\nTMPDIR is " in log


SAID = {
    "E: Failed to fetch http://m/x  Temporary failure resolving 'm'": "Temporary failure",
    "Err:1 Could not connect to 192.0.2.1:80 (192.0.2.1). - connect (111: Connection refused)": "Could not connect",
    "E: unable to pick chroot mode automatically": "/etc/subuid",
    "newuidmap: uid range [0-1) -> [100000-100001) not allowed": "apt install uidmap",
}


@pytest.mark.parametrize(("said", "told"), SAID.items(), ids=SAID.values())
def test_known_causes_are_told_with_what_to_do(fake: Path, tmp_path: Path, said: str, told: str) -> None:
    fake.write_text(f'#!/bin/sh\ncat <<"END"\nI: before\n{said}\nE: mmdebstrap failed to run\nEND\nexit 25\n')
    with pytest.raises(HostLacks, match=told) as caught:
        bootstrap(tmp_path)
    assert said.strip() in str(caught.value)
    assert "\n  → " in str(caught.value)


def test_unknown_cause_comes_with_the_last_lines(fake: Path, tmp_path: Path) -> None:
    fake.write_text("#!/bin/sh\nseq 100\necho E: strange\nexit 25\n")
    with pytest.raises(HarnessError, match="exit status 25; its last lines:\n    90\n    91\n") as caught:
        bootstrap(tmp_path)
    assert not isinstance(caught.value, HostLacks)
    assert str(caught.value).endswith("\n    100\n    E: strange")


def test_full_disk_is_an_oserror_that_names_the_folder(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    fake.write_text("#!/bin/sh\necho 'tar: x: Cannot write: No space left on device'\nexit 2\n")
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'"):
        bootstrap(tmp_path)


def test_too_little_room_is_noticed_before(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    fake.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    with pytest.raises(OSError, match="No space left"):
        bootstrap(tmp_path, needs_bytes=10**15)
    assert not (tmp_path / "ran").exists()
