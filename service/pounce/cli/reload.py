"""``pounce reload``: a new generation of workers, without a pause."""

from pathlib import Path

import click

from pounce.cli import control


@click.command()
@control.service
@control.control
def reload(name: str | None, control_socket: Path | None) -> None:
    """Replace a service's workers by a new generation, and wait until it serves.

    Exits with 0 when new code serves. Exits with 1, and says why, when the old code still does.
    """
    answer = control.call(name, control_socket, "Reload")
    click.echo(f"generation {answer['generation']} serves")
