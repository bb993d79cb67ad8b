"""Files: every problem with its line, and files and command line merged."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from pounce.config.file import ConfigFile, Given, Invocation, Settings, find
from pounce.config.options import options
from pounce.config.service import DEFAULT_LISTEN, Listen
from pounce.errors import ConfigError
from pounce.net.address import Address


def load(path: Path | None, **given: str) -> Settings:
    flags = {key: Given(f"--{key}", (word,)) for key, word in given.items()}
    return Invocation(path, flags, Path("/base")).load()


def write(directory: Path, text: str | bytes) -> Path:
    path = directory / "shop.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path, **given: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, **given)
    assert caught.value.exit_code == 78
    return caught.value.message.replace(str(path), "shop.toml")


COMPLETE = """\
app = "shop:app"
workers = 4

forwarded_allow = [
    "unix",
    "10.0.0.0/8",
]
keep_alive_timeout = 5

[environment]
A = "1"

[[listen]]
address = "127.0.0.1:80"

[[listen]]
address = "unix:/run/shop.sock"
name = "web"
"""


def test_a_complete_file(tmp_path: Path) -> None:
    config = load(write(tmp_path, COMPLETE)).config
    assert (config.app, config.workers, config.keep_alive_timeout) == ("shop:app", 4, 5.0)
    assert config.forwarded_allow == ("unix", "10.0.0.0/8")
    assert config.environment == {"A": "1"}
    assert config.listen == (
        Listen(address=Address.parse("127.0.0.1:80")),
        Listen(address=Address.parse("unix:/run/shop.sock"), name="web"),
    )


DURATION = 'seconds or a duration such as "500 ms", "30 s", "5 min" or "2 h", from 1 ms to 7 d'

PROBLEMS = [
    ("wrokers = 1", "1: wrokers: unknown key; did you mean workers?"),
    ("\nlog-level = 1", "2: log-level: unknown key; did you mean log_level?"),
    (
        "\r\n# no\r\nworkers = true\r\n",
        "3: workers: found true (a boolean), expected a whole number from 0 to 1024",
    ),
    (
        'app = "a:b"\nstartup_timeout = 0 # no',
        f"2: startup_timeout: found 0 (this cannot be off), expected {DURATION}",
    ),
    (
        "startup_timeout = 1979-05-27",
        f"1: startup_timeout: found 1979-05-27 (a date or time), expected {DURATION}",
    ),
    (
        'keep_alive_timeout = "5 min"\nreload_timeout = "30 parsecs"',
        f'2: reload_timeout: found "30 parsecs", expected {DURATION}',
    ),
    (
        'app = """\na:\n"""\nworkers = 1',
        '1: app: found "a:\\n", expected "module:attribute" or "module:factory()"',
    ),
    (
        'workers = 1\nforwarded_allow = [\n  "unix",\n  "x",\n]',
        (
            '2: forwarded_allow[1]: found "x", '
            'expected an IP address, a network such as 10.0.0.0/8, "unix" or "*"'
        ),
    ),
    (
        '[environment]\nA = "1"\n\nB = 2',
        "4: environment.B: found a number, expected a string",
    ),
    (
        '[environment]\nA = "1"\nworkers = 2',
        (
            "3: environment.workers: found a number, expected a string; "
            "to set the option workers, write it above the first [table]"
        ),
    ),
    (
        '[[listen]]\naddress = ":80"\n[[listen]]\naddress = "x"',
        (
            "4: listen[1].address: 'x' is not an address; "
            "use host:port, [ipv6]:port, :port, unix:/path, unix:@name or fd:NUMBER"
        ),
    ),
    (
        '\n[[listen]]\nname = "web"',
        (
            "2: listen[0]: address is missing, "
            "expected host:port, [ipv6]:port, :port, unix:/path, unix:@name or fd:NUMBER"
        ),
    ),
    (
        '[[listen]]\naddress = ":80"\n\n[[listen]]\naddress = ":80"',
        "5: listen[1].address: :80 is given twice; each address may be given once",
    ),
    (
        "[listen]\naddress = ':80'",
        '1: listen: found {address = ":80"} (a table), expected tables with the keys '
        + ", ".join(option.key for option in options(Listen)),
    ),
    (b"workers = 1\n# \xff", "2: not UTF-8: found the byte 0xff"),
]


@pytest.mark.parametrize(("text", "problem"), PROBLEMS)
def test_a_problem_has_its_line(text: str | bytes, problem: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path, text)) == f"shop.toml:{problem}"


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = 'environment.A = 1\nworker = 1\nenvironment.B = 2\n[[listen]]\naddres = ":80"\n'
    path = write(tmp_path, text)
    places = [line.rpartition(": ")[0] for line in refusal(path, workers="x").splitlines()]
    assert places == [
        "shop.toml:1: environment.A",
        "shop.toml:2: worker",
        "shop.toml:3: environment.B",
        "shop.toml:4: listen[0]",
        "shop.toml:5: listen[0].addres",
        "--workers",
    ]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("\nworkers = = 1", "shop.toml:2: not TOML: Invalid value (column "),
        ('app = "a:b"\napp = "c:d"\n', "shop.toml:2: not TOML: Cannot overwrite a value (column "),
        ('app = """a:b\n', "shop.toml:2: not TOML: "),
    ],
)
def test_what_is_not_toml(text: str, start: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path, text)).startswith(start)


def test_hopeless_numbers_and_nesting_are_not_toml(tmp_path: Path) -> None:
    for text in ("workers = " + "9" * 10_000, "workers = " + "[" * 100_000):
        assert refusal(write(tmp_path, text)).startswith("shop.toml: not readable as TOML")


