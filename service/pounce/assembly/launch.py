"""From an invocation to a configuration that this very interpreter can serve."""

import os
import stat
import subprocess
import sys
from pathlib import Path

from pounce.config.file import Invocation, Settings
from pounce.config.service import ServerConfig
from pounce.errors import ConfigError

# -P keeps the current directory, which `-m` would put first, out of the import path:
# otherwise a file there could stand in for one of pounce's own modules.
_PYTHON_OPTIONS = ("-P",)
_PROBE = "import sys, pounce; print(sys.prefix)"
_PROBE_TIMEOUT = 30.0  # seconds; importing pounce takes a fraction of one

# As venv writes it into pyvenv.cfg, without what a pre-release has behind it.
_VERSION = ".".join(map(str, sys.version_info[:3]))


def prepare(invocation: Invocation, arguments: list[str]) -> Settings:
    """Load *invocation* for serving; raises ConfigError.

    Where the configured virtual environment is not the running interpreter's, this does not
    return: the process goes on as that environment's ``python -m pounce ARGUMENTS``, under
    the same process id, which systemd's MAINPID and LISTEN_PID refer to.
    """
    settings = _load(invocation)
    python = foreign_interpreter(settings.config)
    if python:
        command = [str(python), *_PYTHON_OPTIONS, "-m", "pounce", *arguments]
        os.execv(python, command)  # noqa: S606 - no shell is wanted
    return settings


def reconfigure(invocation: Invocation) -> ServerConfig:
    """Load *invocation* again, for a reload; raises ConfigError."""
    config = _load(invocation).config
    if config.virtualenv:
        _check_still_ours(Path(config.virtualenv))
    return config


def _check_still_ours(directory: Path) -> None:
    """Raise ConfigError unless this very interpreter can go on with the environment there.

    A symbolic link that was moved to another environment of the same Python is a deploy: the
    import path leads through the link, so the next processes find what is there now.
    """
    running = f"{sys.prefix} (Python {_VERSION})"
    hint = "another interpreter needs a restart; a reload cannot change it"
    if not _same_path(directory, Path(sys.prefix)):
        raise ConfigError(f"virtualenv is now {directory}, but {running} is running", hint=hint)
    version = _environment_version(directory)
    if version != _VERSION:
        raise ConfigError(
            f"virtualenv: {directory} is now of Python {version}, but {running} is running",
            hint=hint,
        )


def _same_path(one: Path, other: Path) -> bool:
    return one == other or (one.exists() and one.samefile(other))


def _environment_version(directory: Path) -> str:
    """The version in a virtual environment's pyvenv.cfg (PEP 405); raises ConfigError."""
    try:
        lines = (directory / "pyvenv.cfg").read_text().splitlines()
    except OSError as error:
        raise ConfigError(
            f"virtualenv: {directory} is not a virtual environment: "
            f"pyvenv.cfg cannot be read: {error.strerror}"
        ) from None
    found = dict(line.replace(" ", "").split("=", 1) for line in lines if "=" in line)
    # venv writes the first name, virtualenv the second, with more than the version in it.
    version = found.get("version") or found.get("version_info", "")
    return ".".join(version.split(".")[:3])


def _load(invocation: Invocation) -> Settings:
    settings = invocation.load()
    if not settings.config.app:
        raise ConfigError(
            "no application is configured",
            hint="name one as module:attribute, on the command line or by `app` in the file",
        )
    return settings


def foreign_interpreter(config: ServerConfig) -> Path | None:
    """Return the interpreter to serve with, or None where it is the running one.

    Raises ConfigError where the configured virtual environment cannot run pounce.
    """
    if not config.virtualenv:
        return None
    directory = Path(config.virtualenv)
    _check_directory(directory)
    # Not by name: a deploy may reach the same environment through a moved symbolic link.
    if directory.samefile(sys.prefix):
        return None
    python = directory / "bin/python"
    prefix = _probe(python)
    if not directory.samefile(prefix):
        raise ConfigError(
            f"virtualenv: {directory} is not a virtual environment: "
            f"its interpreter belongs to {prefix}"
        )
    return python


def _check_directory(path: Path) -> None:
    """Raise ConfigError if *path* is no directory, or cannot be reached."""
    try:
        is_one = stat.S_ISDIR(path.stat().st_mode)
    except PermissionError as error:
        raise ConfigError(f"virtualenv: {path} cannot be reached: {error.strerror}") from error
    except OSError:
        is_one = False
    if not is_one:
        raise ConfigError(f"virtualenv: {path} is not a directory")


def _probe(python: Path) -> str:
    """Have *python* import pounce and name its prefix; raises ConfigError."""
    try:
        outcome = subprocess.run(  # noqa: S603 - the administrator names the interpreter
            [python, *_PYTHON_OPTIONS, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"virtualenv: {python} cannot be run: {reason}") from None
    if outcome.returncode:
        reason = outcome.stderr.strip().rpartition("\n")[2]
        raise ConfigError(
            f"virtualenv: {python} cannot import pounce: {reason}",
            hint=f"this pounce runs in {sys.prefix}; install it in the application's "
            f"environment too: {python} -m pip install pounce",
        )
    return outcome.stdout.strip()
