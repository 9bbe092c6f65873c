"""Every kind of mistake in a TOML file is answered with file, line and key, and never with a traceback or a hang."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from harness.errors import ProfileError
from harness.tomlfile import SIZE_LIMIT_BYTES, Strict, load


class Part(Strict):
    index: Annotated[int, Field(ge=0, le=5)]
    kind: Literal["a", "b"] = "a"
    words: tuple[str, ...] = ()


class Inner(Strict):
    size: int
    parts: tuple[Part, ...] = ()


class Outer(Strict):
    name: str
    ratio: float = 1.0
    on: bool = False
    inner: Inner
    more: dict[str, str | int] = Field(default_factory=dict)


GOOD = """\
name = "x" # line 1
ratio = 0.5

[inner]
size = 0x10

[[inner.parts]]
index = 1

[[inner.parts]]
index = 2
words = [
  "one",
  "two",
]

[more]
key = 3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "it.toml"


def mistake(path: Path) -> str:
    """What a person is told about the file."""
    with pytest.raises(ProfileError) as refused:
        load(path, Outer)
    assert str(path) in str(refused.value)
    return str(refused.value)


def test_a_good_file_is_read_into_values_that_do_not_change(path: Path) -> None:
    path.write_text(GOOD)
    read = load(path, Outer)
    assert [part.index for part in read.inner.parts] == [1, 2]
    assert read.inner.parts[1].words == ("one", "two")
    assert read.more == {"key": 3}
    with pytest.raises(ValueError, match="frozen"):
        read.name = "y"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("ratio = 0.5", "ration = 0.5", ":2: ration: unknown key"),
        ("size = 0x10", "size = 1\nsise = 2", ":6: inner.sise: unknown key"),
        ("[more]", "[most]", ":17: most: unknown key"),
        ("index = 2", "index = 2\nindx = 2", ":12: inner.parts[1].indx: unknown key"),
        ('name = "x" # line 1\n', "", ":1: name: this key is missing"),
        ("size = 0x10\n", "", ":4: inner.size: this key is missing"),
        ("index = 1\n", "", ":7: inner.parts[0].index: this key is missing"),
        ('"x"', "7", ":1: name: Input should be a valid string (it is 7)"),
        ("0x10", '"16"', ":5: inner.size: Input should be a valid integer (it is '16')"),
        ("0x10", "16.0", ":5: inner.size: Input should be a valid integer (it is 16.0)"),
        ("0x10", "true", ":5: inner.size: Input should be a valid integer (it is True)"),
        ("0x10", "2026-01-01", ":5: inner.size: Input should be a valid integer (it is datetime.date(2026, 1, 1))"),
        ("ratio = 0.5", "on = 1", ":2: on: Input should be a valid boolean (it is 1)"),
        ("index = 2", "index = 6", ":11: inner.parts[1].index: Input should be less than or equal to 5 (it is 6)"),
        ("index = 1", 'index = 1\nkind = "c"', ":9: inner.parts[0].kind: Input should be 'a' or 'b' (it is 'c')"),
        ('  "two",', "  2,", ":12: inner.parts[1].words[1]: Input should be a valid string (it is 2)"),
        ("words = [", "words = 1\nx = [", ":12: inner.parts[1].words: Input should be a valid tuple (it is 1)"),
        ("key = 3", "key = [1]", ":18: more.key"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))
    assert told in mistake(path)


def test_every_mistake_is_told_not_only_the_first(path: Path) -> None:
    path.write_text(GOOD.replace("0x10", '"16"').replace("index = 2", "index = 9").replace("ratio", "ration"))
    said = mistake(path)
    for told in (":2: ration", ":5: inner.size", ":11: inner.parts[1].index"):
        assert told in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"name = \n", r"not TOML: Invalid value (at line 1, column 8)"),
        (b'name = "x"\n[inner\n', "not TOML: Expected ']'"),
        (b'name = "x"\nname = "y"\n', "not TOML: Cannot overwrite a value (at line 2"),
        (b'name = "\xe9"\n', "not UTF-8 text"),
        (b'name = "x"\0', "not TOML"),
        (b"\x7fELF\x02\x01\x01", "not TOML"),
        (b"a = " + b"[" * 100_000, "nested too deep"),
        (b"#" * (SIZE_LIMIT_BYTES + 1), "larger than 1048576 bytes"),
        (b"", ":1: name: this key is missing"),
    ],
    ids=["no value", "open table", "twice", "latin-1", "nul", "a program", "deep", "large", "empty"],
)
def test_what_is_no_file_of_ours_is_told(path: Path, text: bytes, told: str) -> None:
    path.write_bytes(text)
    assert told in mistake(path)


def test_a_missing_file_is_told(path: Path) -> None:
    assert "No such file or directory" in mistake(path)


def test_what_is_not_a_file_is_not_read(path: Path, tmp_path: Path) -> None:
    """A device or a pipe may never end."""
    os.mkfifo(path)
    assert "not a file" in mistake(path)
    assert "not a file" in mistake(tmp_path)
    assert "not a file" in mistake(Path("/dev/zero"))
