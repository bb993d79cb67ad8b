"""The control socket: a Varlink service (https://varlink.org/Service) on the supervisor's loop.

Messages are JSON objects that end in a NUL byte. Only root and the service's own user are
heard (SO_PEERCRED, unix(7)). A method may answer at once or later; a connection's next call is
looked at when the one before is answered, as the protocol demands.
"""

import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pounce.events.loggers import get_logger
from pounce.events.seldom import Seldom
from pounce.loop import Loop, Timer
from pounce.net.listeners import close_listener, open_private

logger = get_logger("pounce.supervisor")

_MAX_CALL = 64 * 1024
# Seconds that accepting pauses when descriptors have run out: the listener stays readable.
_PAUSE = 1.0
# So many callers at once, each a descriptor; one more takes the place of the one that has been
# idle for the longest time.
_MOST_CALLERS = 32
# Seconds after which a caller is idle for too long. One whose call is under way is not idle.
_MOST_IDLE = 300.0
_SWEEP = 10.0
_SERVICE = "org.varlink.service"

Parameters = dict[str, Any]
Reply = Callable[[Parameters], None]


class CallFailed(Exception):
    """A call ends in the Varlink error *name*."""

    def __init__(self, name: str, parameters: Parameters) -> None:
        super().__init__(name)
        self.name = name
        self.parameters = parameters


Fail = Callable[[CallFailed], None]
Method = Callable[[Parameters, Reply, Fail], None]


class ControlServer:
    """Listens on *path* and offers *methods*, full names, as *description* declares them.

    *information* is what GetInfo tells: vendor, product, version, url. Raises ListenError.
    """

    def __init__(
        self,
        loop: Loop,
        path: Path,
        description: str,
        methods: Mapping[str, Method],
        information: Mapping[str, str],
    ) -> None:
        self._loop = loop
        self._interface = description.split("interface ", 1)[1].split()[0]
        self._description = description
        self._information = information
        self._methods: dict[str, Method] = {
            **methods,
            f"{_SERVICE}.GetInfo": self._get_info,
            f"{_SERVICE}.GetInterfaceDescription": self._get_description,
        }
        self._callers: set[_Caller] = set()
        self._crowd = Seldom()
        self._pause: Timer | None = None
        self._listener = open_private(path)
        self._watch()
        self._sweep()

    def close(self) -> None:
        """Hang up on everybody and remove the path."""
        self._next_sweep.cancel()
        if self._pause is None:
            self._loop.unwatch(self._listener.fileno())
        else:
            self._pause.cancel()
        for caller in list(self._callers):
            caller.hang_up()
        close_listener(self._listener)

    def close_in_child(self) -> None:
        """Undo what a forked child has inherited of this."""
        self._listener.close()
        for caller in self._callers:
            caller.sock.close()

    def call(self, caller: "_Caller", message: bytes) -> None:
        """Carry out one call of *caller*."""
        try:
            name, parameters, caller.oneway = _parse(message)
            method = self._methods.get(name)
            if method is None:
                raise _unknown(name, self._interface)
            method(parameters, caller.reply, caller.fail)
        except CallFailed as error:
            caller.fail(error)

    def forget(self, caller: "_Caller") -> None:
        """*caller* has hung up."""
        self._callers.discard(caller)

    def _watch(self) -> None:
        self._pause = None
        self._loop.watch(self._listener.fileno(), self._accept)

    def _sweep(self) -> None:
        """Hang up on callers that have been idle for too long."""
        self._next_sweep = self._loop.call_later(_SWEEP, self._sweep)
        idle_since = self._loop.now - _MOST_IDLE
        for caller in list(self._callers):
            if not caller.is_served and caller.active_at < idle_since:
                caller.hang_up()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the caller has left the queue
        except OSError as error:
            self._tell(f"the control socket takes no callers for {_PAUSE} s: {error.strerror}")
            self._loop.unwatch(self._listener.fileno())
            self._pause = self._loop.call_later(_PAUSE, self._watch)
            return
        if _may_call(sock) and self._has_place():
            self._callers.add(_Caller(self._loop, self, sock))
        else:
            sock.close()

    def _has_place(self) -> bool:
        """Whether there is a place for another caller; one that is idle may lose its own."""
        if len(self._callers) < _MOST_CALLERS:
            return True
        self._tell(f"the control socket has {_MOST_CALLERS} callers: idle ones make room")
        idle = [caller for caller in self._callers if not caller.is_served]
        if idle:
            min(idle, key=lambda caller: caller.active_at).hang_up()
        return bool(idle)

    def _tell(self, what: str) -> None:
        if self._crowd.is_due():
            logger.warning(what)

    def _get_info(self, _: Parameters, reply: Reply, __: Fail) -> None:
        reply({**self._information, "interfaces": [_SERVICE, self._interface]})

    def _get_description(self, parameters: Parameters, reply: Reply, __: Fail) -> None:
        wanted = parameters.get("interface")
        if not isinstance(wanted, str):
            raise CallFailed(f"{_SERVICE}.InvalidParameter", {"parameter": "interface"})
        if wanted not in (self._interface, _SERVICE):
            raise CallFailed(f"{_SERVICE}.InterfaceNotFound", {"interface": wanted})
        reply({"description": self._description if wanted == self._interface else _SERVICE_TEXT})


