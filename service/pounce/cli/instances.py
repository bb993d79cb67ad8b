"""All services of this machine, for ``pounce status`` without a name."""

from typing import Any, NamedTuple

from pounce.cli import control
from pounce.config.file import configured
from pounce.errors import PounceError
from pounce.systemd.units import active_states, loaded
from pounce.varlink.names import SOCKET

# Seconds that one service may take to answer: the others are not to wait for one that is stuck.
_PATIENCE = 2.0


class Instance(NamedTuple):
    """One service: what systemd says of its units ("" where nothing), and its own answer."""

    name: str
    unit: str
    socket: str
    answer: dict[str, Any] | None

    @property
    def state(self) -> str:
        """What it does, in a word."""
        return str(self.answer["phase"]) if self.answer else self.unit or "no answer"

    @property
    def details(self) -> dict[str, Any]:
        """What it consists of, for programs."""
        return {"unit": self.unit, "socket": self.socket, "status": self.answer}


def instances() -> list[Instance]:
    """Every service that is configured, answers or has a unit that is up or failed, by name."""
    running = {path.parent.name for path in control.RUNTIME_DIRECTORY.glob(f"*/{SOCKET}")}
    names = sorted(running.union(configured(), _of_units()))
    units = [f"pounce@{name}.{kind}" for name in names for kind in ("service", "socket")]
    states = active_states(units) if units else {}
    return [
        Instance(
            name,
            states.get(f"pounce@{name}.service", ""),
            states.get(f"pounce@{name}.socket", ""),
            _ask(name),
        )
        for name in names
    ]


def _of_units() -> set[str]:
    """The names of instances whose units systemd has loaded, though their files may be gone."""
    return {unit.removeprefix("pounce@").rpartition(".")[0] for unit in loaded("pounce@*")}


def _ask(name: str) -> dict[str, Any] | None:
    try:
        return control.call_at(control.socket_of(name), "Status", timeout=_PATIENCE)
    except PounceError:
        return None
