"""``pounce reload``: a new generation of workers, without a pause."""

from pathlib import Path

import click

from pounce.cli import control
from pounce.cli.reloads import reload_all
from pounce.errors import PounceError


@click.command()
@control.service
@control.control
@click.option("everyone", "--all", is_flag=True, help="Reload every instance of pounce@.service.")
def reload(name: str | None, control_socket: Path | None, *, everyone: bool) -> None:
    """Replace a service's workers by a new generation, and wait until it serves.

    Exits with 0 when new code serves. Exits with 1, and says why, when the old code still does.
    """
    if not everyone:
        _reload(name, control_socket)
    elif name is not None or control_socket is not None:
        raise click.UsageError("Say which service, or --all.")
    else:
        units = reload_all()
        click.echo(f"reloaded: {', '.join(units) or 'no service runs'}")


def _reload(name: str | None, control_socket: Path | None) -> None:
    try:
        answer = control.call(name, control_socket, "Reload")
    except PounceError as error:
        # systemd's ExecReload= would write into the journal what the service has written there.
        from pounce.systemd.journal import stderr_is_journal

        if stderr_is_journal():
            raise PounceError(error.message.partition("\n")[0]) from None
        raise
    click.echo(f"generation {answer['generation']} serves")
