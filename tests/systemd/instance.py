"""One instance of pounce@.service in a machine, as an administrator and a client see it."""

import json
import shutil
from collections.abc import Mapping
from typing import Any

import httpx

from tests.systemd.machine import APPLICATIONS, Machine, Result


class Instance:
    """The units pounce@NAME.service and pounce@NAME.socket."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = name
        self.service = f"pounce@{name}.service"
        self.socket = f"pounce@{name}.socket"
        self.path = f"/run/pounce/{name}.sock"

    def configure(self, app: str = "fastapi_app:app", **settings: Any) -> None:
        """Write the instance's configuration file."""
        self.configure_text(toml({"app": app, "directory": APPLICATIONS, **settings}))

    def configure_text(self, text: str) -> None:
        """Write the instance's configuration file as it is given."""
        self.machine.write(f"/etc/pounce/{self.name}.toml", text)

    def listen(self, *addresses: str) -> None:
        """Let the socket unit open *addresses* instead of its default one."""
        streams = "".join(f"ListenStream={address}\n" for address in addresses)
        self.amend(self.socket, f"[Socket]\nListenStream=\n{streams}")

    def amend(self, unit: str, text: str) -> None:
        """Give *unit* a drop-in, as `systemctl edit` does."""
        self.machine.write(f"/etc/systemd/system/{unit}.d/test.conf", text)
        self.machine.systemctl("daemon-reload")

    def remove(self) -> None:
        """Stop the instance and remove what belongs to it."""
        self.machine.systemctl("stop", self.socket, self.service)
        self.machine.systemctl("reset-failed", self.socket, self.service, check=False)
        for unit in (self.socket, self.service):
            drop_ins = self.machine.path(f"/etc/systemd/system/{unit}.d")
            shutil.rmtree(drop_ins, ignore_errors=True)
        self.machine.path(f"/etc/pounce/{self.name}.toml").unlink(missing_ok=True)
        self.machine.systemctl("daemon-reload")

    def start(self) -> None:
        """Start the service, and its sockets with it; returns when it serves."""
        self.machine.systemctl("start", self.service)

    def stop(self) -> None:
        """Stop the service; its sockets stay."""
        self.machine.systemctl("stop", self.service)

    def show(self, name: str) -> str:
        """A property of the service."""
        return self.machine.show(self.service, name)

    def workers(self) -> list[int]:
        """The pids of the processes the supervisor has started."""
        found = self.machine.run("pgrep", "-P", self.show("MainPID"), check=False)
        return [int(pid) for pid in found.stdout.split()]

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """The service's journal entries, oldest first."""
        return self.machine.journal(self.service, *matches)

    def curl(self, path: str, *options: str, check: bool = True) -> Result:
        """Send a request through the default socket with the machine's curl."""
        return self.machine.curl(f"unix:{self.path}:{path}", *options, check=check)

    def client(self) -> httpx.Client:
        """A client like a browser: keeps connections and cookies, follows redirects."""
        transport = httpx.HTTPTransport(uds=str(self.machine.path(self.path)))
        return httpx.Client(
            transport=transport, base_url=f"http://{self.name}", follow_redirects=True, timeout=30
        )


def toml(settings: Mapping[str, Any]) -> str:
    """Settings as TOML: values, then tables and arrays of tables."""
    values, tables = [], []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            tables.append(f"[{key}]\n{toml(value)}")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += [f"[[{key}]]\n{toml(entry)}" for entry in value]
        else:
            values.append(f"{key} = {json.dumps(value)}\n")  # JSON's scalars and lists are TOML's
    return "".join(values + tables)
