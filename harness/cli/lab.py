"""``sriov-harness lab``: boot the lab that the tests use, and get into it."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from harness.cli.terminal import attach
from harness.errors import UsageError
from harness.lab.kept import find_kept, kept_machines, stop_kept
from harness.lab.registry import DEFAULT_LAB, Request, known_labs, open_lab
from harness.vm.cache import Cache
from harness.vm.rundir import RunFolder


@click.group()
def lab() -> None:
    """Boot the lab that the tests use, and get into it."""


@lab.command()
@click.argument("name", required=False)
@click.option("--lab", "lab_name", default=DEFAULT_LAB, show_default=True, metavar="LAB", help=", ".join(known_labs()))
@click.option("--profile", default="", help="a built-in profile or a file; the lab's own by default")
@click.option("--accel", default="auto", show_default=True, help="auto, kvm or tcg")
@click.option("--qemu", default="", help="a QEMU of this computer instead of the pinned one")
@click.option("--kernel", default="stock", show_default=True, help="a recipe of kernel-configs/")
@click.option("--native", is_flag=True, help="hotplug by the guest's pciehp instead of ACPI")
def shell(name: str | None, lab_name: str, profile: str, accel: str, qemu: str, kernel: str, native: bool) -> None:
    """A console in a fresh machine of the lab, with the endpoint in it; or in one that was left up, by its NAME."""
    if name:
        attach(find_kept(name).console)
        return
    request = Request(lab=lab_name, profile=profile, accelerator=accel, qemu=qemu, kernel=kernel)
    with RunFolder() as folder:
        opened = open_lab(request, Cache.default(), folder.path, lambda line: click.echo(line, err=True))
        for what, chosen in opened.describe().items():
            click.echo(f"{what}: {chosen}", err=True)
        with opened.machine("shell", hotplug="native" if native else "acpi", named=True) as machine:
            click.echo(f"endpoint: {machine.endpoint.pf}", err=True)
            machine.vm.console.close()  # its socket is free for the terminal now
            attach(machine.vm.folder / "console.sock")


@lab.command("list")
def list_kept() -> None:
    """The machines that were left up with --keep."""
    table = Table("name", "left up by", "QEMU", "folder")
    for machine in kept_machines():
        table.add_row(machine.name, machine.about, str(machine.process.pid), str(machine.folder))
    Console().print(table if table.row_count else "no machine was left up")


@lab.command()
@click.argument("names", nargs=-1, metavar="NAME…")
@click.option("--all", "everything", is_flag=True, help="every machine that was left up")
def stop(names: tuple[str, ...], everything: bool) -> None:
    """End machines that were left up."""
    if not names and not everything:
        raise UsageError("stop a machine", got="no name", fix="give a name of `sriov-harness lab list`, or --all")
    for machine in kept_machines() if everything else tuple(map(find_kept, names)):
        stop_kept(machine)
        click.echo(f"stopped {machine.name} ({machine.about})")
