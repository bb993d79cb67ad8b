"""``pounce config``: show the effective configuration, or a template of one."""

import click

from pounce.cli.arguments import ConfiguredCommand
from pounce.config.file import Invocation
from pounce.config.text import table
from pounce.config.text import template as template_text


@click.command(cls=ConfiguredCommand)
@click.option("--template", is_flag=True, help="Print a commented file with every option instead.")
def config(invocation: Invocation, *, template: bool) -> None:
    """Show the effective configuration.

    Each option's value, its unit, and where the value came from.
    """
    click.echo(template_text() if template else table(invocation.load()), nl=False)
