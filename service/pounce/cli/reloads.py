"""Reloading every instance of pounce@.service, by systemctl(1)."""

import subprocess
from collections.abc import Iterable
from subprocess import PIPE

from pounce.errors import PounceError

# "start" is a SUB state: such a unit is reloaded once it has started.
_RELOADABLE = "active,reloading,start"


def reload_all() -> list[str]:
    """Reload every instance that runs, and wait; returns their units' names.

    systemd does it, so that drop-ins have their say. Raises PounceError, with the reasons, if a
    reload fails, and where systemd does not run.
    """
    from pounce.systemd.units import is_booted

    if not is_booted():
        raise PounceError(
            "systemd does not run this machine, so there are no instances of pounce@.service",
            hint="reload each service by its control socket: pounce reload --control PATH",
        )
    units = _running()
    reloads = {unit: _start("reload", unit) for unit in units}
    said = {unit: reload.communicate()[1] for unit, reload in reloads.items()}
    failed = [unit for unit in units if reloads[unit].returncode]
    if failed:
        head = f"{len(failed)} of {len(units)} reloads failed; what served before still does"
        raise PounceError("\n".join([head, *_reasons(failed, said)]))
    return units


def _reasons(units: Iterable[str], said: dict[str, str]) -> Iterable[str]:
    for unit in units:
        status = _ask("show", "--value", "--property=StatusText", unit).strip()
        yield f"{unit}: {status if 'reload failed' in status else said[unit].strip()}"


def _running() -> list[str]:
    listed = _ask(
        *("list-units", "--plain", "--no-legend", "--full", f"--state={_RELOADABLE}"),
        "pounce@*.service",
    )
    return [line.split()[0] for line in listed.splitlines()]


def _ask(*arguments: str) -> str:
    systemctl = _start(*arguments)
    answer, error = systemctl.communicate()
    if systemctl.returncode:
        raise PounceError(f"systemctl {arguments[0]}: {error.strip()}")
    return answer


def _start(*arguments: str) -> subprocess.Popen[str]:
    try:
        # The PATH's: administrators who call pounce have systemctl there.
        command = ["systemctl", *arguments]
        return subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True)  # noqa: S603 - see above
    except FileNotFoundError:
        raise PounceError(
            "there is no systemctl: systemd does not run this machine's services",
            hint="name a service's control socket: --control PATH",
        ) from None
