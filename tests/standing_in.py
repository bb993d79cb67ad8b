"""`pounce check` that judges here, also for root, as in the unit that stands in for a service."""

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pounce.systemd.standin import identity


def mark(output: int) -> dict[str, str]:
    """The variable that the check gives a stand-in whose standard output is *output*."""
    return {"POUNCE_JUDGES": identity(os.fstat(output))}


def run(
    command: Sequence[str], environment: Mapping[str, str] = os.environ, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run *command* to its end; its output is in a file, as a stand-in's is."""
    with tempfile.TemporaryFile("w+") as output:
        finished = subprocess.run(
            command,
            env={**environment, **mark(output.fileno())},
            cwd=cwd,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        output.seek(0)
        finished.stdout = output.read()
    return finished
