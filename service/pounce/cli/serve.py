"""``pounce serve``: run a service in the foreground."""

import sys

import click

from pounce.assembly import foreground
from pounce.cli.arguments import ConfiguredCommand
from pounce.config.file import Invocation


@click.command(cls=ConfiguredCommand)
def serve(invocation: Invocation) -> None:
    """Serve an application, in the foreground.

    APP is module:attribute, or module:factory() for what a function returns. A NAME stands
    for the file /etc/pounce/NAME.toml. Options given here go before the file's.
    """
    foreground.run(invocation, sys.argv[1:])
