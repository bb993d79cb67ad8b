"""``pounce init``: begin a service's configuration."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import mkstemp

import click

from pounce.cli.arguments import configuration_flag, flag_of
from pounce.config.file import CONFIG_DIRECTORY, SERVICE_NAME, Given, Invocation
from pounce.config.text import template
from pounce.errors import ConfigError, PounceError
from pounce.systemd.units import is_booted

_KEYS = ("app", "directory", "virtualenv", "listen", "deploy_before")


@click.command(params=[configuration_flag(key) for key in _KEYS])
@click.argument("name")
@click.option("--force", is_flag=True, help="Replace a configuration that is there.")
def init(name: str, *, force: bool, **words: str | tuple[str, ...] | None) -> None:
    """Write the configuration of the service NAME and check it.

    The file, /etc/pounce/NAME.toml, has every option with its meaning; those given here are
    set. Beside it the directory /etc/pounce/NAME is made for secrets and certificates: only root
    may look into it, and LoadCredential= in the unit hands them out. Exits with 78 and writes
    nothing where options cannot be set, or where there is a file; with the exit code of pounce
    check where the file is written, but the service could not start.
    """
    text = template(_values(words))
    path = _path(name)
    _write(path, text, force=force)
    click.echo(f"Wrote {path}; it lists and explains every option.")
    _check(path)
    click.echo("next:")
    start = f"systemctl enable --now pounce@{name}" if is_booted() else f"pounce serve {name}"
    click.echo(f"  {start}")


def _values(words: dict[str, str | tuple[str, ...] | None]) -> dict[str, object]:
    given = {
        key: Given(flag_of(key), (word,) if isinstance(word, str) else word)
        for key, word in words.items()
        if word
    }
    settings = Invocation(None, given, Path.cwd()).load()
    if not settings.config.app:
        raise ConfigError("no application is named", hint="--app MODULE:ATTRIBUTE")
    return dict(settings.given_values)


def _path(name: str) -> Path:
    if not SERVICE_NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be the name of a service",
            hint="at most 24 letters, digits, hyphens and underscores; a letter or digit first",
        )
    return CONFIG_DIRECTORY / f"{name}.toml"


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        if force:
            _put(path.resolve(), text, os.replace)
        else:
            _put(path, text, os.link)
        # Not ConfigurationDirectory=, whose directory the service could write to.
        path.with_suffix("").mkdir(0o700, exist_ok=True)
    except FileExistsError:
        raise ConfigError(f"{path} is there already", hint="--force replaces it") from None
    except OSError as error:
        raise PounceError(f"{path} cannot be written: {error.strerror}") from None


def _put(path: Path, text: str, publish: Callable[[str, Path], None]) -> None:
    """Write all of *text*, and only then let *publish* give it the name *path*."""
    # No name that the generator of units would take for a service's.
    descriptor, temporary = mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            _make_alike(descriptor, path)
            os.fsync(descriptor)
        publish(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _make_alike(descriptor: int, path: Path) -> None:
    """Give a file the owner and the mode of the one at *path*, if there is one."""
    try:
        there = path.stat()
    except FileNotFoundError:
        # The service reads it as a user of its own, whatever the administrator's umask.
        os.fchmod(descriptor, 0o644)
    else:
        os.fchown(descriptor, there.st_uid, there.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(there.st_mode))


def _check(path: Path) -> None:
    """Run ``pounce check`` as a process: it may go on in the application's own interpreter.

    It starts where systemd starts services: what is found from here is not found from there.
    """
    command = [sys.executable, "-P", "-m", "pounce", "check", "--config", str(path)]
    outcome = subprocess.run(command, cwd="/", check=False)  # noqa: S603 - this very program
    if outcome.returncode:
        click.echo(f"correct this and try again: pounce check {path.stem}", err=True)
        sys.exit(outcome.returncode)
