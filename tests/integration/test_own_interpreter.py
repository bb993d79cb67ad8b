"""What an interpreter does when it starts and ends, as its workers' applications rely on it."""

import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.service import PYTHON, START, comes_true, free_port, running, serving, wait_until

APPLICATION = """\
{first}

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = str({seen}).encode()
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": body}})
"""
WAITS = "waits for a generation's own interpreter: "
an_interpreter_of_its_own = pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason=f"{WAITS}the worker's has started before it knew the variable",
)

VARIABLES = {
    "TZ": ("Asia/Tokyo", "import time", 'time.strftime("%H", time.localtime(0)) == "09"'),
    "PYTHONPATH": (
        "{directory}/more",
        "import importlib.util",
        'importlib.util.find_spec("only_here") is not None',
    ),
    "PYTHONDEVMODE": ("1", "import sys", "sys.flags.dev_mode"),
}


@an_interpreter_of_its_own
@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_of_the_environment_takes_effect_or_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name, raising=False)
    value, first, seen = VARIABLES[name]
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "only_here.py").touch()
    (tmp_path / "shop.py").write_text(APPLICATION.format(first=first, seen=seen))
    variable = f"{name}={value.format(directory=tmp_path)}"
    with (
        serving(tmp_path, "--env", variable, app="shop:app", apps=tmp_path) as service,
        service.connect() as wire,
    ):
        assert wire.get("/").body == b"True" or (name != "TZ" and name in service.log)


@pytest.mark.xfail(
    sys.version_info < (3, 13),
    strict=True,
    raises=AssertionError,
    reason=f"{WAITS}multiprocessing, before Python 3.13, leaves a fork without atexit's handlers",
)
def test_handlers_of_atexit_run_when_a_worker_ends(tmp_path: Path) -> None:
    first = 'import atexit, pathlib\natexit.register(pathlib.Path("ran").touch)'
    (tmp_path / "shop.py").write_text(APPLICATION.format(first=first, seen="0"))
    flags = ("--worker-mode", "process")
    with serving(tmp_path, *flags, app="shop:app", apps=tmp_path) as service:
        service.reload(2)
        service.expect("generation 1 is retired")
        assert (tmp_path / "ran").exists()


ORPHANS = 'subprocess.run(["sh", "-c", "sleep 0.1 & exit 0"])'


def isolated() -> list[str]:
    """What begins a command that is to be PID 1; skips where that is not permitted."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    here = shutil.which("unshare")
    if not here or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare(1) is not here, or not permitted")
    return command


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason=f"{WAITS}who forks the workers then is also who reaps orphans",
)
def test_as_pid_1_it_reaps_what_the_applications_children_leave(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION.format(first="import subprocess", seen=ORPHANS))
    port = free_port()
    command = [*isolated(), str(PYTHON), "-m", "pounce", "serve", "shop:app"]
    flags = ["--worker-mode", "process", "--directory", str(tmp_path), "--bind"]
    with running([*command, *flags, f"127.0.0.1:{port}"], tmp_path / "log") as process:
        log = tmp_path / "log"
        wait_until(lambda: "generation 1 serves" in log.read_text(), "the service", START)
        [init] = children(process.pid)
        worker = children(init)
        fetch(port)
        wait_until(lambda: orphans(init, worker), "an orphan")
        assert comes_true(lambda: not orphans(init, worker), 2), "each stays as a zombie"


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def orphans(init: int, workers: list[int]) -> list[int]:
    return [each for each in children(init) if each not in workers]


def fetch(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=25) as answer:
        assert answer.status == 200
