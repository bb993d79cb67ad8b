"""One table of options, declared once: file, flags, template, manual and origins follow from it."""

import re
import runpy
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import tomli
from click.testing import CliRunner

from pounce.cli.arguments import ConfiguredCommand
from pounce.config.durations import Duration
from pounce.config.file import Given, Invocation
from pounce.config.kinds import Boolean, FilePath, Text, Texts
from pounce.config.options import Table, flagged, option, options, settle
from pounce.config.service import ServerConfig
from pounce.config.text import rows, table, template
from pounce.errors import ConfigError

PATHS = Texts(Text(r"/\S*", "a path that begins with /", "PATH"))
DOCUMENTS = Path(__file__).parents[2] / "packaging" / "documents.py"


@dataclass(frozen=True, slots=True)
class Proof:
    """A table of the tests' own."""

    check: tuple[str, ...] = option("workers", PATHS, (), "the paths that have to be answered")
    listen: str = option("workers", FilePath(), "", "the socket that tells of it")
    canary: float = option(
        "workers",
        Duration(1.0, off=True),
        0.0,
        "how long one worker is tried first",
        details="The others follow.",
    )
    rolling: bool = option("workers", Boolean(), False, "whether workers are replaced in turn")

    def __post_init__(self) -> None:
        settle(self)
        if self.rolling and self.canary:
            raise ConfigError("canary: it does not go with rolling")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(ServerConfig):
    """The configuration, and that table."""

    trial: Proof = option("workers", Table(Proof), Proof(), "what a new generation has to pass")


class Command(ConfiguredCommand):
    """A subcommand with that table's flags."""

    owner = Config


