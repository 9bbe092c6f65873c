"""The command line: the same functions without pytest. Errors are text for people, never tracebacks."""

from __future__ import annotations

import sys

import click

from harness import __version__
from harness.cli.image import image
from harness.cli.lab import lab
from harness.cli.report import report
from harness.errors import HarnessError, UsageError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sriov-harness")
def cli() -> None:
    """Test PCIe endpoints with SR-IOV: images, labs, reports. The tests themselves: pytest --help."""


for command in (image, lab, report):
    cli.add_command(command)


def main() -> None:
    """The console script: exit status 2 for a mistake of the user's, 1 for trouble, 130 for Ctrl-C."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except HarnessError as error:
        click.echo(f"sriov-harness: {error}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
