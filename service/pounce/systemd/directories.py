"""The directories that systemd made for this service (systemd.exec(5))."""

import os
from pathlib import Path


def runtime_directory() -> Path | None:
    """The first RuntimeDirectory= of the unit; None when there is none."""
    paths = os.environ.get("RUNTIME_DIRECTORY", "")
    return Path(paths.split(":")[0]) if paths else None
