"""``pounce check``: find out what would keep a service from starting."""

import platform
import sys

import click

from pounce.cli.arguments import ConfiguredCommand
from pounce.config_file import Invocation
from pounce.launch import prepare


@click.command(cls=ConfiguredCommand)
def check(invocation: Invocation) -> None:
    """Check a configuration and import its application.

    Exits with 0 where both are well, 78 where the configuration is not, 70 where the
    application cannot be imported.
    """
    settings = prepare(invocation, sys.argv[1:])
    from pounce.asgi.loader import load_application

    click.echo(f"configuration: {invocation.path or 'the command line'} is valid")
    load_application(settings.config)
    place = settings.config.directory or "the current directory"
    python = f"Python {platform.python_version()}, {sys.prefix}"
    click.echo(f"application: {settings.config.app} is imported from {place} ({python})")
