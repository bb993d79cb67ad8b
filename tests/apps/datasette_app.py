"""datasette over a SQLite database of its own making.

The database is kept in the service's state directory, or in a temporary one without systemd.
"""

import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from datasette.app import Datasette

PLANETS = [("Mercury", 0.39), ("Venus", 0.72), ("Earth", 1.0), ("Mars", 1.52)]


def make_database(directory: Path) -> Path:
    """Make the database; several workers may do so at once, and each finds a whole one."""
    path = directory / "planets.db"
    with tempfile.NamedTemporaryFile(dir=directory, delete=False) as draft:
        connection = sqlite3.connect(draft.name)
    with connection:
        connection.execute("CREATE TABLE planet (name TEXT PRIMARY KEY, distance REAL)")
        connection.executemany("INSERT INTO planet VALUES (?, ?)", PLANETS)
    connection.close()
    return Path(draft.name).replace(path)


def make_app() -> Any:
    """The ASGI application."""
    directory = Path(os.environ.get("STATE_DIRECTORY") or tempfile.mkdtemp())
    return Datasette([str(make_database(directory))]).app()
