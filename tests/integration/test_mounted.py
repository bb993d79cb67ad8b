"""Applications that a proxy serves at a path of its own; HTTP/3 is in test_http3.py."""

import ast
from pathlib import Path
from typing import Any

import pytest

from pounce.application.types import Receive, Scope, Send
from tests.live import live, respond, serve, until
from tests.websocket import HANDSHAKE
from tests.wsgi import PLAIN, Environ, Start, serving

PROXY = ("x-forwarded-prefix: /shop", "x-forwarded-port: 8443")


def tells(*names: str) -> Any:
    """A WSGI application that answers with these variables."""

    def app(environ: Environ, start: Start) -> list[bytes]:
        start("200 OK", PLAIN)
        return [" ".join(environ[name] for name in names).encode("latin-1")]

    return app


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what the scope says of the path."""
    keys = ("root_path", "path", "raw_path")
    await respond(send, repr([scope[key] for key in keys] + [scope["server"][1]]).encode())


def told(response: bytes) -> Any:
    return ast.literal_eval(response.partition(b"\r\n\r\n")[2].decode())


@pytest.mark.parametrize("target", ["/a%20b?c", "/shop/a%20b?c"])
@pytest.mark.parametrize("configured", [True, False])
@live
async def test_wsgi_has_the_path_in_two_parts(target: str, configured: bool) -> None:
    app = tells("SCRIPT_NAME", "PATH_INFO", "REQUEST_URI", "SERVER_PORT")
    options = {"root_path": "/shop"} if configured else {}
    fields = () if configured else PROXY
    async with serving(app, **options) as server, await server.connect() as client:
        port = server.address[1] if configured else 8443
        for _ in range(3):  # the same request again takes another way
            response = await client.get(target, *fields)
            assert response.endswith(f"\r\n\r\n/shop /a b {target} {port}".encode())


@pytest.mark.parametrize("target", ["/a", "/shop/a"])
@live
async def test_asgi_has_both_in_the_path(target: str) -> None:
    async with serve(tell) as server, await server.connect() as client:
        expected = ["/shop", "/shop/a", target.encode(), 8443]
        assert told(await client.get(target, *PROXY)) == expected
        assert told(await client.get(target)) == ["", target, target.encode(), server.address[1]]


@live
async def test_nobody_else_mounts_it() -> None:
    async with (
        serve(tell, forwarded_allow=(), root_path="/own") as server,
        await server.connect() as client,
    ):
        expected = ["/own", "/own/shop/a", b"/shop/a", server.address[1]]
        assert told(await client.get("/shop/a", *PROXY)) == expected


@live
async def test_a_unix_socket_has_the_port_that_clients_use(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with serve(tell, path=path) as server, await server.connect() as client:
        assert told(await client.get("/a", *PROXY))[3] == 8443
        assert told(await client.get("/a"))[3] is None


@pytest.mark.parametrize("target", ["/a", "/shop/a"])
@live
async def test_websockets_are_mounted_alike(target: str) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await receive()
        await send({"type": "websocket.close"})

    async with serve(app) as server, await server.connect() as client:
        await client.ask(target, *HANDSHAKE, *PROXY)
        await until(lambda: bool(scopes))
    assert (scopes[0]["root_path"], scopes[0]["path"]) == ("/shop", "/shop/a")
    assert scopes[0]["server"][1] == 8443
