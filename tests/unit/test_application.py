"""Telling ASGI, WSGI and SyncApp apart, and what each does with `execution`."""

import functools
from typing import Any

import pytest

from pounce.application.interface import as_served
from pounce.application.sync_app import RawRequest, RawResponse
from pounce.config.service import ServerConfig
from pounce.errors import PounceError


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


class ASGIObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class ASGIMiddleware:
    def __call__(self, scope: Any, receive: Any, send: Any) -> Any: ...


class WSGIObject:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []

    def method(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class WSGIClass:
    def __init__(self, environ: Any, start_response: Any) -> None: ...


class Raw:
    def handle_sync(self, request: RawRequest) -> RawResponse | None: ...


class RawAndASGI(Raw, ASGIObject): ...


class ASGI2:
    def __init__(self, scope: Any) -> None: ...


def anything(*arguments: Any) -> None: ...


def four(a: Any, b: Any, c: Any, d: Any) -> None: ...


@functools.wraps(asgi)
def wrapped(*arguments: Any) -> Any: ...


def optional(environ: Any, start_response: Any, more: Any = None) -> None: ...


def configured(setting: Any, environ: Any, start_response: Any) -> None: ...


@pytest.mark.parametrize(
    ("application", "kind", "in_threads"),
    [
        (asgi, "ASGI", False),
        (ASGIObject(), "ASGI", False),
        (ASGIMiddleware(), "ASGI", False),
        (functools.partial(asgi), "ASGI", False),
        (wrapped, "ASGI", False),
        (wsgi, "WSGI", True),
        (WSGIObject(), "WSGI", True),
        (WSGIObject().method, "WSGI", True),
        (WSGIClass, "WSGI", True),
        (optional, "WSGI", True),
        (functools.partial(configured, 1), "WSGI", True),
        (Raw(), "SyncApp", True),
        (RawAndASGI(), "SyncApp", True),
    ],
)
def test_it_is_told_by_how_it_can_be_called(
    application: object, kind: str, in_threads: bool
) -> None:
    served = as_served(application, None, ServerConfig())
    assert (served.kind, served.in_threads) == (kind, in_threads)


def test_a_sync_app_may_have_an_asgi_side() -> None:
    both = RawAndASGI()
    assert as_served(both, None, ServerConfig()).asgi is both
    assert as_served(Raw(), None, ServerConfig()).asgi is None
    assert as_served(asgi, Raw(), ServerConfig()).asgi is asgi
    assert as_served(None, Raw(), ServerConfig()).asgi is None


@pytest.mark.parametrize(
    ("application", "options", "kind", "in_threads"),
    [
        (anything, {"interface": "wsgi"}, "WSGI", True),
        (anything, {"interface": "asgi"}, "ASGI", False),
        (asgi, {"execution": "sync"}, "ASGI", True),
        (RawAndASGI(), {"execution": "async"}, "ASGI", False),
        (RawAndASGI(), {"interface": "asgi"}, "ASGI", False),
    ],
)
def test_what_is_asked_for_counts(
    application: object, options: Any, kind: str, in_threads: bool
) -> None:
    served = as_served(application, None, ServerConfig(**options))
    assert (served.kind, served.in_threads) == (kind, in_threads)


@pytest.mark.parametrize(
    ("application", "options", "status", "words"),
    [
        (5, {}, 70, ["is int, not an ASGI or WSGI application", "(environ, start_response)"]),
        (None, {"app": "shop:make()"}, 70, ["'shop:make()' is NoneType"]),
        (anything, {"app": "shop:app"}, 70, ["'shop:app'", "any number of", "`interface`"]),
        (four, {}, 70, ["cannot be told: it takes 4 arguments", '"asgi" or "wsgi"']),
        (ASGI2, {}, 70, ["as applications of ASGI 2 do", "guarantee_single_callable"]),
        (wsgi, {"execution": "async"}, 78, ["blocks: it is a WSGI application", '"auto"']),
        (Raw(), {"execution": "async"}, 78, ["blocks: it is a SyncApp"]),
        (wsgi, {"lifespan": "on"}, 78, ["only ASGI applications have one"]),
    ],
)
def test_what_cannot_be_served(
    application: object, options: Any, status: int, words: list[str]
) -> None:
    with pytest.raises(PounceError) as raised:
        as_served(application, None, ServerConfig(**options))
    assert raised.value.exit_code == status
    text = f"{raised.value.message} {raised.value.hint}"
    assert not [word for word in words if word not in text], text


def test_a_sync_app_does_not_fall_through_to_wsgi() -> None:
    with pytest.raises(PounceError, match="this one's is WSGI"):
        as_served(wsgi, Raw(), ServerConfig())
