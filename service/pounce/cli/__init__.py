"""The command ``pounce``. One module a subcommand: each parses, calls and prints.

Exit codes: 2 for a command line that click cannot read (an unknown flag), otherwise those
of `pounce.errors`: 78 for a refused value, whether a file or a flag gave it.
"""

import sys
from textwrap import indent

import click

from pounce import __version__
from pounce.cli.check import check
from pounce.cli.config import config
from pounce.cli.init import init
from pounce.cli.reload import reload
from pounce.cli.scale import scale
from pounce.cli.serve import serve
from pounce.cli.status import status
from pounce.cli.stop_draining import stop_draining
from pounce.errors import PounceError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="pounce %(version)s")
def pounce() -> None:
    """Serve Python ASGI applications as native systemd services."""


for _command in (serve, init, check, config, reload, status, stop_draining, scale):
    pounce.add_command(_command)


def main() -> None:
    """Run the command line and exit; the entry point of the ``pounce`` script."""
    try:
        pounce(prog_name="pounce")
    except PounceError as error:
        for line in error.message.splitlines():
            click.echo(f"pounce: error: {line}", err=True)
        if error.hint:
            click.echo(indent(error.hint, "  "), err=True)
        sys.exit(error.exit_code)
