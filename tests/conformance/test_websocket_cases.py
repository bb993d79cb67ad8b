"""The Autobahn project's WebSocket cases, by a client that implements them anew."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.service import serving

pytest.importorskip("kosoku")

# Those about compression send 1,000 messages each, at 18 sizes; the smallest will do here.
COMPRESSION = [f"12.{kind}.1" for kind in range(1, 6)] + [f"13.{kind}.1" for kind in range(1, 8)]


@pytest.mark.parametrize(
    "selection",
    [["-x", "12.*", "-x", "13.*"], [word for case in COMPRESSION for word in ("-i", case)]],
    ids=["all but compression", "compression"],
)
def test_every_case_passes(selection: list[str], tmp_path: Path) -> None:
    with serving(tmp_path, app="websocket:app") as service:
        suite = Path(sys.executable).parent / "kosoku"
        report = tmp_path / "report"
        command = [str(suite), *selection, "-p", "4", "-o", str(report), str(service.address)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=55)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "ERROR" not in service.log
