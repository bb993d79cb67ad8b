"""Command lines as in ExecStart=: how they are split, and which program they name."""

import os
import resource
import tempfile
from pathlib import Path

import pytest

from pounce.config.commands import CommandLine, find_program, search_path, split
from pounce.config.file import Invocation
from pounce.config.kinds import Invalid
from pounce.config.service import Deploy, ServerConfig
from pounce.errors import ApplicationError, ConfigError
from tests.ordinary_user import as_ordinary_user

SPLIT = [
    ("python manage.py migrate", ["python", "manage.py", "migrate"]),
    ("  a \t b\n", ["a", "b"]),
    ("a 'b c' \"d e\"", ["a", "b c", "d e"]),
    ("a ''", ["a", ""]),
    ("a b'c d'e", ["a", "bc de"]),
    ('a "it\'s" \'say "so"\'', ["a", "it's", 'say "so"']),
    (r"a \x41\101\u00e4\U0001F40D", ["a", "AAä🐍"]),
    (r"a \xc3\xa4", ["a", os.fsdecode("ä".encode())]),
    (r"a 'b\tc\s\\' \"", ["a", "b\tc \\", '"']),
    (r"a \d+ \ end\ ", ["a", r"\d+", "\\ end\\ "]),
    ("a $HOME ${HOME} $$ %i", ["a", "$HOME", "${HOME}", "$$", "%i"]),
    (r"find . -exec x {} \;", ["find", ".", "-exec", "x", "{}", ";"]),
    ("a ';' b;c", ["a", ";", "b;c"]),
    ("", []),
]


@pytest.mark.parametrize(("line", "words"), SPLIT)
def test_a_line_is_split_as_in_a_unit(line: str, words: list[str]) -> None:
    assert split(line) == words


REFUSED = [
    (["a"], "expected a program and its arguments"),
    ("", "it names no program"),
    ("''", "it names no program"),
    ("a 'b", "a quote (') is not closed"),
    ("a ; b", "';' does not separate commands here"),
    ("-a", "prefixes such as '-' have no meaning here"),
    (r"a \x00", "the character NUL"),
    (r"a \UFFFFFFFF", "is no character"),
]


@pytest.mark.parametrize(("value", "problem"), REFUSED)
def test_what_is_no_command_line_is_refused(value: object, problem: str) -> None:
    with pytest.raises(Invalid) as caught:
        CommandLine().check(value)
    assert problem in str(caught.value)


SECRETS = [
    ["migrate 'sesame"],
    [r"migrate sesame\UFFFFFFFF"],
    ["migrate ; sesame"],
    ["'' sesame"],
    ["-migrate sesame"],
    ["migrate sesame\0"],
    [["migrate", "sesame"]],
    "migrate sesame",
    {"migrate": "sesame"},
]


@pytest.mark.parametrize("value", SECRETS)
def test_no_refusal_has_the_arguments(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Deploy(value)  # type: ignore[arg-type] # what a file may have
    assert "before" in caught.value.message
    assert "sesame" not in str(caught.value)
    assert "sesame" not in (caught.value.hint or "")


NO_TABLES = [
    "deploy = 'migrate sesame'",
    "deploy = ['migrate sesame']",
    "[[deploy]]\nbefore = ['migrate sesame']",
]


@pytest.mark.parametrize("text", NO_TABLES)
def test_what_is_no_table_is_refused_without_the_commands_in_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(text)
    with pytest.raises(
        ConfigError, match=r"1: deploy: found (a string|a list), expected"
    ) as caught:
        Invocation(path, {}, Path("/")).load()
    assert "sesame" not in str(caught.value)


def test_each_refused_command_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text("[deploy]\nbefore = [\n  'a',\n  '+b',\n  3,\n]\n")
    with pytest.raises(ConfigError) as caught:
        Invocation(path, {}, Path("/")).load()
    first, second = caught.value.message.splitlines()
    assert first.startswith(f"{path}:2: deploy.before[1]: prefixes such as '+' have no")
    assert second.startswith(f"{path}:2: deploy.before[2]: found a number, expected a program")
    path.write_text("[deploy]\nbefore = 'a'\n")
    with pytest.raises(ConfigError, match=r"2: deploy.before: found a string, expected a list"):
        Invocation(path, {}, Path("/")).load()


def test_there_are_no_commands_by_default() -> None:
    assert ServerConfig().deploy == Deploy() == Deploy(())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A virtual environment's ``bin``, a directory on PATH, and the application's."""
    for program in ("venv/bin/both", "path/both", "path/one", "app/one", "app/bin/two"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return tmp_path


def find(place: Path, name: str) -> str:
    path = search_path(str(place / "venv"), "/usr", {"PATH": str(place / "path")})
    return find_program(name, str(place / "app"), path).removeprefix(f"{place}/")


def test_a_program_is_looked_for_in_the_virtual_environment_first(place: Path) -> None:
    assert find(place, "both") == "venv/bin/both"
    assert find(place, "one") == "path/one"
    assert find(place, "bin/two") == "app/bin/two"
    assert find(place, "./one") == "app/one"
    assert find(place, "/bin/sh") == "/bin/sh"


def test_without_a_virtual_environment_it_is_the_interpreters_own() -> None:
    assert search_path("", "/opt/python", {"PATH": "/a:/b"}) == "/opt/python/bin:/a:/b"
    assert search_path("", "/usr", {}) == f"/usr/bin:{os.defpath}"


def test_a_program_that_cannot_be_run_is_explained(place: Path) -> None:
    (place / "path/one").chmod(0o644)
    moved = place / "venv/bin/django-admin"
    moved.write_text("#!/nowhere/bin/python\n")
    moved.chmod(0o755)
    for name, message, hint in (
        ("gone", "there is no program 'gone'", f"looked for in {place}/venv/bin, {place}/path"),
        ("bin/gone", "there is no program 'bin/gone'", f"looked for in {place}/app/bin/gone"),
        ("one", f"{place}/path/one is not executable", "chmod +x"),
        ("bin/", f"{place}/app/bin is a directory", ""),
        (
            "django-admin",
            f"the interpreter of {moved} is not there: /nowhere/bin/python",
            "has to be made anew",
        ),
    ):
        with pytest.raises(ApplicationError) as caught:
            find(place, name)
        assert caught.value.message == message
        assert hint in caught.value.hint


def test_a_place_on_the_path_that_may_not_be_looked_into_is_passed_over() -> None:
    """The PATH of an administrator often names a directory in a home."""

    def look() -> None:
        os.chdir("/")
        with tempfile.TemporaryDirectory(dir="/tmp") as place:
            Path(place, "closed").mkdir(0o000)
            assert find_program("sh", "", f"{place}/closed:/bin") == "/bin/sh"
            with pytest.raises(ApplicationError, match="there is no program 'gone'"):
                find_program("gone", "", f"{place}/closed:/bin")

    as_ordinary_user(look, resource.RLIMIT_NOFILE, 1024)
