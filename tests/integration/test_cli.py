"""The command, as a process: output, error messages and exit codes."""

import re
import subprocess
import sys
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
from click.testing import CliRunner

import pounce.cli.arguments
from pounce import __version__
from pounce.cli.commands import COMMANDS
from pounce.cli.commands import pounce as command
from pounce.config.file import find
from pounce.config.kinds import Boolean
from pounce.config.options import Table, members, options
from pounce.config.service import SECTIONS, ServerConfig


def run(*arguments: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pounce", *arguments],
        capture_output=True,
        text=True,
        cwd=directory,
        timeout=30,
        check=False,
    )


def test_version() -> None:
    outcome = run("--version")
    assert (outcome.returncode, outcome.stdout) == (0, f"pounce {__version__}\n")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_subcommands(flag: str) -> None:
    outcome = run(flag)
    assert outcome.returncode == 0
    listed = re.findall(r"^  (\w[\w-]*)  ", outcome.stdout, re.MULTILINE)
    assert tuple(listed) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_has_each_subcommands_whole_summary(name: str) -> None:
    summary = run(name, "--help").stdout.split("\n\n")[1]
    assert " ".join(summary.split()) in " ".join(run("--help").stdout.split())


@pytest.mark.parametrize("subcommand", ["reload", "scale", "status", "stop-draining"])
def test_a_call_to_a_service_needs_no_server(subcommand: str) -> None:
    said = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pounce", subcommand, "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    imported = set(re.findall(r"\| +(pounce\.[\w.]+|asyncio|uvloop|h11)$", said, re.MULTILINE))
    client = {f"pounce.cli{part}" for part in ("", ".commands", ".completion", ".control")}
    client |= {"pounce.errors", "pounce.varlink", "pounce.varlink.names", "pounce.version"}
    assert imported - {"pounce.cli.reloads"} == client


@pytest.mark.parametrize("subcommand", ["serve", "check", "config"])
def test_help_lists_every_flag_in_its_section(subcommand: str) -> None:
    sections = re.split(r"^(\w+):$", run(subcommand, "--help").stdout, flags=re.MULTILINE)
    content = dict(zip(sections[1::2], sections[2::2], strict=True))
    for option in options(ServerConfig):
        flags = [option.flag]
        if isinstance(option.kind, Boolean):
            flags.append(option.flag.replace("--", "--no-"))
        for flag in flags:
            assert re.search(rf"{flag}\b", content[SECTIONS[option.section]])


REFUSED = [
    (["--bogus"], 2, "No such option"),
    (["serve", "--bogus"], 2, "No such option"),
    (["serve", "a:b", "c:d"], 2, "unexpected extra argument"),
    (["serve", "a:b", "--app", "c:d"], 2, "The application is given twice: as APP and by --app."),
    (["serve", "shop", "--config", "x.toml"], 2, "A file is given twice: by NAME and by --config."),
    (["config", "--workers"], 2, "requires an argument"),
    (
        ["config", "--workers", "two"],
        78,
        'pounce: error: --workers: found "two", expected a whole number from 0 to 1024\n',
    ),
    (
        ["config", "--bind", ":80", "--bind", ":80"],
        78,
        "pounce: error: --bind: :80 is given twice; each address may be given once\n",
    ),
    (
        ["config", "shop:"],
        78,
        'pounce: error: APP: found "shop:", expected "module:attribute" or "module:factory()"\n',
    ),
    (
        ["config", "--env", "A", "--log-level", "loud"],
        78,
        (
            "pounce: error: --env: found a word without NAME=, expected NAME=VALUE\n"
            'pounce: error: --log-level: found "loud", expected '
            '"debug", "info", "warning" or "error"\n'
        ),
    ),
    (["log"], 2, "Missing argument 'NAME'"),
    (["log", "shop", "--since", "soon"], 2, "'soon' is not a time; write it as"),
    (["log", "shop", "--priority", "loud"], 2, "'loud' is neither one of emerg, alert,"),
    (["log", "shop", "--generation", "0"], 2, "0 is not in the range x>=1"),
    (
        ["config", "--config", "/nonexistent.toml"],
        78,
        "pounce: error: /nonexistent.toml: cannot be read: No such file or directory\n",
    ),
    (
        ["serve"],
        78,
        (
            "pounce: error: no application is configured\n"
            "  name one as module:attribute, on the command line or by `app` in the file\n"
        ),
    ),
    (
        ["check", "no-such-service"],
        78,
        (
            "pounce: error: 'no-such-service' is neither an application nor a service "
            "configured in /etc/pounce\n  configured there: "
        ),
    ),
]


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED)
def test_refused(arguments: list[str], code: int, message: str) -> None:
    outcome = run(*arguments)
    assert outcome.returncode == code
    assert outcome.stdout == ""
    if code == 78:
        assert outcome.stderr.startswith(message)
    else:
        assert message in outcome.stderr


