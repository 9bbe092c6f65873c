"""From a tar file of Debian packages to what we keep of it, and the list of what was in it."""

from __future__ import annotations

import io
import lzma
import posixpath
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote

PACKAGES = "packages.txt"
"""In every entry made of packages: one ``name version`` a line."""

_DEB = re.compile(r"^([a-z0-9][a-z0-9.+-]+)_([^_]+)_[a-z0-9]+\.deb$", re.MULTILINE)


def unpack(tar: Path, to: Path, wanted: Callable[[str], bool], *, inflate: bool = False) -> int:
    """Unpack files and links whose path (without "./") is wanted; folders come as needed, devices never.

    Everything belongs to whoever runs this. Links that are absolute or lead out of the tree are left out.

    Args:
        inflate: unpack files named ``*.xz`` on the way, without that suffix.

    Returns:
        How many.
    """
    count = 0
    with tarfile.open(tar) as source:
        for member in source:
            path = posixpath.normpath(member.name)
            if path.startswith(("/", "..")) or not wanted(path):
                continue
            if member.issym():
                count += _link(to / path, member.linkname, posixpath.dirname(path))
            elif content := source.extractfile(member) if member.isfile() or member.islnk() else None:
                _write(to / path, content, member.mode, inflate=inflate)
                count += 1
    return count


def _link(at: Path, target: str, folder: str) -> int:
    if target.startswith("/") or posixpath.normpath(posixpath.join(folder, target)).startswith(".."):
        return 0
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(target)
    return 1


def _write(at: Path, content: IO[bytes], mode: int, *, inflate: bool) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    packed = inflate and at.suffix == ".xz"
    at = at.with_suffix("") if packed else at
    with at.open("wb") as file, lzma.open(content) if packed else content as plain:
        shutil.copyfileobj(plain, file, 1 << 20)
    at.chmod(0o755 if mode & 0o100 else 0o644)


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a path matches one of the patterns; ``*`` crosses no slash."""
    known = tuple(patterns)
    return lambda path: any(PurePosixPath("/", path).match("/" + pattern) for pattern in known)


def overlay_tar(folders: Iterable[Path], out: Path) -> None:
    """Folders laid over each other, as one tar file: owned by root, without times, in the order of their names."""
    files: dict[str, Path] = {}
    for folder in folders:
        files |= {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, path in sorted(files.items()):
            member = tarfile.TarInfo(name)
            if path.is_symlink():
                member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
                tar.addfile(member)
            elif path.is_dir():
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            else:
                data = path.read_bytes()
                # The shebang and not the mode decides: a wheel does not keep modes.
                member.size, member.mode = len(data), 0o755 if data.startswith(b"#!") else 0o644
                tar.addfile(member, io.BytesIO(data))


def package_versions(log: str) -> Mapping[str, str]:
    """Name → version of every package that the log of a build lists, by the names of its .deb files."""
    return {name: unquote(version) for name, version in _DEB.findall(log)}


def write_packages(versions: Mapping[str, str], folder: Path) -> None:
    """Leave the list in the entry."""
    text = "".join(f"{name} {version}\n" for name, version in sorted(versions.items()))
    (folder / PACKAGES).write_text(text, encoding="utf-8")
