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

# The rooms from the roof to the ground, and which of the lower ones each may know. A room is a
# folder or a module directly under pounce.
MAY_KNOW = {
    "__main__": {"cli"},
    "cli": {
        "application",
        "assembly",
        "config",
        "errors",
        "systemd",
        "varlink",
        "version",
        "workers",
    },
    "pytest_plugin": {"assembly"},
    "__init__": {"application", "assembly", "config", "errors", "net", "supervisor", "version"},
    "assembly": {
        "application",
        "config",
        "errors",
        "events",
        "net",
        "supervisor",
        "systemd",
        "varlink",
    },
    "systemd": {"application", "config", "errors", "events", "ipc", "net"},
    "supervisor": {
        "application",
        "config",
        "errors",
        "events",
        "ipc",
        "loop",
        "varlink",
        "version",
        "workers",
    },
    "varlink": {"events", "loop", "net"},
    "workers": {
        "application",
        "asgi",
        "config",
        "errors",
        "events",
        "http",
        "http1",
        "http3",
        "ipc",
        "net",
        "threads",
        "websocket",
        "wsgi",
    },
    "wsgi": {"application", "asgi", "http", "threads"},
    "threads": {"application", "asgi", "config", "events", "http"},
    "websocket": {"application", "asgi", "config", "events", "http", "http1"},
    "http1": {"application", "asgi", "config", "http", "ipc", "net"},
    "http3": {"application", "asgi", "config", "errors", "events", "http", "net"},
    "asgi": {"application", "errors", "events", "http", "net"},
    "http": {"application", "config", "events", "ipc", "net"},
    "application": {"config", "errors", "events"},
    "config": {"errors", "events", "net"},
    "net": {"errors"},
    "ipc": {"errors", "events"},
    "loop": {"errors", "events"},
    "events": set(),
    "version": set(),
    "errors": set(),
}

# Arrows that run upward. An embedder's supervisor finds out by itself what its sockets are served
# with; the service's own is told.
UPWARD = {("supervisor", "assembly"): {"supervisor/supervisor.py"}}

# Of some rooms, others may know only this much.
DOORS = {
    ("supervisor", "workers"): {"pounce.workers"},
    ("supervisor", "application"): {
        "pounce.application.ending",
        "pounce.application.forks",
        "pounce.application.interpreter",
    },
    ("cli", "application"): {"pounce.application.interface", "pounce.application.loader"},
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
    ("assembly", "supervisor"): {"pounce.supervisor", "pounce.supervisor.titles"},
    ("systemd", "application"): {"pounce.application.interpreter"},
    ("varlink", "net"): {"pounce.net.listeners"},
    ("http1", "net"): {"pounce.net.forwarded", "pounce.net.host", "pounce.net.turns"},
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
    ("asgi", "net"): {"pounce.net.tls"},
    ("http", "net"): {"pounce.net.forwarded", "pounce.net.turns"},
}

# In these rooms, whatever is typed Any may hide an arrow that runs upward.
HOLDING = ("http", "asgi", "http1", "websocket", "threads", "wsgi", "workers", "supervisor")
# Of applications and the interpreter, which may give anything.
GIVEN = {
    "http/stream.py: Stream.start_response",
    "asgi/websocket.py: Socket.accept",
    "asgi/websocket.py: Socket.start_denial",
    "http1/stream.py: RequestStream.start_response",
    "threads/async_pool.py: _across",
    "threads/async_pool.py: _on",
    "websocket/connection.py: WebSocketConnection.accept",
    "websocket/connection.py: WebSocketConnection.start_denial",
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
    """Dotted names of pounce's own modules, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("pounce."))
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            if (node.module or "").split(".")[0] == "pounce":
                yield from (_module(f"{node.module}.{name.name}") for name in node.names)


def _module(name: str) -> str:
    """The module that *name* is or is in."""
    path = ROOT.joinpath(*name.split(".")[1:])
    is_module = path.is_dir() or path.with_suffix(".py").exists()
    return name if is_module else name.rpartition(".")[0]


def room_of_file(name: str) -> str:
    return Path(name).parts[0].removesuffix(".py")


def room_of_import(name: str) -> str:
    return [*name.split("."), "__init__"][1]


def dotted(name: str) -> str:
    """The module that the file *name* holds."""
    return ".".join(["pounce", *Path(name).with_suffix("").parts]).removesuffix(".__init__")


def test_every_room_stands_above_those_it_knows() -> None:
    rooms = list(MAY_KNOW)
    for room, known in MAY_KNOW.items():
        assert all(rooms.index(room) < rooms.index(each) for each in known), room


def test_every_file_is_in_a_room() -> None:
    assert {room_of_file(name) for name in MODULES} == set(MAY_KNOW)


@pytest.mark.parametrize("name", MODULES)
def test_imports_follow_the_arrows(name: str) -> None:
    mine = room_of_file(name)
    for each in imported(TREES[name]):
        other = room_of_import(each)
        if other != mine and name not in UPWARD.get((mine, other), set()):
            assert other in MAY_KNOW[mine], f"{name} may not import {each}"
            assert each in DOORS.get((mine, other), {each}), f"{name} may not import {each}"


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {dotted(name): set(imported(tree)) for name, tree in TREES.items()}
    # Whoever imports the package gets names by a function that imports their modules when asked.
    graph["pounce"] = set()
    list(TopologicalSorter(graph).static_order())


def test_no_arrow_is_listed_that_nothing_follows() -> None:
    followed = {
        (room_of_file(name), room_of_import(each))
        for name, tree in TREES.items()
        for each in imported(tree)
    }
    listed = {(mine, other) for mine, others in MAY_KNOW.items() for other in others}
    assert (listed | set(UPWARD)) - followed == set()


def test_no_seam_is_untyped_but_those_listed() -> None:
    found = {
        f"{name}: {each}"
        for name, tree in TREES.items()
        if room_of_file(name) in HOLDING
        for each in untyped(tree)
    }
    assert found == GIVEN


def untyped(tree: ast.AST, within: str = "") -> Iterator[str]:
    """Attributes, and functions with parameters or results, that are Any or call with it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from untyped(node, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [each.annotation for each in [*node.args.args, *node.args.kwonlyargs]]
            if any(map(_is_untyped, [*given, node.returns])):
                yield within + node.name
        elif isinstance(node, ast.AnnAssign) and _is_untyped(node.annotation):
            yield within + ast.unparse(node.target)


def _is_untyped(annotation: ast.expr | None) -> bool:
    match annotation:
        case ast.Name(id="Any"):
            return True
        case ast.BinOp(left=left, right=right):
            return _is_untyped(left) or _is_untyped(right)
        case ast.Subscript(value=ast.Name(id="Callable"), slice=ast.Tuple(elts=[given, result])):
            parameters = given.elts if isinstance(given, ast.List) else []
            return any(map(_is_untyped, [*parameters, result]))
    return False


@pytest.mark.parametrize("name", MODULES)
def test_only_systemd_knows_its_variables(name: str) -> None:
    texts = {
        node.value
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    if room_of_file(name) != "systemd":
        assert not texts & READ_BY_SYSTEMD_ALONE


@pytest.mark.parametrize(
    "name", [name for name in MODULES if room_of_file(name) in ("http1", "http3", "websocket")]
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
    assert mine == (["pounce"] if name == "events/log.py" else []), "use pounce.events.loggers"


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