class _Caller:
    """One connection; calls are answered in their order.

    It is watched for calls, or while an answer does not fit the socket's buffer, for room; its
    next calls wait meanwhile. `active_at` is when it last sent or read something.
    """

    def __init__(self, loop: Loop, server: ControlServer, sock: socket.socket) -> None:
        self.sock = sock
        self.oneway = False
        """Whether the call under way wants no answer."""
        self._loop = loop
        self._server = server
        self._received = b""
        self._unsent = b""
        self._busy = False
        self.active_at = loop.now
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._read)

    @property
    def is_served(self) -> bool:
        """Whether a method works on its call. A caller that does not read its answer is idle."""
        return self._busy and not self._unsent

    def reply(self, parameters: Parameters) -> None:
        """Answer the call."""
        self._answer({"parameters": parameters})

    def fail(self, error: CallFailed) -> None:
        """Answer the call with an error."""
        self._answer({"error": error.name, "parameters": error.parameters})

    def hang_up(self) -> None:
        """End the connection."""
        if self._is_open:
            self._loop.unwatch(self.sock.fileno())
            self.sock.close()
            self._server.forget(self)

    @property
    def _is_open(self) -> bool:
        return self.sock.fileno() >= 0

    def _read(self) -> None:
        try:
            data = self.sock.recv(_MAX_CALL)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        self.active_at = self._loop.now
        if not data:
            self.hang_up()
            return
        self._next()
        if len(self._received) > _MAX_CALL:
            self.hang_up()

    def _next(self) -> None:
        while self._is_open and not self._busy and b"\0" in self._received:
            message, _, self._received = self._received.partition(b"\0")
            self._busy = True
            self._server.call(self, message)

    def _answer(self, body: Parameters) -> None:
        if not self._is_open:
            return  # it did not wait
        if not self.oneway:
            self._unsent = json.dumps(body).encode() + b"\0"
            self._send()
        if not self._is_open:
            return
        if self._unsent:
            self._loop.unwatch(self.sock.fileno())
            self._loop.watch_writable(self.sock.fileno(), self._send_rest)
        else:
            self._answered()

    def _answered(self) -> None:
        self._busy = False
        # Not from here: what answers may be in the midst of something.
        self._loop.post(self._next)

    def _send(self) -> None:
        try:
            sent = self.sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.hang_up()
        else:
            self._unsent = self._unsent[sent:]
            self.active_at = self._loop.now

    def _send_rest(self) -> None:
        self._send()
        if self._is_open and not self._unsent:
            self._loop.unwatch(self.sock.fileno())
            self._loop.watch(self.sock.fileno(), self._read)
            self._answered()


def _may_call(sock: socket.socket) -> bool:
    size = struct.calcsize("3i")
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())


def _parse(message: bytes) -> tuple[str, Parameters, bool]:
    """The method's full name, its parameters, and whether no answer is wanted."""
    try:
        call = json.loads(message)
    except (ValueError, RecursionError):  # nested more deeply than Python's stack
        call = None
    if not isinstance(call, dict) or not isinstance(name := call.get("method"), str):
        raise CallFailed(f"{_SERVICE}.InvalidParameter", {"parameter": "method"})
    parameters = call.get("parameters")
    if not isinstance(parameters, dict | None):
        raise CallFailed(f"{_SERVICE}.InvalidParameter", {"parameter": "parameters"})
    return name, parameters or {}, call.get("oneway") is True


def _unknown(name: str, interface: str) -> CallFailed:
    if name.rpartition(".")[0] in (interface, _SERVICE):
        return CallFailed(f"{_SERVICE}.MethodNotFound", {"method": name})
    return CallFailed(f"{_SERVICE}.InterfaceNotFound", {"interface": name.rpartition(".")[0]})


_SERVICE_TEXT = """\
# What every Varlink service offers
interface org.varlink.service

method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
"""