def test_unreadable_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "shop.toml") == "shop.toml: cannot be read: No such file or directory"
    (tmp_path / "shop.toml").mkdir()
    assert refusal(tmp_path / "shop.toml") == "shop.toml: cannot be read: Is a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.chmod(0)
    assert refusal(path) == "shop.toml: cannot be read: Permission denied"


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, COMPLETE)
    config = load(path, workers="2", listen="fd:3", environment="B=2").config
    assert config.workers == 2
    assert config.listen == (Listen(address=Address.parse("fd:3")),)
    assert config.environment == {"A": "1", "B": "2"}
    assert config.keep_alive_timeout == 5


def test_each_value_knows_its_source(tmp_path: Path) -> None:
    path = write(tmp_path, COMPLETE)
    settings = load(path, log_level="debug", environment="B=2")
    sources = {
        ("workers",): f"{path}:2",
        ("forwarded_allow",): f"{path}:4",
        ("keep_alive_timeout",): f"{path}:8",
        ("environment", "A"): f"{path}:11",
        ("environment", "B"): "command line --environment",
        ("listen", 1, "name"): f"{path}:18",
        ("listen", 0, "name"): "default",
        ("log_level",): "command line --log_level",
        ("log_format",): "default",
    }
    assert {steps: settings.source(*steps) for steps in sources} == sources


def test_relative_paths_start_at_the_file_or_where_the_command_was_given(tmp_path: Path) -> None:
    path = write(tmp_path, 'directory = "code"\nvirtualenv = "../venv"\naccess_log = "shop.log"\n')
    config = load(path).config
    assert config.directory == f"{tmp_path}/code"
    assert config.virtualenv == f"{tmp_path}/../venv"
    assert config.access_log == f"{tmp_path}/shop.log"
    config = load(path, directory="here", access_log="on", virtualenv="/srv/venv").config
    assert config.directory == "/base/here"
    assert (config.access_log, config.virtualenv) == ("on", "/srv/venv")


def test_flags_that_are_for_every_address(tmp_path: Path) -> None:
    path = write(tmp_path, COMPLETE)
    settings = load(path, certificate="shop.pem", key="credential:shop")
    entries = settings.config.listen
    assert [str(entry.address) for entry in entries] == ["127.0.0.1:80", "unix:/run/shop.sock"]
    for entry in entries:
        assert (entry.certificate, entry.key) == (("/base/shop.pem",), ("credential:shop",))
    assert settings.source("listen", 1, "key") == "command line --key"
    assert settings.source("listen", 1, "name") == f"{path}:18"
    assert load(None, certificate="shop.pem").config.listen == (
        replace(DEFAULT_LISTEN, certificate=("/base/shop.pem",)),
    )
    with pytest.raises(ConfigError, match="key: found 1, expected one for each certificate"):
        load(path, key="shop.key")


def test_a_listeners_files_start_at_the_file(tmp_path: Path) -> None:
    text = '[[listen]]\naddress = ":443"\ncertificate = ["a.pem", "credential:b"]\n'
    [entry] = load(write(tmp_path, text)).config.listen
    assert entry.certificate == (f"{tmp_path}/a.pem", "credential:b")


def test_a_reload_reads_the_file_again(tmp_path: Path) -> None:
    path = write(tmp_path, "workers = 1")
    invocation = Invocation(path, {}, tmp_path)
    assert invocation.load().config.workers == 1
    write(tmp_path, "workers = 2")
    assert invocation.load().config.workers == 2


def test_services_are_found_by_name(tmp_path: Path) -> None:
    write(tmp_path, "")
    directory = tmp_path / "pounce"
    directory.mkdir()
    path = write(directory, "")
    assert find("shop", directory) == path
    for name in ("shpo", "../shop", "shop.toml", str(path).removesuffix(".toml")):
        with pytest.raises(ConfigError) as caught:
            find(name, directory)
        assert caught.value.message == (
            f"{name!r} is neither an application nor a service configured in {directory}"
        )
        assert caught.value.hint.startswith("configured there: shop;")


def test_no_services_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find("shop", tmp_path / "missing")
    assert caught.value.hint.startswith("configured there: none;")


statements = st.sampled_from(
    [
        "K = 1",
        'K = """\nmore = 1\n\n[x]\n"""',
        "K = '''\n# text\n'''",
        "K = [\n  1, # one\n\n  2\n]",
        "K.a.b = true",
        "K = { a = 1, b = [1] }",
        "# K",
        "",
        "[K]\na = 1",
        "[[K]]\n\na = 1\n[[K.b]]",
    ]
)


@given(st.lists(statements, max_size=8))
def test_lines_are_those_where_keys_are_written(
    tmp_path_factory: pytest.TempPathFactory, chosen: list[str]
) -> None:
    names = [f"k{number}" for number in range(len(chosen))]
    texts = [text.replace("K", name) for text, name in zip(chosen, names, strict=True)]
    file = ConfigFile(write(tmp_path_factory.mktemp("lines"), "\n".join(texts)))
    assert {steps[-1]: line for steps, line in file.lines.items() if steps[-1] in names} == dict(
        _starts(texts, names)
    )


def _starts(texts: list[str], names: list[str]) -> Iterator[tuple[str, int]]:
    line = 1
    for text, name in zip(texts, names, strict=True):
        if tomli.loads(text):
            yield name, line
        line += text.count("\n") + 1
