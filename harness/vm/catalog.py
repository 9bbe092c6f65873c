"""What can be built, what of it is in the cache, and in which state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.agent.pack import pack_key
from harness.errors import CacheDamaged, unknown_name
from harness.vm import images, kernels, recipes, runtime
from harness.vm.cache import Cache, Entry, Progress

State = Literal["ok", "missing", "damaged", "outdated"]

NEEDED = ("qemu-runtime", "stock", "guest", "host")
"""What the suite uses unless told otherwise."""

_MADE_OF = ("image", "kernel", "agent")
"""Inputs of templates and the like whose values are keys of what they were made of."""


@dataclass(frozen=True, slots=True)
class Product:
    """Something with a recipe.

    Attributes:
        key: what an entry built from today's recipe has.
        obtain: builds it if need be.
    """

    kind: str
    name: str
    key: str
    summary: str
    obtain: Callable[[Cache, Progress], Entry]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list: a product, or an entry that no recipe of today makes."""

    kind: str
    name: str
    key: str
    state: State
    why: str = ""
    entry: Entry | None = None
    path: Path | None = None


def products() -> tuple[Product, ...]:
    """Everything with a recipe, in the order in which to build it.

    Raises:
        ProfileError: a recipe is wrong.
    """
    trees = [_tree(name) for name in recipes.image_names() if recipes.image_recipe(name).form == "tree"]
    roots = [_root(name) for name in recipes.image_names() if recipes.image_recipe(name).form == "squashfs"]
    return (*trees, *map(_kernel, recipes.kernel_names()), *roots)


def product(name: str, kinds: tuple[str, ...] = ()) -> Product:
    """One product by its name; ``kinds`` narrows where to look."""
    fitting = {known.name: known for known in products() if not kinds or known.kind in kinds}
    if name not in fitting:
        raise unknown_name("kernel" if kinds == ("kernel",) else "image", name, tuple(fitting))
    return fitting[name]


def rows(cache: Cache, *, full: bool = False) -> tuple[Row, ...]:
    """The state of every product and every entry; ``full`` reads every byte instead of trusting the stamps."""
    known = products()
    here = {entry.path: entry for entry in cache.entries()}
    broken = dict(cache.damaged())
    current = {cache.path(product.kind, product.name, product.key): product for product in known}
    listed = [_row(cache, product, path, here.get(path), broken.get(path), full) for path, product in current.items()]
    keys = {images.content_key(here[path]) for path in current if path in here}
    for path, entry in here.items():
        if path not in current:
            about = entry.manifest
            why = _outdated(entry, keys, {product.kind for product in known})
            listed.append(Row(about.kind, about.name, about.key, "outdated" if why else "ok", why, entry, path))
    listed += [
        Row(path.parent.name, path.name, "", "damaged", why, None, path)
        for path, why in broken.items()
        if path not in current
    ]
    return tuple(listed)


def _row(cache: Cache, product: Product, path: Path, entry: Entry | None, broken: str | None, full: bool) -> Row:
    state: State = "ok"
    why = broken or ""
    if entry is None:
        state = "damaged" if broken else "missing"
    else:
        try:
            cache.verify(entry, full=full)
        except CacheDamaged as damage:
            state, why = "damaged", damage.got
    there = path if state != "missing" else None
    return Row(product.kind, product.name, product.key, state, why, entry, there)


def _outdated(entry: Entry, current_keys: set[str], recipe_kinds: set[str]) -> str:
    """Why nobody will use this entry any more; "" if somebody may."""
    if entry.manifest.kind in recipe_kinds:
        return "its recipe changed"
    for what in _MADE_OF:
        made_of = entry.manifest.inputs.get(what, "")
        if len(made_of) == 64 and made_of not in current_keys | {pack_key()}:
            return f"made of another {what}"
    return ""


def _tree(name: str) -> Product:
    recipe = recipes.image_recipe(name)
    kind, obtain = ("tools", images.obtain_tools) if name == images.TOOLS else ("runtime", runtime.obtain_runtime)
    return Product(kind, name, images.image_key(recipe), recipe.summary, obtain)


def _root(name: str) -> Product:
    recipe = recipes.image_recipe(name)
    return Product(
        "image",
        name,
        images.image_key(recipe),
        recipe.summary,
        lambda cache, progress: images.obtain_image(cache, recipe, progress),
    )


def _kernel(name: str) -> Product:
    recipe = recipes.kernel_recipe(name)
    return Product(
        "kernel",
        name,
        kernels.kernel_key(recipe),
        recipe.summary,
        lambda cache, progress: kernels.obtain_kernel(cache, recipe, progress),
    )
