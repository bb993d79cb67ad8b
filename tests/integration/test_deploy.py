"""Deploys: what of the new is seen, and what of the old stays."""

import json
import os
import signal
import ssl
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import pounce
from tests.certificates import Authority
from tests.modes import both_modes
from tests.service import Service, comes_true, serving

an_interpreter = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="waits for a generation's own interpreter: others share this one, or change it",
)
in_threads = pytest.mark.parametrize(
    "mode", ["process", pytest.param("thread", marks=an_interpreter)]
)

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


BROKEN = "raise ValueError('a broken deploy')\n"
HELLO = """\
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""


def fail_to_reload(service: Service) -> None:
    service.send_signal(signal.SIGHUP)
    service.expect("reload failed, the old code still serves")


def body(service: Service, target: str = "/") -> str:
    with service.connect() as wire:
        return wire.get(target).body.decode()


def point(link: Path, target: str) -> None:
    moving = link.with_name("moving")
    moving.symlink_to(target)
    moving.rename(link)


def replace_worker(service: Service) -> None:
    victim = service.workers["0"]
    os.kill(victim, signal.SIGKILL)
    service.expect_worker("0", victim)


@both_modes
def test_a_failed_reload_keeps_the_certificate(tmp_path: Path, mode: str) -> None:
    def served() -> str:
        return ssl.get_server_certificate((service.address.host, service.address.port))

    authority = Authority()
    certificate, key = authority.issue("127.0.0.1").write(tmp_path, "server")
    (tmp_path / "shop.py").write_text(HELLO)
    flags = ("--certificate", str(certificate), "--key", str(key), "--worker-mode", mode)
    trust = authority.write(tmp_path)
    with serving(tmp_path, *flags, app="shop:app", apps=tmp_path, authority=trust) as service:
        before = served()
        authority.issue("127.0.0.1").write(tmp_path, "server")
        (tmp_path / "shop.py").write_text(BROKEN)
        fail_to_reload(service)
        if mode == "process":
            (tmp_path / "shop.py").write_text(HELLO)
            replace_worker(service)
        assert served() == before


def test_a_failed_reload_keeps_the_log_level(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(HELLO)
    with serving(tmp_path, app="shop:app", apps=tmp_path) as service:
        file = tmp_path / "service.toml"
        file.write_text(f'log_level = "error"\n{file.read_text()}')
        (tmp_path / "shop.py").write_text(BROKEN)
        fail_to_reload(service)
        service.send_signal(signal.SIGTTIN)
        assert comes_true(lambda: "from 1 to 2 workers" in service.log, 2)


def test_a_worker_respawned_after_a_failed_reload_has_the_code_of_its_generation(
    tmp_path: Path,
) -> None:
    for release, code in {"one": HELLO, "two": BROKEN}.items():
        (tmp_path / release).mkdir()
        (tmp_path / release / "shop.py").write_text(code)
    current = tmp_path / "current"
    current.symlink_to("one")
    flags = ("--worker-mode", "process")
    with serving(tmp_path, *flags, app="shop:app", apps=current) as service:
        point(current, "two")
        fail_to_reload(service)
        victim = service.workers["0"]
        os.kill(victim, signal.SIGKILL)
        assert comes_true(lambda: service.workers["0"] != victim, 3)
        assert body(service) == "hello"


@an_interpreter
def test_a_late_import_is_of_the_environment_that_the_worker_began_with(
    tmp_path: Path, current: Path
) -> None:
    for number in ("1", "2"):
        site = next((tmp_path / f"environment-{number}").glob("lib/python*/site-packages"))
        (site / "late.py").write_text(f"VERSION = b'{number}'\n")
    late = APPLICATION.replace("    head =", "    import late\n    head =")
    (tmp_path / "shop.py").write_text(late.replace("dependency.VERSION", "late.VERSION"))
    flags = ("--virtualenv", str(current), "--worker-mode", "process")
    with (
        serving(tmp_path, *flags, app="shop:app", apps=tmp_path) as service,
        service.connect() as wire,
    ):
        point(current, "environment-2")
        assert wire.get("/").headers[b"x-dependency"] == b"1"


PARTS = """\
VERSION = "{version}"
class Thing: pass
"""
ORDINARY = """\
import asyncio, json, os, pickle, sys, time, typing
import parts

class Node:
    child: "Node"

def late():
    import parts as again
    return again.VERSION, isinstance(again.Thing(), parts.Thing)

