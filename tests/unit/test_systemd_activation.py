"""Inherited sockets, in a real process that starts as systemd starts a service."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pounce.application.interpreter import has_global_lock

# What systemd does between fork and exec: descriptors from 3 on, LISTEN_PID is one's own.
LAUNCHER = """
import fcntl, os, sys
count, given, variables, child = int(sys.argv[1]), sys.argv[2], sys.argv[3:-1], sys.argv[-1]
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in given.split()]
os.closerange(3, 100)
for number, descriptor in enumerate(high, start=3):
    os.dup2(descriptor, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count))
os.environ.update(variable.split("=", 1) for variable in variables)
os.execv(sys.executable, [sys.executable, "-c", child])
"""

SERVICE = """
import json, os, sys
from pounce.errors import ListenError
from pounce.systemd.activation import inherited_descriptors
try:
    found = inherited_descriptors().sockets
except ListenError as error:
    sys.exit(f"{error.exit_code}: {error}")
described = [
    [s.name, s.sock.family.name, s.sock.type.name, s.sock.fileno(), s.sock.get_inheritable()]
    for s in found
]
variables = [name for name in os.environ if name.startswith("LISTEN_")]
print(json.dumps({"sockets": described, "second call": len(inherited_descriptors().sockets),
                  "variables": variables}))
"""

# Both ways of reading the variables, which systemd-python removes.
BOTH = """
import json, os
from pounce.errors import ListenError
from pounce.systemd import activation
environment = {name: os.environ.get(name, "") for name in activation._VARIABLES}
try:
    ours = activation.by_variables(environment)
except ListenError as error:
    ours = str(error)
