"""``pounce check``: find out what would keep a service from starting."""

import os
import platform
import sys

import click

from pounce import __version__
from pounce.cli.arguments import ConfiguredCommand
from pounce.commands import find_program, search_path, split
from pounce.config import ServerConfig
from pounce.config_file import Invocation
from pounce.errors import ApplicationError
from pounce.launch import prepare


@click.command(cls=ConfiguredCommand)
def check(invocation: Invocation) -> None:
    """Check a configuration, load its certificates and import its application.

    Exits with 0 where all are well, 78 where the configuration or a certificate is not, 70 where
    the application cannot be imported or a command is not there. What may become wrong is warned
    of.
    """
    settings = prepare(invocation, sys.argv[1:])
    from pounce.application import as_served
    from pounce.asgi.loader import load_application
    from pounce.endpoints import inspect
    from pounce.workers import check as check_workers

    click.echo(f"configuration: {invocation.path or 'the command line'} is valid")
    config = settings.config
    check_workers(config)
    for text in config.doubts():
        click.echo(f"warning: {text}", err=True)
    for entry in config.listen:
        for finding in inspect(entry):
            click.echo(f"{finding.kind}: {finding.text}", err=finding.kind == "warning")
    for line in config.deploy.before:
        click.echo(f"before a deploy: {line} ({_program(line, config)})")
    served = as_served(load_application(config), None, config)
    place = config.directory or "the current directory"
    python = f"pounce {__version__}, Python {platform.python_version()}, {sys.prefix}"
    click.echo(f"application: {config.app} ({served.kind}) is imported from {place} ({python})")


def _program(line: str, config: ServerConfig) -> str:
    """The file of the program that a command runs; raises ApplicationError if it cannot be run."""
    environment = {**os.environ, **config.environment}
    path = search_path(config.virtualenv, sys.prefix, environment)
    try:
        return find_program(split(line)[0], config.directory, path)
    except ApplicationError as error:
        raise ApplicationError(
            f"[deploy] before: {line!r}: it cannot be run: {error.message}", hint=error.hint
        ) from None
