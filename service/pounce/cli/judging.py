"""Who judges an application for root: its service's stand-in, or an ordinary user. Never root.

An import runs the application's code, and finds what root may read and the service may not.
"""

import os
import pwd
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

import pounce
from pounce.config.file import CONFIG_DIRECTORY, Invocation
from pounce.errors import EX_SOFTWARE, ConfigError, PounceError
from pounce.systemd.obstacles import obstacle
from pounce.systemd.standin import StandIn, ending_in_order, identity, stand_in

_MARK = "POUNCE_JUDGES"
"""The variable by which a service's stand-in knows itself; it has the identity of its output."""
_USER = "nobody"
# What systemd allows in the name of an instance (systemd.unit(5)).
_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+")
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


def write_no_bytecode() -> None:
    """Leave the application as it is, in this process and in the interpreter that it may become."""
    sys.dont_write_bytecode = True
    os.environ[_NO_BYTECODE] = "1"


def is_roots() -> bool:
    """Whether this process is root's, and another one has to judge; raises ConfigError."""
    if os.geteuid() != 0 or is_service():
        return False
    if _MARK in os.environ:
        # Nor may it have another one judge: that would be in the same place, without end.
        raise ConfigError(
            f"root imports no application, and {_MARK} is set, although pounce has not set it "
            "for this process",
            hint=f"unset {_MARK}, which is for pounce alone; if {_MARK} is not set where you are, "
            "let the program in ExecStart= keep its standard output",
        )
    return True


def is_service() -> bool:
    """Whether this process stands in for the service, and has what the service would have.

    A variable alone, which may come from anywhere, would have root import the application.
    """
    try:
        return os.environ.get(_MARK) == identity(os.fstat(1))
    except OSError:  # it is closed
        return False


def have_judged(invocation: Invocation) -> int:
    """Run ``pounce check`` as the service would be run; the exit status.

    Raises ConfigError where that cannot even be tried.
    """
    arguments = ["check", *invocation.arguments()]
    name = instance_of(invocation)
    unit = stand_in(f"pounce@{name}.service") if name else None
    return _by_stand_in(unit, arguments) if unit else _by_ordinary_user(arguments)


def instance_of(invocation: Invocation) -> str:
    """NAME, if the file is that of pounce@NAME.service; "" otherwise."""
    path = invocation.path
    if path is None or path.parent.resolve() != CONFIG_DIRECTORY.resolve():
        return ""
    return path.stem if _UNIT_NAME.fullmatch(path.stem) else ""


def _by_stand_in(unit: StandIn, arguments: Sequence[str]) -> int:
    own = [sys.executable, "-P", "-m", "pounce"]
    command = [unit.program] if unit.program else own
    if unit.is_outdated:
        click.echo(
            f"warning: unit files of {unit.service} are newer than what systemd has loaded, so "
            "this check may miss them; run systemctl daemon-reload, then check again",
            err=True,
        )
    outcome = unit.run([*command, *arguments], _MARK)
    click.echo(f"user: {unit.user}, in the sandbox of {unit.service}")
    if unit.placeholders:
        settings = ", ".join(f"{name}=" for name in unit.placeholders)
        click.echo(
            f"note: the next start of {unit.service} makes or changes directories ({settings}); "
            "this check had empty ones in their place"
        )
    click.echo(outcome.stdout, nl=False)
    click.echo(outcome.stderr, nl=False, err=True)
    if not outcome.failure:
        return outcome.status
    raise ConfigError(
        f"{unit.service} cannot be run as its unit is now ({outcome.failure})", hint=outcome.said
    )


class _Account(NamedTuple):
    """An ordinary user, by number."""

    uid: int
    gid: int


def _by_ordinary_user(arguments: Sequence[str]) -> int:
    account = _account()
    kept = _as_user(account, _obstacle_to_pounce)
    if kept:
        raise _cannot_judge(f"the user {_USER} cannot run this pounce: {kept}")
    click.echo(f"user: {_USER}, since root imports no application")
    marks = {_NO_BYTECODE: "1", "HOME": "/", "USER": _USER, "LOGNAME": _USER}
    try:
        with ending_in_order():
            judge = subprocess.Popen(  # noqa: S603 - this very program
                [sys.executable, "-P", "-m", "pounce", *arguments],
                env={**_harmless(), **marks},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # root's terminal is not this user's
                user=account.uid,
                group=account.gid,
                extra_groups=[],
            )
            status = _outcome(judge)
    except OSError as error:  # root without CAP_SETUID, or with no other user (user_namespaces(7))
        raise _cannot_judge(f"cannot become the user {_USER}: {error.strerror}") from None
    return status if status >= 0 else EX_SOFTWARE


def _outcome(judge: "subprocess.Popen[bytes]") -> int:
    """Wait for the end of *judge*; where this process is to end first, it goes, too."""
    try:
        return judge.wait()
    except BaseException:
        # It is not reaped yet, so that the group cannot be another one's.
        os.killpg(judge.pid, signal.SIGKILL)
        judge.wait()
        raise


def _harmless() -> dict[str, str]:
    """What of root's environment the application may see; secrets are in the rest."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "LANG", "LANGUAGE", "TZ") or name.startswith("LC_")
    }


def _cannot_judge(reason: str) -> ConfigError:
    return ConfigError(
        f"root imports no application, and {reason}",
        hint="run `pounce check` as the user that serves the application",
    )


def _account() -> _Account:
    try:
        found = pwd.getpwnam(_USER)
    except KeyError:
        return _Account(65534, 65534)  # the kernel's overflow ids (user_namespaces(7))
    return _Account(found.pw_uid, found.pw_gid)


def _obstacle_to_pounce() -> str:
    return obstacle(sys.executable) or obstacle(pounce.__file__)


def _as_user(account: _Account, ask: Callable[[], str]) -> str:
    """What *ask* says in a child process of *account*; that process imports nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
            os.write(writer, ask().encode(errors="surrogateescape"))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        text = answer.read().decode(errors="surrogateescape")
    os.waitpid(child, 0)
    return text


def explained(error: PounceError, invocation: Invocation) -> PounceError:
    """*error*, and what keeps this user from a file that it may be about."""
    found = next(filter(None, map(obstacle, _suspects(error, invocation))), "")
    error.hint = "\n".join(filter(None, (error.hint, found)))
    return error


def _suspects(error: BaseException, invocation: Invocation) -> Iterator[str]:
    """The paths that an error can be about, those that lead to others first."""
    if invocation.path:
        yield str(invocation.path)
    try:
        config = invocation.load().config
    except PounceError:
        return
    if config.virtualenv:
        yield str(Path(config.virtualenv, "bin/python"))
    directory = Path(config.directory or ".").absolute()
    yield str(directory)
    names = config.app.partition(":")[0].split(".")
    for count in range(1, len(names) + 1):
        yield str(directory.joinpath(*names[:count]))
    yield str(directory.joinpath(*names).with_suffix(".py"))
    cause = error.__cause__
    if isinstance(cause, OSError) and isinstance(cause.filename, str):
        yield os.path.join(directory, cause.filename)  # noqa: PTH118 - it may be absolute
