"""The demonstration application in a real, headless Chromium."""

import subprocess
from pathlib import Path

from tests.service import serving

# The page is printed when so much of its own time has passed; while it waits for the network,
# that stands still.
_BUDGET = "--virtual-time-budget=3000"


def dump(url: str, profile: Path, *more: str) -> str:
    """The page at *url* as HTML, after its scripts have run; *more* are flags."""
    flags = ["--headless", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
    flags += more
    # Its sandbox refuses to run as root, which is who runs tests that install packages.
    command = ["chromium", *flags, "--no-sandbox", _BUDGET, "--dump-dom", url]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=50).stdout


def test_a_websocket_echoes(tmp_path: Path) -> None:
    with serving(tmp_path, app="demo:app") as service:
        page = dump(f"http://{service.address}/echo", tmp_path / "profile")
    assert '<div id="log">open\necho: Grüße\n</div>' in page
