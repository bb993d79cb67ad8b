"""``pounce init``: what it writes, what it refuses, what it says."""

import importlib
import os
import resource
import sys
from pathlib import Path

import click.testing
import pytest
import tomli

from pounce.cli.commands import pounce as command
from pounce.config.file import ConfigFile
from pounce.config.text import template
from tests.standing_in import mark

# The package's attribute of this name is the command.
MODULE = importlib.import_module("pounce.cli.init")
APPLICATIONS = Path(__file__).parents[1] / "apps"
DEMO = ("--app", "demo:app", "--directory", str(APPLICATIONS))


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of configurations, which is not there yet."""
    monkeypatch.setattr(MODULE, "CONFIG_DIRECTORY", tmp_path / "pounce")
    monkeypatch.setattr(MODULE, "is_booted", lambda: False)
    return tmp_path / "pounce"


def init(*arguments: str) -> click.testing.Result:
    """Judge here, as the service's user does: tests/systemd has who judges for root."""
    return click.testing.CliRunner(env=mark(1)).invoke(command, ["init", *arguments])


def test_systemd_is_to_start_it_where_it_runs(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "is_booted", lambda: True)
    assert init("shop", *DEMO).output.endswith("next:\n  systemctl enable --now pounce@shop\n")


def test_the_file_says_what_was_given(directory: Path) -> None:
    addresses = ("--listen", "127.0.0.1:8000", "--listen", "unix:/run/shop.sock")
    outcome = init("shop", *DEMO, *addresses)
    assert outcome.exit_code == 0
    assert outcome.output.endswith("next:\n  pounce serve shop\n")
    text = (directory / "shop.toml").read_text()
    assert tomli.loads(text) == {
        "app": "demo:app",
        "directory": str(APPLICATIONS),
        "listen": [{"address": "127.0.0.1:8000"}, {"address": "unix:/run/shop.sock"}],
    }
    assert "#workers = 1\n" in text


def test_a_chosen_option_replaces_its_comment() -> None:
    assert template({"workers": 3}) == template().replace("#workers = 1\n", "workers = 3\n")
    environment = tomli.loads(template({"environment": {"A": "1", "B.C": '"'}}))
    assert environment == {"environment": {"A": "1", "B.C": '"'}}


def test_commands_before_a_deploy_are_written_and_checked(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    commands = ("--deploy-before", "true 'a b'", "--deploy-before", "gone")
    assert init("shop", *DEMO, *commands).exit_code == 70
    assert tomli.loads((directory / "shop.toml").read_text())["deploy"] == {
        "before": ["true 'a b'", "gone"]
    }
    assert "there is no program 'gone'" in capfd.readouterr().err
    outcome = init("blog", *DEMO, "--deploy-before", "+true")
    assert "--deploy-before: prefixes such as" in str(outcome.exception)


def test_everybody_may_read_it(directory: Path) -> None:
    init("shop", *DEMO)
    assert (directory / "shop.toml").stat().st_mode & 0o777 == 0o644


def test_secrets_get_a_directory_that_only_root_may_look_into(directory: Path) -> None:
    init("shop", *DEMO)
    assert (directory / "shop").stat().st_mode & 0o777 == 0o700
    assert init("shop", *DEMO, "--force").exit_code == 0


def test_relative_paths_are_taken_from_here(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(APPLICATIONS.parent)
    assert init("shop", "--app", "demo:app", "--directory", "apps").exit_code == 0
    assert ConfigFile(directory / "shop.toml").data["directory"] == str(APPLICATIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("shop",), "no application is named"),
        (("shop", "--app", "demo"), "--app: found"),
        (("shop", *DEMO, "--listen", "80"), "--listen: '80' is not an address"),
        (("a/b", *DEMO), "'a/b' cannot be the name of a service"),
        (("a@b", *DEMO), "cannot be the name"),
        (("a.b", *DEMO), "cannot be the name"),
        (("a" * 25, *DEMO), "cannot be the name"),
    ],
)
def test_what_cannot_be_is_not_written(
    directory: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = init(*arguments)
    assert getattr(outcome.exception, "exit_code", None) == 78
    assert message in str(outcome.exception)
    assert not directory.exists()


def test_a_file_is_replaced_only_by_force(directory: Path) -> None:
    directory.mkdir()
    path = directory / "shop.toml"
    path.write_text("mine")
    assert "is there already" in str(init("shop", *DEMO).exception)
    assert path.read_text() == "mine"
    assert init("shop", *DEMO, "--force").exit_code == 0
    assert ConfigFile(path).data["app"] == "demo:app"


def test_whoever_reads_the_old_file_reads_it_to_its_end(directory: Path) -> None:
    directory.mkdir()
    path = directory / "shop.toml"
    path.write_text("mine")
    with path.open() as old:
        assert init("shop", *DEMO, "--force").exit_code == 0
        assert old.read() == "mine"
    assert sorted(each.name for each in directory.iterdir()) == ["shop", "shop.toml"]


def test_a_file_that_is_replaced_stays_whose_and_where_it_was(directory: Path) -> None:
    directory.mkdir()
    path, real = directory / "shop.toml", directory.parent / "shop.toml"
    real.write_text("mine")
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 0, 12345)
    before = real.stat()
    path.symlink_to(real)
    assert init("shop", *DEMO, "--force").exit_code == 0
    assert path.is_symlink()
    after = real.stat()
    assert after.st_size > before.st_size
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


@pytest.mark.parametrize("force", [("--force",), ()], ids=["replaced", "new"])
def test_a_file_is_written_whole_or_not_at_all(directory: Path, force: tuple[str, ...]) -> None:
    directory.mkdir()
    path = directory / "shop.toml"
    if force:
        path.write_text("mine")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        outcome = init("shop", *DEMO, *force)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written: File too large" in str(outcome.exception)
    assert [each.read_text() for each in directory.iterdir()] == ["mine"] * len(force)


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (("--app", "demo:missing", "--directory", str(APPLICATIONS)), 70, "missing"),
        # From here it would be found; from where systemd starts the service it is not.
        (("--app", "demo:app"), 70, "demo"),
        (("--app", "demo:app", "--virtualenv", "/nowhere"), 78, "/nowhere is not a directory"),
    ],
)
def test_a_service_that_could_not_start_is_told(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(APPLICATIONS)
    outcome = init("shop", *arguments)
    assert outcome.exit_code == status
    assert complaint in capfd.readouterr().err
    assert "try again: pounce check shop" in outcome.output
    assert (directory / "shop.toml").exists()


def test_a_directory_that_cannot_be_written_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "CONFIG_DIRECTORY", Path(sys.executable) / "pounce")
    assert "cannot be written: Not a directory" in str(init("shop", *DEMO).exception)
