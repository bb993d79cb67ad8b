"""Deploys: what of the new is seen, and what of the old stays."""

import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import pounce
from tests.service import serving

APPLICATION = """\
import dependency

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    head = [(b"x-dependency", dependency.VERSION)]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body"})
"""


@pytest.fixture
def current(tmp_path: Path) -> Path:
    """A link to the first of two environments, which differ in an installed package."""
    packages = [sysconfig.get_path("purelib"), str(Path(pounce.__file__).parents[1])]
    for number in ("1", "2"):
        environment = tmp_path / f"environment-{number}"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
        site = next(environment.glob("lib/python*/site-packages"))
        (site / "packages.pth").write_text("\n".join(packages))
        (site / "dependency.py").write_text(f"VERSION = b'{number}'\n")
    link = tmp_path / "current"
    link.symlink_to("environment-1")
    return link


def test_upgraded_packages_are_seen_after_a_reload(tmp_path: Path, current: Path) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    flags = ("--virtualenv", str(current), "--worker-mode", "process")
    with (
        serving(tmp_path, *flags, app="shop:app", apps=tmp_path) as service,
        service.connect() as wire,
    ):
        assert wire.get("/").headers[b"x-dependency"] == b"1"
        current.unlink()
        current.symlink_to("environment-2")
        service.reload(2)
        assert wire.get("/").headers[b"x-dependency"] == b"2"


MORTAL = """\
import sys, weakref

class Shop:
    async def __call__(self, scope, receive, send):
        raise RuntimeError("no lifespan")

app = Shop()
weakref.finalize(app, print, "the old code has left", file=sys.stderr, flush=True)
"""


def test_old_code_leaves_the_memory_of_threads(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MORTAL)
    flags = ("--worker-mode", "thread")
    with serving(tmp_path, *flags, app="shop:app", apps=tmp_path) as service:
        service.send_signal(signal.SIGHUP)
        service.expect("the old code has left")
