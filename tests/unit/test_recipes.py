"""Recipes: the ones we ship, and what a person hears who writes a wrong one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.errors import HarnessError, ProfileError, UsageError
from harness.vm import catalog, images, kconfig, recipes
from harness.vm.cache import Cache
from harness.vm.kernels import kernel_key

IMAGE = """
summary = "a system"
form = "squashfs"
suite = "trixie"
variant = "essential"
packages = ["python3"]
"""
KERNEL = """
summary = "a kernel"
source = "package"
suite = "trixie"
packages = ["linux-image-amd64"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """guest-images with one good image, "base"."""
    add(tmp_path, "base", IMAGE)
    return tmp_path


def add(folder: Path, name: str, text: str) -> Path:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "image.toml").write_text(text)
    return folder / name / "image.toml"


@pytest.mark.parametrize("product", catalog.products(), ids=lambda product: f"{product.kind}-{product.name}")
def test_our_recipes_load_and_have_keys(product: catalog.Product) -> None:
    assert len(product.key) == 64
    assert product.summary


def test_what_the_suite_needs_has_recipes() -> None:
    assert {catalog.product(name).kind for name in catalog.NEEDED} == {"runtime", "kernel", "image"}
    assert "qemu-system-x86/trixie-backports" in recipes.image_recipe("host").packages


def test_our_fragments_parse() -> None:
    for name in recipes.kernel_names():
        recipe = recipes.kernel_recipe(name)
        if recipe.fragment:
            assert kconfig.parse_fragment(Path(recipe.folder) / recipe.fragment)


