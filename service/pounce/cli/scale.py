"""``pounce scale``: more or fewer workers."""

from pathlib import Path

import click

from pounce.cli import control


@click.command()
@control.control
@click.argument("words", nargs=-1, metavar="[NAME] WORKERS")
def scale(words: tuple[str, ...], control_socket: Path | None) -> None:
    """Change how many workers a service has, until its next reload."""
    name, workers = _read(words)
    answer = control.call(name, control_socket, "Scale", {"workers": workers})
    click.echo(f"workers: {answer['workers']}")


def _read(words: tuple[str, ...]) -> tuple[str | None, int]:
    # click gives a single word to the first argument, although it is the optional one.
    if len(words) not in (1, 2):
        raise click.UsageError("Give the service's NAME and the number of WORKERS.")
    workers = click.IntRange(1)(words[-1])  # the service knows how many are too many
    return (words[0] if len(words) == 2 else None), int(workers)
