"""Importing applications, and what a person reads when that fails. Each in its own process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LOAD = """
import json, os, sys
from pounce.application.loader import find_application
from pounce.config.service import ServerConfig
from pounce.errors import PounceError

def load(app, directory, afresh=False, **more):
    try:
        config = ServerConfig(app=app, directory=directory, **more)
        return find_application(config, afresh=afresh)()
    except PounceError as error:
        answer = {"error": error.message, "hint": error.hint, "status": error.exit_code}
        print(json.dumps(answer))
        sys.exit()

def tell(**values):
    print(json.dumps(values))

"""

APP = "async def app(scope, receive, send): ...\n"


def run(directory: Path, script: str) -> Any:
    """Run *script* with `load`, `tell` and the directory as `here`; what it told last."""
    done = subprocess.run(
        [sys.executable, "-c", f"{LOAD}here = {str(directory)!r}\n{script}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def load(directory: Path, app: str = "shop:app") -> Any:
    return run(directory, f"tell(loaded=repr(load({app!r}, here)))")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A module that a test may overwrite."""
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


# What works


@pytest.mark.parametrize(
    ("source", "app"),
    [
        pytest.param(APP, "shop:app", id="a function"),
        pytest.param("class site:\n    async def app(*a): ...", "shop:site.app", id="dotted"),
        pytest.param(APP + "def make(): return app", "shop:make()", id="a factory"),
        pytest.param(
            APP + "class S:\n def make(self): return app\ns = S()", "shop:s.make()", id="a method"
        ),
    ],
)
def test_loads(shop: Path, source: str, app: str) -> None:
    (shop / "shop.py").write_text(source)
    assert "app" in load(shop, app)["loaded"]


def test_a_package(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "asgi.py").write_text(APP)
    assert "app" in load(tmp_path, "shop.asgi:app")["loaded"]


def test_the_directory_is_the_working_one_and_the_first_to_import_from(shop: Path) -> None:
    script = "load('shop:app', here); tell(cwd=os.getcwd(), first=sys.path[0])"
    assert run(shop, script) == {"cwd": str(shop), "first": str(shop)}


def test_the_directory_is_what_a_symlink_points_to_now(shop: Path) -> None:
    (shop / "current").symlink_to(shop)
    assert run(shop / "current", "load('shop:app', here); tell(cwd=os.getcwd())") == {
        "cwd": str(shop)
    }


def test_the_environment_is_there_at_import(shop: Path) -> None:
    (shop / "shop.py").write_text(f"import os\nmode = os.environ['SHOP_MODE']\n{APP}")
    script = "load('shop:app', here, environment={'SHOP_MODE': 'live'})\n"
    assert run(shop, script + "import shop; tell(mode=shop.mode)") == {"mode": "live"}


# What does not


@pytest.mark.parametrize(
    ("source", "app", "message", "hint"),
    [
        pytest.param(
            APP,
            "shop:ap",
            "'shop:ap': there is no 'ap' in 'shop' ({here}/shop.py)",
            "did you mean 'app'?",
            id="a near miss",
        ),
        pytest.param(
            APP,
            "shop:zebra",
            "'shop:zebra': there is no 'zebra' in 'shop' ({here}/shop.py)",
            "name the application's variable",
            id="no such attribute",
        ),
        pytest.param(
            APP,
            "store:app",
            "there is no module 'store' in {here} or among what is installed",
            "set `directory` to the folder that holds it, or `virtualenv`",
            id="no such module",
        ),
        pytest.param(
            APP,
            "store.asgi:app",
            "there is no module 'store' in {here} or among what is installed",
            "set `directory` to the folder that holds it, or `virtualenv`",
            id="no such package",
        ),
        pytest.param(
            APP,
            "shop.asgi:app",
            "there is no module 'shop.asgi' in {here} or among what is installed",
            "set `directory` to the folder that holds it, or `virtualenv`",
            id="a module that is no package",
        ),
        pytest.param(
            "app = 5",
            "shop:app()",
            "'shop:app()' is to be called, but int is not callable",
            "leave out the () if it is the application itself",
            id="not a factory",
        ),
    ],
)
def test_a_wrong_reference(shop: Path, source: str, app: str, message: str, hint: str) -> None:
    (shop / "shop.py").write_text(source)
    expected = {"error": message.replace("{here}", str(shop)), "hint": hint, "status": 70}
    assert load(shop, app) == expected


def test_no_application(tmp_path: Path) -> None:
    told = load(tmp_path, "")
    assert (told["error"], told["status"]) == ("no application given", 78)
    assert '"module:attribute"' in told["hint"]


def test_a_missing_directory(tmp_path: Path) -> None:
    assert load(tmp_path / "gone") == {
        "error": f"directory {str(tmp_path / 'gone')!r} cannot be entered: "
        "No such file or directory",
        "hint": "set `directory` to where the application's modules are",
        "status": 78,
    }


def test_a_directory_that_is_a_file(shop: Path) -> None:
    told = load(shop / "shop.py")
    assert told["error"].endswith("cannot be entered: Not a directory")
    assert told["status"] == 78


