"""What a reload may change, and what needs a restart."""

import platform
import sys
from pathlib import Path

import pytest

from pounce.assembly.launch import foreign_interpreter, reconfigure
from pounce.config.file import Invocation
from pounce.errors import ConfigError


@pytest.fixture
def invocation(tmp_path: Path) -> Invocation:
    path = tmp_path / "shop.toml"
    path.write_text('app = "shop:app"\nvirtualenv = "current"\n')
    (tmp_path / "current").symlink_to(sys.prefix)
    return Invocation(path, {}, tmp_path)


def move_virtualenv(directory: Path, target: Path) -> None:
    (directory / "current").unlink()
    (directory / "current").symlink_to(target)


def fake_environment(directory: Path) -> Path:
    """An environment whose interpreter says it belongs there, as one with pounce would."""
    python = directory / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho {directory}\n")
    python.chmod(0o755)
    return directory


def test_the_running_interpreter_is_not_left_for_itself(invocation: Invocation) -> None:
    assert foreign_interpreter(invocation.load().config) is None


def test_a_reload_reads_the_file_again(invocation: Invocation) -> None:
    assert invocation.path
    invocation.path.write_text('app = "shop:app"\n')
    assert reconfigure(invocation).workers == 1
    invocation.path.write_text('app = "shop:app"\nworkers = 2\n')
    assert reconfigure(invocation).workers == 2
    invocation.path.write_text("workers = -1\n")
    with pytest.raises(ConfigError, match=r"shop\.toml:1: workers"):
        reconfigure(invocation)


def test_a_reload_without_an_application_is_refused(invocation: Invocation) -> None:
    assert invocation.path
    invocation.path.write_text("workers = 2\n")
    with pytest.raises(ConfigError, match="no application is configured"):
        reconfigure(invocation)


def test_a_reload_cannot_change_the_interpreter(invocation: Invocation, tmp_path: Path) -> None:
    move_virtualenv(tmp_path, fake_environment(tmp_path / "next"))
    with pytest.raises(ConfigError) as caught:
        reconfigure(invocation)
    assert caught.value.message == (
        f"virtualenv is now {tmp_path}/current, "
        f"but {sys.prefix} (Python {platform.python_version()}) is running"
    )
    assert caught.value.hint == "another interpreter needs a restart; a reload cannot change it"


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("version", "3.1.4", "is now of Python 3.1.4, but"),
        ("version_info", "3.1.4.final.0", "is now of Python 3.1.4, but"),
        ("version_info", f"{platform.python_version()}.final.0", ""),
    ],
)
def test_a_moved_environment_must_be_of_the_same_python(
    invocation: Invocation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    version: str,
    expected: str,
) -> None:
    # The running interpreter was reached through the link, so sys.prefix is the link.
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "current"))
    target = tmp_path / "next"
    target.mkdir()
    (target / "pyvenv.cfg").write_text(f"home = /usr/bin\n{name} = {version}\n")
    move_virtualenv(tmp_path, target)
    if not expected:
        assert reconfigure(invocation).virtualenv == str(tmp_path / "current")
        return
    with pytest.raises(ConfigError, match=expected):
        reconfigure(invocation)
