"""``pounce check``: what an operator is told about an application and its interpreter."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests import standing_in
from tests.certificates import Authority

APPLICATION = "async def app(scope, receive, send): ...\n"


def check(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Judge here, as the service's user does: tests/systemd has who judges for root."""
    return standing_in.run([sys.executable, "-m", "pounce", "check", *arguments], cwd=directory)


def write(directory: Path, **modules: str) -> None:
    for name, text in modules.items():
        (directory / f"{name}.py").write_text(text)


def test_all_is_well(tmp_path: Path) -> None:
    write(tmp_path, shop=APPLICATION)
    outcome = check("shop:app", directory=tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert outcome.stdout.startswith(
        "configuration: the command line is valid\n"
        "application: shop:app (ASGI) is imported from the current directory (pounce "
    )
    assert [path.name for path in tmp_path.iterdir()] == ["shop.py"]  # and no bytecode


def test_the_directory_is_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    write(tmp_path / "code", shop=APPLICATION)
    path = tmp_path / "shop.toml"
    path.write_text('app = "shop:app"\ndirectory = "code"\n')
    outcome = check("--config", str(path), directory=Path("/"))
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert f"configuration: {path} is valid\n" in outcome.stdout
    assert f"imported from {tmp_path}/code (" in outcome.stdout


def test_event_streams_that_may_not_take_what_they_seem_to(tmp_path: Path) -> None:
    write(tmp_path, shop=APPLICATION)
    told = ("--event-stream-timeout", "60", "--shutdown-timeout")
    outcome = check("shop:app", *told, "30", directory=tmp_path)
    assert outcome.returncode == 0
    assert "warning: event_stream_timeout is 60 s, but shutdown_timeout is 30 s" in outcome.stderr
    assert check("shop:app", *told, "90", directory=tmp_path).stderr == ""


def test_an_address_that_systemd_cannot_open(tmp_path: Path) -> None:
    write(tmp_path, shop=APPLICATION)
    addresses = ("--bind", ":8000", "--bind", "localhost:8001", "--bind", "fd:9")
    assert check("shop:app", *addresses, directory=tmp_path).stderr == (
        "warning: localhost:8001: a socket unit needs an IP address, not a name; the service opens "
        "it itself, which it can from port 1024 on, and refuses clients there while it is down\n"
    )


FAILURES = [
    ("missing:app", 70, ["missing"]),
    ("shop:ap", 70, ["'ap'", "did you mean 'app'"]),
    ("raises:app", 70, ["RuntimeError: no database", "raises.py", "line 2"]),
    ("syntax:app", 70, ["SyntaxError", "syntax.py"]),
    ("leaves:app", 70, ["SystemExit"]),
    ("shop:number", 70, ["int"]),
    ("shop:make()", 70, ["ValueError: no settings", "shop.py"]),
]


@pytest.mark.parametrize(("application", "code", "words"), FAILURES)
def test_an_application_that_cannot_be_imported(
    application: str, code: int, words: list[str], tmp_path: Path
) -> None:
    write(
        tmp_path,
        shop=f"{APPLICATION}number = 1\ndef make():\n    raise ValueError('no settings')\n",
        raises="def connect():\n    raise RuntimeError('no database')\nconnect()\n",
        syntax="def app(:\n",
        leaves="raise SystemExit(0)\n",
    )
    outcome = check(application, directory=tmp_path)
    assert outcome.returncode == code
    assert outcome.stderr.startswith("pounce: error: ")
    for word in words:
        assert word in outcome.stderr
    # Its own frames, and not those of pounce and the import machinery.
    for frame in ("importlib", "loader.py", "click"):
        assert frame not in outcome.stderr


def test_commands_before_a_deploy_are_looked_for_and_not_run(tmp_path: Path) -> None:
    write(tmp_path, shop=APPLICATION)
    ran = tmp_path / "ran"
    outcome = check("shop:app", "--deploy-before", f"touch {ran}", directory=tmp_path)
    assert outcome.returncode == 0
    assert re.search(rf"^before a deploy: touch {ran} \(\S+/touch\)$", outcome.stdout, re.MULTILINE)
    assert not ran.exists()
    outcome = check("shop:app", "--deploy-before", "no-such-program x", directory=tmp_path)
    assert outcome.returncode == 70
    assert outcome.stderr.startswith(
        "pounce: error: [deploy] before: 'no-such-program x': it cannot be run: there is no "
        f"program 'no-such-program'\n  looked for in {sys.prefix}/bin, "
    )


def check_as_root(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pounce", "check", "shop:app"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        cwd=directory,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif("os.geteuid() != 0", reason="only root has another user judge")
def test_root_has_another_user_judge(tmp_path: Path) -> None:
    write(tmp_path, shop=APPLICATION)
    outcome = check_as_root(tmp_path)
    # pytest's directory is its own, and perhaps the interpreter is in a home.
    assert outcome.returncode == 78
    assert "nobody" in outcome.stdout + outcome.stderr
    assert " belongs to root: the user nobody may not " in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["shop.py"]


@pytest.mark.skipif("os.geteuid() != 0", reason="only root has another user judge")
@pytest.mark.parametrize("value", ["", "1", "service", "nobody", "1:1"])
def test_no_variable_has_root_import_the_application(tmp_path: Path, value: str) -> None:
    ran = tmp_path / "ran"
    write(tmp_path, shop=f"open({str(ran)!r}, 'w')\n{APPLICATION}")
    outcome = check_as_root(tmp_path, POUNCE_JUDGES=value)
    assert outcome.returncode == 78
    assert "root imports no application, and POUNCE_JUDGES is set" in outcome.stderr
    assert not ran.exists()


def test_a_missing_directory(tmp_path: Path) -> None:
    outcome = check("shop:app", "--directory", "gone", directory=tmp_path)
    assert outcome.returncode == 78
    assert f"{tmp_path}/gone" in outcome.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of its own, without pounce."""
    directory = tmp_path_factory.mktemp("venv") / "venv"
    venv.create(directory, symlinks=True)
    return directory


def install_pounce(environment: Path) -> Path:
    """Lend *environment* all that is installed here; return the file to take back again."""
    site = next(environment.glob("lib/python*/site-packages"))
    lent = site / "lent.pth"
    # A path file, processed as site.addsitedir does, so that editable installs work too.
    here = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    lent.write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in here))
    return lent


def test_the_application_runs_in_its_own_virtual_environment(
    environment: Path, tmp_path: Path
) -> None:
    lent = install_pounce(environment)
    write(tmp_path, shop=f"import os, sys\nprint(sys.prefix, os.getppid())\n{APPLICATION}")
    outcome = check("shop:app", "--virtualenv", str(environment), directory=tmp_path)
    lent.unlink()
    assert (outcome.returncode, outcome.stderr) == (0, "")
    # The parent is still this process: the interpreter was replaced, not started beside.
    assert f"{environment} {os.getpid()}\n" in outcome.stdout


def test_a_module_in_the_current_directory_cannot_pose_as_pounce(
    environment: Path, tmp_path: Path
) -> None:
    lent = install_pounce(environment)
    write(tmp_path, shop=APPLICATION, click="raise SystemExit('posed')\n")
    script = [sys.executable, "-P", "-m", "pounce", "check", "shop:app"]
    outcome = standing_in.run([*script, "--virtualenv", str(environment)], cwd=tmp_path)
    lent.unlink()
    assert (outcome.returncode, outcome.stderr) == (0, "")


@pytest.mark.skipif("PYTHONPATH" in os.environ, reason="PYTHONPATH reaches every environment")
def test_an_environment_without_pounce(environment: Path, tmp_path: Path) -> None:
    outcome = check("shop:app", "--virtualenv", str(environment), directory=tmp_path)
    assert outcome.returncode == 78
    assert outcome.stderr == (
        f"pounce: error: virtualenv: {environment}/bin/python cannot import pounce: "
        "ModuleNotFoundError: No module named 'pounce'\n"
        f"  this pounce runs in {sys.prefix}; install it in the application's "
        f"environment too: {environment}/bin/python -m pip install pounce\n"
    )


def test_the_running_environment_is_not_left(tmp_path: Path) -> None:
    write(tmp_path, shop=APPLICATION)
    (tmp_path / "current").symlink_to(sys.prefix)
    outcome = check("shop:app", "--virtualenv", "current", directory=tmp_path)
    assert outcome.returncode == 0


def test_what_is_no_virtual_environment(tmp_path: Path) -> None:
    outcome = check("shop:app", "--virtualenv", "gone", directory=tmp_path)
    assert outcome.returncode == 78
    assert outcome.stderr == (f"pounce: error: virtualenv: {tmp_path}/gone is not a directory\n")
    outcome = check("shop:app", "--virtualenv", ".", directory=tmp_path)
    assert outcome.returncode == 78
    assert outcome.stderr == (
        f"pounce: error: virtualenv: {tmp_path}/bin/python cannot be run: "
        "No such file or directory\n"
    )
    # An interpreter that belongs elsewhere would replace itself again and again.
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    outcome = check("shop:app", "--virtualenv", ".", directory=tmp_path)
    assert outcome.returncode == 78
    assert outcome.stderr == (
        f"pounce: error: virtualenv: {tmp_path} is not a virtual environment: "
        f"its interpreter belongs to {sys.prefix}\n"
    )


def test_certificates(tmp_path: Path) -> None:
    write(tmp_path, shop=APPLICATION)
    authority = Authority()
    certificate, key = authority.issue("a.example", days=90).write(tmp_path, "shop")
    for each in (certificate, key):
        each.chmod(0o644)
    flags = ("shop:app", "--certificate", str(certificate), "--key", str(key))
    outcome = check(*flags, directory=tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert f"certificate: {certificate} is for a.example, until 20" in outcome.stdout
    authority.issue("a.example", days=5).write(tmp_path, "shop")
    outcome = check(*flags, directory=tmp_path)
    assert outcome.returncode == 0
    assert outcome.stderr.startswith(f"warning: the certificate {certificate} expires soon, on 20")
    authority.issue("a.example").write(tmp_path, "other")
    outcome = check(*flags[:-1], str(tmp_path / "other.key"), directory=tmp_path)
    assert outcome.returncode == 78
    assert "the key is not this certificate's" in outcome.stderr