print(json.dumps([ours, activation.by_systemd_python()]))
"""


def start(
    descriptors: list[int], *variables: str, count: int | None = None, child: str = SERVICE
) -> subprocess.CompletedProcess[str]:
    announced = str(len(descriptors) if count is None else count)
    given = " ".join(map(str, descriptors))
    return subprocess.run(
        [sys.executable, "-c", LAUNCHER, announced, given, *variables, child],
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def inherited(*args: Any, **options: Any) -> dict[str, Any]:
    finished = start(*args, **options)
    assert finished.returncode == 0, finished.stderr
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def listener(stack: ExitStack, family: socket.AddressFamily, address: Any) -> int:
    sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    sock.bind(address)
    sock.listen()
    return sock.fileno()


def test_tcp_unix_and_udp_arrive_in_order_with_their_names(
    stack: ExitStack, tmp_path: Path
) -> None:
    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind(("127.0.0.1", 0))
    descriptors = [
        listener(stack, socket.AF_INET, ("127.0.0.1", 0)),
        listener(stack, socket.AF_INET6, ("::1", 0)),
        listener(stack, socket.AF_UNIX, str(tmp_path / "socket")),
        udp.fileno(),
    ]
    answer = inherited(descriptors, "LISTEN_FDNAMES=public:unknown:admin:quic")
    assert answer["sockets"] == [
        ["public", "AF_INET", "SOCK_STREAM", 3, False],
        ["", "AF_INET6", "SOCK_STREAM", 4, False],
        ["admin", "AF_UNIX", "SOCK_STREAM", 5, False],
        ["quic", "AF_INET", "SOCK_DGRAM", 6, False],
    ]


def test_the_variables_are_used_once_and_hidden_from_children(stack: ExitStack) -> None:
    descriptor = listener(stack, socket.AF_INET, ("127.0.0.1", 0))
    answer = inherited([descriptor], "LISTEN_FDNAMES=public", "LISTEN_PIDFDID=1")
    assert answer["second call"] == 0
    assert answer["variables"] == []


def test_what_a_socket_unit_opens_because_it_has_to_is_left_out(
    stack: ExitStack, tmp_path: Path
) -> None:
    unused = f"{tmp_path}/shop.unused"
    descriptors = [
        listener(stack, socket.AF_UNIX, unused),
        listener(stack, socket.AF_UNIX, f"{unused}-not"),
    ]
    child = f"from pounce.systemd import activation\nactivation.UNUSED = '{tmp_path}/{{}}.unused'\n"
    answer = inherited(descriptors, child=child + SERVICE)
    assert answer["sockets"] == [["", "AF_UNIX", "SOCK_STREAM", 4, False]]


def test_names_are_optional(stack: ExitStack) -> None:
    descriptor = listener(stack, socket.AF_INET, ("127.0.0.1", 0))
    assert inherited([descriptor])["sockets"] == [["", "AF_INET", "SOCK_STREAM", 3, False]]


@pytest.mark.parametrize("pid", ["1", "", "me"])
def test_sockets_meant_for_another_process_are_left_alone(pid: str, stack: ExitStack) -> None:
    descriptor = listener(stack, socket.AF_INET, ("127.0.0.1", 0))
    finished = start([descriptor], f"LISTEN_PID={pid}")
    answer = json.loads(finished.stdout)
    assert answer["sockets"] == []
    assert answer["variables"] == []
    # As where a shell has started pounce without exec: else nobody would know why.
    assert f"LISTEN_PID names ({pid or 'none'}), and this is process" in finished.stderr


def test_without_systemd_there_are_none() -> None:
    assert inherited([], "LISTEN_PID=", "LISTEN_FDS=")["sockets"] == []


def test_each_unusable_descriptor_is_named(stack: ExitStack, tmp_path: Path) -> None:
    good = listener(stack, socket.AF_INET, ("127.0.0.1", 0))
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    stack.callback(os.close, writing)
    directory = os.open(tmp_path, os.O_RDONLY)
    stack.callback(os.close, directory)
    file = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
    stack.callback(os.close, file)
    device = os.open(os.devnull, os.O_WRONLY)
    stack.callback(os.close, device)
    left, right = map(stack.enter_context, socket.socketpair())
    datagram = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    netlink = stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
    cases = {
        reading: "a pipe or FIFO",
        directory: "a directory",
        file: "a regular file",
        device: "a character device",
        left.fileno(): "a stream socket that does not listen",
        datagram.fileno(): "an AF_UNIX socket of type SOCK_DGRAM",
        netlink.fileno(): "a socket of address family AF_NETLINK",
    }
    assert right.fileno() > 0
    for descriptor, description in cases.items():
        finished = start([good, descriptor])
        assert finished.returncode == 1
        assert finished.stderr.startswith(f"71: inherited descriptor 4 is {description}")


def test_a_descriptor_that_is_announced_but_closed_is_named(stack: ExitStack) -> None:
    good = listener(stack, socket.AF_INET, ("127.0.0.1", 0))
    finished = start([good], count=2)
    assert finished.stderr.startswith("71: inherited descriptor 4 is not open")


@pytest.mark.parametrize("count", ["", "many", "-1", "9" * 11, "9" * 24])
def test_a_count_that_is_no_number_is_an_error(count: str) -> None:
    finished = start([], f"LISTEN_FDS={count}")
    assert "LISTEN_FDS should be a number of descriptors" in finished.stderr


# What systemd writes, and what it never would. Where libsystemd gives no answer, it refuses the
# variables, and ours is for a person; or there is nothing to be told.
VARIABLES = [
    ([], True),
    (["LISTEN_FDNAMES=web:unknown"], True),
    (["LISTEN_FDNAMES=web:stored"], True),
    (["LISTEN_FDNAMES=pounce-store-note:\u00e4 b"], True),
    (["LISTEN_FDNAMES=web:"], True),
    (["LISTEN_PID=1"], True),
    (["LISTEN_PID=9999999", "LISTEN_FDNAMES=a:b"], True),
    (["LISTEN_FDNAMES=only-one"], False),
    (["LISTEN_FDNAMES=a:b:c"], False),
    (["LISTEN_PID=me"], False),
    (["LISTEN_FDS=0"], False),
    (["LISTEN_FDS=-1"], False),
    (["LISTEN_FDS=many"], False),
    (["LISTEN_FDS=7"], False),
]


# Not pytest.importorskip: that would switch the lock of a free-threaded interpreter on.
@pytest.mark.skipif(not importlib.util.find_spec("systemd"), reason="there is no systemd-python")
@pytest.mark.parametrize(("variables", "is_answered"), VARIABLES)
def test_systemd_python_reads_the_same(
    variables: list[str], is_answered: bool, stack: ExitStack
) -> None:
    two = [listener(stack, socket.AF_INET, ("127.0.0.1", 0)) for _ in range(2)]
    finished = start(two, *variables, child=BOTH)
    assert finished.returncode == 0, finished.stderr
    ours, theirs = json.loads(finished.stdout)
    assert (theirs is not None) == (is_answered and has_global_lock())
    assert theirs is None or ours == theirs
