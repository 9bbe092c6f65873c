"""Kernels, from their recipes into the cache: the kernel, its modules as a squashfs, and the initramfs."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.vm import cpio, debian, images, kconfig, recipes, tools, trees
from harness.vm.cache import BUILD_LOG, Cache, Entry, Progress, silent
from harness.vm.machine import Kernel
from harness.vm.modules import ModuleIndex
from harness.vm.recipes import KernelRecipe

VMLINUZ, INITRAMFS, MODULES, CONFIG = "vmlinuz", "initramfs.cpio", "modules.squashfs", "config"
INIT, BUILD_SCRIPT = "initramfs-init", "build-kernel"
_STEP_WITHIN_S = 300.0
_COMPILE_WITHIN_S = 3600.0
_UNPACKED_BYTES = 900_000_000
_COMPILED_BYTES = 4_000_000_000


@dataclass(frozen=True, slots=True)
class Parts:
    """What either way of getting a kernel ends in.

    Attributes:
        modules: the folder that becomes /usr/lib/modules/RELEASE.
    """

    release: str
    vmlinuz: Path
    config: Path
    busybox: Path
    modules: Path


def kernel(cache: Cache, name: str = "stock", progress: Progress = silent) -> Kernel:
    """A kernel by the name of its recipe, built if it is not in the cache.

    Raises:
        UsageError: no such kernel.
        ProfileError: its recipe is wrong, or lines of its fragment did not survive.
        HostLacks, CacheDamaged, DeadlineExceeded: see ``Cache.obtain``.
    """
    entry = obtain_kernel(cache, recipes.kernel_recipe(name), progress)
    return Kernel(
        name=name,
        release=entry.facts["release"],
        vmlinuz=entry.file(VMLINUZ),
        initramfs=entry.file(INITRAMFS),
        modules=entry.file(MODULES),
        key=images.content_key(entry),
    )


def kernel_key(recipe: KernelRecipe) -> str:
    """What a kernel entry follows from: recipe, scripts, fragment, and the way we compress."""
    names = [INIT, *((recipe.fragment, BUILD_SCRIPT) if recipe.source == "build" else ())]
    texts = ((Path(recipe.folder) / name).read_text(encoding="utf-8") for name in names)
    return recipe.key(*texts, *images.SQUASHFS_OPTIONS)


def obtain_kernel(cache: Cache, recipe: KernelRecipe, progress: Progress = silent) -> Entry:
    """The entry of a kernel."""
    key = kernel_key(recipe)

    def build(folder: Path) -> Mapping[str, str]:
        programs = images.build_tools(cache, progress)
        work = folder / "work"
        work.mkdir()
        get = _compile if recipe.source == "build" else _unpack
        parts = get(recipe, work, folder / BUILD_LOG, progress)
        _assemble(recipe, parts, programs, folder, progress)
        shutil.rmtree(work)
        images.still_the_same(key, kernel_key(recipe), recipe.folder)
        facts = images.package_facts(recipe.packages, folder / BUILD_LOG, folder)
        return {"release": parts.release, **facts}

    return cache.obtain(
        "kernel",
        recipe.name,
        key,
        build,
        inputs={"recipe": f"{recipe.folder}/{recipe.name}.toml", "packages": " ".join(recipe.packages)},
        progress=progress,
        needs_bytes=_UNPACKED_BYTES,
    )


def initramfs(busybox: bytes, init: bytes, modules: Sequence[tuple[str, bytes]]) -> bytes:
    """The archive that finds the root disk. Not compressed: measured under TCG, zstd and lz4 boot no faster.

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


def _unpack(recipe: KernelRecipe, work: Path, log: Path, progress: Progress) -> Parts:
    """A kernel from its package."""
    tar, tree = work / "packages.tar", work / "tree"
    packages = debian.Packages(recipe.suite, "extract", recipe.packages)
    debian.bootstrap(packages, tar, log=log, progress=progress, needs_bytes=_UNPACKED_BYTES)
    progress("unpacking kernel and modules")
    dropped = tuple(f"/{name}/" for name in recipe.drop)

    def wanted(path: str) -> bool:
        if path.startswith("usr/lib/modules/"):
            return not any(name in path for name in dropped)
        return path.startswith("boot/") or path == "usr/bin/busybox"

    trees.unpack(tar, tree, wanted, inflate=True)  # a module in xz takes TCG a tenth of a second to inflate
    tar.unlink()
    releases = sorted(path.name for path in (tree / "usr/lib/modules").glob("*") if path.is_dir())
    if len(releases) != 1:
        raise HarnessError(
            f"build the kernel {recipe.name}",
            on=", ".join(recipe.packages),
            got=f"the packages hold {len(releases)} kernels instead of one: {releases}",
            fix=f"correct packages in {recipe.folder}/{recipe.name}.toml",
        )
    (release,) = releases
    return Parts(
        release,
        vmlinuz=tree / f"boot/vmlinuz-{release}",
        config=tree / f"boot/config-{release}",
        busybox=tree / "usr/bin/busybox",
        modules=tree / "usr/lib/modules" / release,
    )


