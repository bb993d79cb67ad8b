"""The configuration of one service: every option, declared once."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pounce.config.cpus import available_cpus
from pounce.config.deploy import Deploy
from pounce.config.durations import Duration
from pounce.config.kinds import (
    APPLICATION,
    ROOT_PATH,
    Boolean,
    Choice,
    FilePath,
    Integer,
    LogFilePath,
    Texts,
    TrustedPeer,
)
from pounce.config.listener import DEFAULT_LISTEN, Listen, clash
from pounce.config.options import Records, Table, option, settle
from pounce.config.variables import Variables
from pounce.events.lifecycle import MOST_WORKERS
from pounce.net.forwarded import ForwardedFields

__all__ = ["DEFAULT_LISTEN", "SECTIONS", "Deploy", "Listen", "ServerConfig"]

Interface = Literal["auto", "asgi", "wsgi"]
Execution = Literal["auto", "async", "sync"]
WorkerModeName = Literal["auto", "thread", "process"]
LoopName = Literal["auto", "uvloop", "asyncio"]
LifespanMode = Literal["auto", "on", "off"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]

SECTIONS = {
    "application": "Application",
    "listening": "Listening",
    "workers": "Workers",
    "deploy": "Deploys",
    "timeouts": "Timeouts",
    "limits": "Limits",
    "http": "HTTP",
    "websocket": "WebSocket",
    "logging": "Logging",
}
"""The groups that options are shown in, with their headings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything one service needs to know; all options have defaults.

    Raises ConfigError, naming every refused value, when built with values that the options'
    declarations do not allow.
    """

    app: str = option("application", APPLICATION, "", "the ASGI or WSGI application to serve")
    interface: Interface = option(
        "application",
        Choice("auto", "asgi", "wsgi"),
        "auto",
        "how the application is called",
        details="auto looks at the application: a coroutine function, or one with three "
        "parameters, is ASGI, one with two is WSGI, and what has a method handle_sync is a "
        "SyncApp.",
    )
    directory: str = option(
        "application",
        FilePath(),
        "",
        "the directory the application runs in and is imported from",
        details="Empty is the current directory. A relative path starts at the configuration "
        "file's directory. Symbolic links are followed anew at every reload.",
    )
    virtualenv: str = option(
        "application",
        FilePath(),
        "",
        "the virtual environment whose interpreter runs the application",
        details="pounce must be installed in it. Empty is the interpreter that runs pounce. "
        "A relative path starts at the configuration file's directory.",
    )
    environment: Mapping[str, str] = option(
        "application",
        Variables(),
        MappingProxyType({}),
        "environment variables set for the application",
        details="The value credential:NAME becomes the path of the credential NAME that systemd "
        "has loaded (LoadCredential=). Errors show the names of variables, but no values.",
        flag="--env",
    )

    listen: tuple[Listen, ...] = option(
        "listening",
        Records(Listen, unique="address", clash=clash),
        (),
        "an address to listen on",
        details=f"With none, and no socket inherited from systemd: {DEFAULT_LISTEN.address}. "
        "On the command line it replaces all of the file's.",
        flag="--bind",
    )

    workers: int = option(
        "workers",
        Integer(0, MOST_WORKERS),
        1,
        "how many workers serve requests",
        details="0 is one for each CPU it may use, by affinity and its control group's CPUQuota=.",
    )
    worker_mode: WorkerModeName = option(
        "workers",
        Choice("auto", "thread", "process"),
        "auto",
        "what a worker is",
        details="auto is threads on an interpreter without a global lock, else processes.",
    )
    worker_ended: str = option(
        "workers",
        APPLICATION,
        "",
        "the function to call once the process of a worker has ended",
        details="It is module:function, as for the application. A worker that serves calls it, in "
        "a thread, with the process id, the worker's number and its generation. After a stop "
        "nobody does. Workers that are threads never call it.",
    )
    loop: LoopName = option(
        "workers",
        Choice("auto", "uvloop", "asyncio"),
        "auto",
        "the event loop of a worker",
        details="auto is uvloop where it is installed, else asyncio's own.",
    )
    execution: Execution = option(
        "workers",
        Choice("auto", "async", "sync"),
        "auto",
        "where requests are answered: on the worker's event loop, or in its threads",
        details="sync is threads, for code that blocks: the event loop reads whole requests and "
        "sends the responses, and each thread answers one request at a time. auto is sync for "
        "WSGI applications and SyncApps, async for ASGI applications.",
    )
    threads: int = option(
        "workers",
        Integer(1, 1024),
        8,
        "how many threads each worker answers requests in, where execution is sync",
    )
    lifespan: LifespanMode = option(
        "workers",
        Choice("auto", "on", "off"),
        "auto",
        "whether the application's ASGI lifespan is run",
        details="auto runs it where the application supports it; on fails where it does not.",
    )
    max_restarts: int = option(
        "workers",
        Integer(0, 1_000_000),
        30,
        "crashed workers replaced within restart_window before the service gives up",
    )
    restart_window: float = option(
        "workers", Duration(), 60.0, "the time in which max_restarts are counted"
    )
    max_requests: int = option(
        "workers",
        Integer(0),
        0,
        "the requests after which a worker is replaced",
        details="Up to a tenth more, at random, so that workers take turns. 0 is never.",
    )
    max_memory: int = option(
        "workers",
        Integer(0, unit="bytes"),
        0,
        "the resident memory above which a worker process is replaced",
        details="0 is unlimited. Threads share their memory, so it does not apply to them.",
    )
    max_draining: int = option(
        "workers",
        Integer(1, 100),
        3,
        "how many old generations may drain at once; the oldest is cut off first",
    )
    control: str = option(
        "workers",
        FilePath(),
        "",
        "the path of the control socket",
        details="Empty is `control` in the runtime directory that systemd made, else none.",
    )

    deploy: Deploy = option(
        "deploy", Table(Deploy), Deploy(), "what happens before a new generation serves"
    )

    keep_alive_timeout: float = option(
        "timeouts", Duration(), 75.0, "how long an idle connection is kept open"
    )
    header_timeout: float = option(
        "timeouts", Duration(), 30.0, "how long a client may take to send a request's head"
    )
    body_timeout: float = option(
        "timeouts", Duration(), 30.0, "how long a client may pause within a request's body"
    )
    write_timeout: float = option(
        "timeouts", Duration(), 60.0, "how long a client may pause in reading a response"
    )
    startup_timeout: float = option(
        "timeouts", Duration(), 60.0, "how long a worker may take until it is ready"
    )
    shutdown_timeout: float = option(
        "timeouts",
        Duration(),
        30.0,
        "how long each worker may finish requests at a stop",
        details="It is also what handlers get to end after a reload, once reload_timeout is over "
        "and they are told that their clients are gone.",
    )
    event_stream_timeout: float = option(
        "timeouts",
        Duration(),
        2.0,
        "how long event streams (text/event-stream) that GET has asked for may go on at a stop",
        details="Then they end as if their clients had left, who open them again by themselves. "
        "Others are finished like any response, within shutdown_timeout. It has to be less than "
        "shutdown_timeout, in whose last second event streams end whatever this is.",
    )
    reload_timeout: float = option(
        "timeouts", Duration(), 60.0, "how long old workers may finish requests after a reload"
    )
    idle_exit: float = option(
        "timeouts",
        Duration(10.0, off=True),  # PollLimitBurst=: connections start it 5 times in 30 s at most
        0.0,
        "how long a service without a connection goes on",
        details="Then it ends, and the next connection starts it. Idle connections, WebSockets and "
        "work after a response hold it. Where pounce has opened an address itself, it never ends.",
    )
    worker_timeout: float = option(
        "timeouts",
        Duration(1.0),  # a worker's heart beats twice a second
        30.0,
        "how long a worker's event loop may be stuck before it is replaced",
        details="Where execution is sync, also how long a thread may be on one request: then "
        "another thread takes its place. A worker that has lost as many threads as it has is "
        "replaced.",
    )

    max_request_line: int = option(
        "limits", Integer(64, 1_048_576, "bytes"), 8190, "the longest request line"
    )
    max_header_count: int = option(
        "limits", Integer(1, 10_000), 100, "the most header fields of a request"
    )
    max_header_size: int = option(
        "limits",
        Integer(256, 16_777_216, "bytes"),
        65_536,
        "the most that all header fields of a request take together",
    )
    max_body_size: int = option(
        "limits",
        Integer(0, unit="bytes"),
        0,
        "the largest request body",
        details="0 is unlimited, but 128 MiB where execution is sync, which stores bodies until "
        "they are whole.",
    )
    max_stored_size: int = option(
        "limits",
        Integer(0, unit="bytes"),
        1_073_741_824,
        "the most that the stored request bodies of one worker take together",
        details="Applies where execution is sync, to bodies larger than 64 KiB. A request with "
        "more is answered 503. 0 is unlimited; a value below max_body_size is raised to it.",
    )
    max_connections: int = option(
        "limits",
        Integer(1, 1_048_576),
        10_000,
        "the most connections of one worker",
        details="For one more, the worker closes one that never sent a whole request, or that has "
        "been idle for long. If every connection has a request, the worker answers the new one "
        "503, or closes it where it speaks TLS. Descriptors are needed for up to twice as many; "
        "if the hard limit (LimitNOFILE=) is lower, so is the number of connections.",
    )
    max_requests_per_connection: int = option(
        "limits",
        Integer(0),
        0,
        "the most requests of one connection",
        details="0 is unlimited.",
    )

    root_path: str = option(
        "http",
        ROOT_PATH,
        "",
        "the path at which a proxy in front serves the application",
        details="It is ASGI's root_path and WSGI's SCRIPT_NAME. The proxy may take it off the "
        "paths of requests or not. X-Forwarded-Prefix of a trusted proxy counts instead.",
    )
    forwarded_allow: tuple[str, ...] = option(
        "http",
        Texts(TrustedPeer()),
        ("127.0.0.1", "::1", "unix"),
        "the proxies whose X-Forwarded-* and Forwarded fields are believed",
        details="unix is whoever connects to a unix socket, * is everyone. On the command line "
        "they replace the file's. A proxy named here must write or remove X-Forwarded-For, -Proto, "
        "-Host, -Port and -Prefix: those that it passes on are a client's words.",
    )
    forwarded_fields: ForwardedFields = option(
        "http",
        Choice("auto", "x-forwarded", "forwarded"),
        "auto",
        "which fields of these proxies tell of the client",
        details="auto is X-Forwarded-*, or Forwarded in a request that has none of them; the "
        "others are those alone. A proxy passes on what it does not write itself as the client "
        "sent it: name what yours writes, or have it remove the rest.",
    )
    server_header: bool = option(
        "http", Boolean(), True, "whether responses name pounce in a Server field"
    )
    date_header: bool = option("http", Boolean(), True, "whether responses get a Date field")

    websocket_max_size: int = option(
        "websocket", Integer(1, unit="bytes"), 16_777_216, "the largest message from a client"
    )
    websocket_max_memory: int = option(
        "websocket",
        Integer(1, unit="bytes"),
        134_217_728,
        "what messages that are incomplete or wait for the application may take, in each worker",
        details="They count as they are in memory, decompressed or yet to be read; the first "
        "65,536 bytes of each connection do not. Where it is more, the connection that holds most "
        "is closed with 1013 (try again later), and the application gets none of its messages. "
        "It is never less than websocket_max_size and 256 KiB: a message of that size can be held "
        "where there is no other. Leave room for several, and for texts: one wide character makes "
        "all of a text wide. A message that becomes complete is in memory twice for a moment, "
        "compression takes up to 80 KB for each client that uses it, and malloc(3) may keep what "
        "was freed: MALLOC_TRIM_THRESHOLD_ (mallopt(3)) says how much.",
    )
    websocket_ping_interval: float = option(
        "websocket", Duration(), 20.0, "how long a client may be silent until it is sent a ping"
    )
    websocket_ping_timeout: float = option(
        "websocket", Duration(), 20.0, "how long a client may then be silent until it is given up"
    )
    websocket_compression: bool = option(
        "websocket",
        Boolean(),
        True,
        "whether messages are compressed for clients that offer it (permessage-deflate)",
    )

    access_log: str = option(
        "logging",
        LogFilePath(("off", "on")),
        "off",
        "where requests are logged",
        details="on is the service's own log: the journal, under systemd. In a file each line "
        "begins with the time; where logrotate(8) has moved it, a new one begins with the next "
        "line, or at SIGUSR1. A relative path starts at the configuration file's directory. A "
        "request that pounce itself refuses is logged with its request line, or with - where that "
        "cannot be read.",
    )
    log_level: LogLevel = option(
        "logging",
        Choice("debug", "info", "warning", "error"),
        "info",
        "the least severe records that are logged",
    )
    log_format: LogFormat = option(
        "logging",
        Choice("text", "json"),
        "text",
        "how log records are written where stderr is not the journal",
    )

    def __post_init__(self) -> None:
        settle(self)

    def doubts(self) -> list[str]:
        """What is allowed, but cannot have the effect that it seems to be meant for."""
        if self.event_stream_timeout < self.shutdown_timeout:
            return []
        text = (
            f"event_stream_timeout is {self.event_stream_timeout:g} s, but shutdown_timeout is "
            f"{self.shutdown_timeout:g} s: a stop ends event streams within that. Make "
            "shutdown_timeout longer, or event_stream_timeout shorter"
        )
        return [text]

    @property
    def worker_count(self) -> int:
        """How many workers to run, at least 1; asks for the usable CPUs when `workers` is 0."""
        return self.workers or available_cpus()
