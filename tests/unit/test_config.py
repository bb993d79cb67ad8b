"""Options: what each accepts and refuses, however it is given."""

import dataclasses
import math
import pickle
from typing import Any

import pytest
import tomli
from hypothesis import example, given
from hypothesis import strategies as st

from pounce.config.cpus import available_cpus
from pounce.config.kinds import Invalid, Problem, toml
from pounce.config.options import dotted, options, read
from pounce.config.service import Listen, ServerConfig
from pounce.errors import ConfigError
from pounce.net.address import Address

OPTIONS = {option.key: option for option in options(ServerConfig)}


def test_defaults_are_valid_values_of_their_options() -> None:
    config = ServerConfig()
    for key, option in OPTIONS.items():
        assert option.kind.check(option.default) == getattr(config, key)


def test_a_config_is_frozen_hashable_and_survives_pickling_and_replacement() -> None:
    config = ServerConfig(app="shop:app", environment={"A": "1"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.workers = 2  # type: ignore[misc]
    assert hash(config) == hash(ServerConfig(app="shop:app", environment={"A": "1"}))
    assert pickle.loads(pickle.dumps(config)) == config
    assert dataclasses.replace(config, workers=3).workers == 3


def test_the_environment_is_a_copy() -> None:
    environment = {"A": "1"}
    config = ServerConfig(environment=environment)
    environment["A"] = "2"
    assert config.environment == {"A": "1"}


def test_zero_workers_are_as_many_as_there_are_cpus() -> None:
    assert ServerConfig(workers=0).worker_count == available_cpus()
    assert ServerConfig(workers=7).worker_count == 7


ACCESS_LOG = '"off", "on" or a file\'s path, with "/" or "." in it'
KEYS_OF_LISTEN = ", ".join(option.key for option in options(Listen))

ACCEPTED = [
    ("app", "shop:app", "shop:app"),
    ("app", "shop.asgi:make.app()", "shop.asgi:make.app()"),
    ("app", "größe:app", "größe:app"),
    ("workers", 0, 0),
    ("workers", 1024, 1024),
    ("keep_alive_timeout", 5, 5.0),
    ("keep_alive_timeout", 0.001, 0.001),
    ("max_body_size", 2**70, 2**70),
    ("root_path", "/shop/eu", "/shop/eu"),
    ("root_path", "/größe a", "/größe a"),
    ("forwarded_allow", ["*", "unix", "10.0.0.0/8", "fd00::/8", "::1"], None),
    ("forwarded_allow", [], ()),
    ("environment", {"A": "", "B_C": "x=y"}, None),
    ("access_log", "/var/log/shop.log", "/var/log/shop.log"),
    ("log_level", "debug", "debug"),
    ("server_header", False, False),
    ("listen", [{"address": "127.0.0.1:80", "name": "web"}], None),
    ("listen", [Listen(address=Address.parse("unix:/run/x"))], None),
    ("listen", [{"address": ":443", "certificate": "a.pem"}], None),
    ("listen", [{"address": ":443", "certificate": ["a.pem"], "key": "credential:a"}], None),
]


@pytest.mark.parametrize(("key", "value", "final"), ACCEPTED)
def test_accepted(key: str, value: Any, final: Any) -> None:
    accepted = getattr(ServerConfig(**{key: value}), key)
    if final is not None:
        assert accepted == final
        assert type(accepted) is type(final)
    else:
        assert len(accepted) == len(value)


REFUSED = [
    (
        "listen",
        [{"address": ":443", "certificate": ["a", "b"], "key": "c"}],
        "listen[0]: key: found 1, expected one for each certificate, of which there are 2",
    ),
    (
        "listen",
        [{"address": ":443", "key": "c"}],
        "listen[0]: key: found 1, expected one for each certificate, of which there are 0",
    ),
    (
        "listen",
        [{"address": ":443", "certificate": ["a", ""]}],
        'listen[0].certificate[1]: found "", expected a path or credential:NAME',
    ),
    (
        "listen",
        [{"address": ":443", "certificate": "a", "client_certificates": "required"}],
        "listen[0]: client_certificates: found 'required', but client_ca is not set",
    ),
    (
        "listen",
        [{"address": ":443", "certificate": "a", "client_ca": "b"}],
        "listen[0]: client_certificates: found 'off', but client_ca is set",
    ),
    (
        "listen",
        [{"address": ":443", "client_ca": "b", "client_certificates": "optional"}],
        "listen[0]: client_ca: it needs a certificate beside it",
    ),
    (
        "listen",
        [{"address": ":0", "certificate": "a", "http3": True}],
        "listen[0]: http3: a free port (0) is another one for UDP than for TCP; choose one",
    ),
    (
        "listen",
        [{"address": ":443", "certificate": "a", "http3": True, "proxy_protocol": True}],
        "listen[0]: http3: no proxy's header introduces it (proxy_protocol); take out one of both",
    ),
    ("app", "shop", 'app: found "shop", expected "module:attribute" or "module:factory()"'),
    ("app", "shop:", 'app: found "shop:", expected "module:attribute" or "module:factory()"'),
    ("app", "shop.py:1", None),
    ("app", "shop:app\n", None),
    ("directory", "a\0b", r'directory: found "a\u0000b", expected a path'),
    ("workers", -1, "workers: found -1, expected a whole number from 0 to 1024"),
    ("workers", True, "workers: found true (a boolean), expected a whole number from 0 to 1024"),
    ("workers", 2.0, "workers: found 2, expected a whole number from 0 to 1024"),
    ("workers", "2", 'workers: found "2", expected a whole number from 0 to 1024'),
    ("max_body_size", -1, "max_body_size: found -1, expected a whole number of at least 0 bytes"),
    (
        "body_timeout",
        math.nan,
        (
            "body_timeout: found nan, expected seconds or "
            'a duration such as "500 ms", "30 s", "5 min" or "2 h", from 1 ms to 7 d'
        ),
    ),
    ("body_timeout", math.inf, None),
    ("body_timeout", 0, None),
    ("body_timeout", 10**400, None),
    ("body_timeout", False, None),
    ("worker_mode", "fork", 'worker_mode: found "fork", expected "auto", "thread" or "process"'),
    ("worker_mode", ["auto"], None),
    ("root_path", "/", None),
    ("root_path", "shop/", None),
    ("root_path", "/a%20b", None),
    ("root_path", "/a\\b", None),
    ("root_path", "/a\tb", None),
    ("forwarded_allow", "*", None),
    ("forwarded_allow", ["10.0.0.1/8"], None),
    ("forwarded_allow", ["fe80::1%eth0"], None),
    (
        "forwarded_allow",
        ["*", "localhost"],
        (
            'forwarded_allow[1]: found "localhost", expected '
            'an IP address, a network such as 10.0.0.0/8, "unix" or "*"'
        ),
    ),
    ("access_log", "", f'access_log: found "", expected {ACCESS_LOG}'),
    ("access_log", "journal", f'access_log: found "journal", expected {ACCESS_LOG}'),
    ("access_log", "-", f'access_log: found "-", expected {ACCESS_LOG}'),
    ("server_header", 1, "server_header: found 1, expected true or false"),
    ("environment", ["A=1"], "environment: found a list, expected a table of strings"),
    ("environment", {"A": 1}, "environment.A: found a number, expected a string"),
    ("environment", "A=1", "environment: found a string, expected a table of strings"),
    ("environment", {"A": "1\0"}, "environment.A: found a string with NUL, expected one without"),
    (
        "environment",
        {"A B=1": ""},
        "environment: found a name that begins \"A B\", expected one without '=' and NUL",
    ),
    (
        "listen",
        ["127.0.0.1:80"],
        "listen[0]: found a string, expected a table with the keys " + KEYS_OF_LISTEN,
    ),
    (
        "listen",
        [{"name": "web"}],
        (
            "listen[0]: address is missing, "
            "expected host:port, [ipv6]:port, :port, unix:/path, unix:@name or fd:NUMBER"
        ),
    ),
    (
        "listen",
        [{"address": "127.0.0.1:80"}, {"address": "127.0.0.1:80"}],
        "listen[1].address: 127.0.0.1:80 is given twice; each address may be given once",
    ),
    (
        "listen",
        [{"address": "127.0.0.1:80"}, {"address": ":80"}, {"address": "0.0.0.0:80"}],
        (
            "listen[1].address: :80 cannot be opened beside 127.0.0.1:80, with which it shares an "
            "address and its port; keep one of them (:80 is for all addresses, of IPv4 and IPv6)\n"
            "listen[2].address: 0.0.0.0:80 cannot be opened beside 127.0.0.1:80, with which it "
            "shares an address and its port; keep one of them (:80 is for all addresses, of IPv4 "
            "and IPv6)"
        ),
    ),
    (
        "listen",
        [{"address": "unix:/proc/1/../a"}],
        "listen[0].address: unix socket path '/proc/1/../a' goes back by '..'; use unix:/proc/a",
    ),
    (
        "listen",
        [{"address": ":80", "name": "a:b"}],
        None,
    ),
]


@pytest.mark.parametrize(("key", "value", "message"), REFUSED)
def test_refused(key: str, value: Any, message: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(**{key: value})
    assert caught.value.exit_code == 78
    if message is None:
        assert caught.value.message.startswith(key)
    else:
        assert caught.value.message == message


def test_all_refused_values_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(workers=-1, app="x", log_level="loud")  # type: ignore[arg-type]
    lines = caught.value.message.splitlines()
    assert [line.split(":")[0] for line in lines] == ["app", "workers", "log_level"]


def test_a_refused_long_value_is_shortened() -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(app="x" * 10_000)
    assert len(caught.value.message) < 150


PARSED = [
    ("workers", ("3", "4"), 4),
    ("keep_alive_timeout", ("1e2",), 100.0),
    ("keep_alive_timeout", ("75",), 75.0),
    ("keep_alive_timeout", ("5 min",), 300.0),
    ("server_header", ("false",), False),
    ("forwarded_allow", ("unix", "::1"), ("unix", "::1")),
    ("environment", ("A=1", "B=x=y", "C="), {"A": "1", "B": "x=y", "C": ""}),
    (
        "listen",
        ("127.0.0.1:80", "fd:3"),
        (Listen(address=Address.parse("127.0.0.1:80")), Listen(address=Address.parse("fd:3"))),
    ),
]


@pytest.mark.parametrize(("key", "words", "value"), PARSED)
def test_command_line_words(key: str, words: tuple[str, ...], value: object) -> None:
    assert OPTIONS[key].kind.parse(*words) == value


REFUSED_WORDS = [
    ("workers", "two"),
    ("workers", "2000"),
    ("workers", "1.5"),
    ("body_timeout", "nan"),
    ("body_timeout", "soon"),
    ("body_timeout", "0"),
    ("server_header", "maybe"),
    ("environment", "=1"),
    ("environment", "A"),
    ("listen", "localhost"),
    ("forwarded_allow", "localhost"),
]


@pytest.mark.parametrize(("key", "word"), REFUSED_WORDS)
def test_refused_command_line_words(key: str, word: str) -> None:
    with pytest.raises(Invalid, match=r"expected|use"):
        OPTIONS[key].kind.parse(word)


scalars = st.one_of(st.integers(), st.floats(), st.text(max_size=8), st.booleans(), st.none())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(key=st.sampled_from(list(OPTIONS)), value=values)
def test_any_value_is_accepted_in_a_final_form_or_refused(key: str, value: object) -> None:
    kind = OPTIONS[key].kind
    try:
        final = kind.check(value)
    except Invalid:
        return
    assert kind.check(final) == final


@given(key=st.sampled_from(list(OPTIONS)), words=st.lists(st.text(max_size=9), min_size=1))
def test_any_words_are_accepted_or_refused(key: str, words: list[str]) -> None:
    kind = OPTIONS[key].kind
    try:
        final = kind.parse(*words)
    except Invalid:
        return
    assert kind.check(final) == final


@example("\x7f")
@given(st.text() | st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1) | st.booleans())
def test_values_are_written_as_toml(value: object) -> None:
    assert tomli.loads(f"value = {toml(value)}") == {"value": value}


def test_unknown_keys_name_the_nearest_or_all() -> None:
    with pytest.raises(Invalid) as caught:
        read(Listen, {"adress": ":80", "zzz": 1})
    assert caught.value.problems == (
        Problem("unknown key; did you mean address?", ("adress",)),
        Problem(f"unknown key; known are {KEYS_OF_LISTEN}", ("zzz",)),
        Problem(
            "address is missing, expected host:port, [ipv6]:port, :port, unix:/path, unix:@name "
            "or fd:NUMBER"
        ),
    )


def test_places_are_written_as_toml_keys() -> None:
    assert dotted(("listen", 0, "address")) == "listen[0].address"
    assert dotted(("environment", "a b")) == 'environment."a b"'