def test_unknown_names_are_answered_with_the_known(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown image 'gest'\n.*known: base"):
        recipes.image_recipe("gest", folder)
    with pytest.raises(UsageError, match=r"unknown kernel 'stok'\n.*known: .*stock, trimmed"):
        recipes.kernel_recipe("stok")


@pytest.mark.parametrize(
    ("line", "where", "what"),
    [
        ('pakages = ["x"]', ":7, key 'pakages'", "unknown key; known: .*packages"),
        ("expect_version = 11.1", ":7, key 'expect_version'", "valid string"),
        ('keep = "usr/bin/*"', ":7, key 'keep'", "valid tuple"),
        ('keep = ["usr/bin/*"]', "key 'keep'", "a tree needs it, and only a tree"),
        ('name = "other"', ":7, key 'name'", "not a key of a recipe"),
        ('extends = "nobody"', ":7, key 'extends'", "'nobody': known: .*base"),
        ('extends = "wrong"', ":7, key 'extends'", "extends itself"),
        ("x = ", r"recipe .*wrong/image.toml", r"line 7"),
    ],
    ids=lambda text: str(text)[:25],
)
def test_wrong_recipe_is_named_by_file_line_and_key(folder: Path, line: str, where: str, what: str) -> None:
    path = add(folder, "wrong", IMAGE + line + "\n")
    with pytest.raises(ProfileError, match=f"{where}.*{what}") as caught:
        recipes.image_recipe("wrong", folder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("package", ["--option", "a b", "x;y", "Upper", "name/suite/more"])
def test_package_that_apt_could_take_for_something_else_is_refused(folder: Path, package: str) -> None:
    add(folder, "wrong", IMAGE.replace("python3", package))
    with pytest.raises(ProfileError, match=r"image.toml:6, key 'packages'.*is not a package: NAME or NAME/SUITE"):
        recipes.image_recipe("wrong", folder)


def test_missing_key_is_named(folder: Path) -> None:
    add(folder, "wrong", IMAGE.replace('suite = "trixie"\n', ""))
    with pytest.raises(ProfileError, match=r"image.toml, key 'suite'\): Field required"):
        recipes.image_recipe("wrong", folder)


def test_tree_runs_nothing_and_says_what_it_keeps(folder: Path) -> None:
    add(folder, "wrong", IMAGE.replace("squashfs", "tree"))
    with pytest.raises(ProfileError, match=r"image.toml:5, key 'variant'.*a tree is of variant"):
        recipes.image_recipe("wrong", folder)


def test_extending_image_has_the_lists_of_both_and_its_own_words(folder: Path) -> None:
    (folder / "base/rootfs/etc").mkdir(parents=True)
    (folder / "more/rootfs").mkdir(parents=True)
    add(
        folder,
        "more",
        'extends = "base"\nsummary = "more"\npackages = ["kmod"]\nexclude_paths = ["/usr/share/doc/*"]\n',
    )
    more = recipes.image_recipe("more", folder)
    assert more.packages == ("python3", "kmod")
    assert (more.name, more.summary, more.suite) == ("more", "more", "trixie")
    assert more.overlays == (str(folder / "base/rootfs"), str(folder / "more/rootfs"))


def test_images_that_extend_each_other_are_refused(folder: Path) -> None:
    add(folder, "a", 'extends = "b"\n' + IMAGE)
    add(folder, "b", 'extends = "a"\n' + IMAGE)
    with pytest.raises(ProfileError, match="'a': extends itself"):
        recipes.image_recipe("a", folder)


def test_key_follows_content_and_not_words_or_times(folder: Path) -> None:
    file = folder / "base/rootfs/etc/motd"
    file.parent.mkdir(parents=True)
    file.write_text("hello")

    def key() -> str:
        return images.image_key(recipes.image_recipe("base", folder))

    keys = [key()]
    os.utime(file, (0, 0))
    file.chmod(0o600)
    add(folder, "base", IMAGE.replace("a system", "the same system, better described"))
    assert key() == keys[0]
    for change in (
        lambda: file.write_text("hello, you"),
        lambda: (folder / "base/rootfs/etc/link").symlink_to("motd"),
        lambda: add(folder, "base", IMAGE.replace('"python3"', '"python3", "kmod"')),
        lambda: add(folder, "base", IMAGE.replace("essential", "minbase")),
    ):
        change()
        keys.append(key())
    assert len(set(keys)) == 5


def test_kernel_key_follows_its_scripts_and_fragment(tmp_path: Path) -> None:
    files = {"k.toml": KERNEL, "initramfs-init": "#!", "build-kernel": "#!", "k.config": "CONFIG_PCI=y\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    package = kernel_key(recipes.kernel_recipe("k", tmp_path))
    extra = 'build_packages = ["gcc"]\nbase = "tinyconfig"\nfragment = "k.config"\n'
    (tmp_path / "k.toml").write_text(KERNEL.replace('"package"', '"build"') + extra)
    keys = {package, kernel_key(recipes.kernel_recipe("k", tmp_path))}
    for name in ("initramfs-init", "build-kernel", "k.config"):
        (tmp_path / name).write_text(files[name] + "# more\n")
        keys.add(kernel_key(recipes.kernel_recipe("k", tmp_path)))
    assert len(keys) == 5


def test_built_kernel_needs_what_it_is_built_from(tmp_path: Path) -> None:
    (tmp_path / "k.toml").write_text(KERNEL.replace('"package"', '"build"'))
    with pytest.raises(ProfileError, match=r"key 'build_packages'.* needs it, and only that"):
        recipes.kernel_recipe("k", tmp_path)
    extra = 'build_packages = ["gcc"]\nbase = "tinyconfig"\nfragment = "gone.config"\n'
    (tmp_path / "k.toml").write_text(KERNEL.replace('"package"', '"build"') + extra)
    with pytest.raises(ProfileError, match=r"k.toml:8, key 'fragment'.*no file gone.config beside"):
        recipes.kernel_recipe("k", tmp_path)


def test_tree_is_no_root_file_system(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='its form is "tree"'):
        images.image(Cache(tmp_path), "qemu-runtime")


def test_recipe_edited_during_its_build_gives_no_entry(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its content would be new, or half of it, under the key of the old."""
    motd = folder / "base/rootfs/etc/motd"
    motd.parent.mkdir(parents=True)
    motd.write_text("old")

    def edit(_packages: object, tar: Path, log: Path, **_more: object) -> None:
        motd.write_text("new")
        tar.touch()
        log.touch()

    monkeypatch.setattr("harness.vm.debian.bootstrap", edit)
    monkeypatch.setattr(images, "squasher", lambda *_: ("/bin/true",))
    cache = Cache(tmp_path / "cache")
    with pytest.raises(HarnessError, match=r"its files were changed during the build\n.*run again"):
        images.obtain_image(cache, recipes.image_recipe("base", folder))
    assert cache.entries() == ()
