"""Kernels, from their recipes into the cache: the kernel, its modules as a squashfs, and the initramfs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.vm import cpio, debian, images, recipes, tools, trees
from harness.vm.cache import BUILD_LOG, Cache, Progress, silent
from harness.vm.machine import Kernel
from harness.vm.modules import ModuleIndex
from harness.vm.recipes import KernelRecipe

VMLINUZ, INITRAMFS, MODULES, CONFIG = "vmlinuz", "initramfs.cpio", "modules.squashfs", "config"
INIT = "initramfs-init"
_STEP_WITHIN_S = 300.0


def kernel(cache: Cache, name: str = "stock", progress: Progress = silent) -> Kernel:
    """A kernel by the name of its recipe, built if it is not in the cache."""
    recipe = recipes.kernel_recipe(name)

    def build(folder: Path) -> Mapping[str, str]:
        work = folder / "work"
        work.mkdir()
        facts = _build(recipe, folder, work, cache, progress)
        shutil.rmtree(work)
        return facts

    inputs = {"recipe": f"{recipe.folder}/{name}.toml", "packages": " ".join(recipe.packages)}
    entry = cache.obtain("kernel", name, kernel_key(recipe), build, inputs=inputs, progress=progress)
    return Kernel(
        name=name,
        release=entry.facts["release"],
        vmlinuz=entry.file(VMLINUZ),
        initramfs=entry.file(INITRAMFS),
        modules=entry.file(MODULES),
        key=hashlib.sha256(f"{entry.manifest.key} {sorted(entry.facts.items())}".encode()).hexdigest(),
    )


def kernel_key(recipe: KernelRecipe) -> str:
    """What a kernel entry follows from: recipe, initramfs script, fragment, and the way we compress."""
    files = [INIT, *((recipe.fragment,) if recipe.fragment else ())]
    return recipe.key(*((Path(recipe.folder) / name).read_text() for name in files), *images.SQUASHFS_OPTIONS)


def _build(recipe: KernelRecipe, folder: Path, work: Path, cache: Cache, progress: Progress) -> Mapping[str, str]:
    log, tar, tree = folder / BUILD_LOG, work / "packages.tar", work / "tree"
    programs = images.build_tools(cache, progress)
    packages = debian.Packages(recipe.suite, "extract", recipe.packages)
    debian.bootstrap(packages, tar, log=log, progress=progress)
    progress("unpacking kernel and modules")
    dropped = tuple(f"/{name}/" for name in recipe.drop)

    def wanted(path: str) -> bool:
        if path.startswith("usr/lib/modules/"):
            return not any(name in path for name in dropped)
        return path.startswith("boot/") or path == "usr/bin/busybox"

    trees.unpack(tar, tree, wanted, inflate=True)
    release = _release(tree)
    depmod = (*programs.argv("usr/bin/kmod", name="depmod"), "-b", str(tree / "usr"), release)
    tools.run(depmod, tried="index the modules", log=log, within_s=_STEP_WITHIN_S, progress=progress)
    modules = tree / "usr/lib/modules" / release
    index = ModuleIndex.load(modules)
    index.check(recipe.must_have, recipe.name)
    shutil.copyfile(tree / f"boot/vmlinuz-{release}", folder / VMLINUZ)
    shutil.copyfile(tree / f"boot/config-{release}", folder / CONFIG)
    (folder / INITRAMFS).write_bytes(
        initramfs(
            (tree / "usr/bin/busybox").read_bytes(),
            (Path(recipe.folder) / INIT).read_bytes(),
            [(name, (modules / name).read_bytes()) for name in index.load_order(recipe.initramfs_modules)],
        )
    )
    progress("compressing the modules")
    squash = (
        *programs.argv("usr/bin/mksquashfs"),
        str(modules.parent),
        str(folder / MODULES),
        *images.SQUASHFS_OPTIONS,
    )
    options = ("-all-root", "-no-progress", "-quiet", "-all-time", "0")
    tools.run((*squash, *options), tried="make the squashfs", log=log, within_s=_STEP_WITHIN_S, room=folder)
    return {"release": release, **images.package_facts(recipe.packages, log, folder)}


def initramfs(busybox: bytes, init: bytes, modules: Sequence[tuple[str, bytes]]) -> bytes:
    """The archive that finds the root disk.

    Args:
        busybox: the static one.
        init: the script that becomes process 1.
        modules: (file name, content), in the order in which they are inserted.
    """
    names = [name.rpartition("/")[2] for name, _ in modules]
    nodes = [cpio.folder(name) for name in ("bin", "dev", "proc", "sys", "lower", "upper", "root", "modules")]
    nodes += [cpio.file("bin/busybox", busybox, executable=True), cpio.file("init", init, executable=True)]
    nodes += [cpio.file(f"modules/{name}", data) for name, (_, data) in zip(names, modules, strict=True)]
    nodes += [cpio.file("modules/order", "".join(f"{name}\n" for name in names).encode())]
    return cpio.archive(nodes)


def _release(tree: Path) -> str:
    found = sorted(path.name for path in (tree / "usr/lib/modules").glob("*") if path.is_dir())
    if len(found) != 1:
        raise HarnessError("build the kernel", got=f"the packages hold {len(found)} kernels instead of one: {found}")
    return found[0]
