"""Calling applications that implement `SyncApp`."""

from pounce.application.sync_app import RawRequest, RawResponse, SyncApp
from pounce.application.types import Scope, as_bytes, as_status
from pounce.http.response_head import ResponseHead
from pounce.threads.exchange import Exchange
from pounce.threads.handler import Handler

_NOT_FOUND = RawResponse(
    404, ((b"content-type", b"text/plain; charset=utf-8"),), b"404 Not Found\n"
)


class SyncAppHandler(Handler):
    """Answers with *app*; what that leaves is for an ASGI application, if it *falls_through*."""

    def __init__(self, app: SyncApp, *, falls_through: bool) -> None:
        self._handle = app.handle_sync
        self._falls_through = falls_through

    def answer(self, exchange: Exchange) -> None:
        """Call the application."""
        body = exchange.content.read() if exchange.content is not None else b""
        response = self._handle(_request(exchange.scope, body))
        if response is None and self._falls_through:
            exchange.fall_through(body)
        else:
            response = response or _NOT_FOUND
            head = ResponseHead(as_status(response.status), response.headers)
            exchange.reply(head, as_bytes(response.body))


def _request(scope: Scope, body: bytes) -> RawRequest:
    return RawRequest(
        method=scope["method"].encode(),
        path=scope["raw_path"],
        query_string=scope["query_string"],
        headers=tuple(scope["headers"]),
        body=body,
        client=scope["client"],
        server=scope["server"],
        http_version=scope["http_version"],
        scheme=scope["scheme"],
    )
