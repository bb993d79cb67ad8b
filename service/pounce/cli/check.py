"""``pounce check``: find out what would keep a service from starting."""

import platform
import sys

import click

from pounce.cli.arguments import ConfiguredCommand
from pounce.config_file import Invocation
from pounce.launch import prepare


@click.command(cls=ConfiguredCommand)
def check(invocation: Invocation) -> None:
    """Check a configuration, load its certificates and import its application.

    Exits with 0 where all are well, 78 where the configuration or a certificate is not, 70 where
    the application cannot be imported. What may become wrong is warned of.
    """
    settings = prepare(invocation, sys.argv[1:])
    from pounce.asgi.loader import load_application
    from pounce.endpoints import inspect

    click.echo(f"configuration: {invocation.path or 'the command line'} is valid")
    for entry in settings.config.listen:
        for finding in inspect(entry):
            click.echo(f"{finding.kind}: {finding.text}", err=finding.kind == "warning")
    load_application(settings.config)
    place = settings.config.directory or "the current directory"
    python = f"Python {platform.python_version()}, {sys.prefix}"
    click.echo(f"application: {settings.config.app} is imported from {place} ({python})")
