"""What systemd keeps for one instance of pounce@.service, and how it is removed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pounce.errors import PounceError
from pounce.systemd.units import systemctl

# The directories that systemd makes for a service, systemd.exec(5): their kinds in the words of
# `systemctl clean`, the unit's properties, and where they are.
_DIRECTORIES = {
    "state": ("StateDirectory", "/var/lib"),
    "cache": ("CacheDirectory", "/var/cache"),
    "logs": ("LogsDirectory", "/var/log"),
}
_UNIT_PATHS = [
    f"/{root}/systemd/{directory}"
    for root in ("etc", "run")
    for directory in ("system", "system.control")
]
"""Where administrators' units, links and drop-ins are: systemd.unit(5)."""


class Removal:
    """The end of one instance: of its service and its socket."""

    def __init__(self, name: str) -> None:
        self._service = f"pounce@{name}.service"
        self._default_address = Path(f"/run/pounce/{name}.sock")
        # The sockets first: a request to one that still listens would start the service again.
        self._units = (f"pounce@{name}.socket", self._service)

    def directories(self) -> list[Path]:
        """Where the service keeps its state, cache and logs, as its unit says."""
        properties = (f"--property={name}" for name, _ in _DIRECTORIES.values())
        shown = systemctl("show", *properties, self._service)
        named = dict(line.split("=", 1) for line in shown.splitlines())
        return [
            Path(base, directory)
            for name, base in _DIRECTORIES.values()
            for directory in named.get(name, "").split()
        ]

    def is_known(self) -> bool:
        """Whether it runs, or an administrator has enabled, masked or amended it."""
        states = systemctl("show", "--value", "--property=ActiveState", *self._units).split()
        return any(state != "inactive" for state in states) or any(self._traces())

    def _traces(self) -> Iterator[Path]:
        for place in _UNIT_PATHS:
            for unit in self._units:
                yield from Path(place).glob(f"*/{unit}")
                yield from Path(place).glob(f"{unit}*")

    def stop(self) -> None:
        """Stop it, and let requests in flight be finished."""
        systemctl("stop", *self._units)
        # `clean` refuses a unit that has failed.
        for unit in self._units:
            with contextlib.suppress(PounceError):  # "not loaded"
                systemctl("reset-failed", unit)

    def clean(self, *, data: bool) -> None:
        """Remove its runtime directory and, if asked to, its *data*; it must have stopped."""
        kinds = ["runtime", *(_DIRECTORIES if data else ())]
        systemctl("clean", *(f"--what={kind}" for kind in kinds), self._service)
        # systemd forgets RemoveOnStop= of a socket that is masked.
        self._default_address.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove links, drop-ins and masks, as `systemctl enable`, `edit` and `mask` make them."""
        for place in _UNIT_PATHS:
            for unit in self._units:
                # `disable` leaves the links of a masked unit; `revert` leaves a unit's file where
                # no vendor has one of the same name.
                Path(place, unit).unlink(missing_ok=True)
        systemctl("disable", *self._units)
        systemctl("revert", *self._units)
        systemctl("daemon-reload")


def holds_something(directory: Path) -> bool:
    """Whether it is a directory that is not empty."""
    return directory.is_dir() and any(directory.iterdir())