def test_all_problems_of_a_file_are_printed(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text('app = "shop"\n\nworker = 2\n')
    outcome = run("check", "--config", "shop.toml", directory=tmp_path)
    assert outcome.returncode == 78
    assert outcome.stderr == (
        f'pounce: error: {path}:1: app: found "shop", '
        'expected "module:attribute" or "module:factory()"\n'
        f"pounce: error: {path}:3: worker: unknown key; did you mean workers?\n"
    )


def test_config_shows_values_and_sources(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text('app = "shop:app"\nserver_header = true\n\nworkers = 2\n')
    flags = ("--no-server-header", "--bind", ":80", "--env", "A=1", "--directory", "code")
    outcome = run("config", "--config", str(path), *flags, directory=tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    shown = [re.split(r"\s+=\s|\s{2,}", line) for line in outcome.stdout.splitlines()]
    for row in (
        ["app", '"shop:app"', f"{path}:1"],
        ["workers", "2", f"{path}:4"],
        ["server_header", "false", "command line --no-server-header"],
        ["listen[0].address", '":80"', "command line --bind"],
        ["environment.A", '"1"', "command line --env"],
        ["directory", f'"{tmp_path}/code"', "command line --directory"],
        ["body_timeout", '"30 s"', "default"],
    ):
        assert row in shown


def test_every_plain_option_can_be_given_as_a_flag_and_reaches_the_configuration() -> None:
    values = {
        "app": "shop:app",
        "interface": "wsgi",
        "workers": "3",
        "execution": "sync",
        "loop": "asyncio",
        "worker_mode": "thread",
        "lifespan": "off",
        "root_path": "/shop",
        "forwarded_allow": "unix",
        "forwarded_fields": "forwarded",
        "max_draining": "5",
        "access_log": "on",
        "log_level": "debug",
        "log_format": "json",
        "environment": "A=1",
        "listen": ":80",
        "directory": "/srv",
        "worker_ended": "shop:ended",
        "virtualenv": "/srv/venv",
        "before": "python manage.py migrate",
    }
    flags: list[str] = []
    declared = options(ServerConfig)
    for option in chain.from_iterable(
        members(each) if isinstance(each.kind, Table) else (each,) for each in declared
    ):
        if isinstance(option.kind, Boolean):
            flags.append(option.flag.replace("--", "--no-"))
        else:
            flags += [option.flag, values.get(option.key, "500")]
    outcome = run("config", *flags)
    assert outcome.returncode == 0, outcome.stderr
    assert all("  command line --" in line for line in outcome.stdout.splitlines())


def test_the_template_is_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "template.toml"
    path.write_text(run("config", "--template").stdout)
    assert run("config", "--config", str(path)).stdout == run("config").stdout


def test_a_name_stands_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.toml").write_text("workers = 7\n")
    monkeypatch.setattr(pounce.cli.arguments, "find", partial(find, directory=tmp_path))
    outcome = CliRunner().invoke(command, ["config", "shop"])
    assert outcome.exit_code == 0
    assert re.search(rf"^workers += 7 +{tmp_path}/shop.toml:1$", outcome.output, re.MULTILINE)
