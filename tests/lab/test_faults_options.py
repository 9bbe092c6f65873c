"""Options that ask for what does not exist: an answer in words at once, exit status 4 (2 of our own command)."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_kit import PROMISE_S, SCRIPTS, START_S, program, pytest_in

ONE_TEST = "def test_it(machine): pass"
NOT_QEMU = "#!/bin/sh\necho 'not what you think'\n"
HANGS = "#!/bin/sh\nsleep 60\n"


def script(folder: Path, text: str, mode: int = 0o755) -> str:
    path = folder / "my-qemu"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--lab=emulated:ibg"], ["unknown lab 'emulated:ibg'", "known: ", "emulated:igb"]),
        (["--profile=nope"], ["unknown profile 'nope'", "known: ", "qemu-igb"]),
        (["--profile=./nope.toml"], ["read nope.toml: No such file or directory"]),
        (["--kernel=nope"], ["unknown kernel 'nope'", "known: ", "stock"]),
        (["--accel=hvf"], ["unknown accelerator 'hvf'", "known: auto, kvm, tcg"]),
        (["--evidence=never"], ["--evidence", "'never'", "failure", "always"]),
        (["-n", "4000"], ["run 4000 workers", "MiB are free", "pass -n "]),
        (["--qemu=/nonexistent/qemu"], ["use QEMU (/nonexistent/qemu): there is no such file"]),
    ],
    ids=lambda value: value[0].lstrip("-").replace("/", "_") if value[0].startswith("-") else "",
)
def test_pytest_answers_a_wrong_option(tmp_path: Path, options: list[str], told: list[str]) -> None:
    check_refused(tmp_path, options, told)


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        (NOT_QEMU, 0o644, "not executable"),
        (NOT_QEMU, 0o755, "--version does not say that it is QEMU, but: not what you think"),
        ("\x7fELF garbage", 0o755, "Exec format error"),
        (HANGS, 0o755, "no answer to --version within 1.5 s"),
    ],
    ids=["not executable", "not QEMU", "no program", "hangs"],
)
def test_pytest_answers_a_qemu_that_is_none(tmp_path: Path, text: str, mode: int, told: str) -> None:
    path = script(tmp_path, text, mode)
    check_refused(tmp_path, [f"--qemu={path}"], [f"use QEMU ({path}): {told}", "give the path of a qemu-system-x86_64"])


def check_refused(folder: Path, options: list[str], told: list[str]) -> None:
    with pytest_in(folder, ONE_TEST, "-q", *options) as run:  # quiet: the header would look as well
        status = run.end(within_s=START_S + PROMISE_S)
        assert status == pytest.ExitCode.USAGE_ERROR, run.output
        for words in told:
            assert words in run.output
        assert "Traceback" not in run.output
        assert "test_it" not in run.output
        run.check_nothing_left()


def test_our_own_command_answers_a_qemu_that_is_none(tmp_path: Path) -> None:
    """Other wrong options: tests/unit/test_cli_lab.py."""
    with program(tmp_path, str(SCRIPTS / "sriov-harness"), "lab", "shell", "--qemu", "/nonexistent/qemu") as run:
        assert run.end(within_s=START_S + PROMISE_S) == 2, run.output
        assert run.output.startswith("sriov-harness: use QEMU (/nonexistent/qemu): there is no such file")
        assert "Traceback" not in run.output
        run.check_nothing_left()


def test_a_profile_with_a_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ntitle = 7\n')
    check_refused(tmp_path, [f"--profile={path}"], [f"{path}:2: title: Input should be a valid string (it is 7)"])
