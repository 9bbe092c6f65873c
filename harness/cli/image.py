"""``sriov-harness image``: what machines are made of, built into the cache, listed, removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import click
from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from harness.errors import UsageError
from harness.vm import catalog
from harness.vm.cache import Cache, Entry
from harness.vm.catalog import Product, Row
from harness.vm.entry import written_bytes

_COLOURS = {"ok": "green", "missing": "yellow", "outdated": "yellow", "damaged": "red"}
_VERSIONS = ("version", "release", "qemu-system-x86", "python3", "squashfs-tools", "qemu", "kernel")
_WIDE = 240  # where no terminal says how wide it is: in a pipe, nothing needs to fit
_QUIET_LINES_S = 10.0  # without a terminal, as in CI: a line now and then, so that a log shows life


@click.group()
def image() -> None:
    """What machines are made of: QEMU, kernels, images; built once into a cache."""


@image.command("list")
@click.option("--check", is_flag=True, help="Read every byte again, instead of trusting what an earlier check found.")
def list_(check: bool) -> None:
    """Show what there is, and in which state."""
    cache = Cache.default()
    table = Table(title=f"cache: {cache.root}")
    for name in ("what", "key", "state"):
        table.add_column(name, overflow="fold")
    table.add_column("on disk", justify="right", no_wrap=True)
    for name in ("built", "what is in it"):
        table.add_column(name, overflow="fold")
    for row in catalog.rows(cache, full=check):
        table.add_row(*_cells(row))
    terminal = Console()
    (terminal if terminal.is_terminal else Console(width=_WIDE)).print(table)


@image.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--kernel", "kernels", multiple=True, metavar="NAME", help="A recipe of kernel-configs/; may be repeated."
)
@click.option("--again", is_flag=True, help="Build even what is there: the same recipe with Debian's newest packages.")
def build(names: tuple[str, ...], kernels: tuple[str, ...], again: bool) -> None:
    """Build images and kernels; without names, all that the suite needs."""
    cache = Cache.default()
    wanted = [catalog.product(name, ("runtime", "tools", "image")) for name in names]
    wanted += [catalog.product(name, ("kernel",)) for name in kernels]
    for product in wanted or [catalog.product(name) for name in catalog.NEEDED]:
        _build(cache, product, again=again)


@image.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Everything, templates included.")
@click.option("--outdated", is_flag=True, help="What no recipe of today makes, and what killed builds left.")
def clean(names: tuple[str, ...], everything: bool, outdated: bool) -> None:
    """Remove entries: by NAME (guest), by kind (template), or by folder (guest-0123456789abcdef)."""
    if not (names or everything or outdated):
        raise UsageError("clean the cache", got="nothing named", fix="give names, --outdated or --all")
    cache = Cache.default()
    rows = [row for row in catalog.rows(cache) if row.path is not None]
    known = {word for row in rows for word in _words(row)}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"clean {', '.join(unknown)}", got="not in the cache", fix="see `sriov-harness image list` for what is"
        )
    doomed = [
        row
        for row in rows
        if everything or (outdated and row.state in ("outdated", "damaged")) or _words(row) & set(names)
    ]
    refused = [trouble for row in doomed if (trouble := _remove(cache, row))]
    if everything or outdated:
        cache.sweep()
    if refused:
        raise UsageError(f"remove {len(refused)} of {len(doomed)} entries", got="\n".join(["", *refused]))


def _build(cache: Cache, product: Product, *, again: bool) -> None:
    there = cache.find(product.kind, product.name, product.key)
    if there and again:
        cache.remove(there)
        there = None
    began = time.monotonic()
    with _shown(product.name) as progress:
        entry = product.obtain(cache, progress)
    new = there is None or there.manifest != entry.manifest
    how = f"built in {time.monotonic() - began:.0f} s" if new else f"already there, built {_when(entry)}"
    click.echo(f"{product.kind} {product.name}: {how}, {_size(entry)}")


@contextmanager
def _shown(name: str) -> Iterator[Callable[[str], None]]:
    """What a build says, as one line that changes; in a log, as a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _now_and_then(name)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[name]}"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        task: TaskID = bars.add_task("looking", total=None, name=name)
        room = max(20, console.width - len(name) - 14)
        yield lambda line: bars.update(task, description=_plain(line)[:room])


def _plain(line: str) -> str:
    """Without what rich takes for markup, or the terminal for commands."""
    return "".join(sign for sign in line if sign.isprintable()).replace("[", "(").replace("]", ")")


def _now_and_then(name: str) -> Callable[[str], None]:
    last = float("-inf")

    def progress(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _QUIET_LINES_S:
            last = time.monotonic()
            click.echo(f"{name}: {line}", err=True)

    return progress


def _remove(cache: Cache, row: Row) -> str:
    """Remove one entry; returns why not, if not."""
    assert row.path is not None, "only rows with a folder are cleaned"
    try:
        cache.remove(row.path)
    except UsageError as refusal:
        return f"    {refusal.tried}: {refusal.got}"
    freed = f", {_size(row.entry)}" if row.entry else ""
    click.echo(f"removed {row.kind} {row.name}{freed}")
    return ""


def _words(row: Row) -> set[str]:
    """What a person may call it."""
    return {row.name, row.kind, row.path.name if row.path else ""}


def _cells(row: Row) -> tuple[str, ...]:
    state = f"[{_COLOURS[row.state]}]{row.state}[/]" + (f" ({_plain(row.why)})" if row.why else "")
    if row.entry is None:
        return f"{row.kind} {row.name}", row.key[:12], state, "", "", ""
    facts = row.entry.facts
    versions = [f"{name} {facts[name]}" for name in _VERSIONS if name in facts]
    what = f"{row.kind} {row.name}"
    return what, row.key[:12], state, _size(row.entry), _when(row.entry), ", ".join(versions)


def _when(entry: Entry) -> str:
    return datetime.fromisoformat(entry.manifest.built_at).astimezone().strftime("%Y-%m-%d %H:%M")


def _size(entry: Entry) -> str:
    return f"{written_bytes(entry.path) / 1e6:.0f} MB"
