"""Applications that configure logging, each in its way, before they serve.

`/fail` raises, `/long` at length, `/tell` and `/warn` log to the application's own logger, and
`/again` configures once more, as what is imported late may; `/storm` has a thread do so all the
time.
"""

import logging
import logging.config
import threading
import time
from configparser import RawConfigParser
from typing import Any

OWN = "the application's own words"


def _dict(*, disable: bool) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": disable,
            "formatters": {"own": {"format": "OWN %(levelname)s %(message)s"}},
            "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
            "root": {"handlers": ["own"], "level": "INFO"},
        }
    )


def _none() -> None:
    """Leave logging as it is."""


def _dict_default() -> None:
    _dict(disable=True)


def _dict_enabling() -> None:
    _dict(disable=False)


def _file() -> None:
    sections = {
        "loggers": {"keys": "root"},
        "handlers": {"keys": "own"},
        "formatters": {"keys": "own"},
        "logger_root": {"level": "INFO", "handlers": "own"},
        "handler_own": {"class": "StreamHandler", "args": "()", "formatter": "own"},
        "formatter_own": {"format": "OWN %(levelname)s %(message)s"},
    }
    parser = RawConfigParser()
    parser.read_dict(sections)
    logging.config.fileConfig(parser)


def _basic() -> None:
    logging.basicConfig(format="OWN %(levelname)s %(message)s", level=logging.INFO, force=True)


def _shutdown() -> None:
    _basic()
    logging.shutdown()


def _clear() -> None:
    """Remove every handler there is, and switch pounce's loggers off by name."""
    known = logging.root.manager.loggerDict.values()
    for logger in [each for each in known if isinstance(each, logging.Logger)]:
        logger.handlers.clear()
        logger.setLevel(logging.CRITICAL)
        logger.disabled = logger.name.startswith("pounce")
    _basic()
    logging.getLogger("logs").setLevel(logging.INFO)


def _factory() -> None:
    def fail(*_args: Any, **_named: Any) -> logging.LogRecord:
        """Make records for this application's own loggers only."""
        if _args[0] != "logs":
            raise LookupError(_args[0])
        return logging.LogRecord(*_args, **_named)

    _basic()
    logging.setLogRecordFactory(fail)


def _django() -> None:
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(
            LOGGING={
                "version": 1,  # and existing loggers are disabled, as by default
                "formatters": {"own": {"format": "OWN %(levelname)s %(message)s"}},
                "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
                "root": {"handlers": ["own"], "level": "INFO"},
            }
        )
    django.setup()


WAYS = {
    "none": _none,
    "dict_default": _dict_default,
    "dict_enabling": _dict_enabling,
    "file": _file,
    "basic": _basic,
    "shutdown": _shutdown,
    "clear": _clear,
    "factory": _factory,
    "django": _django,
}


def _answer(path: str, way: str) -> None:
    if path == "/fail":
        raise LookupError("nothing is there")
    if path == "/long":
        raise LookupError("\n".join("nothing is there either" for _ in range(500)))
    if path == "/tell":
        logging.getLogger("logs").info(OWN)
    if path == "/warn":
        logging.getLogger("logs").warning(OWN)
    if path == "/again":
        WAYS[way]()
    if path == "/storm":
        threading.Thread(target=_storm, args=(way,), daemon=True).start()


def _storm(way: str) -> None:
    """Configure logging again and again, for two seconds."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        WAYS[way]()


def _asgi(way: str) -> Any:
    WAYS[way]()

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        _answer(scope["path"], way)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


def _wsgi(way: str) -> Any:
    WAYS[way]()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        _answer(environ["PATH_INFO"], way)
        start_response("200 OK", [])
        return [b"ok"]

    return app


def __getattr__(name: str) -> Any:
    """``asgi_WAY`` and ``wsgi_WAY`` are the applications."""
    interface, _, way = name.partition("_")
    if way not in WAYS:
        raise AttributeError(name)
    return {"asgi": _asgi, "wsgi": _wsgi}[interface](way)
