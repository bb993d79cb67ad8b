"""``pounce stop-draining``: an end to what old generations still serve."""

from pathlib import Path

import click

from pounce.cli import control


@click.command()
@control.service
@control.control
def stop_draining(name: str | None, control_socket: Path | None) -> None:
    """Stop the workers that still drain after reloads, with the requests they serve."""
    answer = control.call(name, control_socket, "StopDraining")
    click.echo(f"workers stopped: {answer['workers']}")
