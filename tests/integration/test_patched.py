"""Applications that gevent has patched are refused with the reason."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.modes import both_modes
from tests.service import APPS, PYTHON, launched, serving

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 14), reason="gevent comes later")

APP = """
{first}

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"served"]
"""
ONE = ("--workers", "1", "--startup-timeout", "10")


@both_modes
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("what", ["all", "socket", "thread"])
def test_a_patched_application_is_refused(tmp_path: Path, mode: str, loop: str, what: str) -> None:
    first = f"from gevent import monkey; monkey.patch_{what}()"
    (tmp_path / "shop.py").write_text(APP.format(first=first))
    flags = (*ONE, "--worker-mode", mode, "--loop", loop)
    with launched(tmp_path, *flags, app="shop:app", apps=tmp_path) as service:
        service.expect("did not become ready: gevent has replaced")
        assert service.wait() == 78


def test_a_patched_interpreter_is_refused() -> None:
    pounce = [str(PYTHON.with_name("pounce")), "serve", "load:app", "--directory", str(APPS)]
    done = subprocess.run(
        [str(PYTHON), "-m", "gevent.monkey", *pounce, "--bind", "127.0.0.1:0"],
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert b"CRITICAL gevent has replaced" in done.stderr
    assert done.returncode == 78


def test_one_that_only_imports_it_is_served(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP.format(first="from gevent import monkey"))
    with (
        serving(tmp_path, *ONE, app="shop:app", apps=tmp_path) as service,
        service.connect() as wire,
    ):
        assert wire.get("/").body == b"served"
