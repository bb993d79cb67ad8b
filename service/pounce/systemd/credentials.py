"""Secrets passed by the service manager: LoadCredential= of systemd.exec(5)."""

import os
from dataclasses import replace
from pathlib import Path

from pounce.config.kinds import CREDENTIAL
from pounce.config.service import ServerConfig
from pounce.errors import ConfigError


def credentials_directory() -> Path | None:
    """Where systemd put this service's credentials; None if the unit loads none."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory) if directory else None


def resolve_credential(value: str) -> str:
    """The path that a configured ``credential:NAME`` stands for; any other value as it is.

    Raises ConfigError if there is no such credential.
    """
    if not value.startswith(CREDENTIAL):
        return value
    name = value.removeprefix(CREDENTIAL)
    directory = credentials_directory()
    if not name or "/" in name or name in {".", ".."}:
        raise ConfigError(f"{value!r} is no credential's name", hint="credential:NAME, no slash")
    if directory is None or not (directory / name).is_file():
        raise ConfigError(
            f"the service has no credential {name!r}",
            hint=f"add LoadCredential={name}:/path/of/the/secret to the unit, "
            "then systemctl daemon-reload",
        )
    return str(directory / name)


def with_credentials(config: ServerConfig) -> ServerConfig:
    """Put in the paths of credentials, where they are named; raises ConfigError."""
    environment = {name: _variable(name, value) for name, value in config.environment.items()}
    listen = tuple(
        replace(
            entry,
            certificate=tuple(map(resolve_credential, entry.certificate)),
            key=tuple(map(resolve_credential, entry.key)),
            client_ca=resolve_credential(entry.client_ca),
        )
        for entry in config.listen
    )
    return replace(config, environment=environment, listen=listen)


def _variable(name: str, value: str) -> str:
    """The value of an environment variable; the error has nothing of it, which may be a secret."""
    try:
        return resolve_credential(value)
    except ConfigError:
        raise ConfigError(
            f"environment.{name}: the service has no credential of the name that is there",
            hint=f"a value that begins with {CREDENTIAL!r} names one: add LoadCredential=NAME:"
            "/path/of/the/secret to the unit, then systemctl daemon-reload",
        ) from None
