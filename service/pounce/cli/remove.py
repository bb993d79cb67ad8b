"""``pounce remove``: a service and all that belongs to it, gone."""

import os
import shutil
import sys
from pathlib import Path

import click

from pounce.cli.completion import complete_name
from pounce.config_file import CONFIG_DIRECTORY, SERVICE_NAME, configured
from pounce.errors import PounceError
from pounce.systemd.removal import Removal, holds_something
from pounce.systemd.units import is_booted


@click.command()
@click.argument("name", shell_complete=complete_name)
@click.option(
    "data",
    "--purge/--keep-data",
    default=None,
    help="Remove the service's data, or keep them, without a question.",
)
def remove(name: str, *, data: bool | None) -> None:
    """Stop the service NAME and remove it.

    Requests in flight are finished. Then the file /etc/pounce/NAME.toml goes, with the links and
    drop-ins of the service's units. At a terminal the command asks whether to remove the service's
    data as well: /etc/pounce/NAME, and what the service has written to its directories in /var/lib,
    /var/cache and /var/log. Without a terminal the data stay, and the command says where.
    """
    _require(name)
    file, secrets = CONFIG_DIRECTORY / f"{name}.toml", CONFIG_DIRECTORY / name
    removal = Removal(name)
    places = [place for place in (secrets, *removal.directories()) if holds_something(place)]
    if not (_is_there(file) or places or removal.is_known()):
        raise PounceError(
            f"there is no service {name!r}: no file, no unit and no data have this name",
            hint=f"configured in {CONFIG_DIRECTORY}: {', '.join(configured()) or 'none'}",
        )
    purge = _may_purge(places, data)
    removal.stop()
    removal.clean(data=purge)
    file.unlink(missing_ok=True)
    if _is_there(secrets) and (purge or secrets not in places):
        shutil.rmtree(secrets)
    removal.forget()
    click.echo(f"{name} is stopped, disabled and removed")
    if places:
        click.echo(f"{'Removed the data in' if purge else 'The data stay in'} {_list(places)}")
    if places and not purge:
        click.echo(f"to remove the data, too: pounce remove {name} --purge")


def _require(name: str) -> None:
    """Raise PounceError where nothing can be removed."""
    if not SERVICE_NAME.fullmatch(name):
        raise PounceError(f"{name!r} cannot be the name of a service")
    if not is_booted():
        raise PounceError(
            "systemd does not run this machine, so it has no service to remove",
            hint=f"pounce init has written {CONFIG_DIRECTORY}/{name}.toml",
        )
    if os.geteuid() != 0:
        raise PounceError("only root may remove a service", hint="call it with sudo")


def _may_purge(places: list[Path], data: bool | None) -> bool:
    """Whether data may go; a person decides, if there is any and no flag has decided."""
    if not places:
        return True
    if data is not None or not sys.stdin.isatty():
        return bool(data)
    click.echo(f"The service has data: {_list(places)}")
    return click.confirm("Remove them as well?")


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _list(places: list[Path]) -> str:
    return ", ".join(str(place) for place in places)
