"""The environ: which variable has what, and what is in none."""

from typing import Any

import pytest

from pounce.asgi.scope import build_scope
from pounce.wsgi.environ import EnvironMaker


def environ(
    target: bytes = b"/",
    *fields: tuple[bytes, bytes],
    method: str = "GET",
    version: str = "1.1",
    scheme: str = "http",
    client: tuple[str, int] | None = ("203.0.113.7", 5000),
    server: tuple[str, int | None] | None = ("192.0.2.1", 8000),
    root_path: str = "",
) -> dict[str, Any]:
    scope = build_scope(
        method, target, list(fields), version, scheme, client, server, root_path, {}, {}
    )
    maker = EnvironMaker(multithread=True, multiprocess=False)
    return maker.make(scope)


@pytest.mark.parametrize(
    ("target", "root_path", "script_name", "path_info", "query"),
    [
        (b"/", "", "", "/", ""),
        (b"/a/b?c=d&e=%20", "", "", "/a/b", "c=d&e=%20"),
        (b"/a%2Fb%20c", "", "", "/a/b c", ""),
        ("/ü".encode().replace("ü".encode(), b"%C3%BC"), "", "", "/\xc3\xbc", ""),
        (b"/%FF", "", "", "/\xff", ""),
        (b"/x?y", "/shop", "/shop", "/x", "y"),
        (b"/shop/x?y", "/shop", "/shop", "/x", "y"),
        (b"/sh%6Fp/%78", "/shop", "/shop", "/x", ""),
        (b"/shop/", "/shop", "/shop", "/", ""),
        (b"/shop", "/shop", "/shop", "", ""),
        (b"/shop?y", "/shop", "/shop", "", "y"),
        (b"/shopping", "/shop", "/shop", "/shopping", ""),
        (b"/shop/shop/x", "/shop", "/shop", "/shop/x", ""),
        (b"/shop/eu/x", "/shop/eu", "/shop/eu", "/x", ""),
        (b"/shop/x", "/shop/eu", "/shop/eu", "/shop/x", ""),
        (b"/%C3%BC/%FF", "/\u00fc", "/\xc3\xbc", "/\xff", ""),
        (b"*", "/shop", "/shop", "/", ""),
        (b"/%78", "/\u00fc", "/\xc3\xbc", "/x", ""),
        (b"*", "", "", "/", ""),
        (b"//a", "", "", "//a", ""),
        (b"/?a?b", "", "", "/", "a?b"),
    ],
)
def test_paths_are_bytes_as_latin_1(
    target: bytes, root_path: str, script_name: str, path_info: str, query: str
) -> None:
    found = environ(target, root_path=root_path)
    assert found["SCRIPT_NAME"] == script_name
    assert found["PATH_INFO"] == path_info
    assert found["QUERY_STRING"] == query
    assert found["REQUEST_URI"] == target.decode()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([(b"x-a", b"1")], {"HTTP_X_A": "1"}),
        ([(b"x-a", b"1"), (b"x-a", b"2")], {"HTTP_X_A": "1,2"}),
        ([(b"cookie", b"a=1"), (b"cookie", b"b=2")], {"HTTP_COOKIE": "a=1; b=2"}),
        ([(b"content-type", b"text/plain")], {"CONTENT_TYPE": "text/plain"}),
        ([(b"x-a", b"\xe9")], {"HTTP_X_A": "\xe9"}),
        ([(b"x_a", b"1")], {}),
        ([(b"remote_user", b"root"), (b"remote-user", b"guest")], {"HTTP_REMOTE_USER": "guest"}),
        ([(b"transfer-encoding", b"chunked")], {}),
        ([(b"content-length", b"0")], {"CONTENT_LENGTH": "0"}),
        ([(b"proxy", b"http://evil.example")], {"HTTP_PROXY": "http://evil.example"}),
    ],
)
def test_fields(fields: list[tuple[bytes, bytes]], expected: dict[str, str]) -> None:
    found = environ(b"/", *fields)
    kept = {key: found[key] for key in found if key.startswith(("HTTP_", "CONTENT_"))}
    assert kept == expected


@pytest.mark.parametrize(
    ("server", "scheme", "host", "name", "port"),
    [
        (("192.0.2.1", 8000), "http", b"a.example", "192.0.2.1", "8000"),
        (("/run/s", None), "http", b"a.example", "a.example", "80"),
        (("/run/s", None), "https", b"a.example", "a.example", "443"),
        (("/run/s", None), "http", b"a.example:81", "a.example", "81"),
        (("/run/s", None), "http", b"[::1]:81", "[::1]", "81"),
        (("/run/s", None), "http", b"[::1]", "[::1]", "80"),
        (None, "http", b"", "localhost", "80"),
    ],
)
def test_the_server(server: Any, scheme: str, host: bytes, name: str, port: str) -> None:
    found = environ(b"/", (b"host", host), server=server, scheme=scheme)
    assert (found["SERVER_NAME"], found["SERVER_PORT"]) == (name, port)
    assert found["wsgi.url_scheme"] == scheme


def test_the_rest() -> None:
    found = environ(b"/a%20b?c", method="POST", version="1.0")
    assert found["REQUEST_METHOD"] == "POST"
    assert found["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert found["REQUEST_URI"] == "/a%20b?c"
    assert (found["REMOTE_ADDR"], found["REMOTE_PORT"]) == ("203.0.113.7", "5000")
    assert (found["wsgi.multithread"], found["wsgi.multiprocess"]) == (True, False)
    assert (found["wsgi.version"], found["wsgi.run_once"]) == ((1, 0), False)
    assert found["wsgi.input_terminated"] is True


def test_a_client_on_a_unix_socket_has_no_address() -> None:
    found = environ(client=None)
    assert (found["REMOTE_ADDR"], found["REMOTE_PORT"]) == ("", "")
