"""``sriov-harness image`` on a small cache of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli.image import image
from harness.errors import UsageError
from harness.vm import catalog, trees
from harness.vm.cache import Cache, Progress
from harness.vm.catalog import Product


def product(name: str, key: str) -> Product:
    def obtain(cache: Cache, progress: Progress) -> object:
        def build(folder: Path) -> dict[str, str]:
            progress("working [red]")
            trees.write_packages({"python3": "3.13.5-1"}, folder)
            return {"python3": "3.13.5-1"}

        return cache.obtain("image", name, key * 64, build, inputs={}, progress=progress)

    return Product("image", name, key * 64, "for a test", obtain)  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty cache, and recipes for two images of which one is needed."""
    monkeypatch.setenv("SRIOV_HARNESS_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(catalog, "products", lambda: (product("guest", "a"), product("host", "b")))
    monkeypatch.setattr(catalog, "NEEDED", ("guest",))
    return Cache(tmp_path)


def run(*words: str) -> Result:
    return CliRunner().invoke(image, words, catch_exceptions=True)


def states() -> dict[str, str]:
    """name → state, from the table that a person sees."""
    rows = [[cell.strip() for cell in line.split("│")] for line in run("list").output.splitlines() if "│" in line]
    return {row[1].partition(" ")[2]: row[3] for row in rows}


def test_list_tells_every_state(cache: Cache) -> None:
    assert states() == {"guest": "missing", "host": "missing"}
    run("build", "guest", "host")
    cache.obtain("image", "older", "c" * 64, lambda _folder: {}, inputs={})
    cache.obtain("template", "t", "d" * 64, lambda _folder: {}, inputs={"image": "e" * 64})
    cache.path("image", "host", "b" * 64).joinpath("manifest.json").write_text("{")
    seen = states()
    assert seen.pop("host").startswith("damaged (manifest.json cannot be read")
    assert seen == {
        "guest": "ok",
        "older": "outdated (its recipe changed)",
        "t": "outdated (made of another image)",
    }
    assert "python3 3.13.5-1" in run("list").output


def test_build_says_what_is_there_already(cache: Cache) -> None:
    first = run("build")
    assert "image guest: built in 0 s" in first.output
    assert "guest: working [red]" in first.output
    assert "image guest: already there, built 20" in run("build").output
    assert "image guest: built in" in run("build", "--again").output
    assert [entry.manifest.name for entry in cache.entries()] == ["guest"]


def test_build_of_an_unknown_name_is_answered_with_the_known(cache: Cache) -> None:
    error = run("build", "gest").exception
    assert isinstance(error, UsageError)
    assert "unknown image 'gest'\n  → known: guest, host" in str(error)


def test_clean_removes_by_name_kind_and_state(cache: Cache) -> None:
    run("build", "guest", "host")
    cache.obtain("image", "older", "c" * 64, lambda _folder: {}, inputs={})
    cache.obtain("template", "t", "d" * 64, lambda _folder: {}, inputs={})
    cache.obtain("template", "u", "f" * 64, lambda _folder: {}, inputs={"agent": "0" * 64})

    def left() -> list[str]:
        return [entry.manifest.name for entry in cache.entries()]

    assert "removed image older" in run("clean", "--outdated").output
    assert left() == ["guest", "host", "t"]
    run("clean", "template")
    assert left() == ["guest", "host"]
    run("clean", f"guest-{'a' * 16}")
    assert left() == ["host"]
    run("clean", "--all")
    assert left() == []
    assert list(cache.root.glob("*/*")) == []


def test_clean_names_what_is_in_use_and_removes_the_rest(cache: Cache) -> None:
    run("build", "guest", "host")
    (guest,) = (entry for entry in cache.entries() if entry.manifest.name == "guest")
    with guest.in_use():
        error = run("clean", "--all").exception
    assert isinstance(error, UsageError)
    assert "remove 1 of 2 entries" in str(error)
    assert f"image/{guest.path.name}: it is in use by pid" in str(error)
    assert [entry.manifest.name for entry in cache.entries()] == ["guest"]


@pytest.mark.parametrize(("words", "told"), [((), "nothing named"), (("nobody",), "clean nobody: not in the cache")])
def test_clean_wants_to_know_what(cache: Cache, words: tuple[str, ...], told: str) -> None:
    assert told in str(run("clean", *words).exception)