@pytest.mark.parametrize(
    ("source", "app", "message", "last"),
    [
        pytest.param(
            "1 / 0",
            "shop:app",
            "importing 'shop' failed: ZeroDivisionError: division by zero",
            "ZeroDivisionError: division by zero",
            id="a module that raises",
        ),
        pytest.param(
            "import shopkeeper",
            "shop:app",
            "importing 'shop' failed: ModuleNotFoundError: No module named 'shopkeeper'",
            "ModuleNotFoundError: No module named 'shopkeeper'",
            id="a module whose import is missing",
        ),
        pytest.param(
            "def app(:",
            "shop:app",
            "importing 'shop' failed: SyntaxError: invalid syntax (shop.py, line 1)",
            "SyntaxError: invalid syntax",
            id="a syntax error",
        ),
        pytest.param(
            "import sys; sys.exit('no licence')",
            "shop:app",
            "importing 'shop' failed: SystemExit: no licence",
            "SystemExit: no licence",
            id="sys.exit",
        ),
        pytest.param(
            "raise ValueError",
            "shop:app",
            "importing 'shop' failed: ValueError",
            "ValueError",
            id="an exception without text",
        ),
        pytest.param(
            "e = ValueError('no licence'); e.add_note('ask the shop'); raise e",
            "shop:app",
            "importing 'shop' failed: ValueError: no licence",
            "ask the shop",
            id="an exception with a note",
        ),
        pytest.param(
            "def make(): raise ValueError('no licence')",
            "shop:make()",
            "calling the factory 'shop:make()' failed: ValueError: no licence",
            "ValueError: no licence",
            id="a factory that raises",
        ),
        pytest.param(
            "def make(one): pass",
            "shop:make()",
            "calling the factory 'shop:make()' failed: TypeError: "
            "make() missing 1 required positional argument: 'one'",
            "TypeError: make() missing 1 required positional argument: 'one'",
            id="a factory that wants an argument",
        ),
    ],
)
def test_an_application_that_fails(
    shop: Path, source: str, app: str, message: str, last: str
) -> None:
    (shop / "shop.py").write_text(source)
    told = load(shop, app)
    assert told["error"] == message
    assert told["status"] == 70
    assert told["hint"].splitlines()[-1] == last


def test_the_traceback_begins_in_the_application(shop: Path) -> None:
    (shop / "shop.py").write_text("import till")
    (shop / "till.py").write_text("def open():\n    raise ValueError('locked')\n\nopen()\n")
    lines = load(shop)["hint"].splitlines()
    assert [line.strip() for line in lines if line.lstrip().startswith("File")] == [
        f'File "{shop}/shop.py", line 1, in <module>',
        f'File "{shop}/till.py", line 4, in <module>',
        f'File "{shop}/till.py", line 2, in open',
    ]


# The next generation, in the same process

GENERATIONS = """
from pathlib import Path
def generation(directory=here, afresh=True):
    return load("shop:app", directory, afresh=afresh)
"""


def test_afresh_imports_the_application_and_its_modules_again(shop: Path) -> None:
    (shop / "shop.py").write_text(f"import till\nprice = till.price\n{APP}")
    (shop / "till.py").write_text("price = 1")
    script = """
old = generation()
Path("till.py").write_text("price = 1000")
new = generation()
tell(old=old.__globals__["price"], new=new.__globals__["price"])
"""
    assert run(shop, GENERATIONS + script) == {"old": 1, "new": 1000}


def test_the_old_generation_keeps_its_modules(shop: Path) -> None:
    (shop / "shop.py").write_text(f"import till\n{APP}")
    (shop / "till.py").write_text("price = 1")
    script = """
old = generation()
Path("till.py").write_text("price = 1000")
generation()
tell(old=old.__globals__["till"].price)
"""
    assert run(shop, GENERATIONS + script) == {"old": 1}


def test_without_afresh_what_is_imported_stays(shop: Path) -> None:
    script = "tell(same=generation(afresh=False) is generation(afresh=False))"
    assert run(shop, GENERATIONS + script) == {"same": True}


def test_what_is_not_the_applications_stays(shop: Path) -> None:
    installed = shop / "venv" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "library.py").touch()
    script = """
import json.decoder, pounce.errors
sys.path.append(here + "/venv/site-packages")
import library
before = (library, json.decoder, pounce.errors)
generation(); generation()
import json.decoder as decoder, pounce.errors as errors, library
tell(same=all(a is b for a, b in zip(before, (library, decoder, errors))))
"""
    assert run(shop, GENERATIONS + script) == {"same": True}


def test_the_server_itself_stays_when_run_from_its_source_tree() -> None:
    source = Path(__file__).parents[2]
    script = f"""
import pounce.errors
before = pounce.errors
load("tests.apps.demo:app", {str(source)!r}, afresh=True)
import sys
tell(same=sys.modules["pounce.errors"] is before, main="__main__" in sys.modules)
"""
    assert run(source, script) == {"same": True, "main": True}


def test_a_deploy_moves_a_symlink_there_and_back(tmp_path: Path) -> None:
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "shop.py").write_text(f"import till\nname = till.name\n{APP}")
        (tmp_path / release / "till.py").write_text(f"name = {release!r}")
    (tmp_path / "one" / "dropped.py").touch()
    script = """
served = []
for release in ("one", "two", "one", "two"):
    link = Path(here, "current")
    link.unlink(missing_ok=True)
    link.symlink_to(Path(here, release))
    served.append(generation(str(link)).__globals__["name"])
try:
    import dropped
    found = True
except ImportError:
    found = False
tell(served=served, found_in_an_old_release=found)
"""
    assert run(tmp_path, GENERATIONS + script) == {
        "served": ["one", "two", "one", "two"],
        "found_in_an_old_release": False,
    }


def test_what_an_embedding_program_has_imported_stays(shop: Path) -> None:
    (shop / "shop.py").write_text(f"import till\n{APP}")
    (shop / "till.py").touch()
    script = """
sys.path.insert(0, here)
import till
first = generation()
second = generation()
tell(same=sys.modules["till"] is till, fresh=first is not second)
"""
    assert run(shop, GENERATIONS + script) == {"same": True, "fresh": True}
