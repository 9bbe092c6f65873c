"""The documentation names what exists: keys of a profile, files, commands, options."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from harness.cli import cli
from harness.profiles import Profile
from harness.tomlfile import load

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
)
COMMANDS_OF_PYTEST = ("pytest", "ci/nightly")
MADE_BY_A_RUN = ("build", ".venv")  # named in the documentation, and not in a fresh checkout

HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (\S.*)$", re.MULTILINE)
KEY_ROW = re.compile(r"^\| `(\w+)` \| .* \| (.+?) \| .+? \|$", re.MULTILINE)
PLACEHOLDER = re.compile(r"[A-Z]{3,}|…")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def sections(text: str) -> Iterator[tuple[str, str]]:
    """(heading, what stands below it up to the next one); what stands above the first has an empty heading."""
    _, *rest = parts = HEADING.split(text)
    yield from zip(["", *rest[::2]], parts[::2], strict=True)


# --- docs/profile.md and the model


def models(model: type[BaseModel] = Profile, name: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every table of a profile: the last word of its name, and its model; the file itself has no name."""
    yield name, model
    for key, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            yield from models(inner, key)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


TABLES = sorted({name for name, _ in models()})


def documented(table: str) -> dict[str, str]:
    """Key → default, of the section whose heading names the table."""
    words = {"": "no table"}.get(table, rf"\b{table}\]*`")
    found = [body for heading, body in sections(text_of("docs/profile.md")) if re.search(words, heading)]
    assert found, f"docs/profile.md has no section for the table {table!r}"
    return dict(KEY_ROW.findall(found[0]))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table or "the-file")
def test_every_key_of_a_profile_is_documented_and_no_other(table):
    model = dict(models())[table]
    keys = documented(table)
    assert set(keys) == set(model.model_fields), f"docs/profile.md, {table or 'the file'}: keys"
    for key, field in model.model_fields.items():
        said = keys[key].strip("`")
        assert (said == "required") == field.is_required(), f"docs/profile.md, {key}: required or not"
        if isinstance(field.default, (bool, int, float)) and field.default is not PydanticUndefined:
            assert tomllib.loads(f"it = {said}")["it"] == field.default, f"docs/profile.md, {key}: default"


def test_the_whole_profile_of_the_documentation_is_one(tmp_path):
    blocks = re.findall(r"^```toml\n(.*?)^```$", text_of("docs/profile.md"), re.MULTILINE | re.DOTALL)
    (tmp_path / "whole.toml").write_text(blocks[-1])
    assert load(tmp_path / "whole.toml", Profile).name == "my-board"


# --- links and files


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page):
    links = [link for link in LINK.findall(FENCED.sub("", text_of(page))) if not re.match(r"[a-z]+:", link)]
    broken = [link for link in links if not _leads_somewhere((ROOT / page).parent, page, link)]
    assert not broken, f"{page}: links that lead nowhere"


def _leads_somewhere(folder: Path, page: str, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = folder / name if name else ROOT / page
    if not anchor:
        return target.exists()
    return target.is_file() and anchor in {_anchor(heading) for heading, _ in sections(target.read_text())}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page):
    text = text_of(page)
    tops = {path.name for path in ROOT.iterdir()} - {*MADE_BY_A_RUN, ".git"}
    missing = []
    for heading, body in sections(text):
        folder = next(iter(CODE.findall(heading)), "")
        for name in [*CODE.findall(f"{heading}\n{body}"), *re.findall(r"(?:\./)?\bci/[\w-]+", body)]:
            path = name.removeprefix("./").partition(" ")[0].strip("/")
            in_folder = bool(folder) and re.fullmatch(r"[\w.-]+\.(py|toml)", path) and (ROOT / folder).is_dir()
            known = path.partition("/")[0] in tops and ("/" in path or "." in path)
            if not PLACEHOLDER.search(path) and (in_folder or known):
                places = [ROOT / folder / path] if in_folder else []
                if not any(place.exists() for place in [*places, ROOT / path]):
                    missing.append(f"{folder}/{path}" if in_folder else path)
    assert not missing, f"{page}: named, but not there"


# --- commands and options


def command_lines(page: str) -> Iterator[list[str]]:
    """The words of every command in the page: lines of code, and code within a line."""
    text = text_of(page)
    for line in [*INDENTED.findall(text), *CODE.findall(FENCED.sub("", text)), *_option_cells(text)]:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        if words:
            yield [words[0].removeprefix("./"), *words[1:]]


def _option_cells(text: str) -> Iterator[str]:
    """``--keep`` on its own is an option of pytest."""
    yield from (f"pytest {code}" for code in CODE.findall(FENCED.sub("", text)) if code.startswith("--"))


def options_of(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if re.match(r"--?\w", word)]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_ours_exists(page):
    for words in command_lines(page):
        if words[0] != "sriov-harness":
            continue
        command: click.Command = cli
        rest = words[1:]
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, f"{page}: {' '.join(words)}: there is no {rest[0]}"
            command = command.commands[rest.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, "--help", "-h", "--version")}
        unknown = [option for option in options_of(rest) if option not in known]
        assert not unknown, f"{page}: {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES)
def test_every_option_of_pytest_exists(page, pytestconfig):
    unknown = []
    for words in command_lines(page):
        if words[0] in COMMANDS_OF_PYTEST:
            unknown += [option for option in options_of(words[1:]) if not _known_to_pytest(pytestconfig, option)]
    assert not unknown, f"{page}: options that pytest does not have"


def _known_to_pytest(config: pytest.Config, option: str) -> bool:
    try:
        config.getoption(option)
    except ValueError:
        return False
    return True
