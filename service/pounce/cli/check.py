"""``pounce check``: find out what would keep a service from starting."""

import os
import platform
import sys
from collections.abc import Iterator

import click

from pounce.assembly.instance import how_to_catch_up
from pounce.assembly.launch import prepare
from pounce.assembly.sockets import goes_on
from pounce.cli.arguments import ConfiguredCommand
from pounce.cli.judging import (
    explained,
    have_judged,
    instance_of,
    is_roots,
    is_service,
    write_no_bytecode,
)
from pounce.config.commands import find_program, search_path, split
from pounce.config.file import Invocation
from pounce.config.service import ServerConfig
from pounce.errors import ApplicationError, PounceError
from pounce.systemd.credentials import with_credentials
from pounce.systemd.generator import why_not_held
from pounce.systemd.units import is_booted
from pounce.version import __version__


@click.command(cls=ConfiguredCommand)
def check(invocation: Invocation) -> None:
    """Check a configuration, load its certificates and import its application.

    For root it judges a service, NAME, as the service's own user in the service's sandbox, with
    the unit's directives and drop-ins, and anything else, or without systemd, as the user nobody.
    It writes no bytecode, and runs no commands of [deploy].

    Exits with 0 where all are well, 78 where the configuration or a certificate is not, 70 where
    the application cannot be imported or a command is not there. What may become wrong is warned
    of.
    """
    write_no_bytecode()
    if is_roots():
        settings = invocation.load()  # whoever judges: what is wrong in it is wrong
        _warn_of_a_move(invocation, settings.config)
        sys.exit(have_judged(invocation))
    try:
        _judge(invocation)
    except PounceError as error:
        raise explained(error, invocation) from error.__cause__


def _warn_of_a_move(invocation: Invocation, config: ServerConfig) -> None:
    """Say what a service needs whose addresses have changed; only root may see who listens."""
    name = instance_of(invocation)
    if name and is_booted() and (how := how_to_catch_up(name, config.listen)):
        click.echo(f"warning: {goes_on(how)}", err=True)


def _judge(invocation: Invocation) -> None:
    settings = prepare(invocation, sys.argv[1:])
    from pounce.application.interface import as_served
    from pounce.application.loader import load_application
    from pounce.assembly.tls import inspect
    from pounce.workers import check as check_workers

    click.echo(f"configuration: {invocation.path or 'the command line'} is valid")
    config = settings.config
    if is_service():
        config = with_credentials(config)
        for text in _left_by_systemd(config):
            click.echo(f"warning: {text}", err=True)
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


def _left_by_systemd(config: ServerConfig) -> Iterator[str]:
    """What to say of the addresses that no socket unit can open."""
    for entry in config.listen:
        passed = entry.name or entry.address.kind == "fd"
        if not passed and (reason := why_not_held(entry.address)):
            yield (
                f"{entry.address}: {reason}; the service opens it itself, which it can from port "
                "1024 on, and refuses clients there while it is down"
            )


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
