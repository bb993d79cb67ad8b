"""``pounce remove``: a service and all that belongs to it, gone."""

import os
import shutil
import sys
from pathlib import Path

import click

from pounce.cli.completion import complete_name
from pounce.config.file import CONFIG_DIRECTORY, SERVICE_NAME, configured
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
    /var/cache and /var/log. Without a terminal the data stay, and the command says where. What
    another configured service uses as well stays in any case.
    """
    _require(name)
    file, secrets = CONFIG_DIRECTORY / f"{name}.toml", CONFIG_DIRECTORY / name
    removal = Removal(name)
    if not (_is_there(file) or removal.is_known() or _data(removal, secrets)):
        raise PounceError(
            f"there is no service {name!r}: no file, no unit and no data have this name",
            hint=f"configured in {CONFIG_DIRECTORY}: {', '.join(configured()) or 'none'}",
        )
    removal.stop()
    # Not before: an application may write while it ends.
    places, shared = _data(removal, secrets), removal.shared()
    purge = _may_purge([place for place in places if place not in shared], data)
    removal.clean(data=purge)
    with removal.step():
        file.unlink(missing_ok=True)
    with removal.step():
        _remove_secrets(secrets, purge=purge)
    removal.forget()
    _tell(name, places, shared)
    if removal.failures:
        raise PounceError(f"not all of {name} could be removed:\n" + "\n".join(removal.failures))


def _data(removal: Removal, secrets: Path) -> list[Path]:
    """The places with the service's data; what a link of an administrator's names is not its."""
    places = [*removal.directories(), *([] if secrets.is_symlink() else [secrets])]
    return [place for place in sorted(places) if holds_something(place)]


def _remove_secrets(secrets: Path, *, purge: bool) -> None:
    if secrets.is_symlink() or (purge and secrets.is_file()):
        secrets.unlink()
    elif purge and secrets.is_dir():
        shutil.rmtree(secrets)
    elif secrets.is_dir() and not holds_something(secrets):
        secrets.rmdir()


def _tell(name: str, places: list[Path], shared: list[Path]) -> None:
    """Say what has become of the service, and of the data that were in *places*."""
    click.echo(f"{name} is stopped, disabled and removed")
    left = [place for place in places if holds_something(place)]
    kept = [place for place in left if place not in shared]
    if gone := [place for place in places if place not in left]:
        click.echo(f"Removed the data in {_list(gone)}")
    if kept:
        click.echo(f"The data stay in {_list(kept)}")
        click.echo(f"to remove the data, too: pounce remove {name} --purge")
    if others := [place for place in left if place in shared]:
        click.echo(f"What other services use as well stays: {_list(others)}")


def _require(name: str) -> None:
    """Raise PounceError where nothing can be removed."""
    if not SERVICE_NAME.fullmatch(name):
        raise PounceError(f"{name!r} cannot be the name of a service")
    if not is_booted():
        raise PounceError(
            "systemd does not run this machine, so it has no service to remove",
            hint=f"all that a service can have here is its file: {CONFIG_DIRECTORY}/{name}.toml",
        )
    if os.geteuid() != 0:
        raise PounceError("only root may remove a service", hint="call it with sudo")


def _may_purge(places: list[Path], data: bool | None) -> bool:
    """Whether data may go; a person decides, if there is any and no flag has decided."""
    if data is not None or not places or not sys.stdin.isatty():
        return bool(data)
    click.echo(f"The service has data: {_list(places)}")
    return click.confirm("Remove them as well?")


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _list(places: list[Path]) -> str:
    return ", ".join(str(place) for place in places)
