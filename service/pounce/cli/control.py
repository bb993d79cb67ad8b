"""Calling a running service on its control socket."""

import json
import socket
from pathlib import Path
from typing import Any

import click

from pounce.cli.completion import complete_name
from pounce.errors import PounceError
from pounce.varlink.names import INTERFACE, SOCKET

RUNTIME_DIRECTORY = Path("/run/pounce")

service = click.argument("name", required=False, metavar="[NAME]", shell_complete=complete_name)
control = click.option(
    "control_socket",
    "--control",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help=f"The control socket, if it is not {RUNTIME_DIRECTORY}/NAME/{SOCKET}.",
)


class NoAnswer(PounceError):
    """Nobody answers at a control socket."""


def call(
    name: str | None, path: Path | None, method: str, parameters: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Call *method* of the service *name*, or of the one at *path*, and wait for the answer.

    Raises PounceError when the service answers with an error, and when it is not there: with what
    systemd knows of it.
    """
    if (name is None) == (path is None):
        raise click.UsageError("Say which service: its NAME, or --control PATH.")
    try:
        return call_at(path or socket_of(str(name)), method, parameters)
    except NoAnswer as error:
        hint = "\n".join(filter(None, (error.hint, _last_words(name))))
        raise PounceError(error.message, hint=hint or _where_to_look(name)) from None


def _where_to_look(name: str | None) -> str:
    if name is None:
        return "is it running?"
    from pounce.systemd.units import is_booted

    if is_booted():
        return f"is it running? systemctl status pounce@{name}"
    return (
        "systemd does not run this machine; a service that it did not start is found by its "
        "control socket: --control PATH"
    )


def _last_words(name: str | None) -> str:
    if name is None:
        return ""
    from pounce.systemd.units import status_text

    last = status_text(f"pounce@{name}.service")
    return last and f"what it told systemd last: {last}"


def socket_of(name: str) -> Path:
    """The control socket of the service *name*."""
    return RUNTIME_DIRECTORY / name / SOCKET


def call_at(
    path: Path,
    method: str,
    parameters: dict[str, Any] | None = None,
    *,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Call *method* at the socket *path*, and wait for the answer.

    A reload takes as long as the application takes to start, and the service answers or hangs up
    in any case, so there is no *timeout* by default; it is in seconds, for each step.

    Raises NoAnswer, and PounceError when something else answers, or an error.
    """
    message = {"method": f"{INTERFACE}.{method}", "parameters": parameters or {}}
    answer = _exchange(path, message, timeout)
    if "error" in answer:
        said = answer.get("parameters", {})
        raise PounceError(str(said.get("reason") or f"{answer['error']} {said}"))
    found: dict[str, Any] = answer.get("parameters", {})
    return found


def _exchange(path: Path, message: dict[str, Any], timeout: float | None) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(str(path))
            sock.sendall(json.dumps(message).encode() + b"\0")
            answer = _receive(sock)
        except PermissionError:
            raise NoAnswer(
                f"{path} is for root and the service's user only", hint="call it with sudo"
            ) from None
        except OSError as error:
            raise NoAnswer(f"no service answers at {path}: {error.strerror or error}") from None
        except ValueError:
            raise PounceError(f"what answers at {path} is not pounce's control socket") from None
    if answer is None:
        raise NoAnswer(f"the service at {path} ended the connection without an answer")
    return answer


def _receive(sock: socket.socket) -> dict[str, Any] | None:
    received = b""
    while not received.endswith(b"\0"):
        data = sock.recv(65536)
        if not data:
            return None
        received += data
    answer: dict[str, Any] = json.loads(received[:-1])
    return answer