def attempt(function):
    try:
        return function()
    except Exception as error:
        return repr(error)

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/wait":
        await send({"type": "http.response.body", "body": b" ", "more_body": True})
        while not os.path.exists(GO):
            await asyncio.sleep(0.01)
    seen = {
        "a late import": attempt(late),
        "pickle": attempt(lambda: type(pickle.loads(pickle.dumps(parts.Thing()))) is parts.Thing),
        "get_type_hints": attempt(lambda: typing.get_type_hints(Node)["child"] is Node),
        "sys.modules": attempt(lambda: sys.modules[__name__].Node is Node),
        "a file beside the code": open("parts.py").read().split()[2],
        "os.environ": os.environ.get("SHOP"),
        "the time zone": time.tzname[0],
    }
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})
"""


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """A link to the first of two releases of an application that does ordinary things."""
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        code = ORDINARY.replace("GO", repr(str(tmp_path / "go")))
        (tmp_path / release / "shop.py").write_text(code)
        (tmp_path / release / "parts.py").write_text(PARTS.format(version=release))
    current = tmp_path / "current"
    current.symlink_to("one")
    return current


@both_modes
def test_a_failed_reload_leaves_ordinary_things_as_they_were(
    tmp_path: Path, releases: Path, mode: str
) -> None:
    broken = "import os, time, parts\nos.environ['TZ'] = 'AAA+3'\ntime.tzset()\n" + BROKEN
    (tmp_path / "two" / "shop.py").write_text(broken)
    flags = ("--worker-mode", mode)
    with serving(tmp_path, *flags, app="shop:app", apps=releases) as service:
        before = json.loads(body(service))
        point(releases, "two")
        fail_to_reload(service)
        assert json.loads(body(service)) == before


@in_threads
def test_a_request_ends_with_the_code_that_it_began_with(
    tmp_path: Path, releases: Path, mode: str
) -> None:
    code_alone = ("a late import", "pickle", "get_type_hints", "sys.modules")
    flags = ("--worker-mode", mode)
    with (
        serving(tmp_path, *flags, app="shop:app", apps=releases) as service,
        service.connect() as wire,
    ):
        before = json.loads(body(service))
        wire.send("/wait")
        assert wire.sock.recv(100)
        point(releases, "two")
        service.reload(2)
        (tmp_path / "go").touch()
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            rest += wire.sock.recv(4096)
        after = json.loads(rest[rest.index(b"{") : rest.rindex(b"}") + 1])
        assert [after[each] for each in code_alone] == [before[each] for each in code_alone]


DJANGO = {
    "site1/__init__.py": "",
    "site1/settings.py": (
        "SECRET_KEY, ALLOWED_HOSTS, ROOT_URLCONF, SITE = 'x', ['*'], 'site1.urls', 'VERSION'\n"
        "INSTALLED_APPS = ['shop']\n"
        "DEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'\n"
    ),
    "site1/urls.py": (
        "from django.urls import path\n"
        "from shop import views\n"
        "urlpatterns = [path('', views.index), path('VERSION', views.index)]\n"
    ),
    "site1/application.py": (
        "import os\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'site1.settings'\n"
        "from django.core.wsgi import get_wsgi_application\n"
        "app = get_wsgi_application()\n"
    ),
    "shop/__init__.py": "",
    "shop/models.py": (
        "from django.db import models\n\n"
        "class Thing(models.Model):\n"
        "    name_VERSION = models.CharField(max_length=20)\n"
    ),
    "shop/views.py": (
        "from django.conf import settings\n"
        "from django.http import HttpResponse\n"
        "from .models import Thing\n\n"
        "def index(request):\n"
        "    [field] = [each.name for each in Thing._meta.fields if each.name != 'id']\n"
        "    return HttpResponse(f'settings {settings.SITE}, view VERSION, model {field}')\n"
    ),
}


def deploy_django(directory: Path, version: str) -> None:
    for name, code in DJANGO.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(code.replace("VERSION", version))


@in_threads
def test_a_django_project_is_new_as_a_whole(tmp_path: Path, mode: str) -> None:
    deploy_django(tmp_path, "one")
    flags = ("--worker-mode", mode)
    with serving(tmp_path, *flags, app="site1.application:app", apps=tmp_path) as service:
        assert body(service, "/one") == "settings one, view one, model name_one"
        # Another size: the bytecode of the same second is not taken for the new code's.
        deploy_django(tmp_path, "second")
        service.reload(2)
        assert body(service, "/second") == "settings second, view second, model name_second"


FASTAPI = """\
import gc
import fastapi, pydantic

class Thing(pydantic.BaseModel):
    name: str = "x"

class Data:
    pass

kept = Data()
app = fastapi.FastAPI()

@app.get("/")
def index(number: int = 0) -> Thing:
    gc.collect()
    kinds = [type(each).__qualname__ for each in gc.get_objects()]
    return Thing(name=f"{kinds.count('Data')} {kept.__class__.__name__}")
"""


@in_threads
def test_the_data_of_a_fastapi_application_leaves_with_it(tmp_path: Path, mode: str) -> None:
    (tmp_path / "shop.py").write_text(FASTAPI)
    flags = ("--worker-mode", mode)
    with serving(tmp_path, *flags, app="shop:app", apps=tmp_path) as service:
        for generation in (2, 3, 4, 5):
            body(service)
            service.reload(generation)
            service.expect(f"generation {generation - 1} is retired")
        # The last one before may not have left yet.
        assert json.loads(body(service))["name"] in ("1 Data", "2 Data")
