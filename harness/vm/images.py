"""Root file systems and unpacked trees, from their recipes into the cache."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.vm import debian, recipes, tools, trees
from harness.vm.cache import BUILD_LOG, Cache, Entry, Progress, silent
from harness.vm.machine import Image
from harness.vm.recipes import ImageRecipe

ROOT = "root.squashfs"
TOOLS = "build-tools"

# Measured under TCG, 4 boots each, to the prompt and to a cold python, with lz4, zstd 3 and 15, none, blocks of 32 K to
# 1 M: no difference beyond the noise, except that 1 M is slower. So: small, and quick to make.
SQUASHFS_OPTIONS = ("-comp", "zstd", "-Xcompression-level", "3", "-b", "128K")
# From a tar file, the top folder would belong to whoever builds, and be open to all.
_ROOT_OPTIONS = ("-tar", "-root-uid", "0", "-root-gid", "0", "-root-mode", "0755")
_SQUASHFS_WITHIN_S = 600.0
_PEAK_BYTES = 600_000_000
"""The tar file and the squashfs of the larger image, with room to spare."""


def image(cache: Cache, name: str = "guest", progress: Progress = silent) -> Image:
    """A root file system by the name of its recipe, built if it is not in the cache.

    Raises:
        UsageError: no such image, or it is a tree and not a root file system.
        ProfileError, HostLacks, CacheDamaged, DeadlineExceeded: see ``recipes`` and ``Cache.obtain``.
    """
    recipe = recipes.image_recipe(name)
    if recipe.form != "squashfs":
        raise UsageError(
            f"use the image {name}", got=f'its form is "{recipe.form}"', fix='a machine needs one of form = "squashfs"'
        )
    entry = obtain_image(cache, recipe, progress)
    return Image(name, entry.file(ROOT), content_key(entry))


def content_key(entry: Entry) -> str:
    """Changes when the content does: the same recipe built a month later holds other packages.

    Not a digest of the bytes: two users who build the same packages may share templates.
    """
    packages = entry.file(trees.PACKAGES).read_text(encoding="utf-8")
    return hashlib.sha256(f"{entry.manifest.key}\n{packages}".encode()).hexdigest()


def image_key(recipe: ImageRecipe) -> str:
    """What the content of an image follows from: recipe, overlay and the way we compress."""
    packing = (*SQUASHFS_OPTIONS, *_ROOT_OPTIONS) if recipe.form == "squashfs" else ()
    return recipe.key(*_overlay_digests(recipe), *packing)


def obtain_image(cache: Cache, recipe: ImageRecipe, progress: Progress = silent) -> Entry:
    """The entry of a root file system."""
    key = image_key(recipe)

    def build(folder: Path) -> Mapping[str, str]:
        squash = squasher(cache, progress)
        log, tar, overlay = folder / BUILD_LOG, folder / "root.tar", folder / "overlay.tar"
        trees.overlay_tar(map(Path, recipe.overlays), overlay)
        hooks = (f"tar-in {shlex.quote(str(overlay))} /",)
        debian.bootstrap(packages(recipe), tar, log=log, hooks=hooks, progress=progress, needs_bytes=_PEAK_BYTES)
        progress("compressing the root file system")
        argv = (*squash, "-", str(folder / ROOT), *_ROOT_OPTIONS, *SQUASHFS_OPTIONS, "-no-progress", "-quiet")
        with tar.open("rb") as content:
            tools.run(argv, tried="make the squashfs", log=log, within_s=_SQUASHFS_WITHIN_S, stdin=content, room=folder)
        tar.unlink()
        overlay.unlink()
        still_the_same(key, image_key(recipe), recipe.folder)
        return package_facts(recipe.packages, log, folder)

    return cache.obtain(
        "image",
        recipe.name,
        key,
        build,
        inputs=inputs(recipe),
        progress=progress,
        needs_bytes=_PEAK_BYTES,
    )


def fill_tree(recipe: ImageRecipe, folder: Path, progress: Progress = silent) -> Mapping[str, str]:
    """Unpack what a recipe of form "tree" keeps into a folder; returns the versions of its packages."""
    log, tar = folder / BUILD_LOG, folder / "packages.tar"
    debian.bootstrap(packages(recipe), tar, log=log, progress=progress, needs_bytes=_PEAK_BYTES)
    trees.unpack(tar, folder, trees.matcher(recipe.keep))
    tar.unlink()
    return package_facts(recipe.packages, log, folder)


def obtain_tools(cache: Cache, progress: Progress = silent) -> Entry:
    """The entry of the programs that builds use."""
    recipe = recipes.image_recipe(TOOLS)
    return cache.obtain(
        "tools",
        TOOLS,
        image_key(recipe),
        lambda folder: fill_tree(recipe, folder, progress),
        inputs=inputs(recipe),
        progress=progress,
        needs_bytes=_PEAK_BYTES,
    )


def build_tools(cache: Cache, progress: Progress = silent) -> tools.Tree:
    """Programs of builds, from Debian packages: so every host builds with the same ones, and need not have any."""
    return tools.Tree(obtain_tools(cache, progress).path)


def squasher(cache: Cache, progress: Progress = silent) -> tuple[str, ...]:
    """What stands before mksquashfs' own arguments."""
    return build_tools(cache, progress).argv("usr/bin/mksquashfs")


def package_facts(named: tuple[str, ...], log: Path, folder: Path) -> Mapping[str, str]:
    """Write the list of packages into the entry; return the versions of those that the recipe names."""
    versions = trees.package_versions(log.read_text(encoding="utf-8", errors="replace"))
    trees.write_packages(versions, folder)
    names = (package.partition("/")[0] for package in named)
    return {name: versions[name] for name in names if name in versions}


def still_the_same(key: str, now: str, folder: str) -> None:
    """Raise HarnessError when somebody edited the files of a recipe while it was built: the result fits neither key."""
    if key != now:
        raise HarnessError(
            "build from the recipe", on=folder, got="its files were changed during the build", fix="run again"
        )


def inputs(recipe: ImageRecipe) -> Mapping[str, str]:
    """What a person wants to know of where an entry comes from."""
    return {"recipe": recipe.folder, "suite": recipe.suite, "packages": " ".join(recipe.packages)}


def packages(recipe: ImageRecipe) -> debian.Packages:
    """What to ask Debian for."""
    return debian.Packages(recipe.suite, recipe.variant, recipe.packages, recipe.exclude_paths)


def _overlay_digests(recipe: ImageRecipe) -> list[str]:
    """Names and contents of all overlay files (not their times and modes: a checkout and a wheel must agree)."""
    digests = []
    for folder in map(Path, recipe.overlays):
        for path in sorted(folder.rglob("*")):
            what = f"link {path.readlink()}" if path.is_symlink() else "folder"
            if path.is_file() and not path.is_symlink():
                what = hashlib.sha256(path.read_bytes()).hexdigest()
            digests.append(f"{path.relative_to(folder).as_posix()} {what}")
    return digests
