"""The arrows of the design: which part may know which, and how large a piece may grow."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import pounce

ROOT = Path(pounce.__file__).parent
MODULES = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}

# A part is a package or a module directly under pounce; every import of another is listed.
MAY_KNOW = {
    "__main__": {"cli"},
    "__init__": {
        "config",
        "embedding",
        "errors",
        "listening",
        "net",
        "server",
        "supervisor",
        "sync_app",
    },
    "pytest_plugin": {"embedding"},
    "embedding": {
        "config",
        "endpoints",
        "lifecycle",
        "listening",
        "log",
        "server",
        "supervisor",
    },
    "cli": {
        "__version__",
        "application",
        "asgi",
        "commands",
        "config",
        "config_file",
        "config_text",
        "durations",
        "endpoints",
        "errors",
        "foreground",
        "instance",
        "kinds",
        "launch",
        "listening",
        "options",
        "systemd",
        "varlink",
        "workers",
    },
    "foreground": {
        "config_file",
        "ending",
        "launch",
        "log",
        "server",
        "systemd",
        "titles",
    },
    "server": {
        "config",
        "descriptors",
        "endpoints",
        "errors",
        "instance",
        "lifecycle",
        "listening",
        "log",
        "loggers",
        "net",
        "supervisor",
        "systemd",
        "varlink",
    },
    "instance": {"config", "errors", "listening", "net", "systemd"},
    "endpoints": {"config", "errors", "kinds", "net"},
    "listening": {"config", "errors", "loggers", "net"},
    "launch": {"config", "config_file", "errors"},
    "systemd": {
        "config",
        "config_file",
        "cpus",
        "errors",
        "handover",
        "interpreter",
        "kinds",
        "lifecycle",
        "loggers",
        "net",
        "options",
    },
    "supervisor": {
        "__version__",
        "channel",
        "commands",
        "config",
        "descriptors",
        "durations",
        "ending",
        "endpoints",
        "errors",
        "flight",
        "forks",
        "handover",
        "interpreter",
        "lifecycle",
        "listening",
        "log",
        "loggers",
        "mailboxes",
        "net",
        "scoreboard",
        "seldom",
        "titles",
        "varlink",
        "workers",
    },
    "workers": {
        "application",
        "asgi",
        "channel",
        "config",
        "ending",
        "errors",
        "flight",
        "forks",
        "handover",
        "http1",
        "http3",
        "interpreter",
        "log",
        "loggers",
        "mailboxes",
        "net",
        "scoreboard",
        "seldom",
        "sync",
        "sync_app",
        "websocket",
        "wsgi",
    },
    "application": {"asgi", "config", "errors", "sync_app"},
    "wsgi": {"asgi", "sync"},
    "sync": {"asgi", "config", "ending", "forks", "loggers", "seldom", "sync_app"},
    "websocket": {"asgi", "config", "http1", "loggers"},
    "http3": {"asgi", "config", "errors", "loggers", "net"},
    "http1": {"asgi", "config", "handover", "net"},
    "asgi": {"config", "errors", "flight", "forks", "loggers", "net", "seldom"},
    "log": {"lifecycle", "log_formats", "loggers", "outlets"},
    "log_formats": {"loggers"},
    "net": {"errors"},
    "config_text": {"config", "config_file", "kinds", "options", "variables"},
    "config_file": {"config", "errors", "kinds", "options"},
    "descriptors": {"config", "loggers"},
    "config": {"cpus", "deploy", "durations", "kinds", "listen", "net", "options", "variables"},
    "deploy": {"commands", "options"},
    "commands": {"errors", "kinds"},
    "listen": {"errors", "kinds", "net", "options"},
    "options": {"errors", "kinds"},
    "durations": {"kinds"},
    "variables": {"kinds"},
    "kinds": {"net"},
    "channel": {"errors", "loggers"},
    "cpus": set(),
    "errors": set(),
    "ending": {"loggers"},
    "forks": {"errors"},
    "flight": set(),
    "interpreter": set(),
    "handover": {"errors", "loggers"},
    "lifecycle": {"loggers"},
    "loggers": set(),
    "mailboxes": set(),
    "outlets": set(),
    "scoreboard": set(),
    "seldom": set(),
    "sync_app": set(),
    "titles": set(),
    "varlink": set(),
}

# Of some parts, others may know only this much.
DOORS = {
    ("supervisor", "workers"): {"pounce.workers"},
    ("cli", "asgi"): {"pounce.asgi.loader"},
    ("cli", "systemd"): {
        "pounce.systemd.credentials",
        "pounce.systemd.generator",
        "pounce.systemd.journal",
        "pounce.systemd.moments",
        "pounce.systemd.obstacles",
        "pounce.systemd.reader",
        "pounce.systemd.removal",
        "pounce.systemd.standin",
        "pounce.systemd.units",
    },
    ("cli", "workers"): {"pounce.workers"},
    ("embedding", "supervisor"): {"pounce.supervisor"},
    ("foreground", "systemd"): {"pounce.systemd.farewell"},
    ("server", "supervisor"): {"pounce.supervisor"},
    ("supervisor", "net"): {"pounce.net.listeners"},
    ("http1", "net"): {"pounce.net.forwarded", "pounce.net.host"},
    ("http3", "net"): {
        "pounce.net.certificate",
        "pounce.net.forwarded",
        "pounce.net.host",
        "pounce.net.tls",
        "pounce.net.turns",
    },
    ("workers", "net"): {
        "pounce.net.forwarded",
        "pounce.net.host",
        "pounce.net.proxy_protocol",
        "pounce.net.socket_filter",
        "pounce.net.tls",
        "pounce.net.tls_transport",
        "pounce.net.udp",
    },
    ("workers", "websocket"): {"pounce.websocket.upgrade"},
    ("asgi", "net"): {
        "pounce.net.forwarded",
        "pounce.net.host",
        "pounce.net.tls",
        "pounce.net.turns",
    },
}

READ_BY_SYSTEMD_ALONE = {
    "CREDENTIALS_DIRECTORY",
    "FDSTORE",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "RUNTIME_DIRECTORY",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
}

LONGEST_MODULE = 400
TOO_LONG: set[str] = set()
LONGEST_FUNCTION = 60


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of pounce's own modules, imports inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("pounce."))
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            if node.module == "pounce":
                yield from (f"pounce.{name.name}" for name in node.names)
            elif node.module and node.module.startswith("pounce."):
                yield node.module


def part_of_file(name: str) -> str:
    return Path(name).parts[0].removesuffix(".py")


def part_of_import(name: str) -> str:
    return name.split(".")[1]


def test_the_arrows_make_no_circle() -> None:
    order = list(TopologicalSorter(MAY_KNOW).static_order())
    assert order.index("supervisor") < order.index("server") < order.index("cli")


@pytest.mark.parametrize("name", MODULES)
def test_imports_follow_the_arrows(name: str) -> None:
    mine = part_of_file(name)
    for each in imported(TREES[name]):
        other = part_of_import(each)
        if other != mine:
            assert other in MAY_KNOW[mine], f"{name} may not import {each}"
            assert each in DOORS.get((mine, other), {each}), f"{name} may not import {each}"


def test_no_arrow_is_listed_that_nothing_follows() -> None:
    followed = {
        (part_of_file(name), part_of_import(each))
        for name, tree in TREES.items()
        for each in imported(tree)
    }
    listed = {(mine, other) for mine, others in MAY_KNOW.items() for other in others}
    assert listed - followed == set()


@pytest.mark.parametrize("name", MODULES)
def test_only_systemd_knows_its_variables(name: str) -> None:
    texts = {
        node.value
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    if part_of_file(name) != "systemd":
        assert not texts & READ_BY_SYSTEMD_ALONE


@pytest.mark.parametrize(
    "name", [name for name in MODULES if part_of_file(name) in ("http1", "http3", "websocket")]
)
def test_an_engine_knows_no_address_family(name: str) -> None:
    names = {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(TREES[name])}
    assert not {each for each in names if each.startswith("AF_")}


@pytest.mark.parametrize("name", MODULES)
def test_every_logger_is_out_of_an_applications_reach(name: str) -> None:
    named = [
        node.args[0].value
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "") == "getLogger"
        and isinstance(node.args[0], ast.Constant)
    ]
    mine = [each for each in named if str(each).startswith("pounce")]
    assert mine == (["pounce"] if name == "log.py" else []), "use pounce.loggers.get_logger"


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_too_long(name: str, request: pytest.FixtureRequest) -> None:
    if name in TOO_LONG:
        request.applymarker(pytest.mark.xfail(strict=True, reason="to be divided"))
    assert len(MODULES[name].read_text().splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("name", MODULES)
def test_no_function_is_too_long(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, node.name
