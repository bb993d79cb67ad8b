"""What systemd says of units: systemctl(1), by its own means to be read by programs."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from pounce.errors import PounceError

# Seconds. It answers at once, or is stuck.
_TIMEOUT = 10.0


def active_states(units: Sequence[str]) -> dict[str, str]:
    """The ActiveState of each of *units*; empty where there is no systemd to ask."""
    found = _show(("Id", "ActiveState"), units)
    return {each["Id"]: each["ActiveState"] for each in found if {"Id", "ActiveState"} <= set(each)}


def status_text(unit: str) -> str:
    """What *unit* has said last of its status; empty where it or systemd says nothing."""
    return "".join(each.get("StatusText", "") for each in _show(("StatusText",), [unit]))


def _show(properties: Sequence[str], units: Sequence[str]) -> list[dict[str, str]]:
    said = _output(["systemctl", "show", f"--property={','.join(properties)}", "--", *units])
    return [dict(_properties(block)) for block in said.split("\n\n")]


def _output(command: Sequence[str]) -> str:
    """What *command* prints; "" where there is no systemd to ask, or it does not answer."""
    try:
        return subprocess.run(  # noqa: S603 - the names are those of files in /etc/pounce
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def loaded(pattern: str) -> list[str]:
    """The units whose names match *pattern*, and that run, have a job or have failed."""
    command = ["systemctl", "list-units", "--plain", "--no-legend", "--full", "--", pattern]
    return [line.split()[0] for line in _output(command).splitlines()]


def is_booted() -> bool:
    """Whether systemd runs this machine: sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


def systemctl(*arguments: str) -> str:
    """Run systemctl and return its output; raises PounceError, with its complaint, if it fails."""
    command = ["systemctl", *arguments]
    done = subprocess.run(  # noqa: S603 - units are named by administrators
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PounceError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def main_process(service: str) -> int:
    """The number of the main process of *service*; 0 where it has none."""
    return int(systemctl("show", "--value", "--property=MainPID", service).strip() or 0)


def _properties(block: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (line.partition("=") for line in block.split("\n"))]
