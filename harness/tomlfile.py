"""TOML files checked on load: a mistake is answered with file, line and key, and with what was expected."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from harness.errors import ProfileError

SIZE_LIMIT_BYTES = 1 << 20
HEADER = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.\-\" ]+?)\s*\]\]?\s*(?:#.*)?$")
KEY = re.compile(r"\s*([A-Za-z0-9_\-]+|\"[^\"]+\")\s*(?:\.\s*[A-Za-z0-9_.\-]+\s*)?=")

KINDS = {"extra_forbidden": "unknown key", "missing": "this key is missing"}

Place = tuple[str | int, ...]


class Strict(BaseModel):
    """The base of everything that is read from a file: no unknown keys, no guessed types, no changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Model = TypeVar("Model", bound=BaseModel)


def load(path: Path, model: type[Model]) -> Model:
    """Read and check one file.

    Raises:
        ProfileError: not readable, not TOML, or not what ``model`` describes; every mistake is named.
    """
    text = _read(path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"read {path}", got=f"not TOML: {error}") from None
    except RecursionError:
        raise ProfileError(f"read {path}", got="not TOML that anybody would write: nested too deep") from None
    try:
        return model.model_validate(_frozen(data))
    except ValidationError as error:
        lines = line_numbers(text)
        mistakes = [_mistake(path, lines, one) for one in error.errors()]
        raise ProfileError(f"read {path}", got="\n  ".join(["", *mistakes])) from None


def _frozen(value: Any) -> Any:
    """TOML's arrays as tuples: what is read from a file does not change."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _read(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ProfileError(f"read {path}", got="not a file")
        if path.stat().st_size > SIZE_LIMIT_BYTES:
            raise ProfileError(f"read {path}", got=f"larger than {SIZE_LIMIT_BYTES} bytes, so not one of our files")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProfileError(f"read {path}", got=str(error.strerror)) from None
    except UnicodeDecodeError:
        raise ProfileError(f"read {path}", got="not UTF-8 text") from None


def _mistake(path: Path, lines: dict[Place, int], error: ErrorDetails) -> str:
    place = tuple(error["loc"])
    key = ".".join(f"[{part}]" if isinstance(part, int) else part for part in place).replace(".[", "[")
    given = error["input"]
    shown = "" if isinstance(given, (dict, tuple)) else f" (it is {given!r:.60})"
    what = KINDS.get(error["type"]) or error["msg"].removeprefix("Value error, ") + shown
    known = place
    while known and known not in lines:
        known = known[:-1]
    return f"{path}:{lines.get(known, 1)}: {key}: {what}"


def line_numbers(text: str) -> dict[Place, int]:
    """The line (from 1) of every table and key; what stands in an inline table is found by its key's line."""
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := HEADER.match(line):
            table = _table(header[1] == "[[", header[2], counts)
            found.setdefault(table, number)
        elif key := KEY.match(line):
            found.setdefault((*table, key[1].strip('"')), number)
    return found


def _table(is_array: bool, name: str, counts: dict[Place, int]) -> Place:
    place: Place = ()
    parts = [part.strip().strip('"') for part in name.split(".")]
    for depth, part in enumerate(parts, 1):
        place = (*place, part)
        if is_array and depth == len(parts):
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place
