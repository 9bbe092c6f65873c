"""What a cache entry holds, written beside it: names, sizes and sums, for people and for the check on use.

A full check reads every byte. What it found is kept in a *stamp*: size, mtime, ctime and inode of every file. While
the stamp fits, nobody wrote to the files since (the kernel moves ctime on every write and lets nobody set it), so other
processes trust it instead of reading again. What a stamp cannot see is a disk that returns other bytes than were
written; ``verify(full=True)`` does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = "manifest.json"
SCHEMA = 1
_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)


class Damaged(Exception):
    """The first thing about an entry that is not as its manifest says."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file or symbolic link of an entry.

    Attributes:
        path: relative to the entry, with forward slashes.
        size_bytes: of a file; 0 for a link.
        digest: "sha256:…" (as ``sha256sum`` prints it), "holes:…" for a sparse file (see ``_sparse``), "link:TARGET".
    """

    path: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was built, from what, when, and what is in it."""

    kind: str
    name: str
    key: str
    built_at: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    items: tuple[Item, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(item.size_bytes for item in self.items)


def survey(folder: Path) -> tuple[Item, ...]:
    """Every file and link below ``folder``, hashed; the manifest itself left out. Sorted by path."""
    return tuple(
        Item(path.relative_to(folder).as_posix(), *_measure(path))
        for path in sorted(_walk(folder))
        if path.name != NAME
    )


def _walk(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        yield from (Path(here) / name for name in (*files, *links))


def _measure(path: Path) -> tuple[int, str]:
    if path.is_symlink():
        return 0, f"link:{path.readlink()}"
    status = path.stat()
    sparse = status.st_blocks * 512 < status.st_size - _BLOCK
    return status.st_size, _sparse(path) if sparse else _plain(path)


def _plain(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _sparse(path: Path) -> str:
    """Hash a file by its blocks of 64 KiB that are not all zero, each with its number, then by its size.

    Holes cost nothing, and the answer depends on the content alone: a copy that filled the holes has the same.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        at = 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // _BLOCK * _BLOCK
            except OSError:  # ENXIO: only a hole is left
                break
            block = os.pread(file.fileno(), _BLOCK, at)
            if block != _ZEROS[: len(block)]:
                digest.update(at.to_bytes(8, "little") + block)
            at += _BLOCK
    digest.update(size.to_bytes(8, "little"))
    return "holes:" + digest.hexdigest()


def write(folder: Path, manifest: Manifest) -> None:
    """Put the manifest into the entry, with a sum over itself."""
    (folder / NAME).write_text(json.dumps(_document(manifest), indent=1) + "\n", encoding="utf-8")


def _document(manifest: Manifest) -> dict[str, Any]:
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": manifest.kind,
        "name": manifest.name,
        "key": manifest.key,
        "built_at": manifest.built_at,
        "inputs": dict(manifest.inputs),
        "facts": dict(manifest.facts),
        "files": {item.path: [item.size_bytes, item.digest] for item in manifest.items},
    }
    return document | {"sum": _sum(document)}


def _sum(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def read(folder: Path) -> Manifest:
    """The manifest of an entry.

    Raises:
        Damaged: missing, unreadable, of another schema, or changed since it was written.
    """
    try:
        document = json.loads((folder / NAME).read_bytes())
        said = document.pop("sum")
        if said != _sum(document):
            raise Damaged(f"{NAME} was changed since it was written")
        return Manifest(
            kind=document["kind"],
            name=document["name"],
            key=document["key"],
            built_at=document["built_at"],
            inputs=document["inputs"],
            facts=document["facts"],
            items=tuple(Item(path, size, digest) for path, (size, digest) in document["files"].items()),
        )
    except FileNotFoundError:
        raise Damaged(f"{NAME} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{NAME} cannot be read: {type(error).__name__}: {error}") from None


def check(folder: Path, manifest: Manifest) -> None:
    """Read every byte of the entry and compare; Damaged names the first file that differs."""
    for item in manifest.items:
        path = folder / item.path
        try:
            size, digest = _again(path, item)
        except OSError as error:
            raise Damaged(f"{item.path}: {error.strerror}") from None
        if size != item.size_bytes:
            raise Damaged(f"{item.path} has {size} bytes instead of {item.size_bytes}")
        if digest != item.digest:
            raise Damaged(f"{item.path} has {digest} instead of {item.digest}")


def _again(path: Path, item: Item) -> tuple[int, str]:
    """Measure in the way that the manifest was made: a copy may have filled the holes, or made some."""
    if item.digest.startswith("link:") or path.is_symlink():
        return _measure(path)
    return path.stat().st_size, _sparse(path) if item.digest.startswith("holes:") else _plain(path)


def stamp(folder: Path, manifest: Manifest) -> str:
    """A line that changes whenever a file of the entry is written, replaced or touched (about 2 µs a file).

    Raises:
        Damaged: a file is missing.
    """
    digest = hashlib.sha256()
    for name in (NAME, *(item.path for item in manifest.items)):
        try:
            status = os.lstat(folder / name)
        except OSError as error:
            raise Damaged(f"{name}: {error.strerror}") from None
        digest.update(f"{name}\0{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}\n".encode())
    return digest.hexdigest()
