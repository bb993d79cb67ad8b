"""What systemd keeps for one instance of pounce@.service, and how it is removed."""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

from pounce.config.file import SERVICE_NAME, configured
from pounce.errors import PounceError
from pounce.systemd.socket_files import listened_at, remove_stale
from pounce.systemd.units import active_states, main_process, systemctl

# The directories that systemd makes for a service, systemd.exec(5): the unit's properties, with
# the words of `systemctl clean` for them, and where they are.
_DIRECTORIES = {
    "RuntimeDirectory": ("runtime", "/run"),
    "StateDirectory": ("state", "/var/lib"),
    "CacheDirectory": ("cache", "/var/cache"),
    "LogsDirectory": ("logs", "/var/log"),
}
_UNIT_PATHS = [
    f"/{root}/systemd/{directory}"
    for root in ("etc", "run")
    for directory in ("system", "system.control")
]
"""Where administrators' units, links and drop-ins are: systemd.unit(5)."""


class Removal:
    """The end of one instance: of its service and its socket.

    An administrator's changes can make any step fail. The others are taken all the same;
    *failures* has what they have met.
    """

    def __init__(self, name: str) -> None:
        self.failures: list[str] = []
        self._service = f"pounce@{name}.service"
        others = (each for each in configured() if each != name and SERVICE_NAME.fullmatch(each))
        self._others = [f"pounce@{other}.service" for other in others]
        self._default_address = Path(f"/run/pounce/{name}.sock")
        self._addresses: list[Path] = []
        # The sockets first: a request to one that still listens would start the service again.
        self._units = (f"pounce@{name}.socket", self._service)

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Go on after a failure in this context."""
        try:
            yield
        except (OSError, PounceError) as failure:
            self.failures.append(str(failure))

    def directories(self) -> list[Path]:
        """Where the service keeps its state, cache and logs, as its unit says."""
        found = _directories(self._service)
        return [path for kind, paths in found.items() if kind != "runtime" for path in paths]

    def shared(self) -> list[Path]:
        """Those of its directories that another configured service has as well."""
        others = [path for paths in _directories(*self._others).values() for path in paths]
        return [
            path
            for path in self.directories()
            if any(path.is_relative_to(other) or other.is_relative_to(path) for other in others)
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
        """Stop it, and let requests in flight be finished; raises PounceError if it goes on."""
        self._addresses = listened_at(main_process(self._service))
        for unit in self._units:
            # One that is not valid and does not run is "not loaded".
            with contextlib.suppress(PounceError):
                systemctl("stop", unit)
            # `clean` refuses a unit that has failed.
            with contextlib.suppress(PounceError):
                systemctl("reset-failed", unit)
        states = active_states(self._units)
        if not all(states.get(unit) in ("inactive", "failed") for unit in self._units):
            raise PounceError(
                f"{' and '.join(self._units)} could not be stopped, so nothing is removed",
                hint=f"systemctl status {' '.join(self._units)}",
            )

    def clean(self, *, data: bool) -> None:
        """Remove its runtime directory and, if asked to, its *data*; it must have stopped."""
        shared = set(self.shared())
        for kind, paths in _directories(self._service).items():
            # It fails where there is nothing of the kind.
            if paths and (kind == "runtime" or (data and shared.isdisjoint(paths))):
                with self.step():
                    systemctl("clean", f"--what={kind}", self._service)
        for path in set(self.directories()) - shared:
            _remove_empty(path)
        # systemd forgets RemoveOnStop= of a socket that is masked, and an address that has been
        # moved.
        self._default_address.unlink(missing_ok=True)
        for path in self._addresses:
            with self.step():
                remove_stale(path)

    def forget(self) -> None:
        """Remove links, drop-ins and masks, as `systemctl enable`, `edit` and `mask` make them."""
        for place in _UNIT_PATHS:
            for unit in self._units:
                # `disable` leaves the links of a masked unit; `revert` leaves a unit's file where
                # no vendor has one of the same name.
                with self.step():
                    Path(place, unit).unlink(missing_ok=True)
        for command in (["disable", *self._units], ["revert", *self._units], ["daemon-reload"]):
            with self.step():
                systemctl(*command)


def _directories(*services: str) -> dict[str, list[Path]]:
    """The directories of *services*, by their kind."""
    found: dict[str, list[Path]] = {kind: [] for kind, _ in _DIRECTORIES.values()}
    if services:  # without any it would show the manager
        shown = systemctl("show", f"--property={','.join(_DIRECTORIES)}", "--", *services)
        for line in filter(None, shown.splitlines()):
            name, _, value = line.partition("=")
            kind, base = _DIRECTORIES[name]
            # systemctl quotes a name with a blank in it.
            found[kind] += [Path(base, directory) for directory in shlex.split(value)]
    return found


def _remove_empty(directory: Path) -> None:
    """Remove *directory* if nothing is in it: rmdir(2) never takes data."""
    with contextlib.suppress(OSError):
        # With DynamicUser= it is a link to one in a directory named "private", systemd.exec(5).
        directory.resolve().rmdir()
        directory.unlink()


def holds_something(path: Path) -> bool:
    """Whether it is a file, or a directory that is not empty."""
    return any(path.iterdir()) if path.is_dir() else path.exists()
