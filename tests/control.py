"""A service with a control socket, and the commands that call it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from pounce.cli.commands import pounce as command
from tests.service import Service, serving


class Controlled:
    """A service with a control socket."""

    def __init__(self, service: Service, path: Path) -> None:
        self.service = service
        self.path = path

    def pounce(self, *words: str) -> str:
        """Run a command on it, in this process; what it prints."""
        name, *rest = words
        arguments = [name, "--control", str(self.path), *rest]
        finished = CliRunner().invoke(command, arguments, catch_exceptions=False)
        assert finished.exit_code == 0, finished.output
        return finished.stdout

    def status(self) -> Any:
        """The answer to Status."""
        return json.loads(self.pounce("status", "--json"))

    def workers(self) -> list[Any]:
        """Every worker of every generation."""
        return [each for number in self.status()["generations"] for each in number["workers"]]

    def reload(self, generation: int) -> None:
        """Reload; *generation* must be the outcome."""
        assert self.pounce("reload") == f"generation {generation} serves\n"


@contextmanager
def controlled(directory: Path, mode: str, *flags: str, **how: Any) -> Iterator[Controlled]:
    """As `serving`, with a control socket."""
    path = directory / "control"
    flags = ("--worker-mode", mode, "--control", str(path), *flags)
    with serving(directory, *flags, **how) as service:
        yield Controlled(service, path)