@click.command(cls=Command)
def show(invocation: Invocation) -> None:
    """Show the effective configuration."""
    click.echo(table(invocation.load()), nl=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(
        'workers = 2\n\n[trial]\ncheck = ["/health"]\ncanary = "30 s"\nlisten = "shop.sock"\n'
    )
    return path


def load(path: Path | None, **words: str) -> Config:
    given = {name: Given(f"--{name}", (word,)) for name, word in words.items()}
    config = Invocation(path, given, Path("/base"), Config).load().config
    assert isinstance(config, Config)
    return config


def test_a_file_sets_a_tables_options(path: Path) -> None:
    assert load(path).trial == Proof(("/health",), f"{path.parent}/shop.sock", 30.0)
    assert load(path).listen == ()
    assert load(None).trial == Config().trial == Proof()
    assert hash(load(path)) != hash(load(None))


def test_flags_go_before_the_file_option_by_option(path: Path) -> None:
    trial = load(path, trial_canary="1 min", trial_listen="own.sock").trial
    assert trial == Proof(("/health",), "/base/own.sock", 60.0)
    assert load(None, trial_check="/").trial == Proof(("/",))


PROBLEMS = [
    ("[trial]\n\nchek = 1", "3: trial.chek: unknown key; did you mean check?"),
    ("[trail]", "1: trail: unknown key; did you mean trial?"),
    (
        'trial.canary = "1 ms"',
        f'1: trial.canary: found "1 ms", expected {Duration(1.0, off=True).allowed}',
    ),
    (
        '[trial]\ncheck = [\n"/",\n"x"]',
        '2: trial.check[1]: found "x", expected a path that begins with /',
    ),
    ("[trial]\nlisten = 1", "2: trial.listen: found 1, expected a path"),
    (
        "[trial]\nworkers = 1",
        (
            "2: trial.workers: unknown key; known are check, listen, canary, rolling; "
            "to set the option workers, write it above the first [table]"
        ),
    ),
    ("[[trial]]", f"1: trial: found a list, expected {Table(Proof).allowed}"),
    ("\n[trial]\nrolling = true\ncanary = 1", "2: trial: canary: it does not go with rolling"),
]


@pytest.mark.parametrize(("text", "problem"), PROBLEMS)
def test_a_tables_problem_has_its_line(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.message == f"{path}:{problem}"


def test_options_that_do_not_go_together_may_come_from_file_and_flag(path: Path) -> None:
    with pytest.raises(ConfigError, match="trial: canary: it does not go with rolling"):
        load(path, trial_rolling="true")
    assert load(path, trial_rolling="true", trial_canary="0").trial.rolling


def test_each_option_of_a_table_knows_its_source(path: Path) -> None:
    given = {"trial_check": Given("--trial-check", ("/a", "/b"))}
    shown = set(rows(Invocation(path, given, Path("/"), Config).load()))
    assert {
        ("trial.check", '["/a", "/b"]', "", "command line --trial-check"),
        ("trial.canary", '"30 s"', "", f"{path}:5"),
        ("trial.listen", f'"{path.parent}/shop.sock"', "", f"{path}:6"),
        ("trial.rolling", "false", "", "default"),
        ("listen", "[]", "", "default"),
    } <= shown


def test_values_can_be_read_back_as_they_are_shown(path: Path) -> None:
    given = {
        "trial_canary": Given("--trial-canary", ("2.5",)),
        "reload_timeout": Given("--reload-timeout", ("0.25",)),
        "environment": Given("--env", ("A.B=1",)),
    }
    settings = Invocation(path, given, Path("/"), Config).load()
    path.write_text("".join(f"{row.name} = {row.value}\n" for row in rows(settings)))
    assert Invocation(path, {}, Path("/"), Config).load().config == settings.config


def test_a_commands_flags_set_a_tables_options(path: Path) -> None:
    flags = ("--trial-check", "/a", "--trial-check", "/b", "--no-trial-rolling")
    outcome = CliRunner().invoke(show, ["--config", str(path), *flags])
    assert outcome.exit_code == 0, outcome.output
    shown = [re.split(r"\s+=\s|\s{2,}", line) for line in outcome.output.splitlines()]
    for row in (
        ["trial.check", '["/a", "/b"]', "command line --trial-check"],
        ["trial.rolling", "false", "command line --no-trial-rolling"],
        ["trial.canary", '"30 s"', f"{path}:5"],
    ):
        assert row in shown
    outcome = CliRunner().invoke(show, ["--trial-check", "x"])
    assert str(outcome.exception) == '--trial-check: found "x", expected a path that begins with /'
    assert "--trial-canary DURATION" in CliRunner().invoke(show, ["--help"]).output


def test_the_template_has_a_tables_options_commented_out(tmp_path: Path) -> None:
    text = template(owner=Config)
    assert tomli.loads(text) == {}
    assert "# How long one worker is tried first: seconds" in text
    assert "#[trial]\n" in text
    path = tmp_path / "all.toml"
    path.write_text(re.sub(r"^#(?! )(?=.)", "", text, flags=re.MULTILINE))
    assert tomli.loads(path.read_text())["trial"] == {
        "check": [],
        "listen": "",
        "canary": 0,
        "rolling": False,
    }
    assert load(path).trial == Proof()


def test_the_template_sets_a_tables_chosen_options() -> None:
    for chosen in (Proof(canary=90.0), {"canary": 90.0}):
        text = template({"app": "shop:app", "trial": chosen}, owner=Config)
        assert tomli.loads(text) == {"app": "shop:app", "trial": {"canary": "90 s"}}


def test_the_manual_describes_a_table_and_its_options() -> None:
    documents = runpy.run_path(str(DOCUMENTS))
    [declared] = (each for each in options(Config) if each.key == "trial")
    page = "\n".join(documents["key"](declared)).replace("\\", "")
    assert page.startswith("*[trial]*\n\tWhat a new generation has to pass. Allowed: a table with")
    assert "\n\t*canary*\n\t\tHow long one worker is tried first. Allowed: seconds or" in page
    assert "\n\t\tDefault: 0. The others follow." in page


@pytest.mark.parametrize("owner", [ServerConfig, Config])
def test_no_two_options_have_the_same_flag(owner: type[ServerConfig]) -> None:
    flags = [each.flag for each in flagged(owner).values()]
    assert len(set(flags)) == len(flags)
