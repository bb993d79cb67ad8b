"""Threads without a global lock, and a module that switches it on."""

import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.service import serving
from tests.tools import install

pytestmark = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="for a free-threaded interpreter"
)

# It does not say that it can do without the lock (Py_mod_gil), as modules of old do not.
OLD_MODULE = """
#include <Python.h>
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "old", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_old(void) { return PyModule_Create(&definition); }
"""
APP = """
{first}
import sys

async def app(scope, receive, send):
    body = b"locked" if sys._is_gil_enabled() else b"free"
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": body}})
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where an application is, and beside it the module `old`."""
    install({"gcc": "build-essential"})
    (tmp_path / "old.c").write_text(OLD_MODULE)
    include = f"-I{sysconfig.get_path('include')}"
    target = tmp_path / f"old{sysconfig.get_config_var('EXT_SUFFIX')}"
    command = ["gcc", "-shared", "-fPIC", include, str(tmp_path / "old.c"), "-o", str(target)]
    subprocess.run(command, check=True)
    return tmp_path


def test_threads_run_without_the_lock(directory: Path) -> None:
    (directory / "shop.py").write_text(APP.format(first=""))
    with (
        serving(directory, "--workers", "2", app="shop:app", apps=directory) as service,
        service.connect() as wire,
    ):
        assert wire.get("/").body == b"free"
    assert "workers take turns" not in service.log


def test_reading_a_certificate_leaves_the_lock_off(directory: Path) -> None:
    (directory / "shop.py").write_text(APP.format(first=""))
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1").write(directory, "site")
    flags = ("--workers", "2", "--certificate", str(certificate), "--key", str(key))
    shop = {"app": "shop:app", "apps": directory, "authority": authority.write(directory)}
    with serving(directory, *flags, **shop) as service, service.connect() as wire:
        assert wire.get("/").body == b"free"
    assert "workers take turns" not in service.log


def test_the_module_that_switches_it_on_is_named(directory: Path) -> None:
    (directory / "shop.py").write_text(APP.format(first="import old"))
    with serving(directory, "--workers", "2", app="shop:app", apps=directory) as service:
        with service.connect() as wire:
            assert wire.get("/").body == b"locked"
        service.expect(r"workers take turns from now on: The global .* to load module 'old'")
        service.expect(r'worker_mode = "process"')


def test_other_warnings_are_shown_as_ever(directory: Path) -> None:
    first = "import old, warnings; warnings.warn('an old friend', FutureWarning)"
    (directory / "shop.py").write_text(APP.format(first=first))
    with serving(directory, app="shop:app", apps=directory) as service:
        service.expect(r"shop.py:2: FutureWarning: an old friend")