def _compile(recipe: KernelRecipe, work: Path, log: Path, progress: Progress) -> Parts:
    """A kernel from its sources, compiled in a Debian that is thrown away: this computer needs no compiler."""
    fragment, script = Path(recipe.folder) / recipe.fragment, Path(recipe.folder) / BUILD_SCRIPT
    kconfig.parse_fragment(fragment)
    result, config = work / "result.tar", work / "config"
    inside = 'chroot "$1" sh /build/build-kernel'
    hooks = (
        'mkdir "$1/build"',
        f"upload {shlex.quote(str(script))} /build/build-kernel",
        f"upload {shlex.quote(str(fragment))} /build/fragment",
        f"{inside} configure {recipe.base}",
        f"download /build/out/.config {shlex.quote(str(config))}",
        f"{inside} check",
        f"{inside} compile",
        f"tar-out /build/result {shlex.quote(str(result))}",
    )
    packages = debian.Packages(
        recipe.suite, "essential", (*recipe.packages, *recipe.build_packages), ("/usr/share/doc/*", "/usr/share/man/*")
    )
    try:
        debian.bootstrap(
            packages,
            None,
            log=log,
            hooks=hooks,
            progress=progress,
            within_s=_COMPILE_WITHIN_S,
            needs_bytes=_COMPILED_BYTES,
        )
    except HarnessError:
        if config.exists():
            kconfig.check(fragment, config.read_text(encoding="utf-8"))
        raise
    kconfig.check(fragment, config.read_text(encoding="utf-8"))
    tree = work / "tree"
    trees.unpack(result, tree, lambda _path: True)
    built = next(tree.rglob("bzImage")).parent
    release = (built / "release").read_text(encoding="utf-8").strip()
    modules = work / "modules" / release
    modules.mkdir(parents=True)
    for name in ("modules.builtin", "modules.builtin.modinfo"):
        shutil.copyfile(built / name, modules / name)
    (modules / "modules.order").touch()
    return Parts(release, built / "bzImage", built / ".config", built / "busybox", modules)


def _assemble(recipe: KernelRecipe, parts: Parts, programs: tools.Tree, folder: Path, progress: Progress) -> None:
    """Index the modules, check them, and make the files of the entry."""
    log = folder / BUILD_LOG
    base = folder / "work/index"  # depmod wants to see BASE/lib/modules/RELEASE
    (base / "lib").mkdir(parents=True)
    parts.modules.parent.rename(base / "lib/modules")
    modules = base / "lib/modules" / parts.release
    depmod = (*programs.argv("usr/bin/kmod", name="depmod"), "-b", str(base), parts.release)
    tools.run(depmod, tried="index the modules", log=log, within_s=_STEP_WITHIN_S, progress=progress)
    index = ModuleIndex.load(modules)
    index.check(recipe.must_have, recipe.name)
    shutil.copyfile(parts.vmlinuz, folder / VMLINUZ)
    shutil.copyfile(parts.config, folder / CONFIG)
    early = [(name, (modules / name).read_bytes()) for name in index.load_order(recipe.initramfs_modules)]
    script = (Path(recipe.folder) / INIT).read_bytes()
    (folder / INITRAMFS).write_bytes(initramfs(parts.busybox.read_bytes(), script, early))
    progress("compressing the modules")
    squash = (
        *programs.argv("usr/bin/mksquashfs"),
        str(modules.parent),
        str(folder / MODULES),
        *images.SQUASHFS_OPTIONS,
    )
    options = ("-all-root", "-no-progress", "-quiet", "-all-time", "0")
    tools.run((*squash, *options), tried="make the squashfs", log=log, within_s=_STEP_WITHIN_S, room=folder)
