"""Recipes: what images and kernels are made of, as plain data; one is known by being in its folder.

``guest-images/NAME/image.toml`` (and ``rootfs/`` beside it, laid over the result), ``kernel-configs/NAME.toml``.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from harness.errors import HarnessError, ProfileError, unknown_name

_REPOSITORY = Path(__file__).parents[2]
_INSTALLED = Path(__file__).parents[1] / "_share"

RECIPE_FORMAT = 1
"""Part of every key: raise it when the code that builds changes what comes out."""


class _Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    folder: str = Field(exclude=True)
    summary: str = Field(exclude=True)
    suite: str = Field(pattern=r"^[a-z]+$")
    # apt's own words; nothing that a shell or apt would take for an option
    packages: tuple[str, ...] = Field(min_length=1)

    @field_validator("packages", "build_packages", check_fields=False)
    @classmethod
    def _are_packages(cls, packages: tuple[str, ...]) -> tuple[str, ...]:
        for package in packages:
            if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]+(/[a-z-]+)?", package):
                raise ValueError(f"{package!r} is not a package: NAME or NAME/SUITE")
        return packages

    def key(self, *more: str) -> str:
        """A digest of everything that shapes the result: the recipe, and what else the caller names."""
        text = json.dumps([RECIPE_FORMAT, self.model_dump(mode="json"), more], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class ImageRecipe(_Recipe):
    """A root file system (form "squashfs") or packages unpacked for use in place (form "tree")."""

    form: Literal["squashfs", "tree"]
    variant: Literal["extract", "essential", "minbase"]
    exclude_paths: tuple[str, ...] = ()
    """Not unpacked: patterns of dpkg's path-exclude."""
    keep: tuple[str, ...] = ()
    """Of a tree: only what matches one of these patterns (``*`` crosses no slash)."""
    expect_version: str = ""
    """Of a QEMU: what ``--version`` must begin with."""
    overlays: tuple[str, ...] = Field(default=(), exclude=True)
    """Folders laid over the result, first to last: ``rootfs`` of this recipe and of those it extends."""

    @model_validator(mode="after")
    def _form_fits(self) -> ImageRecipe:
        if (self.form == "tree") != (self.variant == "extract"):
            raise ValueError('variant: a tree is of variant "extract", a root file system of another')
        if (self.form == "tree") != bool(self.keep):
            raise ValueError("keep: a tree needs it, and only a tree")
        return self


class KernelRecipe(_Recipe):
    """A kernel from a package, or built from a package of its sources and a fragment."""

    source: Literal["package", "build"]
    initramfs_modules: tuple[str, ...] = ()
    must_have: tuple[str, ...] = ()
    """Modules that must be there, loadable or built in."""
    drop: tuple[str, ...] = ()
    """Folders of modules to leave out."""
    build_packages: tuple[str, ...] = ()
    """Of a kernel that is built: compiler and company, installed in a throw-away system and nowhere else."""
    base: Literal["tinyconfig", "allnoconfig", ""] = ""
    """Of a kernel that is built: the target of ``make`` that its configuration starts from."""
    fragment: str = ""
    """Of a kernel that is built: the file beside the recipe with the lines that its configuration must have."""

    @model_validator(mode="after")
    def _source_fits(self) -> KernelRecipe:
        for key in ("build_packages", "base", "fragment"):
            if (self.source == "build") != bool(getattr(self, key)):
                raise ValueError(f'{key}: source = "build" needs it, and only that')
        return self


AnyRecipe = TypeVar("AnyRecipe", ImageRecipe, KernelRecipe)


def share(name: str) -> Path:
    """A folder of data of ours: beside the package in a checkout, inside it when installed."""
    for base in (_INSTALLED, _REPOSITORY):
        if (base / name).is_dir():
            return base / name
    raise HarnessError(
        f"find the folder {name}",
        on=str(_REPOSITORY),
        got="not there",
        fix="reinstall sriov-harness, or use a checkout",
    )


def image_names(folder: Path | None = None) -> tuple[str, ...]:
    """The images and trees that have a recipe."""
    return tuple(sorted(path.parent.name for path in (folder or share("guest-images")).glob("*/image.toml")))


def kernel_names(folder: Path | None = None) -> tuple[str, ...]:
    """The kernels that have a recipe."""
    return tuple(sorted(path.stem for path in (folder or share("kernel-configs")).glob("*.toml")))


def image_recipe(name: str, folder: Path | None = None) -> ImageRecipe:
    """The recipe of one image, with what it extends put in.

    Raises:
        UsageError: nobody knows the name.
        ProfileError: the recipe is wrong; file, line and key are in the message.
    """
    folder = folder or share("guest-images")
    if name not in (known := image_names(folder)):
        raise unknown_name("image", name, known)
    return _check(ImageRecipe, folder / name / "image.toml", _extended(folder, name, known, ()))


def kernel_recipe(name: str, folder: Path | None = None) -> KernelRecipe:
    """The recipe of one kernel; errors as for ``image_recipe``."""
    folder = folder or share("kernel-configs")
    if name not in (known := kernel_names(folder)):
        raise unknown_name("kernel", name, known)
    path = folder / f"{name}.toml"
    recipe = _check(KernelRecipe, path, _load(path) | {"name": name, "folder": str(folder)})
    if recipe.fragment and not (folder / recipe.fragment).is_file():
        raise _wrong(path, "fragment", f"there is no file {recipe.fragment} beside the recipe")
    return recipe


def _extended(folder: Path, name: str, known: tuple[str, ...], below: tuple[str, ...]) -> dict[str, Any]:
    """One image's table over that of the image it extends: lists grow, other keys replace."""
    path = folder / name / "image.toml"
    own = _load(path)
    base: dict[str, Any] = {}
    if (parent := own.pop("extends", None)) is not None:
        if parent not in known or parent in (*below, name):
            why = "extends itself" if parent in (*below, name) else f"known: {', '.join(known)}"
            raise _wrong(path, "extends", f"{parent!r}: {why}")
        base = _extended(folder, parent, known, (*below, name))
    rootfs = folder / name / "rootfs"
    overlays = (*base.get("overlays", ()), *((str(rootfs),) if rootfs.is_dir() else ()))
    grown = {key: [*base[key], *value] for key, value in own.items() if isinstance(value, list) and key in base}
    return base | own | grown | {"name": name, "folder": str(folder / name), "overlays": overlays}


def _load(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"read the recipe {path}", got=str(error)) from None
    for key in ("name", "folder", "overlays"):
        if key in table:
            raise _wrong(path, key, "not a key of a recipe (its place in the folder says it)")
    return table


def _check(recipe: type[AnyRecipe], path: Path, table: dict[str, Any]) -> AnyRecipe:
    try:
        ready = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
        return recipe.model_validate(ready)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else first["msg"].partition(":")[0].split()[-1]
        unknown = first["type"] == "extra_forbidden"
        known = ", ".join(name for name in recipe.model_fields if name not in ("name", "folder", "overlays"))
        what = f"unknown key; known: {known}" if unknown else first["msg"].removeprefix("Value error, ")
        raise _wrong(path, key, what) from None


def _wrong(path: Path, key: str, what: str) -> ProfileError:
    return ProfileError(f"read the recipe {path.name}", on=f"{path}{_line(path, key)}, key {key!r}", got=what)


def _line(path: Path, key: str) -> str:
    """ ":LINE" of a top-level key; "" when it is not in this file (missing, or inherited)."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", line):
            return f":{number}"
    return ""
