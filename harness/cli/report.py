"""``sriov-harness report``: the HTML report from results that are already there."""

from __future__ import annotations

from pathlib import Path

import click

from harness.errors import HarnessError
from harness.vm.cache import Cache


@click.command()
@click.argument("results", default="build/allure-results", type=click.Path(path_type=Path))
@click.option("-o", "--output", default="build/report", type=click.Path(path_type=Path), help="Folder for index.html.")
@click.option("--name", default="SR-IOV endpoint", help="The report's title.")
@click.option(
    "--history",
    default=None,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the earlier runs; keep it in the CI's cache.  [default: history.jsonl beside the output folder]",
)
def report(results: Path, output: Path, name: str, history: Path | None) -> None:
    """Make one HTML file from the Allure RESULTS of a run (default: build/allure-results)."""
    from harness.report.html import generate

    try:
        page = generate(
            results,
            output,
            cache=Cache.default(),
            name=name,
            history=history or output.absolute().parent / "history.jsonl",
            progress=lambda line: click.echo(line, err=True),
        )
    except HarnessError as error:
        raise click.ClickException(str(error)) from None
    click.echo(page)
